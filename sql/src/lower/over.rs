//! OVER: one operator per window of a query, columns for its arguments, then the calls in the order of the text.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, Window, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};
use freshet_core::{Frame, FrameBound, FrameUnit, NodeId, Op, OverCall, OverFunction, RankKind, Value};

use super::Lowering;
use super::aggregate::{Call, call_of};
use super::top::integer;
use crate::expr::bare;
use crate::now::{exact_ns, mentions_now, readable};
use crate::refusal::{Refusal, Result};
use crate::ties::{call_in, is_tie_sensitive};

/// A call before its arguments are columns.
struct Planned {
    function: Function,
    frame: Frame,
}

enum Function {
    Ready(OverFunction),
    Lag { argument: Expr, offset: i64, default: Value, ignore_nulls: bool },
    Nth { argument: Expr, nth: i64, ignore_nulls: bool },
    Aggregate(Box<Call>),
}

impl Function {
    fn arguments(&self) -> Vec<Expr> {
        match self {
            Function::Ready(_) => Vec::new(),
            Function::Lag { argument, .. } | Function::Nth { argument, .. } => vec![argument.clone()],
            Function::Aggregate(call) => call.exprs().cloned().collect(),
        }
    }

    fn over(self, columns: &mut impl Iterator<Item = usize>) -> OverFunction {
        let mut next = || columns.next().expect("one column per argument");
        match self {
            Function::Aggregate(call) => OverFunction::Aggregate(call.planned(columns)),
            Function::Ready(function) => function,
            Function::Lag { offset, default, ignore_nulls, .. } => OverFunction::Lag { column: next(), offset, default, ignore_nulls },
            Function::Nth { nth, ignore_nulls, .. } => OverFunction::Nth { column: next(), nth, ignore_nulls },
        }
    }
}

impl Lowering<'_> {
    pub(super) fn over(&mut self, window: &Window) -> Result<NodeId> {
        let mut node = self.lower(&window.input)?;
        let schema = window.input.schema();
        let own = self.width(node);
        // A plan's node has one sort order, which several windows may share.
        let mut groups: Vec<(&[Expr], &[SortExpr], Vec<usize>)> = Vec::new();
        for (index, expr) in window.window_expr.iter().enumerate() {
            let params = &call_in(expr).ok_or_else(|| Refusal::new(format!("{} is no window function", readable(expr))))?.params;
            match groups.iter_mut().find(|group| group.0 == params.partition_by && group.1 == params.order_by) {
                Some(group) => group.2.push(index),
                None => groups.push((&params.partition_by, &params.order_by, vec![index])),
            }
        }
        let mut places = vec![0; window.window_expr.len()];
        for (partition, order, members) in groups {
            for (place, index) in members.iter().enumerate() {
                places[*index] = self.width(node) + place;
            }
            node = self.over_one(node, (window, schema), (partition, order), &members)?;
        }
        let columns: Vec<usize> = (0..own).chain(places).collect();
        Ok(self.pick(node, &columns))
    }

    /// The calls of one window, behind the columns of `input`, which begin with those of the schema.
    fn over_one(&mut self, input: NodeId, (window, schema): (&Window, &DFSchema), by: (&[Expr], &[SortExpr]), members: &[usize]) -> Result<NodeId> {
        let calls: Vec<&WindowFunction> = members.iter().map(|index| call_in(&window.window_expr[*index]).expect("it was one before")).collect();
        let planned = calls.iter().map(|call| planned(call, schema)).collect::<Result<Vec<_>>>()?;
        let arguments: Vec<Expr> = planned.iter().flat_map(|call| call.function.arguments()).collect();
        let wide_schema = self.beside(input, schema)?;
        let found = self.ordered(input, &wide_schema, by, &arguments, calls.iter().all(|call| is_tie_sensitive(call)))?;
        let mut columns = found.rest.into_iter();
        let calls: Vec<OverCall> =
            planned.into_iter().map(|call| OverCall { function: call.function.over(&mut columns), frame: call.frame }).collect();
        let wide = self.schema(found.node);
        let first = schema.fields().len();
        let new = members.iter().map(|index| {
            let field = window.schema.field(first + index);
            Arc::new(Field::new(field.name(), field.data_type().clone(), true))
        });
        let fields: Vec<Arc<Field>> = wide.fields().iter().cloned().chain(new).collect();
        let (own, wide) = (self.width(input), wide.fields().len());
        let count = calls.len();
        let op = Op::Over { partition: found.partition, order: found.order, calls };
        let node = self.push(op, vec![found.node], Arc::new(Schema::new(fields)));
        let kept: Vec<usize> = (0..own).chain(wide..wide + count).collect();
        Ok(self.pick(node, &kept))
    }

    /// The schema with names, so that no text means them, for the columns that a node has beside it.
    fn beside(&self, node: NodeId, schema: &DFSchema) -> Result<DFSchema> {
        let mut fields: Vec<_> = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        let more = self.schema(node);
        fields.extend(
            more.fields()
                .iter()
                .enumerate()
                .skip(fields.len())
                .map(|(index, field)| (None, Arc::new(field.as_ref().clone().with_name(format!("{index}$"))))),
        );
        Ok(DFSchema::new_with_metadata(fields, Default::default())?)
    }
}

fn planned(call: &WindowFunction, schema: &DFSchema) -> Result<Planned> {
    let expr = Expr::from(call.clone());
    if mentions_now(&expr) {
        return Err(crate::now::refuse_now(&expr));
    }
    let params = &call.params;
    let name = call.fun.name();
    let refuse = |message: String| Refusal::new(message).at_expr(&expr);
    let ignore_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    let argument = || params.args.first().cloned().map_or_else(|| Err(refuse(format!("{name}() needs an argument"))), bare);
    let number = |index: usize, default: i64| match params.args.get(index).cloned().map(bare).transpose()? {
        None => Ok(default),
        Some(expr) => integer(&expr)
            .and_then(|value| i64::try_from(value).ok())
            .ok_or_else(|| refuse(format!("{name}() takes a constant number there")).help(format!("{name}(column, 2)"))),
    };
    let function = match &call.fun {
        WindowFunctionDefinition::AggregateUDF(function) => {
            let as_aggregate = Expr::AggregateFunction(AggregateFunction::new_udf(
                function.clone(),
                params.args.clone(),
                params.distinct,
                params.filter.clone(),
                Vec::new(),
                params.null_treatment,
            ));
            match name {
                "first_value" => Function::Nth { argument: argument()?, nth: 1, ignore_nulls },
                "last_value" => Function::Nth { argument: argument()?, nth: -1, ignore_nulls },
                _ => {
                    let call = call_of(&as_aggregate, schema).map_err(|refusal| refusal.at_expr(&expr))?;
                    if call.function.is_of_sequences() {
                        return Err(
                            refuse(format!("{name}() is not kept up to date over a frame")).help(format!("{name}(… ORDER BY …) with GROUP BY"))
                        );
                    }
                    Function::Aggregate(Box::new(call))
                }
            }
        }
        WindowFunctionDefinition::WindowUDF(_) => match name {
            "row_number" => Function::Ready(OverFunction::Rank(RankKind::RowNumber)),
            "rank" => Function::Ready(OverFunction::Rank(RankKind::Rank)),
            "dense_rank" => Function::Ready(OverFunction::Rank(RankKind::DenseRank)),
            "percent_rank" => Function::Ready(OverFunction::PercentRank),
            "cume_dist" => Function::Ready(OverFunction::CumeDist),
            "ntile" => match u64::try_from(number(0, 0)?) {
                Ok(buckets @ 1..) => Function::Ready(OverFunction::Ntile { buckets }),
                _ => return Err(refuse("ntile() takes a number of buckets, at least 1".into()).help("ntile(4)")),
            },
            "lag" | "lead" => {
                let offset = number(1, 1)?;
                let offset = if name == "lag" { Some(offset) } else { offset.checked_neg() };
                let offset = offset.filter(|offset| offset.checked_abs().is_some()).ok_or_else(|| refuse(format!("{name}() is too far away")))?;
                Function::Lag { offset, default: default_of(call, schema)?, argument: argument()?, ignore_nulls }
            }
            "first_value" => Function::Nth { argument: argument()?, nth: 1, ignore_nulls },
            "last_value" => Function::Nth { argument: argument()?, nth: -1, ignore_nulls },
            "nth_value" => match number(1, 0)? {
                0 | i64::MIN => {
                    return Err(refuse("nth_value() counts from 1, or from -1 at the end of the frame".into()).help("nth_value(column, 2)"));
                }
                nth => Function::Nth { argument: argument()?, nth, ignore_nulls },
            },
            other => return Err(refuse(format!("the window function {other} is not kept up to date"))),
        },
    };
    Ok(Planned { function, frame: frame_of(call, schema)? })
}

/// The third argument of lag and lead, in the type of the first.
fn default_of(call: &WindowFunction, schema: &DFSchema) -> Result<Value> {
    let Some(default) = call.params.args.get(2).cloned().map(bare).transpose()? else { return Ok(Value::Null) };
    let wanted = call.params.args[0].get_type(schema)?;
    let literal = match &default {
        Expr::Literal(value, _) => value.clone(),
        Expr::Cast(cast) => match cast.expr.as_ref() {
            Expr::Literal(value, _) => value.clone(),
            _ => return Err(constant_default(&default)),
        },
        Expr::Negative(inner) => match inner.as_ref() {
            Expr::Literal(value, _) => value.arithmetic_negate()?,
            _ => return Err(constant_default(&default)),
        },
        _ => return Err(constant_default(&default)),
    };
    Value::of(&literal.cast_to(&wanted)?.to_array_of_size(1)?, 0).map_err(|error| Refusal::new(error.to_string()))
}

fn constant_default(expr: &Expr) -> Refusal {
    Refusal::new(format!("the default of lag and lead is a constant, not {}", readable(expr))).help("coalesce(lag(a) OVER …, b)").at_expr(expr)
}

fn frame_of(call: &WindowFunction, schema: &DFSchema) -> Result<Frame> {
    let frame = &call.params.window_frame;
    let unit = match frame.units {
        WindowFrameUnits::Rows => FrameUnit::Rows,
        WindowFrameUnits::Range => FrameUnit::Range,
        WindowFrameUnits::Groups => FrameUnit::Groups,
    };
    let key = call.params.order_by.first().map(|key| key.expr.get_type(schema)).transpose()?;
    let distance = |value: &ScalarValue| match unit {
        FrameUnit::Rows | FrameUnit::Groups => {
            let value = integer(&Expr::Literal(value.clone(), None));
            value.map(Value::Int).ok_or_else(|| Refusal::new("a frame's distance is a whole number").help("ROWS BETWEEN 2 PRECEDING AND CURRENT ROW"))
        }
        FrameUnit::Range => match &key {
            Some(key) => range_distance(value, key, call),
            None => Err(Refusal::new("RANGE with a distance needs one ORDER BY column").help("OVER (ORDER BY ts RANGE BETWEEN …)")),
        },
    };
    let bound = |bound: &WindowFrameBound| -> Result<FrameBound> {
        Ok(match bound {
            bound if bound.is_unbounded() => FrameBound::Unbounded,
            WindowFrameBound::Preceding(value) => FrameBound::Preceding(distance(value)?),
            WindowFrameBound::CurrentRow => FrameBound::Current,
            WindowFrameBound::Following(value) => FrameBound::Following(distance(value)?),
        })
    };
    Ok(Frame { unit, start: bound(&frame.start_bound)?, end: bound(&frame.end_bound)? })
}

/// A distance in the unit of the ORDER BY column.
fn range_distance(value: &ScalarValue, key: &DataType, call: &WindowFunction) -> Result<Value> {
    let at = |refusal: Refusal| refusal.at_expr(&Expr::from(call.clone()));
    let ns_per_unit: i64 = match key {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
        DataType::Date32 => 86_400_000_000_000,
        key if key.is_numeric() => {
            let value = Value::of(&value.cast_to(key)?.to_array_of_size(1)?, 0).map_err(|error| Refusal::new(error.to_string()))?;
            return match value {
                Value::Int(_) | Value::Float(_) => Ok(value),
                _ => Err(at(Refusal::new("the distance of a RANGE frame is a number"))),
            };
        }
        other => return Err(at(Refusal::new(format!("there are no distances between values of {other}")).help("ROWS or GROUPS count rows instead"))),
    };
    let ns = exact_ns(value)?.ok_or_else(|| at(Refusal::new("the distance of a RANGE frame over time is an INTERVAL")))?;
    if ns % ns_per_unit != 0 {
        return Err(at(Refusal::new(format!("the distance of the RANGE frame is finer than {key}, which it is measured in"))));
    }
    Ok(Value::Int(i128::from(ns / ns_per_unit)))
}

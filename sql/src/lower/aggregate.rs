//! GROUP BY and DISTINCT: keys, arguments and filters in columns, then one operator.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction as AggregateExpr, AggregateFunctionParams, NullTreatment};
use datafusion::logical_expr::{Aggregate, Cast, Expr, ExprSchemable};
use freshet_core::{AggregateCall, AggregateFunction, AggregateParameter, ExprRef, Fraction, Literal, NodeId, Op, SortKey};

use super::Lowering;
use super::groups::{GroupingSet, grouping_sets};
use super::output::stored_as;
use super::project::column;
use crate::expr::bare;
use crate::now::{mentions_now, readable};
use crate::quality::{Quality, loss_of};
use crate::refusal::{Refusal, Result};

/// One aggregate of the text, before what it reads is columns.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub function: AggregateFunction,
    pub argument: Option<Expr>,
    /// Labels of auc, x of pairs, weights.
    pub second: Option<Expr>,
    pub distinct: bool,
    pub filter: Option<Expr>,
    pub order_by: Vec<Order>,
    pub ignore_nulls: bool,
    pub parameter: Option<AggregateParameter>,
}

/// An expression of an ORDER BY.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub expr: Expr,
    pub descending: bool,
    pub nulls_first: bool,
}

impl Call {
    fn new(function: AggregateFunction, argument: Option<Expr>, params: &AggregateFunctionParams) -> Call {
        let (distinct, filter) = (params.distinct, params.filter.as_deref().cloned());
        Call { function, argument, second: None, distinct, filter, order_by: Vec::new(), ignore_nulls: false, parameter: None }
    }

    /// In the order in which `planned` takes their columns.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.argument.iter().chain(&self.second).chain(&self.filter).chain(self.order_by.iter().map(|order| &order.expr))
    }

    pub fn planned(self, columns: &mut impl Iterator<Item = usize>) -> AggregateCall {
        AggregateCall {
            function: self.function,
            argument: self.argument.and_then(|_| columns.next()),
            second: self.second.and_then(|_| columns.next()),
            distinct: self.distinct,
            filter: self.filter.and_then(|_| columns.next()),
            order_by: self
                .order_by
                .iter()
                .zip(columns)
                .map(|(order, column)| SortKey { column, descending: order.descending, nulls_first: order.nulls_first })
                .collect(),
            ignore_nulls: self.ignore_nulls,
            parameter: self.parameter,
        }
    }
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<NodeId> {
        let input = self.lower(&aggregate.input)?;
        let schema = aggregate.input.schema();
        let sets = grouping_sets(aggregate)?;
        let keys = match &sets {
            Some(sets) => sets.keys.clone(),
            None => group_keys(aggregate)?,
        };
        let calls = aggregate.aggr_expr.iter().map(|expr| call_of(expr, schema)).collect::<Result<Vec<_>>>()?;
        let mut wanted = keys.clone();
        for call in &calls {
            if let Some(filter) = call.filter.as_ref().filter(|filter| mentions_now(filter)) {
                return Err(Refusal::new("an aggregate over a window that ends at now() belongs into a feature view")
                    .help("CREATE FEATURE VIEW name ENTITY (key) TIMESTAMP ts AS SELECT …; or filter the rows: WHERE ts > now() - INTERVAL '1 hour'")
                    .at_expr(filter)
                    .about_now());
            }
            wanted.extend(call.exprs().cloned());
        }
        let (node, mut columns) = self.arguments(input, schema, &wanted)?;
        let mut rest = columns.split_off(keys.len()).into_iter();
        let calls: Vec<AggregateCall> = calls.into_iter().map(|call| call.planned(&mut rest)).collect();
        let fields: Vec<FieldRef> =
            aggregate.schema.fields().iter().map(|field| Arc::new(Field::new(field.name(), field.data_type().clone(), true))).collect();
        match sets {
            Some(sets) => self.grouping_sets(node, (&columns, &calls), &sets.sets, &fields),
            None => Ok(self.push(Op::Aggregate { keys: columns, calls }, vec![node], Arc::new(Schema::new(fields)))),
        }
    }

    /// One aggregate per set, brought to one form: NULL where the set leaves a key out, and the number of the set. A set without keys has
    /// always its one row, so that a grand total is there before the first row.
    fn grouping_sets(
        &mut self,
        input: NodeId,
        (keys, calls): (&[usize], &[AggregateCall]),
        sets: &[GroupingSet],
        fields: &[FieldRef],
    ) -> Result<NodeId> {
        let mut branches = Vec::with_capacity(sets.len());
        for set in sets {
            let own: Vec<usize> = set.keys.iter().map(|key| keys[*key]).collect();
            let own_fields = set.keys.iter().map(|key| &fields[*key]).chain(&fields[keys.len() + 1..]).cloned();
            let schema = Arc::new(Schema::new(own_fields.collect::<Vec<FieldRef>>()));
            let node = self.push(Op::Aggregate { keys: own, calls: calls.to_vec() }, vec![input], schema.clone());
            let mut exprs: Vec<ExprRef> = Vec::with_capacity(fields.len());
            for (key, field) in fields[..keys.len()].iter().enumerate() {
                exprs.push(match set.keys.iter().position(|kept| *kept == key) {
                    Some(place) => column(&schema, place),
                    None => Arc::new(Literal { value: new_null_array(field.data_type(), 1), text: format!("NULL::{}", field.data_type()) }),
                });
            }
            let id = ScalarValue::UInt64(Some(set.id)).cast_to(fields[keys.len()].data_type())?;
            exprs.push(Arc::new(Literal { value: id.to_array_of_size(1)?, text: set.id.to_string() }));
            exprs.extend((0..calls.len()).map(|call| column(&schema, set.keys.len() + call)));
            branches.push(self.project_always(node, exprs, fields.iter().map(|field| field.name().clone()).collect()));
        }
        Ok(match branches[..] {
            [only] => only,
            _ => {
                let schema = self.schema(branches[0]);
                self.push(Op::Union, branches, schema)
            }
        })
    }
}

/// The grouping expressions without aliases. Errors: grouping sets.
pub(super) fn group_keys(aggregate: &Aggregate) -> Result<Vec<Expr>> {
    let keys = aggregate.group_expr.iter().map(|expr| bare(expr.clone())).collect::<Result<Vec<_>>>()?;
    if keys.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
        return Err(Refusal::new("GROUPING SETS, ROLLUP and CUBE have no place here").help("use them in a materialised view"));
    }
    Ok(keys)
}

/// Errors: a function that cannot be kept up to date, or not for this type.
pub(super) fn call_of(expr: &Expr, schema: &DFSchema) -> Result<Call> {
    use AggregateFunction::*;
    let expr = bare(expr.clone())?;
    let Expr::AggregateFunction(AggregateExpr { func, params }) = &expr else {
        return Err(Refusal::new(format!("{} is not an aggregate", readable(&expr))).at_expr(&expr));
    };
    let refuse = |message: String| Refusal::new(message).at_expr(&expr);
    if let Some(quality) = Quality::named(func.name()) {
        return quality_call(quality, params, &expr);
    }
    let function = match func.name() {
        "count" => Count,
        "sum" => Sum,
        "avg" => Avg,
        // Any value will do; the least one is the same for every order of the rows.
        "min" | "any_value" => Min,
        "max" => Max,
        "var" => VarSamp,
        "var_pop" => VarPop,
        "stddev" => StddevSamp,
        "stddev_pop" => StddevPop,
        "bool_and" => BoolAnd,
        "bool_or" => BoolOr,
        "bit_and" => BitAnd,
        "bit_or" => BitOr,
        "bit_xor" => BitXor,
        "corr" => Corr,
        "covar_samp" => CovarSamp,
        "covar_pop" => CovarPop,
        "regr_slope" => RegrSlope,
        "regr_intercept" => RegrIntercept,
        "regr_count" => RegrCount,
        "regr_r2" => RegrR2,
        "regr_avgx" => RegrAvgX,
        "regr_avgy" => RegrAvgY,
        "regr_sxx" => RegrSxx,
        "regr_syy" => RegrSyy,
        "regr_sxy" => RegrSxy,
        "median" | "percentile_cont" => PercentileCont,
        "approx_distinct" => ApproxDistinct,
        "approx_median" | "approx_percentile_cont" | "approx_percentile_cont_with_weight" => ApproxPercentile,
        "first_value" => FirstValue,
        "last_value" => LastValue,
        "nth_value" => NthValue,
        "array_agg" => ArrayAgg,
        "string_agg" => StringAgg,
        other => {
            return Err(refuse(format!("the aggregate {other} is not kept up to date")).help(
                "these are: count, sum, avg, min, max, any_value, var, stddev, corr, covar, regr_*, bool_*, bit_*, median, percentile_cont, approx_*, \
                 first_value, last_value, nth_value, array_agg, string_agg, auc, log_loss, brier",
            ));
        }
    };
    if params.null_treatment.is_some() && !function.is_of_sequences() {
        return Err(refuse(format!("{} takes neither IGNORE NULLS nor RESPECT NULLS", function.sql())));
    }
    let mut call = Call::new(function, None, params);
    match params.args.as_slice() {
        [] => {}
        [Expr::Literal(value, _)] if function == Count && !value.is_null() && !params.distinct => {}
        [y, x] if function.is_of_pairs() => {
            if params.distinct {
                return Err(refuse(format!("{} takes no DISTINCT", function.sql())).help("SELECT DISTINCT the pairs in a subquery"));
            }
            let number = |expr: &Expr| number_of(function, expr.clone(), schema);
            (call.argument, call.second) = (Some(number(y)?), Some(number(x)?));
        }
        [argument, rest @ ..] => {
            call.argument = Some(argument_of(function, argument.clone(), schema)?);
            constants(&mut call, func.name(), rest, params, &refuse, schema)?;
        }
    }
    if function.is_of_sequences() {
        order(&mut call, params, &refuse)?;
    }
    Ok(call)
}

/// What follows the first argument.
fn constants(
    call: &mut Call,
    name: &str,
    rest: &[Expr],
    params: &AggregateFunctionParams,
    refuse: &impl Fn(String) -> Refusal,
    schema: &DFSchema,
) -> Result<()> {
    let fraction = |expr: Option<&Expr>| {
        let value = expr.and_then(literal).and_then(|value| match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(value)) => value,
            _ => None,
        });
        // WITHIN GROUP (ORDER BY x DESC) counts from the other end.
        let descending = params.order_by.first().is_some_and(|sort| !sort.asc);
        let found = value.and_then(|value| Fraction::new(if descending { 1.0 - value } else { value }));
        let found = found.ok_or_else(|| refuse(format!("{name} takes a number from 0 to 1")).help(format!("{name}(x, 0.5)")))?;
        Ok::<_, Refusal>(Some(AggregateParameter::Fraction(found)))
    };
    match (name, rest) {
        ("median" | "approx_median", []) => {
            call.parameter = Fraction::new(0.5).map(AggregateParameter::Fraction);
        }
        ("percentile_cont", [share]) => call.parameter = fraction(Some(share))?,
        // The last one is the size of DataFusion's digest; ours has a bound of its error instead.
        ("approx_percentile_cont", [share] | [share, _]) => call.parameter = fraction(Some(share))?,
        ("approx_percentile_cont_with_weight", [weight, share] | [weight, share, _]) => {
            if call.distinct {
                return Err(refuse(format!("{name} takes no DISTINCT")));
            }
            call.parameter = fraction(Some(share))?;
            call.second = Some(number_of(call.function, weight.clone(), schema)?);
        }
        ("nth_value", [index]) => match literal(index).and_then(|value| value.cast_to(&DataType::Int64).ok()) {
            Some(ScalarValue::Int64(Some(index))) if index != 0 => call.parameter = Some(AggregateParameter::Index(index)),
            _ => return Err(refuse("nth_value takes a place from 1, or from -1 for the last".into()).help("nth_value(x, 2 ORDER BY t)")),
        },
        ("string_agg", []) => call.parameter = Some(AggregateParameter::Text(String::new())),
        ("string_agg", [separator]) => match literal(separator).and_then(|value| value.cast_to(&DataType::Utf8).ok()) {
            Some(ScalarValue::Utf8(text)) => call.parameter = Some(AggregateParameter::Text(text.unwrap_or_default())),
            _ => return Err(refuse("the separator of string_agg must be a constant".into()).help("string_agg(x, ', ')")),
        },
        (_, []) => {}
        _ => return Err(refuse(format!("{name} does not take this many arguments"))),
    }
    Ok(())
}

/// ORDER BY and NULLs of a sequence.
fn order(call: &mut Call, params: &AggregateFunctionParams, refuse: &impl Fn(String) -> Refusal) -> Result<()> {
    call.ignore_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    for sort in &params.order_by {
        let expr = bare(sort.expr.clone())?;
        if call.distinct && call.argument.as_ref() != Some(&expr) {
            return Err(refuse(format!("with DISTINCT, {} can be ordered by its argument only", call.function.sql()))
                .help(format!("{}(DISTINCT x ORDER BY x)", call.function.sql())));
        }
        call.order_by.push(Order { expr, descending: !sort.asc, nulls_first: sort.nulls_first });
    }
    Ok(())
}

fn literal(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(cast) => literal(&cast.expr)?.cast_to(cast.field.data_type()).ok(),
        Expr::Negative(inner) => literal(inner)?.arithmetic_negate().ok(),
        _ => None,
    }
}

/// log_loss and brier are means of what each row loses, and so as exact under retraction as any mean.
fn quality_call(quality: Quality, params: &AggregateFunctionParams, expr: &Expr) -> Result<Call> {
    let name = quality.name();
    let refuse = |message: String| Err(Refusal::new(message).help(format!("{name}(score, label)")).at_expr(expr));
    if params.distinct {
        return refuse(format!("{name} takes no DISTINCT: equal rows count as often as they are there"));
    }
    if params.null_treatment.is_some() || !params.order_by.is_empty() {
        return refuse(format!("{name} takes neither ORDER BY nor IGNORE NULLS"));
    }
    let [score, label] = params.args.as_slice() else { return refuse(format!("{name} takes a score and a label")) };
    Ok(match quality {
        Quality::Auc => Call { second: Some(label.clone()), ..Call::new(AggregateFunction::Auc, Some(score.clone()), params) },
        Quality::LogLoss | Quality::Brier => {
            let loss = loss_of(quality, vec![score.clone(), label.clone()]);
            Call::new(AggregateFunction::Avg, Some(loss), params)
        }
    })
}

/// The argument in the type the operator adds up in.
fn argument_of(function: AggregateFunction, argument: Expr, schema: &DFSchema) -> Result<Expr> {
    use AggregateFunction::*;
    let data_type = argument.get_type(schema)?;
    let target = match (function, &data_type) {
        (Count, _) => None,
        (Min | Max | ApproxDistinct | FirstValue | LastValue | NthValue | ArrayAgg, data_type) if stored_as(data_type).is_some() => None,
        (StringAgg, data_type) if text(data_type) => Some(DataType::Utf8),
        (BoolAnd | BoolOr, DataType::Boolean) => None,
        (BitAnd | BitOr | BitXor, data_type) if data_type.is_integer() => None,
        (Sum, DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Decimal128(_, _)) => None,
        (Sum, DataType::Int8 | DataType::Int16 | DataType::Int32) => Some(DataType::Int64),
        (Sum, DataType::UInt8 | DataType::UInt16 | DataType::UInt32) => Some(DataType::UInt64),
        (Sum, DataType::Float32) => Some(DataType::Float64),
        (Avg | PercentileCont, DataType::Decimal128(_, _)) => None,
        (PercentileCont, DataType::Float32) => None,
        (Avg | VarSamp | VarPop | StddevSamp | StddevPop | PercentileCont | ApproxPercentile, data_type)
            if data_type.is_floating() || data_type.is_integer() || matches!(data_type, DataType::Decimal128(_, _)) =>
        {
            Some(DataType::Float64)
        }
        (_, DataType::Decimal256(_, _)) => {
            return Err(Refusal::new(format!("{} of {data_type} is not supported: a decimal has at most 38 digits", function.sql()))
                .help(format!("{}(CAST({} AS DECIMAL(38, …)))", function.sql(), readable(&argument)))
                .at_expr(&argument));
        }
        _ => return Err(Refusal::new(format!("{} of {data_type} is not supported", function.sql())).at_expr(&argument)),
    };
    Ok(match target {
        Some(target) if target == data_type => argument,
        Some(target) => Expr::Cast(Cast::new(Box::new(argument), target)),
        None => argument,
    })
}

/// One of a pair, or a weight.
fn number_of(function: AggregateFunction, argument: Expr, schema: &DFSchema) -> Result<Expr> {
    match argument.get_type(schema)? {
        DataType::Float64 => Ok(argument),
        data_type if data_type.is_numeric() => Ok(Expr::Cast(Cast::new(Box::new(argument), DataType::Float64))),
        data_type => Err(Refusal::new(format!("{} of {data_type} is not supported", function.sql())).at_expr(&argument)),
    }
}

fn text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

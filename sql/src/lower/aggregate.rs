//! GROUP BY and DISTINCT: keys, arguments and filters in columns, then one operator.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::{AggregateFunction as AggregateExpr, AggregateFunctionParams};
use datafusion::logical_expr::{Aggregate, Cast, Expr, ExprSchemable};
use freshet_core::{AggregateCall, AggregateFunction, NodeId, Op};

use super::Lowering;
use super::output::storable;
use crate::expr::bare;
use crate::now::{mentions_now, readable};
use crate::quality::{Quality, loss_of};
use crate::refusal::{Refusal, Result};

/// One aggregate of the text, before its argument and filter are columns.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub function: AggregateFunction,
    pub argument: Option<Expr>,
    /// Of auc only.
    pub label: Option<Expr>,
    pub distinct: bool,
    pub filter: Option<Expr>,
}

impl Lowering<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<NodeId> {
        let input = self.lower(&aggregate.input)?;
        let schema = aggregate.input.schema();
        let keys = group_keys(aggregate)?;
        let calls = aggregate.aggr_expr.iter().map(|expr| call_of(expr, schema)).collect::<Result<Vec<_>>>()?;
        let mut wanted = keys.clone();
        for call in &calls {
            if let Some(filter) = call.filter.as_ref().filter(|filter| mentions_now(filter)) {
                return Err(Refusal::new("an aggregate over a window that ends at now() belongs into a feature view")
                    .help("CREATE FEATURE VIEW name ENTITY (key) TIMESTAMP ts AS SELECT …; or filter the rows: WHERE ts > now() - INTERVAL '1 hour'")
                    .at_expr(filter)
                    .about_now());
            }
            wanted.extend(call.argument.iter().chain(&call.label).chain(&call.filter).cloned());
        }
        let (node, mut columns) = self.arguments(input, schema, &wanted)?;
        let rest = columns.split_off(keys.len());
        let mut rest = rest.into_iter();
        let calls = calls
            .into_iter()
            .map(|call| AggregateCall {
                function: call.function,
                argument: call.argument.and_then(|_| rest.next()),
                label: call.label.and_then(|_| rest.next()),
                distinct: call.distinct,
                filter: call.filter.and_then(|_| rest.next()),
            })
            .collect();
        let fields: Vec<Field> = aggregate.schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
        Ok(self.push(Op::Aggregate { keys: columns, calls }, vec![node], Arc::new(Schema::new(fields))))
    }
}

/// The grouping expressions without aliases. Errors: grouping sets.
pub(super) fn group_keys(aggregate: &Aggregate) -> Result<Vec<Expr>> {
    let keys = aggregate.group_expr.iter().map(|expr| bare(expr.clone())).collect::<Result<Vec<_>>>()?;
    if keys.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
        return Err(Refusal::new("GROUPING SETS, ROLLUP and CUBE are not supported yet").help("write one view per grouping"));
    }
    Ok(keys)
}

/// Errors: a function that cannot be kept up to date, or not for this type.
pub(super) fn call_of(expr: &Expr, schema: &DFSchema) -> Result<Call> {
    let expr = bare(expr.clone())?;
    let Expr::AggregateFunction(AggregateExpr { func, params }) = &expr else {
        return Err(Refusal::new(format!("{} is not an aggregate", readable(&expr))).at_expr(&expr));
    };
    let refuse = |message: String| Refusal::new(message).at_expr(&expr);
    if let Some(quality) = Quality::named(func.name()) {
        return quality_call(quality, params, &expr);
    }
    let function = match func.name() {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "var" => AggregateFunction::VarSamp,
        "var_pop" => AggregateFunction::VarPop,
        "stddev" => AggregateFunction::StddevSamp,
        "stddev_pop" => AggregateFunction::StddevPop,
        "bool_and" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        other => {
            return Err(refuse(format!("the aggregate {other} is not kept up to date yet"))
                .help("these are: count, sum, avg, min, max, var, var_pop, stddev, stddev_pop, bool_and, bool_or, auc, log_loss, brier"));
        }
    };
    if params.null_treatment.is_some() {
        return Err(refuse(format!("{} takes neither IGNORE NULLS nor RESPECT NULLS", function.sql())));
    }
    let filter = params.filter.as_deref().cloned();
    let argument = match params.args.as_slice() {
        [] => None,
        [Expr::Literal(value, _)] if function == AggregateFunction::Count && !value.is_null() && !params.distinct => None,
        [argument] => Some(argument_of(function, argument.clone(), schema)?),
        _ => return Err(refuse(format!("{} takes one argument", function.sql()))),
    };
    Ok(Call { function, argument, label: None, distinct: params.distinct, filter })
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
    let filter = params.filter.as_deref().cloned();
    Ok(match quality {
        Quality::Auc => Call { function: AggregateFunction::Auc, argument: Some(score.clone()), label: Some(label.clone()), distinct: false, filter },
        Quality::LogLoss | Quality::Brier => {
            let loss = loss_of(quality, vec![score.clone(), label.clone()]);
            Call { function: AggregateFunction::Avg, argument: Some(loss), label: None, distinct: false, filter }
        }
    })
}

/// The argument in the type the operator adds up in.
fn argument_of(function: AggregateFunction, argument: Expr, schema: &DFSchema) -> Result<Expr> {
    let data_type = argument.get_type(schema)?;
    let target = match (function, &data_type) {
        (AggregateFunction::Count, _) => None,
        (AggregateFunction::Min | AggregateFunction::Max, data_type) if storable(data_type) => None,
        (AggregateFunction::BoolAnd | AggregateFunction::BoolOr, DataType::Boolean) => None,
        (AggregateFunction::Sum, DataType::Int64 | DataType::Float64) => None,
        (AggregateFunction::Sum, DataType::Int8 | DataType::Int16 | DataType::Int32) => Some(DataType::Int64),
        (AggregateFunction::Sum, DataType::Float32) => Some(DataType::Float64),
        (
            AggregateFunction::Avg
            | AggregateFunction::VarSamp
            | AggregateFunction::VarPop
            | AggregateFunction::StddevSamp
            | AggregateFunction::StddevPop,
            data_type,
        ) if data_type.is_floating() || data_type.is_signed_integer() => Some(DataType::Float64),
        (_, DataType::Decimal128(_, _) | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64) => {
            return Err(Refusal::new(format!("{} of {data_type} is not supported yet", function.sql()))
                .help(format!("{}(CAST({} AS DOUBLE))", function.sql(), readable(&argument)))
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

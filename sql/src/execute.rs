//! DataFusion's batch executor, for ad-hoc queries and the oracle. In: a logical plan over tables in memory. Out: its rows.
//!
//! One partition and one thread, so that equal input gives equal output in equal order.

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource};
use datafusion::physical_plan::collect;
use freshet_core::{Epoch, Error, Result};

use crate::now::is_now;

/// A table of these rows, brought to the schema's own nullability.
pub(crate) fn memory_table(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Arc<dyn TableSource>> {
    let batches = batches
        .into_iter()
        .map(|batch| {
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let table = MemTable::try_new(schema, vec![batches]).map_err(|error| Error::internal(error.strip_backtrace()))?;
    Ok(provider_as_source(Arc::new(table)))
}

/// The plan with now() as a constant.
pub(crate) fn with_now(plan: LogicalPlan, at: Epoch) -> Result<LogicalPlan> {
    let us = i64::try_from(at.0).unwrap_or(i64::MAX).saturating_mul(1_000);
    let instant = Expr::Literal(ScalarValue::TimestampMicrosecond(Some(us), None), None);
    let replaced = plan.transform_up_with_subqueries(|node| {
        let names: Vec<String> = node.schema().fields().iter().map(|field| field.name().clone()).collect();
        let keeps_names = matches!(node, LogicalPlan::Projection(_));
        let changed = node.map_expressions(|expr| {
            let replaced = expr.transform_up(|part| Ok(if is_now(&part) { Transformed::yes(instant.clone()) } else { Transformed::no(part) }))?;
            Ok(replaced)
        })?;
        if !changed.transformed {
            return Ok(changed);
        }
        match changed.data {
            // A column that was named after its text keeps that name.
            LogicalPlan::Projection(projection) if keeps_names => {
                let exprs = projection.expr.into_iter().zip(names).map(|(expr, name)| match expr {
                    Expr::Alias(_) | Expr::Column(_) => expr,
                    other => other.alias(name),
                });
                let plan = datafusion::logical_expr::Projection::try_new(exprs.collect(), projection.input)?;
                Ok(Transformed::yes(LogicalPlan::Projection(plan)))
            }
            other => Ok(Transformed::yes(other)),
        }
    });
    replaced.data().map_err(|error| Error::invalid(error.strip_backtrace()))
}

/// Runs the plan by DataFusion's default rules. Errors: Invalid, the message of whichever row failed.
pub(crate) fn execute(plan: LogicalPlan) -> Result<Vec<RecordBatch>> {
    static CONTEXT: OnceLock<SessionContext> = OnceLock::new();
    let context = CONTEXT.get_or_init(|| SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| Error::unavailable(error.to_string()))?;
    runtime.block_on(async {
        let state = context.state();
        let physical = state.create_physical_plan(&plan).await?;
        collect(physical, context.task_ctx()).await
    })
    .map_err(|error| Error::invalid(error.find_root().strip_backtrace()))
}

//! DataFusion's batch executor, for ad-hoc queries and the oracle. In: a logical plan over tables in memory. Out: its rows.
//!
//! One partition and one thread, so that equal input gives equal output in equal order.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{LogicalPlan, TableSource};
use datafusion::physical_plan::collect;
use datafusion::sql::sqlparser::ast::{CastKind, DataType, Expr, Spanned, TimezoneInfo, Value, ValueWithSpan, VisitMut, visit_expressions_mut};
use freshet_core::{Epoch, Error, Result};

use crate::check::is_now_call;
use crate::checked::checked;
use crate::dependent::unfolded;
use crate::existence::joined_values;
use crate::set_operation::numbered;
use crate::subquery::runnable;
use crate::windowing::in_batch_form;

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

/// The query or statement with now() as a constant. In the text, because a plan names columns after the expressions in them.
pub(crate) fn with_now<T: VisitMut + Clone>(query: &T, at: Epoch) -> T {
    let mut query = query.clone();
    let latest = DateTime::<Utc>::MAX_UTC.timestamp_millis();
    let ms = i64::try_from(at.0).unwrap_or(latest).min(latest);
    let instant = DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let _ = visit_expressions_mut(&mut query, |expr| {
        if is_now_call(expr) {
            let text = Value::SingleQuotedString(instant.format("%Y-%m-%dT%H:%M:%S%.3f").to_string());
            *expr = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(Expr::Value(ValueWithSpan { value: text, span: expr.span() })),
                data_type: DataType::Timestamp(None, TimezoneInfo::None),
                array: false,
                format: None,
            };
        }
        ControlFlow::<()>::Continue(())
    });
    query
}

/// Memory that all ad-hoc queries together may take for sorts, joins and aggregates: a fraction of a usual server, so that a careless
/// query fails and the pipeline does not.
const QUERY_MEMORY_BYTES: usize = 2 << 30;
/// How long an ad-hoc query may run.
const QUERY_SECONDS: u64 = 60;

fn context() -> Result<&'static SessionContext> {
    static CONTEXT: OnceLock<std::result::Result<SessionContext, String>> = OnceLock::new();
    let made = CONTEXT.get_or_init(|| {
        let environment = RuntimeEnvBuilder::new().with_memory_limit(QUERY_MEMORY_BYTES, 1.0).build_arc();
        let environment = environment.map_err(|error| error.strip_backtrace())?;
        Ok(SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), environment))
    });
    made.as_ref().map_err(|message| Error::unavailable(message.clone()))
}

/// Runs what a client asks or writes, by DataFusion's default rules. Errors: Invalid, the message of whichever row failed; integers do not wrap.
pub(crate) fn execute(plan: LogicalPlan) -> Result<Vec<RecordBatch>> {
    execute_as(plan, checked)
}

/// As [`execute`], for the oracle: as DataFusion has it.
pub(crate) fn execute_plainly(plan: LogicalPlan) -> Result<Vec<RecordBatch>> {
    execute_as(plan, Ok)
}

fn execute_as(plan: LogicalPlan, change: impl Fn(LogicalPlan) -> datafusion::common::Result<LogicalPlan>) -> Result<Vec<RecordBatch>> {
    let context = context()?;
    let plan = unfolded(plan).and_then(numbered).and_then(runnable).map_err(|error| Error::invalid(error.strip_backtrace()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|error| Error::unavailable(error.to_string()))?;
    let run = async {
        let state = context.state();
        let physical = state.create_physical_plan(&change(joined_values(in_batch_form(plan)?)?)?).await?;
        collect(physical, context.task_ctx()).await
    };
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(QUERY_SECONDS), run).await })
        .map_err(|_| Error::invalid(format!("the query took more than {QUERY_SECONDS} s; ask for less, or let a materialized view keep the answer")))?
        .map_err(|error| Error::invalid(error.find_root().strip_backtrace()))
}

//! Windows in SQL that DataFusion's batch executor runs: the oracle's own way, with date_bin, lag and running sums. In: a plan with window
//! nodes. Out: one without.

use arrow::datatypes::TimeUnit;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore};
use freshet_core::Windows;

use crate::bind::plan_query;
use crate::context::{Catalog, Relation};
use crate::parse::parse_query;
use crate::windowing::node::{Shape, WindowTvf, unit_ns, unit_of};

/// A branch per window that a row may be in: more would be a plan too large to be worth it.
const BRANCHES_MAX: i64 = 500;

/// The plan with plain SQL in place of every window node. Errors: a query whose rows are in very many windows.
pub(crate) fn in_batch_form(plan: LogicalPlan) -> datafusion::common::Result<LogicalPlan> {
    let written = |node: LogicalPlan| {
        let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
        match extension.node.as_any().downcast_ref::<WindowTvf>() {
            Some(tvf) => Ok(Transformed::yes(written_out(tvf)?)),
            None => Ok(Transformed::no(node)),
        }
    };
    plan.transform_up_with_subqueries(written).data()
}

fn written_out(tvf: &WindowTvf) -> datafusion::common::Result<LogicalPlan> {
    let input = tvf.input.schema();
    let columns = input.columns().into_iter().enumerate().map(|(index, column)| Expr::Column(column).alias(format!("c{index}")));
    let keys = tvf.partition.iter().enumerate().map(|(index, key)| key.clone().alias(format!("p{index}")));
    let numbered: Vec<Expr> = columns.chain(keys).chain([tvf.time.clone().alias("t")]).collect();
    let unit = unit_of(&tvf.time.get_type(input)?).expect("the node was made over a timestamp");
    let below = LogicalPlanBuilder::from(tvf.input.as_ref().clone()).project(numbered)?.build()?;
    let mut catalog = Catalog::default();
    catalog.add("rows", Relation::inlined(below));
    let text = match tvf.shape {
        Shape::Fixed(windows) => fixed(windows, unit)?,
        Shape::Session { gap } => session(gap, tvf.partition.len(), unit),
        Shape::SessionName { .. } => return Err(DataFusionError::Internal("sessions are fused for the stream only".into())),
    };
    let internal = |message: String| DataFusionError::Internal(message);
    let query = parse_query(&text).map_err(|error| internal(error.to_string()))?;
    let plan = plan_query(&query, &catalog).map_err(|refusal| internal(refusal.message))?;
    let schema = UserDefinedLogicalNodeCore::schema(tvf);
    let shown = schema.iter().enumerate().map(|(index, (qualifier, field))| {
        let column = if index < input.fields().len() { format!("c{index}") } else { ["ws", "we", "wt"][index - input.fields().len()].to_string() };
        Expr::Column(Column::new_unqualified(column)).alias_qualified(qualifier.cloned(), field.name())
    });
    let shown: Vec<Expr> = shown.collect();
    LogicalPlanBuilder::from(plan).project(shown)?.build()
}

/// The bounds as columns ws, we and wt, given instants s and e in nanoseconds.
fn bounds(unit: TimeUnit) -> String {
    let precision = match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    let last = unit_ns(unit).max(1_000_000);
    let cast = |what: String| format!("CAST({what} AS TIMESTAMP({precision}))");
    format!("{} AS ws, {} AS we, {} AS wt", cast("s".into()), cast("e".into()), cast(format!("e - INTERVAL '{last} nanoseconds'")))
}

fn fixed(windows: Windows, unit: TimeUnit) -> datafusion::common::Result<String> {
    if windows.per_row() > BRANCHES_MAX {
        return Err(DataFusionError::Plan(format!("each row is in {} windows, which is too many for one batch query", windows.per_row())));
    }
    let ns = |length: i64| format!("INTERVAL '{} nanoseconds'", length * unit_ns(unit));
    let (grid, offset) = match windows {
        Windows::Hop { slide, offset, .. } => (slide, offset),
        Windows::Cumulate { size, offset, .. } => (size, offset),
    };
    let origin = format!("CAST('1970-01-01T00:00:00' AS TIMESTAMP(9)) + {}", ns(offset));
    let binned = format!(
        "SELECT *, date_bin({}, n, {origin}) AS b FROM (SELECT *, CAST(t AS TIMESTAMP(9)) AS n FROM rows WHERE t IS NOT NULL) AS timed",
        ns(grid)
    );
    let branches: Vec<String> = (0..windows.per_row())
        .map(|number| {
            let (start, end) = match windows {
                Windows::Hop { size, slide, .. } => {
                    let start = format!("b - {}", ns(number * slide));
                    (start.clone(), format!("{start} + {}", ns(size)))
                }
                Windows::Cumulate { step, .. } => ("b".to_string(), format!("b + {}", ns((number + 1) * step))),
            };
            format!(
                "SELECT *, {} FROM (SELECT *, {start} AS s, {end} AS e FROM ({binned}) AS binned) AS bounded WHERE s <= n AND n < e",
                bounds(unit)
            )
        })
        .collect();
    Ok(branches.join(" UNION ALL "))
}

fn session(gap: i64, keys: usize, unit: TimeUnit) -> String {
    let keys: Vec<String> = (0..keys).map(|index| format!("p{index}")).collect();
    let by = |more: &str| {
        let all: Vec<&str> = keys.iter().map(String::as_str).chain((!more.is_empty()).then_some(more)).collect();
        if all.is_empty() { String::new() } else { format!("PARTITION BY {}", all.join(", ")) }
    };
    let flagged = format!(
        "SELECT *, CASE WHEN CAST(t AS BIGINT) - lag(CAST(t AS BIGINT)) OVER ({} ORDER BY t) <= {gap} THEN 0 ELSE 1 END AS f FROM rows WHERE t IS NOT NULL",
        by("")
    );
    // Rows of one time are peers, so that they all get the number of their session.
    let numbered = format!("SELECT *, sum(f) OVER ({} ORDER BY t) AS g FROM ({flagged}) AS flagged", by(""));
    let of_session = by("g");
    format!(
        "SELECT *, {} FROM (SELECT *, CAST(min(t) OVER ({of_session}) AS TIMESTAMP(9)) AS s, \
         CAST(max(t) OVER ({of_session}) AS TIMESTAMP(9)) + INTERVAL '{} nanoseconds' AS e FROM ({numbered}) AS numbered) AS bounded",
        bounds(unit),
        gap * unit_ns(unit)
    )
}

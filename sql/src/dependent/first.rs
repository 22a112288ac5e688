//! ORDER BY … LIMIT of a subquery: the first rows of each row of the domain, by their number.

use std::sync::Arc;

use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, FetchType, Filter, Limit, LogicalPlan, SkipType, SortExpr, Window, WindowFrame, WindowFunctionDefinition, lit};

use super::apply::projected;
use super::domain::Domain;
use crate::context::Functions;

/// The column by which they are found; no user can type it unquoted.
const NUMBER: &str = "freshet$number";

/// None: a number that is not a constant.
pub(super) fn first_rows(limit: &Limit, input: LogicalPlan, domain: &Domain, order: Vec<SortExpr>) -> Result<Option<LogicalPlan>> {
    let (FetchType::Literal(fetch), SkipType::Literal(skip)) = (limit.get_fetch_type()?, limit.get_skip_type()?) else { return Ok(None) };
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut call = WindowFunction::new(WindowFunctionDefinition::WindowUDF(Functions::get().window["row_number"].clone()), Vec::new());
    call.params.partition_by = domain.exprs().collect();
    call.params.window_frame = WindowFrame::new((!order.is_empty()).then_some(false));
    call.params.order_by = order;
    let window = LogicalPlan::Window(Window::try_new(vec![Expr::from(call).alias(NUMBER)], Arc::new(input))?);
    let bound = |rows: usize| lit(ScalarValue::UInt64(Some(rows as u64)));
    let number = || Expr::Column(Column::new_unqualified(NUMBER));
    let mut kept = (skip > 0).then(|| number().gt(bound(skip)));
    if let Some(fetch) = fetch {
        let up_to = number().lt_eq(bound(skip.saturating_add(fetch)));
        kept = Some(match kept {
            Some(behind) => behind.and(up_to),
            None => up_to,
        });
    }
    let plan = match kept {
        Some(kept) => LogicalPlan::Filter(Filter::try_new(kept, Arc::new(window))?),
        None => window,
    };
    projected(plan, columns).map(Some)
}

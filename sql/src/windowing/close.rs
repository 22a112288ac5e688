//! EMIT ON WINDOW CLOSE. In: the plan as written. Out: a node where the end of a row's window is last known, above which no rule moves a
//! condition; and window nodes that let no row pass behind a window that has been emitted.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, Result as PlanResult};
use datafusion::logical_expr::{Distinct, Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::refusal::{Refusal, Result};
use crate::windowing::node::{END, WindowTvf, unit_of};

/// Rows that come out once, when the watermark reaches `end`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CloseNode {
    pub end: Expr,
    pub input: Arc<LogicalPlan>,
}

impl PartialOrd for CloseNode {
    fn partial_cmp(&self, _: &CloseNode) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for CloseNode {
    fn name(&self) -> &str {
        "EmitOnClose"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.end.clone()]
    }

    /// What a row is when its window closes is decided here, a condition on it afterwards.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.input.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmitOnClose: {}", self.end)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> PlanResult<CloseNode> {
        let end = exprs.pop().expect("a close has one end");
        Ok(CloseNode { end: end.unalias(), input: Arc::new(inputs.pop().expect("a close has one input")) })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input = self.input.schema();
        let ends = self.end.column_refs().into_iter().filter_map(|column| input.index_of_column(column).ok());
        let needed: BTreeSet<usize> = output_columns.iter().copied().chain(ends).collect();
        Some(vec![needed.into_iter().collect()])
    }
}

/// The plan whose rows come out when their windows close. `view` has them in `late(view)` that come behind one. Errors: a query of which no
/// window is left that could close.
pub(crate) fn emit_on_close(plan: LogicalPlan, view: &str) -> Result<LogicalPlan> {
    let closed = closed(&plan)?.ok_or_else(|| {
        Refusal::new("EMIT ON WINDOW CLOSE needs rows that belong to a window, and the end of none is known here")
            .help("group by window_start and window_end of TUMBLE, HOP, CUMULATE or SESSION, and join on them")
    })?;
    let gated = closed.transform_down(|node| {
        let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
        let Some(tvf) = extension.node.as_any().downcast_ref::<WindowTvf>() else { return Ok(Transformed::no(node)) };
        let gated = tvf.clone().closing(Some(view.into()));
        let node = LogicalPlan::Extension(Extension { node: Arc::new(gated) });
        // What a window below a window says late, the one above judges.
        Ok(Transformed::new(node, true, TreeNodeRecursion::Jump))
    });
    Ok(gated.data()?)
}

/// The node as high up as the end of a window is known.
fn closed(plan: &LogicalPlan) -> PlanResult<Option<LogicalPlan>> {
    if let Some(end) = ends(plan).first() {
        let end = Expr::Column(Column::from(plan.schema().qualified_field(*end)));
        return Ok(Some(LogicalPlan::Extension(Extension { node: Arc::new(CloseNode { end, input: Arc::new(plan.clone()) }) })));
    }
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => match closed(plan.inputs()[0])? {
            Some(input) => plan.with_new_exprs(plan.expressions(), vec![input]).map(Some),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The columns that hold the end of a row's window.
fn ends(plan: &LogicalPlan) -> Vec<usize> {
    let of = |exprs: &[Expr], input: &LogicalPlan| {
        let known = ends(input);
        let is_end = |expr: &Expr| match expr.clone().unalias() {
            Expr::Column(column) => input.schema().index_of_column(&column).is_ok_and(|index| known.contains(&index)),
            Expr::Cast(cast) => matches!(*cast.expr, Expr::Column(ref column)
                if unit_of(cast.field.data_type()).is_some() && input.schema().index_of_column(column).is_ok_and(|index| known.contains(&index))),
            _ => false,
        };
        exprs.iter().enumerate().filter(|(_, expr)| is_end(expr)).map(|(index, _)| index).collect::<Vec<_>>()
    };
    match plan {
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<WindowTvf>() {
            Some(_) => named_end(plan.schema()),
            None => Vec::new(),
        },
        LogicalPlan::TableScan(scan) => named_end(&scan.projected_schema),
        LogicalPlan::Projection(projection) => of(&projection.expr, &projection.input),
        LogicalPlan::Aggregate(aggregate) => of(&aggregate.group_expr, &aggregate.input),
        LogicalPlan::Distinct(Distinct::On(distinct)) => of(&distinct.select_expr, &distinct.input),
        LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_) => ends(plan.inputs()[0]),
        LogicalPlan::Join(join) => {
            let width = join.left.schema().fields().len();
            let mut found = ends(&join.left);
            if matches!(join.join_type, JoinType::Inner | JoinType::Right | JoinType::Full) {
                found.extend(ends(&join.right).into_iter().map(|index| index + width));
            }
            found
        }
        LogicalPlan::Union(union) => {
            let mut found: Vec<usize> = (0..union.schema.fields().len()).collect();
            union.inputs.iter().for_each(|input| found.retain(|index| ends(input).contains(index)));
            found
        }
        _ => Vec::new(),
    }
}

fn named_end(schema: &DFSchema) -> Vec<usize> {
    let is_end = |index: &usize| schema.field(*index).name() == END && unit_of(schema.field(*index).data_type()).is_some();
    (0..schema.fields().len()).filter(is_end).collect()
}

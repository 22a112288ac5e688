//! `PROCTIME()`: when a row came. In: the plan as written, with the function in projections, conditions and windows. Out: a node below each
//! that adds the epoch at which the row entered there (C1b); no rule moves it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as PlanResult, TableReference, exec_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Extension, LogicalPlan, Projection, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, UserDefinedLogicalNodeCore,
    Volatility,
};

use crate::context::TIMESTAMP;
use crate::refusal::{Refusal, Result};
use crate::windowing::node::WindowTvf;

/// No user can type it unquoted.
const ARRIVAL: &str = "freshet$arrival";

/// Rows with their arrival as a column more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ArrivalNode {
    pub input: Arc<LogicalPlan>,
    schema: DFSchemaRef,
}

impl ArrivalNode {
    fn new(input: Arc<LogicalPlan>) -> PlanResult<ArrivalNode> {
        let field = (Some(TableReference::bare(ARRIVAL)), Arc::new(Field::new("arrival", TIMESTAMP, false)));
        let fields = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).chain([field]).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(ArrivalNode { input, schema })
    }
}

impl PartialOrd for ArrivalNode {
    fn partial_cmp(&self, _: &ArrivalNode) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for ArrivalNode {
    fn name(&self) -> &str {
        "Arrival"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrival")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> PlanResult<ArrivalNode> {
        ArrivalNode::new(Arc::new(inputs.pop().expect("it has one input")))
    }

    /// All of them: without the column that tells two rows apart, a retraction could take the other one's arrival.
    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![(0..self.input.schema().fields().len()).collect()])
    }
}

/// The function while a query is planned; it is never executed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Proctime {
    signature: Signature,
}

pub(crate) fn proctime_function() -> ScalarUDF {
    ScalarUDF::from(Proctime { signature: Signature::nullary(Volatility::Volatile) })
}

impl ScalarUDFImpl for Proctime {
    fn name(&self) -> &str {
        "proctime"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(TIMESTAMP)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        exec_err!("proctime() was not planned as an operator")
    }
}

fn is_proctime(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.inner().downcast_ref::<Proctime>().is_some())
}

fn mentions_proctime(expr: &Expr) -> bool {
    expr.exists(|part| Ok(is_proctime(part))).unwrap_or(false)
}

/// The plan with a node below every PROCTIME(). Errors: one that stands where no row is.
pub(crate) fn place_arrivals(plan: LogicalPlan) -> Result<LogicalPlan> {
    let placed = plan.transform_up_with_subqueries(|node| {
        let stands_well = match &node {
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => true,
            LogicalPlan::Extension(extension) => extension.node.as_any().is::<WindowTvf>(),
            _ => false,
        };
        if !stands_well || !node.expressions().iter().any(mentions_proctime) {
            return Ok(Transformed::no(node));
        }
        let input = Arc::new(node.inputs()[0].clone());
        let input = LogicalPlan::Extension(Extension { node: Arc::new(ArrivalNode::new(input)?) });
        let arrival = || Expr::Column(Column::new(Some(TableReference::bare(ARRIVAL)), "arrival"));
        let came = |part: Expr| Ok(if is_proctime(&part) { Transformed::yes(arrival()) } else { Transformed::no(part) });
        let preserver = NamePreserver::new(&node);
        let exprs = node.expressions().into_iter().map(|expr| {
            let name = preserver.save(&expr);
            expr.transform_up(came).data().map(|expr| name.restore(expr))
        });
        let exprs = exprs.collect::<PlanResult<Vec<_>>>()?;
        Ok(Transformed::yes(match &node {
            LogicalPlan::Projection(_) => LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?),
            _ => node.with_new_exprs(exprs, vec![input])?,
        }))
    });
    let placed = placed.data()?;
    let mut left = None;
    placed.apply_with_subqueries(|node| {
        left = node.expressions().into_iter().find(mentions_proctime);
        Ok(if left.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match left {
        None => Ok(placed),
        Some(_) => Err(Refusal::new("proctime() is when a row came, and there is no row here")
            .help("give it a name in a query below: SELECT *, PROCTIME() AS came FROM t")),
    }
}

//! INTERSECT and EXCEPT. In: DataFusion's plan as written, where they are joins that lose how often a row is there. Out: a node of our own, which
//! counts; or, for its batch executor, joins of rows that are numbered among their equals.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, NullEquality, Result, plan_err};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::{
    Cast, Distinct, Expr, ExprFunctionExt, Extension, Join, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, WindowFunctionDefinition,
};
use freshet_core::SetOperation;

use crate::optimise::analyse;

/// Rows of `left` against those of `right`, of the same types. Its columns are those of `left`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Counted {
    pub operation: SetOperation,
    pub left: Arc<LogicalPlan>,
    pub right: Arc<LogicalPlan>,
    schema: DFSchemaRef,
}

impl Counted {
    fn new(operation: SetOperation, left: LogicalPlan, right: LogicalPlan) -> Result<Counted> {
        let fields = left.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), Default::default())?);
        Ok(Counted { operation, left: Arc::new(left), right: Arc::new(right), schema })
    }
}

impl PartialOrd for Counted {
    fn partial_cmp(&self, _: &Counted) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for Counted {
    fn name(&self) -> &str {
        "Counted"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    /// A condition would have to be tested on both sides, which have other names.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation.sql())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Counted> {
        let right = inputs.pop().expect("it has two inputs");
        let left = inputs.pop().expect("it has two inputs");
        Counted::new(self.operation, left, right)
    }

    /// Rows are compared whole.
    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some([&self.left, &self.right].map(|side| (0..side.schema().fields().len()).collect()).to_vec())
    }
}

/// Semi and anti joins in which NULLs are equal: before any rule has run, nothing but a set operation makes them. With DISTINCT on its left it
/// is the one without ALL; of a left side without duplicates both say the same.
fn set_operation(join: &Join) -> Option<(SetOperation, LogicalPlan)> {
    if join.null_equality != NullEquality::NullEqualsNull {
        return None;
    }
    let (distinct, all) = match join.join_type {
        JoinType::LeftSemi => (SetOperation::Intersect, SetOperation::IntersectAll),
        JoinType::LeftAnti => (SetOperation::Except, SetOperation::ExceptAll),
        _ => return None,
    };
    Some(match join.left.as_ref() {
        LogicalPlan::Distinct(Distinct::All(input)) => (distinct, input.as_ref().clone()),
        other => (all, other.clone()),
    })
}

/// With a node for every set operation.
pub(crate) fn counted(plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        // The columns of what is below may have other types by now.
        let node = node.recompute_schema()?;
        let LogicalPlan::Join(join) = &node else { return Ok(Transformed::no(node)) };
        let Some((operation, left)) = set_operation(join) else { return Ok(Transformed::no(node)) };
        let right = join.right.as_ref().clone();
        let mut types = Vec::new();
        // Expressions that take a common type of their parts have not got it yet.
        let coerced = |side: &LogicalPlan| analyse(side.clone(), options).map_or_else(|_| side.schema().clone(), |plan| plan.schema().clone());
        let schemas = (coerced(&left), coerced(&right));
        for (left, right) in schemas.0.fields().iter().zip(schemas.1.fields()) {
            let Some(data_type) = type_union_coercion(left.data_type(), right.data_type()) else {
                return plan_err!(
                    "column {} is {} in one branch of the {} and {} in another",
                    left.name(),
                    left.data_type(),
                    operation.sql(),
                    right.data_type()
                );
            };
            types.push(data_type);
        }
        let node = Counted::new(operation, of_types(left, &schemas.0, &types)?, of_types(right, &schemas.1, &types)?)?;
        let node = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        // Rules look for the expressions of the columns.
        let columns: Vec<Expr> = node.schema().columns().into_iter().map(Expr::Column).collect();
        Ok(Transformed::yes(LogicalPlanBuilder::from(node).project(columns)?.build()?))
    })
    .data()
}

/// `coerced` is its schema as it will be.
fn of_types(plan: LogicalPlan, coerced: &DFSchema, types: &[DataType]) -> Result<LogicalPlan> {
    let is = |index: usize| plan.schema().field(index).data_type() == &types[index] && coerced.field(index).data_type() == &types[index];
    if (0..types.len()).all(is) {
        return Ok(plan);
    }
    let columns: Vec<Expr> = plan
        .schema()
        .iter()
        .zip(types)
        .enumerate()
        .map(|(index, ((qualifier, field), data_type))| {
            let column = Expr::Column(Column::from((qualifier, field)));
            match is(index) {
                true => column,
                false => Expr::Cast(Cast::new(Box::new(column), data_type.clone())).alias_qualified(qualifier.cloned(), field.name()),
            }
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// The number of a row among those that are equal to it.
const COPY: &str = "freshet$copy";

/// For an executor that knows joins only: the n-th copy of a row on one side is the partner of the n-th copy on the other.
pub(crate) fn numbered(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Join(join) = &node else { return Ok(Transformed::no(node)) };
        match set_operation(join) {
            Some((SetOperation::IntersectAll | SetOperation::ExceptAll, left)) => {
                let columns = left.schema().columns();
                let right_columns = join.right.schema().columns();
                let (left, right) = (with_copies(left)?, with_copies(join.right.as_ref().clone())?);
                let last = |plan: &LogicalPlan| plan.schema().columns().pop().expect("the number was just added");
                let keys = (
                    columns.iter().cloned().chain([last(&left)]).collect::<Vec<_>>(),
                    right_columns.into_iter().chain([last(&right)]).collect::<Vec<_>>(),
                );
                let joined = LogicalPlanBuilder::from(left).join_detailed(right, join.join_type, keys, None, NullEquality::NullEqualsNull)?;
                Ok(Transformed::yes(joined.project(columns.into_iter().map(Expr::Column))?.build()?))
            }
            _ => Ok(Transformed::no(node)),
        }
    })
    .data()
}

fn with_copies(plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let row_number = SessionStateDefaults::default_window_functions().into_iter().find(|function| function.name() == "row_number");
    let Some(row_number) = row_number else { return plan_err!("DataFusion has lost its row_number") };
    let number = Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number), Vec::new()));
    let number = number.partition_by(columns.clone()).build()?.alias(COPY);
    let qualified = plan.schema().iter().next().and_then(|(qualifier, _)| qualifier.cloned());
    let window = LogicalPlanBuilder::from(plan).window(vec![number])?;
    let number = Expr::Column(Column::new_unqualified(COPY)).alias_qualified(qualified, COPY);
    window.project(columns.into_iter().chain([number]))?.build()
}

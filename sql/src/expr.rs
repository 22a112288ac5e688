//! DataFusion expression → core expression. In: a planned expression and the schema it is over. Out: an `Expr` without DataFusion's types.
//!
//! Integer arithmetic is checked, columns are indexes, and what is not a function of its row alone is refused (C4).

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::physical_expr::expressions::BinaryExpr as PhysicalBinary;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use freshet_core::{Column, Error, ExprRef, Literal};

use crate::now::{mentions_now, refuse_now};
use crate::refusal::{Refusal, Result};

/// Compiles an expression over the columns of `schema`, which are those of the batch it will see.
pub(crate) fn compile(expr: &Expr, schema: &DFSchema) -> Result<ExprRef> {
    let expr = bare(expr.clone())?;
    if mentions_now(&expr) {
        return Err(refuse_now(&expr));
    }
    match &expr {
        Expr::Column(column) => {
            let index = schema.index_of_column(column)?;
            let data_type = schema.field(index).data_type().clone();
            Ok(Arc::new(Column { index, name: column.name.clone(), data_type }))
        }
        Expr::Literal(value, _) => Ok(Arc::new(Literal { value: value.to_array_of_size(1)?, text: literal_text(value) })),
        _ => physical(&expr, schema),
    }
}

/// The index, if the expression is nothing but a column.
pub(crate) fn column_index(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => column_index(&alias.expr, schema),
        Expr::Column(column) => schema.index_of_column(column).ok(),
        _ => None,
    }
}

/// Without aliases, which the optimiser leaves inside of expressions too.
pub(crate) fn bare(expr: Expr) -> Result<Expr> {
    Ok(expr
        .transform_up(|node| match node {
            Expr::Alias(alias) => Ok(Transformed::yes(*alias.expr)),
            other => Ok(Transformed::no(other)),
        })
        .data()?)
}

fn literal_text(value: &ScalarValue) -> String {
    match value {
        ScalarValue::Utf8(Some(text)) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}

fn physical(expr: &Expr, schema: &DFSchema) -> Result<ExprRef> {
    refuse_inconstant(expr)?;
    let expr = expr.clone().transform_up(|node| checked_negative(node, schema)).data()?;
    let physical = create_physical_expr(&expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    let physical = physical.transform_up(checked).data()?;
    let data_type = physical.data_type(schema.as_arrow())?;
    let mut columns: Vec<usize> = collect_columns(&physical).iter().map(|column| column.index()).collect();
    columns.sort_unstable();
    columns.dedup();
    let text = physical.to_string();
    Ok(Arc::new(Compiled { physical, data_type, columns, text }))
}

/// What is left in an expression that no row alone determines.
fn refuse_inconstant(expr: &Expr) -> Result<()> {
    let mut refusal = None;
    expr.apply(|node| {
        refusal = match node {
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) | Expr::OuterReferenceColumn(_, _) => Some(
                Refusal::new("this subquery cannot be turned into a join")
                    .help("correlate it by equality, or write it as a join or as a view of its own"),
            ),
            Expr::ScalarFunction(function) if node.is_volatile_node() => {
                Some(Refusal::new(format!("{}() gives another answer each time, so that no view can be made of it", function.name())))
            }
            Expr::Placeholder(placeholder) => Some(Refusal::new(format!("the parameter {} has no value here", placeholder.id))),
            Expr::Unnest(_) => Some(Refusal::new("UNNEST is not supported yet")),
            Expr::WindowFunction(_) => Some(Refusal::new("window functions are not supported yet")),
            Expr::AggregateFunction(_) => Some(Refusal::new("an aggregate cannot stand here")),
            _ => None,
        };
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    refusal.map_or(Ok(()), |refusal| Err(refusal.at_expr(expr)))
}

/// `-x` of integers wraps at the least value; `0 - x` is checked.
fn checked_negative(node: Expr, schema: &DFSchema) -> datafusion::common::Result<Transformed<Expr>> {
    match node {
        Expr::Negative(inner) => {
            let data_type = inner.get_type(schema)?;
            if !data_type.is_signed_integer() {
                return Ok(Transformed::no(Expr::Negative(inner)));
            }
            let zero = Expr::Literal(ScalarValue::new_zero(&data_type)?, None);
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(zero), Operator::Minus, inner))))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// DataFusion's integer arithmetic wraps silently unless told otherwise.
fn checked(node: Arc<dyn PhysicalExpr>) -> datafusion::common::Result<Transformed<Arc<dyn PhysicalExpr>>> {
    Ok(match node.downcast_ref::<PhysicalBinary>() {
        Some(binary) => Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true))),
        None => Transformed::no(node),
    })
}

/// A physical expression of DataFusion behind the seam.
struct Compiled {
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    columns: Vec<usize>,
    text: String,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl freshet_core::Expr for Compiled {
    fn data_type(&self) -> DataType {
        self.data_type.clone()
    }

    fn evaluate(&self, batch: &RecordBatch) -> freshet_core::Result<ArrayRef> {
        let failed = |error: datafusion::common::DataFusionError| Error::data(error.find_root().strip_backtrace());
        let values = self.physical.evaluate(batch).map_err(failed)?.into_array(batch.num_rows()).map_err(failed)?;
        if *values.data_type() == self.data_type {
            return Ok(values);
        }
        Ok(arrow::compute::cast(&values, &self.data_type)?)
    }

    fn sql(&self) -> String {
        self.text.clone()
    }

    fn columns(&self) -> Vec<usize> {
        self.columns.clone()
    }
}

#[cfg(test)]
#[path = "expr_tests.rs"]
mod tests;

//! DataFusion expression → core expression. In: a planned expression and the schema it is over. Out: an `Expr` without DataFusion's types.
//!
//! Integer arithmetic is checked, columns are indexes, and what is not a function of its row alone is refused (C4).

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::physical_expr::expressions::BinaryExpr as PhysicalBinary;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use freshet_core::{Apart, Column, Error, ExprRef, Literal};

use crate::compile::reason_of;
use crate::now::{exact_ns, keeps_the_instant, mentions_now, refuse_now};
use crate::refusal::{Refusal, Result};
use crate::shift::with_shifts;

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
    let build = |expr: &Expr| -> Result<Arc<dyn PhysicalExpr>> {
        let physical = create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
        Ok(physical.transform_up(checked).data()?)
    };
    let physical = build(&expr)?;
    let data_type = physical.data_type(schema.as_arrow())?;
    let mut columns: Vec<usize> = collect_columns(&physical).iter().map(|column| column.index()).collect();
    columns.sort_unstable();
    columns.dedup();
    // As written: what is only faster does not change what the plan says.
    let text = physical.to_string();
    let faster = with_shifts(expr.clone(), schema)?;
    let physical = if faster == expr { physical } else { build(&faster)? };
    Ok(Arc::new(Compiled { physical, data_type, columns, text, apart: apart_of(&expr, schema) }))
}

/// A comparison of two timestamp columns, each with a constant interval added or not.
fn apart_of(expr: &Expr, schema: &DFSchema) -> Option<Apart> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    let (later, earlier) = match op {
        Operator::Gt | Operator::GtEq => (left, right),
        Operator::Lt | Operator::LtEq => (right, left),
        _ => return None,
    };
    let ((later, ahead), (earlier, behind)) = (instant_of(later, schema)?, instant_of(earlier, schema)?);
    Some(Apart { later, earlier, ns: behind.checked_sub(ahead)? })
}

/// A timestamp column + ns.
fn instant_of(expr: &Expr, schema: &DFSchema) -> Option<(usize, i64)> {
    match expr {
        Expr::Column(column) => {
            let index = schema.index_of_column(column).ok()?;
            matches!(schema.field(index).data_type(), DataType::Timestamp(_, None)).then_some((index, 0))
        }
        Expr::Cast(cast) if keeps_the_instant(cast, schema).ok()? => instant_of(&cast.expr, schema),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let Expr::Literal(value, _) = right.as_ref() else { return None };
            let ((index, ns), by) = (instant_of(left, schema)?, exact_ns(value).ok()??);
            let ns = if *op == Operator::Plus { ns.checked_add(by) } else { ns.checked_sub(by) };
            Some((index, ns?))
        }
        _ => None,
    }
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
    apart: Option<Apart>,
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

    /// A kernel that panics fails its batch, and in the end its row. Some compute on what lies under NULLs, which may be any number.
    fn evaluate(&self, batch: &RecordBatch) -> freshet_core::Result<ArrayRef> {
        let found = guarded(|| self.values(batch)).or_else(|_| guarded(|| self.values(&zeroed(batch, &self.columns)?)));
        found.unwrap_or_else(|reason| Err(Error::data(format!("the function failed: {reason}"))))
    }

    fn sql(&self) -> String {
        self.text.clone()
    }

    fn columns(&self) -> Vec<usize> {
        self.columns.clone()
    }

    fn apart(&self) -> Option<Apart> {
        self.apart
    }
}

fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| reason_of(panic.as_ref()))
}

/// The same rows with zeros under the NULLs of these columns.
fn zeroed(batch: &RecordBatch, columns: &[usize]) -> freshet_core::Result<RecordBatch> {
    let mut all = batch.columns().to_vec();
    for column in columns {
        let valid = &all[*column];
        let rows: UInt32Array = (0..batch.num_rows()).map(|row| valid.is_valid(row).then_some(row as u32)).collect();
        all[*column] = arrow::compute::take(valid, &rows, None)?;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), all, &options)?)
}

impl Compiled {
    fn values(&self, batch: &RecordBatch) -> freshet_core::Result<ArrayRef> {
        let failed = |error: datafusion::common::DataFusionError| Error::data(error.find_root().strip_backtrace());
        let values = self.physical.evaluate(batch).map_err(failed)?.into_array(batch.num_rows()).map_err(failed)?;
        if *values.data_type() == self.data_type {
            return Ok(values);
        }
        Ok(arrow::compute::cast(&values, &self.data_type)?)
    }
}

#[cfg(test)]
#[path = "expr_tests.rs"]
mod tests;

//! The expression seam. In: a batch of rows. Out: one value per row, or an error that concerns its row only (C4).

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar, UInt32Array, new_null_array};
use arrow::compute::{concat, kernels::cmp, take};
use arrow::datatypes::DataType;

use crate::Result;

/// Maps a batch to one array of its length. Deterministic; its meaning is its value on each row alone.
///
/// `evaluate` may fail as a whole when one row fails; [`evaluate_rows`] finds out which rows are to blame.
pub trait Expr: Debug + Send + Sync {
    fn data_type(&self) -> DataType;

    /// Errors: the message of whichever row failed.
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef>;

    /// Stable text, part of a plan's fingerprint.
    fn sql(&self) -> String;

    /// The input columns it reads, ascending, once each.
    fn columns(&self) -> Vec<usize>;

    /// What the expression says of two timestamps of its input, if it is true.
    fn apart(&self) -> Option<Apart> {
        None
    }

    /// The column, if the expression is nothing but that.
    fn as_column(&self) -> Option<usize> {
        None
    }
}

pub type ExprRef = Arc<dyn Expr>;

/// `later ≥ earlier + ns`, of two columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart {
    pub later: usize,
    pub earlier: usize,
    pub ns: i64,
}

/// An input column by index.
#[derive(Debug, Clone)]
pub struct Column {
    pub index: usize,
    pub name: String,
    pub data_type: DataType,
}

impl Expr for Column {
    fn data_type(&self) -> DataType {
        self.data_type.clone()
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        Ok(batch.column(self.index).clone())
    }

    fn sql(&self) -> String {
        format!("{}#{}", self.name, self.index)
    }

    fn columns(&self) -> Vec<usize> {
        vec![self.index]
    }

    fn as_column(&self) -> Option<usize> {
        Some(self.index)
    }
}

/// A constant, held as an array of length 1.
#[derive(Debug, Clone)]
pub struct Literal {
    pub value: ArrayRef,
    pub text: String,
}

impl Expr for Literal {
    fn data_type(&self) -> DataType {
        self.value.data_type().clone()
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        Ok(take(&self.value, &UInt32Array::from(vec![0; batch.num_rows()]), None)?)
    }

    fn sql(&self) -> String {
        self.text.clone()
    }

    fn columns(&self) -> Vec<usize> {
        Vec::new()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub fn sql(self) -> &'static str {
        match self {
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        }
    }
}

/// A column compared with a constant, so that engine tests need no SQL. NULL compares as NULL.
#[derive(Debug, Clone)]
pub struct Compare {
    pub column: Column,
    pub comparison: Comparison,
    pub literal: Literal,
}

impl Expr for Compare {
    fn data_type(&self) -> DataType {
        DataType::Boolean
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let (left, right) = (batch.column(self.column.index), Scalar::new(self.literal.value.clone()));
        let mask: BooleanArray = match self.comparison {
            Comparison::Less => cmp::lt(left, &right)?,
            Comparison::LessOrEqual => cmp::lt_eq(left, &right)?,
            Comparison::Greater => cmp::gt(left, &right)?,
            Comparison::GreaterOrEqual => cmp::gt_eq(left, &right)?,
        };
        Ok(Arc::new(mask))
    }

    fn sql(&self) -> String {
        format!("{} {} {}", self.column.sql(), self.comparison.sql(), self.literal.sql())
    }

    fn columns(&self) -> Vec<usize> {
        vec![self.column.index]
    }
}

/// The values of an expression, NULL where a row failed, and the failed rows with their messages, ascending.
#[derive(Debug)]
pub struct Evaluated {
    pub values: ArrayRef,
    pub errors: Vec<(usize, String)>,
}

/// Evaluates row by row in meaning, batch by batch in cost: a failing batch is halved until the failing rows stand alone.
/// One bad row of 8,192 costs about 27 evaluations of shrinking batches.
pub fn evaluate_rows(expr: &dyn Expr, batch: &RecordBatch) -> Evaluated {
    let mut errors = Vec::new();
    let mut parts = Vec::new();
    evaluate_half(expr, batch, 0, &mut parts, &mut errors);
    let values = match parts.len() {
        0 => arrow::array::new_empty_array(&expr.data_type()),
        1 => parts.swap_remove(0),
        _ => concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>()).expect("parts share the expression's type"),
    };
    Evaluated { values, errors }
}

fn evaluate_half(expr: &dyn Expr, batch: &RecordBatch, first_row: usize, parts: &mut Vec<ArrayRef>, errors: &mut Vec<(usize, String)>) {
    let rows = batch.num_rows();
    if rows == 0 {
        return;
    }
    match expr.evaluate(batch) {
        Ok(values) => parts.push(values),
        Err(error) if rows == 1 => {
            errors.push((first_row, error.to_string()));
            parts.push(new_null_array(&expr.data_type(), 1));
        }
        Err(_) => {
            let half = rows / 2;
            evaluate_half(expr, &batch.slice(0, half), first_row, parts, errors);
            evaluate_half(expr, &batch.slice(half, rows - half), first_row + half, parts, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::Error;

    /// Fails on every negative value.
    #[derive(Debug)]
    struct NoNegatives;

    impl Expr for NoNegatives {
        fn data_type(&self) -> DataType {
            DataType::Int64
        }
        fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
            match batch.column(0).as_primitive::<Int64Type>().values().iter().find(|v| **v < 0) {
                Some(v) => Err(Error::data(format!("{v} is negative"))),
                None => Ok(batch.column(0).clone()),
            }
        }
        fn sql(&self) -> String {
            "no_negatives".into()
        }
        fn columns(&self) -> Vec<usize> {
            vec![0]
        }
    }

    #[test]
    fn c4_a_failing_row_concerns_itself_only() {
        let values: Vec<i64> = (0..1000).map(|v| if v % 333 == 1 { -v } else { v }).collect();
        let batch = RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap();
        let found = evaluate_rows(&NoNegatives, &batch);
        assert_eq!(found.errors, vec![(1, "-1 is negative".into()), (334, "-334 is negative".into()), (667, "-667 is negative".into())]);
        assert_eq!(found.values.len(), 1000);
        assert!(found.values.is_null(334) && found.values.is_valid(335));
    }
}

//! A time plus or minus a constant length of time, as one addition per row. In: an expression before it is compiled. Out: the same with such
//! additions in place of interval arithmetic, which takes thirty times as long. Months have no length and stay as they are.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

const DAY_NS: i64 = 86_400_000_000_000;

/// The expression with its constant shifts of times as additions.
pub(crate) fn with_shifts(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.transform_up(|node| {
        Ok(match shifted(&node, schema) {
            Some(shift) => Transformed::yes(shift),
            None => Transformed::no(node),
        })
    })
    .data()
}

fn shifted(node: &Expr, schema: &DFSchema) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = node else { return None };
    let (time, nanoseconds) = match (op, interval(left), interval(right)) {
        (Operator::Plus, None, Some(length)) => (left, length),
        (Operator::Plus, Some(length), None) => (right, length),
        (Operator::Minus, None, Some(length)) => (left, length.checked_neg()?),
        _ => return None,
    };
    let DataType::Timestamp(unit, None) = time.get_type(schema).ok()? else { return None };
    let tick = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    (nanoseconds % tick == 0).then(|| ScalarUDF::from(Shift::new(unit, nanoseconds / tick)).call(vec![(**time).clone()]))
}

/// The length of a constant interval without months.
fn interval(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) if value.months == 0 => {
            i64::from(value.days).checked_mul(DAY_NS)?.checked_add(value.nanoseconds)
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(value)), _) => {
            i64::from(value.days).checked_mul(DAY_NS)?.checked_add(i64::from(value.milliseconds) * 1_000_000)
        }
        _ => None,
    }
}

#[derive(Debug)]
struct Shift {
    unit: TimeUnit,
    ticks: i64,
    signature: Signature,
}

impl PartialEq for Shift {
    fn eq(&self, other: &Shift) -> bool {
        (self.unit, self.ticks) == (other.unit, other.ticks)
    }
}

impl Eq for Shift {}

impl Hash for Shift {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.unit, self.ticks).hash(state);
    }
}

impl Shift {
    fn new(unit: TimeUnit, ticks: i64) -> Shift {
        Shift { unit, ticks, signature: Signature::exact(vec![DataType::Timestamp(unit, None)], Volatility::Immutable) }
    }

    /// Errors: a time beyond what its type holds.
    fn of<T: ArrowPrimitiveType<Native = i64>>(&self, times: &ArrayRef) -> Result<ArrayRef> {
        let times = times.as_primitive::<T>();
        let shifted: PrimitiveArray<T> = if times.null_count() == 0 && in_range(times.values(), self.ticks) {
            times.unary(|time| time + self.ticks)
        } else {
            times.try_unary(|time| time.checked_add(self.ticks).ok_or_else(|| exec_datafusion_err!("{time} + {} is out of range", self.ticks)))?
        };
        Ok(Arc::new(shifted))
    }
}

/// No sum is out of range.
fn in_range(times: &[i64], ticks: i64) -> bool {
    let (least, greatest) = times.iter().fold((i64::MAX, i64::MIN), |(least, greatest), time| (least.min(*time), greatest.max(*time)));
    times.is_empty() || (least.checked_add(ticks).is_some() && greatest.checked_add(ticks).is_some())
}

impl ScalarUDFImpl for Shift {
    fn name(&self) -> &str {
        "shift"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(self.unit, None))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [times] = columns.as_slice() else { return exec_err!("a shift is of one time") };
        Ok(ColumnarValue::Array(match self.unit {
            TimeUnit::Second => self.of::<TimestampSecondType>(times)?,
            TimeUnit::Millisecond => self.of::<TimestampMillisecondType>(times)?,
            TimeUnit::Microsecond => self.of::<TimestampMicrosecondType>(times)?,
            TimeUnit::Nanosecond => self.of::<TimestampNanosecondType>(times)?,
        }))
    }
}

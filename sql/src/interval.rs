//! AST → AST: intervals that DataFusion does not read or multiply. In: `INTERVAL '1 day 02:03:04'`, `2 * INTERVAL '1 hour'`. Out: intervals by units;
//! where the number is a column, a function of both.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Interval, ObjectName, Query,
    UnaryOperator, Value, visit_expressions_mut,
};

/// No user can type it unquoted.
const TIMES: &str = "interval$times";
const DAY_NS: f64 = 86_400e9;
/// What a fraction of a month counts, as in PostgreSQL.
const MONTH_DAYS: f64 = 30.0;

/// Rewrites every such interval of the query.
pub(crate) fn spelled(query: &mut Query) {
    // Below before above, so that a product of products is one, too.
    let _ = visit_expressions_mut(query, |expr| {
        let taken = match expr {
            Expr::Interval(interval) => clock_spelled(interval).map(Expr::Interval),
            Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } => match (is_interval(left), is_interval(right)) {
                (true, false) => Some(times(left, right)),
                (false, true) => Some(times(right, left)),
                _ => None,
            },
            Expr::BinaryOp { left, op: BinaryOperator::Divide, right } if is_interval(left) && !is_interval(right) => {
                match (parts(left), number(right)) {
                    (Some(parts), Some(number)) if number != 0.0 => scaled(parts, 1.0 / number).map(literal),
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(taken) = taken {
            *expr = taken;
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The function behind products with a column.
pub(crate) fn function() -> ScalarUDF {
    let arguments = vec![DataType::Interval(IntervalUnit::MonthDayNano), DataType::Float64];
    ScalarUDF::from(Times { signature: Signature::exact(arguments, Volatility::Immutable) })
}

fn is_interval(expr: &Expr) -> bool {
    match expr {
        Expr::Interval(_) => true,
        Expr::Nested(inner) => is_interval(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_interval(expr),
        Expr::Function(function) => function.name.to_string().contains(TIMES),
        _ => false,
    }
}

/// A constant if both are, else a call.
fn times(interval: &Expr, factor: &Expr) -> Expr {
    if let Some(product) = parts(interval).zip(number(factor)).and_then(|(parts, number)| scaled(parts, number)) {
        return literal(product);
    }
    let args = [interval, factor].map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg.clone()))).to_vec();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_quote('"', TIMES)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn number(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        Expr::Nested(inner) => number(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => number(expr).map(|number| -number),
        _ => None,
    }
}

fn parts(expr: &Expr) -> Option<IntervalMonthDayNano> {
    match expr {
        Expr::Nested(inner) => parts(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => scaled(parts(expr)?, -1.0),
        Expr::Interval(interval) => {
            let interval = clock_spelled(interval).unwrap_or_else(|| interval.clone());
            let unit = interval.leading_field.as_ref().map_or(String::new(), |unit| format!(" {unit}"));
            let text = text_of(&interval)?;
            match ScalarValue::Utf8(Some(format!("{text}{unit}"))).cast_to(&DataType::Interval(IntervalUnit::MonthDayNano)).ok()? {
                ScalarValue::IntervalMonthDayNano(parts) => parts,
                _ => None,
            }
        }
        _ => None,
    }
}

/// Fractions of a month are days and those of a day are time. None: too long.
fn scaled(parts: IntervalMonthDayNano, factor: f64) -> Option<IntervalMonthDayNano> {
    let months = f64::from(parts.months) * factor;
    let days = f64::from(parts.days) * factor + months.fract() * MONTH_DAYS;
    // Whole nanoseconds stay exact where nothing is divided.
    let own = if factor.fract() == 0.0 && factor.abs() < 1e15 {
        parts.nanoseconds.checked_mul(factor as i64)?
    } else {
        whole(parts.nanoseconds as f64 * factor, i64::MAX as f64)? as i64
    };
    let nanoseconds = own.checked_add(whole(days.fract() * DAY_NS, i64::MAX as f64)? as i64)?;
    let bound = f64::from(i32::MAX);
    Some(IntervalMonthDayNano::new(whole(months.trunc(), bound)? as i32, whole(days.trunc(), bound)? as i32, nanoseconds))
}

fn whole(value: f64, bound: f64) -> Option<f64> {
    (value.abs() < bound).then(|| value.round())
}

fn literal(parts: IntervalMonthDayNano) -> Expr {
    let (seconds, rest) = (parts.nanoseconds / 1_000_000_000, parts.nanoseconds % 1_000_000_000);
    let text = format!("{} months {} days {seconds} seconds {rest} nanoseconds", parts.months, parts.days);
    Expr::Interval(Interval {
        value: Box::new(Expr::Value(Value::SingleQuotedString(text).into())),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    })
}

fn text_of(interval: &Interval) -> Option<&str> {
    match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// `'1 day 02:03:04.5'` by units; None if there is no clock in it.
fn clock_spelled(interval: &Interval) -> Option<Interval> {
    if interval.leading_field.is_some() {
        return None;
    }
    let text = text_of(interval).filter(|text| text.contains(':'))?;
    let words: Option<Vec<String>> =
        text.split_whitespace().map(|word| if word.contains(':') { clock(word) } else { Some(word.to_string()) }).collect();
    let text = words?.join(" ");
    let place = match interval.value.as_ref() {
        Expr::Value(value) => value.span,
        _ => return None,
    };
    let value = Expr::Value(Value::SingleQuotedString(text).with_span(place));
    Some(Interval { value: Box::new(value), ..interval.clone() })
}

/// `[-]hours:minutes[:seconds]`
fn clock(word: &str) -> Option<String> {
    let (sign, rest) = match word.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", word.strip_prefix('+').unwrap_or(word)),
    };
    let fields: Vec<&str> = rest.split(':').collect();
    let (hours, minutes, seconds) = match fields[..] {
        [hours, minutes] => (hours, minutes, "0"),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    let (hour, minute, second): (u32, u32, f64) = (hours.parse().ok()?, minutes.parse().ok()?, seconds.parse().ok()?);
    (minute < 60 && (0.0..60.0).contains(&second)).then(|| format!("{sign}{hour} hours {sign}{minute} minutes {sign}{seconds} seconds"))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Times {
    signature: Signature,
}

impl ScalarUDFImpl for Times {
    fn name(&self) -> &str {
        TIMES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [intervals, factors] = columns.as_slice() else { return plan_err!("a product has two factors") };
        let pairs = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().zip(factors.as_primitive::<Float64Type>());
        let product = |(interval, factor): (Option<IntervalMonthDayNano>, Option<f64>)| {
            let Some((interval, factor)) = interval.zip(factor) else { return Ok(None) };
            let too_long = || ArrowError::ComputeError(format!("{factor} times the interval is out of range"));
            scaled(interval, factor).map(Some).ok_or_else(too_long)
        };
        let products = pairs.map(product).collect::<Result<IntervalMonthDayNanoArray, ArrowError>>()?;
        Ok(ColumnarValue::Array(Arc::new(products) as ArrayRef))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_hours_minutes_and_seconds() {
        assert_eq!(clock("01:02:03").as_deref(), Some("1 hours 2 minutes 03 seconds"));
        assert_eq!(clock("-1:30").as_deref(), Some("-1 hours -30 minutes -0 seconds"));
        assert_eq!(clock("1:60"), None);
        assert_eq!(clock("1:2:3:4"), None);
    }

    #[test]
    fn fractions_of_months_are_days_and_of_days_time() {
        let of = |months, days, nanoseconds| IntervalMonthDayNano::new(months, days, nanoseconds);
        assert_eq!(scaled(of(1, 1, 1), 3.0), Some(of(3, 3, 3)));
        assert_eq!(scaled(of(1, 0, 0), 0.5), Some(of(0, 15, 0)));
        assert_eq!(scaled(of(0, 1, 0), 1.5), Some(of(0, 1, 43_200_000_000_000)));
        assert_eq!(scaled(of(0, 0, i64::MAX), 2.0), None);
        assert_eq!(scaled(of(1, 0, 0), f64::NAN), None);
    }
}

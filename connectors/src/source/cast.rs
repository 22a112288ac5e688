//! Which column types of a file fit which declared types. In: a column. Out: the declared type; a value that does not fit is NULL.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType};
use freshet_core::Result;

use crate::decode::sql_name;

/// Whether every value of one type has a meaning in the other, save for its range. A cast that would round silently is none.
pub fn is_possible(found: &DataType, declared: &DataType) -> bool {
    use DataType::*;
    if found == declared || *found == Null {
        return true;
    }
    match (found, declared) {
        (Dictionary(_, values), _) => is_possible(values, declared),
        (Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView, Utf8) => true,
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary) => true,
        (Timestamp(_, _), Timestamp(_, _)) => true,
        (Date32 | Date64, Timestamp(_, _) | Date32) => true,
        (Float16 | Float32, Float32 | Float64) => true,
        (Decimal32(_, _) | Decimal64(_, _) | Decimal128(_, _), Decimal128(_, scale)) => decimal_scale(found) <= Some(*scale),
        (Decimal32(_, _) | Decimal64(_, _) | Decimal128(_, _), Float64) => true,
        _ => found.is_integer() && (declared.is_integer() || matches!(declared, Float64 | Decimal128(_, _))),
    }
}

fn decimal_scale(data_type: &DataType) -> Option<i8> {
    match data_type {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => Some(*scale),
        _ => None,
    }
}

/// What to declare instead.
pub fn remedy(found: &DataType) -> String {
    let fitting = match found {
        DataType::Dictionary(_, values) => return remedy(values),
        found if found.is_integer() => DataType::Int64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary => DataType::Utf8,
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, None),
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Boolean => DataType::Boolean,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) | DataType::Decimal128(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        _ => return "leave the column out, or write the file with another type".into(),
    };
    format!("declare it {}", sql_name(&fitting))
}

/// Errors: Internal, if the cast is not possible.
pub fn cast(column: &ArrayRef, declared: &DataType) -> Result<ArrayRef> {
    if column.data_type() == declared {
        return Ok(column.clone());
    }
    // A zone says how to show an instant; the instant itself is already UTC, and Arrow's cast would shift it.
    let column = if let DataType::Timestamp(unit, Some(_)) = column.data_type() { without_zone(column, *unit) } else { column.clone() };
    Ok(cast_with_options(&column, declared, &CastOptions { safe: true, ..Default::default() })?)
}

fn without_zone(column: &ArrayRef, unit: TimeUnit) -> ArrayRef {
    use std::sync::Arc;
    match unit {
        TimeUnit::Second => Arc::new(column.as_primitive::<TimestampSecondType>().clone().with_timezone_opt(None::<&str>)),
        TimeUnit::Millisecond => Arc::new(column.as_primitive::<TimestampMillisecondType>().clone().with_timezone_opt(None::<&str>)),
        TimeUnit::Microsecond => Arc::new(column.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<&str>)),
        TimeUnit::Nanosecond => Arc::new(column.as_primitive::<TimestampNanosecondType>().clone().with_timezone_opt(None::<&str>)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, TimestampNanosecondArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn casts_that_lose_silently_are_refused() {
        use DataType::*;
        assert!(is_possible(&Int64, &Int32) && is_possible(&UInt8, &Float64) && is_possible(&LargeUtf8, &Utf8));
        assert!(is_possible(&Dictionary(Box::new(Int32), Box::new(Utf8)), &Utf8));
        assert!(!is_possible(&Float64, &Int32) && !is_possible(&Float64, &Float32) && !is_possible(&Utf8, &Int64));
        assert!(!is_possible(&Int64, &Timestamp(TimeUnit::Millisecond, None)) && !is_possible(&Int64, &Utf8));
        assert_eq!(remedy(&Float64), "declare it DOUBLE");
    }

    #[test]
    fn what_does_not_fit_is_null_and_zones_do_not_shift() {
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![7, 1 << 40]));
        let cast_ints = cast(&ints, &DataType::Int32).unwrap();
        assert_eq!(cast_ints.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(7), None]);
        let zoned: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![5_000_000]).with_timezone("+02:00"));
        let plain = cast(&zoned, &DataType::Timestamp(TimeUnit::Millisecond, None)).unwrap();
        assert_eq!(plain.as_primitive::<TimestampMillisecondType>().value(0), 5);
    }
}

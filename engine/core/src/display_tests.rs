//! Values beside what psql shows of them. In: cells. Out: their text.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;

use super::*;

fn shown(column: impl Array + 'static) -> Vec<String> {
    texts(&(Arc::new(column) as ArrayRef)).unwrap().into_iter().map(|text| text.unwrap_or_else(|| "NULL".into())).collect()
}

#[test]
fn booleans_numbers_and_texts_print_as_postgresql_prints_them() {
    assert_eq!(shown(BooleanArray::from(vec![Some(true), Some(false), None])), ["t", "f", "NULL"]);
    assert_eq!(shown(Int64Array::from(vec![0, i64::MIN])), ["0", "-9223372036854775808"]);
    assert_eq!(shown(UInt64Array::from(vec![u64::MAX])), ["18446744073709551615"]);
    assert_eq!(shown(StringArray::from(vec!["", "a b"])), ["", "a b"]);
    assert_eq!(shown(BinaryArray::from(vec![&b"\x00\xff"[..], b""])), ["\\x00ff", "\\x"]);
    let decimals = Decimal128Array::from(vec![Some(12300), Some(-5), Some(0)]).with_precision_and_scale(10, 2).unwrap();
    assert_eq!(shown(decimals), ["123.00", "-0.05", "0.00"]);
}

#[test]
fn floats_print_with_the_fewest_digits_that_read_back_the_same() {
    let doubles = [1.0, -0.0, 0.1, 1.5, 100.0, 1e14, 1e15, 1e20, 123456789.125, 0.0001, 0.00001, -1.25e-7, f64::MAX, 5e-324];
    let printed = ["1", "-0", "0.1", "1.5", "100", "100000000000000", "1e+15", "1e+20", "123456789.125", "0.0001", "1e-05", "-1.25e-07"];
    assert_eq!(shown(Float64Array::from(doubles.to_vec()))[..12], printed);
    assert_eq!(shown(Float64Array::from(doubles.to_vec()))[12..], ["1.7976931348623157e+308", "5e-324"]);
    assert_eq!(shown(Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY])), ["NaN", "Infinity", "-Infinity"]);
    assert_eq!(shown(Float32Array::from(vec![0.1, 999_999.0, 1e6, 1.5])), ["0.1", "999999", "1e+06", "1.5"]);
}

#[test]
fn times_print_without_t_and_without_zeros_at_their_end() {
    assert_eq!(
        shown(Date32Array::from(vec![0, 19_782, -1, -719_163, 2_932_896 + 1])),
        ["1970-01-01", "2024-02-29", "1969-12-31", "0001-12-31 BC", "10000-01-01"]
    );
    assert_eq!(
        shown(TimestampMillisecondArray::from(vec![1_357_034_400_000, 1, 1_500, -1])),
        ["2013-01-01 10:00:00", "1970-01-01 00:00:00.001", "1970-01-01 00:00:01.5", "1969-12-31 23:59:59.999"]
    );
    assert_eq!(shown(TimestampMicrosecondArray::from(vec![1_000_010])), ["1970-01-01 00:00:01.00001"]);
    assert_eq!(shown(TimestampNanosecondArray::from(vec![1]).with_timezone("UTC")), ["1970-01-01 00:00:00.000000001+00"]);
    assert_eq!(shown(Time64MicrosecondArray::from(vec![3_723_500_000])), ["01:02:03.5"]);
}

#[test]
fn intervals_print_each_part_with_its_sign() {
    let value = |months, days, nanoseconds| IntervalMonthDayNano { months, days, nanoseconds };
    let hour = 3_600_000_000_000;
    let intervals = IntervalMonthDayNanoArray::from(vec![
        value(0, 0, 0),
        value(14, 3, 4 * hour + 1_500_000_000),
        value(0, -1, 2 * hour),
        value(-1, 1, -hour),
        value(0, 0, 25 * hour),
        value(1, 0, 0),
    ]);
    assert_eq!(
        shown(intervals),
        ["00:00:00", "1 year 2 mons 3 days 04:00:01.5", "-1 days +02:00:00", "-1 mons +1 day -01:00:00", "25:00:00", "1 mon"]
    );
    assert_eq!(shown(DurationMillisecondArray::from(vec![90_000_000, -1])), ["1 day 01:00:00", "-00:00:00.001"]);
}

#[test]
fn nested_values_quote_what_would_be_misread() {
    let texts = StringArray::from(vec![Some("a"), None, Some(""), Some("null"), Some("x y"), Some("q\"\\")]);
    let field = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let lists = ListArray::new(field, OffsetBuffer::from_lengths([6, 0]), Arc::new(texts), None);
    assert_eq!(shown(lists), [r#"{a,NULL,"","null","x y","q\"\\"}"#, "{}"]);
    let inner = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)]), Some(vec![None])]);
    let field = Arc::new(Field::new_list_field(inner.data_type().clone(), true));
    assert_eq!(shown(ListArray::new(field, OffsetBuffer::from_lengths([2]), Arc::new(inner), None)), ["{{1,2},{NULL}}"]);
    let columns: Vec<(Arc<Field>, ArrayRef)> = vec![
        (Arc::new(Field::new("a", DataType::Int32, true)), Arc::new(Int32Array::from(vec![Some(1), None]))),
        (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::new(StringArray::from(vec!["a,\"b\"", ""]))),
    ];
    assert_eq!(shown(StructArray::from(columns)), [r#"(1,"a,""b""")"#, r#"(,"")"#]);
}

//! The scanner takes what serde_json takes, with the same values.

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef, TimeUnit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::decode::json::JsonDecoder;
use crate::decode::record::RowDecoder;

fn schema() -> SchemaRef {
    let types = [
        DataType::Int64,
        DataType::Int8,
        DataType::UInt64,
        DataType::Float64,
        DataType::Float32,
        DataType::Boolean,
        DataType::Utf8,
        DataType::Binary,
        DataType::Decimal128(20, 4),
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Millisecond, None),
    ];
    Arc::new(Schema::new(
        types.into_iter().enumerate().map(|(index, data_type)| Field::new(format!("c{index}"), data_type, true)).collect::<Vec<_>>(),
    ))
}

/// Values as people and programs write them, and as they should not.
const VALUES: &[&str] = &[
    "0",
    "-0",
    "7",
    "-7",
    "007",
    "1.",
    ".5",
    "1.5",
    "-0.0",
    "2.0",
    "1e3",
    "1E-3",
    "1e+2",
    "1e",
    "1e999",
    "-1e999",
    "1e-999",
    "1e0003",
    "127",
    "128",
    "-129",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "0.30000000000000004",
    "12.658579999999999",
    "8.5e-304",
    "4.9e-324",
    "1.7976931348623157e308",
    "0.1",
    "1e22",
    "1e23",
    "9007199254740993.0",
    "0.000000000000000000000000123456789",
    "true",
    "false",
    "null",
    "nul",
    "tru",
    "NaN",
    "-Infinity",
    "\"NaN\"",
    "\"\"",
    "\"a\"",
    "\"seven b\"",
    "\"eight by\"",
    "\"a longer text, ünïcödé\"",
    "\"with \\\"quotes\\\" and \\n\"",
    "\"\\u00e9\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\"\\x\"",
    "\"a\tb\"",
    "\"AQI=\"",
    "\"2013-01-01\"",
    "\"2013-01-01T10:15:00.250Z\"",
    "\"open",
    "{}",
    "[]",
    "[1,[2,{\"a\":\"]\"}]]",
    "[1,",
    "{\"c0\":1}",
    "{\"a\":1e999}",
    "",
    "+1",
    "1 2",
];

fn record(random: &mut StdRng) -> String {
    let space = |random: &mut StdRng| ["", "", "", " ", "\n\t "][random.random_range(0..5)];
    let mut text = format!("{}{{{}", space(random), space(random));
    let members = random.random_range(0..8);
    let mut column = random.random_range(0..4);
    for member in 0..members {
        let name =
            if random.random_bool(0.8) { format!("c{column}") } else { ["x", "c", "c1x", "\\u0063", "ä"][random.random_range(0..5)].to_string() };
        column = if random.random_bool(0.9) { column + 1 } else { random.random_range(0..12) };
        let value = VALUES[random.random_range(0..VALUES.len())];
        let comma = if member + 1 == members { "" } else { "," };
        text += &format!("\"{name}\"{}:{}{value}{}{comma}{}", space(random), space(random), space(random), space(random));
    }
    text + "}" + space(random)
}

fn read(decoder: &mut JsonDecoder, record: &[u8]) -> Result<String, String> {
    let mut rows = Rows::new(schema());
    decoder.fill(record, &mut rows).map_err(|refusal| format!("{refusal:?}"))?;
    rows.end_row(1, 0).map_err(|fault| format!("{fault:?}"))?;
    Ok(format!("{:?}", rows.finish(0, 1).unwrap().rows))
}

#[test]
fn the_scanner_and_serde_read_every_record_alike() {
    let columns: Vec<usize> = (0..schema().fields().len()).collect();
    let mut both = JsonDecoder::new(&schema(), &columns);
    let mut alone = JsonDecoder::by_serde(&schema(), &columns);
    let mut scanner = Scanner::new(&schema(), &columns).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..40_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut text =
            if seed < VALUES.len() as u64 * 11 { format!("{{\"c{}\":{}}}", seed % 11, VALUES[seed as usize / 11]) } else { record(&mut random) };
        if seed % 5 == 4 {
            let at = (0..text.len()).filter(|at| text.is_char_boundary(*at)).nth(random.random_range(0..text.chars().count())).unwrap();
            text = if random.random_bool(0.5) { text[..at].to_string() } else { text[..at].to_string() + "\"" + &text[at..] };
        }
        let expected = read(&mut alone, text.as_bytes());
        assert_eq!(read(&mut both, text.as_bytes()), expected, "seed {seed}: {text}");
        let scanned = scanner.fill(&text, &mut Rows::new(schema())).is_some();
        assert!(!scanned || expected.is_ok(), "seed {seed}: {text}");
        taken += u32::from(scanned);
        refused += u32::from(expected.is_err());
    }
    assert!(taken > 5_000 && refused > 5_000, "{taken} were scanned, {refused} are no rows");
}

#[test]
fn doubles_of_all_sizes_are_the_nearest() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("d", DataType::Float64, true)]));
    let mut scanner = Scanner::new(&schema, &[0]).unwrap();
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let value = f64::from_bits(random.random());
        let short = random.random_range(-1e6..1e6_f64);
        for text in [format!("{value}"), format!("{value:e}"), format!("{short:.3}"), format!("{short:.17}")] {
            if !value.is_finite() {
                continue;
            }
            let mut rows = Rows::new(schema.clone());
            let scanned = scanner.fill(&format!("{{\"d\":{text}}}"), &mut rows);
            rows.end_row(1, 0).unwrap();
            let batch = rows.finish(0, 1).unwrap().rows;
            let found = batch.column(0).as_any().downcast_ref::<arrow::array::Float64Array>().unwrap().value(0);
            assert_eq!(found.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text} {scanned:?}");
        }
    }
}

#[test]
fn a_name_that_json_escapes_is_left_to_serde() {
    for name in ["a\\n", "a\"b", "tab\t"] {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, true)]));
        assert!(Scanner::new(&schema, &[0]).is_none());
    }
}

#[test]
fn the_end_of_a_plain_string_is_found_at_every_place() {
    for length in 0..40 {
        for (stop, others) in [(b'"', b'~'), (b'\\', 0x80), (0x1f, 0xff), (0, 0x20), (b'\n', 0x21), (b'"', 0x23)] {
            let mut bytes = vec![others; length];
            assert_eq!(plain_length(&bytes), length);
            for at in 0..length {
                bytes[at] = stop;
                assert_eq!(plain_length(&bytes), at);
                bytes[at] = others;
            }
        }
    }
}

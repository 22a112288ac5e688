use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int32Type;
use freshet_connectors::BuiltIn;
use freshet_core::{Connectors, Encode, Format, MetadataColumn, Value};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::tempdir;

use crate::setup::*;

#[test]
fn json_lines_are_read_by_name_and_missing_is_null() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(
        &path,
        "\u{feff}{\"amount\":2,\"id\":1,\"other\":{\"x\":[1]},\"at\":\"2013-01-01T10:15:00.250Z\"}\r\n\n  \n{\"id\":2,\"name\":\"b\",\"at\":7}",
    )
    .unwrap();
    let delivered = read(&source(&path, Format::Plain, Encode::Json), 100);
    assert_eq!(delivered.rows, [row(1, None, Some(1_357_035_300_250), Some(2.0)), row(2, Some("b"), Some(7), None)]);
    assert_eq!(delivered.offsets, [0, 1]);
    assert_eq!(delivered.borders, [2]);
}

#[test]
fn columns_can_be_filled_with_the_file_and_the_number_of_the_record() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("a.jsonl"), "{\"amount\":1}\n{\"amount\":2,\"name\":\"own\"}").unwrap();
    fs::write(folder.path().join("b.jsonl"), "{\"amount\":3}").unwrap();
    let mut def = source(&folder.path().join("*.jsonl"), Format::Plain, Encode::Json);
    let column = |name: &str| def.schema.index_of(name).unwrap();
    let filled = [("id", "offset"), ("name", "file")].map(|(of, name)| MetadataColumn { column: column(of), name: name.into() });
    def.metadata = filled.to_vec();
    let delivered = read(&def, 100);
    assert_eq!(delivered.ids(), [0, 1, 2]);
    let files: Vec<String> = delivered.rows.iter().map(|row| row[1].to_string()).collect();
    assert!(files[0].ends_with("a.jsonl") && files[1] == files[0] && files[2].ends_with("b.jsonl"), "{files:?}");
    def.metadata[0].name = "topic".into();
    let error = BuiltIn.check_source(&def).unwrap_err();
    assert_eq!(
        (error.option.as_deref(), error.message.as_str()),
        (Some("metadata.topic"), "a record of a file has no metadata topic; it has file, modified, row and offset")
    );
}

#[test]
fn a_bad_record_costs_its_own_row_only() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines = ["{\"id\":1}", "{\"id\":1.5,\"name\":\"x\"}", "{\"name\":\"no id\"}", "{\"id\":2", "[3]", "{\"id\":4,\"at\":\"noon\"}", "{\"id\":5}"];
    fs::write(&path, lines.join("\n")).unwrap();
    let delivered = read(&source(&path, Format::Plain, Encode::Json), 100);
    assert_eq!(delivered.ids(), [1, 5]);
    assert_eq!(delivered.offsets, [0, 6]);
    let letters: Vec<(u64, &str, &str)> =
        delivered.dead_letters.iter().map(|letter| (letter.offset, letter.field.as_str(), letter.reason.as_str())).collect();
    assert_eq!(
        letters,
        [
            (1, "id", "expected BIGINT, found 1.5"),
            (2, "id", "NULL or missing, but the column is NOT NULL"),
            (3, "", "not a JSON object: EOF while parsing an object at byte 7"),
            (4, "", "invalid type: sequence, expected an object with a member per column"),
            (5, "at", "expected TIMESTAMP(3), found the string \"noon\""),
        ]
    );
    assert_eq!(delivered.dead_letters[2].raw, b"{\"id\":2");
}

#[test]
fn debezium_changes_become_insertions_and_retractions() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines = [
        r#"{"op":"r","before":null,"after":{"id":1,"name":"a"},"ts_ms":5}"#,
        r#"{"schema":{},"payload":{"op":"u","before":{"id":1,"name":"a"},"after":{"id":1,"name":"b"}}}"#,
        "null",
        r#"{"op":"d","before":{"id":1,"name":"b"},"after":null}"#,
        r#"{"op":"d","before":null}"#,
        r#"{"op":"u","before":{"id":1},"after":{"name":"half"}}"#,
        r#"{"op":"t"}"#,
        r#"{"id":1}"#,
    ];
    fs::write(&path, lines.join("\n")).unwrap();
    let def = source(&path, Format::Debezium, Encode::Json);
    let delivered = read(&def, 100);
    let (a, b) = (row(1, Some("a"), None, None), row(1, Some("b"), None, None));
    assert_eq!(delivered.rows, [a.clone(), a, b.clone(), b]);
    assert_eq!(delivered.diffs, [1, -1, 1, -1]);
    assert_eq!(delivered.offsets, [0, 1, 1, 3]);
    let fields: Vec<(u64, &str)> = delivered.dead_letters.iter().map(|letter| (letter.offset, letter.field.as_str())).collect();
    assert_eq!(fields, [(4, "before"), (5, "id"), (6, "op"), (7, "op")]);
    let one_by_one = read(&def, 1);
    assert_eq!((one_by_one.rows, one_by_one.offsets, one_by_one.dead_letters), (delivered.rows, delivered.offsets, delivered.dead_letters));
    assert_eq!(one_by_one.borders, [1, 3, 8], "the two rows of an update stay together");
}

#[test]
fn csv_is_read_by_header_name_or_by_order() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, "amount;name;id;at;more\n1.5;\"a;\"\"b\"\"\nc\";1;2013-01-01 10:15:00;x\nNA;\"NA\";2;NA;x\nx;y;3;1;x\n1;2\n").unwrap();
    let mut def = source(&path, Format::Plain, Encode::Csv);
    def.options.extend([("delimiter".to_string(), ";".to_string()), ("null".to_string(), "NA".to_string())]);
    let delivered = read(&def, 100);
    assert_eq!(delivered.rows, [row(1, Some("a;\"b\"\nc"), Some(1_357_035_300_000), Some(1.5)), row(2, Some("NA"), None, None)]);
    let reasons: Vec<&str> = delivered.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["expected DOUBLE, found \"x\"", "expected 5 fields, found 2"]);

    fs::write(&path, "1,a,5,\n2,\"\",,inf\n").unwrap();
    let mut def = source(&path, Format::Plain, Encode::Csv);
    def.options.insert("header".into(), "false".into());
    assert_eq!(read(&def, 100).rows, [row(1, Some("a"), Some(5), None), row(2, Some(""), None, Some(f64::INFINITY))]);
}

#[test]
fn files_of_a_folder_or_glob_are_one_sequence_in_name_order() {
    let folder = tempdir().unwrap();
    for (name, ids) in [("b.jsonl", 3..5), ("a.jsonl", 1..3), ("_hidden", 8..9), (".part", 9..10), ("c.txt", 5..6)] {
        let lines: String = ids.map(|id| format!("{{\"id\":{id}}}\n")).collect();
        fs::write(folder.path().join(name), lines).unwrap();
    }
    assert_eq!(read(&source(folder.path(), Format::Plain, Encode::Json), 100).ids(), [1, 2, 3, 4, 5]);
    let glob = source(&folder.path().join("*.jsonl"), Format::Plain, Encode::Json);
    assert_eq!(read(&glob, 100).ids(), [1, 2, 3, 4]);
    let mut url = glob.clone();
    url.options.insert("path".into(), format!("file://{}/a.jsonl", folder.path().display()));
    assert_eq!(read(&url, 100).ids(), [1, 2]);
}

/// Three files of 20,000 records each, so that batches, row groups and reads end inside them.
fn long_files(folder: &std::path::Path, encode: Encode) {
    for file in 0..3_i64 {
        let ids = file * 20_000..(file + 1) * 20_000;
        match encode {
            Encode::Parquet => write_parquet(&folder.join(format!("{file}")), vec![("id", Arc::new(Int64Array::from_iter_values(ids)))], 3_000),
            Encode::Json => fs::write(folder.join(format!("{file}")), ids.map(|id| format!("{{\"id\":{id}}}\n")).collect::<String>()).unwrap(),
            Encode::Csv => {
                let lines: String = ids.map(|id| format!("{id},\"a\n\"\n")).collect();
                fs::write(folder.join(format!("{file}")), format!("id,name\n{lines}")).unwrap();
            }
            other => panic!("no files of {other:?}"),
        }
    }
}

fn write_parquet(path: &std::path::Path, columns: Vec<(&str, ArrayRef)>, group_rows: usize) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn narrow(mut def: freshet_core::SourceDef, columns: usize) -> freshet_core::SourceDef {
    def.schema = Arc::new(schema().project(&(0..columns).collect::<Vec<_>>()).unwrap());
    def
}

#[test]
fn seek_goes_on_in_the_middle_of_any_file() {
    for (encode, columns) in [(Encode::Json, 1), (Encode::Csv, 2), (Encode::Parquet, 1)] {
        let folder = tempdir().unwrap();
        long_files(folder.path(), encode);
        let def = narrow(source(folder.path(), Format::Plain, encode), columns);
        let whole = read(&def, 1_000);
        assert_eq!(whole.ids(), (0..60_000).collect::<Vec<_>>(), "{encode:?}");
        assert_eq!(whole.offsets, (0..60_000).collect::<Vec<_>>(), "{encode:?}");
        for offset in [0, 1, 2_999, 3_000, 19_999, 20_000, 25_001, 40_000, 59_999, 60_000_u64] {
            let mut source = open(&def);
            source.seek(0, offset).unwrap();
            let rest = drain(source, 7_000);
            assert_eq!(rest.offsets, (offset..60_000).collect::<Vec<_>>(), "{encode:?} {offset}");
            assert_eq!(rest.ids(), (i128::from(offset)..60_000).collect::<Vec<_>>(), "{encode:?} {offset}");
        }
        let mut source = open(&def);
        source.seek(0, 60_001).unwrap();
        let error = loop {
            match source.poll(10) {
                Err(error) => break error,
                Ok(poll) => assert!(matches!(poll, freshet_core::Poll::Pending)),
            }
        };
        assert_eq!(error.message, "source events: cannot go on at record 60001: the files have only 60000; they have changed since");
    }
}

#[test]
fn parquet_columns_are_cast_and_misfits_are_dead_letters() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let names: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("amount", Arc::new(Int32Array::from(vec![1, 2, 3]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_000, 2_999, 3_000]).with_timezone("+02:00"))),
        ("unused", Arc::new(Float64Array::from(vec![0.5, 0.5, 0.5]))),
        ("name", Arc::new(names)),
        ("id", Arc::new(Int64Array::from(vec![Some(7), None, Some(1 << 40)]))),
    ];
    write_parquet(&path, columns, 100);
    let def = source(&path, Format::Plain, Encode::Parquet);
    let delivered = read(&def, 100);
    assert_eq!(delivered.rows, [row(7, Some("a"), Some(1), Some(1.0)), row(1 << 40, Some("a"), Some(3), Some(3.0))]);
    assert_eq!(delivered.offsets, [0, 2]);
    assert_eq!((delivered.dead_letters[0].offset, delivered.dead_letters[0].field.as_str()), (1, "id"));
    assert_eq!(delivered.dead_letters[0].reason, "NULL, but the column is NOT NULL");

    let mut small = def;
    small.schema = Arc::new(arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new("id", arrow::datatypes::DataType::Int32, true)]));
    let delivered = read(&small, 100);
    assert_eq!(delivered.rows, [vec![Value::Int(7)], vec![Value::Null]]);
    let letter = &delivered.dead_letters[0];
    assert_eq!((letter.offset, letter.reason.as_str()), (2, "a value of type Int64 does not fit INT"));
    assert_eq!(letter.raw, b"{\"id\":1099511627776}");
}

#[test]
fn a_source_may_be_dropped_at_any_time() {
    let folder = tempdir().unwrap();
    long_files(folder.path(), Encode::Json);
    let def = narrow(source(folder.path(), Format::Plain, Encode::Json), 1);
    drop(open(&def));
    let mut source = open(&def);
    while matches!(source.poll(10).unwrap(), freshet_core::Poll::Pending) {}
    drop(source);
}

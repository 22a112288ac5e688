use std::fs;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use freshet_connectors::BuiltIn;
use freshet_core::{Batch, Connectors, Encode, Epoch, Format, SourceDef};
use tempfile::tempdir;

use crate::setup::*;

fn check(def: &SourceDef) -> (Option<String>, String) {
    let error = BuiltIn.check_source(def).unwrap_err();
    (error.option, error.message)
}

#[test]
fn wrong_declarations_name_the_option_and_the_remedy() {
    let good = source("a".as_ref(), Format::Plain, Encode::Json);
    assert!(BuiltIn.check_source(&good).is_ok());
    let mut def = good.clone();
    def.connector = "mqqt".into();
    assert_eq!(check(&def), (Some("connector".into()), "there is no connector 'mqqt' in this build; did you mean 'mqtt'?".into()));
    def = good.clone();
    def.options.insert("paht".into(), "x".into());
    assert_eq!(check(&def), (Some("paht".into()), "the file connector has no option paht; did you mean path?".into()));
    def = good.clone();
    def.options.clear();
    assert_eq!(check(&def), (None, "the file connector needs path = '…', the file, folder or glob to read".into()));
    def.options.insert("path".into(), String::new());
    assert_eq!(check(&def), (Some("path".into()), "path is empty; it must be the file, folder or glob to read".into()));
    def.options.insert("path".into(), "gs://bucket/x".into());
    assert_eq!(check(&def), (Some("path".into()), "gs:// is not in this build; use a local path, file:// or s3://".into()));
    def = good.clone();
    def.options.insert("s3.region".into(), "eu-west-1".into());
    assert_eq!(check(&def), (Some("s3.region".into()), "option s3.region is for paths such as s3://bucket/folder/; remove it".into()));
    def = good.clone();
    def.options.insert("discovery.interval".into(), "often".into());
    assert_eq!(check(&def).0, Some("discovery.interval".into()));
    def = good.clone();
    def.options.insert("match_pattern".into(), "../*.json".into());
    assert_eq!(check(&def).0, Some("match_pattern".into()));
    def = source("a".as_ref(), Format::Debezium, Encode::Csv);
    assert_eq!(check(&def), (None, "FORMAT DEBEZIUM is read from ENCODE JSON only, not with ENCODE CSV; use FORMAT PLAIN or ENCODE JSON".into()));
    def = good;
    def.schema = Arc::new(Schema::new(vec![Field::new("raw", DataType::LargeBinary, true)]));
    assert_eq!(
        check(&def),
        (None, "column raw has type LargeBinary, which JSON and CSV files cannot hold; declare it VARCHAR or use ENCODE PARQUET".into())
    );
}

#[test]
fn wrong_sinks_are_refused() {
    let mut def = sink("a*".as_ref(), Format::Plain, Encode::Json);
    assert_eq!(BuiltIn.check_sink(&def).unwrap_err().message, "a sink writes one place, but path 'a*' has a wildcard");
    def = sink("a".as_ref(), Format::Debezium, Encode::Parquet);
    assert_eq!(
        BuiltIn.check_sink(&def).unwrap_err().message,
        "FORMAT DEBEZIUM is written with ENCODE JSON only, not with ENCODE PARQUET; use FORMAT PLAIN or ENCODE JSON"
    );
    def = sink("a".as_ref(), Format::Plain, Encode::Json);
    def.options.insert("header".into(), "true".into());
    assert_eq!(BuiltIn.check_sink(&def).unwrap_err().message, "option header belongs to ENCODE CSV; remove it or use ENCODE CSV");
    let folder = tempdir().unwrap();
    let error = BuiltIn.open_sink(&sink(folder.path(), Format::Plain, Encode::Json)).err().unwrap();
    assert_eq!(
        error.message,
        format!("sink out: {} is a folder; name a file in it, or end the path with / for parts in a folder", folder.path().display())
    );
    for (name, value) in [("roll.size", "big"), ("roll.interval", "0s")] {
        let mut def = sink("a".as_ref(), Format::Plain, Encode::Json);
        def.options.insert(name.into(), value.into());
        assert_eq!(BuiltIn.check_sink(&def).unwrap_err().option.as_deref(), Some(name));
    }
}

fn open_error(def: &SourceDef) -> String {
    BuiltIn.open_source(def).err().unwrap().message
}

#[test]
fn missing_files_are_named() {
    let folder = tempdir().unwrap();
    let shown = folder.path().display();
    let hint = "check the path (relative paths start at the folder the command runs in)";
    let open = |name: &str| open_error(&source(&folder.path().join(name), Format::Plain, Encode::Json));
    assert_eq!(open("a.jsonl"), format!("source events: there is no file or folder {shown}/a.jsonl; {hint}"));
    assert_eq!(open("*.jsonl"), format!("source events: no file matches {shown}/*.jsonl; {hint}"));
    assert_eq!(open(""), format!("source events: there is no file in folder {shown}/; {hint}"));
    fs::write(folder.path().join("a.jsonl.gz"), "x").unwrap();
    assert!(open("a.jsonl.gz").contains("compressed text (.gz) is not in this build yet"));
}

#[test]
fn a_parquet_file_of_other_columns_is_refused_at_open() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("parts");
    let mut out = BuiltIn.open_sink(&sink(&path, Format::Plain, Encode::Parquet)).unwrap();
    out.write(&Batch::inserts(batch(&awkward()), Epoch(1))).unwrap();
    out.flush(Epoch(1)).unwrap();
    let mut def = source(&path, Format::Plain, Encode::Parquet);
    let part = path.join("part-0000000000.parquet");
    def.schema = Arc::new(Schema::new(vec![Field::new("ident", DataType::Int64, true)]));
    let expected =
        format!("source events: {}: there is no column ident (BIGINT); the file has id, name, at, amount. Declare one of these", part.display());
    assert_eq!(open_error(&def), expected);
    def.schema = Arc::new(Schema::new(vec![Field::new("amount", DataType::Int32, true)]));
    let expected = format!("source events: {}: column amount is declared INT, but the file has Float64; declare it DOUBLE", part.display());
    assert_eq!(open_error(&def), expected);
    fs::write(&part, "not parquet at all").unwrap();
    assert!(open_error(&def).contains("not a readable Parquet file"), "{}", open_error(&def));
}

#[test]
fn a_csv_header_without_a_column_is_refused_at_open() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, "id,title\n1,x\n").unwrap();
    let expected = format!(
        "source events: {}: it has no column name; found id, title. Rename the column, or set header = 'false' if the first line is data",
        path.display()
    );
    assert_eq!(open_error(&source(&path, Format::Plain, Encode::Csv)), expected);
}

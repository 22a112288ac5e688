use std::fs;
use std::path::Path;

use freshet_connectors::BuiltIn;
use freshet_core::{Batch, Connectors, Counts, Diffs, Encode, Epoch, Format, Kind, Sink};
use tempfile::tempdir;

use crate::setup::*;

fn open_sink(path: &Path, format: Format, encode: Encode) -> Box<dyn Sink> {
    BuiltIn.open_sink(&sink(path, format, encode)).unwrap()
}

#[test]
fn rows_survive_a_round_trip_in_every_encoding() {
    for encode in [Encode::Json, Encode::Csv, Encode::Parquet] {
        let folder = tempdir().unwrap();
        let path = folder.path().join("deep/er/out");
        let mut out = open_sink(&path, Format::Plain, encode);
        out.write(&Batch::inserts(batch(&awkward()), Epoch(5))).unwrap();
        out.flush(Epoch(5)).unwrap();
        let delivered = read(&source(&path, Format::Plain, encode), 100);
        assert_eq!(delivered.rows, awkward(), "{encode:?}");
        assert!(delivered.dead_letters.is_empty(), "{encode:?}");
    }
}

#[test]
fn debezium_lines_name_epoch_and_change_in_schema_order() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let mut out = open_sink(&path, Format::Debezium, Encode::Json);
    let rows = batch(&[row(1, Some("a\"b"), Some(1_357_035_300_250), Some(0.1)), row(2, None, None, Some(f64::NAN)), row(3, None, None, Some(1e21))]);
    out.write(&Batch::new(rows, Counts::Each(vec![5, 6, 7].into()), Diffs::Each(vec![1, -1, 2].into()), Counts::Const(0))).unwrap();
    let position = out.flush(Epoch(7)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let expected = [
        r#"{"op":"c","epoch":5,"after":{"id":1,"name":"a\"b","at":"2013-01-01T10:15:00.250Z","amount":0.1}}"#,
        r#"{"op":"d","epoch":6,"before":{"id":2,"name":null,"at":null,"amount":"NaN"}}"#,
        r#"{"op":"c","epoch":7,"after":{"id":3,"name":null,"at":null,"amount":1e21}}"#,
        r#"{"op":"c","epoch":7,"after":{"id":3,"name":null,"at":null,"amount":1e21}}"#,
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert_eq!(position, text.len() as u64);
    let back = read(&source(&path, Format::Debezium, Encode::Json), 100);
    assert_eq!(back.diffs, [1, -1, 1, 1]);
}

#[test]
fn csv_quotes_only_what_needs_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.csv");
    let mut out = open_sink(&path, Format::Plain, Encode::Csv);
    out.write(&Batch::inserts(batch(&awkward()[..4]), Epoch(5))).unwrap();
    out.flush(Epoch(5)).unwrap();
    let expected = "id,name,at,amount\n1,plain,2013-01-01T10:15:00.250Z,0.1\n2,,,\n3,\"\",1970-01-01T00:00:00.000Z,-0.0\n\
                    4,\"comma, \"\"quote\"\"\nline \\ é\",1969-12-31T23:59:59.999Z,NaN\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn restore_cuts_off_what_came_after_the_position() {
    for (format, encode) in [(Format::Debezium, Encode::Json), (Format::Plain, Encode::Csv), (Format::Plain, Encode::Parquet)] {
        let folder = tempdir().unwrap();
        let (straight, restored) = (folder.path().join("straight"), folder.path().join("restored"));
        let parts: Vec<Batch> = (0..3).map(|part| Batch::inserts(batch(&[row(part, Some("x"), None, None)]), Epoch(part as u64))).collect();
        let mut out = open_sink(&straight, format, encode);
        for part in &parts {
            out.write(part).unwrap();
            out.flush(part.epoch(0)).unwrap();
        }
        let mut out = open_sink(&restored, format, encode);
        out.write(&parts[0]).unwrap();
        let position = out.flush(Epoch(0)).unwrap();
        out.write(&parts[2]).unwrap();
        out.flush(Epoch(2)).unwrap();
        drop(out);
        let mut out = open_sink(&restored, format, encode);
        out.restore(position).unwrap();
        for part in &parts[1..] {
            out.write(part).unwrap();
            out.flush(part.epoch(0)).unwrap();
        }
        assert_eq!(bytes(&restored), bytes(&straight), "{encode:?}");
        let mut out = open_sink(&restored, format, encode);
        let error = out.restore(1_000_000).unwrap_err();
        assert_eq!(error.kind, Kind::Data);
        assert!(error.message.contains("but the checkpoint had written 1000000; put"), "{}", error.message);
    }
}

fn bytes(path: &Path) -> Vec<Vec<u8>> {
    if path.is_file() {
        return vec![fs::read(path).unwrap()];
    }
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.iter().map(|name| fs::read(name).unwrap()).collect()
}

#[test]
fn a_new_run_replaces_the_file_of_an_earlier_one() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    fs::write(&path, "left over\n").unwrap();
    let mut out = open_sink(&path, Format::Plain, Encode::Json);
    assert_eq!(out.flush(Epoch(1)).unwrap(), 0);
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn plain_refuses_a_retraction_and_keeps_what_it_has() {
    for encode in [Encode::Json, Encode::Csv, Encode::Parquet] {
        let folder = tempdir().unwrap();
        let path = folder.path().join("out");
        let mut out = open_sink(&path, Format::Plain, encode);
        out.write(&Batch::inserts(batch(&awkward()), Epoch(5))).unwrap();
        let taken_back = Batch::new(batch(&awkward()[..1]), Counts::Const(6), Diffs::Each(vec![-1].into()), Counts::Const(0));
        let error = out.write(&taken_back).unwrap_err();
        assert_eq!(
            error.message,
            "sink out: FORMAT PLAIN holds insertions only, but totals retracted a row at epoch 6; use FORMAT DEBEZIUM ENCODE JSON"
        );
        out.flush(Epoch(6)).unwrap();
        assert_eq!(read(&source(&path, Format::Plain, encode), 100).rows, awkward());
    }
}

//! Sinks that write parts, into folders and buckets.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use freshet_connectors::BuiltIn;
use freshet_core::{Batch, Connectors, Counts, Diffs, Encode, Epoch, Format, Kind, Sink, SinkDef};
use tempfile::tempdir;

use crate::s3_bucket::Bucket;
use crate::s3_server::{Server, shared};
use crate::setup::*;

fn with(mut def: SinkDef, options: &[(&str, &str)]) -> SinkDef {
    def.options.extend(options.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    def
}

fn in_bucket(bucket: &Bucket, key: &str, encode: Encode) -> SinkDef {
    let mut def = sink(Path::new("-"), Format::Plain, encode);
    def.options = BTreeMap::from([("path".to_string(), bucket.url(key))]);
    def.options.extend(bucket.server.options());
    def
}

fn open(def: &SinkDef) -> Box<dyn Sink> {
    BuiltIn.open_sink(def).unwrap()
}

fn at(epoch: u64, ids: std::ops::Range<i128>) -> Batch {
    Batch::inserts(batch(&ids.map(|id| row(id, Some("x"), None, None)).collect::<Vec<_>>()), Epoch(epoch))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn parts_end_where_they_are_full_and_where_an_interval_ends() {
    for encode in [Encode::Json, Encode::Csv, Encode::Parquet] {
        let folder = tempdir().unwrap();
        let path = folder.path().join("out");
        let mut out = open(&with(sink(&path, Format::Plain, encode), &[("roll.interval", "1s")]));
        let rows: Vec<_> = (0..6).map(|id| row(id, None, None, None)).collect();
        let epochs = Counts::Each(vec![100, 900, 1_000, 1_999, 5_000, 5_001].into());
        out.write(&Batch::new(batch(&rows), epochs, Diffs::Each(vec![1; 6].into()), Counts::Const(0))).unwrap();
        assert_eq!(out.flush(Epoch(5_001)).unwrap(), 3, "{encode:?}");
        assert_eq!(out.flush(Epoch(5_002)).unwrap(), 3, "nothing new is no part");
        let ending = names(&path)[0].rsplit('.').next().unwrap().to_string();
        assert_eq!(names(&path), [0, 1, 2].map(|part| format!("part-{part:010}.{ending}")));
        assert_eq!(read(&source(&path, Format::Plain, encode), 100).ids(), [0, 1, 2, 3, 4, 5], "{encode:?}");
        let middle = source(&path.join(format!("part-0000000001.{ending}")), Format::Plain, encode);
        assert_eq!(read(&middle, 100).ids(), [2, 3], "{encode:?}");

        let path = folder.path().join("full");
        let mut out = open(&with(sink(&path, Format::Plain, encode), &[("roll.size", "1kB")]));
        for step in 0..20 {
            out.write(&at(step, i128::from(step) * 50..i128::from(step + 1) * 50)).unwrap();
        }
        let parts = out.flush(Epoch(20)).unwrap();
        assert!(parts > 5, "{encode:?}: {parts}");
        assert_eq!(read(&source(&path, Format::Plain, encode), 1_000).ids(), (0..1_000).collect::<Vec<_>>());
    }
}

#[test]
fn a_path_that_ends_with_a_slash_is_a_folder_of_parts() {
    let folder = tempdir().unwrap();
    let mut def = sink(folder.path(), Format::Debezium, Encode::Json);
    def.options.insert("path".into(), format!("{}/out/", folder.path().display()));
    let mut out = open(&def);
    out.write(&at(1, 0..2)).unwrap();
    out.write(&Batch::new(batch(&[row(0, Some("x"), None, None)]), Counts::Const(2), Diffs::Each(vec![-1].into()), Counts::Const(0))).unwrap();
    out.flush(Epoch(2)).unwrap();
    assert_eq!(names(&folder.path().join("out")), ["part-0000000000.jsonl"]);
    assert_eq!(read(&source(&folder.path().join("out"), Format::Debezium, Encode::Json), 10).diffs, [1, 1, -1]);
}

#[test]
fn parts_in_a_bucket_are_cut_back_to_a_checkpoint() {
    let bucket = Bucket::new(shared());
    for encode in [Encode::Json, Encode::Csv, Encode::Parquet] {
        let key = format!("{encode:?}/out");
        let def = in_bucket(&bucket, &key, encode);
        let mut out = open(&def);
        out.write(&Batch::inserts(batch(&awkward()), Epoch(1))).unwrap();
        assert!(bucket.keys(&key).is_empty(), "what is not flushed is not there");
        let position = out.flush(Epoch(1)).unwrap();
        out.write(&at(2, 10..12)).unwrap();
        out.flush(Epoch(2)).unwrap();
        assert_eq!(bucket.keys(&key).len(), 2);
        drop(out);
        let mut out = open(&def);
        out.restore(position).unwrap();
        assert_eq!(bucket.keys(&key).len(), 1);
        out.write(&at(2, 20..22)).unwrap();
        out.flush(Epoch(2)).unwrap();
        let mut back = source(Path::new("-"), Format::Plain, encode);
        back.options = def.options.clone();
        let mut expected = awkward();
        expected.extend([20, 21].map(|id| row(id, Some("x"), None, None)));
        assert_eq!(read(&back, 100).rows, expected, "{encode:?}");
        let error = open(&def).restore(9).unwrap_err();
        assert_eq!(error.kind, Kind::Data);
        assert!(error.message.contains("has 2 parts, but the checkpoint had written 9"), "{error}");
    }
}

#[test]
fn two_sinks_in_one_place_find_out() {
    let bucket = Bucket::new(shared());
    let def = in_bucket(&bucket, "out", Encode::Json);
    let (mut one, mut other) = (open(&def), open(&def));
    one.restore(0).unwrap();
    other.restore(0).unwrap();
    one.write(&at(1, 0..1)).unwrap();
    one.flush(Epoch(1)).unwrap();
    other.write(&at(1, 5..6)).unwrap();
    let error = other.flush(Epoch(1)).unwrap_err();
    assert_eq!(error.kind, Kind::Data);
    assert!(error.message.contains("part-0000000000.jsonl that this pipeline did not write"), "{error}");
}

#[test]
fn a_sink_whose_store_is_away_says_so_and_loses_nothing() {
    let server = Arc::new(Server::start());
    let bucket = Bucket::new(server.clone());
    let mut out = open(&in_bucket(&bucket, "out", Encode::Json));
    out.restore(0).unwrap();
    out.write(&at(1, 0..3)).unwrap();
    server.command("kill");
    let error = out.flush(Epoch(1)).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.starts_with("sink out: cannot write s3://"), "{error}");
    server.command("start");
    assert_eq!(out.flush(Epoch(1)).unwrap(), 1);
    assert_eq!(String::from_utf8(bucket.get("out/part-0000000000.jsonl")).unwrap().lines().count(), 3);
}

fn partitioned(mut def: SinkDef, columns: &str) -> SinkDef {
    def.options.insert("partition.by".into(), columns.into());
    def
}

#[test]
fn a_partitioned_sink_writes_a_folder_for_each_value() {
    let rows =
        [row(1, Some("a/b"), Some(0), None), row(2, None, Some(0), None), row(3, Some("a/b"), Some(0), None), row(4, Some("12:30"), None, None)];
    for (encode, expected) in
        [(Encode::Json, "{\"id\":3,\"at\":\"1970-01-01T00:00:00.000Z\",\"amount\":null}\n"), (Encode::Csv, "3,1970-01-01T00:00:00.000Z,\n")]
    {
        let folder = tempdir().unwrap();
        let def = partitioned(sink(folder.path(), Format::Plain, encode), "name");
        let mut out = open(&def);
        out.write(&Batch::inserts(batch(&rows[..2]), Epoch(1))).unwrap();
        let position = out.flush(Epoch(1)).unwrap();
        assert_eq!(position, 2);
        out.write(&Batch::inserts(batch(&rows[2..]), Epoch(2))).unwrap();
        assert_eq!(out.flush(Epoch(2)).unwrap(), 4);
        assert_eq!(names(folder.path()), ["name=12%3A30", "name=__HIVE_DEFAULT_PARTITION__", "name=a%2Fb"]);
        let files = names(&folder.path().join("name=a%2Fb"));
        assert_eq!(files.len(), 2, "{files:?}");
        let second = fs::read_to_string(folder.path().join("name=a%2Fb").join(&files[1])).unwrap();
        assert!(second.ends_with(expected), "{second}");
        // Back to the checkpoint, in every folder.
        drop(out);
        let mut out = open(&def);
        out.restore(position).unwrap();
        assert_eq!(names(&folder.path().join("name=a%2Fb")).len(), 1);
        assert!(names(&folder.path().join("name=12%3A30")).is_empty());
        assert_eq!(open(&def).restore(7).unwrap_err().kind, Kind::Data);
    }
}

#[test]
fn partitions_in_a_bucket_are_cut_back_to_a_checkpoint() {
    let bucket = Bucket::new(shared());
    let def = partitioned(in_bucket(&bucket, "lake", Encode::Parquet), "name, at");
    let mut out = open(&def);
    out.write(&Batch::inserts(batch(&awkward()), Epoch(1))).unwrap();
    let position = out.flush(Epoch(1)).unwrap();
    assert_eq!(position, 6);
    out.write(&at(2, 10..12)).unwrap();
    out.flush(Epoch(2)).unwrap();
    let keys = bucket.keys("lake");
    assert_eq!(keys.len(), 7, "{keys:?}");
    assert!(keys.iter().any(|key| key.contains("name=plain/at=2013-01-01T10%3A15%3A00.250Z/part-")), "{keys:?}");
    drop(out);
    open(&def).restore(position).unwrap();
    assert_eq!(bucket.keys("lake").len(), 6);
}

#[test]
fn what_names_no_folder_is_refused() {
    let folder = tempdir().unwrap();
    let error = |columns: &str| BuiltIn.check_sink(&partitioned(sink(folder.path(), Format::Plain, Encode::Json), columns)).unwrap_err();
    for (columns, wanted) in [
        ("day", "there is no column day to partition by; columns are id, name, at, amount"),
        ("amount", "amount is Float64, which names no folder; partition by a text, a number or a day"),
        ("name,name", "name stands twice in what the sink is partitioned by"),
    ] {
        assert_eq!((error(columns).option.as_deref(), error(columns).message.as_str()), (Some("partition.by"), wanted));
    }
}

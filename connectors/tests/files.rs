//! Sources that watch a folder or a bucket for new files, and go on after a restart.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use freshet_connectors::PipelineConnectors;
use freshet_core::{Connectors, DeadLetter, Encode, Format, Kind, MetadataColumn, Poll, Source, SourceDef, Value};
use parquet::arrow::ArrowWriter;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tempfile::{TempDir, tempdir};

use crate::s3_bucket::Bucket;
use crate::s3_server::{Server, shared};
use crate::setup::*;

/// Nothing on this machine takes so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// A source of one column `id` that looks for new files all the time.
fn watched(path: &str, encode: Encode) -> SourceDef {
    let mut def = source(Path::new(path), Format::Plain, encode);
    def.options.insert("discovery.interval".into(), "20ms".into());
    def.schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    def
}

fn in_bucket(bucket: &Bucket, key: &str, encode: Encode) -> SourceDef {
    let mut def = watched(&bucket.url(key), encode);
    def.options.extend(bucket.server.options());
    def
}

/// One life of a source.
struct Life {
    source: Box<dyn Source>,
    rows: Vec<Vec<Value>>,
    letters: Vec<DeadLetter>,
    next: u64,
}

impl Life {
    fn start(def: &SourceDef, data_dir: &TempDir, offset: u64) -> Life {
        let mut source = PipelineConnectors::new(Some(data_dir.path())).open_source(def).unwrap();
        if offset > 0 {
            source.seek(0, offset).unwrap();
        }
        Life { source, rows: Vec::new(), letters: Vec::new(), next: offset }
    }

    /// False: nothing came.
    fn poll(&mut self, rows_max: usize) -> bool {
        match self.source.poll(rows_max).unwrap() {
            Poll::Batch(batch) => {
                assert!(batch.offsets.iter().all(|offset| (self.next..batch.next_offset).contains(offset)));
                self.rows.extend(Value::rows_of(&batch.rows).unwrap());
                self.letters.extend(batch.dead_letters);
                self.next = batch.next_offset;
                true
            }
            Poll::Pending => false,
            other => panic!("{other:?}"),
        }
    }

    /// Polls until it is so.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&Life) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what} did not come: {} rows, {:?}, {:?}", self.rows.len(), self.letters, self.source.report());
            if !self.poll(1_000) {
                pause();
            }
        }
    }

    /// Polls until so many records have come, and nothing more is left.
    fn until_records(&mut self, records: u64) {
        self.until(&format!("record {records}"), |life| life.next >= records && life.source.report().lag_rows == Some(0));
        assert_eq!(self.next, records);
    }

    fn ids(&self) -> Vec<i128> {
        self.rows.iter().map(|row| if let Value::Int(id) = row[0] { id } else { panic!("{row:?}") }).collect()
    }

    fn reasons(&self) -> Vec<(u64, &str)> {
        self.letters.iter().map(|letter| (letter.offset, letter.reason.as_str())).collect()
    }
}

fn pause() {
    std::thread::park_timeout(Duration::from_millis(1));
}

fn lines(ids: std::ops::Range<i64>) -> String {
    ids.map(|id| format!("{{\"id\":{id}}}\n")).collect()
}

fn parquet(ids: std::ops::Range<i64>) -> Vec<u8> {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    let batch = RecordBatch::try_from_iter([("id", column)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn of(encode: Encode, ids: std::ops::Range<i64>) -> Vec<u8> {
    match encode {
        Encode::Parquet => parquet(ids),
        Encode::Csv => format!("id\n{}", ids.map(|id| format!("{id}\n")).collect::<String>()).into_bytes(),
        _ => lines(ids).into_bytes(),
    }
}

#[test]
fn files_that_come_later_are_read_in_the_order_they_are_found() {
    let (folder, data) = (tempdir().unwrap(), tempdir().unwrap());
    for encode in [Encode::Json, Encode::Csv, Encode::Parquet] {
        let place = folder.path().join(format!("{encode:?}"));
        fs::create_dir(&place).unwrap();
        fs::write(place.join("b"), of(encode, 2..4)).unwrap();
        fs::write(place.join("a"), of(encode, 0..2)).unwrap();
        let mut def = watched(&place.display().to_string(), encode);
        def.name = format!("{encode:?}");
        let mut life = Life::start(&def, &data, 0);
        assert!(!life.source.is_bounded());
        life.until_records(4);
        fs::write(place.join("0"), of(encode, 4..9)).unwrap();
        life.until_records(9);
        fs::write(place.join(".aside"), of(encode, 9..10)).unwrap();
        fs::write(place.join("c.tmp"), of(encode, 9..10)).unwrap();
        fs::rename(place.join(".aside"), place.join("c")).unwrap();
        life.until_records(10);
        assert_eq!(life.ids(), (0..10).collect::<Vec<_>>(), "{encode:?}");
        assert!(life.letters.is_empty());
    }
}

#[test]
fn a_file_is_read_once_it_has_not_changed_from_one_look_to_the_next() {
    let (folder, data) = (tempdir().unwrap(), tempdir().unwrap());
    let path = folder.path().join("growing");
    fs::write(&path, "").unwrap();
    let mut def = watched(&folder.path().display().to_string(), Encode::Json);
    def.options.insert("discovery.interval".into(), "400ms".into());
    let mut life = Life::start(&def, &data, 0);
    // Grows faster than it is looked at.
    let mut text = String::new();
    for id in 0..300 {
        text += &lines(id..id + 1);
        fs::write(&path, &text).unwrap();
        let until = Instant::now() + Duration::from_millis(3);
        while Instant::now() < until {
            life.poll(1_000);
            pause();
        }
    }
    life.until_records(300);
    assert_eq!(life.ids(), (0..300).collect::<Vec<_>>());
    assert!(life.letters.is_empty(), "{:?}", life.letters);
}

#[test]
fn what_happens_to_files_is_told_and_the_next_file_goes_on() {
    let (folder, data) = (tempdir().unwrap(), tempdir().unwrap());
    let place = folder.path();
    fs::write(place.join("a"), lines(0..3)).unwrap();
    fs::write(place.join("b.gz"), "zip").unwrap();
    fs::write(place.join("c"), "{\"id\":3}\n{\"id\":\"x\"}\n{\"id\":4}").unwrap();
    let def = watched(&place.display().to_string(), Encode::Json);
    let mut life = Life::start(&def, &data, 0);
    life.until_records(7);
    assert_eq!(life.ids(), [0, 1, 2, 3, 4]);
    assert_eq!((life.letters[0].offset, life.letters[1].offset, life.letters[1].field.as_str()), (3, 5, "id"));
    assert!(life.letters[0].reason.contains("b.gz: compressed text (.gz)"), "{:?}", life.letters[0]);
    assert!(life.letters[0].origin.ends_with("b.gz") && life.letters[1].origin.ends_with("/c"));
    // A file that was read is not read again, however often it changes; that is said once.
    fs::write(place.join("a"), lines(100..105)).unwrap();
    life.until_records(8);
    fs::write(place.join("a"), lines(100..106)).unwrap();
    fs::write(place.join("d"), lines(5..6)).unwrap();
    life.until_records(9);
    assert_eq!((life.ids().len(), life.letters.len()), (6, 3));
    assert!(life.reasons()[2].1.contains("/a: the file has changed after it was read"), "{:?}", life.letters);
    // The letter of a whole file cannot come in again, and keeps its reason.
    let again = PipelineConnectors::new(None).decode_again(&def, &life.letters).unwrap();
    assert_eq!(again[0].rows.num_rows(), 0);
    assert_eq!(again[0].dead_letters[0].reason, life.letters[0].reason);
}

#[test]
fn a_broken_parquet_file_is_a_dead_letter_and_costs_no_other() {
    let (folder, data) = (tempdir().unwrap(), tempdir().unwrap());
    let place = folder.path();
    fs::write(place.join("a"), parquet(0..3)).unwrap();
    fs::write(place.join("b"), "no parquet").unwrap();
    let other: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("ident", other)]).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(place.join("c")).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    // Its footer is whole, its pages are not.
    let mut bytes = parquet(3..2_000);
    let middle = bytes.len() / 3;
    bytes[4..middle].fill(0xff);
    fs::write(place.join("d"), bytes).unwrap();
    fs::write(place.join("e"), parquet(3..5)).unwrap();
    let mut life = Life::start(&watched(&place.display().to_string(), Encode::Parquet), &data, 0);
    life.until_records(8);
    assert_eq!(life.ids(), [0, 1, 2, 3, 4]);
    let reasons = life.reasons();
    assert_eq!(reasons.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(reasons[0].1.contains("/b: not a readable Parquet file") && reasons[1].1.contains("there is no column id (BIGINT); the file has ident"));
    assert!(reasons[2].1.contains("/d: not a readable Parquet file") && reasons[2].1.ends_with("nothing of the file from here on was read"));
}

#[test]
fn columns_can_be_filled_with_file_time_and_row_in_every_encoding() {
    let folder = tempdir().unwrap();
    for encode in [Encode::Json, Encode::Csv, Encode::Parquet] {
        let (place, data) = (folder.path().join(format!("{encode:?}")), tempdir().unwrap());
        fs::create_dir(&place).unwrap();
        fs::write(place.join("a"), of(encode, 0..2)).unwrap();
        fs::write(place.join("b"), of(encode, 2..4)).unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        fs::File::options().write(true).open(place.join("b")).unwrap().set_modified(time).unwrap();
        let mut def = watched(&place.display().to_string(), encode);
        def.schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
            Field::new("line", DataType::Int64, true),
            Field::new("position", DataType::Int64, true),
        ]));
        let names = ["file", "modified", "row", "offset"];
        def.metadata = names.iter().enumerate().map(|(index, name)| MetadataColumn { column: index + 1, name: name.to_string() }).collect();
        let mut life = Life::start(&def, &data, 0);
        life.until_records(4);
        let last = &life.rows[3];
        assert_eq!(last[0], Value::Int(3));
        assert!(matches!(&last[1], Value::Text(name) if name.ends_with("/b")), "{last:?}");
        assert_eq!(last[2..], [Value::Int(1_700_000_000_123), Value::Int(1), Value::Int(3)], "{encode:?}");
        assert_eq!(life.rows[1][3], Value::Int(1));
    }
}

#[test]
fn a_restart_goes_on_in_the_middle_of_a_file_and_between_files() {
    for encode in [Encode::Json, Encode::Csv, Encode::Parquet] {
        let folder = tempdir().unwrap();
        let place = folder.path().join("in");
        fs::create_dir(&place).unwrap();
        for file in 0..3 {
            fs::write(place.join(format!("{file}")), of(encode, file * 10..(file + 1) * 10)).unwrap();
        }
        let def = watched(&place.display().to_string(), encode);
        for stop in [1, 9, 10, 11, 20, 29, 30] {
            let data = tempdir().unwrap();
            let mut life = Life::start(&def, &data, 0);
            life.until_records(30);
            drop(life);
            // What was read behind the checkpoint comes again, in the same order; new files come after it, whatever their names.
            let early = place.join(format!("00-{stop}"));
            fs::write(&early, of(encode, 30..32)).unwrap();
            let mut life = Life::start(&def, &data, stop);
            life.until_records(32);
            assert_eq!(life.ids(), (i128::from(stop)..32).collect::<Vec<_>>(), "{encode:?} from {stop}");
            fs::remove_file(early).unwrap();
        }
    }
}

#[test]
fn files_that_went_or_changed_between_two_lives_are_told_where_rows_are_lost() {
    let (folder, data) = (tempdir().unwrap(), tempdir().unwrap());
    let place = folder.path();
    for file in 0..4 {
        fs::write(place.join(format!("{file}")), lines(file * 10..(file + 1) * 10)).unwrap();
    }
    let def = watched(&place.display().to_string(), Encode::Json);
    let mut life = Life::start(&def, &data, 0);
    life.until_records(40);
    drop(life);
    // Of the first, everything is in the checkpoint.
    fs::remove_file(place.join("0")).unwrap();
    fs::remove_file(place.join("1")).unwrap();
    fs::write(place.join("2"), lines(90..95)).unwrap();
    let mut life = Life::start(&def, &data, 14);
    life.until_records(41);
    assert_eq!(life.ids(), (30..40).collect::<Vec<_>>());
    assert_eq!(life.letters.len(), 3, "{:?}", life.letters);
    assert!(
        life.letters[0].offset == 14
            && life.letters[0].reason.contains("/1: the file has disappeared before it was read to its end; its records from row 4 on")
    );
    assert!(
        life.letters[1].offset == 20
            && life.letters[1].reason.contains("/2: the file has changed before it was read to its end; its records from row 0 on")
    );
    assert!(life.letters[2].offset == 40 && life.letters[2].reason.contains("/2: the file has changed after it was read"));
}

#[test]
fn an_offset_that_no_journal_knows_is_an_error_that_names_it() {
    let (folder, data) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(folder.path().join("a"), lines(0..10)).unwrap();
    let mut life = Life::start(&watched(&folder.path().display().to_string(), Encode::Json), &data, 5);
    let deadline = Instant::now() + DEADLINE;
    let error = loop {
        match life.source.poll(10) {
            Err(error) => break error,
            Ok(poll) => assert!(matches!(poll, Poll::Pending) && Instant::now() < deadline),
        }
    };
    assert_eq!(error.kind, Kind::Data);
    assert!(error.message.starts_with("source events: cannot go on at record 5: which files it stands for was kept in "), "{error}");
    assert!(error.message.contains("files/events.journal"));
}

/// T0 for what is found while the pipeline runs: whatever comes when, and wherever a life ends, the lives together deliver every record of every
/// file once, file by file, in the file's own order, at consecutive offsets.
#[test]
fn lives_cut_anywhere_deliver_the_union_of_all_files_once() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let encode = [Encode::Json, Encode::Csv, Encode::Parquet][random.random_range(0..3)];
        let (folder, data) = (tempdir().unwrap(), tempdir().unwrap());
        let place = folder.path().join("in");
        fs::create_dir(&place).unwrap();
        let mut sizes: Vec<i64> = (0..random.random_range(1..12)).map(|_| random.random_range(0..40)).collect();
        sizes.push(1);
        let total: i64 = sizes.iter().sum();
        let mut files: Vec<(i64, i64)> = sizes.iter().enumerate().map(|(file, size)| (sizes[..file].iter().sum(), *size)).collect();
        files.shuffle(&mut random);
        let def = watched(&place.display().to_string(), encode);
        // What a checkpoint holds: the rows before its offset.
        let (mut kept, mut offset): (Vec<i128>, u64) = (Vec::new(), 0);
        let mut written = 0;
        loop {
            let mut life = Life::start(&def, &data, offset);
            let deadline = Instant::now() + DEADLINE;
            let polls = random.random_range(0..12);
            for _ in 0..polls {
                if written < files.len() && random.random_bool(0.6) {
                    let (first, size) = files[written];
                    fs::write(place.join(format!("{}-{written}", random.random_range(0..1_000))), of(encode, first..first + size)).unwrap();
                    written += 1;
                }
                let wait = Instant::now() + Duration::from_millis(random.random_range(0..60));
                while !life.poll(random.random_range(1..50)) && Instant::now() < wait {
                    pause();
                }
            }
            if written == files.len() {
                life.until("the rest", |life| life.next == total as u64);
                kept.extend(life.ids());
                assert!(life.letters.is_empty(), "seed {seed}: {:?}", life.letters);
                break;
            }
            assert!(Instant::now() < deadline);
            // The checkpoint is one of the offsets this life has passed; what lies behind it is lost with the life.
            let rows = random.random_range(0..=life.rows.len());
            kept.extend(&life.ids()[..rows]);
            offset += rows as u64;
        }
        assert_eq!(kept.len() as i64, total, "seed {seed}");
        let mut sorted = kept.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..i128::from(total)).collect::<Vec<_>>(), "seed {seed}: each record once");
        for (first, size) in files {
            let (first, end) = (i128::from(first), i128::from(first + size));
            let at: Vec<i128> = kept.iter().copied().filter(|id| (first..end).contains(id)).collect();
            assert_eq!(at, (first..end).collect::<Vec<_>>(), "seed {seed}: in the order of the file");
            let begin = kept.iter().position(|id| *id == first);
            assert!(size == 0 || begin.is_some_and(|begin| kept[begin..begin + size as usize] == at), "seed {seed}: file by file");
        }
    }
}

#[test]
fn fifty_racing_creations_of_one_key_give_one_success() {
    let bucket = Bucket::new(shared());
    for round in 0..20 {
        let key = format!("race/{round}");
        let won = bucket.race(&key, 50);
        assert_eq!(won.len(), 1, "round {round}: {won:?}");
        assert_eq!(bucket.get(&key), won[0].to_string().as_bytes(), "round {round}");
    }
}

#[test]
fn a_bucket_is_read_once_or_watched() {
    let bucket = Bucket::new(shared());
    for (key, ids) in
        [("in/day=1/b.jsonl", 2..4), ("in/day=1/a.jsonl", 0..2), ("in/day=2/a.jsonl", 4..6), ("in/x.txt", 90..91), ("in/_t/a.jsonl", 91..92)]
    {
        bucket.put(key, lines(ids));
    }
    let mut def = in_bucket(&bucket, "in/day=*/*.jsonl", Encode::Json);
    def.options.remove("discovery.interval");
    assert_eq!(read(&def, 100).ids(), [0, 1, 2, 3, 4, 5]);
    let mut below = in_bucket(&bucket, "in/", Encode::Json);
    below.options.remove("discovery.interval");
    below.options.insert("match_pattern".into(), "**/a.jsonl".into());
    assert_eq!(read(&below, 100).ids(), [0, 1, 4, 5]);

    let (def, data) = (in_bucket(&bucket, "in/day=*/*.jsonl", Encode::Json), tempdir().unwrap());
    let mut life = Life::start(&def, &data, 0);
    life.until_records(6);
    bucket.put("in/day=1/c.jsonl", lines(6..8));
    life.until_records(8);
    drop(life);
    bucket.put("in/day=0/a.jsonl", lines(8..9));
    bucket.put("in/day=2/a.jsonl", lines(50..51));
    let mut life = Life::start(&def, &data, 7);
    life.until_records(10);
    assert_eq!(life.ids(), [7, 8]);
    assert!(life.reasons()[0].1.contains("day=2/a.jsonl: the file has changed after it was read"), "{:?}", life.letters);
}

#[test]
fn an_object_that_goes_before_it_is_read_is_told() {
    let (bucket, data) = (Bucket::new(shared()), tempdir().unwrap());
    // More than the queue to the poller holds, so that the second file waits for the first.
    bucket.put("in/a", lines(0..100_000));
    bucket.put("in/b", lines(0..1));
    let mut life = Life::start(&in_bucket(&bucket, "in", Encode::Json), &data, 0);
    life.until("the first row", |life| !life.rows.is_empty());
    bucket.delete("in/b");
    life.until_records(100_001);
    assert!(life.reasons()[0].1.contains("in/b: the file has disappeared before it was read"), "{:?}", life.letters);
}

#[test]
fn a_store_that_is_away_is_waited_for_at_the_start_and_later() {
    let server = Arc::new(Server::start());
    let (bucket, data) = (Bucket::new(server.clone()), tempdir().unwrap());
    bucket.put("in/a", lines(0..200_000));
    let def = in_bucket(&bucket, "in", Encode::Json);
    let mut bounded = def.clone();
    bounded.options.remove("discovery.interval");
    server.command("kill");
    let mut once = PipelineConnectors::new(None).open_source(&bounded).unwrap();
    let mut life = Life::start(&def, &data, 0);
    let away = |source: &dyn Source| source.report().trouble.is_some_and(|trouble| trouble.contains("cannot read s3://"));
    life.until("the trouble", |life| away(life.source.as_ref()));
    while !away(once.as_ref()) {
        assert!(matches!(once.poll(10).unwrap(), Poll::Pending));
        pause();
    }
    assert!(life.source.report().lag_rows > Some(0), "history is not over while nobody knows what there is");
    server.command("start");
    life.until("the first rows", |life| !life.rows.is_empty());
    // In the middle of a file: what has been read is not read again.
    server.command("kill");
    life.until("the trouble", |life| away(life.source.as_ref()));
    server.command("start");
    life.until_records(200_000);
    assert_eq!(life.ids(), (0..200_000).collect::<Vec<_>>());
    life.until("the end of the trouble", |life| life.source.report().trouble.is_none());
    assert_eq!(drain(once, 10_000).offsets.len(), 200_000);
    server.command("kill");
    life.until("the trouble", |life| away(life.source.as_ref()));
    server.command("start");
    bucket.put("in/b", lines(200_000..200_001));
    life.until_records(200_001);
}

#[test]
fn a_place_or_keys_that_are_wrong_end_the_start() {
    let bucket = Bucket::new(shared());
    bucket.put("in/a", lines(0..1));
    let error = |def: &SourceDef| {
        let data = tempdir().unwrap();
        let mut life = Life::start(def, &data, 0);
        let deadline = Instant::now() + DEADLINE;
        loop {
            match life.source.poll(10) {
                Err(error) => return (error.kind, error.message),
                Ok(_) => assert!(Instant::now() < deadline, "{:?}", life.source.report()),
            }
            pause();
        }
    };
    let mut def = in_bucket(&bucket, "in", Encode::Json);
    def.options.insert("s3.secret_key".into(), "geheim-7".into());
    let (kind, message) = error(&def);
    assert!(kind == Kind::Invalid && message.contains("the store refuses; check s3.access_key, s3.secret_key"), "{message}");
    assert!(!message.contains("geheim-7"));
    let mut def = in_bucket(&bucket, "in", Encode::Json);
    def.options.insert("path".into(), "s3://no-such-bucket/in".into());
    let (kind, message) = error(&def);
    assert!(kind == Kind::Invalid && message.contains("there is no such bucket"), "{message}");
}

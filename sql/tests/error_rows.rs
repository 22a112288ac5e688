//! `errors(view)`: a row that cannot be evaluated is an error as long as it is there, and the error says where that row came from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use freshet_core::{Epoch, Value};
use freshet_engine::{Engine, EngineConfig, StepCut};
use freshet_sql::compile;
use freshet_testkit::{MemoryConnectors, RawRecord};

use crate::given::script;

const SCRIPT: &str = "
SET clock = 'event';
CREATE SOURCE goods (name VARCHAR, parts INT, at TIMESTAMP(3), WATERMARK FOR at) WITH (connector = 'memory') FORMAT DEBEZIUM ENCODE JSON;
CREATE MATERIALIZED VIEW shares AS SELECT name, 100 / parts AS share FROM goods WHERE 12 / parts > 0;
CREATE MATERIALIZED VIEW totals AS SELECT sum(share) AS total FROM shares;
";

/// Rows with 0 parts, which nothing can be divided by, come and go; b comes back, and of two equal a the older one goes first. A row that is
/// sound moves the time on before each change, which has the offset behind it.
fn records() -> Vec<RawRecord> {
    let changes =
        [("a", 1, 1), ("b", 2, 1), ("c", 3, 1), ("b", 4, -1), ("a", 5, 1), ("a", 6, -1), ("b", 7, 1), ("a", 8, -1), ("c", 8, -1), ("c", 8, 1)];
    let row = |name: &str, parts: i128, ms: i128| vec![Value::Text(name.into()), Value::Int(parts), Value::Int(ms)];
    let mut records = Vec::new();
    for (name, ms, diff) in changes {
        records.push(RawRecord::insert(records.len() as u64, row("clock", 1, ms)));
        records.push(RawRecord { diff, ..RawRecord::insert(records.len() as u64, row(name, 0, 0)) });
    }
    records
}

/// The offsets of the error rows of a view at an epoch.
fn offsets(engine: &Engine, view: &str, epoch: u64) -> BTreeSet<Value> {
    let snapshot = engine.reader().snapshot(&[&format!("errors({view})")], Some(Epoch(epoch))).unwrap();
    let rows = snapshot.views[0].iter().flat_map(|batch| Value::rows_of(batch).unwrap());
    let offsets: Vec<Value> = rows
        .map(|row| {
            assert_eq!((&row[3], &row[6]), (&Value::Text("goods".into()), &Value::Null), "{row:?}");
            row[5].clone()
        })
        .collect();
    assert_eq!(offsets.len(), offsets.iter().collect::<BTreeSet<_>>().len(), "{offsets:?}");
    offsets.into_iter().collect()
}

#[test]
fn c3_an_error_row_goes_with_its_row() {
    let program = compile(&[script("errors.sql", SCRIPT)], &BTreeMap::new(), &MemoryConnectors::new(0)).unwrap();
    let expected: [&[i128]; 8] = [&[1], &[1, 3], &[1, 3, 5], &[1, 5], &[1, 5, 9], &[5, 9], &[5, 9, 13], &[5, 13]];
    for (workers, cut) in [(1, StepCut::Epochs(1)), (2, StepCut::All), (4, StepCut::Epochs(3))] {
        for stop in [None, Some(Epoch(3)), Some(Epoch(5))] {
            let connectors = MemoryConnectors::new(1).with_source("goods", records());
            let folder = tempfile::tempdir().unwrap();
            let config = EngineConfig { workers, cut, data_dir: Some(folder.path().to_path_buf()), ..EngineConfig::default() };
            if stop.is_some() {
                let first = Engine::start(program.plan.clone(), EngineConfig { stop_after: stop, ..config.clone() }, &connectors).unwrap();
                first.wait_timeout(Duration::from_secs(60)).unwrap();
                first.shutdown().unwrap();
            }
            let engine = Engine::start(program.plan.clone(), EngineConfig { workers: 1 + workers % 2, ..config }, &connectors).unwrap();
            engine.wait().unwrap();
            for (index, expected) in expected.iter().enumerate() {
                let expected: BTreeSet<Value> = expected.iter().map(|offset| Value::Int(*offset)).collect();
                for view in ["shares", "totals"] {
                    let found = offsets(&engine, view, index as u64 + 1);
                    assert_eq!(found, expected, "{view} at {}, {workers} workers, {cut:?}, stopped at {stop:?}", index + 1);
                }
            }
            engine.shutdown().unwrap();
        }
    }
}

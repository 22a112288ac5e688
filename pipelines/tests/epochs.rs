//! Two views of one request are read at one epoch, while the replay runs.

use std::collections::BTreeSet;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use freshet_engine::{EngineConfig, StepCut};

use crate::year::{data_folder, event_count, plan_without_sink, start, wait_for_events};

const READS: u64 = 1000;

#[test]
fn departures_over_all_origins_equal_departures_over_all_carriers_in_each_of_1000_reads() {
    let data = data_folder();
    let events = event_count(&data);
    let config = EngineConfig { cut: StepCut::Rows(512), events_per_second: Some(120_000), ..EngineConfig::default() };
    let engine = start(plan_without_sink(&data), config);
    let reader = engine.reader();
    let (mut epochs, mut last, mut least, mut greatest) = (BTreeSet::new(), None, i64::MAX, 0);
    for read in 0..READS {
        wait_for_events(reader.as_ref(), events * (read + 1) / (READS + 1));
        let snapshot = reader.snapshot(&["departures_by_origin", "departures_by_carrier"], None).unwrap();
        let (origins, carriers) = (total(&snapshot.views[0]), total(&snapshot.views[1]));
        assert_eq!(origins, carriers, "read {read} at {:?}", snapshot.point);
        assert!(last <= Some(snapshot.point.q), "read {read}: {:?} after {last:?}", snapshot.point);
        last = Some(snapshot.point.q);
        (least, greatest) = (least.min(origins), greatest.max(origins));
        epochs.insert(snapshot.point.q);
    }
    assert!(epochs.len() >= 50, "{} epochs seen", epochs.len());
    assert!(least < greatest, "the replay went on meanwhile");
    engine.shutdown().unwrap();
}

fn total(batches: &[RecordBatch]) -> i64 {
    let departures = |batch: &RecordBatch| batch.column_by_name("departures").unwrap().as_primitive::<Int64Type>().values().iter().sum::<i64>();
    batches.iter().map(departures).sum()
}

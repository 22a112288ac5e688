//! The event tree against a plain list: thousands of events, late ones, clustered ones, retractions and dropped leaves.

use std::sync::Arc;

use arrow::datatypes::DataType;
use freshet_core::{AggregateFunction, EventTime, ExprRef, FeatureColumn, RollingAggregate, RollingSpec, Window};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::state::rolling::EventTree;
use crate::state::{Cell, CellKind, Datum, RollingLayout};

const FUNCTIONS: [AggregateFunction; 4] = [AggregateFunction::Count, AggregateFunction::Sum, AggregateFunction::Min, AggregateFunction::VarSamp];

fn layout() -> RollingLayout {
    let kind = |function| CellKind::new(function, Some(DataType::Float64), false, false);
    let expr: ExprRef = Arc::new(freshet_core::Column { index: 1, name: "f".into(), data_type: DataType::Float64 });
    RollingLayout {
        spec: RollingSpec {
            entity: vec![0],
            time: 1,
            aggregates: vec![RollingAggregate { function: AggregateFunction::Sum, argument: Some(2), filter: None, window: Window::last_ms(1000) }],
            features: vec![FeatureColumn { name: "f".into(), expr }],
            ttl_ms: None,
            hop_ms: None,
            include_now: false,
        },
        cells: FUNCTIONS.map(kind).to_vec(),
        columns: vec![(Some(2), None); 4],
        windows: vec![Window::last_ms(1000)],
        aggregates: vec![(1, 0)],
    }
}

fn datums(value: f64) -> Vec<Datum> {
    vec![Datum::Float(value); 4]
}

fn shown(cells: &[Cell]) -> Vec<String> {
    cells.iter().zip(FUNCTIONS).map(|(cell, function)| format!("{:?}", cell.output(function, &DataType::Float64))).collect()
}

fn check(layout: &RollingLayout, tree: &EventTree, events: &[(i64, f64)], rng: &mut StdRng, end: i64, dropped: i64) {
    for _ in 0..20 {
        let from = rng.random_range(dropped..=end);
        let until = rng.random_range(from..=end + 1);
        let mut found: Vec<Cell> = layout.cells.iter().map(CellKind::empty).collect();
        tree.range(from, until, &mut found);
        let mut expected: Vec<Cell> = layout.cells.iter().map(CellKind::empty).collect();
        for (_, value) in events.iter().filter(|(time, _)| *time >= from && *time < until) {
            expected.iter_mut().for_each(|cell| cell.add(&Datum::Float(*value), 1));
        }
        assert_eq!(shown(&found), shown(&expected), "[{from}, {until}) of {} events", events.len());
        let before: Option<i64> = events.iter().map(|(time, _)| *time).filter(|time| *time < until && *time >= dropped).max();
        assert_eq!(tree.times_before(until).next().filter(|time| *time >= dropped), before);
    }
}

#[test]
fn t9_any_range_of_the_tree_equals_the_plain_list() {
    let layout = layout();
    for seed in 0..6 {
        let mut rng = StdRng::seed_from_u64(seed);
        let late = [0.0, 0.02, 0.3][seed as usize % 3];
        let (mut tree, mut events, mut now, mut dropped) = (EventTree::default(), Vec::new(), 0i64, 0i64);
        for step in 0..6000 {
            now += if rng.random_bool(0.3) { 0 } else { rng.random_range(0..20) };
            let time = if rng.random_bool(late) { rng.random_range(dropped..=now) } else { now };
            let value = (rng.random::<f64>() - 0.5) * 1000.0;
            tree.insert(&layout, time, &datums(value));
            events.push((time, value));
            if rng.random_bool(0.1) {
                let (time, value) = events.swap_remove(rng.random_range(0..events.len()));
                assert!(tree.remove(&layout, time, &datums(value)), "event {value} at {time}");
            }
            if step % 1500 == 1499 {
                dropped = now / 3;
                tree.drop_before(EventTime(dropped));
                events.retain(|(time, _)| *time >= dropped);
            }
            if step % 300 == 299 {
                check(&layout, &tree, &events, &mut rng, now, dropped);
            }
        }
        assert!(!tree.remove(&layout, now, &datums(f64::MAX)));
    }
}

#[test]
fn a_window_of_many_events_costs_no_more_merges_than_its_logarithm() {
    let layout = layout();
    let mut tree = EventTree::default();
    for time in 0..200_000 {
        tree.insert(&layout, time, &datums(1.0));
    }
    let mut cells: Vec<Cell> = layout.cells.iter().map(CellKind::empty).collect();
    let visited = tree.range(7, 199_990, &mut cells);
    assert_eq!(cells[0].output(AggregateFunction::Count, &DataType::Int64).unwrap(), freshet_core::Value::Int(199_983));
    assert!(visited < 200, "{visited} leaves and groups for 200,000 events");
}

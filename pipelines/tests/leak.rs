//! The strict bounds of features keep a flight's own departure out. A variant that asks three hours later lets it in, and this test notices.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use freshet_engine::EngineConfig;

use crate::node::{Setting, asked_later, demo_folder, first_days};
use crate::year::{HOUR_MS, data_folder, plan_without_sink, rows_by_key, start, strings, table, times};

/// Asked an hour before the schedule, all but the most delayed have left three hours later.
const LATER: i64 = 3 * HOUR_MS as i64;
const WINDOW: u64 = 24 * HOUR_MS;

/// What one run answered about a flight.
#[derive(Debug, PartialEq)]
struct Answer {
    q: u64,
    origin_departures: Option<i64>,
    aircraft: (Option<i64>, Option<u64>),
}

#[test]
fn a_flight_is_not_among_its_own_features_and_asking_three_hours_later_is_noticed() {
    let data = data_folder();
    let folder = tempfile::tempdir().unwrap();
    let shifted = asked_later(&data, LATER, &folder.path().join("later"));
    let (answers, later) = (answers(&data), answers(&shifted));
    assert_eq!(answers.len(), later.len());
    assert_eq!(own_departures_counted(&data, &answers), 0.0);
    let leaked = own_departures_counted(&data, &later);
    assert!(leaked > 0.5, "asked later, {leaked} of the flights are among their own features");
    let changed = answers.iter().filter(|(flight, answer)| later[*flight].aircraft != answer.aircraft).count();
    assert!(changed * 2 > answers.len(), "{changed} of {} have other aircraft features", answers.len());
}

/// To the middle of March: the first model, and six weeks it can be judged by.
const JUDGED_DAYS: i64 = 74;
/// What a flight's own delay among its features is worth at least; an honest feature is worth a tenth of it.
const LEAK_MIN: f64 = 0.1;

#[test]
fn a_model_trained_on_features_of_three_hours_later_is_better_than_any_honest_one() {
    let folder = tempfile::tempdir().unwrap();
    let honest = first_days(&data_folder(), JUDGED_DAYS, &folder.path().join("data"));
    let leaking = asked_later(&honest, LATER, &folder.path().join("later"));
    let auc = |name: &str, data: &Path| {
        let setting = Setting::new(demo_folder(), data, folder.path().join(name));
        let months = setting.run(&["SELECT auc_frozen FROM quality WHERE month > 1 ORDER BY month"]).remove(0);
        months.iter().map(|month| month["auc_frozen"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    let (honest, leaking) = (auc("honest", &honest), auc("leaking", &leaking));
    assert_eq!((honest.len(), leaking.len()), (2, 2), "February and March");
    assert!(honest.iter().zip(&leaking).all(|(honest, leaking)| leaking - honest > LEAK_MIN), "{honest:?}, three hours later {leaking:?}");
    assert!(honest.iter().all(|auc| *auc < 0.75), "{honest:?}");
}

fn answers(data: &Path) -> HashMap<String, Answer> {
    let engine = start(plan_without_sink(data), EngineConfig::default());
    engine.wait().unwrap();
    let snapshot = engine.reader().snapshot(&["predictions"], None).unwrap();
    engine.shutdown().unwrap();
    let mut answers = HashMap::new();
    for batch in &snapshot.views[0] {
        let count = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
        let (origin, aircraft) = (count("origin_departures_24h"), count("aircraft_departures_24h"));
        let delay = crate::year::floats(batch, "aircraft_delay_24h");
        let (flights, asked) = (strings(batch, "flight_id"), times(batch, "ask_time"));
        for (row, q) in asked.into_iter().enumerate() {
            let whole = |array: &arrow::array::Int64Array| array.is_valid(row).then(|| array.value(row));
            let aircraft = (whole(aircraft), delay.is_valid(row).then(|| delay.value(row).to_bits()));
            let answer = Answer { q, origin_departures: whole(origin), aircraft };
            assert!(answers.insert(flights.value(row).to_string(), answer).is_none(), "each flight is asked about once");
        }
    }
    answers
}

/// Of the flights that left, the share whose answer counts one departure more than the other flights give.
fn own_departures_counted(data: &Path, answers: &HashMap<String, Answer>) -> f64 {
    let departures = table(data, "departures");
    let left = times(&departures, "dep_time");
    let (origins, flights) = (strings(&departures, "origin"), strings(&departures, "flight_id"));
    let rows = rows_by_key(origins, &left);
    let mut counted = 0;
    for row in 0..departures.num_rows() {
        let answer = &answers[flights.value(row)];
        let visible = |other: &&usize| left[**other] + WINDOW > answer.q && left[**other] < answer.q;
        let all = &rows[origins.value(row)];
        let from = all.partition_point(|other| left[*other] + WINDOW <= answer.q);
        let to = all.partition_point(|other| left[*other] < answer.q);
        let others = (to - from) as i64 - i64::from(visible(&&row));
        let own = answer.origin_departures.unwrap_or(0) - others;
        assert!((0..=1).contains(&own), "{}: {answer:?}, others {others}", flights.value(row));
        counted += own;
    }
    counted as f64 / departures.num_rows() as f64
}

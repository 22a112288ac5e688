//! The strict bounds of features keep a flight's own departure out. A variant that asks three hours later lets it in, and this test notices.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use freshet_engine::EngineConfig;
use parquet::arrow::ArrowWriter;

use crate::year::{FILES, HOUR_MS, data_folder, plan_without_sink, rows_by_key, start, strings, table, times};

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
    let shifted = tempfile::tempdir().unwrap();
    write_shifted(&data, shifted.path());
    let (answers, later) = (answers(&data), answers(shifted.path()));
    assert_eq!(answers.len(), later.len());
    assert_eq!(own_departures_counted(&data, &answers), 0.0);
    let leaked = own_departures_counted(&data, &later);
    assert!(leaked > 0.5, "asked later, {leaked} of the flights are among their own features");
    let changed = answers.iter().filter(|(flight, answer)| later[*flight].aircraft != answer.aircraft).count();
    assert!(changed * 2 > answers.len(), "{changed} of {} have other aircraft features", answers.len());
}

fn write_shifted(data: &Path, folder: &Path) {
    for name in FILES {
        fs::copy(data.join(format!("{name}.parquet")), folder.join(format!("{name}.parquet"))).unwrap();
    }
    let schedules = table(data, "schedules");
    let column = schedules.schema().index_of("ask_time").unwrap();
    let shifted: TimestampMillisecondArray = schedules.column(column).as_primitive::<TimestampMillisecondType>().unary(|time| time + LATER);
    let mut columns = schedules.columns().to_vec();
    columns[column] = Arc::new(shifted);
    let schedules = RecordBatch::try_new(schedules.schema(), columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(folder.join("schedules.parquet")).unwrap(), schedules.schema(), None).unwrap();
    writer.write(&schedules).unwrap();
    writer.close().unwrap();
}

fn answers(data: &Path) -> HashMap<String, Answer> {
    let engine = start(plan_without_sink(data), EngineConfig::default());
    engine.wait().unwrap();
    let snapshot = engine.reader().snapshot(&["questions"], None).unwrap();
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

//! 10,000 lookups made while the replay runs, each computed again by brute force from the files: bit for bit, statuses included.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use freshet_core::{ExactSum, FeatureAnswer, FeatureRequest, ReadMode, Status};
use freshet_engine::{EngineConfig, StepCut};

use crate::year::{HOUR_MS, data_folder, event_count, floats, plan_without_sink, rows_by_key, start, strings, table, times, wait_for_events};

const READS: u64 = 10_000;
const WINDOWS: [(&str, u64); 4] = [("1h", HOUR_MS), ("6h", 6 * HOUR_MS), ("24h", 24 * HOUR_MS), ("7d", 168 * HOUR_MS)];
/// T18: a key is forgotten after twice its longest window, or twice its TTL.
const LOAD_HORIZON: u64 = 2 * 168 * HOUR_MS;
const WEATHER_TTL: u64 = 6 * HOUR_MS;
const LOADS: [(&str, &str); 4] = [("origin", "origin"), ("carrier", "carrier"), ("dest", "dest"), ("aircraft", "tailnum")];
const READINGS: [&str; 6] = ["temp", "humid", "wind_speed", "precip", "pressure", "visib"];
/// Service columns: a count and a mean per load and window, six readings, three request columns.
const COLUMNS: usize = LOADS.len() * WINDOWS.len() * 2 + READINGS.len() + 3;

#[test]
fn ten_thousand_lookups_during_the_replay_equal_a_recomputation_from_the_files() {
    let data = data_folder();
    let (schedules, events) = (table(&data, "schedules"), event_count(&data));
    let config = EngineConfig { workers: 2, cut: StepCut::Rows(512), events_per_second: Some(80_000), ..EngineConfig::default() };
    let engine = start(plan_without_sink(&data), config);
    let reader = engine.reader();
    let mut random = Random(20_131_231);
    let mut log: Vec<(usize, FeatureAnswer)> = Vec::new();
    for read in 0..READS {
        wait_for_events(reader.as_ref(), events * (read + 1) / (READS + 1));
        let row = random.below(schedules.num_rows());
        let request = FeatureRequest { service: "delay_features".into(), rows: schedules.slice(row, 1), mode: ReadMode::Fresh };
        log.push((row, reader.features(&request).unwrap()));
    }
    engine.shutdown().unwrap();

    let history = History::open(&data);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for (row, answer) in &log {
        let expected = history.answer(&schedules.slice(*row, 1), answer.point.q.0, answer.point.s.0);
        assert_eq!(expected.len(), COLUMNS);
        assert_eq!(answer.features.num_columns(), COLUMNS);
        for (name, (value, status)) in &expected {
            let (found, found_status) = cell(answer, name);
            assert_eq!((found, found_status), (*value, *status), "{name} of schedule {row} at {:?}", answer.point);
            *seen.entry(format!("{status:?}")).or_default() += 1;
        }
    }
    let mut points: Vec<_> = log.iter().map(|(_, answer)| answer.point.q).collect();
    points.dedup();
    assert!(points.is_sorted() && points.len() > 500, "{} instants", points.len());
    assert!(["Present", "NullValue", "NotFound"].iter().all(|status| seen.contains_key(*status)), "{seen:?}");
}

/// A value as bits, so that equal means identical.
type Cell = (Option<u64>, Status);

fn cell(answer: &FeatureAnswer, name: &str) -> Cell {
    let column = answer.features.schema().index_of(name).unwrap();
    (bits(&answer.features, name, 0), answer.statuses[column][0])
}

fn bits(batch: &RecordBatch, name: &str, row: usize) -> Option<u64> {
    let array = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    if array.is_null(row) {
        return None;
    }
    let float = array.as_primitive_opt::<Float64Type>().map(|array| array.value(row).to_bits());
    let long = || array.as_primitive_opt::<Int64Type>().map(|array| array.value(row) as u64);
    let short = || array.as_primitive_opt::<Int32Type>().map(|array| i64::from(array.value(row)) as u64);
    Some(float.or_else(long).or_else(short).unwrap_or_else(|| panic!("{name} is {}", array.data_type())))
}

/// The files, by key.
struct History {
    delays: Vec<f64>,
    left: Vec<u64>,
    departures: Vec<HashMap<String, Vec<usize>>>,
    weather: RecordBatch,
    observed: Vec<u64>,
    readings: HashMap<String, Vec<usize>>,
}

impl History {
    fn open(data: &Path) -> History {
        let (departures, weather) = (table(data, "departures"), table(data, "weather"));
        let (left, observed) = (times(&departures, "dep_time"), times(&weather, "observed_at"));
        let by_column = LOADS.iter().map(|(_, column)| rows_by_key(strings(&departures, column), &left)).collect();
        let delays = floats(&departures, "dep_delay");
        assert_eq!(delays.null_count(), 0);
        let readings = rows_by_key(strings(&weather, "origin"), &observed);
        History { delays: delays.values().to_vec(), left, departures: by_column, weather, observed, readings }
    }

    fn answer(&self, asked: &RecordBatch, q: u64, s: u64) -> BTreeMap<String, Cell> {
        let mut cells = BTreeMap::new();
        for (index, (name, column)) in LOADS.iter().enumerate() {
            let key = strings(asked, column);
            let rows = key.is_valid(0).then(|| self.departures[index].get(key.value(0))).flatten();
            self.load(name, rows.map_or(&[], Vec::as_slice), q, s, &mut cells);
        }
        self.reading(strings(asked, "origin").value(0), q, s, &mut cells);
        for name in ["distance", "hour", "weekday"] {
            let value = bits(asked, name, 0);
            cells.insert(name.into(), (value, if value.is_some() { Status::Present } else { Status::NullValue }));
        }
        cells
    }

    /// T1, T17, T18 over the rows of one key. Files are in event-time order, so that a row arrives at its event time.
    fn load(&self, name: &str, rows: &[usize], q: u64, s: u64, cells: &mut BTreeMap<String, Cell>) {
        let visible = &rows[..rows.partition_point(|row| self.left[*row] < q.min(s))];
        let known = visible.last().is_some_and(|row| q - self.left[*row] <= LOAD_HORIZON);
        for (suffix, width) in WINDOWS {
            let inside = &visible[visible.partition_point(|row| self.left[*row] + width <= q)..];
            let count = inside.len() as i64;
            let mut sum = ExactSum::default();
            inside.iter().for_each(|row| sum.add(self.delays[*row], 1));
            let (departures, delay) = match (known, count) {
                (false, _) => ((None, Status::NotFound), (None, Status::NotFound)),
                (true, 0) => ((Some(0), Status::Present), (None, Status::NullValue)),
                (true, _) => ((Some(count as u64), Status::Present), (Some(sum.mean(count).to_bits()), Status::Present)),
            };
            cells.insert(format!("{name}_departures_{suffix}"), departures);
            cells.insert(format!("{name}_delay_{suffix}"), delay);
        }
    }

    /// T8, T10, T18: the last reading, of equal times the later in the file; stale after the TTL, forgotten after twice the TTL.
    fn reading(&self, origin: &str, q: u64, s: u64, cells: &mut BTreeMap<String, Cell>) {
        let visible = |row: &&usize| self.observed[**row] < q && self.observed[**row] < s;
        let last = self.readings.get(origin).and_then(|rows| rows.iter().rev().find(visible)).copied();
        for name in READINGS {
            let cell = match last.map(|row| (q - self.observed[row], bits(&self.weather, name, row))) {
                None => (None, Status::NotFound),
                Some((age, _)) if age > 2 * WEATHER_TTL => (None, Status::NotFound),
                Some((age, _)) if age > WEATHER_TTL => (None, Status::OutsideMaxAge),
                Some((_, None)) => (None, Status::NullValue),
                Some((_, value)) => (value, Status::Present),
            };
            cells.insert(name.into(), cell);
        }
    }
}

/// SplitMix64: the same keys in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

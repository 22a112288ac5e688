//! The rows of a training set, computed from the input history by the same operators as the pipeline's views, in an engine of their own (T4).
//! In: a training set and an instant. Out: rows in one order for any number of workers, cut into training and holdout.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use freshet_core::{Connectors, Epoch, Error, KeyCodec, Plan, Result, RetrainingDef, TrainingSetDef, event_times};
use freshet_engine::{Engine, EngineConfig, StepCut};

use crate::retrain::journal::AskedAt;

/// How often the wait for the rows looks whether it should stop.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// The plan that computes a training set.
#[derive(Debug, Clone)]
pub struct TrainingPlan {
    /// One view, named after the set.
    pub plan: Plan,
    /// Sources whose rows cannot change an answer once they are this much older (ms) than the first row asked for.
    pub horizons: BTreeMap<String, u64>,
}

/// Where plans of training sets come from.
pub trait TrainingPlans: Debug + Send + Sync {
    /// Rows whose TIME lies in [from, until). Errors: Internal.
    fn plan(&self, set: &str, from: Option<Epoch>, until: Option<Epoch>) -> Result<TrainingPlan>;
}

/// What computes training sets.
#[derive(Debug, Clone)]
pub struct TrainingEngine {
    pub plans: Arc<dyn TrainingPlans>,
    pub connectors: Arc<dyn Connectors>,
    pub workers: usize,
}

/// Which rows are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub set: &'a TrainingSetDef,
    /// TIME in [from, until).
    pub from: Option<Epoch>,
    pub until: Option<Epoch>,
    /// Only what arrived below this instant is known.
    pub known: Option<Epoch>,
}

/// What a training set's plan gave.
#[derive(Debug, Clone)]
pub struct TrainingRows {
    pub rows: RecordBatch,
    /// One per lookup AS OF a column (T5). It counts the rows that asked, which are more than `rows` where a join above the lookup drops some.
    pub asked_at: Vec<AskedAt>,
}

impl TrainingEngine {
    /// The rows in (TIME, ID, all columns) order; `None`: `stop` said so first. Reads every source from its beginning, so it costs about what
    /// the pipeline has cost for these views so far. Errors: Data, Unavailable (a source), Internal.
    pub fn rows(&self, asked: Asked, stop: &AtomicBool) -> Result<Option<TrainingRows>> {
        let training = self.plans.plan(&asked.set.name, asked.from, asked.until)?;
        let from: BTreeMap<String, Epoch> = match asked.from {
            Some(from) => training.horizons.into_iter().map(|(source, horizon)| (source, Epoch(from.0.saturating_sub(horizon)))).collect(),
            None => BTreeMap::new(),
        };
        // A question about another time than the row's own needs all arrivals: the whole input is one step.
        let cut = if training.plan.needs_whole_input() { StepCut::All } else { StepCut::Rows(8192) };
        let config = EngineConfig { workers: self.workers, from, until: asked.known, cut, ..EngineConfig::default() };
        let engine = Engine::start(training.plan, config, self.connectors.as_ref())?;
        while !engine.wait_timeout(WATCH_EVERY)? {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        let snapshot = engine.reader().snapshot(&[&asked.set.name], None)?;
        let asked_at = engine.question_times().into_iter();
        let asked_at = asked_at.map(|times| AskedAt { column: times.column, rows: times.rows, apart: times.apart }).collect();
        engine.shutdown()?;
        let batches = snapshot.views[0].iter().map(|batch| batch.clone().with_schema(asked.set.schema.clone()));
        let rows = concat_batches(&asked.set.schema, &batches.collect::<std::result::Result<Vec<_>, _>>()?)?;
        Ok(Some(TrainingRows { rows: ordered(asked.set, &rows)?, asked_at }))
    }
}

/// By (TIME, ID, all columns), so that neither workers nor steps show.
fn ordered(set: &TrainingSetDef, rows: &RecordBatch) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = vec![named(rows, &set.time)?.clone(), named(rows, &set.id)?.clone()];
    columns.extend(rows.columns().iter().cloned());
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let keys = KeyCodec::new(&types)?.encode(&columns)?;
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
    Ok(take_record_batch(rows, &UInt32Array::from(order))?)
}

/// Rows of a run: what the trainer gets, and what it is judged by.
#[derive(Debug, Clone)]
pub struct Split {
    pub train: RecordBatch,
    /// Without the label.
    pub holdout: RecordBatch,
    /// ID and label of the holdout's rows, in its order.
    pub labels: RecordBatch,
    pub null_labels: u64,
}

/// Spine times of a run's training rows: [from, until).
pub fn train_range(job: &RetrainingDef, at: Epoch) -> (Epoch, Epoch) {
    (Epoch(at.0.saturating_sub(job.last_ms)), Epoch(at.0.saturating_sub(job.holdout_ms + job.gap_ms)))
}

/// Cuts the rows of [at − LAST, at). Rows of the gap, and rows without a label, belong to neither part.
pub fn split(set: &TrainingSetDef, job: &RetrainingDef, at: Epoch, rows: &RecordBatch) -> Result<Split> {
    let (from, until) = train_range(job, at);
    let holdout_from = Epoch(at.0.saturating_sub(job.holdout_ms));
    let times = event_times(named(rows, &set.time)?)?;
    let label = named(rows, &set.label)?;
    let within = |from: Epoch, until: Epoch| -> Vec<bool> {
        times.iter().map(|time| time.is_some_and(|time| time >= from.event_time() && time < until.event_time())).collect()
    };
    let (train, holdout) = (within(from, until), within(holdout_from, at));
    let null_labels = (0..rows.num_rows()).filter(|row| (train[*row] || holdout[*row]) && label.is_null(*row)).count() as u64;
    let labelled = |mask: Vec<bool>| -> Result<RecordBatch> {
        let mask: BooleanArray = mask.into_iter().enumerate().map(|(row, within)| Some(within && label.is_valid(row))).collect();
        Ok(filter_record_batch(rows, &mask)?)
    };
    let (train, judged) = (labelled(train)?, labelled(holdout)?);
    Ok(Split {
        train,
        holdout: project(&judged, |name| name != set.label)?,
        labels: project(&judged, |name| name == set.id || name == set.label)?,
        null_labels,
    })
}

/// The labels of a file that `split` made. Errors: Invalid for a label that is neither true nor false.
pub fn label_values(set: &TrainingSetDef, labels: &RecordBatch) -> Result<Vec<bool>> {
    let column = named(labels, &set.label)?;
    let truths = cast(column, &DataType::Boolean)
        .map_err(|_| Error::invalid(format!("the label {} of training set {} is neither BOOLEAN nor a number", set.label, set.name)))?;
    Ok(truths.as_boolean().iter().map(|label| label.unwrap_or(false)).collect())
}

/// The column of this name. Errors: Internal.
pub fn named<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| Error::internal(format!("the training set has no column {name}")))
}

fn project(rows: &RecordBatch, keep: impl Fn(&str) -> bool) -> Result<RecordBatch> {
    let columns: Vec<usize> = (0..rows.num_columns()).filter(|column| keep(rows.schema_ref().field(*column).name())).collect();
    Ok(rows.project(&columns)?)
}

/// FRESHET_SCHEMA: name, type and role of each column, as JSON.
pub fn schema_json(set: &TrainingSetDef) -> Vec<u8> {
    let role = |name: &str| match name {
        name if name == set.id => "id",
        name if name == set.time => "time",
        name if name == set.label => "label",
        _ => "feature",
    };
    let columns: Vec<serde_json::Value> =
        fields(&set.schema).map(|(name, data_type)| serde_json::json!({ "name": name, "type": data_type.to_string(), "role": role(name) })).collect();
    let mut bytes = serde_json::to_vec_pretty(&columns).expect("text and lists are JSON");
    bytes.push(b'\n');
    bytes
}

fn fields(schema: &SchemaRef) -> impl Iterator<Item = (&str, &DataType)> {
    let schema: &Schema = schema;
    schema.fields().iter().map(|field| (field.name().as_str(), field.data_type()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, TimeUnit};
    use freshet_core::TrainingMode;

    use super::*;

    fn set() -> TrainingSetDef {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("x", DataType::Float64, true),
            Field::new("late", DataType::Int64, true),
        ]);
        TrainingSetDef {
            name: "t".into(),
            id: "id".into(),
            time: "at".into(),
            label: "late".into(),
            mode: TrainingMode::AsServed,
            schema: Arc::new(schema),
        }
    }

    fn job() -> RetrainingDef {
        RetrainingDef {
            name: "j".into(),
            model: 0,
            training_set: 0,
            last_ms: 50,
            holdout_ms: 20,
            gap_ms: 5,
            delay_ms: 0,
            rows_min: 1,
            command: String::new(),
            timeout_ms: 1,
            heartbeat_ms: None,
            first_at: None,
            triggers: Vec::new(),
            cooldown_ms: 0,
            validation: None,
            grids_ms: vec![100],
        }
    }

    /// One row per (microsecond, label).
    fn rows(cells: &[(i64, Option<i64>)]) -> RecordBatch {
        let ids: Vec<String> = (0..cells.len()).map(|row| format!("r{row}")).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(ids)),
            Arc::new(TimestampMicrosecondArray::from_iter_values(cells.iter().map(|cell| cell.0))),
            Arc::new(Float64Array::from_iter_values(cells.iter().map(|cell| cell.0 as f64))),
            Arc::new(Int64Array::from_iter(cells.iter().map(|cell| cell.1))),
        ];
        RecordBatch::try_new(set().schema, columns).unwrap()
    }

    fn ids(rows: &RecordBatch) -> Vec<&str> {
        rows.column_by_name("id").unwrap().as_string::<i32>().iter().flatten().collect()
    }

    #[test]
    fn t4_training_and_holdout_are_half_open_to_the_microsecond_and_the_gap_is_neither() {
        let cells = [
            (49_999, Some(1)),
            (50_000, Some(1)),
            (74_999, Some(0)),
            (75_000, Some(1)),
            (79_999, Some(1)),
            (80_000, Some(1)),
            (99_999, Some(0)),
            (100_000, Some(1)),
        ];
        let split = split(&set(), &job(), Epoch(100), &rows(&cells)).unwrap();
        assert_eq!(ids(&split.train), ["r1", "r2"]);
        assert_eq!(ids(&split.holdout), ["r5", "r6"]);
        assert!(split.holdout.column_by_name("late").is_none() && split.train.column_by_name("late").is_some());
        assert_eq!(label_values(&set(), &split.labels).unwrap(), [true, false]);
        assert_eq!(train_range(&job(), Epoch(100)), (Epoch(50), Epoch(75)));
    }

    #[test]
    fn rows_without_a_label_are_dropped_and_counted() {
        let cells = [(60_000, None), (61_000, Some(1)), (77_000, None), (90_000, None), (91_000, Some(0))];
        let split = split(&set(), &job(), Epoch(100), &rows(&cells)).unwrap();
        assert_eq!((ids(&split.train), ids(&split.holdout), split.null_labels), (vec!["r1"], vec!["r4"], 2));
    }

    #[test]
    fn the_order_of_rows_is_their_own() {
        let cells = [(3, Some(1)), (1, Some(0)), (2, None), (1, Some(1))];
        let rows = rows(&cells);
        let expected = ordered(&set(), &rows).unwrap();
        assert_eq!(ids(&expected), ["r1", "r3", "r2", "r0"]);
        let turned = take_record_batch(&rows, &UInt32Array::from(vec![3, 2, 0, 1])).unwrap();
        assert_eq!(ordered(&set(), &turned).unwrap(), expected);
    }

    #[test]
    fn the_schema_file_tells_roles() {
        let text: serde_json::Value = serde_json::from_slice(&schema_json(&set())).unwrap();
        let roles: Vec<&str> = text.as_array().unwrap().iter().map(|column| column["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["id", "time", "feature", "label"]);
        assert_eq!(text[2], serde_json::json!({ "name": "x", "type": "Float64", "role": "feature" }));
    }
}

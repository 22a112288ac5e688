//! The answers of a feature store, gathered key by key and turned into columns. In: what each key holds. Out: features with statuses.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use freshet_core::{Epoch, EventTime, FeatureSpec, KeyCodec, Result, RollingAggregate, Status, Value, evaluate_rows};

use crate::bridge::features::{FeatureStore, StoreKind};
use crate::state::RollingLayout;

/// Row, feature and message.
pub type FailedFeature = (usize, usize, String);

/// One answer per asked key.
pub struct FeatureRows {
    /// The features, in the order of the view's schema after its entity columns.
    pub columns: Vec<ArrayRef>,
    /// Present, OutsideMaxAge or NotFound.
    pub statuses: Vec<Status>,
    /// e_last of known keys.
    pub event_times: Vec<Option<EventTime>>,
    /// (row, feature) whose expression failed, with the message.
    pub errors: Vec<FailedFeature>,
    /// Per feature, whether its window reaches back to before its sources are whole (T23). Empty: none.
    pub incomplete: Vec<bool>,
}

/// T23: which features of a view that is whole from `since` on would at `q` need what was before.
pub fn incomplete(spec: &FeatureSpec, q: Epoch, since: Epoch) -> Vec<bool> {
    let FeatureSpec::Rolling(rolling) = spec else { return Vec::new() };
    let begins_before = |aggregate: &RollingAggregate| match aggregate.window.lower {
        None => true,
        Some(edge) => i128::from(q.0) - i128::from(edge.offset_ms) < i128::from(since.0),
    };
    let read = |column: usize| column.checked_sub(rolling.entity.len()).and_then(|index| rolling.aggregates.get(index));
    rolling.features.iter().map(|feature| feature.expr.columns().into_iter().filter_map(read).any(begins_before)).collect()
}

/// What one key holds at one (q, s).
pub(super) struct KeyAnswer {
    pub last: EventTime,
    pub stale: bool,
    pub content: KeyContent,
}

pub(super) enum KeyContent {
    Aggregates(Vec<Result<Value>>),
    Row(Box<[u8]>),
}

/// Gathers answers row by row and turns them into columns.
pub(super) struct Answers {
    statuses: Vec<Status>,
    event_times: Vec<Option<EventTime>>,
    /// One column per aggregate.
    aggregates: Vec<Vec<Value>>,
    failed: Vec<(usize, usize, String)>,
    rows: Vec<Option<Box<[u8]>>>,
}

impl Answers {
    pub fn new(store: &FeatureStore, count: usize) -> Answers {
        let aggregates = match &store.kind {
            StoreKind::Rolling { aggregate_types, .. } => aggregate_types.iter().map(|_| Vec::with_capacity(count)).collect(),
            StoreKind::Latest { .. } => Vec::new(),
        };
        Answers { statuses: Vec::with_capacity(count), event_times: Vec::with_capacity(count), aggregates, failed: Vec::new(), rows: Vec::new() }
    }

    pub fn push(&mut self, answer: Option<KeyAnswer>) {
        let row = self.statuses.len();
        let (status, last, content) = match answer {
            None => (Status::NotFound, None, None),
            Some(answer) if answer.stale => (Status::OutsideMaxAge, Some(answer.last), None),
            Some(answer) => (Status::Present, Some(answer.last), Some(answer.content)),
        };
        self.statuses.push(status);
        self.event_times.push(last);
        match content {
            Some(KeyContent::Aggregates(values)) => {
                for (index, value) in values.into_iter().enumerate() {
                    self.aggregates[index].push(value.unwrap_or_else(|error| {
                        self.failed.push((row, index, error.to_string()));
                        Value::Null
                    }));
                }
            }
            Some(KeyContent::Row(bytes)) => self.rows.push(Some(bytes)),
            None => {
                self.aggregates.iter_mut().for_each(|column| column.push(Value::Null));
                self.rows.push(None);
            }
        }
    }

    pub fn finish(self, store: &FeatureStore, entity: &[ArrayRef], q: impl Fn(usize) -> Epoch) -> Result<FeatureRows> {
        let (columns, errors) = match &store.kind {
            StoreKind::Rolling { layout, aggregate_types } => self.rolling_columns(layout, aggregate_types, entity, q)?,
            StoreKind::Latest { codec } => (self.latest_columns(codec, &store.feature_types)?, Vec::new()),
        };
        Ok(FeatureRows { columns, statuses: self.statuses, event_times: self.event_times, errors, incomplete: Vec::new() })
    }

    fn rolling_columns(
        &self,
        layout: &RollingLayout,
        types: &[DataType],
        entity: &[ArrayRef],
        q: impl Fn(usize) -> Epoch,
    ) -> Result<(Vec<ArrayRef>, Vec<FailedFeature>)> {
        let rows = self.statuses.len();
        let mut columns: Vec<ArrayRef> = entity.to_vec();
        for (values, data_type) in self.aggregates.iter().zip(types) {
            columns.push(Value::column_of(data_type, values.iter())?);
        }
        columns.push(Arc::new((0..rows).map(|row| Some(q(row).0 as i64 * 1000)).collect::<TimestampMicrosecondArray>()));
        let fields: Vec<Field> =
            columns.iter().enumerate().map(|(index, column)| Field::new(index.to_string(), column.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?;
        let (mut features, mut errors) = (Vec::new(), Vec::new());
        for (index, feature) in layout.spec.features.iter().enumerate() {
            let read = feature.expr.columns();
            let mut failed: Vec<(usize, String)> = self
                .failed
                .iter()
                .filter(|(_, aggregate, _)| read.contains(&(entity.len() + aggregate)))
                .map(|(row, _, message)| (*row, message.clone()))
                .collect();
            let values = match feature.expr.as_column() {
                Some(column) => batch.column(column).clone(),
                None => {
                    let evaluated = evaluate_rows(feature.expr.as_ref(), &batch);
                    failed.extend(evaluated.errors);
                    self.null_unless_present(evaluated.values, &failed)?
                }
            };
            errors.extend(failed.into_iter().filter(|(row, _)| self.statuses[*row] == Status::Present).map(|(row, message)| (row, index, message)));
            features.push(values);
        }
        Ok((features, errors))
    }

    /// An expression such as coalesce(sum, 0) must not make a value out of an unknown or stale key, nor out of a failed sum.
    fn null_unless_present(&self, values: ArrayRef, failed: &[(usize, String)]) -> Result<ArrayRef> {
        let failed: std::collections::BTreeSet<usize> = failed.iter().map(|(row, _)| *row).collect();
        if failed.is_empty() && self.statuses.iter().all(|status| *status == Status::Present) {
            return Ok(values);
        }
        let hidden: arrow::array::BooleanArray =
            self.statuses.iter().enumerate().map(|(row, status)| Some(*status != Status::Present || failed.contains(&row))).collect();
        Ok(arrow::compute::nullif(&values, &hidden)?)
    }

    fn latest_columns(&self, codec: &KeyCodec, types: &[DataType]) -> Result<Vec<ArrayRef>> {
        let present = codec.decode(self.rows.iter().flatten().map(|row| row.as_ref()))?;
        let mut next = 0;
        let picks: arrow::array::UInt32Array = self
            .rows
            .iter()
            .map(|row| {
                row.as_ref().map(|_| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        if types.is_empty() {
            return Ok(Vec::new());
        }
        present.iter().map(|column| Ok(arrow::compute::take(column, &picks, None)?)).collect()
    }
}

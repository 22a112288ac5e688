//! Answers for many instants of the past at once, for training sets. In: keys, each with its own (q, s), over a store that holds the whole
//! input. Out: what [`FeatureStore::read`] gives for each.
//!
//! A key that keeps few arrivals apart is read as ever. Of the others a copy takes in one arrival after another, in the order of the
//! questions' s: a question then costs what it costs online, not a walk through all that ever arrived late.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef};
use arrow::row::{Row, Rows as KeyRows};
use freshet_core::{Epoch, ReadPoint};

use crate::bridge::answers::{Answers, FeatureRows, KeyAnswer};
use crate::bridge::features::{FeatureStore, KeyState, OVERLAY_ROWS, ReadError, StoreKind};
use crate::state::{LatestKey, RollingKey};

impl FeatureStore {
    /// As `read` of lookup keys, for questions that lie anywhere on the line of arrivals; q ≤ s for each.
    pub fn read_any_time(&self, entity: &[ArrayRef], keys: &KeyRows, points: impl Fn(usize) -> ReadPoint) -> Result<FeatureRows, ReadError> {
        let count = keys.num_rows();
        let mut found: Vec<Option<KeyAnswer>> = Vec::with_capacity(count);
        let mut waiting: BTreeMap<Row<'_>, Vec<usize>> = BTreeMap::new();
        for row in 0..count {
            let (key, point) = (keys.row(row), points(row));
            assert!(point.q <= point.s, "a row that arrived at its event time is not kept apart");
            if entity.iter().any(|column| column.is_null(row)) {
                found.push(None);
                continue;
            }
            let shard = self.shard(key.as_ref(), point)?;
            found.push(match shard.keys.get(key.as_ref()) {
                Some(state) if state.arrivals() > OVERLAY_ROWS => {
                    waiting.entry(key).or_default().push(row);
                    None
                }
                state => state.and_then(|state| self.read_key(state, point)),
            });
        }
        for (key, mut rows) in waiting {
            rows.sort_by_key(|row| points(*row).s);
            let shard = self.shard(key.as_ref(), points(rows[0]))?;
            let Some(state) = shard.keys.get(key.as_ref()) else { continue };
            self.replay(state, &rows, &points, &mut found);
        }
        let mut answers = Answers::new(self, count);
        found.into_iter().for_each(|answer| answers.push(answer));
        answers.finish(self, entity, |row| points(row).q).map_err(ReadError::Failed)
    }

    /// `rows` ask of one key, in the order of their s.
    fn replay(&self, state: &KeyState, rows: &[usize], points: impl Fn(usize) -> ReadPoint, found: &mut [Option<KeyAnswer>]) {
        let mut seen = state.without_arrivals();
        let mut taken = 0;
        for row in rows {
            let point = points(*row);
            let end = state.arrivals_below(Epoch(point.s.0.saturating_add(u64::from(self.spec().include_now()))));
            self.take_in(&mut seen, state, taken..end);
            taken = end;
            found[*row] = self.read_key(&seen, point);
        }
    }

    fn take_in(&self, seen: &mut KeyState, state: &KeyState, arrivals: std::ops::Range<usize>) {
        match (seen, state, &self.kind) {
            (KeyState::Rolling(seen), KeyState::Rolling(key), StoreKind::Rolling { layout, .. }) => {
                seen.overlay.extend_from_slice(&key.overlay[arrivals]);
                seen.fold(layout, Epoch::MAX, None);
            }
            (KeyState::Latest(seen), KeyState::Latest(key), StoreKind::Latest { .. }) => {
                seen.overlay.extend_from_slice(&key.overlay[arrivals]);
                seen.fold(Epoch::MAX, None, false);
            }
            _ => unreachable!("all keys of a store are of its kind"),
        }
    }
}

impl KeyState {
    /// How many arrivals are kept apart.
    fn arrivals(&self) -> usize {
        match self {
            KeyState::Rolling(key) => key.overlay.len(),
            KeyState::Latest(key) => key.overlay.len(),
        }
    }

    /// How many of them are below the cut; they lie in order.
    fn arrivals_below(&self, cut: Epoch) -> usize {
        match self {
            KeyState::Rolling(key) => key.overlay.partition_point(|event| event.arrival < cut.0),
            KeyState::Latest(key) => key.overlay.partition_point(|(row, _)| row.arrival < cut.0),
        }
    }

    /// What every reader may see.
    fn without_arrivals(&self) -> KeyState {
        match self {
            KeyState::Rolling(key) => KeyState::Rolling(RollingKey { tree: key.tree.clone(), overlay: Vec::new() }),
            KeyState::Latest(key) => KeyState::Latest(LatestKey { rows: key.rows.clone(), overlay: Vec::new() }),
        }
    }
}

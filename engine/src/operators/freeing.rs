//! Frees what no admissible row can change (T12). In: state by key, and where a column of the key has its horizon. Out: less state; nothing is
//! told, since nothing that anybody sees changes.

use std::sync::Arc;

use freshet_core::{Epoch, EventTime, Horizon, KeyCodec, event_times};

use crate::bridge::Watermarks;
use crate::state::ShardedMap;

/// Entries are looked through when there are an eighth more than were left the last time, and so many more; few where tests run, whose inputs
/// are small.
const KEYS_MIN: usize = if cfg!(debug_assertions) { 16 } else { 1_024 };
/// Keys that are decoded at once.
const CHUNK: usize = 8_192;

/// The horizon of one column of an operator's keys, or of its rows.
pub struct Freeing {
    watermarks: Arc<Watermarks>,
    column: usize,
    horizon: Horizon,
    kept: usize,
    /// Rows that have gone through since the entries were looked through.
    rows: usize,
}

impl Freeing {
    pub fn new(watermarks: Arc<Watermarks>, column: usize, horizon: Horizon) -> Freeing {
        Freeing { watermarks, column, horizon, kept: 0, rows: 0 }
    }

    /// The column that has the time.
    pub fn column(&self) -> usize {
        self.column
    }

    /// Whether looking through so many entries pays.
    pub fn is_due(&self, entries: usize) -> bool {
        entries >= KEYS_MIN + self.kept + self.kept / 8
    }

    /// So many were left.
    pub fn swept(&mut self, kept: usize) {
        self.kept = kept;
        self.rows = 0;
    }

    /// Keys whose time lies below it will not come again once `upto` is complete.
    pub fn bound(&self, upto: Epoch) -> Option<EventTime> {
        let bounds = self.horizon.of.iter().map(|(bound, source)| self.watermarks.at(&[*source], *bound, upto));
        bounds.min().flatten().map(|bound| bound.plus_ns(self.horizon.slack_ns))
    }

    /// After the step up to `upto`, in which so many rows came; amortised, keys looked at are an eighth of the rows, and a constant number for
    /// each new key.
    pub fn sweep<V>(&mut self, state: &mut ShardedMap<V>, codec: &KeyCodec, (upto, rows): (Epoch, usize)) {
        self.rows += rows;
        if !self.is_due(state.len()) && self.rows < KEYS_MIN + 8 * state.len() {
            return;
        }
        let Some(bound) = self.bound(upto) else { return };
        let mut over: Vec<Box<[u8]>> = Vec::new();
        let keys: Vec<&[u8]> = state.iter().map(|(key, _)| key).collect();
        for chunk in keys.chunks(CHUNK) {
            let columns = codec.decode(chunk.iter().copied()).expect("these are keys of this codec");
            let times = event_times(&columns[self.column]).expect("only timestamps have a horizon");
            let gone = chunk.iter().zip(times).filter(|(_, time)| time.is_some_and(|time| time < bound));
            over.extend(gone.map(|(key, _)| Box::from(*key)));
        }
        over.iter().for_each(|key| drop(state.remove(key)));
        self.swept(state.len());
    }
}

//! What the Flight server remembers between two calls. In: statements and answers. Out: the same by number, until they are closed, fetched,
//! or pushed out by newer ones: both stores are bounded, and a ticket whose answer is gone is simply computed again.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

use crate::limits::{ANSWERS_BYTES_MAX, ANSWERS_MAX, PREPARED_MAX};
use crate::query::{Prepared, QueryAnswer};

/// A prepared statement of a client.
#[derive(Debug, Clone)]
pub struct PreparedStatement {
    pub sql: String,
    pub shape: Prepared,
    /// Rows bound to its parameters.
    pub parameters: Option<RecordBatch>,
}

/// A map by number that drops its oldest entries when it has too many, or too many bytes.
#[derive(Debug)]
pub struct Bounded<T> {
    entries: BTreeMap<u64, (T, usize)>,
    last_id: u64,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

pub fn prepared_statements() -> Bounded<PreparedStatement> {
    Bounded::new(PREPARED_MAX, usize::MAX)
}

pub fn waiting_answers() -> Bounded<QueryAnswer> {
    Bounded::new(ANSWERS_MAX, ANSWERS_BYTES_MAX)
}

impl<T> Bounded<T> {
    fn new(entries_max: usize, bytes_max: usize) -> Bounded<T> {
        Bounded { entries: BTreeMap::new(), last_id: 0, bytes: 0, entries_max, bytes_max }
    }

    /// Keeps the value under a new number, never 0.
    pub fn insert(&mut self, value: T, bytes: usize) -> u64 {
        self.last_id += 1;
        self.bytes += bytes;
        self.entries.insert(self.last_id, (value, bytes));
        while self.entries.len() > self.entries_max || (self.bytes > self.bytes_max && !self.entries.is_empty()) {
            let (_, (_, freed)) = self.entries.pop_first().expect("an over-full store has entries");
            self.bytes -= freed;
        }
        self.last_id
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        self.entries.get_mut(&id).map(|entry| &mut entry.0)
    }

    pub fn take(&mut self, id: u64) -> Option<T> {
        let (value, bytes) = self.entries.remove(&id)?;
        self.bytes -= bytes;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_make_room_by_count_and_by_bytes() {
        let mut store = Bounded::new(2, 100);
        let ids: Vec<u64> = ["a", "b", "c"].map(|name| store.insert(name, 40)).to_vec();
        assert_eq!(store.take(ids[0]), None);
        assert_eq!(store.get_mut(ids[1]), Some(&mut "b"));
        let large = store.insert("large", 101);
        assert_eq!((store.take(ids[2]), store.take(large)), (None, None));
        assert_eq!(store.bytes, 0);
    }
}

//! Rows that wait, by when they are due. In: changes, added up per row. Out: all that is due at a bound. In checkpoints cut by the row's hash, as
//! rows are routed.

use std::collections::BTreeMap;

use freshet_core::{Result, hash_bytes, shard_of};

use crate::state::{Bytes, put_bytes, put_i64, put_u64};

/// Rows with their counts and positions, by when they are due.
#[derive(Debug, Default)]
pub struct Pending {
    due: BTreeMap<i64, BTreeMap<Box<[u8]>, (i64, u64)>>,
    changed: bool,
    rows: u64,
    bytes: u64,
}

/// A row that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub at: i64,
    pub row: Box<[u8]>,
    pub diff: i64,
    pub position: u64,
}

impl Pending {
    pub fn add(&mut self, at: i64, row: &[u8], diff: i64, position: u64) {
        self.changed = true;
        let rows = self.due.entry(at).or_default();
        match rows.get_mut(row) {
            None => {
                rows.insert(row.into(), (diff, if diff > 0 { position } else { 0 }));
                self.rows += 1;
                self.bytes += row.len() as u64;
            }
            Some((total, last)) => {
                *total += diff;
                *last = if diff > 0 { (*last).max(position) } else { *last };
                if *total == 0 {
                    rows.remove(row);
                    self.rows -= 1;
                    self.bytes -= row.len() as u64;
                    if rows.is_empty() {
                        self.due.remove(&at);
                    }
                }
            }
        }
    }

    /// Takes what is due at or before `at`, in the order of time, then row.
    pub fn take(&mut self, at: i64) -> Vec<Due> {
        let mut taken = Vec::new();
        while let Some(first) = self.due.first_entry().filter(|first| *first.key() <= at) {
            let (at, rows) = first.remove_entry();
            taken.extend(rows.into_iter().map(|(row, (diff, position))| Due { at, row, diff, position }));
        }
        self.changed |= !taken.is_empty();
        self.rows -= taken.len() as u64;
        self.bytes -= taken.iter().map(|due| due.row.len() as u64).sum::<u64>();
        taken
    }

    /// All shards, if anything changed since the last call.
    pub fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        if !std::mem::take(&mut self.changed) {
            return Vec::new();
        }
        let mut shards: BTreeMap<usize, Vec<u8>> = (0..freshet_core::SHARDS).map(|shard| (shard, Vec::new())).collect();
        for (at, rows) in &self.due {
            for (row, (diff, position)) in rows {
                let out = shards.get_mut(&shard_of(hash_bytes(row))).expect("all shards are there");
                put_i64(out, *at);
                put_bytes(out, row);
                put_i64(out, *diff);
                put_u64(out, *position);
            }
        }
        shards.into_iter().collect()
    }

    /// Errors: Data.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let mut bytes = Bytes(bytes);
        while !bytes.is_empty() {
            let (at, row) = (bytes.i64()?, bytes.bytes()?);
            let (diff, position) = (bytes.i64()?, bytes.u64()?);
            self.add(at, row, diff, position);
        }
        self.changed = false;
        Ok(())
    }

    /// Distinct rows, and about how many bytes.
    pub fn size(&self) -> (u64, u64) {
        (self.rows, self.bytes + self.rows * 96)
    }
}

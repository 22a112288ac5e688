//! Where a process went on from and which records are being computed, in a file that outlives it. In: the events of the checkpoint, and the
//! records of each step before the workers get it. Out: for the supervisor, after a crash, both; for the engine, how small its next steps
//! should be.
//!
//! One write of about a hundred bytes a step, without fsync: a process that dies does not take the page cache with it. Measured in
//! `a_note_costs_microseconds`.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use freshet_core::Epoch;
use freshet_engine::{StepJournal, StepRecords};

use crate::serve::fault::Fault;
use crate::serve::order::Offsets;

/// Rows of a usual step: so close to a suspect, steps end where it begins.
const STEP_ROWS: u64 = 8192;
/// Begins the last line, before the events of the checkpoint: what stands behind it is of a longer note before.
const END: &str = "end\t";

/// Written by the ingest thread of a child.
#[derive(Debug)]
pub struct Notes {
    file: File,
    names: Vec<String>,
    suspects: Vec<Offsets>,
    step_rows: Option<usize>,
    fault: Option<Fault>,
    state: Mutex<State>,
    polls: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Records of the open steps, oldest first.
    open: VecDeque<Vec<Offsets>>,
    /// Where each partition stands: the offset after the last one handed out.
    next: BTreeMap<(String, u32), u64>,
    resumed: Option<u64>,
    written: String,
}

impl Notes {
    /// `names`: the sources in the order of the plan. Errors: the file cannot be made.
    pub fn open(path: &Path, names: Vec<String>, suspects: Vec<Offsets>, step_rows: Option<usize>, fault: Option<Fault>) -> Result<Notes> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        Ok(Notes { file, names, suspects, step_rows, fault, state: Mutex::default(), polls: AtomicU64::new(0) })
    }

    /// A source is asked for rows: the ingest is alive.
    pub fn polled(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
    }

    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// The partition goes on at this offset.
    pub fn stands_at(&self, source: &str, partition: u32, offset: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).next.insert((source.to_string(), partition), offset);
    }

    /// Where the partition stands: everything before has been handed out.
    pub fn stand(&self, source: &str, partition: u32) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.next.get(&(source.to_string(), partition)).copied().unwrap_or(0)
    }

    /// How many records of this partition may come next: none of a suspect together with what is before it, few of a suspect. None: as many
    /// as usual.
    pub fn records_max(&self, source: &str, partition: u32, next: u64) -> Option<usize> {
        let step_rows = self.step_rows?;
        let near = self.suspects.iter().filter(|suspect| suspect.source == source && suspect.partition == partition && next <= suspect.to);
        near.filter_map(|suspect| match suspect.from.checked_sub(next) {
            None | Some(0) => Some(step_rows),
            Some(before) => (before < STEP_ROWS).then_some(before as usize),
        })
        .min()
    }

    fn write(&self, state: &mut State) {
        let mut merged: BTreeMap<(&str, u32), (u64, u64)> = BTreeMap::new();
        for offsets in state.open.iter().flatten() {
            let range = merged.entry((&offsets.source, offsets.partition)).or_insert((offsets.from, offsets.to));
            *range = (range.0.min(offsets.from), range.1.max(offsets.to));
        }
        let lines = merged.iter().map(|((source, partition), (from, to))| format!("{from}\t{to}\t{partition}\t{source}\n"));
        let Some(resumed) = state.resumed else { return };
        let text = lines.collect::<String>() + END + &format!("{resumed}\n");
        if text != state.written {
            // A note that cannot be written is missing when it is needed; the pipeline itself needs none.
            if let Err(error) = self.file.write_all_at(text.as_bytes(), 0) {
                tracing::warn!(%error, "the note of a step cannot be written");
            }
            state.written = text;
        }
    }
}

impl StepJournal for Notes {
    fn resumed(&self, events: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.resumed = Some(events);
        self.write(&mut state);
    }

    fn opening(&self, _end: Epoch, records: &[StepRecords], open_steps: usize) {
        let named = |records: &StepRecords| Offsets {
            source: self.names.get(records.source).cloned().unwrap_or_default(),
            partition: records.partition,
            from: records.from,
            to: records.to,
        };
        let step: Vec<Offsets> = records.iter().map(named).collect();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for offsets in &step {
            state.next.insert((offsets.source.clone(), offsets.partition), offsets.to + 1);
        }
        state.open.push_back(step);
        while state.open.len() > open_steps.max(1) {
            state.open.pop_front();
        }
        self.write(&mut state);
        if let Some(fault) = &self.fault
            && let Some(step) = state.open.back()
        {
            fault.strike(step);
        }
    }

    fn rows_max(&self) -> Option<usize> {
        self.step_rows?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = |suspect: &Offsets| state.next.get(&(suspect.source.clone(), suspect.partition)).copied();
        self.suspects.iter().filter_map(|suspect| self.records_max(&suspect.source, suspect.partition, next(suspect).unwrap_or(0))).min()
    }
}

/// What a process left behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Left {
    /// Events of the checkpoint it went on from; None if it did not come so far.
    pub resumed_events: Option<u64>,
    /// The records of the steps that were open when it ended.
    pub batch: Vec<Offsets>,
}

/// Nothing is left if the file is not whole.
pub fn read_notes(path: &Path) -> Left {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut batch = Vec::new();
    for line in text.lines() {
        if let Some(events) = line.strip_prefix(END) {
            return events.parse().map_or_else(|_| Left::default(), |events| Left { resumed_events: Some(events), batch });
        }
        let mut parts = line.splitn(4, '\t');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (Some(from), Some(to), Some(partition)) = (number(), number(), number()) else { break };
        let Some(source) = parts.next() else { break };
        batch.push(Offsets { source: source.to_string(), partition: partition as u32, from, to });
    }
    Left::default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn notes(path: &Path, suspects: &[&str], step_rows: Option<usize>) -> Notes {
        let suspects = suspects.iter().map(|text| text.parse().unwrap()).collect();
        let notes = Notes::open(path, vec!["rides".into(), "trips\tx".into()], suspects, step_rows, None).unwrap();
        notes.resumed(7);
        notes
    }

    fn records(source: usize, partition: u32, from: u64, to: u64) -> StepRecords {
        StepRecords { source, partition, from, to }
    }

    fn texts(path: &Path) -> Vec<String> {
        read_notes(path).batch.iter().map(Offsets::argument).collect()
    }

    #[test]
    fn the_open_steps_are_read_back_and_closed_ones_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        let notes = notes(&path, &[], None);
        assert_eq!(read_notes(&path), Left { resumed_events: Some(7), batch: Vec::new() });
        notes.opening(Epoch(1), &[records(0, 0, 10, 19), records(1, 3, 5, 5)], 1);
        notes.opening(Epoch(2), &[records(0, 0, 20, 24)], 2);
        assert_eq!(texts(&path), ["rides:0:10-24", "trips\tx:3:5-5"]);
        notes.opening(Epoch(3), &[records(0, 0, 25, 29)], 1);
        assert_eq!(texts(&path), ["rides:0:25-29"]);
        notes.opening(Epoch(4), &[], 1);
        assert_eq!(read_notes(&path), Left { resumed_events: Some(7), batch: Vec::new() });
        for half in ["1\t2\t0\tri", "1\t2\t0\trides\nend\t"] {
            std::fs::write(&path, half).unwrap();
            assert_eq!(read_notes(&path), Left::default(), "half a note is none");
        }
    }

    #[test]
    fn steps_end_before_a_suspect_and_are_small_inside_it() {
        let folder = tempfile::tempdir().unwrap();
        let notes = notes(&folder.path().join("notes"), &["rides:0:10000-10100"], Some(64));
        assert_eq!(notes.rows_max(), None, "far away");
        notes.opening(Epoch(1), &[records(0, 0, 0, 4999)], 1);
        assert_eq!(notes.rows_max(), Some(5000));
        notes.opening(Epoch(2), &[records(0, 0, 5000, 9999)], 1);
        assert_eq!(notes.rows_max(), Some(64));
        assert_eq!(notes.records_max("rides", 0, 10_064), Some(64));
        assert_eq!(notes.records_max("rides", 1, 10_064), None);
        notes.opening(Epoch(3), &[records(0, 0, 10_000, 10_100)], 1);
        assert_eq!(notes.rows_max(), None, "passed");
    }

    #[test]
    fn a_note_costs_microseconds() {
        let folder = tempfile::tempdir().unwrap();
        let notes = notes(&folder.path().join("notes"), &[], None);
        // The best of many rounds: others use this machine too.
        let rounds = (0..50_u64).map(|round| {
            let started = Instant::now();
            (round * 40..round * 40 + 40).for_each(|step| notes.opening(Epoch(step), &[records(0, 0, step * 10, step * 10 + 9)], 4));
            started.elapsed() / 40
        });
        let note = rounds.min().unwrap();
        // A step takes 5 ms and more; 50 µs are 1 % of it.
        assert!(note < Duration::from_micros(50), "{note:?}");
    }
}

//! EMIT ON WINDOW CLOSE and EMIT EVERY by their definitions. In: the lives of the input, and the watermark after each epoch (T12). Out: lives.

use std::collections::{BTreeMap, BTreeSet};

use freshet_core::{Epoch, NodeId, SourceDef};

use crate::interpreter::InputRow;
use crate::interpreter::evaluate::event_time_of;
use crate::interpreter::history::{Interpreter, Row};
use crate::lives::{Change, Life, lives};

/// Where the watermark of a source rises, ascending, in ns; i128::MAX is the end of time.
pub(super) type Raises = Vec<(Epoch, i128)>;

/// From all records of a source, those that are no input included: they too show that a partition has not ended.
pub(super) fn raises(def: &SourceDef, rows: &[InputRow]) -> Raises {
    let Some(column) = def.event_time else { return Vec::new() };
    let partition = |row: &InputRow| row.position >> 40;
    let mut last: BTreeMap<u64, Epoch> = BTreeMap::new();
    for row in rows {
        let epoch = last.entry(partition(row)).or_default();
        *epoch = (*epoch).max(row.epoch);
    }
    let mut epochs: BTreeSet<Epoch> = rows.iter().map(|row| row.epoch).collect();
    epochs.insert(Epoch::ZERO);
    let mut raises: Raises = Vec::new();
    for t in epochs {
        let running: Vec<u64> = last.iter().filter(|(_, last)| **last > t).map(|(partition, _)| *partition).collect();
        let greatest = |of: &u64| {
            let seen = rows.iter().filter(|row| !row.dead && row.epoch <= t && partition(row) == *of);
            seen.filter_map(|row| event_time_of(&row.values[column], def.schema.field(column).data_type())).max()
        };
        let reached = match running.is_empty() {
            true => Some(i128::MAX),
            false => {
                running.iter().map(greatest).min().flatten().map(|time| i128::from(time.0) + (1 - i128::from(def.watermark_delay_ms)) * 1_000_000)
            }
        };
        if let Some(reached) = reached.filter(|reached| raises.last().is_none_or(|last| last.1 < *reached)) {
            raises.push((t, reached));
        }
    }
    raises
}

impl Interpreter {
    /// The least watermark of the sources below a node once `t` is complete.
    fn watermark(&self, node: NodeId, t: Epoch) -> Option<i128> {
        let of = |source: usize| self.raises[source].iter().rev().find(|(epoch, _)| *epoch <= t).map(|(_, reached)| *reached);
        self.plan.timed_sources(node).into_iter().map(of).min().flatten()
    }

    fn end_of(&self, node: NodeId, end: usize, row: &Row) -> Option<i128> {
        event_time_of(&row[end], self.plan.node(node).schema.field(end).data_type()).map(|time| i128::from(time.0))
    }

    /// The first epoch after which a window with this end is closed.
    fn closes(&self, node: NodeId, end: i128) -> Option<Epoch> {
        let sources = self.plan.timed_sources(node);
        let epochs: BTreeSet<Epoch> = sources.iter().flat_map(|source| &self.raises[*source]).map(|(epoch, _)| *epoch).collect();
        epochs.into_iter().find(|epoch| self.watermark(node, *epoch).is_some_and(|reached| reached >= end))
    }

    /// What enters or leaves while its window is open.
    pub(super) fn lives_of_gate(&self, node: NodeId, end: usize) -> Vec<Life<Row>> {
        let mut changes = Vec::new();
        for life in self.lives(self.plan.node(node).inputs[0]).iter() {
            let closed = self.end_of(node, end, &life.row).and_then(|end| self.closes(node, end));
            let is_open = |epoch: Epoch| closed.is_none_or(|closed| epoch <= closed);
            if is_open(life.entered) {
                changes.push(Change { row: life.row.clone(), epoch: life.entered, diff: 1, position: life.position });
                let left = life.left.filter(|left| is_open(*left));
                changes.extend(left.map(|left| Change { row: life.row.clone(), epoch: left, diff: -1, position: life.position }));
            }
        }
        lives(changes).lives
    }

    /// The rows that were there when their window closed.
    pub(super) fn lives_of_emit_on_close(&self, node: NodeId, end: usize) -> Vec<Life<Row>> {
        let mut found = Vec::new();
        for life in self.lives(self.plan.node(node).inputs[0]).iter() {
            let closed = self.end_of(node, end, &life.row).and_then(|end| self.closes(node, end));
            if let Some(closed) = closed.filter(|closed| life.is_at(*closed) && *closed <= self.end()) {
                found.push(Change { row: life.row.clone(), epoch: closed, diff: 1, position: life.position });
            }
        }
        lives(found).lives
    }

    /// Every change at the next multiple, the end of time but one apart.
    pub(super) fn lives_of_emit_every(&self, node: NodeId, every_ms: u64) -> Vec<Life<Row>> {
        let next = |epoch: Epoch| Epoch(epoch.0.div_ceil(every_ms) * every_ms);
        let mut changes = Vec::new();
        for life in self.lives(self.plan.node(node).inputs[0]).iter() {
            let mut change = |epoch: Epoch, diff: i64| {
                let epoch = next(epoch);
                let came = (epoch <= self.end()).then(|| Change { row: life.row.clone(), epoch, diff, position: life.position });
                changes.extend(came);
            };
            change(life.entered, 1);
            life.left.into_iter().for_each(|left| change(left, -1));
        }
        lives(changes).lives
    }

    /// The instants at which EMIT EVERY may change what it shows.
    pub(super) fn multiples(&self, node: NodeId, every_ms: u64) -> BTreeSet<Epoch> {
        self.relevant_epochs(self.plan.node(node).inputs[0]).into_iter().map(|epoch| Epoch(epoch.0.div_ceil(every_ms) * every_ms)).collect()
    }
}

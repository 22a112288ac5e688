//! When each row of a node entered and left (C1b: a derived row enters at the epoch of the change that put it in). In: contents. Out: lives.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use arrow::array::RecordBatch;
use freshet_core::{ControlRecord, Epoch, Format, NodeId, Op, Plan, Value};

use crate::interpreter::InputRow;
use crate::interpreter::content::{Bag, Mapped};
use crate::interpreter::emit::{Raises, raises};
use crate::interpreter::feature::KeyIndex;
use crate::lives::{Change, Life, lives};

/// A row of cells.
pub type Row = Vec<Value>;

/// A plan and all of its input. Results are remembered, which changes none of them.
pub struct Interpreter {
    pub(super) plan: Plan,
    /// Per source, in order of entry.
    pub(super) sources: Vec<Rc<Vec<Life<Row>>>>,
    /// Per source with FORMAT UPSERT: its records, which are no changes yet. Empty for others.
    pub(super) upserts: Vec<Vec<InputRow>>,
    unmatched: Vec<Vec<(Row, Epoch)>>,
    /// Per source: where its watermark rises.
    pub(super) raises: Vec<Raises>,
    /// Of the body of a recursion, which is a plan of its own.
    pub(super) arguments: Vec<Bag>,
    /// Per source: every epoch at which it delivers input.
    pub(super) input_epochs: Vec<Vec<Epoch>>,
    end: Epoch,
    /// In the order of their epochs.
    pub(super) records: Vec<ControlRecord>,
    lives: RefCell<BTreeMap<NodeId, Rc<Vec<Life<Row>>>>>,
    pub(super) mapped: RefCell<BTreeMap<(NodeId, Row), Mapped>>,
    pub(super) keys: RefCell<BTreeMap<NodeId, Rc<KeyIndex>>>,
}

impl Interpreter {
    /// `inputs` has one list per source of the plan.
    pub fn new(plan: &Plan, inputs: Vec<Vec<InputRow>>) -> Interpreter {
        assert_eq!(plan.sources.len(), inputs.len());
        let mut interpreter = Interpreter {
            plan: plan.clone(),
            sources: Vec::new(),
            upserts: Vec::new(),
            unmatched: Vec::new(),
            raises: Vec::new(),
            arguments: Vec::new(),
            input_epochs: Vec::new(),
            end: Epoch::ZERO,
            records: Vec::new(),
            lives: RefCell::default(),
            mapped: RefCell::default(),
            keys: RefCell::default(),
        };
        for (def, rows) in plan.sources.iter().zip(inputs) {
            interpreter.raises.push(raises(def, &rows));
            let rows: Vec<InputRow> = rows.into_iter().filter(|row| !row.dead).collect();
            let mut epochs: Vec<Epoch> = rows.iter().map(|row| row.epoch).collect();
            epochs.sort_unstable();
            epochs.dedup();
            interpreter.end = interpreter.end.max(epochs.last().copied().unwrap_or_default());
            let (upserts, rows) = if def.format == Format::Upsert { (rows, Vec::new()) } else { (Vec::new(), rows) };
            interpreter.upserts.push(upserts);
            let changes = rows.into_iter().map(|row| Change { row: row.values, epoch: row.epoch, diff: row.diff, position: row.position });
            let found = lives(changes);
            interpreter.sources.push(Rc::new(found.lives));
            interpreter.unmatched.push(found.unmatched);
            interpreter.input_epochs.push(epochs);
        }
        interpreter
    }

    /// Lets time go on without input, to this epoch.
    pub fn with_end(mut self, end: Epoch) -> Interpreter {
        self.end = self.end.max(end);
        self
    }

    /// The last epoch that histories reach: the greatest epoch of the input, or what `with_end` said.
    pub fn end(&self) -> Epoch {
        self.end
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// T9: retractions of a source that found no live row, and their epochs.
    pub fn unmatched(&self, source: usize) -> &[(Row, Epoch)] {
        &self.unmatched[source]
    }

    /// The rows of a node at epoch t, with their counts.
    pub fn content(&self, node: NodeId, t: Epoch) -> BTreeMap<Row, i64> {
        self.bag(node, t).into_iter().map(|(row, positions)| (row, positions.len() as i64)).collect()
    }

    /// The rows of a node at epoch t as a batch, in row order, duplicates repeated.
    pub fn batch(&self, node: NodeId, t: Epoch) -> freshet_core::Result<RecordBatch> {
        let rows: Vec<Row> = self.content(node, t).into_iter().flat_map(|(row, count)| vec![row; count as usize]).collect();
        Value::batch_of(&self.plan.node(node).schema, &rows)
    }

    /// The changes of a node up to `end`, ordered by epoch, then row; a row changes at most once per epoch.
    pub fn history(&self, node: NodeId) -> Vec<(Row, Epoch, i64)> {
        let mut changes: BTreeMap<(Epoch, Row), i64> = BTreeMap::new();
        for life in self.lives(node).iter() {
            *changes.entry((life.entered, life.row.clone())).or_default() += 1;
            if let Some(left) = life.left {
                *changes.entry((left, life.row.clone())).or_default() -= 1;
            }
        }
        changes.into_iter().filter(|(_, diff)| *diff != 0).map(|((epoch, row), diff)| (row, epoch, diff)).collect()
    }

    /// When each row of a node entered and left, up to `end`.
    pub fn lives(&self, node: NodeId) -> Rc<Vec<Life<Row>>> {
        if let Some(known) = self.lives.borrow().get(&node) {
            return known.clone();
        }
        let found = match &self.plan.node(node).op {
            Op::Source { source } => self.sources[*source].clone(),
            Op::Upsert { key } => Rc::new(self.lives_of_upsert(node, key)),
            Op::Project { .. } | Op::Filter { .. } | Op::Union => Rc::new(self.lives_row_by_row(node)),
            Op::Windows { .. } => Rc::new(self.lives_of_windows(node)),
            Op::Arrival => Rc::new(self.lives_of_arrival(node)),
            Op::Gate { end, .. } => Rc::new(self.lives_of_gate(node, *end)),
            Op::EmitOnClose { end } => Rc::new(self.lives_of_emit_on_close(node, *end)),
            Op::EmitEvery { every_ms } => Rc::new(self.lives_of_emit_every(node, *every_ms)),
            Op::Lookup { parts, at } => Rc::new(self.lives_of_lookup(node, parts, *at)),
            Op::LookupJoin { left_keys, right_keys, at, outer } => Rc::new(self.lives_of_lookup_join(node, (left_keys, right_keys), *at, *outer)),
            Op::Predict { calls } => Rc::new(self.lives_of_predict(node, calls)),
            Op::Drift { spec } => Rc::new(self.lives_of_drift(node, spec)),
            _ => Rc::new(self.lives_by_content(node)),
        };
        self.lives.borrow_mut().insert(node, found.clone());
        found
    }

    /// Operators that look at one row at a time: what enters, enters; what leaves, leaves. Changes of one epoch are consolidated.
    fn lives_row_by_row(&self, node: NodeId) -> Vec<Life<Row>> {
        let mut changes = Vec::new();
        for input in &self.plan.node(node).inputs {
            for life in self.lives(*input).iter() {
                let Some(row) = self.map_row(node, &life.row) else { continue };
                changes.push(Change { row: row.clone(), epoch: life.entered, diff: 1, position: life.position });
                changes.extend(life.left.map(|left| Change { row, epoch: left, diff: -1, position: life.position }));
            }
        }
        lives(changes).lives
    }

    /// Everything else: the difference of the contents at successive epochs.
    fn lives_by_content(&self, node: NodeId) -> Vec<Life<Row>> {
        let mut changes = Vec::new();
        let mut before = Bag::new();
        for epoch in self.relevant_epochs(node).into_iter().filter(|epoch| *epoch <= self.end) {
            let now = self.bag(node, epoch);
            for (row, positions) in &now {
                let known = before.get(row).map_or(0, Vec::len);
                // The newest rows are the ones with the greatest positions.
                for position in positions.iter().skip(known) {
                    changes.push(Change { row: row.clone(), epoch, diff: 1, position: *position });
                }
            }
            for (row, positions) in &before {
                let gone = positions.len().saturating_sub(now.get(row).map_or(0, Vec::len));
                changes.extend((gone > 0).then(|| Change { row: row.clone(), epoch, diff: -(gone as i64), position: 0 }));
            }
            before = now;
        }
        lives(changes).lives
    }
}

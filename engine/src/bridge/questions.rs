//! How many rows a lookup at a column has answered, and for how many of them that was not their epoch (T5). Written by all workers, read when
//! the input has ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use freshet_core::{NodeId, Op, Plan};

/// What one lookup at a column was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionTimes {
    pub lookup: NodeId,
    /// The left column that says when.
    pub column: String,
    /// Left rows that are there now.
    pub rows: u64,
    /// Those whose epoch is another instant, or that have no time.
    pub apart: u64,
}

/// The counters of one lookup; rows that are taken back count below zero, and on whichever worker.
#[derive(Debug, Default)]
pub struct QuestionCount {
    rows: AtomicI64,
    apart: AtomicI64,
}

impl QuestionCount {
    pub fn add(&self, rows: i64, apart: i64) {
        self.rows.fetch_add(rows, Relaxed);
        self.apart.fetch_add(apart, Relaxed);
    }
}

/// One counter per lookup at a column; none for lookups of streams, which always ask at the row's epoch.
#[derive(Debug, Default)]
pub struct Questions(BTreeMap<NodeId, (String, Arc<QuestionCount>)>);

impl Questions {
    pub fn new(plan: &Plan) -> Questions {
        let at_column = |(index, node): (usize, &freshet_core::Node)| match node.op {
            Op::Lookup { at, .. } => {
                let column = plan.node(node.inputs[0]).schema.field(at.column()?).name().clone();
                Some((NodeId(index as u32), (column, Arc::default())))
            }
            _ => None,
        };
        Questions(plan.nodes.iter().enumerate().filter_map(at_column).collect())
    }

    pub fn of(&self, lookup: NodeId) -> Option<Arc<QuestionCount>> {
        self.0.get(&lookup).map(|(_, count)| count.clone())
    }

    /// In the order of nodes.
    pub fn times(&self) -> Vec<QuestionTimes> {
        let read = |count: &AtomicI64| u64::try_from(count.load(Relaxed)).unwrap_or(0);
        let times = self.0.iter().map(|(lookup, (column, count))| QuestionTimes {
            lookup: *lookup,
            column: column.clone(),
            rows: read(&count.rows),
            apart: read(&count.apart),
        });
        times.collect()
    }
}

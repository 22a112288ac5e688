//! The rows of a FORMAT UPSERT source: its records become changes in the order of their positions, epoch by epoch, and changes of one epoch
//! are consolidated (T8, T9). In: records. Out: lives.

use std::collections::BTreeMap;

use freshet_core::{Epoch, NodeId, Op, Value};

use crate::interpreter::InputRow;
use crate::interpreter::content::{NodeError, pick};
use crate::interpreter::history::{Interpreter, Row};
use crate::lives::{Change, Life, lives};

impl Interpreter {
    /// Each record first takes its key's former row back, if there is one.
    pub(super) fn lives_of_upsert(&self, node: NodeId, key: &[usize]) -> Vec<Life<Row>> {
        let mut former: BTreeMap<Row, Row> = BTreeMap::new();
        let mut changes = Vec::new();
        for record in self.records_in_order(node) {
            let of_key = pick(&record.values, key);
            if of_key.iter().any(Value::is_null) {
                continue;
            }
            let change = |row: Row, diff| Change { row, epoch: record.epoch, diff, position: record.position };
            changes.extend(former.remove(&of_key).map(|row| change(row, -1)));
            if record.diff > 0 {
                changes.push(change(record.values.clone(), 1));
                former.insert(of_key, record.values.clone());
            }
        }
        lives(changes).lives
    }

    /// Records that cannot be replaced.
    pub(super) fn upsert_errors(&self, node: NodeId, key: &[usize], t: Epoch) -> Vec<NodeError> {
        let schema = &self.plan.node(node).schema;
        let until = self.records_in_order(node).into_iter().filter(|record| record.epoch <= t);
        let broken = until.filter_map(|record| {
            let column = key.iter().find(|column| record.values[**column].is_null())?;
            let message = "the key is NULL, so that no later record could replace this one".to_string();
            Some(NodeError { field: schema.field(*column).name().clone(), message, row: record.values.clone() })
        });
        broken.collect()
    }

    fn records_in_order(&self, node: NodeId) -> Vec<&InputRow> {
        let input = self.plan.node(node).inputs[0];
        let Op::Source { source } = self.plan.node(input).op else { unreachable!("an Upsert reads a source") };
        let mut records: Vec<&InputRow> = self.upserts[source].iter().collect();
        records.sort_by_key(|record| (record.epoch, record.position));
        records
    }
}

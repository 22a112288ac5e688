//! The fixed point of a recursion, round by round. In: the bags of its inputs. Out: the bag after the last round, and the errors there.

use std::collections::BTreeMap;

use freshet_core::{Epoch, NodeId, Plan, RECURSION_ROUNDS_MAX, RecursionBody};

use crate::interpreter::content::{Bag, NodeError, collect};
use crate::interpreter::history::Interpreter;

impl Interpreter {
    /// Every row at position 0: which round it came from tells nothing.
    pub(super) fn fixed_point(&self, node: NodeId, body: &RecursionBody, distinct: bool, t: Epoch) -> (Bag, BTreeMap<NodeError, usize>) {
        let inputs: Vec<Bag> = self.plan.node(node).inputs.iter().map(|input| self.bag(*input, t)).collect();
        let result = NodeId(body.nodes.len() as u32 - 1);
        let mut inner = Interpreter::new(&Plan { nodes: body.nodes.clone(), ..Plan::default() }, Vec::new());
        inner.arguments = inputs.clone();
        inner.arguments[0] = Bag::new();
        let (mut errors, mut found) = (BTreeMap::new(), Bag::new());
        for round in 0..=RECURSION_ROUNDS_MAX {
            let step = inner.bag(result, t);
            let rows = inputs[0].iter().chain(&step).flat_map(|(row, positions)| positions.iter().map(|_| (row.clone(), 0)));
            let mut next = collect(rows);
            if distinct {
                next.values_mut().for_each(|positions| positions.truncate(1));
            }
            if next == found {
                break;
            }
            if round == RECURSION_ROUNDS_MAX {
                let rows = |bag: &Bag| bag.values().map(Vec::len).sum::<usize>();
                let message = format!("the recursion goes on after {RECURSION_ROUNDS_MAX} rounds; its rows are those found so far");
                errors.insert(NodeError { field: String::new(), message, row: Vec::new() }, rows(&next) - rows(&found));
            }
            found = next;
            if round < RECURSION_ROUNDS_MAX {
                inner.arguments[0] = found.clone();
            }
        }
        for index in 0..body.nodes.len() {
            for (error, times) in inner.errors(NodeId(index as u32), t) {
                *errors.entry(error).or_insert(0) += times as usize;
            }
        }
        (found, errors)
    }
}

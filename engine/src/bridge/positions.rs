//! Which epoch a position of a source belongs to (C2): what a client that has written needs to wait for. In: how far each step reached.
//! Out: an epoch at which everything before a position is input; a later one than need be where the exact one is no longer kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use freshet_core::Epoch;

/// Steps remembered per partition: twenty seconds of steps of 5 ms. Older positions get the oldest epoch kept.
const KEPT: usize = 4096;

/// Offsets and the epochs at which everything before them was input.
type Steps = VecDeque<(u64, Epoch)>;

/// Of all sources, by index and partition.
#[derive(Default)]
pub struct Positions(Mutex<BTreeMap<(usize, u32), Steps>>);

impl Positions {
    /// Everything of the partition before `offset` is input at `epoch`. Both only grow.
    pub fn note(&self, source: usize, partition: u32, offset: u64, epoch: Epoch) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = all.entry((source, partition)).or_default();
        if steps.back().is_some_and(|(last, _)| *last >= offset) {
            return;
        }
        if steps.len() == KEPT {
            steps.pop_front();
        }
        steps.push_back((offset, epoch));
    }

    /// None: not everything before `offset` has been handed out.
    pub fn reached(&self, source: usize, partition: u32, offset: u64) -> Option<Epoch> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = all.get(&(source, partition))?;
        steps.get(steps.partition_point(|(reached, _)| *reached < offset)).map(|(_, epoch)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_a_position_belongs_to_the_first_step_that_reached_it() {
        let positions = Positions::default();
        assert_eq!(positions.reached(0, 0, 1), None);
        positions.note(0, 0, 10, Epoch(100));
        positions.note(0, 0, 10, Epoch(105));
        positions.note(0, 0, 20, Epoch(110));
        let found: Vec<Option<Epoch>> = [0, 10, 11, 20, 21].map(|offset| positions.reached(0, 0, offset)).to_vec();
        assert_eq!(found, [Some(Epoch(100)), Some(Epoch(100)), Some(Epoch(110)), Some(Epoch(110)), None]);
        assert_eq!((positions.reached(0, 1, 1), positions.reached(1, 0, 1)), (None, None));
        (3..3 + KEPT as u64).for_each(|step| positions.note(0, 0, step * 10, Epoch(step * 100)));
        assert_eq!(positions.reached(0, 0, 1), Some(Epoch(300)), "what is forgotten gets a later epoch, never an earlier one");
    }
}

//! State that outlives a generation: written and read shard by shard, so that another number of workers can take it over.

use std::cell::RefCell;
use std::rc::Rc;

use freshet_core::{Batch, Epoch, Result};

use crate::operators::harness::{Output, StepOperator};
use crate::operators::offloaded::{OffloadedOperator, WorkOf};

/// What a stateful operator owes beside its `step`. Called between steps, when all rows up to the checkpoint's epoch are closed.
pub trait Stateful {
    /// Shards that changed since the last call, as bytes.
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)>;

    /// Takes over a shard as of `epoch`. Before the first step. Errors: Data.
    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()>;

    /// All shards are restored; the next step follows `epoch`.
    fn resume(&mut self, _epoch: Epoch) -> Result<()> {
        Ok(())
    }

    /// Rows and about how many bytes it holds.
    fn size(&self) -> (u64, u64);
}

/// An operator that both the dataflow and the checkpoint reach.
pub struct Shared<S>(Rc<RefCell<S>>);

impl<S: StepOperator> StepOperator for Shared<S> {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        self.0.borrow_mut().step(inputs, upto, out);
    }
}

impl<S: OffloadedOperator> OffloadedOperator for Shared<S> {
    type Request = S::Request;
    type Answer = S::Answer;

    fn begin(&mut self, rows: Vec<Batch>) -> Option<S::Request> {
        self.0.borrow_mut().begin(rows)
    }

    fn work(&self) -> WorkOf<S> {
        self.0.borrow().work()
    }

    fn bytes(request: &S::Request) -> usize {
        S::bytes(request)
    }

    fn finish(&mut self, answer: S::Answer, out: &mut Output) {
        self.0.borrow_mut().finish(answer, out);
    }
}

/// The operator for the dataflow, and the handle for checkpoints.
pub fn shared<S: Stateful + 'static>(operator: S) -> (Shared<S>, Rc<RefCell<dyn Stateful>>) {
    let cell = Rc::new(RefCell::new(operator));
    (Shared(cell.clone()), cell)
}

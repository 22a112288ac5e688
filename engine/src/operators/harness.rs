//! The contract of every stateful operator. In: rows of open steps, kept apart. Out: changes and errors with their own epochs,
//! emitted when a step closes. An operator is handed closed steps in order, so its state never mixes two steps.

use freshet_core::{Batch, Epoch};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};

use crate::edge::{Edge, EdgeBuilder, ShardPact, shard_pact};

pub type Rows<'scope> = Stream<'scope, u64, Edge>;

/// What a rendered node yields: rows and errors.
#[derive(Clone)]
pub struct Bundle<'scope> {
    pub rows: Rows<'scope>,
    pub errors: Rows<'scope>,
}

/// What an operator emits at the close of a step.
#[derive(Default)]
pub struct Output {
    pub rows: Vec<Batch>,
    pub errors: Vec<Batch>,
}

/// An operator that acts when a step closes.
pub trait StepOperator {
    /// `inputs[port]` holds the rows of all epochs since the last call up to and including `upto`, in no order.
    /// Emits changes whose epochs lie in the same range.
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output);
}

/// How rows reach the worker that handles them.
pub enum Route {
    /// They stay where they are.
    Local,
    /// They go to the owner of their key's shard.
    Shard(ShardPact),
}

impl Route {
    /// By these columns of this stream's schema.
    pub fn keys(schema: &arrow::datatypes::Schema, keys: &[usize]) -> Route {
        let types: Vec<_> = keys.iter().map(|key| schema.field(*key).data_type().clone()).collect();
        Route::Shard(shard_pact(keys.to_vec(), &types))
    }
}

pub(super) type Drain = Box<dyn FnMut(&mut Vec<Batch>)>;

/// Builds the operator into the dataflow.
pub fn step_operator<'scope>(
    scope: Scope<'scope, u64>,
    name: &str,
    inputs: Vec<(Rows<'scope>, Route)>,
    mut operator: impl StepOperator + 'static,
) -> Bundle<'scope> {
    let mut builder = OperatorBuilder::new(name.to_string(), scope);
    let mut drains: Vec<Drain> = Vec::new();
    for (stream, route) in inputs {
        drains.push(input_port(&mut builder, stream, route));
    }
    let (rows_output, rows) = builder.new_output::<Edge>();
    let (errors_output, errors) = builder.new_output::<Edge>();
    let mut rows_output: OutputBuilder<u64, EdgeBuilder> = OutputBuilder::from(rows_output);
    let mut errors_output: OutputBuilder<u64, EdgeBuilder> = OutputBuilder::from(errors_output);
    builder.build(move |mut capabilities| {
        let errors_capability = capabilities.pop().expect("two outputs, two capabilities");
        let rows_capability = capabilities.pop().expect("two outputs, two capabilities");
        let mut held = Some((rows_capability, errors_capability));
        let mut stashes: Vec<Vec<Batch>> = drains.iter().map(|_| Vec::new()).collect();
        move |frontiers| {
            for (drain, stash) in drains.iter_mut().zip(&mut stashes) {
                drain(stash);
            }
            // Empty frontiers mean shutdown: open steps are dropped, they come again from the recorded input.
            let Some(lower) = frontiers.iter().filter_map(|frontier| frontier.frontier().first().copied()).min() else {
                held = None;
                return;
            };
            let Some((rows_capability, errors_capability)) = &mut held else { return };
            if lower <= *rows_capability.time() {
                return;
            }
            let mut closed: Vec<Vec<Batch>> = stashes.iter_mut().map(|stash| take_closed(stash, lower)).collect();
            let mut out = Output::default();
            operator.step(&mut closed, Epoch(lower - 1), &mut out);
            if !out.rows.is_empty() {
                rows_output.activate().session_with_builder(&*rows_capability).give_iterator(out.rows.into_iter());
            }
            if !out.errors.is_empty() {
                errors_output.activate().session_with_builder(&*errors_capability).give_iterator(out.errors.into_iter());
            }
            rows_capability.downgrade(&lower);
            errors_capability.downgrade(&lower);
        }
    });
    Bundle { rows, errors }
}

/// An input that rows reach by this route; what it returns moves what has come into a stash.
pub fn input_port<'scope>(builder: &mut OperatorBuilder<'scope, u64>, rows: Rows<'scope>, route: Route) -> Drain {
    match route {
        Route::Local => {
            let mut input = builder.new_input(rows, Pipeline);
            Box::new(move |stash| input.for_each(|_, edge| stash.extend(edge.0.take())))
        }
        Route::Shard(pact) => {
            let mut input = builder.new_input(rows, pact);
            Box::new(move |stash| input.for_each(|_, edge| stash.extend(edge.0.take())))
        }
    }
}

/// The rows with epochs below `lower`, all of which have come. A worker that closes two steps at once sends both in one message, so
/// later rows may be among them: they stay.
pub(super) fn take_closed(stash: &mut Vec<Batch>, lower: u64) -> Vec<Batch> {
    let mut closed = Vec::new();
    let mut open = Vec::new();
    for batch in stash.drain(..) {
        let (before, after) = batch.split_at(Epoch(lower));
        closed.extend(Some(before).filter(|batch| !batch.is_empty()));
        open.extend(Some(after).filter(|batch| !batch.is_empty()));
    }
    *stash = open;
    closed
}

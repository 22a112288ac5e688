//! The contract of operators whose work may be slow. In: rows of open steps, kept apart as in `harness.rs`. Out: changes with their own
//! epochs, step after step, once the work of the step has come back.
//!
//! Invariant: the operator holds the capability of the oldest step that is not answered, and finishes steps in their order, so that its
//! state is touched in that order and nothing downstream sees a step half done.

use std::collections::VecDeque;
use std::sync::Arc;

use freshet_core::Batch;
use timely::dataflow::Scope;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::bridge::{Desk, Scorers, Work};
use crate::edge::{Edge, EdgeBuilder};
use crate::operators::harness::{Bundle, Output, Route, Rows, input_port, take_closed};

/// The part of an operator that any thread may run.
pub type WorkOf<O> = Arc<dyn Fn(<O as OffloadedOperator>::Request) -> <O as OffloadedOperator>::Answer + Send + Sync>;

/// An operator in three parts; the middle one runs elsewhere.
pub trait OffloadedOperator {
    type Request: Send + 'static;
    type Answer: Send + 'static;

    /// The rows of a closed step, in no order → what is to be worked out. None: nothing.
    fn begin(&mut self, rows: Vec<Batch>) -> Option<Self::Request>;

    /// The work on one request. It knows nothing of the operator's state.
    fn work(&self) -> WorkOf<Self>;

    /// About how much memory a request holds.
    fn bytes(request: &Self::Request) -> usize;

    /// Called in the order of the steps, whatever order the answers came in. Emits changes with epochs of its step.
    fn finish(&mut self, answer: Self::Answer, out: &mut Output);
}

/// A closed step on its way.
struct Flight<A> {
    ticket: u64,
    /// The lowest epoch after the step.
    lower: u64,
    state: State<A>,
}

enum State<A> {
    /// The queue had no room.
    Waiting(Work<A>),
    Away,
    /// Answered; None: there was nothing to do.
    Back(Option<A>),
}

/// The steps that are not emitted yet, oldest first. Bounded by the pace: it pauses the sources when too many wait.
struct Flights<A> {
    desk: Desk<A>,
    steps: VecDeque<Flight<A>>,
    next_ticket: u64,
}

impl<A: Send + 'static> Flights<A> {
    fn push(&mut self, lower: u64, work: Option<Work<A>>) {
        let state = work.map_or(State::Back(None), State::Waiting);
        self.steps.push_back(Flight { ticket: self.next_ticket, lower, state });
        self.next_ticket += 1;
    }

    /// Takes in what has come back, and hands over what waits, in order.
    fn turn(&mut self) {
        while let Some((ticket, answer)) = self.desk.answer() {
            let step = self.steps.iter_mut().find(|step| step.ticket == ticket).expect("an answer belongs to a step that is on its way");
            // A bug, not a model's failure: those are in the answer. The worker's end ends the pipeline with this message.
            step.state = State::Back(Some(answer.unwrap_or_else(|error| panic!("{error}"))));
        }
        for step in &mut self.steps {
            if !matches!(step.state, State::Waiting(_)) {
                continue;
            }
            let State::Waiting(work) = std::mem::replace(&mut step.state, State::Away) else { continue };
            if let Err(work) = self.desk.submit(step.ticket, work) {
                step.state = State::Waiting(work);
                return;
            }
        }
    }

    /// The oldest step, if it is done: its answer and the lowest epoch after it.
    fn landed(&mut self) -> Option<(Option<A>, u64)> {
        let Some(Flight { state: State::Back(_), .. }) = self.steps.front() else { return None };
        let step = self.steps.pop_front()?;
        let State::Back(answer) = step.state else { return None };
        Some((answer, step.lower))
    }
}

/// Builds the operator into the dataflow.
pub fn offloaded_operator<'scope, O: OffloadedOperator + 'static>(
    scope: Scope<'scope, u64>,
    name: &str,
    (rows, route): (Rows<'scope>, Route),
    mut operator: O,
    scorers: &Scorers,
) -> Bundle<'scope> {
    let mut builder = OperatorBuilder::new(name.to_string(), scope);
    let address = builder.operator_info().address.to_vec();
    let mut drain = input_port(&mut builder, rows, route);
    let (rows_output, rows) = builder.new_output::<Edge>();
    let (errors_output, errors) = builder.new_output::<Edge>();
    let mut rows_output: OutputBuilder<u64, EdgeBuilder> = OutputBuilder::from(rows_output);
    let mut errors_output: OutputBuilder<u64, EdgeBuilder> = OutputBuilder::from(errors_output);
    let work = operator.work();
    let mut flights = Flights { desk: scorers.desk(scope.worker().sync_activator_for(address)), steps: VecDeque::new(), next_ticket: 0 };
    builder.build(move |mut capabilities| {
        let errors_capability = capabilities.pop().expect("two outputs, two capabilities");
        let rows_capability = capabilities.pop().expect("two outputs, two capabilities");
        let mut closed_below = *rows_capability.time();
        let mut held = Some((rows_capability, errors_capability));
        let mut stash: Vec<Batch> = Vec::new();
        move |frontiers| {
            drain(&mut stash);
            // An empty frontier means shutdown: open steps are dropped, they come again from the recorded input.
            let Some(lower) = frontiers[0].frontier().first().copied() else {
                held = None;
                return;
            };
            let Some((rows_capability, errors_capability)) = &mut held else { return };
            if lower > closed_below {
                closed_below = lower;
                let request = operator.begin(take_closed(&mut stash, lower));
                flights.push(lower, request.map(|request| piece::<O>(&work, request)));
            }
            flights.turn();
            while let Some((answer, lower)) = flights.landed() {
                let mut out = Output::default();
                if let Some(answer) = answer {
                    operator.finish(answer, &mut out);
                }
                if !out.rows.is_empty() {
                    rows_output.activate().session_with_builder(&*rows_capability).give_iterator(out.rows.into_iter());
                }
                if !out.errors.is_empty() {
                    errors_output.activate().session_with_builder(&*errors_capability).give_iterator(out.errors.into_iter());
                }
                rows_capability.downgrade(&lower);
                errors_capability.downgrade(&lower);
            }
        }
    });
    Bundle { rows, errors }
}

fn piece<O: OffloadedOperator + 'static>(work: &WorkOf<O>, request: O::Request) -> Work<O::Answer> {
    let (bytes, work) = (O::bytes(&request), work.clone());
    Work { bytes, run: Box::new(move || work(request)) }
}

//! What a PREDICT gives each row: the scores of the version live at the epoch the row entered, the row scored alone (C1b, C5, C7).

use arrow::array::{Array, ArrayRef};
use freshet_core::{ControlRecord, Epoch, NodeId, PredictCall, PredictOutput, PredictRoute, Value};

use crate::interpreter::content::NodeError;
use crate::interpreter::evaluate::batch_of_row;
use crate::interpreter::history::{Interpreter, Row};
use crate::lives::Life;

impl Interpreter {
    /// With these versions of the plan's models, in the order of their epochs.
    pub fn with_records(mut self, records: &[ControlRecord]) -> Interpreter {
        assert!(records.is_sorted_by_key(|record| record.epoch), "control records come in order");
        self.records = records.to_vec();
        self
    }

    /// The version a route leads to for a row of this epoch: records of lower epochs count, and those of epoch 0 for every row.
    pub fn version_at(&self, model: usize, epoch: Epoch, route: PredictRoute) -> Option<&ControlRecord> {
        let mut known = self.records.iter().filter(|record| record.model == model && (record.epoch < epoch || record.epoch == Epoch::ZERO));
        match route {
            PredictRoute::Live => known.rfind(|record| record.promoted),
            PredictRoute::Version(number) => known.rfind(|record| record.version == number),
            PredictRoute::Challenger => known.next_back(),
        }
    }

    pub(super) fn lives_of_predict(&self, node: NodeId, calls: &[PredictCall]) -> Vec<Life<Row>> {
        let input = self.plan.node(node).inputs[0];
        let scored = |life: &Life<Row>| {
            let scores = calls.iter().map(|call| self.score(input, call, life).unwrap_or(Value::Null));
            Life { row: life.row.iter().cloned().chain(scores).collect(), ..life.clone() }
        };
        self.lives(input).iter().map(scored).collect()
    }

    /// One error per live row and call that failed; `row` is the left row.
    pub(super) fn predict_errors(&self, node: NodeId, calls: &[PredictCall], t: Epoch) -> Vec<NodeError> {
        let definition = self.plan.node(node);
        let first = definition.schema.fields().len() - calls.len();
        let lives = self.lives(definition.inputs[0]);
        let failed = |life: &Life<Row>| {
            let errors = calls.iter().enumerate().filter_map(|(index, call)| {
                let message = self.score(definition.inputs[0], call, life).err()?;
                Some(NodeError { field: definition.schema.field(first + index).name().clone(), message, row: life.row.clone() })
            });
            errors.collect::<Vec<_>>()
        };
        lives.iter().filter(|life| life.is_at(t)).flat_map(failed).collect()
    }

    fn score(&self, input: NodeId, call: &PredictCall, life: &Life<Row>) -> Result<Value, String> {
        let Some(record) = self.version_at(call.model, life.entered, call.route) else { return Ok(Value::Null) };
        if call.output == PredictOutput::Version {
            return Ok(Value::Int(record.version.into()));
        }
        let row = batch_of_row(&self.plan.node(input).schema, &life.row);
        let arguments: Vec<ArrayRef> = call.arguments.iter().map(|column| row.column(*column).clone()).collect();
        let outputs = record.loaded.predict(&arguments).map_err(|error| error.to_string())?;
        assert!(outputs.len() == 1 && outputs[0].len() == 1, "the interpreter has no cells for several outputs");
        Value::of(&outputs[0], 0).map_err(|error| error.to_string())
    }
}

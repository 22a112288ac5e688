//! Predictions beside their rows: arguments in columns, then one operator for all calls of a node.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use freshet_core::{NodeId, Op, PredictCall};

use super::Lowering;
use crate::prediction::Prediction;
use crate::refusal::{Refusal, Result};

impl Lowering<'_> {
    pub(super) fn predict(&mut self, prediction: &Prediction) -> Result<NodeId> {
        let input = self.lower(&prediction.input)?;
        let (wide, columns) = self.extend(input, prediction.input.schema(), &prediction.arguments)?;
        let mut fields: Vec<Arc<Field>> = self.schema(wide).fields().iter().cloned().collect();
        let mut rest = columns.into_iter();
        let mut calls = Vec::with_capacity(prediction.calls.len());
        for call in &prediction.calls {
            let model = self.plan.models.get(call.model).ok_or_else(|| Refusal::new("the model of a PREDICT is not in the plan"))?;
            let arguments: Vec<usize> = rest.by_ref().take(call.arguments).collect();
            for (column, wanted) in arguments.iter().zip(&model.inputs) {
                assert_eq!(fields[*column].data_type(), wanted.data_type(), "arguments are cast when the call is planned");
            }
            let data_type = match (call.output, model.outputs.as_slice()) {
                (freshet_core::PredictOutput::Version, _) => arrow::datatypes::DataType::Int64,
                (freshet_core::PredictOutput::Score, [output]) => output.data_type().clone(),
                (freshet_core::PredictOutput::Score, outputs) => arrow::datatypes::DataType::Struct(outputs.iter().cloned().collect()),
            };
            fields.push(Arc::new(Field::new(&call.shown, data_type, true)));
            calls.push(PredictCall { model: call.model, arguments, route: call.route, output: call.output });
        }
        let (own, scored) = (self.width(input), self.width(wide));
        let node = self.push(Op::Predict { calls }, vec![wide], Arc::new(Schema::new(fields)));
        let wanted: Vec<usize> = (0..own).chain(scored..self.width(node)).collect();
        Ok(self.pick(node, &wanted))
    }
}

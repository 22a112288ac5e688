//! UNION ALL. (UNION is that with a DISTINCT above.)

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::Union;
use freshet_core::{NodeId, Op};

use super::Lowering;
use super::project::column;
use crate::refusal::{Refusal, Result};

impl Lowering<'_> {
    /// Every input is brought to the union's own schema, so that batches of all inputs can be put together.
    pub(super) fn union(&mut self, union: &Union) -> Result<NodeId> {
        let fields: Vec<Field> = union.schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let node = self.lower(input)?;
            let own = self.schema(node);
            for (field, wanted) in own.fields().iter().zip(schema.fields()) {
                if field.data_type() != wanted.data_type() {
                    return Err(Refusal::new(format!(
                        "column {} is {} in one branch of the UNION and {} in another",
                        wanted.name(),
                        wanted.data_type(),
                        field.data_type()
                    ))
                    .help("CAST both to one type"));
                }
            }
            let exprs = (0..own.fields().len()).map(|index| column(&own, index)).collect();
            let names = schema.fields().iter().map(|field| field.name().clone()).collect();
            inputs.push(if own == schema { node } else { self.project_always(node, exprs, names) });
        }
        Ok(self.push(Op::Union, inputs, schema))
    }
}

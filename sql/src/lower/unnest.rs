//! UNNEST: lists into rows. The projection that makes the lists is taken into the operator, so that no list travels on an edge.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::logical_expr::Unnest;
use freshet_core::{ExprRef, NodeId, Op};

use super::Lowering;
use super::project::column;
use crate::refusal::{Refusal, Result};

impl Lowering<'_> {
    pub(super) fn unnest(&mut self, unnest: &Unnest) -> Result<NodeId> {
        let place = |refusal: Refusal| unnest.exec_columns.iter().fold(refusal, |refusal, column| refusal.at_expr(&column.clone().into()));
        if !unnest.struct_type_columns.is_empty() {
            return Err(place(Refusal::new("UNNEST of a struct makes columns, not rows").help("select its fields one by one: (…)['name'] AS name")));
        }
        if unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
            return Err(place(
                Refusal::new("UNNEST opens one level of lists at a time")
                    .help("unnest the inner lists in a query above: SELECT unnest(x) FROM (SELECT unnest(…) AS x …)"),
            ));
        }
        let input = self.lower(&unnest.input)?;
        let (below, exprs): (NodeId, Vec<ExprRef>) = match &self.plan.node(input).op {
            Op::Project { exprs } => (self.plan.node(input).inputs[0], exprs.clone()),
            _ => {
                let own = self.schema(input);
                (input, (0..own.fields().len()).map(|index| column(&own, index)).collect())
            }
        };
        let is_list = |index: usize| unnest.list_type_columns.iter().any(|(list, _)| *list == index);
        let lists = unnest.dependency_indices.iter().enumerate().filter(|(_, from)| is_list(**from)).map(|(output, _)| output).collect();
        let exprs: Vec<ExprRef> = unnest.dependency_indices.iter().map(|from| Arc::clone(&exprs[*from])).collect();
        let fields = unnest.schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(self.push(Op::Unnest { exprs, lists }, vec![below], schema))
    }
}

//! UNNEST: lists into rows. The projection that makes the lists is taken into the operator, so that no list travels on an edge.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
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
        let input = self.lower(&unnest.input)?;
        let (below, exprs): (NodeId, Vec<ExprRef>) = match &self.plan.node(input).op {
            Op::Project { exprs } => (self.plan.node(input).inputs[0], exprs.clone()),
            _ => {
                let own = self.schema(input);
                (input, (0..own.fields().len()).map(|index| column(&own, index)).collect())
            }
        };
        let mut exprs: Vec<ExprRef> = unnest.dependency_indices.iter().map(|from| Arc::clone(&exprs[*from])).collect();
        let depths = depths(unnest);
        let mut types: Vec<DataType> = unnest.dependency_indices.iter().map(|from| unnest.input.schema().field(*from).data_type().clone()).collect();
        let mut node = below;
        // Lists of lists are opened from the outside, those of fewer levels when the others are as deep.
        for level in (1..=depths.iter().copied().max().unwrap_or_default()).rev() {
            let lists: Vec<usize> = (0..exprs.len()).filter(|output| depths[*output] >= level).collect();
            for output in &lists {
                types[*output] = element(&types[*output]).ok_or_else(|| place(Refusal::new("UNNEST opens lists")))?;
            }
            let fields = unnest.schema.fields().iter().zip(&types).map(|(field, data_type)| Field::new(field.name(), data_type.clone(), true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            node = self.push(Op::Unnest { exprs, lists }, vec![node], schema.clone());
            exprs = (0..types.len()).map(|output| column(&schema, output)).collect();
        }
        Ok(node)
    }
}

/// How many levels of lists each output column opens.
fn depths(unnest: &Unnest) -> Vec<usize> {
    let outputs = unnest.dependency_indices.iter().enumerate();
    let depth = |(output, from): (usize, &usize)| {
        // One column may be opened several times, by different levels.
        let before = unnest.dependency_indices[..output].iter().filter(|other| *other == from).count();
        unnest.list_type_columns.iter().filter(|(list, _)| list == from).nth(before).map_or(0, |(_, list)| list.depth)
    };
    outputs.map(depth).collect()
}

fn element(list: &DataType) -> Option<DataType> {
    match list {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item.data_type().clone()),
        _ => None,
    }
}

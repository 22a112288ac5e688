//! INTERSECT and EXCEPT: both sides under one schema, then one operator.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use freshet_core::{NodeId, Op};

use super::Lowering;
use super::project::column;
use crate::refusal::Result;
use crate::set_operation::Counted;

impl Lowering<'_> {
    pub(super) fn set_operation(&mut self, set: &Counted) -> Result<NodeId> {
        let left = self.lower(&set.left)?;
        let schema = self.nullable(left);
        let right = self.lower(&set.right)?;
        let sides = vec![self.as_schema(left, &schema), self.as_schema(right, &schema)];
        Ok(self.push(Op::SetOperation { operation: set.operation }, sides, schema))
    }

    /// The schema of a node, where every column may be NULL.
    pub(super) fn nullable(&self, node: NodeId) -> SchemaRef {
        let fields = self.schema(node).fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect::<Vec<_>>();
        Arc::new(Schema::new(fields))
    }

    /// The node under the names of another; its types must be those.
    pub(super) fn as_schema(&mut self, node: NodeId, schema: &SchemaRef) -> NodeId {
        let own = self.schema(node);
        if own == *schema {
            return node;
        }
        let exprs = (0..own.fields().len()).map(|index| column(&own, index)).collect();
        self.project_always(node, exprs, schema.fields().iter().map(|field| field.name().clone()).collect())
    }
}

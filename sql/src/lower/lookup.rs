//! FEATURES(service) beside a left row: one operator, then the columns in declared order.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::logical_expr::{Expr, Extension};
use freshet_core::{LookupPart, LookupTime, NodeId, Op, ServiceColumn, ServiceDef};

use super::project::column;
use super::{AskedColumn, Lowering};
use crate::existence::Marked;
use crate::prediction::Prediction;
use crate::refusal::{Refusal, Result};
use crate::relation::{Asked, FeatureLookup, service_input};
use crate::set_operation::Counted;
use crate::subquery::SingleRow;
use crate::temporal::TemporalJoin;
use crate::windowing::{ArrivalNode, CloseNode, WindowTvf};

impl Lowering<'_> {
    pub(super) fn extension(&mut self, extension: &Extension) -> Result<NodeId> {
        let node = extension.node.as_any();
        if let Some(set) = node.downcast_ref::<Counted>() {
            return self.set_operation(set);
        }
        if let Some(marked) = node.downcast_ref::<Marked>() {
            return self.lower(&marked.input);
        }
        if let Some(value) = node.downcast_ref::<SingleRow>() {
            let input = self.lower(&value.input)?;
            return Ok(self.push(Op::SingleRow, vec![input], self.nullable(input)));
        }
        if let Some(tvf) = node.downcast_ref::<WindowTvf>() {
            return self.windows(tvf);
        }
        if let Some(close) = node.downcast_ref::<CloseNode>() {
            return self.emit_on_close(close);
        }
        if let Some(arrival) = node.downcast_ref::<ArrivalNode>() {
            return self.arrival(arrival);
        }
        if let Some(join) = node.downcast_ref::<TemporalJoin>() {
            return self.temporal_join(join);
        }
        match (node.downcast_ref::<FeatureLookup>(), node.downcast_ref::<Prediction>()) {
            (Some(lookup), _) => self.lookup(lookup),
            (None, Some(prediction)) => self.predict(prediction),
            (None, None) => Err(Refusal::new(format!("{} is no node of Freshet", extension.node.name()))),
        }
    }

    fn lookup(&mut self, lookup: &FeatureLookup) -> Result<NodeId> {
        let service = self.services.get(&lookup.service).expect("the planner found the service").clone();
        let left = self.lower(&lookup.left)?;
        let mut wanted: Vec<Expr> = lookup.bindings.to_vec();
        wanted.extend(lookup.asked.time().cloned());
        let (wide, bound) = self.extend(left, lookup.left.schema(), &wanted)?;
        let at = match &lookup.asked {
            Asked::Now | Asked::Arrival => LookupTime::Now,
            Asked::Served(_) => LookupTime::AsServed { column: *bound.last().expect("the time stands behind the bindings") },
            Asked::Hindsight(time) => LookupTime::EventTime { column: time.as_ref().and_then(|_| bound.last().copied()) },
        };
        if let (Some(Expr::Column(time)), Some(column)) = (lookup.asked.time(), at.column()) {
            self.asked.push(AskedColumn { alias: lookup.alias.clone(), name: time.name.clone(), left: wide, column });
        }
        let input = service_input(&service);
        let bound_to = |name: &str| bound[input.iter().position(|field| field.name() == name).expect("the input names every key and request column")];

        let mut parts = Vec::with_capacity(service.parts.len());
        let mut inputs = vec![wide];
        let mut fields: Vec<Arc<Field>> = self.schema(wide).fields().iter().cloned().collect();
        let mut place_of = vec![0; service.output.len()];
        for (index, part) in service.parts.iter().enumerate() {
            let view = *self.relations.get(&part.view).expect("a service names views that exist");
            let view_schema = self.schema(view);
            let mut columns = Vec::new();
            for (output, source) in service.output.iter().enumerate() {
                if let ServiceColumn::Feature { part, column } = source
                    && *part == index
                {
                    place_of[output] = fields.len();
                    fields.push(Arc::new(view_schema.field(*column).clone().with_nullable(true)));
                    columns.push(*column);
                }
            }
            parts.push(LookupPart { keys: part.entity.iter().map(|field| bound_to(field.name())).collect(), columns });
            inputs.push(view);
        }
        for (output, source) in service.output.iter().enumerate() {
            if let ServiceColumn::Request { index } = source {
                place_of[output] = bound_to(service.request[*index].name());
            }
        }
        let own: Vec<usize> = (0..self.width(left)).collect();
        let status = fields.len();
        fields.push(Arc::new(Field::new("status", DataType::Utf8, true)));
        fields.push(Arc::new(Field::new("event_time", DataType::Timestamp(TimeUnit::Nanosecond, None), true)));
        let node = self.push(Op::Lookup { parts, at }, inputs, Arc::new(Schema::new(fields)));
        let order: Vec<usize> = own.into_iter().chain(place_of).chain([status, status + 1]).collect();
        Ok(self.in_order(node, &order, &service, lookup))
    }

    fn in_order(&mut self, node: NodeId, order: &[usize], service: &ServiceDef, lookup: &FeatureLookup) -> NodeId {
        let schema = self.schema(node);
        let width = lookup.left.schema().fields().len();
        let exprs = order.iter().map(|index| column(&schema, *index)).collect();
        let names = order
            .iter()
            .enumerate()
            .map(|(position, index)| match position.checked_sub(width).filter(|output| *output < service.output.len()) {
                Some(output) => service.schema.field(output).name().clone(),
                None => schema.field(*index).name().clone(),
            })
            .collect();
        self.project(node, exprs, names)
    }
}

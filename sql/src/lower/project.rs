//! Projections: the query's own, and those that put an operator's arguments into columns.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use freshet_core::{Column, ExprRef, NodeId, Op};

use super::Lowering;
use crate::expr::{column_index, compile};
use crate::refusal::Result;

impl Lowering<'_> {
    pub(super) fn projection(&mut self, projection: &Projection) -> Result<NodeId> {
        let input = match self.ranks_for(projection)? {
            Some(node) => node,
            None => self.lower(&projection.input)?,
        };
        let (input, schema) = self.below_picks(input, projection.input.schema())?;
        let exprs = projection.expr.iter().map(|expr| compile(expr, &schema)).collect::<Result<Vec<_>>>()?;
        let names = projection.schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(self.project(input, exprs, names))
    }

    /// The input, if it is a filter that keeps ranks: a rank that the projection does not read need not be there.
    fn ranks_for(&mut self, projection: &Projection) -> Result<Option<NodeId>> {
        let mut input = projection.input.as_ref();
        while let LogicalPlan::SubqueryAlias(alias) = input {
            input = &alias.input;
        }
        let LogicalPlan::Filter(filter) = input else { return Ok(None) };
        let columns = projection.expr.iter().flat_map(|expr| expr.column_refs());
        let used =
            columns.map(|column| projection.input.schema().index_of_column(column)).collect::<datafusion::common::Result<BTreeSet<usize>>>()?;
        self.kept_ranks(filter, Some(&used))
    }

    /// One column per expression. Every column may be NULL, because a failed row is NULL until it is taken out (C4).
    ///
    /// No node is pushed for a projection that changes nothing but names; one that only picks columns of another is merged with it.
    pub(super) fn project(&mut self, input: NodeId, exprs: Vec<ExprRef>, names: Vec<String>) -> NodeId {
        let columns: Option<Vec<usize>> = exprs.iter().map(|expr| expr.as_column()).collect();
        if let Some(columns) = &columns {
            if columns.len() == self.width(input) && columns.iter().enumerate().all(|(index, column)| index == *column) {
                return input;
            }
            if let Op::Project { exprs: inner } = &self.plan.node(input).op {
                let merged = columns.iter().map(|column| inner[*column].clone()).collect();
                let below = self.plan.node(input).inputs[0];
                return self.project(below, merged, names);
            }
        }
        self.project_always(input, exprs, names)
    }

    /// As `project`, with a node in any case.
    pub(crate) fn project_always(&mut self, input: NodeId, exprs: Vec<ExprRef>, names: Vec<String>) -> NodeId {
        assert_eq!(exprs.len(), names.len());
        let fields: Vec<Field> = exprs.iter().zip(names).map(|(expr, name)| Field::new(name, expr.data_type(), true)).collect();
        self.push(Op::Project { exprs }, vec![input], Arc::new(Schema::new(fields)))
    }

    /// These columns of `input`, in this order.
    pub(super) fn pick(&mut self, input: NodeId, columns: &[usize]) -> NodeId {
        let schema = self.schema(input);
        let exprs = columns.iter().map(|index| column(&schema, *index)).collect();
        let names = columns.iter().map(|index| schema.field(*index).name().clone()).collect();
        self.project(input, exprs, names)
    }

    /// `input` with columns that hold these expressions: its own where they are columns already, else further ones behind them.
    pub(super) fn extend(&mut self, input: NodeId, schema: &DFSchema, wanted: &[Expr]) -> Result<(NodeId, Vec<usize>)> {
        let own = self.schema(input);
        let (below, below_schema) = self.below_picks(input, schema)?;
        let mut exprs: Vec<ExprRef> = match &self.plan.node(input).op {
            Op::Project { exprs } if below != input => exprs.clone(),
            _ => (0..own.fields().len()).map(|index| column(&own, index)).collect(),
        };
        let mut names: Vec<String> = own.fields().iter().map(|field| field.name().clone()).collect();
        let mut indexes = Vec::with_capacity(wanted.len());
        for expr in wanted {
            indexes.push(match column_index(expr, schema) {
                Some(index) => index,
                None => {
                    exprs.push(compile(expr, &below_schema)?);
                    names.push(format!("#{}", exprs.len() - 1));
                    exprs.len() - 1
                }
            });
        }
        let node = if exprs.len() == own.fields().len() { input } else { self.project_always(below, exprs, names) };
        Ok((node, indexes))
    }

    /// Only columns that hold these expressions, equal ones once; `input` itself if they are all columns of it.
    pub(super) fn arguments(&mut self, input: NodeId, schema: &DFSchema, wanted: &[Expr]) -> Result<(NodeId, Vec<usize>)> {
        if let Some(indexes) = wanted.iter().map(|expr| column_index(expr, schema)).collect::<Option<Vec<usize>>>() {
            return Ok((input, indexes));
        }
        let mut distinct: Vec<&Expr> = Vec::new();
        let mut indexes = Vec::with_capacity(wanted.len());
        for expr in wanted {
            indexes.push(match distinct.iter().position(|known| *known == expr) {
                Some(index) => index,
                None => {
                    distinct.push(expr);
                    distinct.len() - 1
                }
            });
        }
        let (input, schema) = self.below_picks(input, schema)?;
        let exprs = distinct.iter().map(|expr| compile(expr, &schema)).collect::<Result<Vec<_>>>()?;
        let names = exprs.iter().enumerate().map(|(index, expr)| name_of(&**expr, &self.schema(input), index)).collect();
        Ok((self.project_always(input, exprs, names), indexes))
    }

    /// What to compute over instead of `input`, whose columns are `schema`: if it only picks columns, the node it picks them from, with
    /// the same names at their places there. One operator for two.
    fn below_picks(&self, input: NodeId, schema: &DFSchema) -> Result<(NodeId, DFSchema)> {
        let node = self.plan.node(input);
        let picks = match &node.op {
            Op::Project { exprs } => exprs.iter().map(|expr| expr.as_column()).collect::<Option<Vec<usize>>>(),
            _ => None,
        };
        let Some(picks) = picks.filter(|picks| picks.iter().collect::<BTreeSet<_>>().len() == picks.len()) else {
            return Ok((input, schema.clone()));
        };
        let below = node.inputs[0];
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = self
            .schema(below)
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| (None, Arc::new(Field::new(format!("{index}$"), field.data_type().clone(), true))))
            .collect();
        for (position, pick) in picks.into_iter().enumerate() {
            let (qualifier, field) = schema.qualified_field(position);
            fields[pick] = (qualifier.cloned(), field.clone());
        }
        Ok((below, DFSchema::new_with_metadata(fields, Default::default())?))
    }
}

fn name_of(expr: &dyn freshet_core::Expr, schema: &Schema, index: usize) -> String {
    expr.as_column().map_or_else(|| format!("#{index}"), |column| schema.field(column).name().clone())
}

pub(crate) fn column(schema: &SchemaRef, index: usize) -> ExprRef {
    let field = schema.field(index);
    Arc::new(Column { index, name: field.name().clone(), data_type: field.data_type().clone() })
}

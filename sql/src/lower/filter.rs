//! WHERE and HAVING: plain conjuncts become a filter, conjuncts about now() a temporal filter.

use datafusion::common::DFSchema;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Filter};
use freshet_core::{NodeId, Op, TemporalBound};

use super::Lowering;
use crate::expr::{bare, compile};
use crate::now::{bounds_of, mentions_now};
use crate::refusal::Result;

impl Lowering<'_> {
    pub(super) fn filter(&mut self, filter: &Filter) -> Result<NodeId> {
        if let Some(node) = self.kept_ranks(filter, None)? {
            return Ok(node);
        }
        let input = self.lower(&filter.input)?;
        self.filtered(input, &filter.predicate, filter.input.schema())
    }

    /// The rows of `input`, whose columns are `schema`, for which the predicate holds.
    pub(super) fn filtered(&mut self, input: NodeId, predicate: &Expr, schema: &DFSchema) -> Result<NodeId> {
        let predicate = bare(predicate.clone())?;
        let (temporal, plain): (Vec<&Expr>, Vec<&Expr>) = split_conjunction(&predicate).into_iter().partition(|conjunct| mentions_now(conjunct));
        let mut node = input;
        if !plain.is_empty() {
            let conjuncts = plain.into_iter().map(|conjunct| compile(conjunct, schema)).collect::<Result<Vec<_>>>()?;
            node = self.push(Op::Filter { conjuncts }, vec![node], self.schema(node));
        }
        if !temporal.is_empty() {
            node = self.temporal_filter(node, &temporal, schema)?;
        }
        Ok(node)
    }

    fn temporal_filter(&mut self, input: NodeId, conjuncts: &[&Expr], schema: &DFSchema) -> Result<NodeId> {
        let mut found = Vec::new();
        for conjunct in conjuncts {
            found.extend(bounds_of(conjunct, schema)?);
        }
        let times: Vec<Expr> = found.iter().map(|bound| bound.expr.clone()).collect();
        let (extended, columns) = self.extend(input, schema, &times)?;
        let bounds = found
            .iter()
            .zip(columns)
            .map(|(bound, column)| TemporalBound { column, offset_ns: bound.offset_ns, comparison: bound.comparison })
            .collect();
        let node = self.push(Op::TemporalFilter { bounds }, vec![extended], self.schema(extended));
        let own: Vec<usize> = (0..self.width(input)).collect();
        Ok(self.pick(node, &own))
    }
}

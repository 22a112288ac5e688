//! Lowers an optimised logical plan. In: DataFusion's nodes. Out: nodes of a core plan, with columns by index.
//!
//! The match is exhaustive on purpose: a node that a new DataFusion adds must be decided on here, not skipped.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use freshet_core::{Node, NodeId, Op, Plan, ServiceDef};

use crate::refusal::{Refusal, Result};

/// The plan so far, and what queries may read from it.
pub(crate) struct Lowering<'a> {
    pub plan: &'a mut Plan,
    /// Sources, materialised views and feature views by name.
    pub relations: &'a BTreeMap<String, NodeId>,
    pub services: &'a BTreeMap<String, ServiceDef>,
    /// Lookups at a column of their left side.
    pub asked: Vec<AskedColumn>,
}

/// A lookup AS OF a column, by its names in the text and by its place in the plan.
#[derive(Debug)]
pub(crate) struct AskedColumn {
    pub alias: String,
    pub name: String,
    pub left: NodeId,
    pub column: usize,
}

impl Lowering<'_> {
    /// Pushes the nodes of `plan`; the last one has its columns, in order, and maybe other names.
    pub fn lower(&mut self, plan: &LogicalPlan) -> Result<NodeId> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Extension(extension) => self.extension(extension),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => Err(Refusal::new("ORDER BY and LIMIT are not kept up to date in a view yet")
                .help("order and limit when you read it: SELECT … FROM view ORDER BY …")),
            LogicalPlan::Window(_) => {
                Err(Refusal::new("window functions are not supported yet").help("group by a key, or read the view with an OVER clause ad hoc"))
            }
            LogicalPlan::Unnest(_) => Err(Refusal::new("UNNEST is not supported yet")),
            LogicalPlan::RecursiveQuery(_) => Err(Refusal::new("WITH RECURSIVE is not supported yet")),
            LogicalPlan::Values(_) => Err(Refusal::new("VALUES is not supported in a view").help("read the rows from a source")),
            LogicalPlan::EmptyRelation(_) => {
                Err(Refusal::new("this query reads no source, or its condition is never true").help("name a source or a view in FROM"))
            }
            LogicalPlan::Subquery(_) => Err(Refusal::new("this subquery cannot be turned into a join")
                .help("correlate it by equality, or write it as a join or as a view of its own")),
            LogicalPlan::Distinct(_) => Err(Refusal::new("DISTINCT ON is not supported yet").help("GROUP BY the key, with min or max")),
            LogicalPlan::Repartition(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => Err(Refusal::new("only a query can stand here")),
        }
    }

    pub(super) fn push(&mut self, op: Op, inputs: Vec<NodeId>, schema: SchemaRef) -> NodeId {
        let kept = inputs.iter().all(|input| self.plan.node(*input).append_only);
        let append_only = match &op {
            Op::Project { .. } | Op::Filter { .. } | Op::Union | Op::Join { .. } => kept,
            // An evaluation is a fact about its instant.
            Op::Drift { .. } => true,
            Op::Lookup { .. } | Op::Predict { .. } => self.plan.node(inputs[0]).append_only,
            Op::Source { .. } => true,
            Op::Upsert { .. } | Op::TemporalFilter { .. } | Op::Aggregate { .. } | Op::Feature { .. } => false,
        };
        self.plan.push(Node { op, inputs, schema, append_only })
    }

    pub(super) fn schema(&self, node: NodeId) -> SchemaRef {
        self.plan.node(node).schema.clone()
    }

    pub(super) fn width(&self, node: NodeId) -> usize {
        self.plan.node(node).schema.fields().len()
    }
}

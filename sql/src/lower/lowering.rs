//! Lowers an optimised logical plan. In: DataFusion's nodes. Out: nodes of a core plan, with columns by index.
//!
//! The match is exhaustive on purpose: a node that a new DataFusion adds must be decided on here, not skipped.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use freshet_core::{Node, NodeId, Op, Plan, ServiceDef, do_the_same};

use super::recursive::BodyInputs;
use crate::refusal::{Refusal, Result};

/// The plan so far, and what queries may read from it.
pub(crate) struct Lowering<'a> {
    pub plan: &'a mut Plan,
    /// Sources, materialised views and feature views by name.
    pub relations: &'a BTreeMap<String, NodeId>,
    pub services: &'a BTreeMap<String, ServiceDef>,
    /// Lookups at a column of their left side.
    pub asked: Vec<AskedColumn>,
    /// There while the body of a recursion is lowered.
    pub body: Option<BodyInputs>,
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
        if let Some(argument) = self.body.as_ref().and_then(|body| body.argument_of(plan)) {
            return Ok(self.argument(argument));
        }
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Extension(extension) => self.extension(extension),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) => self.over(window),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::RecursiveQuery(query) => self.recursive(query),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::EmptyRelation(empty) => self.empty(empty),
            LogicalPlan::Subquery(_) => Err(Refusal::new("this subquery cannot be turned into a join")
                .help("correlate it by equality, or write it as a join or as a view of its own")),
            LogicalPlan::Distinct(_) => Err(Refusal::new("a DISTINCT was left in the plan; that is a bug of Freshet")),
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

    pub(crate) fn push(&mut self, op: Op, inputs: Vec<NodeId>, schema: SchemaRef) -> NodeId {
        let kept = inputs.iter().all(|input| self.plan.node(*input).append_only);
        let append_only = match &op {
            Op::Project { .. }
            | Op::Filter { .. }
            | Op::Recursive { .. }
            | Op::Union
            | Op::Unnest { .. }
            | Op::Windows { .. }
            | Op::Arrival
            | Op::Gate { .. }
            | Op::EmitEvery { .. } => kept,
            Op::Argument { .. } => true,
            Op::Join { kind, .. } => kept && kind.keeps_append_only(),
            Op::SetOperation { operation } => kept && operation.keeps_append_only(),
            // An evaluation is a fact about its instant.
            Op::Drift { .. } | Op::EmitOnClose { .. } => true,
            Op::Lookup { .. } | Op::LookupJoin { .. } | Op::Predict { .. } => self.plan.node(inputs[0]).append_only,
            Op::Source { .. } | Op::Values { .. } => true,
            Op::Upsert { .. } | Op::TemporalFilter { .. } | Op::Aggregate { .. } | Op::SingleRow | Op::Feature { .. } | Op::Session { .. } => false,
            Op::Top { .. } | Op::Over { .. } | Op::Asof { .. } => false,
        };
        let node = Node { op, inputs, schema, append_only };
        self.known(&node).unwrap_or_else(|| self.plan.push(node))
    }

    /// A node that does this already: views with a part in common share its operator and its state. What an argument stands for depends on
    /// where it stands, a drift monitor and a feature view are known by their nodes, and a recursion is not compared.
    fn known(&self, wanted: &Node) -> Option<NodeId> {
        let own = matches!(wanted.op, Op::Source { .. } | Op::Feature { .. } | Op::Drift { .. } | Op::Recursive { .. });
        let found = self.plan.nodes.iter().position(|node| !own && do_the_same(self.plan, node, wanted));
        found.map(|index| NodeId(index as u32))
    }

    pub(crate) fn schema(&self, node: NodeId) -> SchemaRef {
        self.plan.node(node).schema.clone()
    }

    pub(super) fn width(&self, node: NodeId) -> usize {
        self.plan.node(node).schema.fields().len()
    }
}

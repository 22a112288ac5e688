//! WITH RECURSIVE: the base as any query, the recursive part as a body of its own whose leaves are the rows of the round before and what
//! else it reads, which is lowered outside.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{JoinType, LogicalPlan, RecursiveQuery, TableScan};
use freshet_core::{JoinKind, Node, NodeId, Op, Plan, RecursionBody};

use super::Lowering;
use super::project::column;
use crate::refusal::{Refusal, Result};

/// What stands in for parts of a recursive query while its body is lowered.
#[derive(Debug, Default)]
pub(crate) struct BodyInputs {
    /// The parts that do not refer to the recursion, by where they are in memory: nothing moves while the body is lowered.
    parts: Vec<(usize, SchemaRef)>,
}

impl BodyInputs {
    /// The number of the argument and its columns, if this part is computed outside.
    pub fn argument_of(&self, plan: &LogicalPlan) -> Option<(usize, SchemaRef)> {
        let address = address(plan);
        let place = self.parts.iter().position(|(known, _)| *known == address)?;
        // 0 is the round before.
        Some((place + 1, self.parts[place].1.clone()))
    }
}

fn address(plan: &LogicalPlan) -> usize {
    std::ptr::from_ref(plan) as usize
}

impl Lowering<'_> {
    pub(super) fn recursive(&mut self, query: &RecursiveQuery) -> Result<NodeId> {
        if self.body.is_some() {
            return Err(Refusal::new("a recursion inside of the recursive part of another is not supported").help("write the inner one as a view"));
        }
        check(query)?;
        let fields: Vec<Field> = query.schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let base = self.lower(&query.static_term)?;
        let base = self.renamed(base, &schema, &query.name)?;
        let mut outside = Vec::new();
        independent(&query.recursive_term, &query.name, &mut outside);
        let mut inputs = vec![base];
        let mut body_inputs = BodyInputs::default();
        for part in outside {
            let node = self.lower(part)?;
            body_inputs.parts.push((address(part), self.schema(node)));
            inputs.push(node);
        }
        let mut draft = Plan { clock: self.plan.clock, ..Plan::default() };
        let mut inner = Lowering { plan: &mut draft, relations: self.relations, services: self.services, asked: Vec::new(), body: Some(body_inputs) };
        let step = inner.lower(&query.recursive_term)?;
        let step = inner.renamed(step, &schema, &query.name)?;
        let body = body_of(draft, step, &query.name)?;
        Ok(self.push(Op::Recursive { body, distinct: query.is_distinct }, inputs, schema))
    }

    /// A leaf of the body.
    pub(super) fn argument(&mut self, (index, schema): (usize, SchemaRef)) -> NodeId {
        self.push(Op::Argument { index }, Vec::new(), schema)
    }

    /// The recursion's own name, in its body.
    pub(super) fn round_before(&mut self, scan: &TableScan) -> Result<NodeId> {
        let schema = scan.source.schema();
        let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let node = self.argument((0, Arc::new(Schema::new(fields))));
        Ok(match &scan.projection {
            Some(columns) => self.pick(node, columns),
            None => node,
        })
    }

    /// The columns under the names of the recursion. Errors: another type.
    fn renamed(&mut self, node: NodeId, schema: &SchemaRef, name: &str) -> Result<NodeId> {
        let own = self.schema(node);
        for (found, wanted) in own.fields().iter().zip(schema.fields()) {
            if found.data_type() != wanted.data_type() {
                let message = format!(
                    "column {} of the recursion {name} is {} in one part and {} in the other",
                    wanted.name(),
                    wanted.data_type(),
                    found.data_type()
                );
                return Err(Refusal::new(message).help("CAST both to one type"));
            }
        }
        if own == *schema {
            return Ok(node);
        }
        let exprs = (0..own.fields().len()).map(|index| column(&own, index)).collect();
        Ok(self.project_always(node, exprs, schema.fields().iter().map(|field| field.name().clone()).collect()))
    }
}

/// Only what `step` needs, `step` last.
fn body_of(draft: Plan, step: NodeId, name: &str) -> Result<RecursionBody> {
    let mut needed = vec![false; draft.nodes.len()];
    needed[step.index()] = true;
    for index in (0..draft.nodes.len()).rev().filter(|index| *index <= step.index()) {
        if needed[index] {
            draft.nodes[index].inputs.iter().for_each(|input| needed[input.index()] = true);
        }
    }
    let mut places = vec![NodeId(0); draft.nodes.len()];
    let mut nodes: Vec<Node> = Vec::new();
    for (index, node) in draft.nodes.into_iter().enumerate().filter(|(index, _)| needed[*index]) {
        let linear = matches!(node.op, Op::Argument { .. } | Op::Project { .. } | Op::Filter { .. } | Op::Union)
            || matches!(&node.op, Op::Join { kind: JoinKind::Inner, nulls_equal: false, .. });
        if !linear {
            return Err(refusal(name));
        }
        places[index] = NodeId(nodes.len() as u32);
        nodes.push(Node { inputs: node.inputs.iter().map(|input| places[input.index()]).collect(), ..node });
    }
    Ok(RecursionBody { nodes })
}

fn refusal(name: &str) -> Refusal {
    Refusal::new(format!("the recursive part of {name} may only select, filter, join (INNER) and UNION ALL the rows of {name}"))
        .help("aggregate, rank or subtract outside: in a query over the recursion, or in a view that it reads")
}

/// The recursion's own name, in its body.
pub(crate) fn is_work_table(scan: &TableScan) -> bool {
    source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<CteWorkTable>().is_some())
}

fn references(plan: &LogicalPlan, name: &str) -> usize {
    let mut found = 0;
    let counted = plan.apply_with_subqueries(|node| {
        found += usize::from(matches!(node, LogicalPlan::TableScan(scan) if is_work_table(scan) && scan.table_name.table() == name));
        Ok(TreeNodeRecursion::Continue)
    });
    counted.expect("the closure never fails");
    found
}

/// What PostgreSQL refuses too: the recursion more than once, or where the answer would not grow with it.
fn check(query: &RecursiveQuery) -> Result<()> {
    let name = &query.name;
    match references(&query.recursive_term, name) {
        0 => return Err(Refusal::new(format!("the recursive part of {name} does not read {name}")).help("leave RECURSIVE and the second part away")),
        1 => {}
        _ => {
            return Err(Refusal::new(format!("the recursive part of {name} reads {name} more than once"))
                .help(format!("join {name} with a table, or with a view of one step, once")));
        }
    }
    let mut wrong = false;
    query.recursive_term.apply(|node| {
        let refers = references(node, name) > 0;
        wrong |= refers
            && match node {
                LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Distinct(_) => true,
                LogicalPlan::Join(join) => join.join_type != JoinType::Inner,
                _ => false,
            };
        Ok(TreeNodeRecursion::Continue)
    })?;
    if wrong { Err(refusal(name)) } else { Ok(()) }
}

/// The largest parts that do not refer to the recursion, in order.
fn independent<'a>(plan: &'a LogicalPlan, name: &str, found: &mut Vec<&'a LogicalPlan>) {
    if references(plan, name) == 0 {
        found.push(plan);
        return;
    }
    plan.inputs().into_iter().for_each(|input| independent(input, name, found));
}

//! Joins of every kind. In: DataFusion's node. Out: one join, with what its keys compute in columns below it, and the columns the query sees
//! above it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{DFSchema, JoinType, NullEquality, ScalarValue, TableReference};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator};
use freshet_core::{ExprRef, JoinKind, NodeId, Op};

use super::Lowering;
use crate::expr::{bare, compile};
use crate::now::mentions_now;
use crate::refusal::{Refusal, Result};
use crate::subquery::SingleRow;

/// A side of a join with its keys in columns.
struct Side {
    /// As the query has it.
    node: NodeId,
    /// With further columns for keys that are computed.
    wide: NodeId,
    keys: Vec<usize>,
}

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<NodeId> {
        if let JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark = join.join_type {
            return self.swapped(join);
        }
        let kind = kind_of(join)?;
        let condition = condition(join)?;
        let left = self.side(&join.left, join.on.iter().map(|(left, _)| left))?;
        let right = self.side(&join.right, join.on.iter().map(|(_, right)| right))?;
        let nulls_equal = join.null_equality == NullEquality::NullEqualsNull;
        if kind == JoinKind::Inner && (left.is_extended() || right.is_extended() || condition.as_ref().is_some_and(mentions_now)) {
            let node = self.push_join(kind, &left, &right, nulls_equal, Vec::new());
            let node = self.own_columns(node, kind, &left, &right);
            let both = join.left.schema().join(join.right.schema())?;
            return condition.map_or(Ok(node), |condition| self.filtered(node, &condition, &both));
        }
        if let Some(condition) = condition.as_ref().filter(|condition| mentions_now(condition)) {
            return Err(Refusal::new("a condition on now() in the ON of an outer join changes its partners without input")
                .help("filter the side first: JOIN (SELECT … FROM t WHERE ts > now() - INTERVAL '1 hour') AS t ON …")
                .at_expr(condition)
                .about_now());
        }
        match (&condition, kind) {
            (None, _) => {
                let node = self.push_join(kind, &left, &right, nulls_equal, Vec::new());
                Ok(self.own_columns(node, kind, &left, &right))
            }
            (Some(condition), JoinKind::NullAwareAnti | JoinKind::NullAwareMark) => self.null_aware_join(join, kind, condition, left, right),
            (Some(condition), _) => {
                let residual = self.residual(condition, join, &left, &right)?;
                let node = self.push_join(kind, &left, &right, nulls_equal, residual);
                Ok(self.own_columns(node, kind, &left, &right))
            }
        }
    }

    /// A RIGHT JOIN is a LEFT JOIN of its sides the other way round.
    fn swapped(&mut self, join: &Join) -> Result<NodeId> {
        let swapped = Join {
            left: join.right.clone(),
            right: join.left.clone(),
            on: join.on.iter().map(|(left, right)| (right.clone(), left.clone())).collect(),
            join_type: join.join_type.swap(),
            ..join.clone()
        };
        let node = self.join(&swapped)?;
        if join.join_type != JoinType::Right {
            return Ok(node);
        }
        let (left, right) = (join.left.schema().fields().len(), join.right.schema().fields().len());
        let order: Vec<usize> = (right..right + left).chain(0..right).collect();
        Ok(self.pick(node, &order))
    }

    fn side<'e>(&mut self, plan: &LogicalPlan, keys: impl Iterator<Item = &'e Expr>) -> Result<Side> {
        let node = self.lower(plan)?;
        let keys: Vec<Expr> = keys.cloned().collect();
        let (wide, keys) = self.extend(node, plan.schema(), &keys)?;
        Ok(Side { node, wide, keys })
    }

    fn push_join(&mut self, kind: JoinKind, left: &Side, right: &Side, nulls_equal: bool, residual: Vec<ExprRef>) -> NodeId {
        let mut fields: Vec<FieldRef> = self.schema(left.wide).fields().iter().cloned().collect();
        if kind == JoinKind::Full {
            fields = fields.iter().map(nullable).collect();
        }
        match kind {
            JoinKind::Inner => fields.extend(self.schema(right.wide).fields().iter().cloned()),
            JoinKind::Left | JoinKind::Full => fields.extend(self.schema(right.wide).fields().iter().map(nullable)),
            JoinKind::Mark | JoinKind::NullAwareMark => fields.push(Arc::new(Field::new("mark", DataType::Boolean, true))),
            JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti => {}
        }
        let op = Op::Join { kind, left_keys: left.keys.clone(), right_keys: right.keys.clone(), nulls_equal, residual };
        self.push(op, vec![left.wide, right.wide], Arc::new(Schema::new(fields)))
    }

    /// Without the columns that were added for keys.
    fn own_columns(&mut self, node: NodeId, kind: JoinKind, left: &Side, right: &Side) -> NodeId {
        if !(left.is_extended() || right.is_extended() && kind.shows_right()) {
            return node;
        }
        let second = self.width(left.wide);
        let behind = if kind.shows_right() { self.width(right.node) } else { usize::from(kind.has_mark()) };
        let own: Vec<usize> = (0..self.width(left.node)).chain(second..second + behind).collect();
        self.pick(node, &own)
    }

    /// The conjuncts over the columns of both sides as the join has them.
    fn residual(&mut self, condition: &Expr, join: &Join, left: &Side, right: &Side) -> Result<Vec<ExprRef>> {
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = Vec::new();
        for (side, schema) in [(left, join.left.schema()), (right, join.right.schema())] {
            let own = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
            let wide = self.schema(side.wide);
            let start = fields.len();
            let added = (self.width(side.node)..self.width(side.wide))
                .map(|index| (None, Arc::new(Field::new(format!("{}$", start + index), wide.field(index).data_type().clone(), true))));
            fields.extend(own.chain(added).collect::<Vec<_>>());
        }
        let both = DFSchema::new_with_metadata(fields, Default::default())?;
        split_conjunction(condition).into_iter().flat_map(comparisons).map(|conjunct| compile(&conjunct, &both)).collect()
    }

    /// A list that a condition, too, says the rows of: what is compared becomes a condition itself, of which "unknown" is no "no".
    fn null_aware_join(&mut self, join: &Join, kind: JoinKind, condition: &Expr, left: Side, right: Side) -> Result<NodeId> {
        let (value, element) = join.on.first().expect("NOT IN compares a value").clone();
        let of_other_keys = |side: &Side| Side { node: side.node, wide: side.wide, keys: side.keys[1..].to_vec() };
        let unknown = Expr::or(value.clone().is_null(), element.clone().is_null());
        if kind == JoinKind::NullAwareAnti {
            let equal = Expr::BinaryExpr(BinaryExpr::new(Box::new(value), Operator::Eq, Box::new(element)));
            let condition = Expr::and(Expr::or(equal, unknown), condition.clone());
            let (left, right) = (of_other_keys(&left), of_other_keys(&right));
            let residual = self.residual(&condition, join, &left, &right)?;
            let node = self.push_join(JoinKind::Anti, &left, &right, false, residual);
            return Ok(self.own_columns(node, JoinKind::Anti, &left, &right));
        }
        let residual = self.residual(condition, join, &left, &right)?;
        let equal = self.push_join(JoinKind::Mark, &left, &right, false, residual);
        let marked = Side { node: left.node, wide: equal, keys: left.keys[1..].to_vec() };
        let others = of_other_keys(&right);
        let unknown = self.residual(&Expr::and(unknown, condition.clone()), join, &marked, &others)?;
        let both = self.push_join(JoinKind::Mark, &marked, &others, false, unknown);
        self.three_valued(both, self.width(left.node), self.width(left.wide))
    }

    /// The first columns, then a mark made of two: equal, and else unknown.
    fn three_valued(&mut self, node: NodeId, own: usize, marks: usize) -> Result<NodeId> {
        let schema = self.schema(node);
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            fields.push((None, Arc::new(Field::new(format!("{index}$"), field.data_type().clone(), true))));
        }
        let named = DFSchema::new_with_metadata(fields, Default::default())?;
        let column = |index: usize| Expr::Column(datafusion::common::Column::new_unqualified(format!("{index}$")));
        let unknown = datafusion::logical_expr::when(column(marks + 1), Expr::Literal(ScalarValue::Boolean(None), None))
            .otherwise(Expr::Literal(ScalarValue::Boolean(Some(false)), None))?;
        let mark = datafusion::logical_expr::when(column(marks), Expr::Literal(ScalarValue::Boolean(Some(true)), None)).otherwise(unknown)?;
        let mut exprs: Vec<ExprRef> = (0..own).map(|index| super::project::column(&schema, index)).collect();
        exprs.push(compile(&mark, &named)?);
        let mut names: Vec<String> = (0..own).map(|index| schema.field(index).name().clone()).collect();
        names.push("mark".into());
        Ok(self.project(node, exprs, names))
    }
}

impl Side {
    fn is_extended(&self) -> bool {
        self.node != self.wide
    }
}

fn nullable(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_nullable(true))
}

/// BETWEEN as the two comparisons it stands for, so that what each says of times is seen.
fn comparisons(conjunct: &Expr) -> Vec<Expr> {
    match conjunct {
        Expr::Between(between) if !between.negated => {
            let value = || between.expr.as_ref().clone();
            vec![value().gt_eq(between.low.as_ref().clone()), value().lt_eq(between.high.as_ref().clone())]
        }
        other => vec![other.clone()],
    }
}

/// The residual condition; a constant TRUE is none.
fn condition(join: &Join) -> Result<Option<Expr>> {
    let condition = join.filter.clone().map(bare).transpose()?;
    let is_true = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Boolean(Some(true)), _));
    Ok(condition.and_then(|condition| conjunction(split_conjunction(&condition).into_iter().filter(|part| !is_true(part)).cloned())))
}

fn kind_of(join: &Join) -> Result<JoinKind> {
    Ok(match join.join_type {
        JoinType::Inner => JoinKind::Inner,
        // A value: there is always one row, or an error.
        JoinType::Left if join.on.is_empty() && condition(join)?.is_none() && is_single_row(&join.right) => JoinKind::Inner,
        JoinType::Left => JoinKind::Left,
        JoinType::Full => JoinKind::Full,
        JoinType::LeftSemi => JoinKind::Semi,
        JoinType::LeftAnti if join.null_aware => JoinKind::NullAwareAnti,
        JoinType::LeftAnti => JoinKind::Anti,
        JoinType::LeftMark if join.null_aware => JoinKind::NullAwareMark,
        JoinType::LeftMark => JoinKind::Mark,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            return Err(Refusal::new("a right join was not turned round; that is a bug of Freshet"));
        }
    })
}

/// True if the plan yields exactly one row whatever its input: an aggregate without keys, or what stands for a value.
pub(crate) fn is_single_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => is_single_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_single_row(&alias.input),
        LogicalPlan::Join(join) => is_single_row(&join.left) && is_single_row(&join.right) && join.on.is_empty() && join.filter.is_none(),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Values(values) => values.values.len() == 1,
        LogicalPlan::Extension(extension) => extension.node.as_any().is::<SingleRow>(),
        _ => false,
    }
}

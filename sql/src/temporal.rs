//! Joins in time: `[LEFT] ASOF JOIN … MATCH_CONDITION (…)` and `[LEFT] JOIN t FOR SYSTEM_TIME AS OF time`. In: the nested joins that
//! [`crate::fold`] makes of them. Out: a plan node with both sides, and for the batch oracle an equivalent plan of plain joins.
//!
//! The node's columns are those of the left side, then those of the right side; a column of USING is there once.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, Result, ScalarValue, TableReference};
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, Operator, UserDefinedLogicalNodeCore, WindowFrame,
    WindowFunctionDefinition,
};
use datafusion::sql::sqlparser::ast::{self, Spanned};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::check::{function_name, is_now_call};
use crate::context::Functions;
use crate::expr::bare;
use crate::fold::is_temporal;
use crate::lower::is_ordered;
use crate::relation::wrong_at;

/// What the token pass calls around the condition of a LEFT ASOF JOIN.
pub(crate) const LEFT: &str = "__left";

/// Which right rows a left row meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Meeting {
    /// The nearest one by the condition, which is the last expression.
    Nearest,
    /// Those that were there when the left row came.
    AtArrival,
    /// Those that were there at a time of the left row, which is the last expression.
    AtTime,
}

/// Two sides, and how they meet in time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TemporalJoin {
    pub meeting: Meeting,
    pub outer: bool,
    /// Equalities, then the condition or time.
    pub exprs: Vec<Expr>,
    pub left: Arc<LogicalPlan>,
    pub right: Arc<LogicalPlan>,
    /// Right columns that USING shows once, as those of the left side.
    using: Vec<String>,
    schema: DFSchemaRef,
}

impl TemporalJoin {
    fn new(
        (meeting, outer): (Meeting, bool),
        exprs: Vec<Expr>,
        (left, right): (LogicalPlan, LogicalPlan),
        using: Vec<String>,
    ) -> Result<TemporalJoin> {
        let mut fields: Vec<(Option<TableReference>, FieldRef)> =
            left.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        let shown = right.schema().iter().filter(|(_, field)| !using.contains(field.name()));
        fields.extend(shown.map(|(qualifier, field)| {
            let nullable = outer || field.is_nullable();
            (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
        }));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(TemporalJoin { meeting, outer, exprs, left: Arc::new(left), right: Arc::new(right), using, schema })
    }

    /// The right columns that are shown.
    pub fn shown(&self) -> Vec<usize> {
        let fields = self.right.schema().fields();
        (0..fields.len()).filter(|index| !self.using.contains(fields[*index].name())).collect()
    }

    /// The equalities, and the condition or time behind them.
    pub fn parts(&self) -> (&[Expr], Option<&Expr>) {
        match (self.meeting, self.exprs.split_last()) {
            (Meeting::Nearest | Meeting::AtTime, Some((last, keys))) => (keys, Some(last)),
            _ => (&self.exprs, None),
        }
    }

    /// Both operands of a comparison, the left side's first, and the operator between them in that order.
    pub fn operands(&self, comparison: &Expr) -> Result<Option<(Expr, Operator, Expr)>> {
        operands(comparison, self.left.schema(), self.right.schema())
    }
}

impl PartialOrd for TemporalJoin {
    fn partial_cmp(&self, _: &TemporalJoin) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for TemporalJoin {
    fn name(&self) -> &str {
        "TemporalJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.exprs.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exprs: Vec<String> = self.exprs.iter().map(|expr| expr.to_string()).collect();
        write!(f, "TemporalJoin: {:?}{} [{}]", self.meeting, if self.outer { " outer" } else { "" }, exprs.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<TemporalJoin> {
        let right = inputs.pop().expect("a join has two inputs");
        let left = inputs.pop().expect("a join has two inputs");
        TemporalJoin::new((self.meeting, self.outer), exprs, (left, right), self.using.clone())
    }

    /// The whole right side: its rows at one time are told apart by all columns. The whole left side too where an answer is a fact about the row
    /// (C1b): without the column that tells two left rows apart, a retraction could take the other one's answer.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let right = (0..self.right.schema().fields().len()).collect();
        if self.meeting != Meeting::Nearest {
            let is_clock = |column: usize| !output_columns.contains(&column) && is_clock(&self.left, column);
            return Some(vec![(0..width).filter(|column| !is_clock(*column)).collect(), right]);
        }
        let read = self.exprs.iter().flat_map(|expr| expr.column_refs().into_iter().cloned().collect::<Vec<_>>());
        let read = read.filter_map(|column| self.left.schema().index_of_column(&column).ok());
        let left: BTreeSet<usize> = output_columns.iter().copied().filter(|column| *column < width).chain(read).collect();
        Some(vec![left.into_iter().collect(), right])
    }
}

/// Flink's processing time.
const PROCTIME: &str = "proctime";

/// True if the column is now() or the processing time.
fn is_clock(plan: &LogicalPlan, column: usize) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_clock(&alias.input, column),
        LogicalPlan::Filter(filter) => is_clock(&filter.input, column),
        LogicalPlan::Projection(projection) => match bare(projection.expr[column].clone()) {
            Ok(Expr::Column(below)) => projection.input.schema().index_of_column(&below).is_ok_and(|below| is_clock(&projection.input, below)),
            Ok(Expr::ScalarFunction(function)) => ["now", PROCTIME].contains(&function.name()),
            Ok(_) => false,
            Err(_) => false,
        },
        _ => false,
    }
}

/// The comparison with the left side's operand first; None if it does not compare the two sides.
fn operands(comparison: &Expr, left: &DFSchema, right: &DFSchema) -> Result<Option<(Expr, Operator, Expr)>> {
    let Expr::BinaryExpr(BinaryExpr { left: one, op, right: other }) = bare(comparison.clone()).map_err(|refusal| plan_error(&refusal.message))?
    else {
        return Ok(None);
    };
    Ok(match (side(&one, left, right), side(&other, left, right)) {
        (Some(JoinSide::Left), Some(JoinSide::Right)) => Some((*one, op, *other)),
        (Some(JoinSide::Right), Some(JoinSide::Left)) => op.swap().map(|op| (*other, op, *one)),
        _ => None,
    })
}

fn plan_error(message: &str) -> datafusion::common::DataFusionError {
    datafusion::common::DataFusionError::Plan(message.to_string())
}

#[derive(Clone, Copy, PartialEq)]
enum JoinSide {
    Left,
    Right,
}

/// The side that all columns of an expression come from; None without columns, or with columns of both.
fn side(expr: &Expr, left: &DFSchema, right: &DFSchema) -> Option<JoinSide> {
    let columns = expr.column_refs();
    let all = |schema: &DFSchema| !columns.is_empty() && columns.iter().all(|column| schema.has_column(column));
    match (all(left), all(right)) {
        (true, _) => Some(JoinSide::Left),
        (false, true) => Some(JoinSide::Right),
        (false, false) => None,
    }
}

/// Plans the nested joins that end in a join in time; leaves everything else to others.
#[derive(Debug)]
pub(crate) struct TemporalPlanner;

impl RelationPlanner for TemporalPlanner {
    fn plan_relation(&self, relation: ast::TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        match relation {
            ast::TableFactor::NestedJoin { table_with_joins, alias: None } if table_with_joins.joins.last().is_some_and(is_temporal) => {
                let plan = planned(*table_with_joins, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

fn planned(mut joined: ast::TableWithJoins, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let join = joined.joins.pop().expect("a folded join ends with the join in time");
    let left = match joined.joins.is_empty() {
        true => joined.relation,
        false => ast::TableFactor::NestedJoin { table_with_joins: Box::new(joined), alias: None },
    };
    let left = context.plan(left)?;
    let place = join.relation.span();
    let mut relation = join.relation;
    let version = match &mut relation {
        ast::TableFactor::Table { version, .. } => version.take(),
        _ => None,
    };
    let right = context.plan(relation)?;
    let (outer, constraint, condition) = match join.join_operator {
        ast::JoinOperator::AsOf { match_condition, constraint } => {
            let (condition, outer) = without_left(match_condition);
            (outer, constraint, Some(condition))
        }
        ast::JoinOperator::Left(constraint) | ast::JoinOperator::LeftOuter(constraint) => (true, constraint, None),
        ast::JoinOperator::Join(constraint) | ast::JoinOperator::Inner(constraint) => (false, constraint, None),
        _ => return Err(wrong_at("FOR SYSTEM_TIME AS OF stands in a JOIN or a LEFT JOIN", "LEFT JOIN t FOR SYSTEM_TIME AS OF now() ON …", place)),
    };
    let sides = Sides { left, right, outer, place };
    let (sides, mut exprs, using) = sides.constrained(constraint, context)?;
    let meeting = match (condition, version) {
        (Some(condition), _) => {
            exprs.push(sides.nearest(condition, context)?);
            Meeting::Nearest
        }
        (None, Some(ast::TableVersion::ForSystemTimeAsOf(time))) => match sides.time(time, context)? {
            Some(time) => {
                exprs.push(time);
                Meeting::AtTime
            }
            None => Meeting::AtArrival,
        },
        (None, _) => return Err(wrong_at("this version of a table is not supported", "FOR SYSTEM_TIME AS OF now()", place)),
    };
    let node = TemporalJoin::new((meeting, outer), exprs, (sides.left, sides.right), using)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// The condition of an ASOF JOIN, and whether it was a LEFT one.
fn without_left(condition: ast::Expr) -> (ast::Expr, bool) {
    if let ast::Expr::Function(function) = &condition
        && function.name.to_string() == LEFT
        && let ast::FunctionArguments::List(list) = &function.args
        && let [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(inner))] = list.args.as_slice()
    {
        return (inner.clone(), true);
    }
    (condition, false)
}

struct Sides {
    left: LogicalPlan,
    right: LogicalPlan,
    outer: bool,
    place: Span,
}

impl Sides {
    /// The equalities between the sides; a condition on one side alone becomes a filter of it.
    fn constrained(mut self, constraint: ast::JoinConstraint, context: &mut dyn RelationPlannerContext) -> Result<(Sides, Vec<Expr>, Vec<String>)> {
        let (mut keys, mut using) = (Vec::new(), Vec::new());
        match constraint {
            ast::JoinConstraint::None => {}
            ast::JoinConstraint::Using(columns) => {
                for column in columns {
                    let Some(ident) = column.0.last().and_then(|part| part.as_ident()).cloned() else { continue };
                    let one = context.sql_to_expr(ast::Expr::Identifier(ident.clone()), self.left.schema())?;
                    let other = context.sql_to_expr(ast::Expr::Identifier(ident.clone()), self.right.schema())?;
                    keys.push(one.eq(other));
                    using.push(context.normalize_ident(ident));
                }
            }
            ast::JoinConstraint::On(condition) => {
                let both = self.left.schema().join(self.right.schema())?;
                let place = condition.span();
                let condition = context.sql_to_expr(condition, &both)?;
                for conjunct in split_conjunction(&condition) {
                    let (left, right) = (self.left.schema().clone(), self.right.schema().clone());
                    match operands(conjunct, &left, &right)? {
                        Some((one, Operator::Eq, other)) => keys.push(one.eq(other)),
                        _ => match side(conjunct, &left, &right) {
                            Some(JoinSide::Right) => self.right = LogicalPlanBuilder::from(self.right).filter(conjunct.clone())?.build()?,
                            Some(JoinSide::Left) if !self.outer => {
                                self.left = LogicalPlanBuilder::from(self.left).filter(conjunct.clone())?.build()?;
                            }
                            None if matches!(conjunct, Expr::Literal(ScalarValue::Boolean(Some(true)), _)) => {}
                            _ => {
                                return Err(wrong_at(
                                    "a join in time has equalities between its sides in ON, and conditions on its right side",
                                    "put the other condition into WHERE, or into a CASE over the joined columns",
                                    place,
                                ));
                            }
                        },
                    }
                }
            }
            ast::JoinConstraint::Natural => {
                return Err(wrong_at("a join in time says its keys", "USING (key), or ON left.key = right.key", self.place));
            }
        }
        Ok((self, keys, using))
    }

    fn nearest(&self, condition: ast::Expr, context: &mut dyn RelationPlannerContext) -> Result<Expr> {
        let place = condition.span();
        let both = self.left.schema().join(self.right.schema())?;
        let condition = context.sql_to_expr(condition, &both)?;
        let wrong = || {
            wrong_at(
                "MATCH_CONDITION compares one time of the left side with one of the right side, by >=, >, <= or <",
                "MATCH_CONDITION (left.ts >= right.ts)",
                place,
            )
        };
        let (one, op, other) = operands(&condition, self.left.schema(), self.right.schema())?.ok_or_else(wrong)?;
        if !matches!(op, Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq) {
            return Err(wrong());
        }
        for (expr, schema) in [(&one, self.left.schema()), (&other, self.right.schema())] {
            let data_type = expr.get_type(schema)?;
            if !is_ordered(&data_type) {
                return Err(wrong_at(
                    &format!("MATCH_CONDITION needs times, and this is {data_type}"),
                    "compare TIMESTAMP columns, or numbers",
                    place,
                ));
            }
        }
        Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(one), op, Box::new(other))))
    }

    /// The time of the left side; None for now().
    fn time(&self, time: ast::Expr, context: &mut dyn RelationPlannerContext) -> Result<Option<Expr>> {
        if is_now_call(&time) || matches!(&time, ast::Expr::Function(function) if function_name(function) == PROCTIME) {
            return Ok(None);
        }
        let place = time.span();
        let time = context.sql_to_expr(time, self.left.schema())?;
        if let Expr::Column(column) = &time
            && self.left.schema().index_of_column(column).is_ok_and(|column| is_clock(&self.left, column))
        {
            return Ok(None);
        }
        match (time.get_type(self.left.schema())?, time.column_refs().is_empty()) {
            (DataType::Timestamp(_, None), false) => Ok(Some(time)),
            (other, _) => Err(wrong_at(
                &format!("a table is joined as of now() or of a TIMESTAMP of the left side, and this is {other}"),
                "FOR SYSTEM_TIME AS OF now()",
                place,
            )),
        }
    }
}

/// ASOF joins as plain joins, for the batch oracle: all pairs that fulfil the condition, numbered from the nearest for each left row.
pub(crate) fn without_asof(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plain = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
        match extension.node.as_any().downcast_ref::<TemporalJoin>().filter(|join| join.meeting == Meeting::Nearest) {
            Some(join) => Ok(Transformed::yes(all_pairs(join)?)),
            None => Ok(Transformed::no(node)),
        }
    });
    plain.data()
}

/// Whether some answer is a fact about the epoch of a row (C1b).
pub(crate) fn joins_at_arrival(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Extension(extension) = node {
            found |= extension.node.as_any().downcast_ref::<TemporalJoin>().is_some_and(|join| join.meeting != Meeting::Nearest);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found && walked.is_ok()
}

fn all_pairs(join: &TemporalJoin) -> Result<LogicalPlan> {
    const LEFT_ROW: &str = "freshet$left";
    const NEAREST: &str = "freshet$nearest";
    let numbered = |partition: Vec<Expr>, order: Vec<SortExpr>, name: &str| {
        let mut call = WindowFunction::new(WindowFunctionDefinition::WindowUDF(Functions::get().window["row_number"].clone()), Vec::new());
        call.params.partition_by = partition;
        call.params.window_frame = WindowFrame::new((!order.is_empty()).then_some(false));
        call.params.order_by = order;
        Expr::from(call).alias(name)
    };
    let (_, Some(condition)) = join.parts() else { return Err(plan_error("an ASOF JOIN has a condition")) };
    let (_, op, time) = join.operands(condition)?.ok_or_else(|| plan_error("the condition of an ASOF JOIN compares both sides"))?;
    let latest = matches!(op, Operator::Gt | Operator::GtEq);
    let mut order = vec![SortExpr::new(time, !latest, false)];
    order.extend(join.right.schema().columns().into_iter().map(|column| SortExpr::new(Expr::Column(column), false, false)));
    let left = LogicalPlanBuilder::from(join.left.as_ref().clone()).window([numbered(Vec::new(), Vec::new(), LEFT_ROW)])?;
    let kind = if join.outer { JoinType::Left } else { JoinType::Inner };
    let pairs = left.join_on(join.right.as_ref().clone(), kind, join.exprs.iter().cloned())?;
    let by_row = Expr::Column(Column::new_unqualified(LEFT_ROW));
    let first = Expr::Column(Column::new_unqualified(NEAREST)).eq(Expr::Literal(ScalarValue::UInt64(Some(1)), None));
    let nearest = pairs.window([numbered(vec![by_row], order, NEAREST)])?.filter(first)?;
    nearest.project(join.schema.columns().into_iter().map(Expr::Column))?.build()
}

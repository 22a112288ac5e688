//! EXISTS and IN become joins: semi and anti joins where they are conditions of their own, marks where their value is used. In: filters and
//! projections with subqueries. Out: the same over joins.
//!
//! It stands in for DataFusion's decorrelate_predicate_subquery, whose marks are two-valued, so that `NOT (x IN (…)) OR …` kept rows whose
//! answer is unknown, and which knows filters only.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, NullEquality, Result, plan_err};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::expr_rewriter::{NamePreserver, create_col_from_scalar_expr, replace_col};
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, Extension, Filter, Join, JoinConstraint, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, UserDefinedLogicalNodeCore, lit,
};
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerContext, OptimizerRule};

use crate::lower::is_single_row;

/// What DataFusion calls the column of a mark.
const MARK: &str = "mark";

/// The rule.
#[derive(Debug)]
pub(crate) struct Existence;

impl OptimizerRule for Existence {
    fn name(&self) -> &str {
        "existence"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let plan = plan.map_subqueries(|subquery| subquery.transform_down(|below| self.rewrite(below, config)))?;
        let aliases = config.alias_generator();
        match plan.data {
            LogicalPlan::Filter(filter) if asks(&filter.predicate) => Ok(Transformed::yes(filtered(filter, aliases)?)),
            LogicalPlan::Projection(projection) if projection.expr.iter().any(asks) => Ok(Transformed::yes(projected(projection, aliases)?)),
            other => Ok(Transformed::new(other, plan.transformed, plan.tnr)),
        }
    }
}

/// Rows with a mark that may be NULL. DataFusion holds that marks never are, and would simplify `(x IN (…)) IS NULL` to false.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Marked {
    pub input: Arc<LogicalPlan>,
    schema: DFSchemaRef,
}

impl Marked {
    fn new(input: LogicalPlan) -> Result<Marked> {
        let fields = input.schema().iter().map(|(qualifier, field)| {
            let field = if field.name() == MARK { Arc::new(field.as_ref().clone().with_nullable(true)) } else { field.clone() };
            (qualifier.cloned(), field)
        });
        let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), Default::default())?);
        Ok(Marked { input: Arc::new(input), schema })
    }
}

impl PartialOrd for Marked {
    fn partial_cmp(&self, _: &Marked) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for Marked {
    fn name(&self) -> &str {
        "Marked"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    /// Conditions on the rows themselves may be tested before they are marked.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::from([MARK.to_string()])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Marked")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Marked> {
        Marked::new(inputs.pop().expect("it has one input"))
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }
}

/// For DataFusion's executor, which runs no EXISTS outside of a filter: those in a SELECT list become joins with marks.
pub(crate) fn joined_values(plan: LogicalPlan) -> Result<LogicalPlan> {
    let aliases = Arc::new(AliasGenerator::new());
    plan.transform_up_with_subqueries(|node| {
        if !matches!(&node, LogicalPlan::Projection(projection) if projection.expr.iter().any(compares)) {
            return Ok(Transformed::no(node));
        }
        let node = RewriteSetComparison::new().rewrite(node, &OptimizerContext::new())?.data;
        Ok(match node {
            LogicalPlan::Projection(projection) => Transformed::yes(projected(projection, &aliases)?),
            other => Transformed::no(other),
        })
    })
    .data()
}

/// EXISTS, or a comparison with a list, which becomes some of them.
fn compares(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::SetComparison(_) | Expr::Exists(_)))).unwrap_or(false)
}

fn asks(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::InSubquery(_) | Expr::Exists(_)))).unwrap_or(false)
}

/// One EXISTS or IN.
struct Question {
    /// The value that IN looks for.
    value: Option<Expr>,
    subquery: Subquery,
    negated: bool,
}

impl Question {
    fn of(expr: &Expr) -> Option<Question> {
        match expr {
            Expr::Not(inner) => Question::of(inner).map(|question| Question { negated: !question.negated, ..question }),
            Expr::Exists(Exists { subquery, negated }) => Some(Question { value: None, subquery: subquery.clone(), negated: *negated }),
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                Some(Question { value: Some(expr.as_ref().clone()), subquery: subquery.clone(), negated: *negated })
            }
            _ => None,
        }
    }

    /// EXISTS of what always has a row.
    fn is_always_true(&self) -> bool {
        self.value.is_none() && is_single_row(&self.subquery.subquery)
    }
}

fn filtered(filter: Filter, aliases: &Arc<AliasGenerator>) -> Result<LogicalPlan> {
    let mut input = filter.input.as_ref().clone();
    let columns = input.schema().columns();
    let mut others = Vec::new();
    let (asking, plain): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(filter.predicate).into_iter().partition(asks);
    others.extend(plain);
    for conjunct in asking {
        let joined = match Question::of(&conjunct) {
            Some(question) if question.is_always_true() => {
                others.push(lit(!question.negated));
                continue;
            }
            Some(question) => {
                let join_type = if question.negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
                joined(&input, &question, join_type, aliases.next("__correlated_sq"))?
            }
            None => None,
        };
        match joined {
            Some(plan) => input = plan,
            None => {
                let (plan, expr) = marked(input, conjunct, aliases)?;
                input = plan;
                others.push(expr);
            }
        }
    }
    if let Some(predicate) = conjunction(others) {
        input = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?);
    }
    if input.schema().fields().len() != columns.len() {
        input = LogicalPlanBuilder::from(input).project(columns.into_iter().map(Expr::Column))?.build()?;
    }
    Ok(input)
}

fn projected(projection: Projection, aliases: &Arc<AliasGenerator>) -> Result<LogicalPlan> {
    let mut input = projection.input.as_ref().clone();
    let preserver = NamePreserver::new_for_projection();
    let mut exprs = Vec::with_capacity(projection.expr.len());
    for expr in projection.expr {
        let name = preserver.save(&expr);
        let (plan, expr) = marked(input, expr, aliases)?;
        input = plan;
        exprs.push(name.restore(expr));
    }
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
}

/// Every question in the expression becomes a mark of the rows below; one that cannot stays, and lowering refuses it.
fn marked(mut input: LogicalPlan, expr: Expr, aliases: &Arc<AliasGenerator>) -> Result<(LogicalPlan, Expr)> {
    let expr = expr.transform_up(|part| {
        let Some(question) = Question::of(&part).filter(|_| !matches!(part, Expr::Not(_))) else { return Ok(Transformed::no(part)) };
        if question.is_always_true() {
            return Ok(Transformed::yes(lit(!question.negated)));
        }
        let alias = aliases.next("__correlated_sq");
        let Some(plan) = joined(&input, &question, JoinType::LeftMark, alias.clone())? else { return Ok(Transformed::no(part)) };
        input = match question.value {
            Some(_) => LogicalPlan::Extension(Extension { node: Arc::new(Marked::new(plan)?) }),
            None => plan,
        };
        let mark = Expr::Column(Column::new(Some(alias), MARK));
        Ok(Transformed::yes(if question.negated { Expr::Not(Box::new(mark)) } else { mark }))
    });
    Ok((input, expr.data()?))
}

/// `left` joined with the rows of the subquery; None if what correlates it cannot be pulled up.
fn joined(left: &LogicalPlan, question: &Question, join_type: JoinType, alias: String) -> Result<Option<LogicalPlan>> {
    let subquery = question.subquery.subquery.as_ref();
    let element = match &question.value {
        Some(_) => match subquery.head_output_expr()? {
            Some(element) => Some(element),
            None => return plan_err!("IN needs a subquery of one column"),
        },
        None => None,
    };
    let equality = question.value.clone().zip(element.clone()).map(|(value, element)| value.eq(element));
    let mut pull_up = PullUpCorrelatedExpr::new().with_in_predicate_opt(equality.clone()).with_exists_sub_query(equality.is_none());
    let plan = subquery.clone().rewrite(&mut pull_up).data()?;
    // Grouped by what correlates it, an aggregate has no row where it had one.
    if !pull_up.can_pull_up || pull_up.pulled_up_scalar_agg {
        return Ok(None);
    }
    let right = LogicalPlanBuilder::from(plan).alias(alias.clone())?.build()?;
    let correlated: BTreeSet<Column> = pull_up.correlated_subquery_cols_map.values().flatten().cloned().collect();
    let filter = conjunction(pull_up.join_filters).map(|filter| qualified(filter, &correlated, &alias)).transpose()?;
    let on = match question.value.clone().zip(element) {
        Some((value, element)) => vec![(value, Expr::Column(create_col_from_scalar_expr(&element, alias)?))],
        None => Vec::new(),
    };
    let null_aware = !on.is_empty() && (join_type == JoinType::LeftMark || join_type == JoinType::LeftAnti);
    let join = Join::try_new(
        Arc::new(left.clone()),
        Arc::new(right),
        on,
        filter,
        join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        null_aware,
    )?;
    Ok(Some(LogicalPlan::Join(join)))
}

/// The subquery's columns under its alias.
fn qualified(filter: Expr, columns: &BTreeSet<Column>, alias: &str) -> Result<Expr> {
    let named: Vec<Column> = columns.iter().map(|column| Column::new(Some(alias), &column.name)).collect();
    let map: HashMap<&Column, &Column> = columns.iter().zip(&named).collect();
    replace_col(filter, &map)
}

//! Subqueries beside a row that DataFusion's rules do not take apart. In: the plan as written. Out: UNNEST of a column as a projection and an UNNEST
//! of the left side; ORDER BY … LIMIT n per row as a rank below the condition that correlates it.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, Result, ScalarValue, TableReference};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::logical_plan::{Subquery, SubqueryAlias};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprFunctionExt, FetchType, Filter, Join, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection, SkipType,
    WindowFunctionDefinition, lit,
};

/// Whose columns those of a subquery are while they stand beside those of the left side, which may have the same names.
const BESIDE: &str = "freshet$beside";

/// Takes apart what it can; the rest stays as it is.
pub(crate) fn unfolded(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Join(join) = &node else { return Ok(Transformed::no(node)) };
        if !join.on.is_empty() || !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return Ok(Transformed::no(node));
        }
        let Some((subquery, alias)) = lateral(&join.right) else { return Ok(Transformed::no(node)) };
        if join.join_type == JoinType::Inner && reads_nothing(&subquery.subquery) {
            return Ok(Transformed::yes(beside(join, &subquery.subquery, alias)?));
        }
        let Some(ranked) = ranked(&subquery.subquery)? else { return Ok(Transformed::no(node)) };
        let subquery = LogicalPlan::Subquery(Subquery { subquery: Arc::new(ranked), ..subquery.clone() });
        let right = match alias {
            Some(alias) => LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(subquery), alias.clone())?),
            None => subquery,
        };
        Ok(Transformed::yes(LogicalPlan::Join(Join { right: Arc::new(right), ..join.clone() })))
    })
    .data()
}

fn lateral(right: &LogicalPlan) -> Option<(&Subquery, Option<&TableReference>)> {
    match right {
        LogicalPlan::Subquery(subquery) => Some((subquery, None)),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some((subquery, Some(&alias.alias))),
            _ => None,
        },
        _ => None,
    }
}

/// True if the subquery is computed from the left row alone.
fn reads_nothing(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Unnest(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(reads_nothing)
        }
        _ => false,
    }
}

/// The left side with the columns of the subquery behind its own.
fn beside(join: &Join, subquery: &LogicalPlan, alias: Option<&TableReference>) -> Result<LogicalPlan> {
    let own = join.left.schema().columns();
    let mut plan = over(subquery, &join.left, &own)?;
    let columns = plan.schema().columns();
    let behind = columns[own.len()..].iter().map(|column| {
        let name = column.name.clone();
        Expr::Column(column.clone()).alias_qualified(alias.cloned(), name)
    });
    let all: Vec<Expr> = own.iter().cloned().map(Expr::Column).chain(behind).collect();
    plan = LogicalPlanBuilder::from(plan).project(all)?.build()?;
    match &join.filter {
        Some(filter) => LogicalPlanBuilder::from(plan).filter(filter.clone())?.build(),
        None => Ok(plan),
    }
}

/// The same steps over the left side, whose columns are kept in front.
fn over(plan: &LogicalPlan, left: &Arc<LogicalPlan>, own: &[Column]) -> Result<LogicalPlan> {
    let own_exprs = || own.iter().cloned().map(Expr::Column);
    let input = |plan: &Arc<LogicalPlan>| over(plan, left, own);
    match plan {
        LogicalPlan::Projection(projection) => {
            let input = input(&projection.input)?;
            let columns = behind(&input, own);
            let computed = projection.expr.iter().zip(projection.schema.fields()).map(|(expr, field)| {
                let expr = resolved(expr.clone(), projection.input.schema(), &columns)?;
                Ok(expr.alias_qualified(Some(BESIDE), field.name()))
            });
            let all = own_exprs().map(Ok).chain(computed).collect::<Result<Vec<Expr>>>()?;
            Ok(LogicalPlan::Projection(Projection::try_new(all, Arc::new(input))?))
        }
        LogicalPlan::Filter(filter) => {
            let input = input(&filter.input)?;
            let predicate = resolved(filter.predicate.clone(), filter.input.schema(), &behind(&input, own))?;
            Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
        }
        LogicalPlan::Unnest(unnest) => {
            let input = input(&unnest.input)?;
            let columns = behind(&input, own);
            let opened = unnest.exec_columns.iter().map(|column| Ok(columns[unnest.input.schema().index_of_column(column)?].clone()));
            let opened = opened.collect::<Result<Vec<_>>>()?;
            LogicalPlanBuilder::from(input).unnest_columns_with_options(opened, unnest.options.clone())?.build()
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = input(&alias.input)?;
            let renamed = behind(&input, own).into_iter().map(|column| {
                let name = column.name.clone();
                Expr::Column(column).alias_qualified(Some(alias.alias.clone()), name)
            });
            let all: Vec<Expr> = own_exprs().chain(renamed).collect();
            LogicalPlanBuilder::from(input).project(all)?.build()
        }
        _ => Ok(left.as_ref().clone()),
    }
}

/// The columns behind those of the left side.
fn behind(plan: &LogicalPlan, own: &[Column]) -> Vec<Column> {
    plan.schema().columns().split_off(own.len())
}

/// The left row's columns are now columns of the same row; those of the subquery's step below, by their places there, stand in `columns`.
fn resolved(expr: Expr, below: &DFSchema, columns: &[Column]) -> Result<Expr> {
    let found = expr.unalias().transform_up(|part| match part {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        Expr::Column(column) => match below.maybe_index_of_column(&column) {
            Some(index) => Ok(Transformed::yes(Expr::Column(columns[index].clone()))),
            None => Ok(Transformed::no(Expr::Column(column))),
        },
        other => Ok(Transformed::no(other)),
    });
    found.data()
}

/// `ORDER BY … LIMIT n` over a condition that says which rows a left row sees: the first n by rank among the rows of equal keys.
fn ranked(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Limit(limit) => {
            let (FetchType::Literal(Some(fetch)), SkipType::Literal(skip)) = (limit.get_fetch_type()?, limit.get_skip_type()?) else {
                return Ok(None);
            };
            limited(limit, fetch, skip)
        }
        LogicalPlan::Projection(projection) => {
            let Some(input) = ranked(&projection.input)? else { return Ok(None) };
            Ok(Some(LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), Arc::new(input))?)))
        }
        _ => Ok(None),
    }
}

fn limited(limit: &Limit, fetch: usize, skip: usize) -> Result<Option<LogicalPlan>> {
    let (order, below) = match limit.input.as_ref() {
        LogicalPlan::Sort(sort) => (sort.expr.clone(), &sort.input),
        _ => (Vec::new(), &limit.input),
    };
    first_of(below, order, (fetch, skip))
}

/// Puts the rank directly above the condition: what stands over it takes one row at a time.
fn first_of(plan: &LogicalPlan, order: Vec<SortExpr>, bounds: (usize, usize)) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let order = order.into_iter().map(|sort| computed_below(sort, projection)).collect::<Result<Vec<_>>>()?;
            let Some(input) = first_of(&projection.input, order, bounds)? else { return Ok(None) };
            Ok(Some(LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), Arc::new(input))?)))
        }
        LogicalPlan::Filter(filter) => {
            let mut keys = Vec::new();
            for conjunct in split_conjunction(&filter.predicate) {
                if conjunct.contains_outer() {
                    let Some(key) = key_of(conjunct) else { return Ok(None) };
                    keys.push(key);
                }
            }
            if keys.is_empty() || !filter.input.all_out_ref_exprs().is_empty() {
                return Ok(None);
            }
            let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
            let Some(row_number) = SessionStateDefaults::default_window_functions().into_iter().find(|function| function.name() == "row_number")
            else {
                return Ok(None);
            };
            let rank = Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number), Vec::new()));
            let rank = rank.partition_by(keys).order_by(order).build()?;
            let name = rank.schema_name().to_string();
            let rank_column = Expr::Column(Column::new_unqualified(name));
            let (fetch, skip) = bounds;
            let number = |value: usize| lit(ScalarValue::UInt64(Some(value as u64)));
            let mut kept = rank_column.clone().lt_eq(number(skip.saturating_add(fetch)));
            if skip > 0 {
                kept = kept.and(rank_column.gt(number(skip)));
            }
            let plan = LogicalPlanBuilder::from(plan.clone()).window(vec![rank])?.filter(kept)?.project(columns)?.build()?;
            Ok(Some(plan))
        }
        LogicalPlan::SubqueryAlias(_) => Ok(None),
        _ => Ok(None),
    }
}

fn computed_below(sort: SortExpr, projection: &Projection) -> Result<SortExpr> {
    let expr = sort.expr.clone().transform_up(|part| match &part {
        Expr::Column(column) => match projection.schema.maybe_index_of_column(column) {
            Some(index) => Ok(Transformed::yes(projection.expr[index].clone().unalias())),
            None => Ok(Transformed::no(part)),
        },
        _ => Ok(Transformed::no(part)),
    });
    Ok(sort.with_expr(expr.data()?))
}

/// The inner side of `inner = outer`.
fn key_of(conjunct: &Expr) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else { return None };
    match (left.contains_outer(), right.contains_outer()) {
        (false, true) if right.column_refs().is_empty() => Some(left.as_ref().clone()),
        (true, false) if left.column_refs().is_empty() => Some(right.as_ref().clone()),
        _ => None,
    }
}

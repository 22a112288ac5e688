//! UNNEST of a column, and other subqueries that are computed from the left row alone: a projection and an UNNEST of the left side, without a
//! join.

use std::sync::Arc;

use arrow::array::{ListArray, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Unnest, lit, when};

use super::apply::projected;
use super::scope::has_subquery;
use crate::context::Functions;

/// The left side with the columns of the subquery behind its own. None: the subquery reads more than a row, or a row without elements would
/// have to stay and cannot.
pub(super) fn beside(join: &Join, subquery: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let is_left = join.join_type == JoinType::Left;
    let keeps = is_left && join.filter.as_ref().is_none_or(is_true) && keeps_rows(subquery);
    if !join.on.is_empty() || !(join.join_type == JoinType::Inner || keeps) || !reads_nothing(subquery) {
        return Ok(None);
    }
    let own = join.left.schema().columns();
    let Some(plan) = (Beside { left: &join.left, own: &own, is_left }).over(subquery)? else { return Ok(None) };
    let behind = plan
        .schema()
        .columns()
        .split_off(own.len())
        .into_iter()
        .zip(join.right.schema().columns())
        .map(|(found, wanted)| super::domain::named(Expr::Column(found), &wanted));
    let all: Vec<Expr> = own.iter().cloned().map(Expr::Column).chain(behind).collect();
    let plan = projected(plan, all)?;
    Ok(Some(match &join.filter {
        Some(filter) if !is_left => LogicalPlan::Filter(Filter::try_new(filter.clone(), Arc::new(plan))?),
        _ => plan,
    }))
}

fn is_true(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Boolean(Some(true)), _))
}

/// True if the subquery is computed from the left row alone.
fn reads_nothing(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Unnest(_) | LogicalPlan::SubqueryAlias(_) => {
            !plan.expressions().iter().any(has_subquery) && plan.inputs().into_iter().all(reads_nothing)
        }
        _ => false,
    }
}

/// True if every row stays once lists without elements have one.
fn keeps_rows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Filter(_) => false,
        // What is computed of the NULL that stands for no element need not be NULL.
        LogicalPlan::Projection(projection) => {
            (is_renaming(projection.expr.iter()) || !has_unnest(&projection.input)) && keeps_rows(&projection.input)
        }
        LogicalPlan::Unnest(unnest) => !has_unnest(&unnest.input) && keeps_rows(&unnest.input),
        other => other.inputs().into_iter().all(keeps_rows),
    }
}

fn is_renaming<'a>(mut exprs: impl Iterator<Item = &'a Expr>) -> bool {
    exprs.all(|expr| matches!(expr.clone().unalias_nested().data, Expr::Column(_)))
}

fn has_unnest(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Unnest(_)) || plan.inputs().into_iter().any(has_unnest)
}

/// Whose columns those of a subquery are while they stand beside those of the left side, which may have the same names.
const BESIDE: &str = "freshet$beside";

struct Beside<'a> {
    left: &'a Arc<LogicalPlan>,
    own: &'a [Column],
    is_left: bool,
}

impl Beside<'_> {
    /// The same steps over the left side, whose columns are kept in front.
    fn over(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let own = || self.own.iter().cloned().map(Expr::Column);
        let Some(input) = plan.inputs().first().map(|input| self.over(input)).transpose()?.unwrap_or_else(|| Some(self.left.as_ref().clone())) else {
            return Ok(None);
        };
        Ok(Some(match plan {
            LogicalPlan::Projection(projection) => {
                let columns = self.behind(&input);
                let computed = projection.expr.iter().zip(projection.schema.fields()).map(|(expr, field)| {
                    let expr = resolved(expr.clone(), projection.input.schema(), &columns)?;
                    Ok(expr.alias_qualified(Some(BESIDE), field.name()))
                });
                let computed = computed.collect::<Result<Vec<Expr>>>()?;
                projected(input, own().chain(computed))?
            }
            LogicalPlan::Filter(filter) => {
                let predicate = resolved(filter.predicate.clone(), filter.input.schema(), &self.behind(&input))?;
                LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?)
            }
            LogicalPlan::Unnest(unnest) if self.is_left => match self.with_elements(input, unnest)? {
                Some(input) => self.unnested(input, unnest)?,
                None => return Ok(None),
            },
            LogicalPlan::Unnest(unnest) => self.unnested(input, unnest)?,
            LogicalPlan::SubqueryAlias(alias) => {
                let behind = self.behind(&input).into_iter().map(|column| {
                    let name = column.name.clone();
                    Expr::Column(column).alias_qualified(Some(alias.alias.clone()), name)
                });
                let behind: Vec<Expr> = behind.collect();
                projected(input, own().chain(behind))?
            }
            _ => input,
        }))
    }

    /// The columns behind those of the left side.
    fn behind(&self, plan: &LogicalPlan) -> Vec<Column> {
        plan.schema().columns().split_off(self.own.len())
    }

    /// The lists that a node opens, as they are called behind the left side.
    fn lists(&self, input: &LogicalPlan, unnest: &Unnest) -> Result<Vec<Column>> {
        let columns = self.behind(input);
        unnest.exec_columns.iter().map(|column| Ok(columns[unnest.input.schema().index_of_column(column)?].clone())).collect()
    }

    fn unnested(&self, input: LogicalPlan, unnest: &Unnest) -> Result<LogicalPlan> {
        let lists = self.lists(&input, unnest)?;
        let mut options = unnest.options.clone();
        for recursion in &mut options.recursions {
            if let Some(place) = unnest.exec_columns.iter().position(|column| *column == recursion.input_column) {
                recursion.input_column = lists[place].clone();
            }
        }
        LogicalPlanBuilder::from(input).unnest_columns_with_options(lists, options)?.build()
    }

    /// Where no list has an element, the first one gets a NULL.
    fn with_elements(&self, input: LogicalPlan, unnest: &Unnest) -> Result<Option<LogicalPlan>> {
        if !unnest.struct_type_columns.is_empty() || unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
            return Ok(None);
        }
        let columns = self.lists(&input, unnest)?;
        let lists: Vec<Expr> = columns.iter().cloned().map(Expr::Column).collect();
        let Some(first) = columns.first() else { return Ok(None) };
        let (_, field) = input.schema().qualified_field_from_column(first)?;
        let DataType::List(element) = field.data_type() else { return Ok(None) };
        if !element.is_nullable() {
            return Ok(None);
        }
        let null = ListArray::new(element.clone(), OffsetBuffer::from_lengths([1]), new_null_array(element.data_type(), 1), None);
        let null = lit(ScalarValue::List(Arc::new(null)));
        let empty = Functions::get().scalar("empty");
        let none = lists.iter().cloned().map(|list| {
            let call = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&empty), vec![list.clone()]));
            list.is_null().or(call)
        });
        let none = none.reduce(Expr::and).expect("an UNNEST has lists");
        let exprs = input.schema().columns().into_iter().map(|column| {
            if column != *first {
                return Ok(Expr::Column(column));
            }
            let case = when(none.clone(), null.clone()).otherwise(Expr::Column(column.clone()))?;
            Ok(super::domain::named(case, &column))
        });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        projected(input, exprs).map(Some)
    }
}

/// The left row's columns are now columns of the same row; those of the subquery's step below, by their places there, stand in `columns`.
fn resolved(expr: Expr, below: &DFSchema, columns: &[Column]) -> Result<Expr> {
    let found = expr.unalias().transform_up(|part| match part {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        Expr::Column(column) => match below.maybe_index_of_column(&column).and_then(|index| columns.get(index)) {
            Some(known) => Ok(Transformed::yes(Expr::Column(known.clone()))),
            None => Ok(Transformed::no(Expr::Column(column))),
        },
        other => Ok(Transformed::no(other)),
    });
    found.data()
}

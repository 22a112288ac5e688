//! A subquery computed for all rows that ask at once. In: its plan, and the domain of what it reads of them. Out: the rows it has for each
//! row of the domain, whose columns stand in front.
//!
//! Where every column of the domain is compared for equality with something of the subquery's own, that stands in for the domain: there may
//! then be rows for values that nobody asks for, and the domain is not joined. What is not taken apart is None.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result, ScalarValue};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, DistinctOn, Expr, Filter, Join, JoinConstraint, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
    Sort, SubqueryAlias, Union, Unnest, Values, Window, lit, when,
};

use super::domain::{Domain, Names, named, same};
use super::first::first_rows;
use super::scope::{has_subquery, input_schema, lateral_side, outer_columns, renamed_lateral, replaced};

pub(super) struct Apply<'a> {
    pub domain: &'a Domain,
    /// What the domain's columns are columns of.
    pub relation: &'a DFSchema,
    pub names: &'a mut Names,
}

impl Apply<'_> {
    pub fn apply(&mut self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        if !self.reads_domain(plan)? {
            return self.beside(plan).map(Some);
        }
        match plan {
            LogicalPlan::Projection(projection) => self.over(&projection.input, |apply, input| {
                let exprs = apply.all_own(&projection.expr, projection.input.schema())?;
                projected(input, apply.domain.exprs().chain(exprs))
            }),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::SubqueryAlias(alias) => self.over(&alias.input, |apply, input| {
                let rest = rest(&input, apply.domain).into_iter().map(|column| {
                    let name = column.name.clone();
                    Expr::Column(column).alias_qualified(Some(alias.alias.clone()), name)
                });
                projected(input, apply.domain.exprs().chain(rest.collect::<Vec<_>>()))
            }),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => self.over(input, |_, input| Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))),
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.distinct_on(distinct),
            LogicalPlan::Sort(Sort { input, fetch: None, .. }) => self.apply(input),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Unnest(unnest) => self.over(&unnest.input, |_, input| unnested(input, unnest)),
            LogicalPlan::Values(values) => self.values(values),
            _ => Ok(None),
        }
    }

    fn reads_domain(&self, plan: &LogicalPlan) -> Result<bool> {
        Ok(!outer_columns(plan, self.relation)?.is_empty())
    }

    fn over(&mut self, input: &LogicalPlan, then: impl FnOnce(&Self, LogicalPlan) -> Result<LogicalPlan>) -> Result<Option<LogicalPlan>> {
        match self.apply(input)? {
            Some(input) => then(self, input).map(Some),
            None => Ok(None),
        }
    }

    /// Every row of the domain with all rows of a plan that does not read it.
    fn beside(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Ok(self.domain.rows.clone()),
            _ => LogicalPlanBuilder::from(self.domain.rows.clone()).cross_join(plan.clone())?.build(),
        }
    }

    /// The expression over the rows beside their row of the domain.
    fn own(&self, expr: &Expr, scope: &DFSchema) -> Result<Expr> {
        replaced(expr.clone(), scope, &|column| self.domain.own_for(column))
    }

    /// As [`Apply::own`], under the name it had.
    fn named_own(&self, expr: &Expr, scope: &DFSchema) -> Result<Expr> {
        let own = self.own(expr, scope)?;
        let (before, after) = (expr.schema_name().to_string(), own.schema_name().to_string());
        Ok(if before == after { own } else { own.alias(before) })
    }

    fn all_own(&self, exprs: &[Expr], scope: &DFSchema) -> Result<Vec<Expr>> {
        exprs.iter().map(|expr| self.named_own(expr, scope)).collect()
    }

    fn filter(&mut self, filter: &Filter) -> Result<Option<LogicalPlan>> {
        if !self.reads_domain(&filter.input)?
            && let Some(bound) = self.bound(filter)?
        {
            return Ok(Some(bound));
        }
        self.over(&filter.input, |apply, input| {
            let predicate = apply.own(&filter.predicate, filter.input.schema())?;
            Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
        })
    }

    /// Where equality says what each column of the domain is for a row, the rows say so themselves.
    fn bound(&self, filter: &Filter) -> Result<Option<LogicalPlan>> {
        let mut values: Vec<Option<Expr>> = vec![None; self.domain.own.len()];
        let mut rest = Vec::new();
        for conjunct in split_conjunction(&filter.predicate) {
            let place = compared(conjunct).and_then(|(value, column)| {
                let place = self.domain.outer.iter().position(|outer| outer == column)?;
                values[place].is_none().then_some((place, value))
            });
            match place {
                Some((place, value)) => values[place] = Some(value.clone()),
                None => rest.push(conjunct),
            }
        }
        let Some(values) = values.into_iter().collect::<Option<Vec<Expr>>>() else { return Ok(None) };
        let stands_for = |column: &Column| self.domain.outer.iter().position(|outer| outer == column).map(|place| values[place].clone());
        let mut predicates = values.iter().map(|value| value.clone().is_not_null()).collect::<Vec<_>>();
        for conjunct in rest {
            if has_subquery(conjunct) {
                return Ok(None);
            }
            let own = conjunct.clone().transform_up(|part| {
                Ok(match &part {
                    Expr::OuterReferenceColumn(_, column) => stands_for(column).map_or_else(|| Transformed::no(part.clone()), Transformed::yes),
                    _ => Transformed::no(part),
                })
            });
            predicates.push(own.data()?);
        }
        let input = match conjunction(predicates) {
            Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, filter.input.clone())?),
            None => filter.input.as_ref().clone(),
        };
        let own = values.into_iter().zip(&self.domain.own).map(|(value, own)| named(value, own));
        let columns = filter.input.schema().columns().into_iter().map(Expr::Column);
        projected(input, own.chain(columns)).map(Some)
    }

    /// Grouped by the domain, too. Without keys there is a row also where there is nothing to aggregate.
    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
        if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            return Ok(None);
        }
        let Some(input) = self.apply(&aggregate.input)? else { return Ok(None) };
        let scope = aggregate.input.schema();
        let keys = self.domain.exprs().chain(self.all_own(&aggregate.group_expr, scope)?).collect();
        let calls = self.all_own(&aggregate.aggr_expr, scope)?;
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), keys, calls)?);
        if !aggregate.group_expr.is_empty() {
            return Ok(Some(grouped));
        }
        let (grouped, other) = self.domain.under_other_names(grouped, self.names)?;
        let there = Column::new(other[0].relation.clone(), "there");
        let columns = grouped.schema().columns().into_iter().map(Expr::Column);
        let marked = projected(grouped.clone(), columns.chain([named(lit(true), &there)]))?;
        let joined = left_join(self.domain.rows.clone(), marked, same(&self.domain.own, &other))?;
        let mut values = Vec::with_capacity(aggregate.aggr_expr.len());
        for (call, column) in aggregate.aggr_expr.iter().zip(aggregate.schema.columns()) {
            let value = Expr::Column(column.clone());
            let of_nothing = value_of_nothing(call, scope)?;
            values.push(match of_nothing {
                None => value,
                Some(of_nothing) => {
                    let case = when(Expr::Column(there.clone()).is_null(), lit(of_nothing)).otherwise(value)?;
                    case.alias_qualified(column.relation.clone(), column.name.clone())
                }
            });
        }
        projected(joined, self.domain.exprs().chain(values)).map(Some)
    }

    fn distinct_on(&mut self, distinct: &DistinctOn) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.apply(&distinct.input)? else { return Ok(None) };
        let scope = distinct.input.schema();
        let with_domain = |exprs: Vec<Expr>| self.domain.exprs().chain(exprs).collect::<Vec<_>>();
        let on = with_domain(self.all_own(&distinct.on_expr, scope)?);
        let select = with_domain(self.all_own(&distinct.select_expr, scope)?);
        let order = match &distinct.sort_expr {
            None => None,
            Some(order) => {
                let mut all: Vec<_> = self.domain.exprs().map(|expr| expr.sort(true, true)).collect();
                for sort in order {
                    all.push(sort.with_expr(self.own(&sort.expr, scope)?));
                }
                Some(all)
            }
        };
        Ok(Some(LogicalPlan::Distinct(Distinct::On(DistinctOn::try_new(on, select, order, Arc::new(input))?))))
    }

    /// The first rows are the first of each row of the domain.
    fn limit(&mut self, limit: &Limit) -> Result<Option<LogicalPlan>> {
        match limit.input.as_ref() {
            // Row by row, it may as well be computed of the rows that are left.
            LogicalPlan::Projection(projection) => {
                let below = Limit { input: projection.input.clone(), ..limit.clone() };
                let plan = Projection::try_new_with_schema(projection.expr.clone(), Arc::new(LogicalPlan::Limit(below)), projection.schema.clone())?;
                self.apply(&LogicalPlan::Projection(plan))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let below = Limit { input: alias.input.clone(), ..limit.clone() };
                self.apply(&LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(LogicalPlan::Limit(below)), alias.alias.clone())?))
            }
            LogicalPlan::Sort(sort) => {
                let Some(input) = self.apply(&sort.input)? else { return Ok(None) };
                let own = |sort_expr: &datafusion::logical_expr::SortExpr| Ok(sort_expr.with_expr(self.own(&sort_expr.expr, sort.input.schema())?));
                let order = sort.expr.iter().map(own).collect::<Result<Vec<_>>>()?;
                first_rows(limit, input, self.domain, order)
            }
            other => {
                let Some(input) = self.apply(other)? else { return Ok(None) };
                first_rows(limit, input, self.domain, Vec::new())
            }
        }
    }

    fn window(&mut self, window: &Window) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.apply(&window.input)? else { return Ok(None) };
        let mut calls = Vec::with_capacity(window.window_expr.len());
        for expr in &window.window_expr {
            let own = self.own(expr, window.input.schema())?.transform_up(|part| {
                Ok(match part {
                    Expr::WindowFunction(mut call) => {
                        call.params.partition_by.extend(self.domain.exprs());
                        Transformed::yes(Expr::WindowFunction(call))
                    }
                    other => Transformed::no(other),
                })
            });
            calls.push(own.data()?.alias(expr.schema_name().to_string()));
        }
        Ok(Some(LogicalPlan::Window(Window::try_new(calls, Arc::new(input))?)))
    }

    fn join(&mut self, join: &Join) -> Result<Option<LogicalPlan>> {
        let of_left = match join.join_type {
            JoinType::Inner | JoinType::Left => false,
            JoinType::LeftSemi | JoinType::LeftAnti => true,
            _ => return Ok(None),
        };
        let Some(left) = self.apply(&join.left)? else { return Ok(None) };
        let scope = input_schema(&LogicalPlan::Join(join.clone()));
        let own = |expr: &Expr| self.own(expr, &scope);
        let mut on = join.on.iter().map(|(left, right)| Ok((own(left)?, own(right)?))).collect::<Result<Vec<_>>>()?;
        let mut filter = join.filter.as_ref().map(own).transpose()?;
        let right = if !self.reads_domain(&join.right)? {
            join.right.as_ref().clone()
        } else if lateral_side(&join.right).is_some() {
            // It reads the left side, where the domain's columns are now.
            let column_for = |column: &Column| if join.left.schema().has_column(column) { None } else { self.domain.own_for(column) };
            renamed_lateral(join.right.as_ref().clone(), &column_for)?
        } else {
            let Some(right) = self.apply(&join.right)? else { return Ok(None) };
            let (right, other) = self.domain.under_other_names(right, self.names)?;
            match join.null_equality {
                // A set operation: all columns are compared, and those of the domain with them.
                NullEquality::NullEqualsNull => {
                    let pairs = self.domain.exprs().zip(other.into_iter().map(Expr::Column));
                    on = pairs.chain(on).collect();
                }
                NullEquality::NullEqualsNothing => filter = conjunction(filter.into_iter().chain(same(&self.domain.own, &other))),
            }
            right
        };
        let set_operation = of_left && join.null_equality == NullEquality::NullEqualsNull;
        if set_operation && !self.reads_domain(&join.right)? {
            return Ok(None);
        }
        let columns = self.domain.exprs().chain(join.left.schema().columns().into_iter().map(Expr::Column));
        let columns: Vec<Expr> = match of_left {
            true => columns.collect(),
            false => columns.chain(join.right.schema().columns().into_iter().map(Expr::Column)).collect(),
        };
        let joined =
            Join::try_new(Arc::new(left), Arc::new(right), on, filter, join.join_type, JoinConstraint::On, join.null_equality, join.null_aware)?;
        projected(LogicalPlan::Join(joined), columns).map(Some)
    }

    fn union(&mut self, union: &Union) -> Result<Option<LogicalPlan>> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let Some(input) = self.apply(input)? else { return Ok(None) };
            inputs.push(Arc::new(input));
        }
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        self.renamed(plan, union.schema.columns()).map(Some)
    }

    /// A list of rows with outer columns in them: each a row of the domain with what is computed of it.
    fn values(&mut self, values: &Values) -> Result<Option<LogicalPlan>> {
        let columns = values.schema.columns();
        let mut rows = Vec::with_capacity(values.values.len());
        for row in &values.values {
            let row = row.iter().zip(&columns).map(|(expr, column)| Ok(named(self.own(expr, &DFSchema::empty())?, column)));
            let row = row.collect::<Result<Vec<_>>>()?;
            rows.push(Arc::new(projected(self.domain.rows.clone(), self.domain.exprs().chain(row))?));
        }
        if let [_] = rows.as_slice() {
            return Ok(rows.pop().map(Arc::unwrap_or_clone));
        }
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(rows)?);
        self.renamed(plan, columns).map(Some)
    }

    /// The domain's columns and then these, by their places.
    fn renamed(&self, plan: LogicalPlan, columns: Vec<Column>) -> Result<LogicalPlan> {
        let wanted = self.domain.own.iter().cloned().chain(columns);
        let exprs: Vec<Expr> = plan.schema().columns().into_iter().zip(wanted).map(|(found, wanted)| named(Expr::Column(found), &wanted)).collect();
        projected(plan, exprs)
    }
}

pub(super) fn projected(plan: LogicalPlan, exprs: impl IntoIterator<Item = Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs.into_iter().collect(), Arc::new(plan))?))
}

pub(super) fn left_join(left: LogicalPlan, right: LogicalPlan, condition: Vec<Expr>) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(left).join_on(right, JoinType::Left, condition)?.build()
}

/// The columns behind those of the domain.
fn rest(plan: &LogicalPlan, domain: &Domain) -> Vec<Column> {
    plan.schema().columns().split_off(domain.own.len())
}

/// The lists of a node over rows that have more columns in front.
pub(super) fn unnested(input: LogicalPlan, unnest: &Unnest) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(input).unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?.build()
}

/// The inner side and the outer column of `inner = outer`.
fn compared(conjunct: &Expr) -> Option<(&Expr, &Column)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else { return None };
    match (left.as_ref(), right.as_ref()) {
        (inner, Expr::OuterReferenceColumn(_, column)) | (Expr::OuterReferenceColumn(_, column), inner) if !inner.contains_outer() => {
            Some((inner, column))
        }
        _ => None,
    }
}

/// What an aggregate is of no rows, if it is not NULL.
fn value_of_nothing(call: &Expr, schema: &DFSchema) -> Result<Option<ScalarValue>> {
    let call = call.clone().unalias_nested().data;
    let data_type = datafusion::logical_expr::ExprSchemable::get_type(&call, schema)?;
    let Expr::AggregateFunction(call) = call else { return Ok(None) };
    let value = match call.func.name() {
        "approx_distinct" | "regr_count" => ScalarValue::new_zero(&data_type)?,
        _ => call.func.default_value(&data_type)?,
    };
    Ok(if value.is_null() { None } else { Some(value) })
}

//! The values that a subquery depends on, each combination of them once. In: the relation whose rows it is asked for. Out: a relation of the
//! columns it reads, under names of their own.

use std::sync::Arc;

use datafusion::common::{Column, Result, TableReference};
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Projection};

use super::scope::outer_columns;

/// Makes names that no user can type, one after the other.
#[derive(Debug, Default)]
pub(super) struct Names(usize);

impl Names {
    pub fn next(&mut self) -> TableReference {
        self.0 += 1;
        TableReference::bare(format!("freshet$outer{}", self.0))
    }
}

/// The columns of a relation that a subquery reads.
#[derive(Debug, Clone)]
pub(super) struct Domain {
    /// As the relation calls them.
    pub outer: Vec<Column>,
    /// As they are called beside the rows of the subquery.
    pub own: Vec<Column>,
    /// Each combination of values once.
    pub rows: LogicalPlan,
}

impl Domain {
    /// None: the subquery reads nothing of the relation.
    pub fn of(relation: &LogicalPlan, subquery: &LogicalPlan, names: &mut Names) -> Result<Option<Domain>> {
        let outer = outer_columns(subquery, relation.schema())?;
        if outer.is_empty() {
            return Ok(None);
        }
        let alias = names.next();
        let own: Vec<Column> = (0..outer.len()).map(|index| Column::new(Some(alias.clone()), format!("o{index}"))).collect();
        let keys: Vec<Expr> = outer.iter().cloned().map(Expr::Column).collect();
        let distinct = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(relation.clone()), keys, Vec::new())?);
        let named = distinct.schema().columns().into_iter().zip(&own).map(|(column, own)| named(Expr::Column(column), own));
        let rows = LogicalPlan::Projection(Projection::try_new(named.collect(), Arc::new(distinct))?);
        Ok(Some(Domain { outer, own, rows }))
    }

    pub fn own_for(&self, column: &Column) -> Option<Column> {
        self.outer.iter().position(|outer| outer == column).map(|index| self.own[index].clone())
    }

    pub fn exprs(&self) -> impl Iterator<Item = Expr> + '_ {
        self.own.iter().cloned().map(Expr::Column)
    }

    /// A plan whose first columns are those of the domain, with these under other names.
    pub fn under_other_names(&self, plan: LogicalPlan, names: &mut Names) -> Result<(LogicalPlan, Vec<Column>)> {
        let alias = names.next();
        let other: Vec<Column> = self.own.iter().map(|own| Column::new(Some(alias.clone()), own.name.clone())).collect();
        let rest = plan.schema().columns().split_off(other.len()).into_iter().map(Expr::Column);
        let exprs: Vec<Expr> = self.own.iter().zip(&other).map(|(own, other)| named(Expr::Column(own.clone()), other)).chain(rest).collect();
        Ok((LogicalPlanBuilder::from(plan).project(exprs)?.build()?, other))
    }
}

/// An expression under the name of a column.
pub(super) fn named(expr: Expr, column: &Column) -> Expr {
    match &expr {
        Expr::Column(own) if own == column => expr,
        _ => expr.alias_qualified(column.relation.clone(), column.name.clone()),
    }
}

/// Where the columns are pairwise equal, NULLs too.
pub(super) fn same(left: &[Column], right: &[Column]) -> Vec<Expr> {
    let pair = |(left, right): (&Column, &Column)| {
        let (left, right) = (Box::new(Expr::Column(left.clone())), Box::new(Expr::Column(right.clone())));
        Expr::BinaryExpr(BinaryExpr::new(left, Operator::IsNotDistinctFrom, right))
    };
    left.iter().zip(right).map(pair).collect()
}

//! AST → AST: what USING merges in RIGHT and FULL joins. In: a query. Out: the same, where USING is ON and the one column of both sides is
//! `coalesce(left, right)`; or a refusal at the join.
//!
//! DataFusion takes the left side's column for it, which is NULL in rows that only the right side has, and calls it ambiguous elsewhere.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, ExceptSelectItem, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr,
    Ident, JoinConstraint, JoinOperator, ObjectName, OrderBy, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    Spanned, TableFactor, TableWithJoins, VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::context::Catalog;
use crate::fold::{is_temporal, normal};
use crate::refusal::{Refusal, Result};

/// Rewrites every SELECT of the query. Errors: NATURAL, or a column whose side the text does not tell.
pub(crate) fn merge_using(query: &mut Query, catalog: &Catalog) -> Result<()> {
    match VisitMut::visit(query, &mut Merge { catalog }) {
        ControlFlow::Break(refusal) => Err(*refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Merge<'a> {
    catalog: &'a Catalog,
}

impl VisitorMut for Merge<'_> {
    type Break = Box<Refusal>;

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Refusal>> {
        self.body(&mut query.body, query.order_by.as_mut()).map_or_else(|refusal| ControlFlow::Break(Box::new(refusal)), ControlFlow::Continue)
    }
}

impl Merge<'_> {
    /// ORDER BY belongs to a body that is one SELECT.
    fn body(&self, body: &mut SetExpr, order_by: Option<&mut OrderBy>) -> Result<()> {
        match body {
            SetExpr::Select(select) => self.select(select, order_by),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, None)?;
                self.body(right, None)
            }
            _ => Ok(()),
        }
    }

    fn select(&self, select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
        let mut merged = Merged::default();
        for from in &mut select.from {
            if from.joins.iter().any(|join| shows_right_alone(&join.join_operator) && is_merging(&join.join_operator)) {
                self.join(from, &mut merged)?;
            }
        }
        if merged.0.is_empty() {
            return Ok(());
        }
        let items = std::mem::take(&mut select.projection);
        for item in items {
            match item {
                SelectItem::Wildcard(options) => select.projection.extend(merged.all(&select.from, &options)?),
                SelectItem::UnnamedExpr(Expr::Identifier(name)) if merged.value(&name).is_some() => {
                    let expr = merged.value(&name).expect("it was there");
                    select.projection.push(SelectItem::ExprWithAlias { expr, alias: name });
                }
                mut other => {
                    merged.replace_in(&mut other);
                    select.projection.push(other);
                }
            }
        }
        merged.replace_in(&mut select.selection);
        merged.replace_in(&mut select.having);
        merged.replace_in(&mut select.qualify);
        merged.replace_in(&mut select.named_window);
        if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            merged.replace_in(keys);
        }
        if let Some(Distinct::On(keys)) = &mut select.distinct {
            merged.replace_in(keys);
        }
        let shown: Vec<String> = select.projection.iter().filter_map(alias_of).collect();
        if let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = order_by {
            // A column of the result comes first.
            let is_shown = |expr: &Expr| matches!(expr, Expr::Identifier(name) if shown.contains(&normal(name)));
            keys.iter_mut().filter(|key| !is_shown(&key.expr)).for_each(|key| merged.replace_in(&mut key.expr));
        }
        Ok(())
    }

    /// Every USING of the item becomes ON.
    fn join(&self, from: &mut TableWithJoins, merged: &mut Merged) -> Result<()> {
        let mut left: Vec<&TableFactor> = vec![&from.relation];
        for join in &mut from.joins {
            if is_temporal(join) {
                left.push(&join.relation);
                continue;
            }
            let place = join.relation.span();
            let right = named(&join.relation);
            if let Some(constraint) = constraint_of(&mut join.join_operator) {
                match constraint {
                    JoinConstraint::Using(columns) => {
                        let mut condition: Option<Expr> = None;
                        for column in columns.iter() {
                            let name = column.0.last().and_then(|part| part.as_ident()).cloned().ok_or_else(|| unclear(place))?;
                            let right = right.clone().ok_or_else(|| unclear(place))?;
                            let of_left = match merged.value(&name) {
                                Some(value) => value,
                                None => {
                                    let owner = self.owner(&left, &name).ok_or_else(|| unclear(name.span))?;
                                    merged.0.push((name.clone(), vec![owner.clone()]));
                                    column_of(owner, name.clone())
                                }
                            };
                            let equal = equality(of_left, column_of(right.clone(), name.clone()));
                            merged.add(&name, right);
                            condition = Some(match condition {
                                Some(condition) => and(condition, equal),
                                None => equal,
                            });
                        }
                        *constraint = condition.map_or(JoinConstraint::None, JoinConstraint::On);
                    }
                    JoinConstraint::Natural => {
                        return Err(Refusal::new("NATURAL beside a RIGHT or FULL join does not say which columns it joins")
                            .help("JOIN … USING (column, …)")
                            .at(place));
                    }
                    JoinConstraint::On(_) | JoinConstraint::None => {}
                }
            }
            left.push(&join.relation);
        }
        Ok(())
    }

    /// The relation to the left that has the column: the only one there, or the only one that is known to.
    fn owner(&self, left: &[&TableFactor], column: &Ident) -> Option<Ident> {
        if let [only] = left {
            return named(only);
        }
        let has = |factor: &&&TableFactor| match factor {
            TableFactor::Table { name, .. } => {
                let name = name.0.last().and_then(|part| part.as_ident()).map(normal);
                let known = name.and_then(|name| self.catalog.relations.get(&name));
                known.is_some_and(|relation| relation.schema().column_with_name(&normal(column)).is_some())
            }
            _ => false,
        };
        match left.iter().filter(has).collect::<Vec<_>>()[..] {
            [only] => named(only),
            _ => None,
        }
    }
}

/// Merged columns, each with the relations it is merged of, in order.
#[derive(Default)]
struct Merged(Vec<(Ident, Vec<Ident>)>);

impl Merged {
    fn value(&self, name: &Ident) -> Option<Expr> {
        let (_, relations) = self.0.iter().find(|(known, _)| normal(known) == normal(name))?;
        let mut columns: Vec<Expr> = relations.iter().map(|relation| column_of(relation.clone(), name.clone())).collect();
        Some(if columns.len() == 1 { columns.remove(0) } else { coalesce(columns) })
    }

    fn add(&mut self, name: &Ident, relation: Ident) {
        if let Some((_, relations)) = self.0.iter_mut().find(|(known, _)| normal(known) == normal(name)) {
            relations.push(relation);
        }
    }

    /// `*`: merged columns once and first, as SQL has them, then the others of each relation.
    fn all(&self, from: &[TableWithJoins], options: &WildcardAdditionalOptions) -> Result<Vec<SelectItem>> {
        if *options != WildcardAdditionalOptions::default() {
            return Err(Refusal::new("* with EXCEPT, REPLACE or RENAME does not stand over a RIGHT or FULL join with USING")
                .help("name the columns")
                .at(options.wildcard_token.0.span));
        }
        let mut items: Vec<SelectItem> = Vec::new();
        for (name, _) in &self.0 {
            let expr = self.value(name).expect("it is merged");
            items.push(SelectItem::ExprWithAlias { expr, alias: name.clone() });
        }
        for factor in from.iter().flat_map(|item| std::iter::once(&item.relation).chain(item.joins.iter().map(|join| &join.relation))) {
            let relation = named(factor).ok_or_else(|| unclear(factor.span()))?;
            let mut own =
                self.0.iter().filter(|(_, relations)| relations.iter().any(|known| normal(known) == normal(&relation))).map(|(name, _)| name.clone());
            let opt_except = own.next().map(|first_element| ExceptSelectItem { first_element, additional_elements: own.collect() });
            let kind = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![relation]));
            items.push(SelectItem::QualifiedWildcard(kind, WildcardAdditionalOptions { opt_except, ..WildcardAdditionalOptions::default() }));
        }
        Ok(items)
    }

    /// Subqueries have names of their own and are left alone.
    fn replace_in(&self, part: &mut impl VisitMut) {
        let _ = VisitMut::visit(part, &mut Replace { merged: self, depth: 0 });
    }
}

struct Replace<'a> {
    merged: &'a Merged,
    depth: usize,
}

impl VisitorMut for Replace<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(value) = self.merged.value(name)
        {
            *expr = value;
        }
        ControlFlow::Continue(())
    }
}

fn unclear(place: Span) -> Refusal {
    Refusal::new("USING of a RIGHT or FULL join does not say which relations it joins")
        .help("give each relation a name (AS a, AS b), and write ON a.key = b.key")
        .at(place)
}

fn shows_right_alone(operator: &JoinOperator) -> bool {
    matches!(operator, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_))
}

fn is_merging(operator: &JoinOperator) -> bool {
    let mut operator = operator.clone();
    matches!(constraint_of(&mut operator), Some(JoinConstraint::Using(_) | JoinConstraint::Natural))
}

fn constraint_of(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) | JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
            Some(constraint)
        }
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

/// What its columns are qualified by.
fn named(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, args: None, .. } => name.0.last().and_then(|part| part.as_ident()).cloned(),
        _ => None,
    }
}

fn alias_of(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
        _ => None,
    }
}

fn column_of(relation: Ident, column: Ident) -> Expr {
    Expr::CompoundIdentifier(vec![relation, column])
}

fn equality(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Eq, right: Box::new(right) }
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}

fn coalesce(columns: Vec<Expr>) -> Expr {
    let args = columns.into_iter().map(|column| FunctionArg::Unnamed(FunctionArgExpr::Expr(column))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("coalesce")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

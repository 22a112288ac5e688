//! ORDER BY … LIMIT, and the ranks that a filter or QUALIFY keeps: a top of each partition instead of all ranks.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::Sort as SortExpr;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, FetchType, Filter, Limit, LogicalPlan, Operator, Projection, SkipType, Sort, Window};
use freshet_core::{ExprRef, Literal, NodeId, Op, RankKind, SortKey};

use super::Lowering;
use super::project::column;
use crate::expr::{bare, column_index, compile};
use crate::refusal::{Refusal, Result};
use crate::ties::{call_in, is_tie_sensitive};

/// Ranks that a filter over a window keeps.
struct Kept<'a> {
    window: &'a Window,
    /// What stands between the filter and the window, from above.
    path: Vec<&'a Projection>,
    rank: RankKind,
    /// The rank's column in the filter's input.
    column: usize,
    offset: u64,
    limit: u64,
    rest: Vec<&'a Expr>,
}

/// PARTITION BY and ORDER BY as columns of a node.
pub(super) struct Ordered {
    pub node: NodeId,
    pub partition: Vec<usize>,
    pub order: Vec<SortKey>,
    /// Columns of the further expressions.
    pub rest: Vec<usize>,
}

impl Lowering<'_> {
    pub(super) fn limit(&mut self, limit: &Limit) -> Result<NodeId> {
        let constant = || Refusal::new("LIMIT and OFFSET are constants in a view").help("write the number: LIMIT 10");
        let SkipType::Literal(offset) = limit.get_skip_type()? else { return Err(constant()) };
        let FetchType::Literal(fetch) = limit.get_fetch_type()? else { return Err(constant()) };
        match (offset, fetch) {
            (0, None) => self.lower(&limit.input),
            _ => self.first(&limit.input, offset as u64, fetch.map_or(u64::MAX, |fetch| fetch as u64)),
        }
    }

    /// The first rows of a plan, in the order that its ORDER BY says.
    fn first(&mut self, plan: &LogicalPlan, offset: u64, limit: u64) -> Result<NodeId> {
        match plan {
            LogicalPlan::Projection(projection) if ends_in_sort(&projection.input) => {
                let input = self.first(&projection.input, offset, limit)?;
                self.projected(input, projection)
            }
            LogicalPlan::SubqueryAlias(alias) if ends_in_sort(&alias.input) => self.first(&alias.input, offset, limit),
            LogicalPlan::Sort(sort) => {
                let input = self.sort(sort)?;
                self.top(input, sort.input.schema(), (&[], &sort.expr), (RankKind::RowNumber, offset, limit))
            }
            other => {
                let input = self.lower(other)?;
                self.top(input, other.schema(), (&[], &[]), (RankKind::RowNumber, offset, limit))
            }
        }
    }

    /// ORDER BY without LIMIT says how a result is shown, and a view keeps rows in no order.
    pub(super) fn sort(&mut self, sort: &Sort) -> Result<NodeId> {
        let input = self.lower(&sort.input)?;
        match sort.fetch {
            Some(fetch) => self.top(input, sort.input.schema(), (&[], &sort.expr), (RankKind::RowNumber, 0, fetch as u64)),
            None => Ok(input),
        }
    }

    fn top(
        &mut self,
        input: NodeId,
        schema: &DFSchema,
        (partition, order): (&[Expr], &[SortExpr]),
        (rank, offset, limit): (RankKind, u64, u64),
    ) -> Result<NodeId> {
        let found = self.ordered(input, schema, (partition, order), &[], rank == RankKind::RowNumber)?;
        let op = Op::Top { partition: found.partition, order: found.order, rank, offset, limit, number: false };
        let node = self.push(op, vec![found.node], self.schema(found.node));
        let own: Vec<usize> = (0..self.width(input)).collect();
        Ok(self.pick(node, &own))
    }

    /// `ties`: the order was settled by all columns, which the operator does anyway.
    pub(super) fn ordered(
        &mut self,
        input: NodeId,
        schema: &DFSchema,
        (partition, order): (&[Expr], &[SortExpr]),
        rest: &[Expr],
        ties: bool,
    ) -> Result<Ordered> {
        // A constant orders nothing.
        let order: Vec<&SortExpr> = order.iter().filter(|key| !matches!(key.expr, Expr::Literal(_, _))).collect();
        let partition: Vec<Expr> = partition.iter().filter(|expr| !matches!(expr, Expr::Literal(_, _))).cloned().collect();
        let wanted: Vec<Expr> =
            partition.iter().cloned().chain(order.iter().map(|key| key.expr.clone())).chain(rest.iter().cloned()).map(bare).collect::<Result<_>>()?;
        for (index, expr) in wanted[..partition.len() + order.len()].iter().enumerate() {
            let data_type = datafusion::logical_expr::ExprSchemable::get_type(expr, schema)?;
            // A partition may be a window, which is a row of two times.
            let of_partition = |fields: &Fields| index < partition.len() && fields.iter().all(|field| is_ordered(field.data_type()));
            if !is_ordered(&data_type) && !matches!(&data_type, DataType::Struct(fields) if of_partition(fields)) {
                return Err(Refusal::new(format!("rows cannot be ordered by {data_type}")).help("CAST it to a number or to VARCHAR").at_expr(expr));
            }
        }
        let (node, mut columns) = self.extend(input, schema, &wanted)?;
        let rest = columns.split_off(partition.len() + order.len());
        let by = columns.split_off(partition.len());
        let key = |(key, column): (&&SortExpr, usize)| SortKey { column, descending: !key.asc, nulls_first: key.nulls_first };
        let mut keys: Vec<SortKey> = order.iter().zip(by).map(key).collect();
        if ties {
            without_ties(&mut keys, self.width(input));
        }
        Ok(Ordered { node, partition: columns, order: keys, rest })
    }

    /// The filter as a top of each partition, if it keeps ranks up to a constant. `used`: the columns of it that someone reads.
    pub(super) fn kept_ranks(&mut self, filter: &Filter, used: Option<&BTreeSet<usize>>) -> Result<Option<NodeId>> {
        let predicate = bare(filter.predicate.clone())?;
        let Some(kept) = kept(filter, &predicate) else { return Ok(None) };
        let Kept { window, path, rank, column: rank_column, offset, limit, rest } = kept;
        let in_rest =
            rest.iter().any(|expr| expr.column_refs().iter().any(|one| filter.input.schema().index_of_column(one).ok() == Some(rank_column)));
        let number = in_rest || used.is_none_or(|used| used.contains(&rank_column));
        let call = call_in(&window.window_expr[0]).expect("a window has calls");
        let input = self.lower(&window.input)?;
        let params = &call.params;
        let found = self.ordered(input, window.input.schema(), (&params.partition_by, &params.order_by), &[], is_tie_sensitive(call))?;
        let wide = self.schema(found.node);
        let name = window.schema.field(window.schema.fields().len() - 1).name().clone();
        let mut fields: Vec<Arc<Field>> = wide.fields().iter().cloned().collect();
        fields.extend(number.then(|| Arc::new(Field::new(&name, DataType::UInt64, true))));
        let op = Op::Top { partition: found.partition, order: found.order, rank, offset, limit, number };
        let mut node = self.push(op, vec![found.node], Arc::new(Schema::new(fields)));
        let (own, wide) = (self.width(input), wide.fields().len());
        node = if number {
            let columns: Vec<usize> = (0..own).chain([wide]).collect();
            self.pick(node, &columns)
        } else {
            self.with_null(node, own, name)?
        };
        for projection in path.into_iter().rev() {
            node = self.projected(node, projection)?;
        }
        match conjunction(rest.into_iter().cloned()) {
            Some(rest) => self.filtered(node, &rest, filter.input.schema()).map(Some),
            None => Ok(Some(node)),
        }
    }

    /// The first columns, and a rank that nobody reads.
    fn with_null(&mut self, node: NodeId, own: usize, name: String) -> Result<NodeId> {
        let schema = self.schema(node);
        let none = ScalarValue::UInt64(None);
        let rank: ExprRef = Arc::new(Literal { value: none.to_array_of_size(1)?, text: "NULL".into() });
        let exprs = (0..own).map(|index| column(&schema, index)).chain([rank]).collect();
        let names = (0..own).map(|index| schema.field(index).name().clone()).chain([name]).collect();
        Ok(self.project_always(node, exprs, names))
    }

    fn projected(&mut self, input: NodeId, projection: &Projection) -> Result<NodeId> {
        let exprs = projection.expr.iter().map(|expr| compile(expr, projection.input.schema())).collect::<Result<Vec<_>>>()?;
        Ok(self.project(input, exprs, projection.schema.fields().iter().map(|field| field.name().clone()).collect()))
    }
}

fn ends_in_sort(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => ends_in_sort(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => ends_in_sort(&alias.input),
        _ => false,
    }
}

/// The types that rows can be ordered by.
pub(crate) fn is_ordered(data_type: &DataType) -> bool {
    !data_type.is_nested() && !matches!(data_type, DataType::Null | DataType::Interval(_))
}

/// Takes the trailing columns off that only repeat what decides ties anyway: all columns, in order.
fn without_ties(keys: &mut Vec<SortKey>, width: usize) {
    let mut first = keys.len();
    while let Some(key) = first.checked_sub(1).map(|before| keys[before]) {
        let follows = keys.get(first).is_none_or(|next| key.column < next.column);
        if key.descending || !key.nulls_first || key.column >= width || !follows {
            break;
        }
        first -= 1;
    }
    let named: BTreeSet<usize> = keys.iter().map(|key| key.column).collect();
    if (0..width).all(|column| named.contains(&column)) {
        keys.truncate(first);
    }
}

fn kept<'a>(filter: &'a Filter, predicate: &'a Expr) -> Option<Kept<'a>> {
    let (window, path) = window_below(&filter.input)?;
    let [expr] = window.window_expr.as_slice() else { return None };
    let rank = match call_in(expr)?.fun.name() {
        "row_number" => RankKind::RowNumber,
        "rank" => RankKind::Rank,
        "dense_rank" => RankKind::DenseRank,
        _ => return None,
    };
    let schema = filter.input.schema();
    let place = window.schema.fields().len() - 1;
    let is_rank = |expr: &Expr| column_of(expr, schema).is_some_and(|column| through(&path, column) == Some(place));
    let (mut least, mut most, mut column, mut rest) = (1, None, None, Vec::new());
    for conjunct in split_conjunction(predicate) {
        let Some((expr, op, bound)) = compared(conjunct).filter(|(expr, ..)| is_rank(expr)) else {
            rest.push(conjunct);
            continue;
        };
        column = column_of(expr, schema);
        let mut at_most = |bound: i128| most = Some(most.map_or(bound, |most: i128| most.min(bound)));
        match op {
            Operator::Lt => at_most(bound - 1),
            Operator::LtEq => at_most(bound),
            Operator::Gt => least = least.max(bound + 1),
            Operator::GtEq => least = least.max(bound),
            _ => {
                at_most(bound);
                least = least.max(bound);
            }
        }
    }
    let (column, most): (usize, i128) = (column?, most?);
    let offset = u64::try_from(least - 1).ok()?;
    let limit = u64::try_from((most - least + 1).max(0)).ok()?;
    Some(Kept { window, path, rank, column, offset, limit, rest })
}

fn window_below(plan: &LogicalPlan) -> Option<(&Window, Vec<&Projection>)> {
    match plan {
        LogicalPlan::Window(window) => Some((window, Vec::new())),
        LogicalPlan::SubqueryAlias(alias) => window_below(&alias.input),
        LogicalPlan::Projection(projection) => {
            let (window, mut path) = window_below(&projection.input)?;
            path.insert(0, projection);
            Some((window, path))
        }
        _ => None,
    }
}

/// The column of the window that a column above the projections is, if they only rename it.
fn through(path: &[&Projection], column: usize) -> Option<usize> {
    path.iter().try_fold(column, |column, projection| column_index(&projection.expr[column], projection.input.schema()))
}

/// The column, maybe in another integer type.
fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Cast(cast) if cast.field.data_type().is_integer() => column_of(&cast.expr, schema),
        other => column_index(other, schema),
    }
}

/// `expr <comparison> integer`, whichever side the integer stands on.
fn compared(conjunct: &Expr) -> Option<(&Expr, Operator, i128)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = conjunct else { return None };
    let is_comparison = matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
    match (integer(left), integer(right)) {
        (None, Some(bound)) if is_comparison => Some((left, *op, bound)),
        (Some(bound), None) if is_comparison => Some((right, op.swap()?, bound)),
        _ => None,
    }
}

pub(super) fn integer(expr: &Expr) -> Option<i128> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::Int8(Some(value)) => Some(i128::from(*value)),
        ScalarValue::Int16(Some(value)) => Some(i128::from(*value)),
        ScalarValue::Int32(Some(value)) => Some(i128::from(*value)),
        ScalarValue::Int64(Some(value)) => Some(i128::from(*value)),
        ScalarValue::UInt8(Some(value)) => Some(i128::from(*value)),
        ScalarValue::UInt16(Some(value)) => Some(i128::from(*value)),
        ScalarValue::UInt32(Some(value)) => Some(i128::from(*value)),
        ScalarValue::UInt64(Some(value)) => Some(i128::from(*value)),
        _ => None,
    }
}

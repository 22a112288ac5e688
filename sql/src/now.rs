//! Comparisons with now(). In: a predicate. Out: bounds of the form `expression + offset <comparison> now()`, or a refusal.
//!
//! now() may stand in comparisons of a timestamp (± constant) with now() ± a constant interval, and conjunctions of them.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator};
use freshet_core::Comparison;

use crate::refusal::{Refusal, Result};

const NS_PER_DAY: i64 = 86_400_000_000_000;

/// `expr + offset_ns <comparison> now()`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NowBound {
    pub expr: Expr,
    pub offset_ns: i64,
    pub comparison: Comparison,
}

pub(crate) fn mentions_now(expr: &Expr) -> bool {
    let mut found = false;
    let _ = expr.apply(|node| {
        found |= is_now(node);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

pub(crate) fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.name() == "now")
}

/// The refusal of a now() that stands elsewhere, with the rewrite.
pub(crate) fn refuse_now(expr: &Expr) -> Refusal {
    Refusal::new(format!("now() cannot be kept up to date in {}", readable(expr)))
        .help("compare a timestamp column with it: ts > now() - INTERVAL '1 hour', in WHERE or in an aggregate's FILTER, joined by AND only")
        .at_expr(expr)
        .about_now()
}

/// The expression without DataFusion's type prefixes on literals.
pub(crate) fn readable(expr: &Expr) -> String {
    let as_text = |text: String| Transformed::yes(Expr::Column(Column::new_unqualified(text)));
    let readable = expr.clone().transform_up(|part| {
        Ok(match &part {
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) => as_text(format!("'{text}'")),
            Expr::Literal(value, _) => match exact_ns(value) {
                Ok(Some(ns)) => as_text(format!("INTERVAL '{}'", exact_text(ns))),
                _ => Transformed::no(part),
            },
            _ => Transformed::no(part),
        })
    });
    readable.data().map_or_else(|_| expr.human_display().to_string(), |readable| readable.human_display().to_string())
}

/// `90 minutes`, `1 days`: the largest unit that leaves no rest.
fn exact_text(ns: i64) -> String {
    let units =
        [("days", NS_PER_DAY), ("hours", 3_600_000_000_000), ("minutes", 60_000_000_000), ("seconds", 1_000_000_000), ("milliseconds", 1_000_000)];
    match units.iter().find(|(_, size)| ns != 0 && ns % size == 0) {
        Some((unit, size)) => format!("{} {unit}", ns / size),
        None => format!("{ns} nanoseconds"),
    }
}

/// The bounds a conjunct that mentions now() sets: one, or two for `=`.
pub(crate) fn bounds_of(conjunct: &Expr, schema: &DFSchema) -> Result<Vec<NowBound>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = conjunct else { return Err(refuse_now(conjunct)) };
    let comparisons: &[Comparison] = match op {
        Operator::Lt => &[Comparison::Less],
        Operator::LtEq => &[Comparison::LessOrEqual],
        Operator::Gt => &[Comparison::Greater],
        Operator::GtEq => &[Comparison::GreaterOrEqual],
        Operator::Eq => &[Comparison::LessOrEqual, Comparison::GreaterOrEqual],
        _ => return Err(refuse_now(conjunct)),
    };
    let (left, right) = (term_of(left, schema)?, term_of(right, schema)?);
    // Brought to: expr + offset <op> now(), where `turned` says whether the comparison has changed its direction.
    let (expr, offset_ns, turned) = match (left, right) {
        (Term::Instant(expr, offset), Term::Now(shift)) => (expr, offset.checked_sub(shift), false),
        (Term::Now(shift), Term::Instant(expr, offset)) => (expr, offset.checked_sub(shift), true),
        (Term::Age { of, offset }, Term::Exact(length)) => (of, length.checked_sub(offset), true),
        (Term::Exact(length), Term::Age { of, offset }) => (of, length.checked_sub(offset), false),
        _ => return Err(refuse_now(conjunct)),
    };
    let offset_ns = offset_ns.ok_or_else(|| Refusal::new("the interval is longer than 292 years").at_expr(conjunct))?;
    if !matches!(expr.get_type(schema)?, DataType::Timestamp(_, _) | DataType::Date32) {
        return Err(refuse_now(conjunct));
    }
    Ok(comparisons
        .iter()
        .map(|comparison| NowBound { expr: expr.clone(), offset_ns, comparison: if turned { turn(*comparison) } else { *comparison } })
        .collect())
}

fn turn(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
    }
}

/// One side of a comparison with now().
enum Term {
    /// now() + ns
    Now(i64),
    /// an expression without now(), + ns
    Instant(Expr, i64),
    /// now() − (expression) + ns
    Age { of: Expr, offset: i64 },
    /// a constant duration in ns
    Exact(i64),
}

fn term_of(expr: &Expr, schema: &DFSchema) -> Result<Term> {
    if is_now(expr) {
        return Ok(Term::Now(0));
    }
    match expr {
        Expr::Alias(alias) => return term_of(&alias.expr, schema),
        Expr::Literal(value, _) => {
            if let Some(ns) = exact_ns(value)? {
                return Ok(Term::Exact(ns));
            }
        }
        Expr::Cast(cast) if keeps_the_instant(cast, schema)? => return term_of(&cast.expr, schema),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            if let Some(term) = sum_of(term_of(left, schema)?, *op, term_of(right, schema)?)? {
                return Ok(term);
            }
        }
        _ => {}
    }
    if mentions_now(expr) {
        return Err(refuse_now(expr));
    }
    Ok(Term::Instant(expr.clone(), 0))
}

fn sum_of(left: Term, op: Operator, right: Term) -> Result<Option<Term>> {
    let too_long = || Refusal::new("the interval is longer than 292 years");
    let shifted = |offset: i64, by: i64| match op {
        Operator::Minus => offset.checked_sub(by).ok_or_else(too_long),
        _ => offset.checked_add(by).ok_or_else(too_long),
    };
    Ok(match (left, op, right) {
        (Term::Now(offset), _, Term::Exact(by)) => Some(Term::Now(shifted(offset, by)?)),
        (Term::Instant(expr, offset), _, Term::Exact(by)) => Some(Term::Instant(expr, shifted(offset, by)?)),
        (Term::Exact(by), Operator::Plus, Term::Now(offset)) => Some(Term::Now(shifted(offset, by)?)),
        (Term::Exact(by), Operator::Plus, Term::Instant(expr, offset)) => Some(Term::Instant(expr, shifted(offset, by)?)),
        (Term::Now(shift), Operator::Minus, Term::Instant(of, offset)) => Some(Term::Age { of, offset: shifted(shift, offset)? }),
        _ => None,
    })
}

/// A cast to a timestamp of the same or a finer unit, or of an age to an interval: it changes no instant.
pub(crate) fn keeps_the_instant(cast: &Cast, schema: &DFSchema) -> Result<bool> {
    let (from, to) = (cast.expr.get_type(schema)?, cast.field.data_type().clone());
    Ok(match (&from, &to) {
        (DataType::Timestamp(from, None), DataType::Timestamp(to, None)) => fineness(from) <= fineness(to),
        (DataType::Date32, DataType::Timestamp(_, None)) => true,
        (DataType::Duration(_), DataType::Interval(_) | DataType::Duration(_)) => true,
        (DataType::Interval(_), DataType::Duration(_) | DataType::Interval(_)) => true,
        _ => false,
    })
}

fn fineness(unit: &TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

/// The exact length of an interval or duration; None for other values. Errors: months and years have none (T22).
pub(crate) fn exact_ns(value: &ScalarValue) -> Result<Option<i64>> {
    let too_long = || Refusal::new("the interval is longer than 292 years");
    let exact = |days: i64, ns: i64| days.checked_mul(NS_PER_DAY).and_then(|whole| whole.checked_add(ns)).ok_or_else(too_long);
    Ok(Some(match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            if interval.months != 0 {
                return Err(calendar());
            }
            exact(i64::from(interval.days), interval.nanoseconds)?
        }
        ScalarValue::IntervalDayTime(Some(interval)) => exact(i64::from(interval.days), i64::from(interval.milliseconds) * 1_000_000)?,
        ScalarValue::IntervalYearMonth(Some(_)) => return Err(calendar()),
        ScalarValue::DurationSecond(Some(seconds)) => seconds.checked_mul(1_000_000_000).ok_or_else(too_long)?,
        ScalarValue::DurationMillisecond(Some(ms)) => ms.checked_mul(1_000_000).ok_or_else(too_long)?,
        ScalarValue::DurationMicrosecond(Some(us)) => us.checked_mul(1_000).ok_or_else(too_long)?,
        ScalarValue::DurationNanosecond(Some(ns)) => *ns,
        _ => return Ok(None),
    }))
}

fn calendar() -> Refusal {
    Refusal::new("months and years have no exact length, so that no window can be made of them").help("write days: INTERVAL '30 days'").about_now()
}

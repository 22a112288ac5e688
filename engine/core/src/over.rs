//! What top-N and OVER say about rows in order: ranks, frames, functions.

use std::fmt::Write;

use crate::explain::call as aggregate;
use crate::{AggregateCall, SortKey, Value};

/// How a row is counted among the rows of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RankKind {
    /// Every row has its own number.
    RowNumber,
    /// One more than the rows strictly before it: peers share a rank, and leave a gap.
    Rank,
    /// One more than the groups of peers before it.
    DenseRank,
}

impl RankKind {
    pub fn sql(self) -> &'static str {
        match self {
            RankKind::RowNumber => "row_number",
            RankKind::Rank => "rank",
            RankKind::DenseRank => "dense_rank",
        }
    }
}

/// One call of a function OVER a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverCall {
    pub function: OverFunction,
    /// Only aggregates and First, Last and Nth look at it.
    pub frame: Frame,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverFunction {
    /// UInt64.
    Rank(RankKind),
    /// (rank − 1) / (rows − 1); 0 of a single row. Float64.
    PercentRank,
    /// The share of rows up to the last peer. Float64.
    CumeDist,
    /// Which of this many buckets, as even as can be, longer ones first. UInt64.
    Ntile {
        buckets: u64,
    },
    /// The column `offset` rows before the row, or after it if negative; `default` where there is no such row. With `ignore_nulls` only rows
    /// where the column is not NULL count.
    Lag {
        column: usize,
        offset: i64,
        default: Value,
        ignore_nulls: bool,
    },
    /// The column at a row of the frame: the `nth` from its start, or from its end if negative; NULL where there is none.
    Nth {
        column: usize,
        nth: i64,
        ignore_nulls: bool,
    },
    Aggregate(AggregateCall),
}

impl OverFunction {
    /// The input columns it reads.
    pub fn columns(&self) -> Vec<usize> {
        match self {
            OverFunction::Rank(_) | OverFunction::PercentRank | OverFunction::CumeDist | OverFunction::Ntile { .. } => Vec::new(),
            OverFunction::Lag { column, .. } | OverFunction::Nth { column, .. } => vec![*column],
            OverFunction::Aggregate(call) => call.argument.iter().chain(&call.second).chain(&call.filter).copied().collect(),
        }
    }
}

/// Which rows of the partition a row's value is made of, from `start` to `end`, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub unit: FrameUnit,
    pub start: FrameBound,
    pub end: FrameBound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameUnit {
    /// Distances are rows.
    Rows,
    /// Distances are differences of the one ORDER BY column, in its unit; NULLs are at no distance but to each other. CURRENT ROW is all peers.
    Range,
    /// Distances are groups of peers. CURRENT ROW is all peers.
    Groups,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameBound {
    /// The first row of the partition as a start, the last one as an end.
    Unbounded,
    Preceding(Value),
    Current,
    Following(Value),
}

pub(crate) fn keys(order: &[SortKey]) -> String {
    let key =
        |key: &SortKey| format!("#{}{}{}", key.column, if key.descending { " desc" } else { "" }, if key.nulls_first { " nulls first" } else { "" });
    order.iter().map(key).collect::<Vec<_>>().join(", ")
}

pub(crate) fn call(call: &OverCall) -> String {
    let nulls = |ignore: bool| if ignore { " ignore nulls" } else { "" };
    match &call.function {
        OverFunction::Rank(rank) => rank.sql().into(),
        OverFunction::PercentRank => "percent_rank".into(),
        OverFunction::CumeDist => "cume_dist".into(),
        OverFunction::Ntile { buckets } => format!("ntile({buckets})"),
        OverFunction::Lag { column, offset, default, ignore_nulls } => {
            let default = if default.is_null() { String::new() } else { format!(", {default:?}") };
            format!("lag(#{column}, {offset}{default}){}", nulls(*ignore_nulls))
        }
        OverFunction::Nth { column, nth, ignore_nulls } => format!("nth(#{column}, {nth}){} {}", nulls(*ignore_nulls), frame(&call.frame)),
        OverFunction::Aggregate(inner) => format!("{} {}", aggregate(inner), frame(&call.frame)),
    }
}

fn frame(frame: &Frame) -> String {
    let unit = match frame.unit {
        FrameUnit::Rows => "rows",
        FrameUnit::Range => "range",
        FrameUnit::Groups => "groups",
    };
    let mut text = format!("{unit} ");
    for (bound, unbounded) in [(&frame.start, "start"), (&frame.end, "end")] {
        let said = match bound {
            FrameBound::Unbounded => unbounded.to_string(),
            FrameBound::Preceding(distance) => format!("-{distance}"),
            FrameBound::Current => "current".into(),
            FrameBound::Following(distance) => format!("+{distance}"),
        };
        write!(text, "{}{said}", if unbounded == "end" { ".." } else { "" }).expect("a string takes every write");
    }
    text
}

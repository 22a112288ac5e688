//! Feature views and services as data: windows, what a rolling view computes, what a service hands out.

use arrow::datatypes::{Field, SchemaRef};

use crate::{AggregateFunction, EventTime, ExprRef};

/// What a feature view computes per entity. The view's schema is the entity columns, then the features.
#[derive(Debug, Clone)]
pub enum FeatureSpec {
    Rolling(RollingSpec),
    Latest(LatestSpec),
}

/// Aggregates over windows that end at q (T1 to T3). Column numbers are those of the input node.
#[derive(Debug, Clone)]
pub struct RollingSpec {
    pub entity: Vec<usize>,
    pub time: usize,
    pub aggregates: Vec<RollingAggregate>,
    /// The features, over a row of (entity columns, aggregate values, q as Timestamp(µs)).
    pub features: Vec<FeatureColumn>,
    /// T10; None or 0: no limit.
    pub ttl_ms: Option<u64>,
    /// T3; None: exact.
    pub hop_ms: Option<u64>,
    /// T1: e ≤ q and a ≤ s instead of e < q and a < s.
    pub include_now: bool,
}

/// A feature computed from the aggregates of its row.
#[derive(Debug, Clone)]
pub struct FeatureColumn {
    pub name: String,
    pub expr: ExprRef,
}

/// One aggregate over one window. `filter` is a boolean column of the input (NULL counts as false).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RollingAggregate {
    pub function: AggregateFunction,
    pub argument: Option<usize>,
    pub filter: Option<usize>,
    pub window: Window,
}

/// Which event times count at q, beside the bound e < q (e ≤ q with include_now) that always holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Window {
    /// `ts > now() - w`: e > q − w, or e ≥ q − w if inclusive. None: since the beginning.
    pub lower: Option<WindowEdge>,
    /// `ts < now() - w`: e < q − w, or e ≤ q − w if inclusive. None: up to q.
    pub upper: Option<WindowEdge>,
}

/// An edge at q − `offset_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowEdge {
    pub offset_ms: i64,
    pub inclusive: bool,
}

impl Window {
    /// The default window of width w: (q − w, q).
    pub fn last_ms(width_ms: i64) -> Window {
        Window { lower: Some(WindowEdge { offset_ms: width_ms, inclusive: false }), upper: None }
    }

    /// The half-open range of event times [from, until) in nanoseconds that count at q. T1, T2, T3; never widened.
    pub fn range(&self, q: crate::Epoch, hop_ms: Option<u64>, include_now: bool) -> (EventTime, EventTime) {
        let now = q.event_time();
        let from = match self.lower {
            None => EventTime::MIN,
            Some(edge) => match hop_ms {
                Some(hop) => {
                    let exact = i64::try_from(q.0).unwrap_or(i64::MAX).saturating_sub(edge.offset_ms);
                    EventTime(0).plus_ms(exact.div_euclid(hop as i64).saturating_mul(hop as i64))
                }
                None => now.plus_ms(edge.offset_ms.saturating_neg()).plus_ns(i64::from(!edge.inclusive)),
            },
        };
        let visible = now.plus_ns(i64::from(include_now));
        let until = match self.upper {
            None => visible,
            Some(edge) => visible.min(now.plus_ms(edge.offset_ms.saturating_neg()).plus_ns(i64::from(edge.inclusive))),
        };
        (from, until)
    }
}

/// The latest row per entity (T8).
#[derive(Debug, Clone)]
pub struct LatestSpec {
    pub entity: Vec<usize>,
    pub time: usize,
    /// Input columns that are the features, in order.
    pub features: Vec<usize>,
    pub ttl_ms: Option<u64>,
    pub include_now: bool,
}

impl FeatureSpec {
    pub fn entity(&self) -> &[usize] {
        match self {
            FeatureSpec::Rolling(spec) => &spec.entity,
            FeatureSpec::Latest(spec) => &spec.entity,
        }
    }

    pub fn time(&self) -> usize {
        match self {
            FeatureSpec::Rolling(spec) => spec.time,
            FeatureSpec::Latest(spec) => spec.time,
        }
    }

    /// The limit of age (T10), if there is one.
    pub fn ttl_ms(&self) -> Option<u64> {
        match self {
            FeatureSpec::Rolling(spec) => spec.ttl_ms,
            FeatureSpec::Latest(spec) => spec.ttl_ms,
        }
        .filter(|ttl| *ttl > 0)
    }

    pub fn include_now(&self) -> bool {
        match self {
            FeatureSpec::Rolling(spec) => spec.include_now,
            FeatureSpec::Latest(spec) => spec.include_now,
        }
    }

    /// H of T18: how long after its last event a key is known. None: for ever.
    pub fn horizon_ms(&self) -> Option<u64> {
        match self {
            FeatureSpec::Latest(spec) => spec.ttl_ms.filter(|ttl| *ttl > 0).map(|ttl| 2 * ttl),
            FeatureSpec::Rolling(spec) => {
                let hop = spec.hop_ms.unwrap_or(0);
                let windows = spec.aggregates.iter().map(|aggregate| aggregate.window.lower.map(|edge| edge.offset_ms.unsigned_abs() + hop));
                let mut longest = spec.ttl_ms.unwrap_or(0);
                for window in windows {
                    longest = longest.max(window?);
                }
                Some(2 * longest)
            }
        }
    }

    /// Every input column it reads.
    pub fn columns(&self) -> Vec<usize> {
        let mut columns: Vec<usize> = self.entity().to_vec();
        columns.push(self.time());
        match self {
            FeatureSpec::Rolling(spec) => {
                columns.extend(spec.aggregates.iter().flat_map(|aggregate| aggregate.argument.iter().chain(&aggregate.filter)))
            }
            FeatureSpec::Latest(spec) => columns.extend(&spec.features),
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// How a feature came to be what it is (T17), from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Present,
    NullValue,
    OutsideMaxAge,
    NotFound,
    Incomplete,
    Error,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Present => "PRESENT",
            Status::NullValue => "NULL_VALUE",
            Status::OutsideMaxAge => "OUTSIDE_MAX_AGE",
            Status::NotFound => "NOT_FOUND",
            Status::Incomplete => "INCOMPLETE",
            Status::Error => "ERROR",
        }
    }
}

/// A list of features under one name: what a model takes and what one request returns.
#[derive(Debug, Clone)]
pub struct ServiceDef {
    pub name: String,
    pub parts: Vec<ServicePart>,
    /// Columns that the request brings itself.
    pub request: Vec<Field>,
    /// The output list in declared order; names are unique.
    pub output: Vec<ServiceColumn>,
    /// Names and types of `output`.
    pub schema: SchemaRef,
}

#[derive(Debug, Clone)]
pub struct ServicePart {
    pub view: String,
    pub entity: Vec<Field>,
}

/// Where one output column comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceColumn {
    /// Column `column` of the schema of the view of part `part`.
    Feature { part: usize, column: usize },
    /// `ServiceDef::request[index]`.
    Request { index: usize },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    #[test]
    fn t2_t3_the_text_decides_the_edges() {
        let window = Window::last_ms(1000);
        assert_eq!(window.range(Epoch(5000), None, false), (EventTime(4_000_000_001), EventTime(5_000_000_000)));
        let inclusive = Window { lower: Some(WindowEdge { offset_ms: 1000, inclusive: true }), upper: None };
        assert_eq!(inclusive.range(Epoch(5000), None, true), (EventTime(4_000_000_000), EventTime(5_000_000_001)));
        assert_eq!(window.range(Epoch(5300), Some(500), false).0, EventTime(4_000_000_000));
    }
}

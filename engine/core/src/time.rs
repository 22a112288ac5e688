//! The times of the system, kept apart by type: epochs (and q, s) in milliseconds, event time in nanoseconds.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const NS_PER_MS: i64 = 1_000_000;

/// Logical time of a change: milliseconds since 1970, UTC. All changes of one epoch become visible together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    pub const ZERO: Epoch = Epoch(0);
    pub const MAX: Epoch = Epoch(u64::MAX);

    /// The epoch after this one, 1 ms later; saturates at the end of time.
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }

    /// The instant of this epoch on the event-time axis; saturates in the year 2262.
    pub fn event_time(self) -> EventTime {
        EventTime(i64::try_from(self.0).unwrap_or(i64::MAX).saturating_mul(NS_PER_MS))
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Event time of a row: nanoseconds since 1970, UTC, whatever unit its column declares, so that comparisons are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

impl EventTime {
    pub const MIN: EventTime = EventTime(i64::MIN);
    pub const MAX: EventTime = EventTime(i64::MAX);

    /// The first epoch that is not before this instant (T0: rounded up to a millisecond). Before 1970: epoch 0.
    pub fn epoch_ceil(self) -> Epoch {
        let floor = self.0.div_euclid(NS_PER_MS);
        let up = i64::from(self.0.rem_euclid(NS_PER_MS) != 0);
        Epoch(u64::try_from(floor + up).unwrap_or(0))
    }

    /// The first epoch strictly after this instant. Before 1970: epoch 0.
    pub fn epoch_after(self) -> Epoch {
        Epoch(u64::try_from(self.0.div_euclid(NS_PER_MS) + 1).unwrap_or(0))
    }

    pub fn plus_ms(self, ms: i64) -> EventTime {
        EventTime(self.0.saturating_add(ms.saturating_mul(NS_PER_MS)))
    }

    pub fn plus_ns(self, ns: i64) -> EventTime {
        EventTime(self.0.saturating_add(ns))
    }
}

/// Where an answer stands: windows are evaluated at `q`, and it has seen exactly the arrivals below `s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPoint {
    pub q: Epoch,
    pub s: Epoch,
}

impl ReadPoint {
    /// A read given by one coordinate means s = q.
    pub fn at(epoch: Epoch) -> ReadPoint {
        ReadPoint { q: epoch, s: epoch }
    }
}

/// The event times of a timestamp (any unit) or date column; `None` where it is NULL. Out of range: saturated.
pub fn event_times(column: &ArrayRef) -> Result<Vec<Option<EventTime>>> {
    fn scaled<I: Iterator<Item = Option<i64>>>(values: I, factor: i64) -> Vec<Option<EventTime>> {
        values.map(|value| value.map(|v| EventTime(v.saturating_mul(factor)))).collect()
    }
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => scaled(column.as_primitive::<TimestampSecondType>().iter(), 1_000_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => scaled(column.as_primitive::<TimestampMillisecondType>().iter(), 1_000_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => scaled(column.as_primitive::<TimestampMicrosecondType>().iter(), 1_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => scaled(column.as_primitive::<TimestampNanosecondType>().iter(), 1),
        DataType::Date32 => scaled(column.as_primitive::<Date32Type>().iter().map(|d| d.map(i64::from)), 86_400_000_000_000),
        other => return Err(Error::invalid(format!("a time column must be a TIMESTAMP or DATE, found {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_round_up_and_after_is_strict() {
        assert_eq!(EventTime(1_000_000).epoch_ceil(), Epoch(1));
        assert_eq!(EventTime(1_000_001).epoch_ceil(), Epoch(2));
        assert_eq!(EventTime(1_000_000).epoch_after(), Epoch(2));
        assert_eq!(EventTime(999_999).epoch_after(), Epoch(1));
        assert_eq!(EventTime(-5).epoch_ceil(), Epoch(0));
    }
}

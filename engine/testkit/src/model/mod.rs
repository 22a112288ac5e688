//! The rules of time, features and changes as a naive program over rows with event time e, arrival a and diff, and reads (q, s).
//!
//! If this cannot express a rule, the rule is not yet a rule. `tests/` answers the tables E1 to E11 with it.

mod arrival;
mod feature;
mod read;
mod training;
mod wall;

pub use arrival::{ArrivalRule, Fate, MAX_JUMP_MS, QUARANTINE_IN_A_ROW_MAX, Record, closes, complete_below, event_clock, watermark};
pub use feature::{Answer, Event, FeatureModel, ViewKind};
pub use read::{ReadContext, read_point};
pub use training::{SpineRow, TrainingMode, label_counts, training};
pub use wall::{Entry, Ticket, frontier_after, next_ticket, tick_end, wall_entry};

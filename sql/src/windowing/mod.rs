//! Windows of event time: TUMBLE, HOP, CUMULATE and SESSION in FROM and in GROUP BY, and what becomes of them.
//!
//! | file | what it does |
//! |---|---|
//! | `node.rs` | the plan node: rows with the windows that hold them |
//! | `planner.rs` | `FROM TUMBLE(…)` in the Flink and the RisingWave spelling → the node |
//! | `legacy.rs` | `TUMBLE_START(…)` and the like → a field of the window |
//! | `group.rs` | `GROUP BY tumble(…)` → the node below the aggregate |
//! | `proctime.rs` | `PROCTIME()` → the arrival of each row, as a node |
//! | `close.rs` | EMIT ON WINDOW CLOSE → the node at which rows wait for it |
//! | `fuse.rs` | an aggregate per session reads the names of sessions, not all rows again at each change |
//! | `batch.rs` | the same in SQL that DataFusion's batch executor runs, for the oracle and ad-hoc queries |

mod batch;
mod close;
mod fuse;
mod group;
mod legacy;
mod node;
mod planner;
mod proctime;

pub(crate) use batch::in_batch_form;
pub(crate) use close::{CloseNode, emit_on_close};
pub(crate) use fuse::fuse_sessions;
pub(crate) use group::{marked_as, marker_functions, place_windows, with_event_time};
pub(crate) use legacy::spell_bounds;
pub(crate) use node::{Shape, WindowTvf, unit_ns, unit_of};
pub(crate) use planner::WindowPlanner;
pub(crate) use proctime::{ArrivalNode, place_arrivals, proctime_function};

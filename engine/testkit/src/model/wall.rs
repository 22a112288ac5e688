//! Wall clock: tickets, ticks and skew (T0, T0c, T13). In: instants of the machine's clock. Out: epochs.

use freshet_core::{Epoch, EventTime};

/// T0: the tick a row was polled in is named by its end: epoch t holds what arrived in (t − tick, t].
pub fn tick_end(arrived_ms: u64, tick_ms: u64) -> Epoch {
    assert!(tick_ms > 0);
    Epoch(arrived_ms.div_ceil(tick_ms) * tick_ms)
}

/// F of a wall clock: the last complete ticket + 1 ms.
pub fn frontier_after(last_complete: Epoch) -> Epoch {
    last_complete.next()
}

/// An epoch issued by the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub epoch: Epoch,
    /// The clock jumped by more than a second: a person must know; time goes on by the monotonic clock.
    pub alert: bool,
}

/// T0c: max(last + 1 ms, the leader's clock). `wall_ms` is what the machine says, `expected_ms` the last ticket's instant plus the
/// monotonic time since then: between the two lies the jump.
pub fn next_ticket(last: Epoch, wall_ms: u64, expected_ms: u64) -> Ticket {
    let alert = wall_ms.abs_diff(expected_ms) > 1_000;
    let clock = if alert { expected_ms } else { wall_ms };
    Ticket { epoch: last.next().max(Epoch(clock)), alert }
}

/// What becomes of a row by its event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// With the ticket it was gathered under.
    Now,
    /// With the first ticket at or after this instant.
    HeldUntil(Epoch),
    Quarantined,
    DeadLetter,
}

/// T13: `wall` is the machine's clock when the row was polled.
pub fn wall_entry(e: Option<EventTime>, wall: EventTime, max_skew_ms: i64) -> Entry {
    const YEAR_2200: EventTime = EventTime(7_258_118_400_000_000_000);
    match e {
        None => Entry::DeadLetter,
        Some(e) if e < EventTime(0) || e >= YEAR_2200 => Entry::DeadLetter,
        Some(e) if e > wall.plus_ms(max_skew_ms) => Entry::Quarantined,
        Some(e) if e > wall => Entry::HeldUntil(e.epoch_ceil()),
        Some(_) => Entry::Now,
    }
}

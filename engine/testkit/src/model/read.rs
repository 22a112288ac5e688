//! Which (q, s) a request gets (T15, T16). In: what the server knows. Out: one point for all views of the request.

use freshet_core::{ClockKind, Epoch, ReadMode, ReadPoint};

/// What a request meets.
#[derive(Debug, Clone, Copy)]
pub struct ReadContext {
    pub clock: ClockKind,
    /// The machine's instant of the request; the event clock does not look at it.
    pub request_time: Epoch,
    /// F of all views named.
    pub frontier: Epoch,
    /// The least watermark of the views' sources.
    pub watermark: Epoch,
    /// A view with include_now is among those named (T1: F − 1 for F).
    pub include_now: bool,
}

/// T15.
pub fn read_point(mode: ReadMode, context: &ReadContext) -> ReadPoint {
    let frontier = if context.include_now { Epoch(context.frontier.0.saturating_sub(1)) } else { context.frontier };
    let request_time = match context.clock {
        ClockKind::Event => frontier,
        ClockKind::Wall => context.request_time,
    };
    match mode {
        ReadMode::Fresh => ReadPoint::at(request_time.min(frontier)),
        ReadMode::Consistent => ReadPoint { q: context.watermark, s: frontier },
        ReadMode::RequestTime => ReadPoint { q: request_time, s: frontier },
        ReadMode::AsOf(epoch) => ReadPoint::at(epoch),
    }
}

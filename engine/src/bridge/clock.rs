//! The machine's clock, read in one place: epochs of wall-clock pipelines and request times follow it, no result does.
//!
//! Tickets are the epochs of a wall-clock pipeline (T0c). Invariant: they only grow, over restarts too: none is issued above the bound that
//! is written down before, and a new generation begins above it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use freshet_core::{Blobs, Epoch, Error, Kind, Result};

use crate::metrics::Metrics;

/// A jump of the clock by more is not followed but told (T0c).
const JUMP_US: i64 = 1_000_000;
/// How fast a clock that has jumped is approached: a tenth of the time that passes.
const SLEW: i64 = 10;
/// Tickets are reserved so far ahead. A generation that was killed leaves at most this gap; written down about once a second.
const RESERVED_MS: u64 = 2_000;
const BOUND: &str = "tickets";

/// Microseconds since 1970; 0 if the clock stands before that.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads it")]
fn machine_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// Milliseconds since 1970.
pub fn machine_now() -> Epoch {
    Epoch(machine_us() as u64 / 1_000)
}

/// The machine's clock without its jumps.
#[derive(Debug, Clone, Copy)]
struct SteadyClock {
    /// What it showed at the last reading, and when that was by the monotonic clock.
    shown_us: i64,
    read_us: i64,
    jumped: bool,
}

impl SteadyClock {
    /// What it shows now, and by how much the machine's clock has jumped if that is news.
    fn read(&mut self, wall_us: i64, monotonic_us: i64) -> (i64, Option<i64>) {
        let passed = (monotonic_us - self.read_us).max(0);
        let expected = self.shown_us + passed;
        let apart = wall_us - expected;
        let jumped = apart.abs() > JUMP_US;
        let news = (jumped && !self.jumped).then_some(apart);
        *self = SteadyClock {
            shown_us: if jumped { expected + apart.clamp(-passed / SLEW, passed / SLEW) } else { wall_us.max(self.shown_us) },
            read_us: monotonic_us,
            jumped,
        };
        (self.shown_us, news)
    }
}

/// Issues the epochs of one generation.
pub struct Tickets {
    clock: SteadyClock,
    began: Instant,
    last: Epoch,
    /// No ticket above it before a greater one is written down; None: nothing outlives the process.
    bound: Option<(Epoch, Arc<dyn Blobs>)>,
}

impl Tickets {
    /// `last` is the epoch of the checkpoint that the generation goes on from. Errors: Data, Unavailable.
    pub fn open(last: Option<Epoch>, blobs: Option<Arc<dyn Blobs>>) -> Result<Tickets> {
        let bound = blobs.map(|blobs| Ok::<_, Error>((written_bound(blobs.as_ref())?, blobs))).transpose()?;
        let last = bound.as_ref().map_or(Epoch::ZERO, |(bound, _)| *bound).max(last.unwrap_or(Epoch::ZERO));
        let clock = SteadyClock { shown_us: machine_us(), read_us: 0, jumped: false };
        Ok(Tickets { clock, began: Instant::now(), last, bound })
    }

    /// The clock that tickets follow, rounded up: what has come by now has come by this epoch.
    pub fn now(&mut self, metrics: &Metrics) -> Epoch {
        let wall = machine_us();
        let (shown, jump) = self.clock.read(wall, self.began.elapsed().as_micros() as i64);
        if let Some(jump) = jump {
            tracing::warn!(jump_ms = jump / 1_000, "the machine's clock has jumped; epochs go on steadily and approach it slowly");
            metrics.clock_jumps.fetch_add(1, Relaxed);
        }
        metrics.clock_offset_ms.store((shown - wall) / 1_000, Relaxed);
        Epoch((shown as u64).div_ceil(1_000))
    }

    /// The next ticket: above the last one, and not before the clock. It names the end of its tick: what was gathered before the call has
    /// come by then (T0). Errors: Unavailable, if the bound cannot be written down.
    pub fn next(&mut self, metrics: &Metrics) -> Result<Epoch> {
        let ticket = self.last.next().max(self.now(metrics));
        self.reserve(ticket)?;
        self.last = ticket;
        Ok(ticket)
    }

    /// Epochs that history has taken lie below every ticket.
    pub fn above(&mut self, epoch: Epoch) -> Result<()> {
        self.reserve(epoch)?;
        self.last = self.last.max(epoch);
        Ok(())
    }

    /// At a clean end no gap need be left.
    pub fn close(&mut self) -> Result<()> {
        let last = self.last;
        self.bound.iter().try_for_each(|(_, blobs)| blobs.put(BOUND, last.0.to_string().as_bytes()))
    }

    /// Written again when less than half of what was reserved is left, so that no tick waits longer than one write.
    fn reserve(&mut self, ticket: Epoch) -> Result<()> {
        let Some((bound, blobs)) = &mut self.bound else { return Ok(()) };
        if ticket.0 + RESERVED_MS / 2 > bound.0 {
            let next = Epoch(ticket.0 + RESERVED_MS);
            blobs.put(BOUND, next.0.to_string().as_bytes())?;
            *bound = next;
        }
        Ok(())
    }
}

fn written_bound(blobs: &dyn Blobs) -> Result<Epoch> {
    if !blobs.list(BOUND)?.iter().any(|name| name == BOUND) {
        return Ok(Epoch::ZERO);
    }
    let text = String::from_utf8_lossy(&blobs.get(BOUND)?).into_owned();
    text.trim().parse().map(Epoch).map_err(|_| Error { kind: Kind::Data, message: format!("the bound of tickets is damaged: {text:?} is no number") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::LocalBlobs;

    const SECOND: i64 = 1_000_000;

    fn clock() -> SteadyClock {
        SteadyClock { shown_us: 100 * SECOND, read_us: 0, jumped: false }
    }

    #[test]
    fn t0c_a_small_correction_is_followed_but_never_backwards() {
        let mut clock = clock();
        assert_eq!(clock.read(101 * SECOND + 900_000, SECOND), (101 * SECOND + 900_000, None));
        assert_eq!(clock.read(101 * SECOND + 100_000, SECOND + 10_000), (101 * SECOND + 900_000, None));
        assert_eq!(clock.read(103 * SECOND, 3 * SECOND), (103 * SECOND, None));
    }

    #[test]
    fn t0c_a_jump_above_one_second_is_told_once_and_approached_slowly() {
        for jump in [3_600 * SECOND, -3_600 * SECOND] {
            let mut clock = clock();
            let (shown, news) = clock.read(101 * SECOND + jump, SECOND);
            assert_eq!((shown, news), (101 * SECOND + jump.signum() * SECOND / 10, Some(jump)));
            let (shown, news) = clock.read(102 * SECOND + jump, 2 * SECOND);
            assert_eq!((shown, news), (102 * SECOND + jump.signum() * 2 * SECOND / 10, None));
        }
    }

    #[test]
    fn t0c_a_new_generation_begins_above_every_epoch_that_the_old_one_could_have_issued() {
        let folder = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(LocalBlobs::open(folder.path()).unwrap());
        let metrics = Metrics::new(&[]);
        let mut tickets = Tickets::open(None, Some(blobs.clone())).unwrap();
        let first = tickets.next(&metrics).unwrap();
        let bound = written_bound(blobs.as_ref()).unwrap();
        assert!(bound > first, "the bound is written before the ticket is used");
        let mut killed = Tickets::open(Some(Epoch(5)), Some(blobs.clone())).unwrap();
        let next = killed.next(&metrics).unwrap();
        assert!(next > bound);
        killed.close().unwrap();
        assert_eq!(Tickets::open(None, Some(blobs)).unwrap().last, next);
        assert!(Tickets::open(Some(Epoch(u64::MAX / 2)), None).unwrap().next(&metrics).unwrap() > Epoch(u64::MAX / 2));
    }
}

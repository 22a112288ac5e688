//! When to try again what is away: soon at first, then ever less often. Nothing but the moment of a call depends on it.

use std::time::{Duration, Instant};

/// The first pause; half a second later a broker that restarts is noticed anyway.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: what is back is found within this time.
const LONGEST: Duration = Duration::from_secs(10);

/// One thing that may be away.
#[derive(Debug, Default)]
pub struct Backoff {
    /// Spreads those that lost the same broker over time.
    salt: u32,
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    pub fn new(salt: usize) -> Backoff {
        Backoff { salt: salt as u32, ..Backoff::default() }
    }

    pub fn is_due(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    /// It is away; returns the pause.
    pub fn failed(&mut self) -> Duration {
        let pause = pause(self.failures, self.salt);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(Instant::now() + pause);
        pause
    }

    pub fn succeeded(&mut self) {
        (self.failures, self.until) = (0, None);
    }

    /// The last try has failed.
    pub fn is_away(&self) -> bool {
        self.failures > 0
    }
}

/// Doubles from 100 ms to 10 s, less up to an eighth that differs from one to the next.
fn pause(failures: u32, salt: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.min(7)).min(LONGEST);
    let mixed = (salt.wrapping_add(1).wrapping_mul(0x9e37_79b9) ^ failures.wrapping_mul(0x85eb_ca6b)) >> 24;
    whole - whole * mixed / 2048
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_100_ms_to_10_s_and_differ_a_little() {
        for salt in 0..20 {
            let pauses: Vec<u128> = (0..12).map(|failures| pause(failures, salt).as_millis()).collect();
            assert!((87..=100).contains(&pauses[0]) && (175..=200).contains(&pauses[1]), "{pauses:?}");
            assert!((8_700..=10_000).contains(&pauses[11]), "{pauses:?}");
            assert!(pauses.windows(2).all(|two| two[1] * 8 >= two[0] * 7), "{pauses:?}");
        }
        assert_ne!(pause(7, 1), pause(7, 2));
    }
}

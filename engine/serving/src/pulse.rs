//! How fast the pipeline moves, and how much memory the process holds. In: the pipeline's event count, sampled. Out: events per second.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Samples kept: with one a second, the rate is that of the last ten seconds.
const SAMPLES_MAX: usize = 11;

/// How often somebody should call `sample`.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Pulse {
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl Pulse {
    /// Notes how many events there were at this time.
    pub fn sample(&self, at: Instant, events: u64) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back((at, events));
        while samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
    }

    /// Over the kept samples; 0 before there are two.
    pub fn events_per_second(&self) -> f64 {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        match (samples.front(), samples.back()) {
            (Some((from, before)), Some((until, after))) if until > from => {
                after.saturating_sub(*before) as f64 / until.duration_since(*from).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

/// Resident memory; None where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_forgets_old_samples() {
        let (pulse, start) = (Pulse::default(), Instant::now());
        assert_eq!(pulse.events_per_second(), 0.0);
        for second in 0..30 {
            pulse.sample(start + Duration::from_secs(second), if second < 15 { 0 } else { (second - 14) * 100 });
        }
        assert_eq!(pulse.events_per_second(), 100.0);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}

//! Latencies and what this machine does to any of them. In: durations. Out: median, p99 and maximum; how late a 1 ms timer is.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TIMER: Duration = Duration::from_millis(1);

/// Latencies in order.
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn of(mut latencies: Vec<Duration>) -> Latencies {
        latencies.sort();
        Latencies(latencies)
    }

    /// The least latency that this many of 1,000 do not exceed.
    pub fn per_mille(&self, share: usize) -> Duration {
        let place = (self.0.len() * share).div_ceil(1000).saturating_sub(1);
        self.0.get(place).copied().unwrap_or_default()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |share| self.per_mille(share).as_secs_f64() * 1000.0;
        write!(f, "p50 {:.3} ms   p99 {:.3} ms   max {:.3} ms   ({} samples)", ms(500), ms(990), ms(1000), self.0.len())
    }
}

/// How late a thread wakes that wants to wake every millisecond: what this machine does to any latency just now.
pub fn lateness(begin: Instant, stopped: &AtomicBool) -> Vec<Duration> {
    let mut late = Vec::new();
    wait_until(begin);
    while !stopped.load(Ordering::Relaxed) {
        let wanted = Instant::now() + TIMER;
        wait_until(wanted);
        late.push(wanted.elapsed());
    }
    late
}

pub fn wait_until(instant: Instant) {
    loop {
        let left = instant.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

//! Measures variants of the same work, round by round. In: one closure per variant. Out: wall and CPU seconds of each run.
//!
//! Variants are interleaved (A B C, A B C, …) so that a machine that slows down slows all of them.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// Linux reports process times in ticks of 1/100 s on every platform we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one run cost, and how much work it did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measurement {
    pub units: u64,
    pub wall_seconds: f64,
    /// User and system time of the whole process, all its threads.
    pub cpu_seconds: f64,
}

/// The runs of one variant, in order.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub runs: Vec<Measurement>,
}

/// Median, least and greatest of one figure over the runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// Wall and CPU time since some instant, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
}

impl Series {
    /// Work per wall second. None without runs.
    pub fn per_second(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().map(|run| run.units as f64 / run.wall_seconds))
    }

    /// Work per CPU second: comparable between machines with other load. None without runs, or if all were below one tick.
    pub fn per_cpu_second(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().filter(|run| run.cpu_seconds > 0.0).map(|run| run.units as f64 / run.cpu_seconds))
    }
}

impl Spread {
    /// None for no values; the median of an even count is the mean of the middle two.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { median, min, max })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} (min {:.0}, max {:.0})", self.median, self.min, self.max)
    }
}

/// A variant: its name, and the work, which returns how many units it did.
pub type Variant<'a> = (&'a str, &'a mut dyn FnMut() -> Result<u64>);

/// Runs each variant `rounds` times, one after the other within a round. Errors: those of the work, with the variant's name.
pub fn interleaved(rounds: usize, variants: &mut [Variant<'_>]) -> Result<Vec<Series>> {
    ensure!(rounds > 0, "a bench needs at least one round");
    let mut series: Vec<Series> = variants.iter().map(|(name, _)| Series { name: (*name).to_string(), runs: Vec::with_capacity(rounds) }).collect();
    let begin = Instant::now();
    for round in 1..=rounds {
        for ((name, work), series) in variants.iter_mut().zip(&mut series) {
            let before = process_clock(begin)?;
            let units = work().with_context(|| format!("variant {name}, round {round}"))?;
            let after = process_clock(begin)?;
            let wall_seconds = after.wall_seconds - before.wall_seconds;
            series.runs.push(Measurement { units, wall_seconds, cpu_seconds: after.cpu_seconds - before.cpu_seconds });
        }
    }
    Ok(series)
}

/// Wall time since `begin` and the CPU time of this process. Errors: no /proc on this system.
pub fn process_clock(begin: Instant) -> Result<Clock> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat; benches run on Linux")?;
    let cpu_seconds = cpu_seconds(&stat).context("/proc/self/stat has another shape")?;
    Ok(Clock { wall_seconds: begin.elapsed().as_secs_f64(), cpu_seconds })
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The command's name may hold spaces and parentheses: fields are counted from the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even_counts() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn variants_take_turns() {
        let order = std::cell::RefCell::new(Vec::new());
        let mut a = || {
            order.borrow_mut().push('a');
            Ok(10)
        };
        let mut b = || {
            order.borrow_mut().push('b');
            Ok(20)
        };
        let series = interleaved(3, &mut [("a", &mut a), ("b", &mut b)]).unwrap();
        assert_eq!(order.borrow().iter().collect::<String>(), "ababab");
        assert_eq!(series.iter().map(|s| (s.name.as_str(), s.runs.len(), s.runs[0].units)).collect::<Vec<_>>(), [("a", 3, 10), ("b", 3, 20)]);
        assert!(series[0].per_second().unwrap().min > 0.0);
    }

    #[test]
    fn a_failing_variant_is_named() {
        let mut fails = || anyhow::bail!("no data");
        let error = interleaved(1, &mut [("empty", &mut fails)]).unwrap_err();
        assert_eq!(format!("{error:#}"), "variant empty, round 1: no data");
        assert!(interleaved(0, &mut []).is_err());
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let begin = Instant::now();
        let before = process_clock(begin).unwrap();
        let mut sum = 0u64;
        // Ten ticks of work, however fast the machine is.
        while process_clock(begin).unwrap().cpu_seconds - before.cpu_seconds < 0.1 {
            sum = (0..100_000u64).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        }
        assert!(process_clock(begin).unwrap().wall_seconds > 0.0, "{sum}");
    }

    #[test]
    fn a_stat_line_of_a_strange_command_is_read() {
        assert_eq!(cpu_seconds("7 (a ) b) S 1 7 7 0 -1 4 1 0 0 0 150 50 0 0"), Some(2.0));
        assert_eq!(cpu_seconds("7 (a)"), None);
    }
}

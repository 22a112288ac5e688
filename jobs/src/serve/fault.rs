//! Faults on purpose, for the tests of isolation: a child that panics, runs out of memory or hangs when it comes to a chosen record. Only the
//! environment variable FRESHET_FAULT asks for one: `PIPELINE:panic|memory|swell|hang@SOURCE:PARTITION:OFFSET`.

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::serve::order::Offsets;

/// How much more than it has already a child may take before it has no memory left.
const MEMORY_LEFT: u64 = 64 << 20;

#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    kind: FaultKind,
    at: Offsets,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum FaultKind {
    Panic,
    Memory,
    /// Takes more and more memory, as long as nobody stops it.
    Swell,
    Hang,
}

impl Fault {
    /// The fault of this pipeline, if the text is about it. Errors: a text that is not understood.
    pub fn parse(text: &str, pipeline: &str) -> Result<Option<Fault>> {
        let wrong = || format!("FRESHET_FAULT={text} is not understood");
        let (name, rest) = text.split_once(':').with_context(wrong)?;
        let (kind, at) = rest.split_once('@').with_context(wrong)?;
        let kind = match kind {
            "panic" => FaultKind::Panic,
            "memory" => FaultKind::Memory,
            "swell" => FaultKind::Swell,
            "hang" => FaultKind::Hang,
            _ => bail!(wrong()),
        };
        let at = at.parse().with_context(wrong)?;
        Ok((name == pipeline).then_some(Fault { kind, at }))
    }

    /// Strikes if the step has the record. A panic and a lack of memory end the process.
    pub fn strike(&self, step: &[Offsets]) {
        let hits = |offsets: &Offsets| {
            offsets.source == self.at.source && offsets.partition == self.at.partition && offsets.from <= self.at.to && self.at.from <= offsets.to
        };
        if !step.iter().any(hits) {
            return;
        }
        match self.kind {
            FaultKind::Panic => panic!("a fault on purpose at {}", self.at),
            FaultKind::Memory => exhaust_memory(),
            FaultKind::Swell => swell(),
            FaultKind::Hang => loop {
                std::thread::park();
            },
        }
    }
}

fn swell() {
    let mut hoard = Vec::new();
    loop {
        // Written to, so that it is there; so much at most, should nobody look.
        if hoard.len() < 64 {
            hoard.push(std::hint::black_box(vec![1_u8; 16 << 20]));
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

fn exhaust_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let limit = size.unwrap_or(0) * 1024 + MEMORY_LEFT;
    let _ = setrlimit(Resource::As, Rlimit { current: Some(limit), maximum: getrlimit(Resource::As).maximum });
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![0_u8; 16 << 20]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_of_one_pipeline_and_strikes_at_its_record() {
        let fault = Fault::parse("b:panic@rides:0:120", "b").unwrap().unwrap();
        assert_eq!(Fault::parse("b:panic@rides:0:120", "a").unwrap(), None);
        assert!(Fault::parse("b:panic", "b").is_err() && Fault::parse("b:burn@rides:0:1", "b").is_err());
        fault.strike(&["rides:0:0-119".parse().unwrap(), "rides:1:0-500".parse().unwrap()]);
        let struck = std::panic::catch_unwind(|| fault.strike(&["rides:0:100-120".parse().unwrap()]));
        assert!(struck.is_err());
    }
}

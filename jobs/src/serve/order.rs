//! What a pipeline is, and what one generation of it is told when it starts. In: a submission, checked. Out: plain data that is written down
//! and read back.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use freshet_sql::Script;
use serde::{Deserialize, Serialize};

/// A name is also a folder.
const NAME_BYTES_MAX: usize = 64;

/// Less is taken up by the code and the threads of a process.
const MEMORY_BYTES_MIN: u64 = 128 << 20;

/// A number of bytes: `800MiB`, `2GB`, `1073741824`. Errors: what it is to look like.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(text.len());
    let units = [("", 1), ("KB", 1_000), ("KiB", 1 << 10), ("MB", 1_000_000), ("MiB", 1 << 20), ("GB", 1_000_000_000), ("GiB", 1 << 30)];
    let unit = units.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text[digits..].trim()));
    let bytes = unit.and_then(|(_, unit)| text[..digits].parse::<u64>().ok()?.checked_mul(unit));
    bytes.with_context(|| format!("{text} is no number of bytes, such as 800MiB or 2GiB"))
}

/// A pipeline as somebody hands it in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    pub name: String,
    /// Relative paths in the scripts, and those of the scripts themselves, begin here: where `submit` was called.
    pub directory: PathBuf,
    pub scripts: Vec<ScriptText>,
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    #[serde(default)]
    pub workers: Option<usize>,
    /// Slows a replay down to this rate.
    #[serde(default)]
    pub events_per_second: Option<u64>,
    /// A generation that takes more is ended, as the system would end it.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptText {
    pub name: String,
    pub text: String,
}

impl Submission {
    /// Errors: what is wrong with it before any SQL is read.
    pub fn check(&self) -> Result<()> {
        let fits = |symbol: char| symbol.is_ascii_alphanumeric() || symbol == '_' || symbol == '-';
        let name = &self.name;
        ensure!(
            !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(fits) && !name.starts_with('-'),
            "pipeline name {name:?} is not understood; use at most {NAME_BYTES_MAX} letters, digits, _ and -"
        );
        ensure!(!self.scripts.is_empty(), "pipeline {name} has no script");
        ensure!(self.workers != Some(0), "workers must be at least 1");
        ensure!(self.events_per_second != Some(0), "events_per_second must be at least 1");
        let enough = self.memory_bytes.is_none_or(|bytes| bytes >= MEMORY_BYTES_MIN);
        ensure!(enough, "memory must be at least {} MiB: a pipeline without rows needs about half of it", MEMORY_BYTES_MIN >> 20);
        ensure!(self.directory.is_absolute(), "directory {} is not absolute", self.directory.display());
        ensure!(self.directory.is_dir(), "directory {} is not there", self.directory.display());
        Ok(())
    }

    pub fn scripts(&self) -> Vec<Script> {
        self.scripts.iter().map(|script| Script { name: script.name.clone(), text: script.text.clone() }).collect()
    }
}

/// What a child process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Run,
    /// Answers from the last checkpoint and reads nothing.
    ServeOnly,
}

/// One generation of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub submission: Submission,
    pub generation: u64,
    pub mode: Mode,
    pub data_dir: PathBuf,
    /// Where the generation before listened, to be taken again if it is free.
    pub flight: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub onnxruntime: Option<PathBuf>,
    /// Records that become dead letters unread.
    pub skips: Vec<Offsets>,
    /// What the generation before was computing when it crashed.
    pub suspects: Vec<Offsets>,
    /// How many rows of the suspects make a step, so that another crash names fewer.
    pub step_rows: Option<usize>,
}

/// Records of one partition, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offsets {
    pub source: String,
    pub partition: u32,
    pub from: u64,
    pub to: u64,
}

impl Offsets {
    pub fn contains(&self, source: &str, partition: u32, offset: u64) -> bool {
        self.source == source && self.partition == partition && self.from <= offset && offset <= self.to
    }

    /// As `--skip-offsets` takes it.
    pub fn argument(&self) -> String {
        format!("{}:{}:{}-{}", self.source, self.partition, self.from, self.to)
    }
}

impl fmt::Display for Offsets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Offsets { source, partition, from, to } = self;
        if from == to {
            write!(out, "source {source}, partition {partition}, offset {from}")
        } else {
            write!(out, "source {source}, partition {partition}, offsets {from}–{to}")
        }
    }
}

impl FromStr for Offsets {
    type Err = anyhow::Error;

    /// `SOURCE:PARTITION:FROM-TO`, or one offset instead of two.
    fn from_str(text: &str) -> Result<Offsets> {
        let wrong = || format!("{text} is not SOURCE:PARTITION:FROM-TO, for example rides:0:120-340");
        let mut parts = text.rsplitn(3, ':');
        let (range, partition, source) = (parts.next(), parts.next(), parts.next());
        let (Some(range), Some(partition), Some(source)) = (range, partition, source) else { bail!(wrong()) };
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let partition = partition.parse().with_context(wrong)?;
        let (from, to) = (from.parse().with_context(wrong)?, to.parse().with_context(wrong)?);
        ensure!(from <= to && !source.is_empty(), "{}", wrong());
        Ok(Offsets { source: source.to_string(), partition, from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_read_what_they_print() {
        let offsets: Offsets = "rides:0:120-340".parse().unwrap();
        assert_eq!(offsets.to_string(), "source rides, partition 0, offsets 120–340");
        assert_eq!(offsets.argument(), "rides:0:120-340");
        assert!(offsets.contains("rides", 0, 120) && offsets.contains("rides", 0, 340));
        assert!(!offsets.contains("rides", 0, 341) && !offsets.contains("rides", 1, 200) && !offsets.contains("trips", 0, 200));
        assert_eq!("a:b:3:7".parse::<Offsets>().unwrap(), Offsets { source: "a:b".into(), partition: 3, from: 7, to: 7 });
        for wrong in ["rides", "rides:0", "rides:x:1", "rides:0:5-4", ":0:1", "rides:0:1-"] {
            assert!(wrong.parse::<Offsets>().unwrap_err().to_string().contains("is not SOURCE:PARTITION:FROM-TO"), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_is_no_folder_is_refused() {
        let here = std::env::temp_dir();
        let submission = |name: &str| Submission {
            name: name.into(),
            directory: here.clone(),
            scripts: vec![ScriptText { name: "a.sql".into(), text: String::new() }],
            variables: BTreeMap::new(),
            workers: None,
            events_per_second: None,
            memory_bytes: None,
        };
        assert!(submission("taxi_2-b").check().is_ok());
        for name in ["", "..", "a/b", "-a", "ä", &"a".repeat(65)] {
            assert!(submission(name).check().unwrap_err().to_string().contains("is not understood"), "{name}");
        }
        let small = Submission { memory_bytes: Some(1 << 20), ..submission("taxi") };
        assert!(small.check().unwrap_err().to_string().contains("at least 128 MiB"));
    }

    #[test]
    fn bytes_have_units() {
        for (text, bytes) in [("7", 7), ("800MiB", 800 << 20), ("2 gib", 2 << 30), ("1GB", 1_000_000_000)] {
            assert_eq!(parse_bytes(text).unwrap(), bytes);
        }
        for text in ["", "GiB", "1.5GiB", "7 apples", "99999999999999999999", "99999999999GiB"] {
            assert!(parse_bytes(text).unwrap_err().to_string().contains("is no number of bytes"), "{text}");
        }
    }
}

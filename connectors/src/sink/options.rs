//! WITH options of a file sink. In: a declaration. Out: one file that grows, or parts in a folder or bucket, and when a part is full.

use std::collections::BTreeMap;
use std::time::Duration;

use freshet_core::{Encode, OptionError, SinkDef};

use super::partition::{PARTITION, Partitions};
use crate::options::{PATH, duration, required, wrong};
use crate::source::check_s3;
use crate::store::{Location, S3};

const SIZE: &str = "roll.size";
const INTERVAL: &str = "roll.interval";
/// Beside those of encodings and buckets.
pub const SINK_OPTIONS: [&str; 3] = [SIZE, INTERVAL, PARTITION];
/// 64 MiB: large enough for readers of columns, small enough to hold in memory until it is written.
const PART_BYTES: u64 = 64 << 20;
/// A part is held in memory and written in one request.
pub const PART_BYTES_MAX: u64 = 1 << 30;

pub struct FileOptions {
    pub location: Location,
    pub s3: S3,
    /// None: one file that grows.
    pub parts: Option<Roll>,
    /// The folders of its parts.
    pub partitions: Option<Partitions>,
}

/// When a part is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roll {
    pub bytes: u64,
    /// A part holds epochs of one such interval only, counted from 1970.
    pub interval_ms: Option<u64>,
}

impl FileOptions {
    pub fn parse(def: &SinkDef) -> Result<FileOptions, OptionError> {
        let options = &def.options;
        let path = required("file", options, PATH, "the file or folder to write")?;
        if path.contains(['*', '?']) {
            return Err(wrong(PATH, format!("a sink writes one place, but path '{path}' has a wildcard")));
        }
        let location = Location::parse(path).map_err(|message| wrong(PATH, message))?;
        check_s3(&location, options)?;
        let rolls = options.contains_key(SIZE) || options.contains_key(INTERVAL);
        let partitions = Partitions::parse(def)?;
        let in_parts = rolls || partitions.is_some() || location.is_bucket() || def.encode == Encode::Parquet || path.ends_with('/');
        Ok(FileOptions { s3: S3::parse(options)?, parts: in_parts.then(|| Roll::parse(options)).transpose()?, partitions, location })
    }
}

impl Roll {
    fn parse(options: &BTreeMap<String, String>) -> Result<Roll, OptionError> {
        let interval = duration(options, INTERVAL, Duration::ZERO)?;
        let interval_ms = options.contains_key(INTERVAL).then(|| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
        if interval_ms == Some(0) {
            return Err(wrong(INTERVAL, "roll.interval is at least '1ms'; leave it out to roll by size alone"));
        }
        Ok(Roll { bytes: bytes(options)?, interval_ms })
    }
}

fn bytes(options: &BTreeMap<String, String>) -> Result<u64, OptionError> {
    let Some(text) = options.get(SIZE) else { return Ok(PART_BYTES) };
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let unit_bytes = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_bytes)) {
        Some(bytes) if (1..=PART_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(wrong(SIZE, format!("roll.size is a size such as '64MiB' or '500kB', from 1 byte to 1 GiB; found '{text}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_intervals_have_units() {
        let parse = |pairs: &[(&str, &str)]| Roll::parse(&pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect());
        assert_eq!(parse(&[]).unwrap(), Roll { bytes: PART_BYTES, interval_ms: None });
        let both = parse(&[("roll.size", "2 MiB"), ("roll.interval", "1h")]).unwrap();
        assert_eq!(both, Roll { bytes: 2 << 20, interval_ms: Some(3_600_000) });
        for (name, bad) in [("roll.size", "0"), ("roll.size", "2GiB"), ("roll.size", "many"), ("roll.interval", "0s"), ("roll.interval", "x")] {
            assert_eq!(parse(&[(name, bad)]).unwrap_err().option.as_deref(), Some(name), "{bad}");
        }
    }
}

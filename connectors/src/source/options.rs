//! WITH options of a file source. In: a declaration. Out: where its files are and whether new ones are looked for.

use std::time::Duration;

use freshet_core::{Error, OptionError, Result, SourceDef};

use super::metadata::check_metadata;
use crate::options::{PATH, duration, required, wrong};
use crate::store::{Location, S3, S3_OPTIONS};

const PATTERN: &str = "match_pattern";
const DISCOVERY: &str = "discovery.interval";
/// Beside those of encodings and buckets.
pub const SOURCE_OPTIONS: [&str; 2] = [PATTERN, DISCOVERY];
/// More often costs more than it finds.
const DISCOVERY_MIN: Duration = Duration::from_millis(10);

pub struct FileOptions {
    pub location: Location,
    pub s3: S3,
    /// How often new files are looked for. None: what is there is read, and the source ends.
    pub discovery: Option<Duration>,
}

impl FileOptions {
    pub fn parse(def: &SourceDef) -> Result<FileOptions, OptionError> {
        let options = &def.options;
        let path = required("file", options, PATH, "the file, folder or glob to read")?;
        let mut location = Location::parse(path).map_err(|message| wrong(PATH, message))?;
        if let Some(pattern) = options.get(PATTERN) {
            if location.select().pattern.is_some() {
                return Err(wrong(PATTERN, format!("path '{path}' has a pattern already; leave one of the two out")));
            }
            if pattern.trim_matches('/').is_empty() || pattern.contains("..") {
                return Err(wrong(
                    PATTERN,
                    format!("match_pattern must be a pattern below path, such as '*.json' or '**/*.json', found '{pattern}'"),
                ));
            }
            location = location.join(pattern.trim_matches('/'));
        }
        let discovery = match options.contains_key(DISCOVERY) {
            true => Some(duration(options, DISCOVERY, DISCOVERY_MIN)?).filter(|interval| !interval.is_zero()).map(|every| every.max(DISCOVERY_MIN)),
            false => None,
        };
        check_s3(&location, options)?;
        Ok(FileOptions { location, s3: S3::parse(options)?, discovery })
    }

    pub fn of(def: &SourceDef) -> Result<FileOptions> {
        FileOptions::parse(def).map_err(|error| Error::invalid(error.message))
    }
}

/// Errors: options of a bucket where there is none.
pub fn check_s3(location: &Location, options: &std::collections::BTreeMap<String, String>) -> Result<(), OptionError> {
    match S3_OPTIONS.iter().find(|name| options.contains_key(**name)) {
        Some(name) if !location.is_bucket() => Err(wrong(name, format!("option {name} is for paths such as s3://bucket/folder/; remove it"))),
        _ => Ok(()),
    }
}

/// Errors: what is wrong with path, discovery and metadata.
pub fn check_source(def: &SourceDef) -> Result<(), OptionError> {
    check_metadata(def)?;
    FileOptions::parse(def).map(|_| ())
}

//! Where a path points. In: a local path, `file://…` or `s3://…`, with or without wildcards. Out: a base folder and the pattern below it.

use std::path::PathBuf;

use super::glob::Pattern;

/// A place of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Local(PathBuf),
    /// The key has no slash at its beginning.
    Bucket {
        name: String,
        key: String,
    },
}

/// What to list, and which of it to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// A folder; or a file, where there is no pattern.
    pub base: Location,
    /// None: the base is a file, or a folder whose files are all meant.
    pub pattern: Option<Pattern>,
}

impl Location {
    /// Errors: one sentence for the user.
    pub fn parse(text: &str) -> Result<Location, String> {
        match text.split_once("://") {
            None => Ok(Location::Local(PathBuf::from(text))),
            Some(("file", rest)) => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(format!("'{text}' must name an absolute path, as in file:///data/events.jsonl"));
                }
                let decoded = percent_decoded(path).ok_or_else(|| format!("'{text}' is not a valid URL: its percent encoding is broken"))?;
                Ok(Location::Local(PathBuf::from(decoded)))
            }
            Some(("s3" | "s3a", rest)) => {
                let (name, key) = rest.split_once('/').unwrap_or((rest, ""));
                if !is_bucket(name) {
                    return Err(format!("'{text}' must name a bucket, as in s3://bucket/folder/"));
                }
                Ok(Location::Bucket { name: name.to_string(), key: key.to_string() })
            }
            Some((scheme, _)) => Err(format!("{scheme}:// is not in this build; use a local path, file:// or s3://")),
        }
    }

    /// Splits before the first folder or name with a wildcard.
    pub fn select(&self) -> Selection {
        let text = match self {
            Location::Local(path) => path.to_string_lossy().into_owned(),
            Location::Bucket { key, .. } => key.clone(),
        };
        let wild = text.split('/').position(Pattern::is_wild);
        let Some(wild) = wild else { return Selection { base: self.clone(), pattern: None } };
        let segments: Vec<&str> = text.split('/').collect();
        let base = segments[..wild].join("/");
        let base = match self {
            Location::Local(path) if base.is_empty() && path.is_absolute() => Location::Local("/".into()),
            Location::Local(_) if base.is_empty() => Location::Local(".".into()),
            Location::Local(_) => Location::Local(base.into()),
            Location::Bucket { name, .. } => Location::Bucket { name: name.clone(), key: base },
        };
        Selection { base, pattern: Some(Pattern::new(&segments[wild..].join("/"))) }
    }

    /// The location below this folder.
    pub fn join(&self, below: &str) -> Location {
        match self {
            Location::Local(path) => Location::Local(path.join(below)),
            Location::Bucket { name, key } if key.is_empty() || key.ends_with('/') => {
                Location::Bucket { name: name.clone(), key: format!("{key}{below}") }
            }
            Location::Bucket { name, key } => Location::Bucket { name: name.clone(), key: format!("{key}/{below}") },
        }
    }

    pub fn is_bucket(&self) -> bool {
        matches!(self, Location::Bucket { .. })
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::Local(path) => write!(f, "{}", path.display()),
            Location::Bucket { name, key } => write!(f, "s3://{name}/{key}"),
        }
    }
}

fn is_bucket(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_'))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(key: &str) -> Location {
        Location::Bucket { name: "bucket".into(), key: key.into() }
    }

    #[test]
    fn urls_are_local_paths_buckets_or_refused() {
        assert_eq!(Location::parse("file:///a%20b/c").unwrap(), Location::Local("/a b/c".into()));
        assert_eq!(Location::parse("a/b.csv").unwrap(), Location::Local("a/b.csv".into()));
        assert_eq!(Location::parse("s3://bucket/a/b.csv").unwrap(), bucket("a/b.csv"));
        assert_eq!(Location::parse("s3a://bucket").unwrap(), bucket(""));
        assert_eq!(Location::parse("gs://bucket/a").unwrap_err(), "gs:// is not in this build; use a local path, file:// or s3://");
        assert!(Location::parse("s3:///a").unwrap_err().contains("must name a bucket"));
        assert!(Location::parse("file://a/b").unwrap_err().contains("absolute path"));
    }

    #[test]
    fn the_pattern_begins_at_the_first_wildcard() {
        let select = |text: &str| Location::parse(text).unwrap().select();
        let local = |base: &str, pattern: Option<&str>| Selection { base: Location::Local(base.into()), pattern: pattern.map(Pattern::new) };
        assert_eq!(select("/a/b/*.csv"), local("/a/b", Some("*.csv")));
        assert_eq!(select("*.csv"), local(".", Some("*.csv")));
        assert_eq!(select("/*/b.csv"), local("/", Some("*/b.csv")));
        assert_eq!(select("a/b"), local("a/b", None));
        assert_eq!(select("s3://bucket/a/day=*/x.csv"), Selection { base: bucket("a"), pattern: Some(Pattern::new("day=*/x.csv")) });
        assert_eq!(bucket("a").join("b").to_string(), "s3://bucket/a/b");
        assert_eq!(bucket("a/").join("b"), bucket("a").join("b"));
    }
}

//! Finds and reads files, now on local disk, later in buckets. In: a path, folder or glob. Out: files in name order, ranges of their bytes.

use std::ops::Range;
use std::path::{Path as LocalPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use freshet_core::{Error, Result};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// Where a path points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Local(PathBuf),
}

impl Location {
    /// Errors: one sentence for the user.
    pub fn parse(text: &str) -> Result<Location, String> {
        let local = match text.split_once("://") {
            None => PathBuf::from(text),
            Some(("file", rest)) => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(format!("'{text}' must name an absolute path, as in file:///data/events.jsonl"));
                }
                PathBuf::from(percent_decoded(path).ok_or_else(|| format!("'{text}' is not a valid URL: its percent encoding is broken"))?)
            }
            Some((scheme, _)) => return Err(format!("{scheme}:// is not in this build yet; use a local path or file://")),
        };
        let folder = local.parent().unwrap_or(LocalPath::new(""));
        if folder.to_string_lossy().contains('*') {
            return Err(format!("path '{text}' has a * in a folder name; only the file name may have one"));
        }
        Ok(Location::Local(local))
    }
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

/// One file of a source.
#[derive(Debug, Clone)]
pub struct StoredFile {
    path: Path,
    /// As messages show it.
    pub name: String,
    pub bytes: u64,
}

/// The store behind a location, with the small runtime its futures need. Opened, used and dropped on one thread without a runtime of its own.
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Runtime,
    location: Location,
}

impl Store {
    /// Errors: Invalid.
    pub fn open(path: &str) -> Result<Store> {
        let location = Location::parse(path).map_err(Error::invalid)?;
        let objects: Arc<dyn ObjectStore> = match &location {
            Location::Local(_) => Arc::new(LocalFileSystem::new()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| Error::unavailable(format!("cannot start the runtime of the file connector: {error}")))?;
        Ok(Store { objects, runtime, location })
    }

    /// The files of the location in name order. Errors: Invalid if there are none.
    pub fn files(&self) -> Result<Vec<StoredFile>> {
        let Location::Local(path) = &self.location;
        let shown = path.display();
        let missing = |what: &str| Error::invalid(format!("{what}; check the path (relative paths start at the folder the command runs in)"));
        let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let (folder, pattern) = match file_name {
            Some(name) if name.contains('*') => (path.parent().unwrap_or(LocalPath::new("")), Some(name)),
            _ => (path.as_path(), None),
        };
        let folder = if folder.as_os_str().is_empty() { LocalPath::new(".") } else { folder };
        let metadata = std::fs::metadata(folder).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(&format!("there is no file or folder {}", folder.display())),
            _ => local_error(&error, format!("cannot read {}: {error}", folder.display())),
        })?;
        let object = object_path(folder)?;
        if !metadata.is_dir() {
            let meta = self.wait(folder.display().to_string(), self.objects.head(&object))?;
            return Ok(vec![StoredFile { path: object, name: shown.to_string(), bytes: meta.size }]);
        }
        let listed = self.wait(folder.display().to_string(), self.objects.list_with_delimiter(Some(&object)))?;
        let mut files: Vec<StoredFile> = listed
            .objects
            .into_iter()
            .filter_map(|meta| {
                let name = meta.location.filename()?.to_string();
                let wanted = match &pattern {
                    Some(pattern) => matches(pattern, &name),
                    None => !name.starts_with(['.', '_']),
                };
                wanted.then(|| StoredFile { name: folder.join(&name).display().to_string(), path: meta.location, bytes: meta.size })
            })
            .collect();
        if files.is_empty() {
            return Err(missing(&if pattern.is_some() { format!("no file matches {shown}") } else { format!("there is no file in folder {shown}") }));
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Errors: Unavailable, naming the file.
    pub fn read(&self, file: &StoredFile, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.wait(file.name.clone(), self.objects.get_range(&file.path, range))
    }

    fn wait<T>(&self, name: String, work: impl Future<Output = object_store::Result<T>>) -> Result<T> {
        self.runtime.block_on(work).map_err(|error| Error::unavailable(format!("cannot read {name}: {error}")))
    }
}

/// The error of a local file: one that time alone does not mend is Invalid, and nobody tries it again.
pub fn local_error(error: &std::io::Error, message: String) -> Error {
    use std::io::ErrorKind::*;
    match error.kind() {
        NotFound | PermissionDenied | NotADirectory | IsADirectory | ReadOnlyFilesystem | InvalidInput | InvalidFilename => Error::invalid(message),
        _ => Error::unavailable(message),
    }
}

fn object_path(path: &LocalPath) -> Result<Path> {
    Path::from_filesystem_path(path).map_err(|error| Error::unavailable(format!("cannot read {}: {error}", path.display())))
}

/// Whether a name fits a pattern in which * stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_local_paths_or_refused() {
        assert_eq!(Location::parse("file:///a%20b/c").unwrap(), Location::Local("/a b/c".into()));
        assert_eq!(Location::parse("a/b.csv").unwrap(), Location::Local("a/b.csv".into()));
        assert_eq!(Location::parse("s3://bucket/a").unwrap_err(), "s3:// is not in this build yet; use a local path or file://");
        assert!(Location::parse("file://a/b").unwrap_err().contains("absolute path"));
        assert!(Location::parse("a*/b.csv").unwrap_err().contains("only the file name"));
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(matches("part-*.csv", "part-7.csv") && matches("*", "x") && matches("a*b*c", "a12b3c"));
        assert!(!matches("part-*.csv", "part-7.json") && !matches("a*b*c", "ab") && !matches("ab*ba", "aba"));
    }
}

//! Finds and reads files, on local disk or in a bucket. In: a location. Out: files in name order, ranges of their bytes, and parts of sinks.

use std::ops::Range;
use std::path::Path as LocalPath;
use std::sync::Arc;

use bytes::Bytes;
use freshet_core::{Error, Result};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::glob::Pattern;
use super::location::{Location, Selection};
use super::outage::Outage;
use super::s3::S3;

/// Files of one listing. A source that has more to look at must be narrowed, or what was read be moved away.
const FILES_MAX: usize = 1_000_000;

/// One file of a source.
#[derive(Debug, Clone)]
pub struct StoredFile {
    path: Path,
    /// As messages show it.
    pub name: String,
    pub bytes: u64,
    /// Another one whenever the content is another.
    pub tag: String,
    pub modified_ms: i64,
}

/// Why a file cannot be read on.
#[derive(Debug)]
pub enum ReadError {
    Gone,
    /// Its content is not that of the listing any more.
    Changed,
    Failed(Error),
}

/// The store behind a location, with the small runtime its futures need. Opened, used and dropped on one thread without a runtime of its own.
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Runtime,
    location: Location,
    selection: Selection,
    /// Who waits while the store is away; None: that is an error.
    outage: Option<Arc<Outage>>,
}

impl Store {
    /// Errors: Invalid.
    pub fn open(location: &Location, s3: &S3) -> Result<Store> {
        let selection = location.select();
        let objects: Arc<dyn ObjectStore> = match &selection.base {
            Location::Local(_) => Arc::new(LocalFileSystem::new()),
            Location::Bucket { name, .. } => Arc::new(s3.client(name)?),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::unavailable(format!("cannot start the runtime of the file connector: {error}")))?;
        Ok(Store { objects, runtime, location: location.clone(), selection, outage: None })
    }

    /// From now on a read waits until the store is back.
    pub fn wait_with(&mut self, outage: Arc<Outage>) {
        self.outage = Some(outage);
    }

    /// The files of the location in name order. Errors: Invalid if there are none, or no such place.
    pub fn files(&self) -> Result<Vec<StoredFile>> {
        let files = self.list()?;
        if files.is_empty() {
            let shown = &self.location;
            return Err(missing(&match (&self.selection.pattern, shown) {
                (Some(_), _) => format!("no file matches {shown}"),
                (None, Location::Local(_)) => format!("there is no file in folder {shown}"),
                (None, Location::Bucket { .. }) => format!("there is no file in {shown}"),
            }));
        }
        Ok(files)
    }

    /// The files there are now, in name order; none is no error. Errors: Invalid (no such folder or bucket), Unavailable.
    pub fn list(&self) -> Result<Vec<StoredFile>> {
        if let Location::Local(path) = &self.selection.base {
            let path = if path.as_os_str().is_empty() { LocalPath::new(".") } else { path };
            let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => missing(&format!("there is no file or folder {}", path.display())),
                _ => local_error(&error, format!("cannot read {}: {error}", path.display())),
            })?;
            if !metadata.is_dir() {
                let base = self.base()?;
                let meta = self.wait(&path.display().to_string(), self.objects.head(&base))?;
                return Ok(vec![stored(meta, path.display().to_string())]);
            }
        }
        let base = self.base()?;
        let mut files = Vec::new();
        self.list_below(&base, &[], &mut files)?;
        if let (true, None, Location::Bucket { name, key }) = (files.is_empty(), &self.selection.pattern, &self.selection.base)
            && !key.is_empty()
            && !key.ends_with('/')
        {
            match self.runtime.block_on(self.objects.head(&base)) {
                Ok(meta) => files.push(stored(meta, format!("s3://{name}/{key}"))),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed(&format!("s3://{name}/{key}"), &error)),
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn list_below(&self, folder: &Path, segments: &[String], files: &mut Vec<StoredFile>) -> Result<()> {
        let any = Pattern::any();
        let pattern = self.selection.pattern.as_ref().unwrap_or(&any);
        let shown = self.shown(segments);
        let listed = self.wait(&shown, self.objects.list_with_delimiter(Some(folder)))?;
        let at = |name: &str| segments.iter().map(String::as_str).chain([name]).map(str::to_string).collect::<Vec<String>>();
        for meta in listed.objects {
            let Some(name) = meta.location.filename().map(str::to_string) else { continue };
            let path = at(&name);
            if pattern.matches(&path.iter().map(String::as_str).collect::<Vec<_>>()) {
                let name = self.shown(&path);
                files.push(stored(meta, name));
            }
            if files.len() > FILES_MAX {
                return Err(Error::unavailable(format!(
                    "{shown} has more than {FILES_MAX} files that fit; move away those that have been read, or narrow the pattern"
                )));
            }
        }
        for below in listed.common_prefixes {
            let Some(name) = below.filename() else { continue };
            let path = at(name);
            if pattern.may_match_below(&path.iter().map(String::as_str).collect::<Vec<_>>()) {
                self.list_below(&below, &path, files)?;
            }
        }
        Ok(())
    }

    /// A path below the base, as the user would write it.
    fn shown(&self, segments: &[String]) -> String {
        match &self.selection.base {
            Location::Local(path) if path == LocalPath::new(".") && !segments.is_empty() => segments.join("/"),
            base if segments.is_empty() => base.to_string(),
            base => base.join(&segments.join("/")).to_string(),
        }
    }

    /// Errors: naming the file.
    pub fn read(&self, file: &StoredFile, range: Range<u64>) -> Result<Bytes, ReadError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.asking(|| match &self.selection.base {
            Location::Local(_) => {
                let read = self.objects_result(file, self.runtime.block_on(self.objects.get_range(&file.path, range.clone())));
                // A file that has been cut short cannot be read there, now or later.
                read.map_err(|error| self.look_once(file).err().filter(|fault| !matches!(fault, ReadError::Failed(_))).unwrap_or(error))
            }
            Location::Bucket { .. } => {
                let options = GetOptions { if_match: Some(file.tag.clone()), range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
                let read = async { self.objects.get_opts(&file.path, options).await?.bytes().await };
                self.objects_result(file, self.runtime.block_on(read))
            }
        })
    }

    /// Whether the file is there, and as it was listed.
    pub fn look(&self, file: &StoredFile) -> Result<(), ReadError> {
        self.asking(|| self.look_once(file))
    }

    fn look_once(&self, file: &StoredFile) -> Result<(), ReadError> {
        let meta = self.objects_result(file, self.runtime.block_on(self.objects.head(&file.path)))?;
        if tag_of(&meta) == file.tag { Ok(()) } else { Err(ReadError::Changed) }
    }

    /// Tries again while the store is away, if somebody waits for it.
    fn asking<T>(&self, mut ask: impl FnMut() -> Result<T, ReadError>) -> Result<T, ReadError> {
        let Some(outage) = &self.outage else { return ask() };
        let asked = outage.retry(|| match ask() {
            Ok(found) => Ok(Ok(found)),
            Err(ReadError::Failed(error)) => Err(error),
            Err(fault) => Ok(Err(fault)),
        });
        asked.map_err(ReadError::Failed)?
    }

    fn objects_result<T>(&self, file: &StoredFile, done: object_store::Result<T>) -> Result<T, ReadError> {
        done.map_err(|error| match error {
            object_store::Error::NotFound { .. } => ReadError::Gone,
            object_store::Error::Precondition { .. } => ReadError::Changed,
            // A bucket that was listed refuses for a while, as when keys are changed; a local file has rights of its own.
            error if self.selection.base.is_bucket() && self.outage.is_some() => {
                ReadError::Failed(Error::unavailable(self.failed(&file.name, &error).message))
            }
            error => ReadError::Failed(match io_error(&error) {
                Some(io) => local_error(io, format!("cannot read {}: {io}", file.name)),
                None => self.failed(&file.name, &error),
            }),
        })
    }

    // --- what sinks need

    /// Creates the file, whole, if there is none of this name. False: there is one.
    pub fn create(&self, name: &str, bytes: Bytes) -> Result<bool> {
        let path = self.below(name)?;
        let shown = self.shown(&[name.to_string()]);
        match self.runtime.block_on(self.objects.put_opts(&path, PutPayload::from(bytes), PutMode::Create.into())) {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed(&shown, &error)),
        }
    }

    /// The bytes of a file by its name; None: there is none.
    pub fn fetch(&self, name: &str) -> Result<Option<Bytes>> {
        let path = self.below(name)?;
        match self.runtime.block_on(async { self.objects.get(&path).await?.bytes().await }) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(&self.shown(&[name.to_string()]), &error)),
        }
    }

    /// Names in the folder itself, and in those below it, with their folders.
    pub fn names(&self, below: bool) -> Result<Vec<String>> {
        let (mut names, mut folders) = (Vec::new(), vec![(self.base()?, String::new())]);
        while let Some((folder, shown)) = folders.pop() {
            let listed = self.wait(&self.shown(std::slice::from_ref(&shown)), self.objects.list_with_delimiter(Some(&folder)))?;
            names.extend(listed.objects.iter().filter_map(|meta| Some(format!("{shown}{}", meta.location.filename()?))));
            if below {
                let inner = |path: Path| path.filename().map(|name| format!("{shown}{name}/")).map(|shown| (path.clone(), shown));
                folders.extend(listed.common_prefixes.into_iter().filter_map(inner));
            }
        }
        Ok(names)
    }

    pub fn delete(&self, name: &str) -> Result<()> {
        self.wait(&self.shown(&[name.to_string()]), self.objects.delete(&self.below(name)?))
    }

    fn base(&self) -> Result<Path> {
        match &self.selection.base {
            Location::Local(path) => {
                let path = if path.as_os_str().is_empty() { LocalPath::new(".") } else { path };
                Path::from_filesystem_path(path).map_err(|error| match path.exists() {
                    true => Error::unavailable(format!("cannot read {}: {error}", path.display())),
                    false => missing(&format!("there is no file or folder {}", path.display())),
                })
            }
            Location::Bucket { key, .. } => {
                Path::parse(key.trim_end_matches('/')).map_err(|error| Error::invalid(format!("{}: {error}", self.selection.base)))
            }
        }
    }

    fn below(&self, name: &str) -> Result<Path> {
        let base = self.base()?;
        let invalid = |error| Error::invalid(format!("{}: {error}", self.selection.base));
        // Names of folders are as they are: joining them would escape what is escaped already.
        if base.as_ref().is_empty() { Path::parse(name).map_err(invalid) } else { Path::parse(format!("{base}/{name}")).map_err(invalid) }
    }

    fn wait<T>(&self, name: &str, work: impl Future<Output = object_store::Result<T>>) -> Result<T> {
        self.runtime.block_on(work).map_err(|error| self.failed(name, &error))
    }

    /// Invalid where time alone mends nothing.
    fn failed(&self, name: &str, error: &object_store::Error) -> Error {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        let cause = cause(error);
        // What a listing was answered stands in its text only.
        let answered = |statuses: &[u16]| statuses.iter().any(|status| cause.contains(&format!("status code: {status}")));
        match error {
            _ if !self.selection.base.is_bucket() => Error::unavailable(format!("cannot read {name}: {cause}")),
            PermissionDenied { .. } | Unauthenticated { .. } => refused(name, &cause),
            NotFound { .. } => no_bucket(name),
            _ if answered(&[401, 403]) => refused(name, &cause),
            _ if answered(&[404]) => no_bucket(name),
            _ => Error::unavailable(format!("cannot read {name}: {cause}")),
        }
    }
}

fn refused(name: &str, cause: &str) -> Error {
    Error::invalid(format!("cannot read {name}: the store refuses; check s3.access_key, s3.secret_key and what they may do ({cause})"))
}

fn no_bucket(name: &str) -> Error {
    Error::invalid(format!("cannot read {name}: there is no such bucket; check the path and s3.endpoint"))
}

impl ReadError {
    /// As an error of the source, for one that cannot go on without this file.
    pub fn into_error(self, file: &str) -> Error {
        match self {
            ReadError::Gone => Error::data(format!("{file}: the file has disappeared while it was read")),
            ReadError::Changed => Error::data(format!("{file}: the file has changed while it was read")),
            ReadError::Failed(error) => error,
        }
    }
}

fn io_error(error: &object_store::Error) -> Option<&std::io::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        if let Some(io) = next.downcast_ref() {
            return Some(io);
        }
        source = next.source();
    }
    None
}

/// The last sentence of a chain of errors says most; the first repeats the path.
fn cause(error: &object_store::Error) -> String {
    let text = error.to_string();
    let mut source = std::error::Error::source(error);
    let mut last = None;
    while let Some(next) = source {
        last = Some(next.to_string());
        source = next.source();
    }
    match last {
        Some(last) if !text.contains(&last) => format!("{text}: {last}"),
        _ => text,
    }
}

fn stored(meta: ObjectMeta, name: String) -> StoredFile {
    StoredFile { tag: tag_of(&meta), modified_ms: meta.last_modified.timestamp_millis(), bytes: meta.size, path: meta.location, name }
}

fn tag_of(meta: &ObjectMeta) -> String {
    meta.e_tag.clone().unwrap_or_else(|| format!("{}-{}", meta.last_modified.timestamp_millis(), meta.size))
}

fn missing(what: &str) -> Error {
    Error::invalid(format!("{what}; check the path (relative paths start at the folder the command runs in)"))
}

/// The error of a local file: one that time alone does not mend is Invalid, and nobody tries it again.
pub fn local_error(error: &std::io::Error, message: String) -> Error {
    use std::io::ErrorKind::*;
    match error.kind() {
        NotFound | PermissionDenied | NotADirectory | IsADirectory | ReadOnlyFilesystem | InvalidInput | InvalidFilename => Error::invalid(message),
        _ => Error::unavailable(message),
    }
}

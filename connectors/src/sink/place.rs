//! Where parts lie: a local folder or a bucket. A part is there whole or not at all, and a part that is there is never written again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use freshet_core::{Error, Result, SinkDef};

use super::{failed, sync_folder};
use crate::store::{Location, S3, Store};

/// Parts by number, some of them in folders below.
pub trait Place: Send {
    /// Durable and visible when it returns; a repetition with the same bytes is no error. `folder` is empty or ends with a slash.
    fn publish(&self, folder: &str, number: u64, bytes: &Bytes) -> Result<()>;

    /// Deletes the parts from this one on, wherever they lie; how many are left.
    fn cut(&self, parts: u64) -> Result<u64>;

    /// For messages.
    fn shown(&self) -> String;
}

/// What parts are called.
struct Names {
    ending: &'static str,
    /// Whether parts lie in folders below.
    in_folders: bool,
}

impl Names {
    fn of(&self, number: u64) -> String {
        format!("part-{number:010}.{}", self.ending)
    }

    fn number(&self, name: &str) -> Option<u64> {
        name.strip_prefix("part-")?.strip_suffix(self.ending)?.strip_suffix('.')?.parse().ok()
    }
}

struct Folder {
    def: SinkDef,
    path: PathBuf,
    names: Names,
}

struct Bucket {
    def: SinkDef,
    location: Location,
    s3: S3,
    names: Names,
}

/// Creates a local folder; a bucket is not asked. Errors: Invalid or Unavailable, naming sink and path.
pub fn open(def: &SinkDef, location: Location, s3: S3, (ending, in_folders): (&'static str, bool)) -> Result<Box<dyn Place>> {
    let names = Names { ending, in_folders };
    let Location::Local(path) = location else { return Ok(Box::new(Bucket { def: def.clone(), location, s3, names })) };
    if path.is_file() {
        return Err(Error::invalid(format!("sink {}: {} is a file; parts are written into a folder", def.name, path.display())));
    }
    fs::create_dir_all(&path).map_err(|error| failed(def, &path, &error))?;
    Ok(Box::new(Folder { def: def.clone(), path, names }))
}

impl Place for Folder {
    /// Written aside and renamed.
    fn publish(&self, folder: &str, number: u64, bytes: &Bytes) -> Result<()> {
        let (path, name) = (self.path.join(folder), self.names.of(number));
        let aside = path.join(format!(".{name}"));
        let write = || {
            self.make(&path)?;
            let mut file = fs::File::create(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&aside, path.join(&name))?;
            sync_folder(&path)
        };
        write().map_err(|error| failed(&self.def, &path, &error))
    }

    fn cut(&self, parts: u64) -> Result<u64> {
        self.cut_in(&self.path, parts).map_err(|error| failed(&self.def, &self.path, &error))
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

impl Folder {
    /// Creates a folder of a partition, and those above it.
    fn make(&self, path: &Path) -> std::io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let above = path.parent().unwrap_or(&self.path);
        self.make(above)?;
        fs::create_dir(path)?;
        sync_folder(above)
    }

    fn cut_in(&self, folder: &Path, parts: u64) -> std::io::Result<u64> {
        let mut kept = 0;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.file_name().and_then(|name| self.names.number(name.to_str()?)) {
                Some(number) if number < parts => kept += 1,
                Some(_) => fs::remove_file(&path)?,
                None if self.names.in_folders && path.is_dir() => kept += self.cut_in(&path, parts)?,
                None => {}
            }
        }
        sync_folder(folder)?;
        Ok(kept)
    }
}

impl Bucket {
    /// A client and its runtime, for one thread and one call: a part is worth many of them.
    fn store(&self) -> Result<Store> {
        Store::open(&self.location, &self.s3).map_err(|error| self.named(error))
    }

    /// A store that refuses may be told otherwise; what has been taken in so far is not lost meanwhile.
    fn named(&self, error: Error) -> Error {
        Error { kind: error.kind, message: format!("sink {}: {}", self.def.name, error.message.replacen("cannot read", "cannot write", 1)) }
    }
}

impl Place for Bucket {
    /// Create-if-absent, so that two pipelines that write to one place find out.
    fn publish(&self, folder: &str, number: u64, bytes: &Bytes) -> Result<()> {
        let (store, name) = (self.store()?, format!("{folder}{}", self.names.of(number)));
        if store.create(&name, bytes.clone()).map_err(|error| self.named(error))? {
            return Ok(());
        }
        // An attempt whose answer was lost has written it.
        match store.fetch(&name).map_err(|error| self.named(error))? {
            Some(found) if found == *bytes => Ok(()),
            Some(_) => Err(Error::data(format!(
                "sink {}: {} has a part {name} that this pipeline did not write; does another one write there too? Give each sink a place of its own",
                self.def.name, self.location
            ))),
            None => Err(Error::unavailable(format!("sink {}: the part {name} in {} has come and gone", self.def.name, self.location))),
        }
    }

    fn cut(&self, parts: u64) -> Result<u64> {
        let store = self.store()?;
        let mut kept = 0;
        for name in store.names(self.names.in_folders).map_err(|error| self.named(error))? {
            match self.names.number(name.rsplit('/').next().unwrap_or(&name)) {
                Some(number) if number < parts => kept += 1,
                Some(_) => store.delete(&name).map_err(|error| self.named(error))?,
                None => {}
            }
        }
        Ok(kept)
    }

    fn shown(&self) -> String {
        self.location.to_string()
    }
}

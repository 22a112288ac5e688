//! Blobs in a local folder. A blob is written aside and renamed, so that it is whole or absent.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use freshet_core::{Blobs, Error, Result};

pub struct LocalBlobs {
    root: PathBuf,
}

impl LocalBlobs {
    /// Makes the folder if it is not there. Errors: Unavailable, naming it.
    pub fn open(root: &Path) -> Result<LocalBlobs> {
        fs::create_dir_all(root).map_err(|error| Error::unavailable(format!("cannot make the folder {}: {error}", root.display())))?;
        Ok(LocalBlobs { root: root.to_path_buf() })
    }

    /// A new name in a folder is durable only when the folder is.
    fn sync_folder(&self) -> std::io::Result<()> {
        File::open(&self.root)?.sync_all()
    }

    fn failed(&self, name: &str, error: &std::io::Error) -> Error {
        Error::unavailable(format!("{}: {error}", self.root.join(name).display()))
    }

    fn unreadable(&self, name: &str, error: &std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::NotFound => Error::data(format!("{} is missing", self.root.join(name).display())),
            ErrorKind::UnexpectedEof => Error::data(format!("{} is shorter than its manifest says", self.root.join(name).display())),
            _ => self.failed(name, error),
        }
    }

    fn write_aside(&self, name: &str, bytes: &[u8]) -> std::io::Result<PathBuf> {
        let aside = self.root.join(format!("{name}.tmp"));
        let written = File::create(&aside).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        if let Err(error) = written {
            // On a full disk half a blob would take the room that the next try needs.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        Ok(aside)
    }
}

impl Blobs for LocalBlobs {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let aside = self.write_aside(name, bytes).map_err(|error| self.failed(name, &error))?;
        let renamed = fs::rename(aside, self.root.join(name)).and_then(|()| self.sync_folder());
        renamed.map_err(|error| self.failed(name, &error))
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let aside = self.write_aside(name, bytes).map_err(|error| self.failed(name, &error))?;
        // A hard link fails if the name is taken, which a rename would not.
        let linked = fs::hard_link(&aside, self.root.join(name));
        fs::remove_file(&aside).map_err(|error| self.failed(name, &error))?;
        match linked {
            Ok(()) => self.sync_folder().map(|()| true).map_err(|error| self.failed(name, &error)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.root.join(name)).map_err(|error| self.unreadable(name, &error))
    }

    fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>> {
        let read = || {
            let mut file = File::open(self.root.join(name))?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = vec![0; len as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| self.unreadable(name, &error))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.root).map_err(|error| self.failed("", &error))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix) && !name.ends_with(".tmp"))
            .collect();
        names.sort();
        Ok(names)
    }

    fn delete(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed(name, &error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_of_two_writers_of_one_name_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(folder.path()).unwrap();
        assert!(blobs.put_if_absent("manifest-1", b"first").unwrap());
        assert!(!blobs.put_if_absent("manifest-1", b"second").unwrap());
        assert_eq!(blobs.get("manifest-1").unwrap(), b"first");
        assert_eq!(blobs.get_range("manifest-1", 1, 3).unwrap(), b"irs");
        assert!(blobs.get_range("manifest-1", 3, 9).unwrap_err().message.contains("shorter"));
        assert_eq!(blobs.list("manifest-").unwrap(), ["manifest-1"]);
        blobs.delete("manifest-1").unwrap();
        assert!(blobs.get("manifest-1").unwrap_err().message.contains("missing"));
    }
}

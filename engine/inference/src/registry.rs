//! Numbered versions of models on disk: `<root>/<model>/<version>/{model.onnx, version.json, reference.json}`. In: files with what is known
//! about them. Out: the same, checked. A version is whole or absent, never changes, and numbers count from 1 without gaps.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use freshet_core::{Error, Reference, Result};
use sha2::{Digest, Sha256};

use crate::version::{CreatedBy, Registration, VersionInfo};

pub const MODEL_FILE: &str = "model.onnx";
pub const VERSION_FILE: &str = "version.json";
pub const REFERENCE_FILE: &str = "reference.json";

/// Where a version is written before it has its number. No number and no encoded name begins with a dot, so nobody takes it for one.
const UNFINISHED: &str = ".unfinished";

/// File systems end names at 255 bytes.
const FOLDER_NAME_BYTES_MAX: usize = 255;

/// 64 KiB a read: one page of a file is hashed while the next is fetched.
const READ_BYTES: usize = 1 << 16;

/// The versions under one folder. One process registers (the data directory has one owner); any may read meanwhile.
#[derive(Debug, Clone)]
pub struct Registry {
    root: PathBuf,
}

impl Registry {
    /// Creates the folder if it is not there. Errors: Unavailable.
    pub fn open(root: &Path) -> Result<Registry> {
        fs::create_dir_all(root).map_err(|error| failed("creating", root, &error))?;
        Ok(Registry { root: root.to_path_buf() })
    }

    /// Copies a file in as the next version and returns its number. The same run registers once: a second call returns the number of the
    /// first, whatever file it brings. The script's file is version 1, and stays the same file. Errors: Invalid for a name that cannot be,
    /// another file of the script or a file that is not there; Data for damage; Unavailable for the disk.
    pub fn register(&self, model: &str, file: &Path, registration: Registration) -> Result<u32> {
        let folder = self.folder(model)?;
        let versions = self.versions(model)?;
        if let Some(info) = self.registered(model, &versions, registration.created_by.run_id())? {
            if registration.created_by == CreatedBy::Script {
                self.unchanged(&info, file)?;
            }
            return Ok(info.version);
        }
        if registration.created_by == CreatedBy::Script && !versions.is_empty() {
            return Err(Error::invalid(format!(
                "model {model} takes version 1 from {}, but {} already holds {} version(s) of it; use another data directory, or drop FROM",
                file.display(),
                folder.display(),
                versions.len()
            )));
        }
        let version = versions.len() as u32 + 1;
        let unfinished = stage(&folder, model, version, file, registration)?;
        publish(&unfinished, &folder, version)?;
        Ok(version)
    }

    /// The models with a folder here, ascending. Errors: Unavailable.
    pub fn models(&self) -> Result<Vec<String>> {
        let mut models: Vec<String> = names(&self.root)?.iter().filter_map(|name| decode(name)).collect();
        models.sort();
        Ok(models)
    }

    /// The versions of a model, ascending: 1 to n. None for a model that has none. Errors: Data if one is missing between others.
    pub fn versions(&self, model: &str) -> Result<Vec<u32>> {
        let folder = self.folder(model)?;
        let mut versions: Vec<u32> = names(&folder)?.iter().filter_map(|name| name.parse().ok()).collect();
        versions.sort_unstable();
        match versions.iter().zip(1..).find(|(version, expected)| *version != expected) {
            None => Ok(versions),
            Some((_, missing)) => Err(Error::data(format!("version {missing} of model {model} is missing in {}", folder.display()))),
        }
    }

    /// What is known about a version. Errors: Invalid if there is none, Data for damage.
    pub fn load_info(&self, model: &str, version: u32) -> Result<VersionInfo> {
        let path = self.version_folder(model, version)?.join(VERSION_FILE);
        let bytes = fs::read(&path).map_err(|error| failed("reading", &path, &error))?;
        let info: VersionInfo = serde_json::from_slice(&bytes).map_err(|error| damaged(&path, &error.to_string()))?;
        if info.model != model || info.version != version {
            return Err(damaged(&path, &format!("it speaks of version {} of {}", info.version, info.model)));
        }
        Ok(info)
    }

    /// What monitors compare with. Errors: as `load_info`.
    pub fn reference(&self, model: &str, version: u32) -> Result<Reference> {
        let info = self.load_info(model, version)?;
        let path = self.version_folder(model, version)?.join(REFERENCE_FILE);
        let bytes = fs::read(&path).map_err(|error| failed("reading", &path, &error))?;
        if hex(&Sha256::digest(&bytes)) != info.reference_sha256 {
            return Err(damaged(&path, "its SHA-256 is not the one it was registered with"));
        }
        serde_json::from_slice(&bytes).map_err(|error| damaged(&path, &error.to_string()))
    }

    /// The model file of a version, read through and compared with its hash. Errors: as `load_info`.
    pub fn path(&self, model: &str, version: u32) -> Result<PathBuf> {
        let info = self.load_info(model, version)?;
        let path = self.version_folder(model, version)?.join(MODEL_FILE);
        let (sha256, bytes) = hash(&path, |_| Ok(()))?;
        if sha256 != info.sha256 || bytes != info.bytes {
            return Err(damaged(&path, "its SHA-256 is not the one it was registered with"));
        }
        Ok(path)
    }

    fn folder(&self, model: &str) -> Result<PathBuf> {
        let name = encode(model);
        if name.is_empty() || name.len() > FOLDER_NAME_BYTES_MAX {
            return Err(Error::invalid(format!("a model's name has 1 to {FOLDER_NAME_BYTES_MAX} characters, not {}: {model}", name.len())));
        }
        Ok(self.root.join(name))
    }

    fn version_folder(&self, model: &str, version: u32) -> Result<PathBuf> {
        let folder = self.folder(model)?.join(version.to_string());
        if !folder.is_dir() {
            return Err(Error::invalid(format!("model {model} has no version {version} in {}", self.root.display())));
        }
        Ok(folder)
    }

    fn registered(&self, model: &str, versions: &[u32], run_id: &str) -> Result<Option<VersionInfo>> {
        for version in versions {
            let info = self.load_info(model, *version)?;
            if info.created_by.run_id() == run_id {
                return Ok(Some(info));
            }
        }
        Ok(None)
    }

    fn unchanged(&self, info: &VersionInfo, file: &Path) -> Result<()> {
        let (sha256, _) = hash(file, |_| Ok(()))?;
        if sha256 == info.sha256 {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} is no longer the file that was registered as version {} of model {} in {}; restore it, use another data directory, or train a new version",
            file.display(),
            info.version,
            info.model,
            self.root.display()
        )))
    }
}

/// Writes everything of a version aside and makes it durable. A folder that a crash left there is replaced.
fn stage(folder: &Path, model: &str, version: u32, file: &Path, registration: Registration) -> Result<PathBuf> {
    let unfinished = folder.join(UNFINISHED);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("clearing", &unfinished, &error)),
        _ => fs::create_dir_all(&unfinished).map_err(|error| failed("creating", &unfinished, &error))?,
    }
    let target = unfinished.join(MODEL_FILE);
    let mut copy = File::create(&target).map_err(|error| failed("writing", &target, &error))?;
    let (sha256, bytes) = hash(file, |part| copy.write_all(part))?;
    copy.sync_all().map_err(|error| failed("writing", &target, &error))?;
    let reference = to_json(&registration.reference);
    let info = VersionInfo {
        model: model.to_string(),
        version,
        created_by: registration.created_by,
        metrics: registration.metrics.into_iter().filter(|(_, value)| value.is_finite()).collect(),
        batch_invariant: registration.batch_invariant,
        signature: registration.signature,
        sha256,
        bytes,
        reference_sha256: hex(&Sha256::digest(&reference)),
    };
    write(&unfinished.join(REFERENCE_FILE), &reference)?;
    write(&unfinished.join(VERSION_FILE), &to_json(&info))?;
    sync_folder(&unfinished)?;
    Ok(unfinished)
}

/// Gives a staged version its number: from here on it exists.
fn publish(unfinished: &Path, folder: &Path, version: u32) -> Result<()> {
    let target = folder.join(version.to_string());
    assert!(!target.exists(), "a version is never written twice");
    fs::rename(unfinished, &target).map_err(|error| failed("creating", &target, &error))?;
    sync_folder(folder)
}

/// The entries of a folder; none if it is not there.
fn names(folder: &Path) -> Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("listing", folder, &error)),
    }
}

/// A quoted name of SQL may hold anything, dots and slashes included: all but letters, digits, `_` and `-` is written as %XX.
fn encode(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The name behind a folder; None for a folder that is not ours.
fn decode(folder: &str) -> Option<String> {
    let mut parts = folder.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().filter(|name| encode(name) == folder && !name.is_empty())
}

/// Reads a file through: its SHA-256, its size, and each part to `each`.
fn hash(path: &Path, mut each: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<(String, u64)> {
    let mut file = File::open(path).map_err(|error| failed("reading", path, &error))?;
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; READ_BYTES]);
    loop {
        let count = file.read(&mut buffer).map_err(|error| failed("reading", path, &error))?;
        if count == 0 {
            return Ok((hex(&hasher.finalize()), bytes));
        }
        hasher.update(&buffer[..count]);
        bytes += count as u64;
        each(&buffer[..count]).map_err(|error| failed("copying", path, &error))?;
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| failed("writing", path, &error))
}

/// A rename is durable once its folder is.
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed("writing", folder, &error))
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(value).expect("names are text and numbers finite, so they have a form in JSON");
    json.push(b'\n');
    json
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    let message = format!("{doing} {}: {error}", path.display());
    match error.kind() {
        ErrorKind::NotFound => Error::invalid(message),
        _ => Error::unavailable(message),
    }
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::data(format!("{} is damaged: {reason}; restore it from a copy of the data directory", path.display()))
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;

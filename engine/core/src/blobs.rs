//! Where checkpoints live: named byte strings in a folder or a bucket.

use crate::Result;

/// A store of immutable blobs. A blob is whole or absent, whatever crashes.
pub trait Blobs: Send + Sync {
    /// Errors: Unavailable.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// False if a blob of that name exists already: somebody else was first.
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<bool>;

    /// Errors: Data if there is no such blob.
    fn get(&self, name: &str) -> Result<Vec<u8>>;

    /// `len` bytes from `offset` on. Errors: Data if there is no such blob or it is shorter.
    fn get_range(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>>;

    /// Names that begin with `prefix`, ascending.
    fn list(&self, prefix: &str) -> Result<Vec<String>>;

    /// Deleting what is not there is no error.
    fn delete(&self, name: &str) -> Result<()>;
}

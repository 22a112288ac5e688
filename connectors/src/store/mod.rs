//! Files on local disk and in buckets, through `object_store`.

mod files;
mod glob;
mod location;
mod outage;
mod s3;

pub use files::{ReadError, Store, StoredFile, local_error};
pub use location::Location;
pub use outage::Outage;
pub use s3::{OPTIONS as S3_OPTIONS, S3};

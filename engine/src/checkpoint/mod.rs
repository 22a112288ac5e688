//! Checkpoints: what changed of every shard, in one blob, and a manifest that alone counts.
//!
//! A checkpoint of epoch e holds the state after all epochs ≤ e. Shards that did not change stay in the blob that wrote them last; a
//! blob that no kept manifest names is deleted. A crash before the manifest leaves the one before it in force.

mod local;
mod manifest;
mod write;

pub use local::LocalBlobs;
pub use manifest::{LogState, Manifest, Place};
pub use write::{Checkpointer, Cut};

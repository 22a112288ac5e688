//! The manifest of a checkpoint: where every shard, log batch, source and sink stands.

use std::collections::BTreeMap;

use freshet_core::{Blobs, Epoch, Error, Result};
use serde::{Deserialize, Serialize};

use crate::bridge::SourceState;

/// The format of blobs and manifests; another one is refused.
pub const VERSION: u32 = 1;

/// Bytes inside a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    pub blob: String,
    pub offset: u64,
    pub len: u64,
    /// Of the bytes, so that a damaged file is an error and not a wrong answer.
    pub hash: u64,
}

/// A view's log: its batches by id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogState {
    pub compacted: Epoch,
    pub batches: BTreeMap<u64, Place>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    pub epoch: Epoch,
    /// Of the plan; another plan cannot take this state over.
    pub fingerprint: String,
    pub events: u64,
    /// Operator → shard → state.
    pub states: BTreeMap<String, BTreeMap<usize, Place>>,
    pub logs: BTreeMap<String, LogState>,
    pub sources: BTreeMap<String, SourceState>,
    /// Source → rows that wait for their time (T13).
    #[serde(default)]
    pub held: BTreeMap<String, Place>,
    /// Sink → position to cut it back to.
    pub sinks: BTreeMap<String, u64>,
}

impl Manifest {
    pub fn name(epoch: Epoch) -> String {
        format!("manifest-{:020}.json", epoch.0)
    }

    /// The newest manifest, if there is any. Errors: Data if it cannot be read, Invalid if it is of another plan or format.
    pub fn newest(blobs: &dyn Blobs, fingerprint: &str) -> Result<Option<Manifest>> {
        let Some(name) = blobs.list("manifest-")?.pop() else { return Ok(None) };
        let manifest: Manifest =
            serde_json::from_slice(&blobs.get(&name)?).map_err(|error| Error::data(format!("checkpoint {name} cannot be read: {error}")))?;
        if manifest.version != VERSION {
            return Err(Error::invalid(format!(
                "checkpoint {name} has format {}, this build reads {VERSION}; use another data directory",
                manifest.version
            )));
        }
        if manifest.fingerprint != fingerprint {
            return Err(Error::invalid(format!(
                "the data directory holds the state of another pipeline (plan {}, this one is {fingerprint}); use another data directory or delete it",
                manifest.fingerprint
            )));
        }
        Ok(Some(manifest))
    }

    pub fn places(&self) -> impl Iterator<Item = &Place> {
        let states = self.states.values().flat_map(BTreeMap::values);
        states.chain(self.logs.values().flat_map(|log| log.batches.values())).chain(self.held.values())
    }
}

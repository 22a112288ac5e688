//! Writes checkpoints. In: the changed shards of a drained step boundary, and the logs. Out: one blob, one manifest, old ones deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use freshet_core::{Batch, Blobs, Epoch, Error, Result, hash_bytes};

use crate::bridge::{Part, SourceState, ViewLog};
use crate::checkpoint::manifest::VERSION;
use crate::checkpoint::{LogState, Manifest, Place};
use crate::edge::batch_bytes;

/// Manifests kept; the older one is for a crash while the newer is being written.
const KEPT: usize = 2;

/// A consistent cut through the pipeline at `epoch`.
pub struct Cut {
    pub epoch: Epoch,
    pub events: u64,
    pub parts: Vec<Part>,
    pub sources: BTreeMap<String, SourceState>,
    /// Rows that wait for their time, by source.
    pub held: BTreeMap<String, Batch>,
    pub sinks: BTreeMap<String, u64>,
}

pub struct Checkpointer {
    blobs: Arc<dyn Blobs>,
    fingerprint: String,
    last: Option<Manifest>,
    /// Shards that changed, by operator, and whose checkpoint could not be written: workers hand a change over once.
    unwritten: BTreeMap<(String, usize), Vec<u8>>,
}

impl Checkpointer {
    /// `last` is the manifest the pipeline was restored from.
    pub fn new(blobs: Arc<dyn Blobs>, fingerprint: String, last: Option<Manifest>) -> Checkpointer {
        Checkpointer { blobs, fingerprint, last, unwritten: BTreeMap::new() }
    }

    /// The bytes written. A second checkpoint of the same epoch writes nothing: its state is the same.
    /// Errors: Unavailable, and the next one holds what this one would have; or Fenced if somebody else has written this epoch.
    pub fn write(&mut self, mut cut: Cut, logs: &[Arc<ViewLog>]) -> Result<u64> {
        if self.last.as_ref().is_some_and(|last| last.epoch == cut.epoch) {
            return Ok(0);
        }
        let parts = std::mem::take(&mut cut.parts);
        self.unwritten.extend(parts.into_iter().map(|part| ((part.operator, part.shard), part.bytes)));
        let written = self.write_changes(cut, logs)?;
        self.unwritten.clear();
        self.delete_old()?;
        Ok(written)
    }

    fn write_changes(&mut self, cut: Cut, logs: &[Arc<ViewLog>]) -> Result<u64> {
        let blob = format!("state-{:020}.bin", cut.epoch.0);
        let mut bytes: Vec<u8> = Vec::new();
        let mut place = |part: &[u8]| {
            let offset = bytes.len() as u64;
            bytes.extend_from_slice(part);
            Place { blob: blob.clone(), offset, len: part.len() as u64, hash: hash_bytes(part) }
        };
        let (mut states, old_logs) = self.last.as_ref().map_or_else(Default::default, |last| (last.states.clone(), last.logs.clone()));
        for ((operator, shard), part) in &self.unwritten {
            states.entry(operator.clone()).or_default().insert(*shard, place(part));
        }
        let held = cut.held.iter().map(|(source, rows)| (source.clone(), place(&batch_bytes(rows)))).collect();
        let mut log_states = BTreeMap::new();
        for log in logs {
            let known = old_logs.get(&log.name);
            let (batches, compacted) = log.batches();
            let batches = batches.iter().map(|(id, batch)| {
                let known = known.and_then(|log| log.batches.get(id)).cloned();
                (*id, known.unwrap_or_else(|| place(&batch_bytes(batch))))
            });
            log_states.insert(log.name.clone(), LogState { compacted, batches: batches.collect() });
        }
        self.blobs.put(&blob, &bytes)?;
        let manifest = Manifest {
            version: VERSION,
            epoch: cut.epoch,
            fingerprint: self.fingerprint.clone(),
            events: cut.events,
            states,
            logs: log_states,
            sources: cut.sources,
            held,
            sinks: cut.sinks,
        };
        let text = serde_json::to_vec(&manifest).map_err(|error| Error::internal(format!("a manifest cannot be written: {error}")))?;
        if !self.blobs.put_if_absent(&Manifest::name(cut.epoch), &text)? {
            return Err(Error {
                kind: freshet_core::Kind::Fenced,
                message: format!("another process has written the checkpoint of epoch {}", cut.epoch),
            });
        }
        self.last = Some(manifest);
        Ok((bytes.len() + text.len()) as u64)
    }

    fn delete_old(&self) -> Result<()> {
        let mut manifests = self.blobs.list("manifest-")?;
        let kept = manifests.split_off(manifests.len().saturating_sub(KEPT));
        let mut named: BTreeSet<String> = BTreeSet::new();
        for name in &kept {
            let manifest: Manifest =
                serde_json::from_slice(&self.blobs.get(name)?).map_err(|error| Error::data(format!("checkpoint {name} cannot be read: {error}")))?;
            named.extend(manifest.places().map(|place| place.blob.clone()));
        }
        for name in manifests {
            self.blobs.delete(&name)?;
        }
        for blob in self.blobs.list("state-")?.into_iter().filter(|blob| !named.contains(blob)) {
            self.blobs.delete(&blob)?;
        }
        Ok(())
    }
}

//! Changes as the bodies of requests. In: changes of complete epochs. Out: the same bodies with the same idempotency keys every time.
//!
//! A body never holds rows of two epochs, so that a request is done or not done as a whole and its key names it for good.

use freshet_core::{Batch, Epoch, Format, Result};
use sha2::{Digest, Sha256};

use crate::encode::{OutRecord, RecordEncoder};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    pub epoch: Epoch,
    pub idempotency_key: String,
    pub bytes: Vec<u8>,
    pub rows: u64,
}

pub struct BodyEncoder {
    /// The pipeline, as far as the receiver must know it.
    pub scope: String,
    pub sink: String,
    pub format: Format,
    /// The text of a key is a JSON value itself.
    pub json_keys: bool,
    pub batch_rows: usize,
    pub records: RecordEncoder,
}

impl BodyEncoder {
    pub fn encode(&mut self, changes: &Batch) -> Result<Vec<Body>> {
        let mut records: Vec<OutRecord> = Vec::new();
        self.records.encode(changes, &mut records)?;
        let mut bodies = Vec::new();
        for of_epoch in records.chunk_by(|left, right| left.epoch == right.epoch) {
            for (part, rows) in of_epoch.chunks(self.batch_rows).enumerate() {
                bodies.push(self.body(rows, part));
            }
        }
        Ok(bodies)
    }

    fn body(&self, rows: &[OutRecord], part: usize) -> Body {
        let epoch = rows[0].epoch;
        let single = self.batch_rows == 1;
        let mut bytes = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            if !single {
                bytes.push(if index == 0 { b'[' } else { b',' });
            }
            self.element(row, &mut bytes);
        }
        if !single {
            bytes.push(b']');
        }
        // Other formats may change one key twice in an epoch: there the place names the request.
        let by_key = rows[0].key.as_deref().filter(|_| single && self.format == Format::Upsert);
        let idempotency_key = idempotency_key((&self.scope, &self.sink), epoch, by_key, part);
        Body { epoch, idempotency_key, bytes, rows: rows.len() as u64 }
    }

    fn element(&self, row: &OutRecord, out: &mut Vec<u8>) {
        let payload = row.payload.as_deref();
        if self.format != Format::Upsert {
            return out.extend_from_slice(payload.unwrap_or_default());
        }
        out.extend_from_slice(b"{\"key\":");
        let key = row.key.as_deref().unwrap_or_default();
        if self.json_keys {
            out.extend_from_slice(key);
        } else {
            out.extend_from_slice(serde_json::Value::from(String::from_utf8_lossy(key)).to_string().as_bytes());
        }
        out.extend_from_slice(b",\"value\":");
        out.extend_from_slice(payload.unwrap_or(b"null"));
        out.push(b'}');
    }
}

fn idempotency_key((scope, sink): (&str, &str), epoch: Epoch, key: Option<&[u8]>, part: usize) -> String {
    let mut hash = Sha256::new();
    for name in [scope, sink] {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
    }
    hash.update(epoch.0.to_le_bytes());
    match key {
        Some(key) => {
            hash.update(b"k");
            hash.update(key);
        }
        None => {
            hash.update(b"p");
            hash.update((part as u64).to_le_bytes());
        }
    }
    hex(&hash.finalize()[..16])
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_keys_tell_requests_apart() {
        let a = ("p", "a");
        let keys = [
            idempotency_key(a, Epoch(1), Some(b"k"), 0),
            idempotency_key(a, Epoch(2), Some(b"k"), 0),
            idempotency_key(a, Epoch(1), Some(b"l"), 0),
            idempotency_key(("p", "b"), Epoch(1), Some(b"k"), 0),
            idempotency_key(("q", "a"), Epoch(1), Some(b"k"), 0),
            idempotency_key(("pa", ""), Epoch(1), Some(b"k"), 0),
            idempotency_key(a, Epoch(1), None, 0),
            idempotency_key(a, Epoch(1), None, 1),
        ];
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
        assert_eq!(keys[0], idempotency_key(a, Epoch(1), Some(b"k"), 7), "a key names its row wherever it stands");
    }
}

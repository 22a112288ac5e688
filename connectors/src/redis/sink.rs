//! The Redis sink. In: changes. Out: one key per row, written when `write` returns; the position is how many rows and deletions were.

use std::time::{Duration, Instant};

use freshet_core::{Batch, Epoch, Error, Result, Sink, SinkDef};

use super::client::{RedisClient, Row, Write};
use super::settings::{EPOCH, RedisSettings, Shape};
use crate::encode::{Cells, OutRecord, RecordEncoder};

/// Rows of one round trip.
const PIPELINE_ROWS: usize = 512;
/// How long one write goes on trying before the engine hears that the server is away.
const WRITE_WAIT: Duration = Duration::from_secs(4);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub struct RedisSink {
    name: String,
    settings: RedisSettings,
    encoder: RecordEncoder,
    client: RedisClient,
    rows: u64,
}

impl RedisSink {
    /// Connects with the first write. Errors: Invalid, naming the sink.
    pub fn open(def: &SinkDef) -> Result<RedisSink> {
        let named = |message: String| Error::invalid(format!("sink {}: {message}", def.name));
        let settings = RedisSettings::parse(def).map_err(|error| named(error.message))?;
        let client = RedisClient::new(&settings).map_err(|error| named(error.message))?;
        Ok(RedisSink { name: def.name.clone(), settings, encoder: RecordEncoder::open(def)?, client, rows: 0 })
    }

    fn writes(&mut self, changes: &Batch) -> Result<Vec<Write>> {
        let mut records: Vec<OutRecord> = Vec::new();
        self.encoder.encode(changes, &mut records)?;
        let filler = self.settings.key.begin(changes.rows())?;
        let hash = self.settings.shape == Shape::Hash;
        let cells = if hash { Cells::of_all(changes.rows())? } else { Vec::new() };
        let schema = changes.schema();
        let mut writes = Vec::with_capacity(records.len());
        for record in records {
            let epoch = record.epoch.0;
            let key = match filler.fill_escaped(record.row, &self.settings.separators) {
                Ok(key) => key,
                Err(column) => {
                    self.settings.rejects.reject(&format!("a row of epoch {epoch}"), &format!("its column {column} is NULL and part of the key"))?;
                    continue;
                }
            };
            let row = match record.payload {
                None => Row::Delete,
                Some(_) if hash => Row::Hash(fields(&schema, &cells, record.row)),
                Some(payload) => Row::Json(with_epoch(&payload, epoch)),
            };
            writes.push(Write { key, epoch, row });
        }
        Ok(writes)
    }

    /// Until all are done. Errors: Unavailable; those done already may be done again.
    fn deliver(&mut self, writes: &[Write]) -> Result<()> {
        let deadline = Instant::now() + WRITE_WAIT;
        for part in writes.chunks(PIPELINE_ROWS) {
            let mut pause = PAUSE_MIN;
            let refused = loop {
                match self.client.write(part) {
                    Ok(refused) => break refused,
                    Err(trouble) if Instant::now() + pause > deadline => {
                        return Err(Error::unavailable(format!("sink {}: {}: {trouble}", self.name, self.settings.address())));
                    }
                    Err(_) => std::thread::park_timeout(pause),
                }
                pause = (pause * 2).min(PAUSE_MAX);
            };
            for (index, reason) in refused {
                self.settings.rejects.reject(&format!("the key {}", part[index].key), &reason)?;
            }
        }
        Ok(())
    }
}

impl Sink for RedisSink {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        let writes = self.writes(changes)?;
        self.deliver(&writes)?;
        self.rows += writes.len() as u64;
        Ok(())
    }

    fn flush(&mut self, _closed: Epoch) -> Result<u64> {
        Ok(self.rows)
    }

    /// Nothing is cut off: what comes again is of the same epochs, and a key keeps the latest.
    fn restore(&mut self, position: u64) -> Result<()> {
        self.rows = position;
        Ok(())
    }
}

fn fields(schema: &arrow::datatypes::Schema, cells: &[Cells], row: usize) -> Vec<Vec<u8>> {
    let mut fields = Vec::with_capacity(2 * cells.len());
    for (field, cells) in schema.fields().iter().zip(cells) {
        if !cells.is_null(row) {
            let mut value = Vec::new();
            cells.write(row, &mut value);
            fields.push(field.name().as_bytes().to_vec());
            fields.push(value);
        }
    }
    fields
}

/// A JSON object with its epoch as the first member, where the script finds it.
fn with_epoch(object: &[u8], epoch: u64) -> Vec<u8> {
    assert_eq!(object.first(), Some(&b'{'), "JSON rows are objects");
    let mut text = format!("{{\"{EPOCH}\":{epoch}").into_bytes();
    if object != b"{}" {
        text.push(b',');
    }
    text.extend_from_slice(&object[1..]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_rows_begin_with_their_epoch() {
        assert_eq!(with_epoch(b"{\"a\":1}", 7), b"{\"__epoch\":7,\"a\":1}");
        assert_eq!(with_epoch(b"{}", 7), b"{\"__epoch\":7}");
    }
}

//! One message on a timely edge: at most one batch, and its way between workers and processes.
//!
//! The timely timestamp of a message is the lower bound of its step; the epoch of each row is in the batch. Rows are never lost or
//! doubled by a pact: progress tracking counts them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use arrow::ipc::{reader::StreamReader, writer::StreamWriter};
use freshet_core::{Batch, Counts, Diffs, KeyCodec, SHARDS, hash_bytes, shard_of};
use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::communication::Push;
use timely::container::{ContainerBuilder, PushInto};
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::channels::pushers::exchange::Distributor;
use timely::dataflow::channels::{ContainerBytes, Message};

/// The container of every stream of rows or errors.
#[derive(Clone, Default)]
pub struct Edge(pub Option<Batch>);

impl Accountable for Edge {
    fn record_count(&self) -> i64 {
        self.0.as_ref().map_or(0, |batch| batch.len() as i64)
    }
}

impl ContainerBytes for Edge {
    fn from_bytes(bytes: Bytes) -> Edge {
        Edge(decode(&bytes))
    }

    fn length_in_bytes(&self) -> usize {
        encode(self.0.as_ref()).len()
    }

    fn into_bytes<W: std::io::Write>(&self, writer: &mut W) {
        writer.write_all(&encode(self.0.as_ref())).expect("the allocator has set aside length_in_bytes");
    }
}

/// Hands whole batches through.
#[derive(Default)]
pub struct EdgeBuilder {
    queue: std::collections::VecDeque<Batch>,
    current: Edge,
}

impl PushInto<Batch> for EdgeBuilder {
    fn push_into(&mut self, batch: Batch) {
        if !batch.is_empty() {
            self.queue.push_back(batch);
        }
    }
}

impl ContainerBuilder for EdgeBuilder {
    type Container = Edge;

    fn extract(&mut self) -> Option<&mut Edge> {
        self.current = Edge(Some(self.queue.pop_front()?));
        Some(&mut self.current)
    }

    fn finish(&mut self) -> Option<&mut Edge> {
        self.extract()
    }
}

/// Sends each row to the worker that owns the virtual shard of its key. No keys: everything to the owner of shard 0.
pub struct ShardDistributor {
    keys: Vec<usize>,
    codec: KeyCodec,
    peers: usize,
}

/// The worker that owns a virtual shard.
pub fn owner_of(shard: usize, peers: usize) -> usize {
    shard * peers / SHARDS
}

impl Distributor<Edge> for ShardDistributor {
    fn partition<T: Clone, P: Push<Message<T, Edge>>>(&mut self, edge: &mut Edge, time: &T, pushers: &mut [P]) {
        let Some(batch) = edge.0.take() else { return };
        let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); pushers.len()];
        if self.keys.is_empty() {
            rows_of[owner_of(0, self.peers)] = (0..batch.len() as u32).collect();
        } else {
            let columns: Vec<ArrayRef> = self.keys.iter().map(|key| batch.column(*key).clone()).collect();
            let encoded = self.codec.encode(&columns).expect("the codec was made for these columns");
            for (row, key) in encoded.iter().enumerate() {
                rows_of[owner_of(shard_of(hash_bytes(key.as_ref())), self.peers)].push(row as u32);
            }
        }
        for (peer, rows) in rows_of.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let piece = if rows.len() == batch.len() { batch.clone() } else { batch.take(rows) };
            Message::push_at(&mut Edge(Some(piece)), time.clone(), &mut pushers[peer]);
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Edge>>>(&mut self, _time: &T, _pushers: &mut [P]) {}
}

pub type ShardPact = DistributorPact<Box<dyn FnOnce(usize) -> ShardDistributor>>;

/// The exchange by these key columns of these types.
pub fn shard_pact(keys: Vec<usize>, types: &[DataType]) -> ShardPact {
    let codec = KeyCodec::new(types).expect("the planner lets only comparable types be keys");
    DistributorPact(Box::new(move |peers| ShardDistributor { keys, codec, peers }))
}

/// Rows, then epoch, diff and position as three columns more, as one Arrow IPC stream padded to eight bytes.
fn encode(batch: Option<&Batch>) -> Vec<u8> {
    let Some(batch) = batch else { return Vec::new() };
    let rows = 0..batch.len();
    let extra: [(&str, ArrayRef); 3] = [
        ("epoch", Arc::new(rows.clone().map(|row| batch.epoch(row).0).collect::<UInt64Array>())),
        ("diff", Arc::new(rows.clone().map(|row| batch.diff(row)).collect::<Int64Array>())),
        ("position", Arc::new(rows.map(|row| batch.position(row)).collect::<UInt64Array>())),
    ];
    let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut columns = batch.rows().columns().to_vec();
    for (name, column) in extra {
        fields.push(Field::new(name, column.data_type().clone(), false));
        columns.push(column);
    }
    let schema = Arc::new(Schema::new(fields));
    let whole = RecordBatch::try_new(schema.clone(), columns).expect("the columns were made for the schema");
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &schema).expect("a Vec takes every write");
    writer.write(&whole).and_then(|()| writer.finish()).expect("a Vec takes every write");
    drop(writer);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// `encode` back. Also the format of rows in checkpoints.
pub fn decode(bytes: &[u8]) -> Option<Batch> {
    if bytes.is_empty() {
        return None;
    }
    let mut reader = StreamReader::try_new(bytes, None).expect("these are bytes of encode");
    let whole = reader.next()?.expect("these are bytes of encode");
    let width = whole.num_columns() - 3;
    let column = |offset: usize| whole.column(width + offset);
    let (epochs, diffs, positions) =
        (column(0).as_primitive::<UInt64Type>(), column(1).as_primitive::<Int64Type>(), column(2).as_primitive::<UInt64Type>());
    let rows = whole.project(&(0..width).collect::<Vec<_>>()).expect("the first columns are the rows");
    let diffs = if diffs.values().iter().all(|diff| *diff == 1) { Diffs::One } else { Diffs::Each(diffs.values().clone()) };
    Some(Batch::new(rows, Counts::Each(epochs.values().clone()), diffs, Counts::Each(positions.values().clone())))
}

/// A batch as bytes, for checkpoints.
pub fn batch_bytes(batch: &Batch) -> Vec<u8> {
    encode(Some(batch))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn a_batch_survives_the_wire() {
        let rows = RecordBatch::try_from_iter([("k", Arc::new(StringArray::from(vec![Some("a"), None, Some("ccc")])) as ArrayRef)]).unwrap();
        let batch = Batch::new(rows, Counts::Each(vec![3, 4, 9].into()), Diffs::Each(vec![1, -1, 2].into()), Counts::Const(7));
        let back = decode(&batch_bytes(&batch)).unwrap();
        assert_eq!(back.rows().columns(), batch.rows().columns());
        assert_eq!((back.epoch(2).0, back.diff(1), back.position(0)), (9, -1, 7));
    }

    #[test]
    fn every_shard_has_an_owner_and_every_worker_a_shard() {
        for peers in [1, 2, 3, 4, 16] {
            let owners: std::collections::BTreeSet<usize> = (0..SHARDS).map(|shard| owner_of(shard, peers)).collect();
            assert_eq!(owners, (0..peers).collect());
        }
    }
}

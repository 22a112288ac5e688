//! A map from key bytes to state, cut into virtual shards, that knows which shards changed since the last checkpoint.

use freshet_core::{Result, SHARDS, hash_bytes, shard_of};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::state::{Bytes, put_bytes};

/// State per key. Iteration order never reaches an output: callers sort.
#[derive(Debug)]
pub struct ShardedMap<V> {
    shards: Vec<HashTable<(Box<[u8]>, V)>>,
    dirty: Vec<bool>,
}

impl<V> Default for ShardedMap<V> {
    fn default() -> ShardedMap<V> {
        ShardedMap { shards: (0..SHARDS).map(|_| HashTable::new()).collect(), dirty: vec![false; SHARDS] }
    }
}

/// What became of a key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    AsItWas,
    Changed,
    Not,
}

/// The hash of a key within its shard, whose keys share the high bits of theirs.
fn hash_within(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hash_of<V>(entry: &(Box<[u8]>, V)) -> u64 {
    hash_within(hash_bytes(&entry.0))
}

impl<V> ShardedMap<V> {
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        let hash = hash_bytes(key);
        self.shards[shard_of(hash)].find(hash_within(hash), |entry| *entry.0 == *key).map(|entry| &entry.1)
    }

    /// The state of a key, to be changed.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let hash = hash_bytes(key);
        let shard = shard_of(hash);
        self.dirty[shard] = true;
        self.shards[shard].find_mut(hash_within(hash), |entry| *entry.0 == *key).map(|entry| &mut entry.1)
    }

    /// The state of a key, to be changed; made by `empty` if there is none.
    pub fn entry(&mut self, key: &[u8], empty: impl FnOnce() -> V) -> &mut V {
        let hash = hash_bytes(key);
        let shard = shard_of(hash);
        self.dirty[shard] = true;
        let found = self.shards[shard].entry(hash_within(hash), |entry| *entry.0 == *key, hash_of);
        let entry = match found {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert((key.into(), empty())).into_mut(),
        };
        &mut entry.1
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let hash = hash_bytes(key);
        let shard = shard_of(hash);
        self.dirty[shard] = true;
        let found = self.shards[shard].find_entry(hash_within(hash), |entry| *entry.0 == *key).ok()?;
        Some(found.remove().0.1)
    }

    /// Changes every state, and drops the keys of which `keep` says no. It says, too, whether it changed anything.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut V) -> Kept) {
        for (table, dirty) in self.shards.iter_mut().zip(&mut self.dirty) {
            table.retain(|(_, value)| {
                let kept = keep(value);
                *dirty |= kept != Kept::AsItWas;
                kept != Kept::Not
            });
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.shards.iter().flat_map(|table| table.iter().map(|(key, value)| (key.as_ref(), value)))
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }

    /// The bytes of every shard that changed since the last call.
    pub fn checkpoint(&mut self, put: impl Fn(&mut Vec<u8>, &V)) -> Vec<(usize, Vec<u8>)> {
        (0..SHARDS).filter_map(|shard| Some((shard, self.checkpoint_shard(shard, &put)?))).collect()
    }

    /// The bytes of one shard, if it changed since the last call.
    pub fn checkpoint_shard(&mut self, shard: usize, put: impl Fn(&mut Vec<u8>, &V)) -> Option<Vec<u8>> {
        std::mem::take(&mut self.dirty[shard]).then(|| self.shard_bytes(shard, put))
    }

    /// The bytes of one shard, keys in order.
    pub fn shard_bytes(&self, shard: usize, put: impl Fn(&mut Vec<u8>, &V)) -> Vec<u8> {
        let mut keys: Vec<&(Box<[u8]>, V)> = self.shards[shard].iter().collect();
        keys.sort_by(|left, right| left.0.cmp(&right.0));
        let mut out = Vec::new();
        for (key, value) in keys {
            put_bytes(&mut out, key);
            put(&mut out, value);
        }
        out
    }

    /// Fills a shard from the bytes of `checkpoint`. Errors: Data.
    pub fn restore(&mut self, shard: usize, bytes: &[u8], mut take: impl FnMut(&mut Bytes<'_>) -> Result<V>) -> Result<()> {
        let mut bytes = Bytes(bytes);
        while !bytes.is_empty() {
            let key: Box<[u8]> = bytes.bytes()?.into();
            let value = take(&mut bytes)?;
            self.shards[shard].insert_unique(hash_within(hash_bytes(&key)), (key, value), hash_of);
        }
        Ok(())
    }
}

//! A map from key bytes to state, cut into virtual shards, that knows which shards changed since the last checkpoint.

use std::collections::HashMap;

use freshet_core::{Result, SHARDS, hash_bytes, shard_of};

use crate::state::{Bytes, put_bytes};

/// State per key. Iteration order never reaches an output: callers sort.
#[derive(Debug)]
pub struct ShardedMap<V> {
    shards: Vec<HashMap<Box<[u8]>, V, ahash::RandomState>>,
    dirty: Vec<bool>,
}

impl<V> Default for ShardedMap<V> {
    fn default() -> ShardedMap<V> {
        let hasher = ahash::RandomState::with_seeds(5, 6, 7, 8);
        ShardedMap { shards: (0..SHARDS).map(|_| HashMap::with_hasher(hasher.clone())).collect(), dirty: vec![false; SHARDS] }
    }
}

impl<V> ShardedMap<V> {
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        self.shards[shard_of(hash_bytes(key))].get(key)
    }

    /// The state of a key, to be changed.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let shard = shard_of(hash_bytes(key));
        self.dirty[shard] = true;
        self.shards[shard].get_mut(key)
    }

    /// The state of a key, to be changed; made by `empty` if there is none.
    pub fn entry(&mut self, key: &[u8], empty: impl FnOnce() -> V) -> &mut V {
        let shard = shard_of(hash_bytes(key));
        self.dirty[shard] = true;
        let map = &mut self.shards[shard];
        if !map.contains_key(key) {
            map.insert(key.into(), empty());
        }
        map.get_mut(key).expect("it was just inserted")
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let shard = shard_of(hash_bytes(key));
        self.dirty[shard] = true;
        self.shards[shard].remove(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        self.shards.iter().flat_map(|map| map.iter().map(|(key, value)| (key.as_ref(), value)))
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(HashMap::len).sum()
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
        let mut keys: Vec<_> = self.shards[shard].iter().collect();
        keys.sort_by(|left, right| left.0.cmp(right.0));
        let mut out = Vec::new();
        for (key, value) in keys {
            put_bytes(&mut out, key);
            put(&mut out, value);
        }
        out
    }

    /// Fills a shard from the bytes of `checkpoint`. Errors: Data.
    pub fn restore(&mut self, shard: usize, bytes: &[u8], take: impl Fn(&mut Bytes<'_>) -> Result<V>) -> Result<()> {
        let mut bytes = Bytes(bytes);
        while !bytes.is_empty() {
            let key = bytes.bytes()?.into();
            let value = take(&mut bytes)?;
            self.shards[shard].insert(key, value);
        }
        Ok(())
    }
}

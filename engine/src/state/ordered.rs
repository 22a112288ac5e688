//! The rows of one partition in order. In: rows by key bytes, which sort like the rows. Out: neighbours in both directions.
//!
//! A few rows are a sorted vector, many a tree: most partitions of most queries are small, and a node of a tree has room for eleven.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::slice;

use freshet_core::Result;

use crate::state::{Bytes, put_bytes, put_i64, put_u64};

/// More rows than these become a tree.
const FEW_MAX: usize = 32;

/// A row: its key is the bytes of ORDER BY, then those of the whole row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Held {
    /// How many bytes of the key are the ORDER BY.
    pub order: u32,
    pub count: i64,
    pub position: u64,
}

#[derive(Debug)]
pub enum OrderedRows {
    Few(Vec<(Box<[u8]>, Held)>),
    Many(BTreeMap<Box<[u8]>, Held>),
}

impl Default for OrderedRows {
    fn default() -> OrderedRows {
        OrderedRows::Few(Vec::new())
    }
}

impl OrderedRows {
    pub fn get(&self, key: &[u8]) -> Option<&Held> {
        match self {
            OrderedRows::Few(rows) => place(rows, key).ok().map(|at| &rows[at].1),
            OrderedRows::Many(rows) => rows.get(key),
        }
    }

    /// Changes how often a row is there; one that is not there any more goes. Insertions may raise its position.
    pub fn add(&mut self, key: &[u8], order: u32, diff: i64, position: u64) {
        let change = |held: &mut Held| {
            held.count += diff;
            held.position = if diff > 0 { held.position.max(position) } else { held.position };
            held.count == 0
        };
        let fresh = Held { order, count: diff, position };
        match self {
            OrderedRows::Few(rows) => match place(rows, key) {
                Ok(at) => {
                    if change(&mut rows[at].1) {
                        rows.remove(at);
                    }
                }
                Err(at) => {
                    rows.insert(at, (key.into(), fresh));
                    if rows.len() > FEW_MAX {
                        *self = OrderedRows::Many(std::mem::take(rows).into_iter().collect());
                    }
                }
            },
            OrderedRows::Many(rows) => match rows.get_mut(key) {
                Some(held) => {
                    if change(held) {
                        rows.remove(key);
                    }
                }
                None => {
                    rows.insert(key.into(), fresh);
                }
            },
        }
    }

    /// Takes out the rows from this bound on.
    pub fn split_off(&mut self, from: &[u8]) -> OrderedRows {
        match self {
            OrderedRows::Few(rows) => OrderedRows::Few(rows.split_off(rows.partition_point(|row| row.0.as_ref() < from))),
            OrderedRows::Many(rows) => OrderedRows::Many(rows.split_off(from)),
        }
    }

    /// The rows from this bound on, ascending.
    pub fn ascending(&self, lower: Bound<&[u8]>) -> Ascending<'_> {
        match self {
            OrderedRows::Few(rows) => {
                let first = match lower {
                    Bound::Unbounded => 0,
                    Bound::Included(key) => rows.partition_point(|row| row.0.as_ref() < key),
                    Bound::Excluded(key) => rows.partition_point(|row| row.0.as_ref() <= key),
                };
                Ascending::Few(rows[first..].iter())
            }
            OrderedRows::Many(rows) => Ascending::Many(rows.range::<[u8], _>((lower, Bound::Unbounded))),
        }
    }

    /// The rows before this bound, descending.
    pub fn descending(&self, upper: Bound<&[u8]>) -> Descending<'_> {
        match self {
            OrderedRows::Few(rows) => {
                let end = match upper {
                    Bound::Unbounded => rows.len(),
                    Bound::Included(key) => rows.partition_point(|row| row.0.as_ref() <= key),
                    Bound::Excluded(key) => rows.partition_point(|row| row.0.as_ref() < key),
                };
                Descending::Few(rows[..end].iter().rev())
            }
            OrderedRows::Many(rows) => Descending::Many(rows.range::<[u8], _>((Bound::Unbounded, upper)).rev()),
        }
    }

    pub fn iter(&self) -> Ascending<'_> {
        self.ascending(Bound::Unbounded)
    }

    pub fn len(&self) -> usize {
        match self {
            OrderedRows::Few(rows) => rows.len(),
            OrderedRows::Many(rows) => rows.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(key, _)| key.len() + size_of::<(Box<[u8]>, Held)>()).sum()
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.len() as u64);
        for (key, held) in self.iter() {
            put_bytes(out, key);
            put_u64(out, u64::from(held.order));
            put_i64(out, held.count);
            put_u64(out, held.position);
        }
    }

    /// Reads what `put` wrote. Errors: Data.
    pub fn take(bytes: &mut Bytes<'_>) -> Result<OrderedRows> {
        let mut rows = OrderedRows::default();
        for _ in 0..bytes.u64()? {
            let key = bytes.bytes()?;
            let (order, count, position) = (bytes.u64()? as u32, bytes.i64()?, bytes.u64()?);
            rows.add(key, order, count, position);
        }
        Ok(rows)
    }
}

fn place(rows: &[(Box<[u8]>, Held)], key: &[u8]) -> Result<usize, usize> {
    rows.binary_search_by(|row| row.0.as_ref().cmp(key))
}

/// The least bytes that are greater than all that begin with these; None if there are none.
pub fn after_prefix(prefix: &[u8]) -> Option<Box<[u8]>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next.into())
}

#[derive(Clone)]
pub enum Ascending<'a> {
    Few(slice::Iter<'a, (Box<[u8]>, Held)>),
    Many(btree_map::Range<'a, Box<[u8]>, Held>),
}

pub enum Descending<'a> {
    Few(std::iter::Rev<slice::Iter<'a, (Box<[u8]>, Held)>>),
    Many(std::iter::Rev<btree_map::Range<'a, Box<[u8]>, Held>>),
}

impl<'a> Iterator for Ascending<'a> {
    type Item = (&'a [u8], &'a Held);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Ascending::Few(rows) => rows.next().map(|(key, held)| (key.as_ref(), held)),
            Ascending::Many(rows) => rows.next().map(|(key, held)| (key.as_ref(), held)),
        }
    }
}

impl<'a> Iterator for Descending<'a> {
    type Item = (&'a [u8], &'a Held);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Descending::Few(rows) => rows.next().map(|(key, held)| (key.as_ref(), held)),
            Descending::Many(rows) => rows.next().map(|(key, held)| (key.as_ref(), held)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_rows_are_walked_alike() {
        let key = |number: u32| number.to_be_bytes();
        let mut rows = OrderedRows::default();
        for number in (0..100).rev() {
            rows.add(&key(number * 2), 4, 2, 0);
        }
        for number in 0..100 {
            rows.add(&key(number * 2), 4, -1, 0);
        }
        assert!(matches!(rows, OrderedRows::Many(_)));
        let few = OrderedRows::Few(rows.iter().map(|(key, held)| (key.into(), *held)).collect());
        for number in 0..201 {
            for bound in [Bound::Included(key(number)), Bound::Excluded(key(number))] {
                let bound = bound.as_ref().map(|key| key.as_slice());
                assert!(rows.ascending(bound).eq(few.ascending(bound)) && rows.descending(bound).eq(few.descending(bound)));
            }
        }
        let mut bytes = Vec::new();
        rows.put(&mut bytes);
        assert!(OrderedRows::take(&mut Bytes(&bytes)).unwrap().iter().eq(rows.iter()));
        let behind = rows.split_off(&key(100));
        assert_eq!((rows.len(), behind.len()), (50, 50));
    }

    #[test]
    fn what_follows_a_prefix_follows_all_that_begin_with_it() {
        assert_eq!(after_prefix(&[1, 255, 255]).as_deref(), Some(&[2][..]));
        assert_eq!(after_prefix(&[255]), None);
        assert_eq!(after_prefix(&[]), None);
    }
}

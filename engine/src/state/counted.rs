//! An ordered multiset that finds the value at a rank. In: values, in and out. Out: the value at a place in the order.
//!
//! A B-tree whose inner nodes know how many rows each child holds: a change and an answer cost a logarithm of the distinct values.

/// A node with more entries is split in two.
const ENTRIES_MAX: usize = 64;

/// Values with their counts. Counts of an open epoch may be negative: a retraction may come before its insertion.
#[derive(Debug, Clone)]
pub struct Counted<K> {
    root: Node<K>,
    rows: i64,
    values: usize,
}

#[derive(Debug, Clone)]
enum Node<K> {
    Leaf(Vec<(K, i64)>),
    Inner(Vec<Child<K>>),
}

#[derive(Debug, Clone)]
struct Child<K> {
    /// No value of it is greater, and none of the next child is as small.
    bound: K,
    rows: i64,
    node: Node<K>,
}

impl<K> Default for Counted<K> {
    fn default() -> Counted<K> {
        Counted { root: Node::Leaf(Vec::new()), rows: 0, values: 0 }
    }
}

impl<K: Ord + Clone> Counted<K> {
    /// Adds a value `times` times; negative takes it out.
    pub fn add(&mut self, value: K, times: i64) {
        self.rows += times;
        let (grown, split) = self.root.add(value, times);
        self.values = self.values.wrapping_add_signed(grown);
        if let Some(right) = split {
            let left = std::mem::replace(&mut self.root, Node::Inner(Vec::new()));
            let rows = self.rows - right.rows;
            let bound = left.greatest().clone();
            self.root = Node::Inner(vec![Child { bound, rows, node: left }, right]);
        }
        while let Node::Inner(children) = &mut self.root {
            match children.len() {
                0 => self.root = Node::Leaf(Vec::new()),
                1 => self.root = children.remove(0).node,
                _ => break,
            }
        }
    }

    /// All rows.
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// Distinct values.
    pub fn values(&self) -> usize {
        self.values
    }

    /// The value of the row at this place, from 0. None beyond the last.
    pub fn nth(&self, rank: i64) -> Option<&K> {
        let (mut node, mut rest) = (&self.root, rank);
        loop {
            match node {
                Node::Leaf(entries) => {
                    return entries.iter().find_map(|(value, count)| {
                        rest -= count;
                        (rest < 0).then_some(value)
                    });
                }
                Node::Inner(children) => {
                    node = children.iter().find_map(|child| {
                        let here = rest < child.rows;
                        rest -= if here { 0 } else { child.rows };
                        here.then_some(&child.node)
                    })?;
                }
            }
        }
    }

    /// Values with their counts, in order.
    pub fn for_each(&self, mut visit: impl FnMut(&K, i64)) {
        self.root.for_each(&mut visit);
    }
}

impl<K: Ord + Clone> Node<K> {
    /// By how much the number of values grew, and the right half if it was split.
    fn add(&mut self, value: K, times: i64) -> (isize, Option<Child<K>>) {
        match self {
            Node::Leaf(entries) => {
                let grown = match entries.binary_search_by(|entry| entry.0.cmp(&value)) {
                    Ok(place) => {
                        entries[place].1 += times;
                        if entries[place].1 == 0 {
                            entries.remove(place);
                            -1
                        } else {
                            0
                        }
                    }
                    Err(_) if times == 0 => 0,
                    Err(place) => {
                        entries.insert(place, (value, times));
                        1
                    }
                };
                if entries.len() <= ENTRIES_MAX {
                    return (grown, None);
                }
                let right = entries.split_off(entries.len() / 2);
                let rows = right.iter().map(|entry| entry.1).sum();
                let bound = right[right.len() - 1].0.clone();
                (grown, Some(Child { bound, rows, node: Node::Leaf(right) }))
            }
            Node::Inner(children) => {
                let place = children.partition_point(|child| child.bound < value).min(children.len() - 1);
                let child = &mut children[place];
                if child.bound < value {
                    child.bound = value.clone();
                }
                child.rows += times;
                let (grown, split) = child.node.add(value, times);
                if let Some(mut right) = split {
                    // What is left may have had a bound above all of its values.
                    child.rows -= right.rows;
                    right.bound = std::mem::replace(&mut child.bound, child.node.greatest().clone());
                    children.insert(place + 1, right);
                } else if child.node.is_empty() {
                    children.remove(place);
                }
                if children.len() <= ENTRIES_MAX {
                    return (grown, None);
                }
                let right = children.split_off(children.len() / 2);
                let rows = right.iter().map(|child| child.rows).sum();
                let bound = right[right.len() - 1].bound.clone();
                (grown, Some(Child { bound, rows, node: Node::Inner(right) }))
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(entries) => entries.is_empty(),
            Node::Inner(children) => children.is_empty(),
        }
    }

    fn greatest(&self) -> &K {
        match self {
            Node::Leaf(entries) => &entries[entries.len() - 1].0,
            Node::Inner(children) => &children[children.len() - 1].bound,
        }
    }

    fn for_each(&self, visit: &mut impl FnMut(&K, i64)) {
        match self {
            Node::Leaf(entries) => entries.iter().for_each(|(value, count)| visit(value, *count)),
            Node::Inner(children) => children.iter().for_each(|child| child.node.for_each(visit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn t9_every_rank_is_found_after_any_insertions_and_retractions() {
        for seed in 0..6 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut counted, mut naive): (Counted<u32>, BTreeMap<u32, i64>) = (Counted::default(), BTreeMap::new());
            let distinct = [5, 300, 20_000][seed as usize % 3];
            for step in 0..6_000 {
                let growing = step < 4_000;
                let value = random.random_range(0..distinct);
                let present = naive.get(&value).copied().unwrap_or(0);
                let times = if growing || present == 0 { random.random_range(1..3) } else { -present };
                counted.add(value, times);
                let count = naive.entry(value).or_insert(0);
                *count += times;
                if *count == 0 {
                    naive.remove(&value);
                }
            }
            let rows: Vec<u32> = naive.iter().flat_map(|(value, count)| std::iter::repeat_n(*value, *count as usize)).collect();
            assert_eq!((counted.rows(), counted.values()), (rows.len() as i64, naive.len()));
            for (rank, value) in rows.iter().enumerate() {
                assert_eq!(counted.nth(rank as i64), Some(value), "seed {seed}, rank {rank}");
            }
            assert_eq!(counted.nth(rows.len() as i64), None);
            naive.into_iter().for_each(|(value, count)| counted.add(value, -count));
            assert_eq!((counted.rows(), counted.values(), counted.root.is_empty()), (0, 0, true));
        }
    }

    #[test]
    fn a_retraction_may_come_before_its_insertion() {
        let mut counted = Counted::default();
        counted.add(7, -1);
        counted.add(3, 2);
        counted.add(7, 2);
        assert_eq!((counted.rows(), counted.nth(1), counted.nth(2)), (3, Some(&3), Some(&7)));
    }
}

//! The live rows of one key, as bytes. In: changes. Out: rows with their counts. One row costs no allocation but its bytes, many are found by
//! their hash, so that a change costs the same however many rows its key has.

use freshet_core::{Result, hash_bytes};
use hashbrown::HashTable;

use crate::state::{Bytes, put_bytes, put_i64, put_u64};

/// A row and how often it is there. Between the changes of one epoch the count may be below zero; never zero.
#[derive(Debug, Clone, Default)]
pub struct LiveRow<M = ()> {
    pub row: Box<[u8]>,
    pub count: i64,
    /// The greatest of its insertions.
    pub position: u64,
    /// What the operator knows of the row besides.
    pub mark: M,
}

/// Distinct rows with counts. Their order depends on nothing but the changes.
#[derive(Debug, Default)]
pub struct RowBag<M = ()>(Rows<M>);

#[derive(Debug, Default)]
enum Rows<M> {
    #[default]
    None,
    One(LiveRow<M>),
    Many(Box<Many<M>>),
}

#[derive(Debug)]
struct Many<M> {
    rows: Vec<LiveRow<M>>,
    /// Places in `rows` by the hash of the row; empty while there are few.
    index: HashTable<u32>,
    total: i64,
}

/// Up to here rows are compared one by one.
const FEW: usize = 8;

impl<M: Default> RowBag<M> {
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Rows::None)
    }

    /// How many rows are there, each as often as it is.
    pub fn total(&self) -> i64 {
        match &self.0 {
            Rows::None => 0,
            Rows::One(row) => row.count,
            Rows::Many(many) => many.total,
        }
    }

    pub fn rows(&self) -> &[LiveRow<M>] {
        match &self.0 {
            Rows::None => &[],
            Rows::One(row) => std::slice::from_ref(row),
            Rows::Many(many) => &many.rows,
        }
    }

    pub fn rows_mut(&mut self) -> &mut [LiveRow<M>] {
        match &mut self.0 {
            Rows::None => &mut [],
            Rows::One(row) => std::slice::from_mut(row),
            Rows::Many(many) => &mut many.rows,
        }
    }

    pub fn get_mut(&mut self, row: &[u8]) -> Option<&mut LiveRow<M>> {
        match &mut self.0 {
            Rows::None => None,
            Rows::One(one) => Some(one).filter(|one| *one.row == *row),
            Rows::Many(many) => many.place_of(row).map(|place| &mut many.rows[place]),
        }
    }

    /// `count` more of this row, or fewer. The row as it is now, or None if none of it is left.
    pub fn add(&mut self, row: &[u8], count: i64, position: u64) -> Option<&mut LiveRow<M>> {
        if count == 0 {
            return self.get_mut(row);
        }
        match &mut self.0 {
            Rows::None => self.0 = Rows::One(LiveRow::new(row, count, position)),
            Rows::One(one) if *one.row == *row => {
                one.change(count, position);
                if one.count == 0 {
                    self.0 = Rows::None;
                }
            }
            Rows::One(one) => {
                let first = std::mem::take(one);
                let total = first.count + count;
                self.0 = Rows::Many(Box::new(Many { rows: vec![first, LiveRow::new(row, count, position)], index: HashTable::new(), total }));
            }
            Rows::Many(many) => {
                many.add(row, count, position);
                if many.rows.len() == 1 {
                    let last = many.rows.pop().expect("there is one");
                    self.0 = Rows::One(last);
                }
            }
        }
        self.get_mut(row)
    }

    /// Drops rows of which `keep` says no. How many.
    pub fn retain(&mut self, keep: impl Fn(&LiveRow<M>) -> bool) -> usize {
        match &mut self.0 {
            Rows::None => 0,
            Rows::One(row) if keep(row) => 0,
            Rows::One(_) => {
                self.0 = Rows::None;
                1
            }
            Rows::Many(many) => {
                let before = many.rows.len();
                if many.rows.iter().all(&keep) {
                    return 0;
                }
                many.rows.retain(keep);
                let left = many.rows.len();
                match left {
                    0 => self.0 = Rows::None,
                    1 => self.0 = Rows::One(many.rows.pop().expect("there is one")),
                    _ => many.count_again(),
                }
                before - left
            }
        }
    }

    /// About how many bytes it takes beside its own.
    pub fn bytes(&self) -> usize {
        let rows: usize = self.rows().iter().map(|row| row.row.len() + 16).sum();
        match &self.0 {
            Rows::Many(many) => rows + many.rows.capacity() * size_of::<LiveRow<M>>() + many.index.capacity() * 5 + size_of::<Many<M>>(),
            _ => rows,
        }
    }

    pub fn put(&self, out: &mut Vec<u8>, mark: impl Fn(&mut Vec<u8>, &M)) {
        put_u64(out, self.rows().len() as u64);
        for row in self.rows() {
            put_bytes(out, &row.row);
            put_i64(out, row.count);
            put_u64(out, row.position);
            mark(out, &row.mark);
        }
    }

    pub fn take(bytes: &mut Bytes<'_>, mark: impl Fn(&mut Bytes<'_>) -> Result<M>) -> Result<RowBag<M>> {
        let mut bag = RowBag::default();
        for _ in 0..bytes.u64()? {
            let (row, count, position) = (bytes.bytes()?, bytes.i64()?, bytes.u64()?);
            let found = mark(bytes)?;
            if let Some(live) = bag.add(row, count, position) {
                live.mark = found;
            }
        }
        Ok(bag)
    }
}

impl<M: Default> LiveRow<M> {
    fn new(row: &[u8], count: i64, position: u64) -> LiveRow<M> {
        LiveRow { row: row.into(), count, position, mark: M::default() }
    }

    fn change(&mut self, count: i64, position: u64) {
        self.count += count;
        if count > 0 {
            self.position = self.position.max(position);
        }
    }
}

impl<M: Default> Many<M> {
    fn place_of(&self, row: &[u8]) -> Option<usize> {
        if self.rows.len() <= FEW {
            return self.rows.iter().position(|live| *live.row == *row);
        }
        self.index.find(hash_bytes(row), |place| *self.rows[*place as usize].row == *row).map(|place| *place as usize)
    }

    fn add(&mut self, row: &[u8], count: i64, position: u64) {
        self.total += count;
        match self.place_of(row) {
            Some(place) => {
                self.rows[place].change(count, position);
                if self.rows[place].count == 0 {
                    self.remove(place);
                }
            }
            None => {
                self.rows.push(LiveRow::new(row, count, position));
                if self.rows.len() == FEW + 1 {
                    self.index.clear();
                    (0..self.rows.len()).for_each(|place| self.enter(place));
                } else if self.rows.len() > FEW {
                    self.enter(self.rows.len() - 1);
                }
            }
        }
    }

    /// After rows were taken out.
    fn count_again(&mut self) {
        self.total = self.rows.iter().map(|row| row.count).sum();
        self.rows.shrink_to_fit();
        self.index = HashTable::new();
        if self.rows.len() > FEW {
            (0..self.rows.len()).for_each(|place| self.enter(place));
        }
    }

    fn enter(&mut self, place: usize) {
        let rows = &self.rows;
        self.index.insert_unique(hash_bytes(&rows[place].row), place as u32, |place| hash_bytes(&rows[*place as usize].row));
    }

    /// The last row takes the place of the removed one.
    fn remove(&mut self, place: usize) {
        let last = self.rows.len() - 1;
        if self.rows.len() > FEW {
            let removed = hash_bytes(&self.rows[place].row);
            if let Ok(entry) = self.index.find_entry(removed, |found| *found as usize == place) {
                entry.remove();
            }
            if place != last
                && let Some(moved) = self.index.find_mut(hash_bytes(&self.rows[last].row), |found| *found as usize == last)
            {
                *moved = place as u32;
            }
        }
        self.rows.swap_remove(place);
        if self.rows.len() == FEW {
            self.index = HashTable::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_bag_holds_what_a_map_of_counts_holds_however_many_rows_there_are() {
        let mut bag: RowBag = RowBag::default();
        let mut counts: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        let mut random = 7_u64;
        for step in 0..20_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Grows to some hundred rows and shrinks to none, several times.
            let grows = (step / 1_000) % 2 == 0;
            let row = ((random >> 33) % 300).to_le_bytes().to_vec();
            let known = counts.get(&row).copied().unwrap_or(0);
            let change = if grows { 1 } else { -known.min(1) };
            bag.add(&row, change, step);
            *counts.entry(row).or_default() += change;
            counts.retain(|_, count| *count != 0);
            if step % 700 == 0 {
                let before = counts.len();
                counts.retain(|row, _| !row[0].is_multiple_of(5));
                assert_eq!(bag.retain(|live| !live.row[0].is_multiple_of(5)), before - counts.len());
            }
            assert_eq!(bag.total(), counts.values().sum::<i64>());
            assert_eq!(bag.is_empty(), counts.is_empty());
        }
        let found: BTreeMap<Vec<u8>, i64> = bag.rows().iter().map(|row| (row.row.to_vec(), row.count)).collect();
        assert_eq!(found, counts);
        let mut bytes = Vec::new();
        bag.put(&mut bytes, |_, ()| {});
        let back: RowBag = RowBag::take(&mut Bytes(&bytes), |_| Ok(())).unwrap();
        let back: BTreeMap<Vec<u8>, i64> = back.rows().iter().map(|row| (row.row.to_vec(), row.count)).collect();
        assert_eq!(back, counts);
    }

    #[test]
    fn a_count_may_pass_through_zero_and_below() {
        let mut bag: RowBag = RowBag::default();
        assert_eq!(bag.add(b"a", -1, 0).map(|row| row.count), Some(-1));
        assert!(bag.add(b"a", 1, 5).is_none());
        assert!(bag.is_empty());
    }
}

//! How many distinct values there are, about (T24). In: hashes of values, in and out. Out: the exact number to 256, beyond it an estimate.
//!
//! Everything kept is linear in the counts of the values, so the answer depends on the multiset alone: a retraction undoes what its row did.
//! Beyond 256 values the hashes themselves are no longer kept; a table of sums gives them back once few enough are left (an invertible
//! Bloom lookup table: Goodrich and Mitzenmacher, 2011).

use std::collections::BTreeMap;

use freshet_core::{DISTINCT_EXACT_MAX, REGISTERS, Result, distinct_estimate, register_and_rank, register_share};

use crate::state::{Bytes, put_i64, put_u64};

/// Each of three parts of the table; together more than twice the hashes it must give back.
const PART: usize = 192;

/// The sketch of one group.
#[derive(Debug, Clone)]
pub enum DistinctSketch {
    /// Hashes with their counts.
    Few(BTreeMap<u64, i64>),
    Many(Box<Many>),
}

impl Default for DistinctSketch {
    fn default() -> DistinctSketch {
        DistinctSketch::Few(BTreeMap::new())
    }
}

#[derive(Debug, Clone)]
pub struct Many {
    /// Rows by (register, rank): the register in the upper bits.
    slots: BTreeMap<u32, i64>,
    /// The greatest rank of each register; 0: none. These three follow from `slots`.
    greatest: Box<[u8; REGISTERS]>,
    used: usize,
    shares: u128,
    table: Box<[Sum; 3 * PART]>,
}

/// The sum over rows of 1, of the hash and of another hash of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    rows: i64,
    hashes: i128,
    checks: u64,
}

impl DistinctSketch {
    /// Adds a value `times` times; negative takes it out.
    pub fn add(&mut self, hash: u64, times: i64) {
        match self {
            DistinctSketch::Few(counts) => {
                let count = counts.entry(hash).or_insert(0);
                *count += times;
                if *count == 0 {
                    counts.remove(&hash);
                }
                if counts.len() > DISTINCT_EXACT_MAX {
                    let mut many = Many::default();
                    counts.iter().for_each(|(hash, times)| many.add(*hash, *times));
                    *self = DistinctSketch::Many(Box::new(many));
                }
            }
            DistinctSketch::Many(many) => {
                many.add(hash, times);
                if many.slots.is_empty() {
                    *self = DistinctSketch::default();
                }
            }
        }
    }

    pub fn estimate(&self) -> u64 {
        match self {
            DistinctSketch::Few(counts) => counts.len() as u64,
            DistinctSketch::Many(many) => many.estimate(),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            DistinctSketch::Few(counts) => counts.len() * 24,
            DistinctSketch::Many(many) => many.slots.len() * 20 + REGISTERS + 3 * PART * size_of::<Sum>(),
        }
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            DistinctSketch::Few(counts) => {
                out.push(0);
                put_u64(out, counts.len() as u64);
                for (hash, count) in counts {
                    put_u64(out, *hash);
                    put_i64(out, *count);
                }
            }
            DistinctSketch::Many(many) => {
                out.push(1);
                put_u64(out, many.slots.len() as u64);
                for (slot, count) in &many.slots {
                    put_u64(out, (*slot).into());
                    put_i64(out, *count);
                }
                for sum in many.table.iter() {
                    put_i64(out, sum.rows);
                    out.extend(sum.hashes.to_le_bytes());
                    put_u64(out, sum.checks);
                }
            }
        }
    }

    /// Reads what `put` wrote. Errors: Data.
    pub fn take(bytes: &mut Bytes<'_>) -> Result<DistinctSketch> {
        if bytes.u8()? == 0 {
            return Ok(DistinctSketch::Few((0..bytes.u64()?).map(|_| Ok((bytes.u64()?, bytes.i64()?))).collect::<Result<_>>()?));
        }
        let mut many = Many::default();
        for _ in 0..bytes.u64()? {
            let (slot, count) = (bytes.u64()? as u32, bytes.i64()?);
            many.add_slot(slot, count);
        }
        for sum in many.table.iter_mut() {
            *sum = Sum { rows: bytes.i64()?, hashes: bytes.i128()?, checks: bytes.u64()? };
        }
        Ok(DistinctSketch::Many(Box::new(many)))
    }
}

impl Default for Many {
    fn default() -> Many {
        Many { slots: BTreeMap::new(), greatest: Box::new([0; REGISTERS]), used: 0, shares: 0, table: Box::new([Sum::default(); 3 * PART]) }
    }
}

impl Many {
    fn add(&mut self, hash: u64, times: i64) {
        let (register, rank) = register_and_rank(hash);
        self.add_slot(u32::from(register) << 8 | u32::from(rank), times);
        for place in places(hash) {
            self.table[place].add(hash, times);
        }
    }

    fn add_slot(&mut self, slot: u32, times: i64) {
        let count = self.slots.entry(slot).or_insert(0);
        *count += times;
        if *count == 0 {
            self.slots.remove(&slot);
        }
        let (register, rank) = ((slot >> 8) as usize, slot as u8);
        if rank < self.greatest[register] {
            return;
        }
        let below = slot & !0xff;
        let greatest = self.slots.range(below..=slot).next_back().map_or(0, |(found, _)| *found as u8);
        let before = std::mem::replace(&mut self.greatest[register], greatest);
        let share = |rank: u8| if rank == 0 { 0 } else { register_share(rank) };
        self.shares = self.shares + share(greatest) - share(before);
        self.used = self.used + usize::from(greatest > 0) - usize::from(before > 0);
    }

    fn estimate(&self) -> u64 {
        // Each slot in use stands for a value at least.
        if self.slots.len() <= DISTINCT_EXACT_MAX
            && let Some(count) = self.listed()
            && count <= DISTINCT_EXACT_MAX
        {
            return count as u64;
        }
        distinct_estimate(self.used, self.shares)
    }

    /// How many hashes there are, if the table gives all of them back.
    fn listed(&self) -> Option<usize> {
        let mut table = self.table.clone();
        let mut open: Vec<usize> = (0..table.len()).collect();
        let mut count = 0;
        while let Some(place) = open.pop() {
            let Some((hash, rows)) = table[place].only(place) else { continue };
            count += 1;
            for place in places(hash) {
                table[place].add(hash, -rows);
                open.push(place);
            }
        }
        table.iter().all(|sum| *sum == Sum::default()).then_some(count)
    }
}

impl Sum {
    fn add(&mut self, hash: u64, times: i64) {
        self.rows += times;
        self.hashes += i128::from(hash) * i128::from(times);
        self.checks = self.checks.wrapping_add(check(hash).wrapping_mul(times as u64));
    }

    /// The one hash behind this sum and its rows, if there is only one.
    fn only(&self, place: usize) -> Option<(u64, i64)> {
        if self.rows == 0 || self.hashes % i128::from(self.rows) != 0 {
            return None;
        }
        let hash = u64::try_from(self.hashes / i128::from(self.rows)).ok()?;
        let is_it = self.checks == check(hash).wrapping_mul(self.rows as u64) && places(hash).contains(&place);
        is_it.then_some((hash, self.rows))
    }
}

fn check(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 31)).wrapping_mul(0x9fb2_1c65_1e98_df25);
    mixed ^ (mixed >> 28)
}

fn places(hash: u64) -> [usize; 3] {
    let mixed = check(hash.rotate_left(17));
    let part = PART as u64;
    [mixed & 0xf_ffff, (mixed >> 20) & 0xf_ffff, mixed >> 40].map(|bits| (bits % part) as usize).into_iter().enumerate().fold(
        [0; 3],
        |mut places, (index, place)| {
            places[index] = index * PART + place;
            places
        },
    )
}

#[cfg(test)]
mod tests {
    use freshet_core::{Value, distinct_hash};

    use super::*;

    fn hash(value: i128) -> u64 {
        distinct_hash(&Value::Int(value))
    }

    #[test]
    fn t24_the_count_is_exact_to_256_also_after_it_was_more() {
        let mut sketch = DistinctSketch::default();
        for value in 0..5_000 {
            sketch.add(hash(value), 1 + (value % 3) as i64);
            if value < 256 {
                assert_eq!(sketch.estimate(), value as u64 + 1);
            }
        }
        assert!((sketch.estimate() as f64 / 5_000.0 - 1.0).abs() < 0.06, "{}", sketch.estimate());
        for value in (0..5_000).rev() {
            sketch.add(hash(value), -1 - (value % 3) as i64);
            if value <= 256 {
                assert_eq!(sketch.estimate(), value as u64, "{value} are left");
            }
        }
        assert!(matches!(sketch, DistinctSketch::Few(_)));
    }

    #[test]
    fn t24_a_retraction_leaves_no_trace_and_bytes_say_all() {
        let of = |range: std::ops::Range<i128>| {
            let mut sketch = DistinctSketch::default();
            range.for_each(|value| sketch.add(hash(value), 2));
            sketch
        };
        let mut shrunk = of(0..3_000);
        (700..3_000).for_each(|value| shrunk.add(hash(value), -2));
        assert_eq!(shrunk.estimate(), of(0..700).estimate());
        let mut bytes = Vec::new();
        shrunk.put(&mut bytes);
        let mut back = DistinctSketch::take(&mut Bytes(&bytes)).unwrap();
        assert_eq!(back.estimate(), shrunk.estimate());
        (100..700).for_each(|value| back.add(hash(value), -2));
        assert_eq!(back.estimate(), 100);
    }
}

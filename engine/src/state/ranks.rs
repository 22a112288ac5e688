//! Scores with labels in order: the area under the ROC curve of the rows that are left, after any insertions and retractions.
//!
//! In: scores and labels, in and out. Out: the share of (true, false) pairs whose true row scores higher, ties counting half. Kept exactly,
//! as twice the number of such pairs, so reading it costs nothing; a change costs about the square root of the number of scores.

use freshet_core::{Error, Result};

use crate::state::{Bytes, put_i64, put_u64};

/// A block is split when it has more scores than this and than four times the root of their number.
const BLOCK_SCORES_MIN: usize = 64;

/// Rows of one score. Counts of an open epoch may be negative: a retraction may come before its insertion.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rank {
    score: u64,
    trues: i64,
    falses: i64,
}

/// Neighbours in the order of scores, and their totals.
#[derive(Debug, Clone, Default, PartialEq)]
struct Block {
    ranks: Vec<Rank>,
    trues: i64,
    falses: i64,
}

/// All scores of a group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranks {
    /// None is empty; ascending.
    blocks: Vec<Block>,
    scores: usize,
    trues: i64,
    falses: i64,
    /// Per pair of a true and a false row: 2 where the true one scores higher, 1 where they tie.
    twice_won: i128,
}

impl Ranks {
    /// Adds a row `times` times; negative takes it out. −0.0 equals 0.0; NaN is the greatest score.
    pub fn add(&mut self, score: f64, label: bool, times: i64) {
        let score = order_of(score);
        let index = self.blocks.partition_point(|block| block.ranks.last().is_some_and(|last| last.score < score)).min(self.last_block());
        let (mut trues, mut falses) = self.blocks[..index].iter().fold((0, 0), |(trues, falses), block| (trues + block.trues, falses + block.falses));
        let block = &mut self.blocks[index];
        let place = block.ranks.partition_point(|rank| rank.score < score);
        for rank in &block.ranks[..place] {
            trues += rank.trues;
            falses += rank.falses;
        }
        if block.ranks.get(place).is_none_or(|rank| rank.score != score) {
            block.ranks.insert(place, Rank { score, trues: 0, falses: 0 });
            self.scores += 1;
        }
        let rank = &mut block.ranks[place];
        // The number of pairs is linear in each row's count, so one formula serves insertions and retractions.
        let won = if label { 2 * falses + rank.falses } else { 2 * (self.trues - trues - rank.trues) + rank.trues };
        self.twice_won += i128::from(won) * i128::from(times);
        if label {
            rank.trues += times;
            block.trues += times;
            self.trues += times;
        } else {
            rank.falses += times;
            block.falses += times;
            self.falses += times;
        }
        if (rank.trues, rank.falses) == (0, 0) {
            block.ranks.remove(place);
            self.scores -= 1;
        }
        self.balance(index);
    }

    /// None without a row of both labels. Rounded once.
    pub fn area(&self) -> Option<f64> {
        let pairs = i128::from(self.trues) * i128::from(self.falses);
        (self.trues > 0 && self.falses > 0).then(|| ratio(self.twice_won.unsigned_abs(), 2 * pairs.unsigned_abs()))
    }

    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.ranks.capacity() * size_of::<Rank>() + size_of::<Block>()).sum()
    }

    /// How many scores a change looks at, at most: blocks, and the ranks of one.
    #[cfg(test)]
    fn reach(&self) -> usize {
        self.blocks.len() + self.blocks.iter().map(|block| block.ranks.len()).max().unwrap_or(0)
    }

    /// The index of the last block, made if there is none.
    fn last_block(&mut self) -> usize {
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        self.blocks.len() - 1
    }

    /// Splits a block that has grown too long, drops one that is empty.
    fn balance(&mut self, index: usize) {
        let len = self.blocks[index].ranks.len();
        if len == 0 {
            self.blocks.remove(index);
        } else if len > BLOCK_SCORES_MIN.max(4 * self.scores.isqrt()) {
            let upper = self.blocks[index].ranks.split_off(len / 2);
            let upper = Block::of(upper);
            self.blocks[index].trues -= upper.trues;
            self.blocks[index].falses -= upper.falses;
            self.blocks.insert(index + 1, upper);
        }
    }

    /// The ranks, in order; the rest follows from them.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.scores as u64);
        for rank in self.blocks.iter().flat_map(|block| &block.ranks) {
            put_u64(out, rank.score);
            put_i64(out, rank.trues);
            put_i64(out, rank.falses);
        }
    }

    /// Reads what `put` wrote. Errors: Data.
    pub fn take(bytes: &mut Bytes<'_>) -> Result<Ranks> {
        let scores = bytes.u64()? as usize;
        let mut ranks = Ranks { scores, ..Ranks::default() };
        let block_scores = BLOCK_SCORES_MIN.max(2 * scores.isqrt());
        let mut open: Vec<Rank> = Vec::new();
        for _ in 0..scores {
            let rank = Rank { score: bytes.u64()?, trues: bytes.i64()?, falses: bytes.i64()? };
            if open.last().is_some_and(|last| last.score >= rank.score) {
                return Err(Error::data("a checkpoint file holds scores out of order"));
            }
            ranks.twice_won += i128::from(rank.trues) * i128::from(2 * ranks.falses + rank.falses);
            ranks.trues += rank.trues;
            ranks.falses += rank.falses;
            open.push(rank);
            if open.len() == block_scores {
                ranks.blocks.push(Block::of(std::mem::take(&mut open)));
            }
        }
        ranks.blocks.extend((!open.is_empty()).then(|| Block::of(open)));
        Ok(ranks)
    }
}

impl Block {
    fn of(ranks: Vec<Rank>) -> Block {
        let (trues, falses) = ranks.iter().fold((0, 0), |(trues, falses), rank| (trues + rank.trues, falses + rank.falses));
        Block { ranks, trues, falses }
    }
}

/// Integers in the order of the floats.
fn order_of(score: f64) -> u64 {
    let score = if score == 0.0 { 0.0 } else { score };
    let bits = if score.is_nan() { f64::NAN.to_bits() & !(1 << 63) } else { score.to_bits() };
    if bits >> 63 == 0 { bits | (1 << 63) } else { !bits }
}

/// The float next to `numerator / denominator`, which is at most 1. Beyond 2^64 pairs (billions of rows) it may miss by the last bit.
fn ratio(numerator: u128, denominator: u128) -> f64 {
    if numerator == 0 || denominator > u128::from(u64::MAX) {
        return numerator as f64 / denominator as f64;
    }
    // The quotient of the shifted numerator has 64 bits at least; a remainder only says on which side of a tie it lies.
    let shift = numerator.leading_zeros();
    let shifted = numerator << shift;
    let quotient = (shifted / denominator) | u128::from(!shifted.is_multiple_of(denominator));
    quotient as f64 * 0.5f64.powi(shift as i32)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// All pairs, one by one.
    fn naive(rows: &[(f64, bool)]) -> Option<f64> {
        let of = |label: bool| rows.iter().filter(move |row| row.1 == label).copied().collect::<Vec<(f64, bool)>>();
        let (trues, falses) = (of(true), of(false));
        let order = |score: f64| if score.is_nan() { (1, 0.0) } else { (0, score) };
        let twice: u64 = trues
            .iter()
            .flat_map(|a| falses.iter().map(|b| order(a.0).partial_cmp(&order(b.0)).expect("no NaN is left")))
            .map(|ordering| [0, 1, 2][(ordering as i8 + 1) as usize])
            .sum();
        (!trues.is_empty() && !falses.is_empty()).then(|| twice as f64 / (2 * trues.len() * falses.len()) as f64)
    }

    #[test]
    fn t9_the_area_equals_all_pairs_after_any_insertions_and_retractions() {
        for seed in 0..12 {
            let mut random = StdRng::seed_from_u64(seed);
            let special = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
            let distinct = [3, 40, 100_000][seed as usize % 3];
            let (mut ranks, mut rows): (Ranks, Vec<(f64, bool)>) = (Ranks::default(), Vec::new());
            for step in 0..600 {
                if !rows.is_empty() && random.random_bool(if step < 400 { 0.2 } else { 0.8 }) {
                    let (score, label) = rows.swap_remove(random.random_range(0..rows.len()));
                    ranks.add(score, label, -1);
                } else {
                    let score = match random.random_range(0..10) {
                        0 => special[random.random_range(0..special.len())],
                        _ => f64::from(random.random_range(0..distinct)) - 1.0,
                    };
                    let row = (score, random.random_bool(0.4));
                    ranks.add(row.0, row.1, 1);
                    rows.push(row);
                }
                if step % 7 == 0 {
                    assert_eq!(ranks.area().map(f64::to_bits), naive(&rows).map(f64::to_bits), "seed {seed}, step {step}");
                }
                if step % 97 == 0 {
                    let mut bytes = Vec::new();
                    ranks.put(&mut bytes);
                    let back = Ranks::take(&mut Bytes(&bytes)).unwrap();
                    assert_eq!((back.twice_won, back.trues, back.falses), (ranks.twice_won, ranks.trues, ranks.falses));
                    ranks = back;
                }
            }
            rows.into_iter().for_each(|(score, label)| ranks.add(score, label, -1));
            assert_eq!(ranks, Ranks::default(), "nothing is left of nothing");
        }
    }

    #[test]
    fn a_retraction_may_come_before_its_insertion() {
        let mut ranks = Ranks::default();
        ranks.add(0.3, true, 1);
        ranks.add(0.5, false, -1);
        ranks.add(0.1, false, 2);
        ranks.add(0.5, false, 1);
        assert_eq!(ranks.area(), Some(1.0));
    }

    #[test]
    fn a_change_looks_at_about_the_root_of_the_scores() {
        let mut random = StdRng::seed_from_u64(3);
        for ascending in [true, false] {
            let mut ranks = Ranks::default();
            for row in 0..40_000 {
                let score = if ascending { f64::from(row) } else { random.random::<f64>() };
                ranks.add(score, row % 3 == 0, 1);
            }
            assert!(ranks.reach() < 1_600, "{} of 40,000", ranks.reach());
        }
    }

    #[test]
    fn the_quotient_is_rounded_once() {
        for (numerator, denominator) in [(1u128, 3u128), (2, 3), (5, 5), (1, 1 << 52), ((1 << 53) - 1, 1 << 53)] {
            assert_eq!(ratio(numerator, denominator), numerator as f64 / denominator as f64);
        }
        // One more than a tie between two floats: 1 / 2 + 2^-54 + 2^-63.
        let tie = (1u128 << 62) + (1 << 9);
        assert_eq!(ratio(tie, 1 << 63), 0.5);
        assert_eq!(ratio(tie + 1, 1 << 63), 0.5 + f64::EPSILON / 2.0);
    }
}

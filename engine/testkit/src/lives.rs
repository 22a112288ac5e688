//! When each row was there. In: changes with epochs. Out: one life per insertion, from the epoch it entered to the epoch it left.
//!
//! Changes of one epoch are consolidated first (T9, C5); then a retraction takes the oldest life of its row.

use std::collections::{BTreeMap, VecDeque};

use freshet_core::Epoch;

/// A row that entered or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<R> {
    pub row: R,
    pub epoch: Epoch,
    /// How many more (or fewer) of this row there are.
    pub diff: i64,
    /// Rank of the record behind it.
    pub position: u64,
}

/// One stay of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life<R> {
    pub row: R,
    pub position: u64,
    pub entered: Epoch,
    pub left: Option<Epoch>,
}

impl<R> Life<R> {
    /// Whether an answer that has seen exactly the arrivals below `cut` holds this row.
    pub fn is_seen_below(&self, cut: Epoch) -> bool {
        self.entered < cut && self.left.is_none_or(|left| left >= cut)
    }

    /// Whether the row is there when epoch `t` is complete.
    pub fn is_at(&self, t: Epoch) -> bool {
        self.entered <= t && self.left.is_none_or(|left| left > t)
    }
}

/// All lives in order of entry (then position, then row), and the retractions that found nothing alive (T9: error records).
#[derive(Debug, Clone)]
pub struct Lives<R> {
    pub lives: Vec<Life<R>>,
    pub unmatched: Vec<(R, Epoch)>,
}

/// Follows the changes epoch by epoch.
pub fn lives<R: Ord + Clone>(changes: impl IntoIterator<Item = Change<R>>) -> Lives<R> {
    let mut epochs: BTreeMap<Epoch, BTreeMap<R, (Vec<u64>, usize)>> = BTreeMap::new();
    for change in changes {
        let (inserted, retracted) = epochs.entry(change.epoch).or_default().entry(change.row).or_default();
        for _ in 0..change.diff.unsigned_abs() {
            if change.diff > 0 {
                inserted.push(change.position);
            } else {
                *retracted += 1;
            }
        }
    }
    let mut all: Vec<Life<R>> = Vec::new();
    let mut alive: BTreeMap<R, VecDeque<usize>> = BTreeMap::new();
    let mut unmatched = Vec::new();
    for (epoch, rows) in epochs {
        for (row, (mut inserted, retracted)) in rows {
            inserted.sort_unstable();
            let cancelled = inserted.len().min(retracted);
            let queue = alive.entry(row.clone()).or_default();
            for position in inserted.split_off(cancelled) {
                queue.push_back(all.len());
                all.push(Life { row: row.clone(), position, entered: epoch, left: None });
            }
            for _ in cancelled..retracted {
                match queue.pop_front() {
                    Some(oldest) => all[oldest].left = Some(epoch),
                    None => unmatched.push((row.clone(), epoch)),
                }
            }
        }
    }
    all.sort_by(|a, b| (a.entered, a.position, &a.row).cmp(&(b.entered, b.position, &b.row)));
    Lives { lives: all, unmatched }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(row: char, epoch: u64, diff: i64, position: u64) -> Change<char> {
        Change { row, epoch: Epoch(epoch), diff, position }
    }

    #[test]
    fn t9_changes_of_one_epoch_cancel_before_they_touch_older_rows() {
        let found = lives([change('x', 1, 1, 1), change('x', 5, -1, 2), change('x', 5, 1, 3)]);
        assert_eq!(found.lives, vec![Life { row: 'x', position: 1, entered: Epoch(1), left: None }]);
    }

    #[test]
    fn c5_a_retraction_takes_the_oldest() {
        let found = lives([change('x', 1, 1, 1), change('x', 2, 1, 2), change('x', 3, -1, 3)]);
        assert_eq!(found.lives[0].left, Some(Epoch(3)));
        assert_eq!(found.lives[1].left, None);
    }

    #[test]
    fn t9_a_retraction_without_a_live_row_is_an_error_record() {
        let found = lives([change('x', 1, -1, 1), change('x', 2, 1, 2)]);
        assert_eq!(found.unmatched, vec![('x', Epoch(1))]);
        assert!(found.lives[0].is_at(Epoch(2)));
        assert!(!found.lives[0].is_seen_below(Epoch(2)));
    }
}

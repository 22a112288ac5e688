//! The sessions of one key: runs of times between which no gap is too long. In: rows that come and go. Out: which session each changed row is
//! in, and the rows whose session changed its name. The larger part of a merge or split keeps its name, so that a row is told again
//! O(log n) times.

use std::collections::BTreeMap;
use std::ops::Bound;

use freshet_core::Result;

use crate::state::{Bytes, put_bytes, put_i64, put_u64};

/// Rows by time, and the sessions they make.
#[derive(Debug, Default)]
pub struct Sessions {
    rows: BTreeMap<i64, Vec<SessionRow>>,
    /// By first time; never overlapping, more than the gap apart.
    spans: BTreeMap<i64, Span>,
    next: u64,
    /// Some sessions are no longer here, but their names are still in use.
    forgot: bool,
}

#[derive(Debug, Clone)]
struct SessionRow {
    row: Box<[u8]>,
    count: i64,
    position: u64,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    last: i64,
    name: u64,
    /// Distinct times.
    times: u64,
}

/// A row that is in a session `diff` times more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub row: Box<[u8]>,
    pub position: u64,
    pub session: u64,
    pub diff: i64,
}

fn apart(earlier: i64, later: i64) -> i128 {
    i128::from(later) - i128::from(earlier)
}

impl Sessions {
    /// A row of this time comes (diff above 0) or goes. Changes of one epoch come added up.
    pub fn change(&mut self, gap: i64, time: i64, row: &[u8], diff: i64, position: u64, moved: &mut Vec<Moved>) {
        let at = self.rows.entry(time).or_default();
        let was_there = !at.is_empty();
        let mut shown = position;
        match at.iter().position(|known| known.row.as_ref() == row) {
            Some(index) => {
                let known = &mut at[index];
                known.count += diff;
                if diff > 0 {
                    known.position = known.position.max(position);
                }
                shown = known.position;
                if known.count == 0 {
                    at.swap_remove(index);
                }
            }
            None => at.push(SessionRow { row: row.into(), count: diff, position }),
        }
        let is_there = !at.is_empty();
        if !is_there {
            self.rows.remove(&time);
        }
        let session = match (was_there, is_there) {
            (false, true) => self.joined(gap, time, moved),
            _ => self.span_of(time).1.name,
        };
        moved.push(Moved { row: row.into(), position: shown, session, diff });
        if was_there && !is_there {
            self.left(gap, time, moved);
        }
    }

    /// Nothing is left, and nothing of it is needed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && !self.forgot
    }

    /// Distinct times.
    pub fn times(&self) -> usize {
        self.rows.len()
    }

    /// Drops the sessions whose last time lies before: nothing will reach them.
    pub fn forget(&mut self, before: i64) {
        while let Some(first) = self.spans.first_entry().filter(|span| span.get().last < before) {
            let last = first.remove().last;
            while let Some(rows) = self.rows.first_entry().filter(|rows| *rows.key() <= last) {
                rows.remove();
            }
            self.forgot = true;
        }
    }

    /// Distinct rows and about how many bytes.
    pub fn size(&self) -> (u64, u64) {
        let rows = || self.rows.values().flatten();
        (rows().count() as u64, rows().map(|row| row.row.len() as u64 + 64).sum::<u64>() + 48 * self.spans.len() as u64)
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.next);
        put_u64(out, self.forgot.into());
        put_u64(out, self.spans.len() as u64);
        for (first, span) in &self.spans {
            put_i64(out, *first);
            put_i64(out, span.last);
            put_u64(out, span.name);
            put_u64(out, span.times);
        }
        put_u64(out, self.rows.len() as u64);
        for (time, rows) in &self.rows {
            put_i64(out, *time);
            put_u64(out, rows.len() as u64);
            for row in rows {
                put_bytes(out, &row.row);
                put_i64(out, row.count);
                put_u64(out, row.position);
            }
        }
    }

    /// What `put` wrote. Errors: Data.
    pub fn take(bytes: &mut Bytes<'_>) -> Result<Sessions> {
        let (next, forgot) = (bytes.u64()?, bytes.u64()? == 1);
        let spans = (0..bytes.u64()?).map(|_| Ok((bytes.i64()?, Span { last: bytes.i64()?, name: bytes.u64()?, times: bytes.u64()? })));
        let spans = spans.collect::<Result<_>>()?;
        let mut rows = BTreeMap::new();
        for _ in 0..bytes.u64()? {
            let time = bytes.i64()?;
            let of_time = (0..bytes.u64()?).map(|_| Ok(SessionRow { row: bytes.bytes()?.into(), count: bytes.i64()?, position: bytes.u64()? }));
            rows.insert(time, of_time.collect::<Result<Vec<_>>>()?);
        }
        Ok(Sessions { rows, spans, next, forgot })
    }

    /// The session that holds a time which has or just had rows.
    fn span_of(&self, time: i64) -> (i64, Span) {
        let (first, span) = self.spans.range(..=time).next_back().expect("every time with rows is in a session");
        assert!(span.last >= time, "every time with rows is in a session");
        (*first, *span)
    }

    /// A time got its first row: it begins a session, lengthens one, or makes one of two. The name of its session.
    fn joined(&mut self, gap: i64, time: i64, moved: &mut Vec<Moved>) -> u64 {
        let gap = i128::from(gap);
        let before = self.spans.range(..=time).next_back().map(|(first, span)| (*first, *span));
        let before = before.filter(|(_, span)| apart(span.last, time) <= gap);
        if let Some((first, span)) = before.filter(|(_, span)| span.last >= time) {
            self.spans.insert(first, Span { times: span.times + 1, ..span });
            return span.name;
        }
        let after = self.spans.range((Bound::Excluded(time), Bound::Unbounded)).next().map(|(first, span)| (*first, *span));
        let after = after.filter(|(first, _)| apart(time, *first) <= gap);
        let (first, span) = match (before, after) {
            (Some((first, one)), Some((second, other))) => {
                let (kept, renamed, range) =
                    if one.times >= other.times { (one.name, other.name, second..=other.last) } else { (other.name, one.name, first..=one.last) };
                self.rename(range, renamed, kept, moved);
                self.spans.remove(&second);
                (first, Span { last: other.last, name: kept, times: one.times + other.times + 1 })
            }
            (Some((first, span)), None) => (first, Span { last: time, times: span.times + 1, ..span }),
            (None, Some((first, span))) => {
                self.spans.remove(&first);
                (time, Span { times: span.times + 1, ..span })
            }
            (None, None) => (time, Span { last: time, name: self.new_name(), times: 1 }),
        };
        self.spans.insert(first, span);
        span.name
    }

    /// A time lost its last row: its session ends, shortens, stays, or becomes two.
    fn left(&mut self, gap: i64, time: i64, moved: &mut Vec<Moved>) {
        let (first, span) = self.span_of(time);
        let before = self.rows.range(first..time).next_back().map(|(time, _)| *time);
        let after = self.rows.range((Bound::Excluded(time), Bound::Included(span.last))).next().map(|(time, _)| *time);
        let times = span.times - 1;
        self.spans.remove(&first);
        match (before, after) {
            (None, None) => {}
            (None, Some(after)) => drop(self.spans.insert(after, Span { times, ..span })),
            (Some(before), None) => drop(self.spans.insert(first, Span { last: before, times, ..span })),
            (Some(before), Some(after)) if apart(before, after) <= i128::from(gap) => drop(self.spans.insert(first, Span { times, ..span })),
            (Some(before), Some(after)) => {
                let name = self.new_name();
                let (left_is_smaller, fewer) = self.smaller((first, before), (after, span.last));
                let (range, left, right) = match left_is_smaller {
                    true => (first..=before, (name, fewer), (span.name, times - fewer)),
                    false => (after..=span.last, (span.name, times - fewer), (name, fewer)),
                };
                self.rename(range, span.name, name, moved);
                self.spans.insert(first, Span { last: before, name: left.0, times: left.1 });
                self.spans.insert(after, Span { last: span.last, name: right.0, times: right.1 });
            }
        }
    }

    /// Whether the left of two ranges has fewer times, and how many the one with fewer has; found in steps of the lesser number.
    fn smaller(&self, left: (i64, i64), right: (i64, i64)) -> (bool, u64) {
        let (mut left, mut right) = (self.rows.range(left.0..=left.1), self.rows.range(right.0..=right.1));
        let mut count = 0;
        loop {
            match (left.next(), right.next()) {
                (Some(_), Some(_)) => count += 1,
                (None, _) => return (true, count),
                (_, None) => return (false, count),
            }
        }
    }

    fn rename(&self, range: std::ops::RangeInclusive<i64>, from: u64, to: u64, moved: &mut Vec<Moved>) {
        for row in self.rows.range(range).flat_map(|(_, rows)| rows) {
            for (session, diff) in [(from, -row.count), (to, row.count)] {
                moved.push(Moved { row: row.row.clone(), position: row.position, session, diff });
            }
        }
    }

    fn new_name(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(sessions: &mut Sessions, time: i64, row: u8, diff: i64) -> Vec<(u8, u64, i64)> {
        let mut moved = Vec::new();
        sessions.change(10, time, &[row], diff, 0, &mut moved);
        moved.into_iter().map(|moved| (moved.row[0], moved.session, moved.diff)).collect()
    }

    #[test]
    fn a_late_row_merges_two_sessions_and_its_retraction_splits_them() {
        let mut sessions = Sessions::default();
        assert_eq!(changed(&mut sessions, 0, b'a', 1), [(b'a', 1, 1)]);
        assert_eq!(changed(&mut sessions, 10, b'b', 1), [(b'b', 1, 1)], "a gap of exactly the length does not end a session");
        assert_eq!(changed(&mut sessions, 21, b'c', 1), [(b'c', 2, 1)]);
        assert_eq!(changed(&mut sessions, 15, b'd', 1), [(b'c', 2, -1), (b'c', 1, 1), (b'd', 1, 1)]);
        assert_eq!(changed(&mut sessions, 15, b'd', -1), [(b'd', 1, -1), (b'c', 1, -1), (b'c', 3, 1)]);
        assert_eq!(changed(&mut sessions, 10, b'b', -1), [(b'b', 1, -1)]);
        assert_eq!(sessions.spans.iter().map(|(first, span)| (*first, span.last)).collect::<Vec<_>>(), [(0, 0), (21, 21)]);
    }

    #[test]
    fn what_is_over_is_forgotten_but_no_name_comes_again() {
        let mut sessions = Sessions::default();
        for (time, row) in [(0, b'a'), (5, b'b'), (30, b'c'), (31, b'd')] {
            changed(&mut sessions, time, row, 1);
        }
        sessions.forget(5);
        assert_eq!(sessions.times(), 4);
        sessions.forget(6);
        assert_eq!((sessions.times(), sessions.spans.len()), (2, 1));
        sessions.forget(i64::MAX);
        assert_eq!((sessions.times(), sessions.is_empty()), (0, false));
        assert_eq!(changed(&mut sessions, 60, b'e', 1), [(b'e', 3, 1)]);
    }

    #[test]
    fn what_is_put_is_taken() {
        let mut sessions = Sessions::default();
        for time in [5, 1, 30, i64::MAX, i64::MIN] {
            changed(&mut sessions, time, b'x', 2);
        }
        let mut bytes = Vec::new();
        sessions.put(&mut bytes);
        assert_eq!(format!("{:?}", Sessions::take(&mut Bytes(&bytes)).unwrap()), format!("{sessions:?}"));
    }
}

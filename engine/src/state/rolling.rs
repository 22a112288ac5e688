//! The events of one key, in event-time order, with summaries above them. In: events and retractions with their arrival. Out: any
//! window at any (q, s).
//!
//! Events stand in leaves of about 16; every leaf has one cell per aggregate argument, and 8 leaves (64, 512, …) share a group of
//! cells. A window is the scan of at most two leaves and a logarithmic number of merges, so neither an event nor a lookup costs more
//! when the window holds more. Events that some reader may not yet see wait in the overlay with their arrival; the rest is folded.

use std::collections::{BTreeMap, VecDeque};

use freshet_core::{Epoch, EventTime, ReadPoint, RollingSpec, Window};

use crate::state::{Cell, CellKind, Datum};

/// 16 and 8: the knee of `benches` year. A window costs about one leaf and half a fan-out of merges per edge and level; smaller leaves
/// cost more memory for summaries than they save in scans.
const LEAF_ROWS: usize = 16;
const FANOUT: u64 = 8;

/// What all keys of one rolling view share.
#[derive(Debug)]
pub struct RollingLayout {
    pub spec: RollingSpec,
    /// One per distinct (function class, argument, filter) of the aggregates.
    pub cells: Vec<CellKind>,
    /// Argument and filter column of each cell.
    pub columns: Vec<(Option<usize>, Option<usize>)>,
    /// Distinct windows.
    pub windows: Vec<Window>,
    /// Cell and window of each aggregate.
    pub aggregates: Vec<(usize, usize)>,
}

impl RollingLayout {
    fn empty_cells(&self) -> Vec<Cell> {
        self.cells.iter().map(CellKind::empty).collect()
    }

    /// The event times [from, until) of each window at q.
    fn ranges(&self, q: Epoch) -> Vec<(EventTime, EventTime)> {
        self.windows.iter().map(|window| window.range(q, self.spec.hop_ms, self.spec.include_now)).collect()
    }
}

#[derive(Debug, Clone)]
struct Leaf {
    /// Lower bound of the times this leaf is responsible for; a time lives in exactly one leaf.
    floor: i64,
    times: Vec<i64>,
    /// Row-major, one datum per cell.
    data: Vec<Datum>,
    summary: Vec<Cell>,
}

/// Events every reader may see.
#[derive(Debug, Clone, Default)]
pub struct EventTree {
    leaves: VecDeque<Leaf>,
    /// Number of leaves ever dropped at the front: leaf i has id `first_id + i`.
    first_id: u64,
    /// (level, group) → cells over leaf ids [group · 32^level, (group + 1) · 32^level), for groups whose leaves all exist.
    groups: BTreeMap<(u32, u64), Vec<Cell>>,
    rows: usize,
}

impl EventTree {
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn insert(&mut self, layout: &RollingLayout, time: i64, data: &[Datum]) {
        self.rows += 1;
        let index = self.leaf_of(time);
        let appends = match self.leaves.get(index) {
            None => true,
            Some(leaf) => index + 1 == self.leaves.len() && leaf.times.len() >= LEAF_ROWS && leaf.times.last().is_some_and(|last| time > *last),
        };
        if appends {
            self.leaves.push_back(Leaf { floor: time, times: vec![time], data: data.to_vec(), summary: layout.empty_cells() });
            add_row(&mut self.leaves.back_mut().expect("a leaf was just added").summary, data, 1);
            self.complete_groups(layout);
            return;
        }
        let leaf = &mut self.leaves[index];
        leaf.floor = leaf.floor.min(time);
        let at = leaf.times.partition_point(|other| *other <= time);
        leaf.times.insert(at, time);
        let width = data.len();
        leaf.data.splice(at * width..at * width, data.iter().cloned());
        add_row(&mut leaf.summary, data, 1);
        let split = leaf.times.len() > 2 * LEAF_ROWS;
        self.each_group_above(index, |cells| add_row(cells, data, 1));
        if split {
            self.split(layout, index);
        }
    }

    /// Takes out one event with this time and these data. False if there is none.
    pub fn remove(&mut self, layout: &RollingLayout, time: i64, data: &[Datum]) -> bool {
        let index = self.leaf_of(time);
        let Some(leaf) = self.leaves.get_mut(index) else { return false };
        let width = data.len();
        let from = leaf.times.partition_point(|other| *other < time);
        let Some(at) =
            (from..leaf.times.len()).take_while(|at| leaf.times[*at] == time).find(|at| same(&leaf.data[at * width..(at + 1) * width], data))
        else {
            return false;
        };
        leaf.times.remove(at);
        leaf.data.drain(at * width..(at + 1) * width);
        self.rows -= 1;
        for (cell, datum) in data.iter().enumerate() {
            if matches!(datum, Datum::Skip) {
                continue;
            }
            let leaf = &mut self.leaves[index];
            if leaf.summary[cell].needs_rebuild() {
                let mut rebuilt = layout.cells[cell].empty();
                leaf.data.iter().skip(cell).step_by(width).for_each(|datum| rebuilt.add(datum, 1));
                leaf.summary[cell] = rebuilt;
                self.rebuild_above(layout, index, cell);
            } else {
                leaf.summary[cell].add(datum, -1);
                self.each_group_above(index, |cells| cells[cell].add(datum, -1));
            }
        }
        true
    }

    /// Drops leaves whose events are all before `time`; some earlier events may stay.
    pub fn drop_before(&mut self, time: EventTime) {
        while self.leaves.len() > 1 && self.leaves[1].floor <= time.0 {
            let leaf = self.leaves.pop_front().expect("there are at least two");
            self.rows -= leaf.times.len();
            let id = self.first_id;
            self.first_id += 1;
            let mut span = FANOUT;
            for level in 1..=levels(self.leaves.len()) + 1 {
                self.groups.remove(&(level, id / span));
                span = span.saturating_mul(FANOUT);
            }
        }
    }

    /// Adds the cells of events with from ≤ time < until. Returns how many leaves and groups it took.
    pub fn range(&self, from: i64, until: i64, cells: &mut [Cell]) -> usize {
        if from >= until || self.leaves.is_empty() {
            return 0;
        }
        let mut visited = 0;
        let (mut index, last) = (self.leaf_of(from), self.leaf_of(until - 1));
        while index <= last.min(self.leaves.len() - 1) {
            visited += 1;
            let leaf = &self.leaves[index];
            let whole = leaf.times.first().is_none_or(|time| *time >= from) && leaf.times.last().is_none_or(|time| *time < until);
            if !whole {
                scan(leaf, from, until, cells);
                index += 1;
                continue;
            }
            // The last leaf may end inside a group; then the group does not count.
            let (end, merged) = if index == last { (index + 1, None) } else { self.largest_group(index, last) };
            merged.unwrap_or(&leaf.summary).iter().zip(cells.iter_mut()).for_each(|(part, cell)| cell.merge(part));
            index = end;
        }
        visited
    }

    /// The times of events before `until`, greatest first.
    pub fn times_before(&self, until: i64) -> impl Iterator<Item = i64> + '_ {
        self.leaves.iter().rev().flat_map(|leaf| leaf.times.iter().rev().copied()).skip_while(move |time| *time >= until)
    }

    /// All events in time order.
    pub fn events(&self) -> impl Iterator<Item = (i64, &[Datum])> + '_ {
        self.leaves.iter().flat_map(|leaf| {
            let width = leaf.data.len().checked_div(leaf.times.len()).unwrap_or(0);
            leaf.times.iter().enumerate().map(move |(row, time)| (*time, &leaf.data[row * width..(row + 1) * width]))
        })
    }

    pub fn bytes(&self) -> usize {
        let leaves: usize = self.leaves.iter().map(|leaf| leaf.times.len() * 8 + leaf.data.len() * size_of::<Datum>()).sum();
        leaves + (self.leaves.len() + self.groups.len()) * self.leaves.front().map_or(0, |leaf| leaf.summary.iter().map(Cell::bytes).sum())
    }

    /// Index of the leaf responsible for a time: the last one whose floor is not above it, else the first.
    fn leaf_of(&self, time: i64) -> usize {
        // The common case is the newest leaf.
        if self.leaves.back().is_none_or(|leaf| leaf.floor <= time) {
            return self.leaves.len().saturating_sub(1);
        }
        self.leaves.partition_point(|leaf| leaf.floor <= time).saturating_sub(1)
    }

    /// A leaf's groups exist up to some level and not above it.
    fn each_group_above(&mut self, index: usize, mut change: impl FnMut(&mut Vec<Cell>)) {
        let id = self.first_id + index as u64;
        let (mut level, mut span) = (1, FANOUT);
        while let Some(cells) = self.groups.get_mut(&(level, id / span)) {
            change(cells);
            (level, span) = (level + 1, span * FANOUT);
        }
    }

    fn largest_group(&self, index: usize, last: usize) -> (usize, Option<&Vec<Cell>>) {
        let (id, mut found) = (self.first_id + index as u64, (index + 1, None));
        let (mut level, mut span) = (1, FANOUT);
        while id.is_multiple_of(span) && index as u64 + span <= last as u64 {
            match self.groups.get(&(level, id / span)) {
                Some(cells) => found = (index + span as usize, Some(cells)),
                None => break,
            }
            (level, span) = (level + 1, span * FANOUT);
        }
        found
    }

    /// After a leaf was appended: the leaf before it takes no more appends, so a group that ends there is complete.
    fn complete_groups(&mut self, layout: &RollingLayout) {
        let end = self.first_id + self.leaves.len() as u64 - 1;
        let (mut level, mut span) = (1, FANOUT);
        while end > 0 && end.is_multiple_of(span) && end - span >= self.first_id {
            let cells = self.group_cells(layout, level, end / span - 1);
            self.groups.insert((level, end / span - 1), cells);
            (level, span) = (level + 1, span * FANOUT);
        }
    }

    fn group_cells(&self, layout: &RollingLayout, level: u32, group: u64) -> Vec<Cell> {
        let mut cells = layout.empty_cells();
        for child in group * FANOUT..(group + 1) * FANOUT {
            let part = if level == 1 { &self.leaves[(child - self.first_id) as usize].summary } else { &self.groups[&(level - 1, child)] };
            part.iter().zip(&mut cells).for_each(|(part, cell)| cell.merge(part));
        }
        cells
    }

    fn rebuild_above(&mut self, layout: &RollingLayout, index: usize, cell: usize) {
        let id = self.first_id + index as u64;
        let mut span = FANOUT;
        let mut level = 1;
        while self.groups.contains_key(&(level, id / span)) {
            let rebuilt = self.group_cells(layout, level, id / span).swap_remove(cell);
            self.groups.get_mut(&(level, id / span)).expect("it was just found")[cell] = rebuilt;
            (level, span) = (level + 1, span * FANOUT);
        }
    }

    /// Halves an overfull leaf between two different times. Ids behind it move, so groups are built again: once per 16 late rows.
    fn split(&mut self, layout: &RollingLayout, index: usize) {
        let leaf = &mut self.leaves[index];
        let middle = leaf.times[leaf.times.len() / 2];
        let mut at = leaf.times.partition_point(|time| *time < middle);
        if at == 0 {
            at = leaf.times.partition_point(|time| *time <= middle);
        }
        if at == leaf.times.len() {
            return;
        }
        let width = leaf.data.len() / leaf.times.len();
        let (times, data) = (leaf.times.split_off(at), leaf.data.split_off(at * width));
        leaf.summary = summary(layout, &leaf.data);
        let right = Leaf { floor: times[0], summary: summary(layout, &data), times, data };
        self.leaves.insert(index + 1, right);
        self.groups.clear();
        let mut span = FANOUT;
        let mut level = 1;
        let (first, end) = (self.first_id, self.first_id + self.leaves.len() as u64 - 1);
        while span <= self.leaves.len() as u64 {
            for group in first.div_ceil(span)..end / span {
                let cells = self.group_cells(layout, level, group);
                self.groups.insert((level, group), cells);
            }
            (level, span) = (level + 1, span * FANOUT);
        }
    }
}

fn levels(leaves: usize) -> u32 {
    let mut level = 0;
    while FANOUT.pow(level) <= leaves as u64 {
        level += 1;
    }
    level
}

fn summary(layout: &RollingLayout, data: &[Datum]) -> Vec<Cell> {
    let mut cells = layout.empty_cells();
    data.chunks_exact(layout.cells.len().max(1)).for_each(|row| add_row(&mut cells, row, 1));
    cells
}

fn add_row(cells: &mut [Cell], data: &[Datum], times: i64) {
    cells.iter_mut().zip(data).for_each(|(cell, datum)| cell.add(datum, times));
}

fn scan(leaf: &Leaf, from: i64, until: i64, cells: &mut [Cell]) {
    let width = cells.len();
    let rows = leaf.times.partition_point(|time| *time < from)..leaf.times.partition_point(|time| *time < until);
    for row in rows {
        add_row(cells, &leaf.data[row * width..(row + 1) * width], 1);
    }
}

/// Equality bit by bit, so that NaN can be taken out again.
fn same(left: &[Datum], right: &[Datum]) -> bool {
    left.iter().zip(right).all(|pair| match pair {
        (Datum::Float(a), Datum::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    })
}

/// An event or a retraction that some reader may not yet see.
#[derive(Debug, Clone)]
pub struct Overlay {
    pub time: i64,
    pub arrival: u64,
    pub diff: i64,
    pub data: Box<[Datum]>,
}

/// All that is kept of one key.
#[derive(Debug, Clone, Default)]
pub struct RollingKey {
    pub tree: EventTree,
    /// In order of arrival.
    pub overlay: Vec<Overlay>,
}

impl RollingKey {
    /// Moves what every reader may see (arrival < `below`) into the tree, and drops what no reader can ask for any more.
    pub fn fold(&mut self, layout: &RollingLayout, below: Epoch, dropped_before: Option<EventTime>) {
        let count = self.overlay.partition_point(|event| event.arrival < below.0);
        // Insertions first: a retraction of the same epoch may stand before what it takes out.
        for insertions in [true, false] {
            for event in self.overlay[..count].iter().filter(|event| (event.diff > 0) == insertions) {
                for _ in 0..event.diff.unsigned_abs() {
                    if insertions {
                        self.tree.insert(layout, event.time, &event.data);
                    } else {
                        self.tree.remove(layout, event.time, &event.data);
                    }
                }
            }
        }
        self.overlay.drain(..count);
        if let Some(time) = dropped_before {
            self.tree.drop_before(time);
        }
    }

    /// e_last and the cells of every window at (q, s); None if no event is visible there.
    pub fn read(&self, layout: &RollingLayout, point: ReadPoint) -> Option<(EventTime, Vec<Vec<Cell>>)> {
        let now = i64::from(layout.spec.include_now);
        let (until, arrived) = (point.q.event_time().0.saturating_add(now), point.s.0.saturating_add(now as u64));
        let visible: Vec<&Overlay> = self.overlay.iter().filter(|event| event.time < until && event.arrival < arrived).collect();
        let extremes_shrink = visible.iter().any(|event| {
            event.diff < 0 && layout.cells.iter().zip(&event.data).any(|(kind, datum)| *datum != Datum::Skip && kind.empty().needs_rebuild())
        });
        if extremes_shrink {
            // Rare: a retraction of a least or greatest value that is not folded yet. The whole key is copied and folded.
            let mut whole = RollingKey { tree: self.tree.clone(), overlay: visible.into_iter().cloned().collect() };
            whole.fold(layout, Epoch::MAX, None);
            return whole.read(layout, point);
        }
        let last = self.last_time(until, &visible)?;
        let ranges = layout.ranges(point.q);
        let mut bounds: Vec<i64> = ranges.iter().flat_map(|(from, until)| [from.0, until.0]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        // Windows overlap; each stretch between two edges is added up once.
        let mut stretches: Vec<Option<Vec<Cell>>> = vec![None; bounds.len().saturating_sub(1)];
        let cells_of = ranges
            .iter()
            .map(|(from, until)| {
                let mut cells = layout.empty_cells();
                let first = bounds.partition_point(|bound| *bound < from.0);
                for (index, stretch) in stretches.iter_mut().enumerate().skip(first).take_while(|(index, _)| bounds[index + 1] <= until.0) {
                    let part = stretch.get_or_insert_with(|| self.stretch(layout, bounds[index], bounds[index + 1], &visible));
                    part.iter().zip(&mut cells).for_each(|(part, cell)| cell.merge(part));
                }
                cells
            })
            .collect();
        Some((EventTime(last), cells_of))
    }

    fn stretch(&self, layout: &RollingLayout, from: i64, until: i64, visible: &[&Overlay]) -> Vec<Cell> {
        let mut cells = layout.empty_cells();
        self.tree.range(from, until, &mut cells);
        for event in visible.iter().filter(|event| event.time >= from && event.time < until) {
            add_row(&mut cells, &event.data, event.diff);
        }
        cells
    }

    /// The greatest time that more events than retractions carry.
    fn last_time(&self, until: i64, visible: &[&Overlay]) -> Option<i64> {
        let newest = visible.iter().filter(|event| event.diff > 0).map(|event| event.time).max();
        let retracts = visible.iter().any(|event| event.diff < 0);
        if !retracts {
            return self.tree.times_before(until).next().max(newest);
        }
        let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
        visible.iter().for_each(|event| *counts.entry(event.time).or_default() += event.diff);
        let mut in_tree = self.tree.times_before(until).peekable();
        loop {
            let candidate = in_tree.peek().copied().max(counts.last_key_value().map(|(time, _)| *time))?;
            let mut count = counts.remove(&candidate).unwrap_or(0);
            while in_tree.next_if_eq(&candidate).is_some() {
                count += 1;
            }
            if count > 0 {
                return Some(candidate);
            }
        }
    }

    pub fn rows(&self) -> usize {
        self.tree.rows() + self.overlay.len()
    }
}

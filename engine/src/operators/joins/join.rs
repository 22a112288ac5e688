//! Joins whose partners the key alone tells. In: changes of both sides, sharded by key. Out: each change joined with the other side as of its
//! epoch, at the greater epoch of the two rows; rows that gain their first partner or lose their last one. Any retraction on either side is
//! followed.

use freshet_core::{Batch, Epoch, JoinKind, Result};

use crate::operators::joins::Shape;
use crate::operators::joins::forget::Forgetting;
use crate::operators::joins::given::{Given, Net};
use crate::operators::joins::parts::{Facts, Parts};
use crate::operators::{Freeing, Output, Stateful, StepOperator};
use crate::state::{Bytes, RowBag, ShardedMap, put_i64};

/// The operator and its state: both sides, by key.
pub struct Join {
    shape: Shape,
    keys: ShardedMap<Sides>,
    nets: [Vec<Net>; 2],
    freeing: Option<Freeing>,
    forgetting: Forgetting,
}

/// The live rows of a key.
#[derive(Debug, Default)]
struct Sides {
    rows: [RowBag<i64>; 2],
    /// How many rows the right side has, where they are not kept.
    counted: i64,
}

impl Sides {
    fn is_empty(&self) -> bool {
        self.rows.iter().all(RowBag::is_empty) && self.counted == 0
    }
}

impl Join {
    /// With `freeing`, keys that no row of either side can reach any more are forgotten.
    pub fn new(shape: Shape, freeing: Option<Freeing>) -> Join {
        Join { shape, keys: ShardedMap::default(), nets: Default::default(), freeing, forgetting: Forgetting::default() }
    }

    /// Rows, by side, that no row of the other side reaches any more are forgotten. Only of an inner join, whose pairs are judged behind it.
    pub fn forgetting(self, over: [Option<Freeing>; 2]) -> Join {
        assert!(self.shape.kind == JoinKind::Inner || over.iter().all(Option::is_none));
        Join { forgetting: Forgetting::new(over), ..self }
    }

    /// Each change meets what the other side has at its turn; the sum over an epoch does not depend on the order.
    fn step_inner(&mut self, given: &Given, parts: &mut Parts, out: &mut Vec<Batch>) {
        let marks = self.forgetting.marks(given);
        for (epoch, at) in given.in_order() {
            if !self.shape.nulls_equal && given.has_null_key(at) {
                continue;
            }
            let (side, count, position) = (given.of(at).side, given.diff(at), given.position(at));
            let key = given.key(at);
            let sides = self.keys.entry(key, Sides::default);
            for other in sides.rows[1 - side].rows() {
                let facts = Facts { epoch, diff: count * other.count, position: position.max(other.position) };
                parts.pair(side, given, at, &other.row, facts);
            }
            let known = sides.rows[side].rows().len();
            if let Some(live) = sides.rows[side].add(given.row(at), count, position) {
                live.mark = marks.of(at);
            }
            self.forgetting.count(known, sides.rows[side].rows().len());
            if sides.is_empty() {
                self.keys.remove(key);
            }
            parts.spill(given, &self.shape, out);
        }
    }

    /// What an epoch changes of a key is taken in at once, so that an update of a partner is no loss and gain of it.
    fn step_by_key(&mut self, given: &Given, parts: &mut Parts, out: &mut Vec<Batch>) {
        let finds_none = |at| !self.shape.nulls_equal && given.has_null_key(at);
        for (epoch, at) in given.in_order().into_iter().filter(|(_, at)| finds_none(*at)) {
            let side = given.of(at).side;
            let facts = Facts { epoch, diff: given.diff(at), position: given.position(at) };
            match (side, self.shape.left_alone(false)) {
                (0, Some(mark)) => parts.alone(0, given, at, mark, facts),
                (1, _) if self.shape.kind == JoinKind::Full => parts.alone(1, given, at, None, facts),
                _ => {}
            }
        }
        let order = given.by_key(|at| !finds_none(at));
        for group in order.chunk_by(|left, right| given.belong_together(left, right)) {
            let (epoch, _, first) = group[0];
            let key = given.key(first);
            for (side, net) in self.nets.iter_mut().enumerate() {
                given.net(side, group, net);
            }
            if self.nets.iter().all(Vec::is_empty) {
                continue;
            }
            let sides = self.keys.entry(key, Sides::default);
            change_key(&self.shape, sides, &self.nets, epoch, given, parts);
            if sides.is_empty() {
                self.keys.remove(key);
            }
            parts.spill(given, &self.shape, out);
        }
    }
}

fn change_key(shape: &Shape, sides: &mut Sides, nets: &[Vec<Net>; 2], epoch: u64, given: &Given, parts: &mut Parts) {
    let change = |side: usize| nets[side].iter().map(|net| net.count).sum::<i64>();
    let lefts = sides.rows[0].total();
    let rights = if shape.keeps(1) { sides.rows[1].total() } else { sides.counted };
    let facts = |count: i64, position: u64| Facts { epoch, diff: count, position };
    let apply = |rows: &mut RowBag<i64>, side: usize| {
        for net in &nets[side] {
            rows.add(given.row(net.at), net.count, net.position);
        }
    };
    if shape.kind.shows_right() {
        for net in &nets[0] {
            for other in sides.rows[1].rows() {
                parts.pair(0, given, net.at, &other.row, facts(net.count * other.count, net.position.max(other.position)));
            }
        }
    }
    let (before, after) = (shape.left_alone(rights > 0), shape.left_alone(rights + change(1) > 0));
    match before {
        Some(mark) if before == after => {
            nets[0].iter().for_each(|net| parts.alone(0, given, net.at, mark, facts(net.count, net.position)));
        }
        Some(mark) => sides.rows[0].rows().iter().for_each(|row| parts.alone_again(0, &row.row, mark, facts(-row.count, row.position))),
        None => {}
    }
    apply(&mut sides.rows[0], 0);
    if shape.kind.shows_right() {
        for net in &nets[1] {
            for other in sides.rows[0].rows() {
                parts.pair(1, given, net.at, &other.row, facts(net.count * other.count, net.position.max(other.position)));
            }
        }
    }
    if let Some(mark) = after.filter(|_| before != after) {
        sides.rows[0].rows().iter().for_each(|row| parts.alone_again(0, &row.row, mark, facts(row.count, row.position)));
    }
    if !shape.keeps(1) {
        sides.counted += change(1);
        return;
    }
    let (before, after) = (lefts <= 0, lefts + change(0) <= 0);
    if shape.kind == JoinKind::Full {
        match (before, after) {
            (true, true) => nets[1].iter().for_each(|net| parts.alone(1, given, net.at, None, facts(net.count, net.position))),
            (true, false) => sides.rows[1].rows().iter().for_each(|row| parts.alone_again(1, &row.row, None, facts(-row.count, row.position))),
            _ => {}
        }
    }
    apply(&mut sides.rows[1], 1);
    if shape.kind == JoinKind::Full && !before && after {
        sides.rows[1].rows().iter().for_each(|row| parts.alone_again(1, &row.row, None, facts(row.count, row.position)));
    }
}

impl StepOperator for Join {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let given = Given::new(&self.shape, inputs, [true, self.shape.keeps(1)]);
        let mut parts = Parts::new();
        match self.shape.kind {
            JoinKind::Inner => self.step_inner(&given, &mut parts, &mut out.rows),
            _ => self.step_by_key(&given, &mut parts, &mut out.rows),
        }
        parts.finish(&given, &self.shape, &mut out.rows);
        self.forgetting.sweep(&mut self.keys, upto, |sides, bounds| {
            let gone = sides.rows.iter_mut().zip(bounds).map(|(rows, bound)| rows.retain(|row| row.mark >= bound)).sum();
            (gone, sides.is_empty())
        });
        if let Some(freeing) = &mut self.freeing {
            freeing.sweep(&mut self.keys, &self.shape.key_codec, (upto, given.len()));
        }
    }
}

impl Stateful for Join {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.keys.checkpoint(|out, sides| {
            sides.rows.iter().for_each(|rows| rows.put(out, |out, mark| put_i64(out, *mark)));
            put_i64(out, sides.counted);
        })
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let mut kept = 0;
        self.keys.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let rows = [RowBag::take(bytes, |bytes| bytes.i64())?, RowBag::take(bytes, |bytes| bytes.i64())?];
            kept += rows.iter().map(|rows| rows.rows().len()).sum::<usize>();
            Ok(Sides { rows, counted: bytes.i64()? })
        })?;
        self.forgetting.count(0, kept);
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        let mut size = (0, 0);
        for (key, sides) in self.keys.iter() {
            size.0 += sides.rows.iter().map(|rows| rows.rows().len() as u64).sum::<u64>();
            size.1 += (key.len() + 16 + size_of::<Sides>() + sides.rows.iter().map(RowBag::bytes).sum::<usize>()) as u64;
        }
        size
    }
}

//! Outer, semi, anti and mark joins whose partners must pass a condition too. In: changes of both sides, sharded by key. Out: partners, and rows
//! without one.
//!
//! Candidates of a step are gathered first and judged as one batch; then the step is gone through again, in the order of epochs, with the
//! verdicts: each row counts its partners, and what an epoch makes of that is put out once.

use arrow::array::BooleanArray;
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Epoch, ExprRef, JoinKind, Result};

use crate::operators::filter::{Judged, judge};
use crate::operators::joins::Shape;
use crate::operators::joins::forget::{Forgetting, Marks, NEVER_OVER};
use crate::operators::joins::given::{At, Given};
use crate::operators::joins::parts::{Facts, Parts, pair_schema};
use crate::operators::{ErrorRows, Freeing, Origins, Output, Stateful, StepOperator};
use crate::state::{Bytes, RowBag, ShardedMap, put_i64};

/// Candidates that are judged together; a bound of memory.
const CANDIDATES_MAX: usize = 1 << 16;

/// The operator and its state: both sides, by key.
pub struct ResidualJoin {
    name: String,
    shape: Shape,
    residual: Vec<ExprRef>,
    /// Of a pair of candidates.
    pair: SchemaRef,
    origins: Origins,
    keys: ShardedMap<[RowBag<Partners>; 2]>,
    freeing: Option<Freeing>,
    forgetting: Forgetting,
}

/// What is known of a kept row.
#[derive(Debug, Clone, Copy)]
struct Partners {
    /// How many rows of the other side are its partners.
    count: i64,
    /// Its place among the rows that this step touches.
    touched: usize,
    /// By which it is over.
    time: i64,
}

impl Default for Partners {
    fn default() -> Partners {
        Partners { count: 0, touched: UNTOUCHED, time: NEVER_OVER }
    }
}

const UNTOUCHED: usize = usize::MAX;

/// A row that a step touches, as it is at the point the second pass has reached.
struct Touched {
    side: usize,
    key: Box<[u8]>,
    row: Box<[u8]>,
    count: i64,
    position: u64,
    partners: i64,
    /// Its count and partners before the epoch, once the epoch has changed one of them.
    before: Option<(i64, i64)>,
}

/// What the first pass notes for the second.
enum Noted {
    /// The row itself is there more often, or less.
    Count { epoch: u64, touched: usize, count: i64, position: u64 },
    /// Two candidates: the changed row with its change, a kept one with its count, and the place of the pair among those of that side.
    Pair { epoch: u64, changed: usize, kept: usize, diff: i64, kept_count: i64, is_new: bool, place: usize },
}

#[derive(Default)]
struct Pass {
    touched: Vec<Touched>,
    noted: Vec<Noted>,
    epoch: u64,
    /// Of this epoch.
    changed: Vec<usize>,
}

impl ResidualJoin {
    pub fn new(name: String, shape: Shape, residual: Vec<ExprRef>, inputs: [&SchemaRef; 2], origins: Origins) -> ResidualJoin {
        assert!(!residual.is_empty() && shape.kind != JoinKind::Inner && !shape.kind.is_null_aware());
        ResidualJoin {
            name,
            shape,
            residual,
            pair: pair_schema(inputs),
            origins,
            keys: ShardedMap::default(),
            freeing: None,
            forgetting: Forgetting::default(),
        }
    }

    /// Keys that no row of either side can reach any more are forgotten.
    pub fn freeing(self, freeing: Option<Freeing>) -> ResidualJoin {
        ResidualJoin { freeing, ..self }
    }

    /// Rows, by side, that can neither come or go themselves nor be reached by a row of the other side any more are forgotten.
    pub fn forgetting(self, over: [Option<Freeing>; 2]) -> ResidualJoin {
        ResidualJoin { forgetting: Forgetting::new(over), ..self }
    }

    /// The first pass over one row: what it may join with, and what becomes of the state.
    fn note(&mut self, epoch: u64, at: At, (given, marks): (&Given, &Marks), parts: &mut Parts, pass: &mut Pass) {
        let (side, key, row) = (given.of(at).side, given.key(at), given.row(at));
        let (diff, position) = (given.diff(at), given.position(at));
        let sides = self.keys.entry(key, Default::default);
        let known = sides[side].get_mut(row).is_some();
        let changed = match sides[side].get_mut(row) {
            Some(live) => touch(&mut pass.touched, side, key, live),
            None => {
                let fresh = Touched { side, key: key.into(), row: row.into(), count: 0, position, partners: 0, before: None };
                pass.touched.push(fresh);
                pass.touched.len() - 1
            }
        };
        for other in sides[1 - side].rows_mut() {
            let facts = Facts { epoch, diff: diff * other.count, position: position.max(other.position) };
            let place = parts.pairs_of(side);
            parts.pair(side, given, at, &other.row, facts);
            let (kept_count, kept) = (other.count, touch(&mut pass.touched, 1 - side, key, other));
            pass.noted.push(Noted::Pair { epoch, changed, kept, diff, kept_count, is_new: !known, place });
        }
        pass.noted.push(Noted::Count { epoch, touched: changed, count: diff, position });
        let before = sides[side].rows().len();
        if let Some(live) = sides[side].add(row, diff, position) {
            (live.mark.touched, live.mark.time) = (changed, marks.of(at));
        }
        self.forgetting.count(before, sides[side].rows().len());
        if sides.iter().all(RowBag::is_empty) {
            self.keys.remove(key);
        }
    }

    /// The second pass over what was noted, with the verdicts on its candidates.
    fn settle(&self, given: &Given, parts: &mut Parts, pass: &mut Pass, out: &mut Output) {
        let candidates = parts.take_pairs(&self.pair, given, &self.shape);
        let mut errors = ErrorRows::new(&self.name, self.origins.clone());
        let verdicts: Vec<BooleanArray> = candidates
            .iter()
            .map(|batch| {
                let Judged { mask, failed } = judge(&self.residual, batch);
                for (row, (conjunct, reason)) in &failed {
                    errors.push(batch, *row, &self.residual[*conjunct].sql(), reason);
                }
                mask
            })
            .collect();
        out.errors.extend(errors.finish());
        if self.shape.kind.shows_right() {
            for (batch, mask) in candidates.iter().zip(&verdicts) {
                out.rows.extend(Some(batch.filter(mask).with_schema(&self.shape.schema)).filter(|batch| !batch.is_empty()));
            }
        }
        for noted in std::mem::take(&mut pass.noted) {
            let epoch = match &noted {
                Noted::Count { epoch, .. } | Noted::Pair { epoch, .. } => *epoch,
            };
            if epoch != pass.epoch {
                self.show(parts, pass);
                pass.epoch = epoch;
            }
            match noted {
                Noted::Count { touched, count, position, .. } => {
                    pass.change(touched).count += count;
                    if count > 0 {
                        let row = &mut pass.touched[touched];
                        row.position = row.position.max(position);
                    }
                }
                Noted::Pair { changed, kept, diff, kept_count, is_new, place, .. } => {
                    let side = pass.touched[changed].side;
                    if verdicts[side].value(place) {
                        pass.change(kept).partners += diff;
                        if is_new {
                            pass.change(changed).partners += kept_count;
                        }
                    }
                }
            }
        }
    }

    /// What an epoch has changed of the rows without a partner, or of their marks.
    fn show(&self, parts: &mut Parts, pass: &mut Pass) {
        for touched in std::mem::take(&mut pass.changed) {
            let row = &mut pass.touched[touched];
            let Some((count, partners)) = row.before.take() else { continue };
            let alone = |partners: i64| match row.side {
                0 => self.shape.left_alone(partners > 0),
                _ => (self.shape.kind == JoinKind::Full && partners <= 0).then_some(None),
            };
            let (before, after) = (alone(partners), alone(row.partners));
            let mut put = |mark: Option<Option<bool>>, diff: i64| {
                if let Some(mark) = mark.filter(|_| diff != 0) {
                    parts.alone_again(row.side, &row.row, mark, Facts { epoch: pass.epoch, diff, position: row.position });
                }
            };
            if before == after {
                put(after, row.count - count);
            } else {
                put(before, -count);
                put(after, row.count);
            }
        }
    }

    /// The state learns how many partners each row has now.
    fn write_back(&mut self, pass: Pass) {
        for (index, touched) in pass.touched.iter().enumerate() {
            let Some(sides) = self.keys.get_mut(&touched.key) else { continue };
            let Some(live) = sides[touched.side].get_mut(&touched.row) else { continue };
            // A row that went and came back in one step is touched twice; the last one knows.
            if live.mark.touched == index {
                live.mark = Partners { count: touched.partners, touched: UNTOUCHED, ..live.mark };
            }
        }
    }
}

/// The place of a kept row among those that the step touches.
fn touch(all: &mut Vec<Touched>, side: usize, key: &[u8], live: &mut crate::state::LiveRow<Partners>) -> usize {
    if live.mark.touched == UNTOUCHED {
        live.mark.touched = all.len();
        let (count, position, partners) = (live.count, live.position, live.mark.count);
        all.push(Touched { side, key: key.into(), row: live.row.clone(), count, position, partners, before: None });
    }
    live.mark.touched
}

impl Pass {
    /// A row, to be changed by the epoch that is being gone through.
    fn change(&mut self, touched: usize) -> &mut Touched {
        let row = &mut self.touched[touched];
        if row.before.is_none() {
            row.before = Some((row.count, row.partners));
            self.changed.push(touched);
        }
        row
    }
}

impl StepOperator for ResidualJoin {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let given = Given::new(&self.shape, inputs, [true, true]);
        let marks = self.forgetting.marks(&given);
        let (mut parts, mut pass) = (Parts::new(), Pass::default());
        for (epoch, at) in given.in_order() {
            if !self.shape.nulls_equal && given.has_null_key(at) {
                let side = given.of(at).side;
                let facts = Facts { epoch, diff: given.diff(at), position: given.position(at) };
                match (side, self.shape.left_alone(false)) {
                    (0, Some(mark)) => parts.alone(0, &given, at, mark, facts),
                    (1, _) if self.shape.kind == JoinKind::Full => parts.alone(1, &given, at, None, facts),
                    _ => {}
                }
                continue;
            }
            self.note(epoch, at, (&given, &marks), &mut parts, &mut pass);
            if parts.pairs() >= CANDIDATES_MAX {
                self.settle(&given, &mut parts, &mut pass, out);
            }
        }
        self.settle(&given, &mut parts, &mut pass, out);
        self.show(&mut parts, &mut pass);
        self.write_back(pass);
        parts.finish(&given, &self.shape, &mut out.rows);
        self.forgetting.sweep(&mut self.keys, upto, |sides, bounds| {
            let gone = sides.iter_mut().zip(bounds).map(|(rows, bound)| rows.retain(|row| row.mark.time >= bound)).sum();
            (gone, sides.iter().all(RowBag::is_empty))
        });
        if let Some(freeing) = &mut self.freeing {
            freeing.sweep(&mut self.keys, &self.shape.key_codec, (upto, given.len()));
        }
    }
}

impl Stateful for ResidualJoin {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        let put = |out: &mut Vec<u8>, partners: &Partners| [partners.count, partners.time].into_iter().for_each(|value| put_i64(out, value));
        self.keys.checkpoint(|out, sides| sides.iter().for_each(|rows| rows.put(out, put)))
    }

    fn restore(&mut self, shard: usize, bytes: &[u8]) -> Result<()> {
        let mut kept = 0;
        self.keys.restore(shard, bytes, |bytes: &mut Bytes<'_>| {
            let partners = |bytes: &mut Bytes<'_>| Ok(Partners { count: bytes.i64()?, touched: UNTOUCHED, time: bytes.i64()? });
            let sides = [RowBag::take(bytes, partners)?, RowBag::take(bytes, partners)?];
            kept += sides.iter().map(|rows| rows.rows().len()).sum::<usize>();
            Ok(sides)
        })?;
        self.forgetting.count(0, kept);
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        let mut size = (0, 0);
        for (key, sides) in self.keys.iter() {
            size.0 += sides.iter().map(|rows| rows.rows().len() as u64).sum::<u64>();
            size.1 += (key.len() + 16 + size_of_val(sides) + sides.iter().map(RowBag::bytes).sum::<usize>()) as u64;
        }
        size
    }
}

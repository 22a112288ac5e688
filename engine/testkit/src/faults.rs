//! Mistakes an engine could make, planted on purpose: what finds none of them proves nothing. In: a fault. Out: a plan, input or output that is
//! wrong in its way; the product knows nothing of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use freshet_core::{AggregateFunction, Column, Comparison, Epoch, ExprRef, Format, JoinKind, Node, NodeId, Op, Plan, SetOperation, Value, Windows};

use crate::memory::RawRecord;

/// One mistake. The engine runs with it, the interpreter and DataFusion without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    // In what the operators do.
    LostConjunct,
    LostFilter,
    EdgeOffByOne,
    EdgeClosed,
    WindowEdge,
    WindowsLost,
    UnionAsSet,
    DistinctAsBag,
    BagAsSet,
    LostJoinKey,
    LostResidual,
    CrossedKeys,
    NullKeyMatches,
    LostPadding,
    HalfOuter,
    BagCounts,
    CountsNulls,
    ForgottenDistinct,
    ForgottenAggregateFilter,
    SampleForPopulation,
    MaxForMin,
    BelievesRowsStay,
    NullForZeroCount,
    WrongTie,
    // In what comes in.
    LostRow,
    LostInsertion,
    RowTwice,
    LostInputRetraction,
    LateRowsDropped,
    // In what goes out.
    LostRetraction,
    RetractedTwice,
    UnconsolidatedDuplicate,
    LateByOne,
    WrappedSum,
    NegativeZero,
    NanAsNull,
    EmptyAsNull,
    NullsDropped,
    StaleAtTheEnd,
    // In what is kept beside the rows.
    LostCheckpointEntry,
    StaleErrorRow,
    LostErrorRow,
}

/// The error rows of a view at some epochs: field and reason, with counts.
pub type Errors = Vec<(Epoch, BTreeMap<(String, String), i64>)>;

pub type Changes = Vec<(Vec<Value>, Epoch, i64)>;

impl Fault {
    pub const ALL: [Fault; 42] = [
        Fault::LostConjunct,
        Fault::LostFilter,
        Fault::EdgeOffByOne,
        Fault::EdgeClosed,
        Fault::WindowEdge,
        Fault::WindowsLost,
        Fault::UnionAsSet,
        Fault::DistinctAsBag,
        Fault::BagAsSet,
        Fault::LostJoinKey,
        Fault::LostResidual,
        Fault::CrossedKeys,
        Fault::NullKeyMatches,
        Fault::LostPadding,
        Fault::HalfOuter,
        Fault::BagCounts,
        Fault::CountsNulls,
        Fault::ForgottenDistinct,
        Fault::ForgottenAggregateFilter,
        Fault::SampleForPopulation,
        Fault::MaxForMin,
        Fault::BelievesRowsStay,
        Fault::NullForZeroCount,
        Fault::WrongTie,
        Fault::LostRow,
        Fault::LostInsertion,
        Fault::RowTwice,
        Fault::LostInputRetraction,
        Fault::LateRowsDropped,
        Fault::LostRetraction,
        Fault::RetractedTwice,
        Fault::UnconsolidatedDuplicate,
        Fault::LateByOne,
        Fault::WrappedSum,
        Fault::NegativeZero,
        Fault::NanAsNull,
        Fault::EmptyAsNull,
        Fault::NullsDropped,
        Fault::StaleAtTheEnd,
        Fault::LostCheckpointEntry,
        Fault::StaleErrorRow,
        Fault::LostErrorRow,
    ];

    /// Puts the mistake into the plan that the engine runs; true if the plan has a place for it.
    pub fn in_plan(self, plan: &mut Plan) -> bool {
        if matches!(self, Fault::UnionAsSet | Fault::BagAsSet) {
            return self.insert_distinct(plan);
        }
        let count = plan.nodes.len();
        (0..count).any(|index| self.in_node(plan, index))
    }

    fn in_node(self, plan: &mut Plan, index: usize) -> bool {
        let input = plan.nodes[index].inputs.first().copied();
        if self == Fault::BelievesRowsStay {
            let changing = input.filter(|input| !plan.nodes[input.index()].append_only);
            let (Op::Aggregate { calls, .. }, Some(input)) = (&plan.nodes[index].op, changing) else { return false };
            let orders = calls.iter().any(|call| matches!(call.function, AggregateFunction::Min | AggregateFunction::Max));
            plan.nodes[input.index()].append_only |= orders;
            return orders;
        }
        let schema = input.map(|input| plan.nodes[input.index()].schema.clone());
        match (self, &mut plan.nodes[index].op) {
            (Fault::LostConjunct, Op::Filter { conjuncts }) if conjuncts.len() > 1 => conjuncts.pop().is_some(),
            (Fault::LostFilter, Op::Filter { conjuncts }) if conjuncts.len() == 1 => conjuncts.pop().is_some(),
            (Fault::EdgeOffByOne, Op::TemporalFilter { bounds }) => {
                bounds[0].offset_ns += 1_000_000;
                true
            }
            (Fault::EdgeClosed, Op::TemporalFilter { bounds }) => {
                bounds[0].comparison = match bounds[0].comparison {
                    Comparison::Greater => Comparison::GreaterOrEqual,
                    Comparison::GreaterOrEqual => Comparison::Greater,
                    Comparison::Less => Comparison::LessOrEqual,
                    Comparison::LessOrEqual => Comparison::Less,
                };
                true
            }
            (Fault::WindowEdge, Op::Windows { windows: Windows::Hop { offset, .. }, .. }) => {
                *offset += 1;
                true
            }
            (Fault::WindowsLost, Op::Windows { windows: Windows::Hop { size, slide, .. }, .. }) => {
                let overlapping = *slide < *size;
                *slide = *size;
                overlapping
            }
            (Fault::BagCounts, Op::SetOperation { operation }) => {
                let other = match operation {
                    SetOperation::Intersect => SetOperation::IntersectAll,
                    SetOperation::IntersectAll => SetOperation::Intersect,
                    SetOperation::Except => SetOperation::ExceptAll,
                    SetOperation::ExceptAll => SetOperation::Except,
                };
                *operation = other;
                true
            }
            (Fault::DistinctAsBag, op) => {
                let Op::Aggregate { keys, calls } = &*op else { return false };
                if !calls.is_empty() {
                    return false;
                }
                let Some(schema) = schema else { return false };
                let column = |key: &usize| -> ExprRef {
                    let field = schema.field(*key);
                    Arc::new(Column { index: *key, name: field.name().clone(), data_type: field.data_type().clone() })
                };
                *op = Op::Project { exprs: keys.iter().map(column).collect() };
                true
            }
            (Fault::WrongTie, Op::Top { order, .. } | Op::Over { order, .. }) if !order.is_empty() => order.pop().is_some(),
            (_, Op::Join { kind, left_keys, right_keys, nulls_equal, residual }) => match self {
                Fault::NullKeyMatches => !std::mem::replace(nulls_equal, true),
                Fault::LostPadding if *kind == JoinKind::Left => {
                    *kind = JoinKind::Inner;
                    true
                }
                Fault::HalfOuter if *kind == JoinKind::Full => {
                    *kind = JoinKind::Left;
                    true
                }
                Fault::LostJoinKey if left_keys.len() > 1 => left_keys.pop().is_some() && right_keys.pop().is_some(),
                Fault::LostResidual if !residual.is_empty() => residual.pop().is_some(),
                Fault::CrossedKeys if left_keys.len() > 1 => {
                    right_keys.swap(0, 1);
                    true
                }
                _ => false,
            },
            (_, Op::Aggregate { calls, .. }) => calls.iter_mut().any(|call| match self {
                Fault::CountsNulls if call.function == AggregateFunction::Count && !call.distinct => call.argument.take().is_some(),
                Fault::ForgottenDistinct => std::mem::take(&mut call.distinct),
                Fault::ForgottenAggregateFilter => call.filter.take().is_some(),
                Fault::SampleForPopulation | Fault::MaxForMin => {
                    let (from, to) = match self {
                        Fault::MaxForMin => (AggregateFunction::Min, AggregateFunction::Max),
                        _ => (AggregateFunction::VarPop, AggregateFunction::VarSamp),
                    };
                    let fits = call.function == from;
                    call.function = if fits { to } else { call.function };
                    fits
                }
                _ => false,
            }),
            _ => false,
        }
    }

    /// DISTINCT above a union, or above everything.
    fn insert_distinct(self, plan: &mut Plan) -> bool {
        let is_union = |view: &freshet_core::ViewDef| matches!(plan.node(view.node).op, Op::Union);
        let wanted = plan.views.iter().filter(|view| self == Fault::BagAsSet || is_union(view)).map(|view| view.node).next_back();
        let Some(below) = wanted else { return false };
        let schema = plan.node(below).schema.clone();
        let op = Op::Aggregate { keys: (0..schema.fields().len()).collect(), calls: Vec::new() };
        let above: NodeId = plan.push(Node { op, inputs: vec![below], schema, append_only: false });
        plan.views.iter_mut().filter(|view| view.node == below).for_each(|view| view.node = above);
        plan.sinks.iter_mut().filter(|sink| sink.node == below).for_each(|sink| sink.node = above);
        true
    }

    /// Puts the mistake into what the engine reads; true if it changed anything.
    pub fn in_input(self, plan: &Plan, records: &mut BTreeMap<String, Vec<RawRecord>>) -> bool {
        let before: usize = records.values().map(Vec::len).sum();
        for def in &plan.sources {
            let Some(of) = records.get_mut(&def.name) else { continue };
            match self {
                Fault::LostRow if of.len() > 5 => drop(of.remove(5)),
                Fault::LostInsertion => {
                    if let Some(at) = of.iter().rposition(|record| record.diff > 0) {
                        of.remove(at);
                    }
                }
                Fault::RowTwice if def.format != Format::Upsert => {
                    if let Some(last) = of.last().cloned() {
                        of.push(RawRecord { offset: last.offset + 1, ..last });
                    }
                }
                Fault::LostInputRetraction => of.retain(|record| record.diff > 0),
                Fault::LateRowsDropped => {
                    let time = def.event_time.unwrap_or_default();
                    let mut clocks: BTreeMap<u32, Value> = BTreeMap::new();
                    of.retain(|record| {
                        let clock = clocks.entry(record.partition).or_insert(Value::Null);
                        let late = record.values[time] < *clock && !record.values[time].is_null();
                        *clock = clock.clone().max(record.values[time].clone());
                        !late
                    });
                }
                _ => {}
            }
        }
        before != records.values().map(Vec::len).sum::<usize>()
    }

    /// Puts the mistake into what the engine gave; true if it changed anything.
    pub fn in_output(self, changes: &mut Changes) -> bool {
        let before = changes.clone();
        match self {
            Fault::LostRetraction => remove_first(changes, |change| change.2 < 0),
            Fault::RetractedTwice => {
                if let Some(change) = changes.iter_mut().find(|change| change.2 < 0) {
                    change.2 -= 1;
                }
            }
            Fault::UnconsolidatedDuplicate => {
                if let Some(change) = changes.iter_mut().find(|change| change.2 > 1) {
                    change.2 = 1;
                }
            }
            Fault::LateByOne => {
                if let Some(change) = changes.last_mut() {
                    change.1 = change.1.next();
                }
            }
            Fault::WrappedSum => each(changes, |value| match value {
                Value::Int(number) if i32::try_from(*number).is_err() && *number < 1 << 40 || *number > 1 << 62 => Some(Value::Int(-*number)),
                _ => None,
            }),
            Fault::NegativeZero => each(changes, |value| match value {
                Value::Float(number) if *number == 0.0 && number.is_sign_negative() => Some(Value::Float(0.0)),
                _ => None,
            }),
            Fault::NanAsNull => each(changes, |value| matches!(value, Value::Float(number) if number.is_nan()).then_some(Value::Null)),
            Fault::EmptyAsNull => each(changes, |value| matches!(value, Value::Text(text) if text.is_empty()).then_some(Value::Null)),
            Fault::NullForZeroCount => each(changes, |value| matches!(value, Value::Int(0)).then_some(Value::Null)),
            Fault::NullsDropped => remove_first(changes, |change| change.0.iter().any(Value::is_null)),
            Fault::StaleAtTheEnd => {
                if let Some(last) = changes.last().map(|change| change.1) {
                    changes.retain(|change| change.1 != last);
                }
            }
            _ => {}
        }
        before != *changes
    }
}

impl Fault {
    /// Puts the mistake into the error rows that the engine gave; true if it changed anything.
    pub fn in_errors(self, errors: &mut Errors) -> bool {
        let Some(last) = errors.len().checked_sub(1) else { return false };
        match self {
            Fault::LostErrorRow => errors[last].1.pop_first().is_some(),
            Fault::StaleErrorRow => {
                let gone = errors[..last].iter().flat_map(|(_, rows)| rows).find(|(error, count)| errors[last].1.get(*error).unwrap_or(&0) < *count);
                let stale = gone.map(|(error, count)| (error.clone(), *count));
                errors[last].1.extend(stale.clone());
                stale.is_some()
            }
            _ => false,
        }
    }

    /// Puts the mistake into the checkpoint in a folder; true if it changed anything.
    pub fn in_checkpoint(self, folder: &Path) -> bool {
        if self != Fault::LostCheckpointEntry {
            return false;
        }
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
        let is_manifest = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("manifest-"));
        let newest = files.into_iter().filter(is_manifest).max();
        newest.is_some_and(|manifest| lose_shard(&manifest).is_some()) || folders.iter().any(|folder| self.in_checkpoint(folder))
    }
}

/// The first shard of the last operator that has any.
fn lose_shard(manifest: &Path) -> Option<()> {
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest).ok()?).ok()?;
    let states = json.get_mut("states")?.as_object_mut()?;
    let shards = states.values_mut().filter_map(serde_json::Value::as_object_mut).filter(|shards| !shards.is_empty()).last()?;
    let first = shards.keys().next()?.clone();
    shards.remove(&first);
    std::fs::write(manifest, serde_json::to_vec(&json).ok()?).ok()
}

fn remove_first(changes: &mut Changes, fits: impl Fn(&(Vec<Value>, Epoch, i64)) -> bool) {
    if let Some(at) = changes.iter().position(fits) {
        changes.remove(at);
    }
}

fn each(changes: &mut Changes, other: impl Fn(&Value) -> Option<Value>) {
    changes.iter_mut().flat_map(|change| &mut change.0).for_each(|value| {
        if let Some(other) = other(value) {
            *value = other;
        }
    });
}

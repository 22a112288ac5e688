//! The epochs at which a node may change: those of its input, and those at which a row expires or comes due (T14). A superset is harmless.

use std::collections::BTreeSet;

use freshet_core::{Epoch, EventTime, FeatureSpec, NodeId, Op};

use crate::interpreter::content::shifted;
use crate::interpreter::evaluate::event_time_of;
use crate::interpreter::history::Interpreter;

impl Interpreter {
    /// Ascending, epoch 0 included, not cut at `end`. Between two of them the content of the node stays as it is, unless a feature
    /// expression reads the clock itself: then it changes with every millisecond.
    pub fn relevant_epochs(&self, node: NodeId) -> BTreeSet<Epoch> {
        let mut epochs = BTreeSet::from([Epoch::ZERO]);
        let definition = self.plan.node(node);
        match &definition.op {
            Op::Source { source } => epochs.extend(&self.input_epochs[*source]),
            // C1b: the answer stays with the left row.
            Op::Lookup { .. } | Op::LookupJoin { .. } => epochs.extend(self.relevant_epochs(definition.inputs[0])),
            _ => definition.inputs.iter().for_each(|input| epochs.extend(self.relevant_epochs(*input))),
        }
        let times = |column: usize| -> BTreeSet<EventTime> {
            let data_type = self.plan.node(definition.inputs[0]).schema.field(column).data_type().clone();
            self.lives(definition.inputs[0]).iter().filter_map(|life| event_time_of(&life.row[column], &data_type)).collect()
        };
        match &definition.op {
            Op::TemporalFilter { bounds } => {
                for bound in bounds {
                    epochs.extend(times(bound.column).into_iter().flat_map(|time| around(shifted(time, bound.offset_ns))));
                }
            }
            Op::Feature { spec, .. } => {
                let offsets = offsets_ms(spec);
                for time in times(spec.time()) {
                    for offset in &offsets {
                        epochs.extend(around(time.plus_ms(*offset)));
                    }
                    epochs.extend(hop_instants(spec, time).flat_map(around));
                }
            }
            Op::EmitEvery { every_ms } => epochs.extend(self.multiples(node, *every_ms)),
            Op::Drift { spec } => epochs.extend(self.evaluations(node, spec).into_iter().map(|d| Epoch(d - 1))),
            _ => {}
        }
        epochs
    }
}

/// The last epoch before an instant and the first ones at and after it: q = t + 1 and q = t, edges in and out.
fn around(instant: EventTime) -> impl Iterator<Item = Epoch> {
    let first = instant.epoch_ceil().0;
    [first.saturating_sub(1), first, instant.epoch_after().0].into_iter().map(Epoch)
}

/// How long after an event something about it changes: it becomes visible, a window edge passes it, it is stale, its key is forgotten.
fn offsets_ms(spec: &FeatureSpec) -> Vec<i64> {
    let mut offsets: Vec<u64> = [spec.ttl_ms(), spec.horizon_ms()].into_iter().flatten().collect();
    if let FeatureSpec::Rolling(rolling) = spec {
        let edges = rolling.aggregates.iter().flat_map(|call| call.window.lower.into_iter().chain(call.window.upper));
        offsets.extend(edges.map(|edge| edge.offset_ms.unsigned_abs()));
    }
    let mut offsets: Vec<i64> = offsets.into_iter().map(|offset| offset as i64).chain([0]).collect();
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

/// T3: with HOP the lower edge jumps over an event when q − w reaches the next multiple of the hop.
fn hop_instants(spec: &FeatureSpec, time: EventTime) -> impl Iterator<Item = EventTime> {
    let (hop, windows) = match spec {
        FeatureSpec::Rolling(rolling) => (rolling.hop_ms, rolling.aggregates.iter().filter_map(|call| call.window.lower).collect()),
        FeatureSpec::Latest(_) => (None, Vec::new()),
    };
    let next = hop.map(|hop| {
        let hop_ns = hop as i64 * 1_000_000;
        EventTime((time.0.div_euclid(hop_ns) + 1) * hop_ns)
    });
    windows.into_iter().filter_map(move |edge| Some(next?.plus_ms(edge.offset_ms)))
}

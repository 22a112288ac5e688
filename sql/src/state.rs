//! What each operator keeps: what its state grows with, what frees it, and about how many bytes an entry takes. In: a plan. Out: the law of a
//! node, which EXPLAIN (STATE) prints and the warning of unbounded state goes by.

use arrow::datatypes::{DataType, Schema};
use freshet_core::{Bound, FeatureSpec, Horizon, Horizons, Node, NodeId, Op, Plan, duration};

/// Bytes of a text, binary or nested value, for want of a better guess.
const TEXT_BYTES: usize = 24;
/// What a hash table and its allocation take beside key and value.
const ENTRY_BYTES: usize = 64;
/// An accumulator of an aggregate.
const CELL_BYTES: usize = 48;

/// How the state of one operator grows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Growth {
    /// One entry for each of these.
    pub with: String,
    pub freed: Freed,
    /// Of one entry, about.
    pub bytes: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Freed {
    /// With what it is about: a row that is retracted, a group without rows.
    WithItsRows,
    /// By time.
    At(String),
    /// Rows never leave their input, nor this state; but there are as many entries as keys, whatever the time.
    NeverByKey,
    /// Rows never leave their input, nor this state.
    Never,
}

impl Growth {
    /// Grows for as long as the pipeline runs, whatever the input is about.
    pub fn is_unbounded(&self) -> bool {
        self.freed == Freed::Never
    }

    pub fn sentence(&self) -> String {
        let freed = match &self.freed {
            Freed::WithItsRows => "freed with its rows".to_string(),
            Freed::At(when) => format!("freed {when}"),
            Freed::Never | Freed::NeverByKey => "never freed".to_string(),
        };
        format!("one entry per {}, {freed}, about {} bytes each", self.with, self.bytes)
    }
}

/// The law of each node; None keeps nothing between steps.
pub(crate) fn growth(plan: &Plan) -> Vec<Option<Growth>> {
    let horizons = plan.horizons();
    (0..plan.nodes.len()).map(|index| of_node(plan, NodeId(index as u32), &horizons)).collect()
}

fn of_node(plan: &Plan, id: NodeId, horizons: &[Horizons]) -> Option<Growth> {
    let node = plan.node(id);
    let input = |index: usize| plan.node(node.inputs[index]);
    let names =
        |node: &Node, columns: &[usize]| columns.iter().map(|column| node.schema.field(*column).name().clone()).collect::<Vec<_>>().join(", ");
    let row = |node: &Node| row_bytes(&node.schema) + ENTRY_BYTES;
    let live = |node: &Node| if node.append_only { Freed::Never } else { Freed::WithItsRows };
    let either = |left: &Node, right: &Node| if left.append_only || right.append_only { Freed::Never } else { Freed::WithItsRows };
    let over = |index: usize, columns: &[usize]| {
        let known = &horizons[node.inputs[index].index()];
        columns.iter().find_map(|column| Some((*column, known.get(column)?)))
    };
    let growth = |with: String, freed: Freed, bytes: usize| Some(Growth { with, freed, bytes });
    match &node.op {
        Op::Source { source } if plan.sources[*source].format == freshet_core::Format::Debezium => {
            growth("live row".into(), Freed::WithItsRows, row(node))
        }
        Op::Source { .. }
        | Op::Project { .. }
        | Op::Filter { .. }
        | Op::Union
        | Op::Windows { .. }
        | Op::Gate { .. }
        | Op::Values { .. }
        | Op::Unnest { .. }
        | Op::Argument { .. } => None,
        Op::Upsert { key } => growth(format!("live key ({})", names(input(0), key)), Freed::WithItsRows, row(node)),
        Op::TemporalFilter { .. } => growth("row that is to come in or to leave".into(), Freed::At("when now() passes it".into()), row(node)),
        Op::Aggregate { keys, calls } => {
            let bytes = ENTRY_BYTES + keys.iter().map(|key| width(input(0).schema.field(*key).data_type())).sum::<usize>() + calls.len() * CELL_BYTES;
            let with = if keys.is_empty() { "view".to_string() } else { format!("group ({})", names(input(0), keys)) };
            let freed = match over(0, keys) {
                Some((column, horizon)) => Freed::At(passing(plan, input(0), column, horizon)),
                None if !input(0).append_only => Freed::WithItsRows,
                None if has_time(input(0), keys) => Freed::Never,
                None => Freed::NeverByKey,
            };
            growth(with, freed, bytes)
        }
        Op::Join { left_keys, right_keys, .. } => {
            let with =
                if left_keys.is_empty() { "row of both sides".into() } else { format!("row of both sides, by {}", names(input(0), left_keys)) };
            let [left_over, right_over] = plan.rows_over(id, horizons);
            let both = left_keys.iter().zip(right_keys).find_map(|(left, right)| Some((over(0, &[*left])?, over(1, &[*right])?)));
            let freed = match both {
                Some(((column, one), (_, other))) => Freed::At(passing(plan, input(0), column, &one.and(other))),
                None => {
                    match [(0, left_over), (1, right_over)].map(|(side, over)| over.map(|(column, at)| passing(plan, input(side), column, &at))) {
                        [Some(left), Some(right)] => Freed::At(format!("{left} or {}", right.trim_start_matches("when "))),
                        _ if input(0).append_only || input(1).append_only => Freed::Never,
                        _ => Freed::WithItsRows,
                    }
                }
            };
            growth(with, freed, row(input(0)).max(row(input(1))))
        }
        Op::SingleRow => growth("row of the subquery".into(), Freed::WithItsRows, row(input(0))),
        Op::SetOperation { .. } => {
            let both = (0..node.schema.fields().len()).find_map(|column| Some((over(0, &[column])?, over(1, &[column])?)));
            let freed = match both {
                Some(((column, one), (_, other))) => Freed::At(passing(plan, input(0), column, &one.and(other))),
                None => either(input(0), input(1)),
            };
            growth("different row of either side".into(), freed, row(node))
        }
        Op::Asof { .. } => growth("row of both sides, by key and time".into(), either(input(0), input(1)), row(input(0)).max(row(input(1)))),
        Op::LookupJoin { at: None, .. } => {
            let with = if node.append_only { "key of the right side" } else { "key of the right side, and live left row" };
            let freed = if input(1).append_only { Freed::NeverByKey } else { Freed::WithItsRows };
            growth(with.into(), freed, row(input(1)).max(row(node)))
        }
        Op::LookupJoin { .. } => growth("version of each key of the right side".into(), Freed::Never, row(input(1))),
        Op::Top { partition, offset, limit, .. } if *limit < u64::MAX && input(0).append_only => {
            let freed = over(0, partition).map_or(Freed::NeverByKey, |(column, at)| Freed::At(passing(plan, input(0), column, at)));
            growth(format!("row of the first {} of each partition", offset.saturating_add(*limit)), freed, row(input(0)))
        }
        Op::Top { partition, .. } | Op::Over { partition, .. } => {
            let freed = over(0, partition).map_or_else(|| live(input(0)), |(column, at)| Freed::At(passing(plan, input(0), column, at)));
            growth("row, in order by partition".into(), freed, row(input(0)))
        }
        Op::Feature { spec, .. } => {
            let freed = match (spec.horizon_ms(), spec) {
                (Some(ms), FeatureSpec::Rolling(_)) => Freed::At(format!("{} after the event", duration(ms as i64))),
                (Some(ms), FeatureSpec::Latest(_)) => Freed::At(format!("{} after the last event of its key", duration(ms as i64))),
                (None, _) => Freed::WithItsRows,
            };
            let with = match spec {
                FeatureSpec::Rolling(_) => format!("event of the windows, by {}", names(input(0), spec.entity())),
                FeatureSpec::Latest(_) => format!("key ({})", names(input(0), spec.entity())),
            };
            growth(with, freed, row(input(0)))
        }
        Op::Lookup { .. } | Op::Predict { .. } if node.append_only => {
            growth("row in flight".into(), Freed::At("when its step closes".into()), row(node))
        }
        Op::Lookup { .. } | Op::Predict { .. } => growth("live row, with what it was answered".into(), Freed::WithItsRows, row(node)),
        Op::Session { time, keys, .. } => growth(
            format!("row, by {} and time", if keys.is_empty() { "nothing".into() } else { names(input(0), keys) }),
            over(0, &[*time]).map_or_else(|| live(input(0)), |(column, at)| Freed::At(passing(plan, input(0), column, at) + " and the gap")),
            row(input(0)),
        ),
        Op::Arrival if node.append_only => None,
        Op::Arrival => growth("live row".into(), Freed::WithItsRows, row(node)),
        Op::EmitOnClose { .. } => growth("row of an open window".into(), Freed::At("when the watermark passes the window's end".into()), row(node)),
        Op::EmitEvery { every_ms } => growth("change".into(), Freed::At(format!("every {}", duration(*every_ms as i64))), row(node)),
        Op::Drift { spec } => {
            growth("bin of a measured column".into(), Freed::At(format!("{} after the row", duration(spec.window_ms as i64))), CELL_BYTES)
        }
        Op::Recursive { .. } => {
            let freed = if node.inputs.iter().any(|input| plan.node(*input).append_only) { Freed::Never } else { Freed::WithItsRows };
            growth("row of its inputs and of its rounds".into(), freed, row(node))
        }
    }
}

/// For example: when the watermark of bids passes window_end.
fn passing(plan: &Plan, input: &Node, column: usize, horizon: &Horizon) -> String {
    let of = |(bound, source): &(Bound, usize)| match bound {
        Bound::Watermark => format!("the watermark of {}", plan.sources[*source].name),
        Bound::Floor => format!("the lateness of {}", plan.sources[*source].name),
    };
    let bounds: Vec<String> = horizon.of.iter().map(of).collect();
    format!("when {} passes {}", bounds.join(" and "), input.schema.field(column).name())
}

fn has_time(node: &Node, keys: &[usize]) -> bool {
    keys.iter().any(|key| matches!(node.schema.field(*key).data_type(), DataType::Timestamp(_, _) | DataType::Date32))
}

fn row_bytes(schema: &Schema) -> usize {
    schema.fields().iter().map(|field| width(field.data_type())).sum()
}

/// With the byte that says whether it is NULL.
fn width(data_type: &DataType) -> usize {
    1 + data_type.primitive_width().unwrap_or(if *data_type == DataType::Boolean { 1 } else { TEXT_BYTES })
}

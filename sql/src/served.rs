//! What AS OF a column means in a training set (T5). In: its query, and the plan of its rows. Out: a warning where the column is the time of an
//! event, and a line for EXPLAIN.
//!
//! A row is served at its epoch. The time of its event is another instant when the row came late, or in no order; a time that was logged with a
//! prediction is the one that was served at, whenever the log came, and is not warned of.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Ident, Query, Select, Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::Span;
use freshet_core::{NodeId, Op, Plan, TrainingMode};

use crate::fold::{lookup_alias, lookup_time, normal};
use crate::refusal::Refusal;
use crate::training::asked_of;

/// A lookup AS OF a column, as the text has it.
#[derive(Debug, Clone)]
pub(crate) struct AskedAt {
    relation: Ident,
    column: Ident,
    mode: TrainingMode,
    /// The column is not known to be anything but the time of the row's own event.
    of_event: bool,
}

impl AskedAt {
    /// In hindsight nobody takes the rows for what was served: the mode says so.
    pub fn warning(&self) -> Option<Refusal> {
        if self.mode == TrainingMode::EventTime || !self.of_event {
            return None;
        }
        let place = Span::new(self.relation.span.start, self.column.span.end);
        Some(Refusal::new(self.message()).help(self.help()).at(place))
    }

    /// What EXPLAIN says; nothing of a time that was logged.
    pub fn line(&self) -> Option<String> {
        match self.mode {
            TrainingMode::AsServed if self.of_event => Some(format!("warning: {}\n  help: {}\n", self.message(), self.help())),
            TrainingMode::AsServed => None,
            TrainingMode::EventTime => {
                Some(format!("note: {} is answered in hindsight, not as it was served: mode = 'event_time' sees what came later\n", self.asked()))
            }
        }
    }

    fn asked(&self) -> String {
        format!("AS OF {}.{}", self.relation, self.column)
    }

    fn message(&self) -> String {
        format!("{} is what was served only for rows whose epoch equals {}: event clock, and rows in order", self.asked(), self.column)
    }

    fn help(&self) -> String {
        format!("FOR SYSTEM_TIME AS OF arrival({}); freshet training-set export counts the other rows", self.relation)
    }
}

/// The lookups AS OF a column of a training set's query. `at_events` are those whose column is the time of an event, by the alias of the lookup
/// and the column's name.
pub(crate) fn asked_at(query: &Query, mode: TrainingMode, at_events: &BTreeSet<(String, String)>) -> Vec<AskedAt> {
    let mut lookups = Lookups { mode, at_events, found: Vec::new() };
    let _ = query.visit(&mut lookups);
    lookups.found
}

struct Lookups<'a> {
    mode: TrainingMode,
    at_events: &'a BTreeSet<(String, String)>,
    found: Vec<AskedAt>,
}

impl Visitor for Lookups<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for join in select.from.iter().flat_map(|from| &from.joins) {
            let (Some(asked), Some(alias)) = (lookup_time(&join.relation).and_then(asked_of), lookup_alias(&join.relation)) else { continue };
            if let Some(column) = asked.column {
                let of_event = self.at_events.contains(&(normal(alias), normal(column)));
                self.found.push(AskedAt { relation: asked.relation.clone(), column: column.clone(), mode: self.mode, of_event });
            }
        }
        ControlFlow::Continue(())
    }
}

/// Whether a column of a node may be the time of the row's own event: the WATERMARK or ARRIVAL of a source, or something computed. Any other
/// column of a source was told with the row.
pub(crate) fn is_event_time(plan: &Plan, node: NodeId, column: usize) -> bool {
    let node = plan.node(node);
    let width = |input: usize| plan.node(node.inputs[input]).schema.fields().len();
    let below = |input: usize, column: usize| is_event_time(plan, node.inputs[input], column);
    match &node.op {
        Op::Source { source } => [plan.sources[*source].event_time, plan.sources[*source].arrival].contains(&Some(column)),
        Op::Project { exprs } => exprs[column].as_column().is_none_or(|column| below(0, column)),
        Op::Join { kind, .. } if column >= width(0) => kind.has_mark() || below(1, column - width(0)),
        Op::Join { .. } => below(0, column),
        Op::Lookup { .. } | Op::Predict { .. } => column >= width(0) || below(0, column),
        Op::Aggregate { keys, .. } => keys.get(column).is_none_or(|key| below(0, *key)),
        Op::Recursive { .. } | Op::Argument { .. } => true,
        Op::Union | Op::SetOperation { .. } => (0..node.inputs.len()).any(|input| below(input, column)),
        Op::Unnest { exprs, .. } => exprs.get(column).is_none_or(|expr| expr.as_column().is_none_or(|column| below(0, column))),
        Op::Values { .. } => true,
        // What only keeps or drops rows, or makes changes of them.
        _ if plan.node(node.inputs[0]).schema == node.schema => below(0, column),
        _ => true,
    }
}

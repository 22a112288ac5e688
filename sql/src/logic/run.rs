//! A segment on real pipelines. In: its script, rows and queries, and who starts engines. Out: nothing, or the first answer that is not the
//! file's, in which way of running, or not the batch oracle's.
//!
//! What a query asked of tables says is also maintained as a view, whose content must be the same answer. Ways: one epoch a step; everything in
//! one step on several workers, as if the data had been there first; and a stop in the middle with a restart on another number of workers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use freshet_core::{Connectors, Epoch, Error, Op, Plan, Reader};

use crate::batch;
use crate::compile::{Program, Script, compile};
use crate::logic::answer::Answer;
use crate::logic::declaration::CONNECTOR;
use crate::logic::feed::Feeds;
use crate::logic::record::{Failure, Record, Wanted};
use crate::logic::session::Asked;
use crate::logic::table::Write;
use crate::pinned::PinnedReader;
use crate::query;

/// How a pipeline is run.
#[derive(Debug, Clone, Default)]
pub struct Way {
    pub workers: usize,
    /// Epochs in a step; 0: all in one; None: as the engine likes.
    pub step_epochs: Option<usize>,
    /// Where it keeps its state and finds it again.
    pub data_dir: Option<PathBuf>,
    /// Stops there, as if asked to.
    pub stop_after: Option<Epoch>,
}

/// A pipeline that has run as far as it should, and can be read.
pub trait Pipeline {
    fn reader(&self) -> Arc<dyn Reader>;
    fn end(self: Box<Self>) -> freshet_core::Result<()>;
}

/// Who starts engines.
pub trait Engines {
    /// Runs until every source has ended, or to `stop_after`. Errors: the pipeline failed, or does not end.
    fn run(&self, plan: &Plan, way: &Way, connectors: &dyn Connectors) -> freshet_core::Result<Box<dyn Pipeline>>;

    /// An empty folder that goes with what is returned.
    fn folder(&self) -> freshet_core::Result<Box<dyn AsRef<Path>>>;
}

/// A script, the rows that its tables had, and what was asked.
#[derive(Debug)]
pub(crate) struct Segment {
    pub scripts: Vec<Script>,
    pub asked: Vec<Asked>,
    /// By source: all writes, and no rows.
    pub tables: BTreeMap<String, (Arc<Vec<Write>>, RecordBatch)>,
}

impl Segment {
    fn epochs(&self) -> Vec<Epoch> {
        let mut epochs: Vec<Epoch> = self.tables.values().flat_map(|(writes, _)| writes.iter().map(|write| write.epoch)).collect();
        epochs.sort_unstable();
        epochs
    }
}

/// The ways that fit the plan, each with a description.
fn ways(program: &Program, epochs: &[Epoch]) -> Vec<(&'static str, Way, Option<(Epoch, usize)>)> {
    let plan = &program.plan;
    let own = plan.sources.iter().all(|source| source.connector == CONNECTOR) && plan.sinks.is_empty();
    if plan.needs_whole_input() {
        return vec![("in one step", Way { workers: 1, step_epochs: Some(0), ..Way::default() }, None)];
    }
    if !own {
        // What files and sinks hold is not ours to read and write several times.
        return vec![("", Way { workers: program.settings.workers.unwrap_or(1), ..Way::default() }, None)];
    }
    let mut ways = vec![
        ("views first, one epoch a step", Way { workers: 1, step_epochs: Some(1), ..Way::default() }, None),
        ("data first, all in one step, 4 workers", Way { workers: 4, step_epochs: Some(0), ..Way::default() }, None),
    ];
    if epochs.len() > 1 {
        let way = Way { workers: 2, step_epochs: Some(3), ..Way::default() };
        ways.push(("2 workers, restarted in the middle on 1", way, Some((epochs[(epochs.len() - 1) / 2], 1))));
    }
    ways
}

/// Counts of answers compared with the file, and of answers compared with the oracle's.
pub(crate) fn check(
    segment: &Segment,
    variables: &BTreeMap<String, String>,
    connectors: &dyn Connectors,
    engines: &dyn Engines,
) -> Result<(usize, usize), Failure> {
    let feeds = Feeds { others: connectors, writes: segment.tables.iter().map(|(name, (writes, _))| (name.clone(), writes.clone())).collect() };
    let first = &segment.asked[0].record;
    let failed = |message: String| failure(first, message);
    let program = compile(&segment.scripts, variables, &feeds).map_err(|error| failed(error.to_string()))?;
    let epochs = segment.epochs();
    let mut run = Run { segment, program: &program, epochs: &epochs, answers: 0, oracle: 0, labels: BTreeMap::new() };
    for (index, (what, way, restart)) in ways(&program, &epochs).into_iter().enumerate() {
        let broken = |error: Error| failed(format!("{what}: the pipeline failed: {}", error.message));
        let in_way = |mut failure: Failure| {
            failure.message = if what.is_empty() { failure.message } else { format!("({what}) {}", failure.message) };
            failure
        };
        let Some((stop, workers)) = restart else {
            let pipeline = engines.run(&program.plan, &way, &feeds).map_err(broken)?;
            run.check(&pipeline.reader(), index == 0, |_| true).map_err(in_way)?;
            pipeline.end().map_err(broken)?;
            continue;
        };
        let folder = engines.folder().map_err(broken)?;
        let way = Way { data_dir: Some((*folder).as_ref().to_path_buf()), ..way };
        let before = engines.run(&program.plan, &Way { stop_after: Some(stop), ..way.clone() }, &feeds).map_err(broken)?;
        run.check(&before.reader(), false, |at| at.is_some_and(|at| at <= stop)).map_err(in_way)?;
        before.end().map_err(broken)?;
        let after = engines.run(&program.plan, &Way { workers, ..way }, &feeds).map_err(broken)?;
        run.check(&after.reader(), false, |at| at.is_none_or(|at| at > stop)).map_err(in_way)?;
        after.end().map_err(broken)?;
    }
    Ok((run.answers, run.oracle))
}

struct Run<'a> {
    segment: &'a Segment,
    program: &'a Program,
    epochs: &'a [Epoch],
    answers: usize,
    oracle: usize,
    /// The answers of queries with a label.
    labels: BTreeMap<(String, u64), Answer>,
}

impl Run<'_> {
    /// Every query whose instant is wanted.
    fn check(&mut self, reader: &Arc<dyn Reader>, with_oracle: bool, wanted: impl Fn(Option<Epoch>) -> bool) -> Result<(), Failure> {
        for asked in &self.segment.asked {
            let at = self.instant(asked);
            if wanted(at) {
                self.check_one(asked, at, reader, with_oracle).map_err(|message| failure(&asked.record, message))?;
            }
        }
        Ok(())
    }

    /// When it is asked: after the last write before it, or, where rows come from elsewhere or not at all, at the end.
    fn instant(&self, asked: &Asked) -> Option<Epoch> {
        let last = *self.epochs.last()?;
        let others = self.program.plan.sources.iter().any(|source| source.connector != CONNECTOR);
        if others && asked.clock >= last.0 { None } else { Some(Epoch(asked.clock).min(last)) }
    }

    fn check_one(&mut self, asked: &Asked, at: Option<Epoch>, reader: &Arc<dyn Reader>, with_oracle: bool) -> Result<(), String> {
        let pinned: Arc<dyn Reader> = match at {
            Some(at) => Arc::new(PinnedReader { reader: reader.clone(), at }),
            None => reader.clone(),
        };
        let planned = query::plan(&asked.record.sql, pinned.as_ref()).map_err(|error| error.to_string());
        let answered = planned.and_then(|planned| match query::run(&planned, None, pinned.as_ref()) {
            Ok((schema, batches, _)) => Answer::of(&schema, &batches).map(|answer| (planned.views, answer)),
            Err(error) => Err(error.message),
        });
        let (views, answer) = match (answered, &asked.record.wanted) {
            (Err(message), Wanted::Error(wanted)) => return expect_error(wanted, &message),
            (Ok(_), Wanted::Error(wanted)) => return Err(format!("no error, expected one with: {wanted}")),
            (answered, _) => answered?,
        };
        let Wanted::Rows(rows) = &asked.record.wanted else { return Ok(()) };
        if let Some(label) = &rows.label {
            let known = self.labels.entry((label.clone(), at.map_or(0, |at| at.0))).or_insert_with(|| answer.clone());
            answer.check_rows(known).map_err(|difference| format!("another answer than the first query labelled {label}: {difference}"))?;
        }
        if rows.label.is_none() || !rows.lines.is_empty() {
            answer.check(rows, true)?;
        }
        self.answers += 1;
        if let Some(view) = &asked.view {
            let maintained = content(pinned.as_ref(), view, at)?;
            maintained.check_rows(&answer).map_err(|difference| format!("the maintained view has other rows than the query asked: {difference}"))?;
        }
        if with_oracle && asked.record.for_oracle {
            for view in asked.view.iter().chain(&views) {
                self.check_oracle(view, at, pinned.as_ref())?;
            }
        }
        Ok(())
    }

    /// Against DataFusion, where it can be asked at all.
    fn check_oracle(&mut self, view: &str, at: Option<Epoch>, reader: &dyn Reader) -> Result<(), String> {
        let plan = &self.program.plan;
        let only_tables = plan.sources.iter().all(|source| source.connector == CONNECTOR);
        let (Some(at), true, Some(def)) = (at, only_tables, plan.view(view)) else { return Ok(()) };
        let content_at = |(writes, empty): &(Arc<Vec<Write>>, RecordBatch)| {
            writes.iter().rev().find(|write| write.epoch <= at).map_or_else(|| empty.clone(), |write| write.content.clone())
        };
        let tables = self.segment.tables.iter().map(|(name, table)| (name.clone(), content_at(table))).collect();
        // What it cannot run, or cannot run for the sake of one row, it says nothing about.
        let Ok(expected) = batch::evaluate(self.program, view, &tables, at) else { return Ok(()) };
        let expected = Answer::of(&def.schema, &[expected])?;
        let found = content(reader, view, Some(at))?;
        let says = |difference: String| format!("{view} differs from what DataFusion says (as expected): {difference}\n{}", node_of(plan, view));
        found.check_rows(&expected).map_err(says)?;
        self.oracle += 1;
        Ok(())
    }
}

/// What computes the view, for messages.
fn node_of(plan: &Plan, view: &str) -> String {
    let node = plan.view(view).map(|view| &plan.node(view.node).op);
    match node {
        Some(Op::Source { .. }) | None => String::new(),
        Some(_) => freshet_core::explain(plan),
    }
}

fn content(reader: &dyn Reader, view: &str, at: Option<Epoch>) -> Result<Answer, String> {
    let snapshot = reader.snapshot(&[view], at).map_err(|error| error.message)?;
    let schema = reader.views().into_iter().find(|known| known.name == view).map(|view| view.schema).ok_or("the view is gone")?;
    Answer::of(&schema, &snapshot.views.concat())
}

fn failure(record: &Record, message: String) -> Failure {
    Failure { file: record.file.clone(), line: record.line, sql: record.sql.clone(), message }
}

/// Whether the message is the one a file expects: a part of it, or a regular expression. An empty one is any.
pub(crate) fn expect_error(wanted: &str, message: &str) -> Result<(), String> {
    let fits = wanted.is_empty() || message.contains(wanted) || regex::Regex::new(wanted).is_ok_and(|pattern| pattern.is_match(message));
    if fits { Ok(()) } else { Err(format!("another error than expected\n  expected {wanted}\n  found    {message}")) }
}

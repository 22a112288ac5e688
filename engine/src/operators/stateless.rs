//! Operators without state act on each batch as it arrives. In: batches. Out: batches and error rows at the same epochs.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use freshet_core::{Batch, Counts, Diffs};
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::edge::{Edge, EdgeBuilder};
use crate::operators::harness::{Bundle, Output, Rows};

/// Builds a stateless operator into the dataflow.
pub fn map_batches<'scope>(
    scope: Scope<'scope, u64>,
    name: &str,
    rows: Rows<'scope>,
    mut map: impl FnMut(Batch, &mut Output) + 'static,
) -> Bundle<'scope> {
    let mut builder = OperatorBuilder::new(name.to_string(), scope);
    let mut input = builder.new_input(rows, Pipeline);
    let (rows_output, rows) = builder.new_output::<Edge>();
    let (errors_output, errors) = builder.new_output::<Edge>();
    let mut rows_output: OutputBuilder<u64, EdgeBuilder> = OutputBuilder::from(rows_output);
    let mut errors_output: OutputBuilder<u64, EdgeBuilder> = OutputBuilder::from(errors_output);
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_frontiers| {
            input.for_each(|capability, edge| {
                let Some(batch) = edge.0.take() else { return };
                let mut out = Output::default();
                map(batch, &mut out);
                let errors_capability = capability.delayed(capability.time(), 1);
                let rows_capability = capability.retain(0);
                rows_output.activate().session_with_builder(&rows_capability).give_iterator(out.rows.into_iter());
                if !out.errors.is_empty() {
                    errors_output.activate().session_with_builder(&errors_capability).give_iterator(out.errors.into_iter());
                }
            });
        }
    });
    Bundle { rows, errors }
}

/// Columns of every error stream and of `errors(view)`.
pub fn error_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8, true);
        let number = |name| Field::new(name, DataType::Int64, true);
        Arc::new(Schema::new(vec![
            text("operator"),
            text("field"),
            text("reason"),
            text("source"),
            number("partition"),
            number("offset"),
            text("raw"),
        ]))
    });
    SCHEMA.clone()
}

/// Where rows come from, for the error rows of an operator.
#[derive(Clone, Default)]
pub struct Origins {
    /// The names of the plan's sources: a position's source index points into them.
    sources: Arc<[String]>,
    /// Rows may be taken back, and then do not know their position any more: an error row says in `raw` which row it is of, until
    /// [`ErrorLives`](crate::operators::ErrorLives) has found out whose it is.
    changing: bool,
}

impl Origins {
    pub fn new(sources: Arc<[String]>, changing: bool) -> Origins {
        Origins { sources, changing }
    }
}

impl From<Arc<[String]>> for Origins {
    fn from(sources: Arc<[String]>) -> Origins {
        Origins { sources, changing: false }
    }
}

/// Collects error rows; `finish` makes them a batch.
pub struct ErrorRows {
    operator: String,
    origins: Origins,
    texts: [StringBuilder; 5],
    numbers: [Int64Builder; 2],
    epochs: Vec<u64>,
    diffs: Vec<i64>,
    positions: Vec<u64>,
}

impl ErrorRows {
    pub fn new(operator: &str, origins: impl Into<Origins>) -> ErrorRows {
        ErrorRows {
            operator: operator.to_string(),
            origins: origins.into(),
            texts: std::array::from_fn(|_| StringBuilder::new()),
            numbers: std::array::from_fn(|_| Int64Builder::new()),
            epochs: Vec::new(),
            diffs: Vec::new(),
            positions: Vec::new(),
        }
    }

    /// The row at `row` of `batch` failed in `field` for this reason. Its provenance is its position.
    pub fn push(&mut self, batch: &Batch, row: usize, field: &str, reason: &str) {
        let name = self.origins.changing.then(|| name_of(batch, row));
        self.push_at(batch.epoch(row).0, batch.diff(row), batch.position(row), field, reason, name.as_deref());
    }

    pub fn push_at(&mut self, epoch: u64, diff: i64, position: u64, field: &str, reason: &str, raw: Option<&str>) {
        let source = (position != 0).then(|| self.origins.sources.get((position >> 56) as usize)).flatten().cloned();
        let [operator, fields, reasons, sources, raws] = &mut self.texts;
        operator.append_value(&self.operator);
        fields.append_value(field);
        reasons.append_value(reason);
        sources.append_option(source.as_deref());
        raws.append_option(raw);
        let known = source.is_some();
        self.numbers[0].append_option(known.then_some(((position >> 40) & 0xffff) as i64));
        self.numbers[1].append_option(known.then_some((position & 0xff_ffff_ffff) as i64 - 1));
        self.epochs.push(epoch);
        self.diffs.push(diff);
        self.positions.push(position);
    }

    pub fn finish(mut self) -> Option<Batch> {
        if self.epochs.is_empty() {
            return None;
        }
        let [operator, field, reason, source, raw] = self.texts.each_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let [partition, offset] = self.numbers.each_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let rows =
            RecordBatch::try_new(error_schema(), vec![operator, field, reason, source, partition, offset, raw]).expect("columns of the error schema");
        assert_eq!(rows.column(0).len(), self.epochs.len());
        Some(Batch::new(rows, Counts::Each(self.epochs.into()), Diffs::Each(self.diffs.into()), Counts::Each(self.positions.into())))
    }
}

/// A row in words, the same for equal rows.
fn name_of(batch: &Batch, row: usize) -> String {
    let options = FormatOptions::default();
    let cell = |column: &ArrayRef| match ArrayFormatter::try_new(column, &options) {
        // The length keeps cells apart.
        Ok(formatter) if column.is_valid(row) => {
            let text = formatter.value(row).to_string();
            format!("{}:{text}", text.len())
        }
        _ => "-".into(),
    };
    batch.rows().columns().iter().map(cell).collect()
}

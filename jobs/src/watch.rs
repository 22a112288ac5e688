//! What a run shows beside its own counters. In: a one-row query of the user (`--watch`), and the drift monitors of the pipeline. Out: short
//! texts for the live line. Whatever cannot be answered yet is left out: a line of progress is no place for errors.

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Schema};
use freshet_core::{CatalogView, DriftSpec, Reader};
use freshet_serving::Queries;

use crate::rows::cells;

/// Statements that are answered again for each line.
pub struct Watched {
    queries: Arc<dyn Queries>,
    monitors: Vec<String>,
    sql: Option<String>,
}

impl Watched {
    /// Checks the statement. Errors: it is no query over this pipeline.
    pub fn open(reader: &dyn Reader, queries: Arc<dyn Queries>, sql: Option<&str>) -> Result<Watched> {
        if let Some(sql) = sql {
            queries.prepare(sql).with_context(|| format!("checking --watch {sql}"))?;
        }
        let monitors = reader.views().iter().filter(|view| is_monitor(view)).map(|view| latest_evaluation(&view.name)).collect();
        Ok(Watched { queries, monitors, sql: sql.map(str::to_string) })
    }

    /// One text per condition of a monitor, then one for the watched row.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.monitors.iter().flat_map(|sql| self.rows(sql)).filter_map(|row| drift(&row)).collect();
        texts.extend(self.sql.iter().flat_map(|sql| self.rows(sql)).next().map(|row| pairs(&row)));
        texts
    }

    /// Name and value of each column, row by row; none if the query fails.
    fn rows(&self, sql: &str) -> Vec<Vec<(String, Option<String>)>> {
        self.queries.run(sql, None, None).map_err(anyhow::Error::from).and_then(|answer| named(&answer.schema, &answer.batches)).unwrap_or_default()
    }
}

/// Only monitors have these columns.
fn is_monitor(view: &CatalogView) -> bool {
    let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    names(&view.schema) == names(&DriftSpec::schema())
}

/// The newest values that have a threshold.
fn latest_evaluation(monitor: &str) -> String {
    let name = format!("\"{}\"", monitor.replace('"', "\"\""));
    let latest = format!("(SELECT max(evaluated_at) FROM {name})");
    format!("SELECT method, column_name, value, threshold, state FROM {name} WHERE threshold IS NOT NULL AND evaluated_at = {latest}")
}

/// The cells of a row with the names of their columns; None where NULL.
type NamedCells = Vec<(String, Option<String>)>;

fn named(schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<NamedCells>> {
    let names = || schema.fields().iter().map(|field| field.name().clone());
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(rounded).collect::<Result<Vec<_>>>()?;
        rows.extend((0..batch.num_rows()).map(|row| names().zip(columns.iter().map(|column| column[row].clone())).collect()));
    }
    Ok(rows)
}

/// Fractions to three places: a line is for a glance.
fn rounded(column: &ArrayRef) -> Result<Vec<Option<String>>> {
    if column.data_type() == &DataType::Float64 {
        return Ok(column.as_primitive::<Float64Type>().iter().map(|value| value.map(|value| format!("{value:.3}"))).collect());
    }
    let one = RecordBatch::try_from_iter([("value", column.clone())])?;
    Ok(cells(&[one])?.into_iter().map(|mut row| row.pop().flatten()).collect())
}

/// `psi(p_late) 0.137 of 0.100`, or why there is no value; None for a row of another shape.
fn drift(row: &[(String, Option<String>)]) -> Option<String> {
    let cell = |name: &str| row.iter().find(|(found, _)| found == name).and_then(|(_, value)| value.as_deref());
    let measured = match cell("value") {
        Some(value) => format!("{value} of {}", cell("threshold")?),
        None => cell("state")?.replace('_', " "),
    };
    Some(format!("{}({}) {measured}", cell("method")?, cell("column_name")?))
}

/// `auc_live 0.712 auc_frozen 0.661`; NULL is a dash.
fn pairs(row: &[(String, Option<String>)]) -> String {
    row.iter().map(|(name, value)| format!("{name} {}", value.as_deref().unwrap_or("-"))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    fn row(cells: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
        cells.iter().map(|(name, value)| (name.to_string(), value.map(str::to_string))).collect()
    }

    #[test]
    fn a_watched_row_is_its_columns_by_name_and_a_monitor_its_value_against_the_threshold() {
        let batch = RecordBatch::try_from_iter([
            ("auc_live", Arc::new(Float64Array::from(vec![Some(0.71234), None])) as ArrayRef),
            ("flights", Arc::new(Int64Array::from(vec![7, 8])) as ArrayRef),
        ])
        .unwrap();
        let rows = named(&batch.schema(), &[batch]).unwrap();
        assert_eq!(pairs(&rows[0]), "auc_live 0.712 flights 7");
        assert_eq!(pairs(&rows[1]), "auc_live - flights 8");
        let threshold = ("threshold", Some("0.100"));
        let measured = row(&[("method", Some("psi")), ("column_name", Some("p")), ("value", Some("0.137")), threshold, ("state", Some("measured"))]);
        assert_eq!(drift(&measured).unwrap(), "psi(p) 0.137 of 0.100");
        let waiting = row(&[("method", Some("psi")), ("column_name", Some("p")), ("value", None), threshold, ("state", Some("too_few_rows"))]);
        assert_eq!(drift(&waiting).unwrap(), "psi(p) too few rows");
    }

    #[test]
    fn a_monitor_is_known_by_its_columns() {
        let view = |schema| CatalogView { name: "m".into(), schema, kind: "VIEW", entity: Vec::new() };
        assert!(is_monitor(&view(DriftSpec::schema())));
        assert!(!is_monitor(&view(freshet_core::runs_schema())));
        assert!(latest_evaluation("a\"b").contains("FROM \"a\"\"b\""));
    }
}

//! Answers as text. In: batches. Out: a table for people, one JSON object a line or CSV for programs.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use freshet_core::Result;
use freshet_core::display::texts;
use freshet_serving::to_json;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RowFormat {
    /// Aligned columns
    Table,
    /// One object a line
    Json,
    /// RFC 4180, with a header
    Csv,
}

/// The whole answer, ending in a line break unless it is empty.
pub fn format_rows(schema: &Schema, batches: &[RecordBatch], format: RowFormat) -> Result<String> {
    match format {
        RowFormat::Table => table(schema, batches),
        RowFormat::Json => json(schema, batches),
        RowFormat::Csv => csv(schema, batches),
    }
}

/// Rows of an answer that has no end, each complete as it comes: the table's columns are parted by tabs, for nobody knows their widths yet.
pub fn format_changes(schema: &Schema, batch: &RecordBatch, format: RowFormat, first: bool) -> Result<String> {
    let batches = std::slice::from_ref(batch);
    let text = match format {
        RowFormat::Json => return json(schema, batches),
        RowFormat::Csv => csv(schema, batches)?,
        RowFormat::Table => {
            let names = schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join("\t");
            let rows = cells(batches)?.into_iter().map(|row| row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>());
            std::iter::once(names).chain(rows.map(|row| row.join("\t"))).map(|line| line + "\n").collect()
        }
    };
    Ok(if first { text } else { text.split_once('\n').map_or(String::new(), |(_, rows)| rows.to_string()) })
}

/// Each cell of each row; None is NULL.
pub fn cells(batches: &[RecordBatch]) -> Result<Vec<Vec<Option<String>>>> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(texts).collect::<Result<Vec<_>>>()?;
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()));
    }
    Ok(rows)
}

fn table(schema: &Schema, batches: &[RecordBatch]) -> Result<String> {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let right: Vec<bool> = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
    let rows: Vec<Vec<String>> =
        cells(batches)?.into_iter().map(|row| row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".into())).collect()).collect();
    let width = |column: usize| rows.iter().chain([&names]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let line = |row: &[String], right: &[bool]| {
        let cells = row
            .iter()
            .zip(&widths)
            .zip(right)
            .map(|((cell, width), right)| if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(&names, &right);
    text.push_str(&line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>(), &right));
    rows.iter().for_each(|row| text.push_str(&line(row, &right)));
    text.push_str(&format!("({} row{})\n", rows.len(), if rows.len() == 1 { "" } else { "s" }));
    Ok(text)
}

fn json(schema: &Schema, batches: &[RecordBatch]) -> Result<String> {
    let mut text = String::new();
    for batch in batches {
        let columns = batch.columns().iter().map(to_json).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            let fields = schema
                .fields()
                .iter()
                .zip(&columns)
                .map(|(field, column)| format!("{}:{}", serde_json::Value::from(field.name().as_str()), column[row]));
            text.push_str(&format!("{{{}}}\n", fields.collect::<Vec<_>>().join(",")));
        }
    }
    Ok(text)
}

fn csv(schema: &Schema, batches: &[RecordBatch]) -> Result<String> {
    let quoted = |text: &str| {
        if text.is_empty() || text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
    };
    let header: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    let mut text = header.join(",") + "\n";
    for row in cells(batches)? {
        let cells: Vec<String> = row.iter().map(|cell| cell.as_deref().map_or(String::new(), quoted)).collect();
        text.push_str(&(cells.join(",") + "\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("name", Arc::new(StringArray::from(vec![Some("a,\"b\""), None, Some("")])) as ArrayRef),
            ("mean", Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), None])) as ArrayRef),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![Some(1_357_034_400_000), None, Some(1)])) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn table_json_and_csv_keep_every_value_apart_from_null() {
        let (batch, schema) = (batch(), batch().schema());
        let table = format_rows(&schema, std::slice::from_ref(&batch), RowFormat::Table).unwrap();
        assert!(table.contains("2013-01-01 10:00:00") && table.contains("NULL") && table.ends_with("(3 rows)\n"), "{table}");
        let json = format_rows(&schema, std::slice::from_ref(&batch), RowFormat::Json).unwrap();
        assert_eq!(json.lines().nth(1).unwrap(), r#"{"name":null,"mean":"NaN","at":null}"#);
        let csv = format_rows(&schema, &[batch], RowFormat::Csv).unwrap();
        assert_eq!(csv, "name,mean,at\n\"a,\"\"b\"\"\",1.5,2013-01-01 10:00:00\n,NaN,\n\"\",,1970-01-01 00:00:00.001\n");
    }
}

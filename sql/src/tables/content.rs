//! The rows of a stored table while its script is compiled. In: changes. Out: its rows, in the order they were inserted.
//!
//! With a key there is one row for each; without one, equal rows are counted apart.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use freshet_core::{KeyCodec, Result};

use super::Change;

#[derive(Debug, Clone)]
pub(crate) struct Content {
    schema: SchemaRef,
    key: Vec<usize>,
    /// None: taken out.
    rows: Vec<Option<Vec<u8>>>,
    /// Where the rows of a key stand, or those equal to a row.
    places: HashMap<Vec<u8>, Vec<usize>>,
}

impl Content {
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Content {
        Content { schema, key, rows: Vec::new(), places: HashMap::new() }
    }

    pub fn apply(&mut self, change: &Change) -> Result<()> {
        for (name, _) in self.encoded(&change.removed)? {
            if let Some(place) = self.places.get_mut(&name).and_then(Vec::pop) {
                self.rows[place] = None;
            }
        }
        for (name, row) in self.encoded(&change.added)? {
            let places = self.places.entry(name).or_default();
            match places.last() {
                // The row of a key is replaced where it stands.
                Some(place) if !self.key.is_empty() => self.rows[*place] = Some(row),
                _ => {
                    places.push(self.rows.len());
                    self.rows.push(Some(row));
                }
            }
        }
        Ok(())
    }

    /// What there is; no batch if there is nothing.
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        let rows: Vec<&[u8]> = self.rows.iter().flatten().map(Vec::as_slice).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![KeyCodec::for_schema(&self.schema)?.decode_batch(&self.schema, rows)?])
    }

    /// For each row what it is known by, and its bytes.
    fn encoded(&self, rows: &RecordBatch) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let whole = KeyCodec::for_schema(&self.schema)?.encode(rows.columns())?;
        let names = if self.key.is_empty() { None } else { Some(keys_of(rows, &self.key)?) };
        let name = |row: usize| names.as_ref().map_or_else(|| whole.row(row).as_ref().to_vec(), |names| names[row].clone());
        Ok((0..rows.num_rows()).map(|row| (name(row), whole.row(row).as_ref().to_vec())).collect())
    }
}

/// The key of each row as bytes.
pub(crate) fn keys_of(rows: &RecordBatch, key: &[usize]) -> Result<Vec<Vec<u8>>> {
    let columns: Vec<ArrayRef> = key.iter().map(|column| rows.column(*column).clone()).collect();
    let types: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
    let encoded = KeyCodec::new(&types)?.encode(&columns)?;
    Ok((0..rows.num_rows()).map(|row| encoded.row(row).as_ref().to_vec()).collect())
}

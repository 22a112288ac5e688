//! Which folder a row of a partitioned sink lies in. In: changes. Out: for each folder its changes, in their order, without the columns that its
//! name says: `day=2024-01-01/shop=3`, as Hive, Spark, DuckDB and Arrow read it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatchOptions;
use freshet_core::{Batch, Error, OptionError, Result, SinkDef};

use crate::encode::Cells;
use crate::options::wrong;

/// The columns of PARTITIONED BY, with commas between.
pub const PARTITION: &str = "partition.by";
/// What stands for NULL, and for the text that would be no name.
const NOTHING: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns that name folders, and the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Partitions {
    named: Vec<(usize, String)>,
    rest: Vec<usize>,
    schema: SchemaRef,
}

impl Partitions {
    /// None: the sink is not partitioned. Errors: a column that is none, or that names no folder.
    pub fn parse(def: &SinkDef) -> Result<Option<Partitions>, OptionError> {
        let Some(text) = def.options.get(PARTITION) else { return Ok(None) };
        let mut named: Vec<(usize, String)> = Vec::new();
        for name in text.split(',').map(str::trim) {
            let Ok(index) = def.schema.index_of(name) else {
                let known: Vec<&str> = def.schema.fields().iter().map(|field| field.name().as_str()).collect();
                return Err(wrong(PARTITION, format!("there is no column {name} to partition by; columns are {}", known.join(", "))));
            };
            if named.iter().any(|(known, _)| *known == index) {
                return Err(wrong(PARTITION, format!("{name} stands twice in what the sink is partitioned by")));
            }
            let data_type = def.schema.field(index).data_type();
            if data_type.is_floating() || data_type.is_nested() || matches!(data_type, DataType::Binary) {
                return Err(wrong(PARTITION, format!("{name} is {data_type}, which names no folder; partition by a text, a number or a day")));
            }
            named.push((index, name.to_string()));
        }
        let rest: Vec<usize> = (0..def.schema.fields().len()).filter(|index| named.iter().all(|(column, _)| column != index)).collect();
        if rest.is_empty() {
            return Err(wrong(PARTITION, "every column names a folder, and none is left for the files"));
        }
        let fields: Vec<_> = rest.iter().map(|index| def.schema.field(*index).clone()).collect();
        Ok(Some(Partitions { named, rest, schema: Arc::new(Schema::new(fields)) }))
    }

    /// Of the files.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// By the names of folders, each ending in a slash, in the order of their first rows.
    pub fn split(&self, changes: &Batch) -> Result<Vec<(String, Batch)>> {
        let cells = self.named.iter().map(|(index, _)| Cells::of(changes.column(*index))).collect::<Result<Vec<_>>>()?;
        let mut folders: Vec<(String, Vec<u32>)> = Vec::new();
        for row in 0..changes.len() {
            let folder = self.folder(&cells, row);
            // Rows of one partition mostly follow each other.
            match folders.iter_mut().rev().find(|(known, _)| *known == folder) {
                Some((_, rows)) => rows.push(row as u32),
                None => folders.push((folder, vec![row as u32])),
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(changes.len()));
        let columns = self.rest.iter().map(|index| changes.column(*index).clone()).collect();
        let rest = arrow::array::RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Error::internal(format!("rows of another schema than the sink's: {error}")))?;
        let rest = changes.with_rows(rest);
        Ok(folders.into_iter().map(|(folder, rows)| (folder, rest.take(&rows))).collect())
    }

    fn folder(&self, cells: &[Cells], row: usize) -> String {
        let mut folder = String::new();
        for ((_, name), cells) in self.named.iter().zip(cells) {
            let mut value = Vec::new();
            if !cells.is_null(row) {
                cells.write(row, &mut value);
            }
            let value = String::from_utf8_lossy(&value);
            folder += &format!("{}={}/", escaped(name), if value.is_empty() { NOTHING.to_string() } else { escaped(&value) });
        }
        folder
    }
}

/// As Hive writes what a path cannot hold: `%3A` for a colon.
fn escaped(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() || "\"#%'*/:=?\\{[]^<>|".contains(letter) || (letter == '.' && text.chars().all(|letter| letter == '.')) {
            let mut bytes = [0; 4];
            letter.encode_utf8(&mut bytes).bytes().for_each(|byte| found += &format!("%{byte:02X}"));
        } else {
            found.push(letter);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_are_escaped() {
        assert_eq!(escaped("12:30"), "12%3A30");
        assert_eq!(escaped("a/b=c ü"), "a%2Fb%3Dc ü");
        assert_eq!(escaped(".."), "%2E%2E");
        assert_eq!(escaped("1.5"), "1.5");
    }
}

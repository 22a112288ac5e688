//! What surrounds a record of a file. In: the file and the record's number. Out: cells and columns for INCLUDE and METADATA.

use arrow::datatypes::{DataType, TimeUnit};
use freshet_core::{Encode, MetadataColumn, OptionError, SourceDef};

use super::cast;
use crate::decode::{Cell, Metadata, sql_name, with_cell};
use crate::store::StoredFile;

/// The names a file source knows, with what they are.
const NAMES: [(&str, DataType); 4] =
    [("file", DataType::Utf8), ("modified", DataType::Timestamp(TimeUnit::Millisecond, None)), ("row", DataType::Int64), ("offset", DataType::Int64)];

/// Where a record stands.
pub struct Place<'a> {
    pub file: &'a StoredFile,
    /// Counted over all files, from 0.
    pub record: u64,
    /// Counted in this file, from 0.
    pub row: u64,
}

impl Metadata for Place<'_> {
    fn cell(&self, name: &str) -> Option<Cell<'_>> {
        let count = |count: u64| Some(i64::try_from(count).map_or(Cell::UInt(count), Cell::Int));
        match name {
            "file" => Some(Cell::Text(self.file.name.as_str().into())),
            "modified" => Some(Cell::Instant(self.file.modified_ms, TimeUnit::Millisecond)),
            "offset" => count(self.record),
            "row" => count(self.row),
            _ => None,
        }
    }
}

impl Place<'_> {
    /// What a dead letter keeps of these columns.
    pub fn context(&self, columns: &[MetadataColumn]) -> String {
        let cells = columns.iter().filter_map(|column| Some((&column.name, self.cell(&column.name)?)));
        cells.fold(String::new(), |context, (name, cell)| with_cell(&context, name, &cell))
    }
}

/// Errors: a column that is filled with something files do not have, or that is of another type.
pub fn check_metadata(def: &SourceDef) -> Result<(), OptionError> {
    for MetadataColumn { column, name } in &def.metadata {
        let Some((_, found)) = NAMES.iter().find(|known| known.0 == name) else {
            return Err(OptionError::metadata(name, format!("a record of a file has no metadata {name}; it has file, modified, row and offset")));
        };
        let declared = def.schema.field(*column).data_type();
        if def.encode == Encode::Parquet && !cast::is_possible(found, declared) {
            let message = format!("the metadata {name} is declared {}; declare it {}", sql_name(declared), sql_name(found));
            return Err(OptionError::metadata(name, message));
        }
    }
    Ok(())
}

//! Reads Parquet files row group by row group. In: footers, then the byte ranges the decoder asks for. Out: rows of the declared schema.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMillisecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use freshet_core::{DeadLetter, Error, MetadataColumn, Result, SourceBatch, SourceDef};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataPushDecoder};

use super::metadata::Place;
use super::{Files, Records, cast};
use crate::decode::{BATCH_RECORDS_MAX, data_columns, sql_name};
use crate::encode::RowText;
use crate::store::{Store, StoredFile};

/// A file whose columns are known to fit.
struct CheckedFile {
    file: StoredFile,
    metadata: ArrowReaderMetadata,
    rows: u64,
}

pub struct ParquetRecords {
    store: Rc<Store>,
    schema: SchemaRef,
    metadata: Vec<MetadataColumn>,
    files: std::vec::IntoIter<CheckedFile>,
    current: Option<Current>,
    offset: u64,
}

/// The file that is being read.
struct Current {
    file: CheckedFile,
    decoder: ParquetPushDecoder,
    /// Offset of its first row.
    first: u64,
}

impl ParquetRecords {
    /// Errors: Invalid, naming file, column and both types, where a file cannot be this source.
    pub fn open(def: &SourceDef, files: Files) -> Result<ParquetRecords> {
        let Files { store, files, first } = files;
        let checked = files.into_iter().map(|file| check(&store, file, def)).collect::<Result<Vec<_>>>()?;
        let (schema, metadata) = (def.schema.clone(), def.metadata.clone());
        Ok(ParquetRecords { store, schema, metadata, files: checked.into_iter(), current: None, offset: first })
    }

    fn begin(&mut self, file: CheckedFile, skipped: u64) -> Result<()> {
        let mut groups = Vec::new();
        let mut rest = skipped;
        for (index, group) in file.metadata.metadata().row_groups().iter().enumerate() {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            if groups.is_empty() && rest >= rows {
                rest -= rows;
            } else {
                groups.push(index);
            }
        }
        let arrow_schema = file.metadata.schema();
        let data = self.schema.fields().iter().enumerate().filter(|(index, _)| self.metadata.iter().all(|filled| filled.column != *index));
        let roots = data.filter_map(|(_, field)| arrow_schema.index_of(field.name()).ok());
        let mask = ProjectionMask::roots(file.metadata.parquet_schema(), roots);
        let builder = ParquetPushDecoderBuilder::new_with_metadata(file.metadata.clone())
            .with_batch_size(BATCH_RECORDS_MAX)
            .with_projection(mask)
            .with_row_groups(groups)
            .with_offset(usize::try_from(rest).expect("a row group fits in memory"));
        let decoder = builder.build().map_err(|error| broken(&file.file, &error))?;
        self.current = Some(Current { file, decoder, first: self.offset });
        Ok(())
    }

    /// The next batch as the file has it.
    fn read(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(Current { file, decoder, .. }) = &mut self.current else {
                let Some(file) = self.files.next() else { return Ok(None) };
                self.begin(file, 0)?;
                continue;
            };
            match decoder.try_decode().map_err(|error| broken(&file.file, &error))? {
                DecodeResult::Data(batch) => return Ok(Some(batch)),
                DecodeResult::NeedsData(ranges) => {
                    let data = fetch(&self.store, &file.file, &ranges)?;
                    decoder.push_ranges(ranges, data).map_err(|error| broken(&file.file, &error))?;
                }
                DecodeResult::Finished => self.current = None,
            }
        }
    }

    /// Casts to the declared types; rows with a value that does not fit are dead letters.
    fn convert(&mut self, found: RecordBatch) -> Result<SourceBatch> {
        let first = self.offset;
        let rows = found.num_rows();
        self.offset += rows as u64;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        let mut faults: Vec<Option<(usize, String)>> = Vec::new();
        for (index, field) in self.schema.fields().iter().enumerate() {
            if let Some(filled) = self.metadata.iter().find(|metadata| metadata.column == index) {
                columns.push(cast::cast(&self.surroundings(&filled.name, first, rows)?, field.data_type())?);
                continue;
            }
            let source = found.column_by_name(field.name()).expect("columns are checked at open");
            let column = cast::cast(source, field.data_type())?;
            if column.null_count() > 0 && (!field.is_nullable() || column.null_count() > source.logical_null_count()) {
                let source_nulls = source.logical_nulls();
                faults.resize(rows, None);
                for (row, fault) in faults.iter_mut().enumerate().filter(|(row, fault)| fault.is_none() && column.is_null(*row)) {
                    let misfit = source_nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
                    if misfit {
                        *fault = Some((index, format!("a value of type {} does not fit {}", source.data_type(), sql_name(field.data_type()))));
                    } else if !field.is_nullable() {
                        *fault = Some((index, "NULL, but the column is NOT NULL".to_string()));
                    }
                }
            }
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        if faults.iter().all(Option::is_none) {
            let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
            return Ok(SourceBatch {
                partition: 0,
                rows: batch,
                diffs: None,
                offsets: (first..self.offset).collect(),
                dead_letters: Vec::new(),
                next_offset: self.offset,
            });
        }
        let nullable = Arc::new(arrow::datatypes::Schema::new(
            self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
        ));
        let batch = RecordBatch::try_new_with_options(nullable, columns, &options)?;
        let kept: BooleanArray = faults.iter().map(|fault| Some(fault.is_none())).collect();
        let batch = filter_record_batch(&batch, &kept)?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let mut text = RowText::new(&found)?;
        let dead_letters = faults
            .iter()
            .enumerate()
            .filter_map(|(row, fault)| fault.as_ref().map(|fault| (row, fault)))
            .map(|(row, (column, reason))| DeadLetter {
                offset: first + row as u64,
                field: self.schema.field(*column).name().clone(),
                reason: reason.clone(),
                raw: text.row(row).to_vec(),
                origin: self.origin().to_string(),
                context: self.context(first + row as u64),
                ..DeadLetter::default()
            })
            .collect();
        Ok(SourceBatch {
            partition: 0,
            rows: RecordBatch::try_new_with_options(self.schema.clone(), batch.columns().to_vec(), &options)?,
            diffs: None,
            offsets: (0..rows).filter(|row| kept.value(*row)).map(|row| first + row as u64).collect(),
            dead_letters,
            next_offset: self.offset,
        })
    }
}

impl ParquetRecords {
    fn origin(&self) -> &str {
        self.current.as_ref().map_or("", |current| &current.file.file.name)
    }

    /// A column of what surrounds these rows.
    fn surroundings(&self, name: &str, first: u64, rows: usize) -> Result<ArrayRef> {
        let current = self.current.as_ref().ok_or_else(|| Error::internal("rows of no file"))?;
        let count = |from: u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values((from..from + rows as u64).map(|row| row as i64))) };
        Ok(match name {
            "file" => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&current.file.file.name, rows))),
            "modified" => Arc::new(TimestampMillisecondArray::from(vec![current.file.file.modified_ms; rows])),
            "row" => count(first - current.first),
            "offset" => count(first),
            other => return Err(Error::internal(format!("a row of a file has no metadata {other}"))),
        })
    }

    /// What decoding the row again needs.
    fn context(&self, offset: u64) -> String {
        match &self.current {
            Some(Current { file, first, .. }) => Place { file: &file.file, record: offset, row: offset - first }.context(&self.metadata),
            None => String::new(),
        }
    }
}

impl Records for ParquetRecords {
    fn skip(&mut self, records: u64) -> Result<()> {
        while self.offset < records {
            let Some(file) = self.files.next() else {
                let found = self.offset;
                return Err(Error::data(format!("cannot go on at record {records}: the files have only {found}; they have changed since")));
            };
            let wanted = records - self.offset;
            if wanted < file.rows {
                self.begin(file, wanted)?;
                self.offset = records;
            } else {
                self.offset += file.rows;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<SourceBatch>> {
        match self.read()? {
            Some(batch) => self.convert(batch).map(Some),
            None => Ok(None),
        }
    }
}

fn broken(file: &StoredFile, error: &dyn std::fmt::Display) -> Error {
    Error::data(format!("{}: not a readable Parquet file: {error}", file.name))
}

fn check(store: &Store, file: StoredFile, def: &SourceDef) -> Result<CheckedFile> {
    let metadata = footer(store, &file)?;
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new()).map_err(|error| broken(&file, &error))?;
    let found = metadata.schema();
    for field in data_columns(def).into_iter().map(|column| def.schema.field(column)) {
        let (name, wanted) = (field.name(), sql_name(field.data_type()));
        let Ok(source) = found.field_with_name(name) else {
            let names: Vec<&str> = found.fields().iter().map(|field| field.name().as_str()).collect();
            let columns = names.join(", ");
            return Err(Error::invalid(format!("{}: there is no column {name} ({wanted}); the file has {columns}. Declare one of these", file.name)));
        };
        if !cast::is_possible(source.data_type(), field.data_type()) {
            let type_found = source.data_type();
            let remedy = cast::remedy(type_found);
            return Err(Error::invalid(format!("{}: column {name} is declared {wanted}, but the file has {type_found}; {remedy}", file.name)));
        }
    }
    Ok(CheckedFile { file, metadata, rows })
}

fn fetch(store: &Store, file: &StoredFile, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
    ranges.iter().map(|range| store.read(file, range.clone()).map_err(|error| error.into_error(&file.name))).collect()
}

fn footer(store: &Store, file: &StoredFile) -> Result<ParquetMetaData> {
    if file.bytes == 0 {
        return Err(Error::invalid(format!("{}: the file is empty, but ENCODE PARQUET was declared", file.name)));
    }
    let mut decoder = ParquetMetaDataPushDecoder::try_new(file.bytes).map_err(|error| broken(file, &error))?;
    loop {
        match decoder.try_decode().map_err(|error| broken(file, &error))? {
            DecodeResult::Data(metadata) => return Ok(metadata),
            DecodeResult::NeedsData(ranges) => {
                let data = fetch(store, file, &ranges)?;
                decoder.push_ranges(ranges, data).map_err(|error| broken(file, &error))?;
            }
            DecodeResult::Finished => return Err(broken(file, &"its footer is missing")),
        }
    }
}

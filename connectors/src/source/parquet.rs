//! Reads Parquet files row group by row group. In: footers, then the byte ranges the decoder asks for. Out: rows of the declared schema.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use freshet_core::{DeadLetter, Error, Result, SourceBatch};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataPushDecoder};

use super::{Records, cast};
use crate::decode::{BATCH_RECORDS_MAX, sql_name};
use crate::encode::RowText;
use crate::store::{Store, StoredFile};

/// A file whose columns are known to fit.
struct CheckedFile {
    file: StoredFile,
    metadata: ArrowReaderMetadata,
    rows: u64,
}

pub struct ParquetRecords {
    store: Store,
    schema: SchemaRef,
    files: std::vec::IntoIter<CheckedFile>,
    current: Option<(CheckedFile, ParquetPushDecoder)>,
    offset: u64,
}

impl ParquetRecords {
    /// Errors: Invalid, naming file, column and both types, where a file cannot be this source.
    pub fn open(store: Store, files: Vec<StoredFile>, schema: SchemaRef) -> Result<ParquetRecords> {
        let checked = files.into_iter().map(|file| check(&store, file, &schema)).collect::<Result<Vec<_>>>()?;
        Ok(ParquetRecords { store, schema, files: checked.into_iter(), current: None, offset: 0 })
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
        let roots = self.schema.fields().iter().filter_map(|field| arrow_schema.index_of(field.name()).ok());
        let mask = ProjectionMask::roots(file.metadata.parquet_schema(), roots);
        let builder = ParquetPushDecoderBuilder::new_with_metadata(file.metadata.clone())
            .with_batch_size(BATCH_RECORDS_MAX)
            .with_projection(mask)
            .with_row_groups(groups)
            .with_offset(usize::try_from(rest).expect("a row group fits in memory"));
        let decoder = builder.build().map_err(|error| broken(&file.file, &error))?;
        self.current = Some((file, decoder));
        Ok(())
    }

    /// The next batch as the file has it.
    fn read(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some((checked, decoder)) = &mut self.current else {
                let Some(file) = self.files.next() else { return Ok(None) };
                self.begin(file, 0)?;
                continue;
            };
            match decoder.try_decode().map_err(|error| broken(&checked.file, &error))? {
                DecodeResult::Data(batch) => return Ok(Some(batch)),
                DecodeResult::NeedsData(ranges) => {
                    let data = ranges.iter().map(|range| self.store.read(&checked.file, range.clone())).collect::<Result<Vec<_>>>()?;
                    decoder.push_ranges(ranges, data).map_err(|error| broken(&checked.file, &error))?;
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

fn check(store: &Store, file: StoredFile, schema: &SchemaRef) -> Result<CheckedFile> {
    let metadata = footer(store, &file)?;
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new()).map_err(|error| broken(&file, &error))?;
    let found = metadata.schema();
    for field in schema.fields() {
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

fn footer(store: &Store, file: &StoredFile) -> Result<ParquetMetaData> {
    if file.bytes == 0 {
        return Err(Error::invalid(format!("{}: the file is empty, but ENCODE PARQUET was declared", file.name)));
    }
    let mut decoder = ParquetMetaDataPushDecoder::try_new(file.bytes).map_err(|error| broken(file, &error))?;
    loop {
        match decoder.try_decode().map_err(|error| broken(file, &error))? {
            DecodeResult::Data(metadata) => return Ok(metadata),
            DecodeResult::NeedsData(ranges) => {
                let data = ranges.iter().map(|range| store.read(file, range.clone())).collect::<Result<Vec<_>>>()?;
                decoder.push_ranges(ranges, data).map_err(|error| broken(file, &error))?;
            }
            DecodeResult::Finished => return Err(broken(file, &"its footer is missing")),
        }
    }
}

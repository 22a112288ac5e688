//! What leaves in Arrow. In: a schema and batches of the engine or the planner. Out: plain types every client reads, the same schema
//! in FlightInfo and in DoGet, batches of about `ANSWER_BYTES_TARGET` bytes.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::{FlightData, SchemaAsIpc};
use bytes::Bytes;
use freshet_core::{Error, Result};

use crate::limits::ANSWER_BYTES_TARGET;

/// The schema a client sees: views and dictionaries become plain strings, bytes and values. The one source of every announced schema.
pub fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| Field::new(field.name(), wire_type(field.data_type()), field.is_nullable())).collect();
    Arc::new(Schema::new(fields))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => wire_type(value),
        other => other.clone(),
    }
}

/// The batch in the announced schema. Errors: Internal if a type or a NULL does not fit, which is a bug of whoever announced it.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    if batch.num_columns() != schema.fields().len() {
        return Err(Error::internal(format!("an answer has {} columns, {} were announced", batch.num_columns(), schema.fields().len())));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| if column.data_type() == field.data_type() { Ok(column.clone()) } else { Ok(cast(column, field.data_type())?) })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Encodes batches of one schema as Flight messages; keeps its buffers between messages.
pub struct Encoder {
    schema: SchemaRef,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
}

impl Encoder {
    pub fn new(schema: SchemaRef) -> Encoder {
        Encoder {
            schema,
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            options: IpcWriteOptions::default(),
            context: IpcWriteContext::default(),
        }
    }

    /// The message that must come first.
    pub fn schema(&self, app_metadata: Bytes) -> FlightData {
        FlightData::from(SchemaAsIpc::new(&self.schema, &self.options)).with_app_metadata(app_metadata)
    }

    /// One message, however large the batch.
    pub fn batch(&mut self, batch: &RecordBatch, app_metadata: Bytes) -> Result<FlightData> {
        let (_, data) = self.generator.encode(batch, &mut self.dictionaries, &self.options, &mut self.context)?;
        Ok(FlightData::from(data).with_app_metadata(app_metadata))
    }
}

/// All messages of an answer, encoded one by one as they are fetched. The metadata goes with the schema and with every batch.
pub fn messages(schema: SchemaRef, batches: Vec<RecordBatch>, app_metadata: Bytes) -> impl Iterator<Item = Result<FlightData>> + Send {
    let mut encoder = Encoder::new(schema.clone());
    let head = encoder.schema(app_metadata.clone());
    let pieces = batches.into_iter().flat_map(pieces);
    std::iter::once(Ok(head)).chain(pieces.map(move |piece| encoder.batch(&conform(&piece, &schema)?, app_metadata.clone())))
}

/// The batch cut by rows into pieces of about `ANSWER_BYTES_TARGET`.
pub fn pieces(batch: RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    let bytes: usize = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or_default()).sum();
    let step = (rows * ANSWER_BYTES_TARGET).checked_div(bytes).unwrap_or(rows).clamp(1, rows.max(1));
    (0..rows).step_by(step).map(move |first| batch.slice(first, step.min(rows - first)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn announced_schema_and_sent_batches_agree_nullability_included() {
        let planned = Schema::new(vec![Field::new("name", DataType::Utf8View, false), Field::new("n", DataType::Int64, true)]);
        let batch = RecordBatch::try_new(
            Arc::new(planned.clone()),
            vec![Arc::new(StringViewArray::from(vec!["a", "b"])), Arc::new(Int64Array::from(vec![Some(1), None]))],
        )
        .unwrap();
        let announced = wire_schema(&planned);
        let sent = conform(&batch, &announced).unwrap();
        assert_eq!(sent.schema(), announced);
        assert_eq!(announced.field(0), &Field::new("name", DataType::Utf8, false));
    }

    #[test]
    fn large_answers_are_cut_and_lose_no_row() {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..1_000_000)) as Arc<dyn Array>)]).unwrap();
        let parts: Vec<RecordBatch> = pieces(batch.clone()).collect();
        assert!(parts.len() >= 3);
        assert_eq!(arrow::compute::concat_batches(&batch.schema(), &parts).unwrap(), batch);
        assert_eq!(pieces(batch.slice(0, 0)).count(), 0);
    }
}

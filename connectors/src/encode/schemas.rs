//! ENCODE AVRO, PROTOBUF and BYTES of sinks: one value a row, with the id of its schema in front where a registry is named.

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use freshet_core::{Epoch, Error, Result, SinkDef};
use serde_json::json;

use super::record::ValueEncoder;
use crate::avro::{self, Types, schema_of};
use crate::protobuf::{self, MESSAGE, message_named, pool_of, write_indexes};
use crate::registry::{RegistryClient, RegistryOptions, SchemaKind, Subject, frame};
use crate::schema_text::{self, SCHEMA, SCHEMA_FILE};

/// Gets the id of its schema when the first row is written, so that a registry that is away only makes the sink wait.
pub struct Registered {
    client: RegistryClient,
    topic: String,
    of_key: bool,
    kind: SchemaKind,
    schema: String,
    id: Option<u32>,
}

impl Registered {
    /// None: no registry is named.
    fn open(def: &SinkDef, of_key: bool, kind: SchemaKind, schema: String) -> Result<Option<Registered>> {
        let options = RegistryOptions::parse(&def.options).map_err(|error| Error::invalid(error.message))?;
        let Some(options) = options else { return Ok(None) };
        let topic =
            def.options.get("topic").cloned().ok_or_else(|| Error::invalid("a registry names the schema by its topic; name one: topic = '…'"))?;
        Ok(Some(Registered { client: RegistryClient::new(options)?, topic, of_key, kind, schema, id: None }))
    }

    fn id(&mut self) -> Result<u32> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let subject = if self.of_key { Subject::Key(&self.topic) } else { Subject::Value(&self.topic) };
        let id = self.client.register(subject, self.kind, &self.schema)?;
        Ok(*self.id.insert(id))
    }
}

fn id_of(registered: &mut Option<Registered>) -> Result<Option<u32>> {
    registered.as_mut().map(Registered::id).transpose()
}

/// FORMAT DEBEZIUM puts rows into an envelope of before, after, op and epoch.
pub struct AvroValues {
    writer: avro::Writer,
    registered: Option<Registered>,
    id: Option<u32>,
}

impl AvroValues {
    /// `schema` has the columns that are written. Errors: Invalid where the given schema does not fit them.
    pub fn open(def: &SinkDef, schema: &SchemaRef, of_key: bool, envelope: bool) -> Result<AvroValues> {
        let own = !of_key && !envelope && (def.options.contains_key(SCHEMA) || def.options.contains_key(SCHEMA_FILE));
        let text = if own { schema_text::read(&def.options).map_err(Error::invalid)? } else { generated(def, schema, of_key, envelope)? };
        let types = Types::parse(&text, &[]).map_err(Error::invalid)?;
        let record = if envelope { types.record(types.root()).and_then(|fields| fields.first()).map(|(_, before)| *before) } else { None };
        let writer = avro::Writer::new(&types, record.unwrap_or(types.root()), schema).map_err(Error::invalid)?;
        Ok(AvroValues { writer, registered: Registered::open(def, of_key, SchemaKind::Avro, text)?, id: None })
    }
}

fn generated(def: &SinkDef, schema: &SchemaRef, of_key: bool, envelope: bool) -> Result<String> {
    let name = if of_key { format!("{}_key", def.name) } else { def.name.clone() };
    let row = schema_of(schema, &name).map_err(Error::invalid)?;
    if !envelope {
        return Ok(row.to_string());
    }
    let again = format!("freshet.{}", row["name"].as_str().unwrap_or_default());
    let fields = json!([
        {"name": "before", "type": ["null", row], "default": null},
        {"name": "after", "type": ["null", again], "default": null},
        {"name": "op", "type": "string"},
        {"name": "epoch", "type": "long"},
    ]);
    Ok(json!({"type": "record", "name": "Envelope", "namespace": "freshet", "fields": fields}).to_string())
}

impl ValueEncoder for AvroValues {
    fn begin(&mut self, rows: &RecordBatch) -> Result<()> {
        self.id = id_of(&mut self.registered)?;
        self.writer.begin(rows)
    }

    fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        self.id.into_iter().for_each(|id| frame(id, out));
        self.writer.write(row, out)
    }

    fn write_change(&mut self, row: usize, inserted: bool, epoch: Epoch, out: &mut Vec<u8>) -> Result<()> {
        self.id.into_iter().for_each(|id| frame(id, out));
        // The branches of before and of after: null is 0, the row 1.
        if inserted {
            avro::write_long(0, out);
        }
        avro::write_long(1, out);
        self.writer.write(row, out)?;
        if !inserted {
            avro::write_long(0, out);
        }
        avro::write_counted(if inserted { b"c" } else { b"d" }, out);
        avro::write_long(i64::try_from(epoch.0).unwrap_or(i64::MAX), out);
        Ok(())
    }
}

pub struct ProtobufValues {
    writer: protobuf::Writer,
    registered: Option<Registered>,
    id: Option<u32>,
}

impl ProtobufValues {
    /// Errors: Invalid where the message does not fit the columns.
    pub fn open(def: &SinkDef) -> Result<ProtobufValues> {
        let source = pool_of(&def.options).map_err(Error::invalid)?;
        let name = def.options.get(MESSAGE).ok_or_else(|| Error::invalid("ENCODE PROTOBUF needs message = 'package.Type'"))?;
        let writer = message_named(&source, name).and_then(|message| protobuf::Writer::new(&message, &def.schema)).map_err(Error::invalid)?;
        let registered = match source.text {
            Some(text) => Registered::open(def, false, SchemaKind::Protobuf, text)?,
            None if def.options.contains_key(schema_text::REGISTRY) => {
                return Err(Error::invalid("a registry takes a .proto text, not a descriptor set: name the .proto in schema.file"));
            }
            None => None,
        };
        Ok(ProtobufValues { writer, registered, id: None })
    }
}

impl ValueEncoder for ProtobufValues {
    fn begin(&mut self, rows: &RecordBatch) -> Result<()> {
        self.id = id_of(&mut self.registered)?;
        self.writer.begin(rows)
    }

    fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if let Some(id) = self.id {
            frame(id, out);
            write_indexes(self.writer.indexes(), out);
        }
        self.writer.write(row, out)
    }
}

/// The bytes of the one column.
pub struct BytesValues {
    column: BinaryArray,
}

impl BytesValues {
    /// Errors: it is not one column, or neither bytes nor text.
    pub fn check(schema: &arrow::datatypes::Schema) -> std::result::Result<(), String> {
        let [field] = &schema.fields()[..] else {
            let count = schema.fields().len();
            return Err(format!("ENCODE BYTES writes one column, but there are {count}; select one in the view"));
        };
        let text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        if text || field.data_type().is_binary() {
            return Ok(());
        }
        Err(format!("ENCODE BYTES writes a column of type BYTEA or VARCHAR, and {} is neither", field.name()))
    }

    pub fn new() -> BytesValues {
        BytesValues { column: BinaryArray::new_null(0) }
    }
}

impl ValueEncoder for BytesValues {
    fn begin(&mut self, rows: &RecordBatch) -> Result<()> {
        self.column = cast(rows.column(0), &DataType::Binary)?.as_binary().clone();
        Ok(())
    }

    fn write(&mut self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.column.is_null(row) {
            return Err(Error::data("a NULL has no bytes; leave such rows out of the view"));
        }
        out.extend_from_slice(self.column.value(row));
        Ok(())
    }

    fn is_none(&self, row: usize) -> bool {
        self.column.is_null(row)
    }
}

//! Bytes of one record to typed cells of a row, or the reason why not.

mod again;
mod avro;
mod bytes;
mod cell;
mod column;
mod csv;
mod debezium;
mod json;
mod json_scan;
mod key;
mod protobuf;
mod record;
mod rows;

pub use again::{context_of_file, decode_again, with_cell};
pub use cell::Cell;
pub use column::{ColumnBuilder, check_types, integer_range, sql_name};
pub use record::{Metadata, NoMetadata, Record, RecordDecoder, Wait, check_source, data_columns, encode_options, record_bytes_max, source_options};
pub use rows::{BATCH_RECORDS_MAX, Fault, Rows};

use avro::AvroDecoder;
use bytes::BytesDecoder;
use csv::CsvDecoder;
use debezium::DebeziumDecoder;
use json::JsonDecoder;
use protobuf::ProtobufDecoder;

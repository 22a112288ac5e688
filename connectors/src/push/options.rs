//! WITH options of a push source. In: the declaration. Out: typed values, or the option that is wrong.

use arrow::datatypes::DataType;
use freshet_core::{BadData, Encode, Format, OptionError, SourceDef};

use crate::decode::{self, sql_name};
use crate::options::{check_names, wrong};

pub const MAX_QUEUE_BYTES: &str = "max_queue_bytes";
pub const SECRET: &str = "secret";

/// 64 MiB: a second of 100,000 rows of 600 bytes; enough for the longest step, little beside the state of a pipeline.
const QUEUE_BYTES_MAX: usize = 64 << 20;
const QUEUE_BYTES_LEAST: usize = 1 << 10;
/// Shorter keys of HMAC-SHA256 can be guessed.
const SECRET_BYTES_MIN: usize = 8;

/// A push source's own options.
#[derive(Clone)]
pub struct Options {
    pub queue_bytes_max: usize,
    pub secret: Option<Vec<u8>>,
}

/// Without the secret: options are printed.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("queue_bytes_max", &self.queue_bytes_max).field("signed", &self.secret.is_some()).finish()
    }
}

impl Options {
    pub fn parse(def: &SourceDef) -> Result<Options, OptionError> {
        let queue_bytes_max = match def.options.get(MAX_QUEUE_BYTES).map(|text| text.parse::<usize>()) {
            None => QUEUE_BYTES_MAX,
            Some(Ok(bytes)) if bytes >= QUEUE_BYTES_LEAST => bytes,
            Some(_) => return Err(wrong(MAX_QUEUE_BYTES, format!("{MAX_QUEUE_BYTES} is a number of bytes, {QUEUE_BYTES_LEAST} at least"))),
        };
        let secret = match def.options.get(SECRET) {
            None => None,
            Some(text) if text.len() >= SECRET_BYTES_MIN => Some(text.clone().into_bytes()),
            Some(_) => return Err(wrong(SECRET, format!("{SECRET} has at least {SECRET_BYTES_MIN} characters; is its variable set?"))),
        };
        Ok(Options { queue_bytes_max, secret })
    }
}

/// What CREATE SOURCE finds. Asks no one outside.
pub fn check(def: &SourceDef) -> Result<(), OptionError> {
    let mut known = vec!["bad_data", MAX_QUEUE_BYTES, SECRET];
    known.extend(decode::source_options(def.format, def.encode));
    check_names("push", def.options.keys(), &known)?;
    Options::parse(def)?;
    let whole = |message: &str| OptionError { option: None, message: message.to_string() };
    if def.encode == Encode::Parquet {
        return Err(whole("ENCODE PARQUET is for files; what is pushed is JSON, CSV, AVRO, PROTOBUF or BYTES, and Arrow in any case"));
    }
    if def.bad_data == BadData::Fail {
        return Err(wrong("bad_data", "bad_data = 'fail' would let any client stop the pipeline; use 'dead_letter' or 'drop'"));
    }
    for metadata in &def.metadata {
        let field = def.schema.field(metadata.column);
        let (fits, wanted) = match metadata.name.as_str() {
            "offset" => (*field.data_type() == DataType::Int64, "BIGINT"),
            "received" => (matches!(field.data_type(), DataType::Timestamp(_, None)), "TIMESTAMP"),
            other => {
                let message = format!("the push connector has no metadata {other}; it has offset BIGINT and received TIMESTAMP");
                return Err(OptionError::metadata(other, message));
            }
        };
        if !fits {
            let found = sql_name(field.data_type());
            let message = format!("metadata {} is {wanted}, but column {} is declared {found}", metadata.name, field.name());
            return Err(OptionError::metadata(&metadata.name, message));
        }
    }
    if def.metadata.len() == def.schema.fields().len() {
        return Err(whole("every column is metadata; declare what clients send"));
    }
    if def.format == Format::Upsert && def.key.iter().any(|key| def.metadata.iter().any(|metadata| metadata.column == *key)) {
        return Err(whole("a column of PRIMARY KEY is metadata; clients send the key"));
    }
    decode::check_source(def)
}

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use freshet_connectors::BuiltIn;
use freshet_core::{Connectors, DeadLetter, Encode, Format, NodeId, Poll, SinkDef, Source, SourceDef, Value};

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("amount", DataType::Float64, true),
    ]))
}

pub fn source(path: &Path, format: Format, encode: Encode) -> SourceDef {
    SourceDef { options: [("path".to_string(), path.display().to_string())].into(), ..SourceDef::new("events", schema(), "file", format, encode) }
}

pub fn sink(path: &Path, format: Format, encode: Encode) -> SinkDef {
    SinkDef {
        name: "out".into(),
        node: NodeId(0),
        from: "totals".into(),
        schema: schema(),
        connector: "file".into(),
        options: [("path".to_string(), path.display().to_string())].into(),
        format,
        encode,
        key: Vec::new(),
    }
}

/// Everything a source delivers.
#[derive(Debug, Default, PartialEq)]
pub struct Delivered {
    pub rows: Vec<Vec<Value>>,
    pub diffs: Vec<i64>,
    pub offsets: Vec<u64>,
    pub dead_letters: Vec<DeadLetter>,
    /// `next_offset` of each batch.
    pub borders: Vec<u64>,
}

impl Delivered {
    pub fn ids(&self) -> Vec<i128> {
        self.rows.iter().map(|row| if let Value::Int(id) = row[0] { id } else { panic!("id is NOT NULL") }).collect()
    }
}

pub fn read(def: &SourceDef, rows_max: usize) -> Delivered {
    drain(open(def), rows_max)
}

pub fn open(def: &SourceDef) -> Box<dyn Source> {
    BuiltIn.open_source(def).unwrap()
}

pub fn drain(mut source: Box<dyn Source>, rows_max: usize) -> Delivered {
    let mut delivered = Delivered::default();
    loop {
        match source.poll(rows_max).unwrap() {
            Poll::Ended => return delivered,
            Poll::Pending | Poll::PartitionEnded(_) => {}
            Poll::Batch(batch) => {
                assert_eq!(batch.rows.num_rows(), batch.offsets.len());
                assert!(batch.offsets.iter().all(|offset| *offset < batch.next_offset));
                delivered.diffs.extend(batch.diffs.unwrap_or_else(|| vec![1; batch.offsets.len()]));
                delivered.rows.extend(Value::rows_of(&batch.rows).unwrap());
                delivered.offsets.extend(batch.offsets);
                delivered.dead_letters.extend(batch.dead_letters);
                delivered.borders.push(batch.next_offset);
            }
        }
    }
}

pub fn row(id: i128, name: Option<&str>, at: Option<i128>, amount: Option<f64>) -> Vec<Value> {
    vec![
        Value::Int(id),
        name.map_or(Value::Null, |text| Value::Text(text.into())),
        at.map_or(Value::Null, Value::Int),
        amount.map_or(Value::Null, Value::Float),
    ]
}

pub fn batch(rows: &[Vec<Value>]) -> RecordBatch {
    Value::batch_of(&schema(), rows).unwrap()
}

/// Rows with every awkward value.
pub fn awkward() -> Vec<Vec<Value>> {
    vec![
        row(1, Some("plain"), Some(1_357_035_300_250), Some(0.1)),
        row(2, None, None, None),
        row(3, Some(""), Some(0), Some(-0.0)),
        row(4, Some("comma, \"quote\"\nline \\ é"), Some(-1), Some(f64::NAN)),
        row(5, Some(" edges "), Some(1), Some(f64::INFINITY)),
        row(i128::from(i64::MIN), Some("null"), Some(4_102_444_800_000), Some(5e-324)),
    ]
}

//! Seeded input with everything that goes wrong in it. In: a source's definition, a shape and a seed. Out: its records, in order.
//!
//! Few keys, clustered times, duplicates, late rows, NULLs, NaN, infinities and −0.0, retractions of live rows, silent keys, silent
//! stretches, broken records. The same seed gives the same records for ever.

use arrow::datatypes::{DataType, TimeUnit};
use freshet_core::{Format, SourceDef, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::memory::RawRecord;

/// What the input is like; chances are from 0 to 1.
#[derive(Debug, Clone)]
pub struct Shape {
    pub rows: usize,
    /// Distinct values of a text or integer column, beside NULL.
    pub keys: usize,
    pub partitions: u32,
    /// The event time of the first row, in ms.
    pub start_ms: u64,
    /// A usual step between two times, in ms; a silent stretch is up to 100 of them.
    pub step_ms: u64,
    /// A late row is at most so much behind its partition.
    pub late_ms: u64,
    pub late: f64,
    pub duplicates: f64,
    /// A row that is live is retracted; with FORMAT UPSERT its key is deleted, though another partition may have replaced it. 0 for
    /// append-only sources.
    pub retractions: f64,
    /// A row that never was is retracted (T9).
    pub stray_retractions: f64,
    pub nulls: f64,
    /// Of floats: NaN, infinities, −0.0, 1e16 and the like.
    pub special_floats: f64,
    /// Of integers: close to the ends of their type.
    pub large_integers: f64,
    pub broken: f64,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            rows: 120,
            keys: 4,
            partitions: 1,
            start_ms: 1_735_689_600_000,
            step_ms: 1_000,
            late_ms: 30_000,
            late: 0.2,
            duplicates: 0.1,
            retractions: 0.15,
            stray_retractions: 0.0,
            nulls: 0.1,
            special_floats: 0.1,
            large_integers: 0.0,
            broken: 0.0,
        }
    }
}

impl Shape {
    /// Without retractions: for sources whose rows stay (FORMAT PLAIN).
    pub fn append_only() -> Shape {
        Shape { retractions: 0.0, ..Shape::default() }
    }
}

/// The records of one source.
pub fn records(seed: u64, def: &SourceDef, shape: &Shape) -> Vec<RawRecord> {
    let mut generator = Generator {
        random: StdRng::seed_from_u64(seed),
        def,
        shape,
        now_ms: vec![shape.start_ms; shape.partitions.max(1) as usize],
        active: Vec::new(),
    };
    let mut records: Vec<RawRecord> = Vec::new();
    let mut live: Vec<(u32, Vec<Value>)> = Vec::new();
    let mut offsets = vec![0; shape.partitions.max(1) as usize];
    for index in 0..shape.rows {
        if index % 20 == 0 {
            generator.choose_active_keys();
        }
        let mut record = generator.record(&records, &mut live);
        record.offset = offsets[record.partition as usize];
        offsets[record.partition as usize] += 1;
        records.push(record);
    }
    records
}

/// Cuts input into pieces of random size, some of them empty.
pub fn micro_batches<T: Clone>(seed: u64, input: &[T], rows_max: usize) -> Vec<Vec<T>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut rest = input;
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(random.random_range(0..=rows_max.max(1)).min(rest.len()));
        batches.push(batch.to_vec());
        rest = after;
    }
    batches
}

struct Generator<'a> {
    random: StdRng,
    def: &'a SourceDef,
    shape: &'a Shape,
    /// Per partition.
    now_ms: Vec<u64>,
    /// Keys that are not silent at the moment.
    active: Vec<usize>,
}

impl Generator<'_> {
    fn choose_active_keys(&mut self) {
        let keys = self.shape.keys.max(1);
        self.active = (0..keys).filter(|_| self.random.random_bool(0.6)).collect();
        if self.active.is_empty() {
            self.active.push(self.random.random_range(0..keys));
        }
    }

    fn record(&mut self, before: &[RawRecord], live: &mut Vec<(u32, Vec<Value>)>) -> RawRecord {
        let chance = self.random.random::<f64>();
        let shape = self.shape;
        let insert = |partition, values| RawRecord { partition, offset: 0, values, diff: 1, broken: None };
        if chance < shape.retractions && !live.is_empty() {
            let (partition, values) = live.swap_remove(self.random.random_range(0..live.len()));
            return self.retraction(insert(partition, values));
        }
        if chance > 1.0 - shape.duplicates && !before.is_empty() {
            // Mostly of the row just before: equal rows of one epoch.
            let back = if self.random.random_bool(0.6) { 0 } else { self.random.random_range(0..before.len()) };
            let twin = &before[before.len() - 1 - back];
            if twin.diff > 0 && twin.broken.is_none() {
                live.push((twin.partition, twin.values.clone()));
                return insert(twin.partition, twin.values.clone());
            }
        }
        let partition = self.random.random_range(0..shape.partitions.max(1));
        let values = self.row(partition as usize);
        if self.random.random_bool(shape.broken) {
            return RawRecord { broken: Some("the generator broke it".into()), ..insert(partition, values) };
        }
        if self.random.random_bool(shape.stray_retractions) {
            return self.retraction(insert(partition, values));
        }
        live.push((partition, values.clone()));
        insert(partition, values)
    }

    /// A deletion by key has the key's columns, and at times those that say when.
    fn retraction(&mut self, record: RawRecord) -> RawRecord {
        let mut values = record.values;
        if self.def.format == Format::Upsert {
            let timed = self.random.random_bool(0.5);
            let is_kept = |column: usize| self.def.key.contains(&column) || (timed && self.def.arrival.or(self.def.event_time) == Some(column));
            values = values.into_iter().enumerate().map(|(column, value)| if is_kept(column) { value } else { Value::Null }).collect();
        }
        RawRecord { values, diff: -1, ..record }
    }

    fn row(&mut self, partition: usize) -> Vec<Value> {
        let step = match self.random.random_range(0..100) {
            0..40 => 0,
            40..80 => self.random.random_range(1..=self.shape.step_ms.max(1)),
            80..96 => self.random.random_range(1..=10 * self.shape.step_ms.max(1)),
            _ => self.random.random_range(1..=100 * self.shape.step_ms.max(1)),
        };
        self.now_ms[partition] += step;
        let arrived = self.now_ms[partition];
        let behind = if self.random.random_bool(self.shape.late) { self.random.random_range(0..=self.shape.late_ms) } else { 0 };
        let happened = arrived.saturating_sub(behind);
        (0..self.def.schema.fields().len()).map(|column| self.cell(column, happened, arrived)).collect()
    }

    fn cell(&mut self, column: usize, happened_ms: u64, arrived_ms: u64) -> Value {
        let field = self.def.schema.field(column);
        let is_clock = self.def.event_time == Some(column) || self.def.arrival == Some(column);
        if field.is_nullable() && !is_clock && self.random.random_bool(self.shape.nulls) {
            return Value::Null;
        }
        let ms = match (self.def.arrival == Some(column), self.def.event_time == Some(column)) {
            (true, _) => arrived_ms,
            (false, true) => happened_ms,
            // Other times lie around the row's own, before and after.
            (false, false) => (happened_ms + self.random.random_range(0..=20 * self.shape.step_ms)).saturating_sub(10 * self.shape.step_ms),
        };
        match field.data_type() {
            DataType::Timestamp(unit, _) => self.time(*unit, ms),
            DataType::Date32 => Value::Int(i128::from(ms / 86_400_000)),
            DataType::Boolean => Value::Bool(self.random.random_bool(0.5)),
            DataType::Float32 => Value::Float(f64::from(self.float() as f32)),
            DataType::Float64 => Value::Float(self.float()),
            DataType::Utf8 => Value::Text(format!("k{}", self.key())),
            DataType::Binary => Value::Bytes(vec![self.key() as u8]),
            data_type if data_type.is_integer() => self.integer(data_type),
            other => panic!("the generator makes no values of type {other}"),
        }
    }

    /// Half of the times lie on a full step, so that window edges are hit; finer units sometimes get a fraction of a millisecond.
    fn time(&mut self, unit: TimeUnit, ms: u64) -> Value {
        let step = self.shape.step_ms.max(1);
        let ms = i128::from(if self.random.random_bool(0.5) { ms / step * step } else { ms });
        let fraction = if self.random.random_bool(0.2) { self.random.random_range(1..1000) } else { 0 };
        Value::Int(match unit {
            TimeUnit::Second => ms / 1_000,
            TimeUnit::Millisecond => ms,
            TimeUnit::Microsecond => ms * 1_000 + fraction,
            TimeUnit::Nanosecond => ms * 1_000_000 + fraction,
        })
    }

    fn key(&mut self) -> usize {
        self.active[self.random.random_range(0..self.active.len())]
    }

    fn integer(&mut self, data_type: &DataType) -> Value {
        let small = self.key() as i128;
        if !self.random.random_bool(self.shape.large_integers) {
            return Value::Int(small);
        }
        let (least, greatest): (i128, i128) = match data_type {
            DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
            DataType::UInt8 => (0, u8::MAX.into()),
            DataType::UInt16 => (0, u16::MAX.into()),
            DataType::UInt32 => (0, u32::MAX.into()),
            _ => (0, u64::MAX.into()),
        };
        Value::Int(if self.random.random_bool(0.5) { greatest - small } else { least + small })
    }

    fn float(&mut self) -> f64 {
        if self.random.random_bool(self.shape.special_floats) {
            const SPECIAL: [f64; 9] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 1e16, -1e16, 5e-324, 1e308];
            return SPECIAL[self.random.random_range(0..SPECIAL.len())];
        }
        match self.random.random_range(0..3) {
            0 => f64::from(self.random.random_range(-3..=3)),
            1 => f64::from(self.random.random_range(-1000..=1000)) / 10.0,
            _ => self.random.random_range(-1e6..1e6),
        }
    }
}

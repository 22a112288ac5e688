//! The binary form of state in checkpoints: little-endian, lengths before contents. What `put` writes, `take` reads.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::i256;
use freshet_core::{Error, ExactSum, Interval, PairMoments, Result, Value};

use crate::state::{Cell, Counted, Datum, DistinctSketch, Ranks, Sequence};

/// Reads what the `put` functions wrote. Errors: Data if the bytes end early or hold something else.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len).ok_or_else(|| Error::data("a checkpoint file ends early"))?;
        self.0 = tail;
        Ok(head)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken")))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(self.u64()? as i64)
    }

    pub fn i128(&mut self) -> Result<i128> {
        Ok(i128::from_le_bytes(self.take(16)?.try_into().expect("sixteen bytes were taken")))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.u64()? as usize;
        self.take(len)
    }

    pub fn value(&mut self) -> Result<Value> {
        Ok(match self.u8()? {
            0 => Value::Null,
            1 => Value::Bool(self.u8()? == 1),
            2 => Value::Int(self.i128()?),
            3 => Value::Float(f64::from_bits(self.u64()?)),
            4 => Value::Text(String::from_utf8_lossy(self.bytes()?).into_owned()),
            5 => Value::Bytes(self.bytes()?.to_vec()),
            6 => {
                let (months, days) = (self.i64()? as i32, self.i64()? as i32);
                Value::Interval(Box::new(Interval { months, days, nanoseconds: self.i64()? }))
            }
            7 => Value::List(self.values()?),
            8 => Value::Struct(self.values()?),
            9 => Value::Map((0..self.u64()?).map(|_| Ok((self.value()?, self.value()?))).collect::<Result<_>>()?),
            tag => return Err(Error::data(format!("a checkpoint file holds an unknown value tag {tag}"))),
        })
    }

    fn values(&mut self) -> Result<Vec<Value>> {
        (0..self.u64()?).map(|_| self.value()).collect()
    }

    pub fn datum(&mut self) -> Result<Datum> {
        Ok(match self.u8()? {
            0 => Datum::Skip,
            1 => Datum::Row,
            2 => Datum::Int(self.i64()?),
            3 => Datum::Float(f64::from_bits(self.u64()?)),
            4 => Datum::Other(self.value()?),
            5 => Datum::Scored(f64::from_bits(self.u64()?), self.u8()? == 1),
            6 => Datum::Pair(f64::from_bits(self.u64()?), f64::from_bits(self.u64()?)),
            7 => Datum::Entry(self.bytes()?.into(), self.u64()?),
            tag => return Err(Error::data(format!("a checkpoint file holds an unknown datum tag {tag}"))),
        })
    }

    fn sum(&mut self) -> Result<ExactSum> {
        ExactSum::from_bytes(self.bytes()?).ok_or_else(|| Error::data("a checkpoint file holds a broken sum"))
    }

    fn counts(&mut self) -> Result<BTreeMap<Value, i64>> {
        (0..self.u64()?).map(|_| Ok((self.value()?, self.i64()?))).collect()
    }

    pub fn cell(&mut self) -> Result<Cell> {
        Ok(match self.u8()? {
            0 => Cell::Count(self.i64()?),
            1 => Cell::Int { sum: self.i128()?, count: self.i64()? },
            2 => Cell::Float { sum: self.sum()?, count: self.i64()? },
            3 => Cell::Moments { sum: self.sum()?, squares: self.sum()?, count: self.i64()? },
            4 => Cell::Extremes(None),
            5 => Cell::Extremes(Some((self.value()?, self.value()?))),
            6 => Cell::Multiset(self.counts()?),
            7 => Cell::Bools { trues: self.i64()?, count: self.i64()? },
            8 => {
                let mut counts = HashMap::with_hasher(ahash::RandomState::with_seeds(9, 10, 11, 12));
                for _ in 0..self.u64()? {
                    counts.insert(self.value()?, self.i64()?);
                }
                Cell::Distinct(counts, Box::new(self.cell()?))
            }
            9 => Cell::Ranks(Box::new(Ranks::take(self)?)),
            10 => Cell::Decimal { sum: i256::from_le_bytes(self.take(32)?.try_into().expect("32 bytes were taken")), count: self.i64()? },
            11 => {
                let count = self.i64()?;
                let (y, x, yy, xx, xy) = (self.sum()?, self.sum()?, self.sum()?, self.sum()?, self.sum()?);
                Cell::Pairs(Box::new(PairMoments { count, y, x, yy, xx, xy }))
            }
            12 => {
                let mut ones = Box::new([0; 64]);
                for ones in ones.iter_mut() {
                    *ones = self.i64()?;
                }
                Cell::Bits { ones, count: self.i64()? }
            }
            13 => {
                let mut values = Counted::default();
                for _ in 0..self.u64()? {
                    values.add(self.value()?, self.i64()?);
                }
                Cell::Ordered(Box::new(values))
            }
            14 => {
                let mut buckets = Counted::default();
                for _ in 0..self.u64()? {
                    buckets.add(self.i64()? as i32, self.i64()?);
                }
                Cell::Buckets(Box::new(buckets))
            }
            15 => Cell::Weights((0..self.u64()?).map(|_| Ok((self.i64()? as i32, self.sum()?))).collect::<Result<_>>()?),
            16 => Cell::Sketch(Box::new(DistinctSketch::take(self)?)),
            17 => Cell::Sequence(Box::new(Sequence::take(self)?)),
            tag => return Err(Error::data(format!("a checkpoint file holds an unknown cell tag {tag}"))),
        })
    }
}

pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes());
}

pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend(value.to_le_bytes());
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(value) => out.extend([1, u8::from(*value)]),
        Value::Int(value) => {
            out.push(2);
            out.extend(value.to_le_bytes());
        }
        Value::Float(value) => {
            out.push(3);
            put_u64(out, value.to_bits());
        }
        Value::Text(value) => {
            out.push(4);
            put_bytes(out, value.as_bytes());
        }
        Value::Bytes(value) => {
            out.push(5);
            put_bytes(out, value);
        }
        Value::Interval(value) => {
            out.push(6);
            [value.months.into(), value.days.into(), value.nanoseconds].into_iter().for_each(|part| put_i64(out, part));
        }
        Value::List(values) | Value::Struct(values) => {
            out.push(if matches!(value, Value::List(_)) { 7 } else { 8 });
            put_u64(out, values.len() as u64);
            values.iter().for_each(|value| put_value(out, value));
        }
        Value::Map(entries) => {
            out.push(9);
            put_u64(out, entries.len() as u64);
            entries.iter().flat_map(|(key, value)| [key, value]).for_each(|value| put_value(out, value));
        }
    }
}

pub fn put_datum(out: &mut Vec<u8>, datum: &Datum) {
    match datum {
        Datum::Skip => out.push(0),
        Datum::Row => out.push(1),
        Datum::Int(value) => {
            out.push(2);
            put_i64(out, *value);
        }
        Datum::Float(value) => {
            out.push(3);
            put_u64(out, value.to_bits());
        }
        Datum::Other(value) => {
            out.push(4);
            put_value(out, value);
        }
        Datum::Scored(score, label) => {
            out.push(5);
            put_u64(out, score.to_bits());
            out.push(u8::from(*label));
        }
        Datum::Pair(left, right) => {
            out.push(6);
            put_u64(out, left.to_bits());
            put_u64(out, right.to_bits());
        }
        Datum::Entry(entry, position) => {
            out.push(7);
            put_bytes(out, entry);
            put_u64(out, *position);
        }
    }
}

fn put_counts<'a>(out: &mut Vec<u8>, counts: impl IntoIterator<Item = (&'a Value, &'a i64), IntoIter: ExactSizeIterator>) {
    let counts = counts.into_iter();
    put_u64(out, counts.len() as u64);
    for (value, count) in counts {
        put_value(out, value);
        put_i64(out, *count);
    }
}

pub fn put_cell(out: &mut Vec<u8>, cell: &Cell) {
    match cell {
        Cell::Count(count) => {
            out.push(0);
            put_i64(out, *count);
        }
        Cell::Int { sum, count } => {
            out.push(1);
            out.extend(sum.to_le_bytes());
            put_i64(out, *count);
        }
        Cell::Float { sum, count } => {
            out.push(2);
            put_bytes(out, &sum.to_bytes());
            put_i64(out, *count);
        }
        Cell::Moments { sum, squares, count } => {
            out.push(3);
            put_bytes(out, &sum.to_bytes());
            put_bytes(out, &squares.to_bytes());
            put_i64(out, *count);
        }
        Cell::Extremes(None) => out.push(4),
        Cell::Extremes(Some((least, greatest))) => {
            out.push(5);
            put_value(out, least);
            put_value(out, greatest);
        }
        Cell::Multiset(counts) => {
            out.push(6);
            put_counts(out, counts);
        }
        Cell::Bools { trues, count } => {
            out.push(7);
            put_i64(out, *trues);
            put_i64(out, *count);
        }
        Cell::Distinct(counts, inner) => {
            out.push(8);
            // In order, so that equal state has equal bytes.
            put_counts(out, counts.iter().collect::<BTreeMap<_, _>>());
            put_cell(out, inner);
        }
        Cell::Ranks(ranks) => {
            out.push(9);
            ranks.put(out);
        }
        Cell::Decimal { sum, count } => {
            out.push(10);
            out.extend(sum.to_le_bytes());
            put_i64(out, *count);
        }
        Cell::Pairs(moments) => {
            out.push(11);
            put_i64(out, moments.count);
            let sums = [&moments.y, &moments.x, &moments.yy, &moments.xx, &moments.xy];
            sums.into_iter().for_each(|sum| put_bytes(out, &sum.to_bytes()));
        }
        Cell::Bits { ones, count } => {
            out.push(12);
            ones.iter().chain([count]).for_each(|count| put_i64(out, *count));
        }
        Cell::Ordered(values) => {
            out.push(13);
            put_u64(out, values.values() as u64);
            values.for_each(|value, count| {
                put_value(out, value);
                put_i64(out, count);
            });
        }
        Cell::Buckets(buckets) => {
            out.push(14);
            put_u64(out, buckets.values() as u64);
            buckets.for_each(|bucket, count| {
                put_i64(out, (*bucket).into());
                put_i64(out, count);
            });
        }
        Cell::Weights(buckets) => {
            out.push(15);
            put_u64(out, buckets.len() as u64);
            for (bucket, sum) in buckets.iter() {
                put_i64(out, (*bucket).into());
                put_bytes(out, &sum.to_bytes());
            }
        }
        Cell::Sketch(sketch) => {
            out.push(16);
            sketch.put(out);
        }
        Cell::Sequence(sequence) => {
            out.push(17);
            sequence.put(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use freshet_core::AggregateFunction;

    use super::*;
    use crate::state::CellKind;

    #[test]
    fn every_cell_is_read_back_as_it_was_written() {
        for function in
            [AggregateFunction::Count, AggregateFunction::Sum, AggregateFunction::Avg, AggregateFunction::StddevPop, AggregateFunction::Min]
        {
            for (data_type, datum) in [(DataType::Int64, Datum::Int(7)), (DataType::Float64, Datum::Float(0.1))] {
                for (distinct, retractable) in [(false, false), (true, true), (false, true)] {
                    let mut cell = CellKind::new(function, Some(data_type.clone()), distinct, retractable).empty();
                    cell.add(&datum, 3);
                    let mut bytes = Vec::new();
                    put_cell(&mut bytes, &cell);
                    let back = Bytes(&bytes).cell().unwrap();
                    assert_eq!(format!("{back:?}"), format!("{cell:?}"));
                }
            }
        }
    }
}

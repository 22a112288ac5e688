//! The binary form of state in checkpoints: little-endian, lengths before contents. What `put` writes, `take` reads.

use std::collections::BTreeMap;

use freshet_core::{Error, ExactSum, Result, Value};

use crate::state::{Cell, Datum, Ranks};

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
            tag => return Err(Error::data(format!("a checkpoint file holds an unknown value tag {tag}"))),
        })
    }

    pub fn datum(&mut self) -> Result<Datum> {
        Ok(match self.u8()? {
            0 => Datum::Skip,
            1 => Datum::Row,
            2 => Datum::Int(self.i64()?),
            3 => Datum::Float(f64::from_bits(self.u64()?)),
            4 => Datum::Other(self.value()?),
            5 => Datum::Scored(f64::from_bits(self.u64()?), self.u8()? == 1),
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
            8 => Cell::Distinct(self.counts()?, Box::new(self.cell()?)),
            9 => Cell::Ranks(Box::new(Ranks::take(self)?)),
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
    }
}

fn put_counts(out: &mut Vec<u8>, counts: &BTreeMap<Value, i64>) {
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
            put_counts(out, counts);
            put_cell(out, inner);
        }
        Cell::Ranks(ranks) => {
            out.push(9);
            ranks.put(out);
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
                    let mut cell = CellKind { function, argument: Some(data_type.clone()), distinct, retractable }.empty();
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

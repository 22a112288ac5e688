//! Accumulators: what one aggregate keeps for one set of rows. Every one equals recomputation over the surviving multiset (T9).

use std::collections::{BTreeMap, HashMap, btree_map, hash_map};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type, i256};
use arrow::row::Rows;
use freshet_core::{
    AggregateFunction, AggregateParameter, Batch, Epoch, Error, ExactSum, PairMoments, Result, Value, add_square, distinct_hash, percentile_bucket,
    variance,
};

use crate::state::outputs::{decimal_mean, decimal_sum, percentile, sketched_percentile, weighted_percentile};
use crate::state::{Counted, DistinctSketch, Ranks, Sequence};

/// What one row contributes to one cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// Nothing: the filter is not true, or the argument is NULL.
    Skip,
    /// A row without a value: count(*).
    Row,
    Int(i64),
    Float(f64),
    Other(Value),
    /// A score and its label.
    Scored(f64, bool),
    /// y and x, or a value and its weight.
    Pair(f64, f64),
    /// A place in an order with its value, and the row's position.
    Entry(Box<[u8]>, u64),
}

/// One accumulator; its kind is fixed by the function and the argument's type.
#[derive(Debug, Clone)]
pub enum Cell {
    Count(i64),
    Int {
        sum: i128,
        count: i64,
    },
    Float {
        sum: ExactSum,
        count: i64,
    },
    Decimal {
        sum: i256,
        count: i64,
    },
    Moments {
        sum: ExactSum,
        squares: ExactSum,
        count: i64,
    },
    Pairs(Box<PairMoments>),
    /// The least and greatest value of rows that are never retracted, or whose holder rebuilds the cell after a retraction.
    Extremes(Option<(Value, Value)>),
    /// All values with their counts: least and greatest under retraction.
    Multiset(BTreeMap<Value, i64>),
    Bools {
        trues: i64,
        count: i64,
    },
    /// How many values have each bit.
    Bits {
        ones: Box<[i64; 64]>,
        count: i64,
    },
    /// Scores in order, for auc.
    Ranks(Box<Ranks>),
    /// Values in order, for percentile_cont.
    Ordered(Box<Counted<Value>>),
    /// Buckets of values, for approx_percentile.
    Buckets(Box<Counted<i32>>),
    /// The weight of each bucket.
    Weights(BTreeMap<i32, ExactSum>),
    Sketch(Box<DistinctSketch>),
    Sequence(Box<Sequence>),
    /// Distinct values with their counts, and the cell over each value once. No answer depends on the order of the values.
    Distinct(HashMap<Value, i64, ahash::RandomState>, Box<Cell>),
}

/// What a cell must be able to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CellKind {
    pub function: AggregateFunction,
    pub argument: Option<DataType>,
    pub distinct: bool,
    /// Values may be taken out again.
    pub retractable: bool,
    /// Of approx_percentile: rows have weights. Of sequences: they are in order of arrival.
    pub variant: bool,
    pub parameter: Option<AggregateParameter>,
}

impl CellKind {
    /// A kind with nothing but an argument.
    pub fn new(function: AggregateFunction, argument: Option<DataType>, distinct: bool, retractable: bool) -> CellKind {
        CellKind { function, argument, distinct, retractable, variant: false, parameter: None }
    }

    pub fn empty(&self) -> Cell {
        use AggregateFunction::*;
        let float = matches!(self.argument, Some(DataType::Float64 | DataType::Float32));
        let cell = match self.function {
            Count => Cell::Count(0),
            Sum | Avg if matches!(self.argument, Some(DataType::Decimal128(_, _))) => Cell::Decimal { sum: i256::ZERO, count: 0 },
            Sum if !float => Cell::Int { sum: 0, count: 0 },
            Sum | Avg => Cell::Float { sum: ExactSum::default(), count: 0 },
            VarSamp | VarPop | StddevSamp | StddevPop => Cell::Moments { sum: ExactSum::default(), squares: ExactSum::default(), count: 0 },
            // The least and greatest of distinct values are those of the values.
            Min | Max if self.retractable => return Cell::Multiset(BTreeMap::new()),
            Min | Max => return Cell::Extremes(None),
            BoolAnd | BoolOr => Cell::Bools { trues: 0, count: 0 },
            Auc => return Cell::Ranks(Box::default()),
            BitAnd | BitOr | BitXor => Cell::Bits { ones: Box::new([0; 64]), count: 0 },
            PercentileCont => Cell::Ordered(Box::default()),
            ApproxPercentile if self.variant => Cell::Weights(BTreeMap::default()),
            ApproxPercentile => Cell::Buckets(Box::default()),
            ApproxDistinct => return Cell::Sketch(Box::default()),
            FirstValue | LastValue | NthValue | ArrayAgg | StringAgg => return Cell::Sequence(Box::new(Sequence::new(self.variant))),
            Corr | CovarSamp | CovarPop | RegrSlope | RegrIntercept | RegrCount | RegrR2 | RegrAvgX | RegrAvgY | RegrSxx | RegrSyy | RegrSxy => {
                Cell::Pairs(Box::default())
            }
        };
        if self.distinct { Cell::Distinct(HashMap::with_hasher(ahash::RandomState::with_seeds(9, 10, 11, 12)), Box::new(cell)) } else { cell }
    }

    /// What a cell of this kind answers. Errors: Data where it does not fit its type (T21). Not for sequences, which need their codec.
    pub fn value(&self, cell: &Cell, data_type: &DataType) -> Result<Value> {
        let fraction = || match &self.parameter {
            Some(AggregateParameter::Fraction(fraction)) => Ok(fraction.get()),
            _ => Err(Error::internal(format!("{} has a fraction", self.function.sql()))),
        };
        Ok(match cell {
            Cell::Distinct(_, inner) => return self.value(inner, data_type),
            Cell::Decimal { count: 0, .. } => Value::Null,
            Cell::Decimal { sum, count } if self.function == AggregateFunction::Avg => {
                return decimal_mean(*sum, *count, self.argument.as_ref(), data_type);
            }
            Cell::Decimal { sum, .. } => return decimal_sum(*sum, data_type),
            Cell::Ordered(values) => percentile(values, fraction()?),
            Cell::Buckets(buckets) => sketched_percentile(buckets, fraction()?, data_type),
            Cell::Weights(buckets) => weighted_percentile(buckets, fraction()?, data_type),
            cell => return cell.output(self.function, data_type),
        })
    }
}

impl Cell {
    /// Adds what a row contributes `times` times; negative takes it out.
    pub fn add(&mut self, datum: &Datum, times: i64) {
        if matches!(datum, Datum::Skip) {
            return;
        }
        match self {
            Cell::Count(count) => *count += times,
            Cell::Int { sum, count } => {
                if let Some(value) = int(datum) {
                    *sum += value * i128::from(times);
                    *count += times;
                }
            }
            Cell::Float { sum, count } => {
                sum.add(float(datum), times);
                *count += times;
            }
            Cell::Moments { sum, squares, count } => {
                let value = float(datum);
                sum.add(value, times);
                add_square(squares, value, times);
                *count += times;
            }
            Cell::Decimal { sum, count } => {
                if let Some(value) = int(datum) {
                    *sum = sum.wrapping_add(i256::from_i128(value).wrapping_mul(i256::from_i128(times.into())));
                    *count += times;
                }
            }
            Cell::Pairs(moments) => {
                if let Datum::Pair(y, x) = datum {
                    moments.add(*y, *x, times);
                }
            }
            Cell::Bits { ones, count } => {
                if let Some(value) = int(datum) {
                    // The lowest 64 bits: all that integers have, negative ones as two's complement.
                    let mut bits = value as u64;
                    while bits != 0 {
                        ones[bits.trailing_zeros() as usize] += times;
                        bits &= bits - 1;
                    }
                    *count += times;
                }
            }
            Cell::Ordered(values) => values.add(value(datum), times),
            Cell::Buckets(buckets) => buckets.add(percentile_bucket(float(datum)), times),
            Cell::Weights(buckets) => {
                if let Datum::Pair(value, weight) = datum
                    && *weight > 0.0
                {
                    let bucket = percentile_bucket(*value);
                    let sum = buckets.entry(bucket).or_default();
                    sum.add(*weight, times);
                    if sum.value() == 0.0 {
                        buckets.remove(&bucket);
                    }
                }
            }
            Cell::Sketch(sketch) => sketch.add(distinct_hash(&value(datum)), times),
            Cell::Sequence(sequence) => {
                if let Datum::Entry(entry, position) = datum {
                    sequence.add(entry, *position, times);
                }
            }
            Cell::Extremes(extremes) => {
                let value = value(datum);
                match extremes {
                    None => *extremes = Some((value.clone(), value)),
                    Some((least, greatest)) => {
                        if value < *least {
                            *least = value;
                        } else if value > *greatest {
                            *greatest = value;
                        }
                    }
                }
            }
            Cell::Multiset(counts) => {
                change_count(counts, value(datum), times);
            }
            Cell::Bools { trues, count } => {
                *trues += if matches!(datum, Datum::Other(Value::Bool(true))) { times } else { 0 };
                *count += times;
            }
            Cell::Ranks(ranks) => {
                let Datum::Scored(score, label) = datum else { unreachable!("the reader of auc has labels") };
                ranks.add(*score, *label, times);
            }
            Cell::Distinct(counts, inner) => {
                let (before, after) = change_distinct(counts, value(datum), times);
                match (before > 0, after > 0) {
                    (false, true) => inner.add(datum, 1),
                    (true, false) => inner.add(datum, -1),
                    _ => {}
                }
            }
        }
    }

    /// The epoch is over; before the cell is read.
    pub fn close(&mut self, epoch: Epoch) {
        if let Cell::Sequence(sequence) = self {
            sequence.close(epoch);
        }
    }

    /// Adds all of `other`, a cell of the same kind without DISTINCT.
    pub fn merge(&mut self, other: &Cell) {
        match (self, other) {
            (Cell::Count(count), Cell::Count(more)) => *count += more,
            (Cell::Int { sum, count }, Cell::Int { sum: more, count: rows }) => {
                *sum += more;
                *count += rows;
            }
            (Cell::Float { sum, count }, Cell::Float { sum: more, count: rows }) => {
                sum.merge(more);
                *count += rows;
            }
            (Cell::Moments { sum, squares, count }, Cell::Moments { sum: more, squares: more_squares, count: rows }) => {
                sum.merge(more);
                squares.merge(more_squares);
                *count += rows;
            }
            (Cell::Extremes(ours), Cell::Extremes(theirs)) => {
                if let Some((least, greatest)) = theirs {
                    match ours {
                        None => *ours = Some((least.clone(), greatest.clone())),
                        Some((low, high)) => {
                            if *least < *low {
                                low.clone_from(least);
                            }
                            if *greatest > *high {
                                high.clone_from(greatest);
                            }
                        }
                    }
                }
            }
            (Cell::Bools { trues, count }, Cell::Bools { trues: more, count: rows }) => {
                *trues += more;
                *count += rows;
            }
            (ours, theirs) => unreachable!("cells of one kind merge, not {ours:?} with {theirs:?}"),
        }
    }

    /// The aggregate's value. Errors: Data where it does not fit its type (T21).
    pub fn output(&self, function: AggregateFunction, data_type: &DataType) -> Result<Value> {
        Ok(match self {
            Cell::Count(count) => Value::Int(i128::from(*count)),
            Cell::Int { count: 0, .. } | Cell::Float { count: 0, .. } | Cell::Bools { count: 0, .. } | Cell::Bits { count: 0, .. } => Value::Null,
            Cell::Bits { ones, count } => {
                let holds = |ones: i64| match function {
                    AggregateFunction::BitAnd => ones == *count,
                    AggregateFunction::BitOr => ones > 0,
                    _ => ones & 1 == 1,
                };
                let bits = ones.iter().enumerate().fold(0u64, |bits, (bit, ones)| bits | u64::from(holds(*ones)) << bit);
                Value::Int(if data_type.is_unsigned_integer() { bits.into() } else { (bits as i64).into() })
            }
            Cell::Pairs(moments) if function == AggregateFunction::RegrCount => Value::Int(moments.count.into()),
            Cell::Pairs(moments) => moments.value(function).map_or(Value::Null, Value::Float),
            Cell::Sketch(sketch) => Value::Int(sketch.estimate().into()),
            Cell::Decimal { .. } | Cell::Ordered(_) | Cell::Buckets(_) | Cell::Weights(_) | Cell::Sequence(_) => {
                return Err(Error::internal(format!("{} is not answered by its cell alone", function.sql())));
            }
            Cell::Int { sum, .. } => {
                let fits = match data_type {
                    DataType::UInt64 => u64::try_from(*sum).is_ok(),
                    _ => i64::try_from(*sum).is_ok(),
                };
                if !fits {
                    return Err(freshet_core::Error::data(format!("sum {sum} is out of range of {data_type}")));
                }
                Value::Int(*sum)
            }
            Cell::Float { sum, count } if function == AggregateFunction::Avg => Value::Float(sum.mean(*count)),
            Cell::Float { sum, .. } => Value::Float(sum.value()),
            Cell::Moments { sum, squares, count } => {
                let ddof = i64::from(matches!(function, AggregateFunction::VarSamp | AggregateFunction::StddevSamp));
                let root = matches!(function, AggregateFunction::StddevSamp | AggregateFunction::StddevPop);
                variance(*count, sum, squares, ddof).map_or(Value::Null, |variance| Value::Float(if root { variance.sqrt() } else { variance }))
            }
            Cell::Extremes(extremes) => match extremes {
                None => Value::Null,
                Some((least, _)) if function == AggregateFunction::Min => least.clone(),
                Some((_, greatest)) => greatest.clone(),
            },
            Cell::Multiset(counts) => {
                let found = if function == AggregateFunction::Min { counts.first_key_value() } else { counts.last_key_value() };
                found.map_or(Value::Null, |(value, _)| value.clone())
            }
            Cell::Bools { trues, count } if function == AggregateFunction::BoolAnd => Value::Bool(trues == count),
            Cell::Bools { trues, .. } => Value::Bool(*trues > 0),
            Cell::Ranks(ranks) => ranks.area().map_or(Value::Null, Value::Float),
            Cell::Distinct(_, inner) => return inner.output(function, data_type),
        })
    }

    /// True for cells whose value after a retraction must be rebuilt from the remaining rows.
    pub fn needs_rebuild(&self) -> bool {
        matches!(self, Cell::Extremes(_))
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        size_of::<Cell>()
            + match self {
                Cell::Float { sum, .. } => sum.heap_bytes(),
                Cell::Moments { sum, squares, .. } => sum.heap_bytes() + squares.heap_bytes(),
                Cell::Multiset(counts) => counts.len() * 48,
                Cell::Ranks(ranks) => ranks.bytes(),
                Cell::Pairs(moments) => size_of::<PairMoments>() + moments.heap_bytes(),
                Cell::Bits { .. } => 512,
                Cell::Ordered(values) => values.values() * (size_of::<Value>() + 8),
                Cell::Buckets(buckets) => buckets.values() * 16,
                Cell::Weights(buckets) => buckets.len() * 80,
                Cell::Sketch(sketch) => sketch.bytes(),
                Cell::Sequence(sequence) => sequence.bytes(),
                Cell::Distinct(counts, inner) => counts.len() * 48 + inner.bytes(),
                _ => 0,
            }
    }
}

fn change_count(counts: &mut BTreeMap<Value, i64>, value: Value, times: i64) {
    match counts.entry(value) {
        btree_map::Entry::Vacant(vacant) => {
            if times != 0 {
                vacant.insert(times);
            }
        }
        btree_map::Entry::Occupied(mut occupied) => {
            *occupied.get_mut() += times;
            if *occupied.get() == 0 {
                occupied.remove();
            }
        }
    }
}

/// The count before and after.
fn change_distinct(counts: &mut HashMap<Value, i64, ahash::RandomState>, value: Value, times: i64) -> (i64, i64) {
    match counts.entry(value) {
        hash_map::Entry::Vacant(vacant) => {
            if times != 0 {
                vacant.insert(times);
            }
            (0, times)
        }
        hash_map::Entry::Occupied(mut occupied) => {
            let before = *occupied.get();
            let after = before + times;
            if after == 0 {
                occupied.remove();
            } else {
                occupied.insert(after);
            }
            (before, after)
        }
    }
}

fn int(datum: &Datum) -> Option<i128> {
    match datum {
        Datum::Int(value) => Some(i128::from(*value)),
        Datum::Other(Value::Int(value)) => Some(*value),
        _ => None,
    }
}

fn float(datum: &Datum) -> f64 {
    match datum {
        Datum::Float(value) | Datum::Other(Value::Float(value)) => *value,
        Datum::Int(value) => *value as f64,
        Datum::Other(Value::Int(value)) => *value as f64,
        _ => f64::NAN,
    }
}

fn value(datum: &Datum) -> Value {
    match datum {
        Datum::Skip | Datum::Row | Datum::Scored(..) | Datum::Pair(..) | Datum::Entry(..) => Value::Null,
        Datum::Int(value) => Value::Int(i128::from(*value)),
        Datum::Float(value) => Value::Float(*value),
        Datum::Other(value) => value.clone(),
    }
}

/// Reads what each row of a batch contributes to one cell.
pub struct DatumReader<'a> {
    filter: Option<&'a BooleanArray>,
    argument: Argument<'a>,
}

enum Argument<'a> {
    None,
    Int(&'a Int64Array),
    Float(&'a Float64Array),
    Other(&'a ArrayRef),
    Scored(&'a Float64Array, &'a BooleanArray),
    Pair(&'a Float64Array, &'a Float64Array),
    Entries { rows: Rows, values: &'a ArrayRef, skip_nulls: bool, batch: &'a Batch },
}

impl<'a> DatumReader<'a> {
    pub fn new(argument: Option<&'a ArrayRef>, filter: Option<&'a ArrayRef>) -> DatumReader<'a> {
        let argument = match argument {
            None => Argument::None,
            Some(column) => match column.data_type() {
                DataType::Int64 => Argument::Int(column.as_primitive::<Int64Type>()),
                DataType::Float64 => Argument::Float(column.as_primitive::<Float64Type>()),
                _ => Argument::Other(column),
            },
        };
        DatumReader { filter: filter.map(|column| column.as_boolean()), argument }
    }

    /// With the second argument: the labels of scores, or the other half of pairs. Panics unless the first is Float64 and this is Float64 or
    /// BOOLEAN.
    pub fn with_second(self, second: Option<&'a ArrayRef>) -> DatumReader<'a> {
        let Some(second) = second else { return self };
        let Argument::Float(first) = self.argument else { panic!("what comes in pairs is Float64") };
        let argument = match second.data_type() {
            DataType::Boolean => Argument::Scored(first, second.as_boolean()),
            _ => Argument::Pair(first, second.as_primitive::<Float64Type>()),
        };
        DatumReader { argument, ..self }
    }

    /// Of a sequence: `rows` are the encoded entries of the batch, `values` the column behind them.
    pub fn entries(rows: Rows, values: &'a ArrayRef, skip_nulls: bool, batch: &'a Batch, filter: Option<&'a ArrayRef>) -> DatumReader<'a> {
        DatumReader { filter: filter.map(|column| column.as_boolean()), argument: Argument::Entries { rows, values, skip_nulls, batch } }
    }

    pub fn get(&self, row: usize) -> Datum {
        if let Some(filter) = self.filter
            && !(filter.is_valid(row) && filter.value(row))
        {
            return Datum::Skip;
        }
        match &self.argument {
            Argument::None => Datum::Row,
            Argument::Int(values) if values.is_valid(row) => Datum::Int(values.value(row)),
            Argument::Float(values) if values.is_valid(row) => Datum::Float(values.value(row)),
            Argument::Scored(scores, labels) if scores.is_valid(row) && labels.is_valid(row) => Datum::Scored(scores.value(row), labels.value(row)),
            Argument::Pair(left, right) if left.is_valid(row) && right.is_valid(row) => Datum::Pair(left.value(row), right.value(row)),
            Argument::Entries { rows, values, skip_nulls, batch } if !skip_nulls || values.is_valid(row) => {
                Datum::Entry(rows.row(row).as_ref().into(), batch.position(row))
            }
            Argument::Other(values) if values.is_valid(row) => {
                Datum::Other(Value::of(values, row).expect("the planner lets only types that views hold be arguments"))
            }
            _ => Datum::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(function: AggregateFunction, argument: Option<DataType>, distinct: bool, retractable: bool) -> CellKind {
        CellKind::new(function, argument, distinct, retractable)
    }

    #[test]
    fn t9_retraction_restores_the_earlier_value() {
        let functions = [
            (AggregateFunction::Sum, DataType::Float64),
            (AggregateFunction::Avg, DataType::Float64),
            (AggregateFunction::Min, DataType::Float64),
            (AggregateFunction::Max, DataType::Float64),
            (AggregateFunction::StddevSamp, DataType::Float64),
            (AggregateFunction::Count, DataType::Float64),
        ];
        for (function, data_type) in functions {
            for distinct in [false, true] {
                let kind = kind(function, Some(data_type.clone()), distinct, true);
                let mut cell = kind.empty();
                for value in [0.1, 0.2, 0.2, 7.5] {
                    cell.add(&Datum::Float(value), 1);
                }
                let before = cell.output(function, &data_type).unwrap();
                for value in [f64::NAN, -1e300, 0.2] {
                    cell.add(&Datum::Float(value), 1);
                }
                for value in [-1e300, 0.2, f64::NAN] {
                    cell.add(&Datum::Float(value), -1);
                }
                assert_eq!(cell.output(function, &data_type).unwrap(), before, "{function:?} distinct {distinct}");
            }
        }
    }

    #[test]
    fn t21_a_sum_out_of_range_is_an_error_until_it_is_back() {
        let mut cell = kind(AggregateFunction::Sum, Some(DataType::Int64), false, true).empty();
        cell.add(&Datum::Int(i64::MAX), 1);
        cell.add(&Datum::Int(1), 1);
        assert!(cell.output(AggregateFunction::Sum, &DataType::Int64).is_err());
        cell.add(&Datum::Int(1), -1);
        assert_eq!(cell.output(AggregateFunction::Sum, &DataType::Int64).unwrap(), Value::Int(i128::from(i64::MAX)));
    }
}

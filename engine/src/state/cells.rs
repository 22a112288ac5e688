//! Accumulators: what one aggregate keeps for one set of rows. Every one equals recomputation over the surviving multiset (T9).

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use freshet_core::{AggregateFunction, ExactSum, Result, Value, add_square, variance};

use crate::state::Ranks;

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
    Moments {
        sum: ExactSum,
        squares: ExactSum,
        count: i64,
    },
    /// The least and greatest value of rows that are never retracted, or whose holder rebuilds the cell after a retraction.
    Extremes(Option<(Value, Value)>),
    /// All values with their counts: least and greatest under retraction.
    Multiset(BTreeMap<Value, i64>),
    Bools {
        trues: i64,
        count: i64,
    },
    /// Scores in order, for auc.
    Ranks(Box<Ranks>),
    /// Distinct values with their counts, and the cell over each value once.
    Distinct(BTreeMap<Value, i64>, Box<Cell>),
}

/// What a cell must be able to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CellKind {
    pub function: AggregateFunction,
    pub argument: Option<DataType>,
    pub distinct: bool,
    /// Values may be taken out again.
    pub retractable: bool,
}

impl CellKind {
    pub fn empty(&self) -> Cell {
        let float = matches!(self.argument, Some(DataType::Float64 | DataType::Float32));
        let cell = match self.function {
            AggregateFunction::Count => Cell::Count(0),
            AggregateFunction::Sum if !float => Cell::Int { sum: 0, count: 0 },
            AggregateFunction::Sum | AggregateFunction::Avg => Cell::Float { sum: ExactSum::default(), count: 0 },
            AggregateFunction::VarSamp | AggregateFunction::VarPop | AggregateFunction::StddevSamp | AggregateFunction::StddevPop => {
                Cell::Moments { sum: ExactSum::default(), squares: ExactSum::default(), count: 0 }
            }
            // The least and greatest of distinct values are those of the values.
            AggregateFunction::Min | AggregateFunction::Max if self.retractable => return Cell::Multiset(BTreeMap::new()),
            AggregateFunction::Min | AggregateFunction::Max => return Cell::Extremes(None),
            AggregateFunction::BoolAnd | AggregateFunction::BoolOr => Cell::Bools { trues: 0, count: 0 },
            AggregateFunction::Auc => return Cell::Ranks(Box::default()),
        };
        if self.distinct { Cell::Distinct(BTreeMap::new(), Box::new(cell)) } else { cell }
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
                let (before, after) = change_count(counts, value(datum), times);
                match (before > 0, after > 0) {
                    (false, true) => inner.add(datum, 1),
                    (true, false) => inner.add(datum, -1),
                    _ => {}
                }
            }
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
            Cell::Int { count: 0, .. } | Cell::Float { count: 0, .. } | Cell::Bools { count: 0, .. } => Value::Null,
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
                Cell::Distinct(counts, inner) => counts.len() * 48 + inner.bytes(),
                _ => 0,
            }
    }
}

fn change_count(counts: &mut BTreeMap<Value, i64>, value: Value, times: i64) -> (i64, i64) {
    let count = counts.entry(value.clone()).or_insert(0);
    let before = *count;
    *count += times;
    let after = *count;
    if after == 0 {
        counts.remove(&value);
    }
    (before, after)
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
        Datum::Skip | Datum::Row | Datum::Scored(..) => Value::Null,
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

    /// With the column of labels that goes with a score. Panics unless the argument is Float64 and the labels are BOOLEAN.
    pub fn with_label(self, label: Option<&'a ArrayRef>) -> DatumReader<'a> {
        let Some(label) = label else { return self };
        let Argument::Float(scores) = self.argument else { panic!("scores are Float64") };
        DatumReader { argument: Argument::Scored(scores, label.as_boolean()), ..self }
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
            Argument::Other(values) if values.is_valid(row) => {
                Datum::Other(Value::of(values, row).expect("the planner lets only plain types be arguments"))
            }
            _ => Datum::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(function: AggregateFunction, argument: Option<DataType>, distinct: bool, retractable: bool) -> CellKind {
        CellKind { function, argument, distinct, retractable }
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

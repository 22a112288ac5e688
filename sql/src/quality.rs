//! How good scores are: auc, log_loss and brier of (score, label). In: planning, and batches of the oracle and of ad-hoc queries. Out: the
//! aggregates, computed from scratch there, and the loss of one row, whose mean the engine keeps.

use std::cmp::Ordering;
use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The least probability that counts, so that no row costs infinitely much: the distance of 1.0 to the next double, which is what
/// scikit-learn's `log_loss` clips float64 probabilities with (`numpy.finfo(float64).eps`).
const PROBABILITY_MIN: f64 = f64::EPSILON;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Quality {
    Auc,
    LogLoss,
    Brier,
}

impl Quality {
    const ALL: [Quality; 3] = [Quality::Auc, Quality::LogLoss, Quality::Brier];

    pub fn name(self) -> &'static str {
        match self {
            Quality::Auc => "auc",
            Quality::LogLoss => "log_loss",
            Quality::Brier => "brier",
        }
    }

    pub fn named(name: &str) -> Option<Quality> {
        Quality::ALL.into_iter().find(|quality| quality.name() == name)
    }

    /// What a row adds to the mean. NaN stays NaN. log_loss: −ln of the probability given to what happened.
    fn loss(self, score: f64, label: bool) -> f64 {
        match self {
            Quality::Brier => (score - f64::from(u8::from(label))).powi(2),
            // NaN passes through clamp.
            _ => -(if label { score } else { 1.0 - score }).clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN).ln(),
        }
    }
}

/// The aggregates by these names.
pub(crate) fn functions() -> impl Iterator<Item = AggregateUDF> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    Quality::ALL.into_iter().map(move |quality| AggregateUDF::from(QualityFunction { quality, signature: signature() }))
}

/// The loss of each row, of which log_loss and brier are the mean; NULL where the score or the label is.
pub(crate) fn loss_of(quality: Quality, arguments: Vec<Expr>) -> Expr {
    assert!(quality != Quality::Auc, "auc is no mean");
    let signature = Signature::exact(vec![DataType::Float64, DataType::Boolean], Volatility::Immutable);
    let function = ScalarUDF::from(LossFunction { quality, signature });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), arguments))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct QualityFunction {
    quality: Quality,
    signature: Signature,
}

impl AggregateUDFImpl for QualityFunction {
    fn name(&self) -> &str {
        self.quality.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        let [score, label] = arguments else { return plan_err!("{name} takes a score and a label; {name}(score, label)") };
        if !score.is_numeric() && !score.is_null() {
            return plan_err!("{name} takes a number as its score, and this is {score}; {name}(score, label)");
        }
        if !label.is_integer() && !matches!(label, DataType::Boolean | DataType::Null) {
            return plan_err!("{name} takes a BOOLEAN as its label, and this is {label}; {name}(score, value > 15)");
        }
        Ok(vec![DataType::Float64, DataType::Boolean])
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if arguments.is_distinct {
            return plan_err!("{} takes no DISTINCT", self.name());
        }
        Ok(Box::new(Rows { quality: self.quality, rows: Vec::new() }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |what: &str, data_type| Arc::new(Field::new_list(format!("{}[{what}]", arguments.name), item(data_type), true));
        Ok(vec![list("scores", DataType::Float64), list("labels", DataType::Boolean)])
    }
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(data_type, true))
}

/// All rows that count. The answer is made of them at the end, the plain way.
#[derive(Debug)]
struct Rows {
    quality: Quality,
    rows: Vec<(f64, bool)>,
}

impl Rows {
    fn add(&mut self, scores: &Float64Array, labels: &BooleanArray) {
        self.rows.extend(scores.iter().zip(labels).filter_map(|(score, label)| Some((score?, label?))));
    }
}

impl Accumulator for Rows {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(values[0].as_primitive::<Float64Type>(), values[1].as_boolean());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let answer = match self.quality {
            Quality::Auc => area(&mut self.rows),
            quality => {
                let sum: f64 = self.rows.iter().map(|(score, label)| quality.loss(*score, *label)).sum();
                (!self.rows.is_empty()).then(|| sum / self.rows.len() as f64)
            }
        };
        Ok(ScalarValue::Float64(answer))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.rows.capacity() * size_of::<(f64, bool)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |data_type, values: ArrayRef| {
            ScalarValue::List(Arc::new(ListArray::new(item(data_type), OffsetBuffer::from_lengths([values.len()]), values, None)))
        };
        let scores: Float64Array = self.rows.iter().map(|(score, _)| Some(*score)).collect();
        let labels: BooleanArray = self.rows.iter().map(|(_, label)| Some(*label)).collect();
        Ok(vec![list(DataType::Float64, Arc::new(scores)), list(DataType::Boolean, Arc::new(labels))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for (scores, labels) in states[0].as_list::<i32>().iter().zip(states[1].as_list::<i32>().iter()) {
            if let (Some(scores), Some(labels)) = (scores, labels) {
                self.add(scores.as_primitive::<Float64Type>(), labels.as_boolean());
            }
        }
        Ok(())
    }
}

/// The share of (true, false) pairs whose true row scores higher, ties counting half; −0.0 equals 0.0 and NaN is the greatest score.
fn area(rows: &mut [(f64, bool)]) -> Option<f64> {
    let order = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    rows.sort_unstable_by(|a, b| order(a.0, b.0));
    let (mut falses_below, mut trues, mut halves) = (0u128, 0u128, 0u128);
    for equals in rows.chunk_by(|a, b| order(a.0, b.0) == Ordering::Equal) {
        let of_true = equals.iter().filter(|(_, label)| *label).count() as u128;
        let of_false = equals.len() as u128 - of_true;
        halves += of_true * (2 * falses_below + of_false);
        trues += of_true;
        falses_below += of_false;
    }
    let pairs = trues * falses_below;
    (pairs > 0).then(|| halves as f64 / (2 * pairs) as f64)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LossFunction {
    quality: Quality,
    signature: Signature,
}

impl ScalarUDFImpl for LossFunction {
    fn name(&self) -> &str {
        match self.quality {
            Quality::Brier => "squared_error",
            _ => "logarithmic_loss",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let (scores, labels) = (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_boolean());
        let losses: Float64Array = scores.iter().zip(labels).map(|(score, label)| Some(self.quality.loss(score?, label?))).collect();
        Ok(ColumnarValue::Array(Arc::new(losses)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_the_share_of_pairs_in_order() {
        let of = |rows: &[(f64, bool)]| area(&mut rows.to_vec());
        assert_eq!(of(&[(0.1, false), (0.4, false), (0.35, true), (0.8, true)]), Some(0.75));
        assert_eq!(of(&[(0.5, false), (0.5, true)]), Some(0.5));
        assert_eq!(of(&[(0.0, false), (-0.0, true)]), Some(0.5));
        assert_eq!(of(&[(f64::NAN, true), (f64::INFINITY, false)]), Some(1.0));
        assert_eq!(of(&[(0.5, true)]), None);
    }

    /// scikit-learn: log_loss([1], [[1.0, 0.0]], labels=[0, 1]) is 36.04365338911715.
    #[test]
    fn a_loss_is_finite_at_certainty_and_nan_for_nan() {
        assert_eq!(Quality::LogLoss.loss(0.0, true), 36.04365338911715);
        assert_eq!(Quality::LogLoss.loss(1.0, false), 36.04365338911715);
        assert_eq!(Quality::LogLoss.loss(0.25, false), -(0.75f64.ln()));
        assert!(Quality::LogLoss.loss(f64::NAN, true).is_nan());
        assert_eq!(Quality::Brier.loss(0.25, true), 0.5625);
        assert!(Quality::Brier.loss(f64::NAN, false).is_nan());
    }
}

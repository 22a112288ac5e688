//! Drift monitors as data, and the histograms they compare: fixed edges, counts that add up and can be taken back (C8).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// A count-based monitor over the rows of a view.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftSpec {
    /// Columns of the input that are measured: numbers, or BOOLEAN as 0 and 1. Their names are those of the reference.
    pub columns: Vec<usize>,
    pub names: Vec<String>,
    /// Per column: it holds scores of the model. A NULL score says that no version was live or that scoring failed, not that the scores have
    /// moved: its row is left out of that column, of MIN ROWS too. NULL in other columns has a bin.
    pub scores: Vec<bool>,
    /// The column of TIME.
    pub time: usize,
    pub methods: Vec<DriftMethod>,
    /// REFERENCE MODEL, an index in `Plan::models`: compared with the version live at the window's end.
    pub model: usize,
    /// The window at d is [d − window, d); a multiple of `every_ms`.
    pub window_ms: u64,
    /// Evaluations happen at the multiples of this.
    pub every_ms: u64,
    pub rows_min: u64,
    /// Any of them makes the monitor fire.
    pub conditions: Vec<DriftCondition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftMethod {
    Psi,
    Ks,
}

impl DriftMethod {
    pub fn sql(self) -> &'static str {
        match self {
            DriftMethod::Psi => "psi",
            DriftMethod::Ks => "ks",
        }
    }
}

/// `method(column) > threshold FOR n EVALUATIONS`: fires at the n-th evaluation in a row at which it holds, and at each after.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftCondition {
    pub method: DriftMethod,
    /// Index in `DriftSpec::columns`.
    pub column: usize,
    pub threshold: f64,
    /// `>=` instead of `>`.
    pub inclusive: bool,
    pub evaluations: u32,
}

impl DriftSpec {
    /// What a monitor emits: one row per evaluation, column and method, columns in declared order, then methods. The evaluation at d sees
    /// rows with arrival < d and time in [d − window, d); as the content of a feature view at (d, d) it belongs to epoch d − 1.
    pub fn schema() -> SchemaRef {
        let field = |name: &str, data_type| Field::new(name, data_type, false);
        Arc::new(Schema::new(vec![
            field("evaluated_at", DataType::Timestamp(TimeUnit::Millisecond, None)),
            field("column_name", DataType::Utf8),
            field("method", DataType::Utf8),
            // NULL unless the state is 'measured'.
            field("value", DataType::Float64).with_nullable(true),
            // Of the condition on this column and method (of several the first that fires, else the first); NULL without one.
            field("threshold", DataType::Float64).with_nullable(true),
            // How many evaluations in a row the condition has held, this one included; 0 without a condition.
            field("exceeded", DataType::Int64),
            // The condition has held for as many evaluations as it asks for.
            field("drifted", DataType::Boolean),
            // 'measured'; 'no_reference': no version is live, or its reference lacks the column; 'too_few_rows': fewer than MIN ROWS, or
            // none that the method counts.
            field("state", DataType::Utf8),
            // Live rows in the window.
            field("window_rows", DataType::Int64),
            field("model_version", DataType::Int64).with_nullable(true),
        ]))
    }
}

/// What a model's monitors compare with: the distribution of each referenced column, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    pub columns: BTreeMap<String, Histogram>,
}

/// Counts between fixed edges: (−∞, e1), [e1, e2) … [e_last, ∞), and of values that are NULL or NaN.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Ascending, distinct.
    #[serde(with = "exact")]
    pub edges: Vec<f64>,
    /// One more than edges.
    pub counts: Vec<u64>,
    pub nulls: u64,
}

/// Floats as text: a JSON reader may miss the last bit of a number, and values that lie on an edge would change their bin.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let texts: Vec<String> = Vec::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
    }
}

/// Ten bins: what practice calls PSI, and what its thresholds are for.
const BINS: usize = 10;

impl Histogram {
    /// Edges at the quantiles k/10 of the values (linear interpolation between order statistics, as numpy's default), duplicates removed,
    /// and the counts of the values themselves. NULL and NaN have a bin of their own and no part in the edges.
    pub fn of(values: impl IntoIterator<Item = Option<f64>>) -> Histogram {
        let mut nulls = 0;
        let mut sorted: Vec<f64> = Vec::new();
        for value in values {
            match value {
                Some(value) if !value.is_nan() => sorted.push(value),
                _ => nulls += 1,
            }
        }
        sorted.sort_unstable_by(f64::total_cmp);
        let mut edges: Vec<f64> =
            if sorted.is_empty() { Vec::new() } else { (1..BINS).map(|bin| quantile(&sorted, bin as f64 / BINS as f64)).collect() };
        edges.dedup();
        let mut histogram = Histogram { counts: vec![0; edges.len() + 1], edges, nulls };
        for value in sorted {
            let bin = histogram.bin(value);
            histogram.counts[bin] += 1;
        }
        histogram
    }

    /// The bin of a value that is a number; a value equal to an edge belongs to the right of it.
    pub fn bin(&self, value: f64) -> usize {
        self.edges.partition_point(|edge| *edge <= value)
    }

    /// All values, NULLs included.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.nulls
    }
}

/// numpy's linear interpolation, operation for operation, so that edges agree to the last bit. Where numpy gives NaN, beside infinities,
/// the nearer neighbour.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let virtual_index = (sorted.len() - 1) as f64 * q;
    let below = virtual_index.floor();
    let (a, b) = (sorted[below as usize], sorted[(below as usize + 1).min(sorted.len() - 1)]);
    let t = virtual_index - below;
    let difference = b - a;
    if !difference.is_finite() {
        return if t >= 0.5 { b } else { a };
    }
    if t >= 0.5 { b - difference * (1.0 - t) } else { a + difference * t }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Histogram {
        Histogram::of(values.iter().copied().map(Some))
    }

    #[test]
    fn edges_are_numpys_to_the_last_bit() {
        let values: Vec<f64> = (0..30i64).map(|i| ((i * i * 37 + 11 * i) % 101) as f64 / 7.0 - 3.0).collect();
        // numpy.unique(numpy.quantile(values, numpy.arange(1, 10) / 10))
        let expected = [
            -2.142857142857143,
            1.1714285714285717,
            1.5714285714285712,
            3.0000000000000027,
            4.571428571428571,
            6.171428571428571,
            6.857142857142858,
            7.171428571428572,
            7.428571428571429,
        ];
        assert_eq!(of(&values).edges.iter().map(|edge| edge.to_bits()).collect::<Vec<_>>(), expected.map(f64::to_bits));
    }

    #[test]
    fn equal_quantiles_are_one_edge_and_a_value_on_it_lies_to_its_right() {
        let values: Vec<f64> = (0..25).map(|i| f64::from(i * i % 7)).collect();
        let histogram = of(&values);
        assert_eq!(histogram.edges, [0.0, 1.0, 2.0, 4.0]);
        assert_eq!(histogram.counts, [0, 4, 7, 7, 7]);
        assert_eq!([-0.5, -0.0, 0.0, 3.9, 4.0, f64::INFINITY].map(|value| histogram.bin(value)), [0, 1, 1, 3, 4, 4]);
    }

    #[test]
    fn null_and_nan_have_a_bin_and_no_part_in_the_edges() {
        let with = Histogram::of([Some(1.0), None, Some(2.0), Some(f64::NAN), Some(-f64::NAN), Some(3.0)]);
        assert_eq!((with.nulls, with.total()), (3, 6));
        assert_eq!((with.edges, with.counts), (of(&[1.0, 2.0, 3.0]).edges, of(&[1.0, 2.0, 3.0]).counts));
        let nothing = Histogram::of([None, None]);
        assert_eq!((nothing.edges.len(), nothing.counts, nothing.nulls), (0, vec![0], 2));
        assert_eq!(of(&[]).total(), 0);
    }

    #[test]
    fn infinities_are_values_and_no_edge_is_nan() {
        let histogram = of(&[f64::NEG_INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY, 1.0, 2.0, 3.0, f64::INFINITY, f64::INFINITY, f64::INFINITY]);
        assert!(histogram.edges.is_sorted() && histogram.edges.iter().all(|edge| !edge.is_nan()), "{:?}", histogram.edges);
        assert_eq!(histogram.total(), 9);
        let far = of(&[-1e308, 1e308]);
        assert!(far.edges.iter().all(|edge| edge.is_finite()), "{:?}", far.edges);
    }

    #[test]
    fn a_constant_has_one_edge() {
        let histogram = of(&[3.0; 40]);
        assert_eq!((histogram.edges.as_slice(), histogram.counts.as_slice()), ([3.0].as_slice(), [0, 40].as_slice()));
    }
}

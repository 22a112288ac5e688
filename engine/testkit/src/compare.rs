//! Multisets of rows. In: two answers to one question. Out: nothing, or the smallest difference; and the smallest input that shows it.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use freshet_core::{Result, Value};

use crate::interpreter::Content;

/// How close two floats must be to count as equal where the other side does not sum exactly (DataFusion).
pub const RELATIVE_ERROR_MAX: f64 = 1e-9;

/// The rows of batches with their counts.
pub fn content_of<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Result<Content> {
    let mut content = Content::new();
    for batch in batches {
        for row in Value::rows_of(batch)? {
            *content.entry(row).or_insert(0) += 1;
        }
    }
    Ok(content)
}

/// The sum of changes; rows whose count is 0 are left out.
pub fn accumulate(changes: impl IntoIterator<Item = (Vec<Value>, i64)>) -> Content {
    let mut content = Content::new();
    changes.into_iter().for_each(|(row, diff)| *content.entry(row).or_insert(0) += diff);
    content.retain(|_, count| *count != 0);
    content
}

/// Bit by bit (every NaN is the same). The message names the first row that differs and how many do.
pub fn same(expected: &Content, found: &Content) -> Result<(), String> {
    let zero = |content: &Content, row: &Vec<Value>| content.get(row).copied().unwrap_or(0);
    let rows: std::collections::BTreeSet<&Vec<Value>> = expected.keys().chain(found.keys()).collect();
    let different: Vec<&Vec<Value>> = rows.into_iter().filter(|row| zero(expected, row) != zero(found, row)).collect();
    let Some(first) = different.first() else { return Ok(()) };
    let mut message = format!("{} rows differ; the first is ({})", different.len(), show(first));
    message += &format!(", expected {} times, found {} times", zero(expected, first), zero(found, first));
    if let Some(other) = different.get(1) {
        message += &format!("; the next is ({}), {} against {}", show(other), zero(expected, other), zero(found, other));
    }
    Err(message)
}

/// As `same`, with floats equal within `RELATIVE_ERROR_MAX` and −0.0 equal to 0.0.
pub fn roughly_same(expected: &Content, found: &Content) -> Result<(), String> {
    let instances = |content: &Content, other: &Content| -> Vec<Vec<Value>> {
        let extra = |row: &Vec<Value>, count: i64| (count - other.get(row).copied().unwrap_or(0)).max(0) as usize;
        content.iter().flat_map(|(row, count)| vec![row.clone(); extra(row, *count)]).collect()
    };
    let (missing, mut extra) = (instances(expected, found), instances(found, expected));
    let mut unmatched = Vec::new();
    for row in missing {
        match extra.iter().position(|other| row.len() == other.len() && row.iter().zip(other).all(|(a, b)| is_close(a, b))) {
            Some(index) => drop(extra.swap_remove(index)),
            None => unmatched.push(row),
        }
    }
    if unmatched.is_empty() && extra.is_empty() {
        return Ok(());
    }
    let listed = |rows: &[Vec<Value>]| rows.first().map_or("nothing".to_string(), |row| format!("({})", show(row)));
    Err(format!("{} rows are missing and {} too many; missing {}, too many {}", unmatched.len(), extra.len(), listed(&unmatched), listed(&extra)))
}

/// Panics with the question, the seed and the smallest difference.
pub fn assert_same(question: &str, seed: u64, expected: &Content, found: &Content) {
    if let Err(difference) = same(expected, found) {
        panic!("{question}, seed {seed}: {difference}");
    }
}

/// As `assert_same`, with `roughly_same`.
pub fn assert_roughly_same(question: &str, seed: u64, expected: &Content, found: &Content) {
    if let Err(difference) = roughly_same(expected, found) {
        panic!("{question}, seed {seed}: {difference}");
    }
}

/// The smallest part of the input found on which `fails` still holds, by leaving out ever smaller pieces.
pub fn smallest<T: Clone>(input: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut kept = input.to_vec();
    let mut piece = kept.len().div_ceil(2);
    while piece > 0 {
        let mut start = 0;
        while start < kept.len() {
            let end = (start + piece).min(kept.len());
            let without: Vec<T> = kept[..start].iter().chain(&kept[end..]).cloned().collect();
            if fails(&without) {
                kept = without;
            } else {
                start = end;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    kept
}

/// A row as text.
pub fn show(row: &[Value]) -> String {
    row.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
}

/// The counts of two contents by row, for messages.
pub fn difference(expected: &Content, found: &Content) -> BTreeMap<Vec<Value>, (i64, i64)> {
    let mut rows: BTreeMap<Vec<Value>, (i64, i64)> = expected.iter().map(|(row, count)| (row.clone(), (*count, 0))).collect();
    found.iter().for_each(|(row, count)| rows.entry(row.clone()).or_default().1 = *count);
    rows.retain(|_, (expected, found)| expected != found);
    rows
}

fn is_close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) if a.is_finite() && b.is_finite() => (a - b).abs() <= RELATIVE_ERROR_MAX * a.abs().max(b.abs()),
        (a, b) => a == b,
    }
}

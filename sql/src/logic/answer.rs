//! Answers as text, and what counts as equal. In: rows, and what a file says they are. Out: nothing, or the difference, line by line.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{LogicalPlanBuilder, lit};

use crate::execute::execute;
use crate::logic::record::{Rows, Sort};

/// How close floats must be to count as equal where the other side adds them up in another order.
const RELATIVE_ERROR_MAX: f64 = 1e-9;
/// Of more lines than this, only those that one side has and the other has not are shown, without their order.
const ALIGNED_LINES_MAX: usize = 2_000;
/// Equal lines that are shown beside a difference.
const AROUND: usize = 3;

/// Rows as text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    types: Vec<DataType>,
    /// NULL is None.
    rows: Vec<Vec<Option<String>>>,
}

impl Answer {
    pub fn of(schema: &Schema, batches: &[RecordBatch]) -> Result<Answer, String> {
        let mut rows = Vec::new();
        for batch in batches {
            let columns = batch.columns().iter().map(texts).collect::<Result<Vec<_>, _>>()?;
            rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()));
        }
        Ok(Answer { types: schema.fields().iter().map(|field| field.data_type().clone()).collect(), rows })
    }

    fn lines(&self) -> Vec<String> {
        self.rows.iter().map(|row| spaced(&row.iter().map(shown).collect::<Vec<_>>().join(" "))).collect()
    }

    fn values(&self) -> Vec<String> {
        self.rows.iter().flatten().map(|cell| spaced(&shown(cell))).collect()
    }

    /// Compares with what the file says. `ordered` is false where rows have no order of their own.
    pub fn check(&self, wanted: &Rows, ordered: bool) -> Result<(), String> {
        self.check_types(&wanted.types)?;
        let sort = if ordered || wanted.sort == Sort::Values { wanted.sort } else { Sort::Rows };
        if let Some((count, hash)) = hash_of(&wanted.lines) {
            return self.check_hash(count, hash, wanted.sort, ordered);
        }
        let width = self.types.len();
        let singly = sort == Sort::Values || (width > 1 && !self.rows.is_empty() && wanted.lines.len() == self.rows.len() * width);
        if singly && sort != Sort::Values {
            // One value a line: put together again.
            let rows: Vec<String> =
                wanted.lines.chunks(width).map(|row| row.iter().map(|value| spaced(value)).collect::<Vec<_>>().join(" ")).collect();
            return same(rows.iter().map(|row| self.canonical(row)).collect(), self.lines(), sort == Sort::Rows);
        }
        let lines: Vec<String> = wanted.lines.iter().map(|line| if singly { spaced(line) } else { self.canonical(line) }).collect();
        same(lines, if singly { self.values() } else { self.lines() }, sort != Sort::None)
    }

    /// The same rows with the same counts; floats may differ in their last digits.
    pub fn check_rows(&self, expected: &Answer) -> Result<(), String> {
        let (mut found, mut wanted) = (self.rows.clone(), expected.rows.clone());
        found.sort();
        wanted.sort();
        if found == wanted {
            return Ok(());
        }
        let close = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => {
                a == b || matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if (a - b).abs() <= RELATIVE_ERROR_MAX * a.abs().max(b.abs()))
            }
            (a, b) => a == b,
        };
        let mut missing = Vec::new();
        for row in wanted {
            match found.iter().position(|other| row.len() == other.len() && row.iter().zip(other).all(|(a, b)| close(a, b))) {
                Some(index) => drop(found.swap_remove(index)),
                None => missing.push(row),
            }
        }
        if missing.is_empty() && found.is_empty() {
            return Ok(());
        }
        let lines = |rows: Vec<Vec<Option<String>>>| Answer { types: self.types.clone(), rows }.lines();
        same(lines(missing), lines(found), true)
    }

    fn check_hash(&self, count: usize, hash: &str, sort: Sort, ordered: bool) -> Result<(), String> {
        let mut rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(shown).collect()).collect();
        if sort == Sort::Rows {
            rows.sort();
        }
        let mut values: Vec<String> = rows.into_iter().flatten().collect();
        if sort == Sort::Values {
            values.sort();
        }
        if values.len() != count {
            return Err(format!("{count} values are expected, {} found", values.len()));
        }
        if sort == Sort::None && !ordered {
            return Ok(());
        }
        let found = md5(&values.iter().map(|value| format!("{value}\n")).collect::<String>())?;
        if found == hash { Ok(()) } else { Err(format!("the values hash to {found}, expected {hash}\n  {}", values.join("\n  "))) }
    }

    fn check_types(&self, letters: &str) -> Result<(), String> {
        if letters.is_empty() {
            return Ok(());
        }
        if letters.chars().count() != self.types.len() {
            return Err(format!("the record says {letters}: {} columns, and the answer has {}", letters.len(), self.types.len()));
        }
        for (index, (letter, data_type)) in letters.chars().zip(&self.types).enumerate() {
            let fits = match letter {
                'I' => data_type.is_integer() || matches!(data_type, DataType::Decimal128(_, 0) | DataType::Boolean | DataType::Null),
                'R' | 'F' => data_type.is_numeric() || *data_type == DataType::Null,
                'B' => matches!(data_type, DataType::Boolean | DataType::Null),
                'D' => matches!(data_type, DataType::Date32 | DataType::Date64 | DataType::Null),
                'P' => matches!(data_type, DataType::Timestamp(..) | DataType::Null),
                'T' | '?' => true,
                other => return Err(format!("{other} is no letter for a type: T, I, R, B, D, P or ?")),
            };
            if !fits {
                return Err(format!("column {} is {data_type}, which is not {letter}", index + 1));
            }
        }
        Ok(())
    }

    /// An expected line as this answer would print it: true is t, 1.0 is 1, and a T between date and time is a space.
    fn canonical(&self, line: &str) -> String {
        let mut line = spaced(line);
        if self.types.iter().any(|data_type| matches!(data_type, DataType::Timestamp(..))) {
            line = without_t(&line);
        }
        let words: Vec<&str> = line.split(' ').collect();
        if words.len() != self.types.len() {
            return line;
        }
        let word = |(word, data_type): (&&str, &DataType)| match data_type {
            DataType::Boolean => match *word {
                "true" => "t".to_string(),
                "false" => "f".to_string(),
                other => other.to_string(),
            },
            DataType::Float64 => printed(word, |number: f64| Arc::new(Float64Array::from(vec![number]))),
            DataType::Float32 => printed(word, |number: f32| Arc::new(Float32Array::from(vec![number]))),
            _ => word.to_string(),
        };
        words.iter().zip(&self.types).map(word).collect::<Vec<_>>().join(" ")
    }
}

fn shown(cell: &Option<String>) -> String {
    match cell.as_deref() {
        None => "NULL".to_string(),
        Some("") => "(empty)".to_string(),
        Some(text) => text.to_string(),
    }
}

/// One space between words.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `2024-01-01T00:00` with a space.
fn without_t(line: &str) -> String {
    let letters: Vec<char> = line.chars().collect();
    let is_digit = |at: usize| letters.get(at).is_some_and(char::is_ascii_digit);
    let between = |at: usize| at >= 3 && is_digit(at - 1) && letters[at - 3] == '-' && is_digit(at + 1) && letters.get(at + 3) == Some(&':');
    letters.iter().enumerate().map(|(at, letter)| if *letter == 'T' && between(at) { ' ' } else { *letter }).collect()
}

fn hash_of(lines: &[String]) -> Option<(usize, &str)> {
    let [line] = lines else { return None };
    let (count, hash) = line.split_once(" values hashing to ")?;
    Some((count.trim().parse().ok()?, hash.trim()))
}

fn md5(text: &str) -> Result<String, String> {
    let call = datafusion::functions::crypto::expr_fn::md5(lit(ScalarValue::Utf8(Some(text.to_string()))));
    let plan = LogicalPlanBuilder::empty(true).project([call]).and_then(|builder| builder.build()).map_err(|error| error.to_string())?;
    let batches = execute(plan).map_err(|error| error.message)?;
    texts(batches[0].column(0))?.into_iter().next().flatten().ok_or_else(|| "md5 gave nothing".to_string())
}

/// As PostgreSQL prints them.
fn texts(column: &ArrayRef) -> Result<Vec<Option<String>>, String> {
    freshet_core::display::texts(column).map_err(|error| error.message)
}

/// A number of an expected line as it would be printed.
fn printed<T: std::str::FromStr>(word: &str, column: impl Fn(T) -> ArrayRef) -> String {
    let text = word.parse().ok().and_then(|number| texts(&column(number)).ok()?.pop()?);
    text.unwrap_or_else(|| word.to_string())
}

/// Equal lines, or which lines are missing (-) and which are too many (+), among those that are equal.
fn same(mut wanted: Vec<String>, mut found: Vec<String>, sort: bool) -> Result<(), String> {
    if sort {
        wanted.sort_unstable();
        found.sort_unstable();
    }
    if wanted == found { Ok(()) } else { Err(format!("other rows than expected (- expected, + found)\n{}", difference(&wanted, &found))) }
}

/// Two lists of lines against each other: what only the first has is marked -, what only the second has +. Of long lists only these lines.
pub fn difference(wanted: &[String], found: &[String]) -> String {
    if wanted.len().max(found.len()) > ALIGNED_LINES_MAX {
        let only = |mark: char, of: &[String], other: &[String]| {
            let other: std::collections::BTreeSet<&String> = other.iter().collect();
            of.iter().filter(|line| !other.contains(line)).take(50).map(|line| format!("  {mark} {line}\n")).collect::<String>()
        };
        return only('-', wanted, found) + &only('+', found, wanted);
    }
    // The longest common subsequence, from the end.
    let mut length = vec![vec![0u32; found.len() + 1]; wanted.len() + 1];
    for i in (0..wanted.len()).rev() {
        for j in (0..found.len()).rev() {
            length[i][j] = if wanted[i] == found[j] { length[i + 1][j + 1] + 1 } else { length[i + 1][j].max(length[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < wanted.len() || j < found.len() {
        if i < wanted.len() && j < found.len() && wanted[i] == found[j] {
            lines.push((' ', &wanted[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == found.len() || (i < wanted.len() && length[i + 1][j] >= length[i][j + 1]) {
            lines.push(('-', &wanted[i]));
            i += 1;
        } else {
            lines.push(('+', &found[j]));
            j += 1;
        }
    }
    let is_near = |at: usize| lines[at.saturating_sub(AROUND)..(at + AROUND + 1).min(lines.len())].iter().any(|(mark, _)| *mark != ' ');
    let mut text = String::new();
    for (at, (mark, line)) in lines.iter().enumerate() {
        if is_near(at) {
            text += &format!("  {mark} {line}\n");
        } else if at == 0 || is_near(at - 1) {
            text += "    …\n";
        }
    }
    text.trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn answer() -> Answer {
        let batch = RecordBatch::try_from_iter([
            ("b", Arc::new(BooleanArray::from(vec![Some(true), None])) as ArrayRef),
            ("x", Arc::new(Float64Array::from(vec![1e20, 0.1 + 0.2]))),
            ("s", Arc::new(StringArray::from(vec!["two words", ""]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000, 0]))),
        ])
        .unwrap();
        Answer::of(&batch.schema(), &[batch]).unwrap()
    }

    #[test]
    fn values_print_as_postgresql_prints_them() {
        assert_eq!(answer().lines(), ["t 1e+20 two words 1970-01-01 00:00:01.5", "NULL 0.30000000000000004 (empty) 1970-01-01 00:00:00"]);
    }

    #[test]
    fn answers_are_compared_in_every_notation() {
        let rows = |types: &str, sort, lines: &[&str]| Rows {
            types: types.into(),
            sort,
            label: None,
            lines: lines.iter().map(|line| line.to_string()).collect(),
        };
        let right = ["NULL 0.30000000000000004 (empty) 1970-01-01T00:00:00", "t 1e+20 two words 1970-01-01 00:00:01.5"];
        answer().check(&rows("BRTP", Sort::Rows, &right), true).unwrap();
        answer().check(&rows("BRTP", Sort::None, &right), false).unwrap();
        assert!(answer().check(&rows("BRTP", Sort::None, &right), true).unwrap_err().contains("- NULL"));
        assert!(answer().check(&rows("BRI", Sort::Rows, &right), true).unwrap_err().contains("3 columns"));
        assert!(answer().check(&rows("BRIP", Sort::Rows, &right), true).unwrap_err().contains("column 3"));
        let one_a_line = ["t", "1e+20", "two words", "1970-01-01 00:00:01.5", "NULL", "0.30000000000000004", "(empty)", "1970-01-01 00:00:00"];
        answer().check(&rows("BRTP", Sort::None, &one_a_line), true).unwrap();
        answer().check(&rows("BRTP", Sort::Values, &one_a_line), true).unwrap();
        let hash = format!("8 values hashing to {}", md5(&one_a_line.iter().map(|value| format!("{value}\n")).collect::<String>()).unwrap());
        answer().check(&rows("BRTP", Sort::None, &[&hash]), true).unwrap();
    }

    #[test]
    fn a_difference_keeps_what_is_equal_around_it() {
        let lines = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        assert_eq!(difference(&lines("a b c"), &lines("a x c")), "    a\n  - b\n  + x\n    c");
    }
}

//! Functions of texts. In: columns of equal length. Out: a column; NULL where an argument is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, StringBuilder};
use arrow::datatypes::Int64Type;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use regex::Regex;

fn cell(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

fn number(column: &Int64Array, row: usize) -> Option<i64> {
    column.is_valid(row).then(|| column.value(row))
}

/// The piece of this index from 0; NULL for one that is not there, as in Flink.
pub fn split_index(texts: &ArrayRef, delimiters: &ArrayRef, indexes: &ArrayRef) -> ArrayRef {
    let (texts, delimiters, indexes) = (texts.as_string::<i32>(), delimiters.as_string::<i32>(), indexes.as_primitive::<Int64Type>());
    let piece = |row: usize| {
        let (text, delimiter) = (cell(texts, row)?, cell(delimiters, row)?);
        let index = usize::try_from(number(indexes, row)?).ok()?;
        match delimiter {
            "" => (index == 0).then_some(text),
            // One letter is found several times as fast.
            delimiter if delimiter.len() == 1 => text.split(char::from(delimiter.as_bytes()[0])).nth(index),
            delimiter => text.split(delimiter).nth(index),
        }
    };
    Arc::new((0..texts.len()).map(piece).collect::<StringArray>())
}

/// How often the first letter of `letters` is in the text; an empty one is nowhere.
pub fn count_char(texts: &ArrayRef, letters: &ArrayRef) -> ArrayRef {
    let (texts, letters) = (texts.as_string::<i32>(), letters.as_string::<i32>());
    let count = |row: usize| {
        let text = cell(texts, row)?;
        Some(match cell(letters, row)?.chars().next() {
            None => 0,
            Some(letter) if letter.is_ascii() => text.bytes().filter(|byte| *byte == letter as u8).count() as i64,
            Some(letter) => text.chars().filter(|found| *found == letter).count() as i64,
        })
    };
    Arc::new((0..texts.len()).map(count).collect::<Int64Array>())
}

/// Errors: it is no regular expression.
pub fn pattern(text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|error| exec_datafusion_err!("'{text}' is no regular expression: {}", last_line(&error.to_string())))
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

/// What the group of the first match holds; NULL without a match, without such a group and where the group took no part in it. Errors: a pattern
/// that is none.
pub fn regexp_extract(texts: &ArrayRef, patterns: &ArrayRef, groups: Option<&ArrayRef>) -> Result<ArrayRef> {
    let (texts, patterns) = (texts.as_string::<i32>(), patterns.as_string::<i32>());
    let groups = groups.map(|groups| groups.as_primitive::<Int64Type>());
    let mut compiled: Option<(&str, Regex)> = None;
    let mut found = StringBuilder::with_capacity(texts.len(), texts.len() * 8);
    for row in 0..texts.len() {
        let group = groups.map_or(Some(0), |groups| number(groups, row)).and_then(|group| usize::try_from(group).ok());
        let (Some(text), Some(wanted), Some(group)) = (cell(texts, row), cell(patterns, row), group) else {
            found.append_null();
            continue;
        };
        let regex = match &mut compiled {
            Some((known, regex)) if *known == wanted => regex,
            other => &mut other.insert((wanted, pattern(wanted)?)).1,
        };
        let piece = match group {
            0 => regex.find(text).map(|found| found.as_str()),
            group => regex.captures(text).and_then(|captures| captures.get(group)).map(|found| found.as_str()),
        };
        found.append_option(piece);
    }
    Ok::<ArrayRef, DataFusionError>(Arc::new(found.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<const N: usize>(cells: [Option<&str>; N]) -> ArrayRef {
        Arc::new(StringArray::from(cells.to_vec()))
    }

    fn numbers<const N: usize>(cells: [Option<i64>; N]) -> ArrayRef {
        Arc::new(Int64Array::from(cells.to_vec()))
    }

    #[test]
    fn split_index_counts_from_0_and_ends_in_null() {
        let found = split_index(
            &texts([Some("a/b//c"), Some("a/b//c"), Some("a/b//c"), Some("a"), None, Some("a")]),
            &texts([Some("/"), Some("/"), Some("/"), Some("/"), Some("/"), Some("")]),
            &numbers([Some(0), Some(2), Some(4), Some(-1), Some(0), Some(0)]),
        );
        assert_eq!(&found, &texts([Some("a"), Some(""), None, None, None, Some("a")]));
    }

    #[test]
    fn regexp_extract_gives_a_group_of_the_first_match() {
        let url = Some("https://x/?q=1&channel_id=77&channel_id=8");
        let wanted = Some("(&|^)channel_id=([^&]*)");
        let found = regexp_extract(
            &texts([url, url, url, Some("none"), None]),
            &texts([wanted; 5]),
            Some(&numbers([Some(2), Some(0), Some(9), Some(2), Some(2)])),
        );
        assert_eq!(&found.unwrap(), &texts([Some("77"), Some("&channel_id=77"), None, None, None]));
        assert_eq!(&regexp_extract(&texts([Some("ab")]), &texts([Some("b|c")]), None).unwrap(), &texts([Some("b")]));
        assert!(pattern("(").unwrap_err().to_string().contains("'(' is no regular expression: unclosed group"));
    }

    #[test]
    fn count_char_counts_letters_not_bytes() {
        let found = count_char(&texts([Some("abcabc"), Some("äöä"), Some("abc"), None]), &texts([Some("c"), Some("ä"), Some(""), Some("a")]));
        assert_eq!(&found, &numbers([Some(2), Some(2), Some(0), None]));
    }
}

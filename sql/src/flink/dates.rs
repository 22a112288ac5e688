//! Times as text and in parts. In: a column of times. Out: a column; NULL where an argument is.
//!
//! Neighbours in a stream are close in time, so the text of a row is most often that of the row before: it is kept with the span of time it is
//! true for.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use chrono::{DateTime, Datelike};
use datafusion::common::{Result, exec_err};

const LETTERS: &str = "its letters are yyyy, yy, MM, M, dd, d, HH, H, mm, m, ss, s and S to SSSSSSSSS, other text stands in quotes: 'at'";

/// A part of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

impl Part {
    /// Of a time of day in units, `second` of them a second; None for parts of the date.
    fn of_day(self, units: i64, second: i64) -> Option<i64> {
        match self {
            Part::Hour => Some(units / (3_600 * second)),
            Part::Minute => Some(units / (60 * second) % 60),
            Part::Second => Some(units / second % 60),
            _ => None,
        }
    }

    fn of_date(self, days: i64) -> Option<i64> {
        let date = DateTime::from_timestamp(days.checked_mul(86_400)?, 0)?.date_naive();
        Some(match self {
            Part::Year => i64::from(date.year()),
            Part::Month => i64::from(date.month()),
            _ => i64::from(date.day()),
        })
    }
}

/// The times as numbers, and how many of them make a second.
fn ticks(times: &ArrayRef) -> Result<(Int64Array, i64)> {
    let DataType::Timestamp(unit, None) = times.data_type() else { return exec_err!("{} is no TIMESTAMP", times.data_type()) };
    let second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    Ok((cast(times, &DataType::Int64)?.as_primitive::<Int64Type>().clone(), second))
}

/// Errors: a time beyond the year 262,000.
pub fn part_of(part: Part, times: &ArrayRef) -> Result<ArrayRef> {
    let (ticks, second) = ticks(times)?;
    let day = 86_400 * second;
    let parts = ticks.try_unary::<_, Int64Type, datafusion::common::DataFusionError>(|time| {
        match part.of_day(time.rem_euclid(day), second).or_else(|| part.of_date(time.div_euclid(day))) {
            Some(part) => Ok(part),
            None => exec_err!("{time} is no time of our calendar"),
        }
    })?;
    Ok(Arc::new(parts))
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    /// With this many digits at least.
    Part(Part, usize),
    /// The last two digits of the year.
    ShortYear,
    /// The first digits of the fraction of a second.
    Fraction(usize),
}

/// A pattern of Java's DateTimeFormatter, as far as it is numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct DatePattern {
    pieces: Vec<Piece>,
}

impl DatePattern {
    /// Errors: a letter that means something else in Java, or nothing.
    pub fn parse(text: &str) -> Result<DatePattern> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut letters = text.chars().peekable();
        let literal = |pieces: &mut Vec<Piece>, letter: char| match pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(letter),
            _ => pieces.push(Piece::Text(letter.to_string())),
        };
        while let Some(letter) = letters.next() {
            if letter == '\'' {
                if letters.next_if_eq(&'\'').is_some() {
                    literal(&mut pieces, '\'');
                    continue;
                }
                loop {
                    match letters.next() {
                        Some('\'') if letters.next_if_eq(&'\'').is_some() => literal(&mut pieces, '\''),
                        Some('\'') => break,
                        Some(quoted) => literal(&mut pieces, quoted),
                        None => return exec_err!("the pattern '{text}' ends within quotes"),
                    }
                }
                continue;
            }
            if !letter.is_ascii_alphabetic() {
                literal(&mut pieces, letter);
                continue;
            }
            let mut count = 1;
            while letters.next_if_eq(&letter).is_some() {
                count += 1;
            }
            pieces.push(match (letter, count) {
                ('y' | 'u', 2) => Piece::ShortYear,
                ('y' | 'u', 1..=4) => Piece::Part(Part::Year, count),
                ('M', 1..=2) => Piece::Part(Part::Month, count),
                ('d', 1..=2) => Piece::Part(Part::Day, count),
                ('H', 1..=2) => Piece::Part(Part::Hour, count),
                ('m', 1..=2) => Piece::Part(Part::Minute, count),
                ('s', 1..=2) => Piece::Part(Part::Second, count),
                ('S', 1..=9) => Piece::Fraction(count),
                _ => return exec_err!("the pattern '{text}' has {}, which cannot be written; {LETTERS}", letter.to_string().repeat(count)),
            });
        }
        Ok(DatePattern { pieces })
    }

    /// For how long the text stays the same, in units.
    fn grain(&self, second: i64) -> i64 {
        let grain = |piece: &Piece| match piece {
            Piece::Text(_) | Piece::ShortYear => 86_400 * second,
            Piece::Part(part, _) => match part {
                Part::Hour => 3_600 * second,
                Part::Minute => 60 * second,
                Part::Second => second,
                _ => 86_400 * second,
            },
            Piece::Fraction(digits) => (second / 10_i64.pow(*digits as u32)).max(1),
        };
        self.pieces.iter().map(grain).min().unwrap_or(86_400 * second)
    }

    fn write(&self, time: i64, second: i64, out: &mut String) -> Result<()> {
        out.clear();
        let (days, of_day) = (time.div_euclid(86_400 * second), time.rem_euclid(86_400 * second));
        for piece in &self.pieces {
            let (value, width) = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Part(part, width) => (part.of_day(of_day, second).or_else(|| part.of_date(days)), *width),
                Piece::ShortYear => (Part::Year.of_date(days).map(|year| year.rem_euclid(100)), 2),
                Piece::Fraction(digits) => {
                    let nanoseconds = of_day % second * (1_000_000_000 / second);
                    (Some(nanoseconds / 10_i64.pow(9 - *digits as u32)), *digits)
                }
            };
            let Some(value) = value else { return exec_err!("{time} is no time of our calendar") };
            write!(out, "{value:0width$}").expect("a String takes every write");
        }
        Ok(())
    }
}

/// Errors: a pattern that is none, or a time beyond the year 262,000.
pub fn date_format(times: &ArrayRef, patterns: &ArrayRef) -> Result<ArrayRef> {
    let (ticks, second) = ticks(times)?;
    let patterns = patterns.as_string::<i32>();
    let mut known: Option<(&str, DatePattern, i64)> = None;
    let (mut text, mut span): (String, Range<i64>) = (String::new(), 0..0);
    let mut found = StringBuilder::with_capacity(ticks.len(), ticks.len() * 10);
    for row in 0..ticks.len() {
        if ticks.is_null(row) || patterns.is_null(row) {
            found.append_null();
            continue;
        }
        let (time, wanted) = (ticks.value(row), patterns.value(row));
        if known.as_ref().is_none_or(|(text, _, _)| *text != wanted) {
            let pattern = DatePattern::parse(wanted)?;
            let grain = pattern.grain(second);
            known = Some((wanted, pattern, grain));
            span = 0..0;
        }
        if !span.contains(&time)
            && let Some((_, pattern, grain)) = &known
        {
            pattern.write(time, second, &mut text)?;
            let first = time - time.rem_euclid(*grain);
            span = first..first.saturating_add(*grain);
        }
        found.append_value(&text);
    }
    Ok(Arc::new(found.finish()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, TimestampMicrosecondArray, TimestampMillisecondArray};

    use super::*;

    fn formatted(times: &[Option<i64>], pattern: &str) -> Vec<Option<String>> {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(times.to_vec()));
        let patterns: ArrayRef = Arc::new(StringArray::from(vec![pattern; times.len()]));
        date_format(&times, &patterns).unwrap().as_string::<i32>().iter().map(|text| text.map(str::to_string)).collect()
    }

    #[test]
    fn a_pattern_is_javas() {
        // 2015-07-15 00:00:00.007, a minute later, the last millisecond of 1969, and a leap day.
        let times = [Some(1_436_918_400_007), Some(1_436_918_460_007), None, Some(-1), Some(951_782_400_000)];
        let found = formatted(&times, "yyyy-MM-dd HH:mm:ss.SSS");
        let expected = [
            Some("2015-07-15 00:00:00.007"),
            Some("2015-07-15 00:01:00.007"),
            None,
            Some("1969-12-31 23:59:59.999"),
            Some("2000-02-29 00:00:00.000"),
        ];
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        assert_eq!(formatted(&times[..1], "d.M.yy 'at' H 'o''clock'")[0].as_deref(), Some("15.7.15 at 0 o'clock"));
        assert_eq!(formatted(&times[1..2], "yyyyMMddHHmm")[0].as_deref(), Some("201507150001"));
    }

    #[test]
    fn a_text_is_kept_as_long_as_it_is_true() {
        let times: Vec<Option<i64>> = (0..5_000).map(|step| Some(step * 7_919 - 20_000_000)).collect();
        for pattern in ["HH:mm", "yyyy-MM-dd", "HH", "ss", "mm:ss.S"] {
            let whole = formatted(&times, pattern);
            let alone: Vec<Option<String>> = times.iter().flat_map(|time| formatted(&[*time], pattern)).collect();
            assert_eq!(whole, alone, "{pattern}");
        }
    }

    #[test]
    fn letters_that_mean_something_else_are_refused() {
        assert!(DatePattern::parse("EEE").unwrap_err().to_string().contains("has EEE, which cannot be written"));
        assert!(DatePattern::parse("yyyy 'x").unwrap_err().to_string().contains("ends within quotes"));
    }

    #[test]
    fn parts_are_those_of_the_calendar_before_1970_too() {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), Some(951_782_400_000_000), None]));
        let of = |part| part_of(part, &times).unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        assert_eq!(of(Part::Year), [Some(1969), Some(2000), None]);
        assert_eq!((of(Part::Month)[1], of(Part::Day)[1]), (Some(2), Some(29)));
        assert_eq!((of(Part::Hour)[0], of(Part::Minute)[0], of(Part::Second)[0]), (Some(23), Some(59), Some(59)));
    }
}

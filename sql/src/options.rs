//! `WITH (name = value, …)`, `FORMAT … ENCODE …` and lengths of time. In: tokens. Out: options with the place of each name and value.
//!
//! Options take strings ('2 ms'), clauses take INTERVAL; a length of time is read by the same rules in both.

use datafusion::sql::sqlparser::tokenizer::Token;

use crate::ast::{Duration, Encode, Encoding, Format, Ident, OptionEntry, OptionValue, Unit, find_option};
use crate::error::{SqlError, nearest};
use crate::parse::cursor::Cursor;

type Result<T> = std::result::Result<T, SqlError>;

/// Names that FORMAT knows.
const FORMATS: [&str; 3] = ["PLAIN", "UPSERT", "DEBEZIUM"];
/// Names that ENCODE knows, and one it will know.
const ENCODES: [&str; 7] = ["JSON", "CSV", "PARQUET", "AVRO", "PROTOBUF", "BYTES", "ARROW"];

/// What the option format of CREATE TABLE takes, in the spellings of Flink, Arroyo and RisingWave.
const TABLE_FORMATS: [&str; 9] =
    ["json", "csv", "parquet", "avro_confluent", "protobuf", "raw", "debezium_json", "upsert_json", "upsert_avro_confluent"];

/// `WITH (name = value, …)`.
pub fn list(cursor: &mut Cursor) -> Result<Vec<OptionEntry>> {
    cursor.expect("WITH")?;
    entries(cursor, false)
}

/// `(name = value, …)`. Where there are flags, a name may stand alone and is then true. Errors: a name that stands twice.
pub fn entries(cursor: &mut Cursor, flags: bool) -> Result<Vec<OptionEntry>> {
    let entries = cursor.list(|cursor| entry(cursor, flags))?;
    for (index, entry) in entries.iter().enumerate() {
        if entries[..index].iter().any(|earlier| earlier.name == entry.name) {
            return Err(cursor.error_at(entry.place, format!("option {} stands twice", entry.name)).help("leave one of them out"));
        }
    }
    Ok(entries)
}

/// A source or sink without a connector goes nowhere.
pub fn require_connector(cursor: &Cursor, options: &[OptionEntry], name: &Ident, what: &str) -> Result<()> {
    let place = crate::ast::Place(name.span);
    match find_option(options, "connector") {
        Some(OptionEntry { value: OptionValue::Text(_) | OptionValue::Word(_), .. }) => Ok(()),
        Some(other) => Err(cursor.error_at(other.value_place, format!("connector cannot be {}", other.value)).help("it is a name, such as 'file'")),
        None => {
            let close = options.iter().find(|option| nearest(&option.name, ["connector"]).is_some());
            let error = cursor.error_at(close.map_or(place, |option| option.place), format!("{what} {name} has no connector"));
            Err(error.help(match close {
                Some(option) => format!("did you mean connector instead of {}?", option.name),
                None => "say where its rows are: WITH (connector = 'file', …)".to_string(),
            }))
        }
    }
}

/// Errors: an option that is not of these, with the nearest one.
pub fn require_known(cursor: &Cursor, options: &[OptionEntry], known: &[&str]) -> Result<()> {
    for option in options {
        if !known.contains(&option.name.as_str()) {
            let error = cursor.error_at(option.place, format!("option {} is unknown", option.name));
            return Err(match nearest(&option.name, known.iter().copied()) {
                Some(close) => error.help(format!("did you mean {close}?")),
                None => error.help(format!("options here are {}", known.join(", "))),
            });
        }
    }
    Ok(())
}

/// Errors: an option whose value is not one of `now`; those of `later` are still to come. Ignores case.
pub fn require_value(cursor: &Cursor, option: &OptionEntry, now: &[&str], later: &[&str]) -> Result<()> {
    let value = option.value.text().to_lowercase();
    if now.contains(&value.as_str()) {
        return Ok(());
    }
    let quoted: Vec<String> = now.iter().map(|word| format!("'{word}'")).collect();
    let takes = format!("{} takes {}", option.name, quoted.join(" or "));
    if later.contains(&value.as_str()) {
        return Err(cursor.error_at(option.value_place, format!("{} = {} is not supported yet", option.name, option.value)).help(takes));
    }
    let error = cursor.error_at(option.value_place, format!("{} cannot be {}", option.name, option.value));
    Err(match nearest(&value, now.iter().copied()) {
        Some(close) => error.help(format!("did you mean '{close}'?")),
        None => error.help(takes),
    })
}

/// Errors: an option that is no length of time above zero.
pub fn require_duration(cursor: &Cursor, option: &OptionEntry) -> Result<()> {
    let fail = |message: String, help: String| Err(cursor.error_at(option.value_place, message).help(help));
    match parse_duration(&option.value.text()) {
        Ok(parts) if parts.iter().all(|(amount, _)| *amount == 0) => {
            fail(format!("{} has no length", option.name), "it is at least one millisecond long".into())
        }
        Ok(_) => Ok(()),
        Err((message, help)) => fail(message, help),
    }
}

/// The value of the option or setting `name`.
pub fn value(cursor: &mut Cursor, name: &str) -> Result<OptionValue> {
    if cursor.word(0) == "INTERVAL" {
        return Ok(OptionValue::Duration(duration(cursor, name)?));
    }
    let expected = cursor.error_expected(&format!("a value of {name}")).help("values are 'text', numbers, true, false, words and INTERVAL '…'");
    let sign = match cursor.token() {
        Token::Minus => "-",
        Token::Plus => "+",
        _ => "",
    };
    if !sign.is_empty() {
        cursor.next_token();
    }
    match cursor.token().clone() {
        Token::Number(digits, _) => {
            cursor.next_token();
            Ok(OptionValue::Number(format!("{}{digits}", sign.trim_start_matches('+'))))
        }
        _ if !sign.is_empty() => Err(expected),
        Token::SingleQuotedString(text) => {
            cursor.next_token();
            Ok(OptionValue::Text(text))
        }
        Token::Word(word) if word.quote_style.is_none() => {
            if word.value.eq_ignore_ascii_case("SECRET") && !matches!(cursor.found_nth(1).as_str(), "," | ")") {
                cursor.next_token();
                return Ok(OptionValue::Secret(cursor.name("the name of a secret")?));
            }
            cursor.next_token();
            Ok(match word.value.to_ascii_lowercase().as_str() {
                "true" => OptionValue::Boolean(true),
                "false" => OptionValue::Boolean(false),
                _ => OptionValue::Word(word.value),
            })
        }
        _ => Err(expected),
    }
}

fn entry(cursor: &mut Cursor, flags: bool) -> Result<OptionEntry> {
    let place = cursor.place();
    let mut name = option_name(cursor)?;
    loop {
        // As Kafka and HTTP spell their names: scan.startup.specific-offsets, header.X-Api-Key.
        let joint = match cursor.token() {
            Token::Period => '.',
            Token::Minus => '-',
            _ => break,
        };
        cursor.next_token();
        name = format!("{name}{joint}{}", option_name(cursor)?);
    }
    let place = cursor.place_since(place);
    if matches!(cursor.token(), Token::Comma | Token::RParen) && flags {
        return Ok(OptionEntry { name, value: OptionValue::Boolean(true), place, value_place: place });
    }
    if !cursor.eat_token(&Token::Eq) {
        return Err(cursor.error_expected(&format!("= after option {name}")));
    }
    let value_place = cursor.place();
    let value = value(cursor, &name)?;
    Ok(OptionEntry { name, value, place, value_place: cursor.place_since(value_place) })
}

fn option_name(cursor: &mut Cursor) -> Result<String> {
    let name = match cursor.token() {
        Token::Word(word) => word.value.to_lowercase(),
        Token::SingleQuotedString(text) if !text.is_empty() => text.to_lowercase(),
        _ => return Err(cursor.error_expected("the name of an option").help("options are written (name = value, …)")),
    };
    cursor.next_token();
    Ok(name)
}

/// `FORMAT … ENCODE … [(options)]`, if it is next.
pub fn encoding(cursor: &mut Cursor) -> Result<Option<Encoding>> {
    let place = cursor.place();
    if !cursor.eat(&["FORMAT"]) {
        if cursor.word(0) == "ENCODE" {
            return Err(cursor.error_expected("FORMAT").help("FORMAT says how rows change: FORMAT PLAIN ENCODE …"));
        }
        return Ok(None);
    }
    let format = match cursor.word(0).as_str() {
        "PLAIN" => Format::Plain,
        "UPSERT" => Format::Upsert,
        "DEBEZIUM" => Format::Debezium,
        other => return Err(unknown_word(cursor, "FORMAT", other, &FORMATS)),
    };
    cursor.next_token();
    if cursor.word(0) != "ENCODE" {
        return Err(cursor.error_expected("ENCODE").help(format!("ENCODE says how bytes read: {}", ENCODES[..3].join(", "))));
    }
    cursor.next_token();
    let encode = match encode_of(&cursor.word(0)) {
        Some(encode) => encode,
        None => return Err(unknown_word(cursor, "ENCODE", &cursor.word(0), &ENCODES)),
    };
    cursor.next_token();
    let place = cursor.place_since(place);
    let options = if *cursor.token() == Token::LParen { entries(cursor, false)? } else { Vec::new() };
    Ok(Some(Encoding { format, encode, options, place }))
}

fn encode_of(word: &str) -> Option<Encode> {
    match word {
        "JSON" => Some(Encode::Json),
        "CSV" => Some(Encode::Csv),
        "PARQUET" => Some(Encode::Parquet),
        "AVRO" => Some(Encode::Avro),
        "PROTOBUF" => Some(Encode::Protobuf),
        "BYTES" => Some(Encode::Bytes),
        _ => None,
    }
}

fn unknown_word(cursor: &Cursor, clause: &str, word: &str, known: &[&str]) -> SqlError {
    if known.contains(&word) {
        return cursor.error_here(format!("{clause} {word} is not supported yet"));
    }
    let error = cursor.error_here(format!("{clause} {} is unknown", cursor.found()));
    match nearest(word, known.iter().copied()) {
        Some(close) => error.help(format!("did you mean {close}?")),
        None => error.help(format!("{clause} takes {}", known.join(", "))),
    }
}

/// Takes the `format` option of CREATE TABLE out of the list, as the FORMAT and ENCODE it stands for.
pub fn take_format_option(cursor: &Cursor, options: &mut Vec<OptionEntry>) -> Result<Option<Encoding>> {
    let Some(index) = options.iter().position(|option| option.name == "format") else { return Ok(None) };
    let option = options.remove(index);
    let text = option.value.text().to_lowercase().replace('-', "_");
    let (format, encode) = match text.split_once('_') {
        Some(("debezium", encode)) => (Format::Debezium, encode),
        Some(("upsert", encode)) => (Format::Upsert, encode),
        _ => (Format::Plain, text.as_str()),
    };
    let encode = match encode {
        "raw" | "raw_string" | "raw_bytes" => Some(Encode::Bytes),
        other => encode_of(&other.strip_suffix("_confluent").unwrap_or(other).to_uppercase()),
    };
    let Some(encode) = encode else {
        let error = cursor.error_at(option.value_place, format!("format {} is unknown", option.value));
        return Err(match nearest(&text, TABLE_FORMATS) {
            Some(close) => error.help(format!("did you mean '{close}'?")),
            None => error.help(format!("formats are {}", TABLE_FORMATS.join(", "))),
        });
    };
    Ok(Some(Encoding { format, encode, options: Vec::new(), place: option.place }))
}

/// `INTERVAL '…' [unit]`, `INTERVAL 5 MINUTES`, or a string alone. `what` is the clause or option it belongs to.
pub fn duration(cursor: &mut Cursor, what: &str) -> Result<Duration> {
    let start = cursor.place();
    let interval = cursor.eat(&["INTERVAL"]);
    let place = cursor.place();
    let mut text = match cursor.token() {
        Token::SingleQuotedString(text) => text.clone(),
        Token::Number(digits, _) if interval => digits.clone(),
        _ => return Err(cursor.error_expected(&format!("the length of {what}")).help("for example INTERVAL '5 minutes'")),
    };
    cursor.next_token();
    // A word is this interval's unit only if the text has none: INTERVAL '5' MINUTE, but not INTERVAL '1 day' MIN ROWS 10.
    let interval = interval && text.trim_end().ends_with(|letter: char| letter.is_ascii_digit());
    if interval && unit_of(&cursor.word(0).to_lowercase()).is_ok() && !cursor.word(0).is_empty() {
        text = format!("{text} {}", cursor.word(0).to_lowercase());
        cursor.next_token();
        if cursor.word(0) == "TO" {
            return Err(cursor.error_here("INTERVAL … TO is not supported").help("write every part with its unit: INTERVAL '1 hour 30 minutes'"));
        }
    } else if interval && matches!(cursor.word(0).as_str(), "MONTH" | "MONTHS" | "YEAR" | "YEARS" | "QUARTER" | "QUARTERS") {
        text = format!("{text} {}", cursor.word(0).to_lowercase());
    }
    match parse_duration(&text) {
        Ok(parts) => Ok(Duration { parts, place: cursor.place_since(start) }),
        Err((message, help)) => Err(cursor.error_at(place, message).help(help)),
    }
}

/// '2 ms', '1 hour', '7 days', '1 hour 30 minutes'. Errors: message and help.
pub fn parse_duration(text: &str) -> std::result::Result<Vec<(u64, Unit)>, (String, String)> {
    const EXAMPLE: &str = "write a number and a unit for each part, as in '1 hour 30 minutes'";
    let fail = |message: String, help: &str| Err((message, help.to_string()));
    let mut parts = Vec::new();
    let mut total: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return fail("the length of time is empty".into(), EXAMPLE);
    }
    while !rest.is_empty() {
        let digits_end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, tail) = rest.split_at(digits_end);
        if rest.starts_with('-') {
            return fail(format!("'{text}' is negative"), "lengths of time count from 0 up");
        }
        if tail.starts_with('.') {
            return fail(format!("'{text}' has a fraction"), "write whole numbers in a smaller unit: '90 minutes'");
        }
        if digits.is_empty() {
            return fail(format!("'{text}' is no length of time"), EXAMPLE);
        }
        let tail = tail.trim_start();
        let unit_end = tail.find(|letter: char| !letter.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = unit_of(&unit.to_lowercase())?;
        let Some(amount) = digits.parse::<u64>().ok().filter(|amount| amount.checked_mul(unit.ms()).is_some()) else {
            return fail(format!("'{text}' is too long"), "the longest length of time is about 290 million years");
        };
        total = total.saturating_add(amount * unit.ms());
        parts.push((amount, unit));
        rest = tail.trim_start();
    }
    if total > i64::MAX as u64 {
        return fail(format!("'{text}' is too long"), "the longest length of time is about 290 million years");
    }
    Ok(parts)
}

fn unit_of(word: &str) -> std::result::Result<Unit, (String, String)> {
    const UNITS: [&str; 12] =
        ["millisecond", "milliseconds", "second", "seconds", "minute", "minutes", "hour", "hours", "day", "days", "week", "weeks"];
    match word {
        "ms" | "millisecond" | "milliseconds" => Ok(Unit::Millisecond),
        "s" | "sec" | "secs" | "second" | "seconds" => Ok(Unit::Second),
        "m" | "min" | "mins" | "minute" | "minutes" => Ok(Unit::Minute),
        "h" | "hr" | "hrs" | "hour" | "hours" => Ok(Unit::Hour),
        "d" | "day" | "days" => Ok(Unit::Day),
        "w" | "week" | "weeks" => Ok(Unit::Week),
        "month" | "months" | "mon" | "mons" | "quarter" | "quarters" | "y" | "year" | "years" => {
            Err((format!("{word} is a calendar unit, it has no fixed length"), "use days: '30 days', '365 days'".into()))
        }
        "us" | "microsecond" | "microseconds" | "ns" | "nanosecond" | "nanoseconds" => {
            Err((format!("{word} is finer than the clock"), "the smallest unit is the millisecond".into()))
        }
        "" => Err(("the unit is missing".into(), "write a number and a unit, as in '5 minutes'".into())),
        other => Err((
            format!("unit {other} is unknown"),
            match nearest(other, UNITS) {
                Some(known) => format!("did you mean {known}?"),
                None => "units are ms, seconds, minutes, hours, days, weeks".into(),
            },
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        Duration { parts: parse_duration(text).unwrap(), place: crate::ast::Place(crate::ast::Span::empty()) }.ms()
    }

    #[test]
    fn durations_read_in_every_spelling() {
        assert_eq!(
            (ms("2 ms"), ms("1 hour"), ms("7 days"), ms("1h30m"), ms(" 1 Hour 30 minutes ")),
            (2, 3_600_000, 604_800_000, 5_400_000, 5_400_000)
        );
    }

    #[test]
    fn t22_calendar_units_are_refused() {
        assert_eq!(parse_duration("1 month").unwrap_err().0, "month is a calendar unit, it has no fixed length");
        assert!(parse_duration("2 years").is_err());
    }

    #[test]
    fn broken_durations_say_how() {
        let message = |text: &str| parse_duration(text).unwrap_err().0;
        assert_eq!(message("5"), "the unit is missing");
        assert_eq!(message("-1 day"), "'-1 day' is negative");
        assert_eq!(message("1.5 hours"), "'1.5 hours' has a fraction");
        assert_eq!(message("soon"), "'soon' is no length of time");
        assert_eq!(message("99999999999999999999 days"), "'99999999999999999999 days' is too long");
        assert_eq!(parse_duration("1 huor").unwrap_err().1, "did you mean hour?");
    }
}

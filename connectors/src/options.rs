//! WITH options as typed values. In: names and texts. Out: values, or an error that names the option and its remedy.

use std::collections::BTreeMap;
use std::time::Duration;

use freshet_core::OptionError;

pub const PATH: &str = "path";
/// The options that ENCODE CSV adds.
pub const CSV: [&str; 3] = ["header", "delimiter", "null"];

type Options = BTreeMap<String, String>;

/// How a CSV file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csv {
    /// The first line of each file names its columns.
    pub header: bool,
    pub delimiter: u8,
    /// What stands for NULL where it is not quoted. By default: nothing between two delimiters.
    pub null: String,
}

impl Csv {
    pub fn parse(options: &Options) -> Result<Csv, OptionError> {
        let header = match options.get("header").map(|text| text.to_ascii_lowercase()).as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some(other) => return Err(wrong("header", format!("header must be 'true' or 'false', found '{other}'"))),
        };
        let delimiter = match options.get("delimiter").map(String::as_str) {
            None => b',',
            Some("\\t") => b'\t',
            Some(text) => match text.as_bytes() {
                [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => *byte,
                _ => return Err(wrong("delimiter", format!("delimiter must be one ASCII character other than a quote or line end, found '{text}'"))),
            },
        };
        Ok(Csv { header, delimiter, null: options.get("null").cloned().unwrap_or_default() })
    }
}

pub fn wrong(option: &str, message: impl Into<String>) -> OptionError {
    OptionError { option: Some(option.to_string()), message: message.into() }
}

pub fn required<'a>(connector: &str, options: &'a Options, name: &str, meaning: &str) -> Result<&'a str, OptionError> {
    match options.get(name).map(String::as_str) {
        None => Err(OptionError { option: None, message: format!("the {connector} connector needs {name} = '…', {meaning}") }),
        Some("") => Err(wrong(name, format!("{name} is empty; it must be {meaning}"))),
        Some(value) => Ok(value),
    }
}

/// A length of time: '500ms', '30s', '10min', '6h', '7d'; a bare number is seconds.
pub fn duration(options: &Options, name: &str, default: Duration) -> Result<Duration, OptionError> {
    let Some(text) = options.get(name) else { return Ok(default) };
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let unit_ms = match unit.trim() {
        "ms" => 1,
        "" | "s" | "sec" | "second" | "seconds" => 1000,
        "min" | "m" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_ms)) {
        Some(ms) if unit_ms > 0 && ms <= 366 * 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err(wrong(name, format!("{name} is a length of time such as '500ms', '30s', '10min', '6h' or '7d', at most a year; found '{text}'"))),
    }
}

/// Refuses the first option that is not known, naming the nearest that is.
pub fn check_names<'a>(connector: &str, options: impl IntoIterator<Item = &'a String>, known: &[&str]) -> Result<(), OptionError> {
    for name in options {
        if known.contains(&name.as_str()) {
            continue;
        }
        if CSV.contains(&name.as_str()) {
            return Err(wrong(name, format!("option {name} belongs to ENCODE CSV; remove it or use ENCODE CSV")));
        }
        let hint = match nearest(name, known) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => format!("known are {}", known.join(", ")),
        };
        return Err(wrong(name, format!("the {connector} connector has no option {name}; {hint}")));
    }
    Ok(())
}

/// The known name that was probably meant.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let nearest = known.iter().copied().min_by_key(|candidate| distance(candidate, name))?;
    (distance(nearest, name) <= 1 + nearest.len() / 3).then_some(nearest)
}

/// How many insertions, deletions and substitutions turn one name into the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.chars().enumerate() {
        let mut diagonal = above[0];
        above[0] = row + 1;
        for (column, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = above[column + 1];
            above[column + 1] = substituted.min(diagonal + 1).min(above[column] + 1);
        }
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn unknown_option_names_the_nearest_known_one() {
        let error = check_names("file", options(&[("pth", "x")]).keys(), &[PATH, "header"]).unwrap_err();
        assert_eq!(error.message, "the file connector has no option pth; did you mean path?");
        let error = check_names("file", options(&[("bootstrap.servers", "x")]).keys(), &[PATH]).unwrap_err();
        assert_eq!(error.message, "the file connector has no option bootstrap.servers; known are path");
        let error = check_names("file", options(&[("header", "x")]).keys(), &[PATH]).unwrap_err();
        assert_eq!(error.message, "option header belongs to ENCODE CSV; remove it or use ENCODE CSV");
    }

    #[test]
    fn durations_have_units() {
        let of = |text: &str| duration(&options(&[("timeout", text)]), "timeout", Duration::from_secs(9));
        let ms = |ms: u64| Duration::from_millis(ms);
        assert_eq!(duration(&options(&[]), "timeout", Duration::from_secs(9)).unwrap(), ms(9000));
        assert_eq!(
            [of("250ms"), of("2"), of("2s"), of("3min"), of("1 d")].map(Result::unwrap),
            [ms(250), ms(2000), ms(2000), ms(180_000), ms(86_400_000)]
        );
        for bad in ["", "s", "-1s", "1.5s", "2 weeks", "99999999999999999999s"] {
            assert_eq!(of(bad).unwrap_err().option.as_deref(), Some("timeout"), "{bad}");
        }
    }

    #[test]
    fn csv_options_are_checked() {
        assert_eq!(Csv::parse(&options(&[])).unwrap(), Csv { header: true, delimiter: b',', null: String::new() });
        assert_eq!(Csv::parse(&options(&[("delimiter", "\\t")])).unwrap().delimiter, b'\t');
        assert_eq!(Csv::parse(&options(&[("header", "maybe")])).unwrap_err().option.as_deref(), Some("header"));
        assert_eq!(Csv::parse(&options(&[("delimiter", ";;")])).unwrap_err().option.as_deref(), Some("delimiter"));
    }
}

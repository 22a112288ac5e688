//! Options that every source takes, whatever its connector: bad_data, idle_timeout, max_jump, max_skew, how many dead letters are kept. In: WITH
//! options. Out: typed values, or a refusal at the option that is wrong.

use freshet_core::{BadData, LetterLimits, TimeLimits};

use crate::ast::{OptionEntry, find_option};
use crate::error::nearest;
use crate::options::parse_duration;
use crate::refusal::{Refusal, Result};

/// Their names; a connector never sees them.
pub(crate) const NAMES: [&str; 6] = ["bad_data", "idle_timeout", "max_dead_letter_age", "max_dead_letter_bytes", "max_jump", "max_skew"];

/// A letter keeps 64 KiB of its record, as bytes and as text, and some words besides.
const LETTER_BYTES_MIN: u64 = 256 << 10;

/// Names that peers have for what is a table here.
const DEAD_LETTER_TOPICS: [&str; 3] = ["dead_letter.topic", "dead_letter_topic", "dead_letter.queue"];

/// How far times may stray.
pub(crate) fn time_limits(options: &[OptionEntry]) -> Result<TimeLimits> {
    let mut limits = TimeLimits::default();
    if let Some(option) = find_option(options, "idle_timeout") {
        limits.idle_ms = if is_none(option) { None } else { Some(length_ms(option, "'30 s', or 'none': then a silent partition is waited for")?) };
    }
    for (name, limit) in [("max_jump", &mut limits.max_jump_ms), ("max_skew", &mut limits.max_skew_ms)] {
        if let Some(option) = find_option(options, name) {
            *limit = length_ms(option, "a length of time, such as '1 day'; 'none' is no limit of it")?;
        }
    }
    Ok(limits)
}

/// How many dead letters are kept.
pub(crate) fn letter_limits(options: &[OptionEntry]) -> Result<LetterLimits> {
    let mut limits = LetterLimits::default();
    if let Some(option) = find_option(options, "max_dead_letter_age") {
        limits.age_ms = if is_none(option) { None } else { Some(length_ms(option, "a length of time, such as '30 days', or 'none'")?) };
    }
    if let Some(option) = find_option(options, "max_dead_letter_bytes") {
        let text = option.value.text();
        limits.bytes_max = text.trim().parse().ok().filter(|bytes| *bytes >= LETTER_BYTES_MIN).ok_or_else(|| {
            Refusal::new(format!("max_dead_letter_bytes = '{text}' is not understood"))
                .help(format!("max_dead_letter_bytes is a number of bytes, at least {LETTER_BYTES_MIN}: one letter may need as much"))
                .at(option.value_place.0)
        })?;
    }
    Ok(limits)
}

/// What happens to records that cannot be read (C3). Errors: also an option that would send them into a topic.
pub(crate) fn bad_data(options: &[OptionEntry], source: &str) -> Result<BadData> {
    if let Some(option) = options.iter().find(|option| DEAD_LETTER_TOPICS.contains(&option.name.as_str())) {
        return Err(Refusal::new(format!("dead letters are no topic, they are the table dead_letters({source})"))
            .help(format!("leave {} out and SELECT * FROM \"dead_letters({source})\"", option.name))
            .at(option.place.0));
    }
    let Some(option) = find_option(options, "bad_data") else { return Ok(BadData::default()) };
    match option.value.text().to_lowercase().as_str() {
        "dead_letter" => Ok(BadData::DeadLetter),
        "drop" => Ok(BadData::Drop),
        "fail" => Ok(BadData::Fail),
        other => {
            Err(Refusal::new(format!("bad_data = '{other}' is unknown")).help("bad_data is 'dead_letter', 'drop' or 'fail'").at(option.value_place.0))
        }
    }
}

/// The option of every source that a connector's unknown one most likely means.
pub(crate) fn meant(name: &str) -> Option<&'static str> {
    nearest(name, NAMES)
}

fn is_none(option: &OptionEntry) -> bool {
    option.value.text().eq_ignore_ascii_case("none")
}

fn length_ms(option: &OptionEntry, takes: &str) -> Result<u64> {
    let wrong = |message: String, help: String| Err(Refusal::new(message).help(help).at(option.value_place.0));
    let takes = || format!("{} is {takes}", option.name);
    if is_none(option) {
        return wrong(format!("{} cannot be none", option.name), takes());
    }
    match parse_duration(&option.value.text()) {
        Ok(parts) => match parts.iter().map(|(amount, unit)| amount * unit.ms()).sum() {
            0 => wrong(format!("{} has no length", option.name), takes()),
            ms => Ok(ms),
        },
        Err((message, help)) => wrong(format!("{}: {message}", option.name), help),
    }
}

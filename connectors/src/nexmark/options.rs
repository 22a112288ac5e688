//! WITH options of the nexmark connector. In: names and texts, in Flink's and RisingWave's spelling too. Out: settings.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::{NaiveDate, NaiveDateTime};
use freshet_core::OptionError;

use super::event::Shape;
use crate::options::{check_names, wrong};

const NAMES: [&str; 13] = [
    "events",
    "rate",
    "partitions",
    "seed",
    "start",
    "paced",
    "table.type",
    "events.num",
    "first-event.rate",
    "next-event.rate",
    "person.proportion",
    "auction.proportion",
    "bid.proportion",
];
const PARTITIONS_MAX: u64 = 1_024;

/// What the options say.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub shape: Shape,
    /// How many events there are; None: no end.
    pub events: Option<u64>,
    pub partitions: u32,
    /// Rows come no faster than their times follow each other.
    pub paced: bool,
    /// The table holds events of this kind only.
    pub kind: Option<u8>,
}

impl Settings {
    /// Errors: an option that is not known, or whose value is not what it takes.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Settings, OptionError> {
        check_names("nexmark", options.keys().filter(|name| canonical(name).is_none()), &NAMES)?;
        let find =
            |name: &'static str| options.iter().find(|(key, _)| canonical(key) == Some(name)).map(|(key, value)| (key.as_str(), value.as_str()));
        let usual = Shape::default();
        let proportion = |name, usual| Ok(whole(find(name))?.unwrap_or(usual));
        let shape = Shape {
            seed: whole(find("seed"))?.unwrap_or(usual.seed),
            people: proportion("person.proportion", usual.people)?,
            auctions: proportion("auction.proportion", usual.auctions)?,
            bids: proportion("bid.proportion", usual.bids)?,
            rate: rate(find("rate"), usual.rate)?,
            start_ms: start(find("start"), usual.start_ms)?,
        };
        let round = [shape.people, shape.auctions, shape.bids].into_iter().try_fold(0u64, u64::checked_add);
        if !round.is_some_and(|round| (1..=1_000_000).contains(&round)) {
            return Err(wrong("bid.proportion", "the proportions of people, auctions and bids add up to between 1 and 1000000"));
        }
        let partitions = whole(find("partitions"))?.unwrap_or(1);
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(wrong(
                find("partitions").map_or("partitions", |found| found.0),
                format!("there are between 1 and {PARTITIONS_MAX} partitions"),
            ));
        }
        let kind = match find("table.type").map(|(key, value)| (key, value.to_ascii_lowercase())) {
            None => None,
            Some((key, value)) => match ["person", "auction", "bid"].iter().position(|known| *known == value) {
                Some(kind) => Some(kind as u8),
                None => return Err(wrong(key, format!("{key} is 'person', 'auction' or 'bid', or left out for all events; found '{value}'"))),
            },
        };
        let paced = match find("paced").map(|(_, value)| value) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(wrong("paced", format!("paced must be 'true' or 'false', found '{other}'"))),
        };
        Ok(Settings { shape, events: whole(find("events"))?.filter(|events| *events > 0), partitions: partitions as u32, paced, kind })
    }
}

/// What an option is called here.
fn canonical(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("nexmark.").unwrap_or(name);
    Some(match name {
        "events.num" | "event.num" => "events",
        "first-event.rate" | "next-event.rate" => "rate",
        "split.num" => "partitions",
        other => NAMES.iter().find(|known| **known == other)?,
    })
}

type Found<'a> = Option<(&'a str, &'a str)>;

fn whole(found: Found<'_>) -> Result<Option<u64>, OptionError> {
    let parse = |(name, value): (&str, &str)| u64::from_str(value).map_err(|_| wrong(name, format!("{name} is a whole number, found '{value}'")));
    found.map(parse).transpose()
}

fn rate(found: Found<'_>, usual: f64) -> Result<f64, OptionError> {
    let Some((name, value)) = found else { return Ok(usual) };
    match f64::from_str(value) {
        Ok(rate) if rate.is_finite() && (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err(wrong(name, format!("{name} is a number of events per second, from 0.001 to 1000000000; found '{value}'"))),
    }
}

fn start(found: Found<'_>, usual: i64) -> Result<i64, OptionError> {
    let Some((name, value)) = found else { return Ok(usual) };
    let time = NaiveDateTime::parse_from_str(value, "%Y-%m-%d %H:%M:%S%.f")
        .ok()
        .or_else(|| NaiveDate::parse_from_str(value, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
        .map(|time| time.and_utc().timestamp_millis());
    match time {
        Some(ms) if (0..7_258_118_400_000).contains(&ms) => Ok(ms),
        _ => Err(wrong(name, format!("{name} is a time between 1970 and 2200 such as '2015-07-15 00:00:00', found '{value}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Settings, OptionError> {
        Settings::parse(&pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn flink_and_risingwave_say_the_same_otherwise() {
        let own = parse(&[("events", "100"), ("rate", "50"), ("partitions", "4"), ("table.type", "bid")]).unwrap();
        assert_eq!(
            parse(&[("events.num", "100"), ("first-event.rate", "50"), ("next-event.rate", "50"), ("partitions", "4"), ("table.type", "Bid")]),
            Ok(own.clone())
        );
        assert_eq!(parse(&[("nexmark.event.num", "100"), ("rate", "50"), ("nexmark.split.num", "4"), ("nexmark.table.type", "Bid")]), Ok(own));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |pairs: &[(&str, &str)]| parse(pairs).unwrap_err().message;
        assert_eq!(message(&[("event", "1")]), "the nexmark connector has no option event; did you mean events?");
        assert_eq!(message(&[("events.num", "many")]), "events.num is a whole number, found 'many'");
        assert_eq!(message(&[("table.type", "bids")]), "table.type is 'person', 'auction' or 'bid', or left out for all events; found 'bids'");
        assert!(message(&[("start", "yesterday")]).contains("'2015-07-15 00:00:00'"));
        assert!(parse(&[("person.proportion", "0"), ("auction.proportion", "0"), ("bid.proportion", "0")]).is_err());
        assert!(parse(&[("partitions", "0")]).is_err());
    }

    #[test]
    fn a_start_is_a_day_or_an_instant() {
        assert_eq!(parse(&[("start", "1970-01-02")]).unwrap().shape.start_ms, 86_400_000);
        assert_eq!(parse(&[("start", "1970-01-01 00:00:01.5")]).unwrap().shape.start_ms, 1_500);
    }
}

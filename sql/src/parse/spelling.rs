//! Options of CREATE TABLE as Flink and Arroyo spell them. In: the options as written. Out: the same in our words, and what the table is for.
//!
//! A name that means the same here under another name is renamed; one that says what is so anyhow is left out; all others stay, and the connector
//! says which are unknown. Places are kept, so that errors point at what was written.

use super::Result;
use super::cursor::Cursor;
use crate::ast::{Ident, OptionEntry, OptionValue, Role, find_option};
use crate::options;

/// Names of options, theirs and ours.
const RENAMED: [(&str, &str); 17] = [
    ("connector.type", "connector"),
    ("connector.path", "path"),
    ("connector.topic", "topic"),
    ("connector.startup-mode", "scan.startup.mode"),
    ("format.type", "format"),
    ("format.field-delimiter", "delimiter"),
    ("scan.startup.timestamp-millis", "scan.startup.timestamp.millis"),
    ("scan.topic-partition-discovery.interval", "partition.discovery.interval"),
    ("source.offset", "scan.startup.mode"),
    ("source.group_id", "properties.group.id"),
    ("source.group_id_prefix", "properties.client.id"),
    ("value.format", "format"),
    ("source.monitor-interval", "discovery.interval"),
    ("csv.field-delimiter", "delimiter"),
    ("csv.null-literal", "null"),
    ("sink.rolling-policy.file-size", "roll.size"),
    ("sink.rolling-policy.rollover-interval", "roll.interval"),
];

/// What they say is so anyhow, whatever the value if there is none here: partial files of a sink are never seen, timestamps are read in both
/// spellings, a missing field is NULL, an end of events is an end.
const SAID_ANYHOW: [(&str, &[&str]); 16] = [
    ("update-mode", &["append"]),
    ("connector.property-version", &[]),
    ("connector.version", &[]),
    ("format.property-version", &[]),
    ("format.derive-schema", &["true"]),
    ("sink.rolling-policy.check-interval", &[]),
    ("max-emit-speed", &["true"]),
    ("keep-alive", &["false"]),
    ("wait_for_control", &["true", "false"]),
    ("json.timestamp-format.standard", &["sql", "iso-8601"]),
    ("json.fail-on-missing-field", &["false"]),
    ("json.encode.decimal-as-plain-number", &["true"]),
    ("json.include_schema", &["false"]),
    ("debezium-json.schema-include", &["false"]),
    ("source.read_mode", &["read_uncommitted"]),
    ("sink.commit_mode", &["at_least_once"]),
];

/// What the options say beside what a connector is told.
pub struct Spelled {
    pub role: Role,
    /// `event_time_field`: the column of WATERMARK.
    pub event_time: Option<Ident>,
    /// `watermark_field`: a computed column that says how far WATERMARK lies behind it.
    pub watermark: Option<Ident>,
    /// `json.unstructured`: the only column holds the record as it is.
    pub unstructured: bool,
}

/// Brings the options of a table into our words.
pub fn translate(cursor: &Cursor, options: &mut Vec<OptionEntry>) -> Result<Spelled> {
    let role = role(cursor, options)?;
    let mut column = |name: &str| {
        let index = options.iter().position(|option| option.name == name)?;
        let option = options.remove(index);
        Some(Ident::with_span(option.value_place.0, option.value.text()))
    };
    let (event_time, watermark) = (column("event_time_field"), column("watermark_field"));
    let unstructured = match options.iter().position(|option| option.name == "json.unstructured") {
        Some(index) => {
            options::require_value(cursor, &options[index], &["true", "false"], &[])?;
            options.remove(index).value.text().eq_ignore_ascii_case("true")
        }
        None => false,
    };
    ignore_parse_errors(cursor, options)?;
    for option in options.iter_mut() {
        if let Some((_, ours)) = RENAMED.iter().find(|(theirs, _)| *theirs == option.name) {
            option.name = ours.to_string();
        }
    }
    for (name, values) in SAID_ANYHOW {
        if let Some(option) = find_option(options, name).filter(|_| !values.is_empty()) {
            options::require_value(cursor, option, values, &[])?;
        }
    }
    options.retain(|option| SAID_ANYHOW.iter().all(|(name, _)| *name != option.name));
    without_header(options);
    connector(options);
    for (index, option) in options.iter().enumerate() {
        if options[..index].iter().any(|earlier| earlier.name == option.name) {
            return Err(cursor.error_at(option.place, format!("{} is given twice, under two names", option.name)).help("leave one of them out"));
        }
    }
    Ok(Spelled { role, event_time, watermark, unstructured })
}

fn role(cursor: &Cursor, options: &mut Vec<OptionEntry>) -> Result<Role> {
    let Some(index) = options.iter().position(|option| option.name == "type") else { return Ok(Role::Either) };
    let option = options.remove(index);
    match option.value.text().to_lowercase().as_str() {
        "source" => Ok(Role::Source),
        "sink" => Ok(Role::Sink),
        "lookup" => Ok(Role::Source),
        other => {
            let error = cursor.error_at(option.value_place, format!("type cannot be '{other}'"));
            Err(error.help("a table is of type 'source' or 'sink'"))
        }
    }
}

/// Flink's name for dropping what cannot be read.
fn ignore_parse_errors(cursor: &Cursor, options: &mut [OptionEntry]) -> Result<()> {
    let theirs = ["json.ignore-parse-errors", "csv.ignore-parse-errors", "debezium-json.ignore-parse-errors"];
    for option in options.iter_mut().filter(|option| theirs.contains(&option.name.as_str())) {
        options::require_value(cursor, option, &["true", "false"], &[])?;
        let drops = option.value.text().eq_ignore_ascii_case("true");
        option.name = "bad_data".into();
        option.value = OptionValue::Text(if drops { "drop" } else { "fail" }.into());
    }
    Ok(())
}

/// Flink's CSV files have no header.
fn without_header(options: &mut Vec<OptionEntry>) {
    let says = |name: &str, value: &str| find_option(options, name).is_some_and(|option| option.value.text().eq_ignore_ascii_case(value));
    if says("connector", "filesystem") && says("format", "csv") && find_option(options, "header").is_none() {
        let format = find_option(options, "format").expect("it was found above");
        let header = OptionEntry { name: "header".into(), value: OptionValue::Text("false".into()), ..format.clone() };
        options.push(header);
    }
}

/// One file and a folder of files are one connector here; what a Kafka topic holds is said by the format.
fn connector(options: &mut [OptionEntry]) {
    let Some(index) = options.iter().position(|option| option.name == "connector") else { return };
    let ours = match options[index].value.text().to_lowercase().as_str() {
        "single_file" | "filesystem" => "file",
        "upsert-kafka" => "kafka",
        _ => return,
    };
    let theirs = options[index].value.text().to_lowercase();
    options[index].value = OptionValue::Text(ours.into());
    if theirs == "upsert-kafka"
        && let Some(format) = options.iter_mut().find(|option| option.name == "format")
        && !format.value.text().to_lowercase().starts_with("upsert")
    {
        format.value = OptionValue::Text(format!("upsert_{}", format.value.text().replace('-', "_")));
    }
}

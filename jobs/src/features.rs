//! `freshet features get`: one lookup over Flight. In: a service and keys. Out: each feature with its value and status, and the instant
//! they are true at.

use anyhow::{Context, anyhow};
use arrow_flight::Ticket;
use freshet_core::Epoch;
use freshet_serving::{FeaturesAsk, epoch_date, parse_mode};
use serde_json::{Map, Value};

use crate::client::{Client, Received, block_on, pairs};
use crate::exit::{Failure, Outcome};
use crate::rows::{RowFormat, cells, format_rows};

pub struct FeaturesOptions {
    pub service: String,
    /// One row each.
    pub keys: Vec<String>,
    pub address: String,
    pub pipeline: Option<String>,
    pub mode: Option<String>,
    pub as_of: Option<u64>,
    pub format: RowFormat,
}

pub fn get(options: FeaturesOptions) -> Outcome {
    let mut ask = FeaturesAsk::of(&options.service);
    ask.keys = columns(&options.keys).map_err(Failure::wrong)?;
    ask.mode = options.mode.as_deref().map(parse_mode).transpose().map_err(Failure::wrong)?;
    ask.as_of = options.as_of;
    ask.status = true;
    let ticket = serde_json::to_string(&ask).context("writing the ticket")?;
    block_on(async {
        let received = Client::connect(&options.address).await?.of_pipeline(options.pipeline.as_deref())?.get(Ticket::new(ticket)).await?;
        match options.format {
            RowFormat::Table => print!("{}", vertical(&options.keys, &received).map_err(Failure::failed)?),
            format => print!("{}", format_rows(&received.schema, &received.batches, format).map_err(Failure::failed)?),
        }
        Ok(0)
    })
}

/// Rows of `NAME=VALUE,…` as lists by name; every row names the same columns. Values are text: the service knows the types.
fn columns(rows: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut columns: Map<String, Value> = Map::new();
    for (index, row) in rows.iter().enumerate() {
        let row = pairs(row).with_context(|| format!("--keys {row}"))?;
        for (name, value) in row {
            let list = columns.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
            let list = list.as_array_mut().context("every entry is a list")?;
            if list.len() != index {
                return Err(anyhow!("every --keys names the same columns, once each; {name} does not fit"));
            }
            list.push(if value.is_empty() { Value::Null } else { value.into() });
        }
    }
    Ok(columns)
}

/// One line per feature: name, value, status.
fn vertical(keys: &[String], received: &Received) -> freshet_core::Result<String> {
    let rows = cells(&received.batches)?;
    let names: Vec<&str> = received.schema.fields().iter().map(|field| field.name().as_str()).collect();
    let features = names.len() / 2;
    let width = names[..features].iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (key, row) in keys.iter().zip(&rows) {
        text.push_str(&format!("{key}\n"));
        for (index, name) in names[..features].iter().enumerate() {
            let cell = |index: usize| row[index].as_deref().unwrap_or("NULL");
            text.push_str(&format!("  {name:<width$}  {:<20}  {}\n", cell(index), cell(features + index)));
        }
    }
    text.push_str(&read_point(&received.metadata));
    Ok(text)
}

fn read_point(metadata: &[u8]) -> String {
    let Ok(point) = serde_json::from_slice::<Value>(metadata) else { return String::new() };
    let epoch = |name: &str| point[name].as_u64().unwrap_or_default();
    let date = epoch_date(Epoch(epoch("q"))).unwrap_or_default();
    format!("mode {}, q {} ({date}), s {}, lag {} ms\n", point["mode"].as_str().unwrap_or("?"), epoch("q"), epoch("s"), epoch("lag_ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_lists_and_uneven_rows_are_refused() {
        let lists = columns(&["origin=EWR,hour=7".into(), "hour=8,origin=".into()]).unwrap();
        assert_eq!(Value::Object(lists), serde_json::json!({"origin": ["EWR", null], "hour": ["7", "8"]}));
        assert!(columns(&["origin=EWR".into(), "hour=8".into()]).is_err());
        assert!(columns(&["origin".into()]).is_err());
    }
}

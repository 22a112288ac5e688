//! `freshet dead-letters`: what could not be read, and how it comes in again. In: a source, which of its records, perhaps a file of corrected
//! ones. Out: a table for people, lines for programs; a replay into the running pipeline, with a count and what stays.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use freshet_serving::{CorrectedAsk, REPLAY_ACTION, RangeAsk, ReplayAsk};
use serde_json::{Value, json};

use crate::client::{Client, Received, block_on};
use crate::exit::{FAILED, Failure, Outcome};
use crate::rows::{RowFormat, format_rows};

/// How much of a record a table for people shows.
const SHOWN_CHARS_MAX: usize = 80;
/// Corrected bytes of one request: a message has 64 MiB at most, and hexadecimal digits double them.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// How many records that stay are named on the terminal.
const REFUSED_SHOWN_MAX: usize = 20;

/// The pipeline that is asked.
pub struct Place {
    pub address: String,
    pub pipeline: Option<String>,
}

/// Which dead letters of a source.
#[derive(Default)]
pub struct Pick {
    pub offsets: Vec<Range>,
    pub reason: Option<String>,
}

/// `PARTITION:OFFSET` or `PARTITION:FROM-TO`, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range(RangeAsk);

impl std::str::FromStr for Range {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Range> {
        let wrong = || anyhow!("{text} is not PARTITION:FROM-TO or PARTITION:OFFSET");
        let (partition, offsets) = text.split_once(':').ok_or_else(wrong)?;
        let (from, to) = offsets.split_once('-').unwrap_or((offsets, offsets));
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
        let range = RangeAsk { partition: partition.trim().parse().map_err(|_| wrong())?, from: number(from)?, to: number(to)? };
        ensure!(range.from <= range.to, "{text} ends before it begins");
        Ok(Range(range))
    }
}

impl Pick {
    /// As a condition in SQL; None: all.
    fn condition(&self) -> Option<String> {
        let within = |range: &Range| {
            let RangeAsk { partition, from, to } = range.0;
            format!("(\"partition\" = {partition} AND \"offset\" BETWEEN {from} AND {to})")
        };
        let offsets = (!self.offsets.is_empty()).then(|| format!("({})", self.offsets.iter().map(within).collect::<Vec<_>>().join(" OR ")));
        let reason = self.reason.as_ref().map(|text| format!("strpos(reason, '{}') > 0", text.replace('\'', "''")));
        let conditions: Vec<String> = offsets.into_iter().chain(reason).collect();
        (!conditions.is_empty()).then(|| conditions.join(" AND "))
    }

    fn query(&self, what: &str, source: &str) -> String {
        let condition = self.condition().map_or(String::new(), |condition| format!(" WHERE {condition}"));
        format!("SELECT {what} FROM \"dead_letters({})\"{condition}", source.replace('"', "\"\""))
    }
}

async fn connect(place: &Place) -> Result<Client, Failure> {
    Client::connect(&place.address).await?.of_pipeline(place.pipeline.as_deref())
}

pub struct ListOptions {
    pub place: Place,
    /// None: those of all sources.
    pub source: Option<String>,
    pub pick: Pick,
    pub format: RowFormat,
    pub limit: usize,
}

/// Prints the dead letters of one source or of all, source by source, oldest first.
pub fn list(options: &ListOptions) -> Outcome {
    block_on(async {
        let client = connect(&options.place).await?;
        let sources = match &options.source {
            Some(source) => vec![source.clone()],
            None => sources(&client).await?,
        };
        let (mut found, mut all) = (Vec::new(), 0);
        for source in &sources {
            let counted = client.query(&options.pick.query("count(*) AS n", source)).await?;
            all += counted
                .batches
                .iter()
                .filter(|rows| rows.num_rows() > 0)
                .map(|rows| rows.column(0).as_primitive::<Int64Type>().value(0))
                .sum::<i64>();
            let left = options.limit.saturating_sub(found.iter().map(|rows: &Received| rows_in(rows)).sum());
            let what = match options.format {
                RowFormat::Table => "epoch, source, \"partition\", \"offset\", origin, field, reason, \"text\"",
                RowFormat::Json | RowFormat::Csv => {
                    "epoch, source, \"partition\", \"offset\", origin, field, reason, raw, raw_bytes, \"key\", \"text\", form, context"
                }
            };
            found.push(client.query(&format!("{} ORDER BY epoch, \"partition\", \"offset\" LIMIT {left}", options.pick.query(what, source))).await?);
        }
        let Some(first) = found.first() else { return Err(Failure::wrong(anyhow!("the pipeline has no sources"))) };
        let mut batches: Vec<RecordBatch> = found.iter().flat_map(|rows| rows.batches.clone()).collect();
        let mut schema = first.schema.clone();
        if options.format == RowFormat::Table {
            batches = batches.iter().map(for_people).collect::<Result<_>>()?;
            schema = batches.first().map_or(schema, RecordBatch::schema);
        }
        let text = format_rows(&schema, &batches, options.format).map_err(Failure::failed)?;
        // A reader like `head` may have gone; that is its right.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let shown: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if (shown as i64) < all {
            eprintln!("{shown} of {all} dead letters; --limit shows more");
        }
        Ok(0)
    })
}

fn rows_in(received: &Received) -> usize {
    received.batches.iter().map(RecordBatch::num_rows).sum()
}

/// Every source has a table of dead letters.
async fn sources(client: &Client) -> Result<Vec<String>, Failure> {
    let tables = client.tables("dead_letters(%").await?;
    let named = |table: &String| table.strip_prefix("dead_letters(").and_then(|name| name.strip_suffix(')')).map(str::to_string);
    Ok(tables.iter().filter_map(named).collect())
}

/// The beginning of each record on one line.
fn for_people(rows: &RecordBatch) -> Result<RecordBatch> {
    let last = rows.num_columns() - 1;
    let texts = rows.column(last).as_string::<i32>().iter().map(|text| text.map(beginning));
    let mut columns: Vec<(String, ArrayRef)> =
        rows.schema().fields().iter().zip(rows.columns()).map(|(field, column)| (field.name().clone(), column.clone())).collect();
    columns[last] = ("record".to_string(), Arc::new(texts.collect::<StringArray>()));
    let epochs = rows.column(0).as_primitive::<Int64Type>();
    let dates = epochs.iter().map(|epoch| epoch.map(|epoch| date(epoch).unwrap_or_else(|| epoch.to_string())));
    columns[0].1 = Arc::new(dates.collect::<StringArray>());
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn beginning(text: &str) -> String {
    let mut line: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(shown).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

/// A terminal must not obey what lies in a record.
fn shown(letter: char) -> Vec<char> {
    if letter.is_control() { letter.escape_default().collect() } else { vec![letter] }
}

fn date(epoch: i64) -> Option<String> {
    freshet_serving::epoch_date(freshet_core::Epoch(u64::try_from(epoch).ok()?))
}

pub struct ReplayOptions {
    pub place: Place,
    pub source: String,
    pub pick: Pick,
    /// Corrected records, as `export` writes them.
    pub from: Option<PathBuf>,
    pub dry_run: bool,
}

/// Lets dead letters come in again; 1 if any of them stays one.
pub fn replay(options: &ReplayOptions) -> Outcome {
    let requests = requests(options).map_err(Failure::wrong)?;
    block_on(async {
        let client = connect(&options.place).await?;
        let (mut selected, mut replayed, mut epoch, mut refused) = (0, 0, None, Vec::new());
        for request in requests {
            let body = serde_json::to_vec(&request).context("writing the request")?;
            let answer: Value = serde_json::from_slice(&client.act(REPLAY_ACTION, body).await?).context("reading the answer")?;
            selected += answer["selected"].as_u64().unwrap_or(0);
            replayed += answer["replayed"].as_u64().unwrap_or(0);
            epoch = answer["epoch"].as_u64().or(epoch);
            refused.extend(answer["refused"].as_array().cloned().unwrap_or_default());
        }
        print!("{}", told(options, (selected, replayed), epoch, &refused));
        Ok(if selected == replayed { 0 } else { FAILED })
    })
}

/// What to say of a replay.
fn told(options: &ReplayOptions, (selected, replayed): (u64, u64), epoch: Option<u64>, refused: &[Value]) -> String {
    let source = &options.source;
    if selected == 0 {
        return format!("no dead letter of {source} is named\n");
    }
    let mut text = match (options.dry_run, epoch) {
        (true, _) => format!("{replayed} of {selected} dead letters of {source} can be read now; nothing was changed (--dry-run)\n"),
        (false, Some(epoch)) if replayed > 0 => {
            format!("{replayed} of {selected} dead letters of {source} have come in again, the last at epoch {epoch}\n")
        }
        _ => format!("{replayed} of {selected} dead letters of {source} have come in again\n"),
    };
    for record in refused.iter().take(REFUSED_SHOWN_MAX) {
        let field = record["field"].as_str().filter(|field| !field.is_empty()).map_or(String::new(), |field| format!(", field {field}"));
        let reason: String = record["reason"].as_str().unwrap_or_default().chars().flat_map(shown).collect();
        let _ = writeln!(text, "stays: partition {}, offset {}{field}: {reason}", record["partition"], record["offset"]);
    }
    let more = (selected - replayed).saturating_sub(refused.len().min(REFUSED_SHOWN_MAX) as u64);
    if more > 0 {
        let _ = writeln!(text, "{more} more stay; freshet dead-letters list {source}");
    }
    text
}

/// One request, or one for each part of a large file.
fn requests(options: &ReplayOptions) -> Result<Vec<ReplayAsk>> {
    let ask = |corrected: Vec<CorrectedAsk>| ReplayAsk {
        source: options.source.clone(),
        offsets: options.pick.offsets.iter().map(|range| range.0).collect(),
        reason: options.pick.reason.clone(),
        corrected,
        dry_run: options.dry_run,
    };
    let Some(file) = &options.from else { return Ok(vec![ask(Vec::new())]) };
    let (mut parts, mut bytes) = (Vec::new(), 0);
    for record in corrected(file)? {
        let size = record.raw.as_ref().or(record.raw_hex.as_ref()).map_or(0, String::len) + 64;
        if parts.is_empty() || bytes + size > REQUEST_BYTES_MAX {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        parts.last_mut().expect("one was pushed").push(record);
    }
    ensure!(!parts.is_empty(), "{} has no records", file.display());
    Ok(parts.into_iter().map(ask).collect())
}

/// The records of a file, one a line. Errors: the line.
fn corrected(file: &Path) -> Result<Vec<CorrectedAsk>> {
    let name = file.display();
    let lines = BufReader::new(std::fs::File::open(file).with_context(|| format!("reading {name}"))?).lines();
    let (mut records, mut places) = (Vec::new(), BTreeMap::new());
    for (line, number) in lines.zip(1..) {
        let line = line.with_context(|| format!("reading {name}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let record: CorrectedAsk = serde_json::from_str(&line)
            .with_context(|| format!("{name}, line {number}: a corrected record is {{\"partition\": 0, \"offset\": 7, \"raw\": \"…\"}}"))?;
        if let Some(before) = places.insert((record.partition, record.offset), number) {
            bail!("{name}, line {number}: partition {}, offset {} stands in line {before} already", record.partition, record.offset);
        }
        records.push(record);
    }
    Ok(records)
}

pub struct ExportOptions {
    pub place: Place,
    pub source: String,
    pub pick: Pick,
    pub out: PathBuf,
}

/// Writes the records as lines that can be corrected and given to `replay --from`.
pub fn export(options: &ExportOptions) -> Outcome {
    block_on(async {
        let client = connect(&options.place).await?;
        let what = "\"partition\", \"offset\", field, reason, raw, raw_bytes";
        let received = client.query(&format!("{} ORDER BY \"partition\", \"offset\"", options.pick.query(what, &options.source))).await?;
        let mut text = String::new();
        let mut cut = 0;
        for rows in &received.batches {
            let number = |column: usize| rows.column(column).as_primitive::<Int64Type>().clone();
            let (partitions, offsets, sizes): (Int64Array, Int64Array, Int64Array) = (number(0), number(1), number(5));
            let (fields, reasons, raws) = (rows.column(2).as_string::<i32>(), rows.column(3).as_string::<i32>(), rows.column(4).as_binary::<i32>());
            for row in 0..rows.num_rows() {
                let raw = raws.value(row);
                let mut record = json!({
                    "partition": partitions.value(row), "offset": offsets.value(row), "field": fields.value(row), "reason": reasons.value(row),
                });
                match std::str::from_utf8(raw) {
                    Ok(content) => record["raw"] = json!(content),
                    Err(_) => record["raw_hex"] = json!(raw.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
                }
                if sizes.value(row) > raw.len() as i64 {
                    record["raw_bytes"] = json!(sizes.value(row));
                    cut += 1;
                }
                let _ = writeln!(text, "{record}");
            }
        }
        std::fs::write(&options.out, text).with_context(|| format!("writing {}", options.out.display()))?;
        eprintln!("{} dead letters of {} written to {}", rows_in(&received), options.source, options.out.display());
        if cut > 0 {
            eprintln!("warning: of {cut} of them only the beginning is kept; complete them before a replay");
        }
        Ok(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_one_or_a_range() {
        assert_eq!("2:7".parse::<Range>().unwrap().0, RangeAsk { partition: 2, from: 7, to: 7 });
        assert_eq!("0:7-9".parse::<Range>().unwrap().0, RangeAsk { partition: 0, from: 7, to: 9 });
        for (text, words) in [("7", "is not PARTITION:FROM-TO"), ("0:9-7", "ends before it begins"), ("a:1", "is not"), ("0:1-", "is not")] {
            assert!(text.parse::<Range>().unwrap_err().to_string().contains(words), "{text}");
        }
    }

    #[test]
    fn a_pick_is_a_condition_that_quotes_its_text() {
        let pick = Pick { offsets: vec!["0:7-9".parse().unwrap(), "1:2".parse().unwrap()], reason: Some("it's".into()) };
        assert_eq!(
            pick.query("n", "a\"b"),
            "SELECT n FROM \"dead_letters(a\"\"b)\" WHERE ((\"partition\" = 0 AND \"offset\" BETWEEN 7 AND 9) OR (\"partition\" = 1 AND \"offset\" BETWEEN 2 AND 2)) \
             AND strpos(reason, 'it''s') > 0"
        );
        assert_eq!(Pick::default().query("n", "s"), "SELECT n FROM \"dead_letters(s)\"");
    }

    #[test]
    fn a_line_for_people_is_short_and_harmless() {
        assert_eq!(beginning("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!(beginning(&"x".repeat(81)), format!("{}…", "x".repeat(80)));
    }

    #[test]
    fn a_file_of_corrections_names_the_line_that_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fixed.jsonl");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            corrected(&file)
        };
        let good = read("{\"offset\":7,\"raw\":\"x\",\"reason\":\"old\"}\n\n{\"partition\":1,\"offset\":7,\"raw_hex\":\"ff\"}\n").unwrap();
        assert_eq!(good.iter().map(|record| (record.partition, record.offset)).collect::<Vec<_>>(), [(0, 7), (1, 7)]);
        assert!(format!("{:#}", read("{\"offset\":7}\n{\"raw\":1}").unwrap_err()).contains("line 2"));
        assert!(read("{\"offset\":7}\n{\"offset\":7}").unwrap_err().to_string().contains("stands in line 1 already"));
    }
}

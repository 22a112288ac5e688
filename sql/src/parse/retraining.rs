//! `CREATE RETRAINING JOB name FOR model TRAINING SET set … RUN COMMAND '…' … WHEN … ROLLOUT IMMEDIATE`.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;

use super::Result;
use super::cursor::Cursor;
use super::monitor::rows_min;
use crate::ast::{CreateRetrainingJob, Duration, Instant, Metric, OptionEntry, Place, Stmt, Text, Trigger, Validate, normal_name};
use crate::error::nearest;
use crate::options;

const ORDER: &str = "clauses follow as FOR model TRAINING SET set LAST … HOLDOUT LAST … [GAP …] [DELAY …] [MIN ROWS n] RUN COMMAND '…' [WITH (…)] \
                     [FIRST AT TIMESTAMP '…'] WHEN trigger [OR trigger] [COOLDOWN …] [VALIDATE auc ON HOLDOUT AGAINST champion] ROLLOUT IMMEDIATE";

const METRICS: [Metric; 2] = [Metric::Auc, Metric::LogLoss];

/// What is trained on, and what is held back.
struct Ranges {
    last: Duration,
    holdout: Duration,
    gap: Option<Duration>,
    delay: Option<Duration>,
    rows_min: Option<u64>,
}

pub fn parse(cursor: &mut Cursor) -> Result<Stmt> {
    cursor.eat(&["RETRAINING", "JOB"]);
    let if_not_exists = cursor.if_not_exists();
    let name = cursor.single_name("the name of the retraining job")?;
    cursor.clause(&["FOR"], ORDER)?;
    let model = cursor.single_name("the name of a model")?;
    cursor.clause(&["TRAINING", "SET"], ORDER)?;
    let training_set = cursor.single_name("the name of a training set")?;
    let Ranges { last, holdout, gap, delay, rows_min } = ranges(cursor)?;
    let command = command(cursor)?;
    let options = if cursor.word(0) == "WITH" { run_options(cursor)? } else { Vec::new() };
    let first_at = if cursor.eat(&["FIRST"]) { Some(first_at(cursor)?) } else { None };
    if !cursor.eat(&["WHEN"]) {
        return Err(cursor.error_clause(wanted_before_when(&options, first_at.as_ref()), ORDER));
    }
    let triggers = triggers(cursor)?;
    let cooldown = if cursor.eat(&["COOLDOWN"]) { Some(options::duration(cursor, "COOLDOWN")?) } else { None };
    let validation = if cursor.word(0) == "VALIDATE" { Some(validate(cursor)?) } else { None };
    let wanted = match (&cooldown, &validation) {
        (_, Some(_)) => "ROLLOUT IMMEDIATE",
        (Some(_), None) => "VALIDATE or ROLLOUT IMMEDIATE",
        (None, None) => "OR, COOLDOWN, VALIDATE or ROLLOUT IMMEDIATE",
    };
    rollout(cursor, wanted)?;
    Ok(Stmt::CreateRetrainingJob(Box::new(CreateRetrainingJob {
        name,
        if_not_exists,
        model,
        training_set,
        last,
        holdout,
        gap,
        delay,
        rows_min,
        command,
        options,
        first_at,
        triggers,
        cooldown,
        validation,
    })))
}

fn wanted_before_when(options: &[OptionEntry], first_at: Option<&Instant>) -> &'static str {
    match (options, first_at) {
        (_, Some(_)) => "WHEN",
        ([], None) => "WITH, FIRST AT or WHEN",
        (_, None) => "FIRST AT or WHEN",
    }
}

/// `LAST … HOLDOUT LAST … [GAP …] [DELAY …] [MIN ROWS n]`; the last three in any order.
fn ranges(cursor: &mut Cursor) -> Result<Ranges> {
    cursor.clause(&["LAST"], ORDER)?;
    let last = options::duration(cursor, "LAST")?;
    cursor.clause(&["HOLDOUT", "LAST"], ORDER)?;
    let holdout = options::duration(cursor, "HOLDOUT LAST")?;
    let mut ranges = Ranges { last, holdout, gap: None, delay: None, rows_min: None };
    loop {
        let (place, clause) = (cursor.place(), cursor.word(0));
        let twice = if cursor.eat(&["GAP"]) {
            ranges.gap.replace(options::duration(cursor, "GAP")?).is_some()
        } else if cursor.eat(&["DELAY"]) {
            ranges.delay.replace(options::duration(cursor, "DELAY")?).is_some()
        } else if clause == "MIN" {
            ranges.rows_min.replace(rows_min(cursor, ORDER)?).is_some()
        } else {
            break;
        };
        if twice {
            return Err(cursor.error_at(place, format!("{clause} stands twice")).help("leave one of them out"));
        }
    }
    if ranges.holdout.ms() == 0 {
        let error = cursor.error_at(ranges.holdout.place, "HOLDOUT has no length");
        return Err(error.help("what a new version says of the holdout is how it is judged, and what drift of its scores is measured against"));
    }
    let withheld = ranges.holdout.ms() + ranges.gap.as_ref().map_or(0, Duration::ms);
    if ranges.last.ms() <= withheld {
        let error = cursor.error_at(ranges.last.place, "LAST leaves no rows to train on: it is not longer than HOLDOUT and GAP together");
        return Err(error.help("training rows are those of LAST without GAP and HOLDOUT at its end: make LAST longer"));
    }
    Ok(ranges)
}

fn command(cursor: &mut Cursor) -> Result<Text> {
    if !cursor.eat(&["RUN"]) {
        return Err(cursor.error_clause("GAP, DELAY, MIN ROWS or RUN COMMAND", ORDER));
    }
    if matches!(cursor.word(0).as_str(), "KUBERNETES" | "AIRFLOW" | "HTTP") {
        let error = cursor.error_here(format!("RUN {} is not supported yet", cursor.word(0)));
        return Err(error.help("RUN COMMAND 'python train.py' runs a program in the pipeline's folder"));
    }
    cursor.clause(&["COMMAND"], ORDER)?;
    cursor.text("the command", "RUN COMMAND 'python train.py'")
}

fn run_options(cursor: &mut Cursor) -> Result<Vec<OptionEntry>> {
    let found = options::list(cursor)?;
    options::require_known(cursor, &found, &["timeout", "heartbeat"])?;
    found.iter().try_for_each(|option| options::require_duration(cursor, option))?;
    Ok(found)
}

/// `AT [TIMESTAMP] '…'`.
fn first_at(cursor: &mut Cursor) -> Result<Instant> {
    cursor.clause(&["AT"], ORDER)?;
    cursor.eat(&["TIMESTAMP"]);
    let text = cursor.text("an instant", "FIRST AT TIMESTAMP '2013-02-01 05:00:00'")?;
    let wrong = |message: String| {
        let error = cursor.error_at(text.place, message);
        Err(error.help("an instant is written '2013-02-01 05:00:00', in UTC"))
    };
    match string_to_timestamp_nanos(&text.value) {
        Ok(ns) if ns < 0 => wrong(format!("'{}' lies before 1970", text.value)),
        // No epoch is finer than a millisecond: the first that is not before it.
        Ok(ns) => Ok(Instant { ms: (ns as u64).div_ceil(1_000_000), text: text.value }),
        Err(_) => wrong(format!("'{}' is no instant", text.value)),
    }
}

fn triggers(cursor: &mut Cursor) -> Result<Vec<Trigger>> {
    let mut triggers: Vec<Trigger> = Vec::new();
    loop {
        let place = cursor.place();
        let trigger = trigger(cursor)?;
        let same = |other: &Trigger| match (other, &trigger) {
            (Trigger::Drift(one), Trigger::Drift(other)) => normal_name(one) == normal_name(other),
            (Trigger::Every(_), Trigger::Every(_)) => true,
            _ => false,
        };
        if triggers.iter().any(same) {
            return Err(cursor.error_at(place, "this trigger stands twice").help("leave one of them out"));
        }
        triggers.push(trigger);
        if cursor.word(0) == "AND" {
            return Err(cursor.error_here("triggers joined by AND are not supported").help("join them by OR; COOLDOWN keeps runs apart"));
        }
        if !cursor.eat(&["OR"]) {
            return Ok(triggers);
        }
    }
}

fn trigger(cursor: &mut Cursor) -> Result<Trigger> {
    if cursor.eat(&["DRIFT"]) {
        return Ok(Trigger::Drift(cursor.single_name("the name of a drift monitor")?));
    }
    if !cursor.eat(&["EVERY"]) {
        let error = cursor.error_expected("DRIFT or EVERY");
        return Err(match nearest(&cursor.word(0), ["DRIFT", "EVERY"]) {
            Some(close) => error.help(format!("did you mean {close}?")),
            None => error.help("a run starts WHEN DRIFT monitor, or WHEN EVERY INTERVAL '60 days' SINCE LAST RUN"),
        });
    }
    let length = options::duration(cursor, "EVERY")?;
    if length.ms() == 0 {
        return Err(cursor.error_at(length.place, "EVERY has no length").help("it is at least one millisecond long"));
    }
    if !cursor.eat(&["SINCE", "LAST", "RUN"]) {
        return Err(cursor.error_expected("SINCE LAST RUN").help("write EVERY INTERVAL '60 days' SINCE LAST RUN"));
    }
    Ok(Trigger::Every(length))
}

/// `VALIDATE metric ON HOLDOUT AGAINST champion [MARGIN x]`.
fn validate(cursor: &mut Cursor) -> Result<Validate> {
    let start = cursor.place();
    cursor.expect("VALIDATE")?;
    let metric = metric(cursor)?;
    let order = format!("write VALIDATE {} ON HOLDOUT AGAINST champion [MARGIN 0.01]", metric.sql());
    cursor.clause(&["ON", "HOLDOUT"], &order)?;
    cursor.clause(&["AGAINST", "CHAMPION"], &order)?;
    let place: Place = cursor.place_since(start);
    let margin = if cursor.eat(&["MARGIN"]) { cursor.number("the margin")? } else { 0.0 };
    Ok(Validate { metric, margin, place })
}

fn metric(cursor: &mut Cursor) -> Result<Metric> {
    let word = cursor.word(0).to_lowercase();
    if let Some(metric) = METRICS.into_iter().find(|metric| metric.sql() == word) {
        cursor.next_token();
        return Ok(metric);
    }
    let error = cursor.error_expected("auc or log_loss");
    Err(match nearest(&word, METRICS.map(Metric::sql)) {
        Some(close) => error.help(format!("did you mean {close}?")),
        None => error.help("these two compare a challenger with the champion"),
    })
}

fn rollout(cursor: &mut Cursor, wanted: &str) -> Result<()> {
    if !cursor.eat(&["ROLLOUT"]) {
        return Err(cursor.error_clause(wanted, ORDER));
    }
    if matches!(cursor.word(0).as_str(), "CANARY" | "SHADOW") {
        let error = cursor.error_here(format!("ROLLOUT {} is not supported yet", cursor.word(0)));
        return Err(error.help("ROLLOUT IMMEDIATE promotes a version that passed VALIDATE at once"));
    }
    cursor.clause(&["IMMEDIATE"], ORDER)?;
    cursor.clauses_end(&[], ORDER)
}

//! Which epoch a row of bounded input enters at, and which rows never enter (T0, T0a, T0b, T12, T13). In: records. Out: a fate each.

use std::collections::BTreeMap;

use freshet_core::{Epoch, EventTime};

/// T0a: a row further ahead of its partition than this is quarantined.
pub const MAX_JUMP_MS: i64 = 30 * 86_400_000;
/// T0a: so many quarantined rows of one partition in a row fail the run.
pub const QUARANTINE_IN_A_ROW_MAX: usize = 1_000;
/// T13: 2200-01-01, the first day that no row may have.
const YEAR_2200: EventTime = EventTime(7_258_118_400_000_000_000);

/// What a source declares about time.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArrivalRule {
    /// WATERMARK FOR a column.
    pub has_event_time: bool,
    /// ARRIVAL FOR a column.
    pub has_arrival: bool,
    pub lateness_ms: Option<u64>,
    /// T0a; None: 30 days.
    pub max_jump_ms: Option<i64>,
}

/// A record in the order its partition delivers it.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    pub partition: u32,
    /// The column of WATERMARK.
    pub e: Option<EventTime>,
    /// The column of ARRIVAL.
    pub arrival: Option<EventTime>,
    /// FORMAT UPSERT: it says that its key has no row any more, and so may have no times of its own.
    pub is_deletion: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is input at this epoch.
    Enters(Epoch),
    /// T12: it came at this epoch and goes to `late(source)`.
    TooLate(Epoch),
    /// T0a: too far ahead.
    Quarantined,
    /// T0b, T13.
    DeadLetter(&'static str),
}

/// T0 in event clock, then T12. Errors: the run fails, naming max_jump (T0a).
pub fn event_clock(rule: &ArrivalRule, records: &[Record]) -> Result<Vec<Fate>, String> {
    let mut fates = epochs(rule, records)?;
    if let (Some(lateness), true) = (rule.lateness_ms, rule.has_event_time) {
        mark_late(lateness, records, &mut fates);
    }
    Ok(fates)
}

fn epochs(rule: &ArrivalRule, records: &[Record]) -> Result<Vec<Fate>, String> {
    let max_jump = rule.max_jump_ms.unwrap_or(MAX_JUMP_MS);
    let mut greatest: BTreeMap<u32, EventTime> = BTreeMap::new();
    let mut in_a_row: BTreeMap<u32, usize> = BTreeMap::new();
    let mut fates = Vec::new();
    for record in records {
        if let Some(reason) = unusable(rule, record) {
            fates.push(Fate::DeadLetter(reason));
            continue;
        }
        let own = if rule.has_arrival { record.arrival } else { record.e };
        let Some(clock) = own.or(record.e.filter(|_| record.is_deletion)) else {
            // Neither WATERMARK nor ARRIVAL: the source enters whole at epoch 0. A deletion without time: what its partition has reached (T0).
            fates.push(Fate::Enters(greatest.get(&record.partition).map_or(Epoch::ZERO, |maximum| maximum.epoch_ceil())));
            continue;
        };
        let maximum = *greatest.entry(record.partition).or_insert(clock);
        let quarantined = in_a_row.entry(record.partition).or_default();
        if clock > maximum.plus_ms(max_jump) {
            *quarantined += 1;
            if *quarantined >= QUARANTINE_IN_A_ROW_MAX {
                return Err(format!("{quarantined} rows in a row are ahead of partition {} by more than max_jump ({max_jump} ms)", record.partition));
            }
            fates.push(Fate::Quarantined);
            continue;
        }
        *quarantined = 0;
        let maximum = maximum.max(clock);
        greatest.insert(record.partition, maximum);
        fates.push(Fate::Enters(maximum.epoch_ceil()));
    }
    Ok(fates)
}

fn unusable(rule: &ArrivalRule, record: &Record) -> Option<&'static str> {
    let out_of_range = |time: EventTime| time < EventTime(0) || time >= YEAR_2200;
    match (rule.has_event_time, record.e) {
        (true, None) if !record.is_deletion => return Some("event time is NULL"),
        (true, Some(e)) if out_of_range(e) => return Some("event time is out of range"),
        _ => {}
    }
    match (rule.has_arrival, record.arrival) {
        (true, None) if !record.is_deletion => Some("arrival is NULL"),
        (true, Some(arrival)) if out_of_range(arrival) => Some("arrival is out of range"),
        _ => None,
    }
}

/// T12: against L = least over partitions that have not ended of the greatest c up to the previous epoch, − LATENESS; L never falls.
fn mark_late(lateness_ms: u64, records: &[Record], fates: &mut [Fate]) {
    let mut by_epoch: BTreeMap<Epoch, Vec<usize>> = BTreeMap::new();
    let mut last_epoch: BTreeMap<u32, Epoch> = BTreeMap::new();
    for (index, fate) in fates.iter().enumerate() {
        if let Fate::Enters(epoch) = fate {
            by_epoch.entry(*epoch).or_default().push(index);
            let last = last_epoch.entry(records[index].partition).or_default();
            *last = (*last).max(*epoch);
        }
    }
    let mut greatest: BTreeMap<u32, EventTime> = BTreeMap::new();
    let mut bound = EventTime::MIN;
    for (epoch, rows) in by_epoch {
        let running = last_epoch.iter().filter(|(_, last)| **last >= epoch).map(|(partition, _)| partition);
        let least = running.map(|partition| greatest.get(partition).copied().unwrap_or(EventTime::MIN)).min().unwrap_or(EventTime::MIN);
        if least > EventTime::MIN {
            bound = bound.max(least.plus_ms(-(lateness_ms as i64)));
        }
        for row in rows {
            // A row without event time is a dead letter, a deletion without one is never late.
            let Some(e) = records[row].e else { continue };
            let partition = records[row].partition;
            if e < bound {
                fates[row] = Fate::TooLate(epoch);
            }
            let most = greatest.entry(partition).or_insert(e);
            *most = (*most).max(e);
        }
    }
}

/// T0: the lowest epoch that is not complete, given per partition its greatest epoch so far and whether it has ended.
/// None: all have ended, and everything is complete.
pub fn complete_below(partitions: &[(Option<Epoch>, bool)]) -> Option<Epoch> {
    partitions.iter().filter(|(_, ended)| !ended).map(|(greatest, _)| greatest.unwrap_or(Epoch::ZERO)).min()
}

/// T12: the watermark of a source from the greatest event time of each partition that has not ended. None: infinity.
pub fn watermark(running: &[Option<EventTime>], delay_ms: u64) -> Option<EventTime> {
    running.iter().map(|greatest| greatest.map_or(EventTime::MIN, |e| e.plus_ms(1 - delay_ms as i64))).min()
}

/// T12: a window [x, y) closes when the watermark is ≥ y.
pub fn closes(watermark: Option<EventTime>, window_end: EventTime) -> bool {
    watermark.is_none_or(|watermark| watermark >= window_end)
}

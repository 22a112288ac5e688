//! From records to input rows. In: what a source delivers, in order. Out: the epoch of each record, and which are no input (T0, T12).

use freshet_core::{Epoch, Error, Format, Result, SourceDef, Value};

use crate::interpreter::event_time_of;
use crate::memory::RawRecord;
use crate::model::{ArrivalRule, Fate, Record, event_clock};

/// A record with its epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct InputRow {
    pub values: Vec<Value>,
    pub epoch: Epoch,
    pub diff: i64,
    /// source index << 56 | partition << 40 | offset
    pub position: u64,
    /// It is no input: broken, quarantined or too late.
    pub dead: bool,
}

/// One row per record, in their order, and the indexes of those that are no input.
#[derive(Debug, Clone, Default)]
pub struct Assigned {
    pub rows: Vec<InputRow>,
    /// T12: for `late(source)`.
    pub late: Vec<usize>,
    /// T0a.
    pub quarantined: Vec<usize>,
    /// Broken records, and times that are NULL or out of range.
    pub dead_letters: Vec<usize>,
}

/// The epochs of the event clock. `source` is the index of the source in its plan. Errors: Data if the run fails by T0a.
pub fn assign_epochs(def: &SourceDef, source: usize, records: &[RawRecord]) -> Result<Assigned> {
    let rule = ArrivalRule {
        has_event_time: def.event_time.is_some(),
        has_arrival: def.arrival.is_some(),
        lateness_ms: def.lateness_ms,
        max_jump_ms: i64::try_from(def.limits.max_jump_ms).ok(),
    };
    let sound: Vec<usize> = (0..records.len()).filter(|index| records[*index].broken.is_none()).collect();
    let time = |record: &RawRecord, column: Option<usize>| {
        column.and_then(|column| event_time_of(&record.values[column], def.schema.field(column).data_type()))
    };
    let timed: Vec<Record> = sound
        .iter()
        .map(|index| &records[*index])
        .map(|record| Record {
            partition: record.partition,
            e: time(record, def.event_time),
            arrival: time(record, def.arrival),
            is_deletion: def.format == Format::Upsert && record.diff < 0,
        })
        .collect();
    let fates = event_clock(&rule, &timed).map_err(|reason| Error::data(format!("source {}: {reason}", def.name)))?;
    let mut assigned = Assigned::default();
    let mut fates = sound.into_iter().zip(fates).peekable();
    for (index, record) in records.iter().enumerate() {
        let fate = fates.next_if(|(of, _)| *of == index).map_or(Fate::DeadLetter("broken"), |(_, fate)| fate);
        let epoch = match fate {
            Fate::Enters(epoch) | Fate::TooLate(epoch) => epoch,
            Fate::Quarantined | Fate::DeadLetter(_) => Epoch::ZERO,
        };
        match fate {
            Fate::Enters(_) => {}
            Fate::TooLate(_) => assigned.late.push(index),
            Fate::Quarantined => assigned.quarantined.push(index),
            Fate::DeadLetter(_) => assigned.dead_letters.push(index),
        }
        let dead = !matches!(fate, Fate::Enters(_));
        assigned.rows.push(InputRow { values: record.values.clone(), epoch, diff: record.diff, position: record.position(source), dead });
    }
    Ok(assigned)
}

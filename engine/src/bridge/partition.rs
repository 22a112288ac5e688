//! Gives the records of one partition their epochs (T0, T0a, T13). Pure: no clock, no I/O.

use std::collections::BTreeMap;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, DeadLetter, Diffs, Epoch, Error, EventTime, Format, Result, SourceBatch, SourceDef, event_times};
use serde::{Deserialize, Serialize};

use crate::bridge::letter_of_row;

/// So many quarantined rows in a row fail the run: then the clock, not the rows, is wrong.
const FAR_ROWS_MAX: u32 = 1000;
/// 2200-01-01: what lies after it is not an event time (T13).
const LATEST: EventTime = EventTime(7_258_118_400_000_000_000);

/// How far a partition has been read, and the state of its clock there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceOffset {
    pub partition: u32,
    pub offset: u64,
    pub clock: PartitionClock,
}

/// The running maxima of one partition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionClock {
    /// The greatest epoch time delivered so far, in ns; None before the first row.
    reached: Option<i64>,
    epoch: u64,
    /// Greatest event time of all rows that have entered.
    greatest_event: Option<i64>,
    far_rows: u32,
}

/// Where the epochs of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// The rows' own times (T0), which may not jump (T0a).
    Event,
    /// The rows' own arrivals, in wall clock before the source has caught up (T0b): what lies ahead of the clock waits or is set aside as
    /// with a ticket.
    History { now: Epoch },
    /// Rows of the script itself: epoch 0, whatever their times (T13).
    Script,
    /// One ticket for all (T0c); a row whose time has not come waits for it (T13).
    Ticket(Epoch),
}

/// One batch after its clock: rows that enter, rows that wait for their time, and dead letters, each with an epoch.
pub struct Assigned {
    pub rows: Batch,
    /// By the epoch that they wait for.
    pub held: BTreeMap<u64, Batch>,
    pub dead_letters: Vec<(Epoch, DeadLetter)>,
}

impl PartitionClock {
    /// A clock that knows no epochs.
    pub fn at(greatest_event: Option<i64>) -> PartitionClock {
        PartitionClock { greatest_event, ..PartitionClock::default() }
    }

    /// The epoch of the last row that entered; 0 before the first. More rows of it may come.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The greatest event time that has entered, in ns.
    pub fn greatest_event(&self) -> Option<i64> {
        self.greatest_event
    }

    /// Later rows have greater epochs than this one.
    pub fn advance(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch.0 + 1);
    }

    /// A row that waited has entered.
    pub fn entered(&mut self, event: i64) {
        self.greatest_event = self.greatest_event.max(Some(event));
    }

    /// Errors: Data when the partition's clock cannot be right.
    pub fn assign(&mut self, source_index: usize, source: &SourceDef, batch: SourceBatch, stamp: Stamp) -> Result<Assigned> {
        if stamp == Stamp::Script {
            return self.assign_untimed(source_index, source, batch, Epoch::ZERO);
        }
        if let (None, None, Stamp::Ticket(ticket)) = (source.event_time, source.arrival, stamp) {
            return self.assign_untimed(source_index, source, batch, ticket);
        }
        let column = |index: Option<usize>| index.map(|index| event_times(batch.rows.column(index))).transpose();
        let events = column(source.event_time)?;
        let arrivals = column(source.arrival)?;
        if let (Some(events), None) = (&events, &arrivals)
            && let Some(epochs) = self.epochs_of_sound(source, &batch, events, stamp)
        {
            let positions = positions(source_index, &batch);
            let rows = Batch::new(renamed(batch.rows, &source.schema)?, epochs, Diffs::One, positions);
            return Ok(Assigned { rows, held: BTreeMap::new(), dead_letters: Vec::new() });
        }
        let mut dead_letters: Vec<(Epoch, DeadLetter)> = Vec::new();
        let begun = self.epoch;
        let (mut epochs, mut kept) = (Vec::with_capacity(batch.offsets.len()), Vec::with_capacity(batch.offsets.len()));
        let mut waiting: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let mut first = 0;
        for record in batch.offsets.chunk_by(|a, b| a == b) {
            let rows = first..first + record.len();
            first = rows.end;
            let (events, arrivals) = (events.as_ref().map(|times| &times[rows.clone()]), arrivals.as_ref().map(|times| &times[rows.clone()]));
            let is_tombstone = source.format == Format::Upsert && batch.diffs.as_ref().is_some_and(|diffs| diffs[rows.start] < 0);
            let fate = match self.fate_of_record(source, (events, arrivals, is_tombstone), stamp) {
                Ok(fate) => fate,
                Err(reason) => {
                    if self.far_rows >= FAR_ROWS_MAX {
                        return Err(Error::data(format!(
                            "source {}: {FAR_ROWS_MAX} rows in a row of partition {} lie more than max_jump ({}) ahead of the rows before them; the last \
                             one is record {}",
                            source.name,
                            batch.partition,
                            span(source.limits.max_jump_ms),
                            record[0]
                        )));
                    }
                    let epoch = self.now(stamp);
                    let sound = events.is_none_or(|times| times.iter().all(|time| valid(*time).is_ok()));
                    let field = source.arrival.filter(|_| sound && stamp_reads_arrival(stamp)).or(source.event_time);
                    let field = field.map_or(String::new(), |index| source.schema.field(index).name().clone());
                    let whole = record.len() == 1 && batch.diffs.as_ref().is_none_or(|diffs| diffs[rows.start] == 1);
                    for row in rows.clone() {
                        let (partition, offset, field, reason) = (batch.partition, record[0], field.clone(), reason.clone());
                        dead_letters.push((epoch, DeadLetter { partition, offset, field, reason, ..letter_of_row(&batch.rows, row, whole) }));
                    }
                    Fate::Dead
                }
            };
            let epoch = match fate {
                Fate::Enters(epoch) => epoch.0,
                Fate::Waits(_) | Fate::Dead => self.epoch,
            };
            epochs.extend(rows.clone().map(|_| epoch));
            kept.extend(rows.clone().map(|_| matches!(fate, Fate::Enters(_))));
            if let Fate::Waits(due) = fate {
                waiting.entry(due.0).or_default().extend(rows.map(|row| row as u32));
            }
        }
        // A letter has the epoch at which its partition stood, however the records were polled.
        dead_letters.extend(batch.dead_letters.iter().map(|letter| {
            let before = batch.offsets.partition_point(|offset| *offset < letter.offset);
            let stood = before.checked_sub(1).map_or(begun, |row| epochs[row]);
            let epoch = if let Stamp::Ticket(ticket) = stamp { stood.max(ticket.0) } else { stood };
            (Epoch(epoch), letter.clone())
        }));
        let positions = positions(source_index, &batch);
        let epochs = match stamp {
            Stamp::Ticket(ticket) => Counts::Const(ticket.0),
            _ if source.event_time.is_none() && source.arrival.is_none() => Counts::Const(0),
            _ => Counts::Each(epochs.into()),
        };
        let diffs = batch.diffs.map_or(Diffs::One, |diffs| Diffs::Each(diffs.into()));
        let whole = Batch::new(renamed(batch.rows, &source.schema)?, epochs, diffs, positions);
        let held = waiting.into_iter().map(|(due, rows)| (due, whole.take(&rows))).collect();
        Ok(Assigned { rows: whole.filter(&BooleanArray::from(kept)), held, dead_letters })
    }

    /// The epochs of a batch of insertions with nothing wrong, of which none has to wait: the same that a look at each record gives, at a tenth
    /// of its cost. None, and nothing has changed: look at each record.
    fn epochs_of_sound(&mut self, source: &SourceDef, batch: &SourceBatch, events: &[Option<EventTime>], stamp: Stamp) -> Option<Counts> {
        let single = batch.offsets.windows(2).all(|pair| pair[0] < pair[1]);
        if batch.diffs.is_some() || !batch.dead_letters.is_empty() || events.is_empty() || !single {
            return None;
        }
        let mut greatest = 0;
        let counts = match stamp {
            Stamp::Script | Stamp::History { .. } => return None,
            Stamp::Ticket(ticket) => {
                for event in events {
                    greatest = (*event)?.0.max(greatest);
                    valid(*event).ok()?;
                }
                if EventTime(greatest).epoch_ceil() > ticket {
                    return None;
                }
                self.epoch = self.epoch.max(ticket.0);
                Counts::Const(ticket.0)
            }
            Stamp::Event => {
                let jump = source.limits.max_jump_ms.min(i64::MAX as u64) as i64;
                let (mut reached, mut epoch) = (self.reached, self.epoch);
                let mut epochs = Vec::with_capacity(events.len());
                for event in events {
                    valid(*event).ok()?;
                    let event = (*event)?;
                    if reached.is_none_or(|reached| event.0 > reached) {
                        if reached.is_some_and(|reached| event > EventTime(reached).plus_ms(jump)) {
                            return None;
                        }
                        reached = Some(event.0);
                        epoch = epoch.max(event.epoch_ceil().0);
                    }
                    greatest = greatest.max(event.0);
                    epochs.push(epoch);
                }
                (self.reached, self.epoch, self.far_rows) = (reached, epoch, 0);
                Counts::Each(epochs.into())
            }
        };
        self.greatest_event = self.greatest_event.max(Some(greatest));
        Some(counts)
    }

    /// Without times of their own all rows enter with the ticket, and none needs a look.
    fn assign_untimed(&mut self, source_index: usize, source: &SourceDef, batch: SourceBatch, ticket: Epoch) -> Result<Assigned> {
        if !batch.offsets.is_empty() {
            self.epoch = self.epoch.max(ticket.0);
        }
        let positions = positions(source_index, &batch);
        let stood = Epoch(self.epoch.max(ticket.0));
        let dead_letters = batch.dead_letters.into_iter().map(|letter| (stood, letter)).collect();
        let diffs = batch.diffs.map_or(Diffs::One, |diffs| Diffs::Each(diffs.into()));
        let rows = Batch::new(renamed(batch.rows, &source.schema)?, Counts::Const(ticket.0), diffs, positions);
        Ok(Assigned { rows, held: BTreeMap::new(), dead_letters })
    }

    /// The epoch of what has no usable time.
    fn now(&self, stamp: Stamp) -> Epoch {
        match stamp {
            Stamp::Ticket(ticket) => Epoch(self.epoch.max(ticket.0)),
            Stamp::Event | Stamp::Script | Stamp::History { .. } => Epoch(self.epoch),
        }
    }

    /// One fate for all rows of a record: an update takes effect as a whole, at the greatest of its times (T0). A row without a usable time
    /// makes the record unusable.
    fn fate_of_record(
        &mut self,
        source: &SourceDef,
        (mut events, mut arrivals, is_tombstone): (Times<'_>, Times<'_>, bool),
        stamp: Stamp,
    ) -> Result<Fate, String> {
        if is_tombstone {
            // It has a key and no more: without times of its own it enters where its partition stands.
            let known = |times: &&[Option<EventTime>]| times.iter().all(Option::is_some);
            (events, arrivals) = (events.filter(known), arrivals.filter(known));
        }
        events.into_iter().flatten().try_for_each(|time| valid(*time).map_err(|fault| format!("event time {fault}")))?;
        // A ticket takes the place of a declared arrival, but one that is NULL is a fault of the row all the same (T0b).
        arrivals.into_iter().flatten().try_for_each(|time| valid(*time).map_err(|fault| format!("arrival {fault}")))?;
        let greatest = |times: Times<'_>| times.and_then(|times| times.iter().copied().max().flatten());
        let event = greatest(events);
        if let (Stamp::Ticket(now) | Stamp::History { now }, Some(event)) = (stamp, event) {
            let due = event.epoch_ceil();
            if due.0 > now.0.saturating_add(source.limits.max_skew_ms) {
                return Err(format!("event time is more than max_skew ({}) ahead of the clock", span(source.limits.max_skew_ms)));
            }
            if due > now {
                return Ok(Fate::Waits(due));
            }
        }
        let epoch = match stamp {
            Stamp::Ticket(ticket) => ticket,
            Stamp::Event | Stamp::Script | Stamp::History { .. } => match greatest(arrivals).or(event) {
                // A source without times, which stands at 0, or a tombstone.
                None => Epoch(self.epoch),
                Some(time) => {
                    let jump = source.limits.max_jump_ms.min(i64::MAX as u64) as i64;
                    if stamp == Stamp::Event && self.reached.is_some_and(|reached| time > EventTime(reached).plus_ms(jump)) {
                        self.far_rows += 1;
                        let what = if arrivals.is_some() { "arrival" } else { "event time" };
                        return Err(format!("{what} is more than max_jump ({}) ahead of the rows before it", span(source.limits.max_jump_ms)));
                    }
                    self.far_rows = 0;
                    self.reached = self.reached.max(Some(time.0));
                    time.epoch_ceil().max(Epoch(self.epoch))
                }
            },
        };
        self.epoch = self.epoch.max(epoch.0);
        self.greatest_event = self.greatest_event.max(event.map(|event| event.0));
        Ok(Fate::Enters(epoch))
    }
}

/// Where each row comes from: source, partition, and offset + 1.
fn positions(source_index: usize, batch: &SourceBatch) -> Counts {
    let base = (source_index as u64) << 56 | u64::from(batch.partition & 0xffff) << 40;
    Counts::Each(batch.offsets.iter().map(|offset| base | (offset + 1)).collect())
}

/// Of the rows of one record.
type Times<'a> = Option<&'a [Option<EventTime>]>;

#[derive(Clone, Copy)]
enum Fate {
    Enters(Epoch),
    Waits(Epoch),
    Dead,
}

fn stamp_reads_arrival(stamp: Stamp) -> bool {
    !matches!(stamp, Stamp::Ticket(_))
}

fn valid(time: Option<EventTime>) -> Result<(), &'static str> {
    match time {
        None => Err("is NULL"),
        Some(time) if time.0 < 0 => Err("is before 1970"),
        Some(time) if time >= LATEST => Err("is after 2200"),
        Some(_) => Ok(()),
    }
}

/// A span as people say it: in the greatest unit that divides it.
pub fn span(ms: u64) -> String {
    let units = [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second")];
    let unit = units.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    unit.map_or(format!("{ms} ms"), |(unit, name)| format!("{} {name}{}", ms / unit, if ms == unit { "" } else { "s" }))
}

/// The rows under the declared schema: connectors may differ in nullability only.
fn renamed(rows: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), rows.columns().to_vec(), &options)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, TimestampMillisecondArray};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use freshet_core::Encode;

    use super::*;

    fn source(lateness_ms: Option<u64>) -> SourceDef {
        let schema = Arc::new(Schema::new(vec![Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true)]));
        SourceDef { event_time: Some(0), lateness_ms, ..SourceDef::new("s", schema, "memory", Format::Plain, Encode::Json) }
    }

    fn batch(times: &[Option<i64>]) -> SourceBatch {
        let column = Arc::new(TimestampMillisecondArray::from(times.to_vec())) as ArrayRef;
        let rows = RecordBatch::try_new(source(None).schema, vec![column]).unwrap();
        let offsets = (0..times.len() as u64).collect();
        SourceBatch { partition: 0, rows, diffs: None, offsets, dead_letters: Vec::new(), next_offset: times.len() as u64 }
    }

    #[test]
    fn t0_an_epoch_is_the_running_maximum() {
        let assigned = PartitionClock::default().assign(1, &source(None), batch(&[Some(5), Some(3), Some(9), Some(9)]), Stamp::Event).unwrap();
        assert_eq!((0..4).map(|row| assigned.rows.epoch(row).0).collect::<Vec<_>>(), [5, 5, 9, 9]);
        assert_eq!(assigned.rows.position(3), 1 << 56 | 4);
    }

    /// A NULL at the end sends the whole batch the slow way.
    #[test]
    fn t0_a_sound_batch_is_stamped_as_its_records_would_be() {
        let times = [5, 3, 9, 9, 9_000, 8_999, 20_000].map(Some);
        let with_null: Vec<Option<i64>> = times.into_iter().chain([None]).collect();
        for stamp in [Stamp::Event, Stamp::Ticket(Epoch(20_000)), Stamp::Ticket(Epoch(10_000))] {
            let (mut at_once, mut singly) = (PartitionClock::default(), PartitionClock::default());
            let fast = at_once.assign(1, &source(None), batch(&times), stamp).unwrap();
            let slow = singly.assign(1, &source(None), batch(&with_null), stamp).unwrap();
            assert_eq!((fast.rows.epochs(), fast.rows.positions()), (slow.rows.epochs(), slow.rows.positions()));
            assert_eq!(fast.held.keys().collect::<Vec<_>>(), slow.held.keys().collect::<Vec<_>>());
            assert_eq!((fast.dead_letters.len(), slow.dead_letters.len()), (0, 1));
            assert_eq!(at_once, singly);
        }
    }

    #[test]
    fn t0a_a_jump_is_quarantined_and_does_not_move_the_clock() {
        let far = 5 + 30 * 86_400_000 + 1;
        let assigned = PartitionClock::default().assign(0, &source(None), batch(&[Some(5), Some(far), Some(6), None]), Stamp::Event).unwrap();
        assert_eq!(assigned.rows.len(), 2);
        assert_eq!(assigned.rows.epoch(1).0, 6);
        assert_eq!(assigned.dead_letters.iter().map(|(_, letter)| letter.offset).collect::<Vec<_>>(), [1, 3]);
        let mut clock = PartitionClock::default();
        clock.assign(0, &source(None), batch(&[Some(5)]), Stamp::Event).unwrap();
        assert!(clock.assign(0, &source(None), batch(&vec![Some(far); 1001]), Stamp::Event).unwrap_err_text().contains("max_jump"));
    }

    #[test]
    fn t0a_max_jump_is_what_the_source_declares() {
        let mut def = source(None);
        def.limits.max_jump_ms = 10;
        let assigned = PartitionClock::default().assign(0, &def, batch(&[Some(5), Some(16), Some(15), Some(25)]), Stamp::Event).unwrap();
        assert_eq!(assigned.dead_letters.len(), 1);
        assert!(assigned.dead_letters[0].1.reason.contains("max_jump (10 ms)"), "{}", assigned.dead_letters[0].1.reason);
        assert_eq!((0..3).map(|row| assigned.rows.epoch(row).0).collect::<Vec<_>>(), [5, 15, 25]);
    }

    #[test]
    fn t13_a_row_ahead_of_its_ticket_waits_and_one_far_ahead_is_set_aside() {
        let mut clock = PartitionClock::default();
        let ticket = Stamp::Ticket(Epoch(1_000));
        let assigned =
            clock.assign(0, &source(None), batch(&[Some(900), Some(1_000), Some(1_001), Some(61_000), Some(61_001), None]), ticket).unwrap();
        assert_eq!((assigned.rows.len(), assigned.rows.epoch(1)), (2, Epoch(1_000)));
        assert_eq!(assigned.held.iter().map(|(due, rows)| (*due, rows.len())).collect::<Vec<_>>(), [(1_001, 1), (61_000, 1)]);
        assert_eq!(assigned.dead_letters.iter().map(|(_, letter)| letter.offset).collect::<Vec<_>>(), [4, 5]);
        assert!(assigned.dead_letters[0].1.reason.contains("max_skew (1 minute)") && !assigned.dead_letters[0].1.raw.is_empty());
        assert_eq!(clock.greatest_event(), Some(1_000_000_000), "a row that waits has no part in the watermark");
    }

    /// Rows of one record share an offset.
    fn updates(times: &[(Option<i64>, i64, u64)]) -> SourceBatch {
        let rows = batch(&times.iter().map(|time| time.0).collect::<Vec<_>>());
        let (diffs, offsets) = times.iter().map(|(_, diff, offset)| (*diff, *offset)).unzip();
        SourceBatch { diffs: Some(diffs), offsets, ..rows }
    }

    #[test]
    fn t0_an_update_enters_as_a_whole_at_the_greatest_of_its_times() {
        let update = updates(&[(Some(5), 1, 0), (Some(7), 1, 1), (Some(5), -1, 2), (Some(30), 1, 2), (Some(8), 1, 3)]);
        let assigned = PartitionClock::default().assign(0, &source(None), update, Stamp::Event).unwrap();
        assert_eq!((0..5).map(|row| assigned.rows.epoch(row).0).collect::<Vec<_>>(), [5, 7, 30, 30, 30]);
        let broken = updates(&[(Some(5), 1, 0), (Some(5), -1, 1), (None, 1, 1)]);
        let assigned = PartitionClock::default().assign(0, &source(None), broken, Stamp::Event).unwrap();
        assert_eq!((assigned.rows.len(), assigned.dead_letters.len()), (1, 2));
    }

    #[test]
    fn the_epoch_of_a_letter_is_that_of_its_place_however_records_are_polled() {
        let letter = |offset| DeadLetter { offset, ..DeadLetter::default() };
        let whole = SourceBatch { offsets: vec![1, 3, 5], dead_letters: [0, 2, 4, 6].map(letter).to_vec(), ..batch(&[Some(5), Some(3), Some(9)]) };
        let epochs = |assigned: &Assigned| assigned.dead_letters.iter().map(|(epoch, letter)| (letter.offset, epoch.0)).collect::<Vec<_>>();
        let at_once = epochs(&PartitionClock::default().assign(0, &source(None), whole, Stamp::Event).unwrap());
        assert_eq!(at_once, [(0, 0), (2, 5), (4, 5), (6, 9)]);
        let mut clock = PartitionClock::default();
        let first = SourceBatch { offsets: vec![1], dead_letters: vec![letter(0), letter(2)], ..batch(&[Some(5)]) };
        let second = SourceBatch { offsets: vec![3, 5], dead_letters: vec![letter(4), letter(6)], ..batch(&[Some(3), Some(9)]) };
        let parts = [first, second].map(|batch| epochs(&clock.assign(0, &source(None), batch, Stamp::Event).unwrap()));
        assert_eq!(parts.concat(), at_once);
    }

    trait ErrorText {
        fn unwrap_err_text(self) -> String;
    }

    impl ErrorText for Result<Assigned> {
        fn unwrap_err_text(self) -> String {
            self.err().expect("an error").to_string()
        }
    }
}

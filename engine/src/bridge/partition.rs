//! Gives the records of one partition their epochs (T0, T0a, T13) and says which are too late (T12). Pure: no clock, no I/O.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Counts, DeadLetter, Diffs, Epoch, Error, EventTime, Result, SourceBatch, SourceDef, event_times};
use serde::{Deserialize, Serialize};

/// A row further ahead of its partition than this is quarantined and does not move the clock (T0a).
pub const MAX_JUMP_MS: i64 = 30 * 86_400_000;
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
    /// Greatest event time of epochs before `epoch`, and including it.
    settled_event: Option<i64>,
    greatest_event: Option<i64>,
    far_rows: u32,
}

/// One batch after its clock: input, late rows and dead letters, each with an epoch.
pub struct Assigned {
    pub rows: Batch,
    pub late: Option<Batch>,
    pub dead_letters: Vec<(Epoch, DeadLetter)>,
}

impl PartitionClock {
    /// The watermark of T12 after completed epochs: greatest event time, less the declared delay, plus 1 ms.
    pub fn watermark(&self, delay_ms: u64) -> Option<Epoch> {
        self.greatest_event.map(|event| EventTime(event).plus_ms(1 - delay_ms as i64).epoch_ceil())
    }

    /// `ticket` is the epoch of everything in wall clock; None in event clock. Errors: Data when the partition's clock cannot be right.
    pub fn assign(&mut self, source_index: usize, source: &SourceDef, batch: SourceBatch, ticket: Option<Epoch>) -> Result<Assigned> {
        let column = |index: Option<usize>| index.map(|index| event_times(batch.rows.column(index))).transpose();
        let events = column(source.event_time)?;
        let arrivals = column(source.arrival)?;
        let mut dead_letters: Vec<(Epoch, DeadLetter)> = Vec::new();
        let (mut epochs, mut kept, mut late) = (Vec::with_capacity(batch.offsets.len()), Vec::new(), Vec::new());
        let mut first = 0;
        for record in batch.offsets.chunk_by(|a, b| a == b) {
            let rows = first..first + record.len();
            first = rows.end;
            let of_record = |times: &Option<Vec<Option<EventTime>>>| times.as_ref().map(|times| times[rows.clone()].to_vec());
            let (events, arrivals) = (of_record(&events), of_record(&arrivals));
            let fate = match self.epoch_of_record(events.as_deref(), arrivals.as_deref(), ticket) {
                Ok(epoch) => {
                    epochs.extend(rows.clone().map(|_| epoch.0));
                    if self.too_late(events.as_deref(), source.lateness_ms) { Fate::Late } else { Fate::Kept }
                }
                Err(reason) => {
                    if self.far_rows >= FAR_ROWS_MAX {
                        return Err(Error::data(format!(
                            "source {}: {FAR_ROWS_MAX} rows in a row lie more than max_jump (30 days) ahead of the rows before them; the last one is record {}",
                            source.name, record[0]
                        )));
                    }
                    let epoch = self.epoch.max(ticket.map_or(0, |ticket| ticket.0));
                    let sound = events.as_deref().is_none_or(|times| times.iter().all(|time| valid(*time).is_ok()));
                    let field = source.arrival.filter(|_| sound).or(source.event_time);
                    let field = field.map_or(String::new(), |index| source.schema.field(index).name().clone());
                    for row in rows.clone() {
                        epochs.push(epoch);
                        let (field, raw) = (field.clone(), raw_record(&batch.rows, row));
                        let letter = DeadLetter {
                            partition: batch.partition,
                            offset: record[0],
                            field,
                            reason: reason.to_string(),
                            raw,
                            ..DeadLetter::default()
                        };
                        dead_letters.push((Epoch(epoch), letter));
                    }
                    Fate::Dead
                }
            };
            kept.extend(rows.clone().map(|_| fate == Fate::Kept));
            late.extend(rows.map(|_| fate == Fate::Late));
        }
        let undecodable = Epoch(self.epoch.max(ticket.map_or(0, |ticket| ticket.0)));
        dead_letters.extend(batch.dead_letters.iter().map(|letter| (undecodable, letter.clone())));
        let base = (source_index as u64) << 56 | u64::from(batch.partition & 0xffff) << 40;
        let positions = batch.offsets.iter().map(|offset| base | (offset + 1)).collect();
        let epochs = if ticket.is_some() || (source.event_time.is_none() && source.arrival.is_none()) {
            Counts::Const(ticket.map_or(0, |ticket| ticket.0))
        } else {
            Counts::Each(epochs.into())
        };
        let diffs = batch.diffs.map_or(Diffs::One, |diffs| Diffs::Each(diffs.into()));
        let whole = Batch::new(renamed(batch.rows, &source.schema)?, epochs, diffs, Counts::Each(positions));
        let late_rows = late.iter().any(|late| *late).then(|| whole.filter(&BooleanArray::from(late)));
        Ok(Assigned { rows: whole.filter(&BooleanArray::from(kept)), late: late_rows, dead_letters })
    }

    /// One epoch for all rows of a record: an update takes effect as a whole, at the greatest of its times (T0). A row without a usable time
    /// makes the record unusable.
    fn epoch_of_record(
        &mut self,
        events: Option<&[Option<EventTime>]>,
        arrivals: Option<&[Option<EventTime>]>,
        ticket: Option<Epoch>,
    ) -> Result<Epoch, &'static str> {
        for times in [events, arrivals].into_iter().flatten() {
            times.iter().try_for_each(|time| valid(*time))?;
        }
        self.epoch_of(arrivals.or(events).map(|times| times.iter().copied().max().flatten()), ticket)
    }

    /// The epoch of a record whose epoch time this is, and the clock moved to it.
    fn epoch_of(&mut self, time: Option<Option<EventTime>>, ticket: Option<Epoch>) -> Result<Epoch, &'static str> {
        let time = time.map(|time| valid(time).map(|()| time.expect("a valid time is not NULL"))).transpose()?;
        let epoch = match (ticket, time) {
            (Some(ticket), _) => ticket,
            (None, None) => Epoch::ZERO,
            (None, Some(time)) => {
                if self.reached.is_some_and(|reached| time > EventTime(reached).plus_ms(MAX_JUMP_MS)) {
                    self.far_rows += 1;
                    return Err("event time is more than max_jump (30 days) ahead of the rows before it");
                }
                self.far_rows = 0;
                self.reached = self.reached.max(Some(time.0));
                time.epoch_ceil().max(Epoch(self.epoch))
            }
        };
        if epoch.0 > self.epoch {
            self.epoch = epoch.0;
            self.settled_event = self.greatest_event;
        }
        Ok(epoch)
    }

    /// Lateness is decided against the greatest event time of earlier epochs (T12). A record is too late as a whole if one of its rows is: half
    /// an update would leave the old row beside the new one.
    fn too_late(&mut self, events: Option<&[Option<EventTime>]>, lateness_ms: Option<u64>) -> bool {
        let times = events.into_iter().flatten().flatten().map(|time| time.0);
        let (Some(least), Some(greatest)) = (times.clone().min(), times.max()) else { return false };
        self.greatest_event = self.greatest_event.max(Some(greatest));
        let (Some(lateness), Some(settled)) = (lateness_ms, self.settled_event) else { return false };
        EventTime(least) < EventTime(settled).plus_ms(-(lateness as i64))
    }
}

#[derive(PartialEq)]
enum Fate {
    Kept,
    Late,
    Dead,
}

fn valid(time: Option<EventTime>) -> Result<(), &'static str> {
    match time {
        None => Err("event time is NULL"),
        Some(time) if time.0 < 0 => Err("event time is before 1970"),
        Some(time) if time >= LATEST => Err("event time is after 2200"),
        Some(_) => Ok(()),
    }
}

/// The decoded record as text, for the dead-letter stream: the bytes it came from are gone.
fn raw_record(rows: &RecordBatch, row: usize) -> Vec<u8> {
    let cells = rows.columns().iter().map(|column| freshet_core::Value::of(column, row).map_or("?".to_string(), |value| value.to_string()));
    cells.collect::<Vec<_>>().join(",").into_bytes()
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
    use freshet_core::{Encode, Format};

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
        let assigned = PartitionClock::default().assign(1, &source(None), batch(&[Some(5), Some(3), Some(9), Some(9)]), None).unwrap();
        assert_eq!((0..4).map(|row| assigned.rows.epoch(row).0).collect::<Vec<_>>(), [5, 5, 9, 9]);
        assert_eq!(assigned.rows.position(3), 1 << 56 | 4);
    }

    #[test]
    fn t0a_a_jump_is_quarantined_and_does_not_move_the_clock() {
        let far = 5 + MAX_JUMP_MS + 1;
        let assigned = PartitionClock::default().assign(0, &source(None), batch(&[Some(5), Some(far), Some(6), None]), None).unwrap();
        assert_eq!(assigned.rows.len(), 2);
        assert_eq!(assigned.rows.epoch(1).0, 6);
        assert_eq!(assigned.dead_letters.iter().map(|(_, letter)| letter.offset).collect::<Vec<_>>(), [1, 3]);
        let mut clock = PartitionClock::default();
        clock.assign(0, &source(None), batch(&[Some(5)]), None).unwrap();
        assert!(clock.assign(0, &source(None), batch(&vec![Some(far); 1001]), None).unwrap_err_text().contains("max_jump"));
    }

    #[test]
    fn t12_a_row_behind_the_bound_of_earlier_epochs_is_late() {
        let assigned = PartitionClock::default()
            .assign(0, &source(Some(10)), batch(&[Some(100), Some(89), Some(120), Some(105), Some(121), Some(109)]), None)
            .unwrap();
        // 89 belongs to epoch 100, before which nothing was seen; 105 to epoch 120, whose bound is 100 − 10; 109 to 121, bound 110.
        let late = assigned.late.unwrap();
        assert_eq!((late.len(), late.epoch(0).0, assigned.rows.len()), (1, 121, 5));
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
        let assigned = PartitionClock::default().assign(0, &source(None), update, None).unwrap();
        assert_eq!((0..5).map(|row| assigned.rows.epoch(row).0).collect::<Vec<_>>(), [5, 7, 30, 30, 30]);
        let broken = updates(&[(Some(5), 1, 0), (Some(5), -1, 1), (None, 1, 1)]);
        let assigned = PartitionClock::default().assign(0, &source(None), broken, None).unwrap();
        assert_eq!((assigned.rows.len(), assigned.dead_letters.len()), (1, 2));
    }

    #[test]
    fn t12_an_update_is_late_as_a_whole() {
        let update = updates(&[(Some(100), 1, 0), (Some(120), 1, 1), (Some(140), 1, 2), (Some(100), -1, 3), (Some(150), 1, 3)]);
        let assigned = PartitionClock::default().assign(0, &source(Some(10)), update, None).unwrap();
        assert_eq!((assigned.rows.len(), assigned.late.unwrap().len()), (3, 2));
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

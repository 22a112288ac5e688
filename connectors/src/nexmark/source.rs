//! Partitions of made-up events. In: polls. Out: the events whose number has the partition's remainder, in order; an offset is how many of its
//! events went before. The events of all partitions together do not depend on how many there are.

use std::time::Instant;

use freshet_core::{Error, Format, OptionError, Poll, Result, Source, SourceBatch, SourceDef};

use super::columns::Columns;
use super::event::Generator;
use super::options::Settings;

pub struct NexmarkSource {
    name: String,
    settings: Settings,
    columns: Columns,
    generator: Generator,
    /// The next offset of each partition.
    next: Vec<u64>,
    paused: Vec<bool>,
    ended: Vec<bool>,
    /// When reading began, and the number it began at.
    begun: Option<(Instant, u64)>,
}

/// Errors: an option or a column that does not fit.
pub fn check_source(def: &SourceDef) -> Result<(), OptionError> {
    let statement = |message: String| OptionError { option: None, message };
    let settings = Settings::parse(&def.options)?;
    if def.format != Format::Plain {
        return Err(statement("events are only ever added; use FORMAT PLAIN or no FORMAT at all".into()));
    }
    if let Some(metadata) = def.metadata.first() {
        return Err(OptionError::metadata(&metadata.name, "the nexmark connector has no metadata"));
    }
    Columns::new(&def.schema, settings.kind).map(drop).map_err(|(_, message)| statement(message))
}

impl NexmarkSource {
    /// Errors: as [`check_source`].
    pub fn new(def: &SourceDef) -> Result<NexmarkSource> {
        let invalid = |message: String| Error::invalid(format!("source {}: {message}", def.name));
        let settings = Settings::parse(&def.options).map_err(|error| invalid(error.message))?;
        let columns = Columns::new(&def.schema, settings.kind).map_err(|(_, message)| invalid(message))?;
        let partitions = settings.partitions as usize;
        Ok(NexmarkSource {
            name: def.name.clone(),
            generator: Generator::new(settings.shape.clone()),
            settings,
            columns,
            next: vec![0; partitions],
            paused: vec![false; partitions],
            ended: vec![false; partitions],
            begun: None,
        })
    }

    fn number(&self, partition: usize, offset: u64) -> u64 {
        offset * self.next.len() as u64 + partition as u64
    }

    /// The first number that is not to be handed out yet.
    fn due(&mut self, next: u64) -> u64 {
        let end = self.settings.events.unwrap_or(u64::MAX);
        if !self.settings.paced {
            return end;
        }
        let (begun, first) = *self.begun.get_or_insert_with(|| (Instant::now(), next));
        end.min(first.saturating_add((begun.elapsed().as_secs_f64() * self.settings.shape.rate) as u64))
    }
}

impl Source for NexmarkSource {
    fn poll(&mut self, rows_max: usize) -> Result<Poll> {
        assert!(rows_max > 0);
        let count = self.next.len();
        if self.ended.iter().all(|ended| *ended) {
            return Ok(Poll::Ended);
        }
        // The one that is furthest behind, so that partitions stay in step.
        let open = (0..count).filter(|partition| !self.ended[*partition] && !self.paused[*partition]);
        let Some(partition) = open.min_by_key(|partition| self.number(*partition, self.next[*partition])) else { return Ok(Poll::Pending) };
        let first = self.number(partition, self.next[partition]);
        if self.settings.events.is_some_and(|events| first >= events) {
            self.ended[partition] = true;
            return Ok(if self.ended.iter().all(|ended| *ended) { Poll::Ended } else { Poll::PartitionEnded(partition as u32) });
        }
        let due = self.due(first);
        let mut numbers = Vec::with_capacity(rows_max.min(65_536));
        let mut offset = self.next[partition];
        // A table of one kind passes over the others, but not for ever in one poll.
        let last = offset.saturating_add(64 * rows_max as u64);
        while numbers.len() < rows_max && offset < last {
            let number = self.number(partition, offset);
            if number >= due {
                break;
            }
            if self.columns.has(self.generator.kind(number)) {
                numbers.push((offset, number));
            }
            offset += 1;
        }
        if offset == self.next[partition] {
            return Ok(Poll::Pending);
        }
        self.next[partition] = offset;
        Ok(Poll::Batch(SourceBatch {
            partition: partition as u32,
            rows: self.columns.batch(&self.generator, numbers.iter().map(|(_, number)| *number))?,
            diffs: None,
            offsets: numbers.into_iter().map(|(offset, _)| offset).collect(),
            dead_letters: Vec::new(),
            next_offset: offset,
        }))
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        let count = self.next.len();
        match self.next.get_mut(partition as usize) {
            Some(next) => *next = offset,
            None => return Err(Error::invalid(format!("source {} has {count} partitions; it has no partition {partition}", self.name))),
        }
        Ok(())
    }

    fn is_bounded(&self) -> bool {
        self.settings.events.is_some()
    }

    fn partitions(&mut self) -> Result<Option<Vec<u32>>> {
        Ok(Some((0..self.settings.partitions).collect()))
    }

    fn pause(&mut self, partition: u32, paused: bool) -> Result<()> {
        if let Some(known) = self.paused.get_mut(partition as usize) {
            *known = paused;
        }
        Ok(())
    }

    fn has_more(&self, partition: u32) -> Option<bool> {
        self.ended.get(partition as usize).map(|ended| !ended)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
    use freshet_core::Encode;

    use super::*;

    fn def(options: &[(&str, &str)]) -> SourceDef {
        let time = Field::new("dateTime", DataType::Timestamp(TimeUnit::Millisecond, None), true);
        let schema = Arc::new(Schema::new(vec![Field::new("price", DataType::Int64, true), time]));
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        SourceDef { options, ..SourceDef::new("bids", schema, "nexmark", Format::Plain, Encode::Json) }
    }

    /// Price by partition and offset.
    fn read(source: &mut NexmarkSource, rows: usize) -> BTreeMap<(u32, u64), i64> {
        let mut found = BTreeMap::new();
        loop {
            match source.poll(rows).unwrap() {
                Poll::Batch(batch) => {
                    let prices = batch.rows.column(0).as_primitive::<Int64Type>();
                    for (row, offset) in batch.offsets.iter().enumerate() {
                        assert!(found.insert((batch.partition, *offset), prices.value(row)).is_none());
                    }
                }
                Poll::PartitionEnded(_) | Poll::Pending => {}
                Poll::Ended => return found,
            }
        }
    }

    #[test]
    fn partitions_share_the_events_out() {
        let bids = |partitions: &str, rows| {
            let def = def(&[("events", "5000"), ("table.type", "bid"), ("partitions", partitions)]);
            check_source(&def).unwrap();
            let mut source = NexmarkSource::new(&def).unwrap();
            let count = partitions.parse::<u64>().unwrap();
            read(&mut source, rows)
                .into_iter()
                .map(|((partition, offset), price)| (offset * count + u64::from(partition), price))
                .collect::<BTreeMap<_, _>>()
        };
        let whole = bids("1", 8_192);
        assert_eq!(whole.len(), 4_600);
        assert!(whole == bids("3", 7) && whole == bids("7", 100));
    }

    #[test]
    fn a_source_goes_on_where_it_is_told() {
        let def = def(&[("events", "500"), ("table.type", "bid")]);
        let whole = read(&mut NexmarkSource::new(&def).unwrap(), 64);
        let mut source = NexmarkSource::new(&def).unwrap();
        source.seek(0, 250).unwrap();
        assert_eq!(read(&mut source, 64), whole.into_iter().filter(|((_, offset), _)| *offset >= 250).collect());
        assert!(source.seek(1, 0).is_err());
    }

    #[test]
    fn a_paced_source_hands_out_what_is_due() {
        let mut source = NexmarkSource::new(&def(&[("rate", "0.001"), ("paced", "true"), ("table.type", "bid")])).unwrap();
        assert!(matches!(source.poll(10), Ok(Poll::Pending)));
        assert!(!source.is_bounded());
    }

    #[test]
    fn changes_and_metadata_are_refused() {
        let changes = SourceDef { format: Format::Debezium, ..def(&[("table.type", "bid")]) };
        assert!(check_source(&changes).unwrap_err().message.contains("FORMAT PLAIN"));
        assert!(check_source(&def(&[])).unwrap_err().message.contains("no event has price"));
    }
}

//! Views that change less often than their input. In: changes. Out: with EMIT ON WINDOW CLOSE each row once, when its window closes (T12); with
//! EMIT EVERY what has changed since, at the next multiple.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use freshet_core::{Batch, Bound, Counts, Diffs, Epoch, EventTime, KeyCodec, Result, event_times};

use crate::bridge::{ViewLog, Watermarks};
use crate::operators::{ErrorRows, Output, Stateful, StepOperator};
use crate::state::{Due, Pending};

/// The watermark of some sources, for an operator that follows it step by step.
pub struct Closing {
    watermarks: Arc<Watermarks>,
    sources: Vec<usize>,
}

impl Closing {
    pub fn new(watermarks: Arc<Watermarks>, sources: Vec<usize>) -> Closing {
        Closing { watermarks, sources }
    }

    /// The watermark before the rows of this epoch.
    fn before(&self, epoch: Epoch) -> Option<EventTime> {
        self.watermarks.at(&self.sources, Bound::Watermark, Epoch(epoch.0.checked_sub(1)?))
    }
}

fn batch_of(codec: &KeyCodec, schema: &SchemaRef, due: &[(Epoch, Due)]) -> Option<Batch> {
    if due.is_empty() {
        return None;
    }
    let rows = codec.decode_batch(schema, due.iter().map(|(_, due)| due.row.as_ref())).expect("these are rows of this codec");
    let epochs = Counts::Each(due.iter().map(|(epoch, _)| epoch.0).collect());
    let diffs = Diffs::Each(due.iter().map(|(_, due)| due.diff).collect());
    Some(Batch::new(rows, epochs, diffs, Counts::Each(due.iter().map(|(_, due)| due.position).collect())))
}

/// EMIT ON WINDOW CLOSE: the operator and the rows of windows that are open.
pub struct EmitOnClose {
    end: usize,
    closing: Closing,
    codec: KeyCodec,
    schema: SchemaRef,
    /// By the window's end, in ns.
    open: Pending,
    since: Option<Epoch>,
}

impl EmitOnClose {
    /// `end` is the column that holds the end of a row's window. Errors: Invalid for columns without order.
    pub fn new(end: usize, closing: Closing, schema: SchemaRef) -> Result<EmitOnClose> {
        Ok(EmitOnClose { end, closing, codec: KeyCodec::for_schema(&schema)?, schema, open: Pending::default(), since: None })
    }
}

impl StepOperator for EmitOnClose {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        let batches = std::mem::take(&mut inputs[0]);
        let mut order: Vec<(u64, usize, usize)> = Vec::new();
        let mut parts = Vec::with_capacity(batches.len());
        for (index, batch) in batches.iter().enumerate() {
            let rows = self.codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
            let ends = event_times(batch.column(self.end)).expect("the planner lets only timestamps end windows");
            order.extend((0..batch.len()).map(|row| (batch.epoch(row).0, index, row)));
            parts.push((rows, ends));
        }
        order.sort_unstable();
        let sources = &self.closing.sources;
        let raises = self.closing.watermarks.raises(sources, Bound::Watermark, self.since, upto);
        let mut reached = self.since.and_then(|since| self.closing.watermarks.at(sources, Bound::Watermark, since));
        let mut raises = raises.into_iter().peekable();
        let mut due: Vec<(Epoch, Due)> = Vec::new();
        let mut close = |open: &mut Pending, below: Option<u64>, reached: &mut Option<EventTime>| {
            while let Some((epoch, time)) = raises.next_if(|(epoch, _)| below.is_none_or(|below| epoch.0 < below)) {
                *reached = Some(time);
                due.extend(open.take(time.0).into_iter().map(|due| (epoch, due)));
            }
        };
        for (epoch, index, row) in order {
            close(&mut self.open, Some(epoch), &mut reached);
            let (rows, ends) = &parts[index];
            // What changes behind its window has been told as it was when the window closed.
            let Some(end) = ends[row].filter(|end| reached.is_none_or(|reached| *end > reached)) else { continue };
            self.open.add(end.0, rows.row(row).as_ref(), batches[index].diff(row), batches[index].position(row));
        }
        close(&mut self.open, None, &mut reached);
        self.since = Some(upto);
        out.rows.extend(batch_of(&self.codec, &self.schema, &due));
    }
}

impl Stateful for EmitOnClose {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.open.checkpoint()
    }

    fn restore(&mut self, _shard: usize, bytes: &[u8]) -> Result<()> {
        self.open.restore(bytes)
    }

    fn resume(&mut self, epoch: Epoch) -> Result<()> {
        self.since = Some(epoch);
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        self.open.size()
    }
}

/// Lets rows pass whose window is open; the others go to `late(view)`. The watermark alone is what it knows.
pub struct Gate {
    pub name: String,
    /// The column that holds the end of a row's window.
    pub end: usize,
    pub closing: Closing,
    pub late: Option<Arc<ViewLog>>,
    pub sources: Arc<[String]>,
}

impl StepOperator for Gate {
    fn step(&mut self, inputs: &mut [Vec<Batch>], _upto: Epoch, out: &mut Output) {
        let mut late = ErrorRows::new(&self.name, self.sources.clone());
        for batch in std::mem::take(&mut inputs[0]) {
            let ends = event_times(batch.column(self.end)).expect("the planner lets only timestamps end windows");
            let mut known: Option<(Epoch, Option<EventTime>)> = None;
            let mut open = vec![true; batch.len()];
            for row in 0..batch.len() {
                let epoch = batch.epoch(row);
                let reached = match known {
                    Some((of, reached)) if of == epoch => reached,
                    _ => self.closing.before(epoch),
                };
                known = Some((epoch, reached));
                if let (Some(end), Some(reached)) = (ends[row], reached)
                    && end <= reached
                {
                    open[row] = false;
                    let field = batch.schema().field(self.end).name().clone();
                    late.push(&batch, row, &field, "the row came behind its window, which has been emitted");
                }
            }
            let kept = batch.filter(&arrow::array::BooleanArray::from(open));
            out.rows.extend(Some(kept).filter(|kept| !kept.is_empty()));
        }
        if let (Some(log), Some(late)) = (&self.late, late.finish()) {
            log.append(late, Epoch::ZERO);
        }
    }
}

/// EMIT EVERY: the operator and the changes that wait for the next multiple.
pub struct EmitEvery {
    every_ms: u64,
    codec: KeyCodec,
    schema: SchemaRef,
    /// By the epoch at which they come out.
    waiting: Pending,
}

impl EmitEvery {
    /// Errors: Invalid for columns without order.
    pub fn new(every_ms: u64, schema: SchemaRef) -> Result<EmitEvery> {
        Ok(EmitEvery { every_ms, codec: KeyCodec::for_schema(&schema)?, schema, waiting: Pending::default() })
    }
}

impl StepOperator for EmitEvery {
    fn step(&mut self, inputs: &mut [Vec<Batch>], upto: Epoch, out: &mut Output) {
        for batch in std::mem::take(&mut inputs[0]) {
            let rows = self.codec.encode(batch.rows().columns()).expect("the codec was made for these columns");
            for row in 0..batch.len() {
                let at = batch.epoch(row).0.div_ceil(self.every_ms).saturating_mul(self.every_ms);
                self.waiting.add(i64::try_from(at).unwrap_or(i64::MAX), rows.row(row).as_ref(), batch.diff(row), batch.position(row));
            }
        }
        let due = self.waiting.take(i64::try_from(upto.0).unwrap_or(i64::MAX - 1));
        let due: Vec<(Epoch, Due)> = due.into_iter().map(|due| (Epoch(due.at as u64), due)).collect();
        out.rows.extend(batch_of(&self.codec, &self.schema, &due));
    }
}

impl Stateful for EmitEvery {
    fn checkpoint(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.waiting.checkpoint()
    }

    fn restore(&mut self, _shard: usize, bytes: &[u8]) -> Result<()> {
        self.waiting.restore(bytes)
    }

    fn size(&self) -> (u64, u64) {
        self.waiting.size()
    }
}

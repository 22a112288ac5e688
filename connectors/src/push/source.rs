//! The engine's side of a push queue. In: polls. Out: what clients pushed, as one partition that never ends.

use std::sync::Arc;

use freshet_core::{Error, Poll, Result, Source, SourceReport};

use super::queue::PushQueue;

pub struct Reading {
    pub name: String,
    pub queue: Arc<PushQueue>,
}

impl Source for Reading {
    fn poll(&mut self, rows_max: usize) -> Result<Poll> {
        assert!(rows_max > 0);
        self.queue.poll(rows_max)
    }

    fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        if partition != 0 {
            return Err(Error::invalid(format!("source {} has one partition, 0; it has no partition {partition}", self.name)));
        }
        self.queue.seek(offset);
        Ok(())
    }

    fn is_bounded(&self) -> bool {
        false
    }

    fn report(&self) -> SourceReport {
        self.queue.report()
    }
}

//! A sink that keeps nothing, for benchmarks and for views that are only looked at. In: changes. Out: nothing; the position is how many there were.

use freshet_core::{Batch, Epoch, OptionError, Result, Sink, SinkDef};

use crate::options::check_names;

#[derive(Debug, Default)]
pub struct Blackhole {
    changes: u64,
}

/// Errors: it has no options.
pub fn check_blackhole(def: &SinkDef) -> Result<(), OptionError> {
    check_names("blackhole", def.options.keys(), &[])
}

impl Sink for Blackhole {
    fn write(&mut self, changes: &Batch) -> Result<()> {
        self.changes += changes.len() as u64;
        Ok(())
    }

    fn flush(&mut self, _closed: Epoch) -> Result<u64> {
        Ok(self.changes)
    }

    fn restore(&mut self, position: u64) -> Result<()> {
        self.changes = position;
        Ok(())
    }

    fn is_ordered(&self) -> bool {
        false
    }
}

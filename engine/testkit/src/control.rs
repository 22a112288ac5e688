//! A control plane whose decisions are known beforehand. In: control records. Out: the same records, each when time has come to its epoch.

use freshet_core::{Control, ControlOutput, ControlRecord, Epoch, Reader, Result};

/// Releases each record at its own epoch, before and after a restart alike; decides nothing itself.
#[derive(Debug, Clone)]
pub struct ScriptedControl {
    records: Vec<ControlRecord>,
    /// How many have been released.
    released: usize,
}

impl ScriptedControl {
    /// Records in the order of their epochs; those of epoch 0 are there from the start.
    pub fn new(records: &[ControlRecord]) -> ScriptedControl {
        assert!(records.is_sorted_by_key(|record| record.epoch), "control records come in order");
        ScriptedControl { records: records.to_vec(), released: 0 }
    }

    fn release(&mut self, upto: Epoch) -> ControlOutput {
        let end = self.records.partition_point(|record| record.epoch <= upto).max(self.released);
        let records = self.records[self.released..end].to_vec();
        self.released = end;
        ControlOutput { records, rows: Vec::new() }
    }
}

impl Control for ScriptedControl {
    fn start(&mut self, restored: Option<Epoch>) -> Result<ControlOutput> {
        Ok(self.release(restored.unwrap_or_default()))
    }

    fn next_point(&self, _: Epoch) -> Option<Epoch> {
        None
    }

    fn decide(&mut self, _: Epoch, _: &dyn Reader) -> Result<ControlOutput> {
        Ok(ControlOutput::default())
    }

    fn pending(&self) -> Option<Epoch> {
        self.records.get(self.released).map(|record| record.epoch)
    }

    fn running(&self) -> Vec<(String, Epoch)> {
        Vec::new()
    }

    fn settle(&mut self, epoch: Epoch, _: &dyn Fn() -> bool) -> Result<Option<ControlOutput>> {
        Ok(Some(self.release(epoch)))
    }
}

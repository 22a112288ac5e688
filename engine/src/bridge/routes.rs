//! Which version of a model scores a row: the control records, as every worker sees them. Written by the ingest thread, before any row of
//! a greater epoch is handed out; so what a worker reads for a row never changes afterwards (C6).

use std::sync::{Arc, PoisonError, RwLock};

use freshet_core::{ControlRecord, Epoch, Model, PredictRoute, Reference};

/// One version of a model that the dataflow knows.
#[derive(Debug)]
pub struct Version {
    pub number: u32,
    pub promoted: bool,
    /// It is there for rows of greater epochs; at epoch 0, for all rows.
    pub epoch: Epoch,
    pub loaded: Arc<dyn Model>,
    pub reference: Arc<Reference>,
}

/// The versions of every model of a plan, in the order of their records.
#[derive(Debug)]
pub struct Routes {
    models: Vec<RwLock<Vec<Arc<Version>>>>,
}

impl Routes {
    pub fn new(models: usize) -> Routes {
        Routes { models: (0..models).map(|_| RwLock::default()).collect() }
    }

    /// Records come in the order of their epochs.
    pub fn add(&self, record: ControlRecord) {
        let mut versions = self.models[record.model].write().unwrap_or_else(PoisonError::into_inner);
        assert!(versions.last().is_none_or(|last| last.epoch <= record.epoch), "control records come in order");
        versions.push(Arc::new(Version {
            number: record.version,
            promoted: record.promoted,
            epoch: record.epoch,
            loaded: record.loaded,
            reference: record.reference,
        }));
    }

    /// The version that scores a row of this epoch: of the records with lower epochs the one the route asks for. A model has few versions,
    /// and the one wanted is nearly always the last.
    pub fn at(&self, model: usize, epoch: Epoch, route: PredictRoute) -> Option<Arc<Version>> {
        let versions = self.models[model].read().unwrap_or_else(PoisonError::into_inner);
        let mut known = versions.iter().rev().skip_while(|version| version.epoch >= epoch && version.epoch > Epoch::ZERO);
        let found = match route {
            PredictRoute::Live => known.find(|version| version.promoted),
            PredictRoute::Version(number) => known.find(|version| version.number == number),
            PredictRoute::Challenger => known.next(),
        };
        found.cloned()
    }

    /// The live version and the number of versions, for the status.
    pub fn summary(&self, model: usize) -> (Option<u32>, u32) {
        let versions = self.models[model].read().unwrap_or_else(PoisonError::into_inner);
        (versions.iter().rev().find(|version| version.promoted).map(|version| version.number), versions.len() as u32)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::ArrayRef;

    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl Model for Nothing {
        fn predict(&self, inputs: &[ArrayRef]) -> freshet_core::Result<Vec<ArrayRef>> {
            Ok(inputs.to_vec())
        }
        fn batch_invariant(&self) -> bool {
            true
        }
    }

    #[test]
    fn c6_a_record_is_live_for_rows_of_greater_epochs_only() {
        let routes = Routes::new(1);
        for (version, epoch, promoted) in [(1, 10, true), (2, 20, false), (3, 30, true)] {
            routes.add(ControlRecord { epoch: Epoch(epoch), model: 0, version, promoted, loaded: Arc::new(Nothing), reference: Arc::default() });
        }
        let number = |epoch, route| routes.at(0, Epoch(epoch), route).map(|version| version.number);
        assert_eq!([10, 11, 20, 21, 30, 31].map(|epoch| number(epoch, PredictRoute::Live)), [None, Some(1), Some(1), Some(1), Some(1), Some(3)]);
        assert_eq!([20, 21, 31].map(|epoch| number(epoch, PredictRoute::Challenger)), [Some(1), Some(2), Some(3)]);
        assert_eq!([10, 11, 99].map(|epoch| number(epoch, PredictRoute::Version(1))), [None, Some(1), Some(1)]);
        assert_eq!(number(20, PredictRoute::Version(2)), None);
        assert_eq!(routes.summary(0), (Some(3), 3));
    }
}

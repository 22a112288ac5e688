//! A reader that answers for one instant, whatever is asked. In: another reader and an epoch. Out: what that one says of the epoch.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use freshet_core::{
    CatalogService, CatalogView, Epoch, FeatureAnswer, FeatureRequest, PipelineStatus, ReadMode, Reader, Result, Snapshot, SubscribeRequest,
    Subscription,
};

/// Reads another reader at one epoch.
pub struct PinnedReader {
    pub reader: Arc<dyn Reader>,
    pub at: Epoch,
}

impl Reader for PinnedReader {
    fn views(&self) -> Vec<CatalogView> {
        self.reader.views()
    }

    fn services(&self) -> Vec<CatalogService> {
        self.reader.services()
    }

    fn sources(&self) -> Vec<(String, SchemaRef)> {
        self.reader.sources()
    }

    fn frontier(&self, _views: &[&str]) -> Result<Epoch> {
        Ok(self.at.next())
    }

    fn snapshot(&self, views: &[&str], as_of: Option<Epoch>) -> Result<Snapshot> {
        self.reader.snapshot(views, Some(as_of.unwrap_or(self.at)))
    }

    fn features(&self, request: &FeatureRequest) -> Result<FeatureAnswer> {
        let mode = if request.mode == ReadMode::Fresh { ReadMode::AsOf(self.at.next()) } else { request.mode };
        self.reader.features(&FeatureRequest { mode, ..request.clone() })
    }

    fn reached(&self, source: &str, partition: u32, offset: u64) -> Result<Option<Epoch>> {
        self.reader.reached(source, partition, offset)
    }

    fn subscribe(&self, request: &SubscribeRequest) -> Result<Box<dyn Subscription>> {
        self.reader.subscribe(request)
    }

    fn status(&self) -> PipelineStatus {
        self.reader.status()
    }
}

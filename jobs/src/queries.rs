//! SQL behind the servers. In: a statement, parameter rows, an epoch. Out: rows read at one instant of the running pipeline.

use std::sync::Arc;

use arrow::array::RecordBatch;
use freshet_core::{
    CatalogService, CatalogView, Epoch, Error, FeatureAnswer, FeatureRequest, PipelineStatus, ReadMode, Reader, Result, Snapshot, SubscribeRequest,
    Subscription,
};
use freshet_serving::{Prepared, Queries, QueryAnswer};
use freshet_sql::{SqlError, query};

/// Plans with `freshet_sql`, reads with the engine.
pub struct PipelineQueries {
    reader: Arc<dyn Reader>,
}

impl PipelineQueries {
    pub fn new(reader: Arc<dyn Reader>) -> PipelineQueries {
        PipelineQueries { reader }
    }
}

impl Queries for PipelineQueries {
    fn prepare(&self, sql: &str) -> Result<Prepared> {
        let planned = query::plan(sql, self.reader.as_ref()).map_err(invalid)?;
        Ok(Prepared { schema: planned.schema, parameters: planned.parameters })
    }

    fn run(&self, sql: &str, parameters: Option<&RecordBatch>, at: Option<Epoch>) -> Result<QueryAnswer> {
        let planned = query::plan(sql, self.reader.as_ref()).map_err(invalid)?;
        let (schema, batches, point) = match at {
            None => query::run(&planned, parameters, self.reader.as_ref())?,
            Some(at) => query::run(&planned, parameters, &PinnedReader { reader: self.reader.clone(), at })?,
        };
        Ok(QueryAnswer { schema, batches, point })
    }

    fn subscription(&self, sql: &str) -> Result<Option<(SubscribeRequest, bool)>> {
        query::subscription(sql).map_err(invalid)
    }
}

fn invalid(error: SqlError) -> Error {
    Error::invalid(error.to_string())
}

/// Reads another reader at one epoch, whatever is asked.
struct PinnedReader {
    reader: Arc<dyn Reader>,
    at: Epoch,
}

impl Reader for PinnedReader {
    fn views(&self) -> Vec<CatalogView> {
        self.reader.views()
    }

    fn services(&self) -> Vec<CatalogService> {
        self.reader.services()
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

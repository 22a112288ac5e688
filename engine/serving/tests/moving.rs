//! A reader whose one view gets a new version on demand and keeps only the last two, as a running pipeline does.

use std::sync::{Arc, Mutex};

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use freshet_core::{
    CatalogService, CatalogView, Epoch, Error, FeatureAnswer, FeatureRequest, Ingress, PipelineStatus, ReadMode, ReadPoint, Reader, Result,
    ServiceColumn, ServiceDef, ServicePart, Snapshot, Status, SubscribeRequest, Subscription, ViewStatus,
};
use freshet_serving::{Listeners, Prepared, Queries, QueryAnswer, Server};

/// Versions that can still be read.
const KEPT: usize = 2;

#[derive(Default)]
pub struct Moving {
    /// (epoch, rows) ascending.
    versions: Mutex<Vec<(Epoch, RecordBatch)>>,
    /// (offset, epoch): what of the source `rides` has been read.
    read: Mutex<Vec<(u64, Epoch)>>,
    wall_clock: bool,
}

pub fn view_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, false), Field::new("count", DataType::Int64, true)]))
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

impl Moving {
    /// The view's content from this epoch on.
    pub fn advance(&self, epoch: u64, rows: &[(&str, i64)]) {
        let names = StringArray::from_iter_values(rows.iter().map(|row| row.0));
        let counts = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
        let batch = RecordBatch::try_new(view_schema(), vec![Arc::new(names), Arc::new(counts)]).unwrap();
        let mut versions = self.versions.lock().unwrap();
        versions.push((Epoch(epoch), batch));
        let gone = versions.len().saturating_sub(KEPT);
        versions.drain(..gone);
    }

    /// Everything of `rides` before this offset is input of this epoch.
    pub fn read_upto(&self, offset: u64, epoch: u64) {
        self.read.lock().unwrap().push((offset, Epoch(epoch)));
    }

    fn version(&self, as_of: Option<Epoch>) -> Result<(Epoch, RecordBatch)> {
        let versions = self.versions.lock().unwrap();
        let found = versions.iter().rev().find(|version| as_of.is_none_or(|as_of| version.0 <= as_of));
        found.map(|(epoch, rows)| (as_of.unwrap_or(*epoch), rows.clone())).ok_or_else(|| match versions.first() {
            Some((earliest, _)) => Error::invalid(format!("the history begins at epoch {earliest}")),
            None => Error::unavailable("no epoch is complete yet; try again in a moment"),
        })
    }
}

impl Reader for Moving {
    fn views(&self) -> Vec<CatalogView> {
        vec![CatalogView { name: "counts".into(), schema: view_schema(), kind: "VIEW", entity: Vec::new() }]
    }

    fn services(&self) -> Vec<CatalogService> {
        let def = ServiceDef {
            name: "by_name".into(),
            parts: vec![ServicePart { view: "counts".into(), entity: vec![field("name", DataType::Utf8)] }],
            request: Vec::new(),
            output: vec![ServiceColumn::Feature { part: 0, column: 1 }],
            schema: Arc::new(Schema::new(vec![field("count", DataType::Int64)])),
        };
        vec![CatalogService { def, input: Arc::new(Schema::new(vec![field("name", DataType::Utf8)])) }]
    }

    fn frontier(&self, _views: &[&str]) -> Result<Epoch> {
        Ok(self.version(None).map_or(Epoch::ZERO, |version| version.0.next()))
    }

    fn snapshot(&self, views: &[&str], as_of: Option<Epoch>) -> Result<Snapshot> {
        let (epoch, rows) = self.version(as_of)?;
        Ok(Snapshot { point: ReadPoint::at(epoch.next()), views: views.iter().map(|_| vec![rows.clone()]).collect(), durable_epoch: None })
    }

    fn features(&self, request: &FeatureRequest) -> Result<FeatureAnswer> {
        let as_of = if let ReadMode::AsOf(epoch) = request.mode { Some(Epoch(epoch.0 - 1)) } else { None };
        let (epoch, rows) = self.version(as_of)?;
        let (names, counts) = (rows.column(0).as_string::<i32>(), rows.column(1).as_primitive::<Int64Type>());
        let asked = request.rows.column_by_name("name").expect("the server brings every input column").as_string::<i32>();
        let found = asked.iter().map(|name| names.iter().position(|known| name.is_some() && known == name)).collect::<Vec<_>>();
        let values: Int64Array = found.iter().map(|row| row.map(|row| counts.value(row))).collect();
        let status = |row: &Option<usize>| if row.is_some() { Status::Present } else { Status::NotFound };
        Ok(FeatureAnswer {
            features: RecordBatch::try_new(Arc::new(Schema::new(vec![field("count", DataType::Int64)])), vec![Arc::new(values)]).unwrap(),
            statuses: vec![found.iter().map(status).collect()],
            event_times: vec![vec![None; asked.len()]],
            point: ReadPoint::at(epoch.next()),
            durable_epoch: Some(Epoch(7)),
        })
    }

    fn reached(&self, source: &str, partition: u32, offset: u64) -> Result<Option<Epoch>> {
        if source != "rides" || partition != 0 {
            return Err(Error::invalid(format!("there is no source {source}")));
        }
        Ok(self.read.lock().unwrap().iter().find(|(read, _)| *read >= offset).map(|(_, epoch)| *epoch))
    }

    fn subscribe(&self, request: &SubscribeRequest) -> Result<Box<dyn Subscription>> {
        Err(Error::invalid(format!("there is no view {}", request.view)))
    }

    fn status(&self) -> PipelineStatus {
        let closed = self.version(None).ok().map(|version| version.0);
        PipelineStatus {
            clock: if self.wall_clock { "wall" } else { "event" },
            views: vec![ViewStatus { name: "counts".into(), closed, ..ViewStatus::default() }],
            ..PipelineStatus::default()
        }
    }
}

/// Knows one query.
pub struct OneQuery(pub Arc<Moving>);

impl Queries for OneQuery {
    fn prepare(&self, sql: &str) -> Result<Prepared> {
        match sql {
            "SELECT * FROM counts" => Ok(Prepared { schema: view_schema(), parameters: Arc::new(Schema::empty()) }),
            other => Err(Error::invalid(format!("query:1:1: {other} is not the one query"))),
        }
    }

    fn run(&self, sql: &str, _parameters: Option<&RecordBatch>, at: Option<Epoch>) -> Result<QueryAnswer> {
        let schema = self.prepare(sql)?.schema;
        let mut snapshot = self.0.snapshot(&["counts"], at)?;
        Ok(QueryAnswer { schema, batches: snapshot.views.remove(0), point: snapshot.point, changed: None })
    }
}

/// A server on free ports over this reader.
pub struct Running {
    pub reader: Arc<Moving>,
    pub server: Server,
    pub flight: String,
    pub http: String,
}

pub async fn start() -> Running {
    start_with(None).await
}

pub async fn start_with(ingress: Option<Arc<dyn Ingress>>) -> Running {
    start_over(Moving::default(), ingress).await
}

/// Its epochs are times of the machine's clock.
pub async fn start_in_wall_clock() -> Running {
    start_over(Moving { wall_clock: true, ..Moving::default() }, None).await
}

async fn start_over(reader: Moving, ingress: Option<Arc<dyn Ingress>>) -> Running {
    let any = "127.0.0.1:0".parse().unwrap();
    let listeners = Listeners::bind(any, any).await.unwrap();
    let (flight, http) = (format!("http://{}", listeners.flight()), listeners.http().to_string());
    let reader = Arc::new(reader);
    let server = Server::start_with(listeners, "moving", reader.clone(), Arc::new(OneQuery(reader.clone())), ingress, None);
    Running { reader, server, flight, http }
}

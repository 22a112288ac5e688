//! Feature lookups, the same for DoExchange, DoGet and HTTP. In: rows with keys and request columns. Out: one row per row, in order,
//! with the service's output list, and where the answer stands. Runs on the caller's thread: an answer is faster than a hand-over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use freshet_core::{CatalogService, Epoch, Error, FeatureAnswer, FeatureRequest, ReadMode, ReadPoint, Reader, Result};

use crate::ask::mode_name;
use crate::columns::pick;
use crate::histogram::Histogram;
use crate::limits::{LOOKUP_ROWS_MAX, MIN_POSITION_LOOK_EVERY, MIN_POSITION_WAIT_MAX};
use crate::positions::Positions;
use crate::wire::{conform, wire_schema};

/// What one service takes and gives, worked out once.
#[derive(Debug)]
pub struct LookupService {
    pub name: String,
    /// Entity and request columns.
    pub input: SchemaRef,
    pub output: SchemaRef,
    /// `output`, then `<name>__status` for each of its columns.
    pub output_with_status: SchemaRef,
    /// Names of the feature views behind it.
    pub views: Vec<String>,
}

/// A lookup's rows and where they stand.
#[derive(Debug)]
pub struct LookupAnswer {
    pub rows: RecordBatch,
    pub detail: FeatureAnswer,
    pub mode: ReadMode,
    pub lag_ms: u64,
}

pub struct Lookups {
    reader: Arc<dyn Reader>,
    services: BTreeMap<String, Arc<LookupService>>,
    wall_clock: bool,
    seconds: Histogram,
}

impl Lookups {
    pub fn new(reader: Arc<dyn Reader>) -> Lookups {
        let services = reader.services().into_iter().map(|service| (service.def.name.clone(), Arc::new(lookup_service(&service)))).collect();
        let wall_clock = reader.status().clock == "wall";
        Lookups { reader, services, wall_clock, seconds: Histogram::default() }
    }

    /// Errors: Invalid, naming the services there are.
    pub fn service(&self, name: &str) -> Result<Arc<LookupService>> {
        self.services.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.services.keys().map(String::as_str).collect();
            Error::invalid(format!("there is no feature service {name}; known: {}", if known.is_empty() { "none".into() } else { known.join(", ") }))
        })
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<LookupService>> {
        self.services.values()
    }

    /// Waits until a lookup of this service sees these positions and, in wall clock, is at most so far behind the request time. Errors: see
    /// [`Positions::wait`]; Unavailable if it stays further behind.
    pub async fn wait_for(&self, positions: &Positions, staleness_ms_max: Option<u64>, service: &LookupService) -> Result<()> {
        let staleness_ms_max = staleness_ms_max.filter(|_| self.wall_clock);
        if positions.is_empty() && staleness_ms_max.is_none() {
            return Ok(());
        }
        let views: Vec<&str> = service.views.iter().map(String::as_str).collect();
        positions.wait(self.reader.as_ref(), &views, self.wall_clock).await?;
        let Some(most) = staleness_ms_max else { return Ok(()) };
        let deadline = Instant::now() + MIN_POSITION_WAIT_MAX;
        loop {
            let behind = machine_epoch().0.saturating_sub(self.reader.frontier(&views)?.0);
            if behind <= most {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let waited = MIN_POSITION_WAIT_MAX.as_secs();
                return Err(Error::unavailable(format!(
                    "the views of service {} are {behind} ms behind the request after {waited} s, more than max_staleness_ms ({most}); try again later",
                    service.name
                )));
            }
            tokio::time::sleep(MIN_POSITION_LOOK_EVERY).await;
        }
    }

    /// Waits until a read of these views (all, if none is named) sees these positions.
    pub async fn wait_for_views(&self, positions: &Positions, views: &[&str]) -> Result<()> {
        positions.wait(self.reader.as_ref(), views, self.wall_clock).await
    }

    /// How long lookups took.
    pub fn seconds(&self) -> &Histogram {
        &self.seconds
    }

    /// Features of every row. Errors: Invalid for a missing column, a value that does not fit, too many rows, an epoch not kept.
    pub fn answer(&self, service: &LookupService, rows: &RecordBatch, mode: ReadMode, statuses: bool) -> Result<LookupAnswer> {
        if rows.num_rows() > LOOKUP_ROWS_MAX {
            return Err(Error::invalid(format!(
                "a lookup has at most {LOOKUP_ROWS_MAX} rows, this one has {}; send several batches",
                rows.num_rows()
            )));
        }
        let started = Instant::now();
        let request = FeatureRequest { service: service.name.clone(), rows: pick(rows, &service.input)?, mode };
        let detail = self.reader.features(&request)?;
        self.seconds.record(started.elapsed());
        if detail.features.num_rows() != rows.num_rows() {
            return Err(Error::internal(format!("{} rows were asked and {} answered", rows.num_rows(), detail.features.num_rows())));
        }
        let rows = if statuses { with_statuses(service, &detail)? } else { conform(&detail.features, &service.output)? };
        let lag_ms = self.lag_ms(service, detail.point, mode)?;
        Ok(LookupAnswer { rows, detail, mode, lag_ms })
    }

    /// How far q is behind the request time, which in event clock is F (T15).
    fn lag_ms(&self, service: &LookupService, point: ReadPoint, mode: ReadMode) -> Result<u64> {
        let request_time = if self.wall_clock {
            machine_epoch()
        } else if matches!(mode, ReadMode::AsOf(_)) {
            self.reader.frontier(&service.views.iter().map(String::as_str).collect::<Vec<_>>())?
        } else {
            point.s
        };
        Ok(request_time.0.saturating_sub(point.q.0))
    }
}

impl LookupAnswer {
    /// `{"mode": …, "q": …, "s": …, "lag_ms": …, "durable_epoch": …}`, written by hand: it goes with every answer.
    pub fn metadata(&self) -> Bytes {
        let durable = self.detail.durable_epoch.map_or("null".to_string(), |epoch| epoch.to_string());
        let (mode, point) = (mode_name(self.mode), self.detail.point);
        format!("{{\"mode\":\"{mode}\",\"q\":{},\"s\":{},\"lag_ms\":{},\"durable_epoch\":{durable}}}", point.q, point.s, self.lag_ms).into()
    }
}

/// Where a view or a SELECT was read, as JSON for the answer's metadata.
pub fn point_metadata(point: ReadPoint) -> Bytes {
    format!("{{\"q\":{},\"s\":{}}}", point.q, point.s).into()
}

#[allow(clippy::disallowed_methods, reason = "the lag of an answer in wall clock is measured against the machine's clock; no result depends on it")]
pub fn machine_epoch() -> Epoch {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Epoch(since.as_millis() as u64)
}

fn lookup_service(service: &CatalogService) -> LookupService {
    let output = wire_schema(&service.def.schema);
    let statuses = output.fields().iter().map(|field| Field::new(format!("{}__status", field.name()), DataType::Utf8, false));
    let all: Vec<Field> = output.fields().iter().map(|field| field.as_ref().clone()).chain(statuses).collect();
    LookupService {
        name: service.def.name.clone(),
        input: service.input.clone(),
        output_with_status: Arc::new(Schema::new(all)),
        output,
        views: service.def.parts.iter().map(|part| part.view.clone()).collect(),
    }
}

fn with_statuses(service: &LookupService, detail: &FeatureAnswer) -> Result<RecordBatch> {
    let mut columns = conform(&detail.features, &service.output)?.columns().to_vec();
    for column in &detail.statuses {
        columns.push(Arc::new(StringArray::from_iter_values(column.iter().map(|status| status.name()))) as ArrayRef);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(detail.features.num_rows()));
    Ok(RecordBatch::try_new_with_options(service.output_with_status.clone(), columns, &options)?)
}

//! The client side of Flight, for `freshet sql` and `freshet features get`. In: an address and a request. Out: batches, or a sentence a
//! person can act on.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{Action, Ticket};
use bytes::Bytes;
use futures::TryStreamExt;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::exit::Failure;
use crate::serve::PIPELINE_HEADER;

const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What came back.
pub struct Received {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Of the last message that had any.
    pub metadata: Bytes,
}

pub struct Client {
    flight: FlightServiceClient<Channel>,
    address: String,
    /// The one that is asked, where a server runs several.
    pipeline: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// `grpc://host:port`, `http://host:port` or `host:port`. Errors: nobody listens there.
    pub async fn connect(address: &str) -> Result<Client, Failure> {
        let bare = address.strip_prefix("grpc://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
        if bare.contains("://") {
            return Err(Failure::wrong(anyhow!("address {address} is not understood; write grpc://host:port")));
        }
        let endpoint = Endpoint::from_shared(format!("http://{bare}"))
            .with_context(|| format!("address {address} is not understood; write grpc://host:port"))
            .map_err(Failure::wrong)?;
        let connected = endpoint.connect_timeout(CONNECT_MAX).tcp_nodelay(true).connect().await;
        let channel =
            connected.map_err(|_| Failure::failed(anyhow!("nothing answers at {address}; is `freshet run` up, and is this its Flight address?")))?;
        let flight = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Client { flight, address: address.to_string(), pipeline: None })
    }

    /// Asks this pipeline of a server. Errors: a name that no pipeline has.
    pub fn of_pipeline(mut self, name: Option<&str>) -> Result<Client, Failure> {
        let value = |name: &str| name.parse().map_err(|_| Failure::wrong(anyhow!("there is no pipeline {name:?}")));
        self.pipeline = name.map(value).transpose()?;
        Ok(self)
    }

    /// A client of Flight SQL over the same connection.
    fn statements(&self) -> FlightSqlServiceClient<Channel> {
        let mut client = FlightSqlServiceClient::new_from_inner(self.flight.clone());
        if let Some(pipeline) = self.pipeline.as_ref().and_then(|name| name.to_str().ok()) {
            client.set_header(PIPELINE_HEADER, pipeline);
        }
        client
    }

    /// The rows of a statement.
    pub async fn query(&self, sql: &str) -> Result<Received, Failure> {
        let mut client = self.statements();
        let info = client.execute(sql.to_string(), None).await.map_err(|error| self.failure(error))?;
        let mut received: Option<Received> = None;
        for endpoint in info.endpoint {
            let ticket = endpoint.ticket.ok_or_else(|| Failure::failed(anyhow!("{} sent an endpoint without a ticket", self.address)))?;
            let part = self.get(ticket).await?;
            match &mut received {
                Some(all) => all.batches.extend(part.batches),
                None => received = Some(part),
            }
        }
        received.ok_or_else(|| Failure::failed(anyhow!("{} sent no endpoint", self.address)))
    }

    /// The tables whose names are like this pattern of SQL, in order.
    pub async fn tables(&self, pattern: &str) -> Result<Vec<String>, Failure> {
        let command = CommandGetTables { table_name_filter_pattern: Some(pattern.to_string()), ..CommandGetTables::default() };
        let info = self.statements().get_tables(command).await.map_err(|error| self.failure(error))?;
        let mut names = Vec::new();
        for ticket in info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket) {
            for rows in self.get(ticket).await?.batches {
                let column = rows.column_by_name("table_name").context("tables came without names")?;
                names.extend(column.as_string::<i32>().iter().flatten().map(str::to_string));
            }
        }
        names.sort();
        Ok(names)
    }

    /// The answer of an action.
    pub async fn act(&self, action: &str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let mut request = tonic::Request::new(Action { r#type: action.to_string(), body: body.into() });
        if let Some(pipeline) = &self.pipeline {
            request.metadata_mut().insert(PIPELINE_HEADER, pipeline.clone());
        }
        let mut answers = self.flight.clone().do_action(request).await.map_err(|status| self.failure(status.into()))?.into_inner();
        let answer = answers.message().await.map_err(|status| self.failure(status.into()))?;
        answer.map(|answer| answer.body).ok_or_else(|| Failure::failed(anyhow!("{} sent no answer", self.address)))
    }

    /// The rows behind a ticket.
    pub async fn get(&self, ticket: Ticket) -> Result<Received, Failure> {
        let mut received: Option<Received> = None;
        self.each(ticket, |payload, metadata| {
            match payload {
                DecodedPayload::Schema(schema) => received = Some(Received { schema, batches: Vec::new(), metadata }),
                DecodedPayload::RecordBatch(batch) => {
                    received.as_mut().map(|all| all.batches.push(batch)).context("rows came before their schema")?
                }
                DecodedPayload::None => {}
            }
            Ok(())
        })
        .await?;
        received.ok_or_else(|| Failure::failed(anyhow!("{} sent nothing", self.address)))
    }

    /// What a SUBSCRIBE tells, as it comes, until it ends or `told` says that nobody wants any more.
    pub async fn follow(&self, sql: &str, mut told: impl FnMut(&SchemaRef, RecordBatch) -> Result<()>) -> Result<(), Failure> {
        let mut client = self.statements();
        let info = client.execute(sql.to_string(), None).await.map_err(|error| self.failure(error))?;
        for ticket in info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket) {
            let mut known: Option<SchemaRef> = None;
            self.each(ticket, |payload, _| match payload {
                DecodedPayload::Schema(schema) => {
                    known = Some(schema);
                    Ok(())
                }
                DecodedPayload::RecordBatch(batch) => told(known.as_ref().context("rows came before their schema")?, batch),
                DecodedPayload::None => Ok(()),
            })
            .await?;
        }
        Ok(())
    }

    /// Every message behind a ticket, with its metadata.
    async fn each(&self, ticket: Ticket, mut take: impl FnMut(DecodedPayload, Bytes) -> Result<()>) -> Result<(), Failure> {
        let mut request = tonic::Request::new(ticket);
        if let Some(pipeline) = &self.pipeline {
            request.metadata_mut().insert(PIPELINE_HEADER, pipeline.clone());
        }
        let stream = self.flight.clone().do_get(request).await.map_err(|status| self.failure(status.into()))?.into_inner();
        let mut decoder = FlightDataDecoder::new(stream.map_err(|status| FlightError::Tonic(Box::new(status))));
        while let Some(message) = decoder.try_next().await.map_err(|error| self.failure(error))? {
            let metadata = message.app_metadata();
            take(message.payload, metadata)?;
        }
        Ok(())
    }

    /// The server's own sentence, and 2 where the request is to blame.
    fn failure(&self, error: FlightError) -> Failure {
        match error {
            FlightError::Tonic(status) => of_status(&status),
            other => Failure::failed(anyhow!("reading the answer of {}: {other}", self.address)),
        }
    }
}

fn of_status(status: &Status) -> Failure {
    let error = anyhow!("{}", status.message());
    if status.code() == Code::InvalidArgument { Failure::wrong(error) } else { Failure::failed(error) }
}

/// A small runtime for one command.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(work)
}

/// `a=1,b=x` as pairs. Errors: a part without a name.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for part in text.split(',') {
        match part.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => pairs.push((name.trim().to_string(), value.to_string())),
            _ => bail!("{part} is not NAME=VALUE"),
        }
    }
    Ok(pairs)
}

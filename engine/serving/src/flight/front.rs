//! The outer Flight service. The Flight SQL trait decodes every command and ticket as protobuf before any fallback and leaves ListFlights
//! and GetSchema out, so this stands in front of it: paths, JSON and SQL text are answered here, the rest is handed on.

use std::pin::Pin;
use std::sync::Arc;

use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, PutResult,
    SchemaAsIpc, SchemaResult, Ticket,
};
use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use crate::ask::{Ask, is_flight_sql};
use crate::error::grpc_status;
use crate::flight::exchange::exchange;
use crate::flight::plain::Plain;
use crate::flight::statements::Statements;
use crate::lookup::Lookups;
use crate::query::Queries;
use freshet_core::Reader;

type Answer<T> = Result<Response<T>, Status>;
pub type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
pub type AnswerStream = Boxed<FlightData>;

/// Everything that is answered over Flight.
pub struct Front {
    sql: Statements,
    plain: Plain,
}

impl Front {
    pub fn new(reader: Arc<dyn Reader>, queries: Arc<dyn Queries>, lookups: Arc<Lookups>) -> Front {
        Front { sql: Statements::new(reader.clone(), queries), plain: Plain { reader, lookups } }
    }

    async fn plain_info(&self, ask: Ask, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        match ask {
            Ask::Sql(sql) => self.sql.statement_info(sql, None, descriptor).await,
            other => self.plain.info(other, descriptor).map_err(grpc_status),
        }
    }
}

/// The plain request in a descriptor; None if it is Flight SQL.
fn plain_ask(descriptor: &FlightDescriptor) -> Result<Option<Ask>, Status> {
    if !descriptor.path.is_empty() {
        return Ask::from_path(&descriptor.path).map(Some).map_err(grpc_status);
    }
    if is_flight_sql(&descriptor.cmd) { Ok(None) } else { Ask::from_bytes(&descriptor.cmd).map(Some).map_err(grpc_status) }
}

#[tonic::async_trait]
impl FlightService for Front {
    type HandshakeStream = Boxed<HandshakeResponse>;
    type ListFlightsStream = Boxed<FlightInfo>;
    type DoGetStream = AnswerStream;
    type DoPutStream = Boxed<PutResult>;
    type DoActionStream = Boxed<arrow_flight::Result>;
    type ListActionsStream = Boxed<ActionType>;
    type DoExchangeStream = AnswerStream;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        self.sql.handshake(request).await
    }

    async fn list_flights(&self, _request: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        let flights = self.plain.list().map_err(grpc_status)?;
        Ok(Response::new(stream::iter(flights.into_iter().map(Ok)).boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        match plain_ask(request.get_ref())? {
            Some(ask) => Ok(Response::new(self.plain_info(ask, request.into_inner()).await?)),
            None => self.sql.get_flight_info(request).await,
        }
    }

    async fn poll_flight_info(&self, _request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        Err(Status::unimplemented("answers are ready when GetFlightInfo returns; there is nothing to poll"))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        let schema = match plain_ask(request.get_ref())? {
            Some(Ask::Sql(sql)) => self.sql.prepare(sql).await?.schema,
            Some(ask) => self.plain.schema(&ask).map_err(grpc_status)?,
            None => {
                let info = self.sql.get_flight_info(request).await?.into_inner();
                return Ok(Response::new(SchemaResult { schema: info.schema }));
            }
        };
        let result = SchemaAsIpc::new(&schema, &IpcWriteOptions::default()).try_into();
        Ok(Response::new(result.map_err(|error: arrow::error::ArrowError| Status::internal(error.to_string()))?))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        if is_flight_sql(&request.get_ref().ticket) {
            return self.sql.do_get(request).await;
        }
        match Ask::from_bytes(&request.get_ref().ticket).map_err(grpc_status)? {
            Ask::Sql(sql) => Ok(Response::new(self.sql.answer_text(sql).await?)),
            ask => Ok(Response::new(self.plain.get(ask).map_err(grpc_status)?)),
        }
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        self.sql.do_put(request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        self.sql.do_action(request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Self::ListActionsStream> {
        self.sql.list_actions(request).await
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        Ok(Response::new(exchange(self.plain.lookups.clone(), request.into_inner()).await?))
    }
}

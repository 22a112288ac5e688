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
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::ask::{Ask, is_flight_sql};
use crate::error::grpc_status;
use crate::flight::exchange::exchange;
use crate::flight::plain::Plain;
use crate::flight::put::do_put;
use crate::flight::statements::Statements;
use crate::flight::subscribe::Subscriptions;
use crate::lookup::Lookups;
use crate::positions::{MIN_POSITION_HEADER, Positions};
use crate::pushing::Doors;
use crate::query::Queries;
use crate::replaying::{REPLAY_ACTION, act};
use freshet_core::{Reader, SubscribeRequest};

type Answer<T> = Result<Response<T>, Status>;
pub type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
pub type AnswerStream = Boxed<FlightData>;

/// Everything that is answered over Flight.
pub struct Front {
    sql: Statements,
    plain: Plain,
    doors: Doors,
}

impl Front {
    pub fn new(reader: Arc<dyn Reader>, queries: Arc<dyn Queries>, lookups: Arc<Lookups>, doors: Doors) -> Front {
        let subscriptions = Arc::new(Subscriptions::new(reader.clone()));
        Front {
            sql: Statements::new(reader.clone(), queries, subscriptions.clone(), !doors.are_none()),
            plain: Plain { reader, lookups, subscriptions },
            doors,
        }
    }

    /// Until every view sees these positions: what a statement reads is known to its planner only.
    async fn wait(&self, positions: &Positions) -> Result<(), Status> {
        self.plain.lookups.wait_for_views(positions, &[]).await.map_err(grpc_status)
    }

    /// Until what the request reads sees the positions that it names.
    async fn wait_for(&self, ask: &Ask) -> freshet_core::Result<()> {
        let lookups = &self.plain.lookups;
        match ask {
            Ask::View { view, min_position, .. } => lookups.wait_for_views(min_position, &[view]).await,
            Ask::Features(ask) => lookups.wait_for(&ask.min_position, ask.max_staleness_ms, &*lookups.service(&ask.service)?).await,
            _ => Ok(()),
        }
    }

    async fn plain_info(&self, ask: Ask, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        match ask {
            Ask::Sql(sql) => self.sql.statement_info(sql, None, descriptor).await,
            other => self.plain.info(other, descriptor).map_err(grpc_status),
        }
    }
}

/// The positions that a call carries beside its request.
fn positions_of(metadata: &MetadataMap) -> Result<Positions, Status> {
    let Some(value) = metadata.get(MIN_POSITION_HEADER) else { return Ok(Positions::default()) };
    let text = value.to_str().map_err(|_| Status::invalid_argument(format!("{MIN_POSITION_HEADER} is no text")))?;
    Positions::parse(text).map_err(grpc_status)
}

/// The plain request in a descriptor; None if it is Flight SQL.
fn plain_ask(descriptor: &FlightDescriptor) -> Result<Option<Ask>, Status> {
    if !descriptor.path.is_empty() {
        return Ask::from_path(&descriptor.path).map(Some).map_err(grpc_status);
    }
    if is_flight_sql(&descriptor.cmd) { Ok(None) } else { Ask::from_bytes(&descriptor.cmd).map(Some).map_err(grpc_status) }
}

/// Where a request comes from, for whoever has to find a slow reader.
pub fn peer<T>(request: &Request<T>) -> String {
    request.remote_addr().map_or_else(|| "a client".into(), |address| format!("the client at {address}"))
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
        self.wait(&positions_of(request.metadata())?).await?;
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
        self.wait(&positions_of(request.metadata())?).await?;
        if is_flight_sql(&request.get_ref().ticket) {
            return self.sql.do_get(request).await;
        }
        let peer = peer(&request);
        match Ask::from_bytes(&request.get_ref().ticket).map_err(grpc_status)? {
            Ask::Sql(sql) => Ok(Response::new(self.sql.answer_text(sql, peer).await?)),
            Ask::Subscribe(asked, progress) if asked.reader.is_empty() => {
                let asked = SubscribeRequest { reader: peer, ..asked };
                Ok(Response::new(self.plain.get(Ask::Subscribe(asked, progress)).map_err(grpc_status)?))
            }
            ask => {
                self.wait_for(&ask).await.map_err(grpc_status)?;
                Ok(Response::new(self.plain.get(ask).map_err(grpc_status)?))
            }
        }
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        Ok(Response::new(do_put(&self.doors, &self.sql, request.into_inner()).await?))
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        if request.get_ref().r#type == REPLAY_ACTION {
            let body = act(self.doors.replay(), &request.get_ref().body).await.map_err(grpc_status)?;
            return Ok(Response::new(stream::iter([Ok(arrow_flight::Result { body: body.into() })]).boxed()));
        }
        self.sql.do_action(request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Self::ListActionsStream> {
        let replay = ActionType { r#type: REPLAY_ACTION.into(), description: "lets dead letters come in again; takes and answers JSON".into() };
        Ok(Response::new(self.sql.list_actions(request).await?.into_inner().chain(stream::iter([Ok(replay)])).boxed()))
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        let positions = positions_of(request.metadata())?;
        Ok(Response::new(exchange(self.plain.lookups.clone(), positions, request.into_inner()).await?))
    }
}

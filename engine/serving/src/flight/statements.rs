//! Flight SQL. In: statements, prepared statements with parameter rows, catalog commands. Out: Arrow, read at one epoch.
//!
//! A statement runs when its FlightInfo is asked for: clients that never fetch still see its errors, and the schema they are told is the
//! schema they get. The answer waits, bounded, for its ticket; a ticket also carries the text, the parameters and the epoch, so that a
//! lost answer is computed again and reads the same point.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, Command, CommandGetCatalogs,
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandStatementQuery,
    DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, SchemaAsIpc, Ticket};
use bytes::Bytes;
use freshet_core::{Epoch, Error, Reader, SubscribeRequest};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::ask::StatementTicket;
use crate::columns::cast_exactly;
use crate::error::grpc_status;
use crate::flight::catalog::Catalog;
use crate::flight::front::{AnswerStream, Boxed, peer};
use crate::flight::prepared::{Bounded, PreparedStatement, prepared_statements, waiting_answers};
use crate::flight::put::Messages;
use crate::flight::subscribe::Subscriptions;
use crate::foreign::Foreign;
use crate::limits::{PARAMETER_BYTES_MAX, PARAMETER_ROWS_MAX, QUERIES_CONCURRENT_MAX, QUERY_WAIT_MAX, SQL_BYTES_MAX};
use crate::lookup::point_metadata;
use crate::query::{Prepared, Queries, QueryAnswer};
use crate::wire::{messages, wire_schema};

pub const READ_ONLY: &str = "sources, views and sinks belong in the pipeline's script, given to `freshet run`";

pub struct Statements {
    queries: Arc<dyn Queries>,
    subscriptions: Arc<Subscriptions>,
    catalog: Catalog,
    running: Arc<Semaphore>,
    prepared: Mutex<Bounded<PreparedStatement>>,
    answers: Mutex<Bounded<QueryAnswer>>,
}

impl Statements {
    pub fn new(reader: Arc<dyn Reader>, queries: Arc<dyn Queries>, subscriptions: Arc<Subscriptions>, takes_rows: bool) -> Statements {
        Statements {
            queries,
            subscriptions,
            catalog: Catalog::new(reader, takes_rows),
            running: Arc::new(Semaphore::new(QUERIES_CONCURRENT_MAX)),
            prepared: Mutex::new(prepared_statements()),
            answers: Mutex::new(waiting_answers()),
        }
    }

    /// Shape of a statement in the types that are sent.
    pub async fn prepare(&self, sql: String) -> Result<Prepared, Status> {
        if let Some((request, _)) = self.queries.subscription(&sql).map_err(grpc_status)? {
            let schema = self.subscriptions.schema(&request.view).map_err(grpc_status)?;
            return Ok(Prepared { schema, parameters: Arc::new(arrow::datatypes::Schema::empty()) });
        }
        let queries = self.queries.clone();
        let shape = self.blocking(sql.len(), move || queries.prepare(&sql)).await?;
        Ok(Prepared { schema: wire_schema(&shape.schema), parameters: wire_schema(&shape.parameters) })
    }

    /// Runs the statement and says where its answer is.
    pub async fn statement_info(&self, sql: String, parameters: Option<RecordBatch>, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        if let Some((request, _)) = self.queries.subscription(&sql).map_err(grpc_status)? {
            // It begins when it is fetched; its schema is told now.
            let schema = self.subscriptions.schema(&request.view).map_err(grpc_status)?;
            let ticket = StatementTicket { sql, epoch: None, parameters: Vec::new(), answer: 0 };
            let ticket = TicketStatementQuery { statement_handle: ticket.encode_to_vec().into() };
            return flight_info(&schema, ticket.as_any(), descriptor);
        }
        let answer = self.run(sql.clone(), parameters.clone(), None).await?;
        let parameters = parameters.map(|rows| ipc_bytes(&rows)).transpose()?.unwrap_or_default();
        let schema = wire_schema(&answer.schema);
        let rows: usize = answer.batches.iter().map(RecordBatch::num_rows).sum();
        let bytes: usize = answer.batches.iter().map(RecordBatch::get_array_memory_size).sum();
        // An answer at (F, F) has seen the epochs below F; the last of them is what a view is read at.
        let epoch = answer.point.s.0.checked_sub(1);
        let waiting = lock(&self.answers).insert(answer, bytes);
        let ticket = StatementTicket { sql, epoch, parameters, answer: waiting };
        let ticket = TicketStatementQuery { statement_handle: ticket.encode_to_vec().into() };
        let info = flight_info(&schema, ticket.as_any(), descriptor)?;
        Ok(info.with_total_records(rows as i64).with_total_bytes(bytes as i64))
    }

    /// A statement without a FlightInfo before it.
    pub async fn answer_text(&self, sql: String, peer: String) -> Result<AnswerStream, Status> {
        if let Some(subscribed) = self.subscribed(&sql, peer)? {
            return Ok(subscribed);
        }
        Ok(answer_stream(self.run(sql, None, None).await?))
    }

    /// The stream of a SUBSCRIBE; None if the text is something else.
    fn subscribed(&self, sql: &str, peer: String) -> Result<Option<AnswerStream>, Status> {
        let Some((request, progress)) = self.queries.subscription(sql).map_err(grpc_status)? else { return Ok(None) };
        let request = SubscribeRequest { reader: peer, ..request };
        self.subscriptions.open(&request, progress).map(Some).map_err(grpc_status)
    }

    async fn answer_ticket(&self, ticket: StatementTicket, peer: String) -> Result<AnswerStream, Status> {
        if let Some(subscribed) = self.subscribed(&ticket.sql, peer)? {
            return Ok(subscribed);
        }
        if let Some(answer) = lock(&self.answers).take(ticket.answer) {
            return Ok(answer_stream(answer));
        }
        let parameters = if ticket.parameters.is_empty() { None } else { Some(parameters_of(&ticket.parameters)?) };
        Ok(answer_stream(self.run(ticket.sql, parameters, ticket.epoch.map(Epoch)).await?))
    }

    async fn run(&self, sql: String, parameters: Option<RecordBatch>, at: Option<Epoch>) -> Result<QueryAnswer, Status> {
        let queries = self.queries.clone();
        self.blocking(sql.len(), move || queries.run(&sql, parameters.as_ref(), at)).await
    }

    /// Planning and running take CPU time, so they leave the connection's task, a bounded number at a time.
    async fn blocking<T: Send + 'static>(
        &self,
        sql_bytes: usize,
        work: impl FnOnce() -> freshet_core::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        if sql_bytes > SQL_BYTES_MAX {
            return Err(Status::invalid_argument(format!("a statement has at most {SQL_BYTES_MAX} bytes, this one has {sql_bytes}")));
        }
        let permit = tokio::time::timeout(QUERY_WAIT_MAX, self.running.clone().acquire_owned())
            .await
            .map_err(|_| Status::unavailable(format!("{QUERIES_CONCURRENT_MAX} queries are running already; try again")))?
            .map_err(|_| Status::unavailable("the server is stopping"))?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        done.await.map_err(|error| Status::internal(format!("a query did not end: {error}")))?.map_err(grpc_status)
    }

    /// Runs a statement that writes; how many rows it has changed.
    pub async fn update(&self, sql: String, parameters: Option<RecordBatch>) -> Result<i64, Status> {
        if !self.queries.writes(&sql).map_err(grpc_status)? {
            return Err(Status::invalid_argument("this statement changes nothing; ask for its rows"));
        }
        let answer = self.run(sql, parameters, None).await?;
        Ok(answer.changed.map_or(0, |changed| changed as i64))
    }

    /// As [`Statements::update`], with the parameter rows of the stream, or those bound before.
    pub async fn update_prepared(&self, handle: &[u8], messages: Messages) -> Result<i64, Status> {
        let statement = self.prepared(handle)?;
        if statement.shape.parameters.fields().is_empty() {
            return self.update(statement.sql, None).await;
        }
        let rows = match (sent_rows(messages).await, statement.parameters) {
            (Ok(rows), _) if rows.num_columns() > 0 => Self::bind(&statement.shape, &rows).map_err(grpc_status)?,
            (_, Some(bound)) => bound,
            (Err(error), None) => return Err(error),
            (Ok(_), None) => return Err(Status::invalid_argument("the statement has parameters and none is bound")),
        };
        self.update(statement.sql, Some(rows)).await
    }

    fn prepared(&self, handle: &[u8]) -> Result<PreparedStatement, Status> {
        let known = handle_id(handle).and_then(|id| lock(&self.prepared).get_mut(id).cloned());
        known.ok_or_else(|| Status::not_found("the prepared statement is closed or was pushed out by newer ones; prepare it again"))
    }

    /// Binds rows that a DoPut brings to a prepared statement.
    pub async fn bind_parameters(&self, query: CommandPreparedStatementQuery, messages: Messages) -> Result<DoPutPreparedStatementResult, Status> {
        let statement = self.prepared(&query.prepared_statement_handle)?;
        let rows = Self::bind(&statement.shape, &sent_rows(messages).await?).map_err(grpc_status)?;
        if let Some(id) = handle_id(&query.prepared_statement_handle)
            && let Some(kept) = lock(&self.prepared).get_mut(id)
        {
            kept.parameters = Some(rows);
        }
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(query.prepared_statement_handle) })
    }

    /// The client's rows under the statement's parameter names and types.
    fn bind(shape: &Prepared, rows: &RecordBatch) -> freshet_core::Result<RecordBatch> {
        let parameters = &shape.parameters;
        if rows.num_columns() != parameters.fields().len() {
            let message = format!("the statement has {} parameters, {} were bound", parameters.fields().len(), rows.num_columns());
            return Err(Error::invalid(message));
        }
        if rows.num_rows() > PARAMETER_ROWS_MAX || rows.get_array_memory_size() > PARAMETER_BYTES_MAX {
            let message = format!("at most {PARAMETER_ROWS_MAX} parameter rows of together {PARAMETER_BYTES_MAX} bytes are bound at once");
            return Err(Error::invalid(message));
        }
        let columns =
            rows.columns().iter().zip(parameters.fields()).map(|(column, field)| cast_exactly(column, field)).collect::<freshet_core::Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(parameters.clone(), columns, &options)?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handle_id(handle: &[u8]) -> Option<u64> {
    std::str::from_utf8(handle).ok()?.strip_prefix("prepared-")?.parse().ok()
}

fn answer_stream(answer: QueryAnswer) -> AnswerStream {
    let schema = wire_schema(&answer.schema);
    stream::iter(messages(schema, answer.batches, point_metadata(answer.point)).map(|message| message.map_err(grpc_status))).boxed()
}

fn flight_info(schema: &arrow::datatypes::Schema, ticket: Any, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.encode_to_vec()));
    let info = FlightInfo::new().try_with_schema(schema).map_err(|error| Status::internal(error.to_string()))?;
    Ok(info.with_endpoint(endpoint).with_descriptor(descriptor))
}

fn catalog_info(batch: Result<RecordBatch, FlightError>, ticket: Any, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
    Ok(Response::new(flight_info(batch?.schema_ref(), ticket, request.into_inner())?))
}

fn catalog_rows(batch: Result<RecordBatch, FlightError>) -> Result<Response<AnswerStream>, Status> {
    let batch = batch?;
    let rows = messages(batch.schema(), vec![batch], Bytes::new()).map(|message| message.map_err(grpc_status));
    Ok(Response::new(stream::iter(rows).boxed()))
}

fn ipc_schema(schema: &arrow::datatypes::Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, _> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    message.map(|message| message.0).map_err(|error: arrow::error::ArrowError| Status::internal(error.to_string()))
}

fn ipc_bytes(rows: &RecordBatch) -> Result<Vec<u8>, Status> {
    let write = || -> Result<Vec<u8>, arrow::error::ArrowError> {
        let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
        writer.write(rows)?;
        writer.into_inner()
    };
    write().map_err(|error| Status::internal(error.to_string()))
}

fn parameters_of(bytes: &[u8]) -> Result<RecordBatch, Status> {
    let broken = |error: arrow::error::ArrowError| Status::invalid_argument(format!("the ticket's parameters cannot be read: {error}"));
    let reader = StreamReader::try_new(bytes, None).map_err(broken)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(broken)?;
    concat_batches(&schema, &batches).map_err(broken)
}

async fn sent_rows(messages: Messages) -> Result<RecordBatch, Status> {
    let mut sent = Foreign(FlightRecordBatchStream::new_from_flight_data(messages));
    let mut batches = Vec::new();
    let mut rows = 0;
    while let Some(batch) = sent.try_next().await? {
        rows += batch.num_rows();
        if rows > PARAMETER_ROWS_MAX {
            return Err(Status::invalid_argument(format!("at most {PARAMETER_ROWS_MAX} parameter rows are bound at once")));
        }
        batches.push(batch);
    }
    let schema = sent.0.schema().cloned().ok_or_else(|| Status::invalid_argument("no parameter rows were sent"))?;
    concat_batches(&schema, &batches).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl FlightSqlService for Statements {
    type FlightService = Statements;

    /// The server listens on loopback and has no users; whoever comes gets a token that means nothing.
    async fn do_handshake(&self, _request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Boxed<HandshakeResponse>>, Status> {
        let token = HandshakeResponse { protocol_version: 0, payload: Bytes::from_static(b"anonymous") };
        let mut response: Response<Boxed<HandshakeResponse>> = Response::new(stream::iter([Ok(token)]).boxed());
        response.metadata_mut().insert("authorization", tonic::metadata::MetadataValue::from_static("Bearer anonymous"));
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Ok(Response::new(self.statement_info(query.query, None, request.into_inner()).await?))
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        let peer = peer(&request);
        let ticket = StatementTicket::decode(ticket.statement_handle)
            .map_err(|error| Status::invalid_argument(format!("the ticket is not one of this server: {error}")))?;
        Ok(Response::new(self.answer_ticket(ticket, peer).await?))
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let shape = self.prepare(query.query.clone()).await?;
        let (dataset_schema, parameter_schema) = (ipc_schema(&shape.schema)?, ipc_schema(&shape.parameters)?);
        let statement = PreparedStatement { sql: query.query, shape, parameters: None };
        let id = lock(&self.prepared).insert(statement, 0);
        Ok(ActionCreatePreparedStatementResult { prepared_statement_handle: format!("prepared-{id}").into(), dataset_schema, parameter_schema })
    }

    async fn do_action_close_prepared_statement(&self, query: ActionClosePreparedStatementRequest, _request: Request<Action>) -> Result<(), Status> {
        if let Some(id) = handle_id(&query.prepared_statement_handle) {
            lock(&self.prepared).take(id);
        }
        Ok(())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.prepared(&query.prepared_statement_handle)?;
        let wanted = statement.shape.parameters.fields().len();
        if wanted > 0 && statement.parameters.is_none() {
            return Err(Status::invalid_argument(format!("the statement has {wanted} parameters and none is bound")));
        }
        Ok(Response::new(self.statement_info(statement.sql, statement.parameters, request.into_inner()).await?))
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Response<AnswerStream>, Status> {
        let statement = self.prepared(&query.prepared_statement_handle)?;
        Ok(Response::new(answer_stream(self.run(statement.sql, statement.parameters, None).await?)))
    }

    async fn get_flight_info_catalogs(&self, query: CommandGetCatalogs, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.catalogs(query), query.as_any(), request)
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.catalogs(query))
    }

    async fn get_flight_info_schemas(&self, query: CommandGetDbSchemas, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.schemas(query.clone()), query.as_any(), request)
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.schemas(query))
    }

    async fn get_flight_info_tables(&self, query: CommandGetTables, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.tables(query.clone()), query.as_any(), request)
    }

    async fn do_get_tables(&self, query: CommandGetTables, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.tables(query))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.table_types(query), query.as_any(), request)
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.table_types(query))
    }

    async fn get_flight_info_sql_info(&self, query: CommandGetSqlInfo, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.facts(query.clone()), query.as_any(), request)
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.facts(query))
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.types(query), query.as_any(), request)
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.types(query))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.primary_keys(&query), query.as_any(), request)
    }

    async fn do_get_primary_keys(&self, query: CommandGetPrimaryKeys, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.primary_keys(&query))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.foreign_keys(), query.as_any(), request)
    }

    async fn do_get_exported_keys(&self, _query: CommandGetExportedKeys, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.foreign_keys())
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.foreign_keys(), query.as_any(), request)
    }

    async fn do_get_imported_keys(&self, _query: CommandGetImportedKeys, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.foreign_keys())
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        catalog_info(self.catalog.foreign_keys(), query.as_any(), request)
    }

    async fn do_get_cross_reference(&self, _query: CommandGetCrossReference, _request: Request<Ticket>) -> Result<Response<AnswerStream>, Status> {
        catalog_rows(self.catalog.foreign_keys())
    }

    async fn get_flight_info_fallback(&self, command: Command, _request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Err(Status::unimplemented(format!("{} is not supported", command.type_url())))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

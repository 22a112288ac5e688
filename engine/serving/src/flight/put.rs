//! DoPut into a push source. In: a descriptor, then batches. Out: one answer per batch with its position. Also Flight SQL's DoPut: parameter
//! rows of prepared statements, and ingest.
//!
//! A batch that finds the queue full waits for room, and the stream is not read meanwhile: the client feels it as a slow network. Answers
//! have a bounded queue of their own, so that a client may send everything before it reads the first answer.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{Any, Command, CommandStatementIngest, DoPutUpdateResult, TableExistsOption, TableNotExistOption};
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use freshet_core::{Error, Ingress, Kind, Push, PushBody, Pushed, Result};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future, stream};
use prost::Message;
use serde::Deserialize;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::ask::is_flight_sql;
use crate::error::grpc_status;
use crate::flight::front::Boxed;
use crate::flight::statements::{READ_ONLY, Statements};
use crate::foreign::Foreign;
use crate::limits::{PUT_ANSWERS_AHEAD_MAX, PUT_RETRY_EVERY, PUT_WAIT_MAX};
use crate::pushing::{Doors, pushed_json};

/// Messages of a client, the descriptor's own left out where it carries nothing else: C++ and Python clients send it alone, and the decoder
/// does not survive a message without an IPC header.
pub type Messages = BoxStream<'static, std::result::Result<FlightData, FlightError>>;

/// `{"source": "rides", "id": "2026-11-21/7"}`: with an id, the batches of the stream have the names `id/0`, `id/1`, ….
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutAsk {
    source: String,
    id: Option<String>,
}

/// The metadata of one batch: `{"id": "…"}`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchNote {
    id: Option<String>,
}

const FORMS: &str = "the descriptor of a DoPut is the path [source] or [\"source\", name], or the JSON {\"source\": name, \"id\": …}";

/// Decides what the client wants by its first message.
pub async fn do_put(doors: &Doors, statements: &Statements, mut messages: Streaming<FlightData>) -> std::result::Result<Boxed<PutResult>, Status> {
    let mut first = messages.message().await?.ok_or_else(|| Status::invalid_argument("the DoPut ended before its first message"))?;
    let descriptor = first.flight_descriptor.take().ok_or_else(|| Status::invalid_argument("the first message of a DoPut carries a descriptor"))?;
    let rest = stream::iter([Ok(first)]).chain(messages).try_filter(|message| future::ready(!message.data_header.is_empty()));
    let messages = rest.map_err(|status| FlightError::Tonic(Box::new(status))).boxed();
    if descriptor.path.is_empty() && is_flight_sql(&descriptor.cmd) {
        let bytes = flight_sql(doors, statements, &descriptor, messages).await?;
        return Ok(stream::iter([Ok(PutResult { app_metadata: bytes.into() })]).boxed());
    }
    let ask = ask_of(&descriptor).map_err(grpc_status)?;
    let door = Door::open(doors, &ask.source)?;
    Ok(answers(door, ask.id, messages))
}

async fn flight_sql(
    doors: &Doors,
    statements: &Statements,
    descriptor: &FlightDescriptor,
    messages: Messages,
) -> std::result::Result<Vec<u8>, Status> {
    let broken = |error: &dyn std::fmt::Display| Status::invalid_argument(format!("the command cannot be read: {error}"));
    let any = Any::decode(&*descriptor.cmd).map_err(|error| broken(&error))?;
    match Command::try_from(any).map_err(|error| broken(&error))? {
        Command::CommandPreparedStatementQuery(query) => Ok(statements.bind_parameters(query, messages).await?.encode_to_vec()),
        Command::CommandStatementIngest(ingest) => {
            let record_count = take_all(doors, &ingest, messages).await?;
            Ok(DoPutUpdateResult { record_count }.encode_to_vec())
        }
        Command::CommandStatementUpdate(update) => {
            let record_count = statements.update(update.query, None).await?;
            Ok(DoPutUpdateResult { record_count }.encode_to_vec())
        }
        Command::CommandPreparedStatementUpdate(update) => {
            let record_count = statements.update_prepared(&update.prepared_statement_handle, messages).await?;
            Ok(DoPutUpdateResult { record_count }.encode_to_vec())
        }
        _ => Err(Status::unimplemented(READ_ONLY)),
    }
}

fn ask_of(descriptor: &FlightDescriptor) -> Result<PutAsk> {
    match &descriptor.path[..] {
        [source] => Ok(PutAsk { source: source.clone(), id: None }),
        [first, source] if first == "source" => Ok(PutAsk { source: source.clone(), id: None }),
        [] => serde_json::from_slice(&descriptor.cmd).map_err(|error| Error::invalid(format!("{FORMS}: {error}"))),
        _ => Err(Error::invalid(FORMS)),
    }
}

/// One push source, and how a batch waits in front of it.
struct Door {
    ingress: Arc<dyn Ingress>,
    source: String,
}

impl Door {
    /// Errors: INVALID_ARGUMENT for an unknown source, UNAUTHENTICATED for one whose clients sign.
    fn open(doors: &Doors, source: &str) -> std::result::Result<Door, Status> {
        let (ingress, found) = doors.open(source).map_err(grpc_status)?;
        if found.secret.is_some() {
            let message = format!("source {source} takes signed rows only; send them by POST /v1/ingest/{source} with X-Freshet-Signature");
            return Err(Status::unauthenticated(message));
        }
        Ok(Door { ingress, source: found.name })
    }

    /// Waits for room. Errors: as [`Ingress::push`], Unavailable once it has waited long enough.
    async fn push(&self, rows: RecordBatch, id: Option<String>) -> Result<Pushed> {
        let push = Push { source: self.source.clone(), id, body: PushBody::Rows(rows) };
        let deadline = Instant::now() + PUT_WAIT_MAX;
        loop {
            match self.ingress.push(push.clone()) {
                Err(error) if error.kind == Kind::Unavailable && Instant::now() < deadline => tokio::time::sleep(PUT_RETRY_EVERY).await,
                answer => return answer,
            }
        }
    }
}

/// One answer per batch, until the stream ends or a batch is refused.
fn answers(door: Door, id: Option<String>, messages: Messages) -> Boxed<PutResult> {
    let (tx, rx) = mpsc::channel(PUT_ANSWERS_AHEAD_MAX);
    tokio::spawn(async move {
        let mut batches = Foreign(FlightDataDecoder::new(messages));
        let mut count = 0_u64;
        // A client that has gone ends both streams.
        while let Some(decoded) = batches.next().await {
            let answer = match decoded {
                Err(error) => Err(Status::from(error)),
                Ok(decoded) => match decoded.payload {
                    DecodedPayload::RecordBatch(rows) => {
                        let name = id.as_ref().map(|id| format!("{id}/{count}"));
                        count += 1;
                        take(&door, rows, &decoded.inner.app_metadata, name).await
                    }
                    DecodedPayload::None | DecodedPayload::Schema(_) => continue,
                },
            };
            let last = answer.is_err();
            if tx.send(answer).await.is_err() || last {
                return;
            }
        }
    });
    stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|answer| (answer, rx)) }).boxed()
}

async fn take(door: &Door, rows: RecordBatch, note: &[u8], id: Option<String>) -> std::result::Result<PutResult, Status> {
    let note: BatchNote = if note.is_empty() {
        BatchNote::default()
    } else {
        let wrong = |error: serde_json::Error| Status::invalid_argument(format!("the metadata of a batch is {{\"id\": …}}: {error}"));
        serde_json::from_slice(note).map_err(wrong)?
    };
    let pushed = door.push(rows, note.id.or(id)).await.map_err(grpc_status)?;
    Ok(PutResult { app_metadata: pushed_json(&door.source, &pushed).to_string().into() })
}

/// Flight SQL ingest: all batches, each taken whole; how many rows came in.
async fn take_all(doors: &Doors, ingest: &CommandStatementIngest, messages: Messages) -> std::result::Result<i64, Status> {
    check_ingest(ingest)?;
    let door = Door::open(doors, &ingest.table)?;
    let mut batches = Foreign(FlightDataDecoder::new(messages));
    let mut rows_taken = 0;
    while let Some(decoded) = batches.try_next().await? {
        let DecodedPayload::RecordBatch(rows) = decoded.payload else { continue };
        let count = rows.num_rows() as i64;
        let partly = |error: Error| grpc_status(Error { message: format!("{}; the {rows_taken} rows before it were taken", error.message), ..error });
        door.push(rows, None).await.map_err(partly)?;
        rows_taken += count;
    }
    Ok(rows_taken)
}

/// Only appending to what the script has declared.
fn check_ingest(ingest: &CommandStatementIngest) -> std::result::Result<(), Status> {
    let refuse = |message: &str| Err(Status::unimplemented(format!("{message}; {READ_ONLY}")));
    let options = ingest.table_definition_options.unwrap_or_default();
    match (TableNotExistOption::try_from(options.if_not_exist), TableExistsOption::try_from(options.if_exists)) {
        (Ok(TableNotExistOption::Create), _) => return refuse("tables are not created here: use mode 'append' into a push source of the script"),
        (_, Ok(TableExistsOption::Append | TableExistsOption::Unspecified)) => {}
        (_, Ok(TableExistsOption::Replace)) => return refuse("the rows of a source cannot be replaced: use mode 'append'"),
        _ => return refuse("use mode 'append' into a push source of the script"),
    }
    if ingest.temporary {
        return refuse("there are no temporary tables");
    }
    if ingest.transaction_id.as_ref().is_some_and(|id| !id.is_empty()) {
        return refuse("there are no transactions: each batch enters whole, by itself");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_paths_or_json() {
        let path = |parts: &[&str]| ask_of(&FlightDescriptor::new_path(parts.iter().map(|part| part.to_string()).collect()));
        let rides = |id: Option<&str>| PutAsk { source: "rides".into(), id: id.map(Into::into) };
        assert_eq!(path(&["rides"]).unwrap(), rides(None));
        assert_eq!(path(&["source", "rides"]).unwrap(), rides(None));
        let command = |json: &str| ask_of(&FlightDescriptor::new_cmd(json.as_bytes().to_vec()));
        assert_eq!(command(r#"{"source": "rides", "id": "a"}"#).unwrap(), rides(Some("a")));
        for wrong in [path(&["view", "rides"]), command(""), command("{}"), command("rides"), command(r#"{"source": "rides", "ids": 1}"#)] {
            assert!(wrong.unwrap_err().message.contains("[\"source\", name]"));
        }
    }

    #[test]
    fn ingest_appends_and_nothing_else() {
        use arrow_flight::sql::TableDefinitionOptions;
        let check = |if_not_exist: TableNotExistOption, if_exists: TableExistsOption| {
            let options = TableDefinitionOptions { if_not_exist: if_not_exist as i32, if_exists: if_exists as i32 };
            check_ingest(&CommandStatementIngest { table_definition_options: Some(options), table: "rides".into(), ..Default::default() })
        };
        assert!(check(TableNotExistOption::Fail, TableExistsOption::Append).is_ok());
        let refused = check(TableNotExistOption::Create, TableExistsOption::Fail).unwrap_err();
        assert!(refused.message().contains("use mode 'append'"), "{}", refused.message());
        assert!(check(TableNotExistOption::Fail, TableExistsOption::Replace).unwrap_err().message().contains("replaced"));
    }
}

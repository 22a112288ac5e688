//! Pushes through DoPut, Flight SQL ingest and HTTP into an ingress of a bounded size.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use freshet_core::{Encode, Error, Ingress, Push, PushBody, PushSource, Pushed, Result};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::http::{post, status};
use crate::moving::{Running, start_with};

/// `rides (n BIGINT)` and the signed `secrets (n BIGINT)`; room for so many pushes.
#[derive(Default)]
struct Room {
    state: Mutex<State>,
    room: usize,
}

#[derive(Default)]
struct State {
    waiting: usize,
    position: u64,
    ids: BTreeMap<String, Pushed>,
    bodies: Vec<PushBody>,
}

impl Room {
    fn of(room: usize) -> Arc<Room> {
        Arc::new(Room { room, ..Room::default() })
    }

    fn waiting(&self) -> usize {
        self.state.lock().unwrap().waiting
    }

    fn read_all(&self) {
        self.state.lock().unwrap().waiting = 0;
    }

    fn last_body(&self) -> PushBody {
        self.state.lock().unwrap().bodies.last().unwrap().clone()
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

impl Ingress for Room {
    fn sources(&self) -> Vec<PushSource> {
        let source = |name: &str, secret: Option<&[u8]>| PushSource {
            name: name.into(),
            schema: schema(),
            position: 0,
            encode: Encode::Json,
            secret: secret.map(Into::into),
            queue_bytes: self.waiting(),
            queue_bytes_max: self.room,
        };
        vec![source("rides", None), source("secrets", Some(b"swordfish"))]
    }

    fn push(&self, push: Push) -> Result<Pushed> {
        let mut state = self.state.lock().unwrap();
        if let Some(known) = push.id.as_ref().and_then(|id| state.ids.get(id)) {
            return Ok(Pushed { duplicate: true, ..*known });
        }
        let records = match &push.body {
            PushBody::Changes(..) => return Err(Error::invalid("source rides: its rows are not changed by statements")),
            PushBody::Rows(rows) if rows.column_by_name("n").is_none() => return Err(Error::invalid("source rides: column n is missing")),
            PushBody::Rows(rows) => rows.num_rows() as u64,
            PushBody::Bytes(_, bytes) => bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64,
        };
        if state.waiting >= self.room {
            return Err(Error::unavailable("the queue is full; try again later"));
        }
        state.waiting += 1;
        state.position += records;
        state.bodies.push(push.body);
        let pushed = Pushed { partition: 0, position: state.position, records, dead_letters: 0, duplicate: false };
        if let Some(id) = push.id {
            state.ids.insert(id, pushed);
        }
        Ok(pushed)
    }
}

async fn channel(running: &Running) -> Channel {
    Channel::from_shared(running.flight.clone()).unwrap().connect().await.unwrap()
}

fn numbers(values: &[i64]) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)]).unwrap()
}

fn messages(batches: Vec<RecordBatch>, descriptor: FlightDescriptor) -> impl Stream<Item = FlightData> + Send + 'static {
    let encoder = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor));
    encoder.build(stream::iter(batches.into_iter().map(Ok))).map(|message| message.unwrap())
}

fn said(answer: &PutResult) -> Value {
    serde_json::from_slice(&answer.app_metadata).unwrap()
}

async fn put(running: &Running, descriptor: FlightDescriptor, batches: Vec<RecordBatch>) -> std::result::Result<Vec<Value>, tonic::Status> {
    let mut client = FlightServiceClient::new(channel(running).await);
    let answers = client.do_put(messages(batches, descriptor)).await?.into_inner();
    Ok(answers.try_collect::<Vec<_>>().await?.iter().map(said).collect())
}

fn path(parts: &[&str]) -> FlightDescriptor {
    FlightDescriptor::new_path(parts.iter().map(|part| part.to_string()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_batch_of_a_put_is_answered_with_its_position() {
    let running = start_with(Some(Room::of(100))).await;
    let answers = put(&running, path(&["rides"]), vec![numbers(&[1, 2]), numbers(&[3])]).await.unwrap();
    let wanted = json!({"source": "rides", "partition": 0, "position": 2, "records": 2, "dead_letters": 0, "duplicate": false, "durable": false});
    assert_eq!(answers[0], wanted);
    assert_eq!((answers.len(), &answers[1]["position"]), (2, &json!(3)));
    assert_eq!(put(&running, path(&["source", "rides"]), vec![numbers(&[4])]).await.unwrap()[0]["position"], 4);
    // A stream with an id that comes again, one batch longer.
    let named = || FlightDescriptor::new_cmd(r#"{"source": "rides", "id": "day"}"#);
    put(&running, named(), vec![numbers(&[5]), numbers(&[6])]).await.unwrap();
    let again = put(&running, named(), vec![numbers(&[5]), numbers(&[6]), numbers(&[7])]).await.unwrap();
    let seen: Vec<_> = again.iter().map(|answer| (answer["position"].as_u64().unwrap(), answer["duplicate"].as_bool().unwrap())).collect();
    assert_eq!(seen, [(5, true), (6, true), (7, false)]);
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_does_not_fit_says_why() {
    let running = start_with(Some(Room::of(100))).await;
    let error = put(&running, path(&["taxis"]), vec![numbers(&[1])]).await.unwrap_err();
    assert_eq!(error.message(), "there is no push source taxis; known: rides, secrets");
    let error = put(&running, path(&["secrets"]), vec![numbers(&[1])]).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unauthenticated);
    let wrong = RecordBatch::try_from_iter([("m", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let error = put(&running, path(&["rides"]), vec![wrong]).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (tonic::Code::InvalidArgument, "source rides: column n is missing"));
    running.server.shutdown().await;
    let closed = start_with(None).await;
    let error = put(&closed, path(&["rides"]), vec![numbers(&[1])]).await.unwrap_err();
    assert!(error.message().contains("known: none; CREATE SOURCE"), "{}", error.message());
    closed.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_into_a_full_queue_waits_for_room_and_loses_nothing() {
    let room = Room::of(2);
    let running = start_with(Some(room.clone())).await;
    let mut client = FlightServiceClient::new(channel(&running).await);
    let batches = (0..20).map(|n| numbers(&[n])).collect();
    let mut answers = client.do_put(messages(batches, path(&["rides"]))).await.unwrap().into_inner();
    for _ in 0..2 {
        answers.message().await.unwrap().unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), answers.message()).await.is_err(), "the third waits");
    let mut count = 2;
    while count < 20 {
        room.read_all();
        assert_eq!(said(&answers.message().await.unwrap().unwrap())["position"], count + 1);
        count += 1;
    }
    assert_eq!(answers.message().await.unwrap(), None);
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_send_everything_before_it_reads_an_answer() {
    let running = start_with(Some(Room::of(usize::MAX))).await;
    let (sent, all_sent) = tokio::sync::oneshot::channel();
    let end = stream::once(async move {
        sent.send(()).unwrap();
        FlightData::default()
    });
    let batches = (0..5000).map(|n| numbers(&[n])).collect();
    let mut client = FlightServiceClient::new(channel(&running).await);
    let answers = client.do_put(messages(batches, path(&["rides"])).chain(end)).await.unwrap().into_inner();
    all_sent.await.unwrap();
    let answers: Vec<PutResult> = answers.try_collect().await.unwrap();
    assert_eq!((answers.len(), said(&answers[4999])["position"].as_u64()), (5000, Some(5000)));
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_sql_ingest_appends_to_a_source() {
    let room = Room::of(100);
    let running = start_with(Some(room.clone())).await;
    let client = FlightSqlServiceClient::new(channel(&running).await);
    let ingest = |if_exists: TableExistsOption, table: &'static str| {
        let options = TableDefinitionOptions { if_not_exist: TableNotExistOption::Fail as i32, if_exists: if_exists as i32 };
        let command = CommandStatementIngest { table_definition_options: Some(options), table: table.into(), ..Default::default() };
        let mut client = client.clone();
        async move { client.execute_ingest(command, stream::iter([numbers(&[1, 2]), numbers(&[3])].map(Ok))).await }
    };
    assert_eq!(ingest(TableExistsOption::Append, "rides").await.unwrap(), 3);
    let refused = ingest(TableExistsOption::Replace, "rides").await.unwrap_err().to_string();
    assert!(refused.contains("use mode 'append'"), "{refused}");
    let unknown = ingest(TableExistsOption::Append, "taxis").await.unwrap_err().to_string();
    assert!(unknown.contains("there is no push source taxis"), "{unknown}");
    drop(client);
    running.server.shutdown().await;
}

const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");

#[tokio::test(flavor = "multi_thread")]
async fn http_takes_lines_arrays_csv_arrow_and_packed_bodies() {
    let room = Room::of(100);
    let running = start_with(Some(room.clone())).await;
    let ingest = async |headers: &[(&str, &str)], body: &[u8]| {
        let (head, body) = post(&running, "/v1/ingest/rides", headers, body).await;
        assert_eq!(status(&head), 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let first = ingest(&[LINES, ("X-Freshet-Batch-Id", "a")], b"{\"n\": 1}\n{\"n\": 2}\n").await;
    assert_eq!(
        first,
        json!({"source": "rides", "partition": 0, "position": 2, "records": 2, "dead_letters": 0, "duplicate": false, "durable": false})
    );
    let again = ingest(&[LINES, ("Idempotency-Key", "a")], b"{\"n\": 1}").await;
    assert_eq!((&again["position"], &again["duplicate"]), (&json!(2), &json!(true)));
    assert_eq!(ingest(&[("Content-Type", "application/json")], b"[{\"n\":\n 3}, {\"n\": 4}]").await["records"], 2);
    ingest(&[("Content-Type", "text/csv")], b"n\n5\n").await;
    assert!(matches!(room.last_body(), PushBody::Bytes(Encode::Csv, body) if body == b"n\n5\n"));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema()).unwrap();
    [numbers(&[6]), numbers(&[7])].iter().for_each(|batch| writer.write(batch).unwrap());
    let arrow = writer.into_inner().unwrap();
    assert_eq!(ingest(&[("Content-Type", "application/vnd.apache.arrow.stream")], &arrow).await["records"], 2);
    assert!(matches!(room.last_body(), PushBody::Rows(rows) if rows.columns() == numbers(&[6, 7]).columns()));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, b"{\"n\": 8}\n".repeat(50_000).as_slice()).unwrap();
    assert_eq!(ingest(&[LINES, ("Content-Encoding", "gzip")], &packed.finish().unwrap()).await["records"], 50_000);
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_refuses_with_a_status_and_a_way_out() {
    let room = Room::of(1);
    let running = start_with(Some(room.clone())).await;
    let signature = ("X-Freshet-Signature", "sha256=4bfc25cb5b9d4d5bdd6ed7b26a1f7bbf8e64db5dfbfc9d5fcf9c18e0d3d7e3b0");
    for (path, headers, body, code, words) in [
        ("/v1/ingest/taxis", &[LINES][..], &b"{}"[..], 404, "known: rides, secrets"),
        ("/v1/ingest/rides", &[], b"{}", 415, "application/x-ndjson"),
        ("/v1/ingest/rides", &[LINES, ("Content-Encoding", "br")], b"{}", 415, "send gzip or none"),
        ("/v1/ingest/rides", &[("Content-Type", "application/json")], b"[{", 400, "does not end"),
        ("/v1/ingest/rides", &[("Content-Type", "application/vnd.apache.arrow.stream")], b"xx", 400, "not an Arrow IPC stream"),
        ("/v1/ingest/secrets", &[LINES], b"{}", 401, "the signature is missing"),
        ("/v1/ingest/secrets", &[LINES, signature], b"{}", 401, "does not fit"),
    ] {
        let (head, body) = post(&running, path, headers, body).await;
        assert!(status(&head) == code && body.contains(words), "{path} {code}: {head}\n{body}");
    }
    let large = vec![b' '; (16 << 20) + 1];
    assert_eq!(status(&post(&running, "/v1/ingest/rides", &[LINES], &large).await.0), 413);
    assert_eq!(status(&post(&running, "/v1/ingest/rides", &[LINES], b"{}").await.0), 200);
    let (head, body) = post(&running, "/v1/ingest/rides", &[LINES], b"{}").await;
    assert_eq!(status(&head), 429, "{body}");
    assert!(head.to_lowercase().contains("\r\nretry-after: 1"), "{head}");
    room.read_all();
    assert_eq!(status(&post(&running, "/v1/ingest/rides", &[LINES], b"{}").await.0), 200);
    running.server.shutdown().await;
}

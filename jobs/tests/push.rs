//! Rows that clients push to a running pipeline, by every way there is, and what survives its end.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int64Type;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::clients::python;
use crate::running::{Running, all, freshet, tests_folder, text};

const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");

fn pipeline() -> PathBuf {
    tests_folder().join("pushed")
}

/// Now, as a client's clock tells it.
#[allow(clippy::disallowed_methods, reason = "a client stamps its rows with its clock")]
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn lines(city: &str, ids: std::ops::Range<u64>) -> String {
    let at = now_ms();
    ids.map(|id| format!("{{\"ride_id\": {id}, \"city\": \"{city}\", \"fare\": 1.5, \"at\": {at}}}\n")).collect()
}

fn json(answer: (u16, String)) -> Value {
    assert_eq!(answer.0, 200, "{}", answer.1);
    serde_json::from_str(&answer.1).unwrap()
}

fn sql(running: &Running, query: &str) -> String {
    let output = freshet().args(["sql", "--address", &running.flight, "--format", "csv", query]).output().unwrap();
    assert!(output.status.success(), "{}", all(&output));
    text(&output.stdout)
}

fn wait_for_sql(running: &Running, query: &str, wanted: &str) {
    running.wait_until(wanted, || sql(running, query) == wanted);
}

/// Tries again for as long as it is told to.
fn push_until_taken(running: &Running, headers: &[(&str, &str)], body: &str) -> (Value, u64) {
    let (deadline, mut refused) = (Instant::now() + Duration::from_secs(60), 0);
    loop {
        let (code, answer) = running.post_with("/v1/ingest/rides", headers, body);
        if code != 429 {
            return (json((code, answer)), refused);
        }
        assert!(Instant::now() < deadline, "{answer}");
        refused += 1;
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn ride(id: i64) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("ride_id", Arc::new(Int64Array::from(vec![id])) as ArrayRef),
        ("city", Arc::new(StringArray::from(vec!["Bern"])) as ArrayRef),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![now_ms()])) as ArrayRef),
    ])
    .unwrap()
}

/// What is sent into the channel, as messages of a DoPut into `rides`.
fn messages(batches: mpsc::Receiver<RecordBatch>) -> impl Stream<Item = FlightData> + Send + 'static {
    let batches = stream::unfold(batches, |mut batches| async move { batches.recv().await.map(|batch| (Ok(batch), batches)) });
    let descriptor = FlightDescriptor::new_path(vec!["rides".into()]);
    let encoder = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor)).build(batches);
    encoder.map(|message: Result<FlightData, FlightError>| message.unwrap())
}

async fn client(running: &Running) -> FlightServiceClient<Channel> {
    let address = running.flight.replace("grpc://", "http://");
    FlightServiceClient::new(Channel::from_shared(address).unwrap().connect().await.unwrap())
}

async fn last_ride(client: &mut FlightServiceClient<Channel>, position: u64) -> Option<i64> {
    let place = serde_json::json!({ "source": "rides", "partition": 0, "position": position });
    let ticket = serde_json::json!({ "features": "ride_features", "keys": { "city": ["Bern"] }, "min_position": place });
    let answer = client.do_get(Ticket::new(ticket.to_string())).await.unwrap().into_inner();
    let rows = FlightRecordBatchStream::new_from_flight_data(answer.map_err(|status| FlightError::Tonic(Box::new(status))));
    let rows: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    let column = rows[0].column_by_name("ride_id").unwrap();
    column.is_valid(0).then(|| column.as_primitive::<Int64Type>().value(0))
}

#[test]
fn c2_a_lookup_sees_the_row_that_its_client_has_put_every_time() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::endless(&pipeline(), data.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (batches, sent) = mpsc::channel(1);
        let mut client = client(&running).await;
        // The stream begins with its first batch.
        batches.send(ride(0)).await.unwrap();
        let mut answers = client.do_put(messages(sent)).await.unwrap().into_inner();
        for round in 0..200 {
            if round > 0 {
                batches.send(ride(round)).await.unwrap();
            }
            let answer: Value = serde_json::from_slice(&answers.message().await.unwrap().unwrap().app_metadata).unwrap();
            assert_eq!(answer["position"], round + 1);
            assert_eq!(last_ride(&mut client, answer["position"].as_u64().unwrap()).await, Some(round), "round {round}");
        }
    });
}

#[test]
fn python_clients_push_by_flight_adbc_and_http() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::endless(&pipeline(), data.path());
    let client = tests_folder().join("client/push.py");
    let output = Command::new(python()).arg(client).args([&running.flight, &running.http]).output().unwrap();
    assert!(output.status.success(), "{}", all(&output));
    assert!(text(&output.stdout).lines().filter(|line| line.starts_with("ok ")).count() >= 20, "{}", all(&output));
}

#[test]
fn c3_bad_records_of_a_push_are_dead_letters_with_their_place_and_the_rest_is_counted() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::endless(&pipeline(), data.path());
    push_until_taken(&running, &[LINES], &lines("Bern", 0..2));
    let body = format!("{}{}", "{\"ride_id\": \"x\", \"city\": \"Bern\"}\nno json\n", lines("Genf", 2..3));
    let (answer, _) = push_until_taken(&running, &[LINES], &body);
    assert_eq!((&answer["records"], &answer["dead_letters"], &answer["position"]), (&3.into(), &2.into(), &5.into()));
    wait_for_sql(&running, "SELECT city, rides FROM by_city ORDER BY city", "city,rides\nBern,2\nGenf,1\n");
    let letters = sql(&running, "SELECT * FROM \"dead_letters(rides)\"");
    assert!(letters.contains("no json") && letters.contains("ride_id"), "{letters}");
}

#[test]
fn two_clients_that_push_more_than_the_queue_holds_lose_nothing() {
    let data = tempfile::tempdir().unwrap();
    let running = Running::endless(&pipeline(), data.path());
    std::thread::scope(|scope| {
        for city in ["Bern", "Genf"] {
            let running = &running;
            scope.spawn(move || {
                for push in 0..20_u64 {
                    let id = format!("{city}/{push}");
                    let body = lines(city, push * 1000..(push + 1) * 1000);
                    let headers = [LINES, ("X-Freshet-Batch-Id", &id)];
                    let (first, _) = push_until_taken(running, &headers, &body);
                    if push % 5 == 0 {
                        // The answer was lost; the client sends again.
                        let (again, _) = push_until_taken(running, &headers, &body);
                        assert_eq!((&again["position"], &again["duplicate"]), (&first["position"], &true.into()));
                    }
                }
            });
        }
    });
    let wanted = "city,rides,places\nBern,20000,20000\nGenf,20000,20000\n";
    wait_for_sql(&running, "SELECT city, rides, places FROM by_city ORDER BY city", wanted);
}

#[test]
fn positions_and_names_of_pushes_survive_a_stop_and_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let push = |running: &Running, id: &str, ids: std::ops::Range<u64>| {
        // The first poll opens the source.
        let (deadline, headers) = (Instant::now() + Duration::from_secs(60), [LINES, ("X-Freshet-Batch-Id", id)]);
        loop {
            let (code, answer) = running.post_with("/v1/ingest/rides", &headers, &lines("Bern", ids.clone()));
            if code == 200 {
                let answer: Value = serde_json::from_str(&answer).unwrap();
                return (answer["position"].as_u64().unwrap(), answer["duplicate"].as_bool().unwrap());
            }
            assert!(code == 429 && Instant::now() < deadline, "{answer}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    };
    let mut running = Running::endless(&pipeline(), data.path());
    assert_eq!(push(&running, "a", 0..10), (10, false));
    // At once: what was acknowledged is in the last checkpoint.
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(143));
    let mut running = Running::endless(&pipeline(), data.path());
    assert_eq!(push(&running, "a", 0..10), (10, true));
    wait_for_sql(&running, "SELECT city, rides FROM by_city", "city,rides\nBern,10\n");
    assert_eq!(push(&running, "b", 10..15), (15, false));
    running.signal("-KILL");
    running.end();
    let running = Running::endless(&pipeline(), data.path());
    // Whether the last checkpoint has seen them or not, they are there once, and no position is given twice.
    let (position, duplicate) = push(&running, "b", 10..15);
    assert_eq!(position, if duplicate { 15 } else { 20 });
    wait_for_sql(&running, "SELECT city, rides FROM by_city", "city,rides\nBern,15\n");
}

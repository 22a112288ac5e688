//! C2: reads that wait for a position their client has written.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use futures::{TryStreamExt, stream};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::http::{post, status};
use crate::moving::{Running, start, start_in_wall_clock};

async fn client(running: &Running) -> FlightServiceClient<Channel> {
    FlightServiceClient::new(Channel::from_shared(running.flight.clone()).unwrap().connect().await.unwrap())
}

async fn counts(answer: impl futures::Stream<Item = Result<FlightData, Status>> + Send + 'static) -> Result<Vec<Option<i64>>, FlightError> {
    let rows = FlightRecordBatchStream::new_from_flight_data(answer.map_err(|status| FlightError::Tonic(Box::new(status))));
    let batches: Vec<RecordBatch> = rows.try_collect().await?;
    Ok(batches.iter().flat_map(|batch| batch.column_by_name("count").unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect())
}

/// Does not end before `then` has been done.
async fn waits<T: Send + 'static>(read: impl Future<Output = T> + Send + 'static, then: impl FnOnce()) -> T {
    let mut read = tokio::spawn(read);
    assert!(tokio::time::timeout(Duration::from_millis(30), &mut read).await.is_err(), "the read waits");
    then();
    tokio::time::timeout(Duration::from_secs(60), read).await.expect("the read ends once it may").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_ticket_waits_until_its_positions_are_read_and_complete() {
    let running = start().await;
    running.reader.advance(10, &[("a", 1)]);
    running.reader.read_upto(5, 10);
    let get = |ticket: &'static str, header: Option<&'static str>| {
        let connecting = running.flight.clone();
        async move {
            let channel = Channel::from_shared(connecting).unwrap().connect().await.unwrap();
            let mut request = Request::new(Ticket::new(ticket));
            if let Some(header) = header {
                request.metadata_mut().insert("x-freshet-min-position", header.parse().unwrap());
            }
            counts(FlightServiceClient::new(channel).do_get(request).await.unwrap().into_inner()).await.unwrap()
        }
    };
    let lookup = r#"{"features": "by_name", "keys": {"name": ["a"]}, "min_position": {"source": "rides", "partition": 0, "position": 5}}"#;
    assert_eq!(get(lookup, None).await, [Some(1)], "it is there already");
    let view = r#"{"view": "counts", "min_position": [{"source": "rides", "position": 6}]}"#;
    let reader = running.reader.clone();
    let found = waits(get(view, None), move || {
        reader.read_upto(6, 20);
        reader.advance(20, &[("a", 2)]);
    });
    assert_eq!(found.await, [Some(2)]);
    // Read, but its epoch is not complete yet.
    running.reader.read_upto(7, 30);
    let reader = running.reader.clone();
    let found = waits(get("SELECT * FROM counts", Some("rides:0:7")), move || reader.advance(30, &[("a", 3)]));
    assert_eq!(found.await, [Some(3)]);
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_each_batch_of_an_exchange_may_wait_for_a_position_of_its_own() {
    let running = start().await;
    running.reader.advance(10, &[("a", 1)]);
    let keys = RecordBatch::try_from_iter([("name", Arc::new(StringArray::from(vec!["a"])) as Arc<dyn Array>)]).unwrap();
    let descriptor = FlightDescriptor::new_path(vec!["features".into(), "by_name".into()]);
    let encoder = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor));
    let sent: Vec<FlightData> = encoder.build(stream::iter([keys.clone(), keys].map(Ok))).try_collect().await.unwrap();
    let note = r#"{"min_position": {"source": "rides", "position": 9}}"#;
    let sent = sent.into_iter().enumerate().map(move |(index, message)| if index == 2 { message.with_app_metadata(note) } else { message });
    let mut answers = client(&running).await.do_exchange(stream::iter(sent)).await.unwrap().into_inner();
    for _ in 0..2 {
        answers.message().await.unwrap().expect("the schema, then the first answer");
    }
    let reader = running.reader.clone();
    let last = waits(async move { answers.message().await.unwrap().unwrap() }, move || {
        reader.read_upto(9, 20);
        reader.advance(20, &[("a", 2)]);
    });
    assert!(last.await.app_metadata.starts_with(br#"{"mode":"fresh","q":21,"s":21"#));
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_position_that_does_not_come_is_an_error_that_says_how_far_it_is() {
    let running = start().await;
    running.reader.advance(10, &[("a", 1)]);
    running.reader.read_upto(37, 10);
    let ask = async |more: &str| {
        let body = format!(r#"{{"feature_service": "by_name", "entities": {{"name": ["a"]}}{more}}}"#);
        let (head, body) = post(&running, "/get-online-features", &[("Content-Type", "application/json")], body.as_bytes()).await;
        (status(&head), body)
    };
    assert_eq!(ask(r#", "min_position": {"source": "rides", "position": 37}"#).await.0, 200);
    let (code, body) = ask(r#", "min_position": {"source": "taxis", "position": 1}"#).await;
    assert!(code == 400 && body.contains("there is no source taxis"), "{body}");
    let (code, body) = ask(r#", "as_of": 11, "min_position": {"source": "rides", "position": 1}"#).await;
    assert!(code == 400 && body.contains("give one of them"), "{body}");
    let (code, body) = ask(r#", "min_position": "rides:0:1""#).await;
    assert!(code == 400 && body.contains("min_position is"), "{body}");
    let (code, body) = ask(r#", "min_position": {"source": "rides", "position": 42}"#).await;
    assert!(code == 503 && body.contains("position 42 has not been read after 10 s, it stands at 37"), "{body}");
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t15_a_fresh_lookup_waits_until_it_is_not_too_stale_or_fails() {
    #[allow(clippy::disallowed_methods, reason = "staleness is measured by the machine's clock")]
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let running = start_in_wall_clock().await;
    running.reader.advance(now() - 60_000, &[("a", 1)]);
    let ask = |more: &str| {
        let body = format!(r#"{{"feature_service": "by_name", "entities": {{"name": ["a"]}}{more}}}"#);
        let http = running.http.clone();
        async move {
            let (head, body) = crate::http::post_to(&http, "/get-online-features", &[("Content-Type", "application/json")], body.as_bytes()).await;
            (status(&head), body)
        }
    };
    assert_eq!(ask("").await.0, 200, "who names no bound gets what there is");
    assert_eq!(ask(r#", "max_staleness_ms": 120000"#).await.0, 200);
    let (code, body) = ask(r#", "max_staleness_ms": 5, "mode": "request_time""#).await;
    assert!(code == 400 && body.contains("goes with mode fresh"), "{body}");
    let reader = running.reader.clone();
    let (code, body) = waits(ask(r#", "max_staleness_ms": 20000"#), move || reader.advance(now(), &[("a", 2)])).await;
    assert!(code == 200 && body.contains("[2]"), "{code} {body}");
    running.reader.advance(now() - 60_000, &[("a", 3)]);
    let ticket = r#"{"features": "by_name", "keys": {"name": ["a"]}, "max_staleness_ms": 20000}"#;
    let error = match client(&running).await.do_get(Ticket::new(ticket)).await {
        Err(status) => status,
        Ok(_) => panic!("an answer that is too stale is none"),
    };
    assert!(error.code() == tonic::Code::Unavailable && error.message().contains("more than max_staleness_ms (20000)"), "{error}");
    running.server.shutdown().await;
}

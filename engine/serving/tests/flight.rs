use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use freshet_serving::Listeners;
use futures::{StreamExt, TryStreamExt, stream};
use tonic::transport::Channel;

use crate::moving::{Running, start, view_schema};

async fn channel(running: &Running) -> Channel {
    Channel::from_shared(running.flight.clone()).unwrap().connect().await.unwrap()
}

fn counts(batches: &[RecordBatch]) -> Vec<Option<i64>> {
    batches.iter().flat_map(|batch| batch.column_by_name("count").unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect()
}

fn names(names: &[&str]) -> RecordBatch {
    RecordBatch::try_from_iter([("name", std::sync::Arc::new(StringArray::from(names.to_vec())) as std::sync::Arc<dyn Array>)]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_answers_at_the_epoch_of_its_info_however_far_the_view_has_moved() {
    let running = start().await;
    running.reader.advance(10, &[("a", 1)]);
    let mut client = FlightSqlServiceClient::new(channel(&running).await);
    let info = client.execute("SELECT * FROM counts".into(), None).await.unwrap();
    assert_eq!(&info.clone().try_decode_schema().unwrap(), view_schema().as_ref());
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    for epoch in [20, 30, 40] {
        running.reader.advance(epoch, &[("a", epoch as i64)]);
    }
    let kept: Vec<RecordBatch> = client.do_get(ticket.clone()).await.unwrap().try_collect().await.unwrap();
    assert_eq!(counts(&kept), [Some(1)]);
    assert_eq!(kept[0].schema(), view_schema());
    // The kept answer is given once; after it the ticket's epoch decides, and that is no longer kept.
    let error = client.do_get(ticket).await.err().unwrap().to_string();
    assert!(error.contains("the history begins at epoch 30"), "{error}");
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_survives_a_descriptor_without_schema_and_answers_each_batch() {
    let running = start().await;
    running.reader.advance(10, &[("a", 1), ("b", 2)]);
    let alone = FlightData::new().with_descriptor(FlightDescriptor::new_path(vec!["features".into(), "by_name".into()]));
    let batches = stream::iter([names(&["b", "x"]), names(&["x"]), names(&["a"])].map(Ok));
    let keys = FlightDataEncoderBuilder::new().build(batches).map(|message: Result<FlightData, FlightError>| message.unwrap());
    let mut client = FlightServiceClient::new(channel(&running).await);
    let answers = client.do_exchange(stream::iter([alone]).chain(keys)).await.unwrap().into_inner();
    let messages: Vec<FlightData> = answers.try_collect().await.unwrap();
    assert_eq!(messages.len(), 4, "a schema and three batches");
    assert_eq!(messages[1].app_metadata, r#"{"mode":"fresh","q":11,"s":11,"lag_ms":0,"durable_epoch":7}"#);
    let rows = FlightRecordBatchStream::new_from_flight_data(stream::iter(messages.into_iter().map(Ok)));
    assert_eq!(counts(&rows.try_collect::<Vec<_>>().await.unwrap()), [Some(2), None, None, Some(1)]);
    running.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_tickets_never_meet_the_protobuf_decoder() {
    let running = start().await;
    let mut client = FlightServiceClient::new(channel(&running).await);
    let early = client.do_get(Ticket::new(r#"{"view": "counts"}"#)).await.unwrap_err();
    assert_eq!((early.code(), early.message()), (tonic::Code::Unavailable, "no epoch is complete yet; try again in a moment"));
    running.reader.advance(10, &[("a", 1)]);
    for ticket in [r#"{"view": "counts"}"#, r#"{"features": "by_name", "keys": {"name": ["a"]}}"#, "SELECT * FROM counts"] {
        let answer = client.do_get(Ticket::new(ticket)).await.unwrap().into_inner();
        let rows = FlightRecordBatchStream::new_from_flight_data(answer.map_err(|status| FlightError::Tonic(Box::new(status))));
        assert_eq!(counts(&rows.try_collect::<Vec<_>>().await.unwrap()), [Some(1)], "{ticket}");
    }
    let refused = client.do_get(Ticket::new("DROP VIEW counts")).await.unwrap_err();
    assert_eq!(refused.message(), "query:1:1: DROP VIEW counts is not the one query");
    running.server.shutdown().await;
}

#[tokio::test]
async fn only_loopback_addresses_are_bound() {
    let any = "127.0.0.1:0".parse().unwrap();
    let error = Listeners::bind("0.0.0.0:0".parse().unwrap(), any).await.err().unwrap();
    assert!(error.message.contains("is not loopback"), "{error}");
    let taken = Listeners::bind(any, any).await.unwrap();
    let error = Listeners::bind(taken.flight(), any).await.err().unwrap();
    assert!(error.message.contains("choose another port"), "{error}");
}

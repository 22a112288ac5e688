//! Brokers that are killed, and come back. One test at a time has the three brokers.

use std::time::Instant;

use freshet_core::{Epoch, Kind};
use rdkafka::admin::TopicReplication;

use crate::kafka_broker::{self as broker, DEADLINE, Kafka};
use crate::kafka_sink::{changes, open as open_sink, sink};
use crate::kafka_source::{Got, open, source};

/// A topic on these brokers only, the first of which leads.
fn topic_on(kafka: &Kafka, brokers: &[i32]) -> String {
    kafka.topic_with(1, TopicReplication::Variable(&[brokers]), &[])
}

fn ids(range: std::ops::Range<i128>) -> Vec<i128> {
    range.collect()
}

#[test]
fn a_broker_that_is_killed_and_comes_back_costs_no_record_and_doubles_none() {
    let kafka = broker::cluster();
    let topic = topic_on(&kafka, &[2]);
    kafka.send_ids(&topic, 0, 0..5_000);
    let mut source = open(&source(&kafka.servers, &topic, &[]));
    let mut got = Got::default();
    got.poll_until(source.as_mut(), |got, _| got.len() > 100);
    kafka.command("kill 2");
    got.poll_until(source.as_mut(), |_, source| source.report().trouble.is_some());
    let trouble = source.report().trouble.unwrap();
    assert!(trouble.contains("partition 0"), "{trouble}");
    kafka.command("start 2");
    kafka.send_ids(&topic, 0, 5_000..6_000);
    got.poll_until(source.as_mut(), |got, source| got.len() == 6_000 && source.report().trouble.is_none());
    assert_eq!((got.ids(0), got.offsets(0)), (ids(0..6_000), (0..6_000).collect()));
}

#[test]
fn a_broker_that_is_away_at_the_start_is_waited_for() {
    let kafka = broker::cluster();
    let topic = topic_on(&kafka, &[3]);
    kafka.send_ids(&topic, 0, 0..10);
    kafka.command("kill 3");
    let only = format!("127.0.0.1:{}", kafka.ports[2]);
    let mut source = open(&source(&only, &topic, &[("scan.bounded.mode", "latest-offset")]));
    let mut got = Got::default();
    got.poll_until(source.as_mut(), |_, source| source.report().trouble.is_some_and(|trouble| trouble.contains("refused")));
    let trouble = source.report().trouble.unwrap();
    assert!(trouble.starts_with(&format!("no broker of {only} answers")), "{trouble}");
    let mut out = open_sink(&sink(&only, &topic, freshet_core::Format::Plain, &[], &[]));
    let error = out.write(&changes(&[(10, "a", 1)], 7)).unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.message.starts_with("sink out: no broker answers"), "{error}");
    kafka.command("start 3");
    got.poll_until(source.as_mut(), |got, _| got.all_ended);
    assert_eq!(got.ids(0), ids(0..10));
}

#[test]
fn a_partition_whose_leader_dies_goes_on_with_another() {
    let kafka = broker::cluster();
    let topic = topic_on(&kafka, &[1, 2, 3]);
    kafka.send_ids(&topic, 0, 0..100);
    let mut source = open(&source(&kafka.servers, &topic, &[]));
    let mut got = Got::default();
    got.poll_until(source.as_mut(), |got, _| got.len() == 100);
    kafka.command("kill 1");
    kafka.send_ids(&topic, 0, 100..200);
    got.poll_until(source.as_mut(), |got, _| got.len() == 200);
    kafka.command("start 1");
    kafka.send_ids(&topic, 0, 200..300);
    got.poll_until(source.as_mut(), |got, source| got.len() == 300 && source.report().trouble.is_none());
    assert_eq!((got.ids(0), got.offsets(0)), (ids(0..300), (0..300).collect()));
}

#[test]
fn a_sink_keeps_what_brokers_do_not_take_and_writes_it_once() {
    let kafka = broker::cluster();
    let topic = topic_on(&kafka, &[2]);
    let mut out = open_sink(&sink(&kafka.servers, &topic, freshet_core::Format::Plain, &[], &[]));
    let write = |out: &mut dyn freshet_core::Sink, id: i128| out.write(&changes(&[(id, "a", 1)], id as u64));
    write(out.as_mut(), 0).unwrap();
    out.flush(Epoch(0)).unwrap();
    kafka.command("kill 2");
    write(out.as_mut(), 1).unwrap();
    write(out.as_mut(), 2).unwrap();
    let error = out.flush(Epoch(2)).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.starts_with("sink out: 2 records are not delivered yet: 127.0.0.1:"), "{error}");
    kafka.command("start 2");
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = out.flush(Epoch(2)) {
        assert!(error.kind == Kind::Unavailable && Instant::now() < deadline, "{error}");
    }
    write(out.as_mut(), 3).unwrap();
    assert_eq!(out.flush(Epoch(3)).unwrap(), 4);
    let payloads: Vec<String> =
        kafka.read_all(&topic).iter().map(|record| String::from_utf8_lossy(rdkafka::Message::payload(record).unwrap()).into_owned()).collect();
    let found: Vec<bool> = (0..4).map(|id| payloads.get(id).is_some_and(|payload| payload.starts_with(&format!("{{\"id\":{id},")))).collect();
    assert_eq!((payloads.len(), found), (4, vec![true; 4]), "{payloads:?}");
}

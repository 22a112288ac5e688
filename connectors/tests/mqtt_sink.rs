//! MQTT sinks against a real broker.

use std::time::Duration;

use freshet_connectors::BuiltIn;
use freshet_core::{Batch, Connectors, Counts, Diffs, Encode, Epoch, Format, Kind, Sink, SinkDef};

use crate::mqtt_broker::*;
use crate::setup::{batch, row, schema};

fn sink(url: &str, format: Format, options: &[(&str, &str)]) -> SinkDef {
    let mut all: Vec<(&str, &str)> = vec![("url", url)];
    all.extend(options);
    SinkDef {
        name: "alarms_out".into(),
        node: freshet_core::NodeId(0),
        from: "alarms".into(),
        schema: schema(),
        connector: "mqtt".into(),
        options: all.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        format,
        encode: Encode::Json,
        key: if format == Format::Upsert { vec![0] } else { Vec::new() },
    }
}

fn open(def: &SinkDef) -> Box<dyn Sink> {
    BuiltIn.open_sink(def).unwrap()
}

fn inserts(ids: std::ops::Range<i128>, epoch: u64) -> Batch {
    let rows: Vec<_> = ids.map(|id| row(id, Some("hot"), None, Some(0.5))).collect();
    Batch::inserts(batch(&rows), Epoch(epoch))
}

fn flush(sink: &mut dyn Sink, epoch: u64) -> u64 {
    until("everything is acknowledged", || match sink.flush(Epoch(epoch)) {
        Ok(position) => Some(position),
        Err(error) if error.kind == Kind::Unavailable => None,
        Err(error) => panic!("{error}"),
    })
}

#[test]
fn rows_go_to_topics_named_by_their_columns() {
    let broker = Broker::start();
    for version in ["3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            let peer = Peer::connect(broker.port);
            peer.subscribe(&format!("alarms/{version}/{qos}/#"));
            let topic = format!("alarms/{version}/{qos}/{{name}}/{{id}}");
            let mut sink = open(&sink(&broker.url(), Format::Plain, &[("topic", &topic), ("version", version), ("qos", qos)]));
            sink.write(&inserts(0..30, 5)).unwrap();
            assert_eq!(flush(sink.as_mut(), 5), 30);
            for id in 0..30 {
                let payload = format!("{{\"id\":{id},\"name\":\"hot\",\"at\":null,\"amount\":0.5}}");
                assert_eq!(peer.receive(), (format!("alarms/{version}/{qos}/hot/{id}"), payload, false));
            }
        }
    }
}

#[test]
fn a_retained_row_is_taken_away_by_its_deletion() {
    let broker = Broker::start();
    for version in ["3.1.1", "5"] {
        let topic = format!("state{version}/{{id}}");
        let mut sink = open(&sink(&broker.url(), Format::Upsert, &[("topic", &topic), ("retain", "true"), ("version", version)]));
        sink.write(&inserts(1..4, 5)).unwrap();
        let rows = batch(&[row(2, Some("hot"), None, Some(0.5)), row(3, Some("cold"), None, None), row(3, Some("hot"), None, Some(0.5))]);
        sink.write(&Batch::new(rows, Counts::Const(6), Diffs::Each(vec![-1, 1, -1].into()), Counts::Const(0))).unwrap();
        assert_eq!(flush(sink.as_mut(), 6), 5);
        let peer = Peer::connect(broker.port);
        peer.subscribe(&format!("state{version}/#"));
        let mut kept = [peer.receive(), peer.receive()];
        kept.sort();
        let of = |id: i128, rest: &str| (format!("state{version}/{id}"), format!("{{\"id\":{id},{rest}}}"), true);
        assert_eq!(kept, [of(1, "\"name\":\"hot\",\"at\":null,\"amount\":0.5"), of(3, "\"name\":\"cold\",\"at\":null,\"amount\":null")]);
        peer.publish(&format!("state{version}/end"), 1, b"end");
        assert_eq!(peer.receive().1, "end", "nothing else is retained");
    }
}

#[test]
fn nothing_is_lost_when_the_broker_is_killed_while_messages_are_under_way() {
    for (version, qos) in [("3.1.1", "1"), ("5", "1"), ("5", "2")] {
        let mut broker = Broker::start();
        let mut sink = open(&sink(&broker.url(), Format::Plain, &[("topic", "out"), ("version", version), ("qos", qos), ("retain", "true")]));
        sink.write(&inserts(0..5, 1)).unwrap();
        flush(sink.as_mut(), 1);
        broker.kill();
        sink.write(&inserts(5..200, 2)).unwrap();
        let error = sink.flush(Epoch(2)).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.starts_with("sink alarms_out: ") && error.message.ends_with("195 messages wait"), "{}", error.message);
        broker.restart();
        let peer = Peer::connect(broker.port);
        peer.subscribe("out");
        assert_eq!(flush(sink.as_mut(), 2), 200);
        let mut ids: Vec<usize> = Vec::new();
        until("all messages", || {
            let id = peer.receive().1.split([':', ',']).nth(1)?.parse().unwrap();
            ids.push(id);
            (id == 199).then_some(())
        });
        // A retained one from before the kill may come first.
        let live: Vec<usize> = ids.iter().copied().skip_while(|id| *id < 5).collect();
        let expected: Vec<usize> = (live[0]..200).collect();
        let mut once = live.clone();
        once.dedup();
        assert_eq!(once, expected, "{version} {qos}");
        assert!(qos == "1" || live == once, "quality 2 doubles nothing");
    }
}

#[test]
fn a_broker_that_never_comes_is_told_by_write_and_flush_and_dropping_does_not_hang() {
    let url = format!("mqtt://127.0.0.1:{}", free_port());
    let mut sink = open(&sink(&url, Format::Plain, &[("topic", "out")]));
    let large: Vec<_> = (0..20).map(|id| row(id, Some(&"x".repeat(1 << 20)), None, None)).collect();
    sink.write(&Batch::inserts(batch(&large), Epoch(1))).unwrap();
    let error = sink.write(&inserts(0..1, 2)).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("Connection refused") && error.message.ends_with("20 messages wait"), "{}", error.message);
    let begun = std::time::Instant::now();
    drop(sink);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn rows_without_a_topic_stop_the_sink_or_are_dropped() {
    let broker = Broker::start();
    let rows = batch(&[row(1, None, None, None), row(2, Some("a+b"), None, None), row(3, Some("fine"), None, None)]);
    let changes = Batch::inserts(rows, Epoch(9));
    let mut strict = open(&sink(&broker.url(), Format::Plain, &[("topic", "out/{name}")]));
    let error = strict.write(&changes).unwrap_err();
    assert_eq!(error.kind, Kind::Data);
    assert_eq!(
        error.message,
        "sink alarms_out: a row of epoch 9 cannot be delivered: its column name is NULL and part of the topic; mend it, or set on_reject = 'drop'"
    );
    let peer = Peer::connect(broker.port);
    peer.subscribe("out/#");
    let mut lenient = open(&sink(&broker.url(), Format::Plain, &[("topic", "out/{name}"), ("on_reject", "drop"), ("client_id", "lenient")]));
    lenient.write(&changes).unwrap();
    assert_eq!(flush(lenient.as_mut(), 9), 1);
    assert_eq!(peer.receive().0, "out/fine");
}

#[test]
fn mistakes_in_a_declaration_name_the_way_out() {
    let refuse = |format: Format, options: &[(&str, &str)]| BuiltIn.check_sink(&sink("mqtt://h", format, options)).unwrap_err().message;
    assert_eq!(refuse(Format::Plain, &[]), "the mqtt connector needs topic = '…', where to publish, for example 'alarms/{machine}'");
    assert!(refuse(Format::Plain, &[("topic", "a/#")]).ends_with("has a + or #, which are for subscriptions"));
    assert!(refuse(Format::Plain, &[("topic", "a/{nmae}")]).ends_with("did you mean {name}?"));
    assert!(refuse(Format::Upsert, &[("topic", "a/{name}")]).starts_with("a deletion knows the columns of primary_key only"));
    assert_eq!(refuse(Format::Plain, &[("topic", "a"), ("retain", "maybe")]), "retain must be 'true' or 'false', found 'maybe'");
}

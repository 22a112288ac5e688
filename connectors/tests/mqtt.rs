//! MQTT sources against a real broker.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema};
use freshet_connectors::{BuiltIn, PipelineConnectors};
use freshet_core::{Connectors, DeadLetter, Encode, Format, MetadataColumn, Poll, Source, SourceDef, Value};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::mqtt_broker::*;

/// `id BIGINT`, then these metadata columns, all VARCHAR but for qos and retain.
fn source(broker: &Broker, topic: &str, metadata: &[&str], options: &[(&str, &str)]) -> SourceDef {
    let mut fields = vec![Field::new("id", DataType::Int64, false)];
    for name in metadata {
        let data_type = match *name {
            "qos" => DataType::Int64,
            "retain" => DataType::Boolean,
            _ => DataType::Utf8,
        };
        fields.push(Field::new(name.replace('.', "_"), data_type, true));
    }
    let url = broker.url();
    let mut all: Vec<(&str, &str)> = vec![("url", &url), ("topic", topic)];
    all.extend(options);
    SourceDef {
        options: all.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        metadata: metadata.iter().zip(1..).map(|(name, column)| MetadataColumn { column, name: name.to_string() }).collect(),
        ..SourceDef::new("readings", Arc::new(Schema::new(fields)), "mqtt", Format::Plain, Encode::Json)
    }
}

#[derive(Default)]
struct Read {
    rows: Vec<Vec<Value>>,
    dead_letters: Vec<DeadLetter>,
    next_offset: u64,
}

impl Read {
    fn ids(&self) -> Vec<i128> {
        self.rows.iter().map(|row| if let Value::Int(id) = row[0] { id } else { panic!("{row:?}") }).collect()
    }

    fn records(&self) -> usize {
        self.rows.len() + self.dead_letters.len()
    }
}

fn open(def: &SourceDef) -> Box<dyn Source> {
    BuiltIn.open_source(def).unwrap()
}

/// Polls once.
fn poll(source: &mut dyn Source, read: &mut Read) {
    match source.poll(1000).unwrap() {
        Poll::Pending => {}
        Poll::Batch(batch) => {
            assert_eq!(batch.partition, 0);
            read.rows.extend(Value::rows_of(&batch.rows).unwrap());
            read.dead_letters.extend(batch.dead_letters);
            read.next_offset = batch.next_offset;
        }
        other => panic!("{other:?}"),
    }
}

fn read(source: &mut dyn Source, records: usize) -> Read {
    let mut read = Read::default();
    until(&format!("{records} records"), || {
        poll(source, &mut read);
        (read.records() >= records).then_some(())
    });
    read
}

/// Until the subscription stands.
fn ready(source: &mut dyn Source) {
    let mut nothing = Read::default();
    until("the source is connected", || {
        poll(source, &mut nothing);
        source.report().trouble.is_none().then_some(())
    });
    assert_eq!(nothing.records(), 0);
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[test]
fn messages_become_rows_with_their_surroundings_in_both_versions_and_every_quality() {
    let broker = Broker::start();
    for version in ["3.1.1", "5"] {
        for qos in 0..=2 {
            let quality = qos.to_string();
            let metadata = ["topic", "level.2", "level.3", "level.9", "qos", "retain", "content_type", "user.Unit"];
            let filter = format!("plant{version}{qos}/+/vibration, plant{version}{qos}/+/temperature/#");
            let mut source = open(&source(&broker, &filter, &metadata, &[("version", version), ("qos", &quality)]));
            ready(source.as_mut());
            let peer = Peer::connect(broker.port);
            let topics: Vec<String> =
                ["7/vibration", "7/ignored", "8/temperature", "9/temperature/in"].iter().map(|end| format!("plant{version}{qos}/{end}")).collect();
            for (id, topic) in topics.iter().enumerate() {
                let properties = PublishProperties {
                    content_type: Some("application/json".into()),
                    user_properties: vec![("unit".into(), "mm/s".into())],
                    ..PublishProperties::default()
                };
                peer.publish_with(topic, qos, false, format!("{{\"id\":{id}}}").as_bytes(), properties);
            }
            let read = read(source.as_mut(), 3);
            let (content, unit) = if version == "5" { (text("application/json"), text("mm/s")) } else { (Value::Null, Value::Null) };
            let expected: Vec<Vec<Value>> = [(0, "7", "vibration"), (2, "8", "temperature"), (3, "9", "temperature")]
                .into_iter()
                .map(|(id, machine, kind)| {
                    let topic = text(&topics[id as usize]);
                    let rest = [Value::Null, Value::Int(i128::from(qos)), Value::Bool(false), content.clone(), unit.clone()];
                    [vec![Value::Int(id), topic, text(machine), text(kind)], rest.to_vec()].concat()
                })
                .collect();
            assert_eq!(read.rows, expected, "{version} {qos}");
            assert!(read.dead_letters.is_empty());
            assert_eq!(read.next_offset, 3);
            assert!(!source.is_bounded());
        }
    }
}

#[test]
fn a_shared_subscription_is_split_over_its_members() {
    let broker = Broker::start();
    let def = |client: &str| source(&broker, "$share/workers/shared/+", &["topic"], &[("client_id", client)]);
    let mut members = [open(&def("one")), open(&def("two"))];
    for member in &mut members {
        ready(member.as_mut());
    }
    let peer = Peer::connect(broker.port);
    for id in 0..40 {
        peer.publish(&format!("shared/{id}"), 1, format!("{{\"id\":{id}}}").as_bytes());
    }
    let mut reads = [Read::default(), Read::default()];
    until("all messages", || {
        for (member, read) in members.iter_mut().zip(&mut reads) {
            poll(member.as_mut(), read);
            member.accepted(0, read.next_offset).unwrap();
        }
        (reads[0].records() + reads[1].records() >= 40).then_some(())
    });
    let [one, two] = reads.map(|read| read.ids());
    assert!(!one.is_empty() && !two.is_empty(), "{one:?} {two:?}");
    assert_eq!(one.iter().chain(&two).copied().collect::<BTreeSet<_>>(), (0..40).collect());
    assert_eq!(one.len() + two.len(), 40);
}

#[test]
fn tls_trusts_its_own_authority_and_shows_its_certificate() {
    let broker = Broker::prepare("");
    certificates(broker.folder.path());
    let place = broker.folder.path().display();
    let listener =
        format!("cafile {place}/ca.pem\ncertfile {place}/server.pem\nkeyfile {place}/server.key\nrequire_certificate true\nallow_anonymous true\n");
    let config = std::fs::read_to_string(broker.file("mosquitto.conf")).unwrap();
    let (first, rest) = config.split_once('\n').unwrap();
    std::fs::write(broker.file("mosquitto.conf"), format!("{first}\n{listener}{rest}")).unwrap();
    let mut broker = broker;
    broker.restart();
    let path = |name: &str| broker.file(name).display().to_string();
    let (url, ca, certificate, key) = (format!("mqtts://localhost:{}", broker.port), path("ca.pem"), path("client.pem"), path("client.key"));
    for version in ["3.1.1", "5"] {
        let options = [("url", url.as_str()), ("version", version), ("tls.ca", &ca), ("tls.client_cert", &certificate), ("tls.client_key", &key)];
        ready(open(&source(&broker, "t", &[], &options)).as_mut());
    }
    let mut nobody = open(&source(&broker, "t", &[], &[("url", &url), ("tls.ca", &ca)]));
    troubled(nobody.as_mut(), "broker localhost:");
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let wrong = other.path().join("ca.pem").display().to_string();
    let mut wary =
        open(&source(&broker, "t", &[], &[("url", &url), ("tls.ca", &wrong), ("tls.client_cert", &certificate), ("tls.client_key", &key)]));
    troubled(wary.as_mut(), "invalid peer certificate");
    let missing = BuiltIn.open_source(&source(&broker, "t", &[], &[("url", &url), ("tls.ca", "/nowhere/ca.pem")])).err().unwrap();
    assert!(missing.message.starts_with("source readings: cannot read certificates from /nowhere/ca.pem"), "{}", missing.message);
}

/// Until it says why it has nothing.
fn troubled(source: &mut dyn Source, expected: &str) {
    let mut nothing = Read::default();
    until(&format!("trouble with {expected}"), || {
        poll(source, &mut nothing);
        source.report().trouble.filter(|trouble| trouble.contains(expected))
    });
}

#[test]
fn names_and_passwords_are_checked_by_the_broker_and_told() {
    let mut broker = Broker::prepare("allow_anonymous false\n");
    let passwords = broker.file("passwords");
    let made = Command::new(binary("mosquitto_passwd")).args(["-b", "-c"]).arg(&passwords).args(["sensor", "right"]).status().unwrap();
    assert!(made.success());
    let mut config = std::fs::read_to_string(broker.file("mosquitto.conf")).unwrap();
    config.push_str(&format!("password_file {}\n", passwords.display()));
    std::fs::write(broker.file("mosquitto.conf"), config).unwrap();
    broker.restart();
    for version in ["3.1.1", "5"] {
        let with = |password: &'static str| open(&source(&broker, "t", &[], &[("version", version), ("username", "sensor"), ("password", password)]));
        ready(with("right").as_mut());
        troubled(with("wrong").as_mut(), "it refuses client freshet-source-readings-");
    }
}

#[test]
fn a_broker_that_is_away_at_the_start_is_waited_for() {
    let mut broker = Broker::prepare("allow_anonymous true\n");
    let mut source = open(&source(&broker, "t/#", &[], &[]));
    troubled(source.as_mut(), "Connection refused");
    broker.restart();
    ready(source.as_mut());
    Peer::connect(broker.port).publish("t/1", 1, b"{\"id\":1}");
    assert_eq!(read(source.as_mut(), 1).ids(), [1]);
}

#[test]
fn nothing_is_lost_or_doubled_when_the_broker_is_killed_and_comes_back() {
    for (version, qos) in [("3.1.1", "1"), ("3.1.1", "2"), ("5", "1"), ("5", "2")] {
        let mut broker = Broker::start();
        let mut source = open(&source(&broker, "t/#", &[], &[("version", version), ("qos", qos)]));
        ready(source.as_mut());
        let quality = qos.parse().unwrap();
        let peer = Peer::connect(broker.port);
        for id in 0..10 {
            peer.publish("t/1", quality, format!("{{\"id\":{id}}}").as_bytes());
        }
        let mut all = read(source.as_mut(), 10);
        // Half of them are acknowledged, the others not: the broker sends those again after the break.
        source.accepted(0, 5).unwrap();
        let acknowledged = if qos == "1" { "Received PUBACK from freshet" } else { "Sending PUBREL to freshet" };
        until("five acknowledgements", || (broker.log().matches(acknowledged).count() >= 5).then_some(()));
        drop(peer);
        broker.terminate();
        troubled(source.as_mut(), "broker 127.0.0.1");
        source.accepted(0, 7).unwrap();
        broker.restart();
        let peer = Peer::connect(broker.port);
        for id in 10..20 {
            peer.publish("t/1", quality, format!("{{\"id\":{id}}}").as_bytes());
        }
        until("the rest", || {
            poll(source.as_mut(), &mut all);
            (all.records() >= 20).then_some(())
        });
        source.accepted(0, 20).unwrap();
        let settled = if qos == "1" { "Received PUBACK from freshet" } else { "Received PUBCOMP from freshet" };
        until("everything is settled", || (broker.log().matches(settled).count() >= 20).then_some(()));
        poll(source.as_mut(), &mut all);
        assert_eq!(all.ids(), (0..20).collect::<Vec<_>>(), "{version} {qos}");
        assert_eq!(source.report().trouble, None);
        // Killed while nothing is under way: the subscription is there again.
        until("the broker has saved", || broker.file("mosquitto.db").exists().then_some(()));
        broker.kill();
        troubled(source.as_mut(), "broker 127.0.0.1");
        broker.restart();
        // A broker that is killed may have forgotten an acknowledgement, but no subscription.
        let again = all.ids();
        let mut rest = Read::default();
        until("the source is connected", || {
            poll(source.as_mut(), &mut rest);
            source.report().trouble.is_none().then_some(())
        });
        Peer::connect(broker.port).publish("t/2", quality, b"{\"id\":99}");
        until("the last message", || {
            poll(source.as_mut(), &mut rest);
            rest.ids().contains(&99).then_some(())
        });
        assert!(rest.ids().iter().all(|id| *id == 99 || again.contains(id)), "{version} {qos}");
    }
}

#[test]
fn what_was_not_accepted_comes_again_to_the_next_run() {
    for (version, qos) in [("3.1.1", "1"), ("5", "1"), ("5", "2")] {
        let broker = Broker::start();
        let def = source(&broker, "t/#", &[], &[("version", version), ("qos", qos)]);
        let mut first = open(&def);
        ready(first.as_mut());
        let peer = Peer::connect(broker.port);
        for id in 0..6 {
            peer.publish("t/1", 2, format!("{{\"id\":{id}}}").as_bytes());
        }
        assert_eq!(read(first.as_mut(), 6).ids(), [0, 1, 2, 3, 4, 5]);
        first.accepted(0, 2).unwrap();
        let answer = if qos == "1" { "Received PUBACK from freshet" } else { "Received PUBCOMP from freshet" };
        until("two are settled", || (broker.log().matches(answer).count() >= 2).then_some(()));
        drop(first);
        peer.publish("t/1", 2, b"{\"id\":6}");
        let mut second = open(&def);
        second.seek(0, 2).unwrap();
        let again = read(second.as_mut(), 5);
        assert_eq!(again.ids(), [2, 3, 4, 5, 6], "{version} {qos}");
        assert_eq!(again.next_offset, 7);
        second.accepted(0, 7).unwrap();
        until("all are settled", || (broker.log().matches(answer).count() >= 7).then_some(()));
        drop(second);
        let mut third = open(&def);
        third.seek(0, 7).unwrap();
        ready(third.as_mut());
    }
}

#[test]
fn with_a_data_directory_a_small_window_of_the_broker_waits_for_no_checkpoint_and_a_crash_loses_nothing() {
    for qos in ["1", "2"] {
        // Without a word of the client a broker of 3.1.1 lets 20 messages be unacknowledged.
        let broker = Broker::start();
        let folder = tempfile::tempdir().unwrap();
        let def = source(&broker, "t/#", &["topic"], &[("version", "3.1.1"), ("qos", qos)]);
        let open = |offset: u64| {
            let mut source = PipelineConnectors::new(Some(folder.path())).open_source(&def).unwrap();
            source.seek(0, offset).unwrap();
            source
        };
        let mut first = open(0);
        ready(first.as_mut());
        let peer = Peer::connect(broker.port);
        for id in 0..200 {
            peer.publish("t/1", 2, format!("{{\"id\":{id}}}").as_bytes());
        }
        assert_eq!(read(first.as_mut(), 200).ids(), (0..200).collect::<Vec<_>>());
        let answer = if qos == "1" { "Received PUBACK from freshet" } else { "Received PUBCOMP from freshet" };
        until("all are settled", || (broker.log().matches(answer).count() >= 200).then_some(()));
        first.accepted(0, 100).unwrap();
        drop(first);
        peer.publish("t/1", 2, b"{\"id\":200}");
        let mut second = open(150);
        let again = read(second.as_mut(), 51);
        assert_eq!((again.ids(), again.next_offset), ((150..=200).collect::<Vec<_>>(), 201), "quality {qos}");
        assert_eq!(again.rows[0][1], text("t/1"));
        second.accepted(0, 201).unwrap();
        drop(second);
        peer.publish("t/1", 2, b"{\"id\":201}");
        assert_eq!(read(open(201).as_mut(), 1).ids(), [201]);
    }
}

#[test]
fn retained_messages_come_first_and_once() {
    for version in ["3.1.1", "5"] {
        let mut broker = Broker::start();
        let peer = Peer::connect(broker.port);
        peer.publish_with("state/1", 1, true, b"{\"id\":1}", PublishProperties::default());
        let mut source = open(&source(&broker, "state/#", &["retain"], &[("version", version)]));
        let kept = read(source.as_mut(), 1);
        assert_eq!(kept.rows, [vec![Value::Int(1), Value::Bool(true)]]);
        peer.publish_with("state/1", 1, true, b"{\"id\":2}", PublishProperties::default());
        assert_eq!(read(source.as_mut(), 1).rows, [vec![Value::Int(2), Value::Bool(false)]]);
        source.accepted(0, 2).unwrap();
        until("both are settled", || (broker.log().matches("Received PUBACK from freshet").count() >= 2).then_some(()));
        drop(peer);
        broker.terminate();
        troubled(source.as_mut(), "broker 127.0.0.1");
        broker.restart();
        ready(source.as_mut());
    }
}

#[test]
fn bad_payloads_are_dead_letters_that_name_their_topic() {
    let broker = Broker::start();
    for version in ["3.1.1", "5"] {
        let mut source = open(&source(&broker, "bad/#", &[], &[("version", version), ("max_record_bytes", "1000")]));
        ready(source.as_mut());
        let peer = Peer::connect(broker.port);
        peer.publish("bad/a", 1, b"{\"id\":");
        peer.publish("bad/b", 1, b"{\"id\":\"x\"}");
        peer.publish("bad/c", 1, b"");
        peer.publish("bad/d", 1, &vec![b' '; 2000]);
        peer.publish("bad/e", 1, &vec![b'x'; 3 << 20]);
        peer.publish("bad/f", 1, b"\xff\xfe");
        peer.publish("bad/g", 1, b"{\"id\":7}");
        let read = read(source.as_mut(), 7);
        assert_eq!(read.ids(), [7], "{version}");
        let places: Vec<(&str, u64)> = read.dead_letters.iter().map(|letter| (letter.origin.as_str(), letter.offset)).collect();
        assert_eq!(places, [("bad/a", 0), ("bad/b", 1), ("bad/c", 2), ("bad/d", 3), ("bad/e", 4), ("bad/f", 5)], "{version}");
        assert_eq!(read.dead_letters[1].field, "id");
        assert!(read.dead_letters[3].reason.contains("2000 bytes"), "{}", read.dead_letters[3].reason);
        assert!(read.dead_letters[4].reason.contains("max_record_bytes is 1000"), "{}", read.dead_letters[4].reason);
        assert!(read.dead_letters[4].raw.len() <= 64 << 10);
        assert_eq!(source.report().trouble, None, "the connection lives on");
        source.accepted(0, read.next_offset).unwrap();
    }
}

#[test]
fn a_poller_that_pauses_holds_the_broker_back_and_keeps_the_connection() {
    let broker = Broker::start();
    for version in ["3.1.1", "5"] {
        let mut source = open(&source(&broker, "big/#", &["topic"], &[("version", version), ("qos", "0"), ("keep_alive", "1s")]));
        ready(source.as_mut());
        let peer = Peer::connect(broker.port);
        let payload = format!("{{\"id\":1,\"rest\":\"{}\"}}", "x".repeat(1 << 20));
        for number in 0..30 {
            peer.publish(&format!("big/{number}"), 0, payload.as_bytes());
        }
        let full = 16;
        until("the queue is full", || (source.report().lag_rows.unwrap() >= full).then_some(()));
        // Twice as long as a broker waits for a sign of life.
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_millis(3500) {
            let report = source.report();
            assert_eq!(report.trouble, None);
            assert!(report.lag_rows.unwrap() <= full + 1, "{report:?}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        assert_eq!(read(source.as_mut(), 30).rows.len(), 30);
    }
}

#[test]
fn mistakes_in_a_declaration_are_told_before_anything_connects() {
    let broker = Broker::prepare("");
    let refuse = |topic: &str, metadata: &[&str], options: &[(&str, &str)]| {
        let error = BuiltIn.check_source(&source(&broker, topic, metadata, options)).unwrap_err();
        (error.option.unwrap_or_default(), error.message)
    };
    assert_eq!(refuse("t", &[], &[("topik", "x")]), ("topik".into(), "the mqtt connector has no option topik; did you mean topic?".into()));
    assert_eq!(refuse("a/#/b", &[], &[]).0, "topic");
    assert_eq!(refuse("t", &[], &[("qos", "3")]), ("qos".into(), "qos is '0', '1' or '2', found '3'".into()));
    assert_eq!(refuse("t", &[], &[("url", "localhost")]).0, "url");
    let (_, message) = refuse("t", &["offset"], &[]);
    assert!(message.starts_with("an MQTT message has no metadata offset; it has topic, level.1"), "{message}");
}

//! Options of Kafka sources and sinks: every spelling that peers use, and what is refused with which remedy.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use freshet_core::{Encode, Format, MetadataColumn};

use super::*;
use crate::kafka::check_source;

fn source(options: &[(&str, &str)]) -> SourceDef {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true)]);
    let mut def = SourceDef::new("orders", Arc::new(schema), "kafka", Format::Plain, Encode::Json);
    let given = [("properties.bootstrap.server", "localhost:9092"), ("topic", "orders")];
    def.options = given.iter().chain(options).map(|(name, value)| (name.to_string(), value.to_string())).collect();
    def.options.retain(|_, value| value != "-");
    def
}

fn error(options: &[(&str, &str)]) -> (String, String) {
    let error = check_source(&source(options)).unwrap_err();
    (error.option.unwrap_or_default(), error.message)
}

fn parse(options: &[(&str, &str)]) -> SourceOptions {
    SourceOptions::parse(&source(options)).unwrap_or_else(|error| panic!("{}", error.message))
}

#[test]
fn brokers_are_named_as_peers_name_them() {
    for name in SERVERS {
        let options = parse(&[("properties.bootstrap.server", "-"), (name, " a:1,b:2 ")]);
        assert_eq!(options.connection.servers, "a:1,b:2");
    }
    assert!(error(&[("bootstrap.servers", "x")]).1.starts_with("brokers are named twice"));
    let none = error(&[("properties.bootstrap.server", "-")]);
    assert_eq!(none.1, "the kafka connector needs properties.bootstrap.server = 'host:port, …', the brokers to begin with");
    assert_eq!(error(&[("topic", "-")]).1, "the kafka connector needs topic = '…', the topic to read");
    assert!(error(&[("topic", "a,b")]).1.contains("one source reads one topic"));
}

#[test]
fn where_reading_begins_has_four_modes() {
    assert_eq!(parse(&[]).begin, Begin::Earliest);
    assert_eq!(parse(&[("scan.startup.mode", "earliest-offset")]).begin, Begin::Earliest);
    assert_eq!(parse(&[("scan.startup", "Latest")]).begin, Begin::Latest);
    assert_eq!(parse(&[("scan.startup.timestamp.millis", "17")]).begin, Begin::Timestamp(17));
    let text = [("scan.startup.mode", "timestamp"), ("scan.startup.timestamp.millis", "1970-01-01T00:00:01.5Z")];
    assert_eq!(parse(&text).begin, Begin::Timestamp(1_500));
    for written in ["partition:0,offset:42;partition:3,offset:300", "0:42, 3:300"] {
        let options = parse(&[("scan.startup.mode", "specific-offsets"), ("scan.startup.specific-offsets", written)]);
        assert_eq!(options.begin, Begin::Offsets([(0, 42), (3, 300)].into()));
    }
    let wrong = [
        (vec![("scan.startup.mode", "middle")], "scan.startup.mode"),
        (vec![("scan.startup.mode", "group-offsets")], "scan.startup.mode"),
        (vec![("scan.startup.mode", "timestamp")], "scan.startup.mode"),
        (vec![("scan.startup.mode", "latest"), ("scan.startup.timestamp.millis", "1")], "scan.startup.timestamp.millis"),
        (vec![("scan.startup.timestamp.millis", "noon")], "scan.startup.timestamp.millis"),
        (vec![("scan.startup.specific-offsets", "0=1")], "scan.startup.specific-offsets"),
        (vec![("scan.startup.specific-offsets", "0:1,0:2")], "scan.startup.specific-offsets"),
        (vec![("scan.startup", "latest"), ("scan.startup.mode", "latest")], "scan.startup"),
    ];
    for (options, place) in wrong {
        assert_eq!(error(&options).0, place, "{options:?}");
    }
}

#[test]
fn where_reading_ends_is_never_unless_it_is_said() {
    assert_eq!(parse(&[]).end, End::Never);
    assert_eq!(parse(&[("scan.bounded.mode", "latest-offset")]).end, End::Latest);
    assert_eq!(parse(&[("scan.bounded.specific-offsets", "partition:1,offset:7")]).end, End::Offsets([(1, 7)].into()));
    assert_eq!(error(&[("scan.bounded.mode", "specific-offsets")]).0, "scan.bounded.mode");
    assert_eq!(error(&[("scan.bounded.mode", "latest-offset"), ("scan.bounded.specific-offsets", "0:1")]).0, "scan.bounded.specific-offsets");
}

#[test]
fn discovery_can_be_turned_off() {
    assert_eq!(parse(&[]).discovery, Some(DISCOVERY));
    assert_eq!(parse(&[("partition.discovery.interval", "200ms")]).discovery, Some(Duration::from_millis(200)));
    assert_eq!(parse(&[("partition.discovery.interval", "0")]).discovery, None);
    assert_eq!(error(&[("partition.discovery.interval", "often")]).0, "partition.discovery.interval");
}

#[test]
fn unknown_options_name_the_nearest() {
    let (place, message) = error(&[("scan.startup.mod", "latest")]);
    assert_eq!(
        (place.as_str(), message.as_str()),
        ("scan.startup.mod", "the kafka connector has no option scan.startup.mod; did you mean scan.startup.mode?")
    );
    let (place, message) = error(&[("properties.fetch.min.byte", "1")]);
    assert_eq!(place, "properties.fetch.min.byte");
    assert_eq!(message, "the Kafka client has no property fetch.min.byte; did you mean properties.fetch.min.bytes?");
    assert_eq!(
        error(&[("security.protocol", "ssl")]).1,
        "security.protocol is a property of the Kafka client; write it as properties.security.protocol"
    );
    assert!(error(&[("properties.enable.auto.commit", "true")]).1.contains("offsets are kept in checkpoints"));
    assert!(error(&[("properties.plugin.library.paths", "/tmp/x.so")]).1.contains("code is not loaded from options"));
    assert!(error(&[("properties.sasl.jaas.config", "x password=\"geheim\"")]).1.contains("use properties.sasl.username"));
    let (_, message) = error(&[("properties.fetch.min.bytes", "many")]);
    assert!(message.starts_with("properties.fetch.min.bytes = 'many' is not valid"), "{message}");
}

#[test]
fn secrets_are_not_shown() {
    for property in ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config"] {
        assert!(is_secret(property), "{property}");
    }
    assert!(!is_secret("ssl.key.location") && !is_secret("sasl.username"));
    let (_, message) = error(&[("properties.ssl.key.pem", "geheim"), ("properties.sasl.pasword", "geheim")]);
    assert!(!message.contains("geheim"), "{message}");
}

#[test]
fn metadata_has_names_and_types() {
    let with = |name: &str, column: usize| {
        let mut def = source(&[]);
        def.metadata = vec![MetadataColumn { column, name: name.into() }];
        check_source(&def)
    };
    assert!(with("offset", 0).is_ok() && with("timestamp", 1).is_ok());
    let error = with("level.1", 0).unwrap_err();
    assert_eq!(error.option.as_deref(), Some("metadata.level.1"));
    assert_eq!(error.message, "a Kafka record has no metadata level.1; it has key, timestamp, offset, partition, topic, headers and header.NAME");
    assert_eq!(with("timestamp", 0).unwrap_err().message, "timestamp is TIMESTAMP(3), but column id is BIGINT; declare it TIMESTAMP(3)");
}

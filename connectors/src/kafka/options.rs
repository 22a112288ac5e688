//! WITH options of Kafka as typed values. In: names and texts, spelled as RisingWave or Flink do. Out: values, or an error that names the
//! option and its remedy; a secret is never in it.

use std::collections::BTreeMap;
use std::time::Duration;

use freshet_core::{OptionError, SinkDef, SourceDef};

use crate::options::{check_names, duration, nearest, wrong};
use crate::reject::{ON_REJECT, Rejects};
use crate::{decode, encode};

/// How often new partitions are looked for. 30 s: the default of peers is between 10 s and 5 minutes; a look costs one small request.
const DISCOVERY: Duration = Duration::from_secs(30);

const SERVERS: [&str; 4] = ["properties.bootstrap.server", "properties.bootstrap.servers", "bootstrap.servers", "bootstrap_servers"];
const TOPIC: &str = "topic";
const START_MODE: &str = "scan.startup.mode";
const START_MODE_SHORT: &str = "scan.startup";
const START_TIMESTAMP: &str = "scan.startup.timestamp.millis";
const START_OFFSETS: &str = "scan.startup.specific-offsets";
const END_MODE: &str = "scan.bounded.mode";
const END_OFFSETS: &str = "scan.bounded.specific-offsets";
const DISCOVERY_INTERVAL: &str = "partition.discovery.interval";
const PROPERTY: &str = "properties.";

/// What librdkafka knows and a pipeline may set.
const PROPERTIES: [&str; 60] = [
    "acks",
    "api.version.request.timeout.ms",
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "broker.address.ttl",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "isolation.level",
    "linger.ms",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "message.max.bytes",
    "metadata.max.age.ms",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retries",
    "retry.backoff.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "topic.metadata.refresh.interval.ms",
];

/// Where reading begins in a partition of which no checkpoint knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    Earliest,
    Latest,
    /// Milliseconds since 1970: at the first record of this time or later.
    Timestamp(i64),
    /// Partitions that are not named begin at their earliest record.
    Offsets(BTreeMap<u32, u64>),
}

/// Where reading ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Never,
    /// At the offsets that were the partitions' ends at the start.
    Latest,
    /// Before these offsets; other partitions are not read.
    Offsets(BTreeMap<u32, u64>),
}

/// Where brokers are and how to talk to them.
#[derive(Clone)]
pub struct Connection {
    pub servers: String,
    pub topic: String,
    /// What librdkafka is told besides, without `properties.`; may hold secrets.
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone)]
pub struct SourceOptions {
    pub connection: Connection,
    pub begin: Begin,
    pub end: End,
    /// None: partitions that are added are not looked for.
    pub discovery: Option<Duration>,
}

impl SourceOptions {
    pub fn parse(def: &SourceDef) -> Result<SourceOptions, OptionError> {
        let mut known = vec![TOPIC, START_MODE, START_MODE_SHORT, START_TIMESTAMP, START_OFFSETS, END_MODE, END_OFFSETS, DISCOVERY_INTERVAL];
        known.push("bad_data");
        known.extend(decode::source_options(def.format, def.encode));
        let options = &def.options;
        let connection = Connection::parse(options, &known, "read", &READER_OWN)?;
        let begin = begin(options)?;
        let end = end(options)?;
        let discovery = Some(duration(options, DISCOVERY_INTERVAL, DISCOVERY)?).filter(|interval| !interval.is_zero());
        Ok(SourceOptions { connection, begin, end, discovery })
    }
}

/// Where a sink writes.
#[derive(Clone)]
pub struct SinkOptions {
    pub connection: Connection,
    pub rejects: Rejects,
}

impl SinkOptions {
    pub fn parse(def: &SinkDef) -> Result<SinkOptions, OptionError> {
        let mut known = vec![TOPIC, "primary_key", ON_REJECT];
        known.extend(encode::sink_options(def.format, def.encode));
        let connection = Connection::parse(&def.options, &known, "write", &WRITER_OWN)?;
        Ok(SinkOptions { connection, rejects: Rejects::parse(&def.name, &def.options)? })
    }
}

/// What the source sets itself, and why.
const READER_OWN: [(&str, &str); 9] = [
    ("auto.commit.enable", OFFSETS),
    ("auto.offset.reset", "where reading begins is scan.startup.mode"),
    ("enable.auto.commit", OFFSETS),
    ("enable.auto.offset.store", OFFSETS),
    ("enable.partition.eof", "the end of a partition is needed"),
    ("group.instance.id", OFFSETS),
    ("metadata.broker.list", "name brokers with properties.bootstrap.server"),
    ("plugin.library.paths", "code is not loaded from options"),
    ("statistics.interval.ms", "lag is taken from them"),
];
const OFFSETS: &str = "offsets are kept in checkpoints, not in the consumer group";

/// What the sink sets itself, and why.
const WRITER_OWN: [(&str, &str); 8] = [
    ("acks", "the producer is idempotent, which means all"),
    ("enable.idempotence", "the producer is always idempotent"),
    ("delivery.timeout.ms", "a record is sent until it is delivered"),
    ("message.timeout.ms", "a record is sent until it is delivered"),
    ("request.required.acks", "the producer is idempotent, which means all"),
    ("metadata.broker.list", "name brokers with properties.bootstrap.server"),
    ("plugin.library.paths", "code is not loaded from options"),
    ("transactional.id", "transactions are not in this build yet"),
];

impl Connection {
    fn parse(options: &BTreeMap<String, String>, known: &[&str], verb: &str, own: &[(&str, &str)]) -> Result<Connection, OptionError> {
        let mut known = known.to_vec();
        known.extend(SERVERS);
        let plain = options.keys().filter(|name| !name.starts_with(PROPERTY));
        for name in plain.clone() {
            if !known.contains(&name.as_str()) && PROPERTIES.contains(&name.as_str()) {
                return Err(wrong(name, format!("{name} is a property of the Kafka client; write it as properties.{name}")));
            }
        }
        check_names("kafka", plain, &known)?;
        let mut servers = None;
        for name in SERVERS {
            if let Some(value) = options.get(name)
                && servers.replace(value).is_some()
            {
                return Err(wrong(name, format!("brokers are named twice; remove {name} or the other one")));
            }
        }
        let Some(servers) = servers else {
            return Err(OptionError {
                option: None,
                message: "the kafka connector needs properties.bootstrap.server = 'host:port, …', the brokers to begin with".into(),
            });
        };
        if servers.trim().is_empty() {
            return Err(wrong(named(options), "the list of brokers is empty; name at least one as host:port"));
        }
        let topic = crate::options::required("kafka", options, TOPIC, &format!("the topic to {verb}"))?;
        check_topic(topic)?;
        Ok(Connection { servers: servers.trim().into(), topic: topic.into(), properties: properties(options, own)? })
    }
}

/// The name under which brokers were given.
fn named(options: &BTreeMap<String, String>) -> &'static str {
    SERVERS.into_iter().find(|name| options.contains_key(*name)).unwrap_or(SERVERS[0])
}

fn check_topic(topic: &str) -> Result<(), OptionError> {
    let legal =
        topic.len() <= 249 && topic != "." && topic != ".." && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if legal {
        return Ok(());
    }
    Err(wrong(TOPIC, format!("'{topic}' is no name of a topic: letters, digits, '.', '_' and '-', at most 249; one source reads one topic")))
}

fn properties(options: &BTreeMap<String, String>, own: &[(&str, &str)]) -> Result<BTreeMap<String, String>, OptionError> {
    let mut found = BTreeMap::new();
    for (name, value) in options {
        let Some(property) = name.strip_prefix(PROPERTY) else { continue };
        if SERVERS.contains(&name.as_str()) {
            continue;
        }
        if let Some((_, reason)) = own.iter().find(|(own, _)| *own == property) {
            return Err(wrong(name, format!("{name} cannot be set: {reason}; remove it")));
        }
        if property == "sasl.jaas.config" {
            return Err(wrong(name, format!("{name} is for Java clients; use properties.sasl.username and properties.sasl.password")));
        }
        check_property(name, property, value)?;
        found.insert(property.to_string(), value.clone());
    }
    Ok(found)
}

/// Errors: librdkafka does not know the property, or not this value. The value of a secret is not shown.
fn check_property(name: &str, property: &str, value: &str) -> Result<(), OptionError> {
    let mut config = rdkafka::ClientConfig::new();
    config.set(property, value);
    let Err(error) = config.create_native_config() else { return Ok(()) };
    let unknown = matches!(&error, rdkafka::error::KafkaError::ClientConfig(rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..));
    if unknown {
        let hint = match nearest(property, &PROPERTIES) {
            Some(nearest) => format!("did you mean {PROPERTY}{nearest}?"),
            None => "the names are those of librdkafka".into(),
        };
        return Err(wrong(name, format!("the Kafka client has no property {property}; {hint}")));
    }
    if is_secret(property) {
        return Err(wrong(name, format!("the value of {name} is not valid")));
    }
    let reason = match error {
        rdkafka::error::KafkaError::ClientConfig(_, reason, _, _) => reason,
        other => other.to_string(),
    };
    Err(wrong(name, format!("{name} = '{value}' is not valid: {reason}")))
}

/// Whether the value of a property must not be shown.
pub fn is_secret(property: &str) -> bool {
    ["password", "secret", "passphrase", "token", "key", "pem", "oauthbearer.config"].iter().any(|part| property.contains(part))
        && !property.ends_with("location")
}

fn begin(options: &BTreeMap<String, String>) -> Result<Begin, OptionError> {
    let name = if options.contains_key(START_MODE) { START_MODE } else { START_MODE_SHORT };
    if options.contains_key(START_MODE) && options.contains_key(START_MODE_SHORT) {
        return Err(wrong(START_MODE_SHORT, format!("{START_MODE_SHORT} and {START_MODE} are one option; remove one")));
    }
    let mode = options.get(name).map(|text| text.to_ascii_lowercase());
    let begin = match mode.as_deref() {
        None => match (options.get(START_TIMESTAMP), options.get(START_OFFSETS)) {
            (Some(_), None) => Begin::Timestamp(timestamp(options)?),
            (None, Some(text)) => Begin::Offsets(offsets(START_OFFSETS, text)?),
            (Some(_), Some(_)) => {
                return Err(wrong(START_OFFSETS, format!("reading begins at offsets or at a timestamp, not at both; say which with {START_MODE}")));
            }
            (None, None) => Begin::Earliest,
        },
        Some("earliest" | "earliest-offset") => Begin::Earliest,
        Some("latest" | "latest-offset") => Begin::Latest,
        Some("timestamp") => Begin::Timestamp(timestamp(options)?),
        Some("offsets" | "specific-offsets") => match options.get(START_OFFSETS) {
            Some(text) => Begin::Offsets(offsets(START_OFFSETS, text)?),
            None => return Err(wrong(name, format!("{name} = 'offsets' needs {START_OFFSETS} = 'partition:0,offset:42;partition:1,offset:300'"))),
        },
        Some("group-offsets") => return Err(wrong(name, format!("{OFFSETS}; use 'earliest', 'latest', 'timestamp' or 'offsets'"))),
        Some(other) => return Err(wrong(name, format!("{name} is 'earliest', 'latest', 'timestamp' or 'offsets', not '{other}'"))),
    };
    let unused = |option: &str, rule: &str| Err(wrong(option, format!("{option} goes with {START_MODE} = '{rule}'; remove it, or say so")));
    if options.contains_key(START_TIMESTAMP) && !matches!(begin, Begin::Timestamp(_)) {
        return unused(START_TIMESTAMP, "timestamp");
    }
    if options.contains_key(START_OFFSETS) && !matches!(begin, Begin::Offsets(_)) {
        return unused(START_OFFSETS, "offsets");
    }
    Ok(begin)
}

fn end(options: &BTreeMap<String, String>) -> Result<End, OptionError> {
    let offsets_text = options.get(END_OFFSETS);
    let end = match (options.get(END_MODE).map(|text| text.to_ascii_lowercase()).as_deref(), offsets_text) {
        (None | Some("unbounded"), None) => End::Never,
        (Some("latest" | "latest-offset"), None) => End::Latest,
        (None | Some("offsets" | "specific-offsets"), Some(text)) => End::Offsets(offsets(END_OFFSETS, text)?),
        (Some("offsets" | "specific-offsets"), None) => {
            return Err(wrong(END_MODE, format!("{END_MODE} = 'specific-offsets' needs {END_OFFSETS} = 'partition:0,offset:42;…'")));
        }
        (Some(mode @ ("unbounded" | "latest" | "latest-offset")), Some(_)) => {
            return Err(wrong(END_OFFSETS, format!("{END_OFFSETS} does not go with {END_MODE} = '{mode}'; remove one")));
        }
        (Some(other), _) => return Err(wrong(END_MODE, format!("{END_MODE} is 'latest-offset', 'specific-offsets' or 'unbounded', not '{other}'"))),
    };
    Ok(end)
}

/// Milliseconds since 1970, or a time as text.
fn timestamp(options: &BTreeMap<String, String>) -> Result<i64, OptionError> {
    let Some(text) = options.get(START_TIMESTAMP) else {
        return Err(wrong(START_MODE, format!("{START_MODE} = 'timestamp' needs {START_TIMESTAMP} = '1700000000000'")));
    };
    let millis = text.trim().parse().ok().or_else(|| Some(chrono::DateTime::parse_from_rfc3339(text.trim()).ok()?.timestamp_millis()));
    millis.filter(|millis| *millis >= 0).ok_or_else(|| {
        wrong(START_TIMESTAMP, format!("{START_TIMESTAMP} is milliseconds since 1970 or a time such as 2025-01-31T12:00:00Z, not '{text}'"))
    })
}

/// `partition:0,offset:42;partition:1,offset:300` as Flink writes it, or `0:42, 1:300`.
fn offsets(name: &str, text: &str) -> Result<BTreeMap<u32, u64>, OptionError> {
    let invalid = || wrong(name, format!("{name} is written 'partition:0,offset:42;partition:1,offset:300', found '{text}'"));
    let pair = |left: &str, right: &str| {
        Some((left.trim().parse::<u32>().ok()?, right.trim().parse::<u64>().ok().filter(|offset| *offset <= i64::MAX as u64)?))
    };
    let long = text.contains("offset");
    let mut found = BTreeMap::new();
    for entry in text.split(if long { ';' } else { ',' }).filter(|entry| !entry.trim().is_empty()) {
        let parsed = if long {
            entry
                .split_once(',')
                .and_then(|(partition, offset)| pair(partition.trim().strip_prefix("partition:")?, offset.trim().strip_prefix("offset:")?))
        } else {
            entry.split_once(':').and_then(|(partition, offset)| pair(partition, offset))
        };
        let (partition, offset) = parsed.ok_or_else(invalid)?;
        if found.insert(partition, offset).is_some() {
            return Err(wrong(name, format!("{name} names partition {partition} twice")));
        }
    }
    if found.is_empty() { Err(invalid()) } else { Ok(found) }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;

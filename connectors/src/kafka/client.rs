//! What librdkafka is told, and what it says. In: options; its logs, errors and statistics. Out: configurations; the partitions' ends, and why
//! brokers cannot be reached, as one sentence. No secret is in a sentence.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use freshet_core::{Error, Result};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Deserialize;

use super::options::Connection;

pub type Consumer = BaseConsumer<Listener>;

/// What the consumer fetches ahead of the reader: enough to hide a round trip at a million records a second, little beside a step.
const FETCHED_KBYTES_MAX: u32 = 32 << 10;
/// One answer of a broker.
const FETCH_BYTES_MAX: u32 = 8 << 20;
/// How often the partitions' ends and the brokers' states are told.
const STATISTICS_MS: u32 = 1_000;
/// What the producer holds of records that are not delivered yet.
const UNSENT_KBYTES_MAX: u32 = 64 << 10;

/// What the threads of a client know of its brokers.
#[derive(Default)]
pub struct Watch {
    topic: String,
    state: Mutex<WatchState>,
}

#[derive(Default)]
struct WatchState {
    trouble: Option<String>,
    /// What librdkafka said last of a connection that failed.
    last_words: Option<String>,
    /// Per partition: the offset behind its last record that may be read.
    ends: BTreeMap<u32, u64>,
}

impl Watch {
    pub fn new(topic: &str) -> Arc<Watch> {
        Arc::new(Watch { topic: topic.into(), state: Mutex::default() })
    }

    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    pub fn set_trouble(&self, trouble: Option<String>) {
        self.state().trouble = trouble;
    }

    /// Something has come from a broker.
    pub fn clear(&self) {
        let mut state = self.state();
        state.trouble = None;
        state.last_words = None;
    }

    /// What was said last of a connection or a record that failed.
    pub fn words(&self) -> Option<String> {
        self.state().last_words.clone()
    }

    pub fn set_words(&self, words: String) {
        self.state().last_words = Some(words);
    }

    pub fn set_end(&self, partition: u32, end: u64) {
        self.state().ends.insert(partition, end);
    }

    pub fn end(&self, partition: u32) -> Option<u64> {
        self.state().ends.get(&partition).copied()
    }

    /// Why a request has failed: what was said of the connection, else the error itself.
    pub fn reason(&self, error: &KafkaError) -> String {
        self.state().last_words.clone().unwrap_or_else(|| match error.rdkafka_error_code() {
            Some(code) => described(code),
            None => error.to_string(),
        })
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(&self, statistics: &Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let mut state = self.state();
        for (id, partition) in &topic.partitions {
            let end = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
            if let (Ok(id), Ok(end)) = (id.parse::<u32>(), u64::try_from(end)) {
                state.ends.insert(id, end);
            }
        }
        match absent_leaders(statistics, topic) {
            None => state.trouble = None,
            Some(absent) => {
                let words = state.last_words.as_ref().map_or(String::new(), |words| format!(": {words}"));
                state.trouble = Some(format!("{absent}{words}"));
            }
        }
    }
}

/// `BrokerTransportFailure (Local: Broker transport failure)` without its name.
pub fn described(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    let inner = text.split_once(" (").and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(text.clone(), |inner| inner.trim_start_matches("Local: ").trim_start_matches("Broker: ").to_lowercase())
}

/// Who should lead partitions that are read, and is not there.
fn absent_leaders(statistics: &Statistics, topic: &TopicStatistics) -> Option<String> {
    let mut absent: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (id, partition) in &topic.partitions {
        let Some(id) = id.parse::<i32>().ok().filter(|id| *id >= 0 && partition.desired) else { continue };
        let broker = statistics.brokers.values().find(|broker| broker.nodeid == partition.leader && broker.nodeid >= 0);
        match broker {
            Some(broker) if matches!(broker.state.as_str(), "UP" | "UPDATE" | "REAUTH") => {}
            Some(broker) => absent.entry(format!("broker {} is away", broker.nodename)).or_default().push(id),
            None => absent.entry("there is no leader".into()).or_default().push(id),
        }
    }
    let (who, mut partitions) = absent.into_iter().next()?;
    partitions.sort_unstable();
    let shown: Vec<String> = partitions.iter().take(8).map(i32::to_string).collect();
    let more = if partitions.len() > shown.len() { ", …" } else { "" };
    Some(format!("{who} for partition {}{more}", shown.join(", ")))
}

/// The part of librdkafka's statistics that is used.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, BrokerStatistics>,
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    nodeid: i32,
    nodename: String,
    state: String,
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    leader: i32,
    desired: bool,
    hi_offset: i64,
    ls_offset: i64,
}

/// Takes what librdkafka says into a [`Watch`].
pub struct Listener(pub Arc<Watch>);

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(facility, "FAIL" | "ERROR" | "SSL") && (level as i32) <= (RDKafkaLogLevel::Warning as i32) {
            self.0.state().last_words = Some(plain(message));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, Authentication, GroupAuthorizationFailed, PartitionEOF, Resolve, SSL};
        match error.rdkafka_error_code() {
            // The group is there for librdkafka only; who may not use it reads all the same.
            Some(PartitionEOF | GroupAuthorizationFailed) => {}
            Some(AllBrokersDown) => {
                let mut state = self.0.state();
                let words = state.last_words.clone().unwrap_or_else(|| plain(reason));
                state.trouble = Some(format!("no broker can be reached: {words}"));
            }
            Some(Authentication | Resolve | SSL) => {
                let mut state = self.0.state();
                state.last_words = Some(plain(reason));
                state.trouble = state.last_words.clone();
            }
            _ => {}
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Ok(statistics) = serde_json::from_slice(statistics) {
            self.0.observe(&statistics);
        }
    }
}

impl ConsumerContext for Listener {}

/// `[thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/bootstrap: Connect to … refused (after 0ms in state CONNECT, 3 identical error(s) …)` without
/// what only librdkafka's authors read.
fn plain(message: &str) -> String {
    let message = match message.strip_prefix("[thrd:") {
        Some(rest) => rest.split_once("]: ").map_or(rest, |(_, message)| message),
        None => message,
    };
    let message = message.split(" (after ").next().unwrap_or(message);
    message.replace("/bootstrap", "")
}

/// The configuration of a source. What a pipeline sets comes last.
pub fn reader_config(connection: &Connection, name: &str) -> ClientConfig {
    let mut config = base_config(connection);
    config
        .set("group.id", format!("freshet-{name}"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed")
        .set("statistics.interval.ms", STATISTICS_MS.to_string())
        .set("queued.max.messages.kbytes", FETCHED_KBYTES_MAX.to_string())
        .set("fetch.max.bytes", FETCH_BYTES_MAX.to_string())
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.error.backoff.ms", "100");
    config.extend(connection.properties.clone());
    config
}

/// The configuration of a sink. Its records wait for as long as brokers are away: whether that is too long, the engine decides.
pub fn writer_config(connection: &Connection) -> ClientConfig {
    let mut config = base_config(connection);
    config
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.kbytes", UNSENT_KBYTES_MAX.to_string())
        // As Java clients do, so that records of one key meet in one partition whoever writes them.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "5");
    config.extend(connection.properties.clone());
    config
}

fn base_config(connection: &Connection) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
        .set("bootstrap.servers", &connection.servers)
        .set("client.id", "freshet")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true");
    config
}

/// Errors: Invalid; librdkafka refuses properties that are each right but do not fit together, or a file that it cannot read.
pub fn refused(place: &str, error: &KafkaError) -> Error {
    let reason = match error {
        KafkaError::ClientConfig(_, reason, property, _) => format!("properties.{property}: {reason}"),
        KafkaError::ClientCreation(reason) => reason.clone(),
        other => other.to_string(),
    };
    Error::invalid(format!("{place}: the Kafka client refuses its properties: {reason}"))
}

/// Errors: Invalid, naming a file that librdkafka would not find; its own message does not.
pub fn check_files(place: &str, connection: &Connection) -> Result<()> {
    for (property, path) in connection.properties.iter().filter(|(property, path)| property.ends_with(".location") && *path != "probe") {
        if let Err(error) = std::fs::metadata(path) {
            return Err(Error::invalid(format!("{place}: properties.{property} = '{path}' cannot be read: {error}")));
        }
    }
    Ok(())
}

/// Errors: Invalid, naming the source; brokers are not asked.
pub fn open_consumer(connection: &Connection, name: &str, watch: &Arc<Watch>) -> Result<Consumer> {
    check_files(&format!("source {name}"), connection)?;
    let created = reader_config(connection, name).create_with_context(Listener(watch.clone()));
    created.map_err(|error| refused(&format!("source {name}"), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_keeps_what_a_user_can_act_on() {
        let line = "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        assert_eq!(plain(line), "127.0.0.1:1: Connect to ipv4#127.0.0.1:1 failed: Connection refused");
        assert_eq!(plain("1/1 brokers are down"), "1/1 brokers are down");
    }

    fn statistics(leader: i32, state: &str) -> Statistics {
        let text = format!(
            r#"{{"brokers":{{"a:1/1":{{"nodeid":1,"nodename":"a:1","state":"{state}"}}}},
                "topics":{{"t":{{"partitions":{{"0":{{"leader":{leader},"desired":true,"hi_offset":7,"ls_offset":5}},
                "-1":{{"leader":-1,"desired":false,"hi_offset":-1001,"ls_offset":-1001}}}}}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn statistics_tell_ends_and_absent_leaders() {
        let watch = Watch::new("t");
        watch.observe(&statistics(1, "UP"));
        assert_eq!((watch.end(0), watch.end(1), watch.trouble()), (Some(5), None, None));
        watch.observe(&statistics(1, "TRY_CONNECT"));
        assert_eq!(watch.trouble().unwrap(), "broker a:1 is away for partition 0");
        Listener(watch.clone()).log(RDKafkaLogLevel::Error, "FAIL", "[thrd:x]: a:1/1: Disconnected (after 3ms in state UP)");
        watch.observe(&statistics(-1, "UP"));
        assert_eq!(watch.trouble().unwrap(), "there is no leader for partition 0: a:1/1: Disconnected");
        watch.clear();
        assert_eq!(watch.trouble(), None);
    }
}

//! Real brokers: one that all tests share, and three that tests may kill. Both start with the first test that needs them and end with the process,
//! because the launcher's standard input closes then.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

pub const USER: &str = "reader";
pub const PASSWORD: &str = "geheim-7";
/// Nothing on this machine takes so long.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Kafka {
    pub servers: String,
    /// Of each broker, from 1.
    pub ports: Vec<u16>,
    /// Of the listener with TLS, and the file with the certificate to trust.
    pub secure: Option<(String, String)>,
    launcher: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    _child: Child,
}

/// The broker of every test that leaves it alone.
pub fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(|| Kafka::start(&["--sasl", &format!("{USER}:{PASSWORD}")]))
}

/// Three brokers for one test at a time. All run, also if the test before has failed while one did not.
pub fn cluster() -> MutexGuard<'static, Kafka> {
    static CLUSTER: OnceLock<Mutex<Kafka>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Mutex::new(Kafka::start(&["--brokers", "3"]))).lock().unwrap_or_else(PoisonError::into_inner);
    (1..=3).for_each(|broker| cluster.command(&format!("start {broker}")));
    cluster
}

impl Kafka {
    /// Brokers of one test's own.
    pub fn start(arguments: &[&str]) -> Kafka {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kafka/kafka.py");
        let mut child =
            Command::new("python3").arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let started: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the launcher said why above: {line}"));
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_string();
        Kafka {
            servers: text(&started["bootstrap"]),
            ports: started["brokers"].as_array().unwrap().iter().map(|broker| broker["port"].as_u64().unwrap() as u16).collect(),
            secure: started.get("secure").map(|secure| (text(&secure["bootstrap"]), text(&secure["ca"]))),
            launcher: Mutex::new((child.stdin.take().unwrap(), output)),
            _child: child,
        }
    }

    /// `kill 2`, `start 2`.
    pub fn command(&self, command: &str) {
        let mut launcher = self.launcher.lock().unwrap();
        writeln!(launcher.0, "{command}").unwrap();
        let mut answer = String::new();
        launcher.1.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{command}");
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.servers).create().unwrap()
    }

    /// A topic of its own name.
    pub fn topic(&self, partitions: i32) -> String {
        self.topic_with(partitions, TopicReplication::Fixed(1), &[])
    }

    pub fn topic_with(&self, partitions: i32, replication: TopicReplication, settings: &[(&str, &str)]) -> String {
        let name = unused_topic();
        self.create(&name, partitions, replication, settings);
        name
    }

    pub fn create(&self, name: &str, partitions: i32, replication: TopicReplication, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, replication);
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        let created = wait_for(self.admin().create_topics([&topic], &options)).unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// Deletes a topic and creates another one of its name.
    pub fn create_again(&self, name: &str) {
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        let deleted = wait_for(self.admin().delete_topics(&[name], &options)).unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        let deadline = Instant::now() + DEADLINE;
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        // Brokers forget it a little later than they say.
        while !wait_for(self.admin().create_topics([&topic], &options)).unwrap().iter().all(Result::is_ok) {
            assert!(Instant::now() < deadline, "{name} is not deleted");
            pause();
        }
    }

    pub fn add_partitions(&self, topic: &str, count: usize) {
        let wanted = NewPartitions::new(topic, count);
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        let done = wait_for(self.admin().create_partitions([&wanted], &options)).unwrap();
        assert!(done.iter().all(Result::is_ok), "{done:?}");
    }

    /// Deletes what is before this offset of partition 0, as retention does.
    pub fn delete_before(&self, topic: &str, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
        wait_for(self.admin().delete_records(&list, &AdminOptions::new())).unwrap();
    }

    pub fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("linger.ms", "1").set("acks", "all");
        config.extend(settings.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        config.create().unwrap()
    }

    /// One record `{"id":…}` for each id.
    pub fn send_ids(&self, topic: &str, partition: i32, ids: std::ops::Range<i64>) {
        let producer = self.producer(&[]);
        for id in ids {
            send(&producer, BaseRecord::<[u8], str>::to(topic).partition(partition).payload(&format!("{{\"id\":{id}}}")));
        }
        flush(&producer);
    }

    /// Every record of a topic, partition by partition, read by a consumer that knows nothing of ours.
    pub fn read_all(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.servers).set("group.id", "check").set("enable.auto.commit", "false").create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
        let mut list = TopicPartitionList::new();
        let mut left = 0;
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), DEADLINE).unwrap();
            left += high - low;
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let deadline = Instant::now() + DEADLINE;
        let mut messages = Vec::new();
        while left > 0 {
            assert!(Instant::now() < deadline, "{left} records of {topic} did not come");
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                messages.push(message.unwrap().detach());
                left -= 1;
            }
        }
        messages.sort_by_key(|message| (message.partition(), message.offset()));
        messages
    }
}

pub fn unused_topic() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("topic-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Queues a record.
pub fn send<K: rdkafka::message::ToBytes + ?Sized, P: rdkafka::message::ToBytes + ?Sized>(producer: &BaseProducer, record: BaseRecord<'_, K, P>) {
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.poll(Duration::ZERO);
}

/// Returns when everything has been delivered.
pub fn flush(producer: &BaseProducer) {
    producer.flush(DEADLINE).unwrap();
}

pub fn wait_for<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Between two looks at a condition: brokers need the processor too.
pub fn pause() {
    std::thread::park_timeout(Duration::from_millis(1));
}

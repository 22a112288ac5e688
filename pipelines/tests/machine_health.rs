//! The example on sensors, end to end: a real broker, `freshet run`, readings in, features looked up, alarms out, and a broker that is killed
//! in the middle.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use freshet_pipelines::Pipeline;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::Value;
use tempfile::tempdir;

use crate::node::{Node, Setting};

const WAIT: Duration = Duration::from_secs(60);

/// Mosquitto that remembers.
struct Broker {
    port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

impl Broker {
    fn start(folder: &Path) -> Broker {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::create_dir_all(folder).unwrap();
        let place = folder.display();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {place}/\n\
             autosave_on_changes true\nautosave_interval 1\nlog_dest file {place}/log\nlog_type all\n"
        );
        fs::write(folder.join("mosquitto.conf"), config).unwrap();
        let mut broker = Broker { port, folder: folder.to_path_buf(), child: None };
        broker.restart();
        broker
    }

    fn restart(&mut self) {
        // Debian keeps servers outside the path of users.
        let binary = Some(PathBuf::from("/usr/sbin/mosquitto")).filter(|path| path.exists()).unwrap_or_else(|| "mosquitto".into());
        let child = Command::new(binary).arg("-c").arg(self.folder.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("mosquitto is installed; ./dev setup installs it"));
        until("mosquitto answers", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// The machines, and whoever watches their alarms.
struct Floor {
    client: Client,
    settled: Receiver<()>,
    alarms: Receiver<(String, String)>,
}

impl Floor {
    fn connect(port: u16, name: &str) -> Floor {
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut connection) = Client::new(options, 64);
        let (settled_tx, settled) = channel();
        let (alarm_tx, alarms) = channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                        _ = alarm_tx.send((text(&message.topic), text(&message.payload)));
                    }
                    Ok(Event::Incoming(Packet::PubAck(_) | Packet::SubAck(_))) => _ = settled_tx.send(()),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        let floor = Floor { client, settled, alarms };
        floor.client.subscribe("alarms/#", QoS::AtLeastOnce).unwrap();
        floor.settled.recv_timeout(WAIT).unwrap();
        floor
    }

    /// A reading of now.
    #[allow(clippy::disallowed_methods, reason = "a sensor's clock is the machine's")]
    fn reading(&self, machine: &str, quantity: &str, field: &str, value: f64) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        self.send(machine, quantity, &format!("{{\"at\": {at}, \"{field}\": {value:?}}}"));
    }

    fn send(&self, machine: &str, quantity: &str, payload: &str) {
        self.client.publish(format!("factory/{machine}/{quantity}"), QoS::AtLeastOnce, false, payload.to_string()).unwrap();
        self.settled.recv_timeout(WAIT).unwrap();
    }

    /// What is said about a topic next; other alarms are passed over.
    fn alarm(&self, topic: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (found, payload) = self.alarms.recv_timeout(left).unwrap_or_else(|_| panic!("no such alarm on {topic} within {WAIT:?}"));
            if found == topic && holds(&payload) {
                return payload;
            }
        }
    }
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} within {WAIT:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The pipeline as it ships, but for the address of its broker.
fn pipeline(port: u16, folder: &Path) -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("machine_health");
    assert_eq!(Pipeline::open(&shipped).unwrap().scripts.len(), 1);
    let text = fs::read_to_string(shipped.join("pipeline.sql")).unwrap();
    let address = "${broker:-mqtt://127.0.0.1:1883}";
    assert_eq!(text.matches(address).count(), 3);
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("pipeline.sql"), text.replace(address, &format!("mqtt://127.0.0.1:{port}"))).unwrap();
    folder.to_path_buf()
}

/// Waits until the features of a machine are so.
fn features(node: &Node, machine: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let (line, machine) = machine.split_once('/').unwrap();
    until(what, || {
        let found = node.lookup("machine_health", &format!("line={line},machine={machine}"));
        assert_eq!(found.len(), 1);
        holds(&found[0]).then(|| found[0].clone())
    })
}

#[test]
fn machines_have_features_and_alarms_though_their_broker_is_killed() {
    let folder = tempdir().unwrap();
    let mut broker = Broker::start(&folder.path().join("broker"));
    let setting = Setting::new(pipeline(broker.port, &folder.path().join("pipeline")), folder.path(), folder.path().join("run"));
    let node = Node::start(&setting);
    // From here on the broker keeps for the pipeline what comes.
    until("both subscriptions", || (broker.log().matches("Sending SUBACK to freshet-source").count() >= 2).then_some(()));
    let floor = Floor::connect(broker.port, "floor-1");

    for (vibration, celsius) in [(8.0, 60.0), (9.0, 61.0), (10.0, 62.0)] {
        floor.reading("7/press", "vibration", "rms", vibration);
        floor.reading("7/press", "temperature", "celsius", celsius);
        floor.reading("7/lathe", "vibration", "rms", 1.5);
    }
    floor.send("7/press", "vibration", "not a reading");
    let press = features(&node, "7/press", "three readings of each kind", |features| {
        features["vibration_readings_1m"] == 3 && features["temperature_max_1m"] == 62.0
    });
    for window in ["1m", "5m", "15m"] {
        let feature = |name: &str| press[format!("{name}_{window}")].as_f64().unwrap();
        assert_eq!([feature("vibration_mean"), feature("vibration_max"), feature("vibration_variance")], [9.0, 10.0, 1.0], "{press}");
        assert_eq!([feature("temperature_mean"), feature("temperature_max"), feature("temperature_variance")], [61.0, 62.0, 1.0], "{press}");
    }
    let alarm: Value = serde_json::from_str(&floor.alarm("alarms/7/press/vibration", |payload| !payload.is_empty())).unwrap();
    assert_eq!((&alarm["machine"], &alarm["level"], &alarm["readings"]), (&Value::from("press"), &Value::from(9.0), &Value::from(3)));
    let letters = node.query("SELECT * FROM dead_letters(vibration)");
    assert_eq!(letters.len(), 1, "{letters:?}");

    broker.kill();
    drop(floor);
    // What is known is still answered.
    features(&node, "7/press", "an answer without a broker", |features| features["vibration_readings_15m"] == 3);
    broker.restart();
    let floor = Floor::connect(broker.port, "floor-2");
    // Quiet readings end the alarm: its retained message is taken away.
    for _ in 0..6 {
        floor.reading("7/press", "vibration", "rms", 1.0);
    }
    features(&node, "7/press", "nine readings", |features| features["vibration_readings_5m"].as_u64() >= Some(9));
    until("the alarm has ended", || node.query("SELECT * FROM alarms").is_empty().then_some(()));
    floor.alarm("alarms/7/press/vibration", str::is_empty);
    let late = Floor::connect(broker.port, "floor-3");
    floor.reading("7/lathe", "temperature", "celsius", 95.0);
    floor.reading("7/lathe", "temperature", "celsius", 96.0);
    floor.reading("7/lathe", "temperature", "celsius", 97.0);
    // Nothing is retained of the press: the first that a new watcher hears is about the lathe.
    let (topic, payload) = late.alarms.recv_timeout(WAIT).unwrap();
    assert_eq!(topic, "alarms/7/lathe/temperature", "{payload}");
    assert_eq!(node.stop().code(), Some(143), "SIGTERM is a clean end");
}

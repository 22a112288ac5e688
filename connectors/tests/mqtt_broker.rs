//! A real mosquitto for each test, and a client of another make to talk to it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{Client, Event, MqttOptions};
use tempfile::{TempDir, tempdir};

pub const WAIT: Duration = Duration::from_secs(30);

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for a condition with a deadline.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} within {WAIT:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Mosquitto with persistence, on one port and in one folder as long as the test runs.
pub struct Broker {
    pub port: u16,
    pub folder: TempDir,
    child: Option<Child>,
}

impl Broker {
    pub fn start() -> Broker {
        Broker::start_with("allow_anonymous true\n")
    }

    /// With these lines behind the listener's.
    pub fn start_with(more: &str) -> Broker {
        let mut broker = Broker::prepare(more);
        broker.restart();
        broker
    }

    /// Not running yet.
    pub fn prepare(more: &str) -> Broker {
        let (folder, port) = (tempdir().unwrap(), free_port());
        let place = folder.path().display();
        let config = format!(
            "listener {port} 127.0.0.1\n{more}\nuser root\npersistence true\npersistence_location {place}/\nautosave_on_changes true\nautosave_interval 1\n\
             max_queued_messages 0\nlog_dest file {place}/log\nlog_type all\n"
        );
        fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        Broker { port, folder, child: None }
    }

    pub fn restart(&mut self) {
        assert!(self.child.is_none());
        let config = self.folder.path().join("mosquitto.conf");
        let child = Command::new(binary("mosquitto")).arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("mosquitto is installed; ./dev setup installs it"));
        until("mosquitto answers", || {
            let status = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(status.is_none(), "mosquitto has ended: {}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    /// As a crash does.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// As an operator does: it writes its state.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        child.wait().unwrap();
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Debian keeps servers outside the path of users.
pub fn binary(name: &str) -> PathBuf {
    ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// Another client, so that ours is not tested against itself.
pub struct Peer {
    client: Client,
    settled: Receiver<()>,
    pub messages: Receiver<Publish>,
}

impl Peer {
    pub fn connect(port: u16) -> Peer {
        static PEERS: AtomicU64 = AtomicU64::new(0);
        let name = format!("peer-{}-{}", std::process::id(), PEERS.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_max_packet_size(Some(64 << 20)).set_keep_alive(Duration::from_secs(60));
        let (client, mut connection) = Client::new(options, 64);
        let (settled_tx, settled) = channel();
        let (message_tx, messages) = channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(message))) => _ = message_tx.send(message),
                    Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_) | Packet::SubAck(_))) => _ = settled_tx.send(()),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        Peer { client, settled, messages }
    }

    /// Returns when the broker has it; with QoS 0 too, for a message behind it is acknowledged.
    pub fn publish(&self, topic: &str, qos: u8, payload: &[u8]) {
        self.publish_with(topic, qos, false, payload, PublishProperties::default());
    }

    pub fn publish_with(&self, topic: &str, qos: u8, retain: bool, payload: &[u8], properties: PublishProperties) {
        let quality = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)];
        self.client.publish_with_properties(topic, quality, retain, payload.to_vec(), properties).unwrap();
        if qos == 0 {
            self.client.publish("peer/settled", QoS::AtLeastOnce, false, Vec::new()).unwrap();
        }
        self.settled.recv_timeout(WAIT).unwrap();
    }

    pub fn subscribe(&self, filter: &str) {
        self.client.subscribe(filter, QoS::ExactlyOnce).unwrap();
        self.settled.recv_timeout(WAIT).unwrap();
    }

    /// The next message: topic, payload and whether it is retained.
    pub fn receive(&self) -> (String, String, bool) {
        let message = self.messages.recv_timeout(WAIT).unwrap();
        (String::from_utf8(message.topic.to_vec()).unwrap(), String::from_utf8(message.payload.to_vec()).unwrap(), message.retain)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.client.disconnect();
    }
}

/// A certificate authority with a server and a client it vouches for: ca.pem, server.pem, server.key, client.pem, client.key.
pub fn certificates(folder: &Path) {
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"];
    run(&[&["req", "-x509"], &key[..], &["-subj", "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.pem"]].concat());
    fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    for name in ["server", "client"] {
        let (private, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        run(&[&["req", "-new"], &key[..5], &["-subj", &subject, "-keyout", &private, "-out", &request]].concat());
        let signed = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "names"];
        run(&[&signed[..], &["-out", &certificate]].concat());
    }
}

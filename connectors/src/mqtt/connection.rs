//! One connection to a broker. In: packets to say. Out: what the broker says, bytes moving both ways without one waiting for the other.
//!
//! Not reading for a while is how messages are held back; pings go out all the same, so that the broker does not take that for death.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::tokio_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::packet::{self, Greeting, Incoming, Outgoing, Reader};
use super::settings::{Broker, Version};

/// From the first byte to the broker's greeting.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// What a farewell may take.
const FAREWELL_WAIT: Duration = Duration::from_secs(1);
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Connection {
    version: Version,
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    input: BytesMut,
    output: BytesMut,
    /// Bytes have been handed to the stream that may wait inside it.
    unflushed: bool,
    packets: Reader,
    keep_alive: Duration,
    ping_at: Instant,
    /// When the ping that has no answer yet was said.
    pinged: Option<Instant>,
}

impl Connection {
    /// Connects and greets. Errors: why not, in words.
    pub async fn open(broker: &Broker, clean: bool, payload_bytes_max: usize) -> Result<(Connection, Greeting), String> {
        match timeout(CONNECT_WAIT, Connection::connect(broker, clean, payload_bytes_max)).await {
            Ok(result) => result.map_err(|error| format!("broker {}: {error}", broker.address())),
            Err(_) => Err(format!("broker {} does not answer within {} s", broker.address(), CONNECT_WAIT.as_secs())),
        }
    }

    async fn connect(broker: &Broker, clean: bool, payload_bytes_max: usize) -> Result<(Connection, Greeting), String> {
        let tcp = TcpStream::connect((broker.host.as_str(), broker.port)).await.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let stream: Box<dyn Stream> = match &broker.tls {
            None => Box::new(tcp),
            Some(files) => {
                let config = files.client_config().map_err(|error| error.message)?;
                let name = ServerName::try_from(broker.host.clone()).map_err(|error| format!("'{}' is no server name: {error}", broker.host))?;
                Box::new(TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.map_err(|error| format!("TLS: {error}"))?)
            }
        };
        let (reader, writer) = tokio::io::split(stream);
        let mut connection = Connection {
            version: broker.version,
            reader,
            writer,
            input: BytesMut::with_capacity(READ_BYTES),
            output: BytesMut::new(),
            unflushed: false,
            packets: Reader::new(broker.version, payload_bytes_max),
            keep_alive: broker.keep_alive,
            ping_at: Instant::now() + broker.keep_alive,
            pinged: None,
        };
        connection.send(&Outgoing::Connect { broker, clean })?;
        loop {
            match connection.turn(true).await? {
                None => {}
                Some(Incoming::Greeting(greeting)) => {
                    if let Some(refused) = greeting.refused {
                        return Err(format!("it refuses client {}: {refused}", broker.client_id));
                    }
                    if let Some(seconds) = greeting.keep_alive_s.filter(|seconds| *seconds > 0) {
                        connection.keep_alive = Duration::from_secs(u64::from(seconds));
                        connection.ping_at = Instant::now() + connection.keep_alive;
                    }
                    return Ok((connection, greeting));
                }
                Some(other) => return Err(format!("it does not greet but says {other:?}")),
            }
        }
    }

    /// Puts a packet behind those that wait to be written; `turn` writes them.
    pub fn send(&mut self, packet: &Outgoing) -> Result<(), String> {
        packet::write(self.version, packet, &mut self.output)
    }

    /// Bytes that wait to be written.
    pub fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Moves bytes until the broker has said something, or something else has happened: then None. Reads only if `read`. May be given up at
    /// any await. Errors: the connection is gone; why, in words.
    pub async fn turn(&mut self, read: bool) -> Result<Option<Incoming>, String> {
        if read && let Some(packet) = self.packets.next(&mut self.input)? {
            return Ok(Some(self.heard(packet)));
        }
        self.keep_alive(read)?;
        let Connection { reader, writer, input, output, unflushed, ping_at, .. } = self;
        tokio::select! {
            written = drain(writer, output, unflushed), if *unflushed || !output.is_empty() => {
                written.map_err(|error| error.to_string())?;
                Ok(None)
            }
            count = fill(reader, input), if read => match count.map_err(|error| error.to_string())? {
                0 => Err("the broker has closed the connection".into()),
                _ => {
                    let packet = self.packets.next(&mut self.input)?;
                    Ok(packet.map(|packet| self.heard(packet)))
                }
            },
            () = sleep_until(*ping_at) => Ok(None),
        }
    }

    /// Says goodbye and waits, though not for long, until the broker has heard all of it: it closes the connection then.
    pub async fn close(mut self) {
        if self.send(&Outgoing::Disconnect).is_err() {
            return;
        }
        let farewell = async {
            drain(&mut self.writer, &mut self.output, &mut self.unflushed).await?;
            while fill(&mut self.reader, &mut self.input).await? > 0 {
                self.input.clear();
            }
            self.writer.shutdown().await
        };
        let _ = timeout(FAREWELL_WAIT, farewell).await;
    }

    fn heard(&mut self, packet: Incoming) -> Incoming {
        self.pinged = None;
        packet
    }

    /// Pings when it is time. Errors: nothing has come since the last ping although we listened.
    fn keep_alive(&mut self, read: bool) -> Result<(), String> {
        let now = Instant::now();
        if now < self.ping_at {
            return Ok(());
        }
        self.ping_at = now + self.keep_alive;
        match self.pinged {
            // While nothing is read the answer may be there; it is asked for anew from the next read on.
            Some(_) if !read => self.pinged = Some(now),
            Some(since) => {
                if now.duration_since(since) + Duration::from_millis(100) >= self.keep_alive {
                    return Err(format!("the broker is silent since {} s", now.duration_since(since).as_secs()));
                }
            }
            None => self.pinged = Some(now),
        }
        self.send(&Outgoing::Ping)
    }
}

/// May be given up: what has been written has left `output`.
async fn drain(writer: &mut WriteHalf<Box<dyn Stream>>, output: &mut BytesMut, unflushed: &mut bool) -> std::io::Result<()> {
    while !output.is_empty() {
        *unflushed = true;
        if writer.write_buf(output).await? == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
    }
    writer.flush().await?;
    *unflushed = false;
    Ok(())
}

/// May be given up: what has been read is in `input`.
async fn fill(reader: &mut ReadHalf<Box<dyn Stream>>, input: &mut BytesMut) -> std::io::Result<usize> {
    input.reserve(READ_BYTES);
    reader.read_buf(input).await
}

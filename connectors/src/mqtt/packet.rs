//! MQTT 3.1.1 and 5 as one set of packets. In: frames of a connection. Out: what they say, whichever version said it.
//!
//! The encodings are rumqttc's; its event loop is not used: it must be polled to keep a connection alive, and polling it takes messages in.

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5;
use rumqttc::{mqttbytes::v4, v5::mqttbytes};

use super::settings::{Broker, Qos, Version};

/// Topic, packet id and properties that may surround a payload of the greatest size.
const SURROUNDINGS_BYTES_MAX: usize = 256 << 10;
/// What is kept of a message that is too large: as much as a dead letter holds.
const OVERSIZED_BYTES_KEPT: usize = 64 << 10;
/// Where the payload of a message that is too large begins at the latest, but for its properties.
const TOPIC_BYTES_MAX: usize = 2 + 65_535 + 2;

/// A received message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    /// The broker says that it may have sent this before.
    pub duplicate: bool,
    pub id: u16,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub user: Vec<(String, String)>,
    /// The bytes of its whole packet, where that was too large to take in: `payload` is then how it begins.
    pub oversized: Option<usize>,
}

impl Message {
    /// About what it costs while it waits.
    pub fn bytes(&self) -> usize {
        let user: usize = self.user.iter().map(|(name, value)| name.len() + value.len()).sum();
        128 + self.topic.len() + self.payload.len() + user
    }
}

/// What a broker says. A refusal is its reason in words.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    Greeting(Greeting),
    Message(Message),
    Acknowledged {
        id: u16,
        refused: Option<String>,
    },
    Received {
        id: u16,
        refused: Option<String>,
    },
    Release(u16),
    Completed(u16),
    /// One answer per filter.
    Subscribed(Vec<Result<Qos, String>>),
    Pong,
    Farewell(String),
    Other,
}

/// A broker's answer to CONNECT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Greeting {
    pub refused: Option<String>,
    pub session_present: bool,
    /// Unacknowledged messages it takes at a time.
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub keep_alive_s: Option<u16>,
}

/// What is said to a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing<'a> {
    Connect { broker: &'a Broker, clean: bool },
    Subscribe { filters: &'a [String], qos: Qos, retained: bool },
    Message { topic: &'a str, payload: &'a Bytes, qos: Qos, retain: bool, duplicate: bool, id: u16, content_type: Option<&'a str> },
    Acknowledge(u16),
    Receive(u16),
    Release(u16),
    Complete(u16),
    Ping,
    Disconnect,
}

/// Cuts packets out of a stream of bytes.
#[derive(Debug)]
pub struct Reader {
    version: Version,
    payload_bytes_max: usize,
    /// Bytes of a message that is too large and still to come.
    skip: usize,
}

impl Reader {
    pub fn new(version: Version, payload_bytes_max: usize) -> Reader {
        Reader { version, payload_bytes_max, skip: 0 }
    }

    /// The next packet, or None until more bytes are there. Errors: what breaks the protocol, in words.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, String> {
        let skipped = self.skip.min(input.len());
        input.advance(skipped);
        self.skip -= skipped;
        if self.skip > 0 {
            return Ok(None);
        }
        let Some((header, body)) = frame(input)? else { return Ok(None) };
        let length = header + body;
        let is_message = input[0] >> 4 == 3;
        if length > self.payload_bytes_max.saturating_add(SURROUNDINGS_BYTES_MAX) {
            return if is_message { self.oversized(input, header, body) } else { Err(format!("a packet of {length} bytes that is no message")) };
        }
        if input.len() < length {
            input.reserve(length - input.len());
            return Ok(None);
        }
        let mut packet = input.split_to(length);
        match self.version {
            Version::V3 => v4::Packet::read(&mut packet, length).map(incoming_v3).map_err(|error| error.to_string()).map(Some),
            Version::V5 => v5::Packet::read(&mut packet, None).map_err(|error| error.to_string()).and_then(incoming_v5).map(Some),
        }
    }

    /// The beginning of a message that is too large; the rest is skipped as it comes.
    fn oversized(&mut self, input: &mut BytesMut, header: usize, body: usize) -> Result<Option<Incoming>, String> {
        let wanted = header + TOPIC_BYTES_MAX + OVERSIZED_BYTES_KEPT;
        assert!(wanted < header + body, "an oversized message is larger than its beginning");
        if input.len() < wanted {
            input.reserve(wanted - input.len());
            return Ok(None);
        }
        let flags = input[0];
        let mut beginning = input.split_to(wanted);
        self.skip = header + body - wanted;
        beginning.advance(header);
        let topic_bytes = usize::from(beginning.get_u16());
        let topic = String::from_utf8(beginning.split_to(topic_bytes).to_vec()).map_err(|_| "a topic that is not UTF-8".to_string())?;
        let qos = (flags >> 1) & 3;
        let id = if qos > 0 { beginning.get_u16() } else { 0 };
        if self.version == Version::V5 {
            let (width, properties) = variable(&beginning)?.unwrap_or((0, 0));
            beginning.advance((width + properties).min(beginning.len()));
        }
        beginning.truncate(OVERSIZED_BYTES_KEPT);
        Ok(Some(Incoming::Message(Message {
            topic,
            payload: beginning.freeze(),
            qos,
            retain: flags & 1 == 1,
            duplicate: flags & 8 == 8,
            id,
            oversized: Some(header + body),
            ..Message::default()
        })))
    }
}

/// The lengths of the fixed header and of what follows it.
fn frame(input: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let Some(rest) = input.get(1..) else { return Ok(None) };
    Ok(variable(rest)?.map(|(width, length)| (1 + width, length)))
}

/// A variable byte integer: its width and its value.
fn variable(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 1, value)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err("a length of more than four bytes".into()) }
}

fn incoming_v3(packet: v4::Packet) -> Incoming {
    use v4::Packet;
    match packet {
        Packet::ConnAck(answer) => Incoming::Greeting(Greeting {
            refused: (answer.code != v4::ConnectReturnCode::Success).then(|| format!("{:?}", answer.code)),
            session_present: answer.session_present,
            ..Greeting::default()
        }),
        Packet::Publish(message) => Incoming::Message(Message {
            topic: message.topic,
            payload: message.payload,
            qos: message.qos as u8,
            retain: message.retain,
            duplicate: message.dup,
            id: message.pkid,
            ..Message::default()
        }),
        Packet::PubAck(answer) => Incoming::Acknowledged { id: answer.pkid, refused: None },
        Packet::PubRec(answer) => Incoming::Received { id: answer.pkid, refused: None },
        Packet::PubRel(release) => Incoming::Release(release.pkid),
        Packet::PubComp(answer) => Incoming::Completed(answer.pkid),
        Packet::SubAck(answer) => Incoming::Subscribed(
            answer
                .return_codes
                .into_iter()
                .map(|code| match code {
                    v4::SubscribeReasonCode::Success(qos) => Ok(qos_of(qos as u8)),
                    v4::SubscribeReasonCode::Failure => Err("refused".into()),
                })
                .collect(),
        ),
        Packet::PingResp => Incoming::Pong,
        Packet::Disconnect => Incoming::Farewell("the broker has closed the connection".into()),
        _ => Incoming::Other,
    }
}

fn incoming_v5(packet: v5::Packet) -> Result<Incoming, String> {
    use v5::Packet;
    Ok(match packet {
        Packet::ConnAck(answer) => {
            let properties = answer.properties;
            let reason = properties.as_ref().and_then(|properties| properties.reason_string.clone());
            Incoming::Greeting(Greeting {
                refused: (answer.code != v5::ConnectReturnCode::Success).then(|| explained(format!("{:?}", answer.code), reason)),
                session_present: answer.session_present,
                receive_maximum: properties.as_ref().and_then(|properties| properties.receive_max),
                packet_bytes_max: properties.as_ref().and_then(|properties| properties.max_packet_size),
                keep_alive_s: properties.as_ref().and_then(|properties| properties.server_keep_alive),
            })
        }
        Packet::Publish(message) => {
            let properties = message.properties.unwrap_or_default();
            Incoming::Message(Message {
                topic: String::from_utf8(message.topic.to_vec()).map_err(|_| "a topic that is not UTF-8".to_string())?,
                payload: message.payload,
                qos: message.qos as u8,
                retain: message.retain,
                duplicate: message.dup,
                id: message.pkid,
                content_type: properties.content_type,
                response_topic: properties.response_topic,
                user: properties.user_properties,
                oversized: None,
            })
        }
        Packet::PubAck(answer) => {
            let well = matches!(answer.reason, v5::PubAckReason::Success | v5::PubAckReason::NoMatchingSubscribers);
            let reason = answer.properties.and_then(|properties| properties.reason_string);
            Incoming::Acknowledged { id: answer.pkid, refused: (!well).then(|| explained(format!("{:?}", answer.reason), reason)) }
        }
        Packet::PubRec(answer) => {
            let well = matches!(answer.reason, v5::PubRecReason::Success | v5::PubRecReason::NoMatchingSubscribers);
            let reason = answer.properties.and_then(|properties| properties.reason_string);
            Incoming::Received { id: answer.pkid, refused: (!well).then(|| explained(format!("{:?}", answer.reason), reason)) }
        }
        Packet::PubRel(release) => Incoming::Release(release.pkid),
        // Whatever its reason: the broker has forgotten the packet id.
        Packet::PubComp(answer) => Incoming::Completed(answer.pkid),
        Packet::SubAck(answer) => Incoming::Subscribed(
            answer
                .return_codes
                .into_iter()
                .map(|code| match code {
                    v5::SubscribeReasonCode::Success(qos) => Ok(qos_of(qos as u8)),
                    other => Err(format!("{other:?}")),
                })
                .collect(),
        ),
        Packet::PingResp(_) => Incoming::Pong,
        Packet::Disconnect(farewell) => {
            let reason = farewell.properties.and_then(|properties| properties.reason_string);
            Incoming::Farewell(explained(format!("{:?}", farewell.reason_code), reason))
        }
        _ => Incoming::Other,
    })
}

fn explained(code: String, reason: Option<String>) -> String {
    match reason {
        Some(reason) if !reason.is_empty() => format!("{code}: {reason}"),
        _ => code,
    }
}

fn qos_of(number: u8) -> Qos {
    match number {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}

/// Appends the packet to `output`. Errors: what cannot be said, in words.
pub fn write(version: Version, packet: &Outgoing, output: &mut BytesMut) -> Result<(), String> {
    match version {
        Version::V3 => outgoing_v3(packet).write(output, usize::MAX).map(drop).map_err(|error| error.to_string()),
        Version::V5 => outgoing_v5(packet).write(output, None).map(drop).map_err(|error| error.to_string()),
    }
}

fn outgoing_v3(packet: &Outgoing) -> v4::Packet {
    use v4::Packet;
    let qos = |qos: Qos| match qos {
        Qos::AtMostOnce => rumqttc::QoS::AtMostOnce,
        Qos::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
        Qos::ExactlyOnce => rumqttc::QoS::ExactlyOnce,
    };
    match packet {
        Outgoing::Connect { broker, clean } => {
            let mut connect = v4::Connect::new(broker.client_id.as_str());
            connect.keep_alive = broker.keep_alive.as_secs() as u16;
            connect.clean_session = *clean;
            connect.login = broker.login.as_ref().map(|(name, password)| v4::Login::new(name, password));
            Packet::Connect(connect)
        }
        Outgoing::Subscribe { filters, qos: wanted, .. } => {
            let mut subscribe = v4::Subscribe::new_many(filters.iter().map(|filter| v4::SubscribeFilter { path: filter.clone(), qos: qos(*wanted) }));
            subscribe.pkid = SUBSCRIBE_ID;
            Packet::Subscribe(subscribe)
        }
        Outgoing::Message { topic, payload, qos: wanted, retain, duplicate, id, .. } => {
            let mut message = v4::Publish::from_bytes(*topic, qos(*wanted), (*payload).clone());
            (message.retain, message.dup, message.pkid) = (*retain, *duplicate, *id);
            Packet::Publish(message)
        }
        Outgoing::Acknowledge(id) => Packet::PubAck(v4::PubAck::new(*id)),
        Outgoing::Receive(id) => Packet::PubRec(v4::PubRec::new(*id)),
        Outgoing::Release(id) => Packet::PubRel(v4::PubRel::new(*id)),
        Outgoing::Complete(id) => Packet::PubComp(v4::PubComp::new(*id)),
        Outgoing::Ping => Packet::PingReq,
        Outgoing::Disconnect => Packet::Disconnect,
    }
}

fn outgoing_v5(packet: &Outgoing) -> v5::Packet {
    use v5::Packet;
    let qos = |qos: Qos| match qos {
        Qos::AtMostOnce => mqttbytes::QoS::AtMostOnce,
        Qos::AtLeastOnce => mqttbytes::QoS::AtLeastOnce,
        Qos::ExactlyOnce => mqttbytes::QoS::ExactlyOnce,
    };
    match packet {
        Outgoing::Connect { broker, clean } => {
            let mut properties = v5::ConnectProperties::new();
            properties.receive_maximum = Some(broker.receive_maximum);
            properties.session_expiry_interval = Some(u32::try_from(broker.session_expiry.as_secs()).unwrap_or(u32::MAX));
            let connect = v5::Connect {
                keep_alive: broker.keep_alive.as_secs() as u16,
                client_id: broker.client_id.clone(),
                clean_start: *clean,
                properties: Some(properties),
            };
            Packet::Connect(connect, None, broker.login.as_ref().map(|(name, password)| v5::Login::new(name, password)))
        }
        Outgoing::Subscribe { filters, qos: wanted, retained } => {
            let filters = filters.iter().map(|filter| {
                let mut filter = v5::Filter::new(filter, qos(*wanted));
                let rule = if *retained { v5::RetainForwardRule::OnEverySubscribe } else { v5::RetainForwardRule::OnNewSubscribe };
                filter.retain_forward_rule = rule;
                filter
            });
            let mut subscribe = v5::Subscribe::new_many(filters, None);
            subscribe.pkid = SUBSCRIBE_ID;
            Packet::Subscribe(subscribe)
        }
        Outgoing::Message { topic, payload, qos: wanted, retain, duplicate, id, content_type } => {
            let properties =
                content_type.map(|name| v5::PublishProperties { content_type: Some(name.to_string()), ..v5::PublishProperties::default() });
            let mut message = v5::Publish::new(*topic, qos(*wanted), (*payload).clone(), properties);
            (message.retain, message.dup, message.pkid) = (*retain, *duplicate, *id);
            Packet::Publish(message)
        }
        Outgoing::Acknowledge(id) => Packet::PubAck(v5::PubAck::new(*id, None)),
        Outgoing::Receive(id) => Packet::PubRec(v5::PubRec::new(*id, None)),
        Outgoing::Release(id) => Packet::PubRel(v5::PubRel::new(*id, None)),
        Outgoing::Complete(id) => Packet::PubComp(v5::PubComp::new(*id, None)),
        Outgoing::Ping => Packet::PingReq(v5::PingReq),
        Outgoing::Disconnect => Packet::Disconnect(v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnection)),
    }
}

/// A source subscribes once a connection and publishes nothing, so that no other packet id is in use.
const SUBSCRIBE_ID: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(version: Version, payload: usize) -> BytesMut {
        let mut bytes = BytesMut::new();
        let payload = Bytes::from(vec![b'x'; payload]);
        let message = Outgoing::Message {
            topic: "a/b",
            payload: &payload,
            qos: Qos::AtLeastOnce,
            retain: true,
            duplicate: false,
            id: 7,
            content_type: Some("application/json"),
        };
        write(version, &message, &mut bytes).unwrap();
        write(version, &Outgoing::Acknowledge(9), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn packets_are_read_whatever_way_their_bytes_come() {
        for version in [Version::V3, Version::V5] {
            let whole = sent(version, 300);
            for cut in 0..whole.len() {
                let mut reader = Reader::new(version, 1000);
                let mut input = BytesMut::from(&whole[..cut]);
                let mut found = Vec::new();
                while let Some(packet) = reader.next(&mut input).unwrap() {
                    found.push(packet);
                }
                input.extend_from_slice(&whole[cut..]);
                while let Some(packet) = reader.next(&mut input).unwrap() {
                    found.push(packet);
                }
                assert_eq!(found.len(), 2, "{version:?} {cut}");
                let Incoming::Message(message) = &found[0] else { panic!("{found:?}") };
                assert_eq!((message.topic.as_str(), message.payload.len(), message.qos, message.retain, message.id), ("a/b", 300, 1, true, 7));
                assert_eq!(message.content_type.is_some(), version == Version::V5);
                assert_eq!(found[1], Incoming::Acknowledged { id: 9, refused: None });
            }
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_cut_and_what_follows_is_read() {
        for version in [Version::V3, Version::V5] {
            let whole = sent(version, 2 << 20);
            let mut reader = Reader::new(version, 1000);
            let (mut input, mut found) = (BytesMut::new(), Vec::new());
            for piece in whole.chunks(10_000) {
                input.extend_from_slice(piece);
                while let Some(packet) = reader.next(&mut input).unwrap() {
                    found.push(packet);
                }
                assert!(input.len() < 400_000, "the rest is not kept");
            }
            let Incoming::Message(message) = &found[0] else { panic!("{found:?}") };
            assert_eq!((message.topic.as_str(), message.id, message.payload.len()), ("a/b", 7, OVERSIZED_BYTES_KEPT));
            assert!(message.payload.iter().all(|byte| *byte == b'x'), "{version:?}");
            assert!(message.oversized.unwrap() > 2 << 20);
            assert_eq!(found[1], Incoming::Acknowledged { id: 9, refused: None });
        }
    }

    #[test]
    fn broken_frames_are_refused() {
        let mut reader = Reader::new(Version::V5, 1000);
        assert!(reader.next(&mut BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0xff, 1][..])).is_err());
        let mut reader = Reader::new(Version::V3, 1000);
        assert!(reader.next(&mut BytesMut::from(&[0x32, 4, 0, 2, b'a', b'b'][..])).is_err());
    }
}

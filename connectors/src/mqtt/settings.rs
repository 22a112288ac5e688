//! WITH options of MQTT sources and sinks as typed values. In: names and texts. Out: values, or the option that is wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use freshet_core::OptionError;
use sha2::{Digest, Sha256};

use crate::options::{self, wrong};
use crate::tls::TlsFiles;

/// What sources and sinks share.
pub const BROKER_OPTIONS: [&str; 9] =
    ["url", "version", "client_id", "username", "password", "keep_alive", "tls.ca", "tls.client_cert", "tls.client_key"];
/// What sources have besides.
pub const SOURCE_OPTIONS: [&str; 5] = ["topic", "qos", "clean_session", "session.expiry", "receive_maximum"];
/// What sinks have besides.
pub const SINK_OPTIONS: [&str; 4] = ["topic", "qos", "retain", "on_reject"];

/// 30 s: what brokers expect; they give a silent client up after one and a half times that.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// One day: longer than a restart or an upgrade takes, short enough that an abandoned session does not fill a broker.
const SESSION_EXPIRY: Duration = Duration::from_secs(86_400);
/// Messages a broker may send before the first is acknowledged; what it costs here is 32 bytes each.
const RECEIVE_MAXIMUM: u16 = 10_000;

type Options = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V3,
    V5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::enum_variant_names, reason = "the names of the protocol")]
pub enum Qos {
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

/// How to reach a broker, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub host: String,
    pub port: u16,
    pub tls: Option<TlsFiles>,
    pub version: Version,
    pub client_id: String,
    pub login: Option<(String, String)>,
    pub keep_alive: Duration,
    /// How long the broker keeps what it has for us while we are away; zero: not at all.
    pub session_expiry: Duration,
    pub receive_maximum: u16,
}

impl Broker {
    /// As it is named to people.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn parse(options: &Options, identity: &str) -> Result<Broker, OptionError> {
        let url = options::required("mqtt", options, "url", "the broker: 'mqtt://host:1883' or 'mqtts://host:8883'")?;
        let (encrypted, host, port) = address(url)?;
        let version = match options.get("version").map(String::as_str) {
            None | Some("5" | "5.0") => Version::V5,
            Some("3.1.1" | "4") => Version::V3,
            Some(other) => return Err(wrong("version", format!("version is '5' or '3.1.1', found '{other}'"))),
        };
        let client_id = match options.get("client_id") {
            None => default_client_id(identity, options, &std::env::current_dir().unwrap_or_default()),
            Some(id) if id.is_empty() || id.len() > 256 => return Err(wrong("client_id", "client_id has 1 to 256 characters")),
            Some(id) => id.clone(),
        };
        let login = match (options.get("username"), options.get("password")) {
            (None, None) => None,
            (Some(name), password) => Some((name.clone(), password.cloned().unwrap_or_default())),
            (None, Some(_)) => return Err(wrong("password", "password needs username = '…' beside it")),
        };
        let keep_alive = options::duration(options, "keep_alive", KEEP_ALIVE)?;
        if !(Duration::from_secs(1)..=Duration::from_secs(65_535)).contains(&keep_alive) {
            return Err(wrong("keep_alive", "keep_alive is at least 1s and at most 65535s"));
        }
        Ok(Broker {
            host,
            port,
            tls: tls(options, encrypted)?,
            version,
            client_id,
            login,
            keep_alive,
            session_expiry: Duration::ZERO,
            receive_maximum: RECEIVE_MAXIMUM,
        })
    }
}

/// What a source wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    pub broker: Broker,
    pub filters: Vec<String>,
    pub qos: Qos,
}

impl SourceSettings {
    pub fn parse(name: &str, options: &Options) -> Result<SourceSettings, OptionError> {
        let mut broker = Broker::parse(options, &format!("source {name}"))?;
        let topic = options::required("mqtt", options, "topic", "what to subscribe to, for example 'factory/+/temperature' or 'a/#,b/#'")?;
        let filters = filters(topic)?;
        let qos = qos(options)?;
        let clean = flag(options, "clean_session")?.unwrap_or(qos == Qos::AtMostOnce);
        if clean && options.contains_key("session.expiry") {
            return Err(wrong(
                "session.expiry",
                "a clean session does not outlive its connection; leave out session.expiry, or set clean_session = 'false'",
            ));
        }
        let expiry = options::duration(options, "session.expiry", SESSION_EXPIRY)?;
        broker.session_expiry = if clean { Duration::ZERO } else { expiry };
        if !clean && broker.session_expiry.is_zero() {
            return Err(wrong("session.expiry", "session.expiry is at least 1s; a session that ends at once is clean_session = 'true'"));
        }
        if let Some(text) = options.get("receive_maximum") {
            broker.receive_maximum = match text.parse::<u16>() {
                Ok(count) if count > 0 => count,
                _ => return Err(wrong("receive_maximum", format!("receive_maximum is a number from 1 to 65535, found '{text}'"))),
            };
        }
        Ok(SourceSettings { broker, filters, qos })
    }
}

/// What a sink wants, but for its topic, which depends on the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSettings {
    pub broker: Broker,
    pub qos: Qos,
    pub retain: bool,
}

impl SinkSettings {
    pub fn parse(name: &str, options: &Options) -> Result<SinkSettings, OptionError> {
        let broker = Broker::parse(options, &format!("sink {name}"))?;
        Ok(SinkSettings { broker, qos: qos(options)?, retain: flag(options, "retain")?.unwrap_or(false) })
    }
}

/// The topic part of a filter: `$share/group/a/+` delivers what `a/+` matches.
pub fn unshared(filter: &str) -> &str {
    match filter.strip_prefix("$share/") {
        Some(rest) => rest.split_once('/').map_or("", |(_, filter)| filter),
        None => filter,
    }
}

fn filters(topic: &str) -> Result<Vec<String>, OptionError> {
    let filters: Vec<String> = topic.split(',').map(|filter| filter.trim().to_string()).collect();
    for filter in &filters {
        let bare = unshared(filter);
        let group = filter.strip_prefix("$share/").map(|rest| rest.split('/').next().unwrap_or_default());
        if group.is_some_and(|group| group.is_empty() || group.contains(['+', '#'])) {
            return Err(wrong("topic", format!("a shared subscription is '$share/group/filter', found '{filter}'")));
        }
        if !rumqttc::valid_filter(bare) || bare.contains('\0') || bare.len() > 65_535 {
            return Err(wrong(
                "topic",
                format!("'{filter}' is no topic filter; + stands for one whole level, # for all that follow and is the last: 'a/+/c', 'a/#'"),
            ));
        }
    }
    Ok(filters)
}

/// `mqtt://host[:port]`, without TLS, or `mqtts://`.
fn address(url: &str) -> Result<(bool, String, u16), OptionError> {
    let refused = || wrong("url", format!("url is 'mqtt://host:1883' or 'mqtts://host:8883', found '{url}'"));
    let (encrypted, rest) = if let Some(rest) = url.strip_prefix("mqtt://").or_else(|| url.strip_prefix("tcp://")) {
        (false, rest)
    } else if let Some(rest) = url.strip_prefix("mqtts://").or_else(|| url.strip_prefix("ssl://")) {
        (true, rest)
    } else {
        return Err(refused());
    };
    if rest.contains('@') {
        return Err(wrong("url", "the name and the password are options of their own: username = '…', password = '${…}'"));
    }
    let rest = rest.trim_end_matches('/');
    let port = if encrypted { 8883 } else { 1883 };
    let (host, port) = match rest.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, text)) if !text.ends_with(']') => (host, text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(refused)?),
        _ => (rest, port),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.contains(['/', '?', ' ']) {
        return Err(refused());
    }
    Ok((encrypted, host.to_string(), port))
}

fn tls(options: &Options, encrypted: bool) -> Result<Option<TlsFiles>, OptionError> {
    let path = |name: &str| options.get(name).map(PathBuf::from);
    if !encrypted {
        return match ["tls.ca", "tls.client_cert", "tls.client_key"].iter().find(|name| options.contains_key(**name)) {
            Some(name) => Err(wrong(name, format!("{name} needs url = 'mqtts://…'; mqtt:// is not encrypted"))),
            None => Ok(None),
        };
    }
    let client = match (path("tls.client_cert"), path("tls.client_key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(wrong("tls.client_cert", "tls.client_cert needs tls.client_key beside it")),
        (None, Some(_)) => return Err(wrong("tls.client_key", "tls.client_key needs tls.client_cert beside it")),
    };
    Ok(Some(TlsFiles { ca: path("tls.ca"), client }))
}

fn qos(options: &Options) -> Result<Qos, OptionError> {
    match options.get("qos").map(String::as_str) {
        Some("0") => Ok(Qos::AtMostOnce),
        None | Some("1") => Ok(Qos::AtLeastOnce),
        Some("2") => Ok(Qos::ExactlyOnce),
        Some(other) => Err(wrong("qos", format!("qos is '0', '1' or '2', found '{other}'"))),
    }
}

fn flag(options: &Options, name: &str) -> Result<Option<bool>, OptionError> {
    match options.get(name).map(|text| text.to_ascii_lowercase()).as_deref() {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(wrong(name, format!("{name} must be 'true' or 'false', found '{other}'"))),
    }
}

/// The same in every run of the same pipeline, and another one elsewhere: a broker cuts off the first of two clients with one name.
pub fn default_client_id(identity: &str, options: &Options, place: &Path) -> String {
    let mut hash = Sha256::new();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let place = place.display().to_string();
    let address = options.iter().filter(|(name, _)| matches!(name.as_str(), "url" | "topic")).flat_map(|(name, value)| [name, value]);
    for part in [host.as_str(), &place, identity].into_iter().chain(address.map(String::as_str)) {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digits: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let name: String = identity.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(48).collect();
    format!("freshet-{name}-{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn addresses_have_a_default_port_and_no_password() {
        assert_eq!(address("mqtt://broker").unwrap(), (false, "broker".into(), 1883));
        assert_eq!(address("mqtts://broker:9999/").unwrap(), (true, "broker".into(), 9999));
        assert_eq!(address("mqtt://[::1]:1884").unwrap(), (false, "::1".into(), 1884));
        assert_eq!(address("mqtt://[::1]").unwrap(), (false, "::1".into(), 1883));
        for bad in ["broker:1883", "http://broker", "mqtt://", "mqtt://broker:0", "mqtt://broker:x"] {
            assert!(address(bad).unwrap_err().message.starts_with("url is 'mqtt://host:1883'"), "{bad}");
        }
        assert!(address("mqtt://me:secret@broker").unwrap_err().message.contains("options of their own"));
    }

    #[test]
    fn filters_are_checked_one_by_one() {
        assert_eq!(filters("a/+/c, b/#").unwrap(), ["a/+/c", "b/#"]);
        assert_eq!(unshared(&filters("$share/g/a/#").unwrap()[0]), "a/#");
        for bad in ["", "a/b#", "a/#/c", "a+/b", "$share/g", "$share//a", "a,,b"] {
            assert!(filters(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_session_is_kept_unless_messages_may_be_lost_anyway() {
        let parse = |more: &[(&str, &str)]| {
            let mut all = options(&[("url", "mqtt://h"), ("topic", "t")]);
            all.extend(options(more));
            SourceSettings::parse("s", &all)
        };
        assert_eq!(parse(&[]).unwrap().broker.session_expiry, SESSION_EXPIRY);
        assert_eq!(parse(&[("qos", "0")]).unwrap().broker.session_expiry, Duration::ZERO);
        assert_eq!(parse(&[("session.expiry", "10min")]).unwrap().broker.session_expiry, Duration::from_secs(600));
        assert_eq!(parse(&[("clean_session", "true"), ("session.expiry", "1h")]).unwrap_err().option.as_deref(), Some("session.expiry"));
        assert_eq!(parse(&[("qos", "3")]).unwrap_err().option.as_deref(), Some("qos"));
        assert_eq!(parse(&[("tls.ca", "ca.pem")]).unwrap_err().option.as_deref(), Some("tls.ca"));
        let (one, other) = (parse(&[]).unwrap().broker.client_id, parse(&[("topic", "u")]).unwrap().broker.client_id);
        assert_ne!(one, other);
        assert_eq!(one, parse(&[("qos", "2")]).unwrap().broker.client_id);
        let at = |place: &str| default_client_id("source s", &options(&[("url", "mqtt://h")]), Path::new(place));
        assert_ne!(at("/a"), at("/b"), "each pipeline has a data directory of its own");
    }
}

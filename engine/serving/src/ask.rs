//! What may be asked over plain Flight. In: descriptor paths, command bytes, ticket bytes. Out: one request, or an error with the forms
//! that are understood. Three forms of a ticket or command: JSON, our own statement ticket, SQL text.

use freshet_core::{Epoch, Error, ReadMode, Result, SubscribeRequest};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::positions::Positions;

/// One request for rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Features of the keys in the request.
    Features(FeaturesAsk),
    /// The content of a view.
    View { view: String, as_of: Option<Epoch>, min_position: Positions },
    /// The changes of a view, and whether to say how far it is.
    Subscribe(SubscribeRequest, bool),
    /// A SELECT, or a SUBSCRIBE.
    Sql(String),
}

/// `{"subscribe": "totals", "snapshot": false, "progress": true, "as_of": 1357034400000, "up_to": …, "reader": "billing"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeAsk {
    subscribe: String,
    #[serde(default = "yes")]
    snapshot: bool,
    #[serde(default)]
    progress: bool,
    as_of: Option<u64>,
    up_to: Option<u64>,
    #[serde(default)]
    reader: String,
}

fn yes() -> bool {
    true
}

/// A lookup as JSON or as a path, for example `{"features": "delay", "keys": {"origin": ["EWR"]}, "mode": "consistent"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesAsk {
    #[serde(rename = "features")]
    pub service: String,
    /// Lists by column; a DoExchange brings batches instead.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub keys: serde_json::Map<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Milliseconds since 1970; alone or with mode `as_of`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<u64>,
    /// Adds a column `<name>__status` for each output column.
    #[serde(default)]
    pub status: bool,
    /// What the client has written and wants to see; the lookup waits for it.
    #[serde(default, skip_serializing_if = "Positions::is_empty")]
    pub min_position: Positions,
    /// How far a fresh answer may be behind the request time; the lookup waits for that (T15).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_staleness_ms: Option<u64>,
}

const AS_OF_OR_POSITION: &str = "as_of names an instant, min_position waits for one: give one of them";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Fresh,
    Consistent,
    RequestTime,
    AsOf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewAsk {
    view: String,
    as_of: Option<u64>,
    #[serde(default)]
    min_position: Positions,
}

/// The name of a read mode in requests and answers.
pub fn mode_name(mode: ReadMode) -> &'static str {
    match mode {
        ReadMode::Fresh => "fresh",
        ReadMode::Consistent => "consistent",
        ReadMode::RequestTime => "request_time",
        ReadMode::AsOf(_) => "as_of",
    }
}

impl FeaturesAsk {
    pub fn of(service: &str) -> FeaturesAsk {
        FeaturesAsk {
            service: service.to_string(),
            keys: serde_json::Map::new(),
            mode: None,
            as_of: None,
            status: false,
            min_position: Positions::default(),
            max_staleness_ms: None,
        }
    }

    /// Errors: Invalid if `mode`, `as_of` and what the lookup is to wait for do not go together.
    pub fn read_mode(&self) -> Result<ReadMode> {
        let fresh = self.as_of.is_none() && matches!(self.mode, None | Some(Mode::Fresh));
        if self.max_staleness_ms.is_some() && !fresh {
            return Err(Error::invalid("max_staleness_ms goes with mode fresh: the other modes choose their instant themselves"));
        }
        if self.as_of.is_some() && !self.min_position.is_empty() {
            return Err(Error::invalid(AS_OF_OR_POSITION));
        }
        match (self.mode, self.as_of) {
            (None | Some(Mode::AsOf), Some(epoch)) => Ok(ReadMode::AsOf(Epoch(epoch))),
            (Some(Mode::AsOf), None) => Err(Error::invalid("mode as_of needs as_of=<milliseconds since 1970>")),
            (Some(_), Some(_)) => Err(Error::invalid("as_of goes with mode as_of only")),
            (None | Some(Mode::Fresh), None) => Ok(ReadMode::Fresh),
            (Some(Mode::Consistent), None) => Ok(ReadMode::Consistent),
            (Some(Mode::RequestTime), None) => Ok(ReadMode::RequestTime),
        }
    }

    /// `["features", service, options…]` with the options `status`, `mode=…`, `as_of=…` and `min_position=source:partition:position`.
    fn from_path(service: &str, options: &[String]) -> Result<FeaturesAsk> {
        let mut ask = FeaturesAsk::of(service);
        for option in options {
            match option.split_once('=') {
                None if option == "status" => ask.status = true,
                Some(("mode", mode)) => ask.mode = Some(parse_mode(mode)?),
                Some(("as_of", epoch)) => ask.as_of = Some(epoch.parse().map_err(|_| Error::invalid(format!("as_of={epoch} is not a number")))?),
                Some(("min_position", positions)) => ask.min_position = ask.min_position.and(Positions::parse(positions)?)?,
                Some(("max_staleness_ms", most)) => {
                    ask.max_staleness_ms = Some(most.parse().map_err(|_| Error::invalid(format!("max_staleness_ms={most} is not a number")))?);
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "unknown path element {option}; known: status, mode=…, as_of=…, min_position=…, max_staleness_ms=…"
                    )));
                }
            }
        }
        ask.read_mode()?;
        Ok(ask)
    }
}

/// Errors: Invalid, naming the modes there are.
pub fn parse_mode(text: &str) -> Result<Mode> {
    serde_json::from_value(text.into())
        .map_err(|_| Error::invalid(format!("unknown read mode {text}; known: fresh, consistent, request_time, as_of")))
}

impl Ask {
    /// `[view]`, `["view", name]` or `["features", service, …]`.
    pub fn from_path(path: &[String]) -> Result<Ask> {
        match path {
            [first, service, options @ ..] if first == "features" => Ok(Ask::Features(FeaturesAsk::from_path(service, options)?)),
            [first, view] if first == "view" => Ok(Ask::View { view: view.clone(), as_of: None, min_position: Positions::default() }),
            [view] => Ok(Ask::View { view: view.clone(), as_of: None, min_position: Positions::default() }),
            _ => Err(Error::invalid(
                "a path is [view], [\"view\", name] or [\"features\", service, \"status\"?, \"mode=…\"?, \"as_of=…\"?, \"min_position=…\"?]",
            )),
        }
    }

    /// Command or ticket bytes that are not Flight SQL: JSON or SQL text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Ask> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("a ticket is JSON, SQL text or what GetFlightInfo returned"))?.trim();
        if !text.starts_with('{') {
            return if text.is_empty() { Err(Error::invalid("the ticket is empty")) } else { Ok(Ask::Sql(text.to_string())) };
        }
        let json: serde_json::Value = serde_json::from_str(text).map_err(|error| Error::invalid(format!("the ticket is not JSON: {error}")))?;
        let understand = |error: serde_json::Error| Error::invalid(format!("the ticket is not understood: {error}"));
        if json.get("features").is_some() {
            let ask: FeaturesAsk = serde_json::from_value(json).map_err(understand)?;
            ask.read_mode()?;
            Ok(Ask::Features(ask))
        } else if json.get("subscribe").is_some() {
            let SubscribeAsk { subscribe, snapshot, progress, as_of, up_to, reader } = serde_json::from_value(json).map_err(understand)?;
            let request = SubscribeRequest { view: subscribe, snapshot, as_of: as_of.map(Epoch), up_to: up_to.map(Epoch), reader };
            Ok(Ask::Subscribe(request, progress))
        } else if json.get("view").is_some() {
            let ask: ViewAsk = serde_json::from_value(json).map_err(understand)?;
            if ask.as_of.is_some() && !ask.min_position.is_empty() {
                return Err(Error::invalid(AS_OF_OR_POSITION));
            }
            Ok(Ask::View { view: ask.view, as_of: ask.as_of.map(Epoch), min_position: ask.min_position })
        } else {
            Err(Error::invalid("a JSON ticket has \"features\": service and \"keys\", \"view\": name, or \"subscribe\": name"))
        }
    }
}

/// True if the bytes are a Flight SQL command or ticket: a protobuf Any with a type of that protocol. The blanket service decodes
/// whatever comes as Any and fails on all else, so this must be asked first.
pub fn is_flight_sql(bytes: &[u8]) -> bool {
    arrow_flight::sql::Any::decode(bytes).is_ok_and(|any| any.type_url.starts_with("type.googleapis.com/arrow.flight.protocol.sql."))
}

/// What the ticket of a statement holds: all that is needed to answer it, in any process, at the epoch of its FlightInfo.
#[derive(Clone, PartialEq, Message)]
pub struct StatementTicket {
    #[prost(string, tag = "1")]
    pub sql: String,
    #[prost(uint64, optional, tag = "2")]
    pub epoch: Option<u64>,
    /// An Arrow IPC stream with the parameter rows; empty if there are none.
    #[prost(bytes = "vec", tag = "3")]
    pub parameters: Vec<u8>,
    /// The answer computed for the FlightInfo, if it is still kept.
    #[prost(uint64, tag = "4")]
    pub answer: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(parts: &[&str]) -> Result<Ask> {
        Ask::from_path(&parts.iter().map(|part| part.to_string()).collect::<Vec<_>>())
    }

    fn view(name: &str, as_of: Option<u64>) -> Ask {
        Ask::View { view: name.into(), as_of: as_of.map(Epoch), min_position: Positions::default() }
    }

    #[test]
    fn paths_name_views_and_services() {
        assert_eq!(path(&["delays"]).unwrap(), view("delays", None));
        assert_eq!(path(&["view", "features"]).unwrap(), view("features", None));
        let Ask::Features(ask) = path(&["features", "delay", "status", "as_of=12"]).unwrap() else { panic!("a lookup") };
        assert!(ask.status);
        assert_eq!(ask.read_mode().unwrap(), ReadMode::AsOf(Epoch(12)));
        let Ask::Features(ask) = path(&["features", "delay", "min_position=rides:0:42"]).unwrap() else { panic!("a lookup") };
        assert_eq!(ask.min_position, Positions::parse("rides:42").unwrap());
        for wrong in [
            &["features", "delay", "fast"][..],
            &["features", "delay", "mode=now"],
            &["features", "delay", "mode=fresh", "as_of=1"],
            &["features", "delay", "min_position=rides:0:42", "as_of=1"],
            &["features", "delay", "min_position=rides"],
            &[],
            &["a", "b"],
        ] {
            assert!(path(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn plain_tickets_are_json_or_sql_and_never_taken_for_flight_sql() {
        assert_eq!(Ask::from_bytes(b"SELECT 1").unwrap(), Ask::Sql("SELECT 1".into()));
        assert_eq!(Ask::from_bytes(br#"{"view": "v", "as_of": 5}"#).unwrap(), view("v", Some(5)));
        assert!(matches!(Ask::from_bytes(br#"{"features": "s", "keys": {"k": 1}, "mode": "consistent"}"#).unwrap(), Ask::Features(_)));
        for plain in [&b"SELECT 1"[..], b"{\"view\": \"v\"}", b"", b"x"] {
            assert!(!is_flight_sql(plain));
        }
        for wrong in [&b"{"[..], b"{}", b"", b"{\"view\": 1}", b"{\"features\": \"s\", \"keyz\": {}}", b"\xff\xfe"] {
            assert!(Ask::from_bytes(wrong).is_err());
        }
    }
}

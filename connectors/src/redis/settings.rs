//! WITH options of a Redis sink as typed values.

use std::path::PathBuf;
use std::time::Duration;

use freshet_core::{Encode, Format, OptionError, SinkDef};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::encode;
use crate::options::{self, wrong};
use crate::reject::{ON_REJECT, Rejects};
use crate::template::Template;

const OPTIONS: [&str; 9] = ["url", "key", "value", "ttl", "username", "password", "tls.ca", ON_REJECT, "primary_key"];
/// The field that says which epoch a row is of.
pub const EPOCH: &str = "__epoch";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A field per column that is not NULL.
    Hash,
    /// One JSON object.
    Json,
}

#[derive(Debug, Clone)]
pub struct RedisSettings {
    pub server: ConnectionInfo,
    pub encrypted: bool,
    pub ca: Option<PathBuf>,
    pub key: Template,
    /// Characters of values that are escaped in keys.
    pub separators: String,
    pub shape: Shape,
    pub ttl: Option<Duration>,
    pub rejects: Rejects,
}

impl RedisSettings {
    pub fn parse(def: &SinkDef) -> Result<RedisSettings, OptionError> {
        let (server, encrypted) = server(def)?;
        let ca = def.options.get("tls.ca").map(PathBuf::from);
        if ca.is_some() && !encrypted {
            return Err(wrong("tls.ca", "tls.ca needs url = 'rediss://…'; redis:// is not encrypted"));
        }
        if def.format != Format::Upsert {
            return Err(OptionError {
                option: None,
                message: "Redis holds one row per key: use FORMAT UPSERT ENCODE JSON with primary_key = '…'".into(),
            });
        }
        if def.encode != Encode::Json {
            return Err(OptionError { option: None, message: "Redis rows are hashes or JSON texts: use FORMAT UPSERT ENCODE JSON".into() });
        }
        if def.schema.index_of(EPOCH).is_ok() {
            return Err(OptionError { option: None, message: format!("the column {EPOCH} is the sink's own; give the view's column another name") });
        }
        let shape = match def.options.get("value").map(|text| text.to_ascii_lowercase()).as_deref() {
            None | Some("hash") => Shape::Hash,
            Some("json") => Shape::Json,
            Some(other) => return Err(wrong("value", format!("value is 'hash' or 'json', found '{other}'"))),
        };
        let ttl = options::duration(&def.options, "ttl", Duration::ZERO)?;
        let key = key(def)?;
        let separators = key.separators().map_err(|()| {
            wrong("key", "two columns touch each other, so that different rows could share a key; put a character between them, such as ':'")
        })?;
        Ok(RedisSettings {
            server,
            encrypted,
            ca,
            key,
            separators,
            shape,
            ttl: (!ttl.is_zero()).then_some(ttl),
            rejects: Rejects::parse(&def.name, &def.options)?,
        })
    }

    /// As it is named to people: without the password.
    pub fn address(&self) -> String {
        self.server.addr().to_string()
    }
}

fn server(def: &SinkDef) -> Result<(ConnectionInfo, bool), OptionError> {
    let text = options::required("redis", &def.options, "url", "the server: 'redis://host:6379/0'")?;
    let refused = |reason: &str| wrong("url", format!("url is 'redis://host:6379/0' or 'rediss://…' with TLS: {reason}"));
    if text.contains("#insecure") {
        return Err(refused("certificates are always checked; name the one to trust with tls.ca"));
    }
    let mut server = text.into_connection_info().map_err(|error| refused(&error.to_string()))?;
    let encrypted = matches!(server.addr(), ConnectionAddr::TcpTls { .. });
    let (username, password) = (def.options.get("username"), def.options.get("password"));
    let mut settings = server.redis_settings().clone();
    if let Some(username) = username {
        settings = settings.set_username(username);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    server = server.set_redis_settings(settings);
    Ok((server, encrypted))
}

/// Errors: a key that two rows could share, or that a deletion cannot name.
fn key(def: &SinkDef) -> Result<Template, OptionError> {
    let Some(text) = def.options.get("key") else { return Ok(Template::of_columns(&def.name, &def.key)) };
    let template = Template::parse("key", text, &def.schema)?;
    let name = |column: usize| def.schema.field(column).name().clone();
    if let Some(column) = template.columns().find(|column| !def.key.contains(column)) {
        let name = name(column);
        return Err(wrong(
            "key",
            format!("a deletion knows the columns of primary_key only, but key has {name}; add it to primary_key, or leave it out"),
        ));
    }
    if let Some(column) = def.key.iter().find(|column| template.columns().all(|used| used != **column)) {
        let name = name(*column);
        return Err(wrong("key", format!("rows that differ in {name} would share a key; add {{{name}}}")));
    }
    Ok(template)
}

pub fn check_sink(def: &SinkDef) -> Result<(), OptionError> {
    let known = [&OPTIONS[..], &encode::sink_options(def.format, def.encode)].concat();
    options::check_names("redis", def.options.keys(), &known)?;
    encode::check_sink(def)?;
    RedisSettings::parse(def).map(drop)
}

//! Talks to one server. In: writes of rows. Out: each done, refused for good, or all to be tried again.

use std::time::Duration;

use freshet_core::{Error, Result};
use redis::{Client, Connection, RedisError, ServerErrorKind, TlsCertificates, Value};

use super::settings::RedisSettings;
use crate::tls;

/// Until a connection stands, and until an answer comes.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// One row or one deletion, unless the key holds a later epoch already: so that it may be done twice, and a straggler does no harm.
/// KEYS: the key. ARGV: epoch, 'hash', 'json' or 'delete', lifetime in ms or 0, then fields and values, or the text.
const SCRIPT: &str = r#"
local kind = redis.call('TYPE', KEYS[1]).ok
local known = nil
if kind == 'hash' then
  known = redis.call('HGET', KEYS[1], '__epoch')
elseif kind == 'string' then
  known = string.match(redis.call('GET', KEYS[1]), '^{"__epoch":(%d+)')
elseif kind ~= 'none' then
  return redis.error_reply('WRONGTYPE the key holds a ' .. kind)
end
if known and tonumber(known) and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[2] == 'hash' then
  redis.call('HSET', KEYS[1], '__epoch', ARGV[1], unpack(ARGV, 4))
elseif ARGV[2] == 'json' then
  redis.call('SET', KEYS[1], ARGV[4])
end
if ARGV[2] ~= 'delete' and ARGV[3] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"#;

/// What the script is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    pub epoch: u64,
    pub row: Row,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    Delete,
    /// Names and values in turn.
    Hash(Vec<Vec<u8>>),
    Json(Vec<u8>),
}

pub struct RedisClient {
    client: Client,
    open: Option<Open>,
    ttl_ms: u64,
}

struct Open {
    connection: Connection,
    /// The name under which the server knows the script.
    script: String,
}

impl RedisClient {
    /// Connects to nothing yet. Errors: Invalid.
    pub fn new(settings: &RedisSettings) -> Result<RedisClient> {
        let client = if settings.encrypted {
            tls::install_provider();
            let root_cert = match &settings.ca {
                None => None,
                Some(path) => Some(std::fs::read(path).map_err(|error| Error::invalid(format!("cannot read {}: {error}", path.display())))?),
            };
            Client::build_with_tls(settings.server.clone(), TlsCertificates { client_tls: None, root_cert })
        } else {
            Client::open(settings.server.clone())
        };
        let client = client.map_err(|error| Error::invalid(error.to_string()))?;
        Ok(RedisClient { client, open: None, ttl_ms: settings.ttl.map_or(0, |ttl| ttl.as_millis() as u64) })
    }

    /// All of them in one round trip; those that were refused, with the reason. Errors: why all must be tried again, in words.
    pub fn write(&mut self, writes: &[Write]) -> Result<Vec<(usize, String)>, String> {
        let result = self.try_write(writes);
        if result.is_err() {
            self.open = None;
        }
        result
    }

    fn try_write(&mut self, writes: &[Write]) -> Result<Vec<(usize, String)>, String> {
        let ttl_ms = self.ttl_ms;
        let open = self.connect().map_err(|error| error.to_string())?;
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for write in writes {
            pipe.cmd("EVALSHA").arg(&open.script).arg(1).arg(&write.key).arg(write.epoch);
            match &write.row {
                Row::Delete => pipe.arg("delete").arg(0),
                Row::Hash(fields) => pipe.arg("hash").arg(ttl_ms).arg(fields),
                Row::Json(text) => pipe.arg("json").arg(ttl_ms).arg(text.as_slice()),
            };
        }
        let answers: Vec<Result<Value, RedisError>> = pipe.query(&mut open.connection).map_err(|error| error.to_string())?;
        let mut refused = Vec::new();
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(_) => {}
                Err(error) if passes(&error) => return Err(error.to_string()),
                Err(error) => refused.push((index, error.to_string())),
            }
        }
        Ok(refused)
    }

    fn connect(&mut self) -> Result<&mut Open, RedisError> {
        if self.open.is_none() {
            let mut connection = self.client.get_connection_with_timeout(CONNECT_WAIT)?;
            connection.set_read_timeout(Some(ANSWER_WAIT))?;
            connection.set_write_timeout(Some(ANSWER_WAIT))?;
            let script: String = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query(&mut connection)?;
            self.open = Some(Open { connection, script });
        }
        Ok(self.open.as_mut().expect("it was opened above"))
    }
}

/// Whether the server may do later what it has refused now.
fn passes(error: &RedisError) -> bool {
    use redis::ErrorKind::Server;
    match error.kind() {
        Server(ServerErrorKind::ResponseError) => error.detail().is_some_and(|detail| detail.contains("OOM")),
        Server(ServerErrorKind::CrossSlot | ServerErrorKind::ExecAbort | ServerErrorKind::NotBusy | ServerErrorKind::NoSub) => false,
        Server(_) => true,
        redis::ErrorKind::Extension => {
            matches!(error.code(), Some("OOM" | "MISCONF" | "BUSY" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS" | "UNKILLABLE"))
        }
        _ => true,
    }
}

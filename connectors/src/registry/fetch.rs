//! Fetches schemas by id without holding up who asks. In: an id. Out: its schema, or the word that it is still on its way.
//!
//! One thread asks the registry, again and again while it is away. Ids that the registry does not have are asked for again after a while.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use freshet_core::{Error, Kind, Result};

use super::client::RegistryClient;
use super::{RegisteredSchema, RegistryOptions};

/// Ids that wait for the thread; one topic has one or two writers' schemas at a time.
const IDS_AHEAD_MAX: usize = 64;
/// Pauses between two tries: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the word of a registry that it has no such schema counts.
const UNKNOWN_KEPT: Duration = Duration::from_secs(30);
/// Schemas that are remembered. Bytes that only look like ids must not fill the memory.
const SCHEMAS_MAX: usize = 4_096;

/// What is known of an id now.
#[derive(Debug, Clone)]
pub enum Known {
    Schema(Arc<RegisteredSchema>),
    /// The registry says that there is none, or it cannot be used.
    Never(String),
    /// Ask again later; why.
    NotYet(String),
}

enum State {
    Asked { trouble: Option<String> },
    Schema(Arc<RegisteredSchema>),
    Never { reason: String, since: Instant },
}

/// Schemas of one registry, fetched when they are first asked for.
pub struct Registry {
    url: String,
    states: Arc<Mutex<HashMap<u32, State>>>,
    /// Dropped with the registry, which ends the thread after the request under way.
    ids: SyncSender<u32>,
}

impl Registry {
    /// Asks nothing yet. Errors: Unavailable if no thread can be started.
    pub fn start(options: RegistryOptions) -> Result<Registry> {
        let url = options.url.clone();
        let client = RegistryClient::new(options)?;
        let states = Arc::new(Mutex::new(HashMap::new()));
        let (ids, asked) = sync_channel(IDS_AHEAD_MAX);
        let thread_states = states.clone();
        std::thread::Builder::new()
            .name("schema registry".into())
            .spawn(move || run(&client, &asked, &thread_states))
            .map_err(|error| Error::unavailable(format!("cannot start the thread that asks the schema registry: {error}")))?;
        Ok(Registry { url, states, ids })
    }

    /// Returns at once.
    pub fn schema(&self, id: u32) -> Known {
        let mut states = lock(&self.states);
        match states.get(&id) {
            Some(State::Schema(schema)) => return Known::Schema(schema.clone()),
            Some(State::Never { reason, since }) if since.elapsed() < UNKNOWN_KEPT => return Known::Never(reason.clone()),
            Some(State::Asked { trouble: Some(trouble) }) => return Known::NotYet(trouble.clone()),
            Some(State::Asked { trouble: None }) => return Known::NotYet(self.asking(id)),
            Some(State::Never { .. }) | None => {}
        }
        if states.len() >= SCHEMAS_MAX {
            states.retain(|_, state| matches!(state, State::Asked { .. }));
        }
        match self.ids.try_send(id) {
            Ok(()) => {
                states.insert(id, State::Asked { trouble: None });
                Known::NotYet(self.asking(id))
            }
            Err(TrySendError::Full(_)) => Known::NotYet(self.asking(id)),
            Err(TrySendError::Disconnected(_)) => Known::NotYet(format!("the thread that asks the schema registry at {} has ended", self.url)),
        }
    }

    fn asking(&self, id: u32) -> String {
        format!("schema {id} is being fetched from the registry at {}", self.url)
    }
}

fn run(client: &RegistryClient, asked: &Receiver<u32>, states: &Arc<Mutex<HashMap<u32, State>>>) {
    while let Ok(id) = asked.recv() {
        let mut pause = PAUSE_MIN;
        let state = loop {
            match client.schema(id) {
                Ok(schema) => break State::Schema(Arc::new(schema)),
                Err(error) if error.kind == Kind::Data => break State::Never { reason: error.message, since: Instant::now() },
                Err(error) => {
                    lock(states).insert(id, State::Asked { trouble: Some(error.message) });
                }
            }
            // The states are shared with the registry: if only this thread has them, nobody waits any more.
            std::thread::park_timeout(pause);
            if Arc::strong_count(states) == 1 {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        };
        lock(states).insert(id, state);
    }
}

fn lock(states: &Mutex<HashMap<u32, State>>) -> MutexGuard<'_, HashMap<u32, State>> {
    states.lock().unwrap_or_else(PoisonError::into_inner)
}

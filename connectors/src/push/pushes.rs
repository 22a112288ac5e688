//! All push sources of a pipeline. In: pushes by source name, from any thread. Out: where their rows stand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use freshet_core::{Error, Ingress, Push, PushSource, Pushed, Result, Source, SourceDef};

use super::queue::PushQueue;
use super::source::Reading;

/// How often `drain` looks.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(2);

/// The queues of a pipeline's push sources, by name.
#[derive(Default)]
pub struct Pushes {
    queues: RwLock<BTreeMap<String, Arc<PushQueue>>>,
    folder: Option<PathBuf>,
    away: OnceLock<String>,
}

impl std::fmt::Debug for Pushes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pushes").field("sources", &self.read().keys()).field("folder", &self.folder).finish()
    }
}

impl Pushes {
    /// With a data directory positions and names of pushes survive a restart.
    pub fn new(data_dir: Option<&Path>) -> Pushes {
        Pushes { folder: data_dir.map(|folder| folder.join("push")), ..Pushes::default() }
    }

    /// No source will be opened in this process, and this is why.
    pub fn stay_away(&self, reason: &str) {
        let _ = self.away.set(reason.to_string());
    }

    /// Opens the queue of a source; rows are taken from its first poll on.
    pub fn open(&self, def: &SourceDef) -> Result<Box<dyn Source>> {
        let queue = Arc::new(PushQueue::open(def, self.folder.as_deref())?);
        self.queues.write().unwrap_or_else(PoisonError::into_inner).insert(def.name.clone(), queue.clone());
        Ok(Box::new(Reading { name: def.name.clone(), queue }))
    }

    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Takes nothing more, and waits until all that was taken has been read, at most this long. True if it has been.
    pub fn drain(&self, most: Duration) -> bool {
        let queues: Vec<_> = self.read().values().cloned().collect();
        queues.iter().for_each(|queue| queue.close());
        let deadline = std::time::Instant::now() + most;
        loop {
            if queues.iter().all(|queue| queue.is_empty()) {
                return true;
            }
            if std::time::Instant::now() >= deadline {
                return false;
            }
            std::thread::park_timeout(DRAIN_LOOK_EVERY);
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<PushQueue>>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ingress for Pushes {
    fn sources(&self) -> Vec<PushSource> {
        self.read().values().map(|queue| queue.describe()).collect()
    }

    fn push(&self, push: Push) -> Result<Pushed> {
        let queue = self.read().get(&push.source).cloned();
        let queue = queue.ok_or_else(|| {
            let known: Vec<String> = self.read().keys().cloned().collect();
            let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
            Error::invalid(format!("there is no push source {}; known: {known}", push.source))
        })?;
        queue.push(&push)
    }

    fn away(&self) -> Option<Error> {
        self.away.get().map(Error::unavailable)
    }
}

//! Sessions of one model file. ONNX Runtime lets one caller at a time use a session, so each thread that scores takes one out and puts it
//! back; there are as many as threads ever scored at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;

/// Each holds the model's weights. More threads than that have no cores on the machines this runs on; they wait.
const SESSIONS_MAX: usize = 16;

#[derive(Debug)]
pub struct Sessions {
    environment: Environment,
    /// Kept, so that a later session is of the same bytes whatever happens to the file.
    bytes: Vec<u8>,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Session>,
    /// Idle, taken out or being opened.
    count: usize,
}

impl Sessions {
    pub fn new(environment: &Environment, bytes: Vec<u8>) -> Sessions {
        Sessions { environment: environment.clone(), bytes, pool: Mutex::default(), returned: Condvar::new() }
    }

    /// Lends a session to `work`. Opens one if all are out; waits if that would be too many.
    pub fn with<T>(&self, work: impl FnOnce(&mut Session) -> T) -> ort::Result<T> {
        let mut lease = Lease { sessions: self, session: self.idle() };
        let session = match lease.session.take() {
            Some(session) => session,
            None => open(&self.environment, &self.bytes)?,
        };
        Ok(work(lease.session.insert(session)))
    }

    /// An idle session; None: the caller may open one.
    fn idle(&self) -> Option<Session> {
        let mut pool = self.lock();
        loop {
            if let Some(session) = pool.idle.pop() {
                return Some(session);
            }
            if pool.count < SESSIONS_MAX {
                pool.count += 1;
                return None;
            }
            pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts the session back, or gives its place free if there is none, whatever happened meanwhile.
struct Lease<'a> {
    sessions: &'a Sessions,
    session: Option<Session>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut pool = self.sessions.lock();
        match self.session.take() {
            Some(session) => pool.idle.push(session),
            None => pool.count -= 1,
        }
        self.sessions.returned.notify_one();
    }
}

/// One thread for everything: with more, a row's bits depend on its batch (C7), and the cores belong to the workers. No memory pattern:
/// batches vary in size.
fn open(environment: &Environment, bytes: &[u8]) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_deterministic_compute(true)?
        .with_memory_pattern(false)?
        .with_log_level(LogLevel::Fatal)?
        .commit_from_memory(bytes)
}

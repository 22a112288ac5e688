//! A store that is away: who reads it waits and tries again, ever less often, and others can see why. In: attempts. Out: their first success.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freshet_core::{Error, Kind, Result};

/// The first pause, and the longest: what is back is found within this time.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Shared by the thread that reads and the one that polls.
#[derive(Debug, Default)]
pub struct Outage {
    trouble: Mutex<Option<String>>,
    changed: Condvar,
    stopped: AtomicBool,
}

impl Outage {
    /// Errors: any but Unavailable at once, and that when the reader is to end.
    pub fn retry<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut pause = FIRST;
        loop {
            match attempt() {
                Err(error) if error.kind == Kind::Unavailable && !self.is_stopped() => {
                    self.set_trouble(Some(error.message));
                    self.sleep(pause);
                    pause = (pause * 2).min(LONGEST);
                    if self.is_stopped() {
                        return Err(Error::unavailable("the source is to end"));
                    }
                }
                done => {
                    self.set_trouble(None);
                    return done;
                }
            }
        }
    }

    /// Why nothing comes; None: all is well.
    pub fn trouble(&self) -> Option<String> {
        self.state().clone()
    }

    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.state() = trouble;
    }

    /// Not past the end of the reader.
    pub fn sleep(&self, time: Duration) {
        let _ = self.changed.wait_timeout_while(self.state(), time, |_| !self.is_stopped());
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The reader is to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // The lock keeps a sleeper from missing the call.
        drop(self.state());
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tried_until_it_is_back_and_nothing_else_is_tried_again() {
        let outage = Outage::default();
        let mut attempts = 0;
        let done = outage.retry(|| {
            attempts += 1;
            if attempts < 3 {
                return Err(Error::unavailable("away"));
            }
            assert_eq!(outage.trouble().as_deref(), Some("away"));
            Ok(attempts)
        });
        assert_eq!((done.unwrap(), outage.trouble()), (3, None));
        let mut attempts = 0;
        let broken: Result<()> = outage.retry(|| {
            attempts += 1;
            Err(Error::data("broken"))
        });
        assert_eq!((broken.unwrap_err().message.as_str(), attempts), ("broken", 1));
        outage.stop();
        assert_eq!(outage.retry(|| -> Result<()> { Err(Error::unavailable("away")) }).unwrap_err().kind, Kind::Unavailable);
    }
}

//! How the process ends. In: errors. Out: the exit codes that scripts rely on, and the chain of causes on stderr.

use std::process::ExitCode;

use freshet_core::{BadData, Error, Kind, Plan};

/// Failed while running.
pub const FAILED: u8 = 1;
/// Wrong command line, SQL or configuration; nothing was started.
pub const WRONG: u8 = 2;
/// A record failed under bad_data = 'fail'.
pub const BAD_RECORD: u8 = 3;
/// Ended cleanly by SIGINT.
pub const INTERRUPTED: u8 = 130;
/// Ended cleanly by SIGTERM.
pub const TERMINATED: u8 = 143;

/// An error that knows its exit code.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub error: anyhow::Error,
}

pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// Nothing was started: the user mends the command, the SQL or the configuration.
    pub fn wrong(error: impl Into<anyhow::Error>) -> Failure {
        Failure { code: WRONG, error: error.into() }
    }

    pub fn failed(error: impl Into<anyhow::Error>) -> Failure {
        Failure { code: FAILED, error: error.into() }
    }

    /// Of something that could not start.
    pub fn start(error: Error) -> Failure {
        if error.kind == Kind::Invalid { Failure::wrong(error) } else { Failure::failed(error) }
    }

    /// Of a pipeline that ran.
    pub fn run(error: Error, plan_fails_on_bad_data: bool) -> Failure {
        let code = if error.kind == Kind::Data && plan_fails_on_bad_data { BAD_RECORD } else { FAILED };
        Failure { code, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::failed(error)
    }
}

/// True if a record can end the run.
pub fn fails_on_bad_data(plan: &Plan) -> bool {
    plan.sources.iter().any(|source| source.bad_data == BadData::Fail)
}

/// The code of an outcome; an error is printed with its causes first.
pub fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("error: {:#}", failure.error);
            ExitCode::from(failure.code)
        }
    }
}

/// Makes every panic end the process, after its message. The SQL compiler's thread is exempt: there a panic becomes an error.
pub fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        if thread.name() == Some("freshet-sql") {
            tracing::debug!(%panic, "the SQL compiler gave up");
            return;
        }
        // The reader of a client's Arrow has given up; the client is told.
        if freshet_serving::reads_foreign_bytes() {
            tracing::debug!(%panic, "a client's message is broken");
            return;
        }
        // A model that panics has failed on a row, which is data: the scoring thread goes on.
        if thread.name().is_some_and(|name| name.starts_with("scorer-")) {
            tracing::warn!(%panic, "a model has panicked");
            return;
        }
        default(panic);
        eprintln!("freshet: thread {} panicked; the process ends so that nothing waits for it. This is a bug.", thread.name().unwrap_or("unnamed"));
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_tell_who_can_mend_it() {
        assert_eq!(Failure::start(Error::invalid("no such file")).code, WRONG);
        assert_eq!(Failure::start(Error::unavailable("disk is gone")).code, FAILED);
        assert_eq!(Failure::run(Error::data("row 3"), true).code, BAD_RECORD);
        assert_eq!(Failure::run(Error::data("row 3"), false).code, FAILED);
        assert_eq!(Failure::run(Error::internal("oops"), true).code, FAILED);
    }
}

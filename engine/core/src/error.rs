//! What went wrong, and who can mend it: one coarse kind and one sentence with its way out.

/// Who can mend an error. A kind exists only because a caller acts differently on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong: fix it and send it again.
    Invalid,
    /// Something outside is not there now: try again.
    Unavailable,
    /// A record or a file is wrong: fix the data.
    Data,
    /// A newer generation has taken over: stop.
    Fenced,
    /// Our bug.
    Internal,
}

/// An error with its kind. `Display` prints only the sentence; the causes are in `source()`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn invalid(message: impl Into<String>) -> Error {
        Error { kind: Kind::Invalid, message: message.into() }
    }

    pub fn unavailable(message: impl Into<String>) -> Error {
        Error { kind: Kind::Unavailable, message: message.into() }
    }

    pub fn data(message: impl Into<String>) -> Error {
        Error { kind: Kind::Data, message: message.into() }
    }

    pub fn internal(message: impl Into<String>) -> Error {
        Error { kind: Kind::Internal, message: message.into() }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Error {
        Error::internal(format!("arrow: {error}"))
    }
}

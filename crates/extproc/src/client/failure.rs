//! What can go wrong with a picker.

use std::time::Duration;

/// Why a picker gave no answer that can be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// Its Service has no endpoint.
    #[error("the picker's Service has no endpoint")]
    NoAddress,
    /// None of its endpoints takes a connection.
    #[error("no connection to the picker: {0}")]
    Connect(String),
    /// It said nothing for too long.
    #[error("the picker did not answer within {0:?}")]
    Timeout(Duration),
    /// It, or the connection to it, broke the stream off.
    #[error("the picker broke the stream off: {:?}, {}", .0.code(), .0.message())]
    Broken(Box<tonic::Status>),
    /// It ended the stream in good order, but too early.
    #[error("the picker ended the stream before it was done")]
    Ended,
    /// What it said is not what the protocol allows.
    #[error("the picker's answer cannot be used: {0}")]
    Malformed(&'static str),
    /// It named no server, or none that may be asked.
    #[error("the picker named no server of the pool")]
    BadPick,
}

impl Failure {
    /// The stable word for metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoAddress | Self::Connect(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::Broken(_) => "broken",
            Self::Ended => "ended",
            Self::Malformed(_) => "malformed",
            Self::BadPick => "bad_pick",
        }
    }

    /// Whether another replica of the picker could do better: the connection failed, and not the picker's own mind.
    #[must_use]
    pub fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Broken(status) => {
                status.code() == tonic::Code::Unavailable
                    || std::error::Error::source(&**status).is_some()
            }
            _ => false,
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Broken(Box::new(status))
    }
}

//! The crate's error type.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Why a run, or one exchange of it, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operating system call failed; `what` names the operation and its object.
    #[error("{what}: {source}")]
    Io {
        /// The operation and its object.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The lab knows no such policy or engine.
    #[error("the lab cannot predict this scenario")]
    Prediction,
    /// The head of a reply does not parse.
    #[error("malformed head of a reply: {0}")]
    Head(#[from] httparse::Error),
    /// A reply breaks the rules of HTTP/1.1 framing.
    #[error("malformed reply: {0}")]
    Reply(&'static str),
    /// The peer closed the connection before the end of a reply.
    #[error("the connection was closed in {0}")]
    Closed(&'static str),
    /// A file under `/proc` is not of the form that proc(5) describes.
    #[error("{0}: not in the form that proc(5) describes")]
    Proc(PathBuf),
    /// A child process ended while it was needed.
    #[error("{name} ended early ({status}); it said last:\n{tail}")]
    Ended {
        /// Which child.
        name: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its output.
        tail: String,
    },
    /// A child process did not answer a completion with 200 in time.
    #[error("{name} did not answer with 200 within {limit:?} ({why}); it said last:\n{tail}")]
    NotReady {
        /// Which child.
        name: &'static str,
        /// The time it had.
        limit: Duration,
        /// The last failure seen.
        why: String,
        /// The last lines of its output.
        tail: String,
    },
    /// A binary that the bench starts is missing.
    #[error("{0}: no such binary; build it first: cargo build --release -p bench -p pointsman")]
    NoBinary(PathBuf),
    /// The process received SIGINT or SIGTERM.
    #[error("stopped by a signal")]
    Interrupted,
    /// A latency histogram cannot be made.
    #[error("histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    /// The floor cannot address a backend.
    #[error("target: {0}")]
    Target(#[from] hyper::http::Error),
    /// The floor's backend did not answer.
    #[error("backend: {0}")]
    Backend(#[from] hyper_util::client::legacy::Error),
    /// A number of the command line is not in its range.
    #[error("a number from {0} to {1} is wanted")]
    OutOfRange(f64, f64),
    /// The raw figures cannot be written as JSON.
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// For `map_err`: names the operation that failed.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err`: names the file that an operation failed on.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        Self::io(path.display().to_string())
    }
}

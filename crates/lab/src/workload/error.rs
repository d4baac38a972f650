//! What can be wrong with a workload.

use std::io;
use std::path::PathBuf;

/// Why there is no such workload.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The catalogue has no such name.
    #[error("there is no workload {name:?}; there are {known}")]
    Unknown {
        /// As given.
        name: String,
        /// All names.
        known: String,
    },
    /// A number that makes no sense there.
    #[error("{what} must be {must}, not {given}")]
    Number {
        /// What it is.
        what: &'static str,
        /// What it must be.
        must: &'static str,
        /// What it is instead.
        given: f64,
    },
    /// The workload replays a trace, and nobody said where traces are.
    #[error(
        "workload {name:?} replays a trace: give the folder that holds {file} (get it from {origin})"
    )]
    NoFolder {
        /// The workload.
        name: String,
        /// Name of the file.
        file: &'static str,
        /// Where it is published.
        origin: &'static str,
    },
    /// The trace is not there.
    #[error("workload {name:?} replays {}, which does not exist (get it from {origin})", path.display())]
    Missing {
        /// The workload.
        name: String,
        /// Where it is expected.
        path: PathBuf,
        /// Where it is published.
        origin: &'static str,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the file is wrong.
    #[error("{}: line {line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// No request falls into the window.
    #[error("{}: no request from second {start} to {end} of the trace", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// Start of the window, seconds of the trace.
        start: f64,
        /// End of the window.
        end: f64,
    },
}

/// What is wrong with a line of a trace.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Not JSON, or JSON without the fields.
    #[error("{0}")]
    Json(String),
    /// Not text.
    #[error("it is not UTF-8")]
    Text,
    /// Longer than a line of a trace can be.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// The header lacks a column.
    #[error("the header has no column {0:?}")]
    NoColumn(&'static str),
    /// The row ends before that column.
    #[error("it has no field {0:?}")]
    NoField(&'static str),
    /// Not a number of tokens.
    #[error("{field} is {value:?}, not a whole number")]
    NotNumber {
        /// The field.
        field: &'static str,
        /// As it stands there.
        value: String,
    },
    /// A number of tokens that cannot be.
    #[error("{field} is {value}; it must be from {least} to {MOST_TOKENS}")]
    Tokens {
        /// The field.
        field: &'static str,
        /// As it stands there.
        value: i64,
        /// The least it may be.
        least: u32,
    },
    /// Not a time.
    #[error("the timestamp {0:?} is not a time")]
    NotTime(String),
    /// Earlier than the line before.
    #[error("time goes back from {before} s to {now} s")]
    Backwards {
        /// Of the line before.
        before: f64,
        /// Of this line.
        now: f64,
    },
    /// The ids of blocks do not match the length of the prompt.
    #[error("{ids} hash_ids for {tokens} tokens; there must be {expected}")]
    Ids {
        /// How many there are.
        ids: usize,
        /// Tokens of the prompt.
        tokens: u32,
        /// How many there must be.
        expected: usize,
    },
}

/// The longest prompt or answer that a trace may have, tokens.
pub const MOST_TOKENS: u32 = 1 << 24;

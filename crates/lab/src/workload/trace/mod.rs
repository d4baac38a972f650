//! Published traces, read line by line.
//!
//! A reader holds one line at a time, so a file may have any size. It trusts nothing: a line that lacks a field, has
//! a negative length or goes back in time ends the reading with the line's number and what is wrong with it.

mod azure;
mod lines;
mod mooncake;
mod replay;

pub use azure::AzureReader;
pub use mooncake::MooncakeReader;
pub use replay::{Replay, ReplayOptions, Window};

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::error::{Fault, MOST_TOKENS, WorkloadError};

/// One request of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Seconds since the start of the trace.
    pub at: f64,
    /// Tokens of the prompt, at least 1.
    pub prompt_tokens: u32,
    /// Tokens of the answer, at least 1.
    pub output_tokens: u32,
    /// Names of the prompt's blocks where the trace tells them; equal names are equal prefixes.
    pub ids: Vec<u64>,
    /// Line in the file, counted from 1.
    pub line: u64,
}

/// How a trace is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON lines with `timestamp` (ms), `input_length`, `output_length`, `hash_ids` (Mooncake, arXiv 2407.00079).
    Mooncake,
    /// CSV with `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` (Azure public dataset, LLM inference 2023 and 2024).
    Azure,
}

/// A trace file of either format.
pub(super) enum Reader {
    Mooncake(MooncakeReader<BufReader<File>>),
    Azure(AzureReader<BufReader<File>>),
}

impl Reader {
    pub(super) fn open(path: &Path, format: Format) -> Result<Self, WorkloadError> {
        let file = File::open(path).map_err(|source| WorkloadError::Io {
            path: path.to_owned(),
            source,
        })?;
        let input = BufReader::with_capacity(1 << 16, file);
        Ok(match format {
            Format::Mooncake => Self::Mooncake(MooncakeReader::new(path, input)),
            Format::Azure => Self::Azure(AzureReader::new(path, input)),
        })
    }
}

impl Iterator for Reader {
    type Item = Result<Record, WorkloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Mooncake(reader) => reader.next(),
            Self::Azure(reader) => reader.next(),
        }
    }
}

/// A number of tokens within what makes sense. An answer of none counts as one token: it had to end.
fn tokens(field: &'static str, value: i64, least: u32) -> Result<u32, Fault> {
    u32::try_from(value)
        .ok()
        .filter(|tokens| (least..=MOST_TOKENS).contains(tokens))
        .map(|tokens| tokens.max(1))
        .ok_or(Fault::Tokens {
            field,
            value,
            least,
        })
}

/// Checks that time goes on.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    last: Option<f64>,
}

impl Clock {
    fn tick(&mut self, now: f64) -> Result<f64, Fault> {
        match self.last {
            Some(before) if now < before => Err(Fault::Backwards { before, now }),
            _ => {
                self.last = Some(now);
                Ok(now)
            }
        }
    }
}

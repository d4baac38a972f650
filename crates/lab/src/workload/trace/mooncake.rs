//! Mooncake's traces: JSON lines with the lengths and the blocks of each request (arXiv 2407.00079).
//!
//! `hash_ids` names blocks of 512 tokens, the last one perhaps not full; an id stands for the block and everything
//! before it. The ids are the shared structure of the trace, the words are not published.

use std::io::BufRead;
use std::path::Path;

use serde::Deserialize;

use super::lines::Lines;
use super::{Clock, Record, tokens};
use crate::workload::error::{Fault, WorkloadError};

/// Tokens that an id of a Mooncake trace stands for.
pub(super) const ID_TOKENS: u32 = 512;

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: i64,
    output_length: i64,
    hash_ids: Vec<u64>,
}

/// Reads requests one after another; ends after the first error.
pub struct MooncakeReader<R> {
    lines: Lines<R>,
    clock: Clock,
}

impl<R: BufRead> MooncakeReader<R> {
    /// `path` is for messages.
    pub fn new(path: &Path, input: R) -> Self {
        Self {
            lines: Lines::new(path, input),
            clock: Clock::default(),
        }
    }

    fn parse(&mut self) -> Result<Record, Fault> {
        let line: Line = serde_json::from_slice(self.lines.text())
            .map_err(|error| Fault::Json(error.to_string()))?;
        let prompt_tokens = tokens("input_length", line.input_length, 1)?;
        let output_tokens = tokens("output_length", line.output_length, 0)?;
        // A tail that fills no block may do without an id.
        let expected = prompt_tokens.div_ceil(ID_TOKENS) as usize;
        let least = (prompt_tokens / ID_TOKENS) as usize;
        if !(least..=expected).contains(&line.hash_ids.len()) {
            return Err(Fault::Ids {
                ids: line.hash_ids.len(),
                tokens: prompt_tokens,
                expected,
            });
        }
        if line.timestamp < 0.0 {
            return Err(Fault::NotTime(line.timestamp.to_string()));
        }
        Ok(Record {
            at: self.clock.tick(line.timestamp / 1000.0)?,
            prompt_tokens,
            output_tokens,
            ids: line.hash_ids,
            line: self.lines.line(),
        })
    }
}

impl<R: BufRead> Iterator for MooncakeReader<R> {
    type Item = Result<Record, WorkloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.lines.advance() {
            Ok(true) => Some(self.parse().map_err(|fault| self.lines.fail(fault))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

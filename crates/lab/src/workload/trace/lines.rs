//! Lines of bounded length.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use crate::workload::error::{Fault, WorkloadError};

/// The longest line that is read: a prompt of 16 million tokens in blocks of 512 takes less than half a megabyte.
const LONGEST: usize = 4 << 20;

pub(super) struct Lines<R> {
    path: PathBuf,
    input: R,
    buffer: Vec<u8>,
    line: u64,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(path: &Path, input: R) -> Self {
        Self {
            path: path.to_owned(),
            input,
            buffer: Vec::new(),
            line: 0,
            ended: false,
        }
    }

    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn text(&self) -> &[u8] {
        self.buffer.trim_ascii()
    }

    /// Nothing more is read, whatever follows.
    pub(super) fn fail(&mut self, fault: Fault) -> WorkloadError {
        self.ended = true;
        WorkloadError::Line {
            path: self.path.clone(),
            line: self.line,
            fault,
        }
    }

    /// Reads on to the next line that is not blank; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool, WorkloadError> {
        while !self.ended {
            self.buffer.clear();
            self.line += 1;
            let read = self
                .input
                .by_ref()
                .take(LONGEST as u64 + 1)
                .read_until(b'\n', &mut self.buffer);
            match read {
                Ok(0) => self.ended = true,
                Ok(bytes) if bytes > LONGEST => return Err(self.fail(Fault::TooLong(LONGEST))),
                Ok(_) => {
                    if self.line == 1 && self.buffer.starts_with(b"\xEF\xBB\xBF") {
                        self.buffer.drain(..3);
                    }
                    if !self.text().is_empty() {
                        return Ok(true);
                    }
                }
                Err(source) => {
                    self.ended = true;
                    return Err(WorkloadError::Io {
                        path: self.path.clone(),
                        source,
                    });
                }
            }
        }
        Ok(false)
    }
}

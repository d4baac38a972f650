//! Reading, line by line: a recording may be larger than memory.

use std::io::{self, BufRead};

use crate::line::{Line, VERSION, What};

/// A longer line is none of ours: a prompt of ten million tokens has about four million bytes of hashes.
const LONGEST: u64 = 64 << 20;

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file does not read.
    #[error("line {line}: {source}")]
    Io {
        /// From 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// A line that is no line of a recording.
    #[error("line {line}: {source}")]
    Json {
        /// From 1.
        line: u64,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A line that does not fit those before it.
    #[error("line {line}: {reason}")]
    Order {
        /// From 1.
        line: u64,
        /// Why not.
        reason: String,
    },
}

/// Reads a recording. After an error it gives nothing more.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: u64,
    text: Vec<u8>,
    /// Pools that were opened.
    pools: usize,
    over: bool,
    cut: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            line: 0,
            text: Vec::new(),
            pools: 0,
            over: false,
            cut: false,
        }
    }

    /// The number of the last line, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Whether the file ends in the middle of a line, which was left out: its writer was killed.
    pub fn cut(&self) -> bool {
        self.cut
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// A line that does not read or makes no sense, by its number.
    pub fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            if self.over || !self.fetch()? {
                return Ok(None);
            }
            let whole = self.text.last() == Some(&b'\n');
            if self.text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return match serde_json::from_slice::<Line>(&self.text) {
                Ok(line) => {
                    self.check(&line)?;
                    Ok(Some(line))
                }
                Err(_) if !whole && self.line > 1 => {
                    self.over = true;
                    self.cut = true;
                    Ok(None)
                }
                Err(source) => {
                    self.over = true;
                    let line = self.line;
                    Err(ReadError::Json { line, source })
                }
            };
        }
    }

    /// Reads a line into `text`; false at the end of the file.
    fn fetch(&mut self) -> Result<bool, ReadError> {
        self.line += 1;
        let line = self.line;
        self.text.clear();
        let mut input = io::Read::take(&mut self.input, LONGEST);
        let read = input.read_until(b'\n', &mut self.text);
        let read = read.map_err(|source| {
            self.over = true;
            ReadError::Io { line, source }
        })?;
        if read as u64 == LONGEST {
            return Err(self.wrong(format!("longer than {LONGEST} bytes")));
        }
        Ok(read > 0)
    }

    /// Pools open before they live, in order. Times may run back a little: threads read the clock before they get the
    /// core's lock.
    fn check(&mut self, line: &Line) -> Result<(), ReadError> {
        let (pool, known) = (line.pool as usize, self.pools);
        match &line.what {
            What::Pool(opened) if opened.version != VERSION => {
                let version = opened.version;
                Err(self.wrong(format!(
                    "version {version} of the format; this program reads {VERSION}"
                )))
            }
            What::Pool(_) if pool != known => {
                Err(self.wrong(format!("pool {pool} opens, {known} was due")))
            }
            What::Pool(_) => {
                self.pools += 1;
                Ok(())
            }
            _ if pool >= known => Err(self.wrong(format!("pool {pool} was not opened"))),
            _ => Ok(()),
        }
    }

    fn wrong(&mut self, reason: String) -> ReadError {
        self.over = true;
        ReadError::Order {
            line: self.line,
            reason,
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Line, ReadError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

//! Azure's traces of LLM inference: CSV with a time and two lengths (Azure public dataset, 2023 and 2024).
//!
//! The columns are found by the header, so their order does not matter and further ones do no harm. What prompts have
//! in common was not recorded. Times are counted from the first row.

use std::io::BufRead;
use std::path::Path;

use jiff::civil::DateTime;

use super::lines::Lines;
use super::{Clock, Record, tokens};
use crate::workload::error::{Fault, WorkloadError};

const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

/// Reads requests one after another; ends after the first error.
pub struct AzureReader<R> {
    lines: Lines<R>,
    clock: Clock,
    places: Option<[usize; 3]>,
    start: Option<DateTime>,
}

impl<R: BufRead> AzureReader<R> {
    /// `path` is for messages.
    pub fn new(path: &Path, input: R) -> Self {
        Self {
            lines: Lines::new(path, input),
            clock: Clock::default(),
            places: None,
            start: None,
        }
    }

    fn parse(&mut self, places: [usize; 3]) -> Result<Record, Fault> {
        let text = std::str::from_utf8(self.lines.text()).map_err(|_| Fault::Text)?;
        let mut fields = [""; 3];
        for (field, (place, column)) in fields.iter_mut().zip(places.into_iter().zip(COLUMNS)) {
            *field = cells(text).nth(place).ok_or(Fault::NoField(column))?;
        }
        let [time, prompt, output] = fields;
        let time = moment(time)?;
        let start = *self.start.get_or_insert(time);
        let at = time.duration_since(start).as_secs_f64();
        Ok(Record {
            prompt_tokens: tokens(COLUMNS[1], whole(COLUMNS[1], prompt)?, 1)?,
            output_tokens: tokens(COLUMNS[2], whole(COLUMNS[2], output)?, 0)?,
            at: self.clock.tick(at)?,
            ids: Vec::new(),
            line: self.lines.line(),
        })
    }

    fn step(&mut self) -> Result<Option<Record>, WorkloadError> {
        loop {
            if !self.lines.advance()? {
                return Ok(None);
            }
            let Some(places) = self.places else {
                match header(self.lines.text()) {
                    Ok(places) => self.places = Some(places),
                    Err(fault) => return Err(self.lines.fail(fault)),
                }
                continue;
            };
            return match self.parse(places) {
                Ok(record) => Ok(Some(record)),
                Err(fault) => Err(self.lines.fail(fault)),
            };
        }
    }
}

impl<R: BufRead> Iterator for AzureReader<R> {
    type Item = Result<Record, WorkloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|cell| cell.trim().trim_matches('"'))
}

fn header(line: &[u8]) -> Result<[usize; 3], Fault> {
    let text = std::str::from_utf8(line).map_err(|_| Fault::Text)?;
    let mut places = [0; 3];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        *place = cells(text)
            .position(|cell| cell.eq_ignore_ascii_case(column))
            .ok_or(Fault::NoColumn(column))?;
    }
    Ok(places)
}

/// `2023-11-16 18:17:03.9799600`; the dataset of 2024 adds `+00:00`.
fn moment(text: &str) -> Result<DateTime, Fault> {
    let bare = text.strip_suffix("+00:00").or(text.strip_suffix('Z'));
    bare.unwrap_or(text)
        .parse()
        .map_err(|_| Fault::NotTime(text.to_owned()))
}

fn whole(field: &'static str, text: &str) -> Result<i64, Fault> {
    text.parse().map_err(|_| Fault::NotNumber {
        field,
        value: text.to_owned(),
    })
}

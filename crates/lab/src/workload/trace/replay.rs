//! A window of a trace, sped up, as a workload.
//!
//! The file is read twice: once to check every line of the window (and, when the seed chooses the window, to learn
//! how long the trace is), once to replay it. Both passes stream. So a bad line is told before a run begins and not
//! in its middle.
//!
//! Timestamps may be rounded; Mooncake's are, to 3 s. Requests of one timestamp would then hit the fleet in the same
//! instant, so each is moved later by a random part of the rounding interval. A request waits in a small heap until
//! the file has reached times that no random part can bring before it.

use std::path::{Path, PathBuf};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::mooncake::ID_TOKENS;
use super::{Format, Reader, Record};
use crate::workload::error::WorkloadError;
use crate::workload::prompt::Prompt;
use crate::workload::queue::TimeQueue;
use crate::workload::random::{Purpose, name, stream};
use crate::workload::request::Request;
use crate::{Job, Workload};

/// Which part of the trace is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Window {
    /// From that second of the trace on.
    From(f64),
    /// From a second that the seed chooses, so that the window fits.
    BySeed,
}

/// How a trace is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplayOptions {
    /// Times are divided by this.
    pub speed: f64,
    /// Which part.
    pub window: Window,
    /// Seconds of the run, after the speed-up.
    pub duration: f64,
    /// Seconds of the run that are left out of the results.
    pub warmup: f64,
    /// Seconds of the trace over which equal timestamps are spread.
    pub jitter: f64,
    /// Seed of the window and the spreading.
    pub seed: u64,
}

/// A trace being replayed.
pub struct Replay {
    reader: Reader,
    options: ReplayOptions,
    /// The window in seconds of the trace.
    start: f64,
    end: f64,
    rng: ChaCha8Rng,
    held: TimeQueue<Record>,
    /// No later line can come before this.
    reached: f64,
    next_id: u64,
    failed: Option<WorkloadError>,
}

impl Replay {
    /// Checks the window of the trace at `path` and makes it ready.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, a line of the window (of the whole file, when the seed chooses the window) is
    /// wrong, or nothing falls into the window.
    pub fn open(
        path: &Path,
        format: Format,
        options: ReplayOptions,
    ) -> Result<Self, WorkloadError> {
        let length = options.duration * options.speed;
        let start = match options.window {
            Window::From(start) => start,
            Window::BySeed => {
                let room = (last_time(path, format)? - length).max(0.0);
                stream(options.seed, Purpose::Window, 0).random::<f64>() * room
            }
        };
        let end = start + length;
        if !has_requests(path, format, start, end)? {
            let path = PathBuf::from(path);
            return Err(WorkloadError::Empty { path, start, end });
        }
        Ok(Self {
            reader: Reader::open(path, format)?,
            options,
            start,
            end,
            rng: stream(options.seed, Purpose::Jitter, 0),
            held: TimeQueue::new(),
            reached: 0.0,
            next_id: 0,
            failed: None,
        })
    }

    /// Why the replay ended before its window did: the file changed between the passes.
    #[must_use]
    pub fn failed(&self) -> Option<&WorkloadError> {
        self.failed.as_ref()
    }

    /// Takes one line into the heap; false when no further line matters.
    fn take_line(&mut self) -> bool {
        match self.reader.next() {
            Some(Ok(record)) if record.at < self.end => {
                self.reached = record.at;
                let at = record.at + self.options.jitter * self.rng.random::<f64>();
                if (self.start..self.end).contains(&at) {
                    self.held.push(at, record);
                }
                true
            }
            Some(Err(error)) => {
                self.failed = Some(error);
                self.stop()
            }
            Some(Ok(_)) | None => self.stop(),
        }
    }

    fn stop(&mut self) -> bool {
        self.reached = f64::INFINITY;
        false
    }
}

impl Workload for Replay {
    fn next(&mut self) -> Option<Job> {
        while self
            .held
            .first_at()
            .is_none_or(|first| first > self.reached)
        {
            if self.reached.is_infinite() || !self.take_line() {
                break;
            }
        }
        let (trace_at, record) = self.held.pop()?;
        let id = self.next_id;
        self.next_id += 1;
        let at = (trace_at - self.start) / self.options.speed;
        Some(request(&record).job(id, at, at < self.options.warmup))
    }
}

/// The request of a record. Segments are named by the trace's ids, so prompts share what the ids say; what has no id
/// is the line's own.
fn request(record: &Record) -> Request {
    let own = name(&[u64::MAX, record.line]);
    let mut prompt = Prompt::new(None);
    let mut left = record.prompt_tokens;
    for id in &record.ids {
        let tokens = left.min(ID_TOKENS);
        prompt.push(name(&[*id]), tokens);
        left -= tokens;
    }
    prompt.push(own, left);
    // Mooncake's first block is common to all; the second begins what is the conversation's own.
    let first_message = record.ids.get(1).map_or(own, |id| name(&[*id]));
    Request {
        first_message,
        ..Request::new(prompt, record.output_tokens)
    }
}

fn last_time(path: &Path, format: Format) -> Result<f64, WorkloadError> {
    let mut last = 0.0;
    for record in Reader::open(path, format)? {
        last = record?.at;
    }
    Ok(last)
}

fn has_requests(path: &Path, format: Format, start: f64, end: f64) -> Result<bool, WorkloadError> {
    let mut found = false;
    for record in Reader::open(path, format)? {
        let at = record?.at;
        if at >= end {
            break;
        }
        found |= at >= start;
    }
    Ok(found)
}

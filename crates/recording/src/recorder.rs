//! Writing: one file for all pools of a process, a track in it for each pool.
//!
//! A pool's lines are in the order in which its core was called, because whoever calls the core holds its lock while
//! the track writes. A line goes into a buffer; the file is written when that is full, once a second, and at the end.
//! A recorder that has written its bound, or cannot write, says so once and stays silent: a recording must never get in
//! the way of requests.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use scheduling::{Config, Decision, Event, Time};

use crate::line::{Line, Opened, VERSION, What};

/// How long a line may stay in the buffer while others come.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Room that the last line needs.
const LAST_LINE: u64 = 64;

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    pools: AtomicU32,
    file: Mutex<Output>,
}

#[derive(Debug)]
struct Output {
    /// `None`: over.
    writer: Option<BufWriter<File>>,
    written: u64,
    limit: u64,
    flushed: Time,
    line: Vec<u8>,
}

impl Recorder {
    /// Begins a file, replacing one of that name. It will not be longer than `limit` bytes.
    ///
    /// # Errors
    /// A file that cannot be made.
    pub fn create(path: &Path, limit: u64) -> io::Result<Arc<Self>> {
        let output = Output {
            writer: Some(BufWriter::with_capacity(1 << 18, File::create(path)?)),
            written: 0,
            limit,
            flushed: Time::ZERO,
            line: Vec::new(),
        };
        Ok(Arc::new(Self {
            path: path.to_owned(),
            pools: AtomicU32::new(0),
            file: Mutex::new(output),
        }))
    }

    /// A track for a new pool. `policy` names one that came from outside the core.
    #[must_use]
    pub fn pool(
        self: &Arc<Self>,
        name: &str,
        seed: u64,
        config: &Config,
        policy: Option<&str>,
    ) -> Track {
        let track = Track {
            recorder: self.clone(),
            pool: self.pools.fetch_add(1, Ordering::Relaxed),
            pending: None,
            asking: false,
        };
        let opened = Opened {
            version: VERSION,
            name: name.to_owned(),
            seed,
            config: config.clone(),
            policy: policy.map(str::to_owned),
        };
        track.write(Time::ZERO, What::Pool(Box::new(opened)), (true, false));
        track
    }

    /// Writes out what is still in the buffer.
    pub fn flush(&self) {
        let mut output = self.file.lock();
        if let Some(Err(error)) = output.writer.as_mut().map(Write::flush) {
            self.give_up(&mut output, &error.to_string());
        }
    }

    fn write(&self, line: &Line) {
        let mut output = self.file.lock();
        if output.writer.is_none() {
            return;
        }
        if let Err(error) = output.write(line) {
            self.give_up(&mut output, &error.to_string());
        } else if output.writer.is_none() {
            tracing::warn!(path = %self.path.display(), "the recording has reached its bound and ends");
        }
    }

    fn give_up(&self, output: &mut Output, error: &str) {
        output.writer = None;
        tracing::error!(path = %self.path.display(), error, "the recording ends: it cannot be written");
    }
}

impl Output {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        let length = self.line.len() as u64;
        if self.written + length + LAST_LINE > self.limit {
            let full = Line {
                pool: line.pool,
                at: line.at,
                what: What::Full,
                more: false,
                amid: false,
            };
            self.line.clear();
            serde_json::to_writer(&mut self.line, &full)?;
            self.line.push(b'\n');
            writer.write_all(&self.line)?;
            writer.flush()?;
            self.writer = None;
            return Ok(());
        }
        writer.write_all(&self.line)?;
        self.written += length;
        if line.at - self.flushed >= FLUSH_EVERY {
            self.flushed = line.at;
            writer.flush()?;
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

/// One pool's part of a recording.
#[derive(Debug)]
pub struct Track {
    recorder: Arc<Recorder>,
    pool: u32,
    /// Told, and not known yet whether more follows before the core is asked; and whether it was amid answers.
    pending: Option<(Time, What, bool)>,
    /// The core has begun to answer.
    asking: bool,
}

impl Track {
    /// The core was told something.
    pub fn told(&mut self, at: Time, what: What) {
        self.settle(true);
        self.pending = Some((at, what, self.asking));
        self.asking = false;
    }

    /// The core was told of an event.
    pub fn event(&mut self, at: Time, event: Event<'_>) {
        self.told(at, event.into());
    }

    /// The core was asked, and said this.
    pub fn asked(&mut self, at: Time, said: Option<&Decision>) {
        if self.pending.is_some() {
            self.settle(false);
        } else if !self.asking {
            self.write(at, What::Tick, (false, false));
        }
        self.asking = said.is_some();
        if let Some(decision) = said {
            self.write(at, What::said(decision), (false, false));
        }
    }

    fn settle(&mut self, more: bool) {
        if let Some((at, what, amid)) = self.pending.take() {
            self.write(at, what, (more, amid));
        }
    }

    fn write(&self, at: Time, what: What, (more, amid): (bool, bool)) {
        self.recorder.write(&Line {
            pool: self.pool,
            at,
            what,
            more,
            amid,
        });
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.settle(true);
        self.recorder.flush();
    }
}

//! Workloads by name.

use std::path::{Path, PathBuf};

use super::entries::{ENTRIES, Kind};
use super::error::WorkloadError;
use super::request::Span;
use super::trace::{Format, Replay, ReplayOptions, Window};
use crate::Workload;

/// A workload of the catalogue and the fleet it is made for.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub description: &'static str,
    /// Where its numbers come from.
    pub source: &'static str,
    /// What the load counts.
    pub unit: &'static str,
    /// Loads of interest, in that unit.
    pub loads: &'static [f64],
    /// Engines of the fleet.
    pub engines: usize,
    /// Their profile, a name of [`simulator::profiles`].
    pub profile: &'static str,
    /// Engines of other profiles beside them.
    pub others: &'static [(&'static str, usize)],
    /// No prompt has more tokens together with its answer. Engines must take as many.
    pub longest: u32,
    /// Seconds during which jobs come; `None`: it ends by itself.
    pub duration: Option<f64>,
    /// Seconds at the start that do not count; where it ends by itself, it marks its own warm-up.
    pub warmup: f64,
    /// Adapters that an engine holds at once, where jobs name adapters.
    pub adapter_slots: Option<u32>,
    pub(super) kind: Kind,
}

impl Entry {
    /// Whether it replays a trace file, for which [`Options::traces_dir`] is needed.
    #[must_use]
    pub fn needs_trace(&self) -> bool {
        matches!(self.kind, Kind::Trace { .. })
    }
}

/// What a caller can change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The folder that holds the trace files.
    pub traces_dir: Option<&'a Path>,
    /// Seconds during which jobs come, instead of the entry's own.
    pub duration: Option<f64>,
    /// Seconds of warm-up, instead of the entry's own.
    pub warmup: Option<f64>,
    /// Which part of a trace; the seed chooses if not given.
    pub window: Option<Window>,
    /// Seconds of the trace over which equal timestamps are spread; 3 for Mooncake's format if not given, else 0.
    pub jitter: Option<f64>,
}

/// All workloads.
#[must_use]
pub fn catalogue() -> &'static [Entry] {
    ENTRIES
}

/// The workload of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// Makes a workload: one of the catalogue, or `mooncake:FILE` or `azure:FILE`, a trace file of that format whose load
/// is the speed-up. A relative file is sought in the folder of the traces, if there is one.
///
/// # Errors
///
/// When there is no such workload, a number makes no sense, or the trace is missing or faulty.
pub fn build(
    name: &str,
    load: f64,
    seed: u64,
    options: &Options<'_>,
) -> Result<Box<dyn Workload>, WorkloadError> {
    number("the load", "above 0 and below 1e6", load, |load| {
        load > 0.0 && load < 1e6
    })?;
    if let Some((format, file)) = file_of(name) {
        let path = options
            .traces_dir
            .map_or_else(|| PathBuf::from(file), |folder| folder.join(file));
        let span = span(options, Some(600.0), 120.0)?;
        return replay(&path, format, load, seed, (span, options));
    }
    let entry = find(name).ok_or_else(|| unknown(name))?;
    let span = span(options, entry.duration, entry.warmup)?;
    match entry.kind {
        Kind::Made(make) => Ok(make(load, seed, span)),
        Kind::Trace {
            format,
            files,
            origin,
        } => {
            let path = locate(name, files, origin, options.traces_dir)?;
            replay(&path, format, load, seed, (span, options))
        }
    }
}

fn unknown(name: &str) -> WorkloadError {
    let names: Vec<&str> = ENTRIES.iter().map(|entry| entry.name).collect();
    WorkloadError::Unknown {
        name: name.to_owned(),
        known: format!("{}, mooncake:FILE, azure:FILE", names.join(", ")),
    }
}

fn file_of(name: &str) -> Option<(Format, &str)> {
    let (format, file) = name.split_once(':')?;
    match format {
        "mooncake" => Some((Format::Mooncake, file)),
        "azure" => Some((Format::Azure, file)),
        _ => None,
    }
}

fn number(
    what: &'static str,
    must: &'static str,
    given: f64,
    fits: impl Fn(f64) -> bool,
) -> Result<f64, WorkloadError> {
    if fits(given) {
        Ok(given)
    } else {
        Err(WorkloadError::Number { what, must, given })
    }
}

fn span(options: &Options<'_>, duration: Option<f64>, warmup: f64) -> Result<Span, WorkloadError> {
    let end = match options.duration {
        Some(given) => number("the duration", "above 0 s and finite", given, |given| {
            given > 0.0 && given.is_finite()
        })?,
        None => duration.unwrap_or(f64::INFINITY),
    };
    let warmup = match options.warmup {
        Some(given) => number("the warm-up", "from 0 s to the duration", given, |given| {
            given >= 0.0 && given <= end
        })?,
        // A run shortened by the caller keeps the share of its warm-up.
        None => duration.map_or(warmup, |usual| warmup * (end / usual).min(1.0)),
    };
    Ok(Span { warmup, end })
}

fn locate(
    name: &str,
    files: &'static [&'static str],
    origin: &'static str,
    folder: Option<&Path>,
) -> Result<PathBuf, WorkloadError> {
    let first = files.first().copied().unwrap_or_default();
    let Some(folder) = folder else {
        return Err(WorkloadError::NoFolder {
            name: name.to_owned(),
            file: first,
            origin,
        });
    };
    files
        .iter()
        .map(|file| folder.join(file))
        .find(|path| path.is_file())
        .ok_or_else(|| WorkloadError::Missing {
            name: name.to_owned(),
            path: folder.join(first),
            origin,
        })
}

fn replay(
    path: &Path,
    format: Format,
    speed: f64,
    seed: u64,
    (span, options): (Span, &Options<'_>),
) -> Result<Box<dyn Workload>, WorkloadError> {
    let usual = match format {
        Format::Mooncake => 3.0,
        Format::Azure => 0.0,
    };
    let jitter = options.jitter.unwrap_or(usual);
    number("the jitter", "from 0 s to an hour", jitter, |jitter| {
        (0.0..=3600.0).contains(&jitter)
    })?;
    if let Some(Window::From(start)) = options.window {
        number("the window's start", "0 s or later", start, |start| {
            start >= 0.0 && start.is_finite()
        })?;
    }
    let replay = Replay::open(
        path,
        format,
        ReplayOptions {
            speed,
            window: options.window.unwrap_or(Window::BySeed),
            duration: span.end,
            warmup: span.warmup,
            jitter,
            seed,
        },
    )?;
    Ok(Box::new(replay))
}

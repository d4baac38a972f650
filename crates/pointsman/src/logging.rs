//! Logs: human on a terminal, JSON otherwise, always on standard error.
//!
//! The access log has a line for every exchange, and a system call for every line would be a tenth of what an exchange
//! costs. So its lines are gathered and written ten times a second; every other event is written at once, with the lines
//! before it. A process that is killed may lose a tenth of a second of its access log, one that ends loses nothing.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::{LogArgs, LogFormat};

/// How often gathered lines are written.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// Bytes gathered at most before they are written all the same.
const GATHER: usize = 64 << 10;

/// Writes what is gathered when it goes.
#[must_use]
pub(crate) struct Logs(Gathered);

impl Drop for Logs {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Installs the process's subscriber. `--log-level` takes `tracing` directives such as `info,access=off`; `default` is
/// what counts without.
pub(crate) fn init(args: &LogArgs, default: &str) -> Logs {
    let level = args.log_level.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(directives(level)).unwrap_or_else(|error| {
        eprintln!("pointsman: --log-level {level:?} is not a filter ({error}); using {default}");
        EnvFilter::new(directives(default))
    });
    let terminal = std::io::stderr().is_terminal();
    let human = match args.log_format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let gathered = Gathered::default();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(gathered.clone());
    if human {
        builder.with_ansi(terminal).compact().init();
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init();
    }
    let writer = gathered.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(WRITE_EVERY);
            writer.flush();
        }
    });
    Logs(gathered)
}

/// The level with what is kept quiet: the library that watches clusters warns at every try of a kind that may not be
/// read, which is said once by ours. A level that names the library has its way.
fn directives(level: &str) -> String {
    if level.contains("kube_runtime") {
        level.to_owned()
    } else {
        format!("{level},kube_runtime::watcher=off")
    }
}

/// Lines that are not written yet.
#[derive(Clone, Default)]
struct Gathered(Arc<Mutex<Vec<u8>>>);

impl Gathered {
    fn flush(&self) {
        Self::write_out(&mut self.0.lock());
    }

    /// Nobody is left to tell when standard error is gone.
    fn write_out(lines: &mut Vec<u8>) {
        if !lines.is_empty() {
            let _ = std::io::stderr().lock().write_all(lines);
            lines.clear();
        }
    }
}

/// Takes one event.
struct Line {
    gathered: Gathered,
    at_once: bool,
}

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let mut lines = self.gathered.0.lock();
        lines.extend_from_slice(text);
        if self.at_once || lines.len() >= GATHER {
            Gathered::write_out(&mut lines);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Gathered {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            gathered: self.clone(),
            at_once: true,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line {
            gathered: self.clone(),
            at_once: meta.target() != "access",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_watches_are_not_told_at_every_try() {
        // level; whether warnings of the library and of the rest are written
        let cases = [
            ("info", false, true),
            ("debug,access=off", false, true),
            ("off", false, false),
            ("info,kube_runtime=warn", true, true),
            ("off,kube_runtime::watcher=warn", true, false),
        ];
        for (level, library, ours) in cases {
            let filter = EnvFilter::try_new(directives(level)).unwrap();
            let subscriber = tracing_subscriber::fmt().with_env_filter(filter).finish();
            tracing::subscriber::with_default(subscriber, || {
                use tracing::{Level, enabled};
                let seen = enabled!(target: "kube_runtime::watcher", Level::WARN);
                assert_eq!(seen, library, "{level}");
                assert_eq!(enabled!(Level::WARN), ours, "{level}");
            });
        }
    }

    #[test]
    fn lines_are_gathered_until_there_are_many_or_one_is_urgent() {
        let gathered = Gathered::default();
        let mut line = Line {
            gathered: gathered.clone(),
            at_once: false,
        };
        line.write_all(b"one\n").unwrap();
        line.write_all(b"two\n").unwrap();
        assert_eq!(&gathered.0.lock()[..], b"one\ntwo\n");
        line.write_all(&vec![b'\n'; GATHER]).unwrap();
        assert!(gathered.0.lock().is_empty(), "the buffer is bounded");
        line.write_all(b"three\n").unwrap();
        line.at_once = true;
        line.write_all(b"urgent\n").unwrap();
        assert!(
            gathered.0.lock().is_empty(),
            "an urgent line takes those before it along"
        );
    }
}

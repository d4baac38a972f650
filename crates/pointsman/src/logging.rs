//! Logs: human on a terminal, JSON otherwise, always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::{LogArgs, LogFormat};

/// Installs the process's subscriber. `POINTSMAN_LOG` (or `--log-level`) takes `tracing` directives such as
/// `info,access=off`.
pub(crate) fn init(args: &LogArgs) {
    let filter = EnvFilter::try_new(&args.log_level).unwrap_or_else(|error| {
        eprintln!(
            "pointsman: --log-level {:?} is not a filter ({error}); using info",
            args.log_level
        );
        EnvFilter::new("info")
    });
    let human = match args.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if human {
        builder
            .with_ansi(std::io::stderr().is_terminal())
            .compact()
            .init();
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init();
    }
}

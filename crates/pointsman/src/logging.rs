//! Logs: human on a terminal, JSON otherwise, always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::{LogArgs, LogFormat};

/// Installs the process's subscriber. `--log-level` takes `tracing` directives such as `info,access=off`; `default` is
/// what counts without.
pub(crate) fn init(args: &LogArgs, default: &str) {
    let level = args.log_level.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(level).unwrap_or_else(|error| {
        eprintln!("pointsman: --log-level {level:?} is not a filter ({error}); using {default}");
        EnvFilter::new(default)
    });
    let terminal = std::io::stderr().is_terminal();
    let human = match args.log_format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
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
}

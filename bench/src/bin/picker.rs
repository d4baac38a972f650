//! `picker`: what a pick costs, against the least that can pick. See the README beside it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::Error;
use bench::child::sibling;
use bench::machine::{Machine, Placement};
use bench::picker::{self, Row, Settings};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Measures `pointsman epp` against a trivial picker behind one Envoy.
#[derive(Parser)]
struct Args {
    /// The Envoy binary.
    #[arg(long)]
    envoy: PathBuf,
    /// The `pointsman` binary; the one beside this when not given.
    #[arg(long)]
    pointsman: Option<PathBuf>,
    /// Four rounds of half a second instead of ten of one.
    #[arg(long)]
    quick: bool,
    /// Pin nothing; without, pickers and Envoy share the first core.
    #[arg(long)]
    unpinned: bool,
    /// Also write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Exit with 1 when a ratio is over its gate, or requests failed.
    #[arg(long)]
    gate: bool,
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::Io { what, source }
}

async fn measure(args: Args) -> Result<bool, Error> {
    let (rounds, millis) = if args.quick { (4, 500) } else { (10, 1000) };
    let place = || Placement::one_core().filter(Placement::move_self);
    let settings = Settings {
        pointsman: args.pointsman.map_or_else(|| sibling("pointsman"), Ok)?,
        envoy: args.envoy,
        placement: (!args.unpinned).then(place).flatten(),
        rounds,
        window: Duration::from_millis(millis),
    };
    let machine = Machine::look();
    let mut terminate = signal(SignalKind::terminate()).map_err(io("signals"))?;
    let rows = tokio::select! {
        rows = picker::run(&settings) => rows?,
        _ = terminate.recv() => return Err(Error::Interrupted),
        _ = tokio::signal::ctrl_c() => return Err(Error::Interrupted),
    };
    println!("{}", picker::markdown(&machine, &rows));
    if let Some(path) = args.json {
        let text = serde_json::json!({"machine": machine, "rows": rows}).to_string();
        std::fs::write(&path, text).map_err(io(&path.display().to_string()))?;
    }
    Ok(!(args.gate && rows.iter().any(Row::gate_failed)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match measure(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("over the gate");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("picker: {e}");
            ExitCode::from(2)
        }
    }
}

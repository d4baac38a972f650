//! `bench`: floor and gateway in short alternation, as a table. See the README beside it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::child::sibling;
use bench::machine::Placement;
use bench::suite::{POINTSMAN_ARGS, Scenario, Settings};
use bench::{Error, report, suite};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

/// Measures what the gateway costs, as a ratio to the smallest hyper reverse proxy.
#[derive(Parser)]
struct Args {
    /// Four rounds of half a second instead of ten of one.
    #[arg(long)]
    quick: bool,
    /// The gateway; `pointsman` beside this binary when not given.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Its arguments, with {listen}, {admin} and {backends} to be filled in.
    #[arg(long, default_value = POINTSMAN_ARGS, allow_hyphen_values = true)]
    gateway_args: String,
    /// Worker threads of floor and gateway (adds `--threads N` to the gateway's arguments).
    #[arg(long)]
    gateway_threads: Option<NonZeroUsize>,
    /// Pin floor and gateway to one core and the rest to the others.
    #[arg(long)]
    cores: Option<Cores>,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Also write all raw figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Exit with 1 when a ratio is over its gate twice, or requests failed.
    #[arg(long)]
    gate: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Cores {
    One,
}

impl Args {
    fn settings(self) -> Result<Settings, Error> {
        let (rounds, millis) = if self.quick { (4, 500) } else { (10, 1000) };
        let all = || Scenario::value_variants().to_vec();
        Ok(Settings {
            gateway: self.gateway.map_or_else(|| sibling("pointsman"), Ok)?,
            gateway_args: self.gateway_args,
            threads: self.gateway_threads,
            placement: self.cores.and_then(|Cores::One| place()),
            scenarios: if self.only.is_empty() {
                all()
            } else {
                self.only
            },
            rounds,
            window: Duration::from_millis(millis),
            repeat: self.gate,
        })
    }
}

/// Moves this process; a machine where that is not possible is said and measured unpinned.
fn place() -> Option<Placement> {
    let placement = Placement::one_core().filter(Placement::move_self);
    if placement.is_none() {
        eprintln!("cannot pin: no taskset, or a single core; nothing is pinned");
    }
    placement
}

/// Ends when the process is asked to; dropping the suite then stops its children.
async fn interrupted() -> Error {
    let listen = |kind| {
        signal(kind).map_err(|source| Error::Io {
            what: "signals".into(),
            source,
        })
    };
    match (
        listen(SignalKind::interrupt()),
        listen(SignalKind::terminate()),
    ) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => Error::Interrupted,
                _ = terminate.recv() => Error::Interrupted,
            }
        }
        (Err(e), _) | (_, Err(e)) => e,
    }
}

async fn measure(args: Args) -> Result<bool, Error> {
    let (gate, json) = (args.gate, args.json.clone());
    let settings = args.settings()?;
    let outcome = tokio::select! {
        outcome = suite::run(&settings) => outcome?,
        stopped = interrupted() => return Err(stopped),
    };
    println!("{}", report::markdown(&outcome));
    if let Some(path) = json {
        report::write_json(&outcome, &path)?;
    }
    Ok(!(gate && outcome.gate_failed()))
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
            eprintln!("bench: {e}");
            ExitCode::from(2)
        }
    }
}

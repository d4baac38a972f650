//! `fleet`: placement policies over simulated servers and real HTTP, as a table. See the README beside it.

use std::path::PathBuf;
use std::process::ExitCode;

use bench::Error;
use bench::fleet::scenario::Scenario;
use bench::fleet::servers::default_gateway;
use bench::fleet::{self, Settings, report};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

/// Measures what placement is worth: Pointsman against round robin and least request.
#[derive(Parser)]
struct Args {
    /// The gateway, which has the simulated servers too; `pointsman` beside this binary when not given.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Without a gateway: this program goes round robin over the servers itself, as a reference.
    #[arg(long)]
    direct: bool,
    /// Seeds of each scenario; its own number when not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: Option<u64>,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Also write all figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Exit with 1 when a goal is missed twice, the second time with other seeds.
    #[arg(long)]
    gate: bool,
}

impl Args {
    fn settings(&self) -> Result<Settings, Error> {
        let scenarios = match self.only.as_slice() {
            [] => Scenario::value_variants().to_vec(),
            only => only.to_vec(),
        };
        Ok(Settings {
            gateway: self.gateway.clone().map_or_else(default_gateway, Ok)?,
            direct: self.direct,
            scenarios,
            seeds: self.seeds,
            repeat: self.gate,
        })
    }
}

/// Ends when the process is asked to; dropping the run then stops its children.
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

async fn measure(args: &Args) -> Result<bool, Error> {
    let settings = args.settings()?;
    let outcome = tokio::select! {
        outcome = fleet::run(&settings) => outcome?,
        stopped = interrupted() => return Err(stopped),
    };
    println!("{}", report::markdown(&outcome));
    if let Some(path) = &args.json {
        report::write_json(&outcome, path)?;
    }
    Ok(!(args.gate && outcome.failed()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match measure(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("a goal was missed");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("fleet: {e}");
            ExitCode::from(2)
        }
    }
}

//! `pointsman`: the command line, and the place where the rooms are put together.
//!
//! Nothing is decided here: `serve` and `check` load objects, compile them and hand the plan to the data plane;
//! `epp` picks for other proxies; `sim` serves a simulated model server; `demo` shows all of it at work.

mod admin;
mod check;
mod cli;
mod config;
mod controller;
mod demo;
mod epp;
mod kubernetes;
mod logging;
mod picker_config;
mod queue;
mod serve;
mod sharing;
mod status_page;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let mut cli = Cli::parse_from(epp::arguments(std::env::args_os()));
    if let Command::Epp(args) = &cli.command {
        epp::adjust_log(args, &mut cli.log);
    }
    let quiet = matches!(
        cli.command,
        Command::Demo(_) | Command::Check(_) | Command::Lab(_)
    );
    let _logs = logging::init(&cli.log, if quiet { "error" } else { "info" });
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Epp(args) => epp::run(args),
        Command::Controller(args) => runtime().and_then(|rt| rt.block_on(controller::run(&args))),
        Command::Check(args) => return check::run(&args),
        Command::Sim(args) => runtime().and_then(|rt| rt.block_on(simserver::run(*args))),
        Command::Lab(command) => lab::cli::main(*command),
        Command::Demo(args) => demo::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pointsman: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A runtime for work that is not on the data path.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

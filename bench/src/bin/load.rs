//! `load --port N ...`: one run of the load generator, its figures as one line of JSON.

use std::time::Duration;

use bench::Error;
use bench::load::{Load, run};
use clap::Parser;

/// Bounded HTTP/1.1 load generator for 127.0.0.1: one thread, raw sockets, keep-alive.
#[derive(Parser)]
struct Args {
    /// Port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds of the measured window, at most 120.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    secs: f64,
    /// Seconds before the window.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
    /// Requests per second of an open loop; a closed loop when not given.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Bytes of a request's body.
    #[arg(long, default_value_t = 1024)]
    body: usize,
    /// Different bodies.
    #[arg(long, default_value_t = 1000)]
    pool: usize,
    /// Groups of bodies with the same first half.
    #[arg(long, default_value_t = 50)]
    groups: usize,
    /// Ask for streams.
    #[arg(long)]
    stream: bool,
    /// Path of the requests.
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// Model to ask for.
    #[arg(long, default_value = bench::mock::MODEL)]
    model: String,
    /// Processes whose CPU time in the window is wanted.
    #[arg(long = "pid")]
    pids: Vec<u32>,
}

fn seconds(text: &str) -> Result<f64, Error> {
    number(text, 0.0..=120.0)
}

fn rate(text: &str) -> Result<f64, Error> {
    number(text, 0.1..=1e6)
}

fn number(text: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, Error> {
    let number = text.parse().ok().filter(|n| range.contains(n));
    number.ok_or(Error::OutOfRange(*range.start(), *range.end()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let load = Load {
        port: args.port,
        connections: args.connections,
        rate: args.rate,
        warmup: Duration::from_secs_f64(args.warmup),
        window: Duration::from_secs_f64(args.secs),
        body: args.body,
        pool: args.pool,
        groups: args.groups,
        stream: args.stream,
        path: args.path,
        model: args.model,
    };
    let figures = run(&load, &args.pids).await?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

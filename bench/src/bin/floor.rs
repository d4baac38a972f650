//! `floor LISTEN BACKEND...`: the smallest hyper reverse proxy, the unit of the bench.

use std::net::SocketAddr;
use std::time::Duration;

use bench::Error;
use clap::Parser;
use tokio::net::TcpListener;

/// The smallest hyper reverse proxy: round robin, bodies streamed both ways.
#[derive(Parser)]
struct Args {
    /// Address to listen on.
    listen: SocketAddr,
    /// Servers, as HOST:PORT or http://HOST:PORT with a literal address.
    #[arg(required = true, value_parser = backend)]
    backends: Vec<SocketAddr>,
    /// Worker threads; one per usable core when not given.
    #[arg(long)]
    threads: Option<std::num::NonZeroUsize>,
    /// Seconds after which it ends by itself.
    #[arg(long, default_value_t = 3600)]
    stop_after: u64,
}

fn backend(text: &str) -> Result<SocketAddr, std::net::AddrParseError> {
    text.trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
}

fn main() -> Result<(), Error> {
    let args = Args::parse();
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| Error::Io { what, source }
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        builder.worker_threads(threads.get());
    }
    let runtime = builder.enable_all().build().map_err(io("runtime"))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(io("listen"))?;
        let limit = Duration::from_secs(args.stop_after);
        // The time limit is the normal end: nothing outlives a bench that was killed.
        let _ = tokio::time::timeout(limit, bench::floor::serve(listener, &args.backends)).await;
        Ok(())
    })
}

//! `mock LISTEN...`: mock model servers, one per address, all in one thread.

use std::net::SocketAddr;
use std::time::Duration;

use bench::Error;
use bench::mock::{Pace, serve};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// Mock model servers with the HTTP surface of vLLM.
#[derive(Parser)]
struct Args {
    /// Addresses to listen on; each is one model server.
    #[arg(required = true)]
    listen: Vec<SocketAddr>,
    /// Content chunks of a streamed answer.
    #[arg(long, default_value_t = 100)]
    chunks: usize,
    /// Microseconds between two chunks.
    #[arg(long, default_value_t = 0)]
    chunk_delay_us: u64,
    /// Seconds after which it ends by itself.
    #[arg(long, default_value_t = 3600)]
    stop_after: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let mut listeners = Vec::new();
    for address in &args.listen {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(|source| Error::Io {
            what: format!("listen on {address}"),
            source,
        })?);
    }
    let pace = Pace {
        chunks: args.chunks,
        every: Duration::from_micros(args.chunk_delay_us),
    };
    let local = LocalSet::new();
    let served = local.run_until(serve(listeners, pace));
    // The time limit is the normal end: nothing outlives a bench that was killed.
    let _ = tokio::time::timeout(Duration::from_secs(args.stop_after), served).await;
    Ok(())
}

//! `trivial-picker LISTEN BACKEND...`: the least that can pick for a proxy over ext_proc, the unit of the picker's bench.

use std::net::SocketAddr;
use std::time::Duration;

use bench::Error;
use clap::Parser;
use tokio::net::TcpListener;

/// Round robin over the servers, for any proxy that speaks ext_proc; nothing is read.
#[derive(Parser)]
struct Args {
    /// Address to listen on, cleartext HTTP/2.
    listen: SocketAddr,
    /// Servers.
    #[arg(required = true)]
    backends: Vec<SocketAddr>,
    /// Seconds after which it ends by itself.
    #[arg(long, default_value_t = 3600)]
    stop_after: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|source| Error::Io {
            what: "listen".into(),
            source,
        })?;
    let limit = Duration::from_secs(args.stop_after);
    // The time limit is the normal end: nothing outlives a bench that was killed.
    let _ = tokio::time::timeout(
        limit,
        bench::picker::trivial::serve(listener, args.backends),
    )
    .await;
    Ok(())
}

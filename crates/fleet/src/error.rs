//! What can go wrong here.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Errors of this crate. None of them reaches a client: a server that cannot be asked is only a server of which less
/// is known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A metric flag is not `name` or `name{label=value,...}`.
    #[error("metric `{text}`: {problem}")]
    Mapping {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Certificates to verify servers against could not be read.
    #[error("certificates to verify servers against: {0}")]
    Roots(String),
    /// The name to verify a server's certificate against is no host name.
    #[error("`{0}` is not a name that a certificate can be for")]
    ServerName(String),
    /// A certificate that is shown to servers, or its key, is not usable PEM.
    #[error("certificate {0}, which is shown to servers, is not usable PEM")]
    Identity(String),
    /// TLS settings that do not fit together.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// No connection.
    #[error("connect: {0}")]
    Connect(#[source] std::io::Error),
    /// The connection broke, or what came was not HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The request could not be written down.
    #[error(transparent)]
    Request(#[from] http::Error),
    /// Nothing in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer is larger than anything that belongs there.
    #[error("answer over {0} bytes")]
    TooLarge(usize),
    /// Another status than 200.
    #[error("status {0}")]
    Status(u16),
    /// Where siblings are is not written as `host:port`.
    #[error("`{0}` is not HOST:PORT")]
    SiblingName(String),
    /// The port for siblings cannot be bound.
    #[error("cannot listen for siblings on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds no token: one line of visible ASCII.
    #[error("{0}: no token in it: one line of visible ASCII characters")]
    Token(PathBuf),
}

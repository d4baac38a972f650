//! What a proxy may be told, with defaults that are argued where they are written.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Settings of a [`crate::Proxy`].
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Address of every listener; loopback until told otherwise.
    pub bind: IpAddr,
    /// The port that is bound for a port of the plan: the same, unless something in front maps ports.
    pub bound_port: fn(u16) -> u16,
    /// Worker threads, each with its own runtime, listeners and upstream connections. At least 1.
    pub threads: usize,
    /// Largest request body in bytes where a route does not say otherwise.
    pub max_body: u64,
    /// Bytes of a streamed request body that are kept so that another server can be asked.
    pub replay_window: usize,
    /// Time limits.
    pub deadlines: Deadlines,
    /// When another server is asked.
    pub retry: RetryOptions,
    /// How long an idle connection to a server is kept. Must stay below the server's own limit, else requests meet
    /// connections that are just being closed: uvicorn (vLLM) closes after 5 s.
    pub upstream_idle: Duration,
    /// Treat the clients of every listener as trusted.
    pub trusted: bool,
    /// Endpoint pickers may name servers outside their pool.
    pub trust_picks: bool,
    /// Answer `x-pointsman-explain: 1` for everybody, not only on trusted listeners.
    pub explain: bool,
    /// How long running exchanges of a closed port may take to end.
    pub drain: Duration,
    /// Key of session tokens, shared by gateways that serve the same clients; `None`: random for this process.
    pub session_key: Option<[u8; 32]>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            bound_port: std::convert::identity,
            threads: 1,
            max_body: 64 << 20,
            replay_window: 256 << 10,
            deadlines: Deadlines::default(),
            retry: RetryOptions::default(),
            upstream_idle: Duration::from_secs(4),
            trusted: false,
            trust_picks: false,
            explain: false,
            drain: Duration::from_secs(30),
            session_key: None,
        }
    }
}

/// Time limits, each with its own error code. There is no limit on a whole exchange unless a route sets one: an answer
/// may stream for an hour.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// To reach a server, TLS included.
    pub connect: Duration,
    /// From the request sent to the first byte of the answer.
    pub first_byte: Duration,
    /// Between two frames of an answer.
    pub idle: Duration,
    /// For a client to send the head of a request, and between two frames of its body.
    pub client_header: Duration,
    /// To reach an endpoint picker outside, TLS included.
    pub picker_connect: Duration,
    /// From the whole request sent to an endpoint picker to its decision.
    pub pick: Duration,
    /// For an endpoint picker through which an answer passes to give back anything of what it has.
    pub picker_silence: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(120),
            client_header: Duration::from_secs(30),
            picker_connect: Duration::from_secs(2),
            pick: Duration::from_secs(30),
            picker_silence: Duration::from_secs(30),
        }
    }
}

/// When another server is asked.
#[derive(Debug, Clone, Copy)]
pub struct RetryOptions {
    /// Servers asked after the first one failed.
    pub extra_servers: u32,
    /// Retries per request over a pool's traffic; keeps a failing pool from being hit three times as hard.
    pub budget_ratio: f64,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            extra_servers: 2,
            budget_ratio: 0.2,
        }
    }
}

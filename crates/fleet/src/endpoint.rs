//! A server in the address book.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use routing::AppProtocol;
use scheduling::{EndpointId, Load, Time};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::xxh3_64;

use crate::{ClientTls, Engine};

/// A server: who it is and how to reach it. It does not change; a server whose address, name or TLS settings change is
/// another one.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) id: EndpointId,
    pub(crate) uid: u64,
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) authority: String,
    pub(crate) protocol: AppProtocol,
    pub(crate) tls: Option<Arc<ClientTls>>,
    pub(crate) base_path: Option<String>,
    pub(crate) gone: AtomicBool,
    pub(crate) tried: AtomicBool,
    pub(crate) wishes: Wishes,
    /// It has failed several probes in a row.
    pub(crate) silent: watch::Sender<bool>,
    pub(crate) seen: Mutex<Seen>,
}

/// What a server's watcher is asked to do out of turn.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    bits: AtomicU8,
    changed: Notify,
}

impl Wishes {
    pub(crate) const PROBE: u8 = 1;
    pub(crate) const MODELS: u8 = 2;

    pub(crate) fn add(&self, wish: u8) {
        self.bits.fetch_or(wish, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(crate) fn take(&self) -> u8 {
        self.bits.swap(0, Ordering::Relaxed)
    }

    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// What a server last said about itself.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) engine: Option<Engine>,
    pub(crate) load: Load,
    pub(crate) load_at: Option<Time>,
    pub(crate) models: Vec<String>,
    pub(crate) error: Option<String>,
}

impl Endpoint {
    /// A number that no other server of this process ever had or will have.
    #[must_use]
    pub fn uid(&self) -> u64 {
        self.uid
    }

    /// Pod name, or `host:port`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes into `Host` or `:authority`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What it speaks.
    #[must_use]
    pub fn protocol(&self) -> AppProtocol {
        self.protocol
    }

    /// TLS, if it speaks that.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<ClientTls>> {
        self.tls.as_ref()
    }

    /// What to put before each request's path, without trailing slash.
    #[must_use]
    pub fn base_path(&self) -> Option<&str> {
        self.base_path.as_deref()
    }

    /// A number made of the address alone: equal in every process, so that it can stand in a cookie.
    #[must_use]
    pub fn token(&self) -> u64 {
        token(self.address, self.base_path())
    }

    /// Whether it has left the pool. Running requests may go on; connections to it need not be kept.
    #[must_use]
    pub fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Whether the server has failed several probes in a row.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }

    /// Resolves when the server has failed several probes in a row: a request that it has not begun to answer is better
    /// off elsewhere. A frozen process keeps its connections open, so that nothing else would tell.
    pub async fn silent(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.silent.subscribe().wait_for(|silent| *silent).await;
    }

    /// The load it reported, if that was within `ttl`.
    pub(crate) fn fresh_load(&self, now: Time, ttl: Duration) -> Load {
        let seen = self.seen.lock();
        match seen.load_at {
            Some(at) if now - at <= ttl => seen.load,
            _ => Load::default(),
        }
    }
}

/// The token of an address.
pub(crate) fn token(address: SocketAddr, base_path: Option<&str>) -> u64 {
    xxh3_64(format!("{address}{}", base_path.unwrap_or_default()).as_bytes())
}

/// A server as status pages show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointStatus {
    /// Name.
    pub name: String,
    /// Address.
    pub address: SocketAddr,
    /// May be chosen: not draining, not down.
    pub ready: bool,
    /// `up`, `suspect`, `down` or `dead`.
    pub health: &'static str,
    /// Gets nothing new because it shuts down.
    pub draining: bool,
    /// Takes work now.
    pub open: bool,
    /// Our requests there, and those of siblings.
    pub in_flight: u32,
    /// Of them those that siblings sent there.
    pub siblings_in_flight: u32,
    /// Those past their first token.
    pub decoding: u32,
    /// Prompt tokens still to compute.
    pub pending_tokens: u64,
    /// Its own queue.
    pub waiting: u32,
    /// Requests in its batch, if it says so.
    pub running: Option<u32>,
    /// Share of its KV cache in use, 0 to 1.
    pub kv_usage: f64,
    /// KV tokens it has, or is assumed to have.
    pub kv_capacity_tokens: u64,
    /// Blocks believed to be in its prefix cache.
    pub cached_blocks: usize,
    /// Adapters believed to be in its slots.
    pub adapters: usize,
    /// Milliseconds since its metrics were read.
    pub scrape_age_ms: Option<u64>,
    /// What it is, as far as its metrics tell.
    pub engine: Option<Engine>,
    /// Models it lists.
    pub models: Vec<String>,
    /// What went wrong when it was last asked.
    pub error: Option<String>,
}

//! Telling siblings: other replicas over the same pools.
//!
//! Replicas that do not know of each other lose what a good policy wins, so each tells the others what it charges and
//! gives back (`scheduling`, "Several gateways"). What the cores have to tell is fetched every 50 ms, and at once when
//! siblings would be ignorant of more than 5 ms of prefill: the threshold that was measured.
//!
//! **The way.** Each replica opens one connection to each sibling and only talks there: HTTP/2, one request
//! `POST /pointsman.sharing.v1.Sharing/Tell` whose body has messages of protobuf in gRPC's framing. The answer's head
//! comes at once and says whether it may talk: 200, 401 (another token), 404 (another version), 421 (it called itself).
//! A version is told by its path; fields that are not known are skipped. Servers are named by their
//! [`Endpoint::token`](crate::Endpoint::token), a hash of the address, pools by their key.
//!
//! **Nobody is held up.** What a sibling is to be told waits in a queue of bounded length and size; when that is full,
//! events are dropped, and when there is room again the sibling is told everything that is charged now, in place of
//! what it knew. So is a sibling that is new, and one that asks, since it has come to know a server of which it heard
//! before. One that is lost, and does not come back soon, is forgotten: what it had
//! charged goes back.

mod dial;
mod hear;
mod secret;
mod tell;
mod wire;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::{Error, Fleet};
use dial::Directory;
use hear::Hearer;
use secret::{Certificates, Token};
use tell::Teller;

pub(crate) use wire::Told;

/// Connections that are opened to us and not yet told apart from nonsense, and those of siblings, in all.
const MOST_SIBLINGS: usize = 64;

/// Settings of sharing. A fleet that tells must have been made with [`FleetOptions::share`](crate::FleetOptions::share).
#[derive(Debug, Clone)]
pub struct SharingOptions {
    /// Where siblings tell us. `None`: nobody can.
    pub listen: Option<SocketAddr>,
    /// Whom we tell. A name with several addresses is several siblings; we ourselves may be among them.
    pub siblings: Vec<SiblingName>,
    /// A file with the text that siblings must know. It is read at each connection, so it may change.
    pub token_file: Option<PathBuf>,
    /// Folder with `tls.crt`, `tls.key` and `ca.crt`: TLS, and each side verifies the other. Without, cleartext.
    pub certificates: Option<PathBuf>,
    /// How often names are resolved again.
    pub resolve: Duration,
    /// How often cores are asked for what siblings do not know.
    pub period: Duration,
    /// How long a sibling whose connection was lost may take to come back.
    pub forget_after: Duration,
}

impl Default for SharingOptions {
    fn default() -> Self {
        Self {
            listen: None,
            siblings: Vec::new(),
            token_file: None,
            certificates: None,
            resolve: Duration::from_secs(5),
            period: Duration::from_millis(50),
            forget_after: Duration::from_secs(5),
        }
    }
}

/// Where siblings are: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiblingName {
    host: String,
    port: u16,
}

impl FromStr for SiblingName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::SiblingName(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = match bare {
            Some(inner) if inner.parse::<IpAddr>().is_ok() => inner,
            Some(_) => return Err(wrong()),
            None if host.contains([':', '[', ']', '/', ' ']) || host.is_empty() => {
                return Err(wrong());
            }
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0);
        Ok(Self {
            host: host.to_owned(),
            port: port.ok_or_else(wrong)?,
        })
    }
}

impl fmt::Display for SiblingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Sharing goes on until this is dropped.
#[derive(Debug)]
pub struct Sharing {
    address: Option<SocketAddr>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Sharing {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What both directions need.
#[derive(Debug)]
struct Ways {
    /// Tells this process from all others.
    instance: u64,
    token: Token,
    certificates: Option<Certificates>,
}

impl Sharing {
    /// Begins to tell siblings of all pools of `fleet`, and to listen to them. Must be called inside the runtime that is
    /// to do it.
    ///
    /// # Errors
    /// The port is in use, or token or certificates cannot be used.
    pub async fn start(fleet: &Arc<Fleet>, options: SharingOptions) -> Result<Self, Error> {
        let ways = Arc::new(Ways {
            instance: random(),
            token: Token::open(options.token_file.clone())?,
            certificates: options.certificates.map(Certificates::open).transpose()?,
        });
        let mut tasks = Vec::new();
        let mut address = None;
        if let Some(at) = options.listen {
            let bind = |source| Error::Bind {
                address: at,
                source,
            };
            let listener = TcpListener::bind(at).await.map_err(bind)?;
            address = Some(listener.local_addr().map_err(bind)?);
            let hearer = Hearer::new(fleet, Arc::clone(&ways), options.forget_after);
            tasks.push(tokio::spawn(hear::accept(listener, hearer)).abort_handle());
        }
        if !options.siblings.is_empty() {
            let (joins, joining) = mpsc::channel(MOST_SIBLINGS);
            let teller = Teller::new(fleet, joining, options.period);
            tasks.push(tokio::spawn(teller.run()).abort_handle());
            let metrics = Arc::clone(fleet.metrics());
            let directory = Directory::new(options.siblings, ways, joins, metrics);
            tasks.push(tokio::spawn(directory.run(options.resolve)).abort_handle());
        }
        Ok(Self { address, tasks })
    }

    /// Where siblings tell us.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// A number that nobody else has. It need not be secret.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_named_by_host_and_port() {
        for (text, host, port) in [
            ("gw.ns.svc:9007", "gw.ns.svc", 9007),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("[::1]:9007", "::1", 9007),
        ] {
            let name: SiblingName = text.parse().unwrap();
            assert_eq!((name.host.as_str(), name.port), (host, port));
            assert_eq!(name.to_string(), text);
        }
        for bad in [
            "",
            "gw",
            "gw:",
            ":9007",
            "gw:0",
            "gw:65536",
            "gw:x",
            "::1:9007",
            "[::1]",
            "[gw]:1",
            "a b:1",
            "http://gw:1",
        ] {
            assert!(bad.parse::<SiblingName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_differ() {
        let mut numbers: Vec<u64> = (0..100).map(|_| random()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 100);
    }
}

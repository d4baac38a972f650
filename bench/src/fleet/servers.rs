//! The processes of one run: simulated model servers, and the gateway before them.
//!
//! Each run has fresh ones, so that every policy begins with cold caches and knows nothing. They end with the guard
//! that holds them, by their ids.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::StatusCode;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::child::{Child, free_ports};
use crate::fleet::client::{Client, unexpected};
use crate::fleet::counters::Counters;
use crate::fleet::scenario::{Policy, Shape};
use crate::fleet::workload::MODEL;

/// A process must be ready within this time.
const READY: Duration = Duration::from_secs(20);
/// Between two looks at a process that is not ready.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of a process's output an error shows.
const TAIL: usize = 2000;
const GATEWAY: &str = "gateway";
const SIMS: [&str; 8] = [
    "sim-0", "sim-1", "sim-2", "sim-3", "sim-4", "sim-5", "sim-6", "sim-7",
];

/// Running servers and, unless the load goes straight to them, a gateway.
pub struct Servers {
    children: Vec<Child>,
    /// Ports of the model servers.
    pub sims: Vec<u16>,
    /// Where the load goes, in turn: the gateway, or each server.
    pub targets: Vec<u16>,
    // Dropped last: the children write into it.
    logs: TempDir,
}

impl Servers {
    /// Starts the servers of a shape, and the gateway with a policy; without a policy the load goes straight to the
    /// servers. Returns when all are ready.
    ///
    /// # Errors
    /// When a process does not start, ends, or is not ready in time.
    pub async fn start(
        program: &Path,
        shape: &Shape,
        policy: Option<Policy>,
        seed: u64,
        client: &Client,
    ) -> Result<Self, Error> {
        let logs = tempfile::tempdir().map_err(Error::io("a folder for logs"))?;
        let ports = free_ports(shape.servers + 2)?;
        let (gateway, sims) = ports.split_at(2);
        let mut servers = Self {
            children: Vec::new(),
            sims: sims.to_vec(),
            targets: sims.to_vec(),
            logs,
        };
        for (i, (&port, name)) in sims.iter().zip(SIMS).enumerate() {
            let args = sim_args(shape, port, seed + i as u64);
            servers.spawn(name, program, &args)?;
        }
        for &port in sims {
            servers.ready(port, "/health", client).await?;
        }
        if let Some(policy) = policy {
            let args = gateway_args(sims, gateway[0], gateway[1], policy, seed);
            servers.spawn(GATEWAY, program, &args)?;
            servers.ready(gateway[1], "/readyz", client).await?;
            servers.ready(gateway[0], "/v1/models", client).await?;
            servers.targets = vec![gateway[0]];
        }
        Ok(servers)
    }

    /// What each server has counted so far.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn counters(&self, client: &Client) -> Result<Vec<Counters>, Error> {
        let mut counters = Vec::new();
        for &port in &self.sims {
            let (status, page) = client.call(port, "/metrics", None).await?;
            if status != StatusCode::OK {
                return Err(unexpected(status, &page));
            }
            counters.push(Counters::read(&String::from_utf8_lossy(&page)));
        }
        Ok(counters)
    }

    /// An error when one of the processes has ended.
    ///
    /// # Errors
    /// [`Error::Ended`] with its last words.
    pub fn check_alive(&mut self) -> Result<(), Error> {
        self.children.iter_mut().try_for_each(Child::check_alive)
    }

    fn spawn(&mut self, name: &'static str, program: &Path, args: &[String]) -> Result<(), Error> {
        let child = Child::start(name, program, args, None, self.logs.path())?;
        self.children.push(child);
        Ok(())
    }

    /// Waits for the process that was started last, or one before it, until `path` is answered with 200.
    async fn ready(&mut self, port: u16, path: &str, client: &Client) -> Result<(), Error> {
        let end = Instant::now() + READY;
        loop {
            self.check_alive()?;
            let why = match client.call(port, path, None).await {
                Ok((StatusCode::OK, _)) => return Ok(()),
                Ok((status, answer)) => unexpected(status, &answer).to_string(),
                Err(e) => e.to_string(),
            };
            if Instant::now() >= end {
                return Err(self.late(port, why));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn late(&self, port: u16, why: String) -> Error {
        let sim = self.sims.iter().position(|&sim| sim == port);
        let name = sim.and_then(|i| SIMS.get(i)).copied().unwrap_or(GATEWAY);
        let log = std::fs::read(self.logs.path().join(name)).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL)..]).into_owned();
        Error::NotReady {
            name,
            limit: READY,
            why,
            tail,
        }
    }
}

fn sim_args(shape: &Shape, port: u16, seed: u64) -> Vec<String> {
    let (port, seed, speed) = (port.to_string(), seed.to_string(), shape.speed.to_string());
    let fixed = [
        "--log-level",
        "warn",
        "sim",
        "--port",
        &port,
        "--seed",
        &seed,
        "--speed",
        &speed,
        "--model",
        MODEL,
    ];
    let fixed = fixed.iter().map(ToString::to_string);
    fixed.chain(shape.sim_args.iter().cloned()).collect()
}

fn gateway_args(sims: &[u16], listen: u16, admin: u16, policy: Policy, seed: u64) -> Vec<String> {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let mut args: Vec<String> = ["--log-level", "warn", "serve"].map(Into::into).into();
    args.extend(sims.iter().map(|&sim| format!("http://{}", address(sim))));
    let options = [
        ("--listen", address(listen)),
        ("--admin", address(admin)),
        ("--policy", policy.flag().to_owned()),
        ("--threads", "1".to_owned()),
        ("--seed", seed.to_string()),
    ];
    for (name, value) in options {
        args.extend([name.to_owned(), value]);
    }
    args
}

/// The gateway's own binary beside this one.
///
/// # Errors
/// When this process cannot tell its own path.
pub fn default_gateway() -> Result<PathBuf, Error> {
    crate::child::sibling("pointsman")
}

/// Most servers that a shape may ask for.
#[cfg(test)]
pub(crate) const MOST: usize = SIMS.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_told_servers_ports_and_policy() {
        let args = gateway_args(&[1, 2], 3, 4, Policy::LeastRequest, 5).join(" ");
        assert_eq!(
            args,
            "--log-level warn serve http://127.0.0.1:1 http://127.0.0.1:2 --listen 127.0.0.1:3 \
             --admin 127.0.0.1:4 --policy least-request --threads 1 --seed 5"
        );
    }

    #[tokio::test]
    async fn a_program_that_ends_at_once_is_named() {
        let shape = Shape {
            servers: 2,
            speed: 1.0,
            sim_args: Vec::new(),
        };
        let client = Client::default();
        let started = tokio::task::LocalSet::new()
            .run_until(Servers::start(
                Path::new("/bin/false"),
                &shape,
                None,
                0,
                &client,
            ))
            .await;
        let error = started.err().unwrap();
        assert!(
            matches!(error, Error::Ended { name: "sim-0", .. }),
            "{error}"
        );
    }
}

//! The proxy as its host sees it: start, apply a new plan, drain.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use fleet::Fleet;
use parking_lot::Mutex;
use routing::{Plan, PortPlan};
use telemetry::Metrics;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::listen::{Opened, Port, bind};
use crate::options::ProxyOptions;
use crate::session::SessionKey;
use crate::tls;
use crate::worker::{self, Command, Shared};

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// A worker's thread or runtime could not be made.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
    /// The system gives no random bytes for the session key.
    #[error("the system gives no random bytes")]
    Random,
}

/// A listener that is not served as the plan wants it; everything else is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenProblem {
    /// The port as the plan names it.
    pub port: u16,
    /// What is wrong.
    pub kind: ListenProblemKind,
    /// A sentence for people.
    pub message: String,
}

/// What can be wrong with a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenProblemKind {
    /// Another process has the port.
    InUse,
    /// The port cannot be bound for another reason.
    Bind,
    /// A certificate cannot be used.
    Certificate,
}

/// A running data plane.
pub struct Proxy {
    shared: Shared,
    workers: Vec<WorkerHandle>,
    ports: Mutex<BTreeMap<u16, (Arc<Port>, SocketAddr)>>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
}

struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Abort);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Proxy {
    /// Starts the workers and serves what `plan` says. Ports that cannot be bound are reported by [`Self::apply`],
    /// which a host should call next; the rest serves.
    ///
    /// # Errors
    /// When no worker can be started.
    pub fn start(
        options: ProxyOptions,
        plan: Arc<ArcSwap<Plan>>,
        fleet: Arc<Fleet>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ProxyError> {
        let session = SessionKey::new(options.session_key).ok_or(ProxyError::Random)?;
        let count = options.threads.max(1);
        let shared = Shared {
            options: Arc::new(options),
            plan,
            fleet,
            metrics,
            session: Arc::new(session),
        };
        let workers = (0..count)
            .map(|number| start_worker(number, shared.clone()))
            .collect::<Result<_, _>>()?;
        let proxy = Self {
            shared,
            workers,
            ports: Mutex::default(),
        };
        for problem in proxy.apply() {
            tracing::error!(port = problem.port, "{}", problem.message);
        }
        Ok(proxy)
    }

    /// Makes the listeners match the plan: binds new ports, closes those that went (their running exchanges may end in
    /// their time), and shows new certificates. Returns what could not be done; calling again tries again.
    pub fn apply(&self) -> Vec<ListenProblem> {
        let plan = self.shared.plan.load_full();
        let mut ports = self.ports.lock();
        let mut problems = Vec::new();
        ports.retain(|number, (port, _)| {
            let stays = plan.ports.contains_key(number);
            if !stays {
                self.close(port);
            }
            stays
        });
        for (number, planned) in &plan.ports {
            if let Some((port, _)) = ports.get(number) {
                certify(port, planned, &mut problems);
                continue;
            }
            match self.open(planned, &mut problems) {
                Ok(opened) => {
                    ports.insert(*number, opened);
                }
                Err(error) => problems.push(not_bound(*number, &error)),
            }
        }
        problems
    }

    fn open(
        &self,
        planned: &PortPlan,
        problems: &mut Vec<ListenProblem>,
    ) -> io::Result<(Arc<Port>, SocketAddr)> {
        let options = &self.shared.options;
        let number = (options.bound_port)(planned.port);
        let (address, listeners) = bind(options.bind, number, self.workers.len())?;
        let port = Arc::new(Port {
            planned: planned.port,
            tls: AtomicBool::new(planned.tls),
            handshakes: ArcSwapOption::empty(),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        });
        certify(&port, planned, problems);
        for (worker, listener) in self.workers.iter().zip(listeners) {
            let opened = Opened {
                port: port.clone(),
                listener,
            };
            if worker.commands.send(Command::Open(opened)).is_err() {
                return Err(io::Error::other("a worker has ended"));
            }
        }
        tracing::info!(%address, tls = planned.tls, "listening");
        Ok((port, address))
    }

    /// Stops accepting on a port at once; what runs there may go on for the drain time.
    fn close(&self, port: &Arc<Port>) {
        port.closing.cancel();
        let (port, drain) = (port.clone(), self.shared.options.drain);
        // The host's runtime may be gone before the time is over, and then the workers are too.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(drain).await;
                    port.closed.cancel();
                });
            }
            Err(_) => port.closed.cancel(),
        }
    }

    /// The addresses that are listened on, by port of the plan.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports
            .lock()
            .values()
            .map(|(_, address)| *address)
            .collect()
    }

    /// Stops accepting, lets running exchanges end, and after `limit` ends those that have not. Idle connections close
    /// at once; HTTP/2 clients are told by GOAWAY, HTTP/1.1 ones by `connection: close`.
    pub async fn drain(self, limit: Duration) {
        let mut waiting = Vec::new();
        for worker in &self.workers {
            let (done, drained) = oneshot::channel();
            if worker.commands.send(Command::Drain(done)).is_ok() {
                waiting.push(drained);
            }
        }
        let all = futures_util::future::join_all(waiting);
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(?limit, "exchanges were cut off at the end of the drain");
        }
        // Dropping joins the workers' threads, which must not hold up the host's runtime.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

fn start_worker(number: usize, shared: Shared) -> Result<WorkerHandle, ProxyError> {
    let (commands, received) = mpsc::unbounded_channel();
    let (started, ready) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("proxy-{number}"))
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    runtime.block_on(worker::run(shared, received));
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })
        .map_err(ProxyError::Worker)?;
    let handle = WorkerHandle {
        commands,
        thread: Some(thread),
    };
    match ready.recv() {
        Ok(Ok(())) => Ok(handle),
        Ok(Err(error)) => Err(ProxyError::Worker(error)),
        Err(_) => Err(ProxyError::Worker(io::Error::other(
            "the worker's thread ended",
        ))),
    }
}

/// Shows a port's present certificates.
fn certify(port: &Port, planned: &PortPlan, problems: &mut Vec<ListenProblem>) {
    port.tls.store(planned.tls, Ordering::Relaxed);
    if !planned.tls {
        return;
    }
    let problem = |message: String| ListenProblem {
        port: planned.port,
        kind: ListenProblemKind::Certificate,
        message,
    };
    let (handshakes, bad) = tls::handshakes(planned);
    port.handshakes.store(Some(handshakes));
    problems.extend(bad.into_iter().map(|bad| problem(bad.to_string())));
}

fn not_bound(port: u16, error: &io::Error) -> ListenProblem {
    let in_use = error.kind() == io::ErrorKind::AddrInUse;
    ListenProblem {
        port,
        kind: if in_use {
            ListenProblemKind::InUse
        } else {
            ListenProblemKind::Bind
        },
        message: format!("port {port} cannot be served: {error}"),
    }
}

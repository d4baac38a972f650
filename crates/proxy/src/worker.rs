//! One worker: a thread with a runtime of its own, and everything its connections share.
//!
//! Nothing here is locked, because nothing here leaves its thread. What all workers share (the plan, the fleet, the
//! metrics) they read without waiting.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use extproc::client::Switchboard;
use fleet::{Fleet, Pool};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt};
use routing::{Plan, PoolKey};
use rustc_hash::FxHashMap;
use telemetry::{Metrics, ids};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::copy::Room;
use crate::exchange::Planned;
use crate::listen::{Opened, accept};
use crate::options::ProxyOptions;
use crate::retry::RetryBudget;
use crate::session::SessionKey;
use crate::upstream::{Upstreams, sweeper};

/// What mirrors of one worker may hold of bodies, in bytes.
const COPIED_BYTES: usize = 64 << 20;
/// How many copies one worker may have on their way.
const COPIES: usize = 512;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) options: Arc<ProxyOptions>,
    pub(crate) plan: Arc<ArcSwap<Plan>>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) session: Arc<SessionKey>,
}

/// What a worker's connections share.
pub(crate) struct Worker {
    pub(crate) options: Arc<ProxyOptions>,
    pub(crate) plan: Arc<ArcSwap<Plan>>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) session: Arc<SessionKey>,
    pub(crate) upstreams: Rc<Upstreams>,
    /// Connections to endpoint pickers outside.
    pub(crate) switchboard: Switchboard,
    pub(crate) pickers: RefCell<FxHashMap<PoolKey, Planned>>,
    /// Room for copies that go to mirrors.
    pub(crate) copies: Rc<Room>,
    /// What must end before the worker may: connections and tunnels.
    pub(crate) running: TaskTracker,
    /// Cancelled when tunnels must close.
    pub(crate) tunnels: CancellationToken,
    budgets: RefCell<FxHashMap<PoolKey, RetryBudget>>,
    random: RefCell<SmallRng>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    pub(crate) fn new(shared: Shared, tunnels: CancellationToken) -> Self {
        let upstreams = Upstreams::new(
            shared.options.deadlines.connect,
            shared.options.upstream_idle,
        );
        Self {
            options: shared.options,
            plan: shared.plan,
            fleet: shared.fleet,
            metrics: shared.metrics,
            session: shared.session,
            upstreams: Rc::new(upstreams),
            switchboard: Switchboard::default(),
            pickers: RefCell::default(),
            copies: Room::new(COPIED_BYTES, COPIES),
            running: TaskTracker::new(),
            tunnels,
            budgets: RefCell::default(),
            random: RefCell::new(rand::make_rng()),
        }
    }

    /// A number in [0, 1).
    pub(crate) fn roll(&self) -> f64 {
        self.random.borrow_mut().random()
    }

    /// Seconds since 1970.
    pub(crate) fn unix_time(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    /// Makes sure that a request has exactly one id that is fit to be used, and returns it.
    pub(crate) fn identify(&self, headers: &mut HeaderMap) -> HeaderValue {
        if let Some(id) = headers
            .get(REQUEST_ID)
            .filter(|id| ids::acceptable(id.as_bytes()))
            .cloned()
        {
            headers.insert(REQUEST_ID, id.clone());
            return id;
        }
        let mut bits = [0; 16];
        self.random.borrow_mut().fill_bytes(&mut bits);
        let fresh = ids::fresh(u128::from_ne_bytes(bits));
        let id = HeaderValue::from_bytes(&fresh).unwrap_or(HeaderValue::from_static("-"));
        headers.insert(REQUEST_ID, id.clone());
        id
    }

    /// Uses the retry budget of a pool.
    pub(crate) fn budget<T>(&self, pool: &Pool, act: impl FnOnce(&mut RetryBudget) -> T) -> T {
        let spec = pool.spec();
        let mut budgets = self.budgets.borrow_mut();
        if let Some(budget) = budgets.get_mut(&spec.key) {
            return act(budget);
        }
        let budget = budgets.entry(spec.key.clone());
        act(budget.or_insert_with(|| RetryBudget::new(self.options.retry.budget_ratio)))
    }
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve a port.
    Open(Opened),
    /// End everything in good order; answered when the last connection is closed.
    Drain(oneshot::Sender<()>),
    /// End what has not ended by itself.
    Abort,
}

/// Runs a worker until it has drained or nobody is left to tell it anything.
pub(crate) async fn run(shared: Shared, mut commands: mpsc::UnboundedReceiver<Command>) {
    let tunnels = CancellationToken::new();
    let drain = CancellationToken::new();
    let abort = CancellationToken::new();
    let worker = Rc::new(Worker::new(shared, tunnels.clone()));
    let running = worker.running.clone();
    let sweeping = tokio::task::spawn_local(sweeper(worker.upstreams.clone()));
    let mut drained: Option<oneshot::Sender<()>> = None;
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Open(opened)) => {
                    let stop = drain.child_token();
                    let served = accept(worker.clone(), opened, stop, abort.clone());
                    tokio::task::spawn_local(running.track_future(served));
                }
                Some(Command::Drain(done)) => {
                    drain.cancel();
                    running.close();
                    drained = Some(done);
                }
                Some(Command::Abort) | None => {
                    tunnels.cancel();
                    abort.cancel();
                    break;
                }
            },
            () = running.wait(), if drained.is_some() => break,
        }
    }
    sweeping.abort();
    if let Some(done) = drained {
        let _ = done.send(());
    }
}

//! One pool: the core behind a lock, and those who wait for it.
//!
//! The rule of the house: whoever touches the core does it through [`Pool::with_core`], which afterwards hands out every
//! decision that became possible and sets the timer. A decision about a request of somebody else is delivered to
//! whoever waits for it; so no request waits for a task to be scheduled that only moves decisions about.

mod pick;
mod shared;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use llm::StateKind;
use parking_lot::Mutex;
use routing::{PoolKey, PoolKind, PoolSpec};
use rustc_hash::FxHashMap;
use scheduling::{EndpointId, Event, Ticket, Time};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::catalog::Catalog;
use crate::decisions::Ring;
use crate::endpoint::Wishes;
use crate::fleet::Shared;
use crate::members::{Members, Roster};
use crate::recorded::Recorded;
use crate::state::Owner;
use crate::state::StateTable;
use crate::{Endpoint, Eviction};
use pick::{Outcome, resolve};

pub(crate) use pick::{Grant, retry_after_seconds};
pub use pick::{LONGEST_RETRY_AFTER, PickRequest, Rejection};
pub(crate) use status::is_ready;

/// Seconds of prefill that siblings may be ignorant of until the next period (`docs/scheduling.md`, "Several gateways").
const UNSHARED: f64 = 0.005;

/// A pool that lives. Shared by all threads.
#[derive(Debug)]
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
    key: PoolKey,
    /// What siblings know it by: this pool, from its making to its end.
    teller: u64,
    /// `namespace/name`: the label of logs and metrics.
    pub(crate) label: Arc<str>,
    pub(crate) spec: ArcSwap<PoolSpec>,
    core: Mutex<Core>,
    pub(crate) members: Mutex<Members>,
    pub(crate) roster: ArcSwap<Roster>,
    pub(crate) catalog: ArcSwap<Catalog>,
    state: Mutex<StateTable>,
    ring: Ring,
    in_flight: AtomicUsize,
    /// Tells watchers that the first request came after a pause.
    pub(crate) busy: Notify,
    timer: Notify,
    /// Every DNS name of the spec was looked up once.
    pub(crate) resolved: AtomicBool,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) pool: Recorded,
    /// By dense index.
    pub(crate) book: Vec<Option<Arc<Endpoint>>>,
    waiters: FxHashMap<Ticket, oneshot::Sender<Outcome>>,
    /// How to tell those in flight that may be ended for others.
    pub(crate) evictable: FxHashMap<Ticket, oneshot::Sender<Eviction>>,
    /// Whether any are.
    evicts: bool,
    armed: Option<Time>,
    closed: bool,
}

impl Core {
    pub(crate) fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.book
            .get(id.index())?
            .as_ref()
            .filter(|endpoint| endpoint.id == id)
    }

    /// Tells a request in flight that it must end.
    pub(super) fn evict(&mut self, ticket: Ticket, eviction: Eviction) {
        if let Some(lease) = self.evictable.remove(&ticket) {
            // A lease that is just ending needs no telling.
            let _ = lease.send(eviction);
        }
    }

    /// Where a request that is granted now will be told that it must end. `None`: nobody is ended here.
    pub(super) fn may_evict(&mut self, ticket: Ticket) -> Option<oneshot::Receiver<Eviction>> {
        self.evicts.then(|| {
            let (sender, receiver) = oneshot::channel();
            self.evictable.insert(ticket, sender);
            receiver
        })
    }
}

impl Pool {
    pub(crate) fn new(shared: Arc<Shared>, spec: Arc<PoolSpec>) -> Arc<Self> {
        let mut core = Core {
            pool: Recorded::new(
                shared.options.scheduling.clone(),
                shared.options.seed,
                &spec.key.to_string(),
                shared.options.policy.as_ref(),
                shared.options.recorder.as_ref(),
            ),
            book: Vec::new(),
            waiters: FxHashMap::default(),
            evictable: FxHashMap::default(),
            evicts: shared.options.scheduling.flow.evict_running,
            armed: None,
            closed: false,
        };
        if shared.options.share {
            core.pool.share();
        }
        Arc::new(Self {
            shared,
            key: spec.key.clone(),
            teller: crate::sharing::random(),
            label: spec.key.to_string().into(),
            spec: ArcSwap::new(spec),
            core: Mutex::new(core),
            members: Mutex::default(),
            roster: ArcSwap::default(),
            catalog: ArcSwap::default(),
            state: Mutex::default(),
            ring: Ring::default(),
            in_flight: AtomicUsize::new(0),
            busy: Notify::new(),
            timer: Notify::new(),
            resolved: AtomicBool::new(true),
        })
    }

    /// What the plan says about it.
    #[must_use]
    pub fn spec(&self) -> Arc<PoolSpec> {
        self.spec.load_full()
    }

    /// Whether somebody here serves this model: a configured name, or one that a server lists.
    #[must_use]
    pub fn knows_model(&self, model: &str) -> bool {
        self.spec.load().models.knows(model) || self.catalog.load().get(model).is_some()
    }

    /// The last good answer of each server to `GET /v1/models`.
    #[must_use]
    pub fn models(&self) -> Vec<Bytes> {
        self.catalog.load().bodies().to_vec()
    }

    /// Asks all servers for their models again, soon.
    pub fn refresh_models(&self) {
        self.roster
            .load()
            .endpoints()
            .iter()
            .for_each(|endpoint| endpoint.wishes.add(Wishes::MODELS));
    }

    /// Where a stored object is; `None` when nobody is known to have stored it. Ids of different kinds do not collide in
    /// practice, so the kind only documents.
    #[must_use]
    pub fn owner_of(&self, _kind: StateKind, id: &str) -> Option<Owner> {
        let token = self.state.lock().owner(self.shared.now(), id)?;
        let here = self.endpoint_by_token(token);
        Some(here.map_or(Owner::Gone, Owner::Here))
    }

    /// A server answered with the id of something it stored.
    pub fn remember(&self, id: &str, endpoint: &Arc<Endpoint>) {
        self.state
            .lock()
            .remember(self.shared.now(), id, endpoint.token());
    }

    /// The server with this [`Endpoint::token`].
    #[must_use]
    pub fn endpoint_by_token(&self, token: u64) -> Option<Arc<Endpoint>> {
        self.roster.load().by_token(token).cloned()
    }

    /// The server at this address, for picks that come from outside.
    #[must_use]
    pub fn endpoint_at(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        self.roster
            .load()
            .endpoints()
            .iter()
            .find(|endpoint| endpoint.address == address)
            .cloned()
    }

    /// All servers, for choices that come from outside.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<Endpoint>> {
        self.roster.load().endpoints().to_vec()
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn load_only(&self) -> bool {
        self.key.kind == PoolKind::Service
    }

    /// Tells the core what happened.
    pub(crate) fn observe(&self, event: Event<'_>) {
        self.with_core(|core, now| core.pool.observe(now, event));
    }

    /// Works on the core, then hands out what was decided.
    pub(crate) fn with_core<T>(&self, work: impl FnOnce(&mut Core, Time) -> T) -> T {
        let now = self.shared.now();
        let mut core = self.core.lock();
        let result = work(&mut core, now);
        let others = self.settle(&mut core, now, None);
        debug_assert!(others.is_none(), "nobody asked for a decision");
        result
    }

    /// Delivers all decisions; returns the one about `own`. Sets the timer if the core wants to be called earlier than
    /// it is set to.
    fn settle(&self, core: &mut Core, now: Time, own: Option<Ticket>) -> Option<Outcome> {
        let mut result = None;
        while let Some(decision) = core.pool.next(now) {
            let ticket = decision.ticket();
            let Some(outcome) = resolve(core, now, decision) else {
                continue;
            };
            if Some(ticket) == own {
                result = Some(outcome);
            } else if let Some(waiter) = core.waiters.remove(&ticket) {
                // A waiter that is just leaving takes its request back itself.
                let _ = waiter.send(outcome);
            }
        }
        if core.pool.unshared_seconds() > UNSHARED {
            self.shared.unshared.notify_one();
        }
        if let Some(wake) = core.pool.wake_at() {
            // The timer counts milliseconds; a wake in the past must not make it spin.
            let wake = wake.max(now + Duration::from_micros(100));
            if core.armed.is_none_or(|armed| wake < armed) {
                core.armed = Some(wake);
                self.timer.notify_one();
            }
        }
        result
    }

    /// Calls the core when it asked for it. Ends when the pool is closed and nobody waits any more.
    pub(crate) async fn run_timer(self: Arc<Self>) {
        loop {
            let armed = {
                let core = self.core.lock();
                if core.closed && core.waiters.is_empty() {
                    return;
                }
                core.armed
            };
            match armed {
                Some(at) => tokio::select! {
                    () = sleep_until(self.shared.instant(at)) => self.ring_timer(at),
                    () = self.timer.notified() => {}
                },
                None => self.timer.notified().await,
            }
        }
    }

    fn ring_timer(&self, at: Time) {
        self.with_core(|core, _| {
            if core.armed == Some(at) {
                core.armed = None;
            }
        });
    }

    /// Nothing new is taken; what waits gets its answer.
    pub(crate) fn close_core(&self) {
        self.with_core(|core, _| core.closed = true);
        self.timer.notify_one();
    }
}

impl Shared {
    /// The present in the core's time.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    pub(crate) fn instant(&self, at: Time) -> Instant {
        self.origin + (at - Time::ZERO)
    }
}

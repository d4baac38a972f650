//! One pool: the core behind a lock, and those who wait for it.
//!
//! The rule of the house: whoever touches the core does it through [`Pool::with_core`], which afterwards hands out every
//! decision that became possible and sets the timer. A decision about a request of somebody else is delivered to
//! whoever waits for it; so no request waits for a task to be scheduled that only moves decisions about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use llm::StateKind;
use parking_lot::Mutex;
use routing::{PoolKey, PoolKind, PoolSpec};
use rustc_hash::FxHashMap;
use scheduling::{
    Candidates, Decision, EndpointId, EndpointView, Event, Health, RejectReason, Request,
    RequestKind, Ticket, Time,
};
use smallvec::SmallVec;
use telemetry::{EndpointSnapshot, PoolSnapshot};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::catalog::Catalog;
use crate::decisions::Ring;
use crate::endpoint::Wishes;
use crate::fleet::Shared;
use crate::members::{Members, Roster};
use crate::state::StateTable;
use crate::{Endpoint, EndpointStatus, Lease, RecordedDecision};

/// A pool that lives. Shared by all threads.
#[derive(Debug)]
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
    key: PoolKey,
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
    pub(crate) pool: scheduling::Pool,
    /// By dense index.
    pub(crate) book: Vec<Option<Arc<Endpoint>>>,
    waiters: FxHashMap<Ticket, oneshot::Sender<Outcome>>,
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
}

/// What a request brings to [`Pool::pick`].
#[derive(Debug, Clone)]
pub struct PickRequest<'a> {
    /// `x-request-id`.
    pub request_id: &'a str,
    /// The model that the server will be asked for.
    pub model: Option<&'a str>,
    /// What is known about the work.
    pub kind: RequestKind,
    /// Hashes of the prompt's prefixes.
    pub prefix: Arc<[u64]>,
    /// Tokens of the prompt, estimated.
    pub prompt_tokens: u32,
    /// Most tokens it may generate.
    pub max_output_tokens: Option<u32>,
    /// Whether the answer streams, so that [`Lease::first_token`] will tell when its prefill is over.
    pub streams: bool,
    /// Class.
    pub priority: i32,
    /// Whom it belongs to, for fairness within a class.
    pub flow: u64,
    /// It must go there: the server holds what it refers to.
    pub pinned: Option<Arc<Endpoint>>,
    /// It should go there: session affinity.
    pub preferred: Option<Arc<Endpoint>>,
    /// Time from now after which its first token is worthless.
    pub deadline: Option<Duration>,
    /// Explain the decision.
    pub explain: bool,
}

impl Default for PickRequest<'_> {
    fn default() -> Self {
        Self {
            request_id: "",
            model: None,
            kind: RequestKind::Inference,
            prefix: Arc::from([]),
            prompt_tokens: 0,
            max_output_tokens: None,
            streams: false,
            priority: 0,
            flow: 0,
            pinned: None,
            preferred: None,
            deadline: None,
            explain: false,
        }
    }
}

/// No server for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: RejectReason,
    /// When to come back.
    pub retry_after: Duration,
}

/// A decision with addresses instead of numbers.
#[derive(Debug)]
pub(crate) enum Outcome {
    Granted(Grant),
    Rejected(Rejection),
}

#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) endpoints: SmallVec<[Arc<Endpoint>; 4]>,
    pub(crate) explanation: Option<RecordedDecision>,
    pub(crate) queued: Duration,
    pub(crate) predicted_ttft: f64,
    pub(crate) hit_tokens: u32,
}

impl Pool {
    pub(crate) fn new(shared: Arc<Shared>, spec: Arc<PoolSpec>) -> Arc<Self> {
        let core = Core {
            pool: scheduling::Pool::new(shared.options.scheduling.clone(), shared.options.seed),
            book: Vec::new(),
            waiters: FxHashMap::default(),
            armed: None,
            closed: false,
        };
        Arc::new(Self {
            shared,
            key: spec.key.clone(),
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

    /// Picks a server. Returns at once unless the core makes the request wait; dropping the future takes the request
    /// back.
    ///
    /// # Errors
    /// The reason why there is no server for it.
    pub async fn pick(self: &Arc<Self>, request: PickRequest<'_>) -> Result<Lease, Rejection> {
        let began = std::time::Instant::now();
        let now = self.shared.now();
        let explain = request.explain || self.ring.sample(now);
        let arrival = self.arrival(&request, now, explain);
        let (ticket, outcome) = match self.arrive(now, arrival) {
            Arrived::Decided(ticket, outcome) => (ticket, outcome),
            Arrived::Waiting(waiting) => (waiting.ticket, waiting.outcome().await),
        };
        match outcome {
            Outcome::Granted(grant) => {
                let took = began.elapsed().saturating_sub(grant.queued);
                let ratio = f64::from(grant.hit_tokens) / f64::from(request.prompt_tokens.max(1));
                self.shared.metrics.decided(took, Some(ratio));
                Ok(self.lease(ticket, grant, &request))
            }
            Outcome::Rejected(rejection) => {
                self.shared.metrics.decided(began.elapsed(), None);
                self.shared
                    .metrics
                    .shed(&self.label, rejection.reason.code());
                Err(rejection)
            }
        }
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

    /// The server that holds a stored object. Ids of different kinds do not collide in practice, so the kind only
    /// documents.
    #[must_use]
    pub fn owner_of(&self, _kind: StateKind, id: &str) -> Option<Arc<Endpoint>> {
        let uid = self.state.lock().owner(self.shared.now(), id)?;
        self.roster.load().by_uid(uid).cloned()
    }

    /// A server answered with the id of something it stored.
    pub fn remember(&self, id: &str, endpoint: &Arc<Endpoint>) {
        self.state
            .lock()
            .remember(self.shared.now(), id, endpoint.uid());
    }

    /// All servers now.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let views = self.views();
        views
            .into_iter()
            .map(|(endpoint, view)| status(&endpoint, &view))
            .collect()
    }

    /// The server with this [`Endpoint::token`].
    #[must_use]
    pub fn endpoint_by_token(&self, token: u64) -> Option<Arc<Endpoint>> {
        self.roster.load().by_token(token).cloned()
    }

    /// The server at this address, for picks that come from outside.
    #[must_use]
    pub fn endpoint_at(&self, address: std::net::SocketAddr) -> Option<Arc<Endpoint>> {
        self.roster
            .load()
            .endpoints()
            .iter()
            .find(|endpoint| endpoint.address == address)
            .cloned()
    }

    /// The last decisions that were explained, newest first.
    #[must_use]
    pub fn recent_decisions(&self) -> Vec<RecordedDecision> {
        self.ring.list()
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn load_only(&self) -> bool {
        self.key.kind == PoolKind::Service
    }

    /// The pool for the metrics page.
    pub(crate) fn snapshot(&self) -> PoolSnapshot {
        let stats = self.core.lock().pool.stats();
        let now = self.shared.now();
        let ttl = self.shared.options.scheduling.scrape_ttl;
        let endpoints = self.views().into_iter().map(|(endpoint, view)| {
            let load = endpoint.fresh_load(now, ttl);
            EndpointSnapshot {
                name: endpoint.name.clone(),
                ready: is_ready(&view),
                in_flight: view.in_flight,
                waiting: load.waiting,
                running: load.running,
                kv_usage: load.kv_usage,
            }
        });
        PoolSnapshot {
            pool: self.label.clone(),
            name: self.key.name.as_str().into(),
            endpoints: endpoints.collect(),
            queued: stats.queued_by_priority,
            index_blocks: stats.index_blocks,
            saturated: stats.saturated,
        }
    }

    fn views(&self) -> Vec<(Arc<Endpoint>, EndpointView)> {
        let roster = self.roster.load_full();
        let core = self.core.lock();
        let view =
            |endpoint: &Arc<Endpoint>| Some((endpoint.clone(), core.pool.endpoint(endpoint.id)?));
        roster.endpoints().iter().filter_map(view).collect()
    }

    pub(crate) fn view(&self, endpoint: &Endpoint) -> Option<EndpointView> {
        self.core.lock().pool.endpoint(endpoint.id)
    }

    /// The request in the core's words.
    fn arrival(&self, request: &PickRequest<'_>, now: Time, explain: bool) -> Request {
        let catalog = self.catalog.load();
        let entry = request.model.and_then(|model| catalog.get(model));
        let candidates = match (&request.pinned, entry) {
            (Some(pinned), _) => Candidates::Only(Arc::from([pinned.id])),
            (None, Some(entry)) => Candidates::Only(entry.servers.clone()),
            (None, None) => Candidates::All,
        };
        Request {
            kind: request.kind,
            prefix: request.prefix.clone(),
            prompt_tokens: request.prompt_tokens,
            max_output_tokens: request.max_output_tokens,
            streams: request.streams,
            priority: request.priority,
            flow: request.flow,
            adapter: entry.and_then(|entry| entry.adapter),
            candidates,
            preferred: request
                .preferred
                .as_ref()
                .filter(|endpoint| !endpoint.gone())
                .map(|endpoint| endpoint.id),
            exclude: SmallVec::new(),
            deadline: request.deadline.map(|deadline| now + deadline),
            explain,
        }
    }

    fn arrive(self: &Arc<Self>, now: Time, request: Request) -> Arrived {
        let mut core = self.core.lock();
        let ticket = core.pool.arrive(now, request);
        if core.closed {
            core.pool.observe(now, Event::Abandoned { ticket });
            let rejection = Rejection {
                reason: RejectReason::NoReadyEndpoint,
                retry_after: Duration::from_secs(1),
            };
            return Arrived::Decided(ticket, Outcome::Rejected(rejection));
        }
        if let Some(outcome) = self.settle(&mut core, now, Some(ticket)) {
            return Arrived::Decided(ticket, outcome);
        }
        let (sender, receiver) = oneshot::channel();
        core.waiters.insert(ticket, sender);
        Arrived::Waiting(Waiting {
            pool: self.clone(),
            ticket,
            receiver,
            decided: false,
        })
    }

    fn lease(self: &Arc<Self>, ticket: Ticket, grant: Grant, request: &PickRequest<'_>) -> Lease {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.busy.notify_waiters();
        }
        let explanation = grant.explanation.map(|mut decision| {
            decision.request_id = request.request_id.to_owned();
            decision.pool = self.label.to_string();
            decision.model = request.model.map(str::to_owned);
            decision.priority = request.priority;
            decision.prompt_tokens = request.prompt_tokens;
            let decision = Arc::new(decision);
            self.ring.push(decision.clone());
            decision
        });
        Lease::new(
            self.clone(),
            ticket,
            grant.endpoints,
            explanation,
            grant.queued,
            grant.predicted_ttft,
            grant.hit_tokens,
        )
    }

    pub(crate) fn lease_ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
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
            let outcome = resolve(core, now, decision);
            if Some(ticket) == own {
                result = Some(outcome);
            } else if let Some(waiter) = core.waiters.remove(&ticket) {
                // A waiter that is just leaving takes its request back itself.
                let _ = waiter.send(outcome);
            }
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

fn resolve(core: &mut Core, now: Time, decision: Decision) -> Outcome {
    match decision {
        Decision::Reject {
            reason,
            retry_after,
            ..
        } => Outcome::Rejected(Rejection {
            reason,
            retry_after,
        }),
        Decision::Dispatch {
            ticket,
            endpoints,
            explanation,
            queued,
            predicted_ttft,
            hit_tokens,
        } => {
            let found: SmallVec<[Arc<Endpoint>; 4]> = endpoints
                .iter()
                .filter_map(|id| core.endpoint(*id).cloned())
                .collect();
            if found.is_empty() {
                core.pool.observe(now, Event::Abandoned { ticket });
                let reason = RejectReason::NoReadyEndpoint;
                return Outcome::Rejected(Rejection {
                    reason,
                    retry_after: Duration::from_secs(1),
                });
            }
            let name = |id| {
                core.endpoint(id)
                    .map_or_else(String::new, |endpoint| endpoint.name().to_owned())
            };
            let explanation = explanation.map(|explanation| RecordedDecision {
                queued_ms: queued.as_secs_f64() * 1e3,
                predicted_ttft,
                hit_tokens,
                ..RecordedDecision::new(*explanation, name)
            });
            Outcome::Granted(Grant {
                endpoints: found,
                explanation,
                queued,
                predicted_ttft,
                hit_tokens,
            })
        }
    }
}

/// Up and not on its way out.
pub(crate) fn is_ready(view: &EndpointView) -> bool {
    !view.draining && matches!(view.health, Health::Up | Health::Suspect)
}

fn status(endpoint: &Endpoint, view: &EndpointView) -> EndpointStatus {
    let seen = endpoint.seen.lock();
    EndpointStatus {
        name: endpoint.name().to_owned(),
        address: endpoint.address,
        ready: is_ready(view),
        health: view.health.name(),
        draining: view.draining,
        open: view.open,
        in_flight: view.in_flight,
        decoding: view.decoding,
        pending_tokens: view.pending_tokens,
        waiting: view.waiting,
        running: view.running,
        kv_usage: view.kv_usage,
        kv_capacity_tokens: view.kv_capacity_tokens,
        cached_blocks: view.cached_blocks,
        scrape_age_ms: view
            .scrape_age
            .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        engine: seen.engine,
        models: seen.models.clone(),
        error: seen.error.clone(),
    }
}

enum Arrived {
    Decided(Ticket, Outcome),
    Waiting(Waiting),
}

/// A request that the core makes wait. Dropped early, it takes the request back, also if the decision is on its way.
struct Waiting {
    pool: Arc<Pool>,
    ticket: Ticket,
    receiver: oneshot::Receiver<Outcome>,
    decided: bool,
}

impl Waiting {
    async fn outcome(mut self) -> Outcome {
        let outcome = (&mut self.receiver).await;
        self.decided = outcome.is_ok();
        outcome.unwrap_or(Outcome::Rejected(Rejection {
            reason: RejectReason::NoReadyEndpoint,
            retry_after: Duration::from_secs(1),
        }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.decided {
            let ticket = self.ticket;
            self.pool.with_core(|core, now| {
                core.waiters.remove(&ticket);
                core.pool.observe(now, Event::Abandoned { ticket });
            });
        }
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

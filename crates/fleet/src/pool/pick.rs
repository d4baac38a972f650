//! Picking: from a request to a lease.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use scheduling::{Candidates, Decision, Event, RejectReason, Request, RequestKind, Ticket, Time};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{Core, Pool};
use crate::{Endpoint, Eviction, Lease, RecordedDecision};

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
    /// Bytes of its body, which is held in memory while it waits.
    pub bytes: u64,
    /// Class.
    pub priority: i32,
    /// Whom it belongs to, for fairness within a class.
    pub flow: u64,
    /// It must go there: the server holds what it refers to.
    pub pinned: Option<Arc<Endpoint>>,
    /// It may only go to these: somebody else has narrowed the choice. None of them: rejected.
    pub allowed: Option<&'a [Arc<Endpoint>]>,
    /// Somebody else has decided: these servers, in this order. It is only charged here, at once. Empty: nobody has.
    pub decided: &'a [Arc<Endpoint>],
    /// It should go there: session affinity.
    pub preferred: Option<Arc<Endpoint>>,
    /// Time from now after which its first token is worthless.
    pub deadline: Option<Duration>,
    /// Time from now by which its first token should come: only for the order.
    pub due: Option<Duration>,
    /// Longest wait, in place of its class's.
    pub ttl: Option<Duration>,
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
            bytes: 0,
            priority: 0,
            flow: 0,
            pinned: None,
            allowed: None,
            decided: &[],
            preferred: None,
            deadline: None,
            due: None,
            ttl: None,
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

impl Rejection {
    /// The status of the answer, and a sentence for people. The machine-readable word is [`RejectReason::code`].
    #[must_use]
    pub const fn answer(&self) -> (StatusCode, &'static str) {
        let busy = StatusCode::TOO_MANY_REQUESTS;
        let away = StatusCode::SERVICE_UNAVAILABLE;
        match self.reason {
            RejectReason::SheddableSaturated => {
                (busy, "all servers are busy and this request may be shed")
            }
            RejectReason::QueueFull => (busy, "too many requests of this class are waiting"),
            RejectReason::DeadlineUnreachable => {
                (busy, "no server can answer in the time asked for")
            }
            RejectReason::QueueTtl => (busy, "no server became free in time"),
            RejectReason::WaitTooLong => {
                (busy, "the wait would be longer than this class may wait")
            }
            RejectReason::NoReadyEndpoint => (away, "no server is ready"),
            RejectReason::NoCandidate => (
                away,
                "none of the servers allowed for this request is ready",
            ),
        }
    }

    /// `Retry-After` in whole seconds, at least one, and no more than [`LONGEST_RETRY_AFTER`].
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        retry_after_seconds(self.retry_after)
    }
}

/// A time to stay away as `Retry-After` says it.
pub(crate) fn retry_after_seconds(wait: Duration) -> u64 {
    let up = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs().saturating_add(up)).clamp(1, LONGEST_RETRY_AFTER)
}

/// Longest `Retry-After` we name, in seconds: SDKs sleep for as long as they are told.
pub const LONGEST_RETRY_AFTER: u64 = 120;

/// A decision with addresses instead of numbers.
#[derive(Debug)]
pub(super) enum Outcome {
    Granted(Grant),
    Rejected(Rejection),
}

#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) endpoints: SmallVec<[Arc<Endpoint>; 4]>,
    pub(crate) explanation: Option<Box<RecordedDecision>>,
    pub(crate) queued: Duration,
    pub(crate) predicted_ttft: f64,
    pub(crate) hit_tokens: u32,
    /// Where it is told that it must end, if it may have to.
    pub(crate) eviction: Option<oneshot::Receiver<Eviction>>,
}

impl Pool {
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
                self.waited(&request, "dispatched", grant.queued);
                let took = began.elapsed().saturating_sub(grant.queued);
                let ratio = f64::from(grant.hit_tokens) / f64::from(request.prompt_tokens.max(1));
                if request.decided.is_empty() {
                    self.shared.metrics.decided(took, Some(ratio));
                }
                Ok(self.lease(ticket, grant, &request))
            }
            Outcome::Rejected(rejection) => {
                self.shared.metrics.decided(began.elapsed(), None);
                self.waited(&request, rejection.reason.code(), began.elapsed());
                self.shared
                    .metrics
                    .shed(&self.label, rejection.reason.code());
                Err(rejection)
            }
        }
    }

    /// What became of a request in the queue. One that never saw it is not counted, or waits would drown in zeros.
    fn waited(&self, request: &PickRequest<'_>, outcome: &'static str, wait: Duration) {
        if outcome != "dispatched" || wait > Duration::ZERO {
            self.shared
                .metrics
                .waited(&self.label, request.priority, outcome, wait);
        }
    }

    /// The request in the core's words.
    fn arrival(&self, request: &PickRequest<'_>, now: Time, explain: bool) -> Request {
        let catalog = self.catalog.load();
        let entry = request.model.and_then(|model| catalog.get(model));
        let candidates = match (&request.pinned, entry) {
            _ if !request.decided.is_empty() => {
                Candidates::Ordered(request.decided.iter().map(|it| it.id).collect())
            }
            (Some(pinned), _) => Candidates::Only(Arc::from([pinned.id])),
            (None, Some(entry)) => Candidates::Only(entry.servers.clone()),
            (None, None) => Candidates::All,
        };
        let candidates = match request.allowed {
            Some(allowed) => within(candidates, allowed),
            None => candidates,
        };
        Request {
            kind: request.kind,
            prefix: request.prefix.clone(),
            prompt_tokens: request.prompt_tokens,
            max_output_tokens: request.max_output_tokens,
            bytes: request.bytes,
            streams: request.streams,
            priority: request.priority,
            flow: request.flow,
            // What the model does not run for loads no adapter.
            adapter: entry
                .filter(|_| request.kind == RequestKind::Inference)
                .and_then(|entry| entry.adapter),
            candidates,
            preferred: request
                .preferred
                .as_ref()
                .filter(|endpoint| !endpoint.gone())
                .map(|endpoint| endpoint.id),
            exclude: SmallVec::new(),
            deadline: request.deadline.map(|deadline| now + deadline),
            due: request.due.map(|due| now + due),
            ttl: request.ttl,
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

    fn lease(
        self: &Arc<Self>,
        ticket: Ticket,
        mut grant: Grant,
        request: &PickRequest<'_>,
    ) -> Lease {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.busy.notify_waiters();
        }
        let explanation = grant.explanation.take().map(|mut decision| {
            decision.request_id = request.request_id.to_owned();
            decision.pool = self.label.to_string();
            decision.model = request.model.map(str::to_owned);
            decision.priority = request.priority;
            decision.prompt_tokens = request.prompt_tokens;
            let decision: Arc<RecordedDecision> = decision.into();
            self.ring.push(decision.clone());
            decision
        });
        Lease::new(self.clone(), ticket, grant, explanation)
    }

    pub(crate) fn lease_over(&self, ticket: Ticket, event: Event<'_>) {
        self.with_core(|core, now| {
            core.evictable.remove(&ticket);
            core.pool.observe(now, event);
        });
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The candidates that are among the allowed, in the candidates' order where they have one.
fn within(candidates: Candidates, allowed: &[Arc<Endpoint>]) -> Candidates {
    let among = |id: &scheduling::EndpointId| allowed.iter().any(|endpoint| endpoint.id == *id);
    match candidates {
        Candidates::All => Candidates::Only(allowed.iter().map(|endpoint| endpoint.id).collect()),
        Candidates::Only(ids) => Candidates::Only(ids.iter().copied().filter(among).collect()),
        Candidates::Ordered(ids) => {
            Candidates::Ordered(ids.iter().copied().filter(among).collect())
        }
    }
}

/// What a decision means for the request that waits for it; `None` if it is about one in flight.
pub(super) fn resolve(core: &mut Core, now: Time, decision: Decision) -> Option<Outcome> {
    match decision {
        Decision::Evict {
            ticket,
            reason,
            retry_after,
        } => {
            let eviction = Eviction {
                reason,
                retry_after,
            };
            core.evict(ticket, eviction);
            None
        }
        Decision::Reject {
            reason,
            retry_after,
            ..
        } => Some(Outcome::Rejected(Rejection {
            reason,
            retry_after,
        })),
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
                return Some(Outcome::Rejected(Rejection {
                    reason,
                    retry_after: Duration::from_secs(1),
                }));
            }
            let name = |id| {
                core.endpoint(id)
                    .map_or_else(String::new, |endpoint| endpoint.name().to_owned())
            };
            let explanation = explanation.map(|explanation| {
                Box::new(RecordedDecision {
                    queued_ms: queued.as_secs_f64() * 1e3,
                    predicted_ttft,
                    hit_tokens,
                    ..RecordedDecision::new(*explanation, name)
                })
            });
            Some(Outcome::Granted(Grant {
                endpoints: found,
                explanation,
                queued,
                predicted_ttft,
                hit_tokens,
                eviction: core.may_evict(ticket),
            }))
        }
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

//! One admitted request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use scheduling::{Event, EvictReason, FailureKind, Ticket, Usage};
use tokio::sync::oneshot;

use crate::endpoint::Wishes;
use crate::pool::{Grant, is_ready, retry_after_seconds};
use crate::{Endpoint, Pool, RecordedDecision};

/// Tokens that are reported together: enough to keep the lock out of the way of each chunk.
const PROGRESS: u32 = 32;

/// The request must end although it runs: end it, and drop the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eviction {
    /// Why.
    pub reason: EvictReason,
    /// When its client may come back.
    pub retry_after: Duration,
}

/// Tells whoever serves a request that it must end for others. It may be watched apart from the lease.
#[derive(Debug)]
pub struct EvictionNotice {
    pool: Arc<Pool>,
    receiver: Option<oneshot::Receiver<Eviction>>,
}

impl EvictionNotice {
    /// Resolves when the request must end; never, if it need not.
    pub async fn told(&mut self) -> Eviction {
        std::future::poll_fn(|cx| self.poll_told(cx)).await
    }

    /// Ready once, when the request must end.
    pub fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Eviction> {
        let Some(receiver) = &mut self.receiver else {
            return Poll::Pending;
        };
        let told = ready!(Pin::new(receiver).poll(cx));
        self.receiver = None;
        let Ok(eviction) = told else {
            return Poll::Pending;
        };
        let word = eviction.reason.code();
        self.pool.shared.metrics.evicted(&self.pool.label, word);
        Poll::Ready(eviction)
    }
}

impl Eviction {
    /// `Retry-After` in whole seconds.
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        retry_after_seconds(self.retry_after)
    }
}

/// One admitted request: its server, and the fallbacks. Dropped without [`Lease::finish`] it counts as abandoned, so its
/// charge always goes back.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    ticket: Ticket,
    grant: Grant,
    /// Which of the grant's servers has it.
    at: usize,
    unreported: u32,
    first_token_seen: bool,
    ended: bool,
    explanation: Option<Arc<RecordedDecision>>,
}

impl Lease {
    /// `grant` has one server at least.
    pub(crate) fn new(
        pool: Arc<Pool>,
        ticket: Ticket,
        grant: Grant,
        explanation: Option<Arc<RecordedDecision>>,
    ) -> Self {
        Self {
            pool,
            ticket,
            grant,
            at: 0,
            unreported: 0,
            first_token_seen: false,
            ended: false,
            explanation,
        }
    }

    /// The server that has it now.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.grant.endpoints[self.at]
    }

    /// The pool it belongs to.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Its server failed it. The server is probed at once.
    pub fn failed(&mut self, kind: FailureKind) {
        self.pool.observe(Event::Failed {
            ticket: self.ticket,
            endpoint: self.endpoint().id,
            kind,
        });
        self.endpoint().wishes.add(Wishes::PROBE);
    }

    /// Its server does not know the model: the server's list must have changed.
    pub fn model_unknown(&self) {
        self.endpoint().wishes.add(Wishes::MODELS);
    }

    /// Moves it to the next fallback that is still up. `None`: there is no other; it stays where it is.
    #[expect(
        clippy::should_implement_trait,
        reason = "a step with a side effect, not an iteration"
    )]
    pub fn next(&mut self) -> Option<&Arc<Endpoint>> {
        let ahead = self.ahead()?;
        self.at += 1 + ahead;
        self.pool.observe(Event::Moved {
            ticket: self.ticket,
            to: self.endpoint().id,
        });
        Some(self.endpoint())
    }

    /// The server that has it, and the fallbacks behind it in order.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.grant.endpoints[self.at..]
    }

    /// Another server than the one picked has served it, as whoever forwarded it says: the charge moves there.
    pub fn served_by(&mut self, endpoint: &Arc<Endpoint>) {
        if endpoint.id == self.endpoint().id {
            return;
        }
        let known = self
            .grant
            .endpoints
            .iter()
            .position(|it| it.id == endpoint.id);
        self.at = known.unwrap_or_else(|| {
            self.grant.endpoints.push(endpoint.clone());
            self.grant.endpoints.len() - 1
        });
        self.pool.observe(Event::Moved {
            ticket: self.ticket,
            to: endpoint.id,
        });
    }

    /// Adds the least loaded server that is up and not among its own, behind them: for whoever may go beyond a list that
    /// came from outside. Says whether there was one.
    pub fn widen(&mut self) -> bool {
        let own = &self.grant.endpoints;
        let Some(other) = self.pool.idlest(|it| own.iter().all(|own| own.id != it.id)) else {
            return false;
        };
        self.grant.endpoints.push(other);
        true
    }

    /// Whether [`Lease::next`] would find another server.
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.ahead().is_some()
    }

    /// How many places ahead the next fallback is that is still up.
    fn ahead(&self) -> Option<usize> {
        let up = |endpoint: &Arc<Endpoint>| {
            !endpoint.gone() && self.pool.view(endpoint).is_some_and(|v| is_ready(&v))
        };
        self.grant.endpoints.iter().skip(self.at + 1).position(up)
    }

    /// The first token, or first byte, of the answer came.
    pub fn first_token(&mut self) {
        if !self.first_token_seen {
            self.first_token_seen = true;
            self.pool.observe(Event::FirstToken {
                ticket: self.ticket,
            });
        }
    }

    /// More tokens came.
    pub fn progress(&mut self, tokens: u32) {
        self.unreported = self.unreported.saturating_add(tokens);
        if self.unreported >= PROGRESS {
            let tokens = std::mem::take(&mut self.unreported);
            self.pool.observe(Event::Progress {
                ticket: self.ticket,
                tokens,
            });
        }
    }

    /// The answer is complete, or it is certain that there will be none. `ok`: the server did its part.
    pub fn finish(mut self, usage: Option<Usage>, ok: bool) {
        self.end(Event::Finished {
            ticket: self.ticket,
            usage,
            ok,
        });
    }

    /// Where it is told that the request must end for others. `None` if it never must, or this was asked before.
    pub fn eviction_notice(&mut self) -> Option<EvictionNotice> {
        let receiver = self.grant.eviction.take()?;
        Some(EvictionNotice {
            pool: self.pool.clone(),
            receiver: Some(receiver),
        })
    }

    /// Why it went where it went, if it asked or was sampled.
    #[must_use]
    pub fn explanation(&self) -> Option<&RecordedDecision> {
        self.explanation.as_deref()
    }

    /// How long it waited.
    #[must_use]
    pub fn queued(&self) -> Duration {
        self.grant.queued
    }

    /// Expected seconds from the pick to its first token.
    #[must_use]
    pub fn predicted_ttft(&self) -> f64 {
        self.grant.predicted_ttft
    }

    /// Tokens of its prompt expected in the first server's cache.
    #[must_use]
    pub fn hit_tokens(&self) -> u32 {
        self.grant.hit_tokens
    }

    fn end(&mut self, event: Event<'_>) {
        if !self.ended {
            self.ended = true;
            self.pool.lease_over(self.ticket, event);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end(Event::Abandoned {
            ticket: self.ticket,
        });
    }
}

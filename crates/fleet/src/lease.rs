//! One admitted request.

use std::sync::Arc;
use std::time::Duration;

use scheduling::{Event, FailureKind, Ticket, Usage};
use smallvec::SmallVec;

use crate::endpoint::Wishes;
use crate::pool::is_ready;
use crate::{Endpoint, Pool, RecordedDecision};

/// Tokens that are reported together: enough to keep the lock out of the way of each chunk.
const PROGRESS: u32 = 32;

/// One admitted request: its server, and the fallbacks. Dropped without [`Lease::finish`] it counts as abandoned, so its
/// charge always goes back.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    ticket: Ticket,
    endpoints: SmallVec<[Arc<Endpoint>; 4]>,
    at: usize,
    unreported: u32,
    first_token_seen: bool,
    ended: bool,
    explanation: Option<Arc<RecordedDecision>>,
    queued: Duration,
    predicted_ttft: f64,
    hit_tokens: u32,
}

impl Lease {
    pub(crate) fn new(
        pool: Arc<Pool>,
        ticket: Ticket,
        endpoints: SmallVec<[Arc<Endpoint>; 4]>,
        explanation: Option<Arc<RecordedDecision>>,
        queued: Duration,
        predicted_ttft: f64,
        hit_tokens: u32,
    ) -> Self {
        Self {
            pool,
            ticket,
            endpoints,
            at: 0,
            unreported: 0,
            first_token_seen: false,
            ended: false,
            explanation,
            queued,
            predicted_ttft,
            hit_tokens,
        }
    }

    /// The server that has it now.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoints[self.at]
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
    pub fn next(&mut self) -> Option<&Arc<Endpoint>> {
        let up = |endpoint: &Arc<Endpoint>| {
            !endpoint.gone() && self.pool.view(endpoint).is_some_and(|v| is_ready(&v))
        };
        let ahead = self.endpoints.iter().skip(self.at + 1).position(up)?;
        self.at += 1 + ahead;
        self.pool.observe(Event::Moved {
            ticket: self.ticket,
            to: self.endpoint().id,
        });
        Some(self.endpoint())
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

    /// Why it went where it went, if it asked or was sampled.
    #[must_use]
    pub fn explanation(&self) -> Option<&RecordedDecision> {
        self.explanation.as_deref()
    }

    /// How long it waited.
    #[must_use]
    pub fn queued(&self) -> Duration {
        self.queued
    }

    /// Expected seconds from the pick to its first token.
    #[must_use]
    pub fn predicted_ttft(&self) -> f64 {
        self.predicted_ttft
    }

    /// Tokens of its prompt expected in the first server's cache.
    #[must_use]
    pub fn hit_tokens(&self) -> u32 {
        self.hit_tokens
    }

    fn end(&mut self, event: Event<'_>) {
        if !self.ended {
            self.ended = true;
            self.pool.observe(event);
            self.pool.lease_ended();
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

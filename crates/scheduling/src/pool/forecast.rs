//! What is to be expected: how full the pool is, when the next endpoint opens, how long a wait will be.

use std::time::Duration;

use super::Pool;
use super::endpoint::{Endpoint, Tier};
use crate::config::Detector;
use crate::criticality::{Admission, Rank};
use crate::request::Request;
use crate::time::{Time, seconds};

/// Seconds of work before a request of a lower class for which it is refused, if it may be.
const SHED_AFTER: f64 = 1.0;
/// Shortest and longest time that a refused request is told to stay away, in seconds.
const RELIEF: (f64, f64) = (1.0, 60.0);

impl Pool {
    /// How full the pool is, from 0 to 1: the mean over the endpoints that would be used now. At 1 none of them is
    /// open. `None`: there is no endpoint.
    pub(super) fn saturation(&self, now: Time, rank: Rank) -> Option<f64> {
        let mut best: Option<(Tier, f64, u32)> = None;
        for endpoint in self.slots.iter().filter_map(|slot| slot.endpoint.as_ref()) {
            let Some(tier) = endpoint.tier(now) else {
                continue;
            };
            let fullness = self.fullness(now, endpoint, rank);
            best = match best {
                Some((other, sum, count)) if other == tier => {
                    Some((tier, sum + fullness, count + 1))
                }
                Some(other) if other.0 < tier => Some(other),
                _ => Some((tier, fullness, 1)),
            };
        }
        best.map(|(_, sum, count)| (sum / f64::from(count)).min(1.0))
    }

    /// Whether the pool as a whole takes work, where that is what the detector says; else each endpoint says it of
    /// itself.
    pub(super) fn pool_open(&self, now: Time) -> Option<bool> {
        let whole = self.config.detector != Detector::Endpoints;
        whole.then(|| self.saturation(now, Rank::Top).is_some_and(|it| it < 1.0))
    }

    /// Where a class stands.
    pub(super) fn rank(&self, now: Time, priority: i32) -> Rank {
        match self.config.flow.admission {
            Admission::Queue => self.highest.rank(now, priority),
            Admission::Immediate => Rank::Top,
        }
    }

    /// Whether an endpoint takes work of this rank now.
    pub(super) fn is_open(&self, now: Time, endpoint: &Endpoint, rank: Rank) -> bool {
        self.pool_open(now)
            .unwrap_or_else(|| endpoint.open(now, &self.config, rank))
    }

    /// How full an endpoint is. An engine that tells nothing is judged by what we sent it.
    fn fullness(&self, now: Time, endpoint: &Endpoint, rank: Rank) -> f64 {
        match self.config.detector {
            Detector::Utilization {
                queue,
                kv,
                staleness,
            } if endpoint.last_scrape.is_some_and(|at| now - at <= staleness) => {
                let waiting = f64::from(endpoint.depth.waiting(now, staleness));
                (waiting / queue).max(self.kv_usage(now, endpoint) / kv)
            }
            Detector::Concurrency { requests, tokens } => {
                let part = |value: f64, most: Option<f64>| most.map_or(0.0, |most| value / most);
                let in_flight = part(f64::from(endpoint.depth.in_flight), requests);
                in_flight.max(part(endpoint.depth.pending_tokens as f64, tokens))
            }
            _ => endpoint.fullness(now, &self.config, rank).min(1.0),
        }
    }

    fn kv_usage(&self, now: Time, endpoint: &Endpoint) -> f64 {
        let blocks = self.index.pinned_blocks(endpoint.id.index()) as f64;
        let shared = (blocks * self.tokens_per_block()) as u64;
        let used = endpoint.space.used(shared, now, self.config.scrape_ttl);
        used as f64 / endpoint.capacity(&self.config) as f64
    }

    /// Whether the ceiling of a band keeps its requests back now.
    pub(super) fn held_back(&self, now: Time, priority: i32) -> bool {
        let ceiling = self.config.flow.rules(priority).ceiling;
        ceiling < 1.0
            && self
                .saturation(now, self.rank(now, priority))
                .is_some_and(|it| it >= ceiling)
    }

    /// Whether a request that may be refused is, now that nothing is open to it. While a higher class is around little
    /// is open to it even where little is done, so then it is refused for what stands before it.
    pub(super) fn sheds(&self, now: Time, request: &Request) -> bool {
        self.rank(now, request.priority) == Rank::Top
            || self.saturation(now, Rank::Top).is_none_or(|it| it >= 1.0)
            || self.before(now, request) > SHED_AFTER
    }

    /// How long a newcomer would have to wait: until an endpoint opens, and until what is before it is worked off, as
    /// fast as that went lately.
    pub(super) fn expected_wait(&self, now: Time, request: &Request) -> Duration {
        seconds(self.opens_in(now) + self.before(now, request))
    }

    /// Seconds until what is before a newcomer is worked off.
    pub(super) fn before(&self, now: Time, request: &Request) -> f64 {
        self.queue.before(request) / self.drain.rate(self.ready(now))
    }

    /// When a refused request may come back: when the first endpoint should be open again and has worked off what
    /// waits here, between one second and one minute.
    pub(super) fn relief(&self, now: Time) -> Duration {
        let ready = self.ready(now);
        let wait = if ready == 0 {
            self.config.flow.empty_ttl.as_secs_f64()
        } else {
            self.opens_in(now) + self.queue.seconds() / self.drain.rate(ready)
        };
        seconds(wait.clamp(RELIEF.0, RELIEF.1))
    }

    /// Seconds until the first endpoint should be open.
    fn opens_in(&self, now: Time) -> f64 {
        let endpoints = self.slots.iter().filter_map(|slot| slot.endpoint.as_ref());
        let ready = endpoints.filter(|endpoint| endpoint.tier(now).is_some());
        let soonest = ready.map(|endpoint| self.endpoint_opens_in(now, endpoint));
        let soonest = soonest.fold(f64::INFINITY, f64::min);
        if soonest.is_finite() { soonest } else { 0.0 }
    }

    /// Its prefills must come under the gate, and as many of its requests as are too many must end.
    fn endpoint_opens_in(&self, now: Time, endpoint: &Endpoint) -> f64 {
        if endpoint.open(now, &self.config, Rank::Top) {
            return 0.0;
        }
        let facts = endpoint.facts(now, &self.config, Rank::Top, 0, self.learned.mean_prefill());
        let gate = f64::from(self.config.prefill_gate_tokens);
        let over = (1.0 - gate / facts.pending_tokens.max(1.0)).max(0.0);
        let prefill = over * facts.pending_seconds + facts.others_seconds;
        let c = &facts.coefficients;
        let step = c.c0 + c.w_base + c.k_v * facts.context_tokens + c.s * facts.decodes;
        let hold = self.learned.output(None) * step;
        let ends = f64::from(endpoint.surplus(now, &self.config)) * hold / facts.sequences.max(1.0);
        prefill.max(ends)
    }
}

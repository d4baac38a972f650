//! One endpoint of the pool: the factors side by side.

use crate::adapters::{AdapterState, Slots};
use crate::config::Config;
use crate::cost::Facts;
use crate::criticality::Rank;
use crate::health::{Health, Monitor};
use crate::id::EndpointId;
use crate::kv_cache::Space;
use crate::prefix::Cold;
use crate::profile::{Coefficients, EndpointProfile};
use crate::queue_depth::{Depth, Full, Gate};
use crate::time::Time;

/// How eagerly an endpoint is used; only those of the best tier that has any are candidates.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Tier {
    /// Up, or down and due for a trial.
    Ready,
    /// Shuts down, but still serves: better than nothing.
    Draining,
    /// Down by traffic: tried when all are.
    Down,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) id: EndpointId,
    pub(super) profile: EndpointProfile,
    pub(super) depth: Depth,
    pub(super) space: Space,
    pub(super) adapters: Slots,
    pub(super) monitor: Monitor,
    /// The host said that it shuts down.
    pub(super) draining: bool,
    /// Observed seconds of prefill by expected ones.
    pub(super) speed: f64,
    /// Share of predicted hits that it confirmed.
    pub(super) trust: f64,
    /// Requests in flight that siblings sent here.
    pub(super) foreign: u32,
    pub(super) last_dispatch: u64,
    pub(super) last_cold: u64,
    pub(super) cold: Cold,
    pub(super) last_scrape: Option<Time>,
}

impl Endpoint {
    pub(super) fn new(id: EndpointId, profile: EndpointProfile) -> Self {
        let mut adapters = Slots::default();
        adapters.set_max(profile.max_lora);
        Self {
            id,
            profile,
            depth: Depth::default(),
            space: Space::default(),
            adapters,
            monitor: Monitor::default(),
            draining: false,
            speed: 1.0,
            trust: 1.0,
            foreign: 0,
            last_dispatch: 0,
            last_cold: 0,
            cold: Cold::default(),
            last_scrape: None,
        }
    }

    /// `None` if nothing may go there.
    pub(super) fn tier(&self, now: Time) -> Option<Tier> {
        match self.monitor.health() {
            Health::Dead => None,
            _ if !self.monitor.admits(now) => Some(Tier::Down),
            _ if self.is_draining(now) => Some(Tier::Draining),
            _ => Some(Tier::Ready),
        }
    }

    pub(super) fn is_draining(&self, now: Time) -> bool {
        self.draining || self.monitor.draining(now)
    }

    /// Whether it takes work now.
    pub(super) fn open(&self, now: Time, config: &Config, rank: Rank) -> bool {
        self.profile.load_only
            || self
                .depth
                .open(now, Gate::new(config, self.profile.max_seqs, rank))
    }

    /// How full it is: open below 1.
    pub(super) fn fullness(&self, now: Time, config: &Config, rank: Rank) -> f64 {
        if self.profile.load_only {
            return 0.0;
        }
        let gate = Gate::new(config, self.profile.max_seqs, rank);
        self.depth.fullness(now, gate)
    }

    /// Why it is not open.
    pub(super) fn full(&self, now: Time, config: &Config) -> Option<Full> {
        let gate = Gate::new(config, self.profile.max_seqs, Rank::Top);
        self.depth
            .full(now, gate)
            .filter(|_| !self.profile.load_only)
    }

    /// How many requests have to end for a place to be free.
    pub(super) fn surplus(&self, now: Time, config: &Config) -> u32 {
        let gate = Gate::new(config, self.profile.max_seqs, Rank::Top);
        self.depth.surplus(now, gate)
    }

    pub(super) fn capacity(&self, config: &Config) -> u64 {
        self.profile
            .kv_capacity_tokens
            .unwrap_or(config.default_kv_tokens)
            .max(1)
    }

    /// Its step time, prefill as fast as observed.
    pub(super) fn coefficients(&self) -> Coefficients {
        let c = self.profile.coefficients;
        Coefficients {
            a: c.a * self.speed,
            q: c.q * self.speed,
            ..c
        }
    }

    /// What does not depend on the request; the caller fills in the rest.
    pub(super) fn facts(
        &self,
        now: Time,
        config: &Config,
        rank: Rank,
        shared_tokens: u64,
        mean_prefill: f64,
    ) -> Facts {
        let ttl = config.scrape_ttl;
        let others = self.depth.others(now, ttl);
        let used = self.space.used(shared_tokens, now, ttl);
        let others_context = used - self.space.ours(shared_tokens);
        Facts {
            endpoint: self.id,
            open: self.open(now, config, rank),
            coefficients: self.coefficients(),
            max_batched_tokens: f64::from(self.profile.max_batched_tokens.max(1)),
            max_seqs: f64::from(self.profile.max_seqs.max(1)),
            hit_tokens: 0.0,
            shared_tokens: 0.0,
            in_flight: self.depth.in_flight,
            sequences: f64::from(self.depth.sequences.saturating_add(others.running)),
            decodes: f64::from(self.depth.decoding.saturating_add(others.running)),
            context_tokens: (self.depth.context_tokens + others_context) as f64,
            pending_tokens: self.depth.pending_tokens as f64,
            pending_seconds: self.depth.pending_nanos as f64 * 1e-9,
            silent_seconds: self.depth.silent_seconds(now),
            others_seconds: f64::from(others.waiting) * mean_prefill,
            kv_used: used as f64,
            kv_capacity: self.capacity(config) as f64,
            waiting: f64::from(self.depth.waiting(now, ttl)),
            adapter: AdapterState::Free,
            adapter_seconds: 0.0,
            health_seconds: self.monitor.penalty(now, &config.health),
            last_dispatch: self.last_dispatch,
            last_cold: self.last_cold,
            cold_level: self.cold.level(),
        }
    }
}

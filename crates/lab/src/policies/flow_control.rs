//! GAIE's and llm-d's flow control around the blend: jobs wait in the gateway while the pool is saturated.
//!
//! One queue for each priority, first come first served, the higher priority strictly first. A cycle dispatches at most
//! one job; an arrival starts a cycle, and else there is one each millisecond. A cycle dispatches nothing while
//! `saturation >= 1` (see [`super::gaie`]). A full band refuses at once, and a job that waited a minute is refused then.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::gaie::saturation;
use super::manifest as m;
use super::rule::Gateway;
use crate::{Dispatcher, Job, Placed, Told};

struct Held {
    since: f64,
    job: Job,
}

/// A gateway that holds jobs back.
pub(super) struct FlowControl {
    gateway: Gateway,
    bands: BTreeMap<Reverse<i32>, VecDeque<Held>>,
    refused: VecDeque<u64>,
    /// The earliest time of the next dispatch.
    next_cycle: f64,
    /// Whether the pool was not saturated when it was last looked at.
    open: bool,
}

impl FlowControl {
    pub(super) fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            bands: BTreeMap::new(),
            refused: VecDeque::new(),
            next_cycle: 0.0,
            open: false,
        }
    }

    fn refuse_expired(&mut self, now: f64) {
        for band in self.bands.values_mut() {
            while band.front().is_some_and(|held| expiry(held) <= now) {
                self.refused
                    .extend(band.pop_front().map(|held| held.job.id));
            }
        }
        self.bands.retain(|_, band| !band.is_empty());
    }
}

fn expiry(held: &Held) -> f64 {
    held.since + m::FLOW_TTL_SECONDS
}

impl Dispatcher for FlowControl {
    fn arrive(&mut self, now: f64, job: &Job) {
        let band = self.bands.entry(Reverse(job.priority)).or_default();
        if band.len() >= m::FLOW_BAND_REQUESTS as usize {
            self.refused.push_back(job.id);
            return;
        }
        band.push_back(Held {
            since: now,
            job: job.clone(),
        });
        self.next_cycle = now;
    }

    fn tell(&mut self, now: f64, told: Told) {
        self.gateway.tell(now, told);
    }

    fn next(&mut self, now: f64) -> Option<Placed> {
        self.refuse_expired(now);
        if let Some(job) = self.refused.pop_front() {
            return Some(Placed::Shed { job });
        }
        self.open = saturation(&self.gateway.fleet, now) < 1.0;
        if !self.open || now < self.next_cycle {
            return None;
        }
        let held = self.bands.values_mut().next()?.pop_front()?;
        self.next_cycle = now + m::FLOW_CYCLE_SECONDS;
        Some(self.gateway.place(now, &held.job))
    }

    fn adapters(&mut self, _now: f64, engine: u32, resident: &[u32], wanted: &[u32]) {
        self.gateway.adapters(engine, resident, wanted);
    }

    fn left(&mut self, _now: f64, engine: u32) {
        self.gateway.set_up(engine, false);
    }

    fn joined(&mut self, _now: f64, engine: u32) {
        self.gateway.set_up(engine, true);
    }

    fn failed(&mut self, now: f64, job: &Job, engine: u32, retry: bool) -> Option<u32> {
        self.gateway.failed(now, job, engine, retry)
    }

    fn wake_at(&self) -> Option<f64> {
        let held = || self.bands.values().filter_map(VecDeque::front);
        let cycle = (self.open && held().next().is_some()).then_some(self.next_cycle);
        held().map(expiry).chain(cycle).min_by(f64::total_cmp)
    }
}

//! A fleet in virtual time: the pool and very simple engines, driven together.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use scheduling::{
    Config, Decision, EndpointId, EndpointProfile, Event, Pool, RejectReason, Request, RequestKind,
    Ticket, Time, Usage,
};

pub(crate) fn secs(seconds: f64) -> Time {
    Time::from_secs_f64(seconds)
}

/// Chained hashes of `blocks` blocks of the text `seed`.
pub(crate) fn prefix(seed: u64, blocks: usize) -> Vec<u64> {
    chain(0, seed, blocks)
}

fn chain(after: u64, seed: u64, blocks: usize) -> Vec<u64> {
    let mut hash = (after ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d;
    (0..blocks)
        .map(|_| {
            hash = (hash ^ (hash >> 31))
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
                .rotate_left(23);
            hash
        })
        .collect()
}

/// A prompt: the first `shared` blocks of text `common`, then `own` blocks of text `private`.
pub(crate) fn prompt(common: u64, shared: usize, private: u64, own: usize) -> Request {
    let mut hashes = prefix(common, shared);
    let last = hashes.last().copied().unwrap_or_default();
    hashes.extend(chain(last, private.wrapping_add(1 << 40), own));
    let prompt_tokens = (hashes.len() * 64) as u32 + 10;
    Request {
        prefix: hashes.into(),
        prompt_tokens,
        streams: true,
        ..Request::default()
    }
}

pub(crate) fn opaque() -> Request {
    Request {
        kind: RequestKind::Opaque,
        ..Request::default()
    }
}

pub(crate) fn pool(config: Config, endpoints: usize) -> (Pool, Vec<EndpointId>) {
    let mut pool = Pool::new(config, 7);
    let ids = (0..endpoints)
        .map(|_| pool.join(Time::ZERO, EndpointProfile::default()))
        .collect();
    (pool, ids)
}

pub(crate) fn drain(pool: &mut Pool, now: Time) -> Vec<Decision> {
    std::iter::from_fn(|| pool.next(now)).collect()
}

/// Where each ticket went.
pub(crate) fn winners(decisions: &[Decision]) -> BTreeMap<Ticket, EndpointId> {
    decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Dispatch {
                ticket, endpoints, ..
            } => Some((*ticket, endpoints[0])),
            _ => None,
        })
        .collect()
}

pub(crate) fn rejected(decisions: &[Decision]) -> Vec<(Ticket, RejectReason)> {
    decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Reject { ticket, reason, .. } => Some((*ticket, *reason)),
            _ => None,
        })
        .collect()
}

/// Sends one request that must go at once; where did it go?
pub(crate) fn send(pool: &mut Pool, now: Time, request: Request) -> (Ticket, EndpointId) {
    let ticket = pool.arrive(now, request);
    let decisions = drain(pool, now);
    let winner = winners(&decisions).get(&ticket).copied();
    (
        ticket,
        winner.unwrap_or_else(|| panic!("not dispatched: {decisions:?}")),
    )
}

/// Runs a request to its end, leaving its prompt in the cache of its endpoint.
pub(crate) fn complete(pool: &mut Pool, now: Time, ticket: Ticket) {
    pool.observe(now, Event::FirstToken { ticket });
    pool.observe(
        now,
        Event::Finished {
            ticket,
            usage: None,
            ok: true,
        },
    );
}

/// One engine: prompts first come first served, decodes for a fixed time, blocks cached least recently used.
struct Engine {
    cache: BTreeMap<u64, u64>,
    ages: BTreeSet<(u64, u64)>,
    capacity: usize,
    clock: u64,
    free_at: Time,
    pub(crate) served: u64,
    pub(crate) work: f64,
}

impl Engine {
    fn new(capacity: usize) -> Self {
        let (cache, ages) = (BTreeMap::new(), BTreeSet::new());
        Self {
            cache,
            ages,
            capacity,
            clock: 0,
            free_at: Time::ZERO,
            served: 0,
            work: 0.0,
        }
    }

    fn run(&mut self, now: Time, request: &Request) -> (Time, usize) {
        let hit = request
            .prefix
            .iter()
            .take_while(|hash| self.cache.contains_key(*hash))
            .count();
        for hash in request.prefix.iter().rev() {
            self.clock += 1;
            if let Some(old) = self.cache.insert(*hash, self.clock) {
                self.ages.remove(&(old, *hash));
            }
            self.ages.insert((self.clock, *hash));
        }
        while self.cache.len() > self.capacity {
            let (_, hash) = self.ages.pop_first().expect("as many as in the cache");
            self.cache.remove(&hash);
        }
        let uncached = f64::from(request.prompt_tokens) - (hit * 64) as f64;
        let work = uncached.max(1.0) * 23e-6 + 2e-3;
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(work);
        self.served += 1;
        self.work += work;
        (self.free_at, hit)
    }
}

#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) served: Vec<u64>,
    pub(crate) work: Vec<f64>,
    pub(crate) hit_blocks: usize,
    pub(crate) blocks: usize,
    pub(crate) ttft: Vec<f64>,
    pub(crate) rejected: usize,
}

impl Outcome {
    pub(crate) fn imbalance(&self) -> f64 {
        let max = self.work.iter().copied().fold(0.0, f64::max);
        max * self.work.len() as f64 / self.work.iter().sum::<f64>()
    }
}

enum Happens {
    Arrive(Request),
    First(Ticket),
    End(Ticket, u32),
}

/// A pool, its engines, and what is going to happen.
struct Stage {
    pool: Pool,
    engines: Vec<Engine>,
    events: BTreeMap<(Time, u64), Happens>,
    requests: BTreeMap<Ticket, (Time, Request)>,
    number: u64,
    out: Outcome,
}

impl Stage {
    fn plan(&mut self, time: Time, event: Happens) {
        self.number += 1;
        self.events.insert((time, self.number), event);
    }

    fn happen(&mut self, now: Time, event: Happens) {
        match event {
            Happens::Arrive(request) => {
                let ticket = self.pool.arrive(now, request.clone());
                self.requests.insert(ticket, (now, request));
            }
            Happens::First(ticket) => {
                self.pool.observe(now, Event::FirstToken { ticket });
                self.out
                    .ttft
                    .push((now - self.requests[&ticket].0).as_secs_f64());
            }
            Happens::End(ticket, cached) => {
                let prompt_tokens = self.requests[&ticket].1.prompt_tokens;
                let usage = Usage {
                    prompt_tokens,
                    completion_tokens: 100,
                    cached_tokens: Some(cached),
                };
                self.pool.observe(
                    now,
                    Event::Finished {
                        ticket,
                        usage: Some(usage),
                        ok: true,
                    },
                );
            }
        }
    }

    fn follow(&mut self, now: Time, decision: Decision) {
        let Decision::Dispatch {
            ticket, endpoints, ..
        } = decision
        else {
            self.out.rejected += 1;
            return;
        };
        let request = &self.requests[&ticket].1;
        let (first, hit) = self.engines[endpoints[0].index()].run(now, request);
        self.out.hit_blocks += hit;
        self.out.blocks += request.prefix.len();
        self.plan(first, Happens::First(ticket));
        self.plan(
            first + Duration::from_secs(1),
            Happens::End(ticket, (hit * 64) as u32),
        );
    }

    fn run(mut self) -> Outcome {
        loop {
            let event = self.events.first_key_value().map(|((time, _), _)| *time);
            let Some(now) = [event, self.pool.wake_at()].into_iter().flatten().min() else {
                break;
            };
            if event == Some(now) {
                let (_, event) = self.events.pop_first().expect("just seen");
                self.happen(now, event);
            }
            for decision in drain(&mut self.pool, now) {
                self.follow(now, decision);
            }
        }
        self.out.served = self.engines.iter().map(|engine| engine.served).collect();
        self.out.work = self.engines.iter().map(|engine| engine.work).collect();
        assert_eq!(
            (self.pool.stats().in_flight, self.pool.stats().queued),
            (0, 0)
        );
        self.out
    }
}

/// Plays `arrivals` against engines with room for `capacity` blocks each.
pub(crate) fn play(
    config: Config,
    endpoints: usize,
    capacity: usize,
    arrivals: Vec<(Time, Request)>,
) -> Outcome {
    let mut pool = Pool::new(config, 11);
    let kv_capacity_tokens = Some(capacity as u64 * 64);
    for _ in 0..endpoints {
        pool.join(
            Time::ZERO,
            EndpointProfile {
                kv_capacity_tokens,
                ..EndpointProfile::default()
            },
        );
    }
    let engines = (0..endpoints).map(|_| Engine::new(capacity)).collect();
    let (events, requests, out) = (BTreeMap::new(), BTreeMap::new(), Outcome::default());
    let mut stage = Stage {
        pool,
        engines,
        events,
        requests,
        number: 0,
        out,
    };
    for (time, request) in arrivals {
        stage.plan(time, Happens::Arrive(request));
    }
    stage.run()
}

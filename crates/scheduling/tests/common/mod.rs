//! A fleet in virtual time: the pool and very simple engines, driven together.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
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
            Decision::Reject { .. } => None,
        })
        .collect()
}

pub(crate) fn rejected(decisions: &[Decision]) -> Vec<(Ticket, RejectReason)> {
    decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Reject { ticket, reason, .. } => Some((*ticket, *reason)),
            Decision::Dispatch { .. } => None,
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

/// Plays `arrivals` (in order of time) against engines with room for `capacity` blocks each.
pub(crate) fn play(
    config: Config,
    endpoints: usize,
    capacity: usize,
    arrivals: Vec<(Time, Request)>,
) -> Outcome {
    let mut pool = Pool::new(config, 11);
    let profile = EndpointProfile {
        kv_capacity_tokens: Some(capacity as u64 * 64),
        ..EndpointProfile::default()
    };
    for _ in 0..endpoints {
        pool.join(Time::ZERO, profile);
    }
    let engine = || Engine {
        cache: BTreeMap::new(),
        ages: BTreeSet::new(),
        capacity,
        clock: 0,
        free_at: Time::ZERO,
        served: 0,
        work: 0.0,
    };
    let mut engines: Vec<Engine> = (0..endpoints).map(|_| engine()).collect();
    let mut events: BTreeMap<(Time, u64), Happens> = BTreeMap::new();
    let mut number = 0;
    for (time, request) in arrivals {
        number += 1;
        events.insert((time, number), Happens::Arrive(request));
    }
    let mut requests: BTreeMap<Ticket, (Time, Arc<Request>)> = BTreeMap::new();
    let mut out = Outcome {
        served: vec![],
        work: vec![],
        hit_blocks: 0,
        blocks: 0,
        ttft: vec![],
        rejected: 0,
    };
    let mut queue: VecDeque<Decision> = VecDeque::new();
    loop {
        let event = events.first_key_value().map(|((time, _), _)| *time);
        let Some(now) = [event, pool.wake_at()].into_iter().flatten().min() else {
            break;
        };
        if event == Some(now) {
            match events.pop_first().expect("just seen").1 {
                Happens::Arrive(request) => {
                    let ticket = pool.arrive(now, request.clone());
                    requests.insert(ticket, (now, Arc::new(request)));
                }
                Happens::First(ticket) => {
                    pool.observe(now, Event::FirstToken { ticket });
                    out.ttft.push((now - requests[&ticket].0).as_secs_f64());
                }
                Happens::End(ticket, cached) => {
                    let prompt_tokens = requests[&ticket].1.prompt_tokens;
                    let usage = Usage {
                        prompt_tokens,
                        completion_tokens: 100,
                        cached_tokens: Some(cached),
                    };
                    pool.observe(
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
        queue.extend(drain(&mut pool, now));
        for decision in queue.drain(..) {
            let Decision::Dispatch {
                ticket, endpoints, ..
            } = decision
            else {
                out.rejected += 1;
                continue;
            };
            let request = &requests[&ticket].1;
            let (first, hit) = engines[endpoints[0].index()].run(now, request);
            out.hit_blocks += hit;
            out.blocks += request.prefix.len();
            number += 2;
            events.insert((first, number), Happens::First(ticket));
            events.insert(
                (first + Duration::from_secs(1), number + 1),
                Happens::End(ticket, (hit * 64) as u32),
            );
        }
    }
    out.served = engines.iter().map(|engine| engine.served).collect();
    out.work = engines.iter().map(|engine| engine.work).collect();
    assert_eq!((pool.stats().in_flight, pool.stats().queued), (0, 0));
    out
}

//! The product's own decision core as a dispatcher.
//!
//! [`Product`] drives a [`scheduling::Pool`] through its public interface, exactly as the gateway does: requests
//! arrive with hashes of their prompt in blocks of 64 tokens, the pool hears of first tokens, of progress, of ends with
//! their usage, and of scrapes; it never hears how long an answer will be.
//!
//! Two things differ from a gateway's defaults, and both can be set: endpoints join with the profile of their engine
//! known, since that is what a calibrated deployment has (`Knowledge`), and nobody is refused for having waited a
//! minute, since a refusal would take the slowest answers out of the comparison (`config.flow.request_ttl`).

use std::time::Duration;

use rustc_hash::FxHashMap;
use scheduling::{
    AdapterKey, Coefficients, Config, Decision, EndpointId, EndpointProfile, Event, FailureKind,
    FlowControl, Load, PolicyKind, Pool, Probe, Request, SharedEvent, SiblingId, Ticket, Time,
    Usage,
};
use simulator::EngineConfig;
use smallvec::SmallVec;

use crate::{BLOCK_TOKENS, Dispatcher, Job, Placed, Told};

/// Tokens of a block of the pool's prefix index.
const INDEX_BLOCK_TOKENS: u32 = 64;
/// Engine blocks in one of those.
const GROUP: usize = (INDEX_BLOCK_TOKENS / BLOCK_TOKENS) as usize;

/// What the pool is told about the engines' speed when they join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Knowledge {
    /// The coefficients and the KV size of the engines that it is given.
    #[default]
    Given,
    /// The pool's own defaults.
    Nothing,
}

/// Settings of [`Product`].
#[derive(Debug, Clone, PartialEq)]
pub struct ProductConfig {
    /// Settings of the pool.
    pub pool: Config,
    /// What it knows of the engines.
    pub knowledge: Knowledge,
}

impl ProductConfig {
    /// The product's defaults with this policy, but for the lab's patience.
    #[must_use]
    pub fn new(policy: PolicyKind) -> Self {
        Self {
            pool: Config {
                policy,
                block_tokens: INDEX_BLOCK_TOKENS,
                flow: FlowControl {
                    request_ttl: Duration::from_secs(86_400),
                    max_requests: 1 << 20,
                    ..FlowControl::default()
                },
                ..Config::default()
            },
            knowledge: Knowledge::Given,
        }
    }
}

/// A gateway that decides with the product's pool.
#[derive(Debug)]
pub struct Product {
    pool: Pool,
    /// By engine; the last one it was, of an engine that is gone.
    endpoints: Vec<EndpointId>,
    profiles: Vec<EndpointProfile>,
    /// Jobs from arrival to end.
    jobs: FxHashMap<u64, InPool>,
    by_ticket: FxHashMap<Ticket, u64>,
}

#[derive(Debug)]
struct InPool {
    ticket: Ticket,
    prompt_tokens: u32,
    /// Where to try next, in order.
    fallbacks: SmallVec<[EndpointId; 4]>,
}

impl Product {
    /// A pool that all `engines` have joined.
    #[must_use]
    pub fn new(config: ProductConfig, engines: &[EngineConfig], seed: u64) -> Self {
        let knowledge = config.knowledge;
        let mut pool = Pool::new(config.pool, seed);
        let profiles = engines.iter().map(|engine| profile(engine, knowledge));
        let profiles: Vec<EndpointProfile> = profiles.collect();
        let join = |it: &EndpointProfile| pool.join(Time::ZERO, *it);
        let endpoints = profiles.iter().map(join).collect();
        Self {
            pool,
            endpoints,
            profiles,
            jobs: FxHashMap::default(),
            by_ticket: FxHashMap::default(),
        }
    }

    /// What the pool says about itself.
    #[must_use]
    pub fn stats(&self) -> scheduling::Stats {
        self.pool.stats()
    }

    fn observe(&mut self, now: f64, job: u64, event: impl FnOnce(Ticket) -> Event<'static>) {
        if let Some(it) = self.jobs.get(&job) {
            self.pool
                .observe(Time::from_secs_f64(now), event(it.ticket));
        }
    }

    fn engine_of(&self, endpoint: EndpointId) -> Option<u32> {
        let place = self.endpoints.iter().position(|it| *it == endpoint);
        place.map(|engine| engine as u32)
    }

    /// The next fallback of a job, which is charged now.
    fn move_on(&mut self, now: Time, job: u64) -> Option<u32> {
        let it = self.jobs.get_mut(&job)?;
        let ticket = it.ticket;
        while !self.jobs.get(&job)?.fallbacks.is_empty() {
            let to = self.jobs.get_mut(&job)?.fallbacks.remove(0);
            if let Some(engine) = self.engine_of(to)
                && self.pool.endpoint(to).is_some()
            {
                self.pool.observe(now, Event::Moved { ticket, to });
                return Some(engine);
            }
        }
        None
    }

    fn finished(&mut self, now: f64, job: u64, output_tokens: u32, cached_tokens: u32) {
        let Some(it) = self.jobs.remove(&job) else {
            return;
        };
        self.by_ticket.remove(&it.ticket);
        let usage = Usage {
            prompt_tokens: it.prompt_tokens,
            completion_tokens: output_tokens,
            cached_tokens: Some(cached_tokens),
        };
        // Only a refusal ends without a token.
        let ok = output_tokens > 0;
        let event = Event::Finished {
            ticket: it.ticket,
            usage: ok.then_some(usage),
            ok,
        };
        self.pool.observe(Time::from_secs_f64(now), event);
    }
}

impl Dispatcher for Product {
    fn arrive(&mut self, now: f64, job: &Job) {
        let ticket = self.pool.arrive(Time::from_secs_f64(now), request(job));
        let prompt_tokens = job.prompt_tokens;
        self.jobs.insert(
            job.id,
            InPool {
                ticket,
                prompt_tokens,
                fallbacks: SmallVec::new(),
            },
        );
        self.by_ticket.insert(ticket, job.id);
    }

    fn tell(&mut self, now: f64, told: Told) {
        match told {
            Told::FirstToken { job } => {
                self.observe(now, job, |ticket| Event::FirstToken { ticket });
            }
            Told::Progress { job, tokens } => {
                self.observe(now, job, |ticket| Event::Progress { ticket, tokens });
            }
            Told::Finished {
                job,
                output_tokens,
                cached_tokens,
            } => self.finished(now, job, output_tokens, cached_tokens),
            Told::Scraped {
                engine,
                running,
                waiting,
                kv_usage,
            } => {
                let Some(&endpoint) = self.endpoints.get(engine as usize) else {
                    return;
                };
                let load = Load {
                    waiting: Some(waiting),
                    running: Some(running),
                    kv_usage: Some(kv_usage),
                };
                let event = Event::Scraped { endpoint, load };
                self.pool.observe(Time::from_secs_f64(now), event);
            }
        }
    }

    fn adapters(&mut self, now: f64, engine: u32, resident: &[u32], wanted: &[u32]) {
        let Some(&endpoint) = self.endpoints.get(engine as usize) else {
            return;
        };
        let keys = |ids: &[u32]| -> Vec<AdapterKey> { ids.iter().copied().map(key).collect() };
        let (resident, loading) = (keys(resident), keys(wanted));
        let event = Event::Adapters {
            endpoint,
            resident: &resident,
            loading: &loading,
            max: None,
        };
        self.pool.observe(Time::from_secs_f64(now), event);
    }

    fn left(&mut self, now: f64, engine: u32) {
        if let Some(&endpoint) = self.endpoints.get(engine as usize) {
            let event = Event::Left { endpoint };
            self.pool.observe(Time::from_secs_f64(now), event);
        }
    }

    fn joined(&mut self, now: f64, engine: u32) {
        // It may have gone and come back without anybody noticing.
        self.left(now, engine);
        if let Some(profile) = self.profiles.get(engine as usize) {
            let endpoint = self.pool.join(Time::from_secs_f64(now), *profile);
            self.endpoints[engine as usize] = endpoint;
        }
    }

    /// As the gateway does: the failure is told, a server that broke a connection is probed at once, and the next
    /// server is the decision's own next.
    fn failed(&mut self, now: f64, job: &Job, engine: u32, retry: bool) -> Option<u32> {
        let at = Time::from_secs_f64(now);
        let ticket = self.jobs.get(&job.id)?.ticket;
        if let Some(&endpoint) = self.endpoints.get(engine as usize) {
            let kind = if retry {
                FailureKind::Connect
            } else {
                FailureKind::Timeout
            };
            self.pool.observe(
                at,
                Event::Failed {
                    ticket,
                    endpoint,
                    kind,
                },
            );
            if retry {
                let outcome = Probe::Refused;
                self.pool.observe(at, Event::Probe { endpoint, outcome });
            }
        }
        let next = if retry {
            self.move_on(at, job.id)
        } else {
            None
        };
        if next.is_none() {
            self.finished(now, job.id, 0, 0);
        }
        next
    }

    fn share(&mut self, on: bool) {
        self.pool.share(on);
    }

    fn shared(&mut self, into: &mut Vec<SharedEvent>) {
        self.pool.drain_shared(into);
    }

    fn unshared_seconds(&self) -> f64 {
        self.pool.unshared_seconds()
    }

    /// Engines joined in the same order everywhere, so their names need no translation.
    fn hear(&mut self, now: f64, gateway: usize, events: &[SharedEvent]) {
        let sibling = SiblingId(gateway as u64);
        for event in events {
            let event = Event::Sibling { sibling, event };
            self.pool.observe(Time::from_secs_f64(now), event);
        }
    }

    fn next(&mut self, now: f64) -> Option<Placed> {
        let now = Time::from_secs_f64(now);
        loop {
            let decision = self.pool.next(now)?;
            let Some(&job) = self.by_ticket.get(&decision.ticket()) else {
                continue;
            };
            return Some(match decision {
                Decision::Dispatch { mut endpoints, .. } => {
                    let first = (!endpoints.is_empty()).then(|| endpoints.remove(0));
                    if let Some(it) = self.jobs.get_mut(&job) {
                        it.fallbacks = endpoints;
                    }
                    let engine = first.and_then(|id| self.engine_of(id));
                    let engine = engine.unwrap_or(u32::MAX);
                    Placed::To { job, engine }
                }
                Decision::Reject { ticket, .. } => {
                    self.jobs.remove(&job);
                    self.by_ticket.remove(&ticket);
                    Placed::Shed { job }
                }
                // Only with `evict_running`, and then it runs to its end all the same: engines here cannot give up.
                Decision::Evict { .. } => continue,
            });
        }
    }

    fn wake_at(&self) -> Option<f64> {
        // The pool counts whole nanoseconds: one more, so that rounding never makes the wake-up too early.
        self.pool.wake_at().map(|at| at.as_secs_f64() + 1e-9)
    }
}

fn key(adapter: u32) -> AdapterKey {
    AdapterKey(u64::from(adapter) + 1)
}

fn request(job: &Job) -> Request {
    let blocks = (job.prompt_tokens / INDEX_BLOCK_TOKENS) as usize;
    let ends = job.blocks.chunks_exact(GROUP).take(blocks);
    Request {
        // A chained hash names everything before it, so the last of a group names the group.
        prefix: ends.map(|group| group[GROUP - 1].0).collect(),
        prompt_tokens: job.prompt_tokens,
        max_output_tokens: job.max_output_tokens,
        streams: true,
        priority: job.priority,
        flow: job.flow,
        adapter: job.adapter.map(key),
        ..Request::default()
    }
}

fn profile(engine: &EngineConfig, knowledge: Knowledge) -> EndpointProfile {
    if knowledge == Knowledge::Nothing {
        return EndpointProfile::default();
    }
    EndpointProfile {
        coefficients: Coefficients {
            c0: engine.profile.c0,
            w_base: engine.profile.w_base,
            a: engine.profile.a,
            q: engine.profile.q,
            k_v: engine.profile.k_v,
            s: engine.profile.s,
            adapter_load: engine.lora.load_seconds,
        },
        kv_capacity_tokens: Some(u64::from(engine.kv_blocks) * u64::from(engine.block_tokens)),
        max_batched_tokens: engine.max_batched_tokens,
        max_seqs: engine.max_seqs as u32,
        max_lora: (engine.lora.max_loras > 0).then_some(engine.lora.max_loras as u32),
        load_only: false,
    }
}

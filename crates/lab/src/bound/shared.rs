//! **Bound B, free shared KV**: the fleet's own engines, but what any of them has cached is at hand in all, at no cost but
//! its space. Requests wait in one queue and go to the engine with the least predicted work, only when it has room for
//! another prefill (late binding), so nobody is stuck behind a wrong choice.
//!
//! It keeps what bound A relaxes, the engines' own step times and batches, so it is the tighter one for decoding. It is
//! no bound in the strict sense: another order or placement may be better for a percentile. It stands for the best that
//! a router without transfers can come near while KV space is not what is short.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};
use simulator::EngineConfig;

use super::{Order, prefill_alone};
use crate::{Dispatcher, Job, Placed, RunConfig, RunOutcome, Told, Workload, run};

/// Waiting requests that are looked at each time.
const LOOKED_AT: usize = 64;
/// Waiting as much as this many times a request's prefill makes up for it.
const AGEING: f64 = 0.1;

/// Bound B: the outcome on engines that share their caches. `None` for a fleet without engines.
#[must_use]
pub fn shared(config: &RunConfig, workload: Box<dyn Workload>, order: Order) -> Option<RunOutcome> {
    if config.engines.is_empty() {
        return None;
    }
    let config = RunConfig {
        gateways: 1,
        sharing: None,
        scrape: None,
        shared_kv: true,
        ..config.clone()
    };
    let dispatcher = LeastWork::new(&config.engines, order);
    Some(run(config, workload, vec![Box::new(dispatcher)]))
}

struct Waiting {
    job: u64,
    since: f64,
    prompt: u32,
    cached: u32,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    engine: usize,
    seconds: f64,
    tokens: u32,
    decoding: bool,
}

#[derive(Debug, Default)]
struct View {
    /// Prefill without a first token: seconds and tokens.
    seconds: f64,
    tokens: u64,
    decoding: u32,
    in_flight: u32,
}

/// One queue before all engines.
struct LeastWork {
    engines: Vec<EngineConfig>,
    views: Vec<View>,
    order: Order,
    queue: VecDeque<Waiting>,
    sent: FxHashMap<u64, Sent>,
    /// Every block that was ever part of a prompt or an answer.
    seen: FxHashSet<u64>,
}

impl LeastWork {
    fn new(engines: &[EngineConfig], order: Order) -> Self {
        Self {
            engines: engines.to_vec(),
            views: engines.iter().map(|_| View::default()).collect(),
            order,
            queue: VecDeque::new(),
            sent: FxHashMap::default(),
            seen: FxHashSet::default(),
        }
    }

    /// Seconds until a request would have its first token on an engine.
    fn cost(&self, engine: usize, it: &Waiting) -> f64 {
        let (config, view) = (&self.engines[engine], &self.views[engine]);
        let own = prefill_alone(config, it.prompt, it.cached);
        let tokens = view.tokens + u64::from(it.prompt - it.cached);
        let steps = tokens.div_ceil(u64::from(config.max_batched_tokens.max(1))) as f64;
        let profile = &config.profile;
        let decodes = f64::from(view.decoding) * (profile.a + profile.s);
        let busy = if view.in_flight > 0 {
            (profile.c0 + profile.w_base) / 2.0
        } else {
            0.0
        };
        view.seconds + own + steps * decodes + busy
    }

    fn open(&self, engine: usize) -> bool {
        let (config, view) = (&self.engines[engine], &self.views[engine]);
        view.tokens <= u64::from(config.max_batched_tokens)
            && (view.in_flight as usize) < config.max_seqs
    }

    /// The order in which waiting requests are looked at.
    fn turns(&self, now: f64) -> Vec<usize> {
        let mut turns: Vec<usize> = (0..self.queue.len()).collect();
        if self.order == Order::Sjf {
            let key = |at: &usize| {
                let it = &self.queue[*at];
                prefill_alone(&self.engines[0], it.prompt, it.cached) - AGEING * (now - it.since)
            };
            turns.sort_by(|a, b| key(a).total_cmp(&key(b)));
        }
        turns.truncate(LOOKED_AT);
        turns
    }

    fn charge(&mut self, at: usize, engine: usize) -> Option<Placed> {
        let it = self.queue.remove(at)?;
        let seconds = prefill_alone(&self.engines[engine], it.prompt, it.cached);
        let tokens = it.prompt - it.cached;
        let view = &mut self.views[engine];
        view.seconds += seconds;
        view.tokens += u64::from(tokens);
        view.in_flight += 1;
        let sent = Sent {
            engine,
            seconds,
            tokens,
            decoding: false,
        };
        self.sent.insert(it.job, sent);
        let engine = engine as u32;
        Some(Placed::To {
            job: it.job,
            engine,
        })
    }

    fn prefilled(&mut self, job: u64) {
        let Some(sent) = self.sent.get_mut(&job).filter(|it| !it.decoding) else {
            return;
        };
        sent.decoding = true;
        let view = &mut self.views[sent.engine];
        view.tokens -= u64::from(sent.tokens);
        view.seconds = if view.tokens == 0 {
            0.0
        } else {
            (view.seconds - sent.seconds).max(0.0)
        };
        view.decoding += 1;
    }
}

impl Dispatcher for LeastWork {
    fn arrive(&mut self, now: f64, job: &Job) {
        let full = super::caches::prompt(job);
        let known = full.iter().take_while(|it| self.seen.contains(&it.0));
        let cached = super::caches::cached(job, known.count() as u32);
        self.seen.extend(job.blocks.iter().map(|it| it.0));
        self.queue.push_back(Waiting {
            job: job.id,
            since: now,
            prompt: job.prompt_tokens,
            cached,
        });
    }

    fn tell(&mut self, _now: f64, told: Told) {
        match told {
            Told::FirstToken { job } => self.prefilled(job),
            Told::Finished { job, .. } => {
                self.prefilled(job);
                if let Some(sent) = self.sent.remove(&job) {
                    let view = &mut self.views[sent.engine];
                    view.decoding -= 1;
                    view.in_flight -= 1;
                }
            }
            Told::Progress { .. } | Told::Scraped { .. } => {}
        }
    }

    fn next(&mut self, now: f64) -> Option<Placed> {
        if self.queue.is_empty() || !(0..self.engines.len()).any(|it| self.open(it)) {
            return None;
        }
        for at in self.turns(now) {
            let it = &self.queue[at];
            let costs = (0..self.engines.len()).map(|engine| (engine, self.cost(engine, it)));
            let best = costs.min_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((engine, _)) = best.filter(|(engine, _)| self.open(*engine)) {
                return self.charge(at, engine);
            }
        }
        None
    }
}

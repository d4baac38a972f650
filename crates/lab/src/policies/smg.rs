//! The policies of smg, formerly the SGLang router.
//!
//! ```text
//! cache_aware: most - least > abs and most > rel*least ? the least loaded
//!              : matched share of the prompt > threshold ? the engine with the longest match
//!              : the least loaded                                            load = requests in flight
//! least_load:  argmin (queued_i + sent_since_poll_i)/throughput + 0.15*k_i/(1 - k_i)
//! ```
//!
//! Among equally loaded engines the first is taken. `queued` and `k` are from the last poll, every 10 s.

use rand_chacha::ChaCha8Rng;

use super::fleet::Gauge;
use super::manifest as m;
use super::rule::{Ask, Rule, Verdict};

/// `cache_aware`.
pub(super) struct CacheAware {
    threshold: f64,
    balance_abs: u32,
    balance_rel: f64,
    /// When each engine was last sent something, as a count: of equal matches the latest wins.
    last: Vec<u64>,
    sent: u64,
}

impl CacheAware {
    pub(super) fn new(threshold: f64, balance_abs: f64, balance_rel: f64, engines: usize) -> Self {
        Self {
            threshold,
            balance_abs: balance_abs as u32,
            balance_rel,
            last: vec![0; engines],
            sent: 0,
        }
    }
}

impl Rule for CacheAware {
    fn choose(&mut self, ask: &Ask<'_>, _rng: &mut ChaCha8Rng) -> Verdict {
        let up = || ask.engines().iter().copied();
        let load = |engine: usize| ask.fleet.engines[engine].in_flight;
        let loads = || up().map(load);
        let (least, most) = (loads().min().unwrap_or(0), loads().max().unwrap_or(0));
        let uneven = most - least > self.balance_abs
            && f64::from(most) > self.balance_rel * f64::from(least);
        let warmest = up().max_by_key(|&e| (ask.hits[e], self.last[e]));
        let prompt = f64::from(ask.job.prompt_tokens.max(1));
        let warm = warmest
            .filter(|&engine| f64::from(ask.hits[engine]) / prompt > self.threshold && !uneven);
        warm.or_else(|| up().find(|&engine| load(engine) == least))
            .map_or(Verdict::Refuse, Verdict::Send)
    }

    fn sent(&mut self, _ask: &Ask<'_>, engine: usize) {
        self.sent += 1;
        self.last[engine] = self.sent;
    }
}

/// What the last poll said, and what was sent since.
#[derive(Debug, Clone, Copy, Default)]
struct Poll {
    gauge: Option<Gauge>,
    sent_tokens: u64,
}

/// `least_load`.
pub(super) struct LeastLoad {
    poll_seconds: f64,
    /// Tokens a second by engine.
    throughput: Vec<f64>,
    polls: Vec<Poll>,
}

impl LeastLoad {
    pub(super) fn new(poll_seconds: f64, throughput: Vec<f64>) -> Self {
        Self {
            poll_seconds,
            polls: vec![Poll::default(); throughput.len()],
            throughput,
        }
    }

    fn fresh(&self, engine: usize, now: f64) -> Option<Gauge> {
        self.polls[engine]
            .gauge
            .filter(|gauge| now - gauge.at <= m::SMG_STALE_POLLS * self.poll_seconds)
    }

    fn score(&self, ask: &Ask<'_>, engine: usize, anybody_reports: bool) -> f64 {
        let in_flight = f64::from(ask.fleet.engines[engine].in_flight);
        let throughput = self.throughput[engine];
        match self.fresh(engine, ask.now) {
            Some(gauge) => {
                let queued = f64::from(gauge.waiting) * m::SMG_MEAN_PREFILL_TOKENS;
                let sent = self.polls[engine].sent_tokens as f64;
                let k = gauge.kv_usage.clamp(0.0, m::SMG_MOST_KV);
                (queued + sent) / throughput + m::SMG_KV_SECONDS * k / (1.0 - k)
            }
            None if anybody_reports => in_flight * m::SMG_MEAN_PREFILL_TOKENS / throughput,
            None => in_flight,
        }
    }
}

impl Rule for LeastLoad {
    fn choose(&mut self, ask: &Ask<'_>, _rng: &mut ChaCha8Rng) -> Verdict {
        let up = || ask.engines().iter().copied();
        let reports = up().any(|engine| self.fresh(engine, ask.now).is_some());
        up().map(|engine| (engine, self.score(ask, engine, reports)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
            .map_or(Verdict::Refuse, |(engine, _)| Verdict::Send(engine))
    }

    fn sent(&mut self, ask: &Ask<'_>, engine: usize) {
        self.polls[engine].sent_tokens += u64::from(ask.job.prompt_tokens);
    }

    fn scraped(&mut self, engine: usize, gauge: Gauge) {
        let poll = &mut self.polls[engine];
        if poll
            .gauge
            .is_none_or(|last| gauge.at - last.at >= self.poll_seconds)
        {
            *poll = Poll {
                gauge: Some(gauge),
                sent_tokens: 0,
            };
        }
    }
}

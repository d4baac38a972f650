//! Preble's E2 (arXiv 2407.00023) and AIBrix's port of it.
//!
//! ```text
//! E2:   cached > uncached ? the cheapest of the engines with the longest match                     exploit
//!       : argmin L_i + M_i + P_i                                                                   explore
//!       if the heaviest L is above 1.5 times the lightest, the lightest takes the heaviest's exploits
//! port: match > 1/2 ? the engine with the fewest requests in the window among the longest matches
//!       : argmin of the window's cost: miss share * prefill seconds + 45 tokens * 0.15 s, a request
//! ```
//!
//! `L` is the seconds of prefill and decode sent to the engine within three minutes, `M` the prefill seconds of what the
//! engine would have to evict, as often as its cache was hit, `P` the prefill of what is missing.

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;

use super::fleet::Flight;
use super::manifest as m;
use super::rule::{Ask, Rule, Verdict, least, least_of_all};

/// What was sent to one engine within the window.
#[derive(Debug, Default)]
struct Window {
    sent: VecDeque<(f64, f64, bool)>,
    /// Sum of the requests' seconds.
    seconds: f64,
    /// Requests that found something cached.
    warm: u32,
}

impl Window {
    fn push(&mut self, now: f64, seconds: f64, warm: bool) {
        self.sent.push_back((now, seconds, warm));
        self.seconds += seconds;
        self.warm += u32::from(warm);
    }

    fn expire(&mut self, now: f64) {
        while let Some(&(at, seconds, warm)) = self.sent.front() {
            if at + m::PREBLE_WINDOW_SECONDS > now {
                break;
            }
            self.sent.pop_front();
            self.seconds -= seconds;
            self.warm -= u32::from(warm);
        }
        if self.sent.is_empty() {
            self.seconds = 0.0;
        }
    }

    fn warm_share(&self) -> f64 {
        f64::from(self.warm) / self.sent.len().max(1) as f64
    }
}

fn windows(engines: usize) -> Vec<Window> {
    (0..engines).map(|_| Window::default()).collect()
}

/// The engines that hold the longest match, and its tokens.
fn owners(ask: &Ask<'_>) -> (Vec<usize>, u32) {
    let up = || ask.engines().iter().copied();
    let longest = up().map(|e| ask.cached(e)).max().unwrap_or(0);
    let owners = up().filter(|&e| ask.cached(e) == longest).collect();
    (owners, longest)
}

/// E2.
pub(super) struct E2 {
    windows: Vec<Window>,
    outputs: u64,
    output_tokens: u64,
}

impl E2 {
    pub(super) fn new(engines: usize) -> Self {
        Self {
            windows: windows(engines),
            outputs: 0,
            output_tokens: 0,
        }
    }

    fn mean_output(&self) -> f64 {
        self.output_tokens as f64 / self.outputs.max(1) as f64
    }

    /// Seconds of prefill that eviction would undo, as often as the engine's cache was used.
    fn eviction(&self, ask: &Ask<'_>, engine: usize) -> f64 {
        let Some(index) = ask.index else { return 0.0 };
        let block = index.spec().block_tokens();
        let new = (ask.uncached(engine) / block) as usize;
        let over = (index.held(engine) + new).saturating_sub(index.room(engine));
        if over == 0 {
            return 0.0;
        }
        let evicted = (over as u32).saturating_mul(block);
        let seconds = ask.fleet.engines[engine].prefill_seconds(0, evicted);
        seconds * self.windows[engine].warm_share()
    }

    fn cost(&self, ask: &Ask<'_>, engine: usize) -> f64 {
        let prefill =
            ask.fleet.engines[engine].prefill_seconds(ask.cached(engine), ask.uncached(engine));
        self.windows[engine].seconds + self.eviction(ask, engine) + prefill
    }

    /// The lightest engine if `engine` is the heaviest by too much.
    fn relieved(&self, ask: &Ask<'_>, engine: usize) -> usize {
        let load = |e: usize| self.windows[e].seconds;
        let by_load = |a: &usize, b: &usize| load(*a).total_cmp(&load(*b));
        let engines = ask.engines().iter().copied();
        let heaviest = engines.clone().max_by(by_load).unwrap_or(engine);
        let lightest = engines.min_by(by_load).unwrap_or(engine);
        let uneven = load(heaviest) > m::PREBLE_BALANCE * load(lightest);
        if uneven && load(engine) >= load(heaviest) {
            lightest
        } else {
            engine
        }
    }
}

impl Rule for E2 {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        for window in &mut self.windows {
            window.expire(ask.now);
        }
        let (owners, cached) = owners(ask);
        if cached > ask.job.prompt_tokens - cached {
            return least(owners, |e| self.cost(ask, e), rng)
                .map_or(Verdict::Refuse, |e| Verdict::Send(self.relieved(ask, e)));
        }
        least_of_all(ask, |e| self.cost(ask, e), rng)
    }

    fn sent(&mut self, ask: &Ask<'_>, engine: usize) {
        let view = &ask.fleet.engines[engine];
        let prefill = view.prefill_seconds(ask.cached(engine), ask.uncached(engine));
        let decode = self.mean_output() * view.decode_seconds(Some(ask.job.prompt_tokens));
        self.windows[engine].push(ask.now, prefill + decode, ask.cached(engine) > 0);
    }

    fn finished(&mut self, _job: &Flight, output_tokens: u32) {
        self.outputs += 1;
        self.output_tokens += u64::from(output_tokens);
    }
}

/// AIBrix's port.
pub(super) struct Port {
    windows: Vec<Window>,
}

impl Port {
    pub(super) fn new(engines: usize) -> Self {
        Self {
            windows: windows(engines),
        }
    }
}

impl Rule for Port {
    fn choose(&mut self, ask: &Ask<'_>, rng: &mut ChaCha8Rng) -> Verdict {
        for window in &mut self.windows {
            window.expire(ask.now);
        }
        let (owners, cached) = owners(ask);
        let matched = f64::from(cached) / f64::from(ask.job.prompt_tokens.max(1));
        if matched > m::AIBRIX_PREBLE_THRESHOLD {
            return least(owners, |e| self.windows[e].sent.len() as f64, rng)
                .map_or(Verdict::Refuse, Verdict::Send);
        }
        least_of_all(ask, |e| self.windows[e].seconds, rng)
    }

    fn sent(&mut self, ask: &Ask<'_>, engine: usize) {
        let prompt = ask.job.prompt_tokens;
        // The port keeps one tree for all engines: what anybody was sent is not new.
        let (_, cached) = owners(ask);
        let new = prompt - cached;
        let miss = f64::from(new) / f64::from(prompt.max(1));
        let prefill = miss * v100_prefill_seconds(new, prompt);
        let decode = m::AIBRIX_PREBLE_OUTPUT_TOKENS * m::AIBRIX_PREBLE_TPOT_SECONDS;
        self.windows[engine].push(ask.now, prefill + decode, cached > 0);
    }
}

/// The port's prefill time, fitted for Mistral-7B on V100 and used on any hardware.
fn v100_prefill_seconds(tokens: u32, context: u32) -> f64 {
    let (n, context) = (f64::from(tokens), f64::from(context));
    let linear = if tokens >= 384 {
        m::V100_LINEAR_SLOPE_MS * n + m::V100_LINEAR_BASE_MS
    } else if tokens >= 192 {
        m::V100_MIDDLE_BASE_MS + m::V100_MIDDLE_SLOPE_MS * n + m::V100_MIDDLE_SQUARE_MS * n * n
    } else {
        m::V100_SHORT_MS
    };
    let attention = if context > 1024.0 {
        let long = m::V100_ATTENTION_SLOPE_MS * context + m::V100_ATTENTION_BASE_MS;
        if n <= 1024.0 { long / 2.0 } else { long }
    } else {
        m::V100_ATTENTION_SHORT_MS
    };
    let square = if tokens >= 4096 {
        m::V100_QUAD_BASE_MS + m::V100_QUAD_SLOPE_MS * n + m::V100_QUAD_SQUARE_MS * n * n
    } else {
        0.0
    };
    (linear + attention + square) / 1000.0 / m::V100_UTILISATION
}

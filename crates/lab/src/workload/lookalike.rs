//! Traces made up: conversations with the sizes, depths and gaps of a published trace, at its own times.
//!
//! As in a replayed trace the times are fixed, so a later turn comes even if the one before it is still under way. The
//! stream begins some time before the run, with turns that are not sent, so that conversations under way at its start
//! are as many as later.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::arrivals::{Arrivals, Pace};
use super::prompt::Prompt;
use super::queue::TimeQueue;
use super::random::{Purpose, Tokens, Zipf, name, stream};
use super::request::{Request, Span};
use crate::{Job, Workload};

/// What the conversations are like. Times are those of the trace, before it is sped up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Requests a second, all turns counted.
    pub(super) rate: f64,
    /// How many of the trace's conversations reach each depth; past the last, each turn has one more with
    /// probability `further`.
    pub(super) depths: &'static [f64],
    pub(super) further: f64,
    /// Tokens that all prompts begin with.
    pub(super) common: u32,
    /// Agents: how many, exponent of their popularity, tokens of their prompt. A conversation has one.
    pub(super) agents: Option<(usize, f64, Tokens)>,
    /// What the first prompt has beyond that, and by how much a turn's prompt exceeds the last one's.
    pub(super) first: Tokens,
    pub(super) growth: Tokens,
    pub(super) output: Tokens,
    /// Median seconds from a turn to the next, and sigma of the logarithm.
    pub(super) gap: (f64, f64),
    pub(super) longest: u32,
    /// Seconds of the trace before the run.
    pub(super) lead: f64,
}

impl Shape {
    /// Turns that a conversation has on average.
    fn mean_turns(&self) -> f64 {
        let first = self.depths.first().copied().unwrap_or(1.0);
        let last = self.depths.last().copied().unwrap_or(1.0);
        let beyond = last * self.further / (1.0 - self.further);
        (self.depths.iter().sum::<f64>() + beyond) / first
    }

    /// Whether a conversation that has had `turns` goes on.
    fn goes_on(&self, turns: u64, rng: &mut ChaCha8Rng) -> bool {
        let at = turns as usize;
        let chance = match (self.depths.get(at - 1), self.depths.get(at)) {
            (Some(here), Some(next)) => next / here,
            _ => self.further,
        };
        rng.random::<f64>() < chance
    }
}

struct Conversation {
    number: u64,
    rng: ChaCha8Rng,
    agent: u64,
    said: Prompt,
    /// Tokens of the last answer.
    output_tokens: u32,
    turns: u64,
}

pub(super) struct Lookalike {
    shape: Shape,
    seed: u64,
    speed: f64,
    span: Span,
    agents: Option<(Zipf, Vec<u32>)>,
    arrivals: Arrivals,
    next_arrival: f64,
    started: u64,
    turns: TimeQueue<Conversation>,
    next_id: u64,
}

impl Lookalike {
    /// The trace, `speed` times as fast.
    pub(super) fn new(shape: Shape, speed: f64, seed: u64, span: Span) -> Self {
        let mut rng = stream(seed, Purpose::Fixtures, 0);
        let agents = shape.agents.map(|(count, s, prefix)| {
            let sizes = (0..count).map(|_| prefix.sample(&mut rng)).collect();
            (Zipf::new(count, s), sizes)
        });
        let rate = shape.rate / shape.mean_turns();
        let mut arrivals = Arrivals::new(Pace::Poisson(rate), seed, 0, -shape.lead);
        Self {
            shape,
            seed,
            speed,
            span,
            agents,
            next_arrival: arrivals.next(),
            arrivals,
            started: 0,
            turns: TimeQueue::new(),
            next_id: 0,
        }
    }

    fn begin(&mut self) {
        let number = self.started;
        self.started += 1;
        let mut rng = stream(self.seed, Purpose::Session, number);
        let mut said = Prompt::new(None).with(name(&[self.seed, 0]), self.shape.common);
        let mut agent = 0;
        if let Some((popularity, sizes)) = &self.agents {
            let drawn = popularity.sample(&mut rng);
            agent = drawn as u64;
            said.push(name(&[self.seed, 1, agent]), sizes[drawn]);
        }
        let conversation = Conversation {
            number,
            rng,
            agent,
            said,
            output_tokens: 0,
            turns: 0,
        };
        self.turns.push(self.next_arrival, conversation);
        self.next_arrival = self.arrivals.next();
    }

    /// The turn's request; `None` when it would grow too long.
    fn ask(&self, conversation: &mut Conversation) -> Option<Request> {
        let Conversation { number, turns, .. } = *conversation;
        let added = if turns == 0 {
            self.shape.first.sample(&mut conversation.rng)
        } else {
            // The growth is measured from prompt to prompt, so the answer is part of it.
            let growth = self.shape.growth.sample(&mut conversation.rng);
            growth.saturating_sub(conversation.output_tokens).max(16)
        };
        let output_tokens = self.shape.output.sample(&mut conversation.rng);
        let answer = name(&[self.seed, 3, number, turns]);
        let prompt = conversation
            .said
            .clone()
            .with(name(&[self.seed, 2, number, turns]), added);
        if prompt.tokens().saturating_add(output_tokens) > self.shape.longest {
            return None;
        }
        conversation.said = prompt.clone().with(answer, output_tokens);
        conversation.output_tokens = output_tokens;
        conversation.turns += 1;
        Some(Request {
            answer: Some(answer),
            session: Some(number),
            flow: conversation.agent,
            first_message: name(&[self.seed, 2, number, 0]),
            ..Request::new(prompt, output_tokens)
        })
    }

    fn follow(&mut self, at: f64, mut conversation: Conversation) {
        if self
            .shape
            .goes_on(conversation.turns, &mut conversation.rng)
        {
            let (median, sigma) = self.shape.gap;
            let normal: f64 = StandardNormal.sample(&mut conversation.rng);
            let next = at + median * (sigma * normal).exp();
            self.turns.push(next, conversation);
        }
    }
}

impl Workload for Lookalike {
    fn next(&mut self) -> Option<Job> {
        loop {
            while self
                .turns
                .first_at()
                .is_none_or(|first| self.next_arrival <= first)
            {
                self.begin();
            }
            let (trace_at, mut conversation) = self.turns.pop()?;
            let at = trace_at / self.speed;
            if at >= self.span.end {
                return None;
            }
            let Some(request) = self.ask(&mut conversation) else {
                continue;
            };
            self.follow(trace_at, conversation);
            if at >= 0.0 {
                let id = self.next_id;
                self.next_id += 1;
                return Some(request.job(id, at, at < self.span.warmup));
            }
        }
    }
}

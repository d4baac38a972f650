//! Groups that share a prompt, asked in rounds: the "business to business" benchmark of llm-d's KV cache manager.
//!
//! A round asks every question of every group once, shuffled; each round has new questions, so that only the groups'
//! prompts can be found in a cache. The first round is the warm-up. It comes at its own rate and the next round
//! follows at once: what the servers had not finished by then is carried over.

use rand::seq::SliceRandom;

use super::arrivals::{Arrivals, Pace};
use super::prompt::Prompt;
use super::random::{Purpose, name, stream};
use super::request::Request;
use crate::{Job, Workload};

/// Sizes of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    pub(super) groups: u32,
    pub(super) prompts: u32,
    /// Tokens that a group shares, that a question adds, and of the answer.
    pub(super) system: u32,
    pub(super) question: u32,
    pub(super) output: u32,
    /// Requests a second in the warm-up round.
    pub(super) warmup_rate: f64,
}

pub(super) struct Rounds {
    shape: Shape,
    seed: u64,
    rate: f64,
    rounds: u64,
    end: f64,
    round: u64,
    order: Vec<u32>,
    arrivals: Arrivals,
    next_id: u64,
    now: f64,
}

impl Rounds {
    /// One warm-up round, then `rounds` at `rate` requests a second.
    pub(super) fn new(shape: Shape, rate: f64, rounds: u64, seed: u64, end: f64) -> Self {
        let mut made = Self {
            shape,
            seed,
            rate,
            rounds,
            end,
            round: 0,
            order: Vec::new(),
            arrivals: Arrivals::new(Pace::Poisson(shape.warmup_rate), seed, 0, 0.0),
            next_id: 0,
            now: 0.0,
        };
        made.shuffle();
        made
    }

    fn shuffle(&mut self) {
        self.order = (0..self.shape.groups)
            .flat_map(|group| (0..self.shape.prompts).map(move |_| group))
            .collect();
        self.order
            .shuffle(&mut stream(self.seed, Purpose::Order, self.round));
    }

    /// The group of the next request; starts the next round when this one is over.
    fn group(&mut self) -> Option<u32> {
        if self.order.is_empty() && self.round < self.rounds {
            self.round += 1;
            self.shuffle();
            if self.round == 1 {
                self.arrivals = Arrivals::new(Pace::Poisson(self.rate), self.seed, 1, self.now);
            }
        }
        self.order.pop()
    }
}

impl Workload for Rounds {
    fn next(&mut self) -> Option<Job> {
        let group = u64::from(self.group()?);
        self.now = self.arrivals.next();
        if self.now >= self.end {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        let system = name(&[self.seed, 0, group]);
        let request = Request {
            max_output_tokens: Some(self.shape.output),
            flow: group,
            first_message: system,
            ..Request::new(
                Prompt::new(None)
                    .with(system, self.shape.system)
                    .with(name(&[self.seed, 1, id]), self.shape.question),
                self.shape.output,
            )
        };
        Some(request.job(id, self.now, self.round == 0))
    }
}

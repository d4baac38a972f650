//! Closed loop: sessions whose next prompt contains the last answer and cannot be sent before it.
//!
//! Sessions begin independently of one another. Each plays out from a random stream of its own, so it asks the same
//! in the same words whichever policy serves it; only its times follow the answers.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rustc_hash::FxHashMap;

use super::arrivals::{Arrivals, Pace};
use super::prompt::Prompt;
use super::random::{Purpose, Tokens, name, stream};
use super::request::{Request, Span};
use crate::{Job, Workload};

/// What sessions are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Tenants, equally busy, and the prompt that a tenant's sessions share.
    pub(super) tenants: u64,
    pub(super) system: Tokens,
    /// The first question, and what each further turn adds besides the answer.
    pub(super) first: Tokens,
    pub(super) growth: Tokens,
    pub(super) output: Tokens,
    pub(super) max_output: Option<u32>,
    pub(super) turns: Tokens,
    /// Seconds from an answer to the next prompt, lognormal.
    pub(super) think: Think,
    /// A session ends before prompt and answer together exceed this.
    pub(super) longest: u32,
}

/// A lognormal time by its mean and standard deviation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Think {
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

impl Think {
    fn sample(self, rng: &mut ChaCha8Rng) -> f64 {
        let variance = (1.0 + (self.deviation / self.mean).powi(2)).ln();
        let normal: f64 = StandardNormal.sample(rng);
        self.mean * (variance.sqrt() * normal - variance / 2.0).exp()
    }
}

struct Session {
    rng: ChaCha8Rng,
    tenant: u64,
    /// Everything said so far, the answer to the request under way included.
    said: Prompt,
    turn: u64,
    turns: u32,
    /// The request under way.
    job: u64,
}

pub(super) struct Sessions {
    shape: Shape,
    seed: u64,
    span: Span,
    systems: Vec<u32>,
    arrivals: Arrivals,
    started: u64,
    next_id: u64,
    open: FxHashMap<u64, Session>,
}

impl Sessions {
    /// `rate` sessions begin each second.
    pub(super) fn new(shape: Shape, rate: f64, seed: u64, span: Span) -> Self {
        let mut rng = stream(seed, Purpose::Fixtures, 0);
        Self {
            shape,
            seed,
            span,
            systems: (0..shape.tenants.max(1))
                .map(|_| shape.system.sample(&mut rng))
                .collect(),
            arrivals: Arrivals::new(Pace::Poisson(rate), seed, 0, 0.0),
            started: 0,
            next_id: 0,
            open: FxHashMap::default(),
        }
    }

    fn begin(&mut self) -> (u64, Session) {
        let number = self.started;
        self.started += 1;
        let mut rng = stream(self.seed, Purpose::Session, number);
        let tenant = rng.random_range(0..self.systems.len() as u64);
        let session = Session {
            tenant,
            said: Prompt::new(None)
                .with(name(&[self.seed, 0, tenant]), self.systems[tenant as usize]),
            turn: 0,
            turns: self.shape.turns.sample(&mut rng).max(1),
            job: 0,
            rng,
        };
        (number, session)
    }

    /// The session's next request at `at`; `None` when it would grow too long.
    fn ask(&mut self, number: u64, session: &mut Session, at: f64) -> Option<Job> {
        let added = if session.turn == 0 {
            self.shape.first
        } else {
            self.shape.growth
        };
        let message = name(&[self.seed, 1, number, session.turn]);
        let answer = name(&[self.seed, 2, number, session.turn]);
        let mut prompt = session.said.clone();
        prompt.push(message, added.sample(&mut session.rng));
        let output_tokens = self.shape.output.sample(&mut session.rng);
        if prompt.tokens().saturating_add(output_tokens) > self.shape.longest {
            return None;
        }
        session.said = prompt.clone().with(answer, output_tokens);
        session.turn += 1;
        session.job = self.next_id;
        self.next_id += 1;
        let request = Request {
            max_output_tokens: self.shape.max_output,
            answer: Some(answer),
            session: Some(number),
            flow: session.tenant,
            first_message: name(&[self.seed, 1, number, 0]),
            ..Request::new(prompt, output_tokens)
        };
        Some(request.job(session.job, at, at < self.span.warmup))
    }
}

impl Workload for Sessions {
    fn next(&mut self) -> Option<Job> {
        loop {
            let at = self.arrivals.next();
            if at >= self.span.end {
                return None;
            }
            let (number, mut session) = self.begin();
            if let Some(job) = self.ask(number, &mut session, at) {
                self.open.insert(number, session);
                return Some(job);
            }
        }
    }

    fn finished(&mut self, job: &Job, now: f64) -> Option<Job> {
        let number = job.session?;
        if self.open.get(&number)?.job != job.id {
            return None;
        }
        let mut session = self.open.remove(&number)?;
        let at = now + self.shape.think.sample(&mut session.rng);
        if session.turn >= u64::from(session.turns) || at >= self.span.end {
            return None;
        }
        let next = self.ask(number, &mut session, at)?;
        self.open.insert(number, session);
        Some(next)
    }
}

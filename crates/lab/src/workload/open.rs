//! Open loop: requests that come whether or not earlier ones were answered.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::arrivals::{Arrivals, Pace};
use super::prompt::Prompt;
use super::random::{Purpose, Tokens, Zipf, name, stream};
use super::request::{Request, Span};
use crate::{Job, Workload};

/// What requests ask. `number` counts arrivals, `rng` is that request's own.
pub(super) trait Contents: Send {
    fn request(&self, number: u64, at: f64, rng: &mut ChaCha8Rng) -> Request;
}

/// Arrivals at a pace, each with contents drawn by its number.
pub(super) struct OpenLoop<C> {
    arrivals: Arrivals,
    contents: C,
    seed: u64,
    span: Span,
    number: u64,
}

impl<C: Contents> OpenLoop<C> {
    pub(super) fn new(pace: Pace, contents: C, seed: u64, span: Span) -> Self {
        Self {
            arrivals: Arrivals::new(pace, seed, 0, 0.0),
            contents,
            seed,
            span,
            number: 0,
        }
    }
}

impl<C: Contents> Workload for OpenLoop<C> {
    fn next(&mut self) -> Option<Job> {
        let at = self.arrivals.next();
        if at >= self.span.end {
            return None;
        }
        let number = self.number;
        self.number += 1;
        let mut rng = stream(self.seed, Purpose::Contents, number);
        let request = self.contents.request(number, at, &mut rng);
        Some(request.job(number, at, at < self.span.warmup))
    }
}

/// Prompts that have nothing in common but a system prompt.
#[derive(Debug, Clone)]
pub(super) struct Independent {
    pub(super) seed: u64,
    /// Tokens of the system prompt that all share; 0 for none.
    pub(super) system: u32,
    pub(super) prompt: Tokens,
    pub(super) output: Tokens,
    pub(super) max_output: Option<u32>,
    /// Tenants, equally busy.
    pub(super) tenants: u64,
    /// Adapters by weight; an adapter is then the tenant.
    pub(super) adapters: Option<Zipf>,
    /// Classes as (share, priority); the shares sum to 1.
    pub(super) classes: &'static [(f64, i32)],
}

impl Contents for Independent {
    fn request(&self, number: u64, _at: f64, rng: &mut ChaCha8Rng) -> Request {
        let message = name(&[self.seed, 1, number]);
        let adapter = self.adapters.as_ref().map(|zipf| zipf.sample(rng) as u32);
        let tenant = rng.random_range(0..self.tenants.max(1));
        let prompt = Prompt::new(adapter)
            .with(name(&[self.seed, 0]), self.system)
            .with(message, self.prompt.sample(rng));
        Request {
            max_output_tokens: self.max_output,
            adapter,
            priority: class(self.classes, rng.random()),
            flow: adapter.map_or(tenant, u64::from),
            first_message: message,
            ..Request::new(prompt, self.output.sample(rng))
        }
    }
}

fn class(classes: &[(f64, i32)], mut share: f64) -> i32 {
    for (width, priority) in classes {
        if share < *width {
            return *priority;
        }
        share -= width;
    }
    classes.last().map_or(0, |(_, priority)| *priority)
}

/// Tenants with a long prompt of their own before each question, some tenants far busier than others.
#[derive(Debug, Clone)]
pub(super) struct Tenants {
    seed: u64,
    prefixes: Vec<u32>,
    popularity: Zipf,
    question: Tokens,
    output: Tokens,
    drift: Option<Drift>,
}

/// A tenant that nobody knew before turns up and takes a share of all requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drift {
    /// When, in seconds.
    pub(super) at: f64,
    /// Share of the requests from then on.
    pub(super) share: f64,
}

impl Tenants {
    /// `count` tenants whose popularity falls with exponent `s`, prompts of `prefix` tokens.
    pub(super) fn new(seed: u64, count: usize, s: f64, prefix: Tokens) -> Self {
        let mut rng = stream(seed, Purpose::Fixtures, 0);
        // One more than asked for: the one that drift brings.
        let prefixes = (0..=count).map(|_| prefix.sample(&mut rng)).collect();
        Self {
            seed,
            prefixes,
            popularity: Zipf::new(count, s),
            question: Tokens::Fixed(100),
            output: Tokens::Fixed(100),
            drift: None,
        }
    }

    pub(super) fn sizes(mut self, question: Tokens, output: Tokens) -> Self {
        self.question = question;
        self.output = output;
        self
    }

    /// Shares of the requests instead of a falling popularity.
    pub(super) fn popularity(mut self, popularity: Zipf) -> Self {
        self.popularity = popularity;
        self
    }

    pub(super) fn drift(mut self, drift: Drift) -> Self {
        self.drift = Some(drift);
        self
    }

    fn tenant(&self, at: f64, rng: &mut ChaCha8Rng) -> usize {
        let known = self.popularity.sample(rng);
        let chance = rng.random::<f64>();
        match self.drift {
            Some(drift) if at >= drift.at && chance < drift.share => self.prefixes.len() - 1,
            _ => known,
        }
    }
}

impl Contents for Tenants {
    fn request(&self, number: u64, at: f64, rng: &mut ChaCha8Rng) -> Request {
        let tenant = self.tenant(at, rng);
        let prefix = name(&[self.seed, 2, tenant as u64]);
        let prompt = Prompt::new(None)
            .with(prefix, self.prefixes[tenant])
            .with(name(&[self.seed, 3, number]), self.question.sample(rng));
        Request {
            flow: tenant as u64,
            // As a completion prompt its beginning is the tenant's; that is what such a policy hashes.
            first_message: prefix,
            ..Request::new(prompt, self.output.sample(rng))
        }
    }
}

/// Retrieval: a system prompt, some documents of a corpus in order of relevance, a question.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    pub(super) seed: u64,
    pub(super) system: u32,
    /// Popularity of the documents.
    pub(super) corpus: Zipf,
    pub(super) document: Tokens,
    /// How many documents a prompt has.
    pub(super) count: Tokens,
    pub(super) question: Tokens,
    pub(super) output: Tokens,
    pub(super) tenants: u64,
}

impl Contents for Documents {
    fn request(&self, number: u64, _at: f64, rng: &mut ChaCha8Rng) -> Request {
        let mut prompt = Prompt::new(None).with(name(&[self.seed, 4]), self.system);
        for _ in 0..self.count.sample(rng) {
            let document = self.corpus.sample(rng) as u64;
            // A document is as long in every prompt.
            let size = self
                .document
                .sample(&mut stream(self.seed, Purpose::Fixtures, document));
            prompt.push(name(&[self.seed, 5, document]), size);
        }
        let question = name(&[self.seed, 6, number]);
        Request {
            flow: rng.random_range(0..self.tenants.max(1)),
            first_message: question,
            ..Request::new(
                prompt.with(question, self.question.sample(rng)),
                self.output.sample(rng),
            )
        }
    }
}

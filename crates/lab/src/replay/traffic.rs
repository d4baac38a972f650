//! The requests of a recording as a workload.
//!
//! What a recording has of a prompt is hashes of blocks of the gateway's index (64 tokens, as the gateway estimates
//! them) and, once it was answered, its true length and that of the answer. Engines cache blocks of 16 tokens, so each
//! recorded block becomes as many of those as the pool's mean ratio of true to estimated tokens says. What prompts
//! share they still share; where within a block they part is not recorded, so they part at its beginning.
//!
//! The engines are made from what the gateway knew of its servers, which is their KV space, their limits, and
//! coefficients that are the gateway's defaults unless it was told better; a fleet named on the command line is better.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;

use recording::{Reader, What};
use scheduling::{EndpointProfile, Request, RequestKind, Ticket};
use simulator::{BlockHash, EngineConfig, Profile, profiles};

use crate::compare::{Builtin, Catalog, Setting};
use crate::product::Knowledge;
use crate::{
    BLOCK_TOKENS, Dispatcher, End, Job, JobOutcome, LabError, RunOutcome, Workload, fleet,
};

/// The workload's name in results, and that of the row with what the gateway itself saw.
pub const REPLAY: &str = "recording";
/// See [`REPLAY`].
pub const RECORDED: &str = "recorded";

/// Seconds that the run goes on after the last arrival.
const TAIL: f64 = 1.0;
/// A job may be this long.
const LONGEST: u32 = 1 << 22;

/// The requests of one pool.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// The pool's name.
    pub pool: String,
    /// In order of time, which begins with the first.
    pub jobs: Vec<Job>,
    /// The servers as the gateway knew them.
    pub engines: Vec<EngineConfig>,
    /// What came of them in the recording.
    pub outcome: RunOutcome,
}

/// Takes the requests of a pool out of a recording; of the pool with the most of them if none is named.
///
/// # Errors
/// A line that does not read, a pool that is not there, or no request.
pub fn traffic(input: impl BufRead, pool: Option<&str>) -> Result<Traffic, LabError> {
    let mut reader = Reader::new(input);
    let mut books: Vec<Book> = Vec::new();
    while let Some(line) = reader.next_line()? {
        if let What::Pool(opened) = &line.what {
            books.push(Book::new(&opened.name, opened.config.block_tokens));
        } else if let Some(book) = books.get_mut(line.pool as usize) {
            book.take(line.at.as_secs_f64(), line.what);
        }
    }
    let wanted = match pool {
        Some(name) => books.into_iter().find(|it| it.name == name),
        None => books.into_iter().max_by_key(|it| it.requests.len()),
    };
    let book = wanted.filter(|it| !it.requests.is_empty());
    book.map(Book::traffic).ok_or(LabError::Plan(
        "the recording has no request for a model in that pool",
    ))
}

/// What is known of a request.
#[derive(Debug)]
struct Seen {
    at: f64,
    request: Box<Request>,
    engine: Option<u32>,
    first: Option<f64>,
    end: Option<(f64, End)>,
    prompt: Option<u32>,
    cached: u32,
    output: u32,
}

struct Book {
    name: String,
    block_tokens: u32,
    requests: BTreeMap<Ticket, Seen>,
    profiles: Vec<EndpointProfile>,
}

impl Book {
    fn new(name: &str, block_tokens: u32) -> Self {
        Self {
            name: name.to_owned(),
            block_tokens: block_tokens.max(1),
            requests: BTreeMap::new(),
            profiles: Vec::new(),
        }
    }

    fn take(&mut self, at: f64, what: What) {
        match what {
            What::Join { endpoint, profile } | What::Profile { endpoint, profile } => {
                let index = endpoint.index();
                if index < 1 << 16 && self.profiles.len() <= index {
                    self.profiles.resize(index + 1, profile);
                }
                if let Some(known) = self.profiles.get_mut(index) {
                    *known = profile;
                }
            }
            What::Arrive { ticket, request } if request.kind == RequestKind::Inference => {
                let seen = Seen {
                    at,
                    request,
                    engine: None,
                    first: None,
                    end: None,
                    prompt: None,
                    cached: 0,
                    output: 0,
                };
                self.requests.insert(ticket, seen);
            }
            What::Dispatch {
                ticket, endpoints, ..
            } => self.with(ticket, |it| {
                it.engine = endpoints.first().map(|it| it.index() as u32);
            }),
            What::FirstToken { ticket } => self.with(ticket, |it| {
                it.first = it.first.or(Some(at));
                it.output = it.output.max(1);
            }),
            What::Progress { ticket, tokens } => {
                self.with(ticket, |it| it.output = it.output.saturating_add(tokens));
            }
            What::Finished { ticket, usage, ok } => self.with(ticket, |it| {
                it.end = Some((at, if ok { End::Finished } else { End::Shed }));
                if let Some(usage) = usage {
                    it.prompt = Some(usage.prompt_tokens).filter(|it| *it > 0);
                    it.output = usage.completion_tokens;
                    it.cached = usage.cached_tokens.unwrap_or(0);
                }
            }),
            What::Reject { ticket, .. } => {
                self.with(ticket, |it| it.end = Some((at, End::Shed)));
            }
            _ => {}
        }
    }

    fn with(&mut self, ticket: Ticket, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.requests.get_mut(&ticket) {
            change(seen);
        }
    }

    fn traffic(self) -> Traffic {
        let seen: Vec<&Seen> = self.requests.values().collect();
        let began = seen.iter().map(|it| it.at).fold(f64::INFINITY, f64::min);
        let over = seen
            .iter()
            .map(|it| it.end.map_or(it.at, |end| end.0))
            .fold(began, f64::max);
        let scale = self.scale(&seen);
        let answered = seen.iter().filter(|it| it.output > 0);
        let total: u64 = answered.clone().map(|it| u64::from(it.output)).sum();
        let usual = (total / (answered.count() as u64).max(1)).clamp(1, 1 << 20) as u32;
        let mut jobs: Vec<Job> = Vec::with_capacity(seen.len());
        let mut outcomes = Vec::with_capacity(seen.len());
        for (id, it) in seen.iter().enumerate() {
            let job = job(id as u64, it, it.at - began, &scale, usual);
            outcomes.push(outcome(&job, it, over));
            jobs.push(job);
        }
        jobs.sort_by(|a, b| a.at.total_cmp(&b.at));
        let engines: Vec<EngineConfig> = self.profiles.iter().map(engine).collect();
        Traffic {
            outcome: RunOutcome {
                window: [0.0, over - began],
                virtual_seconds: over - began,
                busy: vec![0.0; engines.len()],
                ..recorded(outcomes)
            },
            pool: self.name,
            jobs,
            engines,
        }
    }

    fn scale(&self, seen: &[&Seen]) -> Scale {
        let known = seen.iter().filter(|it| it.request.prompt_tokens > 0);
        let pairs = known.filter_map(|it| Some((it.prompt?, it.request.prompt_tokens)));
        let (truly, estimated) = pairs.fold((0.0, 0.0), |sum, (a, b)| {
            (sum.0 + f64::from(a), sum.1 + f64::from(b))
        });
        let ratio = if estimated > 0.0 {
            (truly / estimated).clamp(0.05, 20.0)
        } else {
            1.0
        };
        let blocks = f64::from(self.block_tokens) / f64::from(BLOCK_TOKENS) * ratio;
        Scale {
            ratio,
            blocks: (blocks.round() as u32).max(1),
        }
    }
}

/// From the gateway's tokens to engines' tokens.
struct Scale {
    ratio: f64,
    /// Engine blocks in a recorded block.
    blocks: u32,
}

fn job(id: u64, seen: &Seen, at: f64, scale: &Scale, usual: u32) -> Job {
    let request = &seen.request;
    let estimated = (f64::from(request.prompt_tokens) * scale.ratio) as u32;
    let prompt = seen.prompt.unwrap_or(estimated).clamp(1, LONGEST);
    // As many of its blocks as the true length holds.
    let shared = u32::try_from(request.prefix.len()).unwrap_or(u32::MAX);
    let shared = shared.min(prompt / BLOCK_TOKENS / scale.blocks);
    let output = if seen.output > 0 { seen.output } else { usual };
    let output = output.min(LONGEST);
    let own = ((prompt + output) / BLOCK_TOKENS).saturating_sub(shared * scale.blocks);
    let blocks = request
        .prefix
        .iter()
        .take(shared as usize)
        .flat_map(|hash| {
            let part = |nth: u32| BlockHash(mix(*hash, u64::from(nth)));
            (1..=scale.blocks).map(part)
        });
    let tail = (0..own).map(|nth| BlockHash(mix(mix(id, 0x7461_696c), u64::from(nth))));
    Job {
        id,
        at,
        session: None,
        blocks: Arc::from(blocks.chain(tail).collect::<Vec<_>>()),
        prompt_tokens: prompt,
        output_tokens: output,
        max_output_tokens: request.max_output_tokens,
        adapter: request.adapter.map(|it| (it.0 & 0x7fff_ffff) as u32),
        priority: request.priority,
        flow: request.flow,
        first_message: request.prefix.first().copied().unwrap_or(id),
        warmup: false,
    }
}

/// Hashes that have nothing to do with each other (the finaliser of SplitMix64).
fn mix(hash: u64, nth: u64) -> u64 {
    let mut z = hash ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn outcome(job: &Job, seen: &Seen, over: f64) -> JobOutcome {
    let (ended, end) = seen.end.unwrap_or((over, End::Unfinished));
    let gaps = job.output_tokens.saturating_sub(1);
    // Of an answer that did not stream only the end was seen.
    let first = seen
        .first
        .or_else(|| (end == End::Finished).then_some(ended));
    let decoding = first.map_or(0.0, |first| (ended - first).max(0.0));
    JobOutcome {
        id: job.id,
        at: job.at,
        ttft: first.unwrap_or(over) - seen.at,
        tpot: if gaps > 0 {
            decoding / f64::from(gaps)
        } else {
            0.0
        },
        e2e: (if end == End::Finished { ended } else { over }) - seen.at,
        end,
        engine: seen.engine,
        prompt_tokens: job.prompt_tokens,
        cached_tokens: seen.cached,
        output_tokens: job.output_tokens,
        priority: job.priority,
        flow: job.flow,
    }
}

fn recorded(jobs: Vec<JobOutcome>) -> RunOutcome {
    RunOutcome {
        policy: RECORDED.to_owned(),
        workload: REPLAY.to_owned(),
        load: 1.0,
        seed: 0,
        virtual_seconds: 0.0,
        real_seconds: 1.0,
        jobs,
        preemptions: 0,
        adapter_loads: 0,
        busy: Vec::new(),
        samples: Vec::new(),
        window: [0.0; 2],
        misplaced: 0,
        dead_picks: 0,
        retries: 0,
    }
}

/// A server as the gateway knew it.
fn engine(known: &EndpointProfile) -> EngineConfig {
    let it = &known.coefficients;
    let mut engine = EngineConfig::for_model(profiles::ALL[0]);
    engine.profile = Profile {
        c0: it.c0,
        w_base: it.w_base,
        a: it.a,
        q: it.q,
        k_v: it.k_v,
        s: it.s,
    };
    if let Some(tokens) = known.kv_capacity_tokens {
        let blocks = tokens / u64::from(engine.block_tokens);
        engine.kv_blocks = u32::try_from(blocks).unwrap_or(u32::MAX).max(1);
    }
    engine.max_batched_tokens = known.max_batched_tokens.max(1);
    engine.max_seqs = (known.max_seqs as usize).max(1);
    engine.lora.load_seconds = it.adapter_load;
    engine.lora.max_loras = known.max_lora.unwrap_or(0) as usize;
    engine.lora.max_cpu_loras = engine.lora.max_loras * 4;
    engine
}

impl Traffic {
    /// Seconds from the first arrival to just after the last.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.jobs.last().map_or(0.0, |it| it.at) + TAIL
    }
}

/// The recorded requests at `load` times their pace, whatever the workload's name; policies from the lab's catalogue.
impl Catalog for Traffic {
    fn setting(&self, _workload: &str, fleet: Option<&str>) -> Result<Setting, LabError> {
        let mut engines = match fleet {
            Some(text) => fleet::parse(text)?,
            None => self.engines.clone(),
        };
        for engine in &mut engines {
            engine.max_model_len = u32::MAX;
        }
        Ok(Setting {
            engines,
            loads: vec![1.0],
            unit: "times the recorded pace".to_owned(),
            horizon: self.seconds(),
            warmup: 0.0,
            about: format!(
                "{} recorded requests of pool {}",
                self.jobs.len(),
                self.pool
            ),
        })
    }

    fn workload(
        &self,
        _name: &str,
        load: f64,
        _seed: u64,
        _span: (Option<f64>, Option<f64>),
    ) -> Result<Box<dyn Workload>, LabError> {
        Ok(Box::new(Again {
            jobs: self.jobs.clone().into_iter(),
            pace: load,
        }))
    }

    fn policy(
        &self,
        name: &str,
        engines: &[EngineConfig],
        knowledge: Knowledge,
        seed: u64,
    ) -> Result<Box<dyn Dispatcher>, LabError> {
        Builtin::default().policy(name, engines, knowledge, seed)
    }

    fn about_policy(&self, name: &str) -> String {
        Builtin::default().about_policy(name)
    }
}

struct Again {
    jobs: std::vec::IntoIter<Job>,
    pace: f64,
}

impl Workload for Again {
    fn next(&mut self) -> Option<Job> {
        let mut job = self.jobs.next()?;
        job.at /= self.pace;
        Some(job)
    }
}

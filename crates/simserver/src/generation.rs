//! A request while the engine works on it.

use std::sync::Arc;

use simulator::{AdapterId, BlockHash, Sequence};

use crate::error::ApiError;
use crate::faults::Faults;
use crate::host::{End, Outlet, Start};
use crate::plan::{Finish, Plan, Sampling};
use crate::state::{InFlight, State, Target};
use crate::tokens;

/// What to generate.
pub(crate) struct Job {
    pub(crate) model: String,
    pub(crate) target: Target,
    /// Token ids of each prompt.
    pub(crate) prompts: Vec<Vec<u32>>,
    /// Answers a prompt.
    pub(crate) n: u32,
    /// `None` is a pooling request.
    pub(crate) sampling: Option<Sampling>,
    pub(crate) cache_salt: Option<String>,
    pub(crate) priority: i32,
}

/// One answer.
pub(crate) struct Choice {
    id: u64,
    pub(crate) plan: Plan,
    /// Tokens that were handed on.
    seen: u32,
    done: bool,
    /// How it ended, once it has.
    pub(crate) reason: Option<&'static str>,
}

/// Something new for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) choice: usize,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Set with the last tokens of a choice.
    pub(crate) reason: Option<&'static str>,
}

/// A generation that broke on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The engine died.
    Engine,
    /// The connection is to be reset.
    Reset,
}

/// A request's sequences. Dropping it ends those that run, which is how a disconnect frees the engine.
pub(crate) struct Generation {
    state: Arc<State>,
    outlet: Arc<Outlet>,
    faults: Arc<Faults>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) prompt_tokens: u32,
    n: usize,
    _in_flight: InFlight,
}

impl Generation {
    /// Draws the answers and queues their sequences, all or none.
    pub(crate) fn start(state: &Arc<State>, job: Job) -> Result<Self, ApiError> {
        let sequences = job.prompts.len() * job.n as usize;
        let mut generation = Self {
            state: Arc::clone(state),
            outlet: Outlet::new(sequences),
            faults: state.faults(),
            choices: Vec::with_capacity(sequences),
            prompt_tokens: job.prompts.iter().map(|prompt| prompt.len() as u32).sum(),
            n: job.n as usize,
            _in_flight: state.enter(),
        };
        let adapter = (job.target == Target::Adapter).then(|| state.host.adapter(&job.model));
        // Every name of the base model shares one cache; each adapter has its own.
        let scope = if adapter.is_some() {
            &job.model
        } else {
            &state.options.model
        };
        let root = tokens::root(scope, job.cache_salt.as_deref());
        for prompt in &job.prompts {
            for nth in 0..job.n {
                generation.add(&job, prompt, nth, root, adapter)?;
            }
        }
        Ok(generation)
    }

    fn add(
        &mut self,
        job: &Job,
        prompt: &[u32],
        nth: u32,
        root: BlockHash,
        adapter: Option<AdapterId>,
    ) -> Result<(), ApiError> {
        let options = &self.state.options;
        let plan = draw(options, job.sampling.as_ref(), prompt, nth, root);
        let mut all = prompt.to_vec();
        all.extend(plan.token_ids());
        let id = self.state.host.next_id();
        let start = Start {
            sequence: Sequence {
                id,
                prompt: root.chain(&all, options.block_size as usize).collect(),
                prompt_tokens: prompt.len() as u32,
                output_tokens: plan.len(),
                adapter,
                priority: job.priority,
            },
            outlet: Arc::clone(&self.outlet),
            index: self.choices.len(),
            finish: plan.finish,
            max_tokens: job
                .sampling
                .as_ref()
                .and_then(|s| s.max_tokens)
                .unwrap_or_else(|| plan.len()),
            choices: job.n,
        };
        self.state
            .host
            .start(start)
            .map_err(|refused| ApiError::refused(refused, options.context()))?;
        self.choices.push(Choice {
            id,
            plan,
            seen: 0,
            done: false,
            reason: None,
        });
        Ok(())
    }

    /// Waits for the next tokens of any choice. `None` after the last choice has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<News>, Broken> {
        loop {
            let outlet = Arc::clone(&self.outlet);
            let changed = outlet.changed.notified();
            for index in 0..self.choices.len() {
                if let Some(news) = self.look(index)? {
                    return Ok(Some(news));
                }
            }
            if self.choices.iter().all(|choice| choice.done) {
                return Ok(None);
            }
            changed.await;
        }
    }

    fn look(&mut self, index: usize) -> Result<Option<News>, Broken> {
        let choice = &mut self.choices[index];
        if choice.done {
            return Ok(None);
        }
        let progress = self.outlet.progress(index);
        let from = choice.seen;
        let passed = |limit: Option<u32>| limit.is_some_and(|limit| from >= limit);
        if passed(self.faults.reset_after_tokens) {
            return Err(Broken::Reset);
        }
        if passed(self.faults.fail_after_tokens) {
            return Err(Broken::Engine);
        }
        if passed(self.faults.stall_after_tokens) && progress.end != Some(End::Aborted) {
            return Ok(None);
        }
        let faults = [
            self.faults.reset_after_tokens,
            self.faults.fail_after_tokens,
            self.faults.stall_after_tokens,
        ];
        let to = faults
            .into_iter()
            .flatten()
            .fold(progress.generated, u32::min)
            .max(from);
        let reason = match progress.end {
            Some(End::Aborted) => Some("abort"),
            Some(End::Done) if to == progress.generated => Some(reason_word(choice.plan.finish)),
            _ => None,
        };
        if to == from && reason.is_none() {
            return Ok(None);
        }
        choice.seen = to;
        choice.done = reason.is_some();
        choice.reason = reason;
        Ok(Some(News {
            choice: index,
            from,
            to,
            reason,
        }))
    }

    /// Waits for the end of all choices.
    pub(crate) async fn finish(&mut self) -> Result<(), Broken> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Tokens generated so far, over all choices.
    pub(crate) fn generated(&self) -> u32 {
        self.choices.iter().map(|choice| choice.seen).sum()
    }

    /// Prompt tokens that came from the prefix cache, each prompt counted once.
    pub(crate) fn cached_tokens(&self) -> u32 {
        let firsts = (0..self.choices.len()).step_by(self.n.max(1));
        firsts
            .map(|index| self.outlet.progress(index).cached_tokens)
            .sum()
    }
}

impl Choice {
    /// The text that was handed on.
    pub(crate) fn text(&self) -> &str {
        self.plan.slice(0, self.seen)
    }

    /// Tokens handed on.
    pub(crate) fn tokens(&self) -> u32 {
        self.seen
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        for choice in self.choices.iter().filter(|choice| !choice.done) {
            self.state.host.abort(choice.id);
        }
    }
}

fn reason_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn draw(
    options: &crate::options::SimOptions,
    sampling: Option<&Sampling>,
    prompt: &[u32],
    nth: u32,
    root: BlockHash,
) -> Plan {
    let Some(sampling) = sampling else {
        return Plan::empty();
    };
    let room = options.context().saturating_sub(prompt.len() as u32);
    let seed = options.seed ^ root.child(prompt).0.wrapping_add(u64::from(nth));
    Plan::draw(sampling, room, options.mean_output_tokens, seed)
}

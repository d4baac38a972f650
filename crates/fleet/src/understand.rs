//! What a request for inference asks of a pool: the same reading for whoever serves it, our own data plane or a proxy
//! that asks us to pick.
//!
//! The model's name resolves to a target and a class by the pool's objects; the prompt becomes hashes as the engine will
//! see it, and a size; what continues something that one server holds goes to that server.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use llm::{ChainSeed, RequestView, StateKind};
use scheduling::RequestKind;

use crate::{Endpoint, Owner, PickRequest, Pool};

/// What a request's head says about the pick, beside its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'h> {
    /// Name of an InferenceObjective.
    pub objective: Option<&'h str>,
    /// Model name to put in place of whatever the body's resolves to.
    pub model: Option<&'h str>,
    /// Longest useful time to the first token, in milliseconds, as the client wrote it.
    pub ttft_slo: Option<&'h str>,
}

/// A request that was read.
#[derive(Debug, Clone)]
pub struct Understood {
    /// What is known about its work.
    pub kind: RequestKind,
    /// The model the client named; empty: none.
    pub model: String,
    /// The name to put in its place.
    pub target: Option<String>,
    /// Hashes of the prompt's prefixes.
    pub prefix: Arc<[u64]>,
    /// Tokens of the prompt, estimated.
    pub prompt_tokens: u32,
    /// Most tokens it may generate.
    pub max_output_tokens: Option<u32>,
    /// Whether the answer streams.
    pub streams: bool,
    /// Class.
    pub priority: i32,
    /// Name of the objective that gave the class.
    pub objective: Option<String>,
    /// Time from now after which its first token is worthless.
    pub deadline: Option<Duration>,
    /// Time from now by which its first token should come; it is served late rather than not.
    pub due: Option<Duration>,
    /// The server that holds what it continues.
    pub pinned: Option<Arc<Endpoint>>,
}

/// The server that held what a request continues is gone, and that with it; the id says what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateLost(pub String);

impl Understood {
    /// Reads a request for `pool`. `roll` is uniform in [0, 1) and chooses among weighted targets.
    ///
    /// # Errors
    /// It continues something that is lost.
    pub fn read(
        pool: &Pool,
        view: &RequestView<'_>,
        hints: Hints<'_>,
        roll: f64,
    ) -> Result<Self, StateLost> {
        let name = view.model.as_ref().map_or("", |model| &model.name);
        let spec = pool.spec();
        let resolution = spec.models.resolve(name, hints.objective, roll);
        let target = hints
            .model
            .or(resolution.target_model)
            .filter(|target| *target != name && view.model.is_some());
        let chain = view.prompt.chain(&ChainSeed {
            model: target.unwrap_or(name),
            cache_salt: view.cache_salt.as_deref(),
        });
        let kind = if view.dialect.runs_model() {
            RequestKind::Inference
        } else {
            RequestKind::Opaque
        };
        // Only work that may be shed is refused for a target that cannot be met; the rest is served late rather than not.
        let target_time = first_token_target(hints.ttft_slo);
        Ok(Self {
            kind,
            target: target.map(str::to_owned),
            model: name.to_owned(),
            prefix: Arc::from(chain.hashes),
            prompt_tokens: chain.prompt_tokens,
            max_output_tokens: view.max_tokens,
            streams: view.stream,
            priority: resolution.priority,
            objective: resolution.objective.map(str::to_owned),
            deadline: target_time.filter(|_| resolution.priority < 0),
            due: target_time.filter(|_| resolution.priority >= 0),
            pinned: owner(pool, view)?,
        })
    }

    /// The model that the server is asked for.
    #[must_use]
    pub fn served_model(&self) -> Option<&str> {
        let served = self.target.as_deref().unwrap_or(&self.model);
        (!served.is_empty()).then_some(served)
    }

    /// What [`Pool::pick`] is asked. `flow` 0: there is no fairness id, so the model's name stands for it.
    #[must_use]
    pub fn request<'a>(&'a self, request_id: &'a str, bytes: u64, flow: u64) -> PickRequest<'a> {
        PickRequest {
            request_id,
            model: self.served_model(),
            kind: self.kind,
            prefix: self.prefix.clone(),
            prompt_tokens: self.prompt_tokens,
            max_output_tokens: self.max_output_tokens,
            streams: self.streams,
            bytes,
            priority: self.priority,
            flow: match flow {
                0 => flow_key(None, None, self.served_model().unwrap_or_default()),
                flow => flow,
            },
            pinned: self.pinned.clone(),
            deadline: self.deadline,
            due: self.due,
            ..PickRequest::default()
        }
    }
}

/// Whom a request belongs to for fairness: who its fairness id says, else the holder of its API key, else all who ask
/// for the same model. Never 0.
#[must_use]
pub fn flow_key(fairness: Option<&[u8]>, api_key: Option<&[u8]>, model: &str) -> u64 {
    use std::hash::BuildHasher;
    let hash = |kind: u8, id: &[u8]| rustc_hash::FxBuildHasher.hash_one((kind, id)).max(1);
    match (fairness, api_key) {
        (Some(id), _) => hash(1, id),
        (None, Some(key)) => hash(2, key),
        (None, None) => hash(3, model.as_bytes()),
    }
}

/// The flow of a fairness id; 0: it has none.
#[must_use]
pub fn flow_of(fairness: Option<&[u8]>) -> u64 {
    fairness.map_or(0, |id| flow_key(Some(id), None, ""))
}

/// The time to the first token that a client asks for.
fn first_token_target(slo: Option<&str>) -> Option<Duration> {
    let millis = slo?.parse().ok().filter(|millis| *millis > 0)?;
    Some(Duration::from_millis(millis))
}

/// The server that holds what this request continues. It is a hard wish: nobody else has that state.
fn owner(pool: &Pool, view: &RequestView<'_>) -> Result<Option<Arc<Endpoint>>, StateLost> {
    let states: [(&Option<Cow<'_, str>>, StateKind); 2] = [
        (&view.previous_response_id, StateKind::Response),
        (&view.conversation, StateKind::Conversation),
    ];
    for (id, kind) in states {
        let Some(id) = id else { continue };
        match pool.owner_of(kind, id) {
            Some(Owner::Gone) => return Err(StateLost(id.clone().into_owned())),
            Some(Owner::Here(owner)) => return Ok(Some(owner)),
            None => {}
        }
    }
    Ok(None)
}

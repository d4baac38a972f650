//! What all requests of a server share.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::faults::{FailureKind, Faults};
use crate::host::Host;
use crate::options::{LoraModule, SimOptions};

/// Stored answers of `/v1/responses`, oldest forgotten first.
const STORED_RESPONSES: usize = 1024;

/// A server's state.
pub(crate) struct State {
    pub(crate) options: SimOptions,
    pub(crate) host: Arc<Host>,
    pub(crate) faults: Mutex<Arc<Faults>>,
    pub(crate) adapters: Mutex<Vec<LoraModule>>,
    pub(crate) draining: AtomicBool,
    pub(crate) frozen_metrics: Mutex<Option<String>>,
    pub(crate) responses: Mutex<Responses>,
    pub(crate) in_flight: AtomicUsize,
    started: Instant,
    luck: Mutex<ChaCha8Rng>,
}

/// What a model name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Base,
    Adapter,
}

impl State {
    pub(crate) fn new(options: SimOptions) -> Arc<Self> {
        let modules = if options.enable_lora {
            options.lora_modules.clone()
        } else {
            Vec::new()
        };
        Arc::new(Self {
            host: Host::new(&options),
            faults: Mutex::new(Arc::new(options.faults.clone())),
            adapters: Mutex::new(modules),
            draining: AtomicBool::new(false),
            frozen_metrics: Mutex::new(None),
            responses: Mutex::new(Responses::default()),
            in_flight: AtomicUsize::new(0),
            started: Instant::now(),
            luck: Mutex::new(ChaCha8Rng::seed_from_u64(options.seed ^ 0x5eed_fa17)),
            options,
        })
    }

    pub(crate) fn faults(&self) -> Arc<Faults> {
        self.faults.lock().clone()
    }

    pub(crate) fn starting(&self) -> bool {
        self.started.elapsed() < self.options.startup
    }

    /// True with the given probability.
    pub(crate) fn chance(&self, share: f64) -> bool {
        share > 0.0 && self.luck.lock().random_bool(share.min(1.0))
    }

    /// One of the failures that may be injected.
    pub(crate) fn draw_failure(&self, faults: &Faults) -> FailureKind {
        let kinds: &[FailureKind] = if faults.failure_types.is_empty() {
            &FailureKind::ALL
        } else {
            &faults.failure_types
        };
        kinds[self.luck.lock().random_range(0..kinds.len())]
    }

    /// A fresh 64-bit number for ids.
    pub(crate) fn random_id(&self) -> u64 {
        self.luck.lock().random()
    }

    /// What a model name selects; no name selects the base model.
    pub(crate) fn resolve(&self, model: &str) -> Result<Target, ApiError> {
        let base = self.options.base_names();
        if base.iter().any(|name| name == model) {
            return Ok(Target::Base);
        }
        let adapters = self.adapters.lock();
        if adapters.iter().any(|module| module.name == model) {
            return Ok(Target::Adapter);
        }
        let aliases: Vec<&str> = base
            .iter()
            .map(String::as_str)
            .chain(adapters.iter().map(|module| module.name.as_str()))
            .collect();
        Err(ApiError::unknown_model(model, &aliases.join(", ")))
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A request in flight, for `/load`.
pub(crate) struct InFlight(Arc<State>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers that clients may ask for again or build on.
#[derive(Default)]
pub(crate) struct Responses {
    by_id: HashMap<String, Stored>,
    order: VecDeque<String>,
}

/// An answer and the conversation up to and including it.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) body: Value,
    pub(crate) messages: Vec<Value>,
}

impl Responses {
    pub(crate) fn put(&mut self, id: String, stored: Stored) {
        if self.order.len() == STORED_RESPONSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.by_id.insert(id, stored);
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Stored> {
        self.by_id.get(id)
    }

    pub(crate) fn remove(&mut self, id: &str) -> bool {
        self.order.retain(|known| known != id);
        self.by_id.remove(id).is_some()
    }
}

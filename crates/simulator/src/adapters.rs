//! Adapter slots on the GPU, as a cache over adapters in host memory.
//!
//! A batch holds at most `max_loras` different adapters. A sequence whose adapter finds no slot is passed over, and
//! later ones may overtake it (vLLM's rule). Loading happens inside a step and holds up the whole engine.

use rustc_hash::FxHashMap;

use crate::config::LoraConfig;
use crate::sequence::AdapterId;

#[derive(Debug, Clone, Copy, Default)]
struct Users {
    running: u32,
    waiting: u32,
}

/// The slots and who uses which adapter.
#[derive(Debug, Clone)]
pub(crate) struct Adapters {
    config: LoraConfig,
    /// In order of last use, least recent first. Both lists are short.
    gpu: Vec<AdapterId>,
    host: Vec<AdapterId>,
    users: FxHashMap<AdapterId, Users>,
    /// Those with a running sequence, in no order.
    active: Vec<AdapterId>,
    /// Sequences that wait and have an adapter.
    waiting: usize,
    pub(crate) loads: u64,
}

impl Adapters {
    pub(crate) fn new(config: LoraConfig) -> Self {
        Self {
            config,
            gpu: Vec::new(),
            host: Vec::new(),
            users: FxHashMap::default(),
            active: Vec::new(),
            waiting: 0,
            loads: 0,
        }
    }

    pub(crate) fn enabled(&self) -> bool {
        self.config.max_loras > 0
    }

    /// Factor on the step time for the adapters that run.
    pub(crate) fn step_factor(&self) -> f64 {
        1.0 + self.config.step_factor * self.active.len() as f64
    }

    pub(crate) fn wait(&mut self, adapter: AdapterId) {
        self.users.entry(adapter).or_default().waiting += 1;
        self.waiting += 1;
    }

    pub(crate) fn stop_waiting(&mut self, adapter: AdapterId) {
        if let Some(users) = self.users.get_mut(&adapter) {
            users.waiting -= 1;
            self.waiting -= 1;
        }
        self.forget_unused(adapter);
    }

    /// Whether a sequence of this adapter can join the batch.
    pub(crate) fn open_for(&self, adapter: AdapterId) -> bool {
        self.active.len() < self.config.max_loras || self.active.contains(&adapter)
    }

    /// How many of `waiting` sequences can join the batch, as far as adapters are concerned.
    pub(crate) fn open_among(&self, waiting: usize) -> usize {
        if self.active.len() < self.config.max_loras {
            return waiting;
        }
        let users = self.active.iter().filter_map(|it| self.users.get(it));
        waiting - self.waiting + users.map(|it| it.waiting as usize).sum::<usize>()
    }

    /// Moves a waiting sequence of the adapter into the batch; returns the seconds that loading takes.
    pub(crate) fn run(&mut self, adapter: AdapterId) -> f64 {
        let users = self.users.entry(adapter).or_default();
        self.waiting -= users.waiting.min(1) as usize;
        users.waiting = users.waiting.saturating_sub(1);
        users.running += 1;
        if users.running == 1 {
            self.active.push(adapter);
        }
        self.load(adapter)
    }

    pub(crate) fn stop_running(&mut self, adapter: AdapterId) {
        if let Some(users) = self.users.get_mut(&adapter) {
            users.running -= 1;
            if users.running == 0 {
                self.active.retain(|it| *it != adapter);
            }
        }
        self.forget_unused(adapter);
    }

    fn forget_unused(&mut self, adapter: AdapterId) {
        if self
            .users
            .get(&adapter)
            .is_some_and(|u| u.running == 0 && u.waiting == 0)
        {
            self.users.remove(&adapter);
        }
    }

    fn load(&mut self, adapter: AdapterId) -> f64 {
        if touch(&mut self.gpu, adapter) {
            return 0.0;
        }
        if self.gpu.len() >= self.config.max_loras {
            let users = &self.users;
            let idle = self
                .gpu
                .iter()
                .position(|a| users.get(a).is_none_or(|u| u.running == 0));
            self.gpu.remove(idle.unwrap_or(0));
        }
        self.gpu.push(adapter);
        if touch(&mut self.host, adapter) {
            return self.config.swap_seconds;
        }
        self.loads += 1;
        if self.host.len() >= self.config.max_cpu_loras.max(self.config.max_loras) {
            self.host.remove(0);
        }
        self.host.push(adapter);
        self.config.load_seconds + self.config.swap_seconds
    }

    /// Forgets an adapter that the host unloads; sequences that use it keep it until they end.
    pub(crate) fn unload(&mut self, adapter: AdapterId) {
        self.host.retain(|a| *a != adapter);
        if self.users.get(&adapter).is_none_or(|u| u.running == 0) {
            self.gpu.retain(|a| *a != adapter);
        }
    }

    pub(crate) fn resident(&self) -> Vec<AdapterId> {
        sorted(self.gpu.clone())
    }

    pub(crate) fn running(&self) -> Vec<AdapterId> {
        sorted(
            self.users
                .iter()
                .filter(|(_, u)| u.running > 0)
                .map(|(a, _)| *a)
                .collect(),
        )
    }

    pub(crate) fn waiting(&self) -> Vec<AdapterId> {
        sorted(
            self.users
                .iter()
                .filter(|(_, u)| u.waiting > 0)
                .map(|(a, _)| *a)
                .collect(),
        )
    }
}

/// Moves `adapter` to the most recent end; false if it is not in the list.
fn touch(list: &mut Vec<AdapterId>, adapter: AdapterId) -> bool {
    let Some(place) = list.iter().position(|a| *a == adapter) else {
        return false;
    };
    list.remove(place);
    list.push(adapter);
    true
}

fn sorted(mut adapters: Vec<AdapterId>) -> Vec<AdapterId> {
    adapters.sort_unstable();
    adapters
}

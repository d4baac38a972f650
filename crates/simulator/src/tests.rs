//! Tests of the engine as a whole.

mod calibration;
mod conservation;
mod memory;

use std::sync::Arc;

use crate::{
    BlockHash, Engine, EngineConfig, LoraConfig, Output, OutputKind, Sequence, extend_chain,
    profiles,
};

/// A small engine: steps of about 7 ms, `blocks` KV blocks.
fn small(blocks: u32) -> EngineConfig {
    EngineConfig {
        kv_blocks: blocks,
        max_batched_tokens: 512,
        max_seqs: 8,
        max_model_len: 4096,
        ..EngineConfig::for_model(&profiles::LLAMA_3_1_8B_H100)
    }
}

/// A sequence whose blocks are named after `family` and so shared with others of the family.
fn sequence(id: u64, family: u64, prompt_tokens: u32, output_tokens: u32) -> Sequence {
    let mut chain = Vec::new();
    extend_chain(
        &mut chain,
        ((prompt_tokens + output_tokens) / 16) as usize,
        family,
    );
    Sequence {
        prompt: chain.into(),
        prompt_tokens,
        output_tokens,
        ..Sequence::new(id)
    }
}

/// An engine with its clock.
struct World {
    engine: Engine,
    now: f64,
    outputs: Vec<Output>,
}

impl World {
    fn new(config: EngineConfig) -> Self {
        Self {
            engine: Engine::new(config, 1),
            now: 0.0,
            outputs: Vec::new(),
        }
    }

    fn submit(&mut self, sequence: Sequence) {
        self.engine.submit(self.now, sequence).unwrap();
    }

    /// One whole step; its duration.
    fn step(&mut self) -> Option<f64> {
        let plan = self.engine.step(self.now)?;
        self.engine.check();
        self.now += plan.duration;
        self.engine.finish_step(self.now, &mut self.outputs);
        self.engine.check();
        Some(plan.duration)
    }

    /// Steps until nothing is left to do.
    fn run(&mut self) {
        while self.step().is_some() {}
    }

    /// Runs one sequence alone and tells how long its first token took and what was cached.
    fn first_token(&mut self, sequence: Sequence) -> (f64, u32) {
        let (id, begun) = (sequence.id, self.now);
        self.submit(sequence);
        let mut found = None;
        while found.is_none() {
            self.step().unwrap();
            found = self
                .cached_tokens(id)
                .map(|cached| (self.now - begun, cached));
        }
        self.run();
        found.unwrap()
    }

    fn cached_tokens(&self, id: u64) -> Option<u32> {
        self.outputs.iter().find_map(|output| match output.kind {
            OutputKind::FirstToken { cached_tokens, .. } if output.id == id => Some(cached_tokens),
            _ => None,
        })
    }

    /// Ids in the order in which they finished.
    fn finished(&self) -> Vec<u64> {
        let done = self
            .outputs
            .iter()
            .filter(|output| matches!(output.kind, OutputKind::Finished { .. }));
        done.map(|output| output.id).collect()
    }

    fn tokens(&self, id: u64) -> usize {
        let mine = self.outputs.iter().filter(|output| output.id == id);
        mine.map(|output| match output.kind {
            OutputKind::FirstToken { .. } => 1,
            OutputKind::Tokens(count) => count as usize,
            _ => 0,
        })
        .sum()
    }
}

#[test]
fn chunks_and_decodes_share_the_budget() {
    let mut world = World::new(small(1000));
    world.submit(sequence(1, 1, 100, 50));
    world.step();
    world.submit(sequence(2, 2, 1000, 1));
    let plan = world.engine.step(world.now).unwrap();
    assert_eq!(
        (plan.prefill_tokens, plan.decode_tokens),
        (511, 1),
        "the decode goes first"
    );
    world.engine.finish_step(world.now, &mut world.outputs);
    let plan = world.engine.step(world.now).unwrap();
    assert_eq!((plan.prefill_tokens, plan.decode_tokens), (489, 1));
}

#[test]
fn at_most_max_seqs_run() {
    let mut world = World::new(small(1000));
    (0..12).for_each(|id| world.submit(sequence(id, id, 20, 5)));
    world.step();
    let stats = world.engine.stats();
    assert_eq!((stats.running, stats.waiting), (8, 4));
    world.run();
    assert_eq!(world.finished(), (0..12).collect::<Vec<_>>());
}

#[test]
fn refusals() {
    use crate::Refused;
    let config = EngineConfig {
        max_waiting: Some(1),
        max_model_len: 100,
        ..small(1000)
    };
    let mut engine = Engine::new(config, 1);
    let refuse = |engine: &mut Engine, sequence| engine.submit(0.0, sequence).unwrap_err();
    let with = |id, prompt_tokens| Sequence {
        prompt_tokens,
        ..Sequence::new(id)
    };
    assert_eq!(refuse(&mut engine, with(1, 0)), Refused::Empty);
    assert_eq!(
        refuse(&mut engine, with(1, 100)),
        Refused::TooLong {
            tokens: 100,
            limit: 100
        }
    );
    let adapter = Sequence {
        adapter: Some(crate::AdapterId(0)),
        ..with(1, 5)
    };
    assert_eq!(refuse(&mut engine, adapter), Refused::NoAdapters);
    engine.submit(0.0, with(1, 99)).unwrap();
    assert_eq!(refuse(&mut engine, with(1, 5)), Refused::DuplicateId);
    assert_eq!(
        refuse(&mut engine, with(2, 5)),
        Refused::QueueFull { limit: 1 }
    );
    assert_eq!(engine.stats().refused, 5);
}

#[test]
fn pooling_requests_end_without_tokens() {
    let mut world = World::new(small(1000));
    world.submit(sequence(1, 1, 600, 0));
    world.run();
    assert_eq!((world.finished(), world.tokens(1)), (vec![1], 0));
    assert_eq!(world.engine.stats().steps, 2);
}

#[test]
fn the_model_length_ends_a_sequence() {
    let mut world = World::new(EngineConfig {
        max_model_len: 64,
        ..small(1000)
    });
    world.submit(sequence(1, 1, 60, 500));
    world.run();
    assert_eq!(world.tokens(1), 4);
    let reason = crate::FinishReason::ModelLength;
    assert_eq!(
        world.outputs.last().unwrap().kind,
        OutputKind::Finished { reason }
    );
}

#[test]
fn priority_goes_first_and_is_preempted_last() {
    let config = EngineConfig {
        policy: crate::QueuePolicy::Priority,
        max_seqs: 1,
        ..small(1000)
    };
    let mut world = World::new(config);
    for (id, priority) in [(1, 5), (2, -1), (3, 0), (4, -1)] {
        world.submit(Sequence {
            priority,
            ..sequence(id, id, 20, 2)
        });
    }
    world.run();
    assert_eq!(world.finished(), [2, 4, 3, 1]);
    let config = EngineConfig {
        policy: crate::QueuePolicy::Priority,
        ..small(8)
    };
    let mut world = World::new(config);
    world.submit(Sequence {
        priority: 1,
        ..sequence(1, 1, 48, 40)
    });
    world.submit(Sequence {
        priority: 0,
        ..sequence(2, 2, 48, 40)
    });
    world.run();
    let preempted: Vec<u64> = world
        .outputs
        .iter()
        .filter(|o| o.kind == OutputKind::Preempted)
        .map(|o| o.id)
        .collect();
    assert_eq!(preempted, [1]);
    assert_eq!(world.finished(), [2, 1]);
}

#[test]
fn noise_keeps_the_mean_and_follows_the_seed() {
    let durations = |seed| {
        let mut engine = Engine::new(
            EngineConfig {
                step_noise: 0.1,
                ..small(1000)
            },
            seed,
        );
        engine.submit(0.0, sequence(1, 1, 16, 2000)).unwrap();
        let mut outputs = Vec::new();
        let mut all = Vec::new();
        while let Some(plan) = engine.step(0.0) {
            engine.finish_step(0.0, &mut outputs);
            all.push(plan.duration);
        }
        all
    };
    let (one, other) = (durations(1), durations(2));
    assert_eq!(one, durations(1));
    assert_ne!(one, other);
    let mean = one.iter().sum::<f64>() / one.len() as f64;
    assert!((mean / 0.00706 - 1.0).abs() < 0.01, "{mean}");
}

fn lora(max_loras: usize, max_cpu_loras: usize) -> EngineConfig {
    let lora = LoraConfig {
        max_loras,
        max_cpu_loras,
        load_seconds: 1.0,
        swap_seconds: 0.01,
        step_factor: 0.5,
    };
    EngineConfig {
        lora,
        ..small(1000)
    }
}

fn adapted(id: u64, adapter: u32, output_tokens: u32) -> Sequence {
    Sequence {
        adapter: Some(crate::AdapterId(adapter)),
        ..sequence(id, id, 20, output_tokens)
    }
}

#[test]
fn a_full_set_of_adapters_is_passed_over() {
    let mut world = World::new(lora(1, 1));
    world.submit(adapted(1, 7, 3));
    world.submit(adapted(2, 8, 3));
    world.submit(adapted(3, 7, 3));
    world.submit(sequence(4, 4, 20, 3));
    world.step();
    let stats = world.engine.stats();
    assert_eq!(
        (stats.running, stats.waiting, stats.deferred),
        (3, 1, 1),
        "2 waits, 3 and 4 overtake it"
    );
    let ids = |ids: &[u32]| {
        ids.iter()
            .map(|id| crate::AdapterId(*id))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (stats.running_adapters, stats.waiting_adapters),
        (ids(&[7]), ids(&[8]))
    );
    world.run();
    assert_eq!(*world.finished().last().unwrap(), 2);
    assert_eq!(world.engine.stats().resident_adapters, ids(&[8]));
}

#[test]
fn adapters_load_from_disk_then_from_memory_then_not_at_all() {
    let mut world = World::new(lora(1, 2));
    let mut cost = |id, adapter| {
        world.submit(adapted(id, adapter, 1));
        let duration = world.step().unwrap();
        assert!(world.step().is_none());
        duration
    };
    let base = 0.00701 * 1.5;
    for (id, adapter, load) in [
        (1, 1, 1.01),
        (2, 1, 0.0),
        (3, 2, 1.01),
        (4, 1, 0.01),
        (5, 3, 1.01),
        (6, 1, 0.01),
        (7, 2, 1.01),
    ] {
        let cost = cost(id, adapter);
        assert!(
            (cost - base - load).abs() < 1e-4,
            "request {id} of adapter {adapter}: {cost}"
        );
    }
    assert_eq!(world.engine.stats().adapter_loads, 4);
    world.engine.unload_adapter(crate::AdapterId(2));
    assert!(world.engine.stats().resident_adapters.is_empty());
}

#[test]
fn each_adapter_in_a_batch_lengthens_the_step() {
    let step = |adapters: &[u32]| {
        let mut world = World::new(lora(4, 4));
        for (id, adapter) in adapters.iter().enumerate() {
            world.submit(adapted(id as u64, *adapter, 5));
        }
        world.step();
        world.step().unwrap()
    };
    let (one, same, three) = (step(&[1]), step(&[1, 1, 1]), step(&[1, 2, 3]));
    assert!((same / one - 1.0).abs() < 0.01);
    assert!((three / same - 2.5 / 1.5).abs() < 0.01);
}

#[test]
fn chains_name_content_and_everything_before() {
    let root = BlockHash::root(b"model");
    let tokens: Vec<u32> = (0..64).collect();
    let chain: Vec<BlockHash> = root.chain(&tokens, 16).collect();
    assert_eq!(chain.len(), 4);
    let mut other = tokens.clone();
    other[20] += 1;
    let changed: Vec<BlockHash> = root.chain(&other, 16).collect();
    assert_eq!(chain[0], changed[0]);
    assert!((1..4).all(|i| chain[i] != changed[i]));
    assert_ne!(
        BlockHash::root(b"other").chain(&tokens, 16).next().unwrap(),
        chain[0]
    );
    assert_eq!(root.chain(&tokens[..47], 16).count(), 2);
    let long: Vec<u32> = (0..300).collect();
    assert_ne!(root.child(&long), root.child(&long[..299]));
    let shared: Arc<[BlockHash]> = chain.into();
    let mut longer = shared.to_vec();
    extend_chain(&mut longer, 3, 9);
    let mut again = shared.to_vec();
    extend_chain(&mut again, 1, 9);
    assert_eq!(again[..], longer[..5]);
}

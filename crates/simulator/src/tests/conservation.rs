//! What holds for any traffic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{sequence, small};
use crate::{
    AdapterId, Engine, EngineConfig, LoraConfig, Output, OutputKind, QueuePolicy, Semantics,
    Sequence,
};

#[derive(Debug, Clone)]
enum Act {
    Submit {
        family: u64,
        prompt: u32,
        output: u32,
        adapter: Option<u32>,
        priority: i32,
    },
    Abort {
        nth: usize,
        inside: bool,
    },
    Step,
}

fn act() -> impl Strategy<Value = Act> {
    let adapter = prop_oneof![3 => Just(None), 1 => (0..4_u32).prop_map(Some)];
    let submit = (0..6_u64, 1..400_u32, 0..80_u32, adapter, -2..3_i32).prop_map(
        |(family, prompt, output, adapter, priority)| Act::Submit {
            family,
            prompt,
            output,
            adapter,
            priority,
        },
    );
    let abort =
        (any::<usize>(), any::<bool>()).prop_map(|(nth, inside)| Act::Abort { nth, inside });
    prop_oneof![3 => submit, 1 => abort, 8 => Just(Act::Step)]
}

fn config() -> impl Strategy<Value = EngineConfig> {
    (
        30..80_u32,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        1..6_usize,
        30..600_u32,
    )
        .prop_map(
            |(blocks, older, priority, prefix_caching, max_seqs, max_batched_tokens)| {
                EngineConfig {
                    semantics: if older {
                        Semantics::Older
                    } else {
                        Semantics::Vllm
                    },
                    policy: if priority {
                        QueuePolicy::Priority
                    } else {
                        QueuePolicy::Fcfs
                    },
                    prefix_caching,
                    max_seqs,
                    max_batched_tokens,
                    lora: LoraConfig {
                        max_loras: 2,
                        max_cpu_loras: 3,
                        ..LoraConfig::default()
                    },
                    step_noise: 0.01,
                    ..small(blocks)
                }
            },
        )
}

/// A sequence's fate as its outputs tell it.
#[derive(Debug, Default, Clone, PartialEq)]
struct Fate {
    wanted: u32,
    tokens: u32,
    ends: u32,
}

struct Run {
    engine: Engine,
    now: f64,
    fates: BTreeMap<u64, Fate>,
    outputs: Vec<Output>,
    log: Vec<Output>,
}

impl Run {
    fn new(config: EngineConfig) -> Self {
        let engine = Engine::new(config, 3);
        Self {
            engine,
            now: 0.0,
            fates: BTreeMap::new(),
            outputs: Vec::new(),
            log: Vec::new(),
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Submit {
                family,
                prompt,
                output,
                adapter,
                priority,
            } => {
                let id = self.fates.len() as u64;
                let adapter = adapter.map(AdapterId);
                let new = Sequence {
                    adapter,
                    priority: *priority,
                    ..sequence(id, *family, *prompt, *output)
                };
                self.engine.submit(self.now, new).unwrap();
                self.fates.insert(
                    id,
                    Fate {
                        wanted: *output,
                        ..Fate::default()
                    },
                );
            }
            Act::Abort { nth, inside } => self.abort(*nth, *inside),
            Act::Step => {
                self.step(None);
            }
        }
        self.engine.check();
    }

    fn abort(&mut self, nth: usize, inside: bool) {
        let alive: Vec<u64> = self
            .fates
            .iter()
            .filter(|(_, fate)| fate.ends == 0)
            .map(|(id, _)| *id)
            .collect();
        let Some(id) = alive.get(nth % alive.len().max(1)).copied() else {
            return;
        };
        if inside {
            self.step(Some(id));
        } else {
            self.end_by_abort(id);
        }
    }

    fn end_by_abort(&mut self, id: u64) {
        assert!(self.engine.abort(id));
        self.fates.get_mut(&id).unwrap().ends += 1;
    }

    fn step(&mut self, abort_inside: Option<u64>) -> bool {
        let Some(plan) = self.engine.step(self.now) else {
            return false;
        };
        assert!(plan.duration > 0.0 && plan.duration.is_finite());
        assert!(
            plan.prefill_tokens + plan.decode_tokens <= self.engine.config().max_batched_tokens
        );
        assert!(self.engine.stats().running <= self.engine.config().max_seqs);
        self.engine.check();
        if let Some(id) = abort_inside {
            self.end_by_abort(id);
        }
        self.now += plan.duration;
        self.engine.finish_step(self.now, &mut self.outputs);
        for output in self.outputs.drain(..) {
            let fate = self.fates.get_mut(&output.id).unwrap();
            assert_eq!(fate.ends, 0, "an output after the end");
            match output.kind {
                OutputKind::FirstToken { .. } => {
                    assert_eq!(fate.tokens, 0);
                    fate.tokens = 1;
                }
                OutputKind::Tokens(count) => fate.tokens += count,
                OutputKind::Finished { .. } => {
                    assert_eq!(fate.tokens, fate.wanted);
                    fate.ends += 1;
                }
                OutputKind::Preempted => {}
            }
            self.log.push(output);
        }
        true
    }

    fn finish(&mut self) {
        for _ in 0..100_000 {
            if !self.step(None) {
                return;
            }
        }
        panic!("the engine does not come to an end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_are_conserved_and_every_sequence_ends_once(config in config(), acts in prop::collection::vec(act(), 1..80)) {
        let mut run = Run::new(config);
        acts.iter().for_each(|act| run.act(act));
        run.finish();
        run.engine.check();
        for (id, fate) in &run.fates {
            prop_assert_eq!(fate.ends, 1, "sequence {}", id);
        }
        let stats = run.engine.stats();
        prop_assert_eq!((stats.running, stats.waiting, stats.kv_usage), (0, 0, 0.0));
        prop_assert_eq!(stats.finished + stats.aborted, run.fates.len() as u64);
        prop_assert!(stats.running_adapters.is_empty() && stats.waiting_adapters.is_empty());
        prop_assert!(stats.prefix_hits <= stats.prefix_queries);
        prop_assert!(stats.resident_adapters.len() <= 2);
    }

    #[test]
    fn equal_seeds_give_equal_runs(config in config(), acts in prop::collection::vec(act(), 1..60)) {
        let play = || {
            let mut run = Run::new(config.clone());
            acts.iter().for_each(|act| run.act(act));
            run.finish();
            (run.now, run.log, run.engine.stats())
        };
        prop_assert_eq!(play(), play());
    }
}

/// Outputs with the tokens of each sequence told in one with its end, wherever they were told.
fn told_at_the_end(log: &[Output]) -> Vec<Output> {
    let mut tokens: BTreeMap<u64, u32> = BTreeMap::new();
    let mut told = Vec::new();
    for output in log {
        match output.kind {
            OutputKind::Tokens(count) => *tokens.entry(output.id).or_default() += count,
            OutputKind::Finished { .. } => {
                let count = tokens.remove(&output.id).unwrap_or(0);
                let kind = OutputKind::Tokens(count);
                told.extend([
                    Output {
                        id: output.id,
                        kind,
                    },
                    *output,
                ]);
            }
            _ => told.push(*output),
        }
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// With an output for each token every running sequence is looked at in every step; with few outputs hardly any.
    #[test]
    fn sequences_that_are_left_alone_fare_the_same(
        config in config(),
        budget in prop_oneof![1..8_u32, 20..600_u32],
        report_every in prop_oneof![Just(0_u32), 2..40_u32],
        acts in prop::collection::vec(act(), 1..80),
    ) {
        let play = |report_every| {
            let config = EngineConfig { max_batched_tokens: budget, report_every, ..config.clone() };
            let mut run = Run::new(config);
            let mut steps = Vec::new();
            for act in &acts {
                run.act(act);
                steps.push((run.now, run.engine.stats()));
            }
            run.finish();
            (run.now, steps, told_at_the_end(&run.log), run.engine.stats())
        };
        prop_assert_eq!(play(1), play(report_every));
    }
}

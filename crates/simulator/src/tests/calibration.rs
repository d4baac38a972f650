//! The engine against published measurements.

use super::{World, sequence};
use crate::profiles::{
    LLAMA_2_70B_TP4_H100, LLAMA_3_1_8B_H100, LLAMA_3_8B_A100, Model, QWEN3_32B_TP2_H100,
    QWEN3_32B_TP2_H100_RECIPE, Work,
};
use crate::{Engine, EngineConfig};

fn world(model: &Model) -> World {
    World::new(EngineConfig::for_model(model))
}

fn assert_near(what: &str, value: f64, expected: f64, tolerance: f64) {
    assert!(
        (value / expected - 1.0).abs() <= tolerance,
        "{what}: {value}, expected {expected}"
    );
}

/// llm-d's fit says 0.378 s for 8192 tokens, its recipe's throughput 0.514 s.
#[test]
fn a_prompt_of_8192_tokens_on_qwen3_32b() {
    let alone = |model| world(model).first_token(sequence(1, 1, 8192, 1)).0;
    let fit = 42.5e-6 * 8192.0 + 443.2e-12 * 8192.0 * 8192.0;
    assert_near("fit", alone(&QWEN3_32B_TP2_H100), fit, 0.01);
    let recipe = 8192.0 / 15_928.0;
    assert_near("recipe", alone(&QWEN3_32B_TP2_H100_RECIPE), recipe, 0.01);
}

#[test]
fn a_lone_decode_step_on_qwen3_32b() {
    let mut world = world(&QWEN3_32B_TP2_H100);
    world.submit(sequence(1, 1, 100, 10));
    world.step();
    let step = world.step().unwrap();
    assert!((0.014..=0.015).contains(&step), "{step}");
}

/// llm-d reports 4.3 s for a first prompt of 10k tokens on its setup and 0.6 s for the second: the second is
/// several times faster. Our hardware is faster, so only the ratio can be compared.
#[test]
fn the_second_equal_prompt_is_many_times_faster() {
    let mut world = world(&QWEN3_32B_TP2_H100);
    let (first, _) = world.first_token(sequence(1, 1, 10_000, 1));
    let (second, cached) = world.first_token(sequence(2, 1, 10_000, 1));
    assert_eq!(cached, 9_984);
    assert!(first / second > 7.0, "{first} against {second}");
}

/// Vidur's profiles (microsoft/vidur, data/profiling) without attention: measured at one token, and its lines of
/// intercept and slope far beyond the knee.
#[test]
fn linear_layers_take_what_vidur_measured() {
    let linear = |model: &Model, tokens: u64| {
        let work = Work {
            prefill_tokens: tokens,
            ..Work::default()
        };
        model.profile.step_seconds(&work)
    };
    assert_near("70B at 1", linear(&LLAMA_2_70B_TP4_H100, 1), 14.3e-3, 0.1);
    assert_near("8B A100 at 1", linear(&LLAMA_3_8B_A100, 1), 9.7e-3, 0.1);
    for tokens in [2048_u32, 4096, 8192] {
        let line = |intercept: f64, slope: f64| intercept * 1e-3 + slope * 1e-6 * f64::from(tokens);
        let n = u64::from(tokens);
        assert_near(
            "70B",
            linear(&LLAMA_2_70B_TP4_H100, n),
            line(10.2, 52.3),
            0.1,
        );
        assert_near("8B A100", linear(&LLAMA_3_8B_A100, n), line(8.1, 66.1), 0.1);
        assert_near(
            "8B H100",
            linear(&LLAMA_3_1_8B_H100, n),
            line(2.9, 20.2),
            0.1,
        );
    }
}

/// `(0.9*80 GiB*TP - weights - activations - graphs) / bytes a token`.
#[test]
fn the_cache_holds_what_memory_leaves() {
    let tokens = |tp: f64, weights_gib: f64, graphs_gib: f64, kib: f64| {
        (0.9 * 80.0 * tp - weights_gib - 5.5 - graphs_gib) * 1024.0 * 1024.0 / kib
    };
    assert_near(
        "8B",
        f64::from(LLAMA_3_1_8B_H100.kv_tokens),
        tokens(1.0, 15.0, 0.15, 128.0),
        0.02,
    );
    assert_near(
        "32B",
        f64::from(QWEN3_32B_TP2_H100.kv_tokens),
        tokens(2.0, 61.0, 1.2, 256.0),
        0.02,
    );
    assert_near(
        "70B",
        f64::from(LLAMA_2_70B_TP4_H100.kv_tokens),
        tokens(4.0, 131.0, 2.4, 320.0),
        0.06,
    );
}

/// A steady flow of groups that share 6,000 tokens of 7,200: hits make the engine carry about twice the traffic and
/// more, the order that llm-d's comparison of prefix-aware and random routing shows.
#[test]
fn shared_prefixes_at_least_double_the_capacity() {
    let rate = |prefix_caching: bool| {
        let config = EngineConfig {
            prefix_caching,
            ..EngineConfig::for_model(&QWEN3_32B_TP2_H100)
        };
        let mut world = World::new(config);
        for id in 0..40_u64 {
            let mut chain = Vec::new();
            crate::extend_chain(&mut chain, 375, id % 8);
            crate::extend_chain(&mut chain, 75, 1_000 + id);
            let prompt = chain.into();
            world.submit(crate::Sequence {
                prompt,
                prompt_tokens: 7_200,
                ..crate::Sequence::new(id)
            });
        }
        world.run();
        40.0 / world.now
    };
    let ratio = rate(true) / rate(false);
    assert!(ratio > 2.0, "{ratio}");
}

/// One step tells at most one token and one end for each sequence, and virtual time stays plausible.
#[test]
fn a_full_batch_reuses_its_buffers() {
    let mut engine = Engine::new(EngineConfig::for_model(&LLAMA_3_1_8B_H100), 1);
    for id in 0..256 {
        engine.submit(0.0, sequence(id, id, 512, 400)).unwrap();
    }
    let mut outputs = Vec::with_capacity(1024);
    let room = outputs.capacity();
    let mut now = 0.0;
    let mut tokens = 0;
    while let Some(plan) = engine.step(now) {
        now += plan.duration;
        engine.finish_step(now, &mut outputs);
        tokens += outputs.len();
        outputs.clear();
    }
    assert_eq!((tokens, outputs.capacity()), (256 * 401, room));
    assert!(
        now > 3.0 && now < 20.0,
        "256 answers of 400 tokens took {now} s"
    );
}

//! Blocks: hits, visibility, order of eviction, preemption.

use super::{World, sequence, small};
use crate::{CacheEvent, EngineConfig, OutputKind, Semantics, Sequence};

#[test]
fn a_hit_leaves_one_token_to_compute() {
    for (prompt, hit) in [
        (15, 0),
        (16, 0),
        (17, 16),
        (32, 16),
        (33, 32),
        (160, 144),
        (161, 160),
    ] {
        let mut world = World::new(small(100));
        world.first_token(sequence(1, 1, prompt, 1));
        assert_eq!(
            world.first_token(sequence(2, 1, prompt, 1)).1,
            hit,
            "prompt of {prompt}"
        );
    }
}

#[test]
fn an_answer_can_be_hit_up_to_its_last_computed_token() {
    for (output, hit) in [(1, 32), (16, 32), (17, 48), (40, 64)] {
        let mut world = World::new(small(100));
        world.first_token(sequence(1, 1, 32, output));
        let (_, cached) = world.first_token(sequence(2, 1, 32 + output + 16, 1));
        assert_eq!(cached, hit, "answer of {output}");
    }
}

#[test]
fn without_names_or_caching_nothing_is_hit() {
    let mut world = World::new(small(100));
    for id in 1..3 {
        let nameless = Sequence {
            prompt_tokens: 100,
            ..Sequence::new(id)
        };
        assert_eq!(world.first_token(nameless).1, 0);
    }
    let mut world = World::new(EngineConfig {
        prefix_caching: false,
        ..small(100)
    });
    for id in 1..3 {
        assert_eq!(world.first_token(sequence(id, 1, 100, 1)).1, 0);
    }
    assert_eq!(world.engine.stats().cached_blocks, 0);
}

#[test]
fn semantics_decide_when_a_block_can_be_hit() {
    for (semantics, cached) in [(Semantics::Vllm, 304), (Semantics::Older, 0)] {
        let mut world = World::new(EngineConfig {
            semantics,
            ..small(1000)
        });
        world.submit(sequence(1, 1, 320, 2));
        world.submit(sequence(2, 1, 320, 2));
        world.run();
        assert_eq!(
            world.cached_tokens(2),
            Some(cached),
            "{semantics:?}: both in the same step"
        );
    }
}

#[test]
fn semantics_decide_who_is_admitted() {
    // 60 of 64 blocks are taken; a prompt of 40 blocks does not fit, its first chunk might.
    for (semantics, running) in [(Semantics::Vllm, 1), (Semantics::Older, 2)] {
        let mut world = World::new(EngineConfig {
            semantics,
            max_batched_tokens: 1000,
            ..small(64)
        });
        world.submit(sequence(1, 1, 60 * 16 - 1, 20));
        world.submit(sequence(2, 2, 40 * 16, 1));
        world.step();
        assert_eq!(world.engine.stats().running, running, "{semantics:?}");
        world.run();
        assert_eq!(world.finished().len(), 2);
    }
}

/// Runs prompts of 4 blocks through a cache of 12 and tells which families still have how many blocks.
fn survivors(families: &[u64]) -> Vec<usize> {
    let mut world = World::new(small(12));
    for (id, family) in families.iter().enumerate() {
        world.first_token(sequence(id as u64, *family, 64, 1));
    }
    (1..=5)
        .map(|family| {
            world
                .engine
                .cached_prefix_blocks(&sequence(0, family, 64, 0).prompt)
        })
        .collect()
}

#[test]
fn the_least_recently_used_goes_first_and_tails_before_heads() {
    for (families, left) in [
        (vec![1, 2, 3], [4, 4, 4, 0, 0]),
        (vec![1, 2, 3, 4], [0, 4, 4, 4, 0]),
        // A hit makes 1 young again; its last block is computed anew, in 2's last place.
        (vec![1, 2, 3, 1, 4], [4, 0, 4, 4, 0]),
        (vec![1, 2, 3, 4, 5], [0, 0, 4, 4, 4]),
    ] {
        assert_eq!(survivors(&families), left, "{families:?}");
    }
    let mut world = World::new(small(12));
    world.first_token(sequence(1, 1, 64, 1));
    world.first_token(sequence(2, 2, 9 * 16, 1));
    let left = world
        .engine
        .cached_prefix_blocks(&sequence(0, 1, 64, 0).prompt);
    assert_eq!(left, 3, "one block short: the tail of the oldest goes");
}

#[test]
fn events_tell_every_change() {
    let mut world = World::new(small(8));
    world.engine.record_cache_events(true);
    world.first_token(sequence(1, 1, 64, 1));
    world.first_token(sequence(2, 2, 96, 1));
    let mut events = Vec::new();
    world.engine.drain_cache_events(&mut events);
    let mut present = Vec::new();
    for event in &events {
        match event {
            CacheEvent::Stored { hash, parent } => {
                assert!(parent.is_none_or(|parent| present.contains(&parent)));
                assert!(!present.contains(hash));
                present.push(*hash);
            }
            CacheEvent::Removed { hash } => present.retain(|known| known != hash),
            CacheEvent::Cleared => present.clear(),
        }
    }
    assert_eq!(present.len(), world.engine.stats().cached_blocks);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, CacheEvent::Removed { .. }))
    );
    assert!(world.engine.reset_prefix_cache());
    events.clear();
    world.engine.drain_cache_events(&mut events);
    assert_eq!(
        (events, world.engine.stats().cached_blocks),
        (vec![CacheEvent::Cleared], 0)
    );
    world.submit(sequence(3, 3, 16, 5));
    world.step();
    assert!(!world.engine.reset_prefix_cache(), "blocks are held");
}

#[test]
fn the_last_admitted_is_preempted_and_comes_back_with_hits() {
    let mut world = World::new(small(8));
    world.submit(sequence(1, 1, 48, 40));
    world.submit(sequence(2, 2, 48, 40));
    world.submit(sequence(3, 3, 16, 2));
    world.run();
    let preempted: Vec<u64> = world
        .outputs
        .iter()
        .filter(|output| output.kind == OutputKind::Preempted)
        .map(|output| output.id)
        .collect();
    assert!(
        preempted.contains(&2) && !preempted.contains(&1),
        "{preempted:?}"
    );
    for (id, tokens) in [(1, 40), (2, 40), (3, 2)] {
        assert_eq!(world.tokens(id), tokens, "no token is said twice or lost");
    }
    let firsts = world
        .outputs
        .iter()
        .filter(|o| o.id == 2 && matches!(o.kind, OutputKind::FirstToken { .. }));
    assert_eq!(firsts.count(), 1);
    let stats = world.engine.stats();
    assert_eq!(stats.preemptions, preempted.len() as u64);
    let once = 48 + 39 + 48 + 39 + 16 + 1;
    assert!(
        stats.computed_tokens > once && stats.computed_tokens < once + 100,
        "{}",
        stats.computed_tokens
    );
    assert_eq!(stats.kv_usage, 0.0);
}

#[test]
fn an_abort_frees_at_once_wherever_it_hits() {
    let mut world = World::new(small(20));
    world.submit(sequence(1, 1, 100, 50));
    world.submit(sequence(2, 2, 100, 50));
    world.submit(sequence(3, 3, 300, 50));
    let plan = world.engine.step(0.0).unwrap();
    assert_eq!(plan.prefill_tokens, 200);
    assert!(world.engine.abort(1), "in the middle of its step");
    assert!(world.engine.abort(3), "in the queue");
    assert!(!world.engine.abort(3), "twice");
    world.engine.check();
    world.submit(sequence(4, 4, 20, 1));
    world.engine.finish_step(plan.duration, &mut world.outputs);
    assert!(
        world.outputs.iter().all(|output| output.id == 2),
        "the place's next tenant has computed nothing"
    );
    world.run();
    assert_eq!(
        (world.finished(), world.engine.stats().aborted),
        (vec![4, 2], 2)
    );
    assert_eq!(world.engine.stats().kv_usage, 0.0);
}

/// Blocks given from elsewhere take room and need no computing, once; after that they are like any others.
#[test]
fn given_blocks_cost_space_and_no_time() {
    let mut world = World::new(small(64));
    let other = sequence(1, 5, 320, 1);
    world.engine.submit_with(0.0, other, 20).unwrap();
    // At least one token is always computed, so the last block is.
    assert_eq!(world.engine.step(0.0).unwrap().prefill_tokens, 16);
    world.engine.check();
    assert_eq!(world.engine.stats().kv_usage, 20.0 / 64.0);
    world.engine.finish_step(0.1, &mut world.outputs);
    world.engine.check();
    assert_eq!(world.cached_tokens(1), Some(304));
    world.now = 0.2;
    let (_, cached) = world.first_token(sequence(2, 5, 320, 1));
    assert_eq!(cached, 304);
    let mut twin = world.engine.clone();
    twin.submit(1.0, sequence(3, 6, 64, 2)).unwrap();
    world.engine.submit(1.0, sequence(3, 6, 64, 2)).unwrap();
    assert_eq!(twin.step(1.0), world.engine.step(1.0));
}

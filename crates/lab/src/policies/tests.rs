//! All policies as dispatchers; their decisions and parts are in the modules below.

mod parts;
mod rules;

use std::collections::VecDeque;
use std::sync::Arc;

use simulator::{BlockHash, EngineConfig, extend_chain, profiles};

use super::{build, manifest, names};
use crate::{BLOCK_TOKENS, Dispatcher, Job, Placed, Told};

fn engines(count: usize) -> Vec<EngineConfig> {
    vec![EngineConfig::for_model(&profiles::QWEN3_32B_TP2_H100); count]
}

/// A job whose prompt shares the blocks of all others with the same `prefix` up to `shared` tokens.
fn job(id: u64, prefix: u64, shared: u32, prompt_tokens: u32) -> Job {
    let mut blocks = vec![BlockHash(prefix)];
    extend_chain(&mut blocks, (shared / BLOCK_TOKENS) as usize, prefix);
    let whole = prompt_tokens.div_ceil(BLOCK_TOKENS) as usize + 8;
    let own = whole.saturating_sub(blocks.len() - 1);
    extend_chain(&mut blocks, own, id + 1_000_000);
    let blocks: Arc<[BlockHash]> = blocks[1..].into();
    Job {
        id,
        at: 0.0,
        session: None,
        blocks,
        prompt_tokens,
        output_tokens: 100,
        max_output_tokens: None,
        adapter: None,
        priority: 0,
        flow: 0,
        first_message: prefix,
        warmup: false,
    }
}

fn page(engine: u32, waiting: u32, kv_usage: f64) -> Told {
    Told::Scraped {
        engine,
        running: 0,
        waiting,
        kv_usage,
    }
}

/// Sends jobs 20 ms apart, with a first token 100 ms and an end one second after dispatch, and a page each 50 ms;
/// returns what became of them in order of decision.
fn drive(dispatcher: &mut dyn Dispatcher, count: u64, engines: u32) -> Vec<Placed> {
    let mut placed = Vec::new();
    let mut firsts: VecDeque<(f64, u64)> = VecDeque::new();
    let mut ends: VecDeque<(f64, u64)> = VecDeque::new();
    for tick in 0..12_000_u64 {
        let now = tick as f64 * 0.01;
        while firsts.front().is_some_and(|&(at, _)| at <= now) {
            let job = firsts.pop_front().unwrap().1;
            dispatcher.tell(now, Told::FirstToken { job });
            dispatcher.tell(now, Told::Progress { job, tokens: 50 });
        }
        while ends.front().is_some_and(|&(at, _)| at <= now) {
            let told = Told::Finished {
                job: ends.pop_front().unwrap().1,
                output_tokens: 100,
                cached_tokens: 0,
            };
            dispatcher.tell(now, told);
        }
        if tick % 5 == 0 {
            (0..engines).for_each(|e| dispatcher.tell(now, page(e, (tick as u32 + e) % 4, 0.5)));
        }
        if tick % 2 == 0 && tick / 2 < count {
            let id = tick / 2;
            let mut job = job(
                id,
                id % 7,
                640 * (id as u32 % 3),
                200 + (id as u32 * 397) % 4000,
            );
            job.priority = (id % 3) as i32 - 1;
            dispatcher.arrive(now, &job);
        }
        while let Some(this) = dispatcher.next(now) {
            if let Placed::To { job, .. } = this {
                firsts.push_back((now + 0.1, job));
                ends.push_back((now + 1.0, job));
            }
            placed.push(this);
        }
        if placed.len() as u64 == count && ends.is_empty() {
            break;
        }
    }
    placed
}

#[test]
fn every_name_builds_and_no_other() {
    let fleet = engines(3);
    for name in names() {
        assert!(build(name, &fleet, 1).is_some(), "{name}");
    }
    for name in ["", "gaie-2", "Random", "lpwl "] {
        assert!(build(name, &fleet, 1).is_none(), "{name}");
    }
    let mut unique = names().to_vec();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), names().len());
}

#[test]
fn every_constant_belongs_to_a_policy_and_has_a_source() {
    for constant in manifest() {
        let policy = constant.policy;
        assert!(names().iter().any(|n| n.starts_with(policy)), "{policy}");
        assert!(!constant.source.is_empty() && constant.value.is_finite());
    }
    let countless = [
        "random",
        "round-robin",
        "least-request",
        "p2c",
        "p2c-stale",
        "jsq-scraped",
    ];
    for name in names().iter().filter(|name| !countless.contains(name)) {
        let has = manifest().iter().any(|c| name.starts_with(c.policy));
        assert!(has, "{name} has no constants");
    }
}

#[test]
fn no_job_is_lost_or_placed_twice() {
    let fleet = engines(4);
    for name in names() {
        let mut dispatcher = build(name, &fleet, 7).unwrap();
        let placed = drive(dispatcher.as_mut(), 400, 4);
        let mut jobs: Vec<u64> = placed
            .iter()
            .map(|placed| match *placed {
                Placed::To { job, engine } => {
                    assert!(engine < 4, "{name}");
                    job
                }
                Placed::Shed { job } => job,
            })
            .collect();
        jobs.sort_unstable();
        assert_eq!(jobs, (0..400).collect::<Vec<_>>(), "{name}");
        assert!(dispatcher.wake_at().is_none(), "{name} still waits");
    }
}

#[test]
fn equal_seeds_decide_equally() {
    let fleet = engines(4);
    let run = |name: &str, seed: u64| drive(build(name, &fleet, seed).unwrap().as_mut(), 200, 4);
    for name in names() {
        assert_eq!(run(name, 3), run(name, 3), "{name}");
    }
    for name in ["random", "p2c", "dynamo-t0.5"] {
        assert_ne!(run(name, 3), run(name, 4), "{name}");
    }
}

#[test]
fn without_engines_everything_is_refused() {
    for name in names().iter().filter(|name| **name != "gaie-flow-control") {
        let mut dispatcher = build(name, &[], 1).unwrap();
        dispatcher.arrive(0.0, &job(0, 0, 0, 100));
        dispatcher.tell(0.0, page(0, 1, 0.5));
        assert_eq!(
            dispatcher.next(0.0),
            Some(Placed::Shed { job: 0 }),
            "{name}"
        );
    }
}

#[test]
fn unknown_and_repeated_events_do_no_harm() {
    for name in names() {
        let mut dispatcher = build(name, &engines(2), 1).unwrap();
        for now in [0.0, 1.0] {
            dispatcher.tell(now, Told::FirstToken { job: 99 });
            dispatcher.tell(now, Told::Progress { job: 99, tokens: 5 });
            dispatcher.tell(now, page(17, 1, 0.5));
            dispatcher.tell(now, page(0, 0, 0.0));
            dispatcher.tell(now, page(1, 0, 0.0));
            let end = Told::Finished {
                job: 0,
                output_tokens: 1,
                cached_tokens: 0,
            };
            dispatcher.tell(now, end);
            dispatcher.tell(now, end);
            if now < 1.0 {
                dispatcher.arrive(now, &job(0, 0, 0, 100));
                assert!(
                    matches!(dispatcher.next(now), Some(Placed::To { .. })),
                    "{name}"
                );
            }
            dispatcher.tell(now, Told::FirstToken { job: 0 });
            dispatcher.tell(now, Told::FirstToken { job: 0 });
        }
    }
}

#[test]
fn flow_control_holds_while_saturated_and_lets_the_higher_first() {
    let mut gate = build("gaie-flow-control", &engines(2), 1).unwrap();
    (0..2).for_each(|e| gate.tell(0.0, page(e, 6, 0.1)));
    for (id, priority) in [(0, 0), (1, -1), (2, 1), (3, 0)] {
        let mut job = job(id, id, 0, 100);
        job.priority = priority;
        gate.arrive(0.0, &job);
    }
    assert_eq!(gate.next(0.0), None);
    assert_eq!(gate.wake_at(), Some(60.0));
    // One page below the threshold brings the mean below one, until it is 200 ms old.
    gate.tell(0.1, page(0, 3, 0.1));
    let mut order = Vec::new();
    let mut now = 0.1;
    while now < 0.11 {
        while let Some(Placed::To { job, .. }) = gate.next(now) {
            order.push(job);
        }
        now += 0.001;
    }
    assert_eq!(order, [2, 0, 3, 1]);
    gate.arrive(0.35, &job(4, 4, 0, 100));
    assert_eq!(gate.next(0.35), None, "the pages are too old");
    assert_eq!(gate.next(60.34), None);
    assert_eq!(gate.next(60.35), Some(Placed::Shed { job: 4 }));
    assert_eq!(gate.wake_at(), None);
}

#[test]
fn flow_control_dispatches_one_job_a_millisecond() {
    let mut gate = build("gaie-flow-control", &engines(1), 1).unwrap();
    gate.tell(0.0, page(0, 0, 0.0));
    for id in 0..3 {
        gate.arrive(0.0, &job(id, id, 0, 100));
    }
    assert!(gate.next(0.0).is_some());
    assert_eq!(gate.next(0.0), None);
    assert_eq!(gate.wake_at(), Some(0.001));
    assert!(gate.next(0.001).is_some());
    assert_eq!(gate.next(0.0015), None);
    assert!(gate.next(0.002).is_some());
    assert_eq!(gate.wake_at(), None);
}

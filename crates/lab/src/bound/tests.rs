//! Bounds against policies, and against what can be counted by hand.

use simulator::{BlockHash, extend_chain};

use super::*;
use crate::compare::{Builtin, Plan};
use crate::run::tests::{List, Toy, engines, in_turn, job, short};
use crate::stats::{Slo, Summary};

fn toy() -> Box<dyn Workload> {
    Box::new(Toy::new(40.0, 20, 300, 5))
}

#[test]
fn no_policy_is_below_the_bound() {
    let mut config = short(3, 5);
    config.step_noise = 0.0;
    let of = |outcome| Summary::of(&outcome, Slo::default());
    let fcfs = of(pooled(&config, toy(), Order::Fcfs).unwrap());
    let sjf = of(pooled(&config, toy(), Order::Sjf).unwrap());
    let mut policies = vec![of(run(config.clone(), toy(), in_turn(3)))];
    use crate::product::{Product, ProductConfig};
    for kind in [
        scheduling::PolicyKind::ExpectedCost,
        scheduling::PolicyKind::LeastRequest,
    ] {
        let product = Product::new(ProductConfig::new(kind), &config.engines, 1);
        policies.push(of(run(config.clone(), toy(), vec![Box::new(product)])));
    }
    for policy in policies {
        assert_eq!(policy.jobs, fcfs.jobs);
        for (theirs, a, b) in [
            (policy.ttft.p50, fcfs.ttft.p50, sjf.ttft.p50),
            (policy.ttft.p90, fcfs.ttft.p90, sjf.ttft.p90),
            (policy.ttft.mean, fcfs.ttft.mean, sjf.ttft.mean),
            (policy.e2e.p90, fcfs.e2e.p90, sjf.e2e.p90),
        ] {
            assert!(a.min(b) <= theirs + 1e-9, "{a} {b} {theirs}");
        }
        assert!(policy.hit_ratio <= fcfs.hit_ratio + 1e-9);
    }
}

#[test]
fn the_pool_of_one_engine_is_that_engine() {
    let engine = engines(1).remove(0);
    let mut pooled = pooled_engine(std::slice::from_ref(&engine)).unwrap();
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b;
    assert!(close(pooled.profile.a, engine.profile.a));
    assert!(close(pooled.profile.c0, engine.profile.c0));
    pooled.profile = engine.profile;
    assert_eq!(pooled, engine);
    assert_eq!(pooled_engine(&[]), None);
}

#[test]
fn the_capacity_is_where_the_limit_is_crossed() {
    let found = capacity::<()>([0.0, 10.0], 20, 9.0, |load| Ok(load * load)).unwrap();
    assert!((found - 3.0).abs() < 1e-4);
    assert_eq!(capacity::<()>([1.0, 2.0], 5, 9.0, Ok), Ok(2.0));
    assert_eq!(capacity::<()>([10.0, 20.0], 5, 9.0, Ok), Ok(10.0));
}

fn three(blocks: &[u64], at: f64) -> Job {
    let id = (at * 10.0) as u64;
    job(id, at, blocks.iter().copied().map(BlockHash).collect(), 1)
}

#[test]
fn belady_is_between_lru_and_no_limit() {
    // Two prompts in turn that do not fit together: recency finds nothing, foresight keeps one of them.
    let jobs: Vec<Job> = (0..12)
        .map(|turn| {
            let base = 100 * (1 + turn % 3);
            three(
                &[base, base + 1, base + 2, base + 3],
                f64::from(turn as u32),
            )
        })
        .collect();
    let capacity = 8 * u64::from(BLOCK_TOKENS);
    let (least, best, all) = (
        lru(&jobs, capacity),
        belady(&jobs, capacity),
        unbounded(&jobs),
    );
    assert_eq!(least, 0.0);
    assert!(best > 0.3 && best < all, "{best} {all}");
    let hit = 64.0 / 69.0;
    assert!((all - 9.0 / 12.0 * hit).abs() < 1e-9);
    assert_eq!((lru(&jobs, 1 << 20), belady(&jobs, 1 << 20)), (all, all));
    assert_eq!(belady(&[], 10), 0.0);
}

#[test]
fn belady_beats_lru_on_random_jobs() {
    let config = short(2, 1);
    let jobs = collect(&config, toy());
    assert!(jobs.windows(2).all(|pair| pair[0].at <= pair[1].at));
    for capacity in [0, 10_000, 50_000, 200_000] {
        let (least, best) = (lru(&jobs, capacity), belady(&jobs, capacity));
        assert!(least <= best + 1e-12, "{capacity}: {least} {best}");
        assert!(best <= unbounded(&jobs) + 1e-12);
    }
}

#[test]
fn a_closed_loop_is_collected_with_its_followers() {
    let mut list = List::new(vec![three(&[1], 1.0), three(&[2], 2.0)]);
    list.follow_after = Some(3.0);
    let jobs = collect(&short(1, 1), Box::new(list));
    assert_eq!(jobs.len(), 4);
    assert!(jobs[2].at > 4.0);
}

/// A fleet that only prefills carries as many jobs a second as fit its seconds.
#[test]
fn the_program_counts_what_can_be_counted_by_hand() {
    let config = short(2, 1);
    let mut chain = Vec::new();
    let jobs: Vec<Job> = (0..400)
        .map(|number| {
            chain.clear();
            extend_chain(&mut chain, 500, 77 + number);
            Job {
                output_tokens: 1,
                ..job(number, number as f64 / 20.0, chain.clone(), 1)
            }
        })
        .collect();
    let found = lp(&config, &jobs, 20.0).unwrap();
    let profile = config.engines[0].profile;
    let tokens = 8005.0;
    let step =
        profile.c0 * tokens / 8192.0 + profile.a * tokens + profile.q * tokens * tokens / 2.0;
    let seconds = step + profile.s * tokens / 8192.0;
    assert!(
        (found.load / (2.0 / seconds) - 1.0).abs() < 0.02,
        "{found:?} {}",
        2.0 / seconds
    );
    assert_eq!((found.binding, found.hit_ratio), ("prefill", 0.0));
    assert!(lp(&short(0, 1), &jobs, 20.0).is_none());
    assert!(lp(&config, &[], 20.0).is_none());
}

#[test]
fn decodes_are_bound_by_memory_and_by_reading_weights() {
    let config = short(1, 1);
    let decode = |own: u32| {
        let jobs: Vec<Job> = (0..200)
            .map(|number| {
                let mut job = job(number, number as f64 / 10.0, Vec::new(), 500);
                job.prompt_tokens = own;
                job
            })
            .collect();
        lp(&config, &jobs, 10.0).unwrap()
    };
    // 256 seats of short contexts fit; of 8000 tokens only 52 do.
    assert_eq!(decode(10).binding, "sequences");
    let long = decode(8000);
    assert_eq!(long.binding, "memory");
    assert!(long.load < decode(10).load);
}

/// Fast and slow engines: the program is at least as good as either alone, and splits the work.
#[test]
fn a_mixed_fleet_carries_the_sum_of_its_parts_at_least() {
    let of = |fleet: &str| {
        let mut config = short(0, 1);
        config.engines = crate::fleet::parse(fleet).unwrap();
        let jobs = collect(&config, toy());
        lp(&config, &jobs, 40.0).unwrap()
    };
    let (fast, slow) = (of("llama-3.1-8b-h100*2"), of("llama-3-8b-a100*2"));
    let both = of("llama-3.1-8b-h100*2+llama-3-8b-a100*2");
    assert!(fast.load > 1.5 * slow.load, "{fast:?} {slow:?}");
    assert!(both.load > 0.98 * (fast.load + slow.load), "{both:?}");
    assert!((both.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(both.shares[0] > both.shares[1]);
}

#[test]
fn sharing_caches_and_binding_late_is_no_worse_than_policies() {
    let mut config = short(3, 5);
    config.step_noise = 0.0;
    let of = |outcome| Summary::of(&outcome, Slo::default());
    let work = || Box::new(Toy::new(40.0, 60, 300, 5));
    let b = of(shared(&config, work(), Order::Fcfs).unwrap());
    let sjf = of(shared(&config, work(), Order::Sjf).unwrap());
    assert_eq!((b.jobs, b.misplaced, b.unfinished), (sjf.jobs, 0, 0));
    for policy in ["lpwl", "least-request", "gaie"] {
        let dispatcher = crate::policies::build(policy, &config.engines, 1).unwrap();
        let it = of(run(config.clone(), work(), vec![dispatcher]));
        assert_eq!(it.jobs, b.jobs);
        let least = b.ttft.p90.min(sjf.ttft.p90);
        assert!(
            least <= it.ttft.p90 * 1.02,
            "{policy}: {least} {}",
            it.ttft.p90
        );
        assert!(it.hit_ratio <= b.hit_ratio + 1e-3);
    }
    assert!(shared(&short(0, 1), work(), Order::Fcfs).is_none());
}

#[test]
fn foresight_is_between_the_pool_and_the_rule_it_looks_ahead_with() {
    let mut config = short(3, 2);
    (config.horizon, config.step_noise) = (10.0, 0.0);
    let work = || Box::new(Toy::new(14.0, 20, 900, 2));
    let jobs = collect(&config, work());
    let of = |outcome| Summary::of(&outcome, Slo::default());
    let short_sighted = Rollout {
        most: 0,
        ..Rollout::default()
    };
    let far = Rollout {
        horizon: 3.0,
        jobs: 16,
        most: 1000,
    };
    let rule = of(rollout(&config, jobs.clone(), short_sighted).unwrap());
    let ahead = of(rollout(&config, jobs.clone(), far).unwrap());
    let again = of(rollout(&config, jobs.clone(), far).unwrap());
    assert_eq!((ahead.ttft, ahead.jobs), (again.ttft, rule.jobs));
    assert!(
        ahead.ttft.mean <= rule.ttft.mean * 1.02,
        "{} {}",
        ahead.ttft.mean,
        rule.ttft.mean
    );
    let a = of(pooled(&config, work(), Order::Fcfs).unwrap());
    assert!(a.ttft.mean <= ahead.ttft.mean + 1e-9);
    assert!(rollout(&short(0, 1), jobs, far).is_none());
}

#[test]
fn capacities_are_found_once_and_shares_scale_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capacities.json");
    let plan = Plan {
        seeds: vec![1],
        horizon: Some(20.0),
        warmup: Some(5.0),
        drain: 30.0,
        fleet: Some("llama-3.1-8b-h100*2".to_owned()),
        ..Plan::default()
    };
    let catalog = Builtin::default();
    let capacities = Capacities::new(Some(file.clone())).unwrap();
    let bound = capacities.of(&plan, &catalog, "sharegpt", "bound").unwrap();
    let policy = capacities
        .of(&plan, &catalog, "sharegpt", "random")
        .unwrap();
    assert!(
        policy < bound * 1.26 && policy > bound * 0.1,
        "{policy} {bound}"
    );
    let half = capacities.load(&plan, &catalog, "sharegpt", 0.5).unwrap();
    assert_eq!(half, 0.5 * bound);
    // From the file, whatever the plan compares.
    let other = Plan {
        loads: vec![9.0],
        ..plan.clone()
    };
    let again = Capacities::new(Some(file.clone())).unwrap();
    let read = again.of(&other, &catalog, "sharegpt", "bound").unwrap();
    assert!((read / bound - 1.0).abs() < 1e-12);
    std::fs::write(&file, "no").unwrap();
    assert!(Capacities::new(Some(file)).is_err());
}

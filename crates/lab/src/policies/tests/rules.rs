//! The defining decision of each policy.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{engines, job};
use crate::Job;
use crate::policies::aibrix::{Gate, PrefixCache};
use crate::policies::chwbl::Chwbl;
use crate::policies::dynamo::{Combine, Dynamo, Settings};
use crate::policies::fleet::{Fleet, Gauge};
use crate::policies::gaie::{Gaie, Weights, saturation};
use crate::policies::index::PrefixIndex;
use crate::policies::llmd::{Peak, Sticky};
use crate::policies::mooncake::Conductor;
use crate::policies::preble::{E2, Port};
use crate::policies::predicted::{Greedy, Predicted};
use crate::policies::rule::{Ask, Rule, Verdict};
use crate::policies::simple::{Count, Fewest, RoundRobin, TwoChoices};
use crate::policies::smg::{CacheAware, LeastLoad};
use crate::policies::work::{LMetric, Lpwl};
use crate::policies::{cache_index, gaie_index};

/// A fleet, what the index finds there, and the moment.
struct Scene {
    fleet: Fleet,
    index: PrefixIndex,
    hits: Vec<u32>,
    up: Vec<usize>,
    now: f64,
    sent: u64,
}

impl Scene {
    fn new(hits: &[u32]) -> Self {
        let engines = engines(hits.len());
        Self {
            fleet: Fleet::new(&engines),
            index: PrefixIndex::new(gaie_index(), &engines),
            hits: hits.to_vec(),
            up: (0..hits.len()).collect(),
            now: 0.0,
            sent: 1000,
        }
    }

    /// `count` jobs of `tokens` uncached tokens on an engine, prefilling or decoding.
    fn load(mut self, engine: usize, count: u32, tokens: u32, decoding: bool) -> Self {
        for _ in 0..count {
            let job = job(self.sent, self.sent, 0, tokens);
            self.sent += 1;
            self.fleet.send(self.now, &job, engine, 0);
            if decoding {
                self.fleet.first_token(self.now, job.id);
            }
        }
        self
    }

    fn gauges(mut self, gauges: &[(u32, f64)]) -> Self {
        for (view, &(waiting, kv_usage)) in self.fleet.engines.iter_mut().zip(gauges) {
            view.gauge = Some(Gauge {
                at: self.now,
                running: 0,
                waiting,
                kv_usage,
            });
        }
        self
    }

    fn ask<'a>(&'a self, job: &'a Job) -> Ask<'a> {
        Ask {
            now: self.now,
            job,
            fleet: &self.fleet,
            up: &self.up,
            index: Some(&self.index),
            hits: &self.hits,
        }
    }

    fn choose(&self, rule: &mut dyn Rule, job: &Job) -> Verdict {
        rule.choose(&self.ask(job), &mut ChaCha8Rng::seed_from_u64(1))
    }

    /// Chooses with many seeds: the engines that occur.
    fn all(&self, rule: &mut dyn Rule, job: &Job) -> Vec<usize> {
        let mut seen: Vec<usize> = (0..64)
            .filter_map(|seed| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                match rule.choose(&self.ask(job), &mut rng) {
                    Verdict::Send(engine) => Some(engine),
                    Verdict::Refuse => None,
                }
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }
}

const BLEND: Weights = Weights {
    prefix: 3.0,
    queue: 2.0,
    kv: 2.0,
    no_hit_lru: 0.0,
    lora: 0.0,
};

#[test]
fn gaie_blends_prefix_queue_and_kv() {
    // Prompt of ten 64-token blocks. Scores of 3*prefix + 2*queue + 2*(1 - kv) by hand.
    type Case = (&'static str, [u32; 3], [(u32, f64); 3], Vec<usize>);
    let cases: [Case; 6] = [
        ("all alike: anybody", [0; 3], [(0, 0.2); 3], vec![0, 1, 2]),
        (
            "least queue",
            [0; 3],
            [(4, 0.2), (2, 0.2), (3, 0.2)],
            vec![1],
        ),
        ("least KV", [0; 3], [(1, 0.5), (1, 0.6), (1, 0.4)], vec![2]),
        // 3 + 0 + 1 = 4 against 0 + 2 + 1.8 = 3.8
        (
            "a full match beats an empty queue",
            [640, 0, 0],
            [(9, 0.5), (0, 0.1), (9, 0.1)],
            vec![0],
        ),
        // 3 + 0 + .4 = 3.4 against 3.8
        (
            "but not with a full cache",
            [640, 0, 0],
            [(9, 0.8), (0, 0.1), (9, 0.1)],
            vec![1],
        ),
        // 1.5 + 2*(1/2) + 1 = 3.5; 0.9 + 2 + 1 = 3.9; 0 + 0 + 2 = 2
        (
            "half a match",
            [320, 192, 0],
            [(2, 0.5), (0, 0.5), (4, 0.0)],
            vec![1],
        ),
    ];
    for (what, hits, gauges, expected) in cases {
        let scene = Scene::new(&hits).gauges(&gauges);
        let picked = scene.all(&mut Gaie::new(BLEND, 3, true), &job(0, 0, 0, 640));
        assert_eq!(picked, expected, "{what}");
    }
}

#[test]
fn no_hit_lru_gives_cold_prompts_to_who_never_had_one_then_longest_ago() {
    let weights = Weights {
        no_hit_lru: 2.0,
        ..BLEND
    };
    let scene = Scene::new(&[0, 0, 0]).gauges(&[(0, 0.1); 3]);
    let mut rule = Gaie::new(weights, 3, true);
    let mut order = Vec::new();
    for id in 0..5 {
        let job = job(id, id, 0, 640);
        let Verdict::Send(engine) = scene.choose(&mut rule, &job) else {
            panic!("refused")
        };
        rule.sent(&scene.ask(&job), engine);
        order.push(engine);
    }
    assert_eq!(order, [0, 1, 2, 0, 1]);
    let warm = Scene::new(&[64, 64, 64]).gauges(&[(0, 0.1); 3]);
    assert_eq!(warm.all(&mut rule, &job(9, 9, 0, 640)), [0, 1, 2]);
}

#[test]
fn gaie_prefers_the_resident_adapter() {
    let weights = Weights { lora: 1.0, ..BLEND };
    let mut scene = Scene::new(&[0; 4]).gauges(&[(0, 0.1); 4]);
    for view in &mut scene.fleet.engines {
        view.config.lora.max_loras = 2;
        view.resident = vec![1, 2];
    }
    let mut job = job(0, 0, 0, 640);
    job.adapter = Some(7);
    let mut rule = Gaie::new(weights, 4, true);
    assert_eq!(scene.all(&mut rule, &job), [0, 1, 2, 3]);
    scene.fleet.engines[3].wanted = vec![7];
    assert_eq!(scene.all(&mut rule, &job), [3]);
    scene.fleet.engines[2].resident = vec![1];
    assert_eq!(scene.all(&mut rule, &job), [2]);
    scene.fleet.engines[1].resident = vec![1, 7];
    assert_eq!(scene.all(&mut rule, &job), [1]);
}

#[test]
fn gaie_refuses_only_the_sheddable_and_only_when_saturated() {
    let mut sheddable = job(0, 0, 0, 640);
    sheddable.priority = -1;
    // Means of max(q/5, kv/.8): (1.2 + .75)/2 = .975; (1.2 + .8125)/2 > 1.
    for (kv, refused) in [(0.6, false), (0.65, true)] {
        let scene = Scene::new(&[0, 0]).gauges(&[(6, 0.0), (0, kv)]);
        assert_eq!(saturation(&scene.fleet, 0.1) >= 1.0, refused);
        let mut rule = Gaie::new(BLEND, 2, true);
        let verdict = scene.choose(&mut rule, &sheddable);
        assert_eq!(verdict == Verdict::Refuse, refused, "{kv}");
        assert_ne!(scene.choose(&mut rule, &job(1, 1, 0, 640)), Verdict::Refuse);
    }
    let scene = Scene::new(&[0, 0]).gauges(&[(0, 0.0); 2]);
    assert!(saturation(&scene.fleet, 0.2) < 1.0);
    assert!(
        saturation(&scene.fleet, 0.21) >= 1.0,
        "old pages count as saturated"
    );
}

#[test]
fn llmd_sticks_from_eight_tenths_until_the_gap() {
    // (hits of 1000 tokens in 64s, pending tokens on engine 0, expected)
    let cases = [
        ([832, 0], 10_000, 0),
        ([768, 0], 10_000, 1),
        // 18 s at 15,928 tokens a second is 286,704 tokens.
        ([832, 0], 286_000, 0),
        ([832, 0], 287_000, 1),
    ];
    for (hits, pending, expected) in cases {
        let scene = Scene::new(&hits).load(0, 1, pending, false);
        let mut rule = Sticky {
            peak: Peak::Published,
            penalty_seconds: 18.0,
        };
        let picked = scene.choose(&mut rule, &job(0, 0, 0, 1000));
        assert_eq!(picked, Verdict::Send(expected), "{hits:?} {pending}");
    }
}

#[test]
fn smg_switches_to_the_shortest_queue_when_imbalanced() {
    let warm = job(0, 0, 0, 1000);
    // (in flight, hits, expected): imbalanced needs a difference above 32 and a ratio above 1.1.
    let cases = [
        ([32, 0], [640, 0], 0),
        ([33, 0], [640, 0], 1),
        ([433, 400], [640, 0], 0),
        ([3, 2], [448, 0], 1),
        ([3, 2], [512, 0], 0),
        ([2, 2], [0, 0], 0),
    ];
    for (loads, hits, expected) in cases {
        let scene = Scene::new(&hits)
            .load(0, loads[0], 100, true)
            .load(1, loads[1], 100, true);
        let mut rule = CacheAware::new(0.5, 32.0, 1.1, 2);
        let picked = scene.choose(&mut rule, &warm);
        assert_eq!(picked, Verdict::Send(expected), "{loads:?} {hits:?}");
    }
}

#[test]
fn least_load_counts_what_it_sent_since_the_poll() {
    let mut rule = LeastLoad::new(10.0, vec![2000.0; 2]);
    let mut scene = Scene::new(&[0, 0]);
    let long = job(0, 0, 0, 4000);
    for engine in 0..2 {
        let gauge = Gauge {
            at: 0.0,
            running: 0,
            waiting: engine as u32,
            kv_usage: 0.5,
        };
        rule.scraped(engine, gauge);
    }
    // 0 s against 1024/2000 s.
    assert_eq!(scene.choose(&mut rule, &long), Verdict::Send(0));
    rule.sent(&scene.ask(&long), 0);
    // 2 s against 0.5 s; a page in between two polls is not read.
    rule.scraped(
        0,
        Gauge {
            at: 5.0,
            running: 0,
            waiting: 0,
            kv_usage: 0.0,
        },
    );
    scene.now = 5.0;
    assert_eq!(scene.choose(&mut rule, &long), Verdict::Send(1));
    rule.scraped(
        0,
        Gauge {
            at: 10.0,
            running: 0,
            waiting: 0,
            kv_usage: 0.9,
        },
    );
    // 0.15*9 = 1.35 s of KV pressure against 0.512 + 0.15.
    scene.now = 10.0;
    assert_eq!(scene.choose(&mut rule, &long), Verdict::Send(1));
}

#[test]
fn chwbl_stays_home_up_to_the_bound_then_walks_on() {
    let mut rule = Chwbl::new(1.25, 4);
    let keyed = job(0, 42, 0, 100);
    let Verdict::Send(home) = Scene::new(&[0; 4]).choose(&mut rule, &keyed) else {
        panic!("refused")
    };
    let others = (0..4).filter(|&engine| engine != home);
    let mut scene = Scene::new(&[0; 4]);
    for engine in others {
        scene = scene.load(engine, 3, 100, true);
    }
    // Totals 12 and 13: bounds 1.25*13/4 = 4.06 and 1.25*15/4 = 4.69.
    let scene = scene.load(home, 4, 100, true);
    assert_eq!(scene.choose(&mut rule, &keyed), Verdict::Send(home));
    let scene = scene.load(home, 1, 100, true);
    assert_ne!(scene.choose(&mut rule, &keyed), Verdict::Send(home));
}

#[test]
fn chwbl_spreads_keys_and_moves_few_when_an_engine_joins() {
    let (four, five) = (&mut Chwbl::new(1.25, 4), &mut Chwbl::new(1.25, 5));
    let mut homes = [0; 4];
    let mut moved = 0;
    for message in 0..1000 {
        let keyed = job(0, message, 0, 100);
        let Verdict::Send(home) = Scene::new(&[0; 4]).choose(four, &keyed) else {
            panic!("refused")
        };
        homes[home] += 1;
        match Scene::new(&[0; 5]).choose(five, &keyed) {
            Verdict::Send(4) => moved += 1,
            stayed => assert_eq!(stayed, Verdict::Send(home)),
        }
    }
    assert!(homes.iter().all(|&keys| keys > 150), "{homes:?}");
    assert!((100..300).contains(&moved), "{moved}");
}

#[test]
fn lpwl_takes_the_least_pending_work_and_lmetric_weighs_the_batch() {
    // Pending 1000/400/0 and hits 896/0/0 of 1000: work 1104/1400/1000.
    let scene = Scene::new(&[896, 0, 0])
        .load(0, 1, 1000, false)
        .load(1, 1, 400, false);
    assert_eq!(
        scene.choose(&mut Lpwl, &job(0, 0, 0, 1000)),
        Verdict::Send(2)
    );
    // With three decodes on engine 2: 1104*2, 1400*2, 1000*4.
    let scene = scene.load(2, 3, 100, true);
    assert_eq!(
        scene.choose(&mut Lpwl, &job(0, 0, 0, 1000)),
        Verdict::Send(2)
    );
    assert_eq!(
        scene.choose(&mut LMetric, &job(0, 0, 0, 1000)),
        Verdict::Send(0)
    );
}

#[test]
fn counting_policies_count_what_they_say() {
    let scene = Scene::new(&[0, 0, 0])
        .load(0, 2, 100, true)
        .load(1, 1, 100, false)
        .load(2, 3, 100, true)
        .gauges(&[(5, 0.1), (6, 0.1), (4, 0.1)]);
    let any = job(0, 0, 0, 100);
    assert_eq!(scene.all(&mut Fewest(Count::Local), &any), [1]);
    assert_eq!(scene.all(&mut Fewest(Count::Scraped), &any), [2]);
    // Of two different ones the worst never wins.
    assert_eq!(scene.all(&mut TwoChoices(Count::Local), &any), [0, 1]);
    assert_eq!(scene.all(&mut TwoChoices(Count::Scraped), &any), [0, 2]);
    let mut turns = RoundRobin::default();
    let order: Vec<Verdict> = (0..4).map(|_| scene.choose(&mut turns, &any)).collect();
    assert_eq!(order, [0, 1, 2, 0].map(Verdict::Send));
}

#[test]
fn dynamo_counts_shared_blocks_once() {
    let settings = Settings {
        overlap_credit: 1.0,
        prefill_scale: 1.0,
        temperature: 0.0,
        combine: Combine::Sum,
    };
    let mut rule = Dynamo::new(settings, 2);
    let scene = Scene::new(&[0, 0]);
    // Engine 0 decodes four prompts of one 6400-token prefix, engine 1 two of their own: 400+40 against 2*410 blocks.
    for id in 0..4 {
        rule.sent(&scene.ask(&job(id, 1, 6400, 6560)), 0);
    }
    for id in 4..6 {
        rule.sent(&scene.ask(&job(id, id, 6560, 6560)), 1);
    }
    assert_eq!(
        scene.choose(&mut rule, &job(9, 9, 0, 640)),
        Verdict::Send(0)
    );
    // A hit of 3200 tokens is 200 blocks; engine 1 must still win back 380.
    let scene = Scene::new(&[0, 3200]);
    assert_eq!(
        scene.choose(&mut rule, &job(9, 9, 0, 6400)),
        Verdict::Send(0)
    );
    let scene = Scene::new(&[0, 6384]);
    assert_eq!(
        scene.choose(&mut rule, &job(9, 9, 0, 6400)),
        Verdict::Send(1)
    );
    let mut warm = Dynamo::new(
        Settings {
            temperature: 0.5,
            ..settings
        },
        2,
    );
    assert_eq!(scene.all(&mut warm, &job(9, 9, 0, 6400)), [0, 1]);
}

#[test]
fn aibrix_matches_within_deviations_and_balances_beyond_the_gate() {
    // (running, hits, expected) for the gate of 16 and two deviations.
    let cases = [
        ([4, 4, 4], [640, 128, 0], 0),
        ([16, 0, 0], [640, 0, 0], 0),
        ([17, 1, 0], [640, 0, 0], 2),
        ([5, 4, 3], [640, 640, 0], 1),
        ([5, 4, 3], [0, 0, 0], 2),
    ];
    for (loads, hits, expected) in cases {
        let scene = (0..3).fold(Scene::new(&hits), |scene, engine| {
            scene.load(engine, loads[engine], 100, true)
        });
        let mut rule = PrefixCache {
            gate: Gate::Difference(16.0),
            deviations: 2.0,
        };
        let picked = scene.choose(&mut rule, &job(0, 0, 0, 1000));
        assert_eq!(picked, Verdict::Send(expected), "{loads:?} {hits:?}");
    }
    // One deviation of 9/0/0 ends at 3 + 4.24: the owner is passed over, the other match taken.
    let scene = Scene::new(&[640, 64, 0]).load(0, 9, 100, true);
    let mut strict = PrefixCache {
        gate: Gate::Difference(16.0),
        deviations: 1.0,
    };
    assert_eq!(
        scene.choose(&mut strict, &job(0, 0, 0, 1000)),
        Verdict::Send(1)
    );
    // 9 > 2*(3 + 1) and 9 >= 8: only the least running may match.
    let mut main = PrefixCache {
        gate: Gate::Ratio(2.0),
        deviations: 2.0,
    };
    assert_eq!(
        scene.choose(&mut main, &job(0, 0, 0, 1000)),
        Verdict::Send(1)
    );
}

#[test]
fn e2_exploits_a_longer_half_and_explores_else() {
    let mut rule = E2::new(2);
    let scene = Scene::new(&[0, 0]);
    rule.sent(&scene.ask(&job(1, 1, 0, 8000)), 1);
    // Engine 0 holds 512 of 1000: exploit though nothing else speaks for it; 448: the lighter engine.
    let scene = Scene::new(&[512, 0]);
    rule.sent(&scene.ask(&job(2, 2, 0, 8000)), 0);
    assert_eq!(
        scene.choose(&mut rule, &job(0, 0, 0, 1000)),
        Verdict::Send(0)
    );
    rule.sent(&Scene::new(&[0, 0]).ask(&job(3, 3, 0, 2000)), 0);
    let scene = Scene::new(&[448, 0]);
    assert_eq!(
        scene.choose(&mut rule, &job(0, 0, 0, 1000)),
        Verdict::Send(1)
    );
    // Beyond 1.5 times the other's load the exploit goes to the lightest; after the window all is forgotten.
    rule.sent(&Scene::new(&[0, 0]).ask(&job(4, 4, 0, 8000)), 0);
    let mut scene = Scene::new(&[960, 0]);
    assert_eq!(
        scene.choose(&mut rule, &job(0, 0, 0, 1000)),
        Verdict::Send(1)
    );
    scene.now = 180.0;
    assert_eq!(
        scene.choose(&mut rule, &job(0, 0, 0, 1000)),
        Verdict::Send(0)
    );
}

#[test]
fn the_port_counts_requests_among_owners_and_cost_elsewhere() {
    let mut rule = Port::new(3);
    let cold = Scene::new(&[0, 0, 0]);
    // Engine 0: three short ones; engine 1: a long one; engine 2: two short ones.
    for (id, engine, tokens) in [
        (1, 0, 100),
        (2, 0, 100),
        (3, 0, 100),
        (4, 1, 60_000),
        (5, 2, 100),
        (6, 2, 100),
    ] {
        rule.sent(&cold.ask(&job(id, id, 0, tokens)), engine);
    }
    let owned = Scene::new(&[640, 640, 0]);
    assert_eq!(
        owned.choose(&mut rule, &job(0, 0, 0, 1000)),
        Verdict::Send(1)
    );
    assert_eq!(
        cold.choose(&mut rule, &job(0, 0, 0, 1000)),
        Verdict::Send(2)
    );
}

#[test]
fn prediction_prefers_the_soonest_first_token() {
    // 40,000 pending tokens are worse than computing 9,000.
    let scene = Scene::new(&[8960, 0]).load(0, 1, 40_000, false);
    let long = job(0, 0, 0, 9000);
    assert_eq!(scene.choose(&mut Greedy, &long), Verdict::Send(1));
    // 40,000 tokens are below the gate of 5 s, so the blend keeps to its prefix.
    assert_eq!(scene.choose(&mut Predicted, &long), Verdict::Send(0));
    let scene = scene.load(0, 1, 100_000, false);
    assert_eq!(scene.choose(&mut Predicted, &long), Verdict::Send(1));
    // No room: the wait for KV counts.
    let mut scene = Scene::new(&[64, 0])
        .load(0, 2, 1000, true)
        .load(1, 2, 1000, true)
        .gauges(&[(0, 1.0), (0, 0.2)]);
    scene.fleet.send(0.0, &job(7, 7, 0, 500), 0, 0);
    scene.fleet.finish(5.0, 7);
    scene.now = 5.0;
    assert_eq!(
        scene.choose(&mut Greedy, &job(0, 0, 0, 500)),
        Verdict::Send(1)
    );
}

#[test]
fn the_conductor_refuses_what_would_be_late() {
    let scene = Scene::new(&[512, 0]).load(0, 1, 1000, false);
    let mut rule = Conductor { refuses: true };
    let short = job(0, 0, 0, 600);
    assert_eq!(scene.choose(&mut rule, &short), Verdict::Send(1));
    // More than 30 s on each engine: 15 prompts of 40,000 tokens (about 2.4 s each).
    let scene = Scene::new(&[0, 0])
        .load(0, 15, 40_000, false)
        .load(1, 15, 40_000, false);
    assert_eq!(scene.choose(&mut rule, &short), Verdict::Refuse);
    rule.refuses = false;
    assert_ne!(scene.choose(&mut rule, &short), Verdict::Refuse);
}

#[test]
fn eviction_makes_a_full_engine_dearer() {
    let fleet = engines(2);
    let mut scene = Scene::new(&[0, 0]);
    scene.index = PrefixIndex::new(cache_index(64.0, false), &fleet);
    let mut rule = E2::new(2);
    // Both engines got equal work, and found a bit cached; engine 0's cache is full.
    scene.hits = vec![64, 64];
    for engine in 0..2 {
        rule.sent(&scene.ask(&job(1, 1, 0, 1000)), engine);
    }
    let huge = job(2, 2, 0, 40_000);
    for id in 0..8 {
        let filler = job(10 + id, 10 + id, 0, 40_000);
        scene.index.insert(0, &filler.blocks, filler.prompt_tokens);
    }
    scene.hits = vec![0, 0];
    assert_eq!(scene.all(&mut rule, &huge), [1]);
}

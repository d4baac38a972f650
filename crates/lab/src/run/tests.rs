//! A workload and a dispatcher small enough to reason about, and what must hold of every run.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use scheduling::{PolicyKind, SharedEvent};
use simulator::{BlockHash, EngineConfig, extend_chain, profiles};

use super::*;
use crate::product::{Product, ProductConfig};
use crate::{BLOCK_TOKENS, End, Job, Placed, Told};

/// Open loop: exponential gaps, prompts of one of `groups` shared prefixes and an end of their own.
pub(crate) struct Toy {
    pub(crate) rate: f64,
    pub(crate) groups: u64,
    pub(crate) shared_blocks: usize,
    pub(crate) own_blocks: usize,
    pub(crate) output: u32,
    rng: ChaCha8Rng,
    now: f64,
    id: u64,
}

impl Toy {
    pub(crate) fn new(rate: f64, groups: u64, shared_blocks: usize, seed: u64) -> Self {
        Self {
            rate,
            groups,
            shared_blocks,
            own_blocks: 8,
            output: 20,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 0.0,
            id: 0,
        }
    }
}

pub(crate) fn job(id: u64, at: f64, blocks: Vec<BlockHash>, output_tokens: u32) -> Job {
    Job {
        id,
        at,
        session: None,
        prompt_tokens: blocks.len() as u32 * BLOCK_TOKENS + 5,
        blocks: blocks.into(),
        output_tokens,
        max_output_tokens: None,
        adapter: None,
        priority: 0,
        flow: id % 3,
        first_message: id,
        warmup: false,
    }
}

impl Workload for Toy {
    fn next(&mut self) -> Option<Job> {
        let uniform: f64 = self.rng.random();
        self.now += -(1.0 - uniform).ln() / self.rate;
        let group = self.rng.random_range(0..self.groups);
        let mut chain = vec![BlockHash(group + 1)];
        extend_chain(&mut chain, self.shared_blocks, group);
        extend_chain(&mut chain, self.own_blocks, 1000 + self.id);
        self.id += 1;
        Some(job(self.id - 1, self.now, chain, self.output))
    }
}

/// A list of jobs, and one follow-up for each that ended.
pub(crate) struct List {
    jobs: std::vec::IntoIter<Job>,
    next_id: u64,
    pub(crate) follow_after: Option<f64>,
}

impl List {
    pub(crate) fn new(jobs: Vec<Job>) -> Self {
        Self {
            next_id: jobs.len() as u64,
            jobs: jobs.into_iter(),
            follow_after: None,
        }
    }
}

impl Workload for List {
    fn next(&mut self) -> Option<Job> {
        self.jobs.next()
    }
    fn finished(&mut self, ended: &Job, now: f64) -> Option<Job> {
        let think = self.follow_after.filter(|_| ended.session.is_none())?;
        self.next_id += 1;
        Some(Job {
            id: self.next_id - 1,
            at: now + think,
            session: Some(1),
            ..ended.clone()
        })
    }
}

/// Engines in turn, at once.
#[derive(Default)]
pub(crate) struct InTurn {
    engines: u32,
    turn: u32,
    due: Vec<Placed>,
    told: Arc<parking_lot::Mutex<Vec<(f64, Told)>>>,
}

impl Dispatcher for InTurn {
    fn arrive(&mut self, _now: f64, job: &Job) {
        let engine = self.turn % self.engines;
        self.turn += 1;
        self.due.push(Placed::To {
            job: job.id,
            engine,
        });
    }
    fn tell(&mut self, now: f64, told: Told) {
        self.told.lock().push((now, told));
    }
    fn next(&mut self, _now: f64) -> Option<Placed> {
        self.due.pop()
    }
}

pub(crate) fn in_turn(engines: u32) -> Vec<Box<dyn Dispatcher>> {
    vec![Box::new(InTurn {
        engines,
        ..InTurn::default()
    })]
}

pub(crate) fn engines(count: usize) -> Vec<EngineConfig> {
    vec![EngineConfig::for_model(&profiles::LLAMA_3_1_8B_H100); count]
}

pub(crate) fn short(count: usize, seed: u64) -> RunConfig {
    RunConfig {
        horizon: 20.0,
        warmup: 2.0,
        drain: 60.0,
        ..RunConfig::new(engines(count), seed)
    }
}

fn product(config: &RunConfig, policy: PolicyKind) -> Vec<Box<dyn Dispatcher>> {
    (0..config.gateways)
        .map(|gateway| -> Box<dyn Dispatcher> {
            let settings = ProductConfig::new(policy);
            Box::new(Product::new(settings, &config.engines, gateway as u64))
        })
        .collect()
}

fn p90(outcome: &RunOutcome) -> f64 {
    let mut ttft: Vec<f64> = outcome.jobs.iter().map(|job| job.ttft).collect();
    ttft.sort_by(f64::total_cmp);
    ttft[ttft.len() * 9 / 10]
}

#[test]
fn every_job_has_one_outcome() {
    for policy in [PolicyKind::ExpectedCost, PolicyKind::Random] {
        let mut config = short(3, 1);
        config.gateways = 2;
        config.warmup = 0.0;
        let dispatchers = product(&config, policy);
        let outcome = run(config, Box::new(Toy::new(30.0, 5, 40, 1)), dispatchers);
        let ids: BTreeSet<u64> = outcome.jobs.iter().map(|job| job.id).collect();
        assert_eq!(ids.len(), outcome.jobs.len());
        assert_eq!(ids.last().copied(), Some(ids.len() as u64 - 1));
        assert!(ids.len() > 500, "{}", ids.len());
        assert!(outcome.jobs.iter().all(|job| job.end == End::Finished));
        assert!(outcome.jobs.iter().all(|job| job.output_tokens == 20));
        assert_eq!(outcome.misplaced, 0);
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let once = |seed| {
        let mut config = short(3, seed);
        config.gateways = 2;
        let dispatchers = product(&config, PolicyKind::ExpectedCost);
        let mut outcome = run(config, Box::new(Toy::new(40.0, 5, 40, seed)), dispatchers);
        outcome.real_seconds = 0.0;
        serde_json::to_string(&outcome).unwrap()
    };
    assert_eq!(once(7), once(7));
    assert_ne!(once(7), once(8));
}

#[test]
fn the_network_is_crossed_twice_before_a_first_token() {
    let ttft = |delay| {
        let mut config = short(1, 1);
        (config.network_delay, config.step_noise, config.warmup) = (delay, 0.0, 0.0);
        let jobs = vec![job(0, 1.0, Vec::new(), 3)];
        run(config, Box::new(List::new(jobs)), in_turn(1)).jobs[0]
    };
    let (near, far) = (ttft(0.0), ttft(0.1));
    assert!((far.ttft - near.ttft - 0.2).abs() < 1e-9);
    assert!((far.e2e - near.e2e - 0.2).abs() < 1e-9);
    assert!((far.tpot - near.tpot).abs() < 1e-9);
    let profile = profiles::LLAMA_3_1_8B_H100.profile;
    let mut work = profiles::Work::default();
    work.prefill(0, 5);
    assert!((near.ttft - profile.step_seconds(&work)).abs() < 1e-9);
}

#[test]
fn round_robin_places_in_turn() {
    let config = short(4, 1);
    let dispatchers = product(&config, PolicyKind::RoundRobin);
    let outcome = run(config, Box::new(Toy::new(20.0, 5, 10, 1)), dispatchers);
    for pair in outcome.jobs.windows(2) {
        let next = pair[0].engine.map(|engine| (engine + 1) % 4);
        assert_eq!(pair[1].engine, next);
    }
}

#[test]
fn the_product_beats_round_robin_where_prefixes_are_shared() {
    let outcome = |policy| {
        let mut config = short(4, 3);
        config.horizon = 30.0;
        let dispatchers = product(&config, policy);
        // 30 prefixes of 16k tokens: one engine holds 26 of them.
        run(config, Box::new(Toy::new(12.0, 60, 1000, 3)), dispatchers)
    };
    let ours = outcome(PolicyKind::ExpectedCost);
    let theirs = outcome(PolicyKind::RoundRobin);
    assert!(
        p90(&ours) < 0.5 * p90(&theirs),
        "{} against {}",
        p90(&ours),
        p90(&theirs)
    );
}

#[test]
fn gateways_that_share_do_as_well_as_one() {
    let outcome = |gateways, sharing| {
        let mut config = short(4, 3);
        (config.gateways, config.sharing) = (gateways, sharing);
        (config.horizon, config.warmup) = (60.0, 20.0);
        let dispatchers = product(&config, PolicyKind::ExpectedCost);
        p90(&run(
            config,
            Box::new(Toy::new(12.0, 60, 1000, 3)),
            dispatchers,
        ))
    };
    let sharing = Sharing {
        period: 0.05,
        at_once: 0.005,
    };
    let (one, strangers, siblings) = (
        outcome(1, None),
        outcome(4, None),
        outcome(4, Some(sharing)),
    );
    // Strangers compute each prefix again and again; an engine holds 26 of the 60, the fleet all of them.
    assert!(strangers > 10.0 * one, "alone {one}, blind {strangers}");
    assert!(siblings < 1.1 * one, "alone {one}, sharing {siblings}");
}

#[test]
fn what_is_shared_arrives_at_the_others_late_and_in_order() {
    type Heard = Arc<parking_lot::Mutex<Vec<(f64, usize, Vec<SharedEvent>)>>>;
    /// Says one word for each job that comes, worth a tenth of a second.
    #[derive(Default)]
    struct Gossip(Vec<SharedEvent>, Heard, bool);
    impl Dispatcher for Gossip {
        fn arrive(&mut self, _now: f64, job: &Job) {
            self.0.push(SharedEvent::FirstToken { ticket: job.id });
        }
        fn tell(&mut self, _now: f64, _told: Told) {}
        fn next(&mut self, _now: f64) -> Option<Placed> {
            None
        }
        fn share(&mut self, on: bool) {
            self.2 = on;
        }
        fn shared(&mut self, into: &mut Vec<SharedEvent>) {
            into.append(&mut self.0);
        }
        fn unshared_seconds(&self) -> f64 {
            assert!(self.2, "told to share before anything else");
            self.0.len() as f64 * 0.1
        }
        fn hear(&mut self, now: f64, gateway: usize, events: &[SharedEvent]) {
            self.1.lock().push((now, gateway, events.to_vec()));
        }
    }
    let heard = |at_once: f64| {
        let mut config = short(1, 1);
        (config.gateways, config.network_delay, config.drain) = (2, 0.25, 1.0);
        let period = 4.0;
        config.sharing = Some(Sharing { period, at_once });
        let heard: [Heard; 2] = Default::default();
        let gossips = heard.iter().map(|it| -> Box<dyn Dispatcher> {
            Box::new(Gossip(Vec::new(), Arc::clone(it), false))
        });
        let jobs = (0..40)
            .map(|id| job(id, id as f64 * 0.1, Vec::new(), 1))
            .collect();
        let outcome = run(config, Box::new(List::new(jobs)), gossips.collect());
        assert_eq!(outcome.misplaced, 0);
        heard.map(|it| std::mem::take(&mut *it.lock()))
    };
    // By the period: the first gateway at 1 s and 5 s, the second at 3 s and 7 s.
    let by_period = heard(1e9);
    for (own, all) in by_period.iter().enumerate() {
        let times: Vec<f64> = all.iter().map(|(at, ..)| *at).collect();
        let expected = if own == 0 { [3.25, 7.25] } else { [1.25, 5.25] };
        assert_eq!(times, expected);
        assert!(all.iter().all(|(_, from, _)| *from == 1 - own));
    }
    // At once after each fourth word.
    let at_once = heard(0.35);
    for all in &at_once {
        let sizes: Vec<usize> = all.iter().map(|(.., events)| events.len()).collect();
        assert!(
            sizes.contains(&4) && sizes.iter().all(|&it| it <= 4),
            "{sizes:?}"
        );
    }
    for all in by_period.iter().zip(&at_once) {
        let words = |all: &[(f64, usize, Vec<SharedEvent>)]| -> Vec<SharedEvent> {
            all.iter().flat_map(|(.., events)| events.clone()).collect()
        };
        assert_eq!(words(all.0), words(all.1));
    }
}

#[test]
fn answers_make_the_next_job_of_a_closed_loop() {
    let mut list = List::new(vec![job(0, 1.0, Vec::new(), 3), job(1, 2.0, Vec::new(), 3)]);
    list.follow_after = Some(5.0);
    let mut config = short(1, 1);
    config.warmup = 0.0;
    let outcome = run(config, Box::new(list), in_turn(1));
    assert_eq!(outcome.jobs.len(), 4);
    let first = outcome.jobs[0];
    assert!((outcome.jobs[2].at - (first.at + first.e2e + 5.0)).abs() < 1e-9);
}

#[test]
fn nonsense_is_counted_and_loses_nothing() {
    struct Mad(u64);
    impl Dispatcher for Mad {
        fn arrive(&mut self, _now: f64, job: &Job) {
            self.0 = job.id;
        }
        fn tell(&mut self, _now: f64, _told: Told) {}
        fn next(&mut self, _now: f64) -> Option<Placed> {
            Some(Placed::To {
                job: self.0,
                engine: if self.0 == 1 { 0 } else { 77 },
            })
        }
        fn wake_at(&self) -> Option<f64> {
            Some(f64::NAN)
        }
    }
    let jobs = (0..3).map(|id| job(id, f64::NAN, Vec::new(), 2)).collect();
    let mut config = short(1, 1);
    config.warmup = 0.0;
    let outcome = run(config, Box::new(List::new(jobs)), vec![Box::new(Mad(0))]);
    let ends: Vec<End> = outcome.jobs.iter().map(|job| job.end).collect();
    assert_eq!(ends, [End::Shed, End::Finished, End::Shed]);
    assert!(outcome.misplaced > 2);
}

#[test]
fn a_job_that_no_engine_can_hold_is_refused_and_told() {
    let mut config = short(1, 1);
    (config.warmup, config.scrape) = (0.0, None);
    let mut long = job(0, 0.0, Vec::new(), 2);
    long.prompt_tokens = 10_000_000;
    let dispatchers = product(&config, PolicyKind::ExpectedCost);
    let outcome = run(
        config,
        Box::new(List::new(vec![long, job(1, 1.0, Vec::new(), 2)])),
        dispatchers,
    );
    assert_eq!(outcome.jobs[0].end, End::Shed);
    assert_eq!(outcome.jobs[1].end, End::Finished);
}

#[test]
fn dispatchers_hear_late_what_crosses_the_network() {
    let told = Arc::default();
    let spy = InTurn {
        engines: 1,
        told: Arc::clone(&told),
        ..InTurn::default()
    };
    let mut config = short(1, 1);
    (config.network_delay, config.warmup) = (0.25, 0.0);
    config.scrape = Some(Scrape {
        period: 1.0,
        delay: 0.1,
    });
    let jobs = vec![job(0, 0.0, Vec::new(), 40)];
    let outcome = run(config, Box::new(List::new(jobs)), vec![Box::new(spy)]);
    let told = told.lock();
    let at = |wanted: fn(&Told) -> bool| -> Vec<f64> {
        let heard = told.iter().filter(|(_, told)| wanted(told));
        heard.map(|(at, _)| *at).collect()
    };
    assert_eq!(
        at(|told| matches!(told, Told::FirstToken { .. })),
        [outcome.jobs[0].ttft]
    );
    assert!(outcome.jobs[0].ttft > 0.5);
    assert_eq!(at(|told| matches!(told, Told::Scraped { .. }))[0], 0.6);
    // 39 tokens after the first: two reports of 16, and the rest.
    assert_eq!(at(|told| matches!(told, Told::Progress { .. })).len(), 3);
}

mod weather;

//! Whatever happens, each job ends once, and equal seeds give equal bytes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{ChangeKind, EngineChange, PageFault, PageWeather, policies};

fn dispatchers(policy: &str, config: &RunConfig) -> Vec<Box<dyn Dispatcher>> {
    (0..config.gateways as u64)
        .map(|gateway| match policy {
            "pointsman" => {
                let settings = ProductConfig::new(PolicyKind::ExpectedCost);
                Box::new(Product::new(settings, &config.engines, gateway))
            }
            name => policies::build(name, &config.engines, gateway).unwrap(),
        })
        .collect()
}

fn stormy(policy: &str, weather: Weather, seed: u64) -> RunOutcome {
    stormy_among(5, policy, weather, seed)
}

/// The same with prompts of so many groups.
fn stormy_among(groups: u64, policy: &str, weather: Weather, seed: u64) -> RunOutcome {
    let mut config = short(3, seed);
    (config.horizon, config.drain, config.warmup) = (6.0, 20.0, 0.0);
    (config.gateways, config.weather) = (2, weather);
    let dispatchers = dispatchers(policy, &config);
    let mut outcome = run(
        config,
        Box::new(Toy::new(30.0, groups, 40, seed)),
        dispatchers,
    );
    outcome.real_seconds = 0.0;
    outcome
}

/// Every id from 0 on, once.
fn each_once(outcome: &RunOutcome) {
    let ids: BTreeSet<u64> = outcome.jobs.iter().map(|job| job.id).collect();
    assert_eq!(ids.len(), outcome.jobs.len());
    assert_eq!(ids.last().map(|it| it + 1), Some(ids.len() as u64));
    for job in &outcome.jobs {
        let whole = job.end == End::Finished;
        assert!(!whole || job.output_tokens == 20, "{job:?}");
        assert!(job.ttft >= 0.0 && job.ttft <= job.e2e + 1e-9, "{job:?}");
    }
}

fn ends(outcome: &RunOutcome, end: End) -> usize {
    outcome.jobs.iter().filter(|it| it.end == end).count()
}

prop_compose! {
    fn any_weather()(
        changes in prop::collection::vec((0.0..8.0_f64, prop::option::of(0_usize..4), 0..3_u8), 0..6),
        pages in prop::collection::vec((0.0..6.0_f64, 0.1..6.0_f64, 0..5_u8), 0..3),
        jitter in prop::sample::select(vec![0.0, 0.5, 2.0]),
        shares in prop::sample::select(vec![(0.0, 0.0), (0.3, 0.0), (0.0, 0.05), (1.0, 0.2)]),
        discovery in prop::sample::select(vec![0.0, 0.3, 3.0]),
    ) -> Weather {
        let changes = changes.into_iter().map(|(at, engine, kind)| EngineChange {
            at,
            engine,
            kind: [ChangeKind::Loss, ChangeKind::Join, ChangeKind::Slow(4.0)][usize::from(kind)],
        });
        let pages = pages.into_iter().map(|(from, length, fault)| PageWeather {
            from,
            until: from + length,
            engines: Some(vec![0, 2]),
            fault: [
                PageFault::Vanish,
                PageFault::Freeze,
                PageFault::Late(2.0),
                PageFault::Jump(10.0),
                PageFault::Lie(10.0),
            ][usize::from(fault)],
        });
        Weather {
            network_jitter: jitter,
            pages: pages.collect(),
            changes: changes.collect(),
            discovery,
            unstreamed: shares.0,
            lost: shares.1,
            first_byte: 5.0,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_job_is_lost_or_run_twice(weather in any_weather(), seed in 0_u64..100, policy in
        prop::sample::select(vec!["pointsman", "round-robin", "chwbl", "gaie-flow-control", "llm-d-sticky", "dynamo-t0.5", "preble-e2", "p2c"]))
    {
        let once = stormy(policy, weather.clone(), seed);
        each_once(&once);
        prop_assert_eq!(once.misplaced, 0);
        let again = stormy(policy, weather, seed);
        prop_assert_eq!(serde_json::to_string(&once).unwrap(), serde_json::to_string(&again).unwrap());
    }
}

#[test]
fn every_policy_gets_through_every_preset_and_a_loss() {
    let mut texts = vec!["zero@1-2".to_owned(), "loss=1@2,join=1@4".to_owned()];
    // The presets, a hundred times as early.
    texts.extend(Weather::PRESETS.iter().map(|(_, text, _)| {
        text.replace("@150-", "@1.5-")
            .replace("@200", "@2")
            .replace("@300", "@3")
    }));
    for policy in policies::names().iter().copied().chain(["pointsman"]) {
        for text in &texts {
            let outcome = stormy(policy, Weather::parse(text).unwrap(), 1);
            each_once(&outcome);
            assert_eq!(outcome.misplaced, 0, "{policy} {text}");
            if policy == "pointsman" && !text.contains("loss") && !text.contains("zero") {
                assert_eq!(ends(&outcome, End::Finished), outcome.jobs.len(), "{text}");
            }
        }
    }
}

#[test]
fn a_lost_engine_fails_what_had_begun_and_others_take_the_rest() {
    for policy in ["pointsman", "least-request", "gaie"] {
        let outcome = stormy(policy, Weather::parse("loss=1@3").unwrap(), 1);
        let failed = ends(&outcome, End::Failed);
        assert!(failed < 40, "{policy}: {failed}");
        assert!(outcome.dead_picks + outcome.retries > 0, "{policy}");
        assert_eq!(ends(&outcome, End::Shed), 0, "{policy}");
        let late = outcome.jobs.iter().filter(|job| job.at > 4.1);
        assert!(late.clone().count() > 20);
        assert!(
            late.clone()
                .all(|job| job.engine != Some(1) && job.end == End::Finished),
            "{policy}"
        );
    }
}

#[test]
fn an_engine_that_joins_is_used() {
    for policy in ["pointsman", "round-robin", "least-request"] {
        // Prompts that nobody has: those that somebody has may well stay where they are under so light a load.
        let outcome = stormy_among(1_000, policy, Weather::parse("join=2@3").unwrap(), 1);
        let at_2 = |job: &&crate::JobOutcome| job.engine == Some(2);
        let first = outcome.jobs.iter().filter(at_2).map(|job| job.at);
        let first = first.fold(f64::INFINITY, f64::min);
        assert!(first > 3.0 && first < 6.0, "{policy}: {first}");
        assert_eq!(ends(&outcome, End::Finished), outcome.jobs.len());
    }
}

#[test]
fn a_fleet_that_is_all_gone_serves_again_when_it_is_back() {
    let outcome = stormy("pointsman", Weather::parse("zero@2-3").unwrap(), 1);
    let late = outcome.jobs.iter().filter(|job| job.at > 4.5);
    assert!(late.clone().count() > 20);
    assert!(late.clone().all(|job| job.end == End::Finished));
}

#[test]
fn no_engines_at_all_is_no_reason_to_hang() {
    let mut config = short(0, 1);
    (config.horizon, config.drain, config.warmup) = (3.0, 5.0, 0.0);
    for policy in ["pointsman", "random", "gaie-flow-control"] {
        let dispatchers = dispatchers(policy, &config);
        let jobs = Box::new(Toy::new(10.0, 5, 4, 1));
        let outcome = run(config.clone(), jobs, dispatchers);
        each_once(&outcome);
        assert_eq!(ends(&outcome, End::Finished), 0);
    }
}

#[test]
fn silence_ends_at_the_deadline_and_gives_the_charge_back() {
    let weather = Weather::parse("lost=1,first-byte=2").unwrap();
    let outcome = stormy("pointsman", weather, 1);
    assert_eq!(ends(&outcome, End::Failed), outcome.jobs.len());
    assert!(outcome.jobs.iter().all(|job| job.output_tokens == 0));
}

#[test]
fn a_slow_engine_takes_longer_and_pages_lie() {
    let engine_p50 = |text: &str| {
        let outcome = stormy("round-robin", Weather::parse(text).unwrap(), 1);
        let mut e2e: Vec<f64> = outcome
            .jobs
            .iter()
            .filter(|job| job.engine == Some(0))
            .map(|job| job.e2e)
            .collect();
        e2e.sort_by(f64::total_cmp);
        e2e[e2e.len() / 2]
    };
    assert!(engine_p50("slow=0x5@0") > 3.0 * engine_p50(""));

    let pages = |text: &str| {
        let told = Arc::default();
        let spy = InTurn {
            engines: 3,
            told: Arc::clone(&told),
            ..InTurn::default()
        };
        let mut config = short(3, 1);
        (config.horizon, config.drain) = (6.0, 20.0);
        config.weather = Weather::parse(text).unwrap();
        let _ = run(
            config,
            Box::new(Toy::new(30.0, 5, 40, 1)),
            vec![Box::new(spy)],
        );
        let told = told.lock();
        let seen = told.iter().filter_map(|(at, told)| match told {
            Told::Scraped { running, .. } => Some((*at, *running)),
            _ => None,
        });
        seen.collect::<Vec<(f64, u32)>>()
    };
    let (calm, lying) = (pages(""), pages("lie=10@0-"));
    assert_eq!(calm.len(), lying.len());
    assert!(calm.iter().zip(&lying).all(|(a, b)| b.1 == 10 * a.1));
    assert!(pages("vanish@2-").iter().all(|(at, _)| *at < 2.1));
    let frozen = pages("freeze@2-");
    let late: BTreeSet<u32> = frozen
        .iter()
        .filter(|(at, _)| *at > 2.2)
        .map(|(_, running)| *running)
        .collect();
    assert!(late.len() <= 3, "one value for each engine: {late:?}");
}

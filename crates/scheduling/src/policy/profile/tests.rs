use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::adapters::AdapterState;
use crate::config::Prices;
use crate::profile::Coefficients;
use crate::request::Request;
use crate::time::Time;

fn facts(index: u32) -> Facts {
    Facts {
        endpoint: EndpointId {
            index,
            generation: 0,
        },
        open: true,
        coefficients: Coefficients::default(),
        max_batched_tokens: 8192.0,
        max_seqs: 256.0,
        hit_tokens: 0.0,
        shared_tokens: 0.0,
        in_flight: 0,
        sequences: 0.0,
        decodes: 0.0,
        context_tokens: 0.0,
        pending_tokens: 0.0,
        pending_seconds: 0.0,
        silent_seconds: 0.0,
        others_seconds: 0.0,
        kv_used: 0.0,
        kv_capacity: 400_000.0,
        waiting: 0.0,
        adapter: AdapterState::Free,
        adapter_seconds: 0.0,
        health_seconds: 0.0,
        last_dispatch: 0,
        last_cold: 0,
        cold_level: 0.0,
    }
}

fn situation<'a>(request: &'a Request, candidates: &'a [Facts], salt: u64) -> Situation<'a> {
    Situation {
        now: Time::ZERO,
        request,
        prompt_tokens: 4000.0,
        output_tokens: 200.0,
        theta: 0.0,
        expected_reuse: 1.0,
        prices: Prices::default(),
        salt,
        candidates,
    }
}

/// Candidates 0, 1, .. as `set` makes them of numbers.
fn with<const N: usize>(numbers: [f64; N], set: impl Fn(&mut Facts, f64)) -> Vec<Facts> {
    (0..N)
        .map(|at| {
            let mut it = facts(at as u32);
            set(&mut it, numbers[at]);
            it
        })
        .collect()
}

fn scores(scorer: &Scorer, candidates: &[Facts]) -> Vec<f64> {
    let request = Request::default();
    let all: Vec<usize> = (0..candidates.len()).collect();
    scorer.scores(&situation(&request, candidates, 1), &all, &Book::default())
}

fn assert_near(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (a, b) in got.iter().zip(expected) {
        assert!((a - b).abs() < 1e-9, "{got:?} is not {expected:?}");
    }
}

fn waiting(it: &mut Facts, n: f64) {
    it.waiting = n;
}

#[test]
fn scorers_of_load_follow_their_formulas() {
    let queue = |of: [f64; 3]| scores(&Scorer::Queue, &with(of, waiting));
    assert_near(&queue([0.0, 5.0, 10.0]), &[1.0, 0.5, 0.0]);
    assert_near(&queue([3.0, 3.0, 3.0]), &[1.0, 1.0, 1.0]);

    let candidates = with([2.0, 4.0, 10.0], |it, n| it.sequences = n);
    assert_near(&scores(&Scorer::Running, &candidates), &[1.0, 0.75, 0.0]);
    let candidates = with([0.0, 100_000.0, 500_000.0], |it, n| it.kv_used = n);
    assert_near(&scores(&Scorer::KvUsage, &candidates), &[1.0, 0.75, 0.0]);

    let scorer = Scorer::LoadAware { threshold: 128.0 };
    let candidates = with([0.0, 32.0, 500.0], waiting);
    assert_near(&scores(&scorer, &candidates), &[0.5, 0.375, 0.0]);

    let scorer = Scorer::ActiveRequests {
        idle: 1.0,
        busy: 0.5,
    };
    let candidates = with([1.0, 5.0, 10.0], |it, n| it.in_flight = n as u32);
    assert_near(&scores(&scorer, &candidates), &[1.0, 0.25, 0.0]);
    let idle = with([0.0, 0.0], |it, n| it.in_flight = n as u32);
    assert_near(&scores(&scorer, &idle), &[1.0, 1.0]);

    // 4000 tokens of prompt; the second has 1000 of them.
    let scorer = Scorer::TokenLoad {
        threshold: 10_000.0,
    };
    let mut candidates = with([0.0, 2000.0, 9000.0], |it, n| it.pending_tokens = n);
    candidates[1].hit_tokens = 1000.0;
    assert_near(&scores(&scorer, &candidates), &[0.6, 0.5, 0.0]);
}

#[test]
fn scorers_of_the_prompt_follow_their_formulas() {
    let candidates = with([0.0, 1000.0, 4000.0], |it, n| it.hit_tokens = n);
    let share = Scorer::Prefix {
        length_weight: 0.0,
        length_scale: 8192.0,
    };
    assert_near(&scores(&share, &candidates), &[0.0, 0.25, 1.0]);
    let length = Scorer::Prefix {
        length_weight: 0.5,
        length_scale: 2000.0,
    };
    // 0.5 * (1000/2000)^2 + 0.5 * 0.25
    assert_near(&scores(&length, &candidates), &[0.0, 0.25, 1.0]);
    assert_near(&scores(&Scorer::NoHitLru, &candidates), &[0.5, 0.5, 0.5]);

    let states = [
        (AdapterState::Resident, 1.0),
        (AdapterState::Free, 0.8),
        (AdapterState::Loading, 0.6),
        (AdapterState::Full, 0.0),
    ];
    let turns = with([7.0, 0.0, 3.0], |it, n| it.last_cold = n as u64);
    assert_near(&scores(&Scorer::NoHitLru, &turns), &[0.0, 1.0, 0.5]);
    for (state, score) in states {
        let candidates = with([0.0], |it, _| it.adapter = state);
        assert_near(&scores(&Scorer::Lora, &candidates), &[score]);
    }
}

#[test]
fn the_length_of_the_prompt_is_held_against_the_range_of_the_label() {
    let scorer = Scorer::ContextLength {
        label: "range".to_owned(),
    };
    let candidates = with([0.0; 4], |_, _| {});
    let mut book = Book::default();
    for (at, range) in ["0-8000", "5000-9000", "nonsense"].iter().enumerate() {
        let labels = Labels::from([("range".to_owned(), (*range).to_owned())]);
        book.set(candidates[at].endpoint, &Arc::new(labels));
    }
    let request = Request::default();
    let all = [0, 1, 2, 3];
    let scores = scorer.scores(&situation(&request, &candidates, 1), &all, &book);
    let within = 0.3 + 0.7 * (0.7 / 1.8 + 0.3 * 0.5);
    assert_near(&scores, &[within, 0.3 / 2.0, 0.5, 0.5]);
}

fn latency(most: bool) -> Scorer {
    Scorer::Latency(Headroom {
        ttft: 0.8,
        tpot: 0.2,
        most,
    })
}

#[test]
fn latency_takes_the_best_fit_of_those_that_meet_the_target() {
    let request = Request {
        due: Some(Time::ZERO + Duration::from_secs(2)),
        ..Request::default()
    };
    // The last one needs some five seconds.
    let candidates = with([0.0, 0.5, 1.0, 5.0], |it, n| it.pending_seconds = n);
    let all = [0, 1, 2, 3];
    let it = situation(&request, &candidates, 1);
    let book = Book::default();
    // All decode alike, so all weight is on the first token.
    assert_near(
        &latency(false).scores(&it, &all, &book),
        &[0.0, 0.5, 1.0, 0.0],
    );
    assert_near(
        &latency(true).scores(&it, &all, &book),
        &[1.0, 0.5, 0.0, 0.0],
    );
}

#[test]
fn latency_without_a_target_takes_the_fastest() {
    let candidates = with([0.0, 1.0, 4.0], |it, n| it.pending_seconds = n);
    for most in [false, true] {
        assert_near(&scores(&latency(most), &candidates), &[1.0, 0.75, 0.0]);
    }
}

fn kept(filter: &Filter, candidates: &[Facts], book: &Book) -> Vec<usize> {
    let request = Request::default();
    let all: Vec<usize> = (0..candidates.len()).collect();
    filter.keep(&situation(&request, candidates, 1), all, book, 0)
}

fn affinity(penalty: f64) -> Filter {
    Filter::PrefixAffinity {
        threshold: 0.8,
        exploration: 0.0,
        penalty,
        throughput: Some(1000.0),
    }
}

#[test]
fn prefix_affinity_holds_until_the_penalty() {
    let none = Book::default();
    let mut candidates = with([4000.0, 3200.0, 3100.0], |it, n| it.hit_tokens = n);
    assert_eq!(kept(&affinity(18.0), &candidates, &none), [0, 1]);
    // Both that have it are 18 seconds behind, then a little more.
    candidates[0].pending_tokens = 18_000.0;
    candidates[1].pending_tokens = 18_000.0;
    assert_eq!(kept(&affinity(18.0), &candidates, &none), [0, 1]);
    candidates[0].pending_tokens = 18_001.0;
    assert_eq!(kept(&affinity(18.0), &candidates, &none), [0, 1]);
    candidates[1].pending_tokens = 18_001.0;
    assert_eq!(kept(&affinity(18.0), &candidates, &none), [0, 1, 2]);
    assert_eq!(kept(&affinity(0.0), &candidates, &none), [0, 1]);
    let cold = with([0.0, 0.0], |it, n| it.hit_tokens = n);
    assert_eq!(kept(&affinity(18.0), &cold, &none), [0, 1]);
    let always = Filter::PrefixAffinity {
        threshold: 0.8,
        exploration: 1.0,
        penalty: 0.0,
        throughput: None,
    };
    assert_eq!(kept(&always, &candidates, &none), [0, 1, 2]);
}

#[test]
fn limits_keep_who_is_under_them() {
    let limit = |most, strict| Limit {
        gauge: Gauge::Waiting,
        most,
        strict,
    };
    let candidates = with([4.0, 5.0, 6.0], waiting);
    let none = Book::default();
    for (most, strict, or_all, expected) in [
        (5.0, false, false, vec![0, 1]),
        (5.0, true, false, vec![0]),
        (3.0, false, false, vec![]),
        (3.0, false, true, vec![0, 1, 2]),
    ] {
        let filter = Filter::Utilization {
            limits: vec![limit(most, strict)],
            or_all,
        };
        assert_eq!(
            kept(&filter, &candidates, &none),
            expected,
            "{most} {strict} {or_all}"
        );
    }
}

#[test]
fn labels_are_matched_as_selectors_are() {
    let candidates = with([0.0; 3], |_, _| {});
    let mut book = Book::default();
    for (at, role) in ["prefill", "decode"].iter().enumerate() {
        let labels = Labels::from([("role".to_owned(), (*role).to_owned())]);
        book.set(candidates[at].endpoint, &Arc::new(labels));
    }
    let (key, values) = ("role".to_owned(), vec!["decode".to_owned()]);
    let within = |or_absent| Requirement::In {
        key: key.clone(),
        values: values.clone(),
        or_absent,
    };
    let not = Requirement::NotIn {
        key: key.clone(),
        values: values.clone(),
    };
    for (requirement, expected) in [
        (within(false), vec![1]),
        (within(true), vec![1, 2]),
        (not, vec![0, 2]),
        (Requirement::Exists(key.clone()), vec![0, 1]),
        (Requirement::Absent(key.clone()), vec![2]),
    ] {
        let filter = Filter::Labels(vec![requirement.clone()]);
        assert_eq!(
            kept(&filter, &candidates, &book),
            expected,
            "{requirement:?}"
        );
    }
    // An index that is used again by another endpoint does not keep its labels.
    let mut reused = candidates.clone();
    reused[1].endpoint.generation = 1;
    let filter = Filter::Labels(vec![within(false)]);
    assert_eq!(kept(&filter, &reused, &book), Vec::<usize>::new());
}

fn order(profile: Profile, candidates: &[Facts], salt: u64) -> Vec<usize> {
    let request = Request::default();
    let mut ranking = Ranking::default();
    let policy = ProfilePolicy::new(Arc::new(profile));
    policy.rank(&situation(&request, candidates, salt), &mut ranking);
    assert_eq!(ranking.costs.len(), candidates.len());
    ranking.order.to_vec()
}

#[test]
fn the_default_weights_decide_by_the_weighted_sum() {
    let profile = Profile {
        scorers: vec![
            (Scorer::Queue, 2.0),
            (Scorer::KvUsage, 2.0),
            (
                Scorer::Prefix {
                    length_weight: 0.0,
                    length_scale: 8192.0,
                },
                3.0,
            ),
        ],
        ..Profile::default()
    };
    let mut candidates = with([0.0, 10.0, 5.0], waiting);
    candidates[1].hit_tokens = 4000.0;
    candidates[2].hit_tokens = 1000.0;
    // 2 + 2 + 0, 0 + 2 + 3, 1 + 2 + 0.75
    assert_eq!(order(profile.clone(), &candidates, 1), [1, 0, 2]);
    candidates[1].kv_used = 400_000.0;
    assert_eq!(order(profile.clone(), &candidates, 1), [0, 2, 1]);
    let filter = Filter::Utilization {
        limits: vec![Limit {
            gauge: Gauge::Waiting,
            most: 5.0,
            strict: true,
        }],
        or_all: true,
    };
    let profile = Profile {
        filters: vec![filter],
        ..profile
    };
    assert_eq!(order(profile, &candidates, 1), [0]);
}

#[test]
fn the_weighted_picker_draws_in_proportion() {
    let profile = Profile {
        scorers: vec![(Scorer::LoadAware { threshold: 100.0 }, 1.0)],
        picker: Picker::WeightedRandom,
        ..Profile::default()
    };
    // Scores 0.4, 0.1 and 0.
    let candidates = with([20.0, 80.0, 100.0], waiting);
    let mut first = [0; 3];
    for salt in 0..4000_u64 {
        let salt = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        first[order(profile.clone(), &candidates, salt)[0]] += 1;
    }
    assert!((3080..3320).contains(&first[0]), "{first:?}");
    assert_eq!(first[2], 0, "no score, no chance beside those with one");
}

fn any_scorer() -> impl Strategy<Value = Scorer> {
    prop_oneof![
        Just(Scorer::Queue),
        Just(Scorer::Running),
        Just(Scorer::KvUsage),
        Just(Scorer::NoHitLru),
        Just(Scorer::Lora),
        any::<bool>().prop_map(latency),
        (1.0..1e7).prop_map(|threshold| Scorer::TokenLoad { threshold }),
        (1.0..200.0).prop_map(|threshold| Scorer::LoadAware { threshold }),
        (0.0..3.0, 0.0..=1.0).prop_map(|(idle, busy)| Scorer::ActiveRequests { idle, busy }),
        (0.0..=1.0, 1.0..1e5).prop_map(|(length_weight, length_scale)| Scorer::Prefix {
            length_weight,
            length_scale
        }),
    ]
}

proptest! {
    /// Scores are from 0 to 1, and who was filtered away is never named.
    #[test]
    fn scores_are_bounded_and_choices_are_candidates(
        scorer in any_scorer(),
        loads in prop::collection::vec((0..300_u32, 0.0..1e6, 0.0..1.0), 1..12),
        most in 0.0..200.0,
        salt: u64,
        picker in prop_oneof![Just(Picker::MaxScore), Just(Picker::Random), Just(Picker::WeightedRandom)],
    ) {
        let candidates: Vec<Facts> = loads.iter().enumerate().map(|(at, &(n, tokens, share))| Facts {
            waiting: f64::from(n),
            in_flight: n,
            sequences: f64::from(n),
            kv_used: tokens,
            pending_tokens: tokens,
            hit_tokens: share * 4000.0,
            ..facts(at as u32)
        }).collect();
        for score in scores(&scorer, &candidates) {
            prop_assert!((0.0..=1.0).contains(&score), "{score}");
        }
        let limit = Limit { gauge: Gauge::Waiting, most, strict: false };
        let profile = Profile {
            filters: vec![Filter::Utilization { limits: vec![limit], or_all: false }],
            scorers: vec![(scorer, 1.0)],
            picker,
        };
        let order = order(profile, &candidates, salt);
        let fine = candidates.iter().filter(|it| it.waiting <= most).count();
        prop_assert_eq!(order.len(), fine.min(NAMED));
        for at in order {
            prop_assert!(candidates[at].waiting <= most);
        }
    }
}

use super::*;
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
        adapter: crate::adapters::AdapterState::Free,
        adapter_seconds: 0.0,
        health_seconds: 0.0,
        last_dispatch: 0,
        last_cold: 0,
        cold_level: 0.0,
    }
}

fn order(policy: &dyn Policy, candidates: &[Facts], salt: u64) -> Vec<usize> {
    let request = Request::default();
    let situation = Situation {
        now: Time::ZERO,
        request: &request,
        prompt_tokens: 4000.0,
        output_tokens: 200.0,
        theta: 0.0,
        expected_reuse: 1.0,
        prices: Prices::default(),
        salt,
        candidates,
    };
    let mut ranking = Ranking::default();
    policy.rank(&situation, &mut ranking);
    assert_eq!(ranking.costs.len(), candidates.len());
    ranking.order.to_vec()
}

#[test]
fn round_robin_goes_round_also_past_holes() {
    let mut policy = RoundRobin::default();
    let candidates = [facts(1), facts(4), facts(7)];
    let mut seen = Vec::new();
    for _ in 0..6 {
        let first = candidates[order(&policy, &candidates, 0)[0]].endpoint;
        policy.taken(first);
        seen.push(first.index);
    }
    assert_eq!(seen, [1, 4, 7, 1, 4, 7]);
}

#[test]
fn least_request_takes_the_least_and_ties_go_round() {
    let mut candidates = [facts(0), facts(1), facts(2)];
    candidates[1].in_flight = 1;
    (candidates[0].last_dispatch, candidates[2].last_dispatch) = (9, 8);
    assert_eq!(order(&LeastRequest, &candidates, 0), [2, 0, 1]);
}

#[test]
fn random_is_even_and_replays() {
    let candidates: Vec<Facts> = (0..4).map(facts).collect();
    let mut counts = [0_u32; 4];
    for salt in 0..4000 {
        let first = order(&Random, &candidates, salt)[0];
        assert_eq!(first, order(&Random, &candidates, salt)[0]);
        counts[first] += 1;
    }
    assert!(
        counts.iter().all(|&count| (900..1100).contains(&count)),
        "{counts:?}"
    );
}

#[test]
fn expected_cost_spreads_cold_prompts_but_not_warm_ones() {
    let mut candidates = [facts(0), facts(1), facts(2)];
    candidates[0].cold_level = 5.0;
    candidates[1].cold_level = 4.0;
    candidates[2].cold_level = 3.0;
    candidates[2].pending_seconds = 0.05;
    assert_eq!(
        order(&ExpectedCost, &candidates, 0)[0],
        2,
        "the fewest of them, although a little dearer"
    );
    candidates[2].pending_seconds = 10.0;
    assert_eq!(
        order(&ExpectedCost, &candidates, 0)[0],
        1,
        "but not at any price"
    );
    candidates[0].hit_tokens = 2000.0;
    assert_eq!(
        order(&ExpectedCost, &candidates, 0)[0],
        0,
        "a warm prompt goes where it is warm"
    );
}

#[test]
fn the_best_four_are_named_in_order() {
    let mut candidates: Vec<Facts> = (0..9).map(facts).collect();
    for (at, load) in [5, 3, 8, 1, 9, 2, 7, 4, 6].into_iter().enumerate() {
        candidates[at].in_flight = load;
    }
    assert_eq!(order(&LeastRequest, &candidates, 0), [3, 5, 1, 7]);
}

//! Flows share what there is, and nobody starves.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{complete, drain, prompt, secs, send, winners};
use proptest::prelude::*;
use scheduling::{Config, EndpointProfile, Fairness, FlowControl, Pool, Request, Ticket, Time};

/// A pool with one place.
fn narrow(flow: FlowControl, seed: u64) -> Pool {
    let config = Config {
        flow,
        ..Config::default()
    };
    let mut pool = Pool::new(config, seed);
    let profile = EndpointProfile {
        max_seqs: 1,
        ..EndpointProfile::default()
    };
    pool.join(Time::ZERO, profile);
    pool
}

fn class(priority: i32, text: u64) -> Request {
    Request {
        priority,
        ..prompt(text, 20, text, 10)
    }
}

fn of_flow(flow: u64, text: u64, blocks: usize) -> Request {
    Request {
        flow,
        ..prompt(text, 0, text, blocks)
    }
}

/// Jain's index of fairness: 1 when all are equal.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|it| it * it).sum::<f64>())
}

/// Tokens that each of two flows with requests of so many blocks got while both had work waiting.
fn shares(fairness: Fairness, sizes: [usize; 2], seed: u64) -> [f64; 2] {
    let flow = FlowControl {
        fairness,
        request_ttl: Duration::from_secs(100_000),
        starvation_bound: Duration::from_secs(100_000),
        ..FlowControl::default()
    };
    let mut pool = narrow(flow, seed);
    let (mut running, _) = send(&mut pool, secs(0.0), prompt(1, 1, 1, 1));
    let mut whose = BTreeMap::new();
    let mut text = 10;
    let mut left = [0_usize; 2];
    let mut got = [0.0; 2];
    for step in 1..=600 {
        let now = secs(f64::from(step) * 0.01);
        for flow in 0..2 {
            while left[flow] < 3 {
                text += 1;
                let ticket = pool.arrive(now, of_flow(flow as u64 + 1, text, sizes[flow]));
                whose.insert(ticket, flow);
                left[flow] += 1;
            }
        }
        assert!(drain(&mut pool, now).is_empty());
        complete(&mut pool, now, running);
        let went = winners(&drain(&mut pool, now));
        running = *went.keys().next().expect("there is always one");
        let flow = whose[&running];
        left[flow] -= 1;
        got[flow] += match fairness {
            Fairness::RoundRobin => 1.0,
            _ => (sizes[flow] * 64 + 10) as f64,
        };
    }
    got
}

#[test]
fn flows_take_turns_by_requests_or_not_at_all() {
    let got = shares(Fairness::RoundRobin, [5, 80], 1);
    assert!((got[0] - got[1]).abs() <= 2.0, "{got:?}");
    let got = shares(Fairness::Strict, [5, 80], 1);
    let requests = [got[0] / 330.0, got[1] / 5130.0];
    assert!(
        requests[0] > 10.0 * requests[1],
        "short work first: {requests:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flows_get_equal_tokens_whatever_their_requests(small in 10..60_usize, large in 60..200_usize, seed in any::<u64>()) {
        let got = shares(Fairness::Deficit, [small, large], seed);
        prop_assert!(jain(&got) >= 0.95, "{got:?}");
        prop_assert_eq!(got, shares(Fairness::Deficit, [small, large], seed), "and again the same");
    }

    /// One place, a stream of higher classes that never ends, a few of the lowest: each is served within the bound and
    /// eight turns for every one before it.
    #[test]
    fn nobody_starves(lows in 1..6_usize, bound in 1..20_u32, high in 1..4_i32) {
        let flow = FlowControl {
            starvation_bound: Duration::from_secs(u64::from(bound)),
            request_ttl: Duration::from_secs(100_000),
            ..FlowControl::default()
        };
        let mut pool = narrow(flow, 1);
        let (mut running, _) = send(&mut pool, secs(0.0), class(high, 0));
        let mut low: BTreeSet<Ticket> = (0..lows as u64).map(|text| pool.arrive(secs(0.0), class(0, 100 + text))).collect();
        drain(&mut pool, secs(0.0));
        let turns = bound + 1 + 8 * lows as u32;
        for step in 1..=turns {
            let now = secs(f64::from(step));
            pool.arrive(now, class(high, 1000 + u64::from(step)));
            complete(&mut pool, now, running);
            let went = winners(&drain(&mut pool, now));
            prop_assert_eq!(went.len(), 1, "no more than there is room for");
            running = *went.keys().next().expect("one");
            low.remove(&running);
        }
        prop_assert!(low.is_empty(), "left: {low:?}");
    }
}

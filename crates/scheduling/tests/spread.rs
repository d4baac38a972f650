//! Affinity and balance at once, in virtual time.

mod common;

use common::{drain, play, pool, prompt, secs, winners};
use scheduling::{Config, PolicyKind};
use std::collections::BTreeMap;

#[test]
fn a_burst_of_equal_requests_spreads() {
    for burst in [8, 64] {
        let (mut pool, _) = pool(Config::default(), 4);
        for _ in 0..burst {
            pool.arrive(secs(1.0), prompt(1, 30, 1, 1));
        }
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        let went = winners(&drain(&mut pool, secs(1.0)));
        assert_eq!(went.len(), burst, "each takes little, all are open");
        went.values()
            .for_each(|id| *counts.entry(*id).or_default() += 1);
        let max = *counts.values().max().expect("some") as f64;
        assert!(max / (burst as f64 / 4.0) <= 1.3, "{burst}: {counts:?}");
    }
}

#[test]
fn a_burst_beyond_what_fits_waits_here_and_spreads_all_the_same() {
    let arrivals = (0..64)
        .map(|at| (secs(1.0), prompt(1, 60, at, 40)))
        .collect();
    let out = play(Config::default(), 4, 5000, arrivals);
    assert_eq!(out.rejected, 0);
    let max = *out.served.iter().max().expect("some") as f64;
    assert!(max / 16.0 <= 1.3, "{:?}", out.served);
}

#[test]
fn chats_of_all_lengths_that_share_nothing_go_evenly() {
    // One in twenty has forty times the prompt; all answers are equally long, so as many chats are as many decodes.
    let arrivals = (0..450)
        .map(|at| {
            let blocks = if at % 20 == 3 { 40 } else { 1 };
            (secs(at as f64 / 35.0), prompt(at, 0, at, blocks))
        })
        .collect();
    let out = play(Config::default(), 4, 5000, arrivals);
    let max = *out.served.iter().max().expect("some") as f64;
    assert!(max / 112.5 <= 1.1, "{:?}", out.served);
    assert!(out.imbalance() <= 1.3, "{:?}", out.work);
}

/// 20 tenants with a long prefix each and short questions, arriving in no order.
fn tenants(count: u64, rate: f64) -> Vec<(scheduling::Time, scheduling::Request)> {
    let mut state = 12_345_u64;
    let mut time = 0.0;
    (0..count)
        .map(|at| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let dice = (state >> 33) as f64 / (1_u64 << 31) as f64;
            time += -(1.0 - dice).ln() / rate;
            let tenant = (state >> 20) % 20;
            (secs(time), prompt(tenant, 100, 1000 + at, 4))
        })
        .collect()
}

#[test]
fn shared_prefixes_are_found_again_and_load_is_even() {
    let requests = 2000;
    let arrivals = tenants(requests, 40.0);
    let out = play(Config::default(), 4, 3000, arrivals.clone());
    // Best possible: each prefix computed once, its hundred blocks found ever after.
    let best = (requests as usize - 20) * 100;
    let share = out.hit_blocks as f64 / best as f64;
    assert!(
        share >= 0.9,
        "hits {share:.3} of the best possible, served {:?}",
        out.served
    );
    assert!(out.imbalance() <= 1.3, "{:?} {:?}", out.served, out.work);
    assert_eq!(out.rejected, 0);

    let blind = play(
        Config {
            policy: PolicyKind::RoundRobin,
            ..Config::default()
        },
        4,
        700,
        arrivals.clone(),
    );
    let tight = play(Config::default(), 4, 700, arrivals);
    let hits = |out: &common::Outcome| out.hit_blocks as f64 / best as f64;
    assert!(
        hits(&tight) >= 0.9,
        "where the prefixes fit once, but not everywhere: {:.3}",
        hits(&tight)
    );
    assert!(
        hits(&blind) < 0.7 * hits(&tight),
        "the test would notice a blind policy: {:.3}",
        hits(&blind)
    );
}

#[test]
fn a_hot_prefix_is_copied_instead_of_queued_for() {
    // One prefix asks for more than twice what one engine can do.
    let arrivals = (0..600)
        .map(|at| (secs(at as f64 * 0.005), prompt(1, 40, 50_000 + at, 8)))
        .collect();
    let out = play(Config::default(), 4, 3000, arrivals);
    assert!(
        out.served.iter().all(|&served| served > 75),
        "{:?}",
        out.served
    );
    let mut ttft = out.ttft;
    ttft.sort_by(f64::total_cmp);
    assert!(
        ttft[ttft.len() * 9 / 10] < 0.2,
        "{}",
        ttft[ttft.len() * 9 / 10]
    );
}

#[test]
fn those_that_wait_for_a_warm_endpoint_send_others_elsewhere() {
    let (mut pool, _) = pool(Config::default(), 2);
    let (first, warm) = common::send(&mut pool, secs(0.0), prompt(1, 100, 1, 1));
    common::complete(&mut pool, secs(0.5), first);
    let load = scheduling::Load {
        waiting: Some(6),
        running: Some(6),
        kv_usage: None,
    };
    pool.observe(
        secs(1.0),
        scheduling::Event::Scraped {
            endpoint: warm,
            load,
        },
    );
    for at in 0..30 {
        pool.arrive(secs(1.0), prompt(1, 100, 10 + at, 20));
    }
    let went = winners(&drain(&mut pool, secs(1.0)));
    assert!(went.values().all(|id| *id != warm));
    assert!(!went.is_empty(), "the line for the warm one is long enough");
    let waiting = pool.stats().queued;
    assert!(waiting > 0 && waiting + went.len() == 30, "{waiting}");
}

#[test]
fn an_idle_fleet_is_used_in_turn() {
    let (mut pool, ids) = pool(Config::default(), 3);
    let mut seen = Vec::new();
    for at in 0..9 {
        let (ticket, id) = common::send(&mut pool, secs(f64::from(at)), common::opaque());
        common::complete(&mut pool, secs(f64::from(at) + 0.5), ticket);
        seen.push(id);
    }
    assert!(
        seen.windows(3)
            .all(|three| ids.iter().all(|id| three.contains(id))),
        "{seen:?}"
    );
}

#[test]
fn the_index_forgets_what_the_engine_must_have_evicted() {
    let mut pool = scheduling::Pool::new(Config::default(), 1);
    let profile = scheduling::EndpointProfile {
        kv_capacity_tokens: Some(100 * 64),
        ..Default::default()
    };
    let id = pool.join(secs(0.0), profile);
    for at in 0..5_u32 {
        let (ticket, _) = common::send(
            &mut pool,
            secs(f64::from(at)),
            prompt(u64::from(at), 60, 0, 0),
        );
        common::complete(&mut pool, secs(f64::from(at) + 0.5), ticket);
        let cached = pool.endpoint(id).map(|it| it.cached_blocks);
        // A hundred blocks, one of which held the odd tokens while the prompt ran.
        assert_eq!(cached, Some(if at == 0 { 60 } else { 99 }));
    }
}

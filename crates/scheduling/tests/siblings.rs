//! Several gateways over one pool: charges that siblings tell of, and what becomes of them.

mod common;

use std::time::Duration;

use common::{complete, drain, pool, prefix, prompt, secs, send, winners};
use proptest::prelude::*;
use scheduling::{
    AdapterKey, Candidates, Config, EndpointId, EndpointProfile, Event, Pool, Request, SharedEvent,
    SiblingId, Ticket, Time, Usage,
};

const OTHER: SiblingId = SiblingId(9);

fn hear(pool: &mut Pool, now: Time, from: SiblingId, events: &[SharedEvent]) {
    for event in events {
        let sibling = from;
        pool.observe(now, Event::Sibling { sibling, event });
        assert!(drain(pool, now).is_empty(), "nothing waits here");
    }
}

fn told(pool: &mut Pool) -> Vec<SharedEvent> {
    let mut events = Vec::new();
    pool.drain_shared(&mut events);
    events
}

fn dispatched(ticket: u64, endpoint: EndpointId, text: u64, blocks: usize) -> SharedEvent {
    SharedEvent::Dispatched {
        ticket,
        endpoint,
        prefix: prefix(text, blocks).into(),
        prompt_tokens: (blocks * 64) as u32 + 10,
        uncached_tokens: (blocks * 64) as u32 + 10,
        output_tokens: 100,
        adapter: None,
    }
}

fn released(ticket: u64) -> SharedEvent {
    SharedEvent::Released {
        ticket,
        output_tokens: 100,
        computed: true,
    }
}

/// What a pool has charged, endpoint by endpoint.
fn charges(pool: &Pool) -> Vec<[u64; 6]> {
    let views = pool.endpoints().filter_map(|id| pool.endpoint(id));
    views
        .map(|it| {
            [
                u64::from(it.in_flight),
                u64::from(it.decoding),
                it.pending_tokens,
                (it.pending_seconds * 1e9).round() as u64,
                it.kv_used_tokens,
                u64::from(it.siblings_in_flight),
            ]
        })
        .collect()
}

#[test]
fn a_siblings_request_is_charged_as_ones_own_and_given_back() {
    let (mut pool, ids) = pool(Config::default(), 2);
    let now = secs(1.0);
    hear(&mut pool, now, OTHER, &[dispatched(1, ids[0], 5, 100)]);
    let view = pool.endpoint(ids[0]).unwrap();
    assert_eq!((view.in_flight, view.siblings_in_flight), (1, 1));
    assert_eq!(view.pending_tokens, 6410);
    assert!(view.pending_seconds > 0.1);
    assert_eq!(view.kv_used_tokens, 6410 + 50);
    assert_eq!(view.cached_blocks, 100);
    let stats = pool.stats();
    assert_eq!(
        (stats.in_flight, stats.siblings, stats.siblings_in_flight),
        (0, 1, 1)
    );

    hear(
        &mut pool,
        now,
        OTHER,
        &[SharedEvent::FirstToken { ticket: 1 }],
    );
    let view = pool.endpoint(ids[0]).unwrap();
    assert_eq!((view.decoding, view.pending_tokens), (1, 0));

    hear(&mut pool, now, OTHER, &[released(1)]);
    assert_eq!(charges(&pool), [[0; 6]; 2]);
    // What it computed stays.
    assert_eq!(pool.endpoint(ids[0]).unwrap().cached_blocks, 100);
    let (_, winner) = send(&mut pool, now, prompt(5, 100, 1, 2));
    assert_eq!(winner, ids[0]);
}

#[test]
fn a_prefix_that_siblings_share_takes_space_once() {
    let (mut pool, ids) = pool(Config::default(), 1);
    let now = secs(1.0);
    let (own, _) = send(&mut pool, now, prompt(5, 100, 1, 0));
    let alone = pool.endpoint(ids[0]).unwrap().kv_used_tokens;
    hear(&mut pool, now, OTHER, &[dispatched(1, ids[0], 5, 100)]);
    let both = pool.endpoint(ids[0]).unwrap().kv_used_tokens;
    // Only the unshared end of the prompt, and half of the answer.
    assert_eq!(both - alone, 10 + 50);
    complete(&mut pool, now, own);
    let left = pool.endpoint(ids[0]).unwrap().kv_used_tokens;
    assert_eq!(left, 6410 + 50);
}

#[test]
fn a_new_request_avoids_what_a_sibling_has_just_sent() {
    let (mut pool, ids) = pool(Config::default(), 2);
    let now = secs(1.0);
    let last = send(&mut pool, now, prompt(1, 20, 1, 0));
    complete(&mut pool, now, last.0);
    // The next would go to the other one, had the sibling not been faster.
    let free = ids.iter().copied().find(|id| *id != last.1).unwrap();
    hear(&mut pool, now, OTHER, &[dispatched(1, free, 2, 120)]);
    assert_eq!(send(&mut pool, now, prompt(3, 20, 1, 0)).1, last.1);
}

#[test]
fn silence_and_forgotten_give_everything_back() {
    let (mut pool, ids) = pool(Config::default(), 2);
    let now = secs(1.0);
    let both = [dispatched(1, ids[0], 5, 100), dispatched(2, ids[1], 6, 30)];
    hear(&mut pool, now, OTHER, &both);
    hear(&mut pool, now, OTHER, &[SharedEvent::Forgotten]);
    assert_eq!(charges(&pool), [[0; 6]; 2]);
    assert_eq!(pool.stats().siblings, 0);

    hear(&mut pool, now, OTHER, &both);
    // A word now and then keeps it.
    let later = now + Duration::from_secs(50);
    hear(&mut pool, later, OTHER, &[SharedEvent::Alive]);
    assert_eq!(pool.stats().siblings_in_flight, 2);
    let silent = later + Duration::from_secs(71);
    assert!(pool.next(silent).is_none());
    assert_eq!(
        (pool.stats().siblings, pool.stats().siblings_in_flight),
        (0, 0)
    );
    assert_eq!(charges(&pool), [[0; 6]; 2]);
}

#[test]
fn a_lost_release_is_made_up_for() {
    let (mut pool, ids) = pool(Config::default(), 1);
    let mut now = secs(1.0);
    hear(&mut pool, now, OTHER, &[dispatched(1, ids[0], 5, 100)]);
    for _ in 0..20 {
        now = now + Duration::from_secs(31);
        hear(&mut pool, now, OTHER, &[SharedEvent::Alive]);
    }
    assert_eq!(charges(&pool), [[0; 6]]);
    // And if it comes in the end, it does no harm.
    hear(
        &mut pool,
        now,
        OTHER,
        &[released(1), dispatched(1, ids[0], 5, 100)],
    );
    assert_eq!(charges(&pool), [[0; 6]]);
}

#[test]
fn a_prefill_that_no_first_token_ends_is_presumed_done() {
    let (mut pool, ids) = pool(Config::default(), 1);
    hear(
        &mut pool,
        secs(1.0),
        OTHER,
        &[dispatched(1, ids[0], 5, 100)],
    );
    hear(&mut pool, secs(3.0), OTHER, &[SharedEvent::Alive]);
    let view = pool.endpoint(ids[0]).unwrap();
    assert_eq!((view.pending_tokens, view.decoding), (0, 1));
    hear(
        &mut pool,
        secs(4.0),
        OTHER,
        &[SharedEvent::FirstToken { ticket: 1 }, released(1)],
    );
    assert_eq!(charges(&pool), [[0; 6]]);
}

#[test]
fn what_a_host_does_not_fetch_is_bounded_and_ends_in_forgotten() {
    let (mut pool, _) = pool(Config::default(), 1);
    pool.share(true);
    for at in 0..30_000 {
        let now = Time::from_nanos(at * 1_000_000_000);
        let (ticket, _) = send(&mut pool, now, prompt(1, 1, 1, 0));
        complete(&mut pool, now, ticket);
    }
    let events = told(&mut pool);
    assert!(events.len() <= 1 << 16);
    assert_eq!(events[0], SharedEvent::Forgotten);
    assert!(told(&mut pool).is_empty());
    assert_eq!(pool.unshared_seconds(), 0.0);
}

#[test]
fn a_newcomer_is_told_what_is_charged() {
    let (mut one, ids) = pool(Config::default(), 2);
    one.share(true);
    let now = secs(1.0);
    for at in 0..6 {
        send(&mut one, now, prompt(at, 40, at, 3));
    }
    let mut events = Vec::new();
    one.shared_charges(&mut events);
    let (mut two, _) = pool(Config::default(), 2);
    hear(&mut two, now, OTHER, &events);
    for id in ids {
        let (a, b) = (one.endpoint(id).unwrap(), two.endpoint(id).unwrap());
        assert_eq!(
            (a.in_flight, a.pending_tokens),
            (b.in_flight, b.pending_tokens)
        );
        assert_eq!(a.cached_blocks, b.cached_blocks);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Dispatch {
        ticket: u64,
        endpoint: usize,
        text: u64,
        blocks: usize,
        adapter: Option<u64>,
    },
    First(u64),
    Release(u64, bool),
    Wait(u32),
    Own {
        text: u64,
        blocks: usize,
    },
    EndOwn(usize),
    Leave(usize),
    Clear(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let ticket = 0..30_u64;
    prop_oneof![
        6 => (ticket.clone(), 0..4_usize, 0..6_u64, 0..80_usize, prop::option::of(0..3_u64)).prop_map(
            |(ticket, endpoint, text, blocks, adapter)| Step::Dispatch { ticket, endpoint, text, blocks, adapter }
        ),
        3 => ticket.clone().prop_map(Step::First),
        4 => (ticket, any::<bool>()).prop_map(|(ticket, computed)| Step::Release(ticket, computed)),
        2 => (0..90_000_u32).prop_map(Step::Wait),
        2 => (0..6_u64, 0..80_usize).prop_map(|(text, blocks)| Step::Own { text, blocks }),
        2 => (0..9_usize).prop_map(Step::EndOwn),
        1 => (0..4_usize).prop_map(Step::Leave),
        1 => (0..4_usize).prop_map(Step::Clear),
    ]
}

fn follow(
    pool: &mut Pool,
    now: &mut Time,
    own: &mut Vec<Ticket>,
    ids: &mut [EndpointId],
    steps: &[(u64, Step)],
) {
    for (from, step) in steps {
        let (sibling, at) = (SiblingId(*from), *now);
        let mut tell = |event: SharedEvent| {
            pool.observe(
                at,
                Event::Sibling {
                    sibling,
                    event: &event,
                },
            );
        };
        match *step {
            Step::Dispatch {
                ticket,
                endpoint,
                text,
                blocks,
                adapter,
            } => {
                let SharedEvent::Dispatched {
                    ticket,
                    endpoint,
                    prefix,
                    prompt_tokens,
                    uncached_tokens,
                    output_tokens,
                    ..
                } = dispatched(ticket, ids[endpoint], text, blocks)
                else {
                    unreachable!()
                };
                let adapter = adapter.map(AdapterKey);
                tell(SharedEvent::Dispatched {
                    ticket,
                    endpoint,
                    prefix,
                    prompt_tokens,
                    uncached_tokens,
                    output_tokens,
                    adapter,
                });
            }
            Step::First(ticket) => tell(SharedEvent::FirstToken { ticket }),
            Step::Release(ticket, computed) => tell(SharedEvent::Released {
                ticket,
                output_tokens: 0,
                computed,
            }),
            Step::Wait(millis) => *now = *now + Duration::from_millis(u64::from(millis)),
            Step::Own { text, blocks } => {
                own.push(pool.arrive(at, prompt(text, blocks, 0, 0)));
            }
            Step::EndOwn(which) => {
                if !own.is_empty() {
                    let ticket = own.remove(which % own.len());
                    pool.observe(at, Event::Abandoned { ticket });
                }
            }
            Step::Leave(which) => {
                pool.observe(
                    at,
                    Event::Left {
                        endpoint: ids[which],
                    },
                );
                ids[which] = pool.join(at, EndpointProfile::default());
            }
            Step::Clear(which) => pool.observe(
                at,
                Event::CacheCleared {
                    endpoint: ids[which],
                },
            ),
        }
        drain(pool, *now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever comes, twice, late, unknown or out of order: once all siblings are gone, nothing of theirs is left.
    #[test]
    fn after_all_releases_nothing_is_charged(steps in prop::collection::vec((0..3_u64, step()), 1..120), orderly in any::<bool>()) {
        let (mut pool, mut ids) = pool(Config::default(), 4);
        let (mut now, mut own) = (secs(1.0), Vec::new());
        follow(&mut pool, &mut now, &mut own, &mut ids, &steps);
        for ticket in own {
            pool.observe(now, Event::Abandoned { ticket });
        }
        for sibling in (0..3).map(SiblingId) {
            for ticket in (0..30).filter(|_| orderly) {
                let event = &SharedEvent::Released { ticket, output_tokens: 0, computed: true };
                pool.observe(now, Event::Sibling { sibling, event });
            }
            if !orderly {
                pool.observe(now, Event::Sibling { sibling, event: &SharedEvent::Forgotten });
            }
        }
        prop_assert_eq!(charges(&pool), [[0; 6]; 4]);
        prop_assert_eq!(pool.stats().siblings_in_flight, 0);
    }

    /// Gateways that tell each other everything at once decide as one gateway does that gets all requests.
    #[test]
    fn siblings_that_share_at_once_decide_like_one(
        requests in prop::collection::vec((0..2_usize, 0..8_u64, 1..60_usize, 0..5_u64, 0..40_usize, 1..400_u64), 10..80),
    ) {
        let config = Config { prefill_gate_tokens: u32::MAX, ..Config::default() };
        let (mut one, ids) = pool(config.clone(), 4);
        let mut two = [pool(config.clone(), 4).0, pool(config, 4).0];
        two.iter_mut().for_each(|it| it.share(true));
        let mut now = secs(1.0);
        let mut flights: Vec<(Ticket, usize, Ticket)> = Vec::new();
        for (number, (gateway, common, shared, private, rest, millis)) in requests.into_iter().enumerate() {
            // Where there is nothing to choose by, chance does, and that is each gateway's own: first give them numbers.
            let request = Request { streams: false, ..prompt(common, shared, private, rest) };
            let request = match ids.get(number) {
                Some(&id) => Request {
                    candidates: Candidates::Only([id].into()),
                    streams: false,
                    ..prompt(100 + number as u64, 3, 0, 0)
                },
                None => request,
            };
            let expected = send(&mut one, now, request.clone());
            let ticket = two[gateway].arrive(now, request);
            let decisions = drain(&mut two[gateway], now);
            let winner = winners(&decisions).get(&ticket).copied();
            prop_assert_eq!(winner, Some(expected.1), "request {}", number);
            flights.push((expected.0, gateway, ticket));
            exchange(&mut two, now);
            now = now + Duration::from_millis(millis);
            while flights.len() > 12 {
                let (in_one, gateway, in_two) = flights.remove(0);
                let usage = Some(Usage { prompt_tokens: 0, completion_tokens: 150, cached_tokens: None });
                one.observe(now, Event::Finished { ticket: in_one, usage, ok: true });
                two[gateway].observe(now, Event::Finished { ticket: in_two, usage, ok: true });
                exchange(&mut two, now);
            }
            for pool in &two {
                let without: Vec<_> = charges(pool).into_iter().map(|it| it[..5].to_vec()).collect();
                let expected: Vec<_> = charges(&one).into_iter().map(|it| it[..5].to_vec()).collect();
                prop_assert_eq!(&without, &expected);
            }
        }
    }
}

fn exchange(two: &mut [Pool; 2], now: Time) {
    let events = [told(&mut two[0]), told(&mut two[1])];
    hear(&mut two[1], now, SiblingId(0), &events[0]);
    hear(&mut two[0], now, SiblingId(1), &events[1]);
}

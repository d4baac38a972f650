//! Flow control with settings: bands, ceilings, forecasts, eviction, and what must never go wrong.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{complete, drain, prompt, rejected, secs, send, winners};
use scheduling::RejectReason::{
    DeadlineUnreachable, NoReadyEndpoint, QueueFull, QueueTtl, SheddableSaturated, WaitTooLong,
};
use scheduling::{
    Admission, Band, Config, Decision, EndpointId, EndpointProfile, Event, FlowControl, Load,
    Ordering, Pool, Request, Ticket, Time,
};

/// A pool of endpoints that have one place each.
fn narrow(flow: FlowControl, endpoints: usize) -> (Pool, Vec<EndpointId>) {
    let config = Config {
        flow,
        ..Config::default()
    };
    let mut pool = Pool::new(config, 5);
    let profile = EndpointProfile {
        max_seqs: 1,
        ..EndpointProfile::default()
    };
    let ids = (0..endpoints)
        .map(|_| pool.join(Time::ZERO, profile))
        .collect();
    (pool, ids)
}

fn band(priority: i32, band: Band) -> FlowControl {
    FlowControl {
        bands: BTreeMap::from([(priority, band)]),
        ..FlowControl::default()
    }
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

/// Ends what runs, again and again, one second each; who went, in order.
fn one_by_one(pool: &mut Pool, mut running: Ticket, from: f64) -> Vec<Ticket> {
    let mut order = Vec::new();
    for step in 1..2000 {
        let now = secs(from + f64::from(step));
        complete(pool, now, running);
        let went = winners(&drain(pool, now));
        let Some((&next, _)) = went.iter().next() else {
            return order;
        };
        assert_eq!(went.len(), 1, "one place");
        running = next;
        order.push(next);
    }
    order
}

fn evicted(decisions: &[Decision]) -> Vec<Ticket> {
    let evict = |it: &Decision| matches!(it, Decision::Evict { .. }).then(|| it.ticket());
    decisions.iter().filter_map(evict).collect()
}

#[test]
fn a_band_is_bounded_by_itself() {
    let flow = FlowControl {
        bands: BTreeMap::from([
            (
                0,
                Band {
                    max_requests: Some(2),
                    ..Band::default()
                },
            ),
            (
                1,
                Band {
                    max_bytes: Some(1000),
                    ..Band::default()
                },
            ),
        ]),
        ..FlowControl::default()
    };
    let (mut pool, _) = narrow(flow, 1);
    send(&mut pool, secs(0.0), class(0, 0));
    for text in 1..=2 {
        pool.arrive(secs(0.1), class(0, text));
        assert!(drain(&mut pool, secs(0.1)).is_empty());
    }
    let third = pool.arrive(secs(0.2), class(0, 3));
    assert_eq!(rejected(&drain(&mut pool, secs(0.2))), [(third, QueueFull)]);
    let sized = |bytes| Request {
        bytes,
        ..class(1, 9)
    };
    pool.arrive(secs(0.3), sized(900));
    assert!(drain(&mut pool, secs(0.3)).is_empty());
    let large = pool.arrive(secs(0.3), sized(101));
    assert_eq!(rejected(&drain(&mut pool, secs(0.3))), [(large, QueueFull)]);
    pool.arrive(secs(0.3), sized(100));
    assert!(drain(&mut pool, secs(0.3)).is_empty());
    let stats = pool.stats();
    assert_eq!(stats.queued_by_priority, [(1, 2), (0, 2)]);
    assert_eq!(stats.queued_bytes, [(1, 1000), (0, 0)]);
}

#[test]
fn a_full_queue_of_bytes_pushes_out_lower_classes_only_if_that_helps() {
    let flow = FlowControl {
        max_bytes: 1000,
        ..FlowControl::default()
    };
    let (mut pool, _) = narrow(flow, 1);
    send(&mut pool, secs(0.0), class(0, 0));
    let sized = |priority, bytes, text| Request {
        bytes,
        ..class(priority, text)
    };
    let mut low: Vec<Ticket> = Vec::new();
    for text in 1..=3 {
        low.push(pool.arrive(secs(0.1), sized(0, 300, text)));
        drain(&mut pool, secs(0.1));
    }
    let hopeless = pool.arrive(secs(0.2), sized(1, 1001, 8));
    assert_eq!(
        rejected(&drain(&mut pool, secs(0.2))),
        [(hopeless, QueueFull)],
        "nobody leaves for what has no room anyway"
    );
    pool.arrive(secs(0.3), sized(1, 600, 9));
    assert_eq!(
        rejected(&drain(&mut pool, secs(0.3))),
        [(low[2], QueueFull), (low[1], QueueFull)],
        "as many as it takes, youngest first"
    );
}

#[test]
fn who_would_wait_too_long_is_told_so_at_once() {
    let flow = band(
        0,
        Band {
            max_wait: Some(Duration::from_secs(2)),
            ..Band::default()
        },
    );
    let (mut pool, _) = narrow(flow, 1);
    send(&mut pool, secs(0.0), class(0, 0));
    let mut hints = Vec::new();
    let mut waiting = 0;
    for text in 1..200 {
        pool.arrive(secs(0.1), of_flow(1, text, 100));
        match drain(&mut pool, secs(0.1)).as_slice() {
            [] => waiting += 1,
            [
                Decision::Reject {
                    reason: WaitTooLong,
                    retry_after,
                    ..
                },
            ] => hints.push(*retry_after),
            other => panic!("{other:?}"),
        }
    }
    assert!((3..60).contains(&waiting), "about two seconds: {waiting}");
    assert!(!hints.is_empty());
    // A class without the bound goes on waiting, and makes the time to come back longer.
    for text in 200..260 {
        pool.arrive(secs(0.2), class(1, text));
    }
    drain(&mut pool, secs(0.2));
    pool.arrive(secs(0.2), of_flow(1, 999, 100));
    let last = drain(&mut pool, secs(0.2));
    let [Decision::Reject { retry_after, .. }] = last.as_slice() else {
        panic!("{last:?}")
    };
    assert!(*retry_after > hints[0], "{retry_after:?} after {hints:?}");
}

#[test]
fn a_deadline_behind_a_long_queue_is_refused_early() {
    let (mut pool, _) = narrow(FlowControl::default(), 1);
    send(&mut pool, secs(0.0), class(0, 0));
    let within = |seconds| Request {
        deadline: Some(secs(seconds)),
        ..of_flow(1, 7, 10)
    };
    pool.arrive(secs(0.1), within(3.0));
    assert!(
        drain(&mut pool, secs(0.1)).is_empty(),
        "nobody is before it"
    );
    for text in 100..200 {
        pool.arrive(secs(0.2), of_flow(1, text, 300));
    }
    drain(&mut pool, secs(0.2));
    let late = pool.arrive(secs(0.3), within(3.0));
    assert_eq!(
        rejected(&drain(&mut pool, secs(0.3))),
        [(late, DeadlineUnreachable)]
    );
    pool.arrive(secs(0.3), within(300.0));
    assert!(drain(&mut pool, secs(0.3)).is_empty());
}

#[test]
fn a_ceiling_keeps_the_rest_of_the_pool_for_higher_classes() {
    let flow = FlowControl {
        bands: BTreeMap::from([
            (
                0,
                Band {
                    ceiling: Some(0.5),
                    ..Band::default()
                },
            ),
            (
                -1,
                Band {
                    ceiling: Some(0.25),
                    ..Band::default()
                },
            ),
        ]),
        ..FlowControl::default()
    };
    let (mut pool, _) = narrow(flow, 4);
    let (first, _) = send(&mut pool, secs(0.0), class(0, 1));
    let shed = pool.arrive(secs(0.1), class(-1, 2));
    assert_eq!(
        rejected(&drain(&mut pool, secs(0.1))),
        [(shed, SheddableSaturated)]
    );
    let (second, _) = send(&mut pool, secs(0.2), class(0, 3));
    let held = pool.arrive(secs(0.3), class(0, 4));
    assert!(drain(&mut pool, secs(0.3)).is_empty(), "half is taken");
    let higher = [5, 6].map(|text| send(&mut pool, secs(0.4), class(1, text)).0);
    assert_eq!(pool.stats().saturation, 1.0);
    for ticket in [first, second] {
        complete(&mut pool, secs(0.5), ticket);
        assert!(drain(&mut pool, secs(0.5)).is_empty());
    }
    complete(&mut pool, secs(0.6), higher[0]);
    assert!(winners(&drain(&mut pool, secs(0.6))).contains_key(&held));
}

#[test]
fn immediate_admission_queues_nothing() {
    let flow = FlowControl {
        admission: Admission::Immediate,
        ..FlowControl::default()
    };
    let (mut pool, ids) = narrow(flow, 1);
    for text in 0..5 {
        assert_eq!(send(&mut pool, secs(0.0), class(0, text)).1, ids[0]);
    }
    let shed = pool.arrive(secs(0.1), class(-1, 9));
    assert_eq!(
        rejected(&drain(&mut pool, secs(0.1))),
        [(shed, SheddableSaturated)]
    );
    pool.observe(secs(0.2), Event::Left { endpoint: ids[0] });
    let nobody = pool.arrive(secs(0.2), class(1, 10));
    assert_eq!(
        rejected(&drain(&mut pool, secs(0.2))),
        [(nobody, NoReadyEndpoint)]
    );
}

#[test]
fn orders_within_a_flow() {
    let rows = |ordering| {
        let flow = FlowControl {
            ordering,
            ..FlowControl::default()
        };
        let (mut pool, _) = narrow(flow, 1);
        let (running, _) = send(&mut pool, secs(0.0), class(0, 0));
        let due = |blocks, due: Option<f64>| Request {
            due: due.map(secs),
            ..of_flow(1, blocks as u64 + 50, blocks)
        };
        let rows = [
            due(100, None),
            due(10, None),
            due(80, Some(50.0)),
            due(20, Some(40.0)),
        ];
        let tickets: Vec<Ticket> = rows
            .into_iter()
            .enumerate()
            .map(|(at, request)| {
                let now = secs(0.1 + at as f64 * 0.01);
                let ticket = pool.arrive(now, request);
                assert!(drain(&mut pool, now).is_empty());
                ticket
            })
            .collect();
        let order = one_by_one(&mut pool, running, 1.0);
        order
            .iter()
            .map(|ticket| tickets.iter().position(|it| it == ticket).expect("known"))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(Ordering::Fcfs), [0, 1, 2, 3]);
    assert_eq!(rows(Ordering::Deadline), [3, 2, 0, 1]);
    assert_eq!(rows(Ordering::ShortestFirst), [3, 2, 1, 0]);
}

#[test]
fn a_wait_begins_anew_when_the_pool_becomes_empty_and_when_it_is_no_longer() {
    let flow = FlowControl {
        request_ttl: Duration::from_secs(60),
        empty_ttl: Duration::from_secs(20),
        ..FlowControl::default()
    };
    let (mut pool, ids) = narrow(flow, 1);
    send(&mut pool, secs(0.0), class(0, 0));
    // More than a window of them.
    let tickets: BTreeSet<Ticket> = (1..100)
        .map(|text| pool.arrive(secs(1.0), class(0, text)))
        .collect();
    drain(&mut pool, secs(1.0));
    pool.observe(secs(55.0), Event::Left { endpoint: ids[0] });
    assert!(drain(&mut pool, secs(55.0)).is_empty());
    assert!(
        drain(&mut pool, secs(62.0)).is_empty(),
        "twenty seconds more"
    );
    let profile = EndpointProfile {
        max_seqs: 1,
        ..EndpointProfile::default()
    };
    pool.join(secs(70.0), profile);
    assert_eq!(winners(&drain(&mut pool, secs(70.0))).len(), 1);
    assert!(rejected(&drain(&mut pool, secs(129.0))).is_empty());
    let ended = rejected(&drain(&mut pool, secs(130.0)));
    assert_eq!(ended.len(), tickets.len() - 1);
    assert!(ended.iter().all(|(_, reason)| *reason == QueueTtl));
}

#[test]
fn waits_are_limited_by_band_and_by_request() {
    let flow = band(
        1,
        Band {
            ttl: Some(Duration::from_secs(3)),
            ..Band::default()
        },
    );
    let (mut pool, _) = narrow(flow, 1);
    send(&mut pool, secs(0.0), class(0, 0));
    let own = pool.arrive(
        secs(0.0),
        Request {
            ttl: Some(Duration::from_secs(1)),
            ..class(1, 1)
        },
    );
    let band = pool.arrive(secs(0.0), class(1, 2));
    let pools = pool.arrive(secs(0.0), class(0, 3));
    drain(&mut pool, secs(0.0));
    for (at, ticket) in [(1.0, own), (3.0, band), (60.0, pools)] {
        assert_eq!(
            rejected(&drain(&mut pool, secs(at))),
            [(ticket, QueueTtl)],
            "{at}"
        );
    }
}

#[test]
fn without_an_endpoint_that_is_the_reason_of_every_refusal() {
    let flow = FlowControl {
        max_requests: 2,
        ..FlowControl::default()
    };
    let mut pool = Pool::new(
        Config {
            flow,
            ..Config::default()
        },
        1,
    );
    let tickets: Vec<Ticket> = (0..3)
        .map(|text| pool.arrive(secs(0.0), class(0, text)))
        .collect();
    assert_eq!(
        rejected(&drain(&mut pool, secs(0.0))),
        [(tickets[2], NoReadyEndpoint)]
    );
    assert_eq!(
        rejected(&drain(&mut pool, secs(5.0))),
        [(tickets[0], NoReadyEndpoint), (tickets[1], NoReadyEndpoint)]
    );
}

#[test]
fn all_endpoints_full_for_an_hour() {
    let (mut pool, _) = narrow(FlowControl::default(), 3);
    let running: Vec<Ticket> = (0..3)
        .map(|text| send(&mut pool, secs(0.0), class(0, text)).0)
        .collect();
    let mut undecided = BTreeSet::new();
    for second in 1_u32..=3600 {
        let now = secs(f64::from(second));
        undecided.insert(pool.arrive(now, class(i32::from(second % 2 == 0), 9)));
        for (ticket, reason) in rejected(&drain(&mut pool, now)) {
            assert_eq!(reason, QueueTtl);
            assert!(undecided.remove(&ticket), "once");
        }
        assert!(undecided.len() <= 61);
    }
    for ticket in running {
        complete(&mut pool, secs(3601.0), ticket);
    }
    assert_eq!(winners(&drain(&mut pool, secs(3601.0))).len(), 3);
}

#[test]
fn what_runs_is_ended_for_higher_classes_a_few_at_a_time() {
    let flow = FlowControl {
        evict_running: true,
        ..FlowControl::default()
    };
    let (mut pool, _) = narrow(flow, 5);
    let classes = [-1, -2, -2, 0, -1];
    let running: Vec<Ticket> = classes
        .iter()
        .zip(0..)
        .map(|(&priority, text)| {
            let (ticket, _) = send(&mut pool, secs(0.0), class(priority, text));
            pool.observe(secs(0.1), Event::FirstToken { ticket });
            ticket
        })
        .collect();
    let waiting: Vec<Ticket> = (10..15)
        .map(|text| pool.arrive(secs(1.0), class(1, text)))
        .collect();
    assert!(drain(&mut pool, secs(1.0)).is_empty(), "not for a moment");
    let wake = pool.wake_at().expect("soon");
    assert_eq!(wake, secs(1.1));
    let first = drain(&mut pool, wake);
    assert_eq!(
        evicted(&first),
        [running[2], running[1]],
        "lowest class first, newest first, two at a time"
    );
    assert!(
        drain(&mut pool, secs(1.2)).is_empty(),
        "until both are over"
    );
    pool.observe(secs(1.3), Event::Abandoned { ticket: running[2] });
    let next = drain(&mut pool, secs(1.3));
    assert!(evicted(&next).is_empty());
    assert!(winners(&next).contains_key(&waiting[0]));
    pool.observe(
        secs(1.4),
        Event::Finished {
            ticket: running[1],
            usage: None,
            ok: false,
        },
    );
    let next = drain(&mut pool, secs(1.4));
    assert!(winners(&next).contains_key(&waiting[1]));
    assert_eq!(evicted(&next), [running[4], running[0]]);
    // A host that does not answer is not waited for for ever, and nobody is ended twice or for an equal class.
    assert!(evicted(&drain(&mut pool, secs(60.0))).is_empty());
    assert_eq!(pool.stats().in_flight, 5);
}

#[test]
fn what_was_freed_must_be_seen_before_more_is_ended() {
    let flow = FlowControl {
        evict_running: true,
        ..FlowControl::default()
    };
    let config = Config {
        flow,
        ..Config::default()
    };
    let (mut pool, ids) = common::pool(config, 1);
    let scrape = |pool: &mut Pool, at: f64, waiting| {
        let load = Load {
            waiting: Some(waiting),
            running: Some(3),
            kv_usage: None,
        };
        let endpoint = ids[0];
        pool.observe(secs(at), Event::Scraped { endpoint, load });
    };
    let low = [1, 2, 3].map(|text| {
        let (ticket, _) = send(&mut pool, secs(0.0), class(-1, text));
        pool.observe(secs(0.1), Event::FirstToken { ticket });
        ticket
    });
    scrape(&mut pool, 0.5, 6);
    let waits = pool.arrive(secs(0.5), class(1, 9));
    drain(&mut pool, secs(0.5));
    assert_eq!(evicted(&drain(&mut pool, secs(0.6))), [low[2]]);
    pool.observe(secs(0.7), Event::Abandoned { ticket: low[2] });
    assert!(drain(&mut pool, secs(0.7)).is_empty(), "not scraped since");
    scrape(&mut pool, 0.8, 6);
    assert_eq!(evicted(&drain(&mut pool, secs(0.8))), [low[1]]);
    pool.observe(secs(0.9), Event::Abandoned { ticket: low[1] });
    scrape(&mut pool, 1.0, 0);
    assert!(winners(&drain(&mut pool, secs(1.0))).contains_key(&waits));
}

#[test]
fn nobody_is_ended_for_a_prefill_or_without_leave() {
    for (evict_running, started) in [(true, true), (false, false)] {
        let config = Config {
            flow: FlowControl {
                evict_running,
                ..FlowControl::default()
            },
            ..Config::default()
        };
        let (mut pool, _) = common::pool(config, 1);
        let (low, _) = send(&mut pool, secs(0.0), class(-1, 1));
        if started {
            pool.observe(secs(0.1), Event::FirstToken { ticket: low });
        }
        // A standard prompt fills the gate: ending the one that decodes would not open it.
        send(&mut pool, secs(0.2), prompt(5, 0, 5, 200));
        pool.arrive(secs(0.3), class(1, 7));
        assert!(drain(&mut pool, secs(0.3)).is_empty());
        assert!(drain(&mut pool, secs(2.0)).is_empty(), "{evict_running}");
    }
}

#[test]
fn one_event_looks_at_a_window_however_many_wait() {
    let (mut pool, _) = narrow(FlowControl::default(), 2);
    let (running, _) = send(&mut pool, secs(0.0), class(0, 0));
    send(&mut pool, secs(0.0), class(0, 1));
    for text in 0..1000 {
        pool.arrive(secs(0.1), of_flow(text % 50, text + 10, 20));
        assert!(drain(&mut pool, secs(0.1)).is_empty());
    }
    let judged = pool.stats().judged;
    assert!(judged <= 1002, "one look at each arrival: {judged}");
    complete(&mut pool, secs(0.2), running);
    assert_eq!(winners(&drain(&mut pool, secs(0.2))).len(), 1);
    assert_eq!(
        pool.stats().judged - judged,
        1,
        "one place, one look, and then it is taken"
    );
    // Past the bound on starvation the longest waiting are tried first, a bounded number of times.
    let judged = pool.stats().judged;
    pool.observe(secs(30.0), Event::Abandoned { ticket: running });
    drain(&mut pool, secs(30.0));
    assert!(pool.stats().judged - judged <= 40);
}

#[test]
fn a_clock_that_is_set_back_stops_nobody() {
    let (mut pool, _) = narrow(FlowControl::default(), 1);
    let (running, _) = send(&mut pool, secs(5000.0), class(0, 0));
    let waits = pool.arrive(secs(5001.0), class(0, 1));
    assert!(drain(&mut pool, secs(5001.0)).is_empty());
    // Two threads a little out of order: nothing.
    pool.observe(secs(5000.9), Event::FirstToken { ticket: running });
    assert!(drain(&mut pool, secs(5000.9)).is_empty());
    // Set back by more than an hour: the rest of the wait is as long as before.
    let dated = pool.arrive(
        secs(1000.0),
        Request {
            deadline: Some(secs(1020.0)),
            ..class(0, 2)
        },
    );
    assert!(drain(&mut pool, secs(1000.0)).is_empty());
    assert!(pool.wake_at().is_some_and(|wake| wake < secs(1030.0)));
    assert!(rejected(&drain(&mut pool, secs(1015.0))).is_empty());
    assert_eq!(
        rejected(&drain(&mut pool, secs(1020.0))),
        [(dated, DeadlineUnreachable)]
    );
    assert!(rejected(&drain(&mut pool, secs(1059.0))).is_empty());
    assert_eq!(
        rejected(&drain(&mut pool, secs(1061.0))),
        [(waits, QueueTtl)]
    );
    // Ten years forward: what waits is over, what runs is not.
    let waits = pool.arrive(secs(1062.0), class(0, 3));
    drain(&mut pool, secs(1062.0));
    assert_eq!(
        rejected(&drain(&mut pool, secs(3.0e8))),
        [(waits, QueueTtl)]
    );
    complete(&mut pool, secs(3.0e8), running);
    send(&mut pool, secs(3.0e8), class(0, 4));
}

#[test]
fn first_tokens_that_never_come_do_not_close_an_endpoint_for_ever() {
    let (mut pool, ids) = common::pool(Config::default(), 1);
    send(&mut pool, secs(0.0), prompt(1, 0, 1, 200));
    let waits = pool.arrive(
        secs(90.0),
        Request {
            ttl: Some(Duration::from_secs(600)),
            ..class(0, 2)
        },
    );
    assert!(drain(&mut pool, secs(90.0)).is_empty());
    let mut now = secs(90.0);
    let went = std::iter::from_fn(|| {
        now = pool.wake_at()?;
        Some(winners(&drain(&mut pool, now)))
    })
    .find(|went| !went.is_empty())
    .expect("it goes");
    assert!(went.contains_key(&waits));
    assert!(now > secs(120.0) && now < secs(140.0), "{now:?}");
    let view = pool.endpoint(ids[0]).expect("there");
    assert_eq!((view.in_flight, view.decoding), (2, 1), "it still runs");
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let of_band = |band: Band| Config {
        flow: FlowControl {
            bands: BTreeMap::from([(-1, band)]),
            ..FlowControl::default()
        },
        ..Config::default()
    };
    let ceiling = |ceiling| {
        of_band(Band {
            ceiling: Some(ceiling),
            ..Band::default()
        })
    };
    let flow = |flow| Config {
        flow,
        ..Config::default()
    };
    let table = [
        (ceiling(0.0), "flow.bands[-1].ceiling"),
        (ceiling(1.01), "flow.bands[-1].ceiling"),
        (ceiling(f64::NAN), "flow.bands[-1].ceiling"),
        (
            of_band(Band {
                ttl: Some(Duration::ZERO),
                ..Band::default()
            }),
            "flow.bands[-1].ttl",
        ),
        (
            flow(FlowControl {
                window: 0,
                ..FlowControl::default()
            }),
            "flow.window",
        ),
        (
            flow(FlowControl {
                request_ttl: Duration::ZERO,
                ..FlowControl::default()
            }),
            "flow.request_ttl",
        ),
        (
            flow(FlowControl {
                max_wait: Some(Duration::ZERO),
                ..FlowControl::default()
            }),
            "flow.max_wait",
        ),
        (
            Config {
                block_tokens: 0,
                ..Config::default()
            },
            "block_tokens",
        ),
    ];
    for (config, field) in table {
        let error = config.validate().expect_err(field);
        assert_eq!(error.field, field);
        assert!(error.to_string().starts_with(field));
    }
    assert_eq!(Config::default().validate(), Ok(()));
    assert_eq!(ceiling(1.0).validate(), Ok(()));
}

#[test]
fn scraped_queues_count_for_ceilings() {
    let (mut pool, ids) = narrow(
        band(
            0,
            Band {
                ceiling: Some(0.6),
                ..Band::default()
            },
        ),
        1,
    );
    let load = |waiting| Load {
        waiting: Some(waiting),
        running: Some(0),
        kv_usage: None,
    };
    let at = |pool: &mut Pool, waiting| {
        let endpoint = ids[0];
        pool.observe(
            secs(1.0),
            Event::Scraped {
                endpoint,
                load: load(waiting),
            },
        );
        pool.stats().saturation
    };
    assert_eq!(at(&mut pool, 0), 0.0);
    // Of others, so they take places too.
    assert!(at(&mut pool, 3) >= 0.5);
    assert_eq!(at(&mut pool, 50), 1.0);
}

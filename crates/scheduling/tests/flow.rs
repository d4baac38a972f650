//! Flow control: who waits, for what, for how long, and in which order they go.

mod common;

use common::{complete, drain, opaque, pool, prompt, rejected, secs, send, winners};
use scheduling::RejectReason::{
    DeadlineUnreachable, NoCandidate, NoReadyEndpoint, QueueFull, QueueTtl, SheddableSaturated,
};
use scheduling::{
    Candidates, Config, Decision, EndpointId, EndpointProfile, Event, FailureKind, FlowControl,
    Health, Load, Pool, Probe, Request, Ticket, Time,
};
use std::time::Duration;

fn scrape(pool: &mut Pool, now: Time, endpoint: EndpointId, waiting: u32) {
    let load = Load {
        waiting: Some(waiting),
        running: Some(waiting),
        kv_usage: None,
    };
    pool.observe(now, Event::Scraped { endpoint, load });
}

fn closed(config: Config, endpoints: usize) -> (Pool, Vec<EndpointId>) {
    let (mut pool, ids) = pool(config, endpoints);
    ids.iter()
        .for_each(|&id| scrape(&mut pool, Time::ZERO, id, 6));
    (pool, ids)
}

fn class(priority: i32, private: u64) -> Request {
    Request {
        priority,
        ..prompt(private, 20, private, 100)
    }
}

/// Opens the endpoint for one prompt after the other; the order in which they go.
fn served(pool: &mut Pool, from: f64) -> Vec<Ticket> {
    let mut order = Vec::new();
    for step in 0..100 {
        let now = secs(from + f64::from(step) * 0.2);
        for (ticket, _) in winners(&drain(pool, now)) {
            order.push(ticket);
            complete(pool, now, ticket);
        }
    }
    order
}

#[test]
fn when_capacity_frees_the_highest_class_goes_first() {
    let (mut pool, ids) = closed(
        Config {
            prefill_gate_tokens: 4000,
            ..Config::default()
        },
        1,
    );
    let tickets: Vec<Ticket> = [0, 1, 0, 2, 1]
        .iter()
        .zip(1..)
        .map(|(&priority, at)| pool.arrive(secs(0.5), class(priority, at)))
        .collect();
    assert!(drain(&mut pool, secs(0.5)).is_empty());
    assert_eq!(pool.stats().queued_by_priority, [(2, 1), (1, 2), (0, 2)]);
    assert!(pool.stats().saturated);
    scrape(&mut pool, secs(1.0), ids[0], 0);
    let first = winners(&drain(&mut pool, secs(1.0)));
    assert_eq!(
        first.keys().collect::<Vec<_>>(),
        [&tickets[3]],
        "one fills the gate"
    );
    complete(&mut pool, secs(1.1), tickets[3]);
    assert_eq!(served(&mut pool, 1.2), [1, 4, 0, 2].map(|at| tickets[at]));
}

#[test]
fn sheddable_is_refused_with_a_time_to_come_back() {
    let (mut pool, ids) = closed(Config::default(), 2);
    let ticket = pool.arrive(secs(0.5), class(-1, 1));
    match drain(&mut pool, secs(0.5)).as_slice() {
        [
            Decision::Reject {
                ticket: it,
                reason: SheddableSaturated,
                retry_after,
            },
        ] => {
            assert_eq!(*it, ticket);
            assert!((1..=60).contains(&retry_after.as_secs()));
        }
        other => panic!("{other:?}"),
    }
    scrape(&mut pool, secs(0.6), ids[1], 0);
    send(&mut pool, secs(0.6), class(-1, 2));
}

#[test]
fn nothing_is_pushed_on_top_of_a_closed_endpoint_until_its_scrape_is_old() {
    let (mut pool, ids) = closed(Config::default(), 1);
    let ticket = pool.arrive(secs(1.0), class(1, 1));
    assert!(drain(&mut pool, secs(1.0)).is_empty());
    assert_eq!(
        pool.wake_at(),
        Some(secs(5.0)),
        "when the scrape is no longer believed"
    );
    assert_eq!(
        winners(&drain(&mut pool, secs(5.0))).get(&ticket),
        Some(&ids[0])
    );
}

#[test]
fn a_silent_warm_endpoint_is_waited_for_only_as_long_as_it_is_worth() {
    let (mut pool, ids) = pool(Config::default(), 2);
    let (first, warm) = send(&mut pool, secs(0.0), prompt(1, 300, 1, 1));
    complete(&mut pool, secs(0.6), first);
    scrape(&mut pool, secs(1.0), warm, 6);
    // Six requests of others in the warm one's queue are expected to take less than the prompt on the other.
    let ticket = pool.arrive(secs(1.0), prompt(1, 300, 2, 1));
    assert!(
        drain(&mut pool, secs(1.0)).is_empty(),
        "waits although another is open"
    );
    let wake = pool.wake_at().expect("not for ever");
    assert!(wake > secs(1.0) && wake < secs(5.0), "{wake:?}");
    let other = ids.iter().copied().find(|&id| id != warm);
    assert_eq!(
        winners(&drain(&mut pool, wake)).get(&ticket).copied(),
        other
    );

    let (mut pool, _) = common::pool(Config::default(), 2);
    let (first, warm) = send(&mut pool, secs(0.0), prompt(1, 300, 1, 1));
    complete(&mut pool, secs(0.6), first);
    scrape(&mut pool, secs(1.0), warm, 6);
    let ticket = pool.arrive(secs(1.0), prompt(1, 300, 2, 1));
    assert!(drain(&mut pool, secs(1.0)).is_empty());
    scrape(&mut pool, secs(1.01), warm, 0);
    assert_eq!(
        winners(&drain(&mut pool, secs(1.01))).get(&ticket),
        Some(&warm)
    );
}

#[test]
fn patience_with_a_warm_endpoint_lasts_while_it_gives_tokens() {
    let (mut pool, ids) = pool(Config::default(), 2);
    let (first, warm) = send(&mut pool, secs(0.0), prompt(1, 300, 1, 1));
    complete(&mut pool, secs(0.6), first);
    let (busy, other) = send(&mut pool, secs(0.7), prompt(1, 300, 3, 1));
    assert_eq!(other, warm);
    pool.observe(secs(0.8), Event::FirstToken { ticket: busy });
    scrape(&mut pool, secs(1.0), warm, 6);
    let ticket = pool.arrive(secs(1.0), prompt(1, 300, 2, 1));
    assert!(drain(&mut pool, secs(1.0)).is_empty());
    let wake = pool.wake_at().expect("not for ever");
    for tenth in 11..40 {
        let now = secs(f64::from(tenth) * 0.1);
        let progress = Event::Progress {
            ticket: busy,
            tokens: 5,
        };
        pool.observe(now, progress);
        scrape(&mut pool, now, warm, 6);
        assert!(drain(&mut pool, now).is_empty(), "gives up at {now:?}");
    }
    assert!(wake < secs(3.0), "the wait was longer than the first bound");
    let silent = pool.wake_at().expect("not for ever");
    assert!(silent > secs(3.9) && silent < secs(8.0), "{silent:?}");
    scrape(&mut pool, secs(3.9), warm, 6);
    let went = winners(&drain(&mut pool, silent)).get(&ticket).copied();
    assert!(went.is_some_and(|it| it != warm && ids.contains(&it)));
}

#[test]
fn the_queue_is_bounded_and_a_higher_class_takes_the_youngest_of_the_lowest() {
    let (mut pool, _) = closed(
        Config {
            flow: FlowControl {
                max_requests: 3,
                ..FlowControl::default()
            },
            ..Config::default()
        },
        1,
    );
    let tickets: Vec<Ticket> = (0..3)
        .map(|at| pool.arrive(secs(0.5), class(0, at)))
        .collect();
    assert!(drain(&mut pool, secs(0.5)).is_empty());
    let same = pool.arrive(secs(0.6), class(0, 9));
    assert_eq!(rejected(&drain(&mut pool, secs(0.6))), [(same, QueueFull)]);
    pool.arrive(secs(0.7), class(1, 10));
    assert_eq!(
        rejected(&drain(&mut pool, secs(0.7))),
        [(tickets[2], QueueFull)]
    );
    assert_eq!(pool.stats().queued_by_priority, [(1, 1), (0, 2)]);
}

#[test]
fn waiting_ends() {
    let config = Config {
        scrape_ttl: Duration::from_secs(3600),
        ..Config::default()
    };
    let (mut pool, _) = closed(config, 1);
    let late = pool.arrive(
        secs(0.5),
        Request {
            deadline: Some(secs(20.0)),
            ..class(0, 1)
        },
    );
    let hopeless = pool.arrive(
        secs(0.5),
        Request {
            deadline: Some(secs(0.501)),
            ..class(0, 2)
        },
    );
    let patient = pool.arrive(secs(0.5), class(0, 3));
    assert_eq!(
        rejected(&drain(&mut pool, secs(0.5))),
        [(hopeless, DeadlineUnreachable)]
    );
    let mut ends = Vec::new();
    while let Some(wake) = pool.wake_at() {
        ends.extend(
            rejected(&drain(&mut pool, wake))
                .into_iter()
                .map(|end| (end, wake)),
        );
    }
    let [(early, at), (last, end)] = ends[..] else {
        panic!("{ends:?}")
    };
    assert_eq!(early, (late, DeadlineUnreachable));
    assert!(
        at > secs(19.5) && at < secs(20.0),
        "as soon as its prefill alone would take too long: {at:?}"
    );
    assert_eq!((last, end), ((patient, QueueTtl), secs(60.5)));
    assert_eq!(pool.stats().queued, 0);
}

#[test]
fn an_empty_pool_has_a_waiting_room() {
    let mut pool = Pool::new(Config::default(), 1);
    let early = pool.arrive(secs(0.0), prompt(1, 1, 1, 1));
    assert!(drain(&mut pool, secs(0.0)).is_empty());
    let late = pool.arrive(secs(3.0), opaque());
    assert!(drain(&mut pool, secs(3.0)).is_empty());
    assert_eq!(pool.wake_at(), Some(secs(5.0)));
    assert_eq!(
        rejected(&drain(&mut pool, secs(5.0))),
        [(early, NoReadyEndpoint)]
    );
    let id = pool.join(secs(6.0), EndpointProfile::default());
    assert_eq!(winners(&drain(&mut pool, secs(6.0))).get(&late), Some(&id));
}

#[test]
fn lower_classes_give_an_engine_one_prompt_at_a_time_while_a_higher_one_is_around() {
    let (mut pool, _) = pool(Config::default(), 1);
    let both = [1, 2].map(|text| send(&mut pool, secs(0.0), class(0, text)).0);
    for ticket in both {
        complete(&mut pool, secs(0.1), ticket);
    }
    let (higher, _) = send(&mut pool, secs(0.2), class(1, 3));
    complete(&mut pool, secs(0.25), higher);
    let (first, _) = send(&mut pool, secs(0.3), class(0, 4));
    let second = pool.arrive(secs(0.3), class(0, 5));
    let shed = pool.arrive(secs(0.3), class(-1, 6));
    let held = drain(&mut pool, secs(0.3));
    assert!(held.is_empty(), "neither pushed nor refused: {held:?}");
    let (higher, _) = send(&mut pool, secs(0.4), class(1, 7));
    complete(&mut pool, secs(0.5), higher);
    assert!(drain(&mut pool, secs(0.5)).is_empty());
    complete(&mut pool, secs(0.6), first);
    assert_eq!(winners(&drain(&mut pool, secs(0.6))).len(), 1);
    complete(&mut pool, secs(0.7), second);
    assert!(winners(&drain(&mut pool, secs(0.7))).contains_key(&shed));
    complete(&mut pool, secs(0.8), shed);
    // Half a minute later there is none above it.
    for text in [8, 9] {
        send(&mut pool, secs(31.0), class(0, text));
    }
}

#[test]
fn a_stream_of_critical_requests_does_not_starve_standard_ones() {
    // One request at a time, and always another critical one that waits.
    let (mut pool, _) = pool(
        Config {
            prefill_gate_tokens: 100,
            ..Config::default()
        },
        1,
    );
    let (mut running, _) = send(&mut pool, secs(0.0), class(1, 0));
    let standard: Vec<Ticket> = (1..4)
        .map(|at| pool.arrive(secs(0.0), class(0, at)))
        .collect();
    pool.arrive(secs(0.0), class(1, 9));
    let mut served = Vec::new();
    for step in 1_u32..=200 {
        let now = secs(f64::from(step) * 0.1);
        pool.arrive(now, class(1, u64::from(step) + 10));
        complete(&mut pool, now, running);
        let went = winners(&drain(&mut pool, now));
        running = *went.keys().next().expect("one goes when one ends");
        assert_eq!(went.len(), 1);
        if standard.contains(&running) {
            served.push((running, step));
        }
    }
    let order: Vec<Ticket> = served.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(order, standard, "oldest first");
    assert!(
        (101..=108).contains(&served[0].1),
        "after ten seconds: {served:?}"
    );
    assert!(
        served
            .windows(2)
            .all(|pair| (8..=9).contains(&(pair[1].1 - pair[0].1))),
        "one second of prefill in eight: {served:?}"
    );
}

#[test]
fn draining_endpoints_get_nothing_new_unless_there_is_nobody_else() {
    let (mut pool, ids) = pool(Config::default(), 2);
    let (ticket, _) = send(
        &mut pool,
        secs(0.0),
        Request {
            preferred: Some(ids[0]),
            ..prompt(1, 5, 1, 1)
        },
    );
    pool.observe(
        secs(0.1),
        Event::Draining {
            endpoint: ids[0],
            draining: true,
        },
    );
    for at in 0..8 {
        let request = Request {
            preferred: Some(ids[0]),
            ..prompt(1, 5, at, 1)
        };
        assert_eq!(
            send(&mut pool, secs(0.2), request).1,
            ids[1],
            "neither cache nor session holds"
        );
    }
    pool.observe(secs(0.3), Event::Left { endpoint: ids[1] });
    assert_eq!(send(&mut pool, secs(0.4), prompt(3, 1, 1, 1)).1, ids[0]);
    pool.observe(
        secs(0.5),
        Event::Draining {
            endpoint: ids[0],
            draining: false,
        },
    );
    complete(&mut pool, secs(0.5), ticket);
    assert!(!pool.endpoint(ids[0]).expect("there").draining);
}

#[test]
fn a_session_is_kept_even_on_a_closed_endpoint() {
    let (mut pool, ids) = pool(Config::default(), 2);
    scrape(&mut pool, secs(0.0), ids[0], 9);
    let request = |id| Request {
        preferred: Some(id),
        ..prompt(1, 1, 1, 1)
    };
    assert_eq!(send(&mut pool, secs(0.1), request(ids[0])).1, ids[0]);
    pool.observe(secs(0.2), Event::Left { endpoint: ids[0] });
    assert_eq!(
        send(&mut pool, secs(0.3), request(ids[0])).1,
        ids[1],
        "gone: as if it had not asked"
    );
}

#[test]
fn candidates_and_exclusions_are_hard() {
    let (mut pool, ids) = pool(Config::default(), 3);
    let only = |list: &[EndpointId]| Candidates::Only(list.into());
    for at in 0..10 {
        let request = Request {
            candidates: only(&ids[1..2]),
            ..prompt(at, 50, at, 1)
        };
        pool.arrive(secs(0.0), request);
        assert!(
            winners(&drain(&mut pool, secs(0.0)))
                .values()
                .all(|&id| id == ids[1])
        );
    }
    let request = Request {
        candidates: only(&ids[..2]),
        exclude: [ids[0]].into_iter().collect(),
        ..opaque()
    };
    assert_eq!(send(&mut pool, secs(0.0), request.clone()).1, ids[1]);
    let tried = pool.arrive(
        secs(0.0),
        Request {
            exclude: ids[..2].iter().copied().collect(),
            ..request
        },
    );
    assert!(rejected(&drain(&mut pool, secs(0.0))).contains(&(tried, NoReadyEndpoint)));
    pool.observe(secs(0.0), Event::Left { endpoint: ids[2] });
    let gone = pool.arrive(
        secs(0.0),
        Request {
            candidates: only(&ids[2..]),
            ..opaque()
        },
    );
    assert!(rejected(&drain(&mut pool, secs(0.0))).contains(&(gone, NoCandidate)));
}

#[test]
fn outliers_are_avoided_but_never_all_of_them() {
    let (mut pool, ids) = pool(Config::default(), 2);
    let fail = |pool: &mut Pool, endpoint, kind| {
        let request = Request {
            candidates: Candidates::Only([endpoint].into()),
            ..prompt(1, 1, 1, 1)
        };
        let (ticket, _) = send(pool, secs(0.0), request);
        pool.observe(
            secs(0.0),
            Event::Failed {
                ticket,
                endpoint,
                kind,
            },
        );
        pool.observe(
            secs(0.0),
            Event::Finished {
                ticket,
                usage: None,
                ok: false,
            },
        );
    };
    for _ in 0..3 {
        fail(&mut pool, ids[0], FailureKind::ServerError);
    }
    assert_eq!(
        pool.endpoint(ids[0]).map(|view| view.health),
        Some(Health::Down)
    );
    assert!((0..8).all(|at| send(&mut pool, secs(0.1), prompt(at, 9, at, 1)).1 == ids[1]));
    for _ in 0..2 {
        fail(&mut pool, ids[1], FailureKind::Connect);
    }
    send(&mut pool, secs(0.2), prompt(1, 1, 1, 1));
    ids.iter().for_each(|&endpoint| {
        pool.observe(
            secs(0.3),
            Event::Probe {
                endpoint,
                outcome: Probe::Failed,
            },
        );
    });
    assert_eq!(
        pool.endpoint(ids[1]).map(|view| view.health),
        Some(Health::Dead)
    );
    assert!(
        (0..8).all(|at| send(&mut pool, secs(0.4), prompt(at, 9, at, 1)).1 == ids[0]),
        "dead gets nothing"
    );
    pool.observe(
        secs(0.5),
        Event::Probe {
            endpoint: ids[1],
            outcome: Probe::Passed,
        },
    );
    assert_eq!(send(&mut pool, secs(0.5), prompt(77, 9, 1, 1)).1, ids[1]);
}

#[test]
fn load_only_endpoints_and_opaque_requests_go_by_requests_in_flight() {
    let mut pool = Pool::new(Config::default(), 3);
    let profile = EndpointProfile {
        load_only: true,
        ..EndpointProfile::default()
    };
    let ids: Vec<EndpointId> = (0..3).map(|_| pool.join(Time::ZERO, profile)).collect();
    scrape(&mut pool, secs(0.0), ids[0], 50);
    for round in 1..=5 {
        for at in 0..3 {
            send(&mut pool, secs(0.0), prompt(at, 200, at, 1));
        }
        assert!(ids.iter().all(|&id| {
            pool.endpoint(id)
                .is_some_and(|view| view.in_flight == round)
        }));
    }
    let (mut pool, ids) = closed(Config::default(), 2);
    let went: Vec<EndpointId> = (0..4)
        .map(|_| send(&mut pool, secs(0.1), opaque()).1)
        .collect();
    assert_eq!(
        went.iter().filter(|&&id| id == ids[0]).count(),
        2,
        "at once, and evenly"
    );
}

#[test]
fn a_retry_takes_its_charge_and_its_prompt_along() {
    let (mut pool, ids) = pool(Config::default(), 2);
    let (ticket, from) = send(&mut pool, secs(0.0), prompt(1, 30, 1, 2));
    let to = if from == ids[0] { ids[1] } else { ids[0] };
    pool.observe(
        secs(0.1),
        Event::Failed {
            ticket,
            endpoint: from,
            kind: FailureKind::Reset,
        },
    );
    assert_eq!(
        pool.endpoint(from).map(|view| view.in_flight),
        Some(1),
        "until it moves"
    );
    pool.observe(secs(0.1), Event::Moved { ticket, to });
    let load = |pool: &Pool, id| {
        pool.endpoint(id)
            .map(|it| (it.in_flight, it.pending_tokens > 0, it.cached_blocks))
    };
    assert_eq!(load(&pool, from), Some((0, false, 0)));
    assert_eq!(load(&pool, to), Some((1, true, 32)));
    complete(&mut pool, secs(0.2), ticket);
    assert_eq!(load(&pool, to), Some((0, false, 32)));
}

#[test]
fn requests_without_a_stream_leave_the_prefill_when_it_must_be_done() {
    let (mut pool, _) = pool(Config::default(), 1);
    let request = |text| Request {
        streams: false,
        ..prompt(text, 150, text, 1)
    };
    // Those that end sooner than the model says leave no backlog in it, even while another one runs.
    let (_, id) = send(&mut pool, secs(0.0), prompt(7, 1, 7, 1));
    for text in 100..400 {
        let (ticket, _) = send(&mut pool, secs(0.0), request(text));
        let usage = None;
        pool.observe(
            secs(0.0),
            Event::Finished {
                ticket,
                usage,
                ok: true,
            },
        );
    }
    send(&mut pool, secs(0.0), request(1));
    let waits = pool.arrive(secs(0.0), prompt(2, 150, 1, 1));
    assert!(drain(&mut pool, secs(0.0)).is_empty(), "the gate is full");
    let wake = pool.wake_at().expect("the end of the prefill is presumed");
    assert!(wake > secs(0.1) && wake < secs(1.0), "{wake:?}");
    assert_eq!(winners(&drain(&mut pool, wake)).get(&waits), Some(&id));
}

#[test]
fn engines_correct_what_the_pool_believes() {
    let (mut pool, ids) = pool(Config::default(), 1);
    let usage = |prompt_tokens, cached| scheduling::Usage {
        prompt_tokens,
        completion_tokens: 50,
        cached_tokens: cached,
    };
    for at in 0..200 {
        let (ticket, _) = send(&mut pool, secs(f64::from(at)), prompt(1, 30, 1, 0));
        pool.observe(secs(f64::from(at)), Event::FirstToken { ticket });
        let usage = Some(usage(2900, Some(0)));
        pool.observe(
            secs(f64::from(at) + 0.5),
            Event::Finished {
                ticket,
                usage,
                ok: true,
            },
        );
    }
    let stats = pool.stats();
    assert!(
        (stats.prompt_scale - 2900.0 / 1930.0).abs() < 0.01,
        "{}",
        stats.prompt_scale
    );
    assert!(
        (stats.output_tokens - 50.0).abs() < 5.0,
        "{}",
        stats.output_tokens
    );
    assert!(stats.hit_confirmed < 0.05);
    pool.arrive(secs(300.0), prompt(1, 30, 1, 0));
    let Some(Decision::Dispatch { hit_tokens, .. }) = pool.next(secs(300.0)) else {
        panic!()
    };
    assert!(
        hit_tokens < 100,
        "an engine that never confirms a hit is not trusted to have any: {hit_tokens}"
    );
    assert!(pool.endpoint(ids[0]).is_some());
}

#[test]
fn abandoned_requests_leave_no_trace() {
    let (mut pool, ids) = closed(Config::default(), 1);
    let queued = pool.arrive(secs(0.1), class(0, 1));
    drain(&mut pool, secs(0.1));
    let fresh = pool.arrive(secs(0.1), class(0, 2));
    pool.observe(secs(0.2), Event::Abandoned { ticket: queued });
    pool.observe(secs(0.2), Event::Abandoned { ticket: fresh });
    scrape(&mut pool, secs(0.3), ids[0], 0);
    assert!(drain(&mut pool, secs(0.3)).is_empty());
    let (ticket, _) = send(&mut pool, secs(0.4), class(0, 3));
    pool.observe(secs(0.5), Event::Abandoned { ticket });
    pool.observe(
        secs(0.6),
        Event::Finished {
            ticket,
            usage: None,
            ok: true,
        },
    );
    let view = pool.endpoint(ids[0]).expect("there");
    assert_eq!(
        (
            view.in_flight,
            view.pending_tokens,
            view.kv_used_tokens,
            pool.stats().in_flight
        ),
        (0, 0, 0, 0)
    );
}

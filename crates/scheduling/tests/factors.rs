//! Each of the five factors flips a decision on its own: two endpoints alike in all but one thing.

mod common;

use common::{complete, drain, pool, prompt, rejected, secs, send, winners};
use scheduling::{AdapterKey, Config, EndpointId, Event, Load, Pool, Request};

/// Prepares one of two endpoints; where does the request go then? Both ways round, so that no tie can pass for it.
fn goes_to_the_other(prepare: impl Fn(&mut Pool, EndpointId), request: &Request) -> [bool; 2] {
    [0, 1].map(|at| {
        let (mut pool, ids) = pool(Config::default(), 2);
        prepare(&mut pool, ids[at]);
        let (_, winner) = send(&mut pool, secs(1.0), request.clone());
        winner == ids[1 - at]
    })
}

fn only(request: Request, id: EndpointId) -> Request {
    Request {
        candidates: scheduling::Candidates::Only([id].into()),
        ..request
    }
}

#[test]
fn prefix_draws_a_request_to_where_it_is_cached() {
    let warm = |pool: &mut Pool, id| {
        let (ticket, _) = send(pool, secs(0.0), only(prompt(1, 30, 1, 2), id));
        complete(pool, secs(0.5), ticket);
    };
    assert_eq!(
        goes_to_the_other(warm, &prompt(1, 30, 2, 2)),
        [false, false]
    );
    assert_eq!(
        goes_to_the_other(warm, &prompt(9, 30, 2, 2)),
        [true, true],
        "another prompt spreads"
    );
    let forgotten = |pool: &mut Pool, id| {
        warm(pool, id);
        pool.observe(secs(0.6), Event::CacheCleared { endpoint: id });
    };
    assert_eq!(
        goes_to_the_other(forgotten, &prompt(1, 30, 2, 2)),
        [true, true],
        "and so does a forgotten one"
    );
}

#[test]
fn queue_depth_drives_a_request_away_even_from_its_prefix() {
    let pending = |pool: &mut Pool, id| {
        let (ticket, _) = send(pool, secs(0.0), only(prompt(1, 20, 1, 2), id));
        complete(pool, secs(0.5), ticket);
        send(pool, secs(0.9), only(prompt(5, 120, 5, 2), id));
    };
    assert_eq!(
        goes_to_the_other(pending, &prompt(1, 20, 2, 2)),
        [true, true]
    );
    let scraped = |pool: &mut Pool, id| {
        let load = Load {
            waiting: Some(3),
            running: Some(3),
            kv_usage: None,
        };
        pool.observe(secs(0.9), Event::Scraped { endpoint: id, load });
    };
    assert_eq!(
        goes_to_the_other(scraped, &prompt(1, 20, 2, 2)),
        [true, true],
        "the work of others counts too"
    );
}

#[test]
fn a_full_kv_cache_drives_a_request_away() {
    let full = |pool: &mut Pool, id| {
        let load = Load {
            waiting: Some(0),
            running: Some(0),
            kv_usage: Some(0.97),
        };
        pool.observe(secs(0.9), Event::Scraped { endpoint: id, load });
    };
    assert_eq!(goes_to_the_other(full, &prompt(1, 100, 2, 2)), [true, true]);
    let empty = |pool: &mut Pool, id| {
        let load = Load {
            waiting: Some(0),
            running: Some(0),
            kv_usage: Some(0.0),
        };
        pool.observe(secs(0.9), Event::Scraped { endpoint: id, load });
    };
    let way = goes_to_the_other(empty, &prompt(1, 100, 2, 2));
    assert_ne!(way[0], way[1], "an empty one makes no difference");
}

#[test]
fn an_adapter_draws_a_request_to_where_it_is_resident() {
    let adapter = AdapterKey(5);
    let resident = |pool: &mut Pool, endpoint| {
        let event = Event::Adapters {
            endpoint,
            resident: &[adapter],
            loading: &[],
            max: Some(4),
        };
        pool.observe(secs(0.9), event);
    };
    let request = Request {
        adapter: Some(adapter),
        ..prompt(1, 10, 2, 2)
    };
    assert_eq!(goes_to_the_other(resident, &request), [false, false]);
    let followers = |pool: &mut Pool, id| {
        send(pool, secs(0.9), only(request.clone(), id));
    };
    let other_prompt = Request {
        adapter: Some(adapter),
        ..prompt(3, 10, 4, 2)
    };
    assert_eq!(
        goes_to_the_other(followers, &other_prompt),
        [false, false],
        "a dispatch counts at once"
    );
}

#[test]
fn criticality_decides_who_is_served_when_nobody_is_open() {
    for (priority, outcome) in [(-1, "refused"), (0, "waits"), (1, "waits")] {
        let (mut pool, ids) = pool(Config::default(), 1);
        let load = Load {
            waiting: Some(6),
            running: Some(1),
            kv_usage: None,
        };
        pool.observe(
            secs(0.9),
            Event::Scraped {
                endpoint: ids[0],
                load,
            },
        );
        pool.arrive(
            secs(1.0),
            Request {
                priority,
                ..prompt(1, 2, 3, 4)
            },
        );
        let decisions = drain(&mut pool, secs(1.0));
        assert!(winners(&decisions).is_empty());
        assert_eq!(
            rejected(&decisions).len(),
            usize::from(outcome == "refused"),
            "{priority} {outcome}"
        );
    }
}

#[test]
fn health_drives_a_request_away_until_it_is_long_ago() {
    use scheduling::FailureKind::ServerError;
    let fail = |pool: &mut Pool, endpoint| {
        let (ticket, _) = send(pool, secs(0.5), only(prompt(8, 1, 8, 1), endpoint));
        pool.observe(
            secs(0.9),
            Event::Failed {
                ticket,
                endpoint,
                kind: ServerError,
            },
        );
        pool.observe(
            secs(0.9),
            Event::Finished {
                ticket,
                usage: None,
                ok: false,
            },
        );
    };
    assert_eq!(goes_to_the_other(fail, &prompt(1, 10, 2, 2)), [true, true]);
}

#[test]
fn an_explanation_names_all_of_it() {
    let (mut pool, ids) = pool(Config::default(), 3);
    pool.observe(
        secs(0.5),
        Event::Draining {
            endpoint: ids[1],
            draining: true,
        },
    );
    let request = Request {
        explain: true,
        exclude: [ids[2]].into_iter().collect(),
        ..prompt(1, 30, 1, 1)
    };
    pool.arrive(secs(1.0), request);
    let Some(scheduling::Decision::Dispatch {
        explanation: Some(why),
        predicted_ttft,
        ..
    }) = pool.next(secs(1.0))
    else {
        panic!("no explanation")
    };
    assert_eq!((why.policy, why.winner), ("expected-cost", ids[0]));
    let excluded: Vec<_> = why.candidates.iter().map(|it| it.excluded).collect();
    assert_eq!(excluded, [None, Some("draining"), Some("already_tried")]);
    let sum: f64 = why.candidates[0]
        .terms
        .iter()
        .map(|(_, seconds)| seconds)
        .sum();
    assert!(
        (sum - why.candidates[0].total).abs() < 1e-9
            && predicted_ttft > 0.0
            && predicted_ttft <= sum + 0.01
    );
    assert!(!why.reason.is_empty());
    pool.arrive(secs(1.0), prompt(1, 30, 1, 1));
    assert!(matches!(
        pool.next(secs(1.0)),
        Some(scheduling::Decision::Dispatch {
            explanation: None,
            ..
        })
    ));
}

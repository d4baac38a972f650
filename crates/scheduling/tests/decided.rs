//! Requests whose servers somebody else has chosen: they are charged like all others, and never held up.

mod common;

use common::{complete, drain, opaque, pool, prompt, rejected, secs, send};
use scheduling::{
    Candidates, Config, Decision, EndpointId, Event, FailureKind, RejectReason, Request,
};

/// A pool whose servers have long queues of their own.
fn closed(config: Config, endpoints: usize) -> (scheduling::Pool, Vec<EndpointId>) {
    let (mut pool, ids) = pool(config, endpoints);
    for &endpoint in &ids {
        let load = scheduling::Load {
            waiting: Some(50),
            running: Some(50),
            kv_usage: None,
        };
        pool.observe(secs(0.0), Event::Scraped { endpoint, load });
    }
    (pool, ids)
}

fn decided(ids: &[EndpointId], request: Request) -> Request {
    Request {
        candidates: Candidates::Ordered(ids.into()),
        ..request
    }
}

#[test]
fn the_order_is_kept_whatever_the_cost() {
    let (mut pool, ids) = pool(Config::default(), 4);
    for busy in 0..8 {
        send(
            &mut pool,
            secs(0.0),
            decided(&[ids[2]], prompt(busy, 400, busy, 100)),
        );
    }
    let order = [ids[2], ids[0], ids[3], ids[0]];
    pool.arrive(secs(0.1), decided(&order, prompt(9, 100, 9, 10)));
    let decisions = drain(&mut pool, secs(0.1));
    let Some(Decision::Dispatch { endpoints, .. }) = decisions.first() else {
        panic!("{decisions:?}");
    };
    assert_eq!(endpoints[..], [ids[2], ids[0], ids[3]]);
}

#[test]
fn neither_saturation_nor_class_holds_it_up() {
    let (mut pool, ids) = closed(Config::default(), 2);
    let sheddable = Request {
        priority: -5,
        ..prompt(1, 100, 1, 10)
    };
    let (_, to) = send(&mut pool, secs(0.0), decided(&ids[1..], sheddable));
    assert_eq!(to, ids[1]);
}

#[test]
fn it_is_charged_like_any_other_and_gives_its_charge_back() {
    let (mut pool, ids) = pool(Config::default(), 2);
    let (ticket, _) = send(
        &mut pool,
        secs(0.0),
        decided(&ids[..1], prompt(1, 200, 1, 50)),
    );
    let view = pool.endpoint(ids[0]).expect("there");
    assert_eq!(view.in_flight, 1);
    assert!(view.pending_tokens > 0);
    // The next one, placed here, sees the work.
    let (other, to) = send(&mut pool, secs(0.0), prompt(2, 200, 2, 50));
    assert_eq!(to, ids[1]);
    complete(&mut pool, secs(1.0), ticket);
    complete(&mut pool, secs(1.0), other);
    let view = pool.endpoint(ids[0]).expect("there");
    assert_eq!((view.in_flight, view.pending_tokens), (0, 0));
}

#[test]
fn what_is_down_gives_way_and_what_is_gone_is_refused() {
    let (mut pool, ids) = pool(Config::default(), 3);
    let fail = |pool: &mut scheduling::Pool, at: f64, endpoint| {
        let (ticket, _) = send(pool, secs(at), decided(&[endpoint], opaque()));
        let kind = FailureKind::Connect;
        pool.observe(
            secs(at),
            Event::Failed {
                ticket,
                endpoint,
                kind,
            },
        );
        pool.observe(secs(at), Event::Abandoned { ticket });
    };
    for turn in 0..10 {
        fail(&mut pool, f64::from(turn) * 0.01, ids[0]);
    }
    let (_, to) = send(&mut pool, secs(0.2), decided(&ids[..2], opaque()));
    assert_eq!(to, ids[1]);
    pool.observe(secs(0.2), Event::Left { endpoint: ids[2] });
    let gone = pool.arrive(secs(0.2), decided(&ids[2..], opaque()));
    let refused = rejected(&drain(&mut pool, secs(0.2)));
    assert_eq!(refused, [(gone, RejectReason::NoCandidate)]);
}

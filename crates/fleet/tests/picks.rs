//! Picking, waiting and giving back, over servers that only have an address.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{World, key, options, pool_of, spec};
use fleet::{Fleet, FleetOptions, Owner, PickRequest, Pool};
use llm::StateKind;
use scheduling::{RejectReason, Usage};
use telemetry::Metrics;
use tokio::net::TcpListener;

/// Nobody is asked anything in these tests but whether it takes connections, once an hour.
fn quiet() -> FleetOptions {
    let mut options = options();
    options.scrape.enabled = false;
    options.learn_models = false;
    options.probe.period = Duration::from_secs(3600);
    options
}

/// An address that takes connections and never answers.
async fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn request(tokens: u32) -> PickRequest<'static> {
    PickRequest {
        request_id: "req",
        prompt_tokens: tokens,
        streams: true,
        ..PickRequest::default()
    }
}

fn in_flight(pool: &Pool) -> u32 {
    pool.endpoints().iter().map(|status| status.in_flight).sum()
}

/// A pool with one server that takes one prompt of 1000 tokens at a time.
async fn narrow() -> (World, TcpListener) {
    let (listener, address) = silent().await;
    let mut options = quiet();
    options.scheduling.prefill_gate_tokens = 500;
    options.scheduling.flow.empty_ttl = Duration::from_millis(200);
    // Its probe waits for an answer all through the test.
    options.probe.timeout = Duration::from_secs(3600);
    let metrics = Metrics::new();
    let fleet = Fleet::new(options, metrics.clone());
    fleet.apply([pool_of(vec![spec(address)])].iter());
    (World { fleet, metrics }, listener)
}

#[tokio::test]
async fn charges_go_back_whatever_becomes_of_the_request() {
    let (world, _listener) = narrow().await;
    let pool = world.pool();
    let lease = pool.pick(request(10)).await.unwrap();
    assert_eq!((in_flight(&pool), pool.in_flight()), (1, 1));
    drop(lease);
    assert_eq!((in_flight(&pool), pool.in_flight()), (0, 0));
    let mut lease = pool.pick(request(10)).await.unwrap();
    lease.first_token();
    lease.progress(100);
    let usage = Usage {
        prompt_tokens: 10,
        completion_tokens: 100,
        cached_tokens: None,
    };
    lease.finish(Some(usage), true);
    assert_eq!((in_flight(&pool), pool.in_flight()), (0, 0));
}

#[tokio::test]
async fn a_request_waits_until_there_is_room() {
    let (world, _listener) = narrow().await;
    let pool = world.pool();
    let mut first = pool.pick(request(1000)).await.unwrap();
    assert_eq!(first.queued(), Duration::ZERO);
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.pick(request(1000)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    assert_eq!(
        world.sample("pointsman_queue_size{pool=\"default/p\",priority=\"0\"}"),
        Some(1.0)
    );
    first.first_token();
    let second = waiting.await.unwrap().unwrap();
    assert!(
        second.queued() >= Duration::from_millis(40),
        "{:?}",
        second.queued()
    );
    assert_eq!(in_flight(&pool), 2);
    assert_eq!(
        world.sample("pointsman_queue_size{pool=\"default/p\",priority=\"0\"}"),
        Some(0.0)
    );
}

#[tokio::test]
async fn a_running_request_is_told_that_it_must_end() {
    let (listener, address) = silent().await;
    let mut options = quiet();
    options.scheduling.prefill_gate_tokens = 500;
    options.scheduling.flow.evict_running = true;
    options.probe.timeout = Duration::from_secs(3600);
    let metrics = Metrics::new();
    let fleet = Fleet::new(options, metrics.clone());
    fleet.apply([pool_of(vec![spec(address)])].iter());
    let (world, _listener) = (World { fleet, metrics }, listener);
    let pool = world.pool();
    let of_class = |priority| PickRequest {
        priority,
        ..request(1000)
    };
    let mut low = pool.pick(of_class(-1)).await.unwrap();
    let mut notice = low.eviction_notice().expect("it may be ended");
    assert!(low.eviction_notice().is_none(), "there is one");
    let high = tokio::spawn({
        let pool = pool.clone();
        async move { pool.pick(of_class(1)).await }
    });
    let eviction = notice.told().await;
    assert_eq!(eviction.reason.code(), "evicted");
    assert!((1..=120).contains(&eviction.retry_after_seconds()));
    assert!(!high.is_finished(), "not before the other is over");
    drop(low);
    let high = high.await.unwrap().unwrap();
    assert!(high.queued() >= Duration::from_millis(90));
    assert_eq!(
        world.sample("pointsman_evicted_total{pool=\"default/p\",reason=\"evicted\"}"),
        Some(1.0)
    );
    let waited = "pointsman_queue_wait_seconds_count{pool=\"default/p\",priority=\"1\",outcome=\"dispatched\"}";
    assert_eq!(world.sample(waited), Some(1.0));
}

#[tokio::test]
async fn without_leave_there_is_no_notice() {
    let (world, _listener) = narrow().await;
    let pool = world.pool();
    let mut lease = pool.pick(request(10)).await.unwrap();
    assert!(lease.eviction_notice().is_none());
}

#[test]
fn flows_are_told_apart_by_the_best_that_is_known() {
    let key = fleet::flow_key;
    assert_eq!(key(Some(b"a"), Some(b"k"), "m"), key(Some(b"a"), None, "n"));
    assert_eq!(key(None, Some(b"k"), "m"), key(None, Some(b"k"), "n"));
    let all = [
        key(Some(b"a"), None, "a"),
        key(None, Some(b"a"), "a"),
        key(None, None, "a"),
        key(None, None, "b"),
        key(None, None, ""),
    ];
    for (at, one) in all.iter().enumerate() {
        assert_ne!(*one, 0);
        assert!(!all[..at].contains(one), "{at}");
    }
}

#[tokio::test]
async fn a_waiting_request_that_is_dropped_leaves_the_queue() {
    let (world, _listener) = narrow().await;
    let pool = world.pool();
    let first = pool.pick(request(1000)).await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.pick(request(1000)).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert_eq!(
        world
            .sample("pointsman_queue_size{pool=\"default/p\",priority=\"0\"}")
            .unwrap_or(0.0),
        0.0
    );
    drop(first);
    assert_eq!(in_flight(&pool), 0, "it was not served after all");
}

#[tokio::test]
async fn a_decision_that_nobody_takes_goes_back() {
    let (world, _listener) = narrow().await;
    let pool = world.pool();
    let first = pool.pick(request(1000)).await.unwrap();
    let mut waiting = Box::pin(pool.pick(request(1000)));
    let polled = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
    assert!(polled.is_err());
    drop(first);
    assert_eq!(in_flight(&pool), 1, "the decision is on its way");
    drop(waiting);
    assert_eq!(in_flight(&pool), 0);
}

#[tokio::test]
async fn sheddable_requests_do_not_wait() {
    let (world, _listener) = narrow().await;
    let pool = world.pool();
    let _first = pool.pick(request(1000)).await.unwrap();
    let rejection = pool
        .pick(PickRequest {
            priority: -1,
            ..request(1000)
        })
        .await
        .unwrap_err();
    assert_eq!(rejection.reason, RejectReason::SheddableSaturated);
    assert!(rejection.retry_after > Duration::ZERO);
    let shed = "pointsman_shed_total{pool=\"default/p\",reason=\"sheddable_saturated\"}";
    assert_eq!(world.sample(shed), Some(1.0));
    assert_eq!(
        world.sample("inference_extension_scheduler_attempts_total{status=\"failure\"}"),
        Some(1.0)
    );
}

#[tokio::test]
async fn a_pool_that_is_taken_away_answers_those_who_wait() {
    let (world, _listener) = narrow().await;
    let pool = world.pool();
    let _first = pool.pick(request(1000)).await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.pick(request(1000)).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.fleet.apply([].iter());
    let rejection = tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(rejection.reason, RejectReason::NoReadyEndpoint);
    assert_eq!(
        pool.pick(request(1)).await.unwrap_err().reason,
        RejectReason::NoReadyEndpoint
    );
}

#[tokio::test(start_paused = true)]
async fn the_waiting_room_of_an_empty_pool_closes_in_time() {
    let world = World::new(quiet(), Vec::new()).await;
    let pool = world.pool();
    let began = tokio::time::Instant::now();
    let rejection = pool.pick(request(10)).await.unwrap_err();
    assert_eq!(rejection.reason, RejectReason::NoReadyEndpoint);
    let waited = began.elapsed();
    let room = Duration::from_secs(5);
    assert!(
        waited >= room && waited < room + Duration::from_millis(100),
        "{waited:?}"
    );
}

#[tokio::test]
async fn the_first_server_of_an_empty_pool_takes_those_who_wait() {
    let (_listener, address) = silent().await;
    let mut options = quiet();
    options.probe.timeout = Duration::from_secs(3600);
    let fleet = Fleet::new(options, Metrics::new());
    fleet.apply([pool_of(Vec::new())].iter());
    let pool = fleet.pool(&key()).unwrap();
    let waiting = tokio::spawn(async move { pool.pick(request(10)).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    fleet.apply([pool_of(vec![spec(address)])].iter());
    let lease = tokio::time::timeout(Duration::from_secs(3), waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(lease.endpoint().address(), address);
}

#[tokio::test]
async fn pins_hold_and_wishes_are_granted() {
    let (_a, a) = silent().await;
    let (_b, b) = silent().await;
    let mut options = quiet();
    options.probe.timeout = Duration::from_secs(3600);
    let fleet = Fleet::new(options, Metrics::new());
    fleet.apply([pool_of(vec![spec(a), spec(b)])].iter());
    let pool = fleet.pool(&key()).unwrap();
    for address in [a, b, b, a] {
        let endpoint = pool.endpoint_at(address).unwrap();
        assert_eq!(
            pool.endpoint_by_token(endpoint.token()).unwrap().uid(),
            endpoint.uid()
        );
        let pinned = PickRequest {
            pinned: Some(endpoint.clone()),
            ..request(10)
        };
        assert_eq!(
            pool.pick(pinned).await.unwrap().endpoint().address(),
            address
        );
        let preferred = PickRequest {
            preferred: Some(endpoint),
            ..request(10)
        };
        assert_eq!(
            pool.pick(preferred).await.unwrap().endpoint().address(),
            address
        );
    }
    let owner = pool.endpoint_at(a).unwrap();
    pool.remember("resp_1", &owner);
    let found = pool.owner_of(StateKind::Response, "resp_1");
    assert!(matches!(found, Some(Owner::Here(found)) if found.uid() == owner.uid()));
    assert!(pool.owner_of(StateKind::Response, "resp_2").is_none());
    fleet.apply([pool_of(vec![spec(b)])].iter());
    assert!(
        matches!(
            pool.owner_of(StateKind::Response, "resp_1"),
            Some(Owner::Gone)
        ),
        "its server is gone, which is not the same as an unknown id"
    );
    let rejection = pool
        .pick(PickRequest {
            pinned: Some(owner.clone()),
            ..request(10)
        })
        .await
        .unwrap_err();
    assert_eq!(rejection.reason, RejectReason::NoCandidate);
    let preferred = PickRequest {
        preferred: Some(owner),
        ..request(10)
    };
    assert_eq!(pool.pick(preferred).await.unwrap().endpoint().address(), b);
}

#[tokio::test]
async fn decisions_are_explained_by_name() {
    let (world, _listener) = narrow().await;
    let pool = world.pool();
    let asked = PickRequest {
        request_id: "req-7",
        model: Some("m"),
        explain: true,
        ..request(100)
    };
    let lease = pool.pick(asked).await.unwrap();
    let explained = lease.explanation().unwrap();
    assert_eq!(
        (explained.request_id.as_str(), explained.pool.as_str()),
        ("req-7", "default/p")
    );
    assert_eq!(explained.winner, lease.endpoint().name());
    assert_eq!(explained.candidates.len(), 1);
    assert_eq!(explained.candidates[0].endpoint, lease.endpoint().name());
    let newest = pool.recent_decisions().remove(0);
    assert_eq!(&newest, explained);
    let json = serde_json::to_value(&newest).unwrap();
    assert_eq!(json["model"], "m");
    for _ in 0..300 {
        drop(
            pool.pick(PickRequest {
                explain: true,
                ..request(1)
            })
            .await
            .unwrap(),
        );
    }
    assert_eq!(pool.recent_decisions().len(), 256);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_leave_nothing_behind() {
    let (world, _listener) = narrow().await;
    let pool = world.pool();
    let work = |n: u32, pool: Arc<Pool>| async move {
        for i in 0..200 {
            let picking = pool.pick(request(100 + (i * n) % 900));
            // Some leave the queue, some the server, some are served.
            let Ok(Ok(mut lease)) = tokio::time::timeout(Duration::from_millis(5), picking).await
            else {
                continue;
            };
            match (i + n) % 3 {
                0 => drop(lease),
                1 => lease.finish(None, true),
                _ => {
                    lease.first_token();
                    tokio::task::yield_now().await;
                    lease.finish(None, false);
                }
            }
        }
    };
    let tasks: Vec<_> = (0..8)
        .map(|n| tokio::spawn(work(n, pool.clone())))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((in_flight(&pool), pool.in_flight()), (0, 0));
    assert_eq!(
        world
            .sample("pointsman_queue_size{pool=\"default/p\",priority=\"0\"}")
            .unwrap_or(0.0),
        0.0
    );
    assert!(pool.pick(request(10)).await.is_ok());
}

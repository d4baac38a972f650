//! Pools over real servers on loopback: what is learned, what is lost and comes back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::{Server, World, eventually, key, models, options, pool_of, spec, vllm};
use fleet::{Engine, Fleet, PickRequest, Pool};
use routing::{AppProtocol, EndpointSpec, Host, PoolKind, PoolSpec, UpstreamTls, Verify};
use scheduling::{FailureKind, RequestKind};
use telemetry::Metrics;

fn request(model: &str) -> PickRequest<'_> {
    PickRequest {
        model: Some(model),
        prompt_tokens: 100,
        ..PickRequest::default()
    }
}

/// The servers that get requests for a model.
async fn picked(pool: &Arc<Pool>, model: &str) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    let mut leases = Vec::new();
    for _ in 0..10 {
        let lease = pool.pick(request(model)).await.unwrap();
        ports.insert(lease.endpoint().address().port());
        leases.push(lease);
    }
    ports
}

#[tokio::test]
async fn requests_go_to_servers_that_list_the_model() {
    let (a, b) = (
        Server::start(&["base", "tuned<base"]).await,
        Server::start(&["base"]).await,
    );
    let world = World::over(&[&a, &b]).await;
    let pool = world.pool();
    let (a, b) = (a.address.port(), b.address.port());
    assert_eq!(picked(&pool, "base").await, [a, b].into());
    assert_eq!(picked(&pool, "tuned").await, [a].into());
    assert_eq!(picked(&pool, "unheard-of").await, [a, b].into());
    assert!(pool.knows_model("tuned") && !pool.knows_model("unheard-of"));
    let lists = pool.models();
    let lists: Vec<&[u8]> = lists.iter().map(|body| &body[..]).collect();
    let merged = String::from_utf8(llm::merge_models(&lists).to_vec()).unwrap();
    assert_eq!(
        merged.matches("\"base\"").count() - merged.matches("\"parent\":\"base\"").count(),
        1,
        "{merged}"
    );
}

#[tokio::test]
async fn a_list_that_changed_is_read_soon_after_a_model_was_unknown() {
    let server = Server::start(&["old"]).await;
    let mut options = options();
    options.models_period = Duration::from_secs(3600);
    let world = World::new(options, vec![server.spec()]).await;
    let pool = world.pool();
    server.script.lock().models = Some(models(&["new"]));
    pool.pick(request("old")).await.unwrap().model_unknown();
    eventually("the new list", || {
        pool.knows_model("new") && !pool.knows_model("old")
    })
    .await;
}

#[tokio::test]
async fn load_is_read_over_one_connection() {
    let server = Server::start(&["m"]).await;
    server.script.lock().metrics = Some(vllm(3, 7));
    let world = World::over(&[&server]).await;
    let pool = world.pool();
    eventually("scrapes and probes", || {
        server.asked("/metrics") > 3 && server.asked("/health") > 3
    })
    .await;
    assert_eq!(server.script.lock().connections, 1);
    let status = pool.endpoints().remove(0);
    assert_eq!(
        (status.waiting, status.running, status.engine),
        (3, Some(7), Some(Engine::Vllm))
    );
    assert_eq!(
        (status.kv_capacity_tokens, status.models.as_slice()),
        (16_000, &["m".to_owned()][..])
    );
    let pod = format!("pod-{}", server.address.port());
    let series = format!(
        "inference_pool_per_pod_queue_size{{name=\"p\",model_server_pod=\"{pod}-rank-0\"}}"
    );
    assert_eq!(world.sample(&series), Some(3.0));
    assert_eq!(
        world.sample("inference_pool_average_queue_size{name=\"p\"}"),
        Some(3.0)
    );
    assert_eq!(
        world.sample("inference_pool_ready_pods{name=\"p\"}"),
        Some(1.0)
    );
}

#[tokio::test]
async fn scrapes_are_frequent_only_while_there_is_work() {
    let server = Server::start(&["m"]).await;
    let mut options = options();
    options.scrape.slow = Duration::from_secs(3600);
    let world = World::new(options, vec![server.spec()]).await;
    let pool = world.pool();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.asked("/metrics"), 1);
    let lease = pool.pick(request("m")).await.unwrap();
    eventually("frequent scrapes", || server.asked("/metrics") > 5).await;
    drop(lease);
    let mut asked = 0;
    for _ in 0..50 {
        if std::mem::replace(&mut asked, server.asked("/metrics")) == asked {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("scrapes go on at the fast rate: {asked}");
}

#[tokio::test]
async fn caches_are_believed_until_the_server_restarts() {
    let server = Server::start(&["m", "a<m", "b<m"]).await;
    let page = |started: u32, at: u32, active: &str| {
        format!(
            "{}process_start_time_seconds {started}\nvllm:lora_requests_info{{max_lora=\"2\",\
             running_lora_adapters=\"{active}\",waiting_lora_adapters=\"\"}} {at}\n",
            vllm(0, 0)
        )
    };
    server.script.lock().metrics = Some(page(1, 1, "a, b"));
    let world = World::over(&[&server]).await;
    let pool = world.pool();
    let status = |pool: &Pool| pool.endpoints().remove(0);
    eventually("two adapters", || status(&pool).adapters == 2).await;
    let asked = PickRequest {
        prefix: Arc::from([1, 2, 3]),
        prompt_tokens: 192,
        ..request("m")
    };
    pool.pick(asked).await.unwrap().finish(None, true);
    server.script.lock().metrics = Some(page(1, 2, ""));
    let before = server.asked("/metrics");
    eventually("another page", || server.asked("/metrics") > before + 1).await;
    assert_eq!(
        status(&pool).adapters,
        2,
        "nobody asks for them now, but they are loaded"
    );
    assert_eq!(status(&pool).cached_blocks, 3);
    server.script.lock().metrics = Some(page(2, 3, ""));
    eventually("a restart", || status(&pool).cached_blocks == 0).await;
}

#[tokio::test]
async fn servers_behind_tls_are_verified() {
    let identity = rcgen::generate_simple_self_signed(vec!["server.test".to_owned()]).unwrap();
    let server = Server::start_tls(&["m"], &identity).await;
    let roots = |pem: &str| {
        let tls = UpstreamTls {
            server_name: Some("server.test".to_owned()),
            verify: Verify::Roots(pem.as_bytes().into()),
            ..UpstreamTls::default()
        };
        Arc::new(PoolSpec {
            tls: Some(tls),
            ..PoolSpec::clone(&pool_of(vec![server.spec()]))
        })
    };
    let fleet = Fleet::new(options(), Metrics::new());
    fleet.apply([roots(&identity.cert.pem())].iter());
    fleet.learned(Duration::from_secs(10)).await;
    let pool = fleet.pool(&key()).unwrap();
    assert!(pool.knows_model("m"));
    let before = pool.endpoint_at(server.address).unwrap();
    assert!(before.tls().is_some());
    // Other roots: the same server for the core, another one for those who connect to it, and not to be trusted.
    let lease = pool.pick(request("m")).await.unwrap();
    let stranger = rcgen::generate_simple_self_signed(vec!["server.test".to_owned()]).unwrap();
    fleet.apply([roots(&stranger.cert.pem())].iter());
    let after = pool.endpoint_at(server.address).unwrap();
    assert!(before.gone() && !after.gone() && before.uid() != after.uid());
    assert_eq!(pool.endpoints()[0].in_flight, 1, "the core's state is kept");
    drop(lease);
    eventually("it is not trusted", || !pool.endpoints()[0].ready).await;
}

#[tokio::test]
async fn a_lost_server_comes_back_by_itself() {
    let (a, b) = (Server::start(&["m"]).await, Server::start(&["m"]).await);
    let world = World::over(&[&a, &b]).await;
    let pool = world.pool();
    let (lost, address) = (a.address.port(), a.address);
    let ready = |pool: &Pool| {
        pool.endpoints()
            .into_iter()
            .find(|status| status.address == address)
            .is_some_and(|status| status.ready)
    };
    assert!(ready(&pool));
    drop(a);
    eventually("the loss is seen", || !ready(&pool)).await;
    assert_eq!(picked(&pool, "m").await, [b.address.port()].into());
    assert!(pool.endpoints().iter().any(|status| status.error.is_some()));
    let back = Server::start_at(address, &["m", "more"], AppProtocol::Http).await;
    eventually("it is back", || ready(&pool) && pool.knows_model("more")).await;
    assert_eq!(picked(&pool, "m").await, [lost, b.address.port()].into());
    drop(back);
}

#[tokio::test]
async fn an_unhealthy_server_is_left_alone_until_it_is_well() {
    let (a, b) = (Server::start(&["m"]).await, Server::start(&["m"]).await);
    let world = World::over(&[&a, &b]).await;
    let pool = world.pool();
    a.script.lock().health = 503;
    let ready = |pool: &Pool| {
        pool.endpoints()
            .iter()
            .filter(|status| status.ready)
            .count()
    };
    eventually("one is out", || ready(&pool) == 1).await;
    assert_eq!(picked(&pool, "m").await, [b.address.port()].into());
    a.script.lock().health = 200;
    eventually("both are in", || ready(&pool) == 2).await;
}

#[tokio::test]
async fn a_server_that_keeps_failing_its_probes_tells_those_who_wait_for_it() {
    let (a, b) = (Server::start(&["m"]).await, Server::start(&["m"]).await);
    let world = World::over(&[&a, &b]).await;
    let lease = loop {
        let lease = world.pool().pick(request("m")).await.unwrap();
        if lease.endpoint().address() == a.address {
            break lease;
        }
    };
    let endpoint = lease.endpoint().clone();
    assert!(lease.has_next(), "the other server could take it");
    let early = tokio::time::timeout(Duration::from_millis(50), endpoint.silent()).await;
    assert!(early.is_err(), "a server that is well is not silent");
    a.script.lock().health = 503;
    let told = tokio::time::timeout(Duration::from_secs(10), endpoint.silent()).await;
    assert!(told.is_ok(), "nobody was told");
    a.script.lock().health = 200;
    eventually("it is well again", || {
        world.pool().endpoints().iter().all(|status| status.ready)
    })
    .await;
    let after = tokio::time::timeout(Duration::from_millis(50), endpoint.silent()).await;
    assert!(after.is_err(), "a server that came back is not silent");
}

#[tokio::test]
async fn servers_that_tell_nothing_are_served_all_the_same() {
    let server = Server::start(&[]).await;
    {
        let mut script = server.script.lock();
        (script.health, script.metrics, script.models) = (404, None, None);
    }
    let world = World::over(&[&server]).await;
    let pool = world.pool();
    assert_eq!(picked(&pool, "any").await, [server.address.port()].into());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(pool.endpoints()[0].ready, "{:?}", pool.endpoints());
    assert_eq!(
        server.asked("/health"),
        1,
        "a probe that is not known is not repeated"
    );
    let failures = format!(
        "pointsman_scrape_failures_total{{pool=\"default/p\",endpoint=\"pod-{}\"}}",
        server.address.port()
    );
    assert_eq!(world.sample(&failures), Some(1.0));
}

#[tokio::test]
async fn apply_joins_drains_and_takes_out() {
    let (a, b) = (Server::start(&["m"]).await, Server::start(&["m"]).await);
    let world = World::over(&[&a]).await;
    let pool = world.pool();
    let first = pool.endpoint_at(a.address).unwrap();
    world.apply(vec![a.spec(), b.spec()]);
    assert!(Arc::ptr_eq(&pool, &world.pool()), "the pool stays");
    assert_eq!(
        pool.endpoint_at(a.address).unwrap().uid(),
        first.uid(),
        "what stays is kept"
    );
    world.fleet.learned(Duration::from_secs(10)).await;
    assert_eq!(
        picked(&pool, "m").await,
        [a.address.port(), b.address.port()].into()
    );

    let lease = pool
        .pick(PickRequest {
            preferred: Some(first.clone()),
            ..request("m")
        })
        .await
        .unwrap();
    world.apply(vec![
        EndpointSpec {
            ready: false,
            ..a.spec()
        },
        b.spec(),
    ]);
    assert_eq!(picked(&pool, "m").await, [b.address.port()].into());
    assert!(!first.gone(), "it drains");
    assert_eq!(
        pool.endpoints()
            .iter()
            .map(|status| status.in_flight)
            .sum::<u32>(),
        1
    );
    drop(lease);

    world.apply(vec![b.spec()]);
    assert!(first.gone());
    assert!(pool.endpoint_at(a.address).is_none());
    // Another pod at the same address is another server.
    world.apply(vec![EndpointSpec {
        name: "other".to_owned(),
        ..b.spec()
    }]);
    let status = pool.endpoints();
    assert_eq!(status.len(), 1);
    assert_eq!(status[0].name, "other");

    world.fleet.apply([].iter());
    assert!(world.fleet.pool(&key()).is_none());
    assert!(pool.pick(request("m")).await.is_err());
}

#[tokio::test]
async fn a_dense_index_that_is_used_again_means_the_new_server() {
    let (a, b) = (Server::start(&["m"]).await, Server::start(&["m"]).await);
    let world = World::over(&[&a]).await;
    let pool = world.pool();
    let lease = pool.pick(request("m")).await.unwrap();
    world.apply(vec![b.spec()]);
    // The old request ends only now; nothing of it may show at the server that has its place.
    let other = pool.pick(request("m")).await.unwrap();
    lease.finish(None, true);
    let status = pool.endpoints();
    assert_eq!((status.len(), status[0].in_flight), (1, 1));
    assert_eq!(other.endpoint().address(), b.address);
}

#[tokio::test]
async fn names_are_resolved() {
    let server = Server::start(&["m"]).await;
    let port = server.address.port();
    let host = Host::Dns("localhost".to_owned());
    let endpoint = EndpointSpec {
        host,
        name: format!("localhost:{port}"),
        ..server.spec()
    };
    let world = World::new(options(), vec![endpoint]).await;
    let lease = world.pool().pick(request("m")).await.unwrap();
    assert_eq!(lease.endpoint().address(), server.address);
    assert_eq!(lease.endpoint().authority(), format!("localhost:{port}"));
    assert_eq!(
        world.pool().endpoints().len(),
        1,
        "one machine is one server"
    );
}

#[tokio::test]
async fn servers_that_speak_http2_are_asked_in_it() {
    let server = Server::start_at("127.0.0.1:0".parse().unwrap(), &["m"], AppProtocol::H2c).await;
    let metrics = Metrics::new();
    let fleet = Fleet::new(options(), metrics);
    let spec = PoolSpec {
        protocol: AppProtocol::H2c,
        ..PoolSpec::clone(&pool_of(vec![server.spec()]))
    };
    fleet.apply([Arc::new(spec)].iter());
    fleet.learned(Duration::from_secs(10)).await;
    let pool = fleet.pool(&key()).unwrap();
    assert!(pool.knows_model("m"));
    assert_eq!(pool.endpoints()[0].engine, Some(Engine::Vllm));
}

#[tokio::test]
async fn servers_of_a_service_are_asked_nothing_until_they_fail() {
    let server = Server::start(&["m"]).await;
    let metrics = Metrics::new();
    let fleet = Fleet::new(options(), metrics);
    let mut spec = PoolSpec::clone(&pool_of(vec![server.spec()]));
    spec.key.kind = PoolKind::Service;
    let service = spec.key.clone();
    fleet.apply([Arc::new(spec)].iter());
    fleet.learned(Duration::from_secs(10)).await;
    let pool = fleet.pool(&service).unwrap();
    let mut lease = pool.pick(PickRequest::default()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.script.lock().connections, 0);
    lease.failed(FailureKind::Connect);
    eventually("a probe", || server.script.lock().connections > 0).await;
    assert!(
        server.script.lock().asked.is_empty(),
        "it is only connected to"
    );
    drop(lease);
    assert!(pool.pick(PickRequest::default()).await.is_ok());
}

#[tokio::test]
async fn a_failed_request_moves_to_the_next_server() {
    let (a, b) = (Server::start(&["m"]).await, Server::start(&["m"]).await);
    let world = World::over(&[&a, &b]).await;
    let pool = world.pool();
    let mut lease = pool.pick(request("m")).await.unwrap();
    let first = lease.endpoint().clone();
    lease.failed(FailureKind::Reset);
    let second = lease.next().expect("there is another").clone();
    assert_ne!(first.uid(), second.uid());
    let in_flight = |pool: &Pool, name: &str| {
        pool.endpoints()
            .into_iter()
            .find(|status| status.name == name)
            .map(|status| status.in_flight)
    };
    assert_eq!(
        (
            in_flight(&pool, first.name()),
            in_flight(&pool, second.name())
        ),
        (Some(0), Some(1))
    );
    assert!(lease.next().is_none());
    assert_eq!(lease.endpoint().uid(), second.uid(), "it stays where it is");
    lease.finish(None, true);
    assert_eq!(in_flight(&pool, second.name()), Some(0));
}

#[tokio::test]
async fn a_server_that_refuses_connections_does_not_stop_the_others() {
    let server = Server::start(&["m"]).await;
    let closed = Server::start(&["m"]).await.address;
    let world = World::new(options(), vec![server.spec(), spec(closed)]).await;
    let pool = world.pool();
    assert_eq!(picked(&pool, "m").await, [server.address.port()].into());
}

#[tokio::test]
async fn shutdown_ends_the_questions() {
    let server = Server::start(&["m"]).await;
    let world = World::over(&[&server]).await;
    world.fleet.shutdown().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = server.script.lock().asked.len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.script.lock().asked.len(), asked);
    assert!(world.fleet.pools().is_empty());
}

#[tokio::test]
async fn only_inference_loads_an_adapter() {
    let server = Server::start(&["m", "a<m"]).await;
    let world = World::over(&[&server]).await;
    let pool = world.pool();
    for (kind, loaded) in [(RequestKind::Opaque, 0), (RequestKind::Inference, 1)] {
        let asked = PickRequest {
            kind,
            ..request("a")
        };
        pool.pick(asked).await.unwrap().finish(None, true);
        assert_eq!(pool.endpoints()[0].adapters, loaded, "{kind:?}");
    }
}

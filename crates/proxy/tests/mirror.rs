//! Copies of requests for mirrors: what they get, and that nobody waits for them.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{CHAT, Gateway, PATH, Server, eventually, post};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use routing::{Filter, HeaderChange, Mirror, Plan, PoolKey, PoolKind, PoolSpec, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn shadow(kind: PoolKind) -> PoolKey {
    PoolKey {
        kind,
        namespace: "default".into(),
        name: "shadow".into(),
    }
}

/// A rule to `servers` that mirrors to `mirrors`, each with its share.
fn plan(
    kind: PoolKind,
    servers: &[SocketAddr],
    mirror: PoolKind,
    mirrors: &[(SocketAddr, f64)],
) -> Plan {
    let mut rule = common::rule(kind);
    let mut pools = Vec::new();
    for (index, (address, share)) in mirrors.iter().enumerate() {
        let key = PoolKey {
            name: format!("shadow-{index}"),
            ..shadow(mirror)
        };
        rule.filters.push(Filter::Mirror(Mirror {
            pool: key.clone(),
            share: *share,
        }));
        pools.push(PoolSpec {
            key,
            ..common::pool(mirror, &[*address])
        });
    }
    let mut plan = common::plan(vec![rule], common::pool(kind, servers), false);
    plan.pools.extend(
        pools
            .into_iter()
            .map(|pool| (pool.key.clone(), Arc::new(pool))),
    );
    plan
}

async fn gateway(kind: PoolKind, server: &Server, mirror: PoolKind, to: &Server) -> Gateway {
    let plan = plan(kind, &[server.address], mirror, &[(to.address, 1.0)]);
    Gateway::serve(common::options(), plan).await
}

/// Whether the metrics have this line.
fn counted(gateway: &Gateway, line: &str) -> bool {
    gateway
        .metrics
        .encode_text()
        .lines()
        .any(|found| found == line)
}

async fn answering() -> Server {
    Server::fixed(200, "application/json", "{}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_what_the_server_gets() {
    let (server, mirror) = (answering().await, answering().await);
    let mut plan = plan(
        PoolKind::Service,
        &[server.address],
        PoolKind::Service,
        &[(mirror.address, 1.0)],
    );
    let port = plan.ports.get_mut(&0).expect("the port");
    let rule = Arc::get_mut(&mut port.listeners[0].rules[0]).expect("alone");
    let change = HeaderChange {
        set: vec![(
            HeaderName::from_static("x-set"),
            HeaderValue::from_static("rule"),
        )],
        ..HeaderChange::default()
    };
    rule.filters.insert(0, Filter::RequestHeaders(change));
    let gateway = Gateway::serve(common::options(), plan).await;
    let request = Request::put("/x?q=1")
        .header("host", "outer.test")
        .header("x-request-id", "the-same-for-both")
        .body(Full::<Bytes>::from("body"))
        .expect("request");
    assert_eq!(gateway.send(request).await.status, 200);
    eventually("a copy", || mirror.count() == 1).await;
    let (sent, copied) = (server.last(), mirror.last());
    assert_eq!((sent.method, sent.uri), (copied.method, copied.uri));
    assert_eq!(
        (&copied.body[..], &sent.body[..]),
        (&b"body"[..], &b"body"[..])
    );
    assert_eq!(sent.headers, copied.headers);
    assert_eq!(copied.headers["x-set"], "rule");
    assert_eq!(copied.headers["x-request-id"], "the-same-for-both");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_to_models_are_copied_to_pools_and_to_services() {
    for kind in [PoolKind::Inference, PoolKind::Service] {
        let (server, mirror) = (answering().await, answering().await);
        let gateway = gateway(PoolKind::Inference, &server, kind, &mirror).await;
        assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
        eventually("a copy", || mirror.count() == 1).await;
        assert_eq!(mirror.last().body, CHAT, "{kind:?}");
        assert_eq!(mirror.last().uri, PATH, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mirror_is_drawn_for_by_itself() {
    let server = answering().await;
    let mirrors = [answering().await, answering().await, answering().await];
    let shares = [1.0, 0.0, 0.5];
    let to: Vec<_> = mirrors
        .iter()
        .map(|mirror| mirror.address)
        .zip(shares)
        .collect();
    let plan = plan(PoolKind::Service, &[server.address], PoolKind::Service, &to);
    let gateway = Gateway::serve(common::options(), plan).await;
    for _ in 0..200 {
        assert_eq!(gateway.get("/x").await.status, 200);
    }
    eventually("all copies", || mirrors[0].count() == 200).await;
    assert_eq!(mirrors[1].count(), 0);
    // Ten standard deviations of 200 fair coins.
    let half = mirrors[2].count();
    assert!((30..170).contains(&half), "{half}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_fails_or_is_dead_or_silent_harms_nothing() {
    let failing = Server::fixed(500, "text/plain", "no").await;
    let silent = Server::raw(|_, stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let cut = Server::raw(|_, stream| async move { drop(stream) }).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let nobody = dead.local_addr().expect("bound");
    drop(dead);
    let server = answering().await;
    for kind in [PoolKind::Inference, PoolKind::Service] {
        for mirror in [failing.address, silent.address, cut.address, nobody] {
            let plan = plan(kind, &[server.address], kind, &[(mirror, 1.0)]);
            let gateway = Gateway::serve(common::options(), plan).await;
            for _ in 0..20 {
                let reply = gateway.post(PATH, CHAT).await;
                assert_eq!(
                    (reply.status.as_u16(), reply.text()),
                    (200, "{}"),
                    "{mirror}"
                );
            }
            // An idle gateway drains at once: copies hold nothing up.
            let drained = gateway.proxy.drain(Duration::from_secs(20));
            tokio::time::timeout(Duration::from_secs(5), drained)
                .await
                .expect("copies do not hold up a drain");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_mirror_does_not_slow_a_stream_and_loses_it() {
    const LENGTH: usize = 16 << 20;
    let (told, mut learned) = tokio::sync::mpsc::unbounded_channel();
    // Reads nothing until the server has everything, then what there is.
    let mirror = Server::raw(move |_, mut stream| {
        let told = told.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let mut seen = Vec::new();
            let _ = stream.read_to_end(&mut seen).await;
            let _ = told.send(seen.len());
        }
    })
    .await;
    let server = answering().await;
    let gateway = gateway(PoolKind::Service, &server, PoolKind::Service, &mirror).await;
    let mut client = TcpStream::connect(gateway.address).await.expect("connect");
    let head = format!(
        "POST /x HTTP/1.1\r\nhost: t\r\ncontent-length: {LENGTH}\r\nconnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.expect("send");
    client.write_all(&vec![b'x'; LENGTH]).await.expect("send");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut answer))
        .await
        .expect("in time")
        .expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(server.last().body.len(), LENGTH);
    let seen = learned.recv().await.expect("a broken copy");
    assert!(seen < LENGTH, "{seen}");
    let lost =
        r#"pointsman_mirrored_requests_total{pool="default/shadow-0",outcome="no_answer"} 1"#;
    eventually("a count", || counted(&gateway, lost)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_copied_whole_to_a_mirror_that_keeps_up() {
    let (server, mirror) = (answering().await, answering().await);
    let gateway = gateway(PoolKind::Service, &server, PoolKind::Service, &mirror).await;
    let mut client = TcpStream::connect(gateway.address).await.expect("connect");
    client
        .write_all(b"POST /x HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        .await
        .expect("send");
    let mut whole = String::new();
    for number in 0..50 {
        let piece = format!("piece {number} ");
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        client.write_all(chunk.as_bytes()).await.expect("send");
        whole.push_str(&piece);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client.write_all(b"0\r\n\r\n").await.expect("send");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    eventually("a copy", || mirror.count() == 1).await;
    assert_eq!(mirror.last().body, whole);
    let line = r#"pointsman_mirrored_requests_total{pool="default/shadow-0",outcome="answered"} 1"#;
    eventually("a count", || counted(&gateway, line)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_to_a_pool_goes_by_the_names_of_that_pool() {
    let (server, mirror) = (answering().await, answering().await);
    let mut plan = plan(
        PoolKind::Inference,
        &[server.address],
        PoolKind::Inference,
        &[(mirror.address, 1.0)],
    );
    let objects: api::Objects = api::decode_yaml(
        "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p, namespace: n}
spec: {selector: {matchLabels: {a: b}}, targetPorts: [{number: 1}]}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m, namespace: n}
spec: {modelName: m, poolRef: {name: p, group: inference.networking.k8s.io}, targetModels: [{name: next, weight: 1}]}
",
    )
    .into_iter()
    .map(|document| document.result.expect("an object"))
    .collect();
    let compiled = routing::compile(&objects, &routing::CompileOptions::default());
    let models = compiled
        .plan
        .pools
        .values()
        .next()
        .expect("a pool")
        .models
        .clone();
    let key = PoolKey {
        name: "shadow-0".into(),
        ..shadow(PoolKind::Inference)
    };
    let pool = Arc::make_mut(plan.pools.get_mut(&key).expect("the mirror"));
    pool.models = models;
    let gateway = Gateway::serve(common::options(), plan).await;
    assert_eq!(gateway.send(post(PATH, CHAT)).await.status, 200);
    eventually("a copy", || mirror.count() == 1).await;
    assert_eq!(server.last().body, CHAT);
    assert_eq!(mirror.last().body, CHAT.replace("\"m\"", "\"next\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_without_a_backend_copies_nothing() {
    let (server, mirror) = (answering().await, answering().await);
    let mut plan = plan(
        PoolKind::Service,
        &[server.address],
        PoolKind::Service,
        &[(mirror.address, 1.0)],
    );
    let port = plan.ports.get_mut(&0).expect("the port");
    let rule = Arc::get_mut(&mut port.listeners[0].rules[0]).expect("alone");
    rule.backends[0].target = Target::Invalid("gone".into());
    let gateway = Gateway::serve(common::options(), plan).await;
    assert_eq!(gateway.get("/x").await.status, 500);
    assert_eq!(mirror.count(), 0);
}

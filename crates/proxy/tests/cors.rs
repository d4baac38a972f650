//! Cross-origin rules: preflights are answered here, answers are marked.

mod common;

use std::sync::Arc;

use common::{CHAT, Gateway, PATH, Reply, Server};
use http::{HeaderValue, Method, Request};
use routing::{Allowed, Cors, Filter, Match, OriginMatch, PathMatch, PoolKind};

fn filter(change: impl FnOnce(&mut Cors)) -> Filter {
    let mut cors = Cors {
        origins: ["https://a.test", "https://*.b.test"]
            .map(|text| OriginMatch::parse(text).expect("a pattern"))
            .to_vec(),
        credentials: true,
        methods: Allowed::Listed(HeaderValue::from_static("GET, PUT")),
        headers: Allowed::Listed(HeaderValue::from_static("x-one, x-two")),
        expose: Allowed::Listed(HeaderValue::from_static("x-three")),
        max_age: 60,
    };
    change(&mut cors);
    Filter::Cors(Arc::new(cors))
}

/// A server that lets everybody read everything.
async fn careless() -> Server {
    Server::start(|_| {
        Box::pin(async {
            http::Response::builder()
                .header("access-control-allow-origin", "*")
                .header("access-control-allow-credentials", "true")
                .body(common::full("{}"))
                .expect("response")
        })
    })
    .await
}

async fn gateway(server: &Server, change: impl FnOnce(&mut Cors)) -> Gateway {
    Gateway::with(
        &[server],
        |_| {},
        |rule| rule.filters = vec![filter(change)],
    )
    .await
}

async fn ask(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "t");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if method == "POST" { CHAT } else { "" };
    gateway
        .send(request.body(body.into()).expect("request"))
        .await
}

/// All headers about other origins.
fn marks(reply: &Reply) -> Vec<String> {
    let mut marks: Vec<_> = reply
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("access-control-"))
        .map(|(name, value)| {
            let name = &name.as_str()["access-control-".len()..];
            format!("{name}: {}", value.to_str().expect("ASCII"))
        })
        .collect();
    marks.sort();
    marks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_is_answered_here_also_for_models() {
    let server = careless().await;
    let gateway = gateway(&server, |_| {}).await;
    for (path, origin) in [("/x", "https://a.test"), (PATH, "https://c.x.b.test")] {
        let asked = [
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-one"),
        ];
        let reply = ask(&gateway, "OPTIONS", path, &asked).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (204, 0));
        assert_eq!(
            marks(&reply),
            [
                "allow-credentials: true".to_owned(),
                "allow-headers: x-one, x-two".to_owned(),
                "allow-methods: GET, PUT".to_owned(),
                format!("allow-origin: {origin}"),
                "expose-headers: x-three".to_owned(),
                "max-age: 60".to_owned(),
            ]
        );
    }
    let stranger = [
        ("origin", "https://b.test"),
        ("access-control-request-method", "GET"),
    ];
    let reply = ask(&gateway, "OPTIONS", "/x", &stranger).await;
    assert_eq!(reply.status, 204);
    assert_eq!(marks(&reply), [""; 0]);
    assert_eq!(server.count(), 0);
    // An OPTIONS that is no preflight is for the server.
    assert_eq!(ask(&gateway, "OPTIONS", "/x", &[]).await.status, 200);
    assert_eq!(server.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_marked_in_place_of_what_the_server_says() {
    let server = careless().await;
    let gateway = gateway(&server, |_| {}).await;
    for (method, path) in [("GET", "/x"), ("POST", PATH)] {
        let reply = ask(&gateway, method, path, &[("origin", "https://a.test")]).await;
        assert_eq!(reply.status, 200);
        assert_eq!(
            marks(&reply),
            [
                "allow-credentials: true",
                "allow-origin: https://a.test",
                "expose-headers: x-three",
            ]
        );
        assert_eq!(reply.header("vary"), "origin");
        let reply = ask(&gateway, method, path, &[("origin", "https://b.test")]).await;
        assert_eq!((reply.status.as_u16(), marks(&reply).len()), (200, 0));
        let reply = ask(&gateway, method, path, &[]).await;
        assert_eq!((reply.status.as_u16(), marks(&reply).len()), (200, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_ours_can_be_read_too() {
    let server = careless().await;
    let gateway = gateway(&server, |_| {}).await;
    let request = Request::post(PATH)
        .header("host", "t")
        .header("origin", "https://a.test")
        .body("no JSON".into())
        .expect("request");
    let reply = gateway.send(request).await;
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        "https://a.test"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_a_star_without_credentials_only() {
    let server = careless().await;
    for (credentials, expected) in [(false, "*"), (true, "https://z.test")] {
        let gateway = gateway(&server, |cors| {
            cors.origins = vec![OriginMatch::Any];
            cors.credentials = credentials;
        })
        .await;
        let reply = ask(&gateway, "GET", "/x", &[("origin", "https://z.test")]).await;
        assert_eq!(reply.header("access-control-allow-origin"), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_belongs_to_the_rule_of_the_request_it_asks_for() {
    let server = careless().await;
    let rule = |method: Option<Method>, filters| {
        let mut rule = common::rule(PoolKind::Inference);
        rule.matches = Match {
            method,
            path: PathMatch::Prefix("/x".into()),
            ..Match::any()
        };
        rule.filters = filters;
        rule
    };
    let rules = vec![
        rule(Some(Method::PUT), vec![filter(|_| {})]),
        rule(None, vec![]),
    ];
    let pool = common::pool(PoolKind::Inference, &[server.address]);
    let gateway = Gateway::serve(common::options(), common::plan(rules, pool, false)).await;
    let asked = |method| {
        [
            ("origin", "https://a.test"),
            ("access-control-request-method", method),
        ]
    };
    let reply = ask(&gateway, "OPTIONS", "/x", &asked("PUT")).await;
    assert_eq!(reply.header("access-control-max-age"), "60");
    assert_eq!(server.count(), 0);
    let reply = ask(&gateway, "OPTIONS", "/x", &asked("DELETE")).await;
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert_eq!(server.count(), 1);
}

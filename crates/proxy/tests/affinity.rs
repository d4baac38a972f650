//! Requests that belong to one server or pool: sessions, state, models.

mod common;

use std::sync::Arc;

use common::{CHAT, Gateway, PATH, Server, Speaks, post};
use routing::{PoolKind, SessionKind, SessionPersistence, Target};

/// Says who it is.
async fn named(name: &'static str) -> Server {
    Server::fixed(200, "text/plain", name).await
}

fn session(kind: SessionKind) -> SessionPersistence {
    SessionPersistence {
        kind,
        name: "sid".into(),
        absolute_timeout: None,
        idle_timeout: None,
        permanent: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stays_with_its_server_until_that_is_gone() {
    let servers = [named("a").await, named("b").await, named("c").await];
    for kind in [SessionKind::Cookie, SessionKind::Header] {
        let gateway = Gateway::with(
            &servers.each_ref(),
            |_| {},
            |rule| rule.policy.session = Some(session(kind)),
        )
        .await;
        let first = gateway.post(PATH, CHAT).await;
        let token = match kind {
            SessionKind::Cookie => first
                .header("set-cookie")
                .split(';')
                .next()
                .expect("a cookie")
                .to_owned(),
            SessionKind::Header => first.header("sid").to_owned(),
        };
        assert!(token.len() > 40, "{token:?}");
        let again = || {
            let mut request = post(PATH, CHAT);
            let name = if kind == SessionKind::Cookie {
                "cookie"
            } else {
                "sid"
            };
            request
                .headers_mut()
                .insert(name, token.parse().expect("value"));
            request
        };
        for _ in 0..8 {
            let reply = gateway.send(again()).await;
            assert_eq!(reply.text(), first.text());
            assert_eq!(reply.header("set-cookie"), "");
        }
        // Its server leaves the pool: the session moves and is told so.
        let left: Vec<_> = servers
            .iter()
            .zip(["a", "b", "c"])
            .filter(|(_, name)| *name != first.text())
            .map(|(server, _)| server.address)
            .collect();
        let plan = common::plan(vec![], common::pool(PoolKind::Inference, &left), false);
        gateway.fleet.apply(plan.pools.values());
        let moved = gateway.send(again()).await;
        assert_ne!(moved.text(), first.text());
        let told = if kind == SessionKind::Cookie {
            "set-cookie"
        } else {
            "sid"
        };
        assert!(!moved.header(told).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_continued_where_it_lives_and_nowhere_else() {
    let make = |id: &'static str| async move {
        Server::start(move |asked| {
            Box::pin(async move {
                let mine = asked.uri.path() == format!("/v1/responses/{id}")
                    || asked.uri.path() == "/v1/responses";
                let body = format!(r#"{{"id":"{id}","object":"response","status":"completed"}}"#);
                http::Response::builder()
                    .status(if mine { 200 } else { 404 })
                    .header("content-type", "application/json")
                    .body(common::full(body))
                    .expect("response")
            })
        })
        .await
    };
    let servers = [
        make("resp_a").await,
        make("resp_b").await,
        make("resp_c").await,
    ];
    let gateway = Gateway::to(&servers.each_ref()).await;
    // An id that nobody remembers: servers are asked in turn.
    for id in ["resp_a", "resp_b", "resp_c"] {
        assert_eq!(
            gateway.get(&format!("/v1/responses/{id}")).await.status,
            200,
            "{id}"
        );
    }
    assert_eq!(gateway.get("/v1/responses/resp_none").await.status, 404);
    let first = gateway
        .post("/v1/responses", r#"{"model":"m","input":"hi"}"#)
        .await;
    let id = serde_json::from_slice::<serde_json::Value>(&first.body).expect("JSON")["id"]
        .as_str()
        .expect("id")
        .to_owned();
    let next = format!(r#"{{"model":"m","input":"more","previous_response_id":"{id}"}}"#);
    for _ in 0..6 {
        assert_eq!(gateway.post("/v1/responses", &next).await.body, first.body);
    }
    // Its server leaves: nobody else has that state, and the client is told so instead of being answered without it.
    let owner = ["resp_a", "resp_b", "resp_c"]
        .iter()
        .position(|made| *made == id)
        .expect("one of them");
    let left: Vec<_> = servers
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != owner)
        .map(|(_, server)| server.address)
        .collect();
    gateway
        .fleet
        .apply([Arc::new(common::pool(PoolKind::Inference, &left))].iter());
    let lost = gateway.post("/v1/responses", &next).await;
    assert_eq!(
        (lost.status, lost.code().as_str()),
        (http::StatusCode::NOT_FOUND, "state_lost"),
        "{}",
        lost.text()
    );
    assert!(lost.text().contains(&id));
    assert_eq!(
        gateway.get(&format!("/v1/responses/{id}")).await.code(),
        "state_lost"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_request_makes_is_asked_for_where_it_was_made() {
    let make = |id: &'static str| async move {
        Server::start(move |asked| {
            Box::pin(async move {
                let mine = asked.method == http::Method::POST || asked.uri.path().contains(id);
                http::Response::builder()
                    .status(if mine { 200 } else { 404 })
                    .header("content-type", "application/json")
                    .body(common::full(format!(r#"{{"object":"file","id":"{id}"}}"#)))
                    .expect("response")
            })
        })
        .await
    };
    let servers = [make("file-a").await, make("file-b").await];
    let gateway = Gateway::to(&servers.each_ref()).await;
    let made = gateway.post("/v1/files", "content").await;
    let id = if made.text().contains("file-a") {
        "file-a"
    } else {
        "file-b"
    };
    let total = || servers[0].count() + servers[1].count();
    let before = total();
    for _ in 0..6 {
        assert_eq!(
            gateway.get(&format!("/v1/files/{id}/content")).await.status,
            200
        );
    }
    // DELETE cannot be tried on one server after the other.
    let request = http::Request::delete(format!("/v1/files/{id}"))
        .header("host", "t")
        .body(Default::default())
        .expect("request");
    assert_eq!(gateway.send(request).await.status, 200);
    assert_eq!(total() - before, 7, "other servers were asked");
}

/// Lists a model of its own.
async fn with_model(model: &'static str) -> Server {
    let answer = move |asked: common::Asked| -> common::Answer {
        Box::pin(async move {
            let path = asked.uri.path();
            let list =
                format!(r#"{{"object":"list","data":[{{"id":"{model}","object":"model"}}]}}"#);
            let (status, body) = match path {
                "/v1/models" => (200, list),
                _ if path == format!("/v1/models/{model}") => {
                    (200, format!(r#"{{"id":"{model}"}}"#))
                }
                PATH => (200, format!(r#"{{"served_by":"{model}"}}"#)),
                _ => (404, "{}".to_owned()),
            };
            http::Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .body(common::full(body))
                .expect("response")
        })
    };
    Server::start_with(answer, Speaks::Models).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_are_chosen_by_model_and_list_theirs_together() {
    let (a, b) = (with_model("model-a").await, with_model("model-b").await);
    let mut other = common::pool(PoolKind::Inference, &[b.address]);
    other.key.name = "other".into();
    let mut rule = common::rule(PoolKind::Inference);
    rule.backends[0].target =
        Target::ByModel([common::key(PoolKind::Inference), other.key.clone()].into());
    let mut plan = common::plan(
        vec![rule],
        common::pool(PoolKind::Inference, &[a.address]),
        false,
    );
    plan.pools.insert(other.key.clone(), Arc::new(other));
    let gateway = Gateway::learning(common::options(), plan, true).await;
    for (model, server) in [
        ("model-a", "model-a"),
        ("model-b", "model-b"),
        ("unknown", "model-a"),
    ] {
        let reply = gateway
            .post(PATH, &CHAT.replacen("\"m\"", &format!("\"{model}\""), 1))
            .await;
        assert_eq!(
            reply.text(),
            format!(r#"{{"served_by":"{server}"}}"#),
            "{model}"
        );
    }
    let list = gateway.get("/v1/models").await;
    assert!(
        list.text().contains("model-a") && list.text().contains("model-b"),
        "{}",
        list.text()
    );
    for (model, status) in [("model-a", 200), ("model-b", 200), ("unknown", 404)] {
        assert_eq!(
            gateway.get(&format!("/v1/models/{model}")).await.status,
            status,
            "{model}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_a_prompt_puts_it_in_nobodys_cache() {
    let server = named("a").await;
    let gateway = Gateway::with(&[&server], |options| options.explain = true, |_| {}).await;
    let prompt = "many words ".repeat(400);
    let chat = format!(
        r#"{{"model":"m","max_tokens":8,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
    );
    let expected_hit = async |path| {
        let mut request = post(path, &chat);
        let headers = request.headers_mut();
        headers.insert("x-pointsman-explain", "1".parse().expect("value"));
        let reply = gateway.send(request).await;
        let decision: serde_json::Value =
            serde_json::from_str(reply.header("x-pointsman-decision")).expect("JSON");
        decision["hit_tokens"].as_u64().expect("a number")
    };
    for path in ["/v1/messages/count_tokens", "/tokenize"] {
        assert_eq!(expected_hit(path).await, 0, "{path}");
    }
    assert_eq!(expected_hit("/v1/messages").await, 0);
    assert!(expected_hit("/v1/messages").await > 500);
}

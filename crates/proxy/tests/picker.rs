//! Pools whose picker is outside: asking it, following it, and doing without it.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::picker::{
    self, Picker, immediate, pick, request_body, response_body, response_head, streamed,
};
use common::{CHAT, CHAT_STREAM, Gateway, PATH, Server, channel, eventually, full, post};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use proxy::ProxyOptions;
use routing::{EndpointSpec, Host, PickerTls, PoolKind, PoolSpec};
use tonic::Status;

fn replica(picker: &Picker) -> EndpointSpec {
    EndpointSpec {
        host: Host::Ip(picker.address.ip()),
        port: picker.address.port(),
        name: picker.address.to_string(),
        ready: true,
        labels: Arc::default(),
        base_path: None,
    }
}

fn external(fail_open: bool, endpoints: Vec<EndpointSpec>, tls: PickerTls) -> routing::Picker {
    routing::Picker::External {
        service: "default/picker".into(),
        port: 9002,
        fail_open,
        endpoints,
        tls,
    }
}

/// A pool of these servers with this picker.
fn pool(servers: &[&Server], picker: routing::Picker) -> PoolSpec {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    PoolSpec {
        picker,
        ..common::pool(PoolKind::Inference, &addresses)
    }
}

async fn gateway(servers: &[&Server], picker: routing::Picker) -> Gateway {
    gateway_with(servers, picker, |_| {}).await
}

async fn gateway_with(
    servers: &[&Server],
    picker: routing::Picker,
    change: impl FnOnce(&mut ProxyOptions),
) -> Gateway {
    let mut options = common::options();
    change(&mut options);
    let rule = common::rule(PoolKind::Inference);
    Gateway::serve(
        options,
        common::plan(vec![rule], pool(servers, picker), false),
    )
    .await
}

async fn asks(servers: &[&Server], picker: &Picker, fail_open: bool) -> Gateway {
    let picker = external(fail_open, vec![replica(picker)], PickerTls::Plaintext);
    gateway(servers, picker).await
}

/// Two servers that say who they are.
async fn two() -> (Server, Server) {
    (
        Server::fixed(200, "application/json", r#"{"from":"a"}"#).await,
        Server::fixed(200, "application/json", r#"{"from":"b"}"#).await,
    )
}

fn metric(gateway: &Gateway, name: &str, label: &str) -> f64 {
    let page = gateway.metrics.encode_text();
    let found = page
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    found
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[tokio::test]
async fn the_picker_decides_and_sees_request_and_answer() {
    let (a, b) = two().await;
    let picker = Picker::echo(b.address.to_string()).await;
    let gateway = asks(&[&a, &b], &picker, false).await;
    for turn in 1..=5 {
        let mut request = post(PATH, CHAT);
        let headers = request.headers_mut();
        headers.insert("x-gateway-inference-objective", "gold".parse().unwrap());
        headers.insert(picker::DESTINATION, "10.0.0.1:1".parse().unwrap());
        let reply = gateway.send(request).await;
        assert_eq!(
            (reply.status.as_u16(), reply.text()),
            (200, r#"{"from":"b"}"#)
        );
        assert_eq!(b.count(), turn);
    }
    assert_eq!(a.count(), 0);
    let asked = b.last();
    assert_eq!(asked.body, CHAT);
    assert_eq!(
        asked.headers["content-length"],
        CHAT.len().to_string().as_str()
    );
    assert!(!asked.headers.contains_key(picker::DESTINATION));
    eventually("told to the end", || picker.last().complete).await;
    let seen = picker.last();
    assert!(seen.configured && seen.had_body && seen.subset.is_none());
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "test"),
        (":path", PATH),
        ("x-gateway-inference-objective", "gold"),
        ("content-type", "application/json"),
        (picker::DESTINATION, ""),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert!(!seen.header("x-request-id").is_empty());
    assert_eq!(seen.body, CHAT);
    assert_eq!(seen.served, Some(b.address.to_string()));
    assert_eq!(
        (seen.status.as_deref(), &seen.answer[..]),
        (Some("200"), &b"{\"from\":\"b\"}"[..])
    );
    assert_eq!(
        picker.connections.load(std::sync::atomic::Ordering::SeqCst),
        1
    );
    assert_eq!(
        metric(&gateway, "pointsman_picker_requests_total", "\"picked\""),
        5.0
    );
}

#[tokio::test]
async fn opaque_requests_with_and_without_a_body_are_asked_about() {
    let (a, b) = two().await;
    let picker = Picker::echo(b.address.to_string()).await;
    let gateway = asks(&[&a, &b], &picker, false).await;
    assert_eq!(gateway.get("/anything?x=1").await.text(), r#"{"from":"b"}"#);
    assert!(!picker.last().had_body);
    assert_eq!(picker.last().header(":path"), "/anything?x=1");
    assert_eq!(
        gateway.post("/other", "plain").await.text(),
        r#"{"from":"b"}"#
    );
    assert_eq!(
        (picker.last().body, b.last().body),
        ("plain".into(), "plain".into())
    );
}

#[tokio::test]
async fn large_bodies_pass_both_ways_unchanged() {
    let server =
        Server::start(|asked| Box::pin(async move { Response::new(full(asked.body)) })).await;
    let picker = Picker::echo(server.address.to_string()).await;
    let gateway = asks(&[&server], &picker, false).await;
    let text: String = (0..450_000).map(|n| format!("{n:012} ")).collect();
    let body = format!(r#"{{"model":"m","prompt":"{text}"}}"#);
    assert!(body.len() > 5 << 20);
    let reply = gateway.post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body == body, "{} bytes came back", reply.body.len());
    assert!(server.last().body == body);
}

#[tokio::test]
async fn changes_are_made_in_both_directions() {
    let server = Server::fixed(200, "application/json", r#"{"model":"inner"}"#).await;
    let to = server.address.to_string();
    let picker = Picker::start(move |mut talk| {
        let to = to.clone();
        async move {
            talk.request().await?;
            talk.pick(
                &to,
                &[
                    (":path", "/v1/completions?y=2"),
                    ("x-new", "1"),
                    ("host", "evil"),
                    ("x-prefiller-host-port", "10.1.1.1:8000"),
                ],
            );
            talk.say(request_body(Some(streamed(r#"{"model":"inner"}"#, true))));
            while let Some(message) = talk.next().await? {
                let Some(reply) = talk.answered(message) else {
                    continue;
                };
                let is_head = matches!(
                    reply.response,
                    Some(
                        extproc::proto::ext_proc::processing_response::Response::ResponseHeaders(_)
                    )
                );
                if is_head {
                    talk.say(response_head(&[
                        (":status", "201"),
                        ("x-picker", "was here"),
                        ("connection", "close"),
                    ]));
                } else {
                    talk.say(response_body(Some(streamed(
                        r#"{"model":"outer, longer"}"#,
                        true,
                    ))));
                }
            }
            Ok(())
        }
    })
    .await;
    let gateway = asks(&[&server], &picker, false).await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (201, r#"{"model":"outer, longer"}"#)
    );
    assert_eq!(reply.header("x-picker"), "was here");
    let asked = server.last();
    assert_eq!(
        (asked.uri.to_string().as_str(), &asked.body[..]),
        ("/v1/completions?y=2", &br#"{"model":"inner"}"#[..])
    );
    assert_eq!(
        (&asked.headers["host"], &asked.headers["x-new"]),
        (&"test".parse().unwrap(), &"1".parse().unwrap())
    );
    assert_eq!(asked.headers["content-length"], "17");
    assert_eq!(asked.headers["x-prefiller-host-port"], "10.1.1.1:8000");
    assert_eq!(
        metric(&gateway, "pointsman_picker_ignored_mutations_total", ""),
        2.0
    );
}

#[tokio::test]
async fn a_stream_is_not_held_back() {
    let (frames, body) = channel();
    let body = parking_lot::Mutex::new(Some(body));
    let server = Server::start(move |_| {
        let body = body.lock().take().expect("asked once");
        Box::pin(async move {
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .expect("response")
        })
    })
    .await;
    let picker = Picker::echo(server.address.to_string()).await;
    let gateway = asks(&[&server], &picker, false).await;
    let mut answer = common::open(gateway.address, post(PATH, CHAT_STREAM)).await;
    // Each event is sent only after the one before it has arrived.
    for number in 0..20 {
        let event = format!("data: {{\"n\":{number}}}\n\n");
        frames
            .send(Ok(Bytes::from(event.clone())))
            .await
            .expect("taken");
        let frame = answer.frame().await.expect("a frame").expect("whole");
        assert_eq!(frame.into_data().expect("data"), event);
    }
    drop(frames);
    assert!(answer.frame().await.is_none());
    eventually("told to the end", || picker.last().complete).await;
}

#[tokio::test]
async fn refusals_of_the_picker_are_answers_whatever_the_failure_mode() {
    let (a, _) = two().await;
    for (fail_open, code) in [(false, 429), (true, 429), (true, 503)] {
        let picker = Picker::start(move |mut talk| async move {
            talk.request().await?;
            talk.say(immediate(
                code,
                &[("x-reason", "shed"), ("retry-after", "7")],
                "go away",
            ));
            Ok(())
        })
        .await;
        let gateway = asks(&[&a], &picker, fail_open).await;
        let reply = gateway.post(PATH, CHAT).await;
        assert_eq!(i32::from(reply.status.as_u16()), code);
        assert_eq!(
            (
                reply.text(),
                reply.header("x-reason"),
                reply.header("retry-after")
            ),
            ("go away", "shed", "7")
        );
        assert_eq!(
            metric(&gateway, "pointsman_picker_requests_total", "\"immediate\""),
            1.0
        );
    }
    assert_eq!(a.count(), 0);
}

#[tokio::test]
async fn a_list_that_is_used_up_is_a_picker_that_failed() {
    for (fail_open, status) in [(true, 200), (false, 503)] {
        let away = Server::fixed(503, "application/json", "{}").await;
        let (a, b) = two().await;
        let picker = Picker::echo(away.address.to_string()).await;
        let gateway = asks(&[&away, &a, &b], &picker, fail_open).await;
        let reply = gateway.post(PATH, CHAT).await;
        assert_eq!(reply.status, status, "{}", reply.text());
        assert_eq!(away.count(), 1);
        assert_eq!(a.count() + b.count(), usize::from(fail_open));
    }
}

/// All the ways in which a picker fails before it has picked.
#[derive(Debug, Clone, Copy)]
enum Fails {
    Error,
    Ends,
    EndsInTheBody,
    Hangs,
    Nonsense,
    EmptyList,
    Stranger,
    TooLong,
    Breaks,
    Mixed,
}

async fn failing(how: Fails) -> Picker {
    Picker::start(move |mut talk| async move {
        let seen = talk.request().await?;
        match how {
            Fails::Error => return Err(Status::internal("no")),
            Fails::Ends => return Ok(()),
            Fails::EndsInTheBody => {
                talk.pick("127.0.0.1:1", &[]);
                talk.say(request_body(Some(streamed("other", false))));
                return Ok(());
            }
            Fails::Hangs => std::future::pending().await,
            Fails::Nonsense => {
                talk.pick("somewhere else", &[]);
                talk.echo(&seen.body);
            }
            Fails::EmptyList => {
                talk.pick("", &[]);
                talk.echo(&seen.body);
            }
            Fails::Stranger => {
                talk.pick(&vec!["10.9.9.9:80"; 10_000].join(","), &[]);
                talk.echo(&seen.body);
            }
            Fails::TooLong => talk.say(request_body(Some(streamed(vec![b'x'; 20 << 20], true)))),
            Fails::Breaks => {
                talk.pick("127.0.0.1:1", &[]);
                return Err(Status::unavailable("gone"));
            }
            Fails::Mixed => talk.say(response_head(&[])),
        }
        talk.answers().await
    })
    .await
}

const ALL: [(Fails, &str); 10] = [
    (Fails::Error, "picker_failed"),
    (Fails::Ends, "picker_failed"),
    (Fails::EndsInTheBody, "picker_failed"),
    (Fails::Hangs, "picker_timeout"),
    (Fails::Nonsense, "picker_failed"),
    (Fails::EmptyList, "picker_failed"),
    (Fails::Stranger, "picker_failed"),
    (Fails::TooLong, "picker_failed"),
    (Fails::Breaks, "picker_failed"),
    (Fails::Mixed, "picker_failed"),
];

#[tokio::test]
async fn a_failing_picker_is_done_without_or_is_a_503() {
    let (a, b) = two().await;
    for (how, code) in ALL {
        let picker = failing(how).await;
        let short =
            |options: &mut ProxyOptions| options.deadlines.pick = Duration::from_millis(300);
        let replicas = || vec![replica(&picker)];
        let open = external(true, replicas(), PickerTls::Plaintext);
        let gateway = gateway_with(&[&a, &b], open, short).await;
        let before = a.count() + b.count();
        let reply = gateway.post(PATH, CHAT).await;
        assert_eq!(reply.status, 200, "{how:?}: {}", reply.text());
        let opaque = gateway.post("/other", "plain").await;
        assert_eq!(opaque.status, 200, "{how:?}");
        assert_eq!(a.count() + b.count(), before + 2, "{how:?}");
        assert_eq!(
            metric(&gateway, "pointsman_picker_requests_total", "\"fail_open\""),
            2.0,
            "{how:?}"
        );

        let closed = external(false, replicas(), PickerTls::Plaintext);
        let gateway = gateway_with(&[&a, &b], closed, short).await;
        let reply = gateway.post(PATH, CHAT).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (503, code),
            "{how:?}"
        );
        assert_eq!(reply.header("retry-after"), "1");
        assert_eq!(a.count() + b.count(), before + 2, "{how:?}");
    }
}

#[tokio::test]
async fn a_picker_that_ends_well_in_mid_body_is_no_empty_body() {
    let (a, b) = two().await;
    let to = b.address.to_string();
    let picker = Picker::start(move |mut talk| {
        let to = to.clone();
        async move {
            talk.next().await?;
            talk.pick(&to, &[]);
            Ok(())
        }
    })
    .await;
    let gateway = asks(&[&a, &b], &picker, false).await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (200, r#"{"from":"b"}"#)
    );
    assert_eq!(b.last().body, CHAT);
    assert_eq!(reply.header("content-length"), "12");
}

#[tokio::test]
async fn a_picker_that_only_reads_bodies_is_understood() {
    // As the reference implementation's lightweight picker of v1.6.0 does: empty replies, also before the head's.
    let server = Server::fixed(200, "application/json", r#"{"from":"b"}"#).await;
    let to = server.address.to_string();
    let picker = Picker::start(move |mut talk| {
        let to = to.clone();
        async move {
            let seen = talk.request().await?;
            for _ in 0..seen.body.len().div_ceil(62_000) {
                talk.say(request_body(None));
            }
            talk.say(pick(&to, Some(&to), &[]));
            while let Some(message) = talk.next().await? {
                match talk.answered(message).and_then(|reply| reply.response) {
                    Some(
                        extproc::proto::ext_proc::processing_response::Response::ResponseBody(_),
                    ) => talk.say(response_body(None)),
                    Some(other) => talk.say(picker::reply(other)),
                    None => {}
                }
            }
            Ok(())
        }
    })
    .await;
    let gateway = asks(&[&server], &picker, false).await;
    let body = format!(r#"{{"model":"m","prompt":"{}"}}"#, "long ".repeat(50_000));
    let reply = gateway.post("/v1/completions", &body).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (200, r#"{"from":"b"}"#)
    );
    assert!(server.last().body == body);
}

#[tokio::test]
async fn metadata_wins_over_the_header_and_the_difference_is_counted() {
    let (a, b) = two().await;
    let (in_header, in_metadata) = (a.address.to_string(), b.address.to_string());
    let picker = Picker::start(move |mut talk| {
        let (in_header, in_metadata) = (in_header.clone(), in_metadata.clone());
        async move {
            let seen = talk.request().await?;
            talk.say(pick(&in_header, Some(&in_metadata), &[]));
            talk.echo(&seen.body);
            talk.answers().await
        }
    })
    .await;
    let gateway = asks(&[&a, &b], &picker, false).await;
    assert_eq!(gateway.post(PATH, CHAT).await.text(), r#"{"from":"b"}"#);
    assert_eq!(
        metric(&gateway, "pointsman_picker_mismatches_total", ""),
        1.0
    );
}

#[tokio::test]
async fn the_list_is_walked_and_who_served_is_told() {
    let dead = Server::raw(|_, stream| async move { drop(stream) }).await;
    let (a, b) = two().await;
    let list = format!("10.9.9.9:80,nonsense,{},{}", dead.address, b.address);
    let picker = Picker::echo(list).await;
    let gateway = asks(&[&dead, &a, &b], &picker, false).await;
    assert_eq!(gateway.post(PATH, CHAT).await.text(), r#"{"from":"b"}"#);
    assert_eq!(
        (
            dead.connections.load(std::sync::atomic::Ordering::SeqCst),
            a.count()
        ),
        (1, 0)
    );
    eventually("told", || {
        picker.last().served == Some(b.address.to_string())
    })
    .await;
    assert_eq!(picker.count(), 1);
    assert_eq!(
        metric(&gateway, "pointsman_picker_requests_total", "\"fallback\""),
        1.0
    );
}

#[tokio::test]
async fn servers_outside_the_pool_serve_only_where_picks_are_trusted() {
    let (ours, stranger) = two().await;
    for (trust, status) in [(false, 503), (true, 200)] {
        let to = stranger.address.to_string();
        let picker = Picker::echo(to).await;
        let picker = external(false, vec![replica(&picker)], PickerTls::Plaintext);
        let gateway = gateway_with(&[&ours], picker, |options| options.trust_picks = trust).await;
        for _ in 0..3 {
            let reply = gateway.post(PATH, CHAT).await;
            assert_eq!(reply.status, status, "{}", reply.text());
            assert_eq!(reply.text().contains("\"b\""), trust);
        }
    }
}

#[tokio::test]
async fn picks_are_charged_like_our_own() {
    let (release, held) = tokio::sync::watch::channel(false);
    let wait = move |_| {
        let mut held = held.clone();
        let answer: common::Answer = Box::pin(async move {
            let _ = held.wait_for(|go| *go).await;
            Response::new(full("{}"))
        });
        answer
    };
    let server = Server::start(wait).await;
    let picker = Picker::echo(server.address.to_string()).await;
    let gateway = asks(&[&server], &picker, false).await;
    let address = gateway.address;
    let running = tokio::spawn(async move { common::send(address, post(PATH, CHAT)).await });
    let pool = gateway.fleet.pools().remove(0);
    eventually("charged", || pool.endpoints()[0].in_flight == 1).await;
    assert!(pool.endpoints()[0].pending_tokens > 0);
    release.send(true).expect("waits");
    assert_eq!(running.await.expect("sent").status, 200);
    eventually("given back", || pool.endpoints()[0].in_flight == 0).await;
}

/// A picker that dies in the middle of an answer; what the client gets.
async fn dies_in_the_answer(fail_open: bool, spoil: bool) -> common::Reply {
    let (frames, body) = channel();
    let body = parking_lot::Mutex::new(Some(body));
    let server = Server::start(move |_| {
        let body = body.lock().take().expect("asked once");
        Box::pin(async move {
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .expect("response")
        })
    })
    .await;
    let to = server.address.to_string();
    let picker = Picker::start(move |mut talk| {
        let to = to.clone();
        async move {
            let seen = talk.request().await?;
            talk.pick(&to, &[]);
            talk.echo(&seen.body);
            talk.next().await?;
            talk.say(response_head(&[]));
            talk.next().await?;
            let back = if spoil { "data: X" } else { "data: 1" };
            talk.say(response_body(Some(streamed(back, false))));
            talk.next().await?;
            Err(Status::unavailable("killed"))
        }
    })
    .await;
    let gateway = asks(&[&server], &picker, fail_open).await;
    let feeding = tokio::spawn(async move {
        for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
            let _ = frames.send(Ok(Bytes::from_static(event.as_bytes()))).await;
        }
    });
    let reply = gateway.post(PATH, CHAT_STREAM).await;
    feeding.await.expect("fed");
    reply
}

#[tokio::test]
async fn a_picker_lost_in_the_answer() {
    let open = dies_in_the_answer(true, false).await;
    assert_eq!(open.text(), "data: 1\n\ndata: 2\n\ndata: 3\n\n");
    for (fail_open, spoil) in [(false, false), (true, true)] {
        let broken = dies_in_the_answer(fail_open, spoil).await;
        assert!(broken.text().contains("picker_failed"), "{}", broken.text());
        assert!(!broken.text().contains("data: 3"));
    }
}

#[tokio::test]
async fn a_picker_silent_about_the_head_of_an_answer_is_done_without_in_time() {
    for (fail_open, status) in [(true, 200), (false, 503)] {
        let server = Server::fixed(200, "application/json", "{}").await;
        let to = server.address.to_string();
        let picker = Picker::start(move |mut talk| {
            let to = to.clone();
            async move {
                let seen = talk.request().await?;
                talk.pick(&to, &[]);
                talk.echo(&seen.body);
                std::future::pending().await
            }
        })
        .await;
        let picker = external(fail_open, vec![replica(&picker)], PickerTls::Plaintext);
        let gateway = gateway_with(&[&server], picker, |options| {
            options.deadlines.picker_silence = Duration::from_millis(200);
        })
        .await;
        assert_eq!(gateway.post(PATH, CHAT).await.status, status);
    }
}

#[tokio::test]
async fn a_picker_may_answer_while_the_server_works() {
    let server = Server::start(|_| Box::pin(std::future::pending())).await;
    let to = server.address.to_string();
    let picker = Picker::start(move |mut talk| {
        let to = to.clone();
        async move {
            let seen = talk.request().await?;
            talk.pick(&to, &[]);
            talk.echo(&seen.body);
            talk.say(immediate(429, &[], "evicted"));
            talk.answers().await
        }
    })
    .await;
    let gateway = asks(&[&server], &picker, false).await;
    let reply = gateway.post(PATH, CHAT).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (429, "evicted"));
}

#[tokio::test]
async fn replicas_take_turns_and_stand_in_for_each_other() {
    let (a, b) = two().await;
    let first = Picker::echo(a.address.to_string()).await;
    let second = Picker::echo(b.address.to_string()).await;
    let both = external(
        false,
        vec![replica(&first), replica(&second)],
        PickerTls::Plaintext,
    );
    let gateway = gateway(&[&a, &b], both).await;
    for _ in 0..6 {
        assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
    }
    assert_eq!((first.count(), second.count()), (3, 3));
    first.kill();
    for _ in 0..6 {
        assert_eq!(gateway.post(PATH, CHAT).await.text(), r#"{"from":"b"}"#);
    }
    assert_eq!(second.count(), 9);
}

#[tokio::test]
async fn a_picker_that_comes_back_is_asked_again() {
    let (a, b) = two().await;
    let picker = Picker::echo(b.address.to_string()).await;
    let at = picker.address.to_string();
    let gateway = asks(&[&a, &b], &picker, true).await;
    assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
    drop(picker);
    for _ in 0..20 {
        assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
    }
    let to = b.address.to_string();
    let picker = Picker::start_at(&at, None, move |talk| talk.serve(to.clone())).await;
    for _ in 0..200 {
        assert_eq!(gateway.post(PATH, CHAT).await.status, 200);
        if picker.count() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never asked again");
}

#[tokio::test]
async fn a_picker_that_moves_is_followed_under_load() {
    let (a, b) = two().await;
    let old = Picker::echo(a.address.to_string()).await;
    let new = Picker::echo(b.address.to_string()).await;
    let gateway = asks(&[&a, &b], &old, false).await;
    let address = gateway.address;
    let load: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..40 {
                    assert_eq!(common::send(address, post(PATH, CHAT)).await.status, 200);
                }
            })
        })
        .collect();
    eventually("asked", || old.count() > 10).await;
    let moved = external(false, vec![replica(&new)], PickerTls::Plaintext);
    let moved = common::plan(
        vec![common::rule(PoolKind::Inference)],
        pool(&[&a, &b], moved),
        false,
    );
    gateway.fleet.apply(moved.pools.values());
    gateway.plan.store(Arc::new(moved));
    for task in load {
        task.await.expect("nobody fails");
    }
    assert!(new.count() > 0 && old.count() + new.count() == 160);
}

#[tokio::test]
async fn tls_is_spoken_and_only_a_policy_asks_for_certificates() {
    let (a, b) = two().await;
    let key = rcgen::generate_simple_self_signed(vec!["picker.test".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls_pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let to = b.address.to_string();
    let picker = Picker::start_at("127.0.0.1:0", Some(Arc::new(config)), move |talk| {
        talk.serve(to.clone())
    })
    .await;
    let verified = |pem: &[u8], name: &str| {
        PickerTls::Verified(routing::UpstreamTls {
            server_name: Some(name.into()),
            verify: routing::Verify::Roots(pem.into()),
            ..routing::UpstreamTls::default()
        })
    };
    let named = |pem: &[u8], name: &str, alt_name: &str| {
        let PickerTls::Verified(mut tls) = verified(pem, name) else {
            panic!("just made")
        };
        tls.alt_names = vec![routing::AltName::Dns(alt_name.into())];
        PickerTls::Verified(tls)
    };
    let other = rcgen::generate_simple_self_signed(vec!["picker.test".to_owned()]).unwrap();
    let (own, other) = (key.cert.pem(), other.cert.pem());
    for (tls, status) in [
        (PickerTls::Unverified, 200),
        (verified(own.as_bytes(), "picker.test"), 200),
        (verified(own.as_bytes(), "other.test"), 503),
        (named(own.as_bytes(), "other.test", "picker.test"), 200),
        (named(own.as_bytes(), "picker.test", "other.test"), 503),
        (verified(other.as_bytes(), "picker.test"), 503),
        (PickerTls::Plaintext, 503),
    ] {
        let gateway = gateway(
            &[&a, &b],
            external(false, vec![replica(&picker)], tls.clone()),
        )
        .await;
        assert_eq!(gateway.post(PATH, CHAT).await.status, status, "{tls:?}");
    }
}

#[tokio::test]
async fn a_picker_without_addresses_is_lost() {
    let (a, _) = two().await;
    for (fail_open, status) in [(true, 200), (false, 503)] {
        let gateway = gateway(
            &[&a],
            external(fail_open, Vec::new(), PickerTls::Unverified),
        )
        .await;
        let reply = gateway.post(PATH, CHAT).await;
        assert_eq!(reply.status, status);
        if !fail_open {
            assert_eq!(reply.code(), "picker_unreachable");
        }
    }
}

#[tokio::test]
async fn heads_alone_keep_their_length() {
    let server = Server::start(|_| {
        Box::pin(async {
            Response::builder()
                .header("content-length", "42")
                .body(full(""))
                .expect("response")
        })
    })
    .await;
    let picker = Picker::echo(server.address.to_string()).await;
    let gateway = asks(&[&server], &picker, false).await;
    let request = Request::head("/x")
        .header("host", "test")
        .body(Full::default())
        .unwrap();
    let reply = gateway.send(request).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("content-length")),
        (200, "42")
    );
    eventually("told", || picker.last().complete).await;
}

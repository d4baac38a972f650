//! What a picker is asked and what becomes of its words.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use routing::PickerTls;

use super::common::picker::{
    self, Picker, immediate, pick, request_body, response_body, response_head, streamed,
};
use super::common::{self, CHAT, CHAT_STREAM, PATH, Server, channel, eventually, full, post};
use super::{asks, external, gateway, gateway_with, metric, replica, two};

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

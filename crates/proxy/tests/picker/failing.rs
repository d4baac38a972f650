//! Pickers that refuse, break, fall silent, move or are lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use proxy::ProxyOptions;
use routing::{PickerTls, PoolKind};
use tonic::Status;

use super::common::picker::{
    Picker, immediate, request_body, response_body, response_head, streamed,
};
use super::common::{self, CHAT, CHAT_STREAM, PATH, Server, channel, eventually, post};
use super::{asks, external, gateway, gateway_with, metric, pool, replica, two};

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

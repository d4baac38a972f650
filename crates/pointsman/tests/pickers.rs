//! Pools whose objects name an endpoint picker that is described: it is asked, followed, and done without.

#[path = "support/picker.rs"]
mod picker;
mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use picker::{Picker, picker_service, picker_slice};
use support::objects::{gateway, pool, route};
use support::server::served_by;
use support::{
    Answer, CHAT, Folder, Pointsman, Server, chat, check, eventually, free_port, get, open, post,
    slice,
};

/// A pool in namespace `ml` with a picker, its servers and the picker's Service.
fn described(name: &str, mode: &str, servers: &[&Server], picker: SocketAddr) -> String {
    let mut text = pool("ml", name, name).replace(
        "port: {number: 9002}",
        &format!("port: {{number: 9002}}, failureMode: {mode}"),
    );
    for (number, server) in servers.iter().enumerate() {
        let labels = format!("app: {name}");
        text += &slice("ml", &format!("{name}-{number}"), &labels, server.address);
    }
    text + &picker_service("ml", name) + &picker_slice("ml", name, picker)
}

fn two() -> (Server, Server) {
    (Server::named("a", &[]), Server::named("b", &[]))
}

/// Four clients at once; how many requests were answered otherwise than with 200 while `act` ran and a little longer.
fn under_load(at: SocketAddr, act: impl FnOnce()) -> (usize, usize) {
    let (over, sent, failed) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let status = post(at, CHAT, &chat("m")).status;
                    sent.fetch_add(1, Ordering::SeqCst);
                    failed.fetch_add(usize::from(status != 200), Ordering::SeqCst);
                }
            });
        }
        let more = |count: usize| {
            let from = sent.load(Ordering::SeqCst);
            eventually("traffic", || {
                (sent.load(Ordering::SeqCst) >= from + count).then_some(())
            });
        };
        more(40);
        act();
        more(80);
        over.store(true, Ordering::SeqCst);
    });
    (sent.into_inner(), failed.into_inner())
}

#[test]
fn a_described_picker_is_asked_and_told_who_served() {
    let (a, b) = two();
    let picker = Picker::to(&[b.address]);
    let folder = Folder::new(&[(
        "all.yaml",
        &described("p", "FailClose", &[&a, &b], picker.address),
    )]);
    let notes = check(folder.path(), &[]);
    assert!(
        notes.code == 0 && !notes.text.contains("ext_proc"),
        "{}",
        notes.text
    );
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    for _ in 0..5 {
        assert_eq!(served_by(&post(gateway.data, CHAT, &chat("m"))), "b");
    }
    assert_eq!((a.count(), b.count(), picker.count()), (0, 5, 5));
    eventually("told", || {
        let seen = picker.seen();
        (seen[0].served == Some(b.address.to_string()) && seen[0].complete).then_some(())
    });
    let reply = post(gateway.data, CHAT, &chat("m"));
    let line = gateway.access(reply.header("x-request-id"));
    assert_eq!(
        (&line["picker"], &line["endpoint"]),
        (&"picked".into(), &b.address.to_string().into())
    );
    assert!(line["picker_ms"].as_f64().unwrap() > 0.0, "{line}");
    assert_eq!(
        gateway.metric("pointsman_picker_requests_total", &["\"picked\""]),
        Some(6.0)
    );
    assert_eq!(
        gateway.metric("pointsman_picker_duration_seconds_count", &["ml/p"]),
        Some(6.0)
    );
}

#[test]
fn with_fail_open_nobody_notices_that_the_picker_dies() {
    let (a, b) = two();
    let picker = Picker::to(&[b.address]);
    let folder = Folder::new(&[(
        "all.yaml",
        &described("p", "FailOpen", &[&a, &b], picker.address),
    )]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    let (sent, failed) = under_load(gateway.data, || picker.kill());
    assert_eq!(failed, 0, "of {sent}");
    assert!(a.count() > 0, "the picker inside uses both");
    let fell_back = gateway.metric("pointsman_picker_requests_total", &["\"fail_open\""]);
    assert!(fell_back >= Some(1.0));
}

#[test]
fn with_fail_close_a_dead_picker_is_a_503() {
    let (a, b) = two();
    let picker = Picker::to(&[b.address]);
    let folder = Folder::new(&[(
        "all.yaml",
        &described("p", "FailClose", &[&a, &b], picker.address),
    )]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    assert_eq!(served_by(&post(gateway.data, CHAT, &chat("m"))), "b");
    picker.kill();
    let reply = post(gateway.data, CHAT, &chat("m"));
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(reply.code().starts_with("picker_"), "{}", reply.text());
    assert_eq!(reply.retry_after(), 1);
    assert_eq!((a.count(), b.count()), (0, 1));
}

#[test]
fn each_pool_of_a_weighted_rule_has_its_own_picker() {
    let (a, b) = two();
    let (c, d) = (Server::named("c", &[]), Server::named("d", &[]));
    let (first, second) = (Picker::to(&[b.address]), Picker::to(&[d.address]));
    let port = free_port();
    let rules = "    - backendRefs:
        - {group: inference.networking.k8s.io, kind: InferencePool, name: p, weight: 1}
        - {group: inference.networking.k8s.io, kind: InferencePool, name: q, weight: 1}
    - matches: [{path: {value: /moved}}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: elsewhere.test}}]
";
    let text = [
        described("p", "FailClose", &[&a, &b], first.address),
        described("q", "FailClose", &[&c, &d], second.address),
        gateway("edge", "gateway", port),
        route("ml", "r", rules),
    ]
    .concat();
    let folder = Folder::new(&[("all.yaml", &text)]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(4);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..40 {
        assert_eq!(post(at, CHAT, &chat("m")).status, 200);
    }
    assert_eq!((a.count(), c.count()), (0, 0));
    assert_eq!((first.count(), second.count()), (b.count(), d.count()));
    assert!(b.count() > 5 && d.count() > 5);
    for (picker, server) in [(&first, &b), (&second, &d)] {
        let served = Some(server.address.to_string());
        eventually("told by its own", || {
            picker
                .seen()
                .iter()
                .all(|seen| seen.served == served)
                .then_some(())
        });
    }
    assert_eq!(get(at, "/moved").status, 302);
    assert_eq!(
        first.count() + second.count(),
        40,
        "redirects are nobody's pick"
    );
}

#[test]
fn large_bodies_and_streams_pass_through_a_picker() {
    let (events, pieces) = mpsc::channel::<String>();
    let pieces = parking_lot::Mutex::new(Some(pieces));
    let server = Server::start(&[], move |asked| match pieces.lock().take() {
        Some(pieces) if asked.target == CHAT => Answer::events(pieces),
        _ => Answer::json(200, "{}"),
    });
    let picker = Picker::to(&[server.address]);
    let folder = Folder::new(&[(
        "all.yaml",
        &described("p", "FailClose", &[&server], picker.address),
    )]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(1);
    let mut stream = open(gateway.data, "POST", CHAT, &[], &chat("m"));
    // The next event is sent only when the one before has come.
    for number in 0..10 {
        events.send(format!("data: {number}\n\n")).expect("taken");
        stream.until(&format!("data: {number}\n"));
    }
    drop(events);
    assert!(!stream.finish().broken);
    let body = format!(
        r#"{{"model":"m","prompt":"{}","seed":1.50}}"#,
        "word ".repeat(1 << 20)
    );
    assert_eq!(post(gateway.data, "/v1/completions", &body).status, 200);
    assert!(server.last().body == body.as_bytes());
}

#[test]
fn a_picker_that_moves_is_followed() {
    let (a, b) = two();
    let (old, new) = (Picker::to(&[a.address]), Picker::to(&[b.address]));
    let folder = Folder::new(&[(
        "all.yaml",
        &described("p", "FailClose", &[&a, &b], old.address),
    )]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    let (sent, failed) = under_load(gateway.data, || {
        folder.write(
            "all.yaml",
            &described("p", "FailClose", &[&a, &b], new.address),
        );
        eventually("asked elsewhere", || (new.count() > 20).then_some(()));
    });
    assert_eq!(failed, 0, "of {sent}");
    assert_eq!(old.count() + new.count(), sent);
}

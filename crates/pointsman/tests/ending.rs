//! Ends: of the gateway, of a client, of a server that holds state.

mod support;

use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;
use serde_json::json;
use support::client::listens;
use support::objects::{gateway, pool, route};
use support::{
    Answer, CHAT, Folder, Pointsman, Server, chat, eventually, free_port, get, open, post, send,
    slice,
};

const STREAM: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// A server with one stream, and the hand that feeds it; other requests get a completion.
fn streaming() -> (Server, Sender<String>) {
    let (sender, pieces) = channel();
    let pieces = Mutex::new(Some(pieces));
    let server = Server::start(&[], move |asked| {
        let stream = asked.text().contains("\"stream\":true");
        match stream.then(|| pieces.lock().take()).flatten() {
            Some(pieces) => Answer::events(pieces),
            None => Answer::json(200, support::server::completion("a")),
        }
    });
    (server, sender)
}

#[test]
fn sigterm_lets_streams_finish_and_takes_nothing_new() {
    let (server, sender) = streaming();
    let mut gateway = Pointsman::urls(&[server.address], &[]);
    sender.send("data: {\"one\":1}\n\n".into()).expect("sends");
    let mut running = open(gateway.data, "POST", CHAT, &[], STREAM);
    running.until("one");
    gateway.terminate();
    eventually("nothing new is taken", || {
        (!listens(gateway.data)).then_some(())
    });
    let ready = gateway.readyz();
    assert_eq!(
        (ready.status, &ready.json()["reason"]),
        (503, &"draining".into())
    );
    sender.send("data: {\"two\":2}\n\n".into()).expect("sends");
    running.until("two");
    sender.send("data: [DONE]\n\n".into()).expect("sends");
    drop(sender);
    let reply = running.finish();
    assert!(
        !reply.broken && reply.text().ends_with("[DONE]\n\n"),
        "{reply:?}"
    );
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn a_drain_has_an_end() {
    let (server, sender) = streaming();
    let mut gateway = Pointsman::urls(&[server.address], &["--drain-timeout", "300ms"]);
    sender.send("data: {\"one\":1}\n\n".into()).expect("sends");
    let mut running = open(gateway.data, "POST", CHAT, &[], STREAM);
    running.until("one");
    gateway.terminate();
    assert_eq!(gateway.exit().code(), Some(0));
    assert!(!running.finish().text().contains("[DONE]"));
    drop(sender);
}

#[test]
fn an_idle_gateway_ends_at_once() {
    let server = Server::named("a", &[]);
    let mut gateway = Pointsman::urls(&[server.address], &[]);
    assert_eq!(post(gateway.data, CHAT, &chat("m")).status, 200);
    gateway.terminate();
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn a_start_that_cannot_serve_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("free");
    let address = taken.local_addr().expect("bound").to_string();
    let cases: [(&[&str], &str); 5] = [
        (&["gpu1:8000"], "http://gpu1:8000"),
        (&["http://user:pass@gpu1:8000"], "credentials"),
        (
            &[
                "http://127.0.0.1:1",
                "--listen",
                &address,
                "--admin",
                "127.0.0.1:0",
            ],
            &address,
        ),
        (
            &[
                "http://127.0.0.1:1",
                "--admin",
                &address,
                "--listen",
                "127.0.0.1:0",
            ],
            &address,
        ),
        (&["-f", "/nowhere/at/all"], "/nowhere/at/all"),
    ];
    for (args, named) in cases {
        let ended = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .arg("serve")
            .args(args)
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(
            !ended.status.success() && said.contains(named),
            "{args:?}: {said}"
        );
        assert!(!said.contains("user:pass"), "{said}");
    }
}

#[test]
fn a_client_that_leaves_ends_the_servers_work() {
    let (server, sender) = streaming();
    let gateway = Pointsman::urls(&[server.address], &[]);
    sender.send("data: {\"one\":1}\n\n".into()).expect("sends");
    let mut running = open(
        gateway.data,
        "POST",
        CHAT,
        &[("x-request-id", "left")],
        STREAM,
    );
    running.until("one");
    drop(running);
    // The server finds its connection closed: its side of the channel goes when a write fails.
    eventually("the server's stream ends", || {
        sender.send("data: {}\n\n".into()).err().map(|_| ())
    });
    assert_eq!(gateway.access("left")["ended"], "client_gone");
}

/// A server that makes responses whose ids begin with its name, and serves only those.
fn stateful(name: &'static str) -> Server {
    let count = std::sync::atomic::AtomicUsize::new(0);
    Server::start(&["m"], move |asked| {
        let id = || {
            format!(
                "resp_{name}{}",
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
            )
        };
        let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let named = body["previous_response_id"]
            .as_str()
            .or_else(|| asked.target.strip_prefix("/v1/responses/"));
        match named {
            Some(known) if !known.starts_with(&format!("resp_{name}")) => {
                Answer::json(404, json!({"error": {"message": "not here"}}).to_string())
            }
            _ => {
                let body = json!({"id": id(), "object": "response", "status": "completed", "model": "m", "output": [], "served_by": name});
                Answer::json(200, body.to_string())
            }
        }
    })
}

fn respond(gateway: &Pointsman, previous: Option<&str>) -> support::Reply {
    let mut body = json!({"model": "m", "input": "hello"});
    if let Some(previous) = previous {
        body["previous_response_id"] = previous.into();
    }
    post(gateway.data, "/v1/responses", &body.to_string())
}

#[test]
fn a_conversation_goes_back_to_the_server_that_holds_it() {
    let servers = [stateful("a"), stateful("b"), stateful("c")];
    let gateway = Pointsman::urls(&servers.each_ref().map(|server| server.address), &[]);
    gateway.wait_ready(3);
    let ids: Vec<String> = (0..9)
        .map(|_| {
            respond(&gateway, None).json()["id"]
                .as_str()
                .expect("an id")
                .to_owned()
        })
        .collect();
    for round in 0..3 {
        for id in &ids {
            let home = &id[5..6];
            let next = respond(&gateway, Some(id));
            assert_eq!(
                (next.status, &next.json()["served_by"]),
                (200, &home.into()),
                "round {round}, {id}"
            );
            let one = get(gateway.data, &format!("/v1/responses/{id}"));
            assert_eq!(
                (one.status, &one.json()["served_by"]),
                (200, &home.into()),
                "round {round}, {id}"
            );
        }
    }
    // An id nobody remembers is a server's to judge.
    assert_eq!(respond(&gateway, Some("resp_z1")).status, 404);
}

#[test]
fn state_that_is_gone_is_named() {
    let servers = [stateful("a"), stateful("b")];
    let rule = "    - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]";
    let objects = [
        gateway("edge", "gateway", free_port()),
        pool("edge", "llama", "llama"),
        route("edge", "models", rule),
    ];
    let slices = |from: &[usize]| -> String {
        from.iter()
            .map(|&n| slice("edge", &format!("s{n}"), "app: llama", servers[n].address))
            .collect()
    };
    let folder = Folder::new(&[
        ("all.yaml", &objects.concat()),
        ("slices.yaml", &slices(&[0, 1])),
    ]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    let first = respond(&gateway, None).json();
    let id = first["id"].as_str().expect("an id");
    let home = usize::from(first["served_by"] == "b");
    folder.write("slices.yaml", &slices(&[1 - home]));
    gateway.wait_ready(1);
    let before = servers[1 - home].count();
    let lost = respond(&gateway, Some(id));
    assert_eq!(
        (lost.status, lost.code().as_str()),
        (404, "state_lost"),
        "{}",
        lost.text()
    );
    assert!(lost.message().contains(id), "{}", lost.text());
    let one = send(gateway.data, "GET", &format!("/v1/responses/{id}"), &[], "");
    assert_eq!(one.status, 404, "{}", one.text());
    assert!(one.message().contains(id), "{}", one.text());
    assert_eq!(
        servers[1 - home].count(),
        before,
        "the other server has nothing to say about it"
    );
    assert_eq!(respond(&gateway, None).status, 200);
}

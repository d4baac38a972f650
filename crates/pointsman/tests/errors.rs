//! What a client gets when things go wrong, row by row of the documented table.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use support::objects::{gateway, pool, route};
use support::{
    Answer, CHAT, Folder, PATIENCE, Pointsman, Reply, Server, chat, free_port, get, post, send,
};

/// A gateway before one server in URL mode.
fn one(args: &[&str]) -> (Server, Pointsman) {
    let server = Server::named("a", &["m"]);
    let gateway = Pointsman::urls(&[server.address], args);
    (server, gateway)
}

/// Checks status and code of an OpenAI-shaped error.
fn assert_error(reply: &Reply, status: u16, code: &str) {
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (status, code),
        "{}",
        reply.text()
    );
    assert_eq!(reply.header("content-type"), "application/json");
    let error = &reply.json()["error"];
    assert!(
        error["message"].is_string() && error["type"].is_string() && error.get("param").is_some(),
        "{error}"
    );
    assert!(!reply.header("x-request-id").is_empty());
}

#[test]
fn bodies_that_no_server_should_see() {
    let (server, gateway) = one(&[]);
    // Body, code, and the byte that is named, where every reader would name the same.
    let table: [(&str, &str, Option<usize>); 14] = [
        ("", "invalid_json", Some(0)),
        ("hello", "invalid_json", Some(0)),
        (r#"{"model":"m""#, "invalid_json", Some(12)),
        (r#"{"model":"m"} x"#, "invalid_json", Some(14)),
        (r#"{"model":"m","a":NaN}"#, "invalid_json", Some(17)),
        (r#"{"model":"m","a":01}"#, "invalid_json", None),
        (r#"{"model":"m",}"#, "invalid_json", None),
        ("[]", "body_not_an_object", Some(0)),
        ("{}", "model_missing", None),
        (r#"{"messages":[{"model":"m"}]}"#, "model_missing", None),
        (
            r#"{"model":"m","a":1,"model":"m"}"#,
            "duplicate_model",
            None,
        ),
        (r#"{"model":"m","mod\u0065l":"n"}"#, "duplicate_model", None),
        (r#"{"model":7}"#, "model_not_a_string", Some(9)),
        (r#"{"model":["m"]}"#, "model_not_a_string", Some(9)),
    ];
    for (body, code, at) in table {
        let reply = post(gateway.data, CHAT, body);
        assert_error(&reply, 400, code);
        let message = reply.message();
        let named = message
            .rsplit_once(" at byte ")
            .and_then(|(_, byte)| byte.parse::<usize>().ok());
        assert!(
            named.is_some_and(|byte| byte <= body.len()),
            "{body}: {message}"
        );
        if at.is_some() {
            assert_eq!(named, at, "{body}: {message}");
        }
    }
    for body in [&b"{\"model\":\"m\",\"a\":\"\xff\"}"[..], b"\xff"] {
        let opened =
            support::client::try_open(gateway.data, "POST", CHAT, &[], body).expect("an answer");
        assert_error(&opened.finish(), 400, "invalid_json");
    }
    assert_eq!(server.count(), 0, "no server was asked");
    assert_eq!(
        post(gateway.data, CHAT, r#"{"model":""}"#).status,
        200,
        "an empty name is the server's to judge"
    );
    assert_eq!(
        post(gateway.data, "/v1/something/else", "not json").status,
        200,
        "other paths are not judged"
    );
    assert_eq!(server.count(), 2);
}

#[test]
fn every_inference_path_is_judged() {
    let (server, gateway) = one(&[]);
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages/count_tokens",
        "/v1/rerank",
    ] {
        let reply = post(gateway.data, path, "{");
        assert_eq!(reply.status, 400, "{path}");
        assert!(
            reply.message().ends_with(" at byte 1"),
            "{path}: {}",
            reply.text()
        );
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn anthropics_clients_get_errors_in_their_own_shape() {
    let (server, gateway) = one(&[]);
    for (body, kind) in [
        ("{", "invalid_request_error"),
        (
            r#"{"model":"m","kv_transfer_params":{}}"#,
            "invalid_request_error",
        ),
    ] {
        let reply = post(gateway.data, "/v1/messages", body);
        assert_eq!(reply.status, 400, "{}", reply.text());
        let json = reply.json();
        assert_eq!(
            (&json["type"], &json["error"]["type"]),
            (&"error".into(), &kind.into()),
            "{json}"
        );
        assert!(json["error"]["message"].is_string());
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn bodies_over_the_limit_get_413_however_they_are_framed() {
    let (server, gateway) = one(&["--max-body-bytes", "2000"]);
    let filler = "x".repeat(3000);
    let body = format!(r#"{{"model":"m","pad":"{filler}"}}"#);
    assert_error(&post(gateway.data, CHAT, &body), 413, "body_too_large");
    // Only announced: the answer must not wait for the bytes.
    let announced = send(
        gateway.data,
        "POST",
        CHAT,
        &[("content-length", "9999999999")],
        "",
    );
    assert_error(&announced, 413, "body_too_large");
    let chunk = format!("{:x}\r\n{}\r\n", 1000, "x".repeat(1000));
    let endless = send(
        gateway.data,
        "POST",
        CHAT,
        &[("transfer-encoding", "chunked")],
        &chunk.repeat(3),
    );
    assert_error(&endless, 413, "body_too_large");
    assert_eq!(server.count(), 0);
    let fits = format!(r#"{{"model":"m","pad":"{}"}}"#, "x".repeat(1900));
    assert_eq!(post(gateway.data, CHAT, &fits).status, 200);
    let small = r#"{"model":"m"}"#;
    let chunked = format!("5\r\n{}\r\n8\r\n{}\r\n0\r\n\r\n", &small[..5], &small[5..]);
    assert_eq!(
        send(
            gateway.data,
            "POST",
            CHAT,
            &[("transfer-encoding", "chunked")],
            &chunked
        )
        .status,
        200
    );
    assert_eq!(server.last().text(), small);
}

#[test]
fn what_engines_say_among_themselves_is_not_for_clients() {
    let (server, gateway) = one(&[]);
    for field in ["kv_transfer_params", "bootstrap_host", "bootstrap_room"] {
        let reply = post(
            gateway.data,
            CHAT,
            &format!(r#"{{"model":"m","{field}":{{"a":1}}}}"#),
        );
        assert_error(&reply, 400, "reserved_field");
        assert!(reply.message().contains(field), "{}", reply.text());
    }
    let header = send(
        gateway.data,
        "POST",
        CHAT,
        &[("X-Data-Parallel-Rank", "1")],
        &chat("m"),
    );
    assert_error(&header, 400, "reserved_field");
    let admin = [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/sleep"),
        ("POST", "/wake_up"),
        ("POST", "/reset_prefix_cache"),
        ("POST", "/start_profile"),
        ("POST", "/stop_profile"),
        ("POST", "//%73leep/"),
        ("POST", "/v1/../sleep"),
    ];
    for (method, path) in admin {
        let reply = send(gateway.data, method, path, &[], "{}");
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
    }
    assert_eq!(server.count(), 0);
    let (server, gateway) = one(&["--trusted"]);
    assert_eq!(
        post(
            gateway.data,
            CHAT,
            r#"{"model":"m","kv_transfer_params":{}}"#
        )
        .status,
        200
    );
    assert_eq!(post(gateway.data, "/sleep", "{}").status, 200);
    assert_eq!(server.count(), 2, "--trusted lifts both");
}

#[test]
fn no_server_ready_is_503_and_tells_when_to_come_back() {
    let (server, gateway) = one(&["--empty-pool-wait", "300ms"]);
    gateway.wait_ready(1);
    server.stop();
    let first = post(gateway.data, CHAT, &chat("m"));
    assert!(matches!(first.status, 502 | 503), "{}", first.text());
    gateway.wait_ready(0);
    let reply = post(gateway.data, CHAT, &chat("m"));
    assert_error(&reply, 503, "no_ready_endpoint");
    assert!((1..=120).contains(&reply.retry_after()));
    server.resume();
    gateway.wait_ready(1);
    assert_eq!(post(gateway.data, CHAT, &chat("m")).status, 200);
}

#[test]
fn a_request_in_the_waiting_room_is_served_when_a_server_comes() {
    let (server, gateway) = one(&["--empty-pool-wait", "15s"]);
    gateway.wait_ready(1);
    server.stop();
    // No request is spent on finding out: probes that are refused are enough.
    gateway.wait_ready(0);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| post(gateway.data, CHAT, &chat("m")));
        support::eventually("it waits", || {
            (gateway.metric("pointsman_queue_size", &[])? == 1.0).then_some(())
        });
        server.resume();
        assert_eq!(waiting.join().expect("no panic").status, 200);
    });
}

#[test]
fn an_empty_pool_is_503_and_unknown_hosts_and_paths_are_404() {
    let port = free_port();
    let rule = "    - matches: [{path: {value: /v1}}]\n      backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]";
    let hosts =
        route("edge", "models", rule).replace("  rules:", "  hostnames: [llm.test]\n  rules:");
    let folder = Folder::new(&[(
        "all.yaml",
        &format!(
            "{}{}{hosts}",
            gateway("edge", "gateway", port),
            pool("edge", "llama", "llama")
        ),
    )]);
    let gateway = Pointsman::files(folder.path(), &["--empty-pool-wait", "100ms"]);
    let ask =
        |host: &str, path: &str| send(gateway.data, "POST", path, &[("host", host)], &chat("m"));
    assert_eq!(gateway.data.port(), port);
    assert_error(&ask("llm.test", CHAT), 503, "no_ready_endpoint");
    assert!((1..=120).contains(&ask("llm.test:80", CHAT).retry_after()));
    for (host, path) in [
        ("other.test", CHAT),
        ("llm.test", "/v2/chat"),
        ("llm.test", "/v1x"),
    ] {
        let reply = ask(host, path);
        assert_eq!(reply.status, 404, "{host}{path}: {}", reply.text());
    }
}

#[test]
fn servers_that_break_before_their_first_byte_are_502() {
    let (server, gateway) = one(&[]);
    gateway.wait_ready(1);
    server.stop();
    // A port that takes connections and says nothing but goodbye.
    let listener = std::net::TcpListener::bind(server.address).expect("free");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    let reply = post(gateway.data, CHAT, &chat("m"));
    assert_error(&reply, 502, "upstream_reset");
}

#[test]
fn each_deadline_has_its_own_word() {
    let (sender, pieces) = std::sync::mpsc::channel::<String>();
    let pieces = parking_lot::Mutex::new(Some(pieces));
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = parking_lot::Mutex::new(held);
    let server = Server::start(&["m"], move |asked| {
        if asked.text().contains("\"stream\":true") {
            return Answer::events(pieces.lock().take().expect("one stream"));
        }
        let _ = held.lock().recv();
        Answer::json(200, "late")
    });
    let gateway = Pointsman::urls(
        &[server.address],
        &["--first-byte-timeout", "300ms", "--idle-timeout", "300ms"],
    );
    assert_error(
        &post(gateway.data, CHAT, &chat("m")),
        504,
        "first_byte_timeout",
    );
    drop(hold);
    sender
        .send("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n".into())
        .expect("sends");
    let reply = post(
        gateway.data,
        CHAT,
        r#"{"model":"m","stream":true,"messages":[]}"#,
    );
    assert_eq!(reply.status, 200);
    let text = reply.text();
    assert!(
        text.contains("\"a\"") && text.contains("\"error\"") && text.contains("idle_timeout"),
        "{text}"
    );
    assert_eq!(
        gateway.access(reply.header("x-request-id"))["error"],
        "idle_timeout"
    );
}

#[test]
fn requests_that_can_be_read_in_two_ways_are_refused() {
    let (server, gateway) = one(&[]);
    let smuggled = [
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 13\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 13\r\ncontent-length: 2\r\n\r\n{\"model\":\"m\"}",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nx-a: 1\r\n folded: 2\r\n\r\n{}",
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in smuggled {
        let mut stream = TcpStream::connect(gateway.data).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("sets");
        stream.write_all(bytes.as_bytes()).expect("sends");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the connection is closed");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bytes}\n{answer}");
        assert_eq!(
            answer.matches("HTTP/1.1").count(),
            1,
            "one answer: {answer}"
        );
    }
    assert_eq!(server.count(), 0);
    assert_eq!(get(gateway.data, "/after").status, 200);
}

//! Bad weather: full queues, clients that try to get round the rules, servers in odd places.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use support::objects::{THE_TWO_OBJECTS, gateway, pool, route};
use support::{
    Answer, CHAT, Folder, PATIENCE, Pointsman, Server, chat, eventually, free_port, get, post,
    send, slice,
};

const LABELS: &str = "app: llama-server, version: v1";

/// A gateway of the two objects before one server that is saturated.
fn saturated(args: &[&str]) -> (Server, Folder, Pointsman) {
    let server = Server::named("a", &[]);
    let slice = slice("ai-workloads", "s", LABELS, server.address);
    let folder = Folder::new(&[("objects.yaml", THE_TWO_OBJECTS), ("slices.yaml", &slice)]);
    let gateway = Pointsman::files(folder.path(), args);
    gateway.wait_ready(1);
    server.report_waiting(50);
    eventually("saturated", || {
        (post(gateway.data, CHAT, &chat("other")).status == 429).then_some(())
    });
    (server, folder, gateway)
}

#[test]
fn a_full_queue_is_429() {
    let (server, _folder, gateway) = saturated(&["--queue-capacity", "2"]);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| post(gateway.data, CHAT, &chat("customer-support"))))
            .collect();
        eventually("two wait", || {
            (gateway.metric("pointsman_queue_size", &[])? == 2.0).then_some(())
        });
        let third = post(gateway.data, CHAT, &chat("customer-support"));
        assert_eq!(
            (third.status, third.code().as_str()),
            (429, "queue_full"),
            "{}",
            third.text()
        );
        assert!((1..=120).contains(&third.retry_after()));
        server.report_waiting(0);
        for reply in waiting {
            assert_eq!(reply.join().expect("no panic").status, 200);
        }
    });
}

#[test]
fn who_waits_too_long_is_told_when_to_come_back() {
    let (_server, _folder, gateway) = saturated(&["--queue-ttl", "200ms"]);
    let reply = post(gateway.data, CHAT, &chat("customer-support"));
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert!((1..=120).contains(&reply.retry_after()));
    let code = reply.code();
    // The word is the same in the body, in the log and on the metrics.
    assert_eq!(
        gateway.access(reply.header("x-request-id"))["error"],
        code.as_str()
    );
    eventually("counted", || {
        (gateway.metric("pointsman_errors_total", &[&format!("\"{code}\"")])? >= 1.0).then_some(())
    });
}

#[test]
fn anthropics_clients_are_shed_in_their_own_words() {
    let (server, _folder, gateway) = saturated(&[]);
    let before = server.count();
    let reply = post(
        gateway.data,
        "/v1/messages",
        r#"{"model":"other","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#,
    );
    assert_eq!(reply.status, 429, "{}", reply.text());
    let json = reply.json();
    assert_eq!(
        (&json["type"], &json["error"]["type"]),
        (&"error".into(), &"rate_limit_error".into()),
        "{json}"
    );
    assert!((1..=120).contains(&reply.retry_after()));
    assert_eq!(server.count(), before);
}

#[test]
fn a_client_that_leaves_the_queue_is_not_served_later() {
    let (server, _folder, gateway) = saturated(&[]);
    let before = server.count();
    let bytes = support::client::request("POST", CHAT, &[], chat("customer-support").as_bytes());
    let mut stream = TcpStream::connect(gateway.data).expect("connects");
    stream.write_all(&bytes).expect("sends");
    let waits = |count: f64| {
        move |gateway: &Pointsman| {
            (gateway.metric("pointsman_queue_size", &[])? == count).then_some(())
        }
    };
    eventually("it waits", || waits(1.0)(&gateway));
    drop(stream);
    eventually("its place is free", || waits(0.0)(&gateway));
    server.report_waiting(0);
    eventually("open again", || {
        (post(gateway.data, CHAT, &chat("other")).status == 200).then_some(())
    });
    assert!(
        server.asked()[before..]
            .iter()
            .all(|asked| asked.model() == "other")
    );
}

#[test]
fn reserved_fields_are_found_in_every_spelling() {
    let server = Server::named("a", &["m"]);
    let gateway = Pointsman::urls(&[server.address], &[]);
    for fields in [
        r#""kv_transfer_param\u0073":{"a":1}"#,
        r#""kv_transfer_params":null,"kv_transfer_params":{"a":1}"#,
        r#""messages":[],"kv_transfer_params" : {"remote_host":"10.0.0.1"}"#,
    ] {
        for body in [
            format!(r#"{{"model":"m",{fields}}}"#),
            format!(r#"{{{fields},"model":"m"}}"#),
        ] {
            let reply = post(gateway.data, CHAT, &body);
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (400, "reserved_field"),
                "{body}"
            );
        }
    }
    assert_eq!(server.count(), 0);
    let inside = r#"{"model":"m","messages":[{"role":"user","content":"kv_transfer_params"}],"metadata":{"kv_transfer_params":"1"}}"#;
    assert_eq!(
        post(gateway.data, CHAT, inside).status,
        200,
        "only the body's own fields are meant"
    );
}

#[test]
fn a_gateway_marked_trusted_lifts_the_rules_for_its_listeners_alone() {
    let server = Server::named("a", &[]);
    let [strangers, friends] = [free_port(), free_port()];
    let trusted = gateway("edge", "inner", friends).replace(
        "namespace: edge}",
        "namespace: edge, annotations: {pointsman.dev/trusted: \"true\"}}",
    );
    let rule = "    - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]";
    let both = route("edge", "models", rule).replace(
        "[{name: gateway, namespace: edge}]",
        "[{name: gateway}, {name: inner}]",
    );
    let objects = [
        gateway("edge", "gateway", strangers),
        trusted,
        both,
        pool("edge", "llama", "llama"),
        slice("edge", "s", "app: llama", server.address),
    ];
    let folder = Folder::new(&[("all.yaml", &objects.concat())]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(1);
    let body = r#"{"model":"m","kv_transfer_params":{"a":1}}"#;
    for (port, inference, admin) in [(strangers, 400, 404), (friends, 200, 200)] {
        let address = ([127, 0, 0, 1], port).into();
        assert_eq!(post(address, CHAT, body).status, inference, "{port}");
        assert_eq!(post(address, "/sleep", "{}").status, admin, "{port}");
        let reply = send(
            address,
            "POST",
            CHAT,
            &[("x-pointsman-explain", "1")],
            &chat("m"),
        );
        assert_eq!(
            reply.header("x-pointsman-endpoint").is_empty(),
            port == strangers
        );
    }
}

#[test]
fn a_client_may_ask_before_it_sends_a_large_body() {
    let server = Server::start(&["m"], |asked| {
        Answer::json(200, asked.body.len().to_string())
    });
    let gateway = Pointsman::urls(&[server.address], &[]);
    let body = format!(
        r#"{{"model":"m","messages":[],"pad":"{}"}}"#,
        "\u{e9}".repeat(1_000_000)
    );
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(gateway.data).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets");
    stream.write_all(head.as_bytes()).expect("sends");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("go on");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&body.len().to_string()),
        "{answer}"
    );
    assert_eq!(server.last().text(), body);
}

#[test]
fn slices_may_leave_the_port_to_the_pool_and_name_hosts() {
    let server = Server::named("a", &[]);
    let objects = THE_TWO_OBJECTS.replace("8000", &server.address.port().to_string());
    let labels = "labels: {app: llama-server, version: v1}";
    let kind = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:";
    let by_address = format!(
        "{kind} {{name: s, namespace: ai-workloads, {labels}}}\naddressType: IPv4\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
    );
    let by_name = format!(
        "{kind} {{name: s, namespace: ai-workloads, {labels}}}\naddressType: FQDN\nendpoints: [{{addresses: [localhost]}}]\n"
    );
    for slices in [by_address, by_name] {
        let folder = Folder::new(&[("objects.yaml", &objects), ("slices.yaml", &slices)]);
        let gateway = Pointsman::files(folder.path(), &[]);
        eventually("served", || {
            (post(gateway.data, CHAT, &chat("customer-support")).status == 200).then_some(())
        });
    }
}

#[test]
fn a_server_that_is_not_ready_gets_nothing() {
    let servers = [Server::named("a", &[]), Server::named("b", &[])];
    let unready = slice("ai-workloads", "s1", LABELS, servers[1].address)
        .replace("\"]}", "\"], conditions: {ready: false}}");
    let ready = slice("ai-workloads", "s0", LABELS, servers[0].address);
    let folder = Folder::new(&[
        ("objects.yaml", THE_TWO_OBJECTS),
        ("slices.yaml", &(ready + &unready)),
    ]);
    let gateway = Pointsman::files(folder.path(), &["--policy", "round-robin"]);
    gateway.wait_ready(1);
    for _ in 0..6 {
        assert_eq!(
            post(gateway.data, CHAT, &chat("customer-support")).status,
            200
        );
    }
    assert_eq!(servers.each_ref().map(Server::count), [6, 0]);
}

#[cfg(unix)]
#[test]
fn folders_that_kubernetes_mounts_are_followed() {
    use std::os::unix::fs::symlink;
    let server = Server::named("a", &[]);
    let folder = Folder::new(&[]);
    let root = folder.path();
    let publish = |version: &str, objects: &str| {
        let data = root.join(format!("..{version}"));
        std::fs::create_dir(&data).expect("a folder");
        std::fs::write(data.join("objects.yaml"), objects).expect("writes");
        symlink(format!("..{version}"), root.join("..data_tmp")).expect("links");
        std::fs::rename(root.join("..data_tmp"), root.join("..data")).expect("swaps");
    };
    let objects = |target: &str| {
        THE_TWO_OBJECTS.replace("llama-3-8b-customer", target)
            + &slice("ai-workloads", "s", LABELS, server.address)
    };
    publish("first", &objects("old"));
    symlink("..data/objects.yaml", root.join("objects.yaml")).expect("links");
    let gateway = Pointsman::files(root, &[]);
    gateway.wait_ready(1);
    let arrives = || {
        assert_eq!(
            post(gateway.data, CHAT, &chat("customer-support")).status,
            200
        );
        server.last().model()
    };
    assert!(arrives().starts_with("old-v"));
    publish("second", &objects("new"));
    std::fs::remove_dir_all(root.join("..first")).expect("removes");
    eventually("the new one", || {
        arrives().starts_with("new-v").then_some(())
    });
    assert_eq!(
        get(gateway.admin, "/readyz").json()["problems"],
        serde_json::json!([])
    );
}

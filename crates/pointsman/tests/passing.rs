//! What passes through the gateway: ids, trace context, streams as they come.

mod support;

use std::sync::mpsc::channel;

use support::{Answer, CHAT, Pointsman, Server, Sim, chat, post, send};

#[test]
fn request_ids_are_taken_made_and_returned_once() {
    let server = Server::start(&[], |_| {
        Answer::json(200, "{}").header("x-request-id", "the-servers")
    });
    let gateway = Pointsman::urls(&[server.address], &[]);
    let ask = |id: &str| {
        send(
            gateway.data,
            "POST",
            CHAT,
            &[("x-request-id", id)],
            &chat("m"),
        )
    };
    let long = "x".repeat(128);
    for id in ["a-b_c.1~", long.as_str()] {
        assert_eq!(ask(id).header("x-request-id"), id);
        assert_eq!(
            server.last().header("x-request-id"),
            id,
            "the server sees it too"
        );
    }
    let mut made = Vec::new();
    for bad in ["", "two words", "caf\u{e9}", &"x".repeat(129)] {
        let id = ask(bad).header("x-request-id").to_owned();
        assert!(
            !id.is_empty() && id != bad && id != "the-servers",
            "{bad:?}: {id:?}"
        );
        assert_eq!(server.last().header("x-request-id"), id);
        made.push(id);
    }
    made.push(
        post(gateway.data, CHAT, &chat("m"))
            .header("x-request-id")
            .to_owned(),
    );
    made.push(
        post(gateway.data, CHAT, "not json")
            .header("x-request-id")
            .to_owned(),
    );
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 6, "each its own: {made:?}");
}

#[test]
fn trace_context_passes_untouched_and_steering_headers_do_not() {
    let server = Server::named("a", &[]);
    let gateway = Pointsman::urls(&[server.address], &[]);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("traceparent", trace),
        ("tracestate", "a=1,b=2"),
        ("authorization", "Bearer k"),
        ("x-own", "Kept As It Is"),
        ("x-gateway-destination-endpoint", "10.9.9.9:1"),
        ("x-gateway-destination-endpoint-subset", "10.9.9.9:1"),
        ("x-pointsman-endpoint", "forged"),
        ("x-request-id", "traced"),
    ];
    assert_eq!(
        send(gateway.data, "POST", CHAT, &headers, &chat("m")).status,
        200
    );
    let asked = server.last();
    for (name, value) in &headers[..4] {
        assert_eq!(asked.header(name), *value);
    }
    assert!(
        !asked
            .headers
            .iter()
            .any(|(name, _)| name.starts_with("x-gateway-destination")
                || name.starts_with("x-pointsman"))
    );
    assert_eq!(
        gateway.access("traced")["trace_id"],
        "0af7651916cd43dd8448eb211c80319c"
    );
}

#[test]
fn a_stream_is_passed_on_as_it_comes() {
    let (sender, pieces) = channel();
    let pieces = parking_lot::Mutex::new(Some(pieces));
    let server = Server::start(&[], move |_| {
        Answer::events(pieces.lock().take().expect("one stream"))
    });
    let gateway = Pointsman::urls(&[server.address], &[]);
    let event = |text: &str| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    sender.send(event("first")).expect("sends");
    let mut opened = support::open(
        gateway.data,
        "POST",
        CHAT,
        &[("x-request-id", "slow")],
        r#"{"model":"m","stream":true,"messages":[]}"#,
    );
    assert_eq!(
        (opened.head.status, opened.head.header("content-type")),
        (200, "text/event-stream")
    );
    for text in ["first", "second", "third"] {
        opened.until(text);
        // The next event is sent only when this one has arrived.
        let _ = sender.send(event(match text {
            "first" => "second",
            "second" => "third",
            _ => "fourth",
        }));
    }
    sender.send("data: [DONE]\n\n".into()).expect("sends");
    drop(sender);
    assert!(opened.finish().text().ends_with("data: [DONE]\n\n"));
    assert_eq!(gateway.access("slow")["stream"], true);
}

#[test]
fn a_server_lost_before_its_first_byte_is_replaced_unseen() {
    let servers: Vec<Server> = ["a", "b"]
        .into_iter()
        .map(|name| Server::named(name, &["m"]))
        .collect();
    let failing = Server::start(&["m"], |_| {
        Answer::json(503, "{}").header("retry-after", "1")
    });
    let addresses = [servers[0].address, failing.address, servers[1].address];
    let gateway = Pointsman::urls(&addresses, &["--policy", "round-robin"]);
    gateway.wait_ready(3);
    for n in 0..12 {
        let reply = post(gateway.data, CHAT, &chat("m"));
        assert_eq!(reply.status, 200, "request {n}: {}", reply.text());
    }
    assert!(failing.count() > 0, "it was asked");
}

#[test]
fn a_stream_that_breaks_after_its_first_byte_ends_with_an_error_of_its_dialect() {
    let openai = Sim::start(&["--model", "m", "--reset-after-tokens", "3"]);
    let gateway = Pointsman::urls(&[openai.address], &[]);
    let body = r#"{"model":"m","stream":true,"max_tokens":20,"ignore_eos":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let chat = post(gateway.data, CHAT, body);
    assert_eq!((chat.status, chat.broken), (200, false));
    let text = chat.text();
    let last = text.trim_end().rsplit("\n\n").next().expect("an event");
    let data: serde_json::Value =
        serde_json::from_str(last.trim_start_matches("data: ")).expect("JSON");
    assert!(
        data["error"]["message"].is_string() && data["error"]["code"].is_string(),
        "{text}"
    );
    assert!(!text.contains("[DONE]"), "no good end: {text}");
    let messages = post(gateway.data, "/v1/messages", body);
    let text = messages.text();
    assert!(
        text.contains("event: error\ndata: {\"type\":\"error\""),
        "{text}"
    );
    assert!(!text.contains("message_stop"), "{text}");
}

#[test]
fn when_all_servers_refuse_the_client_gets_the_last_ones_own_words() {
    for status in [500, 503] {
        let servers = [1, 2, 3].map(|n| {
            Server::start(&["m"], move |_| {
                Answer::json(status, format!("own words of {n}")).header("retry-after", "7")
            })
        });
        let gateway = Pointsman::urls(&servers.each_ref().map(|server| server.address), &[]);
        gateway.wait_ready(3);
        let reply = post(gateway.data, CHAT, &chat("m"));
        assert_eq!((reply.status, reply.header("retry-after")), (status, "7"));
        assert!(
            reply.text().starts_with("own words of "),
            "{}",
            reply.text()
        );
        let asked: usize = servers.iter().map(Server::count).sum();
        assert!((1..=3).contains(&asked), "at most two more: {asked}");
    }
}

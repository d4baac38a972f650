//! `serve URL...`: models are learned, requests go where the model is, lost servers are left out and come back.

mod support;

use support::server::served_by;
use support::{Answer, CHAT, Pointsman, Server, Sim, chat, eventually, get, post};

/// A server that knows its models and says 404 to others in words of its own.
fn server(name: &'static str, models: &'static [&'static str]) -> Server {
    Server::start(models, move |asked| {
        if let Some(id) = asked
            .target
            .strip_prefix("/v1/models/")
            .filter(|id| models.contains(id))
        {
            Answer::json(200, format!(r#"{{"id":"{id}"}}"#))
        } else if models.contains(&asked.model().as_str()) {
            Answer::json(200, support::server::completion(name))
        } else {
            Answer::json(
                404,
                format!(r#"{{"error":"{name} has no model {}"}}"#, asked.model()),
            )
        }
    })
}

/// The ids of `/v1/models`, sorted.
fn models(gateway: &Pointsman) -> Vec<String> {
    let list = get(gateway.data, "/v1/models").json();
    assert_eq!(list["object"], "list");
    let ids = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|model| model["id"].as_str().expect("an id").to_owned());
    let mut ids: Vec<String> = ids.collect();
    ids.sort();
    ids
}

#[test]
fn requests_go_to_servers_that_have_the_model() {
    let a = server("a", &["only-a", "both"]);
    let b = server("b", &["only-b", "both"]);
    let gateway = Pointsman::urls(&[a.address, b.address], &[]);
    assert_eq!(
        models(&gateway),
        ["both", "only-a", "only-b"],
        "each once, at once"
    );
    for _ in 0..8 {
        assert_eq!(served_by(&post(gateway.data, CHAT, &chat("only-a"))), "a");
        assert_eq!(served_by(&post(gateway.data, CHAT, &chat("only-b"))), "b");
    }
    for id in ["only-a", "only-b"] {
        let one = get(gateway.data, &format!("/v1/models/{id}"));
        assert_eq!(
            (one.status, one.text()),
            (200, format!(r#"{{"id":"{id}"}}"#))
        );
    }
    let before = a.count() + b.count();
    let unknown = post(gateway.data, CHAT, &chat("nobody-has-it"));
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.text().ends_with(" has no model nobody-has-it\"}"),
        "the server's own words: {}",
        unknown.text()
    );
    assert_eq!(a.count() + b.count(), before + 1);
}

#[test]
fn a_lost_server_is_left_out_and_comes_back_by_itself() {
    let a = server("a", &["only-a", "both"]);
    let b = server("b", &["both"]);
    let gateway = Pointsman::urls(&[a.address, b.address], &[]);
    gateway.wait_ready(2);
    a.stop();
    for n in 0..30 {
        assert_eq!(
            served_by(&post(gateway.data, CHAT, &chat("both"))),
            "b",
            "request {n}"
        );
    }
    a.resume();
    eventually("a is back", || {
        (post(gateway.data, CHAT, &chat("only-a")).status == 200).then_some(())
    });
    gateway.wait_ready(2);
    assert!(a.count() > 0);
}

#[test]
fn a_server_that_is_away_at_the_start_does_not_hold_up_the_rest() {
    let a = server("a", &["only-a"]);
    let b = server("b", &["only-b"]);
    a.stop();
    let gateway = Pointsman::urls(&[a.address, b.address], &[]);
    assert_eq!(served_by(&post(gateway.data, CHAT, &chat("only-b"))), "b");
    a.resume();
    eventually("a is known", || {
        (models(&gateway) == ["only-a", "only-b"]).then_some(())
    });
    assert_eq!(served_by(&post(gateway.data, CHAT, &chat("only-a"))), "a");
}

#[test]
fn adapters_of_a_simulated_server_are_models_too() {
    let lora = [
        "--enable-lora",
        "--max-loras",
        "2",
        "--lora-modules",
        "sql=/sql",
    ];
    let with = Sim::start(&[&["--model", "llama"][..], &lora].concat());
    let without = Sim::start(&["--model", "llama"]);
    let gateway = Pointsman::urls(&[with.address, without.address], &["--explain"]);
    assert_eq!(models(&gateway), ["llama", "sql"]);
    for _ in 0..6 {
        let reply = support::send(
            gateway.data,
            "POST",
            CHAT,
            &[("x-pointsman-explain", "1")],
            &chat("sql"),
        );
        assert_eq!(
            (reply.status, reply.json()["model"].as_str()),
            (200, Some("sql")),
            "{}",
            reply.text()
        );
        assert_eq!(
            reply.header("x-pointsman-endpoint"),
            with.address.to_string()
        );
    }
}

#[test]
fn a_path_in_the_url_stands_before_each_path_and_a_last_v1_does_not() {
    let server = Server::named("a", &[]);
    for (base, arrives) in [
        ("/v1", CHAT.to_owned()),
        ("/llm/v1/", format!("/llm{CHAT}")),
    ] {
        let gateway = Pointsman::serve(&[&format!("http://{}{base}", server.address)]);
        assert_eq!(
            post(gateway.data, &format!("{CHAT}?a=b"), &chat("m")).status,
            200
        );
        assert_eq!(server.last().target, format!("{arrives}?a=b"));
    }
}

#[test]
fn everything_else_is_forwarded_as_it_is() {
    let server = Server::start(&[], |asked| {
        Answer::json(200, format!("{} {}", asked.method, asked.target))
    });
    let gateway = Pointsman::urls(&[server.address], &[]);
    for (method, target, body) in [
        ("GET", "/version?x=%2F", ""),
        ("PUT", "/own/path", "not json"),
        ("DELETE", "/own/path", ""),
    ] {
        let reply = support::send(gateway.data, method, target, &[], body);
        assert_eq!(
            (reply.status, reply.text()),
            (200, format!("{method} {target}"))
        );
        assert_eq!(server.last().text(), body);
    }
}

#[test]
fn missing_metrics_never_stop_routing() {
    let sims = ["off", "frozen"].map(|mode| Sim::start(&["--model", "llama", "--metrics", mode]));
    let gateway = Pointsman::urls(&sims.each_ref().map(|sim| sim.address), &[]);
    for _ in 0..10 {
        assert_eq!(post(gateway.data, CHAT, &chat("llama")).status, 200);
    }
}

#[test]
fn a_name_with_addresses_where_nobody_listens_is_served_all_the_same() {
    // `localhost` is 127.0.0.1 and, on many machines, ::1, where this server is not.
    let server = Server::named("a", &["m"]);
    let url = format!("http://localhost:{}", server.address.port());
    let gateway = Pointsman::serve(&[&url, &url]);
    for _ in 0..10 {
        assert_eq!(served_by(&post(gateway.data, CHAT, &chat("m"))), "a");
    }
}

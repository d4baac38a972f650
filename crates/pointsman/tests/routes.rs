//! HTTPRoute through the whole program: which rule wins, what filters do, how backends share.

mod support;

use std::collections::BTreeMap;

use support::objects::{gateway, pool, route, service};
use support::server::served_by;
use support::{Answer, CHAT, Folder, Pointsman, Reply, Server, chat, free_port, post, send, slice};

/// A server that answers with what it was asked.
fn echo() -> Server {
    Server::start(&[], |asked| {
        Answer::json(200, asked.target.clone())
            .header("x-server", "echo")
            .header("x-own", "1")
    })
}

/// A Service `name` in `namespace` with one server.
fn behind(namespace: &str, name: &str, server: &Server) -> String {
    let slice = slice(
        namespace,
        &format!("{name}-1"),
        &format!("kubernetes.io/service-name: {name}"),
        server.address,
    );
    service(namespace, name) + &slice
}

/// A gateway of these objects and the port of its listener.
fn serve(objects: &[String]) -> (Folder, Pointsman) {
    let all = gateway("edge", "gateway", free_port()) + &objects.concat();
    let folder = Folder::new(&[("all.yaml", &all)]);
    let gateway = Pointsman::files(folder.path(), &[]);
    (folder, gateway)
}

fn ask(gateway: &Pointsman, target: &str, headers: &[(&str, &str)]) -> Reply {
    send(gateway.data, "GET", target, headers, "")
}

/// Method, target and headers of a request, and the rule that wins.
type Winner = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const WINNERS: [Winner; 16] = [
    ("GET", "/", &[], "short"),
    ("GET", "/longer", &[], "short"),
    ("GET", "/long/er", &[], "exact"),
    ("GET", "/long/er?q=1", &[], "exact"),
    ("GET", "/long/er/", &[], "long"),
    ("GET", "/long/er/x", &[("x-a", "1")], "long"),
    ("GET", "/x?q=1", &[], "query"),
    ("GET", "/x?q=2&q=1", &[], "short"),
    ("GET", "/x?q=1", &[("X-A", "1")], "header"),
    ("GET", "/x", &[("x-a", "1"), ("x-b", "2")], "two-headers"),
    ("GET", "/x", &[("x-a", "2")], "short"),
    ("DELETE", "/x", &[("x-a", "1"), ("x-b", "2")], "method"),
    (
        "GET",
        "/x",
        &[
            ("x-r", "v12"),
            ("x-r2", "1"),
            ("x-r3", "1"),
            ("x-a", "1"),
            ("x-b", "2"),
        ],
        "regex",
    ),
    ("GET", "/", &[("host", "a.llm.test:8080")], "host"),
    ("GET", "/", &[("host", "b.LLM.test")], "wildcard"),
    ("GET", "/long/er", &[("host", "llm.test")], "exact"),
];

#[test]
fn the_most_specific_match_wins() {
    let names = [
        "exact",
        "long",
        "short",
        "header",
        "two-headers",
        "query",
        "method",
        "regex",
        "host",
        "wildcard",
    ];
    let servers: Vec<(&str, Server)> = names
        .into_iter()
        .map(|name| (name, Server::start(&[], move |_| Answer::json(200, name))))
        .collect();
    let rule = |matched: &str, to: &str| {
        format!("    - matches: [{{{matched}}}]\n      backendRefs: [{{name: {to}, port: 80}}]\n")
    };
    // Written from the least specific to the most.
    let rules = [
        rule("path: {value: /}", "short"),
        rule(
            "path: {value: /}, queryParams: [{name: q, value: '1'}]",
            "query",
        ),
        rule(
            "path: {value: /}, headers: [{name: x-a, value: '1'}]",
            "header",
        ),
        rule(
            "path: {value: /}, headers: [{name: x-a, value: '1'}, {name: x-b, value: '2'}]",
            "two-headers",
        ),
        rule("path: {value: /}, method: DELETE", "method"),
        rule("path: {value: /long/er}", "long"),
        rule("path: {type: Exact, value: /long/er}", "exact"),
        rule(
            "path: {value: /}, headers: [{type: RegularExpression, name: x-r, value: 'v[0-9]+'}, {name: x-r2, value: '1'}, {name: x-r3, value: '1'}]",
            "regex",
        ),
    ];
    let with_host = |name: &str, host: &str, to: &str| {
        route(
            "edge",
            name,
            &format!("    - backendRefs: [{{name: {to}, port: 80}}]"),
        )
        .replace("  rules:", &format!("  hostnames: ['{host}']\n  rules:"))
    };
    let mut objects = vec![
        route("edge", "all", &rules.concat()),
        with_host("wild", "*.llm.test", "wildcard"),
        with_host("one", "a.llm.test", "host"),
    ];
    objects.extend(
        servers
            .iter()
            .map(|(name, server)| behind("edge", name, server)),
    );
    let (_folder, gateway) = serve(&objects);
    for (method, target, headers, wins) in WINNERS {
        let reply = send(gateway.data, method, target, headers, "");
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, wins),
            "{method} {target} {headers:?}"
        );
    }
}

#[test]
fn filters_change_headers_paths_and_hosts_or_answer_themselves() {
    let server = echo();
    let rules = "    - matches: [{path: {value: /headers}}]
      filters:
        - type: RequestHeaderModifier
          requestHeaderModifier: {set: [{name: X-Set, value: new}], add: [{name: x-add, value: two}], remove: [x-gone]}
        - type: ResponseHeaderModifier
          responseHeaderModifier: {set: [{name: x-server, value: hidden}], add: [{name: x-more, value: '1'}], remove: [x-own]}
      backendRefs: [{name: web, port: 80}]
    - matches: [{path: {value: /old}}]
      filters:
        - type: URLRewrite
          urlRewrite: {hostname: inner.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
      backendRefs: [{name: web, port: 80}]
    - matches: [{path: {value: /whole}}]
      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /one}}}]
      backendRefs: [{name: web, port: 80}]
    - matches: [{path: {value: /away}}]
      filters:
        - type: RequestRedirect
          requestRedirect: {scheme: https, hostname: other.test, port: 8443, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /there}}
    - matches: [{path: {value: /moved}}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: other.test}}]";
    let (_folder, gateway) = serve(&[route("edge", "web", rules), behind("edge", "web", &server)]);
    let reply = ask(
        &gateway,
        "/headers",
        &[
            ("x-set", "old"),
            ("x-add", "one"),
            ("X-Gone", "1"),
            ("x-kept", "1"),
        ],
    );
    let asked = server.last();
    let sent = |name: &str| {
        asked
            .headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(
        (sent("x-set"), sent("x-add"), sent("x-gone"), sent("x-kept")),
        ("new".into(), "one,two".into(), String::new(), "1".into())
    );
    assert_eq!(
        (
            reply.header("x-server"),
            reply.header("x-more"),
            reply.header("x-own")
        ),
        ("hidden", "1", "")
    );
    for (target, arrives) in [
        ("/old/a?b=%20c", "/new/a?b=%20c"),
        ("/old", "/new"),
        ("/whole/x?y", "/one?y"),
    ] {
        assert_eq!(ask(&gateway, target, &[]).text(), arrives);
    }
    ask(&gateway, "/old", &[]);
    assert_eq!(server.last().header("host"), "inner.test");
    let before = server.count();
    let away = ask(&gateway, "/away/x?y=1", &[("host", "gw.test")]);
    assert_eq!(
        (away.status, away.header("location")),
        (301, "https://other.test:8443/there/x?y=1")
    );
    let moved = ask(&gateway, "/moved", &[("host", "gw.test")]);
    let port = gateway.data.port();
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, format!("http://other.test:{port}/moved").as_str())
    );
    assert_eq!(server.count(), before);
}

#[test]
fn a_service_and_a_pool_share_one_rule_by_weight() {
    let [plain, model] = [Server::named("service", &[]), Server::named("pool", &[])];
    let rules = "    - backendRefs:
        - {name: web, port: 80, weight: 1}
        - {group: inference.networking.k8s.io, kind: InferencePool, name: llama, weight: 3}
        - {name: missing, port: 80, weight: 0}";
    let (_folder, gateway) = serve(&[
        route("edge", "web", rules),
        behind("edge", "web", &plain),
        pool("edge", "llama", "llama"),
        slice("edge", "s", "app: llama", model.address),
    ]);
    gateway.wait_ready(2);
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        *shares
            .entry(served_by(&post(gateway.data, CHAT, &chat("m"))))
            .or_default() += 1;
    }
    // A quarter of 300 is 75; six standard deviations are 45.
    assert!(
        (30..=120).contains(&shares["service"]) && shares["service"] + shares["pool"] == 300,
        "{shares:?}"
    );
}

#[test]
fn a_missing_backend_takes_its_share_with_500() {
    let server = Server::named("a", &[]);
    let rules = "    - backendRefs: [{name: web, port: 80, weight: 1}, {name: missing, port: 80, weight: 1}]";
    let (_folder, gateway) = serve(&[route("edge", "web", rules), behind("edge", "web", &server)]);
    let statuses: Vec<u16> = (0..100)
        .map(|_| post(gateway.data, CHAT, &chat("m")).status)
        .collect();
    let bad = statuses.iter().filter(|&&status| status == 500).count();
    assert!(
        (20..=80).contains(&bad) && statuses.iter().all(|status| matches!(status, 200 | 500)),
        "{statuses:?}"
    );
}

#[test]
fn another_namespace_must_permit_the_reference() {
    let server = echo();
    let rules = "    - backendRefs: [{name: web, namespace: shop, port: 80}]";
    let (folder, gateway) = serve(&[route("edge", "web", rules), behind("shop", "web", &server)]);
    assert_eq!(ask(&gateway, "/", &[]).status, 500);
    let grant = |from: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: shop}}\nspec:\n  \
             from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {from}}}]\n  to: [{{group: '', kind: Service, name: web}}]\n"
        )
    };
    folder.write("grant.yaml", &grant("edge"));
    support::eventually("permitted", || {
        (ask(&gateway, "/", &[]).status == 200).then_some(())
    });
    folder.write("grant.yaml", &grant("elsewhere"));
    support::eventually("no longer", || {
        (ask(&gateway, "/", &[]).status == 500).then_some(())
    });
}

#[test]
fn timeouts_of_a_rule() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = parking_lot::Mutex::new(held);
    let server = Server::start(&[], move |_| {
        let _ = held.lock().recv();
        Answer::json(200, "late")
    });
    let rules = "    - matches: [{path: {value: /request}}]
      timeouts: {request: 200ms}
      backendRefs: [{name: web, port: 80}]
    - matches: [{path: {value: /backend}}]
      timeouts: {backendRequest: 200ms}
      backendRefs: [{name: web, port: 80}]
    - backendRefs: [{name: web, port: 80}]";
    let (_folder, gateway) = serve(&[route("edge", "web", rules), behind("edge", "web", &server)]);
    for path in ["/request", "/backend"] {
        let reply = ask(&gateway, path, &[]);
        assert_eq!(reply.status, 504, "{path}: {}", reply.text());
    }
    drop(hold);
    assert_eq!(ask(&gateway, "/", &[]).text(), "late");
}

#[test]
fn a_session_stays_with_its_server_and_moves_when_that_goes() {
    let servers = [
        Server::named("a", &[]),
        Server::named("b", &[]),
        Server::named("c", &[]),
    ];
    let rules = "    - sessionPersistence: {sessionName: sid, type: Cookie, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}
      backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]";
    let slices = |from: &[usize]| -> String {
        from.iter()
            .map(|&n| slice("edge", &format!("s{n}"), "app: llama", servers[n].address))
            .collect()
    };
    let (folder, gateway) = serve(&[
        route("edge", "models", rules),
        pool("edge", "llama", "llama"),
    ]);
    folder.write("slices.yaml", &slices(&[0, 1, 2]));
    gateway.wait_ready(3);
    let with = |cookie: &str| {
        send(
            gateway.data,
            "POST",
            CHAT,
            &[("cookie", cookie), ("content-type", "application/json")],
            &chat("m"),
        )
    };
    let first = with("other=1");
    let home = served_by(&first);
    let cookie = first.header("set-cookie").to_owned();
    assert!(
        cookie.starts_with("sid=")
            && cookie.contains("HttpOnly")
            && cookie.contains("Max-Age=3600"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().expect("a pair").to_owned();
    for _ in 0..20 {
        let reply = with(&format!("x=y; {pair}"));
        assert_eq!(
            (served_by(&reply).as_str(), reply.header("set-cookie")),
            (home.as_str(), "")
        );
    }
    let forged = format!("{}x", &pair[..pair.len() - 1]);
    assert!(
        with(&forged).header("set-cookie").starts_with("sid="),
        "a forged session is a new client"
    );
    let gone = ["a", "b", "c"]
        .iter()
        .position(|name| *name == home)
        .expect("one of them");
    let left: Vec<usize> = (0..3).filter(|&n| n != gone).collect();
    folder.write("slices.yaml", &slices(&left));
    gateway.wait_ready(2);
    let moved = with(&pair);
    assert_ne!(served_by(&moved), home);
    let next = moved
        .header("set-cookie")
        .split(';')
        .next()
        .expect("a pair")
        .to_owned();
    assert!(next.starts_with("sid=") && next != pair);
    assert_eq!(served_by(&with(&next)), served_by(&moved));
}

#[test]
fn a_larger_or_smaller_body_limit_for_one_route() {
    let server = Server::named("a", &[]);
    let rules = "    - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]";
    let limited = route("edge", "models", rules).replace(
        "namespace: edge}\nspec:\n  parentRefs",
        "namespace: edge, annotations: {pointsman.dev/max-body-bytes: '100'}}\nspec:\n  parentRefs",
    );
    let (_folder, gateway) = serve(&[
        limited,
        pool("edge", "llama", "llama"),
        slice("edge", "s", "app: llama", server.address),
    ]);
    gateway.wait_ready(1);
    assert_eq!(post(gateway.data, CHAT, &chat("m")).status, 200);
    assert_eq!(
        post(gateway.data, CHAT, &chat(&"m".repeat(100))).status,
        413
    );
}

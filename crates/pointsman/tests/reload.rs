//! Files change while the gateway serves: what is broken keeps its last good state and is named, what is right counts.

mod support;

use std::net::SocketAddr;

use support::client::{get_tls, listens};
use support::objects::{THE_TWO_OBJECTS, gateway, pool, route, service};
use support::server::served_by;
use support::{
    Answer, CHAT, Folder, Pointsman, Server, chat, eventually, free_port, get, post, slice,
};

const LABELS: &str = "app: llama-server, version: v1";

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn broken_yaml_keeps_serving_and_is_named_until_it_is_repaired() {
    let server = Server::named("a", &[]);
    let slices = slice("ai-workloads", "s", LABELS, server.address);
    let folder = Folder::new(&[("objects.yaml", THE_TWO_OBJECTS), ("slices.yaml", &slices)]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(1);
    let failures = || {
        gateway
            .metric("pointsman_config_reload_failures_total", &[])
            .expect("there from the start")
    };
    let successful = || {
        gateway
            .metric("pointsman_config_last_reload_successful", &[])
            .expect("there from the start")
    };
    assert_eq!(
        (failures(), successful(), gateway.problems().as_str()),
        (0.0, 1.0, "")
    );

    // A document after the good ones is no YAML: line 17 opens a bracket that nobody closes.
    let broken = THE_TWO_OBJECTS.replace("weight: 20}", "weight: 30}") + "---\na: [\n";
    let invalid = THE_TWO_OBJECTS.replace("targetPortNumber: 8000", "targetPortNumber: 80000");
    let missing = THE_TWO_OBJECTS.replace("  selector: {app: llama-server, version: v1}\n", "");
    for (number, (text, named)) in [
        (&broken, &["objects.yaml:", "YAML"][..]),
        (
            &invalid,
            &[
                "objects.yaml:16",
                "InferencePool ai-workloads/llama-pool",
                "spec.targetPortNumber",
            ][..],
        ),
        (
            &missing,
            &[
                "objects.yaml:",
                "InferencePool ai-workloads/llama-pool",
                "selector",
            ][..],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let before = failures();
        folder.write("objects.yaml", text);
        let problems = eventually("the break is named", || {
            Some(gateway.problems()).filter(|text| !text.is_empty())
        });
        assert!(
            named.iter().all(|text| problems.contains(text)),
            "{number}: {problems}"
        );
        eventually("and counted", || {
            (successful() == 0.0 && failures() > before).then_some(())
        });
        let told = |event: &serde_json::Value| {
            event["level"] == "ERROR"
                && event["message"]
                    .as_str()
                    .is_some_and(|m| m.contains(named[0]))
        };
        assert!(
            gateway.events().iter().any(told),
            "{number}: not in the log"
        );
        assert_eq!(
            served_by(&post(gateway.data, CHAT, &chat("customer-support"))),
            "a",
            "{number}: still served"
        );

        let before = failures();
        folder.write("objects.yaml", THE_TWO_OBJECTS);
        eventually("repaired", || gateway.problems().is_empty().then_some(()));
        eventually("and counted", || (successful() == 1.0).then_some(()));
        assert_eq!(failures(), before);
    }
}

#[test]
fn a_file_broken_at_the_start_is_named_and_the_rest_serves() {
    let server = Server::named("a", &[]);
    let slices = slice("ai-workloads", "s", LABELS, server.address);
    let folder = Folder::new(&[
        ("objects.yaml", THE_TWO_OBJECTS),
        ("slices.yaml", &slices),
        ("broken.yaml", "kind: [\n"),
    ]);
    let gateway = Pointsman::files(folder.path(), &[]);
    assert!(
        gateway.problems().contains("broken.yaml:1"),
        "{}",
        gateway.problems()
    );
    assert_eq!(
        post(gateway.data, CHAT, &chat("customer-support")).status,
        200
    );
    let successful = || gateway.metric("pointsman_config_last_reload_successful", &[]);
    assert_eq!(successful(), Some(0.0), "monitors see it too");
    folder.remove("broken.yaml");
    eventually("repaired", || gateway.problems().is_empty().then_some(()));
    eventually("monitors too", || (successful() == Some(1.0)).then_some(()));
}

#[test]
fn weights_servers_and_models_change_without_a_restart() {
    let servers = [Server::named("a", &[]), Server::named("b", &[])];
    let slices = |count: usize| -> String {
        servers[..count]
            .iter()
            .enumerate()
            .map(|(n, s)| slice("ai-workloads", &format!("s{n}"), LABELS, s.address))
            .collect()
    };
    let folder = Folder::new(&[
        ("objects.yaml", THE_TWO_OBJECTS),
        ("slices.yaml", &slices(1)),
    ]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(1);
    let only_v2 = THE_TWO_OBJECTS
        .replace("weight: 80", "weight: 1")
        .replace("weight: 20", "weight: 1000000");
    folder.write("objects.yaml", &only_v2);
    let model = || {
        assert_eq!(
            post(gateway.data, CHAT, &chat("customer-support")).status,
            200
        );
        servers[0].last().model()
    };
    // By chance v2 comes up to three times in a row before the change too, but not twenty times.
    eventually("only the second target", || {
        (0..20)
            .all(|_| model() == "llama-3-8b-customer-v2")
            .then_some(())
    });
    folder.write("slices.yaml", &slices(2));
    gateway.wait_ready(2);
    eventually("the new server works", || {
        post(gateway.data, CHAT, &chat("customer-support"));
        (servers[1].count() > 0).then_some(())
    });
    folder.write(
        "slices.yaml",
        &slice("ai-workloads", "s1", LABELS, servers[1].address),
    );
    gateway.wait_ready(1);
    let before = servers[0].count();
    for _ in 0..10 {
        assert_eq!(
            served_by(&post(gateway.data, CHAT, &chat("customer-support"))),
            "b"
        );
    }
    assert_eq!(servers[0].count(), before);
}

/// A Gateway for all routes with an HTTP listener on each port.
fn listeners(ports: &[u16]) -> String {
    let list: String = ports
        .iter()
        .map(|port| format!("    - {{name: http-{port}, port: {port}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}\n"))
        .collect();
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gateway, namespace: edge}}\nspec:\n  gatewayClassName: any\n  listeners:\n{list}"
    )
}

const TO_WEB: &str = "    - backendRefs: [{name: web, port: 80}]";

/// A route to one server through a Service.
fn web(server: &Server) -> String {
    let slice = slice(
        "edge",
        "web-1",
        "kubernetes.io/service-name: web",
        server.address,
    );
    format!(
        "{}{}{slice}",
        route("edge", "web", TO_WEB),
        service("edge", "web")
    )
}

#[test]
fn listeners_come_and_go() {
    let server = Server::start(&[], |_| Answer::json(200, "web"));
    let [first, second] = [free_port(), free_port()];
    let folder = Folder::new(&[
        ("web.yaml", &web(&server)),
        ("gateway.yaml", &listeners(&[first])),
    ]);
    let gateway = Pointsman::files(folder.path(), &[]);
    assert_eq!(get(local(first), "/").text(), "web");
    assert!(!listens(local(second)));
    folder.write("gateway.yaml", &listeners(&[first, second]));
    eventually("the second listener", || {
        listens(local(second)).then_some(())
    });
    assert_eq!(get(local(second), "/").text(), "web");
    folder.write("gateway.yaml", &listeners(&[second]));
    eventually("the first is closed", || {
        (!listens(local(first))).then_some(())
    });
    assert_eq!(get(local(second), "/").text(), "web");
    assert_eq!(gateway.problems(), "");
}

#[test]
fn a_port_in_use_is_named_while_the_others_serve() {
    let server = Server::start(&[], |_| Answer::json(200, "web"));
    let [free, taken] = [free_port(), free_port()];
    let holder = std::net::TcpListener::bind(local(taken)).expect("free");
    let folder = Folder::new(&[
        ("web.yaml", &web(&server)),
        ("gateway.yaml", &listeners(&[free, taken])),
    ]);
    let gateway = Pointsman::files(folder.path(), &[]);
    assert!(
        gateway.problems().contains(&taken.to_string()),
        "{}",
        gateway.problems()
    );
    assert_eq!(get(local(free), "/").text(), "web");
    drop(holder);
    // It is tried again every few seconds.
    eventually("served at last", || {
        gateway.problems().is_empty().then_some(())
    });
    assert_eq!(get(local(taken), "/").text(), "web");
}

/// A self-signed certificate: PEM of both halves, and DER.
fn certificate() -> (String, String, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec!["llm.test".to_owned()]).expect("made");
    (
        made.cert.pem(),
        made.signing_key.serialize_pem(),
        made.cert.der().to_vec(),
    )
}

fn secret(certificate: &str, key: &str) -> String {
    let block = |pem: &str| {
        pem.lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls, namespace: edge}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        block(certificate),
        block(key)
    )
}

#[test]
fn a_replaced_certificate_is_shown_to_the_next_client_and_a_broken_one_is_not() {
    let server = Server::start(&[], |_| Answer::json(200, "web"));
    let [plain, secure] = [free_port(), free_port()];
    let https = format!(
        "{}    - {{name: https, port: {secure}, protocol: HTTPS, hostname: llm.test, tls: {{certificateRefs: [{{name: tls}}]}}, allowedRoutes: {{namespaces: {{from: All}}}}}}\n",
        listeners(&[plain])
    );
    let [first, second] = [certificate(), certificate()];
    let folder = Folder::new(&[
        ("web.yaml", &web(&server)),
        ("gateway.yaml", &https),
        ("secret.yaml", &secret(&first.0, &first.1)),
    ]);
    let gateway = Pointsman::files(folder.path(), &[]);
    let shown = |root: &[u8]| get_tls(local(secure), "llm.test", root);
    let (leaf, reply) = shown(&first.2).expect("trusted");
    assert_eq!((leaf, reply.text()), (first.2.clone(), "web".to_owned()));
    folder.write("secret.yaml", &secret(&second.0, &second.1));
    let (leaf, reply) = eventually("the new certificate", || shown(&second.2).ok());
    assert_eq!((leaf, reply.text()), (second.2.clone(), "web".to_owned()));
    assert!(shown(&first.2).is_err());
    // The key of another certificate: nothing sound to show, so the last good one stays, or nothing; the rest serves.
    folder.write("secret.yaml", &secret("no certificate", "no key"));
    eventually("the break is told", || {
        let told = |event: &serde_json::Value| {
            event["message"].as_str().is_some_and(|text| {
                text.contains("InvalidCertificateRef") || text.contains("Secret edge/tls")
            })
        };
        gateway.events().iter().any(told).then_some(())
    });
    assert_eq!(get(local(plain), "/").text(), "web");
    eventually("and named", || {
        gateway.problems().contains("Secret edge/tls").then_some(())
    });
    assert!(!gateway.log().contains("PRIVATE KEY"));
    folder.write("secret.yaml", &secret(&first.0, &first.1));
    let (leaf, _) = eventually("the first again", || shown(&first.2).ok());
    assert_eq!(leaf, first.2);
}

#[test]
fn a_reference_that_does_not_resolve_is_500_for_its_share_alone() {
    let server = Server::named("a", &[]);
    let port = free_port();
    let good = "    - matches: [{path: {value: /v1}}]\n      backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]\n";
    let bad = "    - matches: [{path: {value: /bad}}]\n      backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: missing}]";
    let objects = [
        gateway("edge", "gateway", port),
        pool("edge", "llama", "llama"),
        slice("edge", "s", "app: llama", server.address),
        route("edge", "models", &format!("{good}{bad}")),
    ];
    let folder = Folder::new(&[("all.yaml", &objects.concat())]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(1);
    let refused = post(gateway.data, "/bad", "{}");
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert_eq!(served_by(&post(gateway.data, CHAT, &chat("m"))), "a");
    assert!(
        gateway.log().contains("BackendNotFound") || gateway.log().contains("missing"),
        "the condition is logged"
    );
    let problems = gateway.problems();
    assert!(
        problems.contains("HTTPRoute edge/models") && problems.contains("missing"),
        "{problems}"
    );
    let successful = gateway.metric("pointsman_config_last_reload_successful", &[]);
    assert_eq!(successful, Some(1.0), "the configuration is sound");
    folder.write(
        "more.yaml",
        &format!(
            "{}{}",
            pool("edge", "missing", "other"),
            slice("edge", "s2", "app: other", server.address)
        ),
    );
    eventually("resolved", || {
        (post(gateway.data, "/bad", "{}").status == 200).then_some(())
    });
    eventually("nothing is named", || {
        gateway.problems().is_empty().then_some(())
    });
}

#[test]
fn nothing_is_lost_while_files_change() {
    let server = Server::named("a", &[]);
    let slices = slice("ai-workloads", "s", LABELS, server.address);
    let folder = Folder::new(&[("objects.yaml", THE_TWO_OBJECTS), ("slices.yaml", &slices)]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(1);
    let done = std::sync::atomic::AtomicBool::new(false);
    let reloads = || {
        gateway
            .events()
            .iter()
            .filter(|event| event["message"] == "configuration reloaded")
            .count()
    };
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut count = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let reply = post(gateway.data, CHAT, &chat("customer-support"));
                assert_eq!(reply.status, 200, "after {count}: {}", reply.text());
                count += 1;
            }
            count
        });
        for round in 0..3 {
            folder.write(
                "objects.yaml",
                &THE_TWO_OBJECTS.replace("weight: 80", &format!("weight: 8{round}")),
            );
            eventually("reloaded", || (reloads() > round).then_some(()));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(client.join().expect("no request failed") > 0);
    });
}

//! Model names, weights and classes from Kubernetes objects without any Gateway, in the old words and in the new ones.

mod support;

use std::collections::BTreeMap;

use support::objects::{THE_TWO_OBJECTS, pool};
use support::{
    Answer, CHAT, Folder, Pointsman, Server, Sim, chat, check, eventually, free_port, post, send,
    slice,
};

const LABELS: &str = "app: llama-server, version: v1";

/// Two servers that take every model.
fn servers() -> [Server; 2] {
    [Server::named("a", &[]), Server::named("b", &[])]
}

/// Their slices.
fn slices(namespace: &str, labels: &str, servers: &[Server]) -> String {
    servers
        .iter()
        .enumerate()
        .map(|(n, server)| slice(namespace, &format!("s{n}"), labels, server.address))
        .collect()
}

/// A body with everything that a careless proxy changes: order, spaces, number formats, unknown and doubled fields.
fn body(model: &str) -> String {
    format!(
        "{{ \"z\":1.50,\"stream\" :false,\n \"model\" : \"{model}\", \"messages\":[{{\"role\":\"user\",\"content\":\"\\u00e9 /\\/\"}}],\
         \"n\":1e0,\"user\":\"a\",\"user\":\"b\",\"unknown\":{{\"deep\":[null,-0.0]}} }} "
    )
}

/// Sends `count` requests for `model` and returns how often each model name arrived; nothing else may have changed.
fn arrivals(
    gateway: &Pointsman,
    servers: &[Server],
    model: &str,
    count: usize,
) -> BTreeMap<String, usize> {
    let before: Vec<usize> = servers.iter().map(Server::count).collect();
    let sent = body(model);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..count / 4 {
                    let reply = post(gateway.data, CHAT, &sent);
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
            });
        }
    });
    let mut found = BTreeMap::new();
    for (server, before) in servers.iter().zip(before) {
        for asked in &server.asked()[before..] {
            assert_eq!(
                asked.text(),
                body(&asked.model()),
                "only the model's value may change"
            );
            *found.entry(asked.model()).or_default() += 1;
        }
    }
    found
}

/// Four of five to the first target; six standard deviations are allowed.
fn assert_four_fifths(found: &BTreeMap<String, usize>, first: &str, second: &str) {
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, [first, second]);
    assert_eq!(found.values().sum::<usize>(), 400);
    assert!((272..=368).contains(&found[first]), "{found:?}");
}

/// Saturates the servers and checks that `may_be_shed` is refused while `must_be_served` waits and is served in the end.
fn assert_classes(
    gateway: &Pointsman,
    servers: &[Server],
    shed: Request<'_>,
    served: &[Request<'_>],
) {
    for server in servers {
        server.report_waiting(50);
    }
    let refused = eventually("the pool is saturated", || {
        Some(shed.send(gateway)).filter(|reply| reply.status != 200)
    });
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (429, "sheddable_saturated")
    );
    assert!((1..=120).contains(&refused.retry_after()));
    let before: usize = servers.iter().map(Server::count).sum();
    std::thread::scope(|scope| {
        let answers: Vec<_> = served
            .iter()
            .map(|request| scope.spawn(|| request.send(gateway)))
            .collect();
        #[allow(clippy::cast_precision_loss)]
        let wanted = served.len() as f64;
        eventually("they wait in the gateway", || {
            (gateway.metric("pointsman_queue_size", &[])? == wanted).then_some(())
        });
        assert_eq!(shed.send(gateway).status, 429, "still refused");
        assert_eq!(
            servers.iter().map(Server::count).sum::<usize>(),
            before,
            "nothing is pushed on top"
        );
        for server in servers {
            server.report_waiting(0);
        }
        for answer in answers {
            assert_eq!(answer.join().expect("no panic").status, 200);
        }
    });
    eventually("open again", || {
        (shed.send(gateway).status == 200).then_some(())
    });
}

/// A model, and the objective named in the header.
struct Request<'a> {
    model: &'a str,
    objective: Option<&'a str>,
}

impl Request<'_> {
    fn send(&self, gateway: &Pointsman) -> support::Reply {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(
            self.objective
                .map(|name| ("x-gateway-inference-objective", name)),
        );
        send(gateway.data, "POST", CHAT, &headers, &chat(self.model))
    }
}

fn of(model: &str) -> Request<'_> {
    Request {
        model,
        objective: None,
    }
}

#[test]
fn the_two_objects_split_four_to_one_and_shed_by_class() {
    let servers = servers();
    let folder = Folder::new(&[
        ("objects.yaml", THE_TWO_OBJECTS),
        ("slices.yaml", &slices("ai-workloads", LABELS, &servers)),
    ]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    assert_eq!(gateway.problems(), "");
    let found = arrivals(&gateway, &servers, "customer-support", 400);
    assert_four_fifths(&found, "llama-3-8b-customer-v1", "llama-3-8b-customer-v2");
    assert!(
        servers.iter().all(|server| server.count() > 0),
        "both servers work"
    );
    assert_classes(
        &gateway,
        &servers,
        of("some-other-model"),
        &[of("customer-support")],
    );
}

#[test]
fn an_unknown_model_goes_on_under_its_own_name() {
    let servers = servers();
    let folder = Folder::new(&[
        ("objects.yaml", THE_TWO_OBJECTS),
        ("slices.yaml", &slices("ai-workloads", LABELS, &servers)),
    ]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    let found = arrivals(&gateway, &servers, "some-other-model", 4);
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [("some-other-model".to_owned(), 4)]
    );
}

#[test]
fn a_pool_takes_only_slices_of_its_namespace_and_labels() {
    let [ours, theirs] = servers();
    let slices = [
        slice("ai-workloads", "ours", LABELS, ours.address),
        slice("elsewhere", "theirs", LABELS, theirs.address),
        slice(
            "ai-workloads",
            "older",
            "app: llama-server, version: v0",
            theirs.address,
        ),
    ];
    let folder = Folder::new(&[("all.yaml", &format!("{THE_TWO_OBJECTS}{}", slices.concat()))]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(1);
    for _ in 0..10 {
        assert_eq!(
            post(gateway.data, CHAT, &chat("customer-support")).status,
            200
        );
    }
    assert_eq!((ours.count(), theirs.count()), (10, 0));
}

/// An InferenceModel with an age.
fn model(name: &str, model: &str, created: &str, target: &str) -> String {
    format!(
        "---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: {name}, namespace: ai-workloads, creationTimestamp: \"{created}\"}}
spec: {{modelName: {model}, poolRef: {{name: llama-pool}}, targetModels: [{{name: {target}}}]}}
"
    )
}

#[test]
fn of_two_models_with_one_name_the_older_serves_and_check_names_the_other() {
    let servers = servers();
    let two = [
        model("younger", "chat", "2026-02-02T00:00:00Z", "from-younger"),
        model("older", "chat", "2026-01-01T00:00:00Z", "from-older"),
    ];
    let folder = Folder::new(&[
        (
            "objects.yaml",
            &format!("{THE_TWO_OBJECTS}{}", two.concat()),
        ),
        ("slices.yaml", &slices("ai-workloads", LABELS, &servers)),
    ]);
    let said = check(folder.path(), &["-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&said.text).expect("JSON");
    let conflicts: Vec<&str> = report["conditions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|row| row["reason"] == "ModelNameInUse")
        .map(|row| row["object"].as_str().expect("a name"))
        .collect();
    assert_eq!(conflicts, ["InferenceModel ai-workloads/younger"]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    let found = arrivals(&gateway, &servers, "chat", 8);
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [("from-older".to_owned(), 8)]
    );
}

/// The same service in the words of the later kinds.
fn new_words(api_version: &str) -> String {
    format!(
        "{}---
apiVersion: {api_version}
kind: InferenceObjective
metadata: {{name: gold, namespace: ns}}
spec: {{priority: 10, poolRef: {{name: llama}}}}
---
apiVersion: {api_version}
kind: InferenceObjective
metadata: {{name: nightly, namespace: ns}}
spec: {{priority: -3, poolRef: {{name: llama}}}}
---
apiVersion: {api_version}
kind: InferenceModelRewrite
metadata: {{name: support, namespace: ns}}
spec:
  poolRef: {{name: llama}}
  rules:
    - matches: [{{model: {{type: Exact, value: customer-support}}}}]
      targets: [{{modelRewrite: customer-v1, weight: 80}}, {{modelRewrite: customer-v2, weight: 20}}]
",
        pool("ns", "llama", "llama")
    )
}

fn serve_new_words(api_version: &str) {
    let servers = servers();
    let folder = Folder::new(&[
        ("objects.yaml", &new_words(api_version)),
        ("slices.yaml", &slices("ns", "app: llama", &servers)),
    ]);
    let said = check(folder.path(), &[]);
    assert_eq!(said.code, 0, "{}", said.text);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    let found = arrivals(&gateway, &servers, "customer-support", 400);
    assert_four_fifths(&found, "customer-v1", "customer-v2");
    let with = |objective| Request {
        model: "base",
        objective,
    };
    // An unknown objective and none are priority 0: they wait.
    let waiting = [with(Some("gold")), with(None), with(Some("unknown"))];
    assert_classes(&gateway, &servers, with(Some("nightly")), &waiting);
}

#[test]
fn objectives_and_rewrites_of_the_first_group_do_the_same() {
    serve_new_words("inference.networking.x-k8s.io/v1alpha2");
}

#[test]
fn objectives_and_rewrites_of_the_second_group_do_the_same() {
    serve_new_words("llm-d.ai/v1alpha2");
}

#[test]
fn a_rewrite_beats_a_model_and_an_exact_match_beats_a_match_all() {
    let servers = servers();
    let rewrites = "---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata: {name: a-all, namespace: ai-workloads, creationTimestamp: \"2020-01-01T00:00:00Z\"}
spec:
  poolRef: {group: inference.networking.x-k8s.io, name: llama-pool}
  rules: [{targets: [{modelRewrite: from-match-all}]}]
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata: {name: b-exact, namespace: ai-workloads, creationTimestamp: \"2024-01-01T00:00:00Z\"}
spec:
  poolRef: {name: llama-pool}
  rules:
    - {matches: [{model: {value: customer-support}}], targets: [{modelRewrite: from-first-rule}]}
    - {matches: [{model: {value: customer-support}}], targets: [{modelRewrite: from-second-rule}]}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata: {name: c-younger, namespace: ai-workloads, creationTimestamp: \"2025-01-01T00:00:00Z\"}
spec:
  poolRef: {name: llama-pool}
  rules: [{matches: [{model: {value: customer-support}}], targets: [{modelRewrite: from-younger}]}]
";
    let folder = Folder::new(&[
        ("objects.yaml", &format!("{THE_TWO_OBJECTS}{rewrites}")),
        ("slices.yaml", &slices("ai-workloads", LABELS, &servers)),
    ]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    for (model, arrives) in [
        ("customer-support", "from-first-rule"),
        ("anything", "from-match-all"),
    ] {
        let found = arrivals(&gateway, &servers, model, 4);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [(arrives.to_owned(), 4)]
        );
    }
}

#[test]
fn two_pools_behind_one_port_are_told_apart_by_model() {
    let [first, second] = servers();
    let other = "---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: coder, namespace: other}
spec: {modelName: coder, criticality: Standard, poolRef: {name: coder-pool}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: coder-pool, namespace: other}
spec: {targetPortNumber: 8000, selector: {app: coder}, extensionRef: {name: picker}}
";
    let slices = [
        slice("ai-workloads", "s", LABELS, first.address),
        slice("other", "s", "app: coder", second.address),
    ];
    let folder = Folder::new(&[(
        "all.yaml",
        &format!("{THE_TWO_OBJECTS}{other}{}", slices.concat()),
    )]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    for (model, server) in [("customer-support", &first), ("coder", &second)] {
        let before = server.count();
        for _ in 0..5 {
            assert_eq!(post(gateway.data, CHAT, &chat(model)).status, 200);
        }
        assert_eq!(server.count(), before + 5, "{model}");
    }
    assert_eq!(
        second.last().model(),
        "coder",
        "without targets the name stays"
    );
}

#[test]
fn the_answer_is_the_servers_own() {
    let odd = "{\"error\" : {\"message\":\"the model  does not exist\", \"code\":404}, \"x\":1.0}";
    let server = Server::start(&[], move |_| {
        Answer::json(404, odd).header("x-served-by", "gpu7")
    });
    let folder = Folder::new(&[(
        "all.yaml",
        &format!(
            "{THE_TWO_OBJECTS}{}",
            slice("ai-workloads", "s", LABELS, server.address)
        ),
    )]);
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(1);
    let reply = post(gateway.data, CHAT, &chat("customer-support"));
    assert_eq!(
        (
            reply.status,
            reply.text().as_str(),
            reply.header("x-served-by")
        ),
        (404, odd, "gpu7")
    );
    assert_eq!(server.count(), 1, "a client's mistake is not repeated");
}

#[test]
fn the_example_works_as_its_readme_says() {
    let example =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/two-models");
    let lora = [
        "--enable-lora",
        "--lora-modules",
        "llama-3-8b-customer-v1=v1",
        "llama-3-8b-customer-v2=v2",
    ];
    let sims = [1, 2].map(|_| Sim::start(&[&["--model", "llama-3-8b"][..], &lora].concat()));
    let [first, second] = sims.each_ref().map(|sim| sim.address.port().to_string());
    let folder = Folder::new(&[]);
    let port = free_port();
    for name in ["pool.yaml", "servers.yaml", "gateway.yaml"] {
        let text = std::fs::read_to_string(example.join(name)).expect("there");
        let text = text
            .replace("8001", &first)
            .replace("8002", &second)
            .replace("8080", &port.to_string());
        folder.write(name, &text);
    }
    let gateway = Pointsman::files(folder.path(), &[]);
    gateway.wait_ready(2);
    assert_eq!(gateway.data.port(), port);
    // As `curl -d` sends it.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for model in ["customer-support", "summaries"] {
        let body = format!(r#"{{"model": "{model}", "prompt": "Hello", "max_tokens": 5}}"#);
        let reply = send(gateway.data, "POST", "/v1/completions", &form, &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let served = reply.json()["model"].as_str().expect("named").to_owned();
        assert!(served.starts_with("llama-3-8b"), "{served}");
    }
}

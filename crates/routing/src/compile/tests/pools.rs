//! Servers and pickers of pools.

use super::*;

fn slice(name: &str, labels: &str, rest: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: a, labels: {{{labels}}}}}\n{rest}\n"
    )
}

const POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p, namespace: a}
spec: {selector: {matchLabels: {app: x, tier: gold}}, targetPorts: [{number: 8000}, {number: 8001}]}
";

fn servers(parts: &[&str]) -> Vec<String> {
    servers_of(&files(parts))
}

fn servers_of(compiled: &Compiled) -> Vec<String> {
    let pool = compiled.plan.pools.values().next().expect("a pool");
    let text = |server: &EndpointSpec| {
        let host = match &server.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Dns(name) => format!("dns {name}"),
        };
        format!(
            "{host} {} {}{}",
            server.port,
            server.name,
            if server.ready { "" } else { " not ready" }
        )
    };
    pool.endpoints.iter().map(text).collect()
}

#[test]
fn slices_are_chosen_by_labels() {
    let ip = "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1, 10.9.9.9]}]";
    let ports = "ports: [{port: 9000}]";
    let cases: Vec<(&str, String, Vec<&str>)> = vec![
        (
            "every target port",
            slice("s", "app: x, tier: gold, more: y", ip),
            vec!["10.0.0.1 8000 10.0.0.1:8000", "10.0.0.1 8001 10.0.0.1:8001"],
        ),
        ("a label is missing", slice("s", "app: x", ip), vec![]),
        (
            "a label differs",
            slice("s", "app: x, tier: silver", ip),
            vec![],
        ),
        (
            "another namespace",
            slice("s", "app: x, tier: gold", ip).replace("namespace: a", "namespace: b"),
            vec![],
        ),
        (
            "the slice's own ports",
            slice("s", "app: x, tier: gold", &format!("{ip}\n{ports}")),
            vec!["10.0.0.1 9000 10.0.0.1:9000"],
        ),
        (
            "only TCP ports count",
            slice(
                "s",
                "app: x, tier: gold",
                &format!("{ip}\nports: [{{port: 1, protocol: UDP}}, {{port: 9000}}]"),
            ),
            vec!["10.0.0.1 9000 10.0.0.1:9000"],
        ),
        (
            "names, sorted, once",
            slice(
                "s",
                "app: x, tier: gold",
                &format!(
                    "addressType: FQDN\nendpoints: [{{addresses: [GPU2.lan.]}}, {{addresses: [gpu1.lan]}}, {{addresses: [gpu1.lan]}}]\n{ports}"
                ),
            ),
            vec![
                "dns gpu1.lan 9000 gpu1.lan:9000",
                "dns gpu2.lan 9000 gpu2.lan:9000",
            ],
        ),
        (
            "pods by name, with the port where there are several",
            slice(
                "s",
                "app: x, tier: gold",
                "addressType: IPv6\nendpoints: [{addresses: ['fd00::1'], targetRef: {kind: Pod, name: pod-1}}]",
            ),
            vec!["fd00::1 8000 pod-1:8000", "fd00::1 8001 pod-1:8001"],
        ),
        (
            "conditions",
            slice(
                "s",
                "app: x, tier: gold",
                &format!(
                    "addressType: IPv4\nendpoints: [{{addresses: [10.0.0.1], conditions: {{ready: false}}}}, {{addresses: [10.0.0.2], conditions: {{ready: true, terminating: true}}}}, {{addresses: [10.0.0.3], conditions: {{ready: false, serving: true, terminating: true}}}}, {{addresses: [10.0.0.4], conditions: {{}}}}]\n{ports}"
                ),
            ),
            vec![
                "10.0.0.1 9000 10.0.0.1:9000 not ready",
                "10.0.0.2 9000 10.0.0.2:9000 not ready",
                "10.0.0.3 9000 10.0.0.3:9000 not ready",
                "10.0.0.4 9000 10.0.0.4:9000",
            ],
        ),
    ];
    for (what, slice, expected) in cases {
        assert_eq!(servers(&[POOL, &slice]), expected, "{what}");
    }
}

fn pod(name: &str, meta: &str, ip: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: a, labels: {{app: x, tier: gold}}{meta}}}\nstatus: {{phase: Running, podIP: {ip}, conditions: [{{type: Ready, status: 'True'}}]{more}}}\n"
    )
}

#[test]
fn the_servers_of_a_pool_are_the_pods_it_selects() {
    let leaving = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
    let narrowed = ", annotations: {inference.networking.k8s.io/active-ports: '8001'}";
    let ready = pod("p", "", "10.0.0.1", "");
    let cases: Vec<(&str, Vec<String>, Vec<&str>)> = vec![
        (
            "every target port is a server",
            vec![ready.clone()],
            vec!["10.0.0.1 8000 p:8000", "10.0.0.1 8001 p:8001"],
        ),
        (
            "a Pod may limit its ports",
            vec![pod("p", narrowed, "10.0.0.1", "")],
            vec!["10.0.0.1 8001 p:8001"],
        ),
        (
            "one that is leaving is kept for its streams and takes nothing new",
            vec![pod("p", leaving, "10.0.0.1", "")],
            vec![
                "10.0.0.1 8000 p:8000 not ready",
                "10.0.0.1 8001 p:8001 not ready",
            ],
        ),
        (
            "not ready yet",
            vec![ready.replace("'True'", "'False'")],
            vec![
                "10.0.0.1 8000 p:8000 not ready",
                "10.0.0.1 8001 p:8001 not ready",
            ],
        ),
        (
            "an address that went over to another Pod is that one's",
            vec![
                pod("old", leaving, "10.0.0.1", ""),
                pod("new", narrowed, "10.0.0.1", ""),
            ],
            vec!["10.0.0.1 8000 old:8000 not ready", "10.0.0.1 8001 new:8001"],
        ),
        (
            "one that has ended has no address",
            vec![ready.replace("Running", "Failed")],
            vec![],
        ),
        (
            "another label",
            vec![ready.replace("gold", "silver")],
            vec![],
        ),
        (
            "another namespace",
            vec![ready.replace("namespace: a", "namespace: b")],
            vec![],
        ),
        (
            "slices say nothing of a pool in a cluster",
            vec![slice(
                "s",
                "app: x, tier: gold",
                "addressType: IPv4\nendpoints: [{addresses: [10.0.0.9]}]",
            )],
            vec![],
        ),
    ];
    let route = route(
        "a",
        "r",
        "[{group: inference.networking.k8s.io, kind: InferencePool, name: p}]",
    );
    for (name, objects, expected) in cases {
        let mut parts = vec![CLASS, GATEWAY, POOL, &route];
        parts.extend(objects.iter().map(String::as_str));
        assert_eq!(servers_of(&cluster(&parts)), expected, "{name}");
    }
    assert_eq!(
        servers(&[POOL, &ready]).len(),
        2,
        "files may describe Pods too"
    );
}

#[test]
fn one_address_in_two_slices_is_one_server() {
    let one = |name: &str, ready: &str| {
        slice(
            name,
            "app: x, tier: gold",
            &format!(
                "addressType: IPv4\nports: [{{port: 1}}]\nendpoints: [{{addresses: [10.0.0.1], conditions: {{ready: {ready}}}}}]"
            ),
        )
    };
    for (first, second) in [("true", "false"), ("false", "true")] {
        assert_eq!(
            servers(&[POOL, &one("s", first), &one("t", second)]),
            ["10.0.0.1 1 10.0.0.1:1"]
        );
    }
}

#[test]
fn an_address_that_is_none_is_said_and_skipped() {
    let slice = slice(
        "s",
        "app: x, tier: gold",
        "addressType: IPv4\nports: [{port: 1}]\nendpoints: [{addresses: [gpu1]}, {addresses: [10.0.0.1]}]",
    );
    assert_eq!(servers(&[POOL, &slice]), ["10.0.0.1 1 10.0.0.1:1"]);
    assert!(
        files(&[POOL, &slice])
            .notes
            .iter()
            .any(|note| note.message.contains("gpu1"))
    );
}

#[test]
fn a_service_port_finds_its_slice_port() {
    // Service ports, slice ports, expected port of the server
    let cases = [
        ("{port: 80}", "[{port: 3000}]", Some(3000)),
        ("{port: 80, name: http}", "[{port: 3000}]", Some(3000)),
        (
            "{port: 80, name: http}, {port: 81, name: b}",
            "[{name: b, port: 3001}, {name: http, port: 3000}]",
            Some(3000),
        ),
        (
            "{port: 80, name: http}, {port: 81, name: b}",
            "[{name: b, port: 3001}]",
            None,
        ),
        ("{port: 80}", "[]", Some(80)),
        ("{port: 80, targetPort: 8080}", "[]", Some(8080)),
        ("{port: 80, targetPort: 8080}", "[{}]", Some(8080)),
        ("{port: 80, targetPort: web}", "[]", Some(80)),
    ];
    for (ports, slice_ports, expected) in cases {
        let text = service("a", "web", ports).replace("[{port: 3000}]", slice_ports);
        let compiled = cluster(&[
            CLASS,
            GATEWAY,
            &route("a", "r", "[{name: web, port: 80}]"),
            &text,
        ]);
        let pool = compiled.plan.pools.values().next().expect("a pool");
        assert_eq!(
            pool.endpoints.first().map(|server| server.port),
            expected,
            "{ports} {slice_ports}"
        );
        assert_eq!(
            condition(&compiled, "HTTPRoute a/r", "ResolvedRefs"),
            "True ResolvedRefs"
        );
    }
}

#[test]
fn an_external_picker_is_told_truthfully() {
    let pool = "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: p, namespace: a}
spec: {selector: {app: x}, targetPortNumber: 8000, extensionRef: {name: epp, failureMode: FailOpen}}
";
    let policy = "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: t, namespace: a}
spec:
  targetRefs: [{group: '', kind: Service, name: epp}]
  validation: {hostname: epp.a, wellKnownCACertificates: System}
";
    let verified = PickerTls::Verified(UpstreamTls {
        server_name: Some("epp.a".to_owned()),
        verify: Verify::System,
        ..UpstreamTls::default()
    });
    let cases = [
        (
            "{port: 9002, appProtocol: http2}",
            "",
            PickerTls::Unverified,
        ),
        (
            "{port: 9002, appProtocol: kubernetes.io/h2c}",
            "",
            PickerTls::Plaintext,
        ),
        ("{port: 9002}", "", PickerTls::Unverified),
        ("{port: 9002}", policy, verified),
    ];
    for (port, policy, expected) in cases {
        let compiled = files(&[pool, &service("a", "epp", port), policy]);
        let pool = compiled.plan.pools.values().next().expect("a pool");
        let Picker::External {
            service,
            port: number,
            fail_open,
            endpoints,
            tls,
        } = &pool.picker
        else {
            panic!("{port}: the picker is inside")
        };
        assert_eq!(
            (service.as_str(), *number, *fail_open, tls),
            ("a/epp", 9002, true, &expected),
            "{port}"
        );
        assert_eq!(endpoints.len(), 1, "{port}");
    }
}

#[test]
fn files_without_a_gateway_get_a_port_by_model_name() {
    let compiled = files(&[POOLS]);
    assert_eq!(compiled.plan.ports.keys().collect::<Vec<_>>(), [&8080]);
    let matched = send(&compiled.plan, 8080, "any.host/v1/models", &[]).expect("a rule");
    let backend = matched.rule.choose(0.9).expect("a backend");
    let Target::ByModel(keys) = &backend.target else {
        panic!("{backend:?}")
    };
    assert_eq!(
        keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["a/llama", "a/old"]
    );
    assert_eq!(compiled.plan.pools.len(), 2);
    assert_eq!(
        condition(&compiled, "InferencePool a/old", "Accepted"),
        "True Accepted"
    );
    assert!(cluster(&[POOLS]).plan.ports.is_empty());
    assert!(files(&[POOLS, CLASS, GATEWAY]).plan.pools.is_empty());
    assert!(files(&[]).plan.ports.is_empty());
    assert_eq!(
        compile_pools(
            &objects(&[POOLS, CLASS, GATEWAY].join("\n---\n")),
            Mode::Files
        )
        .len(),
        2
    );
}

#[test]
fn an_empty_selector_selects_nothing() {
    let all = POOL.replace("{app: x, tier: gold}", "{}");
    let slice = slice(
        "s",
        "app: x",
        "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]",
    );
    assert_eq!(servers(&[&all, &slice]), Vec::<String>::new());
}

#[test]
fn a_pool_whose_tls_policy_is_broken_is_not_reached_in_cleartext() {
    let policy = "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: t, namespace: a}
spec:
  targetRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]
  validation: {hostname: llama.a, caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}]}
";
    let compiled = files(&[POOLS, policy]);
    assert_eq!(
        compiled
            .plan
            .pools
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["a/old"]
    );
    assert_eq!(
        condition(&compiled, "BackendTLSPolicy a/t", "Accepted"),
        "False NoValidCACertificate"
    );
    let only = files(&[POOL, &policy.replace("llama", "p")]);
    let rule = send(&only.plan, 8080, "h/", &[]).expect("a rule").rule;
    assert!(matches!(rule.backends[0].target, Target::Invalid(_)));
    let lost = files(&[POOLS, &policy.replace("name: llama", "name: nobody")]);
    assert_eq!(
        condition(&lost, "BackendTLSPolicy a/t", "Accepted"),
        "False TargetNotFound"
    );
}

#[test]
fn files_say_what_will_not_serve() {
    let notes = |parts: &[&str]| {
        let all = files(parts).notes;
        all.iter()
            .map(|note| format!("{} {}", note.object, note.message))
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert!(notes(&[POOL]).contains("InferencePool a/p has no servers"));
    assert!(!notes(&[POOLS]).contains("no servers"));
    let used = route("a", "r", &format!("[{}]", pool_ref("llama")));
    let said = notes(&[POOLS, CLASS, GATEWAY, &used]);
    assert!(
        said.contains("a/old no route") && !said.contains("a/llama no route"),
        "{said}"
    );
    assert!(
        notes(&[
            CLASS,
            GATEWAY,
            &route("a", "r", "[]").replace("[{name: gw, namespace: a}]", "[]")
        ])
        .contains("attaches to nothing")
    );
    assert!(
        notes(&[&POOLS.replace(
            "targetPorts: [{number: 8000}]",
            "targetPorts: [{number: 8000}], appProtocol: carrier-pigeon"
        )])
        .contains("carrier-pigeon")
    );
}

//! The rules an API server would enforce on metadata, policies, core kinds and inference kinds.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]
#![allow(
    clippy::too_many_lines,
    reason = "a table is as long as its rules are many"
)]

mod common;

use api::{decode_yaml, validate};
use common::check_table;

const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const OLD: &str = "inference.networking.x-k8s.io/v1alpha2";
const POOL: &str = "inference.networking.k8s.io/v1";

#[test]
fn metadata() {
    let text = |name: &str, rest: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}{rest}}}\nspec: {{ports: [{{port: 1}}]}}\n"
        )
    };
    let long = "a".repeat(64);
    for (name, rest, field) in [
        ("a-b", "", ""),
        ("a.b", "", "metadata.name"),
        ("Upper", "", "metadata.name"),
        ("-a", "", "metadata.name"),
        (long.as_str(), "", "metadata.name"),
        ("a", ", namespace: a.b", "metadata.namespace"),
        ("a", ", labels: {a/b/c: d}", "metadata.labels.a/b/c"),
        ("a", ", labels: {a.b/c: d e}", "metadata.labels.a.b/c"),
        ("a", ", labels: {a.b/c: ''}", ""),
    ] {
        let object = decode_yaml(&text(name, rest)).remove(0).result.unwrap();
        let paths: Vec<_> = validate(&object)
            .into_iter()
            .map(|issue| issue.path)
            .collect();
        assert_eq!(paths.join(","), field, "{name} {rest}");
    }
}

#[test]
fn grant_and_policy_rules() {
    check_table(
        GATEWAY,
        "ReferenceGrant",
        &[
            (
                "spec: {from: [], to: [{group: '', kind: Secret}]}",
                "spec.from",
                "at least 1",
            ),
            (
                "spec: {from: [{group: a, kind: b, namespace: ''}], to: [{group: '', kind: Secret}]}",
                "spec.from[0].namespace",
                "no valid namespace",
            ),
        ],
    );
    let policy = |rest: &str| {
        format!(
            "spec: {{targetRefs: [{{group: '', kind: Service, name: a}}], validation: {{hostname: a.b{rest}}}}}"
        )
    };
    check_table(
        GATEWAY,
        "BackendTLSPolicy",
        &[
            (&policy(", wellKnownCACertificates: System"), "", ""),
            (&policy(""), "spec.validation", "is needed"),
            (
                &policy(
                    ", wellKnownCACertificates: System, caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]",
                ),
                "spec.validation",
                "exclude",
            ),
            (
                &policy(", wellKnownCACertificates: System, subjectAltNames: [{type: URI}]"),
                "spec.validation.subjectAltNames[0].uri",
                "type URI",
            ),
        ],
    );
}

#[test]
fn core_rules() {
    check_table(
        "v1",
        "Service",
        &[
            ("spec: {type: ExternalName, externalName: a.b}", "", ""),
            ("spec: {type: ExternalName}", "spec.externalName", "needed"),
            ("spec: {ports: []}", "spec.ports", "at least 1"),
            ("spec: {clusterIP: None}", "", ""),
            (
                "spec: {ports: [{port: 0}]}",
                "spec.ports[0].port",
                "0 is no port",
            ),
            (
                "spec: {ports: [{port: 1, name: a}, {port: 2}]}",
                "spec.ports[1].name",
                "several",
            ),
            (
                "spec: {ports: [{port: 1, name: a}, {port: 1, name: b}]}",
                "spec.ports[1].port",
                "unique",
            ),
            (
                "spec: {ports: [{port: 1, name: a}, {port: 1, name: b, protocol: UDP}]}",
                "",
                "",
            ),
        ],
    );
    check_table(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        &[
            (
                "addressType: IPv4\nendpoints: [{addresses: ['10.0.0.1:8000']}]",
                "endpoints[0].addresses[0]",
                "the port belongs under ports",
            ),
            (
                "addressType: IPv6\nendpoints: [{addresses: ['::1']}]",
                "",
                "",
            ),
            (
                "addressType: FQDN\nendpoints: [{addresses: [gpu1.lan]}]",
                "",
                "",
            ),
            (
                "addressType: FQDN\nendpoints: [{addresses: ['gpu1:8000']}]",
                "endpoints[0].addresses[0]",
                "no FQDN",
            ),
            (
                "addressType: IPX\nendpoints: [{addresses: [a]}]",
                "addressType",
                "IPv4, IPv6, FQDN",
            ),
            (
                "addressType: IPv4\nendpoints: [{addresses: []}]",
                "endpoints[0].addresses",
                "at least 1",
            ),
            (
                "addressType: IPv4\nports: [{port: 0}]",
                "ports[0].port",
                "0 is no port",
            ),
            (
                "addressType: IPv4\nports: [{port: 1}, {port: 2}]",
                "ports[1].name",
                "unique",
            ),
        ],
    );
    check_table(
        "v1",
        "Secret",
        &[
            (
                "type: kubernetes.io/tls\ndata: {tls.crt: YQ==, tls.key: YQ==}",
                "",
                "",
            ),
            (
                "type: kubernetes.io/tls\ndata: {tls.crt: YQ==}",
                "data.tls.key",
                "kubernetes.io/tls",
            ),
            ("stringData: {'a b': c}", "data", "no valid key"),
        ],
    );
    check_table(
        "v1",
        "ConfigMap",
        &[
            (
                "data: {a: b}\nbinaryData: {a: YQ==}",
                "binaryData.a",
                "same key",
            ),
            ("data: {a/b: b}", "data.a/b", "no valid key"),
        ],
    );
}

#[test]
fn pool_rules_name_the_fields_of_the_version_that_was_written() {
    let pool = |rest: &str| format!("spec: {{selector: {{matchLabels: {{a: b}}}}, {rest}}}");
    check_table(
        POOL,
        "InferencePool",
        &[
            (
                &pool("targetPorts: [{number: 1}, {number: 2}], appProtocol: kubernetes.io/h2c"),
                "",
                "",
            ),
            (&pool("targetPorts: []"), "spec.targetPorts", "at least 1"),
            (
                &pool("targetPorts: [{number: 1}, {number: 2}, {number: 1}]"),
                "spec.targetPorts[2].number",
                "the port number must be unique",
            ),
            (
                &pool("targetPorts: [{number: 0}]"),
                "spec.targetPorts[0].number",
                "0 is no port",
            ),
            (
                &pool("targetPorts: [{number: 1}], appProtocol: https"),
                "spec.appProtocol",
                "kubernetes.io/h2c",
            ),
            (
                &pool("targetPorts: [{number: 1}], endpointPickerRef: {name: a}"),
                "spec.endpointPickerRef.port",
                "port is required",
            ),
            (
                &pool("targetPorts: [{number: 1}], endpointPickerRef: {name: a, kind: Service}"),
                "spec.endpointPickerRef.port",
                "port is required",
            ),
            (
                &pool(
                    "targetPorts: [{number: 1}], endpointPickerRef: {name: a, kind: Other, group: a.b}",
                ),
                "",
                "",
            ),
            (
                &pool(
                    "targetPorts: [{number: 1}], endpointPickerRef: {name: '', port: {number: 1}}",
                ),
                "spec.endpointPickerRef.name",
                "empty",
            ),
            (
                &pool(
                    "targetPorts: [{number: 1}], endpointPickerRef: {name: a, port: {number: 1}, failureMode: FailMaybe}",
                ),
                "spec.endpointPickerRef.failureMode",
                "FailOpen",
            ),
            (
                "spec: {selector: {matchLabels: {}}, targetPorts: [{number: 1}]}",
                "spec.selector.matchLabels",
                "at least 1",
            ),
            (
                "spec: {selector: {matchLabels: {a: 'b c'}}, targetPorts: [{number: 1}]}",
                "spec.selector.matchLabels.a",
                "no valid label value",
            ),
        ],
    );
    let nine = (1..10)
        .map(|port| format!("{{number: {port}}}"))
        .collect::<Vec<_>>()
        .join(",");
    check_table(
        POOL,
        "InferencePool",
        &[(
            &pool(&format!("targetPorts: [{nine}]")),
            "spec.targetPorts",
            "at most 8",
        )],
    );
    check_table(
        OLD,
        "InferencePool",
        &[
            (
                "spec: {selector: {a: b}, targetPortNumber: 1, extensionRef: {name: a}}",
                "",
                "",
            ),
            (
                "spec: {selector: {}, targetPortNumber: 1}",
                "spec.selector",
                "at least 1",
            ),
            (
                "spec: {selector: {a: b}, targetPortNumber: 0}",
                "spec.targetPortNumber",
                "0 is no port",
            ),
            (
                "spec: {selector: {a: b}, targetPortNumber: 1, extensionRef: {name: a, portNumber: 0}}",
                "spec.extensionRef.portNumber",
                "0 is no port",
            ),
            (
                "spec: {selector: {a: b}, targetPortNumber: 1, extensionRef: {name: a, failureMode: x}}",
                "spec.extensionRef.failureMode",
                "FailClose",
            ),
        ],
    );
}

#[test]
fn model_rules() {
    let model = |targets: &str| {
        format!("spec: {{modelName: m, poolRef: {{name: p}}, targetModels: [{targets}]}}")
    };
    check_table(
        OLD,
        "InferenceModel",
        &[
            (&model("{name: a}, {name: b}"), "", ""),
            (
                &model("{name: a, weight: 1}, {name: b}"),
                "spec.targetModels",
                "for all or for none",
            ),
            (
                &model("{name: a, weight: 0}"),
                "spec.targetModels[0].weight",
                "1 to 1000000",
            ),
            (&model("{name: ''}"), "spec.targetModels[0].name", "empty"),
            (
                "spec: {modelName: '', poolRef: {name: p}}",
                "spec.modelName",
                "empty",
            ),
            (
                "spec: {modelName: m, poolRef: {name: ''}}",
                "spec.poolRef.name",
                "empty",
            ),
            (
                "spec: {modelName: m, poolRef: {name: p}, criticality: Urgent}",
                "spec.criticality",
                "Sheddable",
            ),
        ],
    );
    for version in [OLD, "llm-d.ai/v1alpha1"] {
        check_table(
            version,
            "InferenceObjective",
            &[
                ("spec: {priority: -9000000000, poolRef: {name: p}}", "", ""),
                ("spec: {poolRef: {name: ''}}", "spec.poolRef.name", "empty"),
            ],
        );
        check_table(
            version,
            "InferenceModelRewrite",
            &[
                (
                    "spec: {poolRef: {name: p}, rules: [{matches: [{model: {value: ''}}]}]}",
                    "spec.rules[0].matches[0].model.value",
                    "empty",
                ),
                (
                    "spec: {poolRef: {name: p}, rules: [{matches: [{model: {type: Prefix, value: a}}]}]}",
                    "spec.rules[0].matches[0].model.type",
                    "Exact",
                ),
                (
                    "spec: {poolRef: {name: p}, rules: [{targets: [{modelRewrite: ''}]}]}",
                    "spec.rules[0].targets[0].modelRewrite",
                    "empty",
                ),
                (
                    "spec: {poolRef: {name: p}, rules: [{targets: [{modelRewrite: a, weight: 1}, {modelRewrite: b}]}]}",
                    "spec.rules[0].targets",
                    "for all or for none",
                ),
            ],
        );
    }
}

use super::*;

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

fn read(body: &str) -> Result<PickerConfig, DecodeError> {
    PickerConfig::read(&format!("{HEAD}{body}"))
}

fn placed(config: &PickerConfig) -> Vec<(&str, f64)> {
    let all = config.profile.iter();
    all.map(|it| (it.plugin.name.as_str(), it.weight)).collect()
}

/// The default of upstream's charts.
const CHART: &str = "
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 2
  - pluginRef: kv-cache-utilization-scorer
    weight: 2
  - pluginRef: prefix-cache-scorer
    weight: 3
";

#[test]
fn the_default_chart_is_read_and_completed() {
    for version in API_VERSIONS {
        let text = format!("apiVersion: {version}\nkind: EndpointPickerConfig\n{CHART}");
        let config = PickerConfig::read(&text).unwrap();
        assert_eq!(
            placed(&config),
            [
                ("queue-scorer", 2.0),
                ("kv-cache-utilization-scorer", 2.0),
                ("prefix-cache-scorer", 3.0),
                ("max-score-picker", 1.0),
            ]
        );
        assert_eq!(config.detector.name, "utilization-detector");
        assert_eq!(
            config.detector.parameters.number("queueDepthThreshold"),
            5.0
        );
        assert_eq!(
            config.detector.parameters.time("metricsStalenessThreshold"),
            std::time::Duration::from_millis(200)
        );
        assert_eq!(config.flow, None);
    }
}

#[test]
fn without_profiles_one_has_all_filters_scorers_and_pickers() {
    let config = read("plugins: [{type: queue-scorer}, {type: decode-filter}, {type: single-profile-handler}, {type: openai-parser}, {type: random-picker, name: any}]").unwrap();
    let names: Vec<&str> = placed(&config).into_iter().map(|it| it.0).collect();
    assert_eq!(names, ["queue-scorer", "decode-filter", "any"]);
}

#[test]
fn json_is_read_too() {
    let text = r#"{"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig", "plugins": [{"type": "queue-scorer"}]}"#;
    assert!(PickerConfig::read(text).is_ok());
}

#[test]
fn flow_control_is_read_behind_its_gate_only() {
    let section = "
plugins:
- {type: priority-holdback-policy, parameters: {minCeiling: 0.5}}
- {type: concurrency-detector, name: busy, parameters: {concurrencyMode: hybrid, maxConcurrency: 64}}
flowControl:
  maxRequests: 20000
  maxBytes: 8Gi
  defaultRequestTTL: 30s
  noEndpointRequestTTL: 10m
  usageLimitPolicyPluginRef: priority-holdback-policy
  saturationDetector: {pluginRef: busy}
  defaultPriorityBand: {maxRequests: 2000, orderingPolicyRef: slo-deadline-ordering-policy, fairnessPolicyRef: round-robin-fairness-policy}
  defaultNegativePriorityBand: {maxRequests: 500}
  priorityBands: [{priority: 100, maxBytes: 2G}]
";
    let off = read(section).unwrap();
    assert_eq!(off.flow, None);
    assert_eq!(off.detector.name, "busy");
    assert!(off.notes.iter().any(|note| note.contains("featureGates")));

    let on = read(&format!("featureGates: [flowControl]{section}")).unwrap();
    let flow = on.flow.unwrap();
    assert_eq!(flow.max_requests, Some(20_000));
    assert_eq!(flow.max_bytes, Some(8 << 30));
    assert_eq!(flow.request_ttl.unwrap().as_secs(), 30);
    assert_eq!(flow.empty_ttl.unwrap().as_secs(), 600);
    assert_eq!(flow.usage_limit.name, "priority-holdback-policy");
    assert_eq!(flow.default_band.max_requests, 2000);
    assert_eq!(flow.default_band.max_bytes, 1_000_000_000);
    assert_eq!(
        flow.default_band.ordering.name,
        "slo-deadline-ordering-policy"
    );
    assert_eq!(flow.negative_band.max_requests, 500);
    assert_eq!(flow.bands[0].0, 100);
    assert_eq!(flow.bands[0].1.max_bytes, 2_000_000_000);
    assert_eq!(
        flow.bands[0].1.fairness.name,
        "global-strict-fairness-policy"
    );

    let bare = read("featureGates: [flowControl]").unwrap().flow.unwrap();
    assert_eq!((bare.max_requests, bare.max_bytes), (None, None));
    assert_eq!(bare.request_ttl, bare.empty_ttl);
    assert_eq!(bare.default_band.max_requests, 5000);
}

#[test]
fn the_old_thresholds_are_those_of_the_detector() {
    let config =
        read("saturationDetector: {queueDepthThreshold: 8, metricsStalenessThreshold: 1s}")
            .unwrap();
    let given = &config.detector.parameters;
    assert_eq!(given.number("queueDepthThreshold"), 8.0);
    assert_eq!(given.number("kvCacheUtilThreshold"), 0.8);
    assert_eq!(given.time("metricsStalenessThreshold").as_secs(), 1);
}

/// What is written, the line and the field that are named, and a part of the message.
const BAD: &[(&str, usize, &str, &str)] = &[
    ("plugin: []", 3, "plugin", "did you mean plugins?"),
    (
        "plugins:\n- type: quue-scorer",
        4,
        "plugins[0].type",
        "did you mean queue-scorer?",
    ),
    ("plugins:\n- name: a", 4, "plugins[0].type", "required"),
    (
        "plugins:\n- {type: queue-scorer}\n- {type: queue-scorer}",
        5,
        "plugins[1].type",
        "two plugins are called",
    ),
    (
        "plugins:\n- {type: queue-scorer, name: a}\n- {type: random-picker, name: a}",
        5,
        "plugins[1].name",
        "two plugins are called a",
    ),
    (
        "plugins:\n- {type: queue-scorer, parameter: {}}",
        4,
        "plugins[0].parameter",
        "did you mean parameters?",
    ),
    (
        "plugins:\n- type: queue-scorer\n  parameters: {x: 1}",
        5,
        "plugins[0].parameters.x",
        "no such parameter",
    ),
    (
        "plugins:\n- type: load-aware-scorer\n  parameters:\n    treshold: 1",
        6,
        "plugins[0].parameters.treshold",
        "did you mean threshold?",
    ),
    (
        "plugins:\n- {type: load-aware-scorer, parameters: {threshold: 0}}",
        4,
        "plugins[0].parameters.threshold",
        "over 0",
    ),
    (
        "plugins:\n- {type: load-aware-scorer, parameters: [1]}",
        4,
        "plugins[0].parameters",
        "an object",
    ),
    (
        "plugins:\n- {type: concurrency-detector, parameters: {concurrencyMode: both}}",
        4,
        "plugins[0].parameters.concurrencyMode",
        "requests, tokens, hybrid",
    ),
    (
        "plugins:\n- {type: utilization-detector, parameters: {metricsStalenessThreshold: 5}}",
        4,
        "plugins[0].parameters.metricsStalenessThreshold",
        "duration",
    ),
    (
        "plugins:\n- {type: context-length-aware, parameters: {enableFiltering: true}}",
        4,
        "plugins[0].parameters.enableFiltering",
        "only false",
    ),
    (
        "plugins:\n- {type: utilization-filter, parameters: {conditions: [{metric: gpu, maxValue: 1}]}}",
        4,
        "plugins[0].parameters.conditions[0].metric",
        "active-requests",
    ),
    (
        "plugins:\n- {type: label-selector-filter, parameters: {matchExpressions: [{key: a, operator: Is}]}}",
        4,
        "plugins[0].parameters.matchExpressions[0].operator",
        "NotIn",
    ),
    (
        "plugins:\n- {type: label-selector-filter, parameters: {matchExpressions: [{key: a, operator: In}]}}",
        4,
        "plugins[0].parameters.matchExpressions[0].values",
        "needs values",
    ),
    (
        "plugins:\n- {type: priority-holdback-policy}",
        4,
        "plugins[0].parameters.minCeiling",
        "required",
    ),
    (
        "plugins:\n- {type: disagg-profile-handler}",
        4,
        "plugins[0].type",
        "not supported: prefill and decode",
    ),
    (
        "plugins:\n- {type: precise-prefix-cache-producer}",
        4,
        "plugins[0].type",
        "not supported",
    ),
    (
        "plugins:\n- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}}",
        4,
        "plugins[0].parameters.prefixMatchInfoProducerName",
        "not supported",
    ),
    (
        "plugins:\n- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: nobody}}",
        4,
        "plugins[0].parameters.prefixMatchInfoProducerName",
        "no plugin is called \"nobody\"",
    ),
    (
        "plugins:\n- {type: inflight-load-producer, name: a, parameters: {prefixMatchInfoProducerName: b}}\n- {type: approx-prefix-cache-producer, name: b, parameters: {tokenProducerName: a}}",
        4,
        "plugins[0].parameters.prefixMatchInfoProducerName",
        "circle",
    ),
    (
        "featureGates: [flowcontrol]",
        3,
        "featureGates[0]",
        "did you mean flowControl?",
    ),
    (
        "plugins:\n- {type: single-profile-handler}\n- {type: single-profile-handler, name: b}",
        5,
        "plugins[1].type",
        "two profile handlers",
    ),
    (
        "schedulingProfiles:\n- name: a\n- name: b",
        3,
        "schedulingProfiles",
        "exactly one profile",
    ),
    (
        "schedulingProfiles:\n- plugins:\n  - pluginRef: x",
        5,
        "schedulingProfiles[0].plugins[0].pluginRef",
        "no plugin is called \"x\"",
    ),
    (
        "plugins:\n- {type: fcfs-ordering-policy}\nschedulingProfiles:\n- plugins:\n  - {pluginRef: fcfs-ordering-policy}",
        7,
        "schedulingProfiles[0].plugins[0].pluginRef",
        "is an ordering policy",
    ),
    (
        "plugins:\n- {type: queue-scorer}\nschedulingProfiles:\n- plugins:\n  - {pluginRef: queue-scorer, weight: -1}",
        7,
        "schedulingProfiles[0].plugins[0].weight",
        "from 0 up",
    ),
    (
        "plugins:\n- {type: max-score-picker}\n- {type: random-picker}",
        3,
        "plugins",
        "one picker",
    ),
    (
        "saturationDetector: {pluginRef: queue-scorer}",
        3,
        "saturationDetector.pluginRef",
        "a saturation detector is expected",
    ),
    (
        "saturationDetector: {kvCacheUtilThreshold: 1.5}",
        3,
        "saturationDetector.kvCacheUtilThreshold",
        "at most 1",
    ),
    (
        "flowControl: {maxBytes: many}",
        3,
        "flowControl.maxBytes",
        "quantity",
    ),
    (
        "flowControl: {defaultRequestTTL: -1s}",
        3,
        "flowControl.defaultRequestTTL",
        "duration",
    ),
    (
        "flowControl:\n  priorityBands:\n  - {maxRequests: 1}",
        5,
        "flowControl.priorityBands[0].priority",
        "required",
    ),
    (
        "flowControl:\n  priorityBands:\n  - priority: 1\n  - priority: 1",
        6,
        "flowControl.priorityBands[1].priority",
        "two bands",
    ),
    (
        "flowControl: {defaultPriorityBand: {fairnessPolicyRef: program-aware-fairness}}",
        3,
        "flowControl.defaultPriorityBand.fairnessPolicyRef",
        "not supported",
    ),
    (
        "dataLayer: {discovery: {pluginRef: file-discovery}}",
        3,
        "dataLayer.discovery",
        "not supported",
    ),
    (
        "requestHandler:\n  parsers:\n  - pluginRef: openai-praser",
        5,
        "requestHandler.parsers[0].pluginRef",
        "no plugin",
    ),
];

#[test]
fn each_wrong_field_is_named_with_its_line() {
    for (body, line, path, message) in BAD {
        let error = read(body).expect_err(body);
        assert_eq!(error.path(), Some(*path), "{body}\n{error}");
        assert_eq!(error.line(), Some(*line), "{body}\n{error}");
        assert!(error.to_string().contains(message), "{body}\n{error}");
    }
}

#[test]
fn what_is_no_such_configuration_is_refused() {
    for (text, message) in [
        ("", "empty"),
        ("a: [", "not valid YAML"),
        ("kind: EndpointPickerConfig", "apiVersion"),
        (
            "apiVersion: llm-d.ai/v1alpha2\nkind: EndpointPickerConfig",
            "llm-d.ai/v1alpha1",
        ),
        (
            "apiVersion: llm-d.ai/v1alpha1\nkind: Pod",
            "EndpointPickerConfig is expected",
        ),
        (
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n---\na: b",
            "another begins",
        ),
        ("7", "apiVersion"),
    ] {
        let error = PickerConfig::read(text).expect_err(text);
        assert!(error.to_string().contains(message), "{text}\n{error}");
    }
}

#[test]
fn every_plugin_type_stands_in_the_table_once_and_has_working_defaults() {
    for (at, kind) in PLUGIN_TYPES.iter().enumerate() {
        let same = PLUGIN_TYPES[..at].iter().any(|it| it.name == kind.name);
        assert!(!same, "{} is there twice", kind.name);
        let needs = kind.parameters.iter().any(|it| it.default == "required");
        if !needs {
            Parameters::read(kind.parameters, None, "p").unwrap();
        }
    }
}

/// The documentation leaves none out.
#[test]
fn every_plugin_type_is_documented() {
    let page = include_str!("../../../../docs/endpoint-picker.md");
    for kind in PLUGIN_TYPES {
        assert!(page.contains(&format!("`{}`", kind.name)), "{}", kind.name);
    }
}

proptest::proptest! {
    /// Whatever stands there, reading ends without a panic.
    #[test]
    fn any_text_is_read_or_refused(body in "[a-zA-Z:{}\\[\\]\\-, \n0-9]{0,200}") {
        let _ = PickerConfig::read(&body);
        let _ = read(&body);
    }
}

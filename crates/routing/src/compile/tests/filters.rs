//! Mirrors, cross-origin rules, and filters that other objects define.

use std::sync::Arc;

use super::*;

fn with_filters(filters: &str, more: &[&str]) -> Compiled {
    let route = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: a}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{filters: [{filters}], backendRefs: [{{name: web, port: 80}}]}}]
"
    );
    let mut parts = vec![CLASS, GATEWAY, POOLS, &route];
    let services = [
        service("a", "web", "{port: 80}"),
        service("a", "copy", "{port: 80}"),
        service("b", "far", "{port: 80}"),
    ];
    parts.extend(services.iter().map(String::as_str));
    parts.extend(more);
    cluster(&parts)
}

fn filters_of(compiled: &Compiled) -> Vec<Filter> {
    let matched = send(&compiled.plan, 80, "h/x", &[]).expect("a rule");
    matched.rule.filters.clone()
}

fn mirror(rest: &str) -> String {
    format!("{{type: RequestMirror, requestMirror: {{{rest}}}}}")
}

#[test]
fn a_mirror_is_a_pool_of_the_plan_and_a_share() {
    let llama = "group: inference.networking.k8s.io, kind: InferencePool, name: llama";
    let cases = [
        (
            "backendRef: {name: copy, port: 80}".to_owned(),
            "copy:80",
            1.0,
        ),
        (
            "backendRef: {name: copy, port: 80}, percent: 20".to_owned(),
            "copy:80",
            0.2,
        ),
        (
            "backendRef: {name: copy, port: 80}, percent: 0".to_owned(),
            "copy:80",
            0.0,
        ),
        (
            "backendRef: {name: copy, port: 80}, fraction: {numerator: 25, denominator: 50}"
                .to_owned(),
            "copy:80",
            0.5,
        ),
        (
            "backendRef: {name: copy, port: 80}, fraction: {numerator: 5}".to_owned(),
            "copy:80",
            0.05,
        ),
        (format!("backendRef: {{{llama}}}"), "llama", 1.0),
    ];
    for (text, pool, share) in cases {
        let compiled = with_filters(&mirror(&text), &[]);
        let filters = filters_of(&compiled);
        let [Filter::Mirror(made)] = &filters[..] else {
            panic!("{text}: {filters:?}");
        };
        assert_eq!(
            (made.pool.name.as_str(), made.share),
            (pool, share),
            "{text}"
        );
        assert!(compiled.plan.pools.contains_key(&made.pool), "{text}");
        assert!(compiled.gateways[0].plan.pools.contains_key(&made.pool));
        assert_eq!(
            condition(&compiled, "HTTPRoute a/r", "ResolvedRefs"),
            "True ResolvedRefs"
        );
    }
    let compiled = with_filters(&mirror(&format!("backendRef: {{{llama}}}")), &[]);
    assert_eq!(
        condition(&compiled, "InferencePool a/llama", "Accepted"),
        "True Accepted"
    );
}

#[test]
fn several_mirrors_stay_several() {
    let two = [
        mirror("backendRef: {name: copy, port: 80}"),
        mirror("backendRef: {name: web, port: 80}, percent: 50"),
    ];
    let shares: Vec<f64> = filters_of(&with_filters(&two.join(", "), &[]))
        .iter()
        .filter_map(|filter| match filter {
            Filter::Mirror(made) => Some(made.share),
            _ => None,
        })
        .collect();
    assert_eq!(shares, [1.0, 0.5]);
}

#[test]
fn a_mirror_that_leads_nowhere_is_dropped_and_said() {
    let far = "backendRef: {name: far, namespace: b, port: 80}";
    let cases = [
        (
            "backendRef: {name: gone, port: 80}",
            "False BackendNotFound",
        ),
        (
            "backendRef: {name: copy, port: 81}",
            "False BackendNotFound",
        ),
        (
            "backendRef: {kind: Deployment, group: apps, name: x}",
            "False InvalidKind",
        ),
        (far, "False RefNotPermitted"),
    ];
    for (text, expected) in cases {
        let compiled = with_filters(&mirror(text), &[]);
        assert_eq!(filters_of(&compiled), [], "{text}");
        assert_eq!(
            condition(&compiled, "HTTPRoute a/r", "ResolvedRefs"),
            expected,
            "{text}"
        );
        assert_eq!(
            condition(&compiled, "HTTPRoute a/r", "Accepted"),
            "True Accepted",
            "{text}"
        );
        assert_eq!(goes_to(&compiled.plan, "h/x"), "a/web:80");
    }
    let allowed = grant("b", "HTTPRoute", "a", "{group: '', kind: Service}");
    let compiled = with_filters(&mirror(far), &[&allowed]);
    assert!(matches!(filters_of(&compiled)[..], [Filter::Mirror(_)]));
}

#[test]
fn a_cors_filter_keeps_its_lists() {
    let text = "{type: CORS, cors: {allowOrigins: ['https://a.test', 'https://*.b.test'], allowMethods: [GET, PUT], \
                allowHeaders: ['*'], exposeHeaders: [x-a], allowCredentials: true, maxAge: 60}}";
    let filters = filters_of(&with_filters(text, &[]));
    let [Filter::Cors(made)] = &filters[..] else {
        panic!("{filters:?}");
    };
    let listed = |text: &'static str| Allowed::Listed(HeaderValue::from_static(text));
    assert_eq!(made.methods, listed("GET, PUT"));
    assert_eq!(made.headers, Allowed::Any);
    assert_eq!(made.expose, listed("x-a"));
    assert_eq!((made.credentials, made.max_age), (true, 60));
    assert!(made.allows("https://a.test") && made.allows("https://x.b.test"));
    assert!(!made.allows("https://c.test") && !made.allows_everybody());

    let bare = filters_of(&with_filters(
        "{type: CORS, cors: {allowOrigins: ['*']}}",
        &[],
    ));
    let expected = Cors {
        origins: vec![OriginMatch::Any],
        credentials: false,
        methods: Allowed::Nothing,
        headers: Allowed::Nothing,
        expose: Allowed::Nothing,
        max_age: 5,
    };
    assert!(expected.allows_everybody());
    assert_eq!(bare, [Filter::Cors(Arc::new(expected))]);
}

#[test]
fn a_filter_of_an_unknown_kind_is_a_reference_that_does_not_resolve() {
    let compiled = with_filters(
        "{type: ExtensionRef, extensionRef: {group: x.io, kind: Lua, name: y}}",
        &[],
    );
    assert_eq!(
        condition(&compiled, "HTTPRoute a/r", "ResolvedRefs"),
        "False InvalidKind"
    );
    assert_eq!(
        condition(&compiled, "HTTPRoute a/r", "Accepted"),
        "False UnsupportedValue"
    );
    assert!(matches!(
        filters_of(&compiled)[..],
        [Filter::Unsupported(_)]
    ));
}

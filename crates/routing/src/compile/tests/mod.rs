//! Tables over whole sets of objects, as YAML.

// A table is as long as its cases, and each row says what its columns are.
#![allow(clippy::too_many_lines, clippy::type_complexity)]

mod backends;
mod conditions;
mod example;
mod filters;
mod gateways;
mod listener_sets;
mod models;
mod pools;
mod precedence;
mod routes;
mod sessions;

use api::{Objects, decode_yaml};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::*;

pub(super) const CLASS: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec: {controllerName: pointsman.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: theirs}
spec: {controllerName: example.com/other}
";

/// A Gateway `a/gw` with one open HTTP listener on port 80.
pub(super) const GATEWAY: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: a, generation: 4}
spec:
  gatewayClassName: ours
  listeners: [{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
";

/// Pools `old` (v1alpha2) and `llama` (v1) in namespace `a`, with two and one servers.
pub(super) const POOLS: &str = "
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama, namespace: a, generation: 2}
spec: {selector: {matchLabels: {app: llama}}, targetPorts: [{number: 8000}]}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: old, namespace: a}
spec: {selector: {app: old}, targetPortNumber: 9000}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: llama, namespace: a, labels: {app: llama, extra: label}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: old, namespace: a, labels: {app: old}}
addressType: IPv4
endpoints: [{addresses: [10.0.1.2]}, {addresses: [10.0.1.1]}]
";

/// The objects of a text; every document must be readable.
pub(super) fn objects(yaml: &str) -> Objects {
    let documents = decode_yaml(yaml).into_iter();
    documents
        .map(|document| {
            document
                .result
                .unwrap_or_else(|error| panic!("{error}\n{yaml}"))
        })
        .collect()
}

pub(super) fn files(parts: &[&str]) -> Compiled {
    compile(&objects(&parts.join("\n---\n")), &CompileOptions::default())
}

pub(super) fn cluster(parts: &[&str]) -> Compiled {
    let options = CompileOptions {
        mode: Mode::Cluster,
        ..CompileOptions::default()
    };
    compile(&objects(&parts.join("\n---\n")), &options)
}

/// All statuses, one line for each condition.
pub(super) fn lines(compiled: &Compiled) -> Vec<String> {
    let mut lines = Vec::new();
    for status in &compiled.statuses {
        let parent = status.parent.as_ref().map_or(String::new(), |parent| {
            let section = parent
                .section
                .as_ref()
                .map_or(String::new(), |name| format!("#{name}"));
            let port = parent.port.map_or(String::new(), |port| format!(":{port}"));
            format!(" @ {}/{}{section}{port}", parent.namespace, parent.name)
        });
        let listener = status.listener.as_ref().map_or(String::new(), |name| {
            let kinds: Vec<_> = status
                .supported_kinds
                .iter()
                .map(|kind| kind.kind)
                .collect();
            format!(
                " [{name}: {} attached, {}]",
                status.attached_routes,
                kinds.join("+")
            )
        });
        for condition in &status.conditions {
            lines.push(format!(
                "{}{parent}{listener} g{} {condition}",
                status.object, condition.observed_generation
            ));
        }
    }
    lines
}

/// `True Accepted` and the like, of the first status of an object (`Kind namespace/name`) that has the condition.
pub(super) fn condition(compiled: &Compiled, object: &str, type_: &str) -> String {
    let mut all = compiled
        .statuses
        .iter()
        .filter(|s| s.object.to_string() == object && s.listener.is_none());
    let found = all.find_map(|status| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
    });
    found.map_or("none".to_owned(), |condition| {
        format!("{} {}", condition.status, condition.reason)
    })
}

/// The same for a listener.
pub(super) fn listener(compiled: &Compiled, object: &str, name: &str, type_: &str) -> String {
    let status = compiled
        .statuses
        .iter()
        .find(|s| s.object.to_string() == object && s.listener.as_deref() == Some(name))
        .expect("a status of the listener");
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
        .expect("the condition");
    format!("{} {}", condition.status, condition.reason)
}

/// A request without body: `GET host/path?query`, headers as `name: value`.
pub(super) fn send<'p>(
    plan: &'p Plan,
    port: u16,
    url: &str,
    headers: &[(&str, &str)],
) -> Result<Matched<'p>, NoMatch> {
    let (host, rest) = url.split_once('/').unwrap_or((url, ""));
    let target = format!("/{rest}");
    let (path, query) = target
        .split_once('?')
        .map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let head = RequestHead {
        method: &Method::GET,
        host,
        path,
        query,
        headers: &map,
        sni: None,
    };
    plan.route(port, &head)
}

/// Where a request would go: the pool or `Invalid`, or the status of the answer.
pub(super) fn goes_to(plan: &Plan, url: &str) -> String {
    match send(plan, 80, url, &[]) {
        Err(no_match) => no_match.status().as_u16().to_string(),
        Ok(matched) => match matched.rule.choose(0.0).map(|backend| &backend.target) {
            None => "500".to_owned(),
            Some(Target::Pool(key)) => key.to_string(),
            Some(Target::ByModel(keys)) => format!("{} by model", keys.len()),
            Some(Target::Invalid(why)) => format!("invalid: {why}"),
        },
    }
}

/// An HTTPRoute `namespace/name` on Gateway `a/gw` with one rule for `/` to these backends.
pub(super) fn route(namespace: &str, name: &str, backends: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}, generation: 3}}
spec:
  parentRefs: [{{name: gw, namespace: a}}]
  rules: [{{backendRefs: {backends}}}]
"
    )
}

/// A backendRef to a v1 pool.
pub(super) fn pool_ref(name: &str) -> String {
    format!("{{group: inference.networking.k8s.io, kind: InferencePool, name: {name}}}")
}

pub(super) fn grant(namespace: &str, from: &str, from_namespace: &str, to: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{name: grant, namespace: {namespace}}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {from}, namespace: {from_namespace}}}]
  to: [{to}]
"
    )
}

/// A Service with one port and an EndpointSlice with one server.
pub(super) fn service(namespace: &str, name: &str, port: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{ports: [{port}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: 3000}}]
endpoints: [{{addresses: [10.9.0.1]}}]
"
    )
}

//! Which watches are wanted, given what the cluster serves and what is known already.
//!
//! Pods are watched by the selectors of pools and Secrets and ConfigMaps by the names in references, so this depends
//! on objects that are themselves watched. A pure function; [`crate::watch`] keeps the watches in line with it.

use std::collections::{BTreeMap, BTreeSet};

use api::{Gateway, GatewayClass, Listener, Objects, SecretRef};

use crate::discovery::Served;
use crate::kinds::{KINDS, Kind, Manner};

/// How much of a cluster is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// Namespaced kinds of these namespaces only.
    Namespaces(Vec<String>),
    /// One InferencePool with its Pods, and the objects that speak of models in its namespace: what an endpoint picker
    /// needs, and no more than the Role that such pickers are usually given.
    Pool {
        /// Namespace of the pool.
        namespace: String,
        /// Name of the pool.
        name: String,
        /// Group of the pool, which tells v1 from v1alpha2.
        group: String,
    },
    /// The Pods with these labels in one namespace, and the objects that speak of models there: what an endpoint picker
    /// needs for a pool that no object describes.
    Pods {
        /// Their namespace.
        namespace: String,
        /// Their labels. None: no Pod.
        labels: BTreeMap<String, String>,
    },
    /// The ConfigMaps with these labels.
    ConfigMaps {
        /// Their namespace; `None`: all.
        namespace: Option<String>,
        /// Their labels.
        labels: BTreeMap<String, String>,
    },
}

/// One watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) version: &'static str,
    /// `None`: all namespaces, or a kind without.
    pub(crate) namespace: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
}

/// Every watch that there should be.
pub(crate) fn wanted(
    scope: &Scope,
    served: &Served,
    objects: &Objects,
    controller: Option<&str>,
) -> BTreeSet<Target> {
    let mut targets = BTreeSet::new();
    for kind in KINDS {
        let Some(version) = served.get(&(kind.group, kind.kind)) else {
            continue;
        };
        let target = Target {
            group: kind.group,
            kind: kind.kind,
            version,
            namespace: None,
            labels: None,
            fields: None,
        };
        match (scope, kind.manner) {
            (Scope::Pods { .. }, _) => targets.extend(around_pods(scope, kind, target)),
            (Scope::ConfigMaps { namespace, labels }, _) => {
                targets.extend((kind.kind == "ConfigMap").then(|| Target {
                    namespace: namespace.clone(),
                    labels: Some(joined(labels)),
                    ..target
                }));
            }
            (_, Manner::Selected) => targets.extend(pods(scope, &target, objects)),
            (Scope::Pool { .. }, _) => targets.extend(around_pool(scope, kind, target)),
            (_, Manner::Named) => {
                let names = references(kind.kind, objects, controller).into_iter();
                let names = names.filter(|(namespace, _)| scope.has(namespace));
                targets.extend(names.map(|(namespace, name)| named(&target, namespace, &name)));
            }
            (Scope::All, Manner::All) => {
                targets.insert(target);
            }
            (Scope::Namespaces(_), Manner::All) if !kind.namespaced => {
                targets.insert(target);
            }
            (Scope::Namespaces(namespaces), Manner::All) => {
                targets.extend(namespaces.iter().map(|namespace| Target {
                    namespace: Some(namespace.clone()),
                    ..target.clone()
                }));
            }
        }
    }
    targets
}

impl Scope {
    fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespaces(namespaces) => namespaces.iter().any(|name| name == namespace),
            Self::Pool {
                namespace: only, ..
            }
            | Self::Pods {
                namespace: only, ..
            } => only == namespace,
            Self::ConfigMaps {
                namespace: only, ..
            } => only.as_ref().is_none_or(|only| only == namespace),
        }
    }
}

fn named(target: &Target, namespace: String, name: &str) -> Target {
    Target {
        namespace: Some(namespace),
        fields: Some(format!("metadata.name={name}")),
        ..target.clone()
    }
}

/// What an endpoint picker for one pool reads.
fn around_pool(scope: &Scope, kind: &Kind, target: Target) -> Option<Target> {
    let Scope::Pool {
        namespace,
        name,
        group,
    } = scope
    else {
        return None;
    };
    match kind.kind {
        "InferencePool" => (kind.group == group).then(|| named(&target, namespace.clone(), name)),
        "InferenceModel" | "InferenceObjective" | "InferenceModelRewrite" => Some(Target {
            namespace: Some(namespace.clone()),
            ..target
        }),
        _ => None,
    }
}

/// What an endpoint picker for a pool without an object reads.
fn around_pods(scope: &Scope, kind: &Kind, target: Target) -> Option<Target> {
    let Scope::Pods { namespace, labels } = scope else {
        return None;
    };
    let namespace = Some(namespace.clone());
    match kind.kind {
        "Pod" => (!labels.is_empty()).then(|| Target {
            namespace,
            labels: Some(joined(labels)),
            ..target
        }),
        "InferenceModel" | "InferenceObjective" | "InferenceModelRewrite" => Some(Target {
            namespace,
            ..target
        }),
        _ => None,
    }
}

/// Labels as a selector says them.
fn joined(labels: &BTreeMap<String, String>) -> String {
    let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// So many watches of Pods in a namespace, and then one of all its Pods.
const SELECTORS_OF_NAMESPACE: usize = 16;
/// So many watches of Pods altogether, and then one of all Pods, where all namespaces may be read.
const WATCHES_OF_PODS: usize = 64;

/// The Pods of every pool. An empty selector selects nothing.
///
/// Each watch is a connection to the API server, of which a thousand pools would have a thousand: many pools are
/// watched by their namespaces, and many namespaces at once.
fn pods(scope: &Scope, target: &Target, objects: &Objects) -> BTreeSet<Target> {
    let mut namespaces: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for pool in objects.inference_pools() {
        let namespace = pool.meta.namespace.as_str();
        let labels = &pool.spec.selector.match_labels;
        if !labels.is_empty() && scope.has(namespace) {
            namespaces
                .entry(namespace)
                .or_default()
                .insert(joined(labels));
        }
    }
    let mut targets = BTreeSet::new();
    for (namespace, selectors) in namespaces {
        let of = |labels| Target {
            namespace: Some(namespace.to_owned()),
            labels,
            ..target.clone()
        };
        if selectors.len() > SELECTORS_OF_NAMESPACE {
            targets.insert(of(None));
        } else {
            targets.extend(selectors.into_iter().map(|labels| of(Some(labels))));
        }
    }
    if *scope == Scope::All && targets.len() > WATCHES_OF_PODS {
        return BTreeSet::from([target.clone()]);
    }
    targets
}

/// Namespaces and names of the Secrets or ConfigMaps that other objects name.
fn references(
    kind: &str,
    objects: &Objects,
    controller: Option<&str>,
) -> BTreeSet<(String, String)> {
    let ours = |class: &GatewayClass| {
        controller.is_none_or(|controller| class.spec.controller_name == controller)
    };
    let mut found = BTreeSet::new();
    for class in objects.gateway_classes().filter(|class| ours(class)) {
        let parameters = class.spec.parameters_ref.iter();
        let is_map = |kind: &str| kind == "ConfigMap";
        for parameters in
            parameters.filter(|all| is_map(kind) && is_map(&all.kind) && all.group.is_empty())
        {
            let namespace = parameters.namespace.clone().unwrap_or_default();
            found.insert((namespace, parameters.name.clone()));
        }
    }
    for gateway in objects.gateways() {
        let class = objects.gateway_class(&gateway.spec.gateway_class_name);
        if class.is_some_and(|class| ours(class)) {
            of_gateway(kind, gateway, &mut found);
        }
    }
    for set in objects.listener_sets() {
        let parent = &set.spec.parent_ref;
        let namespace = parent.namespace.as_ref().unwrap_or(&set.meta.namespace);
        let gateway = objects.gateway(namespace, &parent.name);
        let class =
            gateway.and_then(|gateway| objects.gateway_class(&gateway.spec.gateway_class_name));
        if class.is_some_and(|class| ours(class)) {
            let secrets = certificates(&set.spec.listeners);
            found.extend(secrets.filter(|secret| secret.kind == kind).map(|secret| {
                let namespace = secret.namespace.as_ref().unwrap_or(&set.meta.namespace);
                (namespace.clone(), secret.name.clone())
            }));
        }
    }
    for policy in objects.backend_tls_policies() {
        for authority in &policy.spec.validation.ca_certificate_refs {
            if authority.kind == kind {
                found.insert((policy.meta.namespace.clone(), authority.name.clone()));
            }
        }
    }
    // What is no name names nothing, and must not become part of a selector.
    found.retain(|(namespace, name)| is_name(namespace) && is_name(name));
    found
}

/// Names in certificate references of a Gateway.
fn of_gateway(kind: &str, gateway: &Gateway, found: &mut BTreeSet<(String, String)>) {
    let own = &gateway.meta.namespace;
    let mut add = |of: &str, namespace: Option<&String>, name: &str| {
        if of == kind {
            let namespace = namespace.filter(|name| !name.is_empty()).unwrap_or(own);
            found.insert((namespace.clone(), name.to_owned()));
        }
    };
    for secret in certificates(&gateway.spec.listeners) {
        add(&secret.kind, secret.namespace.as_ref(), &secret.name);
    }
    let infrastructure = gateway.spec.infrastructure.iter();
    for parameters in infrastructure.filter_map(|all| all.parameters_ref.as_ref()) {
        // Only a ConfigMap has parameters; whatever else is named is not read.
        if parameters.group.is_empty() && parameters.kind == "ConfigMap" {
            add(&parameters.kind, None, &parameters.name);
        }
    }
    let Some(tls) = &gateway.spec.tls else { return };
    let backend = tls.backend.as_ref();
    if let Some(secret) = backend.and_then(|backend| backend.client_certificate_ref.as_ref()) {
        add(&secret.kind, secret.namespace.as_ref(), &secret.name);
    }
    let configs = tls.frontend.iter().flat_map(|frontend| {
        let per_port = frontend.per_port.iter().map(|port| &port.tls);
        std::iter::once(&frontend.default_config).chain(per_port)
    });
    let validations = configs.filter_map(|config| config.validation.as_ref());
    for authority in validations.flat_map(|validation| &validation.ca_certificate_refs) {
        add(
            &authority.kind,
            authority.namespace.as_ref(),
            &authority.name,
        );
    }
}

/// What the certificates of listeners are read from.
fn certificates(listeners: &[Listener]) -> impl Iterator<Item = &SecretRef> {
    let with_tls = listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref());
    with_tls.flat_map(|tls| &tls.certificate_refs)
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(yaml: &str) -> Objects {
        let read = |document: api::Document| document.result.expect("a good document");
        api::decode_yaml(yaml).into_iter().map(read).collect()
    }

    fn everything() -> Served {
        let best = |kind: &Kind| ((kind.group, kind.kind), kind.versions[0]);
        KINDS.iter().map(best).collect()
    }

    fn lines(scope: &Scope, objects: &Objects) -> Vec<String> {
        let targets = wanted(scope, &everything(), objects, Some("pointsman.dev/ours"));
        let line = |t: &Target| {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            format!(
                "{} {} {} {}",
                t.kind,
                part(&t.namespace),
                part(&t.labels),
                part(&t.fields)
            )
        };
        targets
            .iter()
            .map(|target| line(target).trim_end().to_owned())
            .collect()
    }

    const WORLD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec:
  controllerName: pointsman.dev/ours
  parametersRef: {group: '', kind: ConfigMap, name: defaults, namespace: system}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: theirs}
spec: {controllerName: example.com/theirs}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: a, namespace: infra}
spec:
  gatewayClassName: ours
  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: own}}
  tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: clients}]}}}}
  listeners:
    - {name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}, {name: 'a,b=c'}, {name: far, namespace: certs}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: s, namespace: apps}
spec:
  parentRef: {name: a, namespace: infra}
  listeners: [{name: a, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: of-set}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: t, namespace: apps}
spec:
  parentRef: {name: b, namespace: infra}
  listeners: [{name: a, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: not-ours}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: b, namespace: infra}
spec:
  gatewayClassName: theirs
  listeners: [{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: not-ours}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: p, namespace: apps}
spec: {targetRefs: [{group: '', kind: Service, name: s}], validation: {hostname: a.b, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: p, namespace: apps}
spec: {selector: {matchLabels: {app: x, tier: gold}}, targetPorts: [{number: 8000}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: empty, namespace: apps}
spec: {selector: {matchLabels: {}}, targetPorts: [{number: 8000}]}
";

    #[test]
    fn secrets_and_pods_are_watched_by_name_and_selector() {
        let lines = lines(&Scope::All, &objects(WORLD));
        let of = |kind: &str| -> Vec<&str> {
            let starts = |line: &&String| line.starts_with(&format!("{kind} ")) || *line == kind;
            lines.iter().filter(starts).map(String::as_str).collect()
        };
        assert_eq!(of("Pod"), ["Pod apps app=x,tier=gold"]);
        assert_eq!(
            of("Secret"),
            [
                "Secret apps  metadata.name=of-set",
                "Secret certs  metadata.name=far",
                "Secret infra  metadata.name=cert"
            ]
        );
        assert_eq!(
            of("ConfigMap"),
            [
                "ConfigMap apps  metadata.name=ca",
                "ConfigMap infra  metadata.name=clients",
                "ConfigMap infra  metadata.name=own",
                "ConfigMap system  metadata.name=defaults"
            ]
        );
        assert_eq!(of("Gateway"), ["Gateway"]);
        assert_eq!(of("InferencePool").len(), 2);
    }

    /// The watches of Pods for so many namespaces with so many pools each.
    fn watches_of_pods(scope: &Scope, namespaces: usize, pools: usize) -> Vec<String> {
        let pool = |n: usize| {
            format!(
                "{{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, \
                 metadata: {{name: p{n}, namespace: n{}}}, \
                 spec: {{selector: {{matchLabels: {{app: a{n}}}}}, targetPorts: [{{number: 1}}]}}}}",
                n % namespaces
            )
        };
        let text: Vec<_> = (0..namespaces * pools).map(pool).collect();
        let mut found = lines(scope, &objects(&text.join("\n---\n")));
        found.retain(|line| line == "Pod" || line.starts_with("Pod "));
        found
    }

    #[test]
    fn many_pools_are_watched_at_once() {
        let watches = |namespaces, pools| watches_of_pods(&Scope::All, namespaces, pools);
        assert_eq!(watches(1, 16).len(), 16);
        assert!(watches(1, 16).contains(&"Pod n0 app=a3".to_owned()));
        assert_eq!(watches(1, 17), ["Pod n0"]);
        assert_eq!(watches(3, 20), ["Pod n0", "Pod n1", "Pod n2"]);
        assert_eq!(watches(64, 1).len(), 64);
        assert_eq!(watches(65, 1), ["Pod"]);
        assert_eq!(watches(10, 10), ["Pod"]);
        // Who may not read all namespaces does not ask for them.
        let some: Vec<_> = (0..65).map(|n| format!("n{n}")).collect();
        let found = watches_of_pods(&Scope::Namespaces(some), 65, 17);
        assert!(found.len() == 65 && found.iter().all(|line| line.starts_with("Pod n")));
    }

    #[test]
    fn namespaces_limit_what_is_in_a_namespace() {
        let scope = Scope::Namespaces(vec!["infra".to_owned(), "other".to_owned()]);
        let lines = lines(&scope, &objects(WORLD));
        let has = |line: &str| lines.iter().any(|l| l == line);
        assert!(has("GatewayClass") && has("Namespace"));
        assert!(has("Gateway infra") && has("Gateway other") && !has("Gateway"));
        assert!(has("Secret infra  metadata.name=cert"));
        assert!(
            !lines
                .iter()
                .any(|line| line.contains("certs") || line.contains("apps"))
        );
    }

    #[test]
    fn a_picker_reads_its_pool_and_little_else() {
        let scope = Scope::Pool {
            namespace: "apps".to_owned(),
            name: "p".to_owned(),
            group: api::INFERENCE_GROUP.to_owned(),
        };
        assert_eq!(
            lines(&scope, &objects(WORLD)),
            [
                "Pod apps app=x,tier=gold",
                "InferencePool apps  metadata.name=p",
                "InferenceModel apps",
                "InferenceModelRewrite apps",
                "InferenceObjective apps",
                "InferenceModelRewrite apps",
                "InferenceObjective apps",
            ]
        );
    }

    #[test]
    fn a_picker_without_a_pool_reads_its_pods() {
        let labels = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        let scope = |text: &str| Scope::Pods {
            namespace: "apps".to_owned(),
            labels: labels(text),
        };
        let lines_of = |scope: &Scope| lines(scope, &objects(WORLD));
        let found = lines_of(&scope("tier=gold,app=x"));
        assert_eq!(found[0], "Pod apps app=x,tier=gold");
        assert!(
            found[1..]
                .iter()
                .all(|line| line.starts_with("Inference") && line.ends_with("apps"))
        );
        assert!(
            lines_of(&scope(""))
                .iter()
                .all(|line| !line.starts_with("Pod"))
        );
        let maps = |namespace: Option<&str>| Scope::ConfigMaps {
            namespace: namespace.map(str::to_owned),
            labels: labels("a/managed=true"),
        };
        assert_eq!(
            lines_of(&maps(Some("apps"))),
            ["ConfigMap apps a/managed=true"]
        );
        assert_eq!(lines_of(&maps(None)).len(), 1);
    }

    #[test]
    fn what_is_not_served_is_not_watched() {
        let none = wanted(&Scope::All, &Served::new(), &Objects::new(), None);
        assert!(none.is_empty());
    }
}

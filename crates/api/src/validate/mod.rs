//! Validation: the rules that the custom resource definitions and the core API enforce, for objects that never saw an
//! API server.
//!
//! A complaint here means that an API server would refuse the object. What it would admit and a controller must judge
//! (an unknown filter, a reference to nothing, a regular expression that does not compile) is left to routing, which
//! reports it as a condition. Rules and limits are those of Gateway API v1.6, of the inference extension, and of the
//! core API.

mod backends;
mod core;
mod filters;
mod gateway;
mod inference;
mod names;
mod routes;

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

use crate::object::{Object, Resource as _};
use crate::{Meta, Service};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldIssue {
    /// The field, for instance `spec.rules[0].backendRefs[1].port`.
    pub path: String,
    /// What is wrong, and the way out.
    pub message: String,
}

impl FieldIssue {
    /// An issue with one field.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for FieldIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Checks an object against the rules an API server would apply. Empty means valid.
#[must_use]
pub fn validate(object: &Object) -> Vec<FieldIssue> {
    let mut check = Check::default();
    check_meta(&mut check, object);
    match object {
        Object::GatewayClass(class) => gateway::class(&mut check, class),
        Object::Gateway(object) => gateway::gateway(&mut check, object),
        Object::ListenerSet(set) => gateway::listener_set(&mut check, set),
        Object::TlsRoute(route) => routes::tls(&mut check, route),
        Object::HttpRoute(route) => routes::http(&mut check, route),
        Object::GrpcRoute(route) => routes::grpc(&mut check, route),
        Object::ReferenceGrant(grant) => backends::reference_grant(&mut check, grant),
        Object::BackendTlsPolicy(policy) => backends::backend_tls_policy(&mut check, policy),
        Object::Service(service) => core::service(&mut check, service),
        Object::EndpointSlice(slice) => core::endpoint_slice(&mut check, slice),
        Object::Secret(secret) => core::secret(&mut check, secret),
        Object::ConfigMap(map) => core::config_map(&mut check, map),
        Object::InferencePool(pool) => inference::pool(&mut check, pool),
        Object::InferenceModel(model) => inference::model(&mut check, model),
        Object::InferenceObjective(objective) => inference::objective(&mut check, objective),
        Object::InferenceModelRewrite(rewrite) => inference::rewrite(&mut check, rewrite),
        Object::Namespace(_) | Object::Pod(_) | Object::InferencePoolImport(_) => {}
    }
    check.issues
}

fn check_meta(check: &mut Check, object: &Object) {
    let Meta {
        name,
        namespace,
        labels,
        ..
    } = object.meta();
    let is_label = matches!(object, Object::Namespace(_)) || object.kind() == Service::KIND;
    let fits = if is_label {
        names::is_dns_label(name)
    } else {
        names::is_dns_subdomain(name)
    };
    check.ensure(fits, "metadata.name", || {
        format!(
            "{name:?} is no valid name: use lower-case letters, digits and '-'{}",
            if is_label {
                ", at most 63"
            } else {
                " or '.', at most 253"
            }
        )
    });
    check.ensure(namespace.is_empty() || names::is_dns_label(namespace), "metadata.namespace", || {
        format!("{namespace:?} is no valid namespace: use lower-case letters, digits and '-', at most 63")
    });
    check.labels("metadata.labels", labels);
}

/// Collects issues.
#[derive(Default)]
struct Check {
    issues: Vec<FieldIssue>,
}

impl Check {
    fn fail(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.issues.push(FieldIssue::new(path, message));
    }

    /// Complains about `path` unless `holds`.
    fn ensure<M: Into<String>>(&mut self, holds: bool, path: &str, message: impl FnOnce() -> M) {
        if !holds {
            self.fail(path, message());
        }
    }

    /// Complains when the length of a list is not within bounds.
    fn count(&mut self, path: &str, length: usize, min: usize, max: usize) {
        if length < min {
            self.fail(path, format!("at least {min} is needed"));
        } else if length > max {
            self.fail(
                path,
                format!("{length} are too many; at most {max} are allowed"),
            );
        }
    }

    /// Complains about port 0.
    fn port(&mut self, path: &str, port: u16) {
        self.ensure(port != 0, path, || "0 is no port; use 1 to 65535");
    }

    /// Complains about a text that is empty or longer than `max` characters.
    fn text(&mut self, path: &str, text: &str, max: usize) {
        if text.is_empty() {
            self.fail(path, "must not be empty");
        } else if text.chars().count() > max {
            self.fail(path, format!("is longer than {max} characters"));
        }
    }

    /// Complains about a name of a referred object that is empty or too long.
    fn object_name(&mut self, path: &str, name: &str) {
        self.text(path, name, 253);
    }

    /// Complains about every item whose key an earlier item has. `path_of` gives an item's field.
    fn unique<K: Hash + Eq>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
        path_of: impl Fn(usize) -> String,
        what: &str,
    ) {
        let mut seen = HashSet::new();
        for (index, key) in keys.into_iter().enumerate() {
            if !seen.insert(key) {
                self.fail(
                    path_of(index),
                    format!("{what} must be unique, and an earlier item has the same"),
                );
            }
        }
    }

    /// Complains about labels that Kubernetes would not take.
    fn labels(&mut self, path: &str, labels: &std::collections::BTreeMap<String, String>) {
        for (key, value) in labels {
            let field = format!("{path}.{key}");
            self.ensure(names::is_label_key(key), &field, || {
                format!("{key:?} is no valid label key")
            });
            self.ensure(names::is_label_value(value), &field, || {
                format!("{value:?} is no valid label value: at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends")
            });
        }
    }

    /// Complains about weights that are out of range or set on some items only.
    fn all_or_none_weights(&mut self, path: &str, weights: &[Option<u32>]) {
        let set = weights.iter().flatten().count();
        if set != 0 && set != weights.len() {
            self.fail(path, "weights should be set for all or for none");
        }
        for (index, weight) in weights.iter().enumerate() {
            if weight.is_some_and(|weight| !(1..=1_000_000).contains(&weight)) {
                self.fail(
                    format!("{path}[{index}].weight"),
                    "must be from 1 to 1000000",
                );
            }
        }
    }
}

//! Labels of endpoints, as Kubernetes has them on Pods, and requirements on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::EndpointId;

/// Labels of an endpoint.
pub type Labels = BTreeMap<String, String>;

/// One requirement on labels, as in a Kubernetes label selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Requirement {
    /// The label is there with one of these values.
    In {
        /// The label.
        key: String,
        /// Its values.
        values: Vec<String>,
        /// Whether an endpoint without the label passes, too.
        or_absent: bool,
    },
    /// The label is absent or has none of these values.
    NotIn {
        /// The label.
        key: String,
        /// Values that it must not have.
        values: Vec<String>,
    },
    /// The label is there.
    Exists(String),
    /// The label is absent.
    Absent(String),
}

impl Requirement {
    /// Whether these labels fulfil it.
    pub fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::In {
                key,
                values,
                or_absent,
            } => labels
                .get(key)
                .map_or(*or_absent, |value| values.contains(value)),
            Self::NotIn { key, values } => {
                labels.get(key).is_none_or(|value| !values.contains(value))
            }
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
        }
    }
}

/// The labels of all endpoints of a pool, by dense index.
#[derive(Clone, Debug, Default)]
pub(super) struct Book(Vec<Option<(EndpointId, Arc<Labels>)>>);

impl Book {
    pub(super) fn set(&mut self, endpoint: EndpointId, labels: &Arc<Labels>) {
        let index = endpoint.index();
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        self.0[index] = Some((endpoint, Arc::clone(labels)));
    }

    pub(super) fn get(&self, endpoint: EndpointId) -> Option<&Labels> {
        let (owner, labels) = self.0.get(endpoint.index())?.as_ref()?;
        (*owner == endpoint).then_some(labels)
    }

    /// Whether the endpoint's labels fulfil all requirements.
    pub(super) fn holds(&self, endpoint: EndpointId, requirements: &[Requirement]) -> bool {
        let none = Labels::new();
        let labels = self.get(endpoint).unwrap_or(&none);
        requirements.iter().all(|it| it.holds(labels))
    }
}

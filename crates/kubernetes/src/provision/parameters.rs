//! What operators may say about data planes: the ConfigMap of a `parametersRef`, key `parameters.yaml`.
//!
//! A GatewayClass gives defaults, a Gateway its own values over these, field by field. It is read strictly: a word that
//! nobody knows makes the whole invalid (condition `InvalidParameters`), because a limit that silently does not count is
//! worse than none. What is left out has a default that is argued in `manifests`.

use std::collections::BTreeMap;

use api::gateway::ParametersRef;
use api::{Gateway, GatewayClass, Objects};
use serde::Deserialize;
use serde_json::Value;

/// The key of the ConfigMap.
pub const PARAMETERS_KEY: &str = "parameters.yaml";

/// What may be said about the data planes of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Parameters {
    /// How many; `0` leaves the number to an autoscaler.
    pub replicas: Option<u32>,
    /// Container image.
    pub image: Option<String>,
    /// When it is pulled.
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets to pull it with.
    pub image_pull_secrets: Option<Vec<String>>,
    /// Whether replicas tell each other what they sent to servers; they do unless this says `false`.
    pub sharing: Option<bool>,
    /// Further arguments of `serve`.
    pub args: Option<Vec<String>>,
    /// Requests and limits of the container.
    pub resources: Option<BTreeMap<String, BTreeMap<String, Value>>>,
    /// How long a data plane that is stopped may let requests end.
    pub termination_grace_period_seconds: Option<u32>,
    /// The Service.
    pub service: ServiceParameters,
    /// The Pods.
    pub pod: PodParameters,
    /// How many may be missing at once.
    pub pod_disruption_budget: Option<Disruption>,
}

/// `service`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceParameters {
    /// Its type.
    #[serde(rename = "type")]
    pub service_type: Option<Exposure>,
    /// Its annotations.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Whose load balancer.
    pub load_balancer_class: Option<String>,
    /// `Cluster` or `Local`.
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// Who may reach the load balancer.
    pub load_balancer_source_ranges: Option<Vec<String>>,
}

/// `pod`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PodParameters {
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Nodes.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that are borne.
    pub tolerations: Option<Vec<Value>>,
    /// Affinity.
    pub affinity: Option<Value>,
    /// Priority class.
    pub priority_class_name: Option<String>,
}

/// Types of Services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Exposure {
    /// An address from outside.
    #[default]
    LoadBalancer,
    /// A port of every node.
    NodePort,
    /// An address inside.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// Where it is not there.
    IfNotPresent,
    /// Never.
    Never,
}

/// Where a node sends what comes from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
pub enum TrafficPolicy {
    /// To any Pod.
    Cluster,
    /// To its own Pods, keeping clients' addresses.
    Local,
}

/// `podDisruptionBudget`: one of the two.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Disruption {
    /// A number, or a share such as `50%`.
    MinAvailable(Value),
    /// A number, or a share such as `25%`.
    MaxUnavailable(Value),
}

impl Parameters {
    /// What counts for a Gateway.
    ///
    /// # Errors
    /// A sentence: which of its or its class's parameters cannot be used.
    pub fn of(objects: &Objects, gateway: &Gateway) -> Result<Self, ParametersError> {
        let class = objects.gateway_class(&gateway.spec.gateway_class_name);
        let base = match class {
            Some(class) => Self::of_class(objects, class)?,
            None => Self::default(),
        };
        let own = gateway.spec.infrastructure.as_ref();
        let Some(reference) = own.and_then(|all| all.parameters_ref.as_ref()) else {
            return Ok(base);
        };
        let own = Self::read(objects, reference, &gateway.meta.namespace)?;
        Ok(own.over(base))
    }

    /// What a class says.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn of_class(objects: &Objects, class: &GatewayClass) -> Result<Self, ParametersError> {
        let Some(reference) = &class.spec.parameters_ref else {
            return Ok(Self::default());
        };
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        Self::read(objects, reference, namespace)
    }

    fn read(
        objects: &Objects,
        reference: &ParametersRef,
        namespace: &str,
    ) -> Result<Self, ParametersError> {
        let ParametersRef {
            group, kind, name, ..
        } = reference;
        let at = format!("{kind} {namespace}/{name}");
        if !group.is_empty() || kind != "ConfigMap" {
            return Err(ParametersError(format!(
                "parametersRef {kind} {name}: only ConfigMaps are read"
            )));
        }
        let map = objects
            .config_map(namespace, name)
            .ok_or_else(|| ParametersError(format!("{at} not found")))?;
        let text = map
            .data
            .get(PARAMETERS_KEY)
            .ok_or_else(|| ParametersError(format!("{at} has no key {PARAMETERS_KEY}")))?;
        let read: Self = api::read_yaml(text)
            .map_err(|error| ParametersError(format!("{at}, {PARAMETERS_KEY}: {error}")))?;
        read.checked()
            .map_err(|error| ParametersError(format!("{at}, {PARAMETERS_KEY}: {}", error.0)))
    }

    /// What the API server would refuse later, and nobody would see.
    fn checked(self) -> Result<Self, ParametersError> {
        let bad = |sentence: &str| Err(ParametersError(sentence.to_owned()));
        if let Some(kinds) = &self.resources
            && kinds
                .keys()
                .any(|kind| kind != "requests" && kind != "limits")
        {
            return bad("resources: only requests and limits");
        }
        let is_share = |value: &Value| match value {
            Value::Number(number) => number.as_u64().is_some(),
            Value::String(text) => text
                .strip_suffix('%')
                .is_some_and(|share| share.parse::<u8>().is_ok_and(|share| share <= 100)),
            _ => false,
        };
        if let Some(Disruption::MinAvailable(value) | Disruption::MaxUnavailable(value)) =
            &self.pod_disruption_budget
            && !is_share(value)
        {
            return bad("podDisruptionBudget: a number or a share such as 50%");
        }
        let outside = self.service.service_type.unwrap_or_default() != Exposure::ClusterIp;
        if !outside && self.service.external_traffic_policy.is_some() {
            return bad("service.externalTrafficPolicy: not for a Service of type ClusterIP");
        }
        if self.image.as_deref() == Some("") {
            return bad("image: is empty");
        }
        Ok(self)
    }

    /// These values where there are any, else those of `base`.
    fn over(self, base: Self) -> Self {
        Self {
            replicas: self.replicas.or(base.replicas),
            image: self.image.or(base.image),
            image_pull_policy: self.image_pull_policy.or(base.image_pull_policy),
            image_pull_secrets: self.image_pull_secrets.or(base.image_pull_secrets),
            sharing: self.sharing.or(base.sharing),
            args: self.args.or(base.args),
            resources: self.resources.or(base.resources),
            termination_grace_period_seconds: self
                .termination_grace_period_seconds
                .or(base.termination_grace_period_seconds),
            service: ServiceParameters {
                service_type: self.service.service_type.or(base.service.service_type),
                annotations: self.service.annotations.or(base.service.annotations),
                load_balancer_class: self
                    .service
                    .load_balancer_class
                    .or(base.service.load_balancer_class),
                external_traffic_policy: self
                    .service
                    .external_traffic_policy
                    .or(base.service.external_traffic_policy),
                load_balancer_source_ranges: self
                    .service
                    .load_balancer_source_ranges
                    .or(base.service.load_balancer_source_ranges),
            },
            pod: PodParameters {
                annotations: self.pod.annotations.or(base.pod.annotations),
                labels: self.pod.labels.or(base.pod.labels),
                node_selector: self.pod.node_selector.or(base.pod.node_selector),
                tolerations: self.pod.tolerations.or(base.pod.tolerations),
                affinity: self.pod.affinity.or(base.pod.affinity),
                priority_class_name: self
                    .pod
                    .priority_class_name
                    .or(base.pod.priority_class_name),
            },
            pod_disruption_budget: self.pod_disruption_budget.or(base.pod_disruption_budget),
        }
    }
}

/// Parameters that cannot be used: a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParametersError(String);

//! The objects of one Gateway's data planes, as they should be.
//!
//! Pure: a Gateway, its parameters and the controller's settings give its manifests. All of them lie in the Gateway's
//! namespace and belong to it (owner reference), so they go when it goes. Defaults, and why:
//!
//! - **Two replicas**, one of which a drain of a node may take at a time; no more is known about the traffic.
//! - **Ports below 1024 are bound 64512 higher** ([`bound_port`]), and the Service maps them. A Pod that is not root could
//!   bind them with a sysctl, but gVisor, older runtimes and strict policies refuse that one; a port number works
//!   everywhere. 64512 and more lies above the ports that Linux gives outgoing connections (32768 to 60999).
//! - **Replicas share** what they sent to servers, through a headless Service; the token by which they know each other
//!   comes from the controller and is only ever in memory.
//! - **No right at all**: the ServiceAccount is only a name to be known by, and no API token is mounted.
//! - **Rolling, one more before one less**, and ten minutes for streams to end: an answer of a model may take that long.

use std::collections::{BTreeMap, BTreeSet};

use api::{GATEWAY_GROUP, Gateway};
use serde_json::{Map, Value, json};

use super::names::{controller_label, hash, label_value, resource_name, siblings_name};
use super::parameters::{Disruption, Exposure, Parameters, PodParameters};
use crate::relay::AUDIENCE;

/// The admin port of data planes: high, so that listeners keep the usual ones.
pub const ADMIN_PORT: u16 = 19090;
/// Where replicas tell each other what they sent to servers.
pub(super) const SHARING_PORT: u16 = 19007;
/// What is added to a port below 1024.
const LIFTED_BY: u16 = 64_512;
/// Data planes where nothing is said.
const REPLICAS: u32 = 2;
/// How long a data plane that is stopped goes on accepting, until everybody knows that it has gone; in seconds.
const FAREWELL: u32 = 5;
/// Until a stopped data plane is killed, in seconds.
const GRACE: u32 = 630;
/// What is left of that to end in good order, in seconds.
const MARGIN: u32 = 10;

/// Where the token lies by which replicas know each other; in memory.
const SHARING_FOLDER: &str = "/run/pointsman";

/// The label by which everything of this controller is found.
pub(super) const CONTROLLER_LABEL: &str = "pointsman.dev/controller";
/// The annotation that says what was applied, so that a field that is no longer wanted is noticed.
const HASH_ANNOTATION: &str = "pointsman.dev/applied";

/// The port that a data plane binds for a listener's port.
#[must_use]
pub const fn bound_port(port: u16) -> u16 {
    if port < 1024 { LIFTED_BY + port } else { port }
}

/// What all data planes of a controller have in common.
#[derive(Debug, Clone)]
pub struct ProvisionSettings {
    /// Gateways of classes with this `controllerName` are provisioned.
    pub controller_name: String,
    /// Image of data planes.
    pub image: String,
    /// `HOST:PORT` by which data planes reach the controller.
    pub address: String,
    /// The authority's certificate in PEM.
    pub authority: String,
}

/// A kind of object that is provisioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Provided {
    ServiceAccount,
    ConfigMap,
    Service,
    Deployment,
    PodDisruptionBudget,
}

impl Provided {
    pub(crate) const ALL: [Self; 5] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Service,
        Self::Deployment,
        Self::PodDisruptionBudget,
    ];

    /// Group, version, kind and plural.
    pub(crate) const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::PodDisruptionBudget => (
                "policy",
                "v1",
                "PodDisruptionBudget",
                "poddisruptionbudgets",
            ),
        }
    }
}

/// An object as it should be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) kind: Provided,
    pub(crate) body: Value,
}

/// Everything that belongs to a Gateway.
pub(crate) fn manifests(
    gateway: &Gateway,
    ports: &BTreeSet<u16>,
    parameters: &Parameters,
    settings: &ProvisionSettings,
) -> Vec<Manifest> {
    let making = Making {
        gateway,
        ports,
        parameters,
        settings,
        name: resource_name(&gateway.meta.name),
    };
    let mut all = vec![
        making.object(
            Provided::ServiceAccount,
            json!({"automountServiceAccountToken": false}),
        ),
        making.object(
            Provided::ConfigMap,
            json!({"data": {"ca.crt": settings.authority}}),
        ),
        making.service(),
        making.object(Provided::Deployment, json!({"spec": making.deployment()})),
        making.object(
            Provided::PodDisruptionBudget,
            json!({"spec": making.budget()}),
        ),
    ];
    if making.shares() {
        all.push(making.siblings());
    }
    for manifest in &mut all {
        let text = manifest.body.to_string();
        manifest.body["metadata"]["annotations"][HASH_ANNOTATION] =
            format!("{:08x}", hash(&text)).into();
    }
    all
}

struct Making<'a> {
    gateway: &'a Gateway,
    /// Of listeners beyond its own.
    ports: &'a BTreeSet<u16>,
    parameters: &'a Parameters,
    settings: &'a ProvisionSettings,
    name: String,
}

impl Making<'_> {
    fn object(&self, kind: Provided, fields: Value) -> Manifest {
        let (group, version, name, _) = kind.names();
        let api_version = if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        };
        let meta = &self.gateway.meta;
        let mut body = json!({
            "apiVersion": api_version,
            "kind": name,
            "metadata": {
                "name": self.name,
                "namespace": meta.namespace,
                "labels": self.labels(),
                "annotations": self.annotations(),
                "ownerReferences": [{
                    "apiVersion": self.gateway.api_version,
                    "kind": "Gateway",
                    "name": meta.name,
                    "uid": meta.uid.as_deref().unwrap_or_default(),
                    "controller": true,
                }],
            },
        });
        if let Value::Object(fields) = fields {
            for (field, value) in fields {
                body[field] = value;
            }
        }
        Manifest { kind, body }
    }

    /// Labels that select the Pods.
    fn selector(&self) -> Map<String, Value> {
        let mut labels = Map::new();
        labels.insert("app.kubernetes.io/name".into(), "pointsman".into());
        labels.insert(
            "app.kubernetes.io/instance".into(),
            self.name.as_str().into(),
        );
        labels
    }

    /// The Gateway's own labels, and over these ours.
    fn labels(&self) -> Map<String, Value> {
        let own = self.gateway.spec.infrastructure.iter();
        let mut labels = texts(own.flat_map(|all| &all.labels));
        labels.extend(self.selector());
        labels.insert("app.kubernetes.io/managed-by".into(), "pointsman".into());
        labels.insert(
            format!("{GATEWAY_GROUP}/gateway-name"),
            label_value(&self.gateway.meta.name).into(),
        );
        labels.insert(
            CONTROLLER_LABEL.into(),
            controller_label(&self.settings.controller_name).into(),
        );
        labels
    }

    fn annotations(&self) -> Map<String, Value> {
        let own = self.gateway.spec.infrastructure.iter();
        texts(own.flat_map(|all| &all.annotations))
    }

    fn service(&self) -> Manifest {
        let wanted = &self.parameters.service;
        let exposure = wanted.service_type.unwrap_or_default();
        let ports: BTreeSet<u16> = self
            .gateway
            .spec
            .listeners
            .iter()
            .map(|listener| listener.port)
            .chain(self.ports.iter().copied())
            .collect();
        let ports: Vec<_> = ports
            .into_iter()
            .map(|port| {
                json!({
                    "name": format!("port-{port}"),
                    "port": port,
                    "targetPort": bound_port(port),
                    "protocol": "TCP",
                })
            })
            .collect();
        let mut spec = json!({
            "type": match exposure {
                Exposure::LoadBalancer => "LoadBalancer",
                Exposure::NodePort => "NodePort",
                Exposure::ClusterIp => "ClusterIP",
            },
            "selector": self.selector(),
            "ports": ports,
        });
        if let Some(policy) = wanted.external_traffic_policy {
            spec["externalTrafficPolicy"] = json!(policy);
        }
        if exposure == Exposure::LoadBalancer {
            if let Some(class) = &wanted.load_balancer_class {
                spec["loadBalancerClass"] = class.as_str().into();
            }
            if let Some(ranges) = &wanted.load_balancer_source_ranges {
                spec["loadBalancerSourceRanges"] = json!(ranges);
            }
            let asked = self
                .gateway
                .spec
                .addresses
                .iter()
                .find_map(api::gateway::GatewayAddress::ip);
            if let Some(ip) = asked {
                spec["loadBalancerIP"] = ip.to_string().into();
            }
        }
        let mut service = self.object(Provided::Service, json!({"spec": spec}));
        for (name, value) in wanted.annotations.iter().flatten() {
            service.body["metadata"]["annotations"][name] = value.as_str().into();
        }
        service
    }

    fn shares(&self) -> bool {
        self.parameters.sharing.unwrap_or(true)
    }

    /// By this Service replicas find each other, ready or not.
    fn siblings(&self) -> Manifest {
        let port = json!({"name": "sharing", "port": SHARING_PORT, "protocol": "TCP"});
        let spec = json!({
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": self.selector(),
            "ports": [port],
        });
        let mut service = self.object(Provided::Service, json!({"spec": spec}));
        service.body["metadata"]["name"] = siblings_name(&self.name).into();
        service
    }

    fn deployment(&self) -> Value {
        let pod = &self.parameters.pod;
        let mut labels = texts(pod.labels.iter().flatten());
        labels.extend(self.labels());
        let mut annotations = texts(pod.annotations.iter().flatten());
        annotations.extend(self.annotations());
        let mut spec = json!({
            "selector": {"matchLabels": self.selector()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": self.pod(),
            },
        });
        match self.parameters.replicas {
            Some(0) => {}
            count => spec["replicas"] = count.unwrap_or(REPLICAS).into(),
        }
        spec
    }

    fn pod(&self) -> Value {
        let PodParameters {
            node_selector,
            tolerations,
            affinity,
            priority_class_name,
            ..
        } = &self.parameters.pod;
        let mut spec = json!({
            "serviceAccountName": self.name,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": self.grace(),
            "securityContext": {
                "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": [
                self.spread("kubernetes.io/hostname"),
                self.spread("topology.kubernetes.io/zone"),
            ],
            "containers": [self.container()],
            "volumes": [
                {"name": "controller", "configMap": {"name": self.name}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {
                    "audience": AUDIENCE, "expirationSeconds": 3600, "path": "token",
                }}]}},
            ],
        });
        if self.shares()
            && let Some(volumes) = spec["volumes"].as_array_mut()
        {
            volumes.push(
                json!({"name": "sharing", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
            );
        }
        let secrets = self.parameters.image_pull_secrets.iter().flatten();
        let secrets: Vec<_> = secrets.map(|name| json!({"name": name})).collect();
        if !secrets.is_empty() {
            spec["imagePullSecrets"] = secrets.into();
        }
        let mut put = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec[field] = value;
            }
        };
        put("nodeSelector", node_selector.as_ref().map(|v| json!(v)));
        put("tolerations", tolerations.as_ref().map(|v| json!(v)));
        put("affinity", affinity.clone());
        put(
            "priorityClassName",
            priority_class_name.as_deref().map(Value::from),
        );
        spec
    }

    /// As even as can be had; a Pod that fits nowhere else may go anywhere.
    fn spread(&self, over: &str) -> Value {
        json!({
            "maxSkew": 1,
            "topologyKey": over,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": self.selector()},
        })
    }

    fn container(&self) -> Value {
        let wanted = self.parameters;
        let probe = |path: &str, period: u32, failures: u32| {
            json!({
                "httpGet": {"path": path, "port": "admin"},
                "periodSeconds": period,
                "failureThreshold": failures,
                "timeoutSeconds": 2,
            })
        };
        let image = wanted.image.as_deref().unwrap_or(&self.settings.image);
        let mut container = json!({
            "name": "gateway",
            "image": image,
            "args": self.args(),
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "ports": [{"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}],
            "readinessProbe": probe("/readyz", 5, 2),
            "livenessProbe": probe("/healthz", 10, 6),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "resources": match &wanted.resources {
                Some(resources) => json!(resources),
                None => json!({"requests": {"cpu": "100m", "memory": "128Mi"}}),
            },
            "volumeMounts": [
                {"name": "controller", "mountPath": "/etc/pointsman/controller", "readOnly": true},
                {"name": "token", "mountPath": "/var/run/secrets/pointsman", "readOnly": true},
            ],
        });
        if self.shares()
            && let Some(mounts) = container["volumeMounts"].as_array_mut()
        {
            mounts.push(json!({"name": "sharing", "mountPath": SHARING_FOLDER}));
        }
        if let Some(policy) = wanted.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        container
    }

    fn args(&self) -> Vec<String> {
        let meta = &self.gateway.meta;
        let drain = self.grace().saturating_sub(FAREWELL + MARGIN).max(1);
        let own = [
            "serve".to_owned(),
            format!("--gateway={}/{}", meta.namespace, meta.name),
            format!("--controller={}", self.settings.address),
            "--controller-ca=/etc/pointsman/controller/ca.crt".to_owned(),
            "--token-file=/var/run/secrets/pointsman/token".to_owned(),
            format!("--controller-name={}", self.settings.controller_name),
            format!("--admin=0.0.0.0:{ADMIN_PORT}"),
            format!("--farewell={FAREWELL}s"),
            format!("--drain-timeout={drain}s"),
        ];
        let siblings = siblings_name(&self.name);
        let sharing = [
            format!("--sharing-listen=0.0.0.0:{SHARING_PORT}"),
            format!(
                "--siblings={siblings}.{}.svc:{SHARING_PORT}",
                meta.namespace
            ),
            format!("--sharing-token-file={SHARING_FOLDER}/token"),
            "--sharing-token-from-controller".to_owned(),
        ];
        let sharing = sharing.into_iter().filter(|_| self.shares());
        let further = self.parameters.args.iter().flatten().cloned();
        own.into_iter().chain(sharing).chain(further).collect()
    }

    fn grace(&self) -> u32 {
        self.parameters
            .termination_grace_period_seconds
            .unwrap_or(GRACE)
    }

    fn budget(&self) -> Value {
        let mut spec = json!({"selector": {"matchLabels": self.selector()}});
        match &self.parameters.pod_disruption_budget {
            Some(Disruption::MinAvailable(value)) => spec["minAvailable"] = value.clone(),
            Some(Disruption::MaxUnavailable(value)) => spec["maxUnavailable"] = value.clone(),
            None => spec["maxUnavailable"] = 1.into(),
        }
        spec
    }
}

fn texts<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> Map<String, Value> {
    let pairs: BTreeMap<_, _> = pairs.collect();
    pairs
        .into_iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect()
}

//! Pods, as far as routing looks at them: labels, ports to narrow down, readiness and address.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::meta::Meta;
use crate::open_enum::open_enum;

/// Annotations that narrow the ports of a pool's pod (`"8000,8001"`); the first one that is there counts.
pub const ACTIVE_PORTS_ANNOTATIONS: [&str; 2] = [
    "llm-d.ai/active-ports",
    "inference.networking.k8s.io/active-ports",
];

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// What it is doing.
    #[serde(default)]
    pub status: PodStatus,
}

open_enum! {
    /// Where a Pod is in its life.
    pub enum PodPhase {
        /// Not all containers have started.
        Pending = "Pending",
        /// Bound and started.
        Running = "Running",
        /// All containers ended well.
        Succeeded = "Succeeded",
        /// All containers ended, one badly.
        Failed = "Failed",
    }
    default Pending
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Phase.
    pub phase: PodPhase,
    /// First address.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PodCondition>,
}

/// One condition of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// `Ready`, `PodScheduled`, ...
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

impl Pod {
    /// The address, where it has one. A Pod that has ended has none: its address may already be another Pod's.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let ended = matches!(self.status.phase, PodPhase::Succeeded | PodPhase::Failed);
        self.status
            .pod_ip
            .as_deref()
            .filter(|_| !ended)?
            .parse()
            .ok()
    }

    /// Whether new requests may be sent: its condition `Ready` holds and it is not being deleted.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let ready = |condition: &PodCondition| {
            condition.condition_type == "Ready" && condition.status == "True"
        };
        self.meta.deletion_timestamp.is_none()
            && self.ip().is_some()
            && self.status.conditions.iter().any(ready)
    }

    /// The ports to which the Pod wants a pool's traffic to be limited; `None` where it does not say, or where what it
    /// says is no list of ports.
    #[must_use]
    pub fn active_ports(&self) -> Option<Vec<u16>> {
        let text = ACTIVE_PORTS_ANNOTATIONS
            .iter()
            .find_map(|name| self.meta.annotations.get(*name))?;
        let ports: Result<Vec<u16>, _> = text.split(',').map(|port| port.trim().parse()).collect();
        ports.ok()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Object, Pod, decode_yaml};

    fn pod(status: &str, meta: &str) -> std::sync::Arc<Pod> {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a{meta}}}\nspec: {{containers: [{{name: a, image: b}}]}}\nstatus: {{{status}}}\n"
        );
        match decode_yaml(&text).remove(0).result {
            Ok(Object::Pod(pod)) => pod,
            other => panic!("{other:?}"),
        }
    }

    const READY: &str =
        "conditions: [{type: PodScheduled, status: 'True'}, {type: Ready, status: 'True'}]";

    #[test]
    fn a_pod_takes_traffic_while_it_is_ready_and_stays() {
        let deleted = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
        let cases = [
            (
                "phase: Running, podIP: 10.0.0.1, CONDITIONS",
                "",
                true,
                true,
            ),
            (
                "phase: Running, podIP: 10.0.0.1, CONDITIONS",
                deleted,
                true,
                false,
            ),
            ("phase: Running, podIP: 10.0.0.1", "", true, false),
            ("phase: Running, CONDITIONS", "", false, false),
            (
                "phase: Running, podIP: nonsense, CONDITIONS",
                "",
                false,
                false,
            ),
            (
                "phase: Succeeded, podIP: 10.0.0.1, CONDITIONS",
                "",
                false,
                false,
            ),
            (
                "phase: Failed, podIP: 10.0.0.1, CONDITIONS",
                "",
                false,
                false,
            ),
            (
                "phase: Dreaming, podIP: 10.0.0.1, CONDITIONS",
                "",
                true,
                true,
            ),
            (
                "phase: Running, podIP: 'fd00::1', CONDITIONS",
                "",
                true,
                true,
            ),
        ];
        for (status, meta, addressed, ready) in cases {
            let pod = pod(&status.replace("CONDITIONS", READY), meta);
            assert_eq!(
                (pod.ip().is_some(), pod.is_ready()),
                (addressed, ready),
                "{status} {meta}"
            );
        }
    }

    #[test]
    fn active_ports_are_read_from_either_annotation() {
        let annotated = |text: &str| pod("phase: Running", &format!(", annotations: {{{text}}}"));
        let read = |text: &str| annotated(text).active_ports();
        assert_eq!(read(""), None);
        let (ours, old) = (
            super::ACTIVE_PORTS_ANNOTATIONS[0],
            super::ACTIVE_PORTS_ANNOTATIONS[1],
        );
        assert_eq!(
            read(&format!("{old}: '8000, 8001'")),
            Some(vec![8000, 8001])
        );
        assert_eq!(read(&format!("{old}: '1', {ours}: '2'")), Some(vec![2]));
        assert_eq!(read(&format!("{ours}: 'all'")), None);
    }
}

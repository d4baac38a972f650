//! InferencePool v1alpha2 to v1 and back, by the rules of the inference extension's conversion functions.
//!
//! The two live in different API groups, so this is no version conversion by an API server: both objects may exist
//! side by side. Differences beyond names: v1alpha2 has one port and no `appProtocol`; its status begins with a
//! synthetic parent (`kind: Status, name: default`) that stands for "nobody has looked yet"; and the reason
//! `NotSupportedByGateway` became `NotSupportedByParent`.

use crate::inference::{
    AppProtocol, DEFAULT_PICKER_PORT, EndpointPickerRef, ExtensionRef, InferencePool,
    InferencePoolSpec, InferencePoolSpecV1Alpha2, InferencePoolStatus, InferencePoolStatusV1Alpha2,
    InferencePoolV1Alpha2, PoolParentStatus, PoolPort, PoolSelector,
};
use crate::route::Condition;
use crate::{INFERENCE_GROUP, INFERENCE_X_GROUP};

const OLD_REASON: &str = "NotSupportedByGateway";
const NEW_REASON: &str = "NotSupportedByParent";

/// A pool that v1alpha2 cannot express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// There is no port to take over.
    #[error("spec.targetPorts: a v1alpha2 pool needs a port and the v1 pool has none")]
    NoTargetPort,
}

/// The same pool in the shape of v1, still carrying its own `apiVersion`.
#[must_use]
pub fn from_v1alpha2(pool: &InferencePoolV1Alpha2) -> InferencePool {
    let spec = &pool.spec;
    InferencePool {
        api_version: pool.api_version.clone(),
        meta: pool.meta.clone(),
        spec: InferencePoolSpec {
            selector: PoolSelector {
                match_labels: spec.selector.clone(),
            },
            target_ports: vec![PoolPort {
                number: spec.target_port_number,
            }],
            app_protocol: AppProtocol::Http,
            endpoint_picker_ref: spec.extension_ref.as_ref().map(picker_from_extension),
        },
        status: pool.status.as_ref().map(status_from_v1alpha2),
    }
}

/// The v1 object that a v1alpha2 object becomes when it is migrated.
#[must_use]
pub fn to_v1(pool: &InferencePoolV1Alpha2) -> InferencePool {
    InferencePool {
        api_version: format!("{INFERENCE_GROUP}/v1"),
        ..from_v1alpha2(pool)
    }
}

/// The v1alpha2 object for a v1 pool. Only the first port survives, and `appProtocol` is lost.
///
/// # Errors
/// When the pool has no port.
pub fn to_v1alpha2(pool: &InferencePool) -> Result<InferencePoolV1Alpha2, ConversionError> {
    let port = pool
        .spec
        .target_ports
        .first()
        .ok_or(ConversionError::NoTargetPort)?;
    Ok(InferencePoolV1Alpha2 {
        api_version: format!("{INFERENCE_X_GROUP}/v1alpha2"),
        meta: pool.meta.clone(),
        spec: InferencePoolSpecV1Alpha2 {
            selector: pool.spec.selector.match_labels.clone(),
            target_port_number: port.number,
            extension_ref: pool
                .spec
                .endpoint_picker_ref
                .as_ref()
                .map(extension_from_picker),
        },
        status: pool.status.as_ref().map(status_to_v1alpha2),
    })
}

fn picker_from_extension(extension: &ExtensionRef) -> EndpointPickerRef {
    EndpointPickerRef {
        group: extension.group.clone(),
        kind: extension.kind.clone(),
        name: extension.name.clone(),
        port: Some(PoolPort {
            number: extension.port_number,
        }),
        failure_mode: extension.failure_mode.clone(),
    }
}

fn extension_from_picker(picker: &EndpointPickerRef) -> ExtensionRef {
    ExtensionRef {
        group: picker.group.clone(),
        kind: picker.kind.clone(),
        name: picker.name.clone(),
        port_number: picker.port.map_or(DEFAULT_PICKER_PORT, |port| port.number),
        failure_mode: picker.failure_mode.clone(),
    }
}

fn status_from_v1alpha2(status: &InferencePoolStatusV1Alpha2) -> InferencePoolStatus {
    let real = status.parents.iter().filter(|parent| !is_synthetic(parent));
    let parents = real.map(|parent| {
        let mut parent = parent.clone();
        parent.conditions.retain(|condition| !is_default(condition));
        rename_reasons(&mut parent, OLD_REASON, NEW_REASON);
        parent
    });
    InferencePoolStatus {
        parents: parents.collect(),
    }
}

fn status_to_v1alpha2(status: &InferencePoolStatus) -> InferencePoolStatusV1Alpha2 {
    let parents = status.parents.iter().map(|parent| {
        let mut parent = parent.clone();
        rename_reasons(&mut parent, NEW_REASON, OLD_REASON);
        parent
    });
    InferencePoolStatusV1Alpha2 {
        parents: parents.collect(),
    }
}

fn is_synthetic(parent: &PoolParentStatus) -> bool {
    parent.parent_ref.kind == "Status" && parent.parent_ref.name == "default"
}

/// The condition that the v1alpha2 definition fills in before any controller has looked.
fn is_default(condition: &Condition) -> bool {
    condition.condition_type == "Accepted"
        && condition.status == "Unknown"
        && condition.reason == "Pending"
        && condition.message == "Waiting for controller"
}

fn rename_reasons(parent: &mut PoolParentStatus, from: &str, to: &str) {
    for condition in parent
        .conditions
        .iter_mut()
        .filter(|condition| condition.reason == from)
    {
        to.clone_into(&mut condition.reason);
    }
}

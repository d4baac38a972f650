//! Rules of the inference kinds. A v1alpha2 pool is held in the shape of v1, so complaints about it name the fields its
//! author wrote.

use super::{Check, names};
use crate::inference::{
    AppProtocol, Criticality, EndpointPickerRef, FailureMode, InferenceModel,
    InferenceModelRewrite, InferenceObjective, InferencePool, ModelMatchType, PoolRef,
};

/// What the two versions of a pool call the same fields.
struct PoolFields {
    selector: &'static str,
    picker: &'static str,
    picker_port: &'static str,
    port: fn(usize) -> String,
}

const V1: PoolFields = PoolFields {
    selector: "spec.selector.matchLabels",
    picker: "spec.endpointPickerRef",
    picker_port: "spec.endpointPickerRef.port.number",
    port: |index| format!("spec.targetPorts[{index}].number"),
};

const V1ALPHA2: PoolFields = PoolFields {
    selector: "spec.selector",
    picker: "spec.extensionRef",
    picker_port: "spec.extensionRef.portNumber",
    port: |_| "spec.targetPortNumber".to_owned(),
};

pub(super) fn pool(check: &mut Check, pool: &InferencePool) {
    let fields = if pool.is_v1alpha2() { V1ALPHA2 } else { V1 };
    let spec = &pool.spec;
    check.count(fields.selector, spec.selector.match_labels.len(), 1, 64);
    check.labels(fields.selector, &spec.selector.match_labels);
    check.count("spec.targetPorts", spec.target_ports.len(), 1, 8);
    check.unique(
        spec.target_ports.iter().map(|port| port.number),
        fields.port,
        "the port number",
    );
    for (index, port) in spec.target_ports.iter().enumerate() {
        check.port(&(fields.port)(index), port.number);
    }
    check.ensure(!spec.app_protocol.is_unknown(), "spec.appProtocol", || {
        known(AppProtocol::KNOWN)
    });
    if let Some(picker) = &spec.endpoint_picker_ref {
        check_picker(check, &fields, picker);
    }
}

fn check_picker(check: &mut Check, fields: &PoolFields, picker: &EndpointPickerRef) {
    let path = fields.picker;
    check.object_name(&format!("{path}.name"), &picker.name);
    check.text(&format!("{path}.kind"), &picker.kind, 63);
    check.ensure(
        picker.group.is_empty() || names::is_dns_subdomain(&picker.group),
        &format!("{path}.group"),
        || format!("{:?} is no API group", picker.group),
    );
    match picker.port {
        Some(port) => check.port(fields.picker_port, port.number),
        None => check.ensure(
            picker.kind != "Service",
            &format!("{path}.port"),
            || "port is required when kind is 'Service' or unspecified (defaults to 'Service')",
        ),
    }
    check.ensure(
        !picker.failure_mode.is_unknown(),
        &format!("{path}.failureMode"),
        || known(FailureMode::KNOWN),
    );
}

fn known(values: &[&str]) -> String {
    format!("must be one of {}", values.join(", "))
}

fn pool_ref(check: &mut Check, reference: &PoolRef) {
    check.object_name("spec.poolRef.name", &reference.name);
    check.text("spec.poolRef.kind", &reference.kind, 63);
}

pub(super) fn model(check: &mut Check, model: &InferenceModel) {
    let spec = &model.spec;
    check.text("spec.modelName", &spec.model_name, 256);
    pool_ref(check, &spec.pool_ref);
    let understood = spec
        .criticality
        .as_ref()
        .is_none_or(|criticality| !criticality.is_unknown());
    check.ensure(understood, "spec.criticality", || known(Criticality::KNOWN));
    check.count("spec.targetModels", spec.target_models.len(), 0, 10);
    for (index, target) in spec.target_models.iter().enumerate() {
        check.text(
            &format!("spec.targetModels[{index}].name"),
            &target.name,
            253,
        );
    }
    let weights: Vec<_> = spec
        .target_models
        .iter()
        .map(|target| target.weight)
        .collect();
    check.all_or_none_weights("spec.targetModels", &weights);
}

pub(super) fn objective(check: &mut Check, objective: &InferenceObjective) {
    pool_ref(check, &objective.spec.pool_ref);
}

pub(super) fn rewrite(check: &mut Check, rewrite: &InferenceModelRewrite) {
    pool_ref(check, &rewrite.spec.pool_ref);
    for (index, rule) in rewrite.spec.rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        for (index, found) in rule.matches.iter().enumerate() {
            let Some(model) = &found.model else { continue };
            let path = format!("{path}.matches[{index}].model");
            check.ensure(
                !model.value.is_empty(),
                &format!("{path}.value"),
                || "must not be empty",
            );
            check.ensure(
                !model.match_type.is_unknown(),
                &format!("{path}.type"),
                || known(ModelMatchType::KNOWN),
            );
        }
        for (index, target) in rule.targets.iter().enumerate() {
            let path = format!("{path}.targets[{index}].modelRewrite");
            check.ensure(
                !target.model_rewrite.is_empty(),
                &path,
                || "must not be empty",
            );
        }
        let weights: Vec<_> = rule.targets.iter().map(|target| target.weight).collect();
        check.all_or_none_weights(&format!("{path}.targets"), &weights);
    }
}

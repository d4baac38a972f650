//! Rules of ReferenceGrant and BackendTLSPolicy.

use super::{Check, names};
use crate::policy::{
    BackendTlsPolicy, BackendTlsValidation, ReferenceGrant, SubjectAltName, SubjectAltNameType,
};

pub(super) fn reference_grant(check: &mut Check, grant: &ReferenceGrant) {
    check.count("spec.from", grant.spec.from.len(), 1, 16);
    check.count("spec.to", grant.spec.to.len(), 1, 16);
    for (index, from) in grant.spec.from.iter().enumerate() {
        check.text(&format!("spec.from[{index}].kind"), &from.kind, 63);
        check.ensure(
            names::is_dns_label(&from.namespace),
            &format!("spec.from[{index}].namespace"),
            || format!("{:?} is no valid namespace", from.namespace),
        );
    }
    for (index, to) in grant.spec.to.iter().enumerate() {
        check.text(&format!("spec.to[{index}].kind"), &to.kind, 63);
        if let Some(name) = &to.name {
            check.object_name(&format!("spec.to[{index}].name"), name);
        }
    }
}

pub(super) fn backend_tls_policy(check: &mut Check, policy: &BackendTlsPolicy) {
    let targets = &policy.spec.target_refs;
    check.count("spec.targetRefs", targets.len(), 1, 16);
    check.unique(
        targets,
        |index| format!("spec.targetRefs[{index}]"),
        "the target",
    );
    for (index, target) in targets.iter().enumerate() {
        check.object_name(&format!("spec.targetRefs[{index}].name"), &target.name);
        check.text(&format!("spec.targetRefs[{index}].kind"), &target.kind, 63);
    }
    check_validation(check, &policy.spec.validation);
}

fn check_validation(check: &mut Check, validation: &BackendTlsValidation) {
    let references = !validation.ca_certificate_refs.is_empty();
    let well_known = validation.well_known_ca_certificates.is_some();
    check.ensure(
        references || well_known,
        "spec.validation",
        || "one of caCertificateRefs and wellKnownCACertificates is needed",
    );
    check.ensure(
        !(references && well_known),
        "spec.validation",
        || "caCertificateRefs and wellKnownCACertificates exclude each other",
    );
    check.count(
        "spec.validation.caCertificateRefs",
        validation.ca_certificate_refs.len(),
        0,
        8,
    );
    check.ensure(
        names::is_precise_hostname(&validation.hostname),
        "spec.validation.hostname",
        || format!("{:?} is no hostname without wildcard", validation.hostname),
    );
    check.count(
        "spec.validation.subjectAltNames",
        validation.subject_alt_names.len(),
        0,
        5,
    );
    for (index, name) in validation.subject_alt_names.iter().enumerate() {
        check_alt_name(
            check,
            &format!("spec.validation.subjectAltNames[{index}]"),
            name,
        );
    }
}

fn check_alt_name(check: &mut Check, path: &str, name: &SubjectAltName) {
    let hostname = name.name_type == SubjectAltNameType::Hostname;
    let uri = name.name_type == SubjectAltNameType::Uri;
    check.ensure(
        hostname == name.hostname.is_some(),
        &format!("{path}.hostname"),
        || "must be set for type Hostname, and for no other",
    );
    check.ensure(
        uri == name.uri.is_some(),
        &format!("{path}.uri"),
        || "must be set for type URI, and for no other",
    );
    if let Some(hostname) = &name.hostname {
        check.ensure(
            names::is_hostname(hostname),
            &format!("{path}.hostname"),
            || format!("{hostname:?} is no hostname"),
        );
    }
}

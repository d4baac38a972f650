//! TLS towards servers, out of BackendTLSPolicies.
//!
//! A policy for one port of a Service (`sectionName`) beats one for the whole Service; among equals the oldest wins and
//! the others are `Conflicted`. A policy that cannot be used never means "no TLS": its servers are not reached at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::policy::{PolicyTargetRef, SubjectAltName, SubjectAltNameType, WellKnownCaCertificates};
use api::{BackendTlsPolicy, LocalObjectRef, ObjectKey, Objects, Resource};

use super::ObjectStatus;
use super::certificates::has_pem;
use super::conditions::{Problem, generation, positive};
use crate::plan::{AltName, UpstreamTls, Verify};

/// What a policy applies to.
#[derive(Clone, Copy)]
pub(super) struct TlsTarget<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// Name of the port.
    pub(super) section: &'a str,
}

/// All BackendTLSPolicies, by namespace, oldest first.
pub(super) struct Policies<'o> {
    objects: &'o Objects,
    by_namespace: BTreeMap<&'o str, Vec<&'o BackendTlsPolicy>>,
}

/// What was found out about a policy.
#[derive(Debug, Clone)]
pub(super) struct PolicyUse {
    pub(super) key: ObjectKey,
    pub(super) generation: i64,
    pub(super) refused: Option<Problem>,
    pub(super) unresolved: Option<Problem>,
}

/// The TLS of one target.
#[derive(Default)]
pub(super) struct Found {
    /// `None`: no policy applies. An error: a policy applies and cannot be used.
    pub(super) tls: Option<Result<UpstreamTls, Problem>>,
    pub(super) uses: Vec<PolicyUse>,
}

impl<'o> Policies<'o> {
    pub(super) fn new(objects: &'o Objects) -> Self {
        let mut by_namespace: BTreeMap<_, Vec<&BackendTlsPolicy>> = BTreeMap::new();
        for policy in objects.backend_tls_policies() {
            by_namespace
                .entry(policy.meta.namespace.as_str())
                .or_default()
                .push(policy);
        }
        for policies in by_namespace.values_mut() {
            policies.sort_by_key(|policy| super::assemble::age(&policy.meta));
        }
        Self {
            objects,
            by_namespace,
        }
    }

    /// The policy for a target, if there is one.
    pub(super) fn find(&self, target: TlsTarget<'_>) -> Found {
        let policies = self
            .by_namespace
            .get(target.namespace)
            .map_or(&[][..], Vec::as_slice);
        let mut fitting: Vec<_> = policies
            .iter()
            .filter_map(|policy| Some((rank(policy, target)?, *policy)))
            .collect();
        fitting.sort_by_key(|(rank, _)| *rank);
        let Some((best, policy)) = fitting.first() else {
            return Found::default();
        };
        let (tls, mine) = self.resolve(policy);
        let losers = fitting[1..]
            .iter()
            .filter(|(rank, _)| rank == best)
            .map(|(_, loser)| PolicyUse {
                refused: Some(Problem::new(
                    "Conflicted",
                    format!("{} applies to the same target", policy.key()),
                )),
                ..unjudged(loser)
            });
        Found {
            uses: std::iter::once(mine).chain(losers).collect(),
            tls: Some(tls),
        }
    }

    /// What to say about policies of which no target exists.
    pub(super) fn dangling(&self) -> Vec<ObjectStatus> {
        let exists = |policy: &BackendTlsPolicy, target: &PolicyTargetRef| {
            let PolicyTargetRef {
                group, kind, name, ..
            } = target;
            self.objects
                .contains(&ObjectKey::new(group, kind, &policy.meta.namespace, name))
        };
        let all = self.by_namespace.values().flatten();
        let lost = all.filter(|policy| {
            !policy
                .spec
                .target_refs
                .iter()
                .any(|target| exists(policy, target))
        });
        let say = |policy: &&BackendTlsPolicy| {
            let problem = Problem::new("TargetNotFound", "none of its targets exists");
            ObjectStatus::of(
                policy.key(),
                vec![positive(
                    "Accepted",
                    Some(&problem),
                    generation(&policy.meta),
                )],
            )
        };
        lost.map(say).collect()
    }

    fn resolve(&self, policy: &BackendTlsPolicy) -> (Result<UpstreamTls, Problem>, PolicyUse) {
        let validation = &policy.spec.validation;
        let mut judged = unjudged(policy);
        let alt_names: Result<Vec<_>, _> =
            validation.subject_alt_names.iter().map(alt_name).collect();
        let verify = if validation.hostname.is_empty() {
            Err(Problem::new("Invalid", "validation.hostname is empty"))
        } else if !validation.ca_certificate_refs.is_empty() {
            self.roots(
                &policy.meta.namespace,
                &validation.ca_certificate_refs,
                &mut judged,
            )
        } else {
            match &validation.well_known_ca_certificates {
                Some(WellKnownCaCertificates::System) => Ok(Verify::System),
                Some(WellKnownCaCertificates::Unknown(other)) => Err(Problem::new(
                    "Invalid",
                    format!("wellKnownCACertificates {other} is not supported"),
                )),
                None => Err(Problem::new("Invalid", "no authorities are named")),
            }
        };
        let tls = verify.and_then(|verify| {
            Ok(UpstreamTls {
                server_name: Some(validation.hostname.clone()),
                verify,
                alt_names: alt_names?,
                client: None,
            })
        });
        judged.refused = tls.as_ref().err().cloned();
        (tls, judged)
    }

    /// The authorities of all references that can be read; an error if there is none.
    fn roots(
        &self,
        namespace: &str,
        references: &[LocalObjectRef],
        judged: &mut PolicyUse,
    ) -> Result<Verify, Problem> {
        let mut roots = Vec::new();
        let mut problems = Vec::new();
        for reference in references {
            match self.authority(namespace, reference) {
                Ok(pem) => {
                    roots.extend_from_slice(pem);
                    roots.push(b'\n');
                }
                Err(problem) => problems.push(problem),
            }
        }
        judged.unresolved = Problem::join(&problems);
        match &judged.unresolved {
            Some(problem) if roots.is_empty() => {
                Err(Problem::new("NoValidCACertificate", &problem.message))
            }
            _ => Ok(Verify::Roots(Arc::from(roots))),
        }
    }

    fn authority(&self, namespace: &str, reference: &LocalObjectRef) -> Result<&'o [u8], Problem> {
        let name = &reference.name;
        let pem = match (reference.group.as_str(), reference.kind.as_str()) {
            ("", "ConfigMap") => self
                .objects
                .config_map(namespace, name)
                .and_then(|map| map.data.get("ca.crt"))
                .map(String::as_bytes),
            ("", "Secret") => self
                .objects
                .secret(namespace, name)
                .and_then(|secret| secret.data.get("ca.crt"))
                .map(api::SecretBytes::expose),
            (_, kind) => {
                return Err(Problem::new(
                    "InvalidKind",
                    format!("{kind} cannot hold authorities"),
                ));
            }
        };
        pem.filter(|pem| has_pem(pem, |label| label == "CERTIFICATE"))
            .ok_or_else(|| {
                let message = format!(
                    "{} {namespace}/{name} has no readable certificate in ca.crt",
                    reference.kind
                );
                Problem::new("InvalidCACertificateRef", message)
            })
    }
}

fn alt_name(wanted: &SubjectAltName) -> Result<AltName, Problem> {
    let kind = &wanted.name_type;
    let named = match kind {
        SubjectAltNameType::Hostname => wanted.hostname.clone().map(AltName::Dns),
        SubjectAltNameType::Uri => wanted.uri.clone().map(AltName::Uri),
        SubjectAltNameType::Unknown(_) => None,
    };
    named.ok_or_else(|| {
        let message = format!("a subjectAltName of type {kind} is not supported or has no value");
        Problem::new("Invalid", message)
    })
}

fn unjudged(policy: &BackendTlsPolicy) -> PolicyUse {
    PolicyUse {
        key: policy.key(),
        generation: generation(&policy.meta),
        refused: None,
        unresolved: None,
    }
}

/// 0: for this port; 1: for the whole object; `None`: for something else.
fn rank(policy: &BackendTlsPolicy, target: TlsTarget<'_>) -> Option<u8> {
    let fits = policy.spec.target_refs.iter().filter(|reference| {
        reference.group == target.group
            && reference.kind == target.kind
            && reference.name == target.name
    });
    let ranks = fits.filter_map(|reference| match reference.section_name.as_deref() {
        None => Some(1),
        Some(section) => (section == target.section).then_some(0),
    });
    ranks.min()
}

//! The words of the APIs: condition types, reasons, and what to say about Gateways, listeners and pools.

use std::collections::{BTreeMap, BTreeSet};

use api::{Meta, ObjectKey, Resource};

use super::backends::Usage;
use super::claim::Claim;
use super::frontend;
use super::listeners::OpenListener;
use super::pools::BuiltPool;
use super::sets::{self, AttachedSet};
use super::{ObjectStatus, Outcome};
use crate::plan::PoolKey;
use crate::status::{Condition, ParentKey};

/// Something wrong with an object, in the words of its API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// Several problems as one: the first one's reason, everybody's message.
    pub(super) fn join(problems: &[Self]) -> Option<Self> {
        let first = problems.first()?;
        let mut messages: Vec<&str> = Vec::new();
        for problem in problems {
            if !messages.contains(&problem.message.as_str()) {
                messages.push(&problem.message);
            }
        }
        Some(Self::new(first.reason, messages.join("; ")))
    }
}

/// `type: True, reason: type` where all is well, else what the problem says.
pub(super) fn positive(
    type_: &'static str,
    problem: Option<&Problem>,
    generation: i64,
) -> Condition {
    match problem {
        None => Condition::new(type_, true, type_, "", generation),
        Some(problem) => Condition::new(
            type_,
            false,
            problem.reason,
            problem.message.clone(),
            generation,
        ),
    }
}

/// `metadata.generation`; 1 where a file has none.
pub(super) fn generation(meta: &Meta) -> i64 {
    meta.generation.unwrap_or(1)
}

/// Conditions of Gateways and their listeners.
pub(super) fn gateways(
    claims: &[Claim<'_>],
    sets: &[AttachedSet<'_>],
    listeners: &[OpenListener<'_>],
    out: &mut Outcome,
) {
    for (index, claim) in claims.iter().enumerate() {
        let key = claim.gateway.key();
        let generation = generation(&claim.gateway.meta);
        let all = || listeners.iter().filter(|one| one.claim == index);
        let own: Vec<_> = all().filter(|listener| listener.set.is_none()).collect();
        let valid = own
            .iter()
            .filter(|listener| listener.refusal().is_none())
            .count();
        let programmed = all().any(OpenListener::serves);
        let accepted = match &claim.problem {
            Some(problem) => positive("Accepted", Some(problem), generation),
            None if valid == own.len() && valid > 0 => positive("Accepted", None, generation),
            None => {
                let message = format!("{} of {} listeners are valid", valid, own.len());
                Condition::new(
                    "Accepted",
                    valid > 0,
                    "ListenersNotValid",
                    message,
                    generation,
                )
            }
        };
        let idle = Problem::new("Invalid", "no listener can serve");
        let programmed = positive("Programmed", (!programmed).then_some(&idle), generation);
        let mut conditions = vec![accepted, programmed];
        conditions.extend(tls_conditions(claim, generation));
        out.statuses.push(ObjectStatus {
            attached_listener_sets: sets::accepted(sets, listeners, index),
            ..ObjectStatus::of(key.clone(), conditions)
        });
        let of_listeners = own
            .iter()
            .map(|listener| listener_status(key.clone(), listener, generation));
        out.statuses.extend(of_listeners);
    }
}

/// What is to be said about the TLS of a whole Gateway, where it has any.
fn tls_conditions(claim: &Claim<'_>, generation: i64) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if let Some(identity) = &claim.identity {
        let problem = identity.as_ref().err();
        conditions.push(positive("ResolvedRefs", problem, generation));
    }
    if frontend::is_insecure(claim.gateway) {
        conditions.push(Condition::new(
            "InsecureFrontendValidationMode",
            true,
            "ConfigurationChanged",
            "clients without a valid certificate get in",
            generation,
        ));
    }
    conditions
}

/// The status of one listener of `object`.
pub(super) fn listener_status(
    object: ObjectKey,
    listener: &OpenListener<'_>,
    generation: i64,
) -> ObjectStatus {
    ObjectStatus {
        listener: Some(listener.spec.name.clone()),
        supported_kinds: listener.kinds.clone(),
        attached_routes: u32::try_from(listener.attached.len()).unwrap_or(u32::MAX),
        ..ObjectStatus::of(object, listener_conditions(listener, generation))
    }
}

fn listener_conditions(listener: &OpenListener<'_>, generation: i64) -> Vec<Condition> {
    let unresolved: Vec<_> = listener
        .kinds_problem
        .iter()
        .chain(&listener.certificate_problem)
        .chain(&listener.clients.unresolved)
        .cloned()
        .collect();
    let unresolved = Problem::join(&unresolved);
    let cause = listener.refusal().or(unresolved.as_ref());
    let reason = match (listener.set, &listener.conflict) {
        (Some(_), Some(conflict)) => conflict.reason,
        _ => "Invalid",
    };
    let idle = Problem::new(
        reason,
        cause.map_or("the Gateway is not accepted", |problem| &problem.message),
    );
    let conflicted = match &listener.conflict {
        Some(problem) => Condition::new(
            "Conflicted",
            true,
            problem.reason,
            problem.message.clone(),
            generation,
        ),
        None => Condition::new("Conflicted", false, "NoConflicts", "", generation),
    };
    vec![
        positive("Accepted", listener.refusal(), generation),
        positive(
            "Programmed",
            (!listener.serves()).then_some(&idle),
            generation,
        ),
        positive("ResolvedRefs", unresolved.as_ref(), generation),
        conflicted,
    ]
}

/// Conditions of InferencePools: one entry for each Gateway whose routes use the pool, and one without a parent where a
/// stand-in Gateway does.
pub(super) fn pools(
    built: &BTreeMap<PoolKey, BuiltPool>,
    usage: &BTreeMap<PoolKey, BTreeMap<Option<ParentKey>, Usage>>,
    out: &mut Outcome,
) {
    let mut said = BTreeSet::new();
    for (key, parents) in usage {
        let Some(pool) = built.get(key) else { continue };
        policies(pool, parents.keys(), &mut said, out);
        let Some(object) = &pool.object else { continue };
        for (parent, usage) in parents {
            let accepted = positive(
                "Accepted",
                usage.refused.as_ref().filter(|_| !usage.accepted),
                pool.generation,
            );
            let resolved = positive("ResolvedRefs", pool.problem.as_ref(), pool.generation);
            let status = ObjectStatus::of(object.clone(), vec![accepted, resolved]);
            out.statuses.push(ObjectStatus {
                parent: parent.clone(),
                ..status
            });
        }
    }
}

/// Conditions of the BackendTLSPolicies of a pool, for each Gateway that reaches it and of which nothing is `said`.
fn policies<'p>(
    pool: &BuiltPool,
    gateways: impl Iterator<Item = &'p Option<ParentKey>> + Clone,
    said: &mut BTreeSet<(ObjectKey, Option<ParentKey>)>,
    out: &mut Outcome,
) {
    for policy in &pool.policies {
        for gateway in gateways.clone() {
            if !said.insert((policy.key.clone(), gateway.clone())) {
                continue;
            }
            let accepted = positive("Accepted", policy.refused.as_ref(), policy.generation);
            let resolved = positive(
                "ResolvedRefs",
                policy.unresolved.as_ref(),
                policy.generation,
            );
            let status = ObjectStatus::of(policy.key.clone(), vec![accepted, resolved]);
            out.statuses.push(ObjectStatus {
                parent: gateway.clone(),
                ..status
            });
        }
    }
}

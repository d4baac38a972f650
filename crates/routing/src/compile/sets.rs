//! ListenerSets: listeners that other people add to a Gateway.
//!
//! A set belongs to the Gateway that it names, if that one's `allowedListeners` let it (by default none are let). Its
//! listeners then stand behind the Gateway's own, and older sets before younger ones: of two that want the same thing
//! the first has it and only the later is in conflict. References and `allowedRoutes: Same` are about the set's
//! namespace, and routes attach to a set by naming it (Gateway API, `ListenerSetSpec`).

use api::{FromNamespaces, GATEWAY_GROUP, ListenerSet, Objects, Resource};

use super::attach::selects;
use super::claim::Claim;
use super::conditions::{Problem, generation, listener_status, positive};
use super::listeners::OpenListener;
use super::{ObjectStatus, Outcome};
use crate::status::Condition;

/// A ListenerSet that names a Gateway of ours.
pub(super) struct AttachedSet<'o> {
    pub(super) set: &'o ListenerSet,
    /// Index of its Gateway among the claims.
    pub(super) claim: usize,
    /// Why it may not attach.
    pub(super) refused: Option<Problem>,
}

/// All sets that name one of our Gateways, in order of precedence.
pub(super) fn attached<'o>(objects: &'o Objects, claims: &[Claim<'o>]) -> Vec<AttachedSet<'o>> {
    let attached = |set: &'o ListenerSet| {
        let parent = &set.spec.parent_ref;
        let namespace = parent
            .namespace
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or(&set.meta.namespace);
        let is_gateway = parent.group == GATEWAY_GROUP && parent.kind == "Gateway";
        let claim = claims.iter().position(|claim| {
            let meta = &claim.gateway.meta;
            is_gateway && meta.namespace == namespace && meta.name == parent.name
        })?;
        Some(AttachedSet {
            set,
            claim,
            refused: refusal(objects, &claims[claim], set),
        })
    };
    let mut sets: Vec<_> = objects
        .listener_sets()
        .filter_map(|set| attached(set))
        .collect();
    sets.sort_by_cached_key(|attached| (attached.claim, super::assemble::age(&attached.set.meta)));
    sets
}

fn refusal(objects: &Objects, claim: &Claim<'_>, set: &ListenerSet) -> Option<Problem> {
    if let Some(problem) = &claim.problem {
        return Some(Problem::new("ParentNotAccepted", &problem.message));
    }
    let meta = &claim.gateway.meta;
    let allowed = claim.gateway.spec.allowed_listeners.as_ref();
    let namespaces = allowed.map(|allowed| &allowed.namespaces);
    let is_allowed = selects(
        objects,
        namespaces.map_or(&FromNamespaces::None, |all| &all.from),
        namespaces.and_then(|all| all.selector.as_ref()),
        (&meta.namespace, &set.meta.namespace),
    );
    let message = format!(
        "Gateway {}/{} allows no ListenerSets of this namespace",
        meta.namespace, meta.name
    );
    (!is_allowed).then(|| Problem::new("NotAllowed", message))
}

/// How many sets of a Gateway are accepted.
pub(super) fn accepted(
    sets: &[AttachedSet<'_>],
    listeners: &[OpenListener<'_>],
    claim: usize,
) -> u32 {
    let serving = |index: usize| {
        let mut own = listeners.iter().filter(|one| one.set == Some(index));
        own.any(OpenListener::serves)
    };
    let count = sets
        .iter()
        .enumerate()
        .filter(|(index, attached)| attached.claim == claim && serving(*index))
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Conditions of ListenerSets and their listeners.
pub(super) fn conditions(
    sets: &[AttachedSet<'_>],
    listeners: &[OpenListener<'_>],
    out: &mut Outcome,
) {
    for (index, attached) in sets.iter().enumerate() {
        let (key, generation) = (attached.set.key(), generation(&attached.set.meta));
        let own: Vec<_> = listeners
            .iter()
            .filter(|listener| listener.set == Some(index))
            .collect();
        let serving = own.iter().filter(|listener| listener.serves()).count();
        let message = format!("{serving} of {} listeners are valid", own.len());
        let none = || Problem::new("ListenersNotValid", message.clone());
        let refused = attached.refused.clone();
        let problem = refused.or_else(|| (serving == 0).then(none));
        let accepted = if problem.is_none() && serving < own.len() {
            Condition::new("Accepted", true, "ListenersNotValid", message, generation)
        } else {
            positive("Accepted", problem.as_ref(), generation)
        };
        let programmed = positive("Programmed", problem.as_ref(), generation);
        out.statuses
            .push(ObjectStatus::of(key.clone(), vec![accepted, programmed]));
        let of_listeners = own
            .iter()
            .map(|listener| listener_status(key.clone(), listener, generation));
        out.statuses.extend(of_listeners);
    }
}

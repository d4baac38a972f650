//! Which route attaches to which listener.
//!
//! For each parentRef the listeners of that Gateway are narrowed down: by `sectionName` and `port` (none left:
//! `NoMatchingParent`), by what the listener allows (`NotAllowedByListeners`), by hostname
//! (`NoMatchingListenerHostname`). The first stage that leaves nothing gives the reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{FromNamespaces, GATEWAY_GROUP, Objects, ParentRef};

use super::assemble::RankedRule;
use super::backends::Resolver;
use super::claim::Claim;
use super::conditions::{Problem, generation, positive};
use super::listeners::OpenListener;
use super::route::{CompiledRoute, RouteView};
use super::{Mode, ObjectStatus, Outcome};
use crate::hostname::route_hostnames;
use crate::plan::{Hostname, Rule};
use crate::status::{Condition, ParentKey};

/// What attaching reads and writes.
pub(super) struct Stage<'s, 'o> {
    pub(super) objects: &'o Objects,
    pub(super) claims: &'s [Claim<'o>],
    pub(super) mode: Mode,
    pub(super) listeners: &'s mut [OpenListener<'o>],
    pub(super) resolver: &'s mut Resolver<'o>,
    pub(super) out: &'s mut Outcome,
}

impl Stage<'_, '_> {
    /// Attaches a route to the listeners of all its parents.
    pub(super) fn attach(&mut self, view: &RouteView<'_>, route: &CompiledRoute) {
        let mut placed = BTreeSet::new();
        for reference in view.parents {
            if reference.group != GATEWAY_GROUP || reference.kind != "Gateway" {
                continue;
            }
            let parent = parent_key(view, reference);
            match self.claim_of(&parent) {
                Some(claim) => self.attach_to(claim, parent, view, route, &mut placed),
                None if self.mode == Mode::Files
                    && self
                        .objects
                        .gateway(&parent.namespace, &parent.name)
                        .is_none() =>
                {
                    let message = format!("Gateway {}/{} not found", parent.namespace, parent.name);
                    self.say(
                        view,
                        route,
                        parent,
                        Some(&Problem::new("NoMatchingParent", message)),
                    );
                }
                None => {}
            }
        }
    }

    fn claim_of(&self, parent: &ParentKey) -> Option<usize> {
        self.claims.iter().position(|claim| {
            claim.gateway.meta.namespace == parent.namespace
                && claim.gateway.meta.name == parent.name
        })
    }

    fn attach_to(
        &mut self,
        claim: usize,
        parent: ParentKey,
        view: &RouteView<'_>,
        route: &CompiledRoute,
        placed: &mut BTreeSet<usize>,
    ) {
        let refusal = match self.listeners_for(claim, &parent, view) {
            Ok(listeners) => {
                for (index, hostnames) in listeners {
                    let listener = &mut self.listeners[index];
                    if placed.insert(index) {
                        listener.rules.extend(rules(view, route, &hostnames));
                    }
                    if route.refused.is_none() {
                        listener.attached.insert(view.key.clone());
                    }
                }
                route.refused.clone()
            }
            Err(problem) => Some(problem),
        };
        let gateway = ParentKey {
            section: None,
            port: None,
            ..parent.clone()
        };
        let for_pools = refusal.as_ref().map(|problem| {
            let message = format!(
                "{} is not accepted by Gateway {}/{}: {}",
                view.key, parent.namespace, parent.name, problem.message
            );
            Problem::new("HTTPRouteNotAccepted", message)
        });
        for pool in &route.pools {
            self.resolver
                .used(pool, Some(gateway.clone()), for_pools.clone());
        }
        self.say(view, route, parent, refusal.as_ref());
    }

    /// The listeners a route attaches to by one reference, with the hostnames it serves there.
    fn listeners_for(
        &self,
        claim: usize,
        parent: &ParentKey,
        view: &RouteView<'_>,
    ) -> Result<Vec<(usize, Vec<Hostname>)>, Problem> {
        let named = self.listeners.iter().enumerate().filter(|(_, listener)| {
            listener.claim == claim
                && parent
                    .section
                    .as_ref()
                    .is_none_or(|name| *name == listener.spec.name)
                && parent.port.is_none_or(|port| port == listener.spec.port)
        });
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            return Err(Problem::new(
                "NoMatchingParent",
                "the Gateway has no listener of this name and port",
            ));
        }
        let allowed = named
            .into_iter()
            .filter(|(_, listener)| self.allows(listener, view));
        let allowed: Vec<_> = allowed.collect();
        if allowed.is_empty() {
            let message = "no listener allows routes of this kind and namespace";
            return Err(Problem::new("NotAllowedByListeners", message));
        }
        let shared = allowed.into_iter().filter_map(|(index, listener)| {
            Some((
                index,
                route_hostnames(listener.hostname.as_ref(), &view.hostnames)?,
            ))
        });
        let shared: Vec<_> = shared.collect();
        if shared.is_empty() {
            let message = "no listener shares a hostname with the route";
            return Err(Problem::new("NoMatchingListenerHostname", message));
        }
        Ok(shared)
    }

    fn allows(&self, listener: &OpenListener<'_>, view: &RouteView<'_>) -> bool {
        let own = &self.claims[listener.claim].gateway.meta.namespace;
        let namespaces = &listener.spec.allowed_routes.namespaces;
        let namespace = &view.meta.namespace;
        let from = match &namespaces.from {
            FromNamespaces::All => true,
            FromNamespaces::Same => namespace == own,
            FromNamespaces::Selector => {
                let mut labels = self
                    .objects
                    .namespace(namespace)
                    .map(|n| n.meta.labels.clone())
                    .unwrap_or_default();
                // Every namespace of a cluster has this label; files need not describe it.
                labels
                    .entry("kubernetes.io/metadata.name".to_owned())
                    .or_insert_with(|| namespace.clone());
                namespaces
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selector.matches(&labels))
            }
            FromNamespaces::None | FromNamespaces::Unknown(_) => false,
        };
        from && listener.conflict.is_none()
            && listener.kinds.iter().any(|kind| kind.kind == view.kind)
    }

    fn say(
        &mut self,
        view: &RouteView<'_>,
        route: &CompiledRoute,
        parent: ParentKey,
        refusal: Option<&Problem>,
    ) {
        let generation = generation(view.meta);
        let mut conditions = vec![
            positive("Accepted", refusal, generation),
            positive("ResolvedRefs", route.unresolved.as_ref(), generation),
        ];
        if let (None, Some(partial)) = (refusal, &route.partial) {
            let message = format!("Dropped Rule: {}", partial.message);
            conditions.push(Condition::new(
                "PartiallyInvalid",
                true,
                partial.reason,
                message,
                generation,
            ));
        }
        self.out
            .statuses
            .push(ObjectStatus::of(view.key.clone(), conditions).under(parent));
    }
}

fn parent_key(view: &RouteView<'_>, reference: &ParentRef) -> ParentKey {
    let namespace = reference
        .namespace
        .as_ref()
        .filter(|name| !name.is_empty())
        .unwrap_or(&view.meta.namespace);
    ParentKey {
        group: reference.group.clone(),
        kind: reference.kind.clone(),
        namespace: namespace.clone(),
        name: reference.name.clone(),
        section: reference.section_name.clone(),
        port: reference.port,
    }
}

/// One entry for each hostname and match, so that they can be put in order of precedence.
fn rules(view: &RouteView<'_>, route: &CompiledRoute, hostnames: &[Hostname]) -> Vec<RankedRule> {
    let names: Vec<_> = match hostnames {
        [] => vec![None],
        _ => hostnames.iter().map(Some).collect(),
    };
    let mut ranked = Vec::new();
    for (index, matches, template) in &route.rules {
        for (position, wanted) in matches.iter().enumerate() {
            for name in &names {
                let rule = Rule {
                    hostnames: name.iter().map(|name| (*name).clone()).collect(),
                    matches: wanted.clone(),
                    ..template.clone()
                };
                ranked.push(RankedRule::new(
                    view.meta,
                    (*index, position),
                    Arc::new(rule),
                ));
            }
        }
    }
    ranked
}

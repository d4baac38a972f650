//! Which route attaches to which listener.
//!
//! For each parentRef the listeners of that Gateway or ListenerSet are narrowed down: by `sectionName` and `port` (none left:
//! `NoMatchingParent`), by what the listener allows (`NotAllowedByListeners`), by hostname
//! (`NoMatchingListenerHostname`). The first stage that leaves nothing gives the reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{FromNamespaces, GATEWAY_GROUP, LabelSelector, ObjectKey, Objects, ParentRef};

use super::assemble::RankedRule;
use super::backends::Resolver;
use super::claim::Claim;
use super::conditions::{Problem, generation, positive};
use super::listeners::OpenListener;
use super::route::{CompiledRoute, RouteView};
use super::sets::AttachedSet;
use super::{Mode, ObjectStatus, Outcome};
use crate::hostname::route_hostnames;
use crate::plan::{Hostname, Rule};
use crate::status::{Condition, ParentKey};

/// What attaching reads and writes.
pub(super) struct Stage<'s, 'o> {
    pub(super) objects: &'o Objects,
    pub(super) claims: &'s [Claim<'o>],
    pub(super) sets: &'s [AttachedSet<'o>],
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
            let is_ours = ["Gateway", "ListenerSet"].contains(&reference.kind.as_str());
            if reference.group != GATEWAY_GROUP || !is_ours {
                continue;
            }
            let parent = parent_key(view, reference);
            match self.place_of(&parent) {
                Some(place) => self.attach_to(place, parent, view, route, &mut placed),
                None if self.mode == Mode::Files && !self.exists(&parent) => {
                    let ParentKey {
                        kind,
                        namespace,
                        name,
                        ..
                    } = &parent;
                    let message = format!("{kind} {namespace}/{name} not found");
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

    fn exists(&self, parent: &ParentKey) -> bool {
        let ParentKey {
            group,
            kind,
            namespace,
            name,
            ..
        } = parent;
        self.objects
            .contains(&ObjectKey::new(group, kind, namespace, name))
    }

    /// The Gateway of ours, and the ListenerSet if it is one, that a parent is.
    fn place_of(&self, parent: &ParentKey) -> Option<Place> {
        let is =
            |meta: &api::Meta| (&meta.namespace, &meta.name) == (&parent.namespace, &parent.name);
        if parent.kind == "ListenerSet" {
            let set = self.sets.iter().position(|one| is(&one.set.meta))?;
            return Some((self.sets[set].claim, Some(set)));
        }
        let claim = self.claims.iter().position(|one| is(&one.gateway.meta))?;
        Some((claim, None))
    }

    fn attach_to(
        &mut self,
        place: Place,
        parent: ParentKey,
        view: &RouteView<'_>,
        route: &CompiledRoute,
        placed: &mut BTreeSet<usize>,
    ) {
        let refusal = match self.listeners_for(place, &parent, view) {
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
        // Pools know Gateways only.
        let meta = &self.claims[place.0].gateway.meta;
        let gateway = ParentKey {
            group: GATEWAY_GROUP.to_owned(),
            kind: "Gateway".to_owned(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            section: None,
            port: None,
        };
        let for_pools = refusal.as_ref().map(|problem| {
            let message = format!(
                "{} is not accepted by {} {}/{}: {}",
                view.key, parent.kind, parent.namespace, parent.name, problem.message
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
        (claim, set): Place,
        parent: &ParentKey,
        view: &RouteView<'_>,
    ) -> Result<Vec<(usize, Vec<Hostname>)>, Problem> {
        let named = self.listeners.iter().enumerate().filter(|(_, listener)| {
            (listener.claim, listener.set) == (claim, set)
                && parent
                    .section
                    .as_ref()
                    .is_none_or(|name| *name == listener.spec.name)
                && parent.port.is_none_or(|port| port == listener.spec.port)
        });
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            let message = format!("the {} has no listener of this name and port", parent.kind);
            return Err(Problem::new("NoMatchingParent", message));
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
        let namespaces = &listener.spec.allowed_routes.namespaces;
        let from = selects(
            self.objects,
            &namespaces.from,
            namespaces.selector.as_ref(),
            (listener.home.0, &view.meta.namespace),
        );
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

/// Index of a Gateway among the claims, and of a ListenerSet of it.
type Place = (usize, Option<usize>);

/// Whether objects of namespace `other` may attach to an object of namespace `own`.
pub(super) fn selects(
    objects: &Objects,
    from: &FromNamespaces,
    selector: Option<&LabelSelector>,
    (own, other): (&str, &str),
) -> bool {
    match from {
        FromNamespaces::All => true,
        FromNamespaces::Same => own == other,
        FromNamespaces::Selector => {
            let mut labels = objects
                .namespace(other)
                .map(|namespace| namespace.meta.labels.clone())
                .unwrap_or_default();
            // Every namespace of a cluster has this label; files need not describe it.
            labels
                .entry("kubernetes.io/metadata.name".to_owned())
                .or_insert_with(|| other.to_owned());
            selector.is_some_and(|selector| selector.matches(&labels))
        }
        FromNamespaces::None | FromNamespaces::Unknown(_) => false,
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

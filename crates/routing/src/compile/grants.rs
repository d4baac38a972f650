//! References into other namespaces: allowed where a ReferenceGrant in the target's namespace says so.

use std::collections::BTreeMap;

use api::policy::GrantFrom;
use api::{GATEWAY_GROUP, Objects, ReferenceGrant};

/// All ReferenceGrants, by namespace.
pub(super) struct Grants<'o> {
    by_namespace: BTreeMap<&'o str, Vec<&'o ReferenceGrant>>,
}

/// What a reference leads to.
#[derive(Clone, Copy)]
pub(super) struct ReferenceTo<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl<'o> Grants<'o> {
    pub(super) fn new(objects: &'o Objects) -> Self {
        let mut by_namespace: BTreeMap<_, Vec<&ReferenceGrant>> = BTreeMap::new();
        for grant in objects.reference_grants() {
            by_namespace
                .entry(grant.meta.namespace.as_str())
                .or_default()
                .push(grant);
        }
        Self { by_namespace }
    }

    /// Whether an object of a Gateway API kind in `from_namespace` may refer to `to`.
    pub(super) fn permit(
        &self,
        from_kind: &str,
        from_namespace: &str,
        to: ReferenceTo<'_>,
    ) -> bool {
        if from_namespace == to.namespace {
            return true;
        }
        let from = GrantFrom {
            group: GATEWAY_GROUP.to_owned(),
            kind: from_kind.to_owned(),
            namespace: from_namespace.to_owned(),
        };
        let grants = self.by_namespace.get(to.namespace);
        grants
            .into_iter()
            .flatten()
            .any(|grant| grant.permits(&from, to.group, to.kind, to.name))
    }
}

//! Who serves which model.
//!
//! Each server is asked for its list. A request for a listed model may only go to the servers that list it, and to
//! those that cannot tell (they have no such list). A model that nobody lists may go anywhere: the servers' own answer
//! to it is the right one. A server that was not asked yet waits until it is, unless nobody else lists the model.

use std::sync::Arc;

use bytes::Bytes;
use llm::ModelInfo;
use rustc_hash::FxHashMap;
use scheduling::{AdapterKey, EndpointId};
use xxhash_rust::xxh3::xxh3_64;

/// What a server said when asked for its models.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Listing {
    /// It was not asked yet.
    #[default]
    Unknown,
    /// It answered, but not with a list.
    None,
    /// Its list, and the bytes it came in.
    Models(Arc<[ModelInfo]>, Bytes),
}

impl Listing {
    /// Whether two answers name the same models. Their bytes may differ: engines put the present time in.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Models(a, _), Self::Models(b, _)) => a == b,
            (a, b) => a == b,
        }
    }
}

/// The servers of one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelEntry {
    pub(crate) servers: Arc<[EndpointId]>,
    /// Set if the model is an adapter.
    pub(crate) adapter: Option<AdapterKey>,
}

/// All lists of a pool, turned around.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    models: FxHashMap<String, ModelEntry>,
    bodies: Vec<Bytes>,
}

impl Catalog {
    pub(crate) fn new<'a>(listings: impl Iterator<Item = (EndpointId, &'a Listing)>) -> Self {
        let mut models: FxHashMap<&str, (Vec<EndpointId>, bool)> = FxHashMap::default();
        let mut bodies = Vec::new();
        let mut anything = Vec::new();
        for (id, listing) in listings {
            match listing {
                Listing::Unknown => {}
                Listing::None => anything.push(id),
                Listing::Models(list, body) => {
                    bodies.push(body.clone());
                    for model in list.iter() {
                        let (servers, adapter) = models.entry(&model.id).or_default();
                        if !servers.contains(&id) {
                            servers.push(id);
                        }
                        *adapter |= model.parent.is_some();
                    }
                }
            }
        }
        let entry = |(name, (mut servers, adapter)): (&str, (Vec<EndpointId>, bool))| {
            servers.extend(&anything);
            let adapter = adapter.then(|| adapter_key(name));
            (
                name.to_owned(),
                ModelEntry {
                    servers: servers.into(),
                    adapter,
                },
            )
        };
        Self {
            models: models.into_iter().map(entry).collect(),
            bodies,
        }
    }

    pub(crate) fn get(&self, model: &str) -> Option<&ModelEntry> {
        self.models.get(model)
    }

    pub(crate) fn bodies(&self) -> &[Bytes] {
        &self.bodies
    }
}

/// The core's name for an adapter.
pub(crate) fn adapter_key(name: &str) -> AdapterKey {
    AdapterKey(xxh3_64(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use scheduling::{Config, EndpointProfile, Pool, Time};

    use super::*;

    fn listing(models: &[(&str, Option<&str>)]) -> Listing {
        let list: Vec<ModelInfo> = models
            .iter()
            .map(|(id, parent)| ModelInfo {
                id: (*id).to_owned(),
                parent: parent.map(str::to_owned),
                root: None,
                max_model_len: None,
            })
            .collect();
        Listing::Models(list.into(), Bytes::from_static(b"{}"))
    }

    #[test]
    fn a_model_goes_to_those_that_list_it_and_those_that_cannot_tell() {
        let mut pool = Pool::new(Config::default(), 1);
        let ids: Vec<EndpointId> = (0..4)
            .map(|_| pool.join(Time::ZERO, EndpointProfile::default()))
            .collect();
        let lists = [
            listing(&[("base", None), ("tuned", Some("base"))]),
            listing(&[("base", None)]),
            Listing::Unknown,
            Listing::None,
        ];
        let catalog = Catalog::new(ids.iter().copied().zip(&lists));
        assert_eq!(
            *catalog.get("base").unwrap().servers,
            [ids[0], ids[1], ids[3]]
        );
        assert_eq!(catalog.get("base").unwrap().adapter, None);
        assert_eq!(*catalog.get("tuned").unwrap().servers, [ids[0], ids[3]]);
        assert_eq!(
            catalog.get("tuned").unwrap().adapter,
            Some(adapter_key("tuned"))
        );
        assert_eq!(catalog.get("other"), None);
        assert_eq!(catalog.bodies().len(), 2);
    }
}

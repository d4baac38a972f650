//! Who a series belongs to, so that it goes when its owner goes.
//!
//! A family does not say which label sets it holds, so each series that names a pool or a server leaves here, when it
//! is made, the action that removes it again.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// Removes a series; says whether it was there.
type Removal = Box<dyn FnOnce() -> bool + Send>;
type Owner = (Arc<str>, Arc<str>);

/// Removals by pool and server; the server is empty for series of the pool itself.
#[derive(Default)]
pub(crate) struct Owners(Mutex<FxHashMap<Owner, Vec<Removal>>>);

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owners")
            .field("owners", &self.0.lock().len())
            .finish()
    }
}

impl Owners {
    /// Keeps `removal` until the owner goes. Series without a pool belong to nobody and stay.
    pub(crate) fn keep(
        &self,
        pool: &Arc<str>,
        endpoint: &Arc<str>,
        removal: impl FnOnce() -> bool + Send + 'static,
    ) {
        if !pool.is_empty() {
            self.0
                .lock()
                .entry((pool.clone(), endpoint.clone()))
                .or_default()
                .push(Box::new(removal));
        }
    }

    /// Runs the removals of every owner that `alive` does not know; says whether there were any.
    pub(crate) fn prune(&self, alive: impl Fn(&str, &str) -> bool) -> bool {
        let mut gone = Vec::new();
        self.0.lock().retain(|(pool, endpoint), removals| {
            let stays = alive(pool, endpoint);
            if !stays {
                gone.append(removals);
            }
            stays
        });
        let any = !gone.is_empty();
        for removal in gone {
            removal();
        }
        any
    }
}

//! All pools.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use routing::{PoolKey, PoolSpec};
use rustc_hash::FxHashMap;
use telemetry::Metrics;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::page::PageReader;
use crate::tls::TlsConfigs;
use crate::{FleetOptions, Pool};

/// All pools of a process.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    pools: ArcSwap<FxHashMap<PoolKey, Arc<Pool>>>,
    applying: Mutex<()>,
}

/// What all pools have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: FleetOptions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pages: PageReader,
    /// The core's time counts from here.
    pub(crate) origin: Instant,
    pub(crate) uids: AtomicU64,
    pub(crate) tls: TlsConfigs,
    /// A server was asked for the first time, or the address book changed.
    pub(crate) tried: Notify,
    /// Siblings should be told at once.
    pub(crate) unshared: Notify,
}

impl Fleet {
    /// A fleet without pools. It shows its state on the page of `metrics`.
    #[must_use]
    pub fn new(options: FleetOptions, metrics: Arc<Metrics>) -> Arc<Self> {
        let shared = Shared {
            pages: PageReader::new(&options.mapping),
            options,
            metrics: metrics.clone(),
            origin: Instant::now(),
            uids: AtomicU64::new(1),
            tls: TlsConfigs::default(),
            tried: Notify::new(),
            unshared: Notify::new(),
        };
        let fleet = Arc::new(Self {
            shared: Arc::new(shared),
            pools: ArcSwap::default(),
            applying: Mutex::new(()),
        });
        let weak = Arc::downgrade(&fleet);
        metrics.before_encode(move |metrics| {
            if let Some(fleet) = weak.upgrade() {
                let snapshots: Vec<_> = fleet.pools().iter().map(|pool| pool.snapshot()).collect();
                metrics.set_pools(&snapshots);
            }
        });
        fleet
    }

    /// Makes the pools equal to these: by key and address, so that what stays keeps its state. Must be called inside
    /// the runtime that is to run the background work.
    pub fn apply<'a>(self: &Arc<Self>, pools: impl Iterator<Item = &'a Arc<PoolSpec>>) {
        let _one_at_a_time = self.applying.lock();
        let old = self.pools.load_full();
        let mut new: FxHashMap<PoolKey, Arc<Pool>> = FxHashMap::default();
        for spec in pools {
            let pool = match old.get(&spec.key) {
                Some(pool) => {
                    pool.update(spec);
                    pool.clone()
                }
                None => {
                    let pool = Pool::new(self.shared.clone(), spec.clone());
                    pool.start();
                    pool
                }
            };
            new.insert(spec.key.clone(), pool);
        }
        let gone: Vec<_> = old
            .iter()
            .filter(|(key, _)| !new.contains_key(*key))
            .map(|(_, pool)| pool.clone())
            .collect();
        self.pools.store(Arc::new(new));
        gone.iter().for_each(|pool| pool.close());
    }

    /// A pool by name.
    #[must_use]
    pub fn pool(&self, key: &PoolKey) -> Option<Arc<Pool>> {
        self.pools.load().get(key).cloned()
    }

    /// All pools, by name.
    #[must_use]
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = self.pools.load().values().cloned().collect();
        pools.sort_by(|a, b| a.spec().key.cmp(&b.spec().key));
        pools
    }

    /// Waits until each server has been asked once, whether it answered or not; at most `limit`.
    pub async fn learned(&self, limit: Duration) {
        let all = async {
            loop {
                let changed = self.shared.tried.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.pools.load().values().all(|pool| pool.all_tried()) {
                    return;
                }
                changed.await;
            }
        };
        // Past the limit the fleet works with what it has.
        let _ = timeout(limit, all).await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Ends all background work. Leases stay good; nothing new is picked.
    pub async fn shutdown(&self) {
        self.close();
        tokio::task::yield_now().await;
    }

    fn close(&self) {
        let pools = self.pools.swap(Arc::default());
        pools.values().for_each(|pool| pool.close());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.close();
    }
}

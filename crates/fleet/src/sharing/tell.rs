//! One task fetches what the cores have to tell and puts it into each sibling's queue.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use routing::PoolKey;
use rustc_hash::FxHashMap;
use scheduling::SharedEvent;
use telemetry::{Metrics, SharedEvents as Counted};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::wire::{Batch, Told};
use crate::fleet::Shared;
use crate::{Fleet, Pool};

/// Cores forget siblings of which nothing was heard for a minute.
const ALIVE: Duration = Duration::from_secs(20);
/// Messages that may wait for one sibling.
pub(super) const QUEUE: usize = 256;
/// Bytes of them.
const QUEUE_BYTES: usize = 8 << 20;

/// A sibling that listens.
#[derive(Debug)]
pub(super) struct Peer {
    queue: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
    /// It has missed something.
    behind: bool,
    /// It has asked to be told everything again.
    asked: Arc<AtomicBool>,
}

impl Peer {
    pub(super) fn new(
        queue: mpsc::Sender<Bytes>,
        bytes: Arc<AtomicUsize>,
        asked: Arc<AtomicBool>,
    ) -> Self {
        Self {
            queue,
            bytes,
            behind: true,
            asked,
        }
    }

    /// Puts a message into the queue; says whether there was room.
    fn put(&self, frame: &Bytes) -> bool {
        if self.bytes.load(Ordering::Relaxed) > QUEUE_BYTES {
            return false;
        }
        self.bytes.fetch_add(frame.len(), Ordering::Relaxed);
        let put = self.queue.try_send(frame.clone()).is_ok();
        if !put {
            self.bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        }
        put
    }

    fn idle(&self) -> bool {
        self.queue.capacity() == self.queue.max_capacity()
    }
}

/// The task.
pub(super) struct Teller {
    fleet: Weak<Fleet>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    joining: mpsc::Receiver<Peer>,
    peers: Vec<Peer>,
    period: Duration,
    alive_at: Instant,
    /// The pools that siblings know, by their number.
    told: FxHashMap<u64, PoolKey>,
}

impl Teller {
    pub(super) fn new(fleet: &Arc<Fleet>, joining: mpsc::Receiver<Peer>, period: Duration) -> Self {
        Self {
            fleet: Arc::downgrade(fleet),
            shared: Arc::clone(fleet.shared()),
            metrics: Arc::clone(fleet.metrics()),
            joining,
            peers: Vec::new(),
            period,
            alive_at: Instant::now() + ALIVE,
            told: FxHashMap::default(),
        }
    }

    /// Tells until the fleet is gone.
    pub(super) async fn run(mut self) {
        let mut tick = interval(self.period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.shared.unshared.notified() => {}
                Some(peer) = self.joining.recv() => self.peers.push(peer),
            }
            let Some(fleet) = self.fleet.upgrade() else {
                return;
            };
            self.tell(&fleet);
        }
    }

    fn tell(&mut self, fleet: &Fleet) {
        self.peers.retain(|peer| !peer.queue.is_closed());
        for peer in &mut self.peers {
            peer.behind |= peer.asked.swap(false, Ordering::Relaxed);
        }
        let alive = Instant::now() >= self.alive_at;
        if alive {
            self.alive_at = Instant::now() + ALIVE;
        }
        let pools = fleet.pools();
        for pool in &pools {
            let mut events = pool.untold();
            if alive {
                events.extend(Told::new(&SharedEvent::Alive, |_| None));
            }
            if !events.is_empty() && !self.peers.is_empty() {
                self.say(pool.key(), pool.teller(), events);
            }
        }
        self.part(&pools);
        self.catch_up(&pools);
    }

    /// Says something to all who are up to date.
    fn say(&mut self, key: &PoolKey, teller: u64, events: Vec<Told>) {
        for (frame, count) in Batch::new(key, teller, false).frames(events) {
            for peer in &mut self.peers {
                if peer.behind || !peer.put(&frame) {
                    peer.behind = true;
                    self.metrics.shared(Counted::Dropped, count as u64);
                } else {
                    self.metrics.shared(Counted::Sent, count as u64);
                }
            }
        }
    }

    /// Tells that pools are no more.
    fn part(&mut self, pools: &[Arc<Pool>]) {
        for pool in pools {
            let key = || pool.key().clone();
            self.told.entry(pool.teller()).or_insert_with(key);
        }
        if self.told.len() == pools.len() {
            return;
        }
        let gone = |teller: &&u64| pools.iter().all(|pool| pool.teller() != **teller);
        let gone: Vec<u64> = self.told.keys().filter(gone).copied().collect();
        for teller in gone {
            if let Some(key) = self.told.remove(&teller) {
                let forget = Told::new(&SharedEvent::Forgotten, |_| None);
                self.say(&key, teller, forget.into_iter().collect());
            }
        }
    }

    /// Tells everything to those who are new or have missed something, as soon as they have heard the rest.
    fn catch_up(&mut self, pools: &[Arc<Pool>]) {
        for peer in &mut self.peers {
            if !peer.behind || !peer.idle() {
                continue;
            }
            peer.behind = false;
            for pool in pools {
                let charges = pool.shared_charges();
                for (frame, count) in Batch::new(pool.key(), pool.teller(), true).frames(charges) {
                    let put = peer.put(&frame);
                    peer.behind |= !put;
                    let counted = if put { Counted::Sent } else { Counted::Dropped };
                    self.metrics.shared(counted, count as u64);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> (Peer, mpsc::Receiver<Bytes>) {
        let (queue, messages) = mpsc::channel(QUEUE);
        let (bytes, asked) = Default::default();
        (Peer::new(queue, bytes, asked), messages)
    }

    #[test]
    fn a_sibling_that_does_not_listen_takes_bounded_memory() {
        let (many, _messages) = peer();
        let small = Bytes::from_static(&[0; 100]);
        let took = (0..10_000).filter(|_| many.put(&small)).count();
        assert_eq!(took, QUEUE);

        let (large, _messages) = peer();
        let mebibyte = Bytes::from(vec![0; 1 << 20]);
        let took = (0..10_000).filter(|_| large.put(&mebibyte)).count();
        assert_eq!(took, (QUEUE_BYTES >> 20) + 1);
        assert!(!large.idle());
    }
}

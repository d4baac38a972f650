//! What the weather does to a fleet: engines that go and come, answers that break, pages that lie.

use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

use super::book::Stage;
use super::events::{Answer, Event, Page};
use super::fleet::{Fleet, mix};
use super::weather::{ChangeKind, PageFault, RETRIES};
use crate::End;

/// Seeds of engines' later lives are apart from those of the first.
const LIVES: u64 = 1 << 32;

impl Fleet {
    /// Plans what will happen to engines. Those that come later are not there yet, and gateways know.
    pub(super) fn forecast(&mut self) {
        for change in self.config.weather.changes.clone() {
            let (engine, kind) = (change.engine, change.kind);
            self.events.plan(change.at, Event::Change { engine, kind });
        }
        for engine in 0..self.hosts.len() {
            if self.config.weather.absent(engine) {
                self.hosts[engine].there = false;
                for gateway in &mut self.gateways {
                    gateway.dispatcher.left(0.0, engine as u32);
                }
            }
        }
    }

    /// Seconds that the network takes now.
    pub(super) fn crossing(&mut self) -> f64 {
        let sigma = self.config.weather.network_jitter;
        if sigma <= 0.0 {
            return self.config.network_delay;
        }
        let normal: f64 = StandardNormal.sample(&mut self.storm);
        self.config.network_delay * (sigma * normal - sigma * sigma / 2.0).exp()
    }

    /// Whether something of this share happens now.
    pub(super) fn strikes(&mut self, share: f64) -> bool {
        share > 0.0 && self.storm.random::<f64>() < share
    }

    pub(super) fn change(&mut self, engine: Option<usize>, kind: ChangeKind) {
        match engine {
            Some(engine) if engine < self.hosts.len() => self.change_one(engine, kind),
            Some(_) => {}
            None => (0..self.hosts.len()).for_each(|engine| self.change_one(engine, kind)),
        }
    }

    fn change_one(&mut self, engine: usize, kind: ChangeKind) {
        let host = &mut self.hosts[engine];
        match kind {
            ChangeKind::Slow(factor) => {
                host.slow = factor;
                return;
            }
            ChangeKind::Loss if host.there => {
                let life = u64::from(host.life) + 1;
                host.lose(mix(self.config.seed, LIVES * life + engine as u64 + 1));
                for slot in self.book.on(engine as u32) {
                    self.send_back(slot, Answer::Broken { retry: true });
                }
            }
            ChangeKind::Join if !host.there => host.there = true,
            _ => return,
        }
        let there = kind == ChangeKind::Join;
        let at = self.now + self.config.weather.discovery.max(0.0);
        self.events.plan(at, Event::Discovered { engine, there });
    }

    /// Gateways hear of an engine what is still true by now.
    pub(super) fn discovered(&mut self, engine: usize, there: bool) {
        if self.hosts[engine].there != there {
            return;
        }
        for gateway in 0..self.gateways.len() {
            let dispatcher = &mut self.gateways[gateway].dispatcher;
            if there {
                dispatcher.joined(self.now, engine as u32);
            } else {
                dispatcher.left(self.now, engine as u32);
            }
            self.poke(gateway);
        }
    }

    /// A job's engine failed it. The gateway tries another one, or gives up.
    pub(super) fn broken(&mut self, slot: usize, retry: bool) {
        let begun = self.book.begun(slot);
        let record = self.book.get(slot);
        let (gateway, engine) = (record.gateway, record.engine.unwrap_or(u32::MAX));
        let retry = retry && !begun && record.attempt <= RETRIES;
        let dispatcher = &mut self.gateways[gateway].dispatcher;
        let mut next = dispatcher.failed(self.now, &record.job, engine, retry);
        if retry && next.is_some_and(|it| it as usize >= self.hosts.len()) {
            self.misplaced += 1;
            next = dispatcher.failed(self.now, &record.job, engine, false);
        }
        match next.filter(|it| retry && (*it as usize) < self.hosts.len()) {
            Some(next) => {
                self.retries += 1;
                self.send(slot, next);
            }
            None => self.end(slot, End::Failed),
        }
        self.poke(gateway);
    }

    /// Sends a job to an engine that may be gone.
    pub(super) fn send(&mut self, slot: usize, engine: u32) {
        self.dead_picks += u64::from(!self.hosts[engine as usize].there);
        self.book.send(slot, engine);
        let attempt = self.book.get(slot).attempt;
        let at = self.now + self.crossing();
        self.events.plan(at, Event::Delivered { slot, attempt });
    }

    /// The page that an engine shows, and its age when gateways see it; `None`: it shows none.
    pub(super) fn shown(&mut self, engine: usize, delay: f64) -> Option<(Page, f64)> {
        let host = &mut self.hosts[engine];
        if !host.there {
            return None;
        }
        let mut page = host.page(engine);
        host.pages += 1;
        let (mut delay, mut frozen) = (delay, false);
        for fault in self.config.weather.faults(self.now, engine) {
            match fault {
                PageFault::Vanish => return None,
                PageFault::Freeze => {
                    frozen = true;
                    page = host.frozen.get_or_insert(page).clone();
                }
                PageFault::Late(seconds) => delay += seconds,
                PageFault::Jump(factor) if host.pages.is_multiple_of(2) => {
                    times(&mut page, factor);
                }
                PageFault::Jump(_) => {}
                PageFault::Lie(factor) => {
                    times(&mut page, factor);
                    page.kv_usage = (page.kv_usage * factor).min(1.0);
                }
            }
        }
        if !frozen {
            host.frozen = None;
        }
        Some((page, delay))
    }
}

fn times(page: &mut Page, factor: f64) {
    let more = |count: u32| (f64::from(count) * factor) as u32;
    page.running = more(page.running);
    page.waiting = more(page.waiting);
}

impl super::book::Book {
    /// Jobs that an engine has.
    fn on(&self, engine: u32) -> Vec<usize> {
        let all = self.slots();
        all.filter(|(_, it)| it.stage == Stage::Sent && it.engine == Some(engine))
            .map(|(slot, _)| slot)
            .collect()
    }
}

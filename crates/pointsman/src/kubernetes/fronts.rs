//! The data planes: one for each Gateway and address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::kubernetes::Served;
use api::ObjectKey;
use arc_swap::ArcSwap;
use fleet::Fleet;
use proxy::{ListenProblem, ListenProblemKind, Proxy, ProxyOptions};
use routing::Plan;
use telemetry::Metrics;

use super::addresses::Assigned;

/// What a data plane is for: a Gateway, or all together where there is but one address; and the address it binds.
pub(super) type Place = (Option<ObjectKey>, IpAddr);

/// All data planes. They share the pools: two Gateways that lead to a pool see each other's requests there.
pub(super) struct Fronts {
    options: ProxyOptions,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    drain: Duration,
    open: BTreeMap<Place, Front>,
}

struct Front {
    plan: Arc<ArcSwap<Plan>>,
    proxy: Proxy,
    problems: Vec<ListenProblem>,
}

impl Fronts {
    pub(super) fn new(
        options: ProxyOptions,
        fleet: Arc<Fleet>,
        metrics: Arc<Metrics>,
        drain: Duration,
    ) -> Self {
        Self {
            options,
            fleet,
            metrics,
            drain,
            open: BTreeMap::new(),
        }
    }

    /// Brings the data planes in line with plans and addresses. One that goes lets its exchanges end.
    pub(super) fn apply(&mut self, wanted: Vec<(Place, Arc<Plan>)>) {
        let places: BTreeSet<_> = wanted.iter().map(|(place, _)| place.clone()).collect();
        let gone: Vec<_> = self
            .open
            .keys()
            .filter(|place| !places.contains(place))
            .cloned()
            .collect();
        for place in gone {
            if let Some(front) = self.open.remove(&place) {
                // Its ports are free at once; another Gateway may get the address.
                front.plan.store(Arc::default());
                front.proxy.apply();
                let drain = self.drain;
                tokio::spawn(async move { front.proxy.drain(drain).await });
            }
        }
        for (place, plan) in wanted {
            match self.open.get_mut(&place) {
                Some(front) => {
                    if **front.plan.load() != *plan {
                        front.plan.store(plan);
                    }
                    front.problems = front.proxy.apply();
                }
                None => self.start(place, plan),
            }
        }
    }

    fn start(&mut self, place: Place, plan: Arc<Plan>) {
        let options = ProxyOptions {
            bind: place.1,
            ..self.options.clone()
        };
        let plan = Arc::new(ArcSwap::new(plan));
        let (fleet, metrics) = (Arc::clone(&self.fleet), Arc::clone(&self.metrics));
        match Proxy::start(options, Arc::clone(&plan), fleet, metrics) {
            Ok(proxy) => {
                let problems = proxy.apply();
                let front = Front {
                    plan,
                    proxy,
                    problems,
                };
                self.open.insert(place, front);
            }
            Err(error) => tracing::error!(address = %place.1, %error, "no data plane"),
        }
    }

    /// Tries again to bind what could not be bound. Whether anything has changed.
    pub(super) fn retry(&mut self) -> bool {
        let mut changed = false;
        for front in self.open.values_mut().filter(|front| front.is_unbound()) {
            let problems = front.proxy.apply();
            changed |= problems != front.problems;
            front.problems = problems;
        }
        changed
    }

    /// Whether some port is not bound.
    pub(super) fn unbound(&self) -> bool {
        self.open.values().any(Front::is_unbound)
    }

    /// One line for each thing that is wrong.
    pub(super) fn problems(&self) -> Vec<String> {
        let of = |((_, ip), front): (&Place, &Front)| -> Vec<String> {
            let line = |problem: &ListenProblem| format!("{ip}: {}", problem.message);
            front.problems.iter().map(line).collect()
        };
        self.open.iter().flat_map(of).collect()
    }

    /// How a Gateway is served at the addresses it was given.
    pub(super) fn served(&self, gateway: &ObjectKey, assigned: &Assigned, shared: bool) -> Served {
        let addresses = match assigned {
            Ok(addresses) => addresses,
            Err(problem) => {
                return Served {
                    problem: Some(problem.clone()),
                    ..Served::default()
                };
            }
        };
        let mut served = Served::default();
        for ip in addresses {
            let place = ((!shared).then(|| gateway.clone()), *ip);
            let fronts = self.open.iter().filter(|((of, at), _)| match shared {
                true => of.is_none(),
                false => (of, at) == (&place.0, &place.1),
            });
            let problems = fronts.flat_map(|(_, front)| &front.problems);
            for problem in problems.filter(|p| p.kind != ListenProblemKind::Certificate) {
                served.ports.insert(problem.port, problem.message.clone());
            }
            served.addresses.push(*ip);
        }
        served
    }

    /// Ends everything in good order.
    pub(super) async fn drain(self, limit: Duration) {
        let draining = self
            .open
            .into_values()
            .map(|front| tokio::spawn(front.proxy.drain(limit)));
        for one in draining.collect::<Vec<_>>() {
            let _ = one.await;
        }
    }
}

impl Front {
    fn is_unbound(&self) -> bool {
        let is_port = |problem: &ListenProblem| problem.kind != ListenProblemKind::Certificate;
        self.problems.iter().any(is_port)
    }
}

//! `pointsman serve --kubernetes`: controller and data plane in one process.
//!
//! Objects are watched and compiled, every Gateway of ours gets an address and a data plane of its own, and statuses
//! say what came of it. Several copies may run: each serves, one of them writes. A change of a Pod goes the same way as
//! any other, which takes a few milliseconds.

mod addresses;
mod fronts;
mod remote;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::kubernetes::{Election, ElectionOptions, Report, Scope, StatusWriter, Watch, WatchOptions};
use api::{ObjectKey, Objects};
use fleet::{Fleet, Sharing};
use routing::{CompileOptions, Compiled, Mode, Plan};
use telemetry::Metrics;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use self::addresses::AddressRange;
use self::addresses::{Assigned, Wish, assign};
use self::fronts::{Fronts, Place};
pub(crate) use self::remote::{parse_gateway, serve_gateway};
use crate::admin::{self, Admin, Readiness};
use crate::cli::ServeArgs;
use crate::serve::{fleet_options, proxy_options};

/// How long changes are gathered before they are compiled: a rollout changes many objects at once.
pub(crate) const GATHER: Duration = Duration::from_millis(20);
/// How often a port that another process has is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Runs the gateway from a cluster.
///
/// # Errors
/// When there is no cluster to talk to, or the admin port is in use.
pub(crate) async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut controller = Controller::start(args).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = controller.watch.changed() => {
                tokio::time::sleep(GATHER).await;
                controller.reload();
            }
            () = tokio::time::sleep(BIND_AGAIN), if controller.fronts.unbound() => controller.retry(),
        }
    }
    controller
        .stop(args.limits.drain_timeout, &mut interrupt)
        .await;
    Ok(())
}

/// The running controller.
struct Controller {
    watch: Watch,
    writer: StatusWriter,
    election: Election,
    options: CompileOptions,
    /// Addresses for Gateways; `None`: all of them share one.
    range: Option<AddressRange>,
    bind: IpAddr,
    assigned: BTreeMap<ObjectKey, Assigned>,
    fronts: Fronts,
    fleet: Arc<Fleet>,
    admin: Arc<Admin>,
    last: Option<(Arc<Objects>, Compiled)>,
    told: std::collections::BTreeSet<String>,
    _sharing: Option<Sharing>,
}

impl Controller {
    async fn start(args: &ServeArgs) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let fleet = Fleet::new(fleet_options(args)?, Arc::clone(&metrics));
        let sharing = args.sharing.start(&fleet).await?;
        let admin = Arc::new(Admin {
            fleet: Arc::clone(&fleet),
            metrics: Arc::clone(&metrics),
            readiness: waiting().into(),
        });
        let admin_address = admin::start(args.admin, Arc::clone(&admin)).await?;
        tracing::info!(address = %admin_address, "admin: /metrics /healthz /readyz /decisions /");
        let client = ::kubernetes::connect(args.cluster.kubeconfig.as_deref()).await?;
        let controller_name = args.cluster.controller_name.clone();
        let namespace = client.default_namespace();
        let election = Election::start(client.clone(), election(namespace, &controller_name));
        let options = WatchOptions {
            controller_name: Some(controller_name.clone()),
            carry: false,
        };
        let watch = Watch::start_with(client.clone(), scope(&args.cluster.namespaces), options);
        let writer = StatusWriter::start(
            client,
            watch.clone(),
            controller_name.clone(),
            election.leading(),
        );
        Ok(Self {
            watch,
            writer,
            election,
            options: CompileOptions {
                controller_name,
                mode: Mode::Cluster,
                ..CompileOptions::default()
            },
            range: args.cluster.addresses.clone(),
            bind: args.bind,
            assigned: BTreeMap::new(),
            fronts: Fronts::new(
                proxy_options(args),
                Arc::clone(&fleet),
                metrics,
                args.limits.drain_timeout,
            ),
            fleet,
            admin,
            last: None,
            told: std::collections::BTreeSet::new(),
            _sharing: sharing,
        })
    }

    /// Takes up what the cluster says now.
    fn reload(&mut self) {
        // Half a picture would take away what is merely not seen yet.
        if !self.watch.synced() {
            return;
        }
        let objects = self.watch.objects();
        let compiled = routing::compile(&objects, &self.options);
        self.assign(&objects, &compiled);
        // Pools first: a rule of the new plan must find its pool.
        let mut pools = compiled.plan.pools.clone();
        for gateway in &compiled.gateways {
            pools.extend(gateway.plan.pools.clone());
        }
        self.fleet.apply(pools.values());
        self.fronts.apply(self.places(&compiled));
        for note in crate::config::notes(&compiled) {
            if self.told.insert(note.clone()) {
                tracing::info!("{note}");
            }
        }
        self.last = Some((objects, compiled));
        self.report();
        let sound = self.watch.problems().is_empty();
        self.admin.metrics.config_reloaded(sound);
    }

    /// Gives every Gateway its addresses, and remembers them so that they stay.
    fn assign(&mut self, objects: &Objects, compiled: &Compiled) {
        let Some(range) = &self.range else {
            let shared = shared_address(self.bind);
            let all = compiled.gateways.iter();
            self.assigned = all
                .map(|one| (one.gateway.clone(), shared.clone()))
                .collect();
            return;
        };
        let wishes: Vec<_> = compiled
            .gateways
            .iter()
            .map(|one| wish(objects, &one.gateway))
            .collect();
        let mut held = self.watch.gateway_addresses();
        let known = self.assigned.iter();
        held.extend(known.filter_map(|(key, own)| Some((key.clone(), own.clone().ok()?))));
        self.assigned = assign(range, &wishes, &held);
    }

    /// Which plan is served where.
    fn places(&self, compiled: &Compiled) -> Vec<(Place, Arc<Plan>)> {
        if self.range.is_none() {
            return vec![((None, self.bind), Arc::new(compiled.plan.clone()))];
        }
        let mut places = Vec::new();
        for gateway in &compiled.gateways {
            let Some(Ok(addresses)) = self.assigned.get(&gateway.gateway) else {
                continue;
            };
            let plan = Arc::new(gateway.plan.clone());
            for ip in addresses {
                places.push(((Some(gateway.gateway.clone()), *ip), Arc::clone(&plan)));
            }
        }
        places
    }

    /// Tries again to bind ports.
    fn retry(&mut self) {
        if self.fronts.retry() {
            self.report();
        }
    }

    /// Tells statuses and readiness.
    fn report(&mut self) {
        let Some((objects, compiled)) = &self.last else {
            return;
        };
        let shared = self.range.is_none();
        let gateways = self.assigned.iter();
        let gateways = gateways
            .map(|(key, assigned)| (key.clone(), self.fronts.served(key, assigned, shared)))
            .collect();
        self.writer.report(Report {
            objects: Arc::clone(objects),
            statuses: compiled.statuses.clone(),
            gateways,
            features: routing::SUPPORTED_FEATURES,
        });
        let mut problems: Vec<_> = self
            .watch
            .problems()
            .iter()
            .map(ToString::to_string)
            .collect();
        problems.extend(self.fronts.problems());
        *self.admin.readiness.lock() = Readiness {
            ready: true,
            reason: None,
            problems,
        };
    }

    async fn stop(self, limit: Duration, interrupt: &mut tokio::signal::unix::Signal) {
        tracing::info!(
            limit_s = limit.as_secs(),
            "stopping: running requests may end"
        );
        *self.admin.readiness.lock() = not_ready("draining");
        self.election.resign().await;
        tokio::select! {
            () = self.fronts.drain(limit) => {}
            _ = interrupt.recv() => tracing::warn!("interrupted again: running requests are cut"),
        }
        self.fleet.shutdown().await;
    }
}

fn waiting() -> Readiness {
    not_ready("waiting for the API server")
}

pub(crate) fn not_ready(reason: &'static str) -> Readiness {
    Readiness {
        ready: false,
        reason: Some(reason),
        problems: Vec::new(),
    }
}

pub(crate) fn scope(namespaces: &[String]) -> Scope {
    if namespaces.is_empty() {
        Scope::All
    } else {
        Scope::Namespaces(namespaces.to_vec())
    }
}

/// Copies with the same controller name compete for one Lease, in the namespace of their Pod.
pub(crate) fn election(namespace: &str, controller_name: &str) -> ElectionOptions {
    let name: String = controller_name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "pointsman".to_owned());
    let identity = format!("{host}_{:016x}", rand::random::<u64>());
    ElectionOptions::new(namespace, name, identity)
}

/// The address that all Gateways share: the one that is bound, or the Pod's where all are.
fn shared_address(bind: IpAddr) -> Assigned {
    if !bind.is_unspecified() {
        return Ok(vec![bind]);
    }
    let pod = std::env::var("POD_IP").ok().and_then(|ip| ip.parse().ok());
    let unknown = "give the gateway's address by --bind, --addresses or the variable POD_IP";
    pod.map(|ip| vec![ip])
        .ok_or(("AddressNotAssigned", unknown.to_owned()))
}

/// What a Gateway asks for in `spec.addresses`.
fn wish(objects: &Objects, key: &ObjectKey) -> Wish {
    let gateway = objects.gateway(&key.namespace, &key.name);
    let listed = gateway.iter().flat_map(|gateway| &gateway.spec.addresses);
    let asked = listed.map(|address| match (&address.value, address.ip()) {
        (None, _) => Ok(None),
        (Some(text), _) if text.is_empty() => Ok(None),
        (Some(_), Some(ip)) => Ok(Some(ip)),
        (Some(text), None) => Err(text.clone()),
    });
    Wish {
        gateway: key.clone(),
        asked: asked.collect(),
    }
}

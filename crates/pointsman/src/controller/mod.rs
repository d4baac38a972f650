//! `pointsman controller`: provisions data planes, tells them their objects, and writes statuses.
//!
//! It serves no traffic. Several copies may run: all of them tell data planes their objects, one of them (by a Lease)
//! writes to the cluster.

mod args;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use ::kubernetes::{
    Authority, Desired, Election, Parameters, ProvisionSettings, Provisioner, Relay, RelayOptions,
    Report, StatusWriter, Watch, WatchOptions, World,
};
use anyhow::Context;
use api::{ObjectKey, Objects, Resource};
use fleet::Fleet;
use routing::{CompileOptions, Compiled, ConditionStatus, Mode, ParameterRefs};
use telemetry::Metrics;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub(crate) use self::args::ControllerArgs;
use crate::admin::{self, Admin, Readiness};
use crate::kubernetes::{GATHER, election, not_ready, scope};

/// What provisioned data planes can do beyond what any data plane can.
static FEATURES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut all = routing::SUPPORTED_FEATURES.to_vec();
    all.push("GatewayInfrastructure");
    all.sort_unstable();
    all.dedup();
    all
});

/// Runs the controller.
///
/// # Errors
/// When there is no cluster to talk to, or a port is in use.
pub(crate) async fn run(args: &ControllerArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut controller = tokio::select! {
        started = Controller::start(args) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = controller.watch.changed() => {
                tokio::time::sleep(GATHER).await;
                controller.reload();
            }
            () = controller.provisioner.changed() => {
                tokio::time::sleep(GATHER).await;
                controller.report();
            }
        }
    }
    *controller.admin.readiness.lock() = not_ready("stopping");
    controller.election.resign().await;
    Ok(())
}

/// The running controller.
struct Controller {
    watch: Watch,
    writer: StatusWriter,
    election: Election,
    provisioner: Provisioner,
    worlds: watch::Sender<Option<Arc<World>>>,
    _relay: Relay,
    controller_name: String,
    admin: Arc<Admin>,
    last: Option<(Arc<Objects>, Compiled)>,
    told: std::collections::BTreeSet<String>,
}

impl Controller {
    async fn start(args: &ControllerArgs) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let fleet = Fleet::new(fleet::FleetOptions::default(), Arc::clone(&metrics));
        let admin = Arc::new(Admin {
            fleet,
            metrics,
            readiness: not_ready("waiting for the API server").into(),
        });
        let address = admin::start(args.admin, Arc::clone(&admin)).await?;
        tracing::info!(%address, "admin: /metrics /healthz /readyz");
        let client = ::kubernetes::connect(args.kubeconfig.as_deref()).await?;
        let own = args.system_namespace.clone();
        let own = own.unwrap_or_else(|| client.default_namespace().to_owned());
        let authority = Arc::new(Authority::open(&client, &own).await?);
        let controller_name = args.controller_name.clone();
        let election = Election::start(client.clone(), election(&own, &controller_name));
        let scope = scope(&args.namespaces);
        let options = WatchOptions {
            controller_name: Some(controller_name.clone()),
            carry: true,
        };
        let watch = Watch::start_with(client.clone(), scope.clone(), options);
        let settings = ProvisionSettings {
            controller_name: controller_name.clone(),
            image: args.image.clone(),
            address: args.address.clone(),
            authority: authority.certificate().to_owned(),
        };
        let leading = election.leading();
        let provisioner = Provisioner::start(client.clone(), &scope, settings, leading.clone());
        let writer = StatusWriter::start(
            client.clone(),
            watch.clone(),
            controller_name.clone(),
            leading,
        );
        let (worlds, told) = watch::channel(None);
        let relay = RelayOptions {
            listen: args.listen,
            address: args.address.clone(),
            controller_name: controller_name.clone(),
        };
        let relay = Relay::start(relay, authority, client, told)
            .await
            .context("cannot serve data planes")?;
        tracing::info!(address = %relay.address(), "data planes are told their objects here");
        Ok(Self {
            watch,
            writer,
            election,
            provisioner,
            worlds,
            _relay: relay,
            controller_name,
            admin,
            last: None,
            told: std::collections::BTreeSet::new(),
        })
    }

    /// Takes up what the cluster says now.
    fn reload(&mut self) {
        // Half a picture would take away what is merely not seen yet.
        if !self.watch.synced() {
            return;
        }
        // Data planes first: a status should not be ahead of what is served.
        self.worlds.send_replace(Some(Arc::new(self.watch.world())));
        let objects = self.watch.objects();
        let parameters = ParametersRead::of(&objects, &self.controller_name);
        let compiled = routing::compile(
            &objects,
            &CompileOptions {
                controller_name: self.controller_name.clone(),
                mode: Mode::Cluster,
                parameters: ParameterRefs::Read(parameters.refused.clone()),
                ..CompileOptions::default()
            },
        );
        self.provisioner
            .want(desired(&objects, &compiled, parameters), &objects);
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

    /// Tells statuses and readiness.
    fn report(&mut self) {
        let Some((objects, compiled)) = &self.last else {
            return;
        };
        // An address that is merely not seen yet is not gone.
        if !self.provisioner.synced() {
            return;
        }
        let served = compiled.gateways.iter().filter_map(|one| {
            let key = &one.gateway;
            let gateway = objects.gateway(&key.namespace, &key.name)?;
            Some((key.clone(), self.provisioner.served(gateway, objects)))
        });
        self.writer.report(Report {
            objects: Arc::clone(objects),
            statuses: compiled.statuses.clone(),
            gateways: served.collect(),
            features: FEATURES.as_slice(),
        });
        let problems = self.watch.problems();
        *self.admin.readiness.lock() = Readiness {
            ready: true,
            reason: None,
            problems: problems.iter().map(ToString::to_string).collect(),
        };
    }
}

/// What is said about data planes, and where that cannot be used.
#[derive(Debug, Default)]
struct ParametersRead {
    usable: BTreeMap<ObjectKey, Parameters>,
    refused: BTreeMap<ObjectKey, String>,
}

impl ParametersRead {
    fn of(objects: &Objects, controller: &str) -> Self {
        let mut read = Self::default();
        let classes = objects.gateway_classes();
        for class in classes.filter(|class| class.spec.controller_name == controller) {
            if let Err(error) = Parameters::of_class(objects, class) {
                read.refused.insert(class.key(), error.to_string());
            }
        }
        for gateway in objects.gateways() {
            let class = objects.gateway_class(&gateway.spec.gateway_class_name);
            if class.is_none_or(|class| class.spec.controller_name != controller) {
                continue;
            }
            match Parameters::of(objects, gateway) {
                Ok(parameters) => drop(read.usable.insert(gateway.key(), parameters)),
                Err(error) => drop(read.refused.insert(gateway.key(), error.to_string())),
            }
        }
        read
    }
}

/// Gateways that are to have data planes. One that is not accepted keeps what it has.
fn desired(objects: &Objects, compiled: &Compiled, read: ParametersRead) -> Vec<Desired> {
    let mut usable = read.usable;
    let accepted = |key: &ObjectKey| {
        let own = compiled
            .statuses
            .iter()
            .find(|status| status.object == *key && status.listener.is_none());
        own.is_some_and(|status| {
            let is = |c: &&routing::Condition| c.type_ == "Accepted";
            let condition = status.conditions.iter().find(is);
            condition.is_some_and(|condition| condition.status == ConditionStatus::True)
        })
    };
    let of = |one: &routing::GatewayPlan| {
        let key = &one.gateway;
        let gateway = objects.gateway(&key.namespace, &key.name)?;
        Some(Desired {
            gateway: Arc::clone(gateway),
            ports: one.plan.ports.keys().copied().collect(),
            parameters: usable.remove(key).filter(|_| accepted(key)),
        })
    };
    compiled.gateways.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests;

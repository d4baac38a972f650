//! `pointsman serve --gateway`: the data plane of one Gateway, told its objects by a controller.
//!
//! It compiles what it is told as if it had watched the cluster itself. Before the first picture it is not ready; after
//! that it serves on whatever becomes of the controller.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ::kubernetes::{Relayed, RelayedOptions};
use anyhow::Context;
use api::ObjectKey;
use fleet::{Fleet, Sharing};
use proxy::ProxyOptions;
use routing::{CompileOptions, Mode, ParameterRefs};
use telemetry::Metrics;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::fronts::Fronts;
use super::{BIND_AGAIN, GATHER, not_ready};
use crate::admin::{self, Admin, Readiness};
use crate::cli::ServeArgs;
use crate::serve::{fleet_options, proxy_options};

/// Reads `NAMESPACE/NAME`.
pub(crate) fn parse_gateway(text: &str) -> Result<ObjectKey, NoGateway> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ObjectKey::new(
                api::GATEWAY_GROUP,
                "Gateway",
                namespace,
                name,
            ))
        }
        _ => Err(NoGateway),
    }
}

/// A text that names no Gateway.
#[derive(Debug, thiserror::Error)]
#[error("a Gateway is written NAMESPACE/NAME")]
pub(crate) struct NoGateway;

/// Runs the data plane of one Gateway.
///
/// # Errors
/// When the admin port is in use, or options cannot be used.
pub(crate) async fn serve_gateway(args: &ServeArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut plane = DataPlane::start(args).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = plane.relayed.changed() => {
                tokio::time::sleep(GATHER).await;
                plane.reload();
                plane.share(args).await?;
            }
            () = tokio::time::sleep(BIND_AGAIN), if plane.fronts.unbound() => {
                plane.fronts.retry();
                plane.report();
            }
        }
    }
    let limit = args.limits.drain_timeout;
    plane
        .stop(args.remote.farewell, limit, &mut interrupt)
        .await;
    Ok(())
}

/// The running data plane.
struct DataPlane {
    relayed: Relayed,
    gateway: ObjectKey,
    options: CompileOptions,
    bind: IpAddr,
    fronts: Fronts,
    fleet: Arc<Fleet>,
    admin: Arc<Admin>,
    /// Once it has begun; inside it is `None` where nothing is shared.
    sharing: Option<Option<Sharing>>,
}

impl DataPlane {
    async fn start(args: &ServeArgs) -> anyhow::Result<Self> {
        let remote = &args.remote;
        let (Some(gateway), Some(controller), Some(authority), Some(token)) = (
            remote.gateway.clone(),
            remote.controller.clone(),
            remote.controller_ca.clone(),
            remote.token_file.clone(),
        ) else {
            anyhow::bail!("--gateway, --controller, --controller-ca and --token-file go together");
        };
        let metrics = Metrics::new();
        let fleet = Fleet::new(fleet_options(args)?, Arc::clone(&metrics));
        let admin = Arc::new(Admin {
            fleet: Arc::clone(&fleet),
            metrics: Arc::clone(&metrics),
            readiness: not_ready("waiting for the controller").into(),
        });
        let address = admin::start(args.admin, Arc::clone(&admin)).await?;
        tracing::info!(%address, "admin: /metrics /healthz /readyz /decisions /");
        let relayed = Relayed::start(RelayedOptions {
            gateway: gateway.clone(),
            controller,
            authority,
            token,
        });
        let proxy = ProxyOptions {
            bound_port: ::kubernetes::bound_port,
            ..proxy_options(args)
        };
        Ok(Self {
            relayed,
            gateway,
            options: CompileOptions {
                controller_name: args.cluster.controller_name.clone(),
                mode: Mode::Cluster,
                parameters: ParameterRefs::Read(BTreeMap::new()),
                ..CompileOptions::default()
            },
            bind: everywhere(args.bind),
            fronts: Fronts::new(
                proxy,
                Arc::clone(&fleet),
                metrics,
                args.limits.drain_timeout,
            ),
            fleet,
            admin,
            sharing: None,
        })
    }

    /// Takes up what the controller says now.
    fn reload(&mut self) {
        let objects = self.relayed.objects();
        let compiled = routing::compile(&objects, &self.options);
        let own = compiled
            .gateways
            .into_iter()
            .find(|one| one.gateway == self.gateway);
        let Some(own) = own else {
            // The controller would not have told of a Gateway that is not to be served.
            tracing::warn!(gateway = %self.gateway, "the Gateway cannot be compiled; what is known goes on being served");
            return;
        };
        // Pools first: a rule of the new plan must find its pool.
        self.fleet.apply(own.plan.pools.values());
        let place = (Some(self.gateway.clone()), self.bind);
        self.fronts.apply(vec![(place, Arc::new(own.plan))]);
        self.report();
        let sound = self.relayed.problems().is_empty();
        self.admin.metrics.config_reloaded(sound);
    }

    /// Begins to share with siblings, once.
    async fn share(&mut self, args: &ServeArgs) -> anyhow::Result<()> {
        if self.sharing.is_some() {
            return Ok(());
        }
        if args.remote.sharing_token_from_controller {
            // A controller that tells none is an older one; a later picture may come from a newer.
            let (Some(token), Some(file)) = (self.relayed.sharing(), args.sharing.token_file())
            else {
                return Ok(());
            };
            tokio::fs::write(file, token)
                .await
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        self.sharing = Some(args.sharing.start(&self.fleet).await?);
        Ok(())
    }

    fn report(&self) {
        let problems = self.relayed.problems();
        let problems = problems.iter().map(ToString::to_string);
        *self.admin.readiness.lock() = Readiness {
            ready: true,
            reason: None,
            problems: problems.chain(self.fronts.problems()).collect(),
        };
    }

    /// Ends: not ready at once, no new connections after `farewell`, running requests within `limit`.
    async fn stop(self, farewell: Duration, limit: Duration, interrupt: &mut Signal) {
        tracing::info!(
            farewell_s = farewell.as_secs(),
            limit_s = limit.as_secs(),
            "stopping: running requests may end"
        );
        *self.admin.readiness.lock() = not_ready("draining");
        let ending = async {
            tokio::time::sleep(farewell).await;
            self.fronts.drain(limit).await;
        };
        tokio::select! {
            () = ending => {}
            _ = interrupt.recv() => tracing::warn!("interrupted again: running requests are cut"),
        }
        self.fleet.shutdown().await;
    }
}

/// Every address of the Pod's family, unless one was given.
fn everywhere(bind: IpAddr) -> IpAddr {
    if !bind.is_loopback() {
        return bind;
    }
    match std::env::var("POD_IP").map(|ip| ip.parse()) {
        Ok(Ok(IpAddr::V6(_))) => Ipv6Addr::UNSPECIFIED.into(),
        Ok(Ok(IpAddr::V4(_))) => Ipv4Addr::UNSPECIFIED.into(),
        _ => bind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_named_by_namespace_and_name() {
        let read = parse_gateway("infra/web").expect("a Gateway");
        assert_eq!(read.to_string(), "Gateway infra/web");
        for bad in ["", "web", "/web", "infra/", "a/b/c"] {
            assert!(parse_gateway(bad).is_err(), "{bad:?}");
        }
    }
}

//! `pointsman epp`: an endpoint picker for any proxy that speaks Envoy's external processing, in the place of the Go one.
//!
//! The pool comes from files or from a cluster and follows them; the picks are those of our own data plane. `--bbr` makes
//! a body-based router of it instead.

mod args;
mod argv;
mod described;
mod source;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use extproc::proto::{DESCRIPTORS, SERVICE};
use extproc::server::{
    BaseModels, BodyRouter, Certificate, Health, Listener, ListenerOptions, Picker, PickerOptions,
    Service,
};
use fleet::{Fleet, Sharing};
use kubernetes::{AccessReview, Client, Election, ElectionOptions, Scope};
use routing::PoolKey;
use telemetry::{Metrics, Names};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tonic::service::Routes;

pub(crate) use self::args::EppArgs;
pub(crate) use self::argv::arguments;
use self::described::described;
use self::source::{Read, Source, namespace, pool_in_cluster, pool_in_files, scope_of};
use crate::admin::{self, Admin, Readiness};
use crate::cli::{LogArgs, LogFormat};
use crate::picker_config::{self, Named};

/// How often the certificate's files are looked at.
const CERTIFICATE: Duration = Duration::from_secs(5);
/// How long the start waits for servers to tell their models.
const LEARN_LIMIT: Duration = Duration::from_secs(2);
/// ConfigMaps with this label name base models and their adapters.
const MANAGED: (&str, &str) = ("inference-gateway.k8s.io/managed", "true");

/// What the pickers' own flags say about logging, where ours do not.
pub(crate) fn adjust_log(args: &EppArgs, log: &mut LogArgs) {
    let verbosity = args.ignored.v.as_deref().and_then(|v| v.parse::<u8>().ok());
    if log.log_level.is_none() && verbosity.is_some_and(|v| v >= 4) {
        log.log_level = Some("debug".to_owned());
    }
    if log.log_format == LogFormat::Auto && args.ignored.zap_encoder.as_deref() == Some("json") {
        log.log_format = LogFormat::Json;
    }
}

/// Runs the picker.
///
/// # Errors
/// Flags that do not go together, a port in use, no pool, no cluster.
pub(crate) fn run(args: Box<EppArgs>) -> anyhow::Result<()> {
    for flag in args.ignored.given() {
        tracing::warn!("{flag} changes nothing here");
    }
    crate::runtime()?.block_on(serve(&args))
}

async fn serve(args: &EppArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut server = Server::start(args).await?;
    let mut certificates = tokio::time::interval(CERTIFICATE);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = server.source.changed() => server.reload(),
            () = led(&mut server.leading) => server.tell(),
            _ = certificates.tick() => server.renew(),
        }
    }
    server.stop(args.drain_timeout, &mut interrupt).await;
    Ok(())
}

/// Resolves when it changes who leads; never without an election.
async fn led(leading: &mut Option<watch::Receiver<bool>>) {
    if let Some(leading) = leading
        && leading.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// What requests are asked for.
enum Work {
    /// Picks for a pool.
    Pick(PoolKey),
    /// The model of a body.
    Route(Arc<BodyRouter>),
}

/// The running picker.
struct Server {
    source: Source,
    work: Work,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    admin: Arc<Admin>,
    certificate: Option<Arc<Certificate>>,
    listeners: Vec<Listener>,
    ready: watch::Sender<bool>,
    election: Option<Election>,
    leading: Option<watch::Receiver<bool>>,
    /// The first picture is complete, and the pool is in it.
    there: bool,
    problems: Vec<String>,
    /// Most servers to name behind the picked one.
    fallbacks: usize,
    sharing: Option<Sharing>,
}

impl Server {
    async fn start(args: &EppArgs) -> anyhow::Result<Self> {
        let metrics = Metrics::with_names(Names {
            extproc: true,
            ..Names::default()
        });
        let (options, named) = fleet_options(args)?;
        let fleet = Fleet::new(options, Arc::clone(&metrics));
        let (source, client, work) = begin(args, &metrics).await?;
        let election = client
            .as_ref()
            .filter(|_| args.ha_enable_leader_election)
            .map(|client| Election::start(client.clone(), election(client, &work)));
        if args.ha_enable_leader_election && election.is_none() {
            tracing::warn!("without a cluster there is no leader election: this copy is ready");
        }
        let guard = client
            .filter(|_| args.metrics_endpoint_auth)
            .map(|client| Arc::new(AccessReview::new(client)));
        if args.metrics_endpoint_auth && guard.is_none() {
            tracing::info!("without a cluster nobody is asked for a token on the metrics port");
        }
        let admin = Arc::new(Admin {
            fleet: Arc::clone(&fleet),
            metrics: Arc::clone(&metrics),
            readiness: Readiness::default().into(),
        });
        let certificate = certificate(args)?;
        let mut server = Self {
            source,
            work,
            fleet,
            metrics,
            admin,
            certificate,
            listeners: Vec::new(),
            ready: watch::Sender::new(false),
            leading: election.as_ref().map(Election::leading),
            election,
            there: false,
            problems: Vec::new(),
            fallbacks: args.fallbacks.unwrap_or(named.0.saturating_sub(1)),
            sharing: None,
        };
        server.reload();
        server.fleet.learned(LEARN_LIMIT).await;
        server.sharing = args.sharing.start(&server.fleet).await?;
        server.listen(args, guard).await?;
        Ok(server)
    }

    async fn listen(
        &mut self,
        args: &EppArgs,
        guard: Option<Arc<AccessReview>>,
    ) -> anyhow::Result<()> {
        let ip = args.bind.unwrap_or(if args.files.is_empty() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        });
        let (grpc, health_port) = if args.bbr { (9004, 9005) } else { (9002, 9003) };
        let metrics_at = SocketAddr::new(ip, args.metrics_port);
        let admin = admin::start_guarded(metrics_at, Arc::clone(&self.admin), guard).await?;
        let health = Health::new(self.ready.subscribe());
        let threads = match args.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let mut beside = Routes::default();
        if args.health_checking {
            beside = beside.add_service(health.clone().server());
        }
        let options = ListenerOptions {
            address: SocketAddr::new(ip, args.grpc_port.unwrap_or(grpc)),
            certificate: self.certificate.clone(),
            threads,
        };
        let picks = Listener::start(options, Some(self.service(args)), reflected(beside)?).await?;
        let options = ListenerOptions {
            address: SocketAddr::new(ip, args.grpc_health_port.unwrap_or(health_port)),
            certificate: None,
            threads: 1,
        };
        let routes = reflected(Routes::new(health.server()))?;
        let healths = Listener::start(options, None, routes).await?;
        tracing::info!(
            address = %picks.address(),
            tls = self.certificate.is_some(),
            "serving {SERVICE}"
        );
        tracing::info!(address = %healths.address(), "gRPC health");
        tracing::info!(address = %admin, "admin: /metrics /healthz /readyz /decisions /");
        self.listeners = vec![picks, healths];
        Ok(())
    }

    fn service(&self, args: &EppArgs) -> Service {
        match &self.work {
            Work::Pick(key) => Service::picking(Picker::new(
                Arc::clone(&self.fleet),
                key.clone(),
                Arc::clone(&self.metrics),
                PickerOptions {
                    max_body: args.max_body_bytes,
                    trusted: args.trusted,
                    subset: !args.disable_endpoint_subset_filter,
                    test_selection: args.test_endpoint_selection,
                    fallbacks: self.fallbacks,
                },
            )),
            Work::Route(router) => Service::routing(Arc::clone(router), Arc::clone(&self.metrics)),
        }
    }

    /// Takes up what files or the cluster say now.
    fn reload(&mut self) {
        let read = self.source.read();
        // Half a picture would take away what is merely not seen yet.
        if !read.synced {
            return;
        }
        match &self.work {
            Work::Pick(key) => {
                let pools = read.pools();
                let pool = pools.get(key);
                if pool.is_none() {
                    tracing::warn!(pool = %key, "the pool is not there");
                }
                self.there = pool.is_some();
                self.fleet.apply(pool.into_iter());
            }
            Work::Route(router) => {
                router.set_bases(base_models(&read));
                self.there = true;
            }
        }
        for problem in &read.problems {
            if !self.problems.contains(problem) {
                tracing::error!("{problem}");
            }
        }
        self.metrics.config_reloaded(read.problems.is_empty());
        self.problems = read.problems;
        self.tell();
    }

    /// Tells whether proxies should come.
    fn tell(&self) {
        let leads = self
            .leading
            .as_ref()
            .is_none_or(|leading| *leading.borrow());
        let ready = self.there && leads;
        self.ready.send_replace(ready);
        let reason = match (self.there, leads) {
            (false, _) => Some("the pool is not there"),
            (true, false) => Some("another copy leads"),
            (true, true) => None,
        };
        *self.admin.readiness.lock() = Readiness {
            ready,
            reason,
            problems: self.problems.clone(),
        };
    }

    /// Takes up a new certificate.
    fn renew(&self) {
        let Some(certificate) = &self.certificate else {
            return;
        };
        match certificate.reload() {
            Ok(true) => tracing::info!("the certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!("the old certificate stays: {error}"),
        }
    }

    /// Not ready any more; running streams end; a second interrupt ends at once.
    async fn stop(self, limit: Duration, interrupt: &mut Signal) {
        tracing::info!(limit_s = limit.as_secs(), "draining: running streams go on");
        self.ready.send_replace(false);
        *self.admin.readiness.lock() = Readiness {
            ready: false,
            reason: Some("draining"),
            problems: Vec::new(),
        };
        let mut listeners = self.listeners.into_iter();
        if let Some(picks) = listeners.next() {
            tokio::select! {
                () = picks.drain(limit) => {}
                _ = interrupt.recv() => tracing::warn!("interrupted again: running streams are cut"),
            }
        }
        if let Some(election) = self.election {
            election.resign().await;
        }
        self.fleet.shutdown().await;
    }
}

/// Where objects come from, and what is done with them.
async fn begin(
    args: &EppArgs,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<(Source, Option<Client>, Work)> {
    let router = || Work::Route(BodyRouter::new(args.max_body_bytes, Arc::clone(metrics)));
    let described = described(args)?;
    if !args.files.is_empty() {
        let key = described.as_ref().map(described::key);
        let mut source = Source::files(args, described)?;
        let work = match key {
            _ if args.bbr => router(),
            Some(key) => Work::Pick(key),
            None => Work::Pick(pool_in_files(args, &source.read().pools())?),
        };
        return Ok((source, None, work));
    }
    let (scope, work) = match &described {
        _ if args.bbr => (base_model_maps(args), router()),
        Some(pool) => {
            let scope = Scope::Pods {
                namespace: pool.meta.namespace.clone(),
                labels: pool.spec.selector.match_labels.clone(),
            };
            (scope, Work::Pick(described::key(pool)))
        }
        None => {
            let key = pool_in_cluster(args)?;
            (scope_of(args, &key), Work::Pick(key))
        }
    };
    let client = kubernetes::connect(args.kubeconfig.as_deref()).await?;
    let source = Source::cluster(client.clone(), scope, described);
    Ok((source, Some(client), work))
}

/// The ConfigMaps that name base models: of one namespace if one is named.
fn base_model_maps(args: &EppArgs) -> Scope {
    Scope::ConfigMaps {
        namespace: namespace(args),
        labels: [(MANAGED.0.to_owned(), MANAGED.1.to_owned())].into(),
    }
}

fn certificate(args: &EppArgs) -> anyhow::Result<Option<Arc<Certificate>>> {
    if !args.secure_serving {
        return Ok(None);
    }
    let certificate = match &args.cert_path {
        Some(folder) => Certificate::from_folder(folder)
            .with_context(|| format!("--cert-path {}", folder.display()))?,
        None => Certificate::self_signed()?,
    };
    Ok(Some(certificate))
}

/// Adds reflection, so that tools such as grpcurl find their way.
fn reflected(routes: Routes) -> anyhow::Result<Routes> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()?;
    Ok(routes.add_service(reflection))
}

/// The Lease that copies of a picker compete for, by the reference's name.
fn election(client: &Client, work: &Work) -> ElectionOptions {
    let (namespace, name) = match work {
        Work::Pick(key) => (
            key.namespace.clone(),
            format!("epp-{}-{}", key.namespace, key.name),
        ),
        Work::Route(_) => (client.default_namespace().to_owned(), "bbr".to_owned()),
    };
    let lease = format!("{name}.gateway-api-inference-extension.sigs.k8s.io");
    let host = std::env::var("POD_NAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "pointsman".to_owned());
    let identity = format!("{host}_{:016x}", rand::random::<u64>());
    ElectionOptions::new(namespace, lease, identity)
}

/// Base models and their adapters, from the ConfigMaps that say so.
fn base_models(read: &Read) -> BaseModels {
    let mut bases = BaseModels::default();
    for map in read.objects.config_maps() {
        if map.meta.labels.get(MANAGED.0).map(String::as_str) != Some(MANAGED.1) {
            continue;
        }
        let Some(base) = map.data.get("baseModel") else {
            tracing::warn!(
                name = map.meta.name,
                "a ConfigMap of base models names none"
            );
            continue;
        };
        let listed = map.data.get("adapters").map_or("", String::as_str);
        // A YAML list of names: one for each line.
        let adapters = listed.lines().map(|line| {
            let name = line.trim().trim_start_matches('-').trim();
            name.trim_matches(['"', '\''])
        });
        bases.add(base, adapters);
    }
    bases
}

fn fleet_options(args: &EppArgs) -> anyhow::Result<(fleet::FleetOptions, Named)> {
    let servers = &args.servers;
    let read = |flag: &str, value: &Option<String>| -> anyhow::Result<fleet::MetricSource> {
        let Some(text) = value else {
            return Ok(fleet::MetricSource::Preset);
        };
        text.parse().with_context(|| format!("--{flag} {text:?}"))
    };
    let mut options = fleet::FleetOptions {
        seed: args.seed.unwrap_or_else(rand::random),
        share: args.sharing.tells(),
        ..Default::default()
    };
    options.scrape.fast = servers
        .refresh_metrics_interval
        .max(Duration::from_millis(1));
    options
        .scrape
        .path
        .clone_from(&servers.model_server_metrics_path);
    if let Some(ttl) = servers.metrics_staleness_threshold {
        options.scheduling.scrape_ttl = ttl;
    }
    options.mapping = fleet::MetricMapping {
        queued: read(
            "total-queued-requests-metric",
            &servers.total_queued_requests_metric,
        )?,
        running: read(
            "total-running-requests-metric",
            &servers.total_running_requests_metric,
        )?,
        kv_usage: read(
            "kv-cache-usage-percentage-metric",
            &servers.kv_cache_usage_percentage_metric,
        )?,
        lora: read("lora-info-metric", &servers.lora_info_metric)?,
        cache_info: read("cache-info-metric", &servers.cache_info_metric)?,
    };
    // Charts pass empty texts for what is not set.
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mut named = Named(1);
    if let Some(path) = given(&args.config_file) {
        named = picker_config::apply_file(path.as_ref(), &mut options)?;
    } else if let Some(text) = given(&args.config_text) {
        named = picker_config::apply_text(&text, &mut options).context("--config-text")?;
    }
    Ok((options, named))
}

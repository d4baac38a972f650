//! `pointsman serve`: assembles the gateway and keeps it following its configuration until told to stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use fleet::{Fleet, Sharing};
use proxy::{ListenProblemKind, Proxy};
use telemetry::Metrics;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, Admin, Readiness};
use crate::cli::{Policy, ScrapeArgs, ServeArgs};
use crate::config::Configuration;

/// How long the start waits for servers to tell their models; one that is away does not hold up the rest.
const LEARN_LIMIT: Duration = Duration::from_secs(2);

/// Runs the gateway.
///
/// # Errors
/// When nothing can be served: a URL that is none, a port in use, no readable file.
pub(crate) fn run(args: Box<ServeArgs>) -> anyhow::Result<()> {
    if args.cluster.kubernetes {
        return crate::runtime()?.block_on(crate::kubernetes::serve(&args));
    }
    if args.remote.gateway.is_some() {
        return crate::runtime()?.block_on(crate::kubernetes::serve_gateway(&args));
    }
    crate::runtime()?.block_on(serve(&args))
}

/// How often a port that another process has is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// The running gateway.
struct Gateway {
    /// A port that the plan wants is not bound.
    unbound: bool,
    configuration: Configuration,
    plan: Arc<ArcSwap<routing::Plan>>,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    proxy: Proxy,
    admin: Arc<Admin>,
    _sharing: Option<Sharing>,
}

async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut gateway = Gateway::start(args).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = gateway.configuration.changed() => gateway.reload(),
            () = tokio::time::sleep(BIND_AGAIN), if gateway.unbound => gateway.listen(),
        }
    }
    gateway
        .stop(args.limits.drain_timeout, &mut interrupt)
        .await;
    Ok(())
}

impl Gateway {
    async fn start(args: &ServeArgs) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let fleet = Fleet::new(fleet_options(args)?, Arc::clone(&metrics));
        let mut configuration = Configuration::open(args)?;
        let plan = Arc::new(ArcSwap::new(configuration.load()));
        if !configuration.problems().is_empty() {
            metrics.config_reloaded(false);
        }
        fleet.apply(plan.load().pools.values());
        fleet.learned(LEARN_LIMIT).await;
        let sharing = args.sharing.start(&fleet).await?;
        let admin = Arc::new(Admin {
            fleet: Arc::clone(&fleet),
            metrics: Arc::clone(&metrics),
            readiness: Readiness::default().into(),
        });
        let admin_address = admin::start(args.admin, Arc::clone(&admin)).await?;
        let proxy = Proxy::start(
            proxy_options(args),
            Arc::clone(&plan),
            Arc::clone(&fleet),
            Arc::clone(&metrics),
        )
        .context("cannot start the data plane")?;
        let mut gateway = Self {
            unbound: false,
            configuration,
            plan,
            fleet,
            metrics,
            proxy,
            admin,
            _sharing: sharing,
        };
        gateway.listen();
        anyhow::ensure!(
            args.urls.is_empty() || !gateway.proxy.addresses().is_empty(),
            "cannot listen on {}: {}; choose another address with --listen",
            args.listen,
            gateway.admin.readiness.lock().problems.join("; ")
        );
        for address in gateway.proxy.addresses() {
            tracing::info!(%address, "serving");
        }
        tracing::info!(address = %admin_address, "admin: /metrics /healthz /readyz /decisions /");
        Ok(gateway)
    }

    /// Takes up changed files: what is broken is named and stays as it was.
    fn reload(&mut self) {
        let plan = self.configuration.load();
        // Pools first: a rule of the new plan must find its pool.
        self.fleet.apply(plan.pools.values());
        self.plan.store(plan);
        self.listen();
        self.metrics
            .config_reloaded(self.configuration.problems().is_empty());
        tracing::info!(
            problems = self.configuration.problems().len(),
            "configuration reloaded"
        );
    }

    /// Binds what the plan wants bound and tells what is wrong.
    fn listen(&mut self) {
        let listeners = self.proxy.apply();
        self.unbound = listeners
            .iter()
            .any(|problem| problem.kind != ListenProblemKind::Certificate);
        let mut problems: Vec<String> = self.configuration.problems().to_vec();
        problems.extend(listeners.into_iter().map(|problem| problem.message));
        let known = std::mem::take(&mut self.admin.readiness.lock().problems);
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::error!("{problem}");
        }
        // The configuration has logged these.
        problems.extend_from_slice(self.configuration.conditions());
        *self.admin.readiness.lock() = Readiness {
            ready: true,
            reason: None,
            problems,
        };
    }

    /// Stops taking requests and lets the running ones end; a second interrupt ends at once.
    async fn stop(self, limit: Duration, interrupt: &mut tokio::signal::unix::Signal) {
        tracing::info!(
            limit_s = limit.as_secs(),
            "draining: no new connections, running requests go on"
        );
        *self.admin.readiness.lock() = Readiness {
            ready: false,
            reason: Some("draining"),
            problems: Vec::new(),
        };
        tokio::select! {
            () = self.proxy.drain(limit) => {}
            _ = interrupt.recv() => tracing::warn!("interrupted again: running requests are cut"),
        }
        self.fleet.shutdown().await;
    }
}

fn scheduling_config(args: &ServeArgs) -> scheduling::Config {
    let policy = match args.policy {
        Policy::ExpectedCost => scheduling::PolicyKind::ExpectedCost,
        Policy::RoundRobin => scheduling::PolicyKind::RoundRobin,
        Policy::LeastRequest => scheduling::PolicyKind::LeastRequest,
        Policy::Random => scheduling::PolicyKind::Random,
    };
    scheduling::Config {
        policy,
        max_waiting_per_endpoint: args.limits.max_waiting_per_endpoint,
        flow: args.queue.flow(),
        ..scheduling::Config::default()
    }
}

pub(crate) fn fleet_options(args: &ServeArgs) -> anyhow::Result<fleet::FleetOptions> {
    let mut options = fleet::FleetOptions {
        scheduling: scheduling_config(args),
        dns_refresh: args.scraping.dns_refresh,
        ..Default::default()
    };
    options.share = args.sharing.tells();
    options.seed = args.seed.unwrap_or_else(rand::random);
    options.scrape.fast = args.scraping.refresh_metrics_interval;
    options
        .scrape
        .path
        .clone_from(&args.scraping.model_server_metrics_path);
    options.mapping = mapping(&args.scraping)?;
    if let Some(path) = &args.picker_config {
        crate::picker_config::apply_file(path, &mut options)?;
    }
    if let Some(path) = &args.record {
        let recorder = recording::Recorder::create(path, args.record_limit << 20)
            .with_context(|| format!("cannot record to {}", path.display()))?;
        options.recorder = Some(recorder);
    }
    Ok(options)
}

/// The metric names given on the command line over those known by engine.
fn mapping(args: &ScrapeArgs) -> anyhow::Result<fleet::MetricMapping> {
    let read = |flag: &str, value: &Option<String>| -> anyhow::Result<fleet::MetricSource> {
        let Some(text) = value else {
            return Ok(fleet::MetricSource::Preset);
        };
        text.parse().with_context(|| format!("--{flag} {text:?}"))
    };
    Ok(fleet::MetricMapping {
        queued: read(
            "total-queued-requests-metric",
            &args.total_queued_requests_metric,
        )?,
        running: read(
            "total-running-requests-metric",
            &args.total_running_requests_metric,
        )?,
        kv_usage: read(
            "kv-cache-usage-percentage-metric",
            &args.kv_cache_usage_percentage_metric,
        )?,
        lora: read("lora-info-metric", &args.lora_info_metric)?,
        cache_info: read("cache-info-metric", &args.cache_info_metric)?,
    })
}

pub(crate) fn proxy_options(args: &ServeArgs) -> proxy::ProxyOptions {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = proxy::ProxyOptions {
        bind: if args.urls.is_empty() {
            args.bind
        } else {
            args.listen.ip()
        },
        threads: if args.threads == 0 {
            cores
        } else {
            args.threads
        },
        max_body: args.limits.max_body_bytes,
        trusted: args.trusted,
        trust_picks: args.limits.trust_picks,
        explain: args.explain,
        ..Default::default()
    };
    options.deadlines.connect = args.limits.connect_timeout;
    options.deadlines.first_byte = args.limits.first_byte_timeout;
    options.deadlines.picker_connect = args.limits.picker_connect_timeout;
    options.deadlines.pick = args.limits.picker_timeout;
    options.deadlines.picker_silence = args.limits.picker_idle_timeout;
    options.deadlines.idle = args.limits.idle_timeout;
    options.deadlines.client_header = args.limits.client_header_timeout;
    options
}

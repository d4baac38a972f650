//! The world of one run: simulated servers on one thread, the gateway on its own, both over loopback.
//!
//! The gateway is the real one, assembled as `serve -f` does it; only its objects come from a text in memory.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use arc_swap::ArcSwap;
use fleet::Fleet;
use proxy::Proxy;
use scheduling::PolicyKind;
use simserver::{LoraModule, SimHandle, SimOptions};
use telemetry::Metrics;
use tokio::runtime::Runtime;

/// Simulated servers.
pub(crate) const SERVERS: usize = 3;
/// KV blocks of a server, 16 tokens each: less than all tenants' prompts together, more than a third of them.
pub(crate) const KV_BLOCKS: u32 = 3000;
/// Tokens a KV block.
const BLOCK_TOKENS: u32 = 16;
/// Adapters in GPU memory at once.
pub(crate) const LORA_SLOTS: usize = 2;
/// Time to load an adapter.
pub(crate) const LORA_LOAD: Duration = Duration::from_millis(100);
/// Adapters that every server can load.
pub(crate) const ADAPTERS: [&str; 4] = ["chat-v1", "chat-v2", "sql", "legal"];
/// The model beneath.
const BASE: &str = "llama-3.1-8b";

/// Everything that `serve -f` needs to know, but for the servers' addresses.
const OBJECTS: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama, namespace: demo}
spec:
  selector: {matchLabels: {app: llama}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: picker, port: {number: 9002}}
";

/// Servers and gateway.
pub(crate) struct World {
    gateway: Gateway,
    servers: Vec<SimHandle>,
    gateway_runtime: Runtime,
    server_runtime: Runtime,
}

struct Gateway {
    fleet: Arc<Fleet>,
    proxy: Proxy,
    address: SocketAddr,
}

/// One server at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Glance {
    /// Its name.
    pub(crate) name: String,
    /// Requests there.
    pub(crate) in_flight: u32,
    /// Share of its KV cache that requests hold.
    pub(crate) kv_usage: f64,
    /// Share of prompt tokens found in its prefix cache, since its start.
    pub(crate) hit_ratio: f64,
    /// Adapters in its slots.
    pub(crate) adapters: usize,
}

/// What all servers counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    /// Answers finished.
    pub(crate) finished: u64,
    /// Adapters loaded.
    pub(crate) adapter_loads: u64,
}

impl World {
    /// Starts fresh servers and a gateway with this policy in front of them.
    ///
    /// # Errors
    /// When there is no thread or port to be had, or a server cannot be reached.
    pub(crate) fn start(policy: PolicyKind, seed: u64) -> anyhow::Result<Self> {
        let (server_runtime, gateway_runtime) = (thread("servers")?, thread("gateway")?);
        let servers =
            (0..SERVERS).map(|_| server_runtime.block_on(simserver::spawn(sim_options(seed))));
        let servers = servers
            .collect::<anyhow::Result<Vec<_>>>()
            .context("cannot start the simulated servers")?;
        let addresses: Vec<_> = servers.iter().map(SimHandle::address).collect();
        let gateway = gateway_runtime.block_on(Gateway::start(policy, seed, &addresses))?;
        Ok(Self {
            gateway,
            servers,
            gateway_runtime,
            server_runtime,
        })
    }

    /// Where the gateway listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    /// The servers now, by name.
    pub(crate) fn glance(&self) -> Vec<Glance> {
        let endpoints: Vec<_> = self
            .gateway
            .fleet
            .pools()
            .iter()
            .flat_map(|pool| pool.endpoints())
            .collect();
        let look = |(nth, server): (usize, &SimHandle)| {
            let (stats, name) = (server.stats(), name(nth));
            let known = endpoints.iter().find(|endpoint| endpoint.name == name);
            Glance {
                in_flight: known.map_or(0, |endpoint| endpoint.in_flight),
                kv_usage: stats.kv_usage,
                hit_ratio: stats.prefix_hits as f64 / stats.prefix_queries.max(1) as f64,
                adapters: stats.resident_adapters.len(),
                name,
            }
        };
        self.servers.iter().enumerate().map(look).collect()
    }

    /// What the servers counted so far.
    pub(crate) fn totals(&self) -> Totals {
        self.servers
            .iter()
            .map(SimHandle::stats)
            .fold(Totals::default(), |sum, stats| Totals {
                finished: sum.finished + stats.finished,
                adapter_loads: sum.adapter_loads + stats.adapter_loads,
            })
    }

    /// Ends everything; nothing may be running any more.
    pub(crate) fn stop(self) {
        let Self {
            gateway,
            servers,
            gateway_runtime,
            server_runtime,
        } = self;
        gateway_runtime.block_on(async {
            gateway.proxy.drain(Duration::from_secs(2)).await;
            gateway.fleet.shutdown().await;
        });
        for server in servers {
            server_runtime.block_on(server.kill());
        }
        gateway_runtime.shutdown_background();
        server_runtime.shutdown_background();
    }
}

impl Gateway {
    async fn start(policy: PolicyKind, seed: u64, servers: &[SocketAddr]) -> anyhow::Result<Self> {
        let plan = plan(servers)?;
        let metrics = Metrics::new();
        let options = fleet::FleetOptions {
            scheduling: scheduling_config(policy),
            seed,
            ..Default::default()
        };
        let fleet = Fleet::new(options, Arc::clone(&metrics));
        fleet.apply(plan.pools.values());
        fleet.learned(Duration::from_secs(5)).await;
        let ready = fleet
            .pools()
            .iter()
            .flat_map(|pool| pool.endpoints())
            .filter(|e| e.ready && !e.models.is_empty())
            .count();
        ensure!(
            ready == servers.len(),
            "the gateway reached {ready} of {} servers",
            servers.len()
        );

        let plan = Arc::new(ArcSwap::from_pointee(plan));
        let options = proxy::ProxyOptions {
            explain: true,
            ..Default::default()
        };
        let proxy = Proxy::start(options, plan, Arc::clone(&fleet), metrics)
            .context("cannot start the data plane")?;
        let address = proxy
            .addresses()
            .first()
            .copied()
            .context("the gateway has no port to listen on")?;
        Ok(Self {
            fleet,
            proxy,
            address,
        })
    }
}

/// A runtime with one thread of its own.
fn thread(name: &str) -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the {name}' thread"))
}

fn name(nth: usize) -> String {
    format!("server-{}", nth + 1)
}

fn sim_options(seed: u64) -> SimOptions {
    let module = |name: &&str| LoraModule {
        name: (*name).to_owned(),
        path: format!("/adapters/{name}"),
    };
    SimOptions {
        model: BASE.to_owned(),
        num_gpu_blocks: Some(KV_BLOCKS),
        block_size: BLOCK_TOKENS,
        enable_lora: true,
        lora_modules: ADAPTERS.iter().map(module).collect(),
        max_loras: LORA_SLOTS,
        max_cpu_loras: Some(ADAPTERS.len()),
        lora_load: LORA_LOAD,
        seed,
        ..SimOptions::default()
    }
}

/// Round robin stands for a load balancer that knows nothing of models: it opens every server to everything, so it has
/// nothing to wait for and no reason to refuse anybody.
fn scheduling_config(policy: PolicyKind) -> scheduling::Config {
    let mut config = scheduling::Config {
        policy,
        ..Default::default()
    };
    if policy == PolicyKind::RoundRobin {
        (config.max_waiting_per_endpoint, config.prefill_gate_tokens) = (1_000_000, 1_000_000_000);
    }
    config
}

/// Compiles the objects, which must be without blemish.
fn plan(servers: &[SocketAddr]) -> anyhow::Result<routing::Plan> {
    let mut objects = api::Objects::new();
    for document in api::decode_yaml(&yaml(servers)) {
        let object = document
            .result
            .with_context(|| format!("line {} of the demo's objects", document.line))?;
        objects.insert(object);
    }
    // No Gateway is described, so one stands in; port 0 takes a free port.
    let options = routing::CompileOptions {
        default_listen_port: 0,
        ..Default::default()
    };
    let compiled = routing::compile(&objects, &options);
    let problem = compiled
        .statuses
        .iter()
        .find_map(|status| status.problems().next().map(|problem| (status, problem)));
    if let Some((status, problem)) = problem {
        bail!("{}: {} {}", status.object, problem.reason, problem.message);
    }
    Ok(compiled.plan)
}

/// The objects of the demo as YAML.
pub(crate) fn yaml(servers: &[SocketAddr]) -> String {
    let mut text = OBJECTS.to_owned();
    let models = [
        (
            "chat",
            "Critical",
            "[{name: chat-v1, weight: 80}, {name: chat-v2, weight: 20}]",
        ),
        ("agents", "Standard", "[{name: llama-3.1-8b, weight: 1}]"),
        ("sql", "Standard", "[{name: sql, weight: 1}]"),
        ("legal", "Standard", "[{name: legal, weight: 1}]"),
        ("batch", "Sheddable", "[{name: llama-3.1-8b, weight: 1}]"),
    ];
    for (name, criticality, targets) in models {
        let _ = write!(
            text,
            "---\napiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\n\
             metadata: {{name: {name}, namespace: demo}}\nspec:\n  modelName: {name}\n  criticality: {criticality}\n  \
             poolRef: {{name: llama}}\n  targetModels: {targets}\n"
        );
    }
    for (nth, server) in servers.iter().enumerate() {
        let (name, ip, port) = (name(nth), server.ip(), server.port());
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}, namespace: demo, labels: {{app: llama}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\n\
             endpoints: [{{addresses: [{ip}], targetRef: {{kind: Pod, name: {name}}}}}]\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_compile_without_a_problem() {
        let servers = [
            "127.0.0.1:8001".parse().unwrap(),
            "127.0.0.1:8002".parse().unwrap(),
        ];
        let plan = plan(&servers).unwrap();
        assert_eq!(plan.pools.len(), 1);
        let pool = plan.pools.values().next().unwrap();
        assert_eq!(
            pool.endpoints
                .iter()
                .map(|e| e.name.as_str())
                .collect::<Vec<_>>(),
            ["server-1", "server-2"]
        );
        let class = |model| pool.models.resolve(model, None, 0.0).priority;
        assert_eq!(["chat", "agents", "batch"].map(class), [1, 0, -1]);
        for adapter in ADAPTERS {
            let rolls = (0..100).flat_map(|roll| {
                ["chat", "sql", "legal"]
                    .map(|m| pool.models.resolve(m, None, f64::from(roll) / 100.0))
            });
            let reached = rolls
                .into_iter()
                .any(|found| found.target_model.is_none_or(|target| target == adapter));
            assert!(reached, "{adapter}");
        }
    }
}

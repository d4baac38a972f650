//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::queue::QueueArgs;
use crate::sharing::SharingArgs;

/// Sets the points for requests to large language models.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, about, long_about = None, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Logging.
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway in front of model servers given as URLs, or as described in Kubernetes YAML files.
    Serve(Box<ServeArgs>),
    /// Run an endpoint picker for any proxy that speaks Envoy's external processing.
    Epp(Box<crate::epp::EppArgs>),
    /// Provision data planes for the Gateways of a cluster, tell them their objects, and write statuses.
    Controller(Box<crate::controller::ControllerArgs>),
    /// Validate files and print each object's conditions; exit 1 on an error.
    Check(CheckArgs),
    /// Run a model server without a GPU: vLLM's API, metrics and timing, simulated.
    Sim(Box<simserver::SimArgs>),
    /// Compare scheduling policies on fleets of simulated engines, in virtual time.
    #[command(subcommand)]
    Lab(Box<lab::cli::LabCommand>),
    /// Three simulated servers, the gateway and mixed traffic, narrated, in about ten seconds.
    Demo(crate::demo::DemoArgs),
}

/// Logging flags.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What to log: a level, or `tracing` directives such as `info,access=off`.
    /// Without it: `info`; for `demo`, `check` and `lab` only errors, which would otherwise run
    /// through their output.
    #[arg(long, global = true, env = "POINTSMAN_LOG")]
    pub(crate) log_level: Option<String>,
    /// How to log.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Auto, env = "POINTSMAN_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// Log formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Base URLs of model servers, such as `http://gpu1:8000`. A DNS name with several addresses is several servers.
    #[arg(
        value_name = "URL",
        conflicts_with = "files",
        required_unless_present_any = ["files", "kubernetes", "gateway"]
    )]
    pub(crate) urls: Vec<String>,
    /// A file or folder of Kubernetes YAML to serve; may be repeated. Changes are picked up while running.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
    /// Where to listen in URL mode, and for pools that no described Gateway serves.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        env = "POINTSMAN_LISTEN"
    )]
    pub(crate) listen: SocketAddr,
    /// Address that described Gateways' listeners bind, at the port written there.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(crate) bind: IpAddr,
    /// Where `/metrics`, `/healthz`, `/readyz`, `/decisions` and the status page are.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:9090",
        env = "POINTSMAN_ADMIN"
    )]
    pub(crate) admin: SocketAddr,
    /// Data-plane threads; 0: one for each core.
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// How servers are chosen.
    #[arg(long, value_enum, default_value_t = Policy::ExpectedCost)]
    pub(crate) policy: Policy,
    /// An EndpointPickerConfig to choose servers by, with its flow control, in place of `--policy`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "record"])]
    pub(crate) picker_config: Option<PathBuf>,
    /// Clients are trusted: engine-internal fields, servers' admin routes and `x-pointsman-explain` are allowed.
    #[arg(long)]
    pub(crate) trusted: bool,
    /// Answer `x-pointsman-explain: 1` with the decision in response headers.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Seed of every random choice; a run with the same events replays exactly.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Write everything that schedulers are told and decide to this file, without any text, for `lab replay`.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Size in MiB at which the recording ends.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) record_limit: u64,
    /// Limits.
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Who waits.
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    /// What is read from servers.
    #[command(flatten)]
    pub(crate) scraping: ScrapeArgs,
    /// Other replicas.
    #[command(flatten)]
    pub(crate) sharing: SharingArgs,
    /// The cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// One Gateway of a cluster.
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// Serving one Gateway as a controller tells it.
#[derive(Debug, Args)]
pub(crate) struct RemoteArgs {
    /// Serve this Gateway of a cluster, as `pointsman controller` tells it.
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        value_parser = crate::kubernetes::parse_gateway,
        conflicts_with_all = ["urls", "files", "kubernetes"],
        requires_all = ["controller", "controller_ca", "token_file"]
    )]
    pub(crate) gateway: Option<api::ObjectKey>,
    /// The controller.
    #[arg(long, value_name = "HOST:PORT", requires = "gateway")]
    pub(crate) controller: Option<String>,
    /// Certificates in PEM of which one must have signed the controller's.
    #[arg(long, value_name = "FILE", requires = "gateway")]
    pub(crate) controller_ca: Option<PathBuf>,
    /// The token to show the controller; read anew for every connection.
    #[arg(long, value_name = "FILE", requires = "gateway")]
    pub(crate) token_file: Option<PathBuf>,
    /// Write the token that the controller tells to the file of `--sharing-token-file` before sharing begins.
    #[arg(long, requires_all = ["gateway", "sharing_token_file"])]
    pub(crate) sharing_token_from_controller: bool,
    /// How long connections are still accepted after SIGTERM while `/readyz` says no already: until everybody who
    /// sends traffic here knows.
    #[arg(long, value_name = "DURATION", default_value = "0s", requires = "gateway", value_parser = humantime::parse_duration)]
    pub(crate) farewell: Duration,
}

/// Serving what a Kubernetes cluster describes.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Serve the Gateways of a Kubernetes cluster and write statuses.
    #[arg(long, conflicts_with_all = ["urls", "files"])]
    pub(crate) kubernetes: bool,
    /// The cluster's kubeconfig; without it, the Pod's service account, else KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Gateways of classes with this controllerName are served.
    #[arg(long, value_name = "NAME", default_value = routing::CONTROLLER_NAME)]
    pub(crate) controller_name: String,
    /// Addresses of this machine for Gateways, one for each: `10.0.0.2-10.0.0.9`, `10.0.0.0/28`. Without it all
    /// Gateways share the address given by `--bind`.
    #[arg(long, value_name = "RANGE", requires = "kubernetes")]
    pub(crate) addresses: Option<crate::kubernetes::AddressRange>,
    /// Read objects of this namespace only; may be repeated.
    #[arg(long = "namespace", value_name = "NAME", requires = "kubernetes")]
    pub(crate) namespaces: Vec<String>,
}

/// Policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Expected cost in seconds: the five factors in one number.
    ExpectedCost,
    /// Each server in turn; for comparison.
    RoundRobin,
    /// Fewest requests in flight; for comparison.
    LeastRequest,
    /// Any server; for comparison.
    Random,
}

/// Limits of the data plane.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Largest request body in bytes.
    #[arg(long, default_value_t = 64 << 20)]
    pub(crate) max_body_bytes: u64,
    /// Deadline for connecting to a server.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) connect_timeout: Duration,
    /// Deadline for the head of a server's answer.
    #[arg(long, default_value = "600s", value_parser = humantime::parse_duration)]
    pub(crate) first_byte_timeout: Duration,
    /// Deadline between two pieces of a server's answer.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub(crate) idle_timeout: Duration,
    /// Deadline for connecting to a pool's endpoint picker.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) picker_connect_timeout: Duration,
    /// Deadline for the decision of a pool's endpoint picker.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) picker_timeout: Duration,
    /// Let endpoint pickers name servers outside their pool. They are then trusted with every address that this process
    /// can reach.
    #[arg(long)]
    pub(crate) trust_picks: bool,
    /// How long an endpoint picker through which an answer passes may keep what it was given.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) picker_idle_timeout: Duration,
    /// Deadline for a client's request head.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) client_header_timeout: Duration,
    /// How long running requests may go on after SIGTERM.
    #[arg(long, default_value = "600s", value_parser = humantime::parse_duration)]
    pub(crate) drain_timeout: Duration,
    /// Requests waiting inside one server above which nothing more is pushed onto it.
    #[arg(long, default_value_t = 5)]
    pub(crate) max_waiting_per_endpoint: u32,
}

/// Metric names, in the flag grammar of the GAIE endpoint picker: `name` or `name{label=value}`; empty switches off.
#[derive(Debug, Args)]
pub(crate) struct ScrapeArgs {
    /// Gauge of requests waiting in a server; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(crate) total_queued_requests_metric: Option<String>,
    /// Gauge of requests running in a server; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(crate) total_running_requests_metric: Option<String>,
    /// Gauge of KV-cache use, 0 to 1; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(crate) kv_cache_usage_percentage_metric: Option<String>,
    /// Info metric of LoRA adapters; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(crate) lora_info_metric: Option<String>,
    /// Info metric of the KV cache's size; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(crate) cache_info_metric: Option<String>,
    /// Path of servers' metrics.
    #[arg(long, default_value = "/metrics")]
    pub(crate) model_server_metrics_path: String,
    /// Time between scrapes of a busy server.
    #[arg(long, default_value = "50ms", value_parser = humantime::parse_duration)]
    pub(crate) refresh_metrics_interval: Duration,
    /// Time between two resolutions of a DNS name.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) dns_refresh: Duration,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A file or folder of Kubernetes YAML; may be repeated.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = CheckOutput::Table)]
    pub(crate) output: CheckOutput,
}

/// Output of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckOutput {
    /// A table.
    Table,
    /// One JSON object.
    Json,
}

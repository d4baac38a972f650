//! The command line of `pointsman epp`: the flags of the endpoint pickers that it takes the place of.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

/// The group of InferencePool v1.
pub(super) const GROUP: &str = "inference.networking.k8s.io";
/// The group of InferencePool v1alpha2.
pub(super) const GROUP_ALPHA: &str = "inference.networking.x-k8s.io";

/// Flags of `epp`. Those of the Go endpoint pickers mean what they mean there, in kebab or camel case, with one dash or
/// two.
#[derive(Debug, Args)]
pub(crate) struct EppArgs {
    /// The InferencePool to pick for.
    #[arg(long, value_name = "NAME", value_parser = named)]
    pub(super) pool_name: Option<String>,
    /// Its namespace; without, `NAMESPACE` of the environment, else `default`.
    #[arg(long, value_name = "NAMESPACE", value_parser = named)]
    pub(super) pool_namespace: Option<String>,
    /// Its group, which tells v1 from v1alpha2.
    #[arg(long, value_name = "GROUP", default_value = GROUP)]
    pub(super) pool_group: String,
    /// Labels of Pods to pick among, where no InferencePool describes them: `app=vllm,env=prod`.
    #[arg(long, value_name = "LABELS", value_parser = given)]
    pub(super) endpoint_selector: Option<String>,
    /// Ports of their servers, one to eight: `8000,8001`.
    #[arg(long, value_name = "PORTS", value_parser = given)]
    pub(super) endpoint_target_ports: Option<String>,
    /// Files or folders of Kubernetes YAML in place of a cluster; changes are picked up while running.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR")]
    pub(super) files: Vec<PathBuf>,
    /// How to reach the cluster; without, from inside it, else as `kubectl` does.
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Tell proxies the model that a body names, and nothing else: a body-based router.
    #[arg(long)]
    pub(super) bbr: bool,
    /// Address to listen on. Without: all of them in a cluster, loopback with files.
    #[arg(long, value_name = "IP")]
    pub(super) bind: Option<IpAddr>,
    /// Port of the picker; 9004 with `--bbr`.
    #[arg(long, value_name = "PORT")]
    pub(super) grpc_port: Option<u16>,
    /// Port of gRPC health; 9005 with `--bbr`.
    #[arg(long, value_name = "PORT")]
    pub(super) grpc_health_port: Option<u16>,
    /// Port of `/metrics`, `/healthz`, `/readyz`, `/decisions` and the status page.
    #[arg(long, value_name = "PORT", default_value_t = 9090)]
    pub(super) metrics_port: u16,
    /// TLS on the picker's port.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) secure_serving: bool,
    /// Folder with `tls.crt` and `tls.key`, read again when they change; without, a self-signed certificate.
    #[arg(long, value_name = "DIR")]
    pub(super) cert_path: Option<PathBuf>,
    /// Health on the picker's port, too.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) health_checking: bool,
    /// Of several copies, only one is ready.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) ha_enable_leader_election: bool,
    /// Ask the cluster who may read `/metrics`.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) metrics_endpoint_auth: bool,
    /// Do not let the proxy narrow the choice.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) disable_endpoint_subset_filter: bool,
    /// Let the request header `test-epp-endpoint-selection` narrow the choice, as conformance tests ask.
    #[arg(long)]
    pub(super) test_endpoint_selection: bool,
    /// Most servers to name behind the picked one; unset, as many as `maxNumOfEndpoints` of a configuration asks for, which
    /// is none by default. Not every proxy takes a list: Envoy's original-destination clusters want one address.
    #[arg(long, value_name = "N")]
    pub(super) fallbacks: Option<usize>,
    /// Clients are trusted with fields by which engines steer each other.
    #[arg(long)]
    pub(super) trusted: bool,
    /// An EndpointPickerConfig.
    #[arg(long, value_name = "FILE", conflicts_with = "config_text", value_parser = given)]
    pub(super) config_file: Option<String>,
    /// The same as text.
    #[arg(long, value_name = "YAML", value_parser = given)]
    pub(super) config_text: Option<String>,
    /// Largest request body in bytes.
    #[arg(long, default_value_t = 64 << 20)]
    pub(super) max_body_bytes: usize,
    /// Threads of the picker's port; 0: one for each core.
    #[arg(long, default_value_t = 0)]
    pub(super) threads: usize,
    /// How long running streams may go on after SIGTERM.
    #[arg(long, default_value = "30s", value_parser = go_duration)]
    pub(super) drain_timeout: Duration,
    /// Seed of every random choice.
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// What is read from servers.
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    /// Other replicas.
    #[command(flatten)]
    pub(super) sharing: crate::sharing::SharingArgs,
    /// Taken and not used.
    #[command(flatten)]
    pub(super) ignored: Ignored,
}

/// How servers are asked.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Path of servers' metrics.
    #[arg(long, default_value = "/metrics")]
    pub(super) model_server_metrics_path: String,
    /// Time between scrapes of a busy server.
    #[arg(long, default_value = "50ms", value_parser = go_duration)]
    pub(super) refresh_metrics_interval: Duration,
    /// Metrics older than this say nothing.
    #[arg(long, value_parser = go_duration)]
    pub(super) metrics_staleness_threshold: Option<Duration>,
    /// Gauge of requests waiting in a server; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(super) total_queued_requests_metric: Option<String>,
    /// Gauge of requests running in a server; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(super) total_running_requests_metric: Option<String>,
    /// Gauge of KV-cache use, 0 to 1; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(super) kv_cache_usage_percentage_metric: Option<String>,
    /// Info metric of LoRA adapters; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(super) lora_info_metric: Option<String>,
    /// Info metric of the KV cache's size; unset: known by engine.
    #[arg(long, value_name = "METRIC")]
    pub(super) cache_info_metric: Option<String>,
}

/// Flags of the Go endpoint pickers that change nothing here. They are taken so that a deployment need not change, and
/// named in the log.
#[derive(Debug, Args)]
pub(super) struct Ignored {
    #[arg(long, hide = true)]
    pub(super) v: Option<String>,
    #[arg(long, hide = true)]
    pub(super) zap_encoder: Option<String>,
    #[arg(long, hide = true)]
    zap_log_level: Option<String>,
    #[arg(long, hide = true)]
    zap_stacktrace_level: Option<String>,
    #[arg(long, hide = true)]
    zap_time_encoding: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    zap_devel: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tracing: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_pprof: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_cert_reload: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    streaming: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    emit_endpoint_scores: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_grpc_stream_metrics: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_experimental_plugins: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    model_server_metrics_https_insecure_skip_verify: Option<String>,
    #[arg(long, hide = true)]
    refresh_prometheus_metrics_interval: Option<String>,
    #[arg(long, hide = true)]
    model_server_metrics_scheme: Option<String>,
    #[arg(long, hide = true)]
    model_server_metrics_port: Option<String>,
    #[arg(long, hide = true)]
    grpc_max_recv_msg_size: Option<String>,
    #[arg(long, hide = true)]
    grpc_max_send_msg_size: Option<String>,
    #[arg(long, hide = true)]
    tls_min_version: Option<String>,
    #[arg(long, hide = true)]
    tls_cipher_suites: Option<String>,
}

impl Ignored {
    /// What was given although it changes nothing, `flag=value` each. Values that ask for what is done anyway are not
    /// worth a word.
    pub(super) fn given(&self) -> Vec<String> {
        let anyway = |flag: &str, value: &str| {
            matches!(
                (flag, value),
                ("enable-cert-reload" | "streaming", "true")
                    | ("tracing" | "enable-pprof", "false")
                    | ("model-server-metrics-scheme", "http" | "")
                    | ("model-server-metrics-port", "0" | "")
                    | ("enable-grpc-stream-metrics", "true")
            )
        };
        [
            ("zap-stacktrace-level", &self.zap_stacktrace_level),
            ("zap-time-encoding", &self.zap_time_encoding),
            ("zap-devel", &self.zap_devel),
            ("zap-log-level", &self.zap_log_level),
            ("tracing", &self.tracing),
            ("enable-pprof", &self.enable_pprof),
            ("enable-cert-reload", &self.enable_cert_reload),
            ("streaming", &self.streaming),
            ("emit-endpoint-scores", &self.emit_endpoint_scores),
            (
                "enable-grpc-stream-metrics",
                &self.enable_grpc_stream_metrics,
            ),
            (
                "allow-experimental-plugins",
                &self.allow_experimental_plugins,
            ),
            (
                "model-server-metrics-https-insecure-skip-verify",
                &self.model_server_metrics_https_insecure_skip_verify,
            ),
            (
                "refresh-prometheus-metrics-interval",
                &self.refresh_prometheus_metrics_interval,
            ),
            (
                "model-server-metrics-scheme",
                &self.model_server_metrics_scheme,
            ),
            ("model-server-metrics-port", &self.model_server_metrics_port),
            ("grpc-max-recv-msg-size", &self.grpc_max_recv_msg_size),
            ("grpc-max-send-msg-size", &self.grpc_max_send_msg_size),
            ("tls-min-version", &self.tls_min_version),
            ("tls-cipher-suites", &self.tls_cipher_suites),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some((flag, value.as_deref()?)))
        .filter(|(flag, value)| !anyway(flag, value))
        .map(|(flag, value)| format!("--{flag}={value}"))
        .collect()
    }
}

/// A name that is one.
fn named(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("a name is missing");
    }
    Ok(text.to_owned())
}

/// Charts pass empty texts for what is not set.
fn given(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.to_owned())
}

/// A duration as Go writes it.
fn go_duration(text: &str) -> Result<Duration, &'static str> {
    api::picker_config::go_duration(text).ok_or("not a duration such as 50ms, 1.5s or 1m30s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("50ms", 50),
            ("1.5s", 1500),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("0", 0),
            ("1000us", 1),
        ] {
            assert_eq!(
                go_duration(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for bad in [
            "",
            "5",
            "s",
            "5x",
            "-1s",
            "1s5",
            "1..5s",
            "99999999999999999999h",
        ] {
            assert!(go_duration(bad).is_err(), "{bad}");
        }
    }
}

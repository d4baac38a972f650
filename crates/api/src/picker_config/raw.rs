//! A configuration as it is written.

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Option<Value>,
    #[serde(default)]
    pub(super) feature_gates: Vec<String>,
    #[serde(default)]
    pub(super) plugins: Vec<RawPlugin>,
    #[serde(default)]
    pub(super) scheduling_profiles: Vec<RawProfile>,
    pub(super) saturation_detector: Option<RawDetector>,
    pub(super) data: Option<RawData>,
    pub(super) data_layer: Option<RawData>,
    pub(super) flow_control: Option<RawFlow>,
    pub(super) request_handler: Option<RawRequestHandler>,
    pub(super) parser: Option<RawReference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlugin {
    pub(super) name: Option<String>,
    #[serde(rename = "type")]
    pub(super) plugin_type: String,
    pub(super) parameters: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProfile {
    #[serde(default, rename = "name")]
    _name: String,
    #[serde(default)]
    pub(super) plugins: Vec<RawPlaced>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawPlaced {
    pub(super) plugin_ref: String,
    pub(super) weight: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawReference {
    pub(super) plugin_ref: String,
}

/// A reference, or, as it was once written, the thresholds themselves.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawDetector {
    pub(super) plugin_ref: Option<String>,
    queue_depth_threshold: Option<Value>,
    kv_cache_util_threshold: Option<Value>,
    metrics_staleness_threshold: Option<Value>,
}

impl RawDetector {
    /// The thresholds as parameters of the detector that they belong to.
    pub(super) fn thresholds(&self) -> Option<Value> {
        let all = [
            ("queueDepthThreshold", &self.queue_depth_threshold),
            ("kvCacheUtilThreshold", &self.kv_cache_util_threshold),
            (
                "metricsStalenessThreshold",
                &self.metrics_staleness_threshold,
            ),
        ];
        let given = all
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let given: Map<String, Value> = given.collect();
        (!given.is_empty()).then_some(Value::Object(given))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawData {
    #[serde(default, rename = "injectDefaults")]
    _inject_defaults: Option<bool>,
    #[serde(default)]
    pub(super) sources: Vec<RawSource>,
    pub(super) discovery: Option<Value>,
    pub(super) peer_discovery: Option<Value>,
    pub(super) cross_replica_syncer_plugin_ref: Option<Value>,
    #[serde(default, rename = "crossReplicaSyncInterval")]
    _cross_replica_sync_interval: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawSource {
    pub(super) plugin_ref: String,
    #[serde(default)]
    pub(super) extractors: Vec<RawReference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRequestHandler {
    #[serde(default)]
    pub(super) parsers: Vec<RawReference>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawFlow {
    pub(super) max_requests: Option<Value>,
    pub(super) max_bytes: Option<Value>,
    #[serde(rename = "defaultRequestTTL")]
    pub(super) default_request_ttl: Option<Value>,
    #[serde(rename = "noEndpointRequestTTL")]
    pub(super) no_endpoint_request_ttl: Option<Value>,
    #[serde(default)]
    pub(super) enable_eviction: bool,
    pub(super) default_priority_band: Option<RawBand>,
    pub(super) default_negative_priority_band: Option<RawBand>,
    #[serde(default)]
    pub(super) priority_bands: Vec<RawBand>,
    pub(super) usage_limit_policy_plugin_ref: Option<String>,
    pub(super) saturation_detector: Option<RawDetector>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawBand {
    pub(super) priority: Option<i32>,
    pub(super) max_requests: Option<Value>,
    pub(super) max_bytes: Option<Value>,
    pub(super) ordering_policy_ref: Option<String>,
    pub(super) fairness_policy_ref: Option<String>,
}

//! The plugin types that a configuration may name, with their parameters: one table, which decoding, defaults, errors
//! and the documentation go by.

use super::parameters::{Parameter, Shape};

/// What a plugin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes endpoints away.
    Filter,
    /// Gives endpoints a number from 0 to 1.
    Scorer,
    /// Chooses by the scores.
    Picker,
    /// Chooses profiles.
    ProfileHandler,
    /// Says how full the pool is; as part of a profile, a filter.
    Detector,
    /// Shares between flows.
    Fairness,
    /// Orders within a flow.
    Ordering,
    /// Holds bands back below full saturation.
    UsageLimit,
    /// Chooses what is ended for others.
    Eviction,
    /// Gathers what scorers need.
    Producer,
    /// Reads requests.
    Parser,
    /// Asks servers.
    DataSource,
    /// Reads what servers answer.
    Extractor,
    /// Refuses requests.
    Admitter,
    /// Decides on stages.
    Decider,
    /// Something else.
    Other,
}

impl Role {
    /// With an article, for messages.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Filter => "a filter",
            Self::Scorer => "a scorer",
            Self::Picker => "a picker",
            Self::ProfileHandler => "a profile handler",
            Self::Detector => "a saturation detector",
            Self::Fairness => "a fairness policy",
            Self::Ordering => "an ordering policy",
            Self::UsageLimit => "a usage limit policy",
            Self::Eviction => "an eviction policy",
            Self::Producer => "a data producer",
            Self::Parser => "a parser",
            Self::DataSource => "a data source",
            Self::Extractor => "an extractor",
            Self::Admitter => "an admission plugin",
            Self::Decider => "a decider",
            Self::Other => "a plugin of another kind",
        }
    }

    /// Whether a profile may name it.
    #[must_use]
    pub const fn in_profile(self) -> bool {
        matches!(
            self,
            Self::Filter | Self::Scorer | Self::Picker | Self::Detector
        )
    }
}

/// What becomes of a plugin here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it says.
    Done,
    /// It is taken and changes nothing: what it asks for is done anyway.
    Anyway,
    /// It is refused, for this reason.
    Refused(&'static str),
}

/// One plugin type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PluginType {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    /// What becomes of it.
    pub support: Support,
    /// Its parameters.
    pub parameters: &'static [Parameter],
}

const SHARE: Shape = Shape::Number(0.0, 1.0);
const POSITIVE: Shape = Shape::Positive;
const COUNT: Shape = Shape::Whole(0);
const PLUGIN: Shape = Shape::Reference;

const fn p(name: &'static str, shape: Shape, default: &'static str) -> Parameter {
    Parameter {
        name,
        shape,
        default,
    }
}

const fn done(name: &'static str, role: Role, parameters: &'static [Parameter]) -> PluginType {
    PluginType {
        name,
        role,
        support: Support::Done,
        parameters,
    }
}

const fn anyway(name: &'static str, role: Role, parameters: &'static [Parameter]) -> PluginType {
    PluginType {
        name,
        role,
        support: Support::Anyway,
        parameters,
    }
}

const fn refused(name: &'static str, role: Role, reason: &'static str) -> PluginType {
    PluginType {
        name,
        role,
        support: Support::Refused(reason),
        parameters: &[],
    }
}

const SIDECAR: &str = "it asks predictors that run beside the picker; here predictions come from the cost model: \
    use latency-scorer, prefix-cache-affinity-filter or slo-headroom-tier-filter, which need no predictor";
const TOKENIZER: &str = "there is no tokenizer service and no reading of KV events here: use \
    approx-prefix-cache-producer, whose index is corrected by what engines report";
const STAGES: &str = "prefill and decode on different servers are not coordinated here: every request goes to one server";
const CLUSTERS: &str = "an endpoint here is a server, not another cluster";
const ATTRIBUTES: &str = "endpoints have no free attributes here: utilization-filter and the scorers know those that \
    the engines report";
const SESSION: &str = "the picker keeps no sessions; an HTTPRoute's sessionPersistence does where Pointsman is the gateway";
const TOPOLOGY: &str =
    "it goes by the peer of an earlier stage, and every request goes to one server here";
const TEST_ONLY: &str = "it is for tests: start with --test-endpoint-selection instead";

/// All plugin types.
pub const PLUGIN_TYPES: &[PluginType] = &[
    // Filters.
    done(
        "label-selector-filter",
        Role::Filter,
        &[
            p("matchLabels", Shape::Labels, ""),
            p("matchExpressions", Shape::Expressions, ""),
        ],
    ),
    done(
        "by-label-selector",
        Role::Filter,
        &[
            p("matchLabels", Shape::Labels, ""),
            p("matchExpressions", Shape::Expressions, ""),
        ],
    ),
    done(
        "by-label",
        Role::Filter,
        &[
            p("label", Shape::Text, ""),
            p("validValues", Shape::Texts, ""),
            p("allowsNoLabel", Shape::Bool, "false"),
        ],
    ),
    done("encode-filter", Role::Filter, &[]),
    done("prefill-filter", Role::Filter, &[]),
    done("decode-filter", Role::Filter, &[]),
    done(
        "prefix-cache-affinity-filter",
        Role::Filter,
        &[
            p("affinityThreshold", SHARE, "0.8"),
            p("explorationProbability", SHARE, "0"),
            p("maxTTFTPenaltyMs", Shape::Number(0.0, f64::MAX), "18000"),
            p(
                "ttftSource",
                Shape::Choice(&["prefillThroughput", "latencyPredictor"]),
                "prefillThroughput",
            ),
            p("peakPrefillThroughput", POSITIVE, "15928"),
            p("prefixMatchInfoProducerName", PLUGIN, ""),
        ],
    ),
    done(
        "slo-headroom-tier-filter",
        Role::Filter,
        &[p("epsilonExploreNeg", SHARE, "0.01")],
    ),
    done(
        "utilization-filter",
        Role::Filter,
        &[
            p("conditions", Shape::Conditions, ""),
            p("fallbackOnEmpty", Shape::Bool, "false"),
        ],
    ),
    refused("endpoint-attribute-filter", Role::Filter, ATTRIBUTES),
    refused("session-affinity-filter", Role::Filter, SESSION),
    refused("topology-affinity-filter", Role::Filter, TOPOLOGY),
    refused(
        "multicluster-session-affinity-filter",
        Role::Filter,
        CLUSTERS,
    ),
    refused("header-based-testing-filter", Role::Filter, TEST_ONLY),
    refused("disaggregatedset-rollout-screener", Role::Other, STAGES),
    // Scorers.
    done("queue-scorer", Role::Scorer, &[]),
    done("running-requests-size-scorer", Role::Scorer, &[]),
    done("kv-cache-utilization-scorer", Role::Scorer, &[]),
    done(
        "load-aware-scorer",
        Role::Scorer,
        &[p("threshold", POSITIVE, "128")],
    ),
    done(
        "active-request-scorer",
        Role::Scorer,
        &[
            p("idleThreshold", COUNT, "0"),
            p("maxBusyScore", SHARE, "1"),
            p("requestTimeout", Shape::Any, ""),
        ],
    ),
    done(
        "token-load-scorer",
        Role::Scorer,
        &[
            p("queueThresholdTokens", POSITIVE, "4194304"),
            p("inFlightLoadProducerName", PLUGIN, ""),
            p("prefixMatchInfoProducerName", PLUGIN, ""),
        ],
    ),
    done(
        "prefix-cache-scorer",
        Role::Scorer,
        &[
            p("prefixMatchInfoProducerName", PLUGIN, ""),
            p("matchLengthWeight", SHARE, "0"),
            p("matchLengthScaleTokens", POSITIVE, "8192"),
            p("autoTune", Shape::Bool, "true"),
            p("blockSize", COUNT, "0"),
            p("blockSizeTokens", COUNT, "0"),
            p("maxPrefixBlocksToMatch", COUNT, "0"),
            p("maxPrefixTokensToMatch", COUNT, "0"),
            p("lruCapacityPerServer", COUNT, "0"),
        ],
    ),
    refused("precise-prefix-cache-scorer", Role::Scorer, TOKENIZER),
    done(
        "no-hit-lru-scorer",
        Role::Scorer,
        &[
            p("lruSize", COUNT, "1024"),
            p("prefixMatchInfoProducerName", PLUGIN, ""),
        ],
    ),
    done("lora-affinity-scorer", Role::Scorer, &[]),
    done(
        "latency-scorer",
        Role::Scorer,
        &[
            p("ttftWeight", Shape::Number(0.0, f64::MAX), "0.8"),
            p("tpotWeight", Shape::Number(0.0, f64::MAX), "0.2"),
            p(
                "headroomSelectionStrategy",
                Shape::Choice(&["least", "most"]),
                "least",
            ),
            p("compositeKVWeight", Shape::Any, ""),
            p("compositeQueueWeight", Shape::Any, ""),
            p("compositePrefixWeight", Shape::Any, ""),
        ],
    ),
    done(
        "context-length-aware",
        Role::Scorer,
        &[
            p("label", Shape::Text, "llm-d.ai/context-length-range"),
            p("enableFiltering", Shape::Only("false"), "false"),
        ],
    ),
    refused("predicted-latency-scorer", Role::Scorer, SIDECAR),
    refused("session-affinity-scorer", Role::Scorer, SESSION),
    refused(
        "header-label-affinity-scorer",
        Role::Scorer,
        "headers of requests do not reach the scorers here; a route's matches can tell such requests apart",
    ),
    refused("topology-affinity-scorer", Role::Scorer, TOPOLOGY),
    refused(
        "mm-embeddings-cache-scorer",
        Role::Scorer,
        "encoder caches are not followed here; images and sound count as part of the prompt",
    ),
    refused("endpoint-attribute-scorer", Role::Scorer, ATTRIBUTES),
    refused(
        "multicluster-kv-cache-utilization-scorer",
        Role::Scorer,
        CLUSTERS,
    ),
    refused("multicluster-queue-scorer", Role::Scorer, CLUSTERS),
    refused("multicluster-prefix-cache-scorer", Role::Scorer, CLUSTERS),
    // Pickers.
    done(
        "max-score-picker",
        Role::Picker,
        &[p("maxNumOfEndpoints", Shape::Whole(1), "1")],
    ),
    done(
        "random-picker",
        Role::Picker,
        &[p("maxNumOfEndpoints", Shape::Whole(1), "1")],
    ),
    done(
        "weighted-random-picker",
        Role::Picker,
        &[p("maxNumOfEndpoints", Shape::Whole(1), "1")],
    ),
    // Profile handlers and what goes with them.
    done("single-profile-handler", Role::ProfileHandler, &[]),
    refused(
        "header-profile-handler",
        Role::ProfileHandler,
        "headers of requests do not reach the scheduler here: every request goes by one profile",
    ),
    refused("disagg-profile-handler", Role::ProfileHandler, STAGES),
    refused("pd-profile-handler", Role::ProfileHandler, STAGES),
    refused(
        "data-parallel-profile-handler",
        Role::ProfileHandler,
        STAGES,
    ),
    refused("disagg-headers-handler", Role::Other, STAGES),
    refused("prefill-header-handler", Role::Other, STAGES),
    refused("prefix-based-pd-decider", Role::Decider, STAGES),
    refused("always-disagg-pd-decider", Role::Decider, STAGES),
    refused("always-disagg-multimodal-decider", Role::Decider, STAGES),
    // Saturation.
    done(
        "utilization-detector",
        Role::Detector,
        &[
            p("queueDepthThreshold", POSITIVE, "5"),
            p("kvCacheUtilThreshold", Shape::Share, "0.8"),
            p("metricsStalenessThreshold", Shape::Time, "200ms"),
            p("headroom", Shape::Number(0.0, f64::MAX), "0"),
        ],
    ),
    done(
        "concurrency-detector",
        Role::Detector,
        &[
            p(
                "concurrencyMode",
                Shape::Choice(&["requests", "tokens", "hybrid"]),
                "requests",
            ),
            p("maxConcurrency", POSITIVE, "100"),
            p("maxTokenConcurrency", POSITIVE, "1000000"),
            p("headroom", Shape::Number(0.0, f64::MAX), "0"),
            p("inFlightLoadProducerName", PLUGIN, ""),
        ],
    ),
    // Flow control.
    done("global-strict-fairness-policy", Role::Fairness, &[]),
    done("round-robin-fairness-policy", Role::Fairness, &[]),
    refused(
        "program-aware-fairness",
        Role::Fairness,
        "service is not remembered over time here: round-robin-fairness-policy shares between those that wait, and \
         without any policy flows share by uncached tokens",
    ),
    done("fcfs-ordering-policy", Role::Ordering, &[]),
    done("edf-ordering-policy", Role::Ordering, &[]),
    done("slo-deadline-ordering-policy", Role::Ordering, &[]),
    done(
        "static-usage-limit-policy",
        Role::UsageLimit,
        &[p("threshold", Shape::Share, "1")],
    ),
    done(
        "priority-holdback-policy",
        Role::UsageLimit,
        &[
            p("domain", Shape::Choice(&["rank", "value"]), "rank"),
            p("minCeiling", Shape::Share, "required"),
            p("maxCeiling", Shape::Share, "1"),
            p("shape", Shape::Only("linear"), "linear"),
        ],
    ),
    refused(
        "soft-reflective-ceiling-policy",
        Role::UsageLimit,
        "ceilings do not move with saturation here: use priority-holdback-policy",
    ),
    anyway("sheddable-eviction-filter", Role::Eviction, &[]),
    anyway(
        "priority-then-time-eviction-order-policy",
        Role::Eviction,
        &[],
    ),
    // Producers.
    done(
        "approx-prefix-cache-producer",
        Role::Producer,
        &[
            p("autoTune", Shape::Bool, "true"),
            p("blockSizeTokens", COUNT, "16"),
            p("maxPrefixTokensToMatch", COUNT, "131072"),
            p("maxPrefixBlocksToMatch", COUNT, "2048"),
            p("lruCapacityPerServer", COUNT, "31250"),
            p("tokenProducerName", PLUGIN, ""),
        ],
    ),
    anyway(
        "token-producer",
        Role::Producer,
        &[
            p("modelName", Shape::Any, ""),
            p("estimate", Shape::Any, ""),
        ],
    ),
    anyway(
        "inflight-load-producer",
        Role::Producer,
        &[
            p("addEstimatedOutputTokens", Shape::Only("false"), "false"),
            p("prefixMatchInfoProducerName", PLUGIN, ""),
            p("syncCrossReplicaState", Shape::Bool, "true"),
        ],
    ),
    refused("precise-prefix-cache-producer", Role::Producer, TOKENIZER),
    refused(
        "burst-prefix-cache-producer",
        Role::Producer,
        "requests are not held back to be grouped: each dispatch counts at once for the next",
    ),
    refused("predicted-latency-producer", Role::Producer, SIDECAR),
    refused(
        "p2p-source-producer",
        Role::Producer,
        "KV blocks are not moved between servers here",
    ),
    refused(
        "mm-embeddings-cache-producer",
        Role::Producer,
        "encoder caches are not followed here",
    ),
    refused("session-id-producer", Role::Producer, SESSION),
    refused("agent-identity", Role::Producer, SESSION),
    refused(
        "request-attribute-reporter",
        Role::Producer,
        "no expressions over usage are reported to the proxy",
    ),
    // Admission.
    refused(
        "latency-slo-admitter",
        Role::Admitter,
        "admission goes by saturation and by deadlines (x-slo-ttft-ms orders) here",
    ),
    refused(
        "probabilistic-admitter",
        Role::Admitter,
        "admission goes by saturation here, without chance",
    ),
    // Parsers: the request's path says which one reads it.
    anyway("openai-parser", Role::Parser, &[]),
    anyway("anthropic-parser", Role::Parser, &[]),
    anyway("vllmhttp-parser", Role::Parser, &[]),
    anyway("passthrough-parser", Role::Parser, &[]),
    refused(
        "sglanghttp-parser",
        Role::Parser,
        "SGLang's own /generate is passed on, but not read",
    ),
    refused(
        "vllmgrpc-parser",
        Role::Parser,
        "gRPC requests are passed on, but not read",
    ),
    refused(
        "vertexai-parser",
        Role::Parser,
        "these requests are passed on, but not read",
    ),
    // Data layer.
    done(
        "metrics-data-source",
        Role::DataSource,
        &[
            p("scheme", Shape::Only("http"), "http"),
            p("path", Shape::Text, "/metrics"),
            p("insecureSkipVerify", Shape::Any, ""),
        ],
    ),
    done(
        "model-server-protocol-metrics",
        Role::Extractor,
        &[
            p("queueRequestsSpec", Shape::Text, ""),
            p("runningRequestsSpec", Shape::Text, ""),
            p("kvUsageSpec", Shape::Text, ""),
            p("loraSpec", Shape::Text, ""),
            p("cacheInfoSpec", Shape::Text, ""),
        ],
    ),
    anyway(
        "core-metrics-extractor",
        Role::Extractor,
        &[p("defaultEngine", Shape::Any, "")],
    ),
    anyway("models-data-source", Role::DataSource, &[]),
    refused("dcgm-data-source", Role::DataSource, ATTRIBUTES),
    refused("topology-extractor", Role::Extractor, TOPOLOGY),
    refused(
        "file-discovery",
        Role::Other,
        "give files that describe the pool with -f instead",
    ),
    refused("multicluster-file-discovery", Role::Other, CLUSTERS),
    refused(
        "multicluster-metrics-data-source",
        Role::DataSource,
        CLUSTERS,
    ),
    refused("multicluster-metrics-extractor", Role::Extractor, CLUSTERS),
    refused(
        "k8s-notification-source",
        Role::DataSource,
        "objects that plugins would watch are not passed on here",
    ),
    refused(
        "endpoint-notification-source",
        Role::DataSource,
        "objects that plugins would watch are not passed on here",
    ),
    refused(
        "destination-endpoint-served-verifier",
        Role::Other,
        TEST_ONLY,
    ),
];

/// The type of that name.
#[must_use]
pub fn plugin_type(name: &str) -> Option<&'static PluginType> {
    PLUGIN_TYPES.iter().find(|it| it.name == name)
}

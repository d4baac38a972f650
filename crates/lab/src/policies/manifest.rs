//! Every constant of every policy, with where it is from.
//!
//! A constant belongs to all policies whose name begins with its `policy`. The code takes its constants from here and
//! nowhere else, so what [`manifest`] prints is what runs. Values that are ours, as all of the *tuned* variants' are,
//! say so.
//!
//! The tuned values of GAIE, sticky, smg's cache-aware, Dynamo and CHWBL are from one sweep on seeds that are used for
//! choosing only (11 and 12): zipf at 60 requests/s, mooncake-like at 2.2, b2b at 9 requests/s, agentic at 0.9 sessions/s,
//! two to fifteen minutes each. Chosen is the value with the least geometric mean of the p90 of the time to first token,
//! each by the best value of its cell. `lab compare --policies NAME@VALUE` repeats it.

/// A constant of a policy.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Constant {
    /// The policy, or the beginning of the names of several.
    pub policy: &'static str,
    /// What it is, with its unit.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Paper and section, or project and file.
    pub source: &'static str,
}

macro_rules! constants {
    ($($policy:literal, $source:literal { $($ident:ident = $value:expr, $name:literal;)* })*) => {
        $($(pub(super) const $ident: f64 = $value;)*)*
        static CONSTANTS: &[Constant] = &[$($(
            Constant { policy: $policy, name: $name, value: $ident, source: $source },
        )*)*];
    };
}

/// All constants, grouped by policy.
#[must_use]
pub fn manifest() -> &'static [Constant] {
    CONSTANTS
}

constants! {
    "gaie", "llm-d-router, pkg/epp/config/loader/defaults.go; gateway-api-inference-extension v1.3.1" {
        GAIE_PREFIX_WEIGHT = 3.0, "weight of the prefix scorer (3/2/2)";
        GAIE_QUEUE_WEIGHT = 2.0, "weight of the queue scorer (3/2/2)";
        GAIE_KV_WEIGHT = 2.0, "weight of the KV cache scorer (3/2/2)";
        GAIE_BLOCK_TOKENS = 64.0, "block of the approximate prefix index, tokens; one entry for each 16-token engine block";
        GAIE_MOST_TOKENS = 131_072.0, "tokens of a prompt that are hashed";
        GAIE_QUEUE_THRESHOLD = 5.0, "saturation: waiting requests";
        GAIE_KV_THRESHOLD = 0.8, "saturation: share of the KV cache";
        GAIE_STALE_SECONDS = 0.2, "saturation: age from which a metrics page counts as saturated, seconds";
    }
    "gaie-1-1-1", "llm-d-kv-cache-manager, benchmarking/73-capacity (approximate)" {
        GAIE_EQUAL_WEIGHT = 1.0, "weight of each scorer";
    }
    "gaie-no-hit-lru", "llm-d-router, chart preset optimized-baseline; no-hit-lru-scorer" {
        GAIE_NO_HIT_LRU_WEIGHT = 2.0, "weight of the no-hit-LRU scorer";
        GAIE_WARM_SCORE = 0.5, "score of every endpoint for a prompt that is warm anywhere";
    }
    "gaie-tuned", "ours, the best of 1, 3, 6 with no-hit-LRU and an index of the cache's size (see the module)" {
        GAIE_TUNED_PREFIX_WEIGHT = 3.0, "weight of the prefix scorer";
    }
    "gaie-lora", "gateway-api-inference-extension, lora-affinity-scorer" {
        GAIE_LORA_WEIGHT = 1.0, "weight of the LoRA affinity scorer";
        GAIE_LORA_RESIDENT = 1.0, "score: adapter resident";
        GAIE_LORA_FREE = 0.8, "score: a slot is free";
        GAIE_LORA_WAITING = 0.6, "score: requests wait for the adapter";
    }
    "gaie-flow-control", "llm-d-router, flow control defaults (first come first served, global strict fairness)" {
        FLOW_TTL_SECONDS = 60.0, "longest wait in the gateway, seconds";
        FLOW_BAND_REQUESTS = 5000.0, "requests that a priority band holds";
        FLOW_CYCLE_SECONDS = 0.001, "dispatch ticker, seconds";
    }
    "llm-d-sticky", "llm-d-router, prefix-cache-affinity-filter and token-load-scorer" {
        LLMD_AFFINITY = 0.8, "share of the prompt from which an endpoint is sticky";
        LLMD_PENALTY_SECONDS = 18.0, "disadvantage in TTFT from which stickiness is dropped, seconds";
        LLMD_PEAK_TOKENS = 15_928.0, "peak prefill of Qwen3-32B TP2 H100, tokens a second";
        LLMD_LOAD_CEILING = 4_194_304.0, "tokens from which all loads score alike";
    }
    "llm-d-sticky-tuned", "ours, the best of 0.5, 2, 5, with each engine's own peak (see the module)" {
        LLMD_TUNED_PENALTY_SECONDS = 0.5, "disadvantage in TTFT from which stickiness is dropped, seconds";
    }
    "predicted-latency", "llm-d-router, chart preset latencyPredictor; latency-scorer" {
        PREDICTED_AFFINITY = 0.8, "share of the prompt from which an endpoint is sticky";
        PREDICTED_EXPLORE = 0.01, "probability to ignore stickiness";
        PREDICTED_PENALTY_SECONDS = 5.0, "disadvantage in TTFT from which stickiness is dropped, seconds";
        PREDICTED_TTFT_WEIGHT = 0.8, "weight of TTFT";
        PREDICTED_TPOT_WEIGHT = 0.2, "weight of TPOT";
    }
    "smg-cache-aware", "smg model_gateway, policies: CacheAwareConfig; tree size as on the command line" {
        SMG_THRESHOLD = 0.5, "share of the prompt from which the match decides";
        SMG_BALANCE_ABS = 32.0, "difference in requests above which load decides";
        SMG_BALANCE_REL = 1.1, "ratio of requests above which load decides";
        SMG_TREE_CHARACTERS = 67_108_864.0, "characters of a tree for each engine";
        SMG_CHARACTERS_A_TOKEN = 4.0, "characters of a token (ours)";
        SMG_BLOCK_TOKENS = 64.0, "granularity of a match, tokens (ours; the tree's is a character)";
    }
    "smg-cache-aware-cli", "sgl-model-gateway, command line defaults" {
        SMG_CLI_THRESHOLD = 0.3, "share of the prompt from which the match decides";
        SMG_CLI_BALANCE_ABS = 64.0, "difference in requests above which load decides";
        SMG_CLI_BALANCE_REL = 1.5, "ratio of requests above which load decides";
    }
    "smg-cache-aware-tuned", "ours: the difference is the best of 8, 16, 32, with an index of the cache's size (see the module); the others as on the command line" {
        SMG_TUNED_THRESHOLD = 0.3, "share of the prompt from which the match decides";
        SMG_TUNED_BALANCE_ABS = 16.0, "difference in requests above which load decides";
        SMG_TUNED_BALANCE_REL = 1.5, "ratio of requests above which load decides";
    }
    "smg-least-load", "smg model_gateway, policies/least_load.rs" {
        SMG_POLL_SECONDS = 10.0, "time between polls, seconds";
        SMG_STALE_POLLS = 3.0, "polls missed until a report counts as absent";
        SMG_KV_SECONDS = 0.15, "weight of KV pressure, seconds";
        SMG_MOST_KV = 0.999, "highest KV use in the formula";
        SMG_MEAN_PREFILL_TOKENS = 1024.0, "tokens of a request of unknown length";
        SMG_THROUGHPUT = 2000.0, "tokens a second of an engine that does not report it";
    }
    "smg-least-load-tuned", "ours, not swept: each engine's own prefill speed" {
        SMG_TUNED_POLL_SECONDS = 1.0, "time between polls, seconds";
    }
    "dynamo", "ai-dynamo/dynamo, lib/kv-router/src/scheduling/config.rs" {
        DYNAMO_OVERLAP_CREDIT = 1.0, "credit for a block on the device";
        DYNAMO_PREFILL_SCALE = 1.0, "weight of prefill against decode";
        DYNAMO_TEMPERATURE = 0.0, "temperature";
        DYNAMO_BLOCK_TOKENS = 16.0, "block, tokens: the engine's";
    }
    "dynamo-t0.5", "ai-dynamo/dynamo, documentation of --router-temperature" {
        DYNAMO_WARM_TEMPERATURE = 0.5, "temperature";
    }
    "dynamo-tuned", "ours, the best of 1, 2, 8, 32 (see the module)" {
        DYNAMO_TUNED_PREFILL_SCALE = 2.0, "weight of prefill against decode";
    }
    "aibrix-prefix-cache", "vllm-project/aibrix, pkg/plugins/gateway/algorithms/prefix_cache.go" {
        AIBRIX_DIFFERENCE = 16.0, "difference in running requests above which load decides";
        AIBRIX_DEVIATIONS = 2.0, "standard deviations above the mean up to which a match is taken";
        AIBRIX_BLOCK_TOKENS = 32.0, "block, tokens (128 characters)";
        AIBRIX_BLOCKS = 200_000.0, "blocks of the index for each engine";
    }
    "aibrix-prefix-cache-main", "the same file, main branch of 2026" {
        AIBRIX_RATIO = 2.0, "ratio to mean + 1 above which load decides";
        AIBRIX_GAP = 8.0, "least difference for that";
        AIBRIX_MAIN_DEVIATIONS = 1.0, "standard deviations above the mean up to which a match is taken";
    }
    "aibrix-preble", "vllm-project/aibrix, pkg/plugins/gateway/algorithms/prefix_cache_preble.go (target GPU V100)" {
        AIBRIX_PREBLE_THRESHOLD = 0.5, "share of the prompt above which the match decides";
        AIBRIX_PREBLE_OUTPUT_TOKENS = 45.0, "decode length, tokens";
        AIBRIX_PREBLE_TPOT_SECONDS = 0.15, "seconds a token, while none is measured (nothing measures it)";
        V100_LINEAR_SLOPE_MS = 0.271_064_28, "from 384 tokens on: ms a token";
        V100_LINEAR_BASE_MS = 10.524_442_63, "from 384 tokens on: ms";
        V100_MIDDLE_BASE_MS = -295.0, "from 192 tokens on: ms";
        V100_MIDDLE_SLOPE_MS = 3.125, "from 192 tokens on: ms a token";
        V100_MIDDLE_SQUARE_MS = -6.4e-3, "from 192 tokens on: ms a squared token";
        V100_SHORT_MS = 55.0, "below 192 tokens: ms";
        V100_ATTENTION_SLOPE_MS = 4.65e-4, "attention above 1024 tokens of context: ms a token";
        V100_ATTENTION_BASE_MS = 0.398, "attention above 1024 tokens of context: ms";
        V100_ATTENTION_SHORT_MS = 0.8, "attention up to 1024 tokens of context: ms";
        V100_QUAD_BASE_MS = -18.425, "quadratic part from 4096 tokens on: ms";
        V100_QUAD_SLOPE_MS = 9.65e-3, "quadratic part: ms a token";
        V100_QUAD_SQUARE_MS = 5.4e-6, "quadratic part: ms a squared token";
        V100_UTILISATION = 0.9, "share of the time that counts";
    }
    "chwbl", "substratusai/kubeai, documentation of PrefixHash" {
        CHWBL_LOAD_FACTOR = 1.25, "bound on a load, times the mean";
        CHWBL_REPLICAS = 256.0, "places of an engine on the ring";
    }
    "chwbl-tuned", "ours, the best of 1.1, 1.25, 1.5: the shipped one (see the module)" {
        CHWBL_TUNED_LOAD_FACTOR = 1.25, "bound on a load, times the mean";
    }
    "preble-e2", "WukLab/preble, global_scheduler_with_time.py; arXiv 2407.00023 section 3" {
        PREBLE_WINDOW_SECONDS = 180.0, "window of the load, seconds";
        PREBLE_BALANCE = 1.5, "ratio of loads above which the heaviest is relieved";
        PREBLE_BLOCK_TOKENS = 64.0, "granularity of a match, tokens (ours; the tree's is a token)";
    }
    "mooncake", "arXiv 2407.00079, Algorithm 1 and section 8" {
        MOONCAKE_BLOCK_TOKENS = 512.0, "block, tokens";
        MOONCAKE_TTFT_SECONDS = 30.0, "TTFT above which a request is refused, seconds";
        MOONCAKE_TBT_SECONDS = 0.3, "time between tokens above which a request is refused, seconds";
    }
    "lmetric", "arXiv 2603.15202: no constants; the index is ours" {
        LMETRIC_BLOCK_TOKENS = 64.0, "block, tokens";
    }
    "lpwl", "gahow/agentic-kvc: no constants; the index is ours" {
        LPWL_BLOCK_TOKENS = 64.0, "block, tokens";
    }
}

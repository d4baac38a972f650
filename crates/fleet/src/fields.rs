//! Header fields of a request that speak to us and not to a server.
//!
//! Both spellings in use are known: the Gateway API inference extension's `x-gateway-*` and llm-d's `x-llm-d-*`.

/// What a field of a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Name of an InferenceObjective.
    Objective,
    /// Name of the flow for fairness.
    Fairness,
    /// Model name to put in place of the body's.
    Model,
    /// Longest useful time to the first token, in milliseconds.
    FirstTokenTarget,
    /// Longest useful time between tokens, in milliseconds.
    TokenTarget,
    /// The client wants to know why.
    Explain,
    /// A pick, or our own debugging words: nothing that a client may say.
    Steering,
    /// By these, engines steer each other; through them a client could make a server open connections to any host.
    Engines,
    /// Not for us.
    Other,
}

/// What a field is for, by its name in lower case.
#[must_use]
pub fn purpose(name: &str) -> Purpose {
    if !name.starts_with("x-") {
        return Purpose::Other;
    }
    match name {
        "x-prefiller-host-port"
        | "x-encoder-hosts-ports"
        | "x-data-parallel-host-port"
        | "x-kv-cache-source-host-port"
        | "x-data-parallel-rank" => Purpose::Engines,
        "x-gateway-inference-objective" | "x-llm-d-inference-objective" => Purpose::Objective,
        "x-gateway-inference-fairness-id" | "x-llm-d-inference-fairness-id" => Purpose::Fairness,
        "x-gateway-model-name-rewrite" | "x-llm-d-model-name-rewrite" => Purpose::Model,
        "x-slo-ttft-ms" | "x-llm-d-slo-ttft-ms" => Purpose::FirstTokenTarget,
        "x-slo-tpot-ms" | "x-llm-d-slo-tpot-ms" => Purpose::TokenTarget,
        "x-pointsman-explain" => Purpose::Explain,
        name if name.starts_with("x-gateway-destination-endpoint")
            || name.starts_with("x-pointsman-") =>
        {
            Purpose::Steering
        }
        _ => Purpose::Other,
    }
}

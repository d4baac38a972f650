//! How long a step takes, for known models on known hardware.
//!
//! ```text
//! T = c0 + max(w_base, a*(P + D)) + q * sum over chunks of len*(start + len/2)
//!        + k_v * sum of decode contexts + s * sequences
//! ```
//!
//! P and D are the prefill and decode tokens of the step. A step cannot be shorter than reading all weights takes
//! (`w_base`); beyond that the matrix products cost `a` a token. Attention costs `q` for each pair of a new token and
//! one before it. A decode reads its whole context, `k_v` a token.
//!
//! Where no fit was published, `q = 4*layers*heads*head_dim / (TP*F)`, with F the attention kernel's rate
//! (FlashAttention-3, arXiv 2407.08608: about 600 TFLOP/s on H100; FlashAttention-2, arXiv 2307.08691: about 200 on
//! A100), and `k_v = KV bytes a token / (TP * bandwidth * 0.8)`.

/// Constants of the step time, all in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Each step.
    pub c0: f64,
    /// Reading the weights once.
    pub w_base: f64,
    /// A token's matrix products.
    pub a: f64,
    /// A pair of tokens in prefill attention.
    pub q: f64,
    /// A context token of a decode.
    pub k_v: f64,
    /// A sequence (sampling, bookkeeping).
    pub s: f64,
}

impl Profile {
    /// The step time without noise and adapters.
    #[must_use]
    pub fn step_seconds(&self, work: &Work) -> f64 {
        self.c0
            + self
                .w_base
                .max(self.a * (work.prefill_tokens + work.decode_tokens) as f64)
            + self.q * work.pairs
            + self.k_v * work.context as f64
            + self.s * work.sequences as f64
    }
}

/// The work in a step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// Prompt tokens (also those computed again after a preemption).
    pub prefill_tokens: u64,
    /// Sequences that decode.
    pub decode_tokens: u64,
    /// Pairs of tokens in prefill attention: the sum of `len*(start + len/2)`.
    pub pairs: f64,
    /// Sum of the decodes' context lengths.
    pub context: u64,
    /// Sequences in the step.
    pub sequences: u64,
}

impl Work {
    /// Adds a prefill chunk of `len` tokens after `start` computed ones.
    pub fn prefill(&mut self, start: u32, len: u32) {
        self.prefill_tokens += u64::from(len);
        self.pairs += f64::from(len) * (f64::from(start) + f64::from(len) / 2.0);
        self.sequences += 1;
    }

    /// Adds a decode over `context` computed tokens.
    pub fn decode(&mut self, context: u32) {
        self.decode_tokens += 1;
        self.context += u64::from(context);
        self.sequences += 1;
    }
}

/// A model on hardware.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    /// The name on the command line.
    pub name: &'static str,
    /// Step time.
    pub profile: Profile,
    /// Tokens that the KV cache holds.
    pub kv_tokens: u32,
    /// The model's own context limit, tokens.
    pub max_model_len: u32,
}

/// Qwen3-32B on two H100 80 GB, by llm-d's published fit of its latency.
pub const QWEN3_32B_TP2_H100: Model = Model {
    name: "qwen3-32b-tp2-h100",
    profile: Profile {
        c0: 1.5e-3,
        // 65.5 GB of bf16 weights / (2 * 3.35 TB/s * 0.75).
        w_base: 13e-3,
        // llm-d's fit for Qwen3-32B TP2 H100, T(P) = 42.5 us*P + 443.2 ps*P^2: about 78 % of peak.
        a: 42.5e-6,
        // The same fit; a pair here is half a square.
        q: 886e-12,
        // 256 KiB a token / (2 * 3.35 TB/s * 0.56).
        k_v: 0.07e-6,
        s: 10e-6,
    },
    // As vLLM prints it at start: 19,208 blocks.
    kv_tokens: 307_328,
    max_model_len: 40_960,
};

/// The same, as slow as llm-d's capacity recipe found it under load: 15,928 prompt tokens a second (about 53 % of
/// peak). What holds for both holds for what lies between.
pub const QWEN3_32B_TP2_H100_RECIPE: Model = Model {
    name: "qwen3-32b-tp2-h100-recipe",
    profile: Profile {
        // 8192 tokens / 15,928 a second = 0.514 s, less c0 and attention.
        a: 59e-6,
        ..QWEN3_32B_TP2_H100.profile
    },
    ..QWEN3_32B_TP2_H100
};

/// Llama-3.1-8B on one H100 80 GB.
pub const LLAMA_3_1_8B_H100: Model = Model {
    name: "llama-3.1-8b-h100",
    profile: Profile {
        c0: 1e-3,
        // 16.1 GB / (3.35 TB/s * 0.8); Vidur's H100 profile of the 7B reads 5.6 ms at one token.
        w_base: 6e-3,
        // Vidur's 7B slope of 20.2 us, scaled by parameters.
        a: 22e-6,
        // 4*32*32*128 / 600 TFLOP/s.
        q: 874e-12,
        // 128 KiB / (3.35 TB/s * 0.8).
        k_v: 0.05e-6,
        s: 10e-6,
    },
    // (0.9*80 GiB - 15.0 weights - 5.5 activations - 0.15) / 128 KiB.
    kv_tokens: 420_992,
    max_model_len: 131_072,
};

/// Llama-3-8B on one A100 80 GB; Llama-3.1-8B has the same shape and takes the same time.
pub const LLAMA_3_8B_A100: Model = Model {
    name: "llama-3-8b-a100",
    profile: Profile {
        c0: 1e-3,
        // Vidur's A100 profile: 9.7 ms at one token, then 8.1 ms + 66.1 us a token.
        w_base: 8.7e-3,
        a: 68e-6,
        // 4*32*32*128 / 200 TFLOP/s.
        q: 2621e-12,
        // 128 KiB / (2.04 TB/s * 0.8).
        k_v: 0.08e-6,
        s: 10e-6,
    },
    kv_tokens: 420_992,
    max_model_len: 131_072,
};

/// Llama-2-70B on four H100 80 GB.
pub const LLAMA_2_70B_TP4_H100: Model = Model {
    name: "llama-2-70b-tp4-h100",
    profile: Profile {
        c0: 1.5e-3,
        // Vidur's H100 TP4 profile: 14.3 ms at one token, then 10.2 ms + 52.3 us a token. The formula has no
        // intercept beyond the knee, so the slope carries it.
        w_base: 12.8e-3,
        a: 54.5e-6,
        // 4*80*64*128 / (4 * 600 TFLOP/s).
        q: 1092e-12,
        // 320 KiB / (4 * 3.35 TB/s * 0.8).
        k_v: 0.0306e-6,
        s: 10e-6,
    },
    // Measured on Llama-3.1-70B, which has the same cache geometry.
    kv_tokens: 460_800,
    // The 70B generation with 4k context; served longer with rope scaling, so the cache is the limit in practice.
    max_model_len: 4_096,
};

/// Llama-3.3-70B in fp8 on two H100 80 GB, as NVIDIA serves it.
pub const LLAMA_3_3_70B_FP8_TP2_H100: Model = Model {
    name: "llama-3.3-70b-fp8-tp2-h100",
    // Fitted to NVIDIA's published performance of NIM (5000 tokens in, 500 out): 18.6 ms a token and 407 ms to the first
    // one alone.
    profile: Profile {
        c0: 2e-3,
        w_base: 16.2e-3,
        a: 75e-6,
        // 4*80*64*128 / (2 * 600 TFLOP/s).
        q: 2184e-12,
        // 160 KiB of fp8 a token / (2 * 3.35 TB/s * 0.8).
        k_v: 0.0306e-6,
        s: 10e-6,
    },
    // (0.9*160 GiB - 66 weights - 5.5 activations - 1.2) / 160 KiB of fp8.
    kv_tokens: 467_200,
    max_model_len: 131_072,
};

/// All of them.
pub const ALL: [&Model; 6] = [
    &QWEN3_32B_TP2_H100,
    &QWEN3_32B_TP2_H100_RECIPE,
    &LLAMA_3_1_8B_H100,
    &LLAMA_3_8B_A100,
    &LLAMA_2_70B_TP4_H100,
    &LLAMA_3_3_70B_FP8_TP2_H100,
];

/// Finds a model by its command line name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Model> {
    ALL.into_iter().find(|model| model.name == name)
}

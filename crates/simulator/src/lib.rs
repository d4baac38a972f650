//! One model server engine in steps: token budget, KV blocks, prefix cache, preemption, LoRA slots.

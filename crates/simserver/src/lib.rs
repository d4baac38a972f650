//! Serves a simulated engine over vLLM's HTTP API in real time.

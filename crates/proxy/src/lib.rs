//! The data plane: listeners, TLS, HTTP in and out, replay, retries, streams, drain.

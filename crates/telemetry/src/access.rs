//! The access log: one event for one exchange.
//!
//! The subscriber decides whether it is printed as JSON or for a human. The fields are named here and nowhere else.

use crate::ExchangeRecord;

/// Emits the event (target `access`, level INFO). Times are in milliseconds.
pub fn access_log(r: &ExchangeRecord<'_>) {
    let usage = r.usage;
    tracing::info!(
        target: "access",
        request_id = r.request_id,
        trace_id = r.trace_id,
        client = r.client.map(tracing::field::display),
        method = r.method,
        host = r.host,
        path = r.path,
        status = r.status,
        error = r.error_code,
        ended = r.ended.as_str(),
        route = named(r.route),
        pool = named(r.pool),
        endpoint = named(r.endpoint),
        dialect = named(r.dialect),
        model = named(r.model),
        target_model = named(r.target_model),
        objective = r.objective,
        priority = r.priority,
        picker = r.picker,
        picker_ms = r.picker.map(|_| millis(r.picker_took.as_secs_f64())),
        attempts = r.attempts,
        stream = r.stream,
        request_bytes = r.request_bytes,
        response_bytes = r.response_bytes,
        queued_ms = millis(r.queued.as_secs_f64()),
        ttft_ms = r.ttft.map(|t| millis(t.as_secs_f64())),
        predicted_ttft_ms = r.predicted_ttft.map(millis),
        duration_ms = millis(r.duration.as_secs_f64()),
        prompt_tokens = usage.map(|u| u.prompt),
        completion_tokens = usage.map(|u| u.completion),
        cached_tokens = usage.and_then(|u| u.cached),
        hit_tokens_predicted = r.hit_tokens_predicted,
        finish = r.finish,
    );
}

fn named(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Milliseconds to three digits: a log line is for reading.
fn millis(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

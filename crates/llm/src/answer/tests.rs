use serde_json::{Value, json};

use super::*;

fn error() -> ErrorBody {
    ErrorBody::new(
        StatusCode::TOO_MANY_REQUESTS,
        "sheddable_saturated",
        "all servers are \"busy\"",
    )
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn bodies() {
    let message = "all servers are \"busy\"";
    assert_eq!(
        parse(&error().render(Style::OpenAi)),
        json!({"error": {"message": message, "type": "rate_limit_error", "param": null, "code": "sheddable_saturated"}})
    );
    assert_eq!(
        parse(&error().render(Style::Anthropic)),
        json!({"type": "error", "error": {"type": "rate_limit_error", "message": message, "code": "sheddable_saturated"}})
    );
}

#[test]
fn a_refused_body() {
    let refused =
        crate::read(Dialect::ChatCompletions, None, br#"{"model":1}"#).expect_err("refused");
    let body = ErrorBody::from(&refused);
    assert_eq!(body.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        parse(&body.render(Style::OpenAi)),
        json!({"error": {"message": "the field `model` must be a string, at byte 9", "type": "invalid_request_error",
            "param": "model", "code": "model_not_a_string"}})
    );
}

#[test]
fn kinds_follow_from_the_status() {
    let cases = [
        (400, "invalid_request_error", "invalid_request_error"),
        (404, "not_found_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (502, "server_error", "api_error"),
        (503, "service_unavailable", "overloaded_error"),
        (504, "server_error", "timeout_error"),
    ];
    for (status, openai, anthropic) in cases {
        let body = ErrorBody::new(StatusCode::from_u16(status).expect("a status"), "x", "y");
        assert_eq!(
            parse(&body.render(Style::OpenAi))["error"]["type"],
            openai,
            "{status}"
        );
        assert_eq!(
            parse(&body.render(Style::Anthropic))["error"]["type"],
            anthropic,
            "{status}"
        );
    }
}

#[test]
fn stream_events_are_seen_as_errors_by_the_scanner() {
    let cases = [
        (Style::OpenAi, Dialect::ChatCompletions, "data: {\"error\":"),
        (
            Style::OpenAi,
            Dialect::Responses,
            "event: error\ndata: {\"type\":\"error\",",
        ),
        (
            Style::Anthropic,
            Dialect::Messages,
            "event: error\ndata: {\"type\":\"error\",",
        ),
    ];
    for (style, dialect, start) in cases {
        let event = error().stream_error_event(style, dialect);
        let text = std::str::from_utf8(&event).expect("text");
        assert!(
            text.starts_with(start) && text.ends_with("}\n\n") && !text.contains("[DONE]"),
            "{text}"
        );
        let data = text.split_once("data: ").expect("data").1;
        assert_eq!(
            parse(data.as_bytes())["error"]["code"],
            "sheddable_saturated",
            "SDKs look for `error`"
        );
        let mut scanner = crate::ResponseScanner::new(dialect, Some("text/event-stream"), 200);
        scanner.feed(&event);
        assert!(scanner.finish().in_band_error.is_some());
    }
}

#[test]
fn styles() {
    for path in [
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/messages",
        "/v1/messages?beta=true",
    ] {
        assert_eq!(style_of(path), Style::Anthropic, "{path}");
    }
    for path in ["/v1/chat/completions", "/v1/messagesx", "/", "/x/messages"] {
        assert_eq!(style_of(path), Style::OpenAi, "{path}");
    }
}

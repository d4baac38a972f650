//! Every way in which we say no ourselves, and the one place where it becomes an answer.
//!
//! Answers of servers are never made here: they pass as they are. The code is a stable word; it stands in the body, in
//! the access log and on metrics.

use bytes::Bytes;
use extproc::client::Failure;
use fleet::{Eviction, Rejection};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use llm::{ErrorBody, Style};
use routing::NoMatch;

use crate::upstream::{ConnectError, SendError};

/// What the client of a request that had to end for others reads.
pub(crate) const EVICTED: &str = "requests of a higher class took the place of this one";

/// Why a request gets an answer of ours.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// No listener or rule.
    NoRoute(NoMatch),
    /// A method that a reverse proxy does not serve.
    Method,
    /// A head that can be read in two ways.
    Framing(&'static str),
    /// A field for engines among themselves, by name.
    Reserved(String),
    /// The body is not what the dialect asks for.
    Body(llm::RequestError),
    /// The body is over the limit, in bytes.
    TooLarge(u64),
    /// The client stopped sending its body.
    SlowBody,
    /// The body's framing or connection broke.
    BrokenBody,
    /// An administrative route of a server, asked for by an untrusted client.
    Admin,
    /// A filter that cannot be applied.
    Filter(String),
    /// A backend that does not resolve, with the reason of its condition.
    Backend(String),
    /// No pool by that name runs.
    NoPool,
    /// The core said no.
    Rejected(Rejection),
    /// It ran, and had to end for requests of a higher class.
    Evicted(Eviction),
    /// The server that holds this state is gone.
    StateLost(String),
    /// No server gave an answer; what the last one did, and which.
    Upstream(SendError),
    /// The route's `timeouts.request` passed.
    RequestTimeout,
    /// A server would not become a tunnel.
    Tunnel,
    /// The endpoint picker of the pool failed, and its failure mode says to fail with it.
    Picker(Failure),
}

impl Refusal {
    /// Status, code and sentence.
    fn facts(&self) -> (StatusCode, &'static str, String) {
        use StatusCode as S;
        match self {
            Self::NoRoute(NoMatch::NoListener(status)) if *status == S::MISDIRECTED_REQUEST => (
                *status,
                "misdirected_request",
                "this connection was opened for another host".into(),
            ),
            Self::NoRoute(reason) => (reason.status(), "no_route", reason.to_string()),
            Self::Method => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this method is not served".into(),
            ),
            Self::Framing(what) => (S::BAD_REQUEST, "bad_framing", (*what).into()),
            Self::Reserved(field) => (
                S::BAD_REQUEST,
                "reserved_field",
                format!("`{field}` is reserved for use between servers"),
            ),
            Self::Body(error) => (S::BAD_REQUEST, error.code(), error.message()),
            Self::TooLarge(limit) => (
                S::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body is over the limit of {limit} bytes"),
            ),
            Self::SlowBody => (
                S::REQUEST_TIMEOUT,
                "client_timeout",
                "the body stopped coming".into(),
            ),
            Self::BrokenBody => (
                S::BAD_REQUEST,
                "bad_framing",
                "the body ended before its end".into(),
            ),
            Self::Admin => (S::NOT_FOUND, "no_route", "no route matches".into()),
            Self::Filter(what) => (S::INTERNAL_SERVER_ERROR, "filter_invalid", what.clone()),
            Self::Backend(what) => (S::INTERNAL_SERVER_ERROR, "backend_invalid", what.clone()),
            Self::NoPool => (
                S::SERVICE_UNAVAILABLE,
                "pool_not_ready",
                "this pool has not started yet".into(),
            ),
            Self::Rejected(rejection) => {
                let (status, sentence) = rejection.answer();
                (status, rejection.reason.code(), sentence.into())
            }
            Self::Evicted(eviction) => {
                (S::TOO_MANY_REQUESTS, eviction.reason.code(), EVICTED.into())
            }
            Self::StateLost(id) => (
                S::NOT_FOUND,
                "state_lost",
                format!("the server that held `{id}` is gone, and its state with it"),
            ),
            Self::Upstream(error) => upstream(error),
            Self::RequestTimeout => (
                S::GATEWAY_TIMEOUT,
                "request_timeout",
                "the route's time for a request is over".into(),
            ),
            Self::Tunnel => (
                S::BAD_GATEWAY,
                "upgrade_failed",
                "the connection could not be handed over".into(),
            ),
            Self::Picker(failure) => (
                S::SERVICE_UNAVAILABLE,
                picker(failure),
                "the endpoint picker of this pool gave no usable answer".into(),
            ),
        }
    }

    /// The machine-readable reason.
    pub(crate) fn code(&self) -> &'static str {
        self.facts().1
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Rejected(rejection) => Some(rejection.retry_after_seconds()),
            Self::Evicted(eviction) => Some(eviction.retry_after_seconds()),
            Self::NoPool | Self::Picker(_) => Some(1),
            _ => None,
        }
    }

    fn param(&self) -> Option<String> {
        match self {
            Self::Body(error) => error.param().map(str::to_owned),
            Self::Reserved(field) => Some(field.clone()),
            _ => None,
        }
    }

    /// After these the connection's bytes cannot be trusted, or are not worth reading to the end.
    fn closes(&self) -> bool {
        matches!(
            self,
            Self::Framing(_) | Self::TooLarge(_) | Self::SlowBody | Self::BrokenBody
        )
    }

    /// The error as a body.
    pub(crate) fn body(&self) -> ErrorBody {
        let (status, code, message) = self.facts();
        let mut body = ErrorBody::new(status, code, message);
        body.param = self.param();
        body
    }

    /// The answer.
    pub(crate) fn answer(&self, style: Style) -> Response<Bytes> {
        let body = self.body();
        let mut answer = Response::new(body.render(style));
        *answer.status_mut() = body.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

/// The machine-readable reason for a picker's failure.
fn picker(failure: &Failure) -> &'static str {
    match failure {
        Failure::NoAddress | Failure::Connect(_) => "picker_unreachable",
        Failure::Timeout(_) => "picker_timeout",
        _ => "picker_failed",
    }
}

fn upstream(error: &SendError) -> (StatusCode, &'static str, String) {
    let late = StatusCode::GATEWAY_TIMEOUT;
    match error {
        SendError::Connect(ConnectError::Timeout(limit)) => (
            late,
            "connect_timeout",
            format!("no connection to a server within {limit:?}"),
        ),
        SendError::FirstByte(limit) => (
            late,
            "first_byte_timeout",
            format!("no answer from the server within {limit:?}"),
        ),
        SendError::Silent => (
            StatusCode::BAD_GATEWAY,
            "upstream_silent",
            "the server fell silent before it answered".into(),
        ),
        SendError::Connect(_) => (
            StatusCode::BAD_GATEWAY,
            "connect_failed",
            "no server could be reached".into(),
        ),
        SendError::Reset { .. } => (
            StatusCode::BAD_GATEWAY,
            "upstream_reset",
            "the server closed the connection before it answered".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scheduling::RejectReason;

    use super::*;

    fn rejection(reason: RejectReason, millis: u64) -> Refusal {
        Refusal::Rejected(Rejection {
            reason,
            retry_after: Duration::from_millis(millis),
        })
    }

    #[test]
    fn statuses_and_codes_are_the_documented_ones() {
        let table = [
            (Refusal::NoRoute(NoMatch::NoRoute), 404, "no_route"),
            (
                Refusal::NoRoute(NoMatch::NoListener(StatusCode::MISDIRECTED_REQUEST)),
                421,
                "misdirected_request",
            ),
            (Refusal::Method, 405, "method_not_allowed"),
            (Refusal::Framing("x"), 400, "bad_framing"),
            (
                Refusal::Reserved("kv_transfer_params".into()),
                400,
                "reserved_field",
            ),
            (
                Refusal::Body(llm::RequestError::ModelMissing { at: 2 }),
                400,
                "model_missing",
            ),
            (Refusal::TooLarge(1), 413, "body_too_large"),
            (Refusal::SlowBody, 408, "client_timeout"),
            (Refusal::Admin, 404, "no_route"),
            (Refusal::Filter("x".into()), 500, "filter_invalid"),
            (Refusal::Backend("x".into()), 500, "backend_invalid"),
            (Refusal::NoPool, 503, "pool_not_ready"),
            (
                rejection(RejectReason::SheddableSaturated, 1),
                429,
                "sheddable_saturated",
            ),
            (rejection(RejectReason::QueueFull, 1), 429, "queue_full"),
            (
                rejection(RejectReason::DeadlineUnreachable, 1),
                429,
                "deadline_unreachable",
            ),
            (
                rejection(RejectReason::NoReadyEndpoint, 1),
                503,
                "no_ready_endpoint",
            ),
            (Refusal::StateLost("resp_1".into()), 404, "state_lost"),
            (
                Refusal::Upstream(SendError::FirstByte(Duration::from_secs(1))),
                504,
                "first_byte_timeout",
            ),
            (
                Refusal::Upstream(ConnectError::Timeout(Duration::from_secs(1)).into()),
                504,
                "connect_timeout",
            ),
            (
                Refusal::Upstream(ConnectError::Spent.into()),
                502,
                "connect_failed",
            ),
            (Refusal::RequestTimeout, 504, "request_timeout"),
            (
                Refusal::Picker(Failure::NoAddress),
                503,
                "picker_unreachable",
            ),
            (
                Refusal::Picker(Failure::Timeout(Duration::from_secs(1))),
                503,
                "picker_timeout",
            ),
            (Refusal::Picker(Failure::Ended), 503, "picker_failed"),
            (Refusal::Picker(Failure::BadPick), 503, "picker_failed"),
        ];
        for (refusal, status, code) in table {
            let answer = refusal.answer(Style::OpenAi);
            assert_eq!(
                (answer.status().as_u16(), refusal.code()),
                (status, code),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn retry_after_is_whole_seconds_between_one_and_the_longest() {
        for (millis, seconds) in [
            (0, "1"),
            (1, "1"),
            (1000, "1"),
            (1001, "2"),
            (10_000_000, "120"),
        ] {
            let answer = rejection(RejectReason::QueueFull, millis).answer(Style::OpenAi);
            assert_eq!(answer.headers()[RETRY_AFTER], seconds, "{millis}");
        }
        assert!(
            !Refusal::Method
                .answer(Style::OpenAi)
                .headers()
                .contains_key(RETRY_AFTER)
        );
    }
}

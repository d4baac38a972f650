//! Every way in which a request is refused, and the answer that it gets.
//!
//! The status and the words are the reference picker's; the body is an error in the caller's own dialect, with the
//! stable code of this program in it. `x-llm-d-request-dropped-reason` says in a header what the reference picker of
//! llm-d says there.

use bytes::Bytes;
use fleet::{Eviction, Rejection};
use http::StatusCode;
use llm::{Dialect, ErrorBody, Style};
use scheduling::RejectReason;

use super::reply::set;
use crate::proto::ext_proc::{HeaderMutation, ImmediateResponse};
use crate::proto::typev3::HttpStatus;

/// Why a request gets an answer of ours.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The body is not what the dialect asks for.
    Body(llm::RequestError),
    /// A field for engines among themselves, by name.
    Reserved(&'static str),
    /// The body is over the limit, in bytes.
    TooLarge(usize),
    /// The server that holds this state is gone.
    StateLost(String),
    /// The pool does not run yet, or no more.
    NoPool,
    /// The core said no.
    Rejected(Rejection),
    /// Its place is needed for others.
    Evicted(Eviction),
}

impl Refusal {
    fn facts(&self) -> (StatusCode, &'static str, String) {
        use StatusCode as S;
        match self {
            Self::Body(error) => (S::BAD_REQUEST, error.code(), error.message()),
            Self::Reserved(field) => (
                S::BAD_REQUEST,
                "reserved_field",
                format!("`{field}` is reserved for use between servers"),
            ),
            Self::TooLarge(limit) => (
                S::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body is over the limit of {limit} bytes"),
            ),
            Self::StateLost(id) => (
                S::NOT_FOUND,
                "state_lost",
                format!("the server that held `{id}` is gone, and its state with it"),
            ),
            Self::NoPool => (
                S::SERVICE_UNAVAILABLE,
                "pool_not_ready",
                "this pool has not started yet".into(),
            ),
            Self::Rejected(rejection) => {
                let (status, sentence) = rejection.answer();
                (status, rejection.reason.code(), sentence.into())
            }
            Self::Evicted(eviction) => (
                S::TOO_MANY_REQUESTS,
                eviction.reason.code(),
                "this request was ended for one of a higher class".into(),
            ),
        }
    }

    /// Status and machine-readable reason.
    pub(super) fn code(&self) -> (StatusCode, &'static str) {
        let (status, code, _) = self.facts();
        (status, code)
    }

    fn param(&self) -> Option<String> {
        match self {
            Self::Body(error) => error.param().map(str::to_owned),
            Self::Reserved(field) => Some((*field).to_owned()),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Rejected(rejection) => Some(rejection.retry_after_seconds()),
            Self::Evicted(eviction) => Some(eviction.retry_after_seconds()),
            Self::NoPool => Some(1),
            _ => None,
        }
    }

    /// llm-d's word for why the request was dropped.
    fn dropped(&self) -> Option<&'static str> {
        match self {
            Self::NoPool => Some("rejected-no-endpoints"),
            Self::Evicted(_) => Some("evicted-priority"),
            Self::Rejected(rejection) => Some(match rejection.reason {
                RejectReason::NoReadyEndpoint | RejectReason::NoCandidate => {
                    "rejected-no-endpoints"
                }
                RejectReason::QueueTtl => "rejected-ttl-expired",
                _ => "rejected-saturated",
            }),
            _ => None,
        }
    }

    fn error(&self) -> ErrorBody {
        let (status, code, sentence) = self.facts();
        let upstream = upstream_code(status);
        let message = format!("inference gateway: {upstream} - {sentence}");
        let mut body = ErrorBody::new(status, code, message);
        body.param = self.param();
        body
    }

    /// The last event of a stream that had begun.
    pub(super) fn event(&self, style: Style, dialect: Dialect) -> Bytes {
        self.error().stream_error_event(style, dialect)
    }

    /// The answer.
    pub(super) fn answer(&self, style: Style, request_id: Bytes) -> ImmediateResponse {
        let (status, code) = self.code();
        let body = self.error();
        let mut headers = vec![
            set("content-type", &b"application/json"[..]),
            set("x-request-id", request_id),
        ];
        if let Some(seconds) = self.retry_after() {
            headers.push(set("retry-after", seconds.to_string()));
        }
        if let Some(reason) = self.dropped() {
            headers.push(set("x-llm-d-request-dropped-reason", reason));
        }
        ImmediateResponse {
            status: Some(HttpStatus {
                code: i32::from(status.as_u16()),
            }),
            headers: Some(HeaderMutation {
                set_headers: headers,
                remove_headers: Vec::new(),
            }),
            body: body.render(style),
            grpc_status: None,
            details: code.to_owned(),
        }
    }
}

/// The reference picker's word for a status.
fn upstream_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "BadRequest",
        404 => "NotFound",
        413 => "PayloadTooLarge",
        429 => "InferencePoolResourceExhausted",
        503 => "ServiceUnavailable",
        _ => "Internal",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rejected(reason: RejectReason) -> Refusal {
        Refusal::Rejected(Rejection {
            reason,
            retry_after: Duration::from_millis(1500),
        })
    }

    #[test]
    fn statuses_codes_and_words_are_the_documented_ones() {
        let table = [
            (
                Refusal::Body(llm::RequestError::ModelMissing { at: 2 }),
                400,
                "model_missing",
                "inference gateway: BadRequest - ",
            ),
            (
                Refusal::Reserved("kv_transfer_params"),
                400,
                "reserved_field",
                "BadRequest",
            ),
            (
                Refusal::TooLarge(1),
                413,
                "body_too_large",
                "PayloadTooLarge",
            ),
            (
                Refusal::StateLost("r".into()),
                404,
                "state_lost",
                "NotFound",
            ),
            (Refusal::NoPool, 503, "pool_not_ready", "ServiceUnavailable"),
            (
                rejected(RejectReason::SheddableSaturated),
                429,
                "sheddable_saturated",
                "InferencePoolResourceExhausted",
            ),
            (
                rejected(RejectReason::NoCandidate),
                503,
                "no_candidate",
                "ServiceUnavailable",
            ),
        ];
        for (refusal, status, code, words) in table {
            let answer = refusal.answer(Style::OpenAi, "id".into());
            assert_eq!(answer.status.map(|s| s.code), Some(status), "{refusal:?}");
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["error"]["code"], code);
            assert!(
                body["error"]["message"].as_str().unwrap().contains(words),
                "{body}"
            );
        }
    }

    #[test]
    fn a_stream_that_has_begun_ends_with_an_event_of_the_same_words() {
        let evicted = Refusal::Evicted(Eviction {
            reason: scheduling::EvictReason::HigherPriority,
            retry_after: Duration::from_secs(1),
        });
        for (style, dialect, begins) in [
            (Style::OpenAi, Dialect::ChatCompletions, "data: {"),
            (Style::Anthropic, Dialect::Messages, "event: error\ndata: {"),
        ] {
            let event = evicted.event(style, dialect);
            let text = std::str::from_utf8(&event).unwrap();
            assert!(text.starts_with(begins) && text.ends_with("\n\n"), "{text}");
            let json = text[text.find('{').unwrap()..].trim();
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(json["error"]["code"], "evicted");
        }
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        let header = |refusal: Refusal, name: &str| {
            let headers = refusal
                .answer(Style::Anthropic, "id".into())
                .headers
                .unwrap();
            headers
                .set_headers
                .into_iter()
                .find_map(|option| option.header.filter(|h| h.key == name).map(|h| h.raw_value))
        };
        let busy = || rejected(RejectReason::QueueTtl);
        assert_eq!(header(busy(), "retry-after").unwrap(), "2");
        assert_eq!(
            header(busy(), "x-llm-d-request-dropped-reason").unwrap(),
            "rejected-ttl-expired"
        );
        assert_eq!(header(Refusal::TooLarge(1), "retry-after"), None);
        assert_eq!(header(Refusal::TooLarge(1), "x-request-id").unwrap(), "id");
    }
}

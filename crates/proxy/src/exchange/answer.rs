//! Making the answer: a server's own, as it is, or one of ours.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use http::{Response, StatusCode, Version};
use llm::ResponseScanner;
use telemetry::Ended;
use tokio::time::Instant;

use super::created::Created;
use super::route::Routed;
use super::tunnel::Tunnel;
use super::{Exchange, explain, head};
use crate::body::{ResponseBody, Source, Streamed};
use crate::refusal::Refusal;
use crate::upstream::Link;
use crate::{filters, session};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request comes to.
pub(crate) enum Answer {
    /// Ours.
    Own(Response<Bytes>),
    /// A server's.
    Served(Box<Served>),
    /// The connection becomes a tunnel.
    Tunnel(Box<Tunnel>),
}

/// The head of a server's answer and where its body comes from.
pub(crate) struct Served {
    response: Response<Source>,
    link: Link,
    routed: Routed,
    /// The request's headers as sent, for the session's token.
    request: HeaderMap,
    /// When the whole exchange must be over.
    until: Option<Instant>,
}

impl Served {
    pub(crate) fn new(
        response: Response<Source>,
        link: Link,
        routed: Routed,
        request: HeaderMap,
    ) -> Self {
        Self {
            response,
            link,
            routed,
            request,
            until: None,
        }
    }
}

impl Exchange {
    /// The answer to a request that goes no further.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) -> Response<Bytes> {
        self.answer.code = Some(refusal.code());
        self.answer.stream = false;
        if matches!(refusal, Refusal::Upstream(_)) {
            self.release();
        }
        let mut answer = refusal.answer(self.style);
        // An answer to HEAD has no content, and there are clients that go by the type alone and try to read it.
        if self.method == http::Method::HEAD {
            answer.headers_mut().remove(CONTENT_TYPE);
        }
        answer
    }
}

impl Answer {
    /// Limits the time until the end of the body.
    pub(crate) fn until(mut self, until: Instant) -> Self {
        if let Self::Served(served) = &mut self {
            served.until = Some(until);
        }
        self
    }

    /// The response, with the exchange inside its body where that is still to come.
    pub(crate) fn into_response(
        self,
        exchange: Box<Exchange>,
        asked_to_upgrade: bool,
    ) -> Response<ResponseBody> {
        // HTTP/1.1 only: bytes behind a head that asked for an upgrade are not guarded any more.
        let close = asked_to_upgrade && !exchange.http2;
        let mut response = match self {
            Self::Own(own) => own_response(own, exchange),
            Self::Served(served) => served_response(*served, exchange),
            Self::Tunnel(tunnel) => return tunnel.open(exchange),
        };
        if close {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn own_response(own: Response<Bytes>, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let (mut parts, body) = own.into_parts();
    exchange.answer.status = parts.status.as_u16();
    exchange.answer.bytes = body.len() as u64;
    exchange.answer.ended = Some(Ended::Complete);
    if exchange.http2 {
        parts.headers.remove(CONNECTION);
    }
    // A script that may read answers may read why there is none.
    if let Some(marks) = &exchange.marks {
        marks.set(&mut parts.headers);
    }
    parts
        .headers
        .insert(REQUEST_ID, exchange.request_id.clone());
    Response::from_parts(parts, ResponseBody::full(body))
}

fn served_response(served: Served, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let (mut head, body) = served.response.into_parts();
    exchange.watch(head.status, &head.headers);
    head.version = Version::HTTP_11;
    head::sanitise_answer(&mut head.headers);
    if let Some(marks) = &exchange.marks {
        marks.set(&mut head.headers);
    }
    filters::change_response(&mut head.headers, served.routed.backend_filters());
    filters::change_response(&mut head.headers, &served.routed.rule.filters);
    keep_session(
        &exchange,
        &served.routed,
        &served.request,
        &mut head.headers,
    );
    explain::add(&exchange, &mut head.headers);
    head.headers.insert(REQUEST_ID, exchange.request_id.clone());
    Response::from_parts(
        head,
        Streamed::body(body, served.link, exchange, served.until),
    )
}

fn keep_session(
    exchange: &Exchange,
    routed: &Routed,
    request: &HeaderMap,
    headers: &mut HeaderMap,
) {
    let (Some(policy), Some(endpoint)) = (&routed.rule.policy.session, &exchange.endpoint) else {
        return;
    };
    let (key, now) = (&exchange.worker.session, exchange.worker.unix_time());
    let held = session::read(key, policy, request, now);
    if let Some((name, value)) = session::issue(key, policy, held, endpoint.token(), now) {
        headers.append(name, value);
    }
}

impl Exchange {
    /// Takes the head of a server's answer and gets ready for its body.
    fn watch(&mut self, status: StatusCode, headers: &HeaderMap) {
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        self.answer.status = status.as_u16();
        self.answer.sound = !status.is_server_error();
        self.answer.stream = content_type.is_some_and(|kind| kind.starts_with("text/event-stream"));
        if let (Some(_), StatusCode::NOT_FOUND, Some(lease)) =
            (self.request.dialect, status, &self.lease)
        {
            lease.model_unknown();
        }
        self.answer.created = Created::watch(&self.method, self.uri.path(), status, headers);
        // What is compressed passes unread.
        let plain = headers
            .get(CONTENT_ENCODING)
            .is_none_or(|coding| coding == "identity");
        if let (Some(dialect), true) = (self.request.dialect, plain) {
            self.answer.scanner =
                Some(ResponseScanner::new(dialect, content_type, status.as_u16()));
        }
    }
}

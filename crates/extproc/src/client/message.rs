//! What is sent to a picker.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::destination::{NAMESPACE, SERVED, SUBSET, SUBSET_NAMESPACE};
use crate::proto::core::{self, Metadata};
use crate::proto::ext_proc::processing_request::Request as Part;
use crate::proto::ext_proc::{
    HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProtocolConfiguration,
};
use crate::proto::mode::processing_mode::BodySendMode;

/// Most bytes of a body in one message. The reference picker sends pieces of 62,000 bytes; receivers stop at 4 MiB.
pub(super) const PIECE: usize = 62_000;

/// The head of a request, as the picker is told.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// `:method`.
    pub method: &'a Method,
    /// `:scheme`.
    pub scheme: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `:path`, with the query.
    pub path: &'a str,
    /// All other headers.
    pub headers: &'a HeaderMap,
    /// Headers for the picker's eyes only.
    pub more: &'a [(HeaderName, HeaderValue)],
}

/// The first message of a stream.
pub(super) fn request_headers(
    head: &RequestHead<'_>,
    end_of_stream: bool,
    subset: Option<&[SocketAddr]>,
) -> ProcessingRequest {
    let pseudo = [
        (":method", head.method.as_str()),
        (":scheme", head.scheme),
        (":authority", head.authority),
        (":path", head.path),
    ];
    let mut headers: Vec<core::HeaderValue> = pseudo
        .iter()
        .map(|(name, value)| field(name, value.as_bytes()))
        .collect();
    let others = head
        .headers
        .iter()
        .filter(|(name, _)| *name != http::header::HOST);
    let more = head.more.iter().map(|(name, value)| (name, value));
    headers.extend(
        others
            .chain(more)
            .map(|(name, value)| field(name.as_str(), value.as_bytes())),
    );
    let full_duplex = BodySendMode::FullDuplexStreamed as i32;
    ProcessingRequest {
        request: Some(Part::RequestHeaders(HttpHeaders {
            headers: Some(core::HeaderMap { headers }),
            end_of_stream,
        })),
        metadata_context: subset
            .map(|subset| Metadata::default().with(SUBSET_NAMESPACE, list(SUBSET, subset))),
        protocol_config: Some(ProtocolConfiguration {
            request_body_mode: full_duplex,
            response_body_mode: full_duplex,
            send_body_without_waiting_for_header_response: true,
        }),
        ..ProcessingRequest::default()
    }
}

/// A piece of the request's body.
pub(super) fn request_body(body: Bytes, end_of_stream: bool) -> ProcessingRequest {
    of(Part::RequestBody(HttpBody {
        body,
        end_of_stream,
    }))
}

/// The head of the answer, and who gave it.
pub(super) fn response_headers(
    status: StatusCode,
    headers: &HeaderMap,
    end_of_stream: bool,
    served: Option<SocketAddr>,
) -> ProcessingRequest {
    let mut fields = vec![field(":status", status.as_str().as_bytes())];
    fields.extend(fields_of(headers));
    ProcessingRequest {
        metadata_context: served
            .map(|served| Metadata::default().with_text(NAMESPACE, SERVED, &served.to_string())),
        ..of(Part::ResponseHeaders(HttpHeaders {
            headers: Some(core::HeaderMap { headers: fields }),
            end_of_stream,
        }))
    }
}

/// A piece of the answer's body.
pub(super) fn response_body(body: Bytes, end_of_stream: bool) -> ProcessingRequest {
    of(Part::ResponseBody(HttpBody {
        body,
        end_of_stream,
    }))
}

/// The trailers of the answer.
pub(super) fn response_trailers(trailers: &HeaderMap) -> ProcessingRequest {
    of(Part::ResponseTrailers(HttpTrailers {
        trailers: Some(core::HeaderMap {
            headers: fields_of(trailers).collect(),
        }),
    }))
}

/// Bytes of body in a message.
pub(super) fn body_bytes(message: &ProcessingRequest) -> usize {
    match &message.request {
        Some(Part::RequestBody(body) | Part::ResponseBody(body)) => body.body.len(),
        _ => 0,
    }
}

fn of(part: Part) -> ProcessingRequest {
    ProcessingRequest {
        request: Some(part),
        ..ProcessingRequest::default()
    }
}

fn fields_of(headers: &HeaderMap) -> impl Iterator<Item = core::HeaderValue> {
    headers
        .iter()
        .map(|(name, value)| field(name.as_str(), value.as_bytes()))
}

fn field(name: &str, value: &[u8]) -> core::HeaderValue {
    core::HeaderValue {
        key: name.to_owned(),
        value: String::new(),
        raw_value: Bytes::copy_from_slice(value),
    }
}

fn list(key: &str, addresses: &[SocketAddr]) -> Struct {
    let values = addresses.iter().map(|address| Value {
        kind: Some(Kind::StringValue(address.to_string())),
    });
    let list = Kind::ListValue(ListValue {
        values: values.collect(),
    });
    Struct {
        fields: [(key.to_owned(), Value { kind: Some(list) })].into(),
    }
}

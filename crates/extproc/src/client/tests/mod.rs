//! Calls in tables: what a picker says, and what becomes of the request and of its answer.

mod answers;
mod mutations;
mod requests;

use bytes::Bytes;
use http::{HeaderMap, Method};
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::destination::{DESTINATION, NAMESPACE};
use super::{Call, Event, Failure, RequestHead, Verdict};
use crate::metadata::text_struct;
use crate::proto::core::{HeaderValue, HeaderValueOption};
use crate::proto::ext_proc::body_mutation::Mutation;
use crate::proto::ext_proc::processing_request::Request;
use crate::proto::ext_proc::processing_response::Response;
use crate::proto::ext_proc::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, ImmediateResponse,
    ProcessingRequest, ProcessingResponse, StreamedBodyResponse,
};
use crate::proto::typev3::HttpStatus;

const SERVER: &str = "10.0.0.1:8000";

fn call_with(body: &str) -> Call {
    let headers = HeaderMap::new();
    let head = RequestHead {
        method: &Method::POST,
        scheme: "http",
        authority: "a.test",
        path: "/v1/x?q=1",
        headers: &headers,
        more: &[],
    };
    Call::new(
        &head,
        Some(Bytes::copy_from_slice(body.as_bytes())),
        None,
        1000,
    )
}

fn sent(call: &mut Call) -> Vec<Request> {
    std::iter::from_fn(|| call.next_message())
        .filter_map(|message| message.request)
        .collect()
}

fn events(call: &mut Call) -> Vec<Event> {
    std::iter::from_fn(|| call.next_event()).collect()
}

fn set(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: String::new(),
            raw_value: Bytes::copy_from_slice(value.as_bytes()),
        }),
        ..HeaderValueOption::default()
    }
}

fn mutation(pairs: &[(&str, &str)]) -> HeaderMutation {
    HeaderMutation {
        set_headers: pairs.iter().map(|(name, value)| set(name, value)).collect(),
        remove_headers: Vec::new(),
    }
}

fn reply(response: Response) -> ProcessingResponse {
    ProcessingResponse {
        response: Some(response),
        ..ProcessingResponse::default()
    }
}

fn common(headers: &[(&str, &str)], body: Option<Mutation>) -> CommonResponse {
    CommonResponse {
        header_mutation: (!headers.is_empty()).then(|| mutation(headers)),
        body_mutation: body.map(|body| BodyMutation {
            mutation: Some(body),
        }),
        ..CommonResponse::default()
    }
}

fn streamed(body: &str, end: bool) -> Mutation {
    Mutation::StreamedResponse(StreamedBodyResponse {
        body: Bytes::copy_from_slice(body.as_bytes()),
        end_of_stream: end,
    })
}

fn head(headers: &[(&str, &str)]) -> ProcessingResponse {
    reply(Response::RequestHeaders(HeadersResponse {
        response: Some(common(headers, None)),
    }))
}

/// A head reply with a destination in the header.
fn picks(list: &str) -> ProcessingResponse {
    head(&[(DESTINATION, list)])
}

/// A head reply with a destination in metadata.
fn picks_in_metadata(list: &str) -> ProcessingResponse {
    let mut reply = head(&[]);
    let namespace = Kind::StructValue(text_struct(DESTINATION, list));
    let value = Value {
        kind: Some(namespace),
    };
    reply.dynamic_metadata = Some(Struct {
        fields: [(NAMESPACE.to_owned(), value)].into(),
    });
    reply
}

fn request_body(body: Option<Mutation>) -> ProcessingResponse {
    reply(Response::RequestBody(BodyResponse {
        response: Some(common(&[], body)),
    }))
}

fn response_head(headers: &[(&str, &str)]) -> ProcessingResponse {
    reply(Response::ResponseHeaders(HeadersResponse {
        response: Some(common(headers, None)),
    }))
}

fn response_body(body: Option<Mutation>) -> ProcessingResponse {
    reply(Response::ResponseBody(BodyResponse {
        response: Some(common(&[], body)),
    }))
}

fn immediate(code: i32) -> ProcessingResponse {
    reply(Response::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code }),
        headers: Some(mutation(&[("x-why", "busy")])),
        body: Bytes::from_static(b"later"),
        ..ImmediateResponse::default()
    }))
}

/// The word for a failure, or what was decided.
fn outcome(
    replies: Vec<ProcessingResponse>,
    body: &str,
    ends: bool,
) -> Result<Verdict, &'static str> {
    let mut call = call_with(body);
    for reply in replies {
        call.receive(reply).map_err(|failure| failure.code())?;
    }
    if ends {
        call.ended().map_err(|failure: Failure| failure.code())?;
    }
    call.verdict().ok_or("waits")
}

/// A call that has its pick and is about to see an answer.
fn decided() -> Call {
    let mut call = call_with("");
    call.receive(picks(SERVER)).expect("a pick");
    assert!(matches!(call.verdict(), Some(Verdict::Pick(_))));
    sent(&mut call);
    call
}

fn messages(call: &mut Call) -> Vec<ProcessingRequest> {
    std::iter::from_fn(|| call.next_message()).collect()
}

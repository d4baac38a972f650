//! The messages that go back.

use bytes::Bytes;

use crate::proto::core::header_value_option::HeaderAppendAction;
use crate::proto::core::{HeaderValue, HeaderValueOption};
use crate::proto::ext_proc::body_mutation::Mutation;
use crate::proto::ext_proc::processing_response::Response;
use crate::proto::ext_proc::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, ImmediateResponse,
    ProcessingResponse, StreamedBodyResponse, TrailersResponse,
};

/// Sets a header, in place of any of that name.
pub(super) fn set(name: &str, value: impl Into<Bytes>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: String::new(),
            raw_value: value.into(),
        }),
        append: None,
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: false,
    }
}

pub(super) fn unchanged() -> CommonResponse {
    CommonResponse::default()
}

pub(super) fn changed(headers: HeaderMutation, clear_route_cache: bool) -> CommonResponse {
    CommonResponse {
        header_mutation: Some(headers),
        clear_route_cache,
        ..CommonResponse::default()
    }
}

pub(super) fn replaced(body: Bytes) -> BodyMutation {
    BodyMutation {
        mutation: Some(Mutation::Body(body)),
    }
}

fn message(response: Response) -> ProcessingResponse {
    ProcessingResponse {
        response: Some(response),
        ..ProcessingResponse::default()
    }
}

fn piece(body: Bytes, end_of_stream: bool) -> BodyResponse {
    let streamed = StreamedBodyResponse {
        body,
        end_of_stream,
    };
    BodyResponse {
        response: Some(CommonResponse {
            body_mutation: Some(BodyMutation {
                mutation: Some(Mutation::StreamedResponse(streamed)),
            }),
            ..CommonResponse::default()
        }),
    }
}

pub(super) fn request_head(common: CommonResponse) -> ProcessingResponse {
    message(Response::RequestHeaders(HeadersResponse {
        response: Some(common),
    }))
}

pub(super) fn request_body(common: CommonResponse) -> ProcessingResponse {
    message(Response::RequestBody(BodyResponse {
        response: Some(common),
    }))
}

pub(super) fn request_piece(body: Bytes, last: bool) -> ProcessingResponse {
    message(Response::RequestBody(piece(body, last)))
}

pub(super) fn request_trailers() -> ProcessingResponse {
    message(Response::RequestTrailers(TrailersResponse::default()))
}

pub(super) fn answer_head(common: CommonResponse) -> ProcessingResponse {
    message(Response::ResponseHeaders(HeadersResponse {
        response: Some(common),
    }))
}

pub(super) fn answer_body() -> ProcessingResponse {
    message(Response::ResponseBody(BodyResponse {
        response: Some(unchanged()),
    }))
}

pub(super) fn answer_piece(body: Bytes, last: bool) -> ProcessingResponse {
    message(Response::ResponseBody(piece(body, last)))
}

pub(super) fn answer_trailers() -> ProcessingResponse {
    message(Response::ResponseTrailers(TrailersResponse::default()))
}

pub(super) fn immediate(answer: ImmediateResponse) -> ProcessingResponse {
    message(Response::ImmediateResponse(answer))
}

//! One request and its picker, without IO.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::Failure;
use super::message::{self, RequestHead};
use super::request::{Pick, RequestHalf, pieces};
use super::response::{Event, ResponseHalf, Shown};
use crate::proto::ext_proc::processing_response::Response as Part;
use crate::proto::ext_proc::{
    HeaderMutation, ImmediateResponse, ProcessingRequest, ProcessingResponse,
};
use crate::proto::mode::ProcessingMode;
use crate::proto::mode::processing_mode::{BodySendMode, HeaderSendMode};

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It goes to a server.
    Pick(Pick),
    /// The picker answers it itself. That is an answer and no failure, whatever its status.
    Immediate(Immediate),
}

/// An answer of the picker's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Immediate {
    /// Status for the client.
    pub status: StatusCode,
    /// Its headers.
    pub headers: Option<HeaderMutation>,
    /// Its body.
    pub body: Bytes,
}

impl Immediate {
    fn read(reply: ImmediateResponse) -> Result<Self, Failure> {
        let code = reply.status.map_or(200, |status| status.code);
        let status = u16::try_from(code)
            .ok()
            .filter(|code| (200..600).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or(Failure::Malformed(
                "an immediate response without a usable status",
            ))?;
        Ok(Self {
            status,
            headers: reply.headers,
            body: reply.body,
        })
    }
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The picker makes up its mind.
    Asking,
    /// It has; the server works.
    Decided,
    /// The server answers.
    Answering,
}

/// What is said to a picker about one request, and what it says.
#[derive(Debug)]
pub struct Call {
    stage: Stage,
    out: VecDeque<ProcessingRequest>,
    request: RequestHalf,
    verdict: Option<Verdict>,
    response: ResponseHalf,
}

impl Call {
    /// A call about a request with this head and body. `subset`: the servers to choose from, where that is limited.
    /// A body that comes back changed may have `limit` bytes.
    #[must_use]
    pub fn new(
        head: &RequestHead<'_>,
        body: Option<Bytes>,
        subset: Option<&[SocketAddr]>,
        limit: usize,
    ) -> Self {
        let body = body.filter(|body| !body.is_empty());
        let mut out = VecDeque::new();
        out.push_back(message::request_headers(head, body.is_none(), subset));
        if let Some(body) = &body {
            out.extend(pieces(body.len()).map(|range| {
                let last = range.end == body.len();
                message::request_body(body.slice(range), last)
            }));
        }
        Self {
            stage: Stage::Asking,
            out,
            request: RequestHalf::new(body, limit),
            verdict: None,
            response: ResponseHalf::new(),
        }
    }

    /// The next message to send.
    pub fn next_message(&mut self) -> Option<ProcessingRequest> {
        self.out.pop_front()
    }

    /// Takes a message of the picker.
    ///
    /// # Errors
    /// It makes no sense, or names no server.
    pub fn receive(&mut self, reply: ProcessingResponse) -> Result<(), Failure> {
        if let Some(mode) = reply.mode_override {
            self.override_mode(&mode);
        }
        if let (Stage::Asking, Some(metadata)) = (self.stage, &reply.dynamic_metadata) {
            self.request.metadata(metadata);
        }
        match reply.response {
            Some(Part::ImmediateResponse(reply)) => return self.immediate(Immediate::read(reply)?),
            Some(Part::RequestHeaders(reply)) if self.stage == Stage::Asking => {
                self.request.head(reply.response)?;
            }
            Some(Part::RequestBody(reply)) if self.stage == Stage::Asking => {
                self.request.body(reply.response)?;
            }
            Some(Part::ResponseHeaders(_) | Part::ResponseBody(_) | Part::ResponseTrailers(_))
                if self.stage != Stage::Answering =>
            {
                return Err(Failure::Malformed("a reply to an answer that has not come"));
            }
            Some(Part::ResponseHeaders(reply)) => self.response.head(reply.response),
            Some(Part::ResponseBody(reply)) => self.response.body(reply.response)?,
            Some(Part::ResponseTrailers(reply)) => self.response.trailers(reply.header_mutation),
            // Late words about a request that is on its way, about trailers that were not sent, or about nothing.
            Some(Part::RequestHeaders(_) | Part::RequestBody(_) | Part::RequestTrailers(_))
            | None => {}
        }
        self.decide()
    }

    /// The picker ended the stream in good order.
    ///
    /// # Errors
    /// It was not done.
    pub fn ended(&mut self) -> Result<(), Failure> {
        if self.stage == Stage::Asking && self.verdict.is_none() {
            self.request.ended()?;
            self.decide()?;
        }
        if self.response.give_up() {
            Ok(())
        } else {
            Err(Failure::Ended)
        }
    }

    fn decide(&mut self) -> Result<(), Failure> {
        if self.stage == Stage::Asking && self.request.is_complete() {
            self.stage = Stage::Decided;
            self.verdict = Some(Verdict::Pick(self.request.take()?));
        }
        Ok(())
    }

    fn immediate(&mut self, immediate: Immediate) -> Result<(), Failure> {
        if self.stage == Stage::Asking {
            self.stage = Stage::Decided;
            self.verdict = Some(Verdict::Immediate(immediate));
        } else if self.stage == Stage::Decided || self.response.head_is_pending() {
            self.response.immediate(immediate);
        } else {
            return Err(Failure::Malformed("an immediate response after the head"));
        }
        Ok(())
    }

    fn override_mode(&mut self, mode: &ProcessingMode) {
        if self.stage == Stage::Answering {
            return;
        }
        if mode.response_header_mode == HeaderSendMode::Skip as i32 {
            self.response.show(Shown::Nothing);
        } else if mode.response_header_mode == HeaderSendMode::Send as i32
            && mode.response_body_mode == BodySendMode::None as i32
        {
            self.response.show(Shown::Head);
        }
    }

    /// The decision, once it is made; taken out.
    pub fn verdict(&mut self) -> Option<Verdict> {
        self.verdict.take()
    }

    /// The server answers. `end`: there is no body. `served`: who it is.
    pub fn answer_head(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
        served: Option<SocketAddr>,
    ) {
        self.stage = Stage::Answering;
        self.response
            .answer_head(status, headers, end, served, &mut self.out);
    }

    /// A piece of the server's body. `end`: it is the last.
    pub fn answer_data(&mut self, data: Bytes, end: bool) {
        self.response.answer_data(data, end, &mut self.out);
    }

    /// The server's body is over, with or without trailers.
    pub fn answer_end(&mut self, trailers: Option<&HeaderMap>) {
        self.response.answer_end(trailers, &mut self.out);
    }

    /// What goes on to the client next.
    pub fn next_event(&mut self) -> Option<Event> {
        self.response.next_event()
    }

    /// Does without the picker for the rest of the answer. `false`: it has changed what it gave back, so that nobody
    /// knows how to go on.
    pub fn give_up(&mut self) -> bool {
        self.response.give_up()
    }

    /// The picker has something to answer; while it has not, its silence means nothing.
    #[must_use]
    pub fn owes(&self) -> bool {
        match self.stage {
            Stage::Asking => self.verdict.is_none(),
            Stage::Decided => false,
            Stage::Answering => self.response.owes(),
        }
    }

    /// Nothing more is expected of the picker.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.response.is_done()
    }
}

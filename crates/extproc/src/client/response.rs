//! The answer's half of a call: what the server says goes to the picker, what the picker makes of it goes on.
//!
//! Bytes that were sent and have not come back are held, so that a picker that dies costs nothing: as long as it has
//! given back what it was given, the rest can pass untouched, exactly from where it stopped.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};

use super::Failure;
use super::call::Immediate;
use super::message::{self, PIECE};
use crate::proto::ext_proc::body_mutation::Mutation;
use crate::proto::ext_proc::common_response::ResponseStatus;
use crate::proto::ext_proc::{BodyMutation, CommonResponse, HeaderMutation, ProcessingRequest};

/// Most bytes of an answer that are held while the picker has them. A picker that gathers more than this before it gives
/// the first back cannot be done without any more.
const HELD: usize = 16 << 20;

/// What goes on to the client.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The head may go, with these changes.
    Head(Vec<HeaderMutation>),
    /// A piece of the body.
    Data(Bytes),
    /// The trailers may go, with these changes.
    Trailers(Option<HeaderMutation>),
    /// The answer is complete.
    End,
    /// The picker answers in the server's place.
    Immediate(Immediate),
}

/// Which parts of the answer the picker is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    All,
    Head,
    Nothing,
}

#[derive(Debug)]
pub(super) struct ResponseHalf {
    shown: Shown,
    /// The head was sent and is not answered.
    head_pending: bool,
    /// Messages with pieces of the body, each until it has come back.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    /// What came back is not what was sent, so that nobody knows what is missing.
    diverged: bool,
    /// Everything from the server has been taken in.
    server_done: bool,
    trailers_pending: bool,
    has_trailers: bool,
    /// From here on nothing is sent to the picker.
    through: bool,
    ended: bool,
    events: VecDeque<Event>,
}

impl ResponseHalf {
    pub(super) fn new() -> Self {
        Self {
            shown: Shown::All,
            head_pending: false,
            held: VecDeque::new(),
            held_bytes: 0,
            diverged: false,
            server_done: false,
            trailers_pending: false,
            has_trailers: false,
            through: false,
            ended: false,
            events: VecDeque::new(),
        }
    }

    /// Limits what the picker is shown.
    pub(super) fn show(&mut self, shown: Shown) {
        self.shown = shown;
    }

    /// The next event. Nothing overtakes the head.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        if self.head_pending {
            return None;
        }
        self.events.pop_front()
    }

    pub(super) fn head_is_pending(&self) -> bool {
        self.head_pending
    }

    /// The picker has something to answer.
    pub(super) fn owes(&self) -> bool {
        let body = !self.through && !self.ended && (!self.held.is_empty() || self.server_done);
        self.head_pending || body
    }

    /// Nothing more will come from the picker, or is wanted of it.
    pub(super) fn is_done(&self) -> bool {
        (self.through || self.ended) && !self.head_pending
    }

    pub(super) fn answer_head(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
        served: Option<SocketAddr>,
        out: &mut VecDeque<ProcessingRequest>,
    ) {
        self.server_done = end;
        if self.through || self.shown == Shown::Nothing {
            self.through = true;
            self.events.push_back(Event::Head(Vec::new()));
            self.end_if_done();
            return;
        }
        self.head_pending = true;
        out.push_back(message::response_headers(status, headers, end, served));
    }

    pub(super) fn answer_data(
        &mut self,
        data: Bytes,
        end: bool,
        out: &mut VecDeque<ProcessingRequest>,
    ) {
        self.server_done |= end;
        if self.ended {
            return;
        }
        if self.through || self.shown == Shown::Head {
            if self.head_pending {
                self.hold(data);
            } else {
                self.pass(data);
                self.end_if_done();
            }
            return;
        }
        let mut rest = data;
        loop {
            let piece = rest.split_to(rest.len().min(PIECE));
            self.hold(piece.clone());
            out.push_back(message::response_body(piece, end && rest.is_empty()));
            if rest.is_empty() {
                return;
            }
        }
    }

    pub(super) fn answer_end(
        &mut self,
        trailers: Option<&HeaderMap>,
        out: &mut VecDeque<ProcessingRequest>,
    ) {
        let Some(trailers) = trailers else {
            // An end that came with the last piece has been told.
            if !self.server_done {
                self.answer_data(Bytes::new(), true, out);
            }
            return;
        };
        self.server_done = true;
        self.has_trailers = true;
        if self.through || self.shown == Shown::Head {
            if !self.head_pending {
                self.end_if_done();
            }
            return;
        }
        self.trailers_pending = true;
        out.push_back(message::response_trailers(trailers));
    }

    pub(super) fn head(&mut self, reply: Option<CommonResponse>) {
        if !std::mem::take(&mut self.head_pending) {
            return;
        }
        let reply = reply.unwrap_or_default();
        self.events
            .push_front(Event::Head(reply.header_mutation.into_iter().collect()));
        if reply.status == ResponseStatus::ContinueAndReplace as i32 {
            self.held.clear();
            match reply.body_mutation.and_then(|it| it.mutation) {
                Some(Mutation::Body(body)) => self.pass(body),
                Some(Mutation::StreamedResponse(reply)) => self.pass(reply.body),
                Some(Mutation::ClearBody(_)) | None => {}
            }
            self.end();
        } else if self.shown == Shown::Head {
            self.open();
        } else if self.server_done && self.held.is_empty() && !self.trailers_pending {
            self.end();
        }
    }

    pub(super) fn body(&mut self, reply: Option<CommonResponse>) -> Result<(), Failure> {
        if self.through || self.ended {
            return Ok(());
        }
        let mutation: Option<BodyMutation> = reply.and_then(|reply| reply.body_mutation);
        match mutation.and_then(|it| it.mutation) {
            Some(Mutation::StreamedResponse(reply)) => {
                self.returned(reply.body);
                if reply.end_of_stream && !self.has_trailers {
                    self.end();
                }
                return Ok(());
            }
            Some(Mutation::Body(body)) => {
                self.release()?;
                self.pass(body);
            }
            Some(Mutation::ClearBody(_)) => {
                self.release()?;
            }
            None => {
                let piece = self.release()?;
                self.pass(piece);
            }
        }
        if self.server_done && self.held.is_empty() && !self.has_trailers && !self.head_pending {
            self.end();
        }
        Ok(())
    }

    pub(super) fn trailers(&mut self, mutation: Option<HeaderMutation>) {
        if std::mem::take(&mut self.trailers_pending) && !(self.through || self.ended) {
            self.events.push_back(Event::Trailers(mutation));
            self.end();
        }
    }

    pub(super) fn immediate(&mut self, immediate: Immediate) {
        self.events.clear();
        self.events.push_back(Event::Immediate(immediate));
        self.head_pending = false;
        self.ended = true;
    }

    /// Does without the picker from here on. `false`: that is no longer possible.
    pub(super) fn give_up(&mut self) -> bool {
        let complete = self.through || self.ended;
        if self.diverged && !complete {
            return false;
        }
        if std::mem::take(&mut self.head_pending) {
            self.events.push_front(Event::Head(Vec::new()));
        }
        if !complete {
            self.open();
        }
        true
    }

    /// Lets everything that is held go.
    fn open(&mut self) {
        self.through = true;
        while let Some(piece) = self.held.pop_front() {
            self.pass(piece);
        }
        self.end_if_done();
    }

    fn hold(&mut self, piece: Bytes) {
        if self.diverged {
            return;
        }
        self.held_bytes += piece.len();
        self.held.push_back(piece);
        if self.held_bytes > HELD {
            self.diverge();
        }
    }

    fn diverge(&mut self) {
        self.diverged = true;
        self.held.clear();
        self.held_bytes = 0;
    }

    /// The oldest piece, which was answered as a whole.
    fn release(&mut self) -> Result<Bytes, Failure> {
        if self.diverged {
            return Err(Failure::Malformed(
                "pieces are answered one by one and in a stream",
            ));
        }
        let piece = self.held.pop_front().unwrap_or_default();
        self.held_bytes -= piece.len();
        Ok(piece)
    }

    /// Bytes came back in a stream of their own.
    fn returned(&mut self, data: Bytes) {
        let mut rest = &data[..];
        while !self.diverged && !rest.is_empty() {
            let Some(front) = self.held.front_mut() else {
                self.diverge();
                break;
            };
            let count = front.len().min(rest.len());
            if front[..count] != rest[..count] {
                self.diverge();
                break;
            }
            front.advance(count);
            self.held_bytes -= count;
            rest = &rest[count..];
            if front.is_empty() {
                self.held.pop_front();
            }
        }
        self.pass(data);
    }

    fn pass(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.events.push_back(Event::Data(data));
        }
    }

    fn end_if_done(&mut self) {
        if self.server_done {
            if self.has_trailers {
                self.events.push_back(Event::Trailers(None));
            }
            self.end();
        }
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.held.clear();
            self.events.push_back(Event::End);
        }
    }
}

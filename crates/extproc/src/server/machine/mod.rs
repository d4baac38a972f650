//! What is said on one stream, as a state machine without IO: messages in, messages out, and between them one decision.
//!
//! The host feeds every message to [`Machine::receive`], does what the [`Event`] says, and sends what [`Machine::reply`]
//! gives it. When the request is known as far as it will be, [`Event::Decide`] hands it over; the host answers, as late
//! as it likes, with [`Machine::decided`].
//!
//! When that is depends on how the proxy sends bodies, which it says with its first message:
//!
//! | Request body | The head is answered | The pick is made | and goes into |
//! |---|---|---|---|
//! | full duplex | with the pick | when the body has ended | the reply to the head; the body follows, as it came |
//! | buffered | at once | when the body is here | the reply to the body |
//! | streamed, none | with the pick | with the head alone | the reply to the head |
//!
//! A proxy that does not say how it sends bodies is taken for a full-duplex one if the body comes before the head was
//! answered. If nothing comes for a while it may be waiting for that answer: [`Machine::nothing_came`].
//!
//! In full duplex the picker is the source of the body: what is not sent back is lost, in replies of at most
//! [`PIECE`] bytes, in order. Everywhere else each message gets exactly one reply.

mod body;
mod mode;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use prost_types::Struct;

use self::body::Gathered;
pub use self::mode::Mode;
use super::head::{NAMESPACE, SERVED};
use super::reply;
use crate::metadata::Metadata;
use crate::proto::ext_proc::processing_request::Request;
use crate::proto::ext_proc::{
    HeaderMutation, HttpBody, HttpHeaders, ImmediateResponse, ProcessingRequest,
    ProcessingResponse, ProtocolConfiguration,
};

/// Longest piece of a body in one reply: below the 64 KiB at which Envoy's documentation draws the line.
pub const PIECE: usize = 62_000;

/// Where conformance tests look for the server that has answered.
const TEST_SERVED: &str = "x-conformance-test-served-endpoint";
/// What stands there if the proxy does not say.
const NOT_TOLD: &str = "fail: the proxy told no served endpoint";

/// What the proxy said that the protocol does not allow. The stream must end with an error: after a clean end in the
/// middle of a request Envoy forwards it with an empty body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message about nothing that is known.
    #[error("a message that is neither head, body nor trailers")]
    Empty,
    /// Something came before the head of the request.
    #[error("the first message is not the head of a request")]
    NoHead,
    /// A head came twice.
    #[error("a second head")]
    SecondHead,
    /// Bodies are sent in a way that is not known here.
    #[error("body mode {0} is not known")]
    Mode(i32),
    /// The proxy stopped in the middle of a request.
    #[error("the stream ended in the middle of a request")]
    EndedEarly,
}

/// What came.
#[derive(Debug)]
pub enum Event {
    /// Nothing that matters outside.
    Nothing,
    /// The request, as far as it will be known: decide what becomes of it.
    Decide(Box<Seen>),
    /// The head of the answer. A decision that is still being made is not needed any more.
    AnswerHead(AnswerHead),
    /// A piece of the answer's body.
    AnswerPiece(AnswerPiece),
    /// The answer ended with trailers.
    AnswerTrailers,
}

/// A request.
#[derive(Debug)]
pub struct Seen {
    /// Its head.
    pub head: HttpHeaders,
    /// What the proxy's filters know about it.
    pub metadata: Option<Metadata>,
    /// Its body.
    pub body: SeenBody,
}

/// A request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeenBody {
    /// It has none.
    None,
    /// It has one, but that stays with the proxy, or comes later.
    Unseen,
    /// All of it.
    Whole(Bytes),
    /// The first part of it; the proxy's buffer was too small for more.
    Part(Bytes),
    /// More than is taken.
    TooLarge,
}

/// The head of an answer.
#[derive(Debug)]
pub struct AnswerHead {
    /// The head.
    pub head: HttpHeaders,
    /// What the proxy's filters know, such as who gave the answer.
    pub metadata: Option<Metadata>,
    /// Its body will be seen.
    pub body_follows: bool,
}

/// A piece of an answer.
#[derive(Debug)]
pub struct AnswerPiece {
    /// The bytes.
    pub bytes: Bytes,
    /// It is the last.
    pub last: bool,
    /// What the proxy's filters know.
    pub metadata: Option<Metadata>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on.
    Forward(Box<Forward>),
    /// It gets this answer.
    Refuse(Box<ImmediateResponse>),
}

/// How a request goes on.
#[derive(Debug, Default)]
pub struct Forward {
    /// Changes to its head.
    pub headers: HeaderMutation,
    /// Metadata for the proxy's later filters.
    pub metadata: Option<Struct>,
    /// The body that takes the place of its own, in pieces.
    pub body: Option<[Bytes; 3]>,
    /// Changes to the answer's head.
    pub answer_headers: Option<HeaderMutation>,
    /// Tells the client in the answer's head which server the proxy says has answered, as conformance tests ask.
    pub tell_served: bool,
    /// The route may be another one now.
    pub clear_route_cache: bool,
}

/// How far the request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    /// The head is here, the body is not.
    Gathering,
    /// The host decides.
    Deciding,
    /// Decided: what still comes passes.
    Through,
    /// Nothing more is said.
    Over,
}

/// One stream.
#[derive(Debug)]
pub struct Machine {
    max_body: usize,
    request_mode: Mode,
    answer_mode: Mode,
    stage: Stage,
    head: Option<(HttpHeaders, Option<Metadata>)>,
    body: Gathered,
    /// The request's body has come to its end.
    body_ended: bool,
    /// The request has a body.
    has_body: bool,
    /// The head was answered before the decision, which goes into the reply to the body.
    head_answered: bool,
    /// Trailers of the request wait for their reply.
    trailers: bool,
    /// Replies owed to pieces of the request's body that came while the decision was made.
    owed: u32,
    answer_head_seen: bool,
    answer_ended: bool,
    answer_headers: Option<HeaderMutation>,
    tell_served: bool,
    /// Nobody listens.
    observing: bool,
    out: VecDeque<ProcessingResponse>,
}

impl Machine {
    /// A stream on which nothing was said. Of a body at most `max_body` bytes are taken.
    #[must_use]
    pub fn new(max_body: usize) -> Self {
        Self {
            max_body,
            request_mode: Mode::Unknown,
            answer_mode: Mode::Unknown,
            stage: Stage::Begin,
            head: None,
            body: Gathered::default(),
            body_ended: false,
            has_body: false,
            head_answered: false,
            trailers: false,
            owed: 0,
            answer_head_seen: false,
            answer_ended: false,
            answer_headers: None,
            tell_served: false,
            observing: false,
            out: VecDeque::new(),
        }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// It is not allowed here; the stream must end with an error.
    pub fn receive(&mut self, message: ProcessingRequest) -> Result<Event, Violation> {
        let metadata = message.metadata_context;
        if self.stage == Stage::Begin {
            let Some(Request::RequestHeaders(head)) = message.request else {
                return Err(match message.request {
                    Some(_) => Violation::NoHead,
                    None => Violation::Empty,
                });
            };
            self.observing = message.observability_mode;
            return self.request_head(head, metadata, message.protocol_config);
        }
        match message.request {
            Some(Request::RequestHeaders(_)) => Err(Violation::SecondHead),
            Some(Request::RequestBody(piece)) => Ok(self.request_body(piece)),
            Some(Request::RequestTrailers(_)) => Ok(self.request_trailers()),
            Some(Request::ResponseHeaders(head)) => self.answer_head(head, metadata),
            Some(Request::ResponseBody(piece)) => Ok(self.answer_body(piece, metadata)),
            Some(Request::ResponseTrailers(_)) => Ok(self.answer_trailers()),
            None => Err(Violation::Empty),
        }
    }

    /// The next message to send.
    pub fn reply(&mut self) -> Option<ProcessingResponse> {
        let reply = self.out.pop_front();
        if self.out.is_empty() && self.out.capacity() > 4 {
            self.out = VecDeque::new();
        }
        reply
    }

    /// The stream may end: nothing more will be said by us.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over && self.out.is_empty()
    }

    /// A proxy that did not say how it sends bodies has sent the head alone: it may be waiting for a reply.
    #[must_use]
    pub fn may_be_waited_for(&self) -> bool {
        self.stage == Stage::Gathering && self.request_mode == Mode::Unknown && self.body.is_empty()
    }

    /// Something of the answer's body will come, or may.
    #[must_use]
    pub fn answer_body_comes(&self) -> bool {
        self.answer_mode != Mode::None
    }

    /// Nothing has come for a while, see [`Machine::may_be_waited_for`].
    pub fn nothing_came(&mut self) -> Event {
        if self.may_be_waited_for() {
            self.request_mode = Mode::Streamed;
            self.answer_mode = Mode::Streamed;
            return self.decide(SeenBody::Unseen);
        }
        Event::Nothing
    }

    /// The proxy has closed its side.
    ///
    /// # Errors
    /// It did so in the middle of a request.
    pub fn closed(&mut self) -> Result<(), Violation> {
        let early = matches!(self.stage, Stage::Gathering | Stage::Deciding) && !self.observing;
        self.stage = Stage::Over;
        if early {
            return Err(Violation::EndedEarly);
        }
        Ok(())
    }

    /// Takes the decision that [`Event::Decide`] asked for.
    pub fn decided(&mut self, verdict: Verdict) {
        if self.stage != Stage::Deciding {
            return;
        }
        match verdict {
            Verdict::Forward(forward) => self.forward(*forward),
            Verdict::Refuse(answer) => {
                self.say(reply::immediate(*answer));
                self.body.take();
                self.stage = Stage::Over;
            }
        }
    }

    /// The request must end although it runs: with this answer if its own has not begun, else, where the answer's body
    /// is ours to send, with this piece as its last. Says whether either reaches the client; else the stream must end
    /// with an error, which ends the answer that is under way.
    pub fn interrupt(&mut self, answer: ImmediateResponse, last_words: Option<Bytes>) -> bool {
        let early = self.stage == Stage::Through && !self.answer_head_seen;
        let ours = self.answer_mode == Mode::Duplex && !self.answer_ended;
        match last_words {
            _ if early => self.say(reply::immediate(answer)),
            // What still comes of the answer falls on deaf ears until the proxy ends the stream.
            Some(piece) if ours && self.stage == Stage::Through => {
                self.answer_ended = true;
                self.say(reply::answer_piece(piece, true));
                return true;
            }
            _ => {}
        }
        self.stage = Stage::Over;
        early
    }

    fn say(&mut self, reply: ProcessingResponse) {
        if !self.observing {
            self.out.push_back(reply);
        }
    }
}

/// The request's half.
impl Machine {
    fn request_head(
        &mut self,
        head: HttpHeaders,
        metadata: Option<Metadata>,
        config: Option<ProtocolConfiguration>,
    ) -> Result<Event, Violation> {
        if let Some(config) = config {
            let mode = |number| Mode::of(number).ok_or(Violation::Mode(number));
            self.request_mode = mode(config.request_body_mode)?;
            self.answer_mode = mode(config.response_body_mode)?;
        }
        self.body_ended = head.end_of_stream;
        self.has_body = !head.end_of_stream;
        self.head = Some((head, metadata));
        self.stage = Stage::Gathering;
        if self.body_ended {
            return Ok(self.decide(SeenBody::None));
        }
        match self.request_mode {
            Mode::None | Mode::Streamed => Ok(self.decide(SeenBody::Unseen)),
            Mode::Buffered | Mode::Partial => {
                self.head_answered = true;
                self.say(reply::request_head(reply::unchanged()));
                Ok(Event::Nothing)
            }
            Mode::Duplex | Mode::Unknown => Ok(Event::Nothing),
        }
    }

    fn request_body(&mut self, piece: HttpBody) -> Event {
        match (self.stage, self.request_mode) {
            (Stage::Gathering, _) => self.gather(piece),
            // After the end; Envoy may send more than one.
            (Stage::Deciding, Mode::Duplex) => Event::Nothing,
            (Stage::Through, Mode::Duplex) if self.body_ended => Event::Nothing,
            (Stage::Through, Mode::Duplex) => {
                self.body_ended = piece.end_of_stream;
                let pieces = [piece.body, Bytes::new(), Bytes::new()];
                self.send_pieces(&pieces, piece.end_of_stream);
                Event::Nothing
            }
            (Stage::Deciding, _) => {
                self.owed = self.owed.saturating_add(1);
                Event::Nothing
            }
            (Stage::Through, _) => {
                self.say(reply::request_body(reply::unchanged()));
                Event::Nothing
            }
            (Stage::Begin | Stage::Over, _) => Event::Nothing,
        }
    }

    fn gather(&mut self, piece: HttpBody) -> Event {
        if self.request_mode == Mode::Unknown {
            self.request_mode = Mode::Duplex;
            self.answer_mode = Mode::Duplex;
        }
        if self.body.len() + piece.body.len() > self.max_body {
            self.body.take();
            return self.decide(SeenBody::TooLarge);
        }
        self.body.push(piece.body);
        self.body_ended = piece.end_of_stream;
        if !self.body_ended && self.request_mode == Mode::Duplex {
            return Event::Nothing;
        }
        let body = self.body.whole();
        // Of a buffered body the end comes with the trailers, if it has any.
        let whole = self.body_ended || self.request_mode != Mode::Partial;
        self.decide(if whole {
            SeenBody::Whole(body)
        } else {
            SeenBody::Part(body)
        })
    }

    fn request_trailers(&mut self) -> Event {
        match self.stage {
            Stage::Gathering => {
                self.trailers = true;
                let body = self.body.whole();
                self.decide(SeenBody::Whole(body))
            }
            Stage::Deciding => {
                self.trailers = true;
                Event::Nothing
            }
            Stage::Through => {
                self.say(reply::request_trailers());
                Event::Nothing
            }
            Stage::Begin | Stage::Over => Event::Nothing,
        }
    }

    fn decide(&mut self, body: SeenBody) -> Event {
        self.stage = Stage::Deciding;
        match self.head.take() {
            Some((head, metadata)) if !self.observing => Event::Decide(Box::new(Seen {
                head,
                metadata,
                body,
            })),
            _ => {
                self.body.take();
                self.stage = Stage::Through;
                Event::Nothing
            }
        }
    }

    fn forward(&mut self, forward: Forward) {
        self.stage = Stage::Through;
        self.answer_headers = forward.answer_headers;
        self.tell_served = forward.tell_served;
        let body = self.body.take();
        let mut common = reply::changed(forward.headers, forward.clear_route_cache);
        let trailers = std::mem::take(&mut self.trailers);
        if self.head_answered && !(trailers && body.is_empty()) {
            common.body_mutation = forward
                .body
                .map(|pieces| reply::replaced(pieces.concat().into()));
            self.say_with(reply::request_body(common), forward.metadata);
        } else if self.head_answered {
            // Nothing is left to carry the header: the metadata has to do.
            self.say_with(reply::request_trailers(), forward.metadata);
            return;
        } else {
            self.say_with(reply::request_head(common), forward.metadata);
            if self.request_mode == Mode::Duplex && self.has_body {
                let pieces = forward.body.unwrap_or([body, Bytes::new(), Bytes::new()]);
                self.send_pieces(&pieces, !trailers);
            }
        }
        for _ in 0..std::mem::take(&mut self.owed) {
            self.say(reply::request_body(reply::unchanged()));
        }
        if trailers {
            self.body_ended = true;
            self.say(reply::request_trailers());
        }
    }

    /// Sends a body back in full duplex.
    fn send_pieces(&mut self, pieces: &[Bytes; 3], last: bool) {
        let mut replies = body::split(pieces).peekable();
        if replies.peek().is_none() && last {
            self.say(reply::request_piece(Bytes::new(), true));
        }
        while let Some(piece) = replies.next() {
            let end = last && replies.peek().is_none();
            self.say(reply::request_piece(piece, end));
        }
    }

    fn say_with(&mut self, mut reply: ProcessingResponse, metadata: Option<Struct>) {
        reply.dynamic_metadata = metadata;
        self.say(reply);
    }
}

/// The answer's half.
impl Machine {
    fn answer_head(
        &mut self,
        head: HttpHeaders,
        metadata: Option<Metadata>,
    ) -> Result<Event, Violation> {
        if self.answer_head_seen {
            return Err(Violation::SecondHead);
        }
        if self.stage == Stage::Over {
            return Ok(Event::Nothing);
        }
        self.answer_head_seen = true;
        if matches!(self.stage, Stage::Gathering | Stage::Deciding) {
            // The proxy has answered by itself while we were thinking.
            self.stage = Stage::Through;
            self.head = None;
            self.body.take();
        }
        let mut common = reply::unchanged();
        common.header_mutation = self.answer_headers.take();
        if self.tell_served {
            let served = metadata.as_ref().and_then(|it| it.text(NAMESPACE, SERVED));
            let served = served.unwrap_or_else(|| NOT_TOLD.to_owned());
            let headers = &mut common.header_mutation.get_or_insert_default().set_headers;
            headers.push(reply::set(TEST_SERVED, served));
        }
        self.say(reply::answer_head(common));
        if self.observing {
            return Ok(Event::Nothing);
        }
        let body_follows = !head.end_of_stream && self.answer_mode != Mode::None;
        self.answer_ended |= head.end_of_stream;
        Ok(Event::AnswerHead(AnswerHead {
            head,
            metadata,
            body_follows,
        }))
    }

    fn answer_body(&mut self, piece: HttpBody, metadata: Option<Metadata>) -> Event {
        if self.stage == Stage::Over {
            return Event::Nothing;
        }
        let HttpBody {
            body,
            end_of_stream: last,
        } = piece;
        if self.answer_mode != Mode::Duplex {
            self.say(reply::answer_body());
        } else if self.answer_ended {
            return Event::Nothing;
        } else {
            self.echo_answer(&body, last);
        }
        let known = self.answer_ended;
        self.answer_ended |= last;
        if known || self.observing {
            return Event::Nothing;
        }
        Event::AnswerPiece(AnswerPiece {
            bytes: body,
            last,
            metadata,
        })
    }

    fn echo_answer(&mut self, body: &Bytes, last: bool) {
        if body.len() <= PIECE {
            if last || !body.is_empty() {
                self.say(reply::answer_piece(body.clone(), last));
            }
            return;
        }
        let mut at = 0;
        while at < body.len() {
            let end = (at + PIECE).min(body.len());
            let piece = body.slice(at..end);
            self.say(reply::answer_piece(piece, last && end == body.len()));
            at = end;
        }
    }

    fn answer_trailers(&mut self) -> Event {
        if self.stage == Stage::Over {
            return Event::Nothing;
        }
        self.say(reply::answer_trailers());
        let known = std::mem::replace(&mut self.answer_ended, true);
        if known || self.observing {
            return Event::Nothing;
        }
        Event::AnswerTrailers
    }
}

//! The request's half of a call: from the whole request to a pick.
//!
//! In full duplex the picker is the source of the body: what the server gets is what the picker sends back. Nearly
//! always that is what it was sent, so replies are compared with the original and only a body that differs is kept; the
//! server then gets the client's own bytes.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use prost_types::Struct;

use super::Failure;
use super::destination::{self, Destination};
use super::message::PIECE;
use crate::proto::core::HeaderValueOption;
use crate::proto::ext_proc::body_mutation::Mutation;
use crate::proto::ext_proc::common_response::ResponseStatus;
use crate::proto::ext_proc::{BodyMutation, CommonResponse, HeaderMutation};

/// What a picker decided about a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Pick {
    /// Where it goes.
    pub destination: Destination,
    /// Header and metadata named different servers; the metadata's are taken.
    pub mismatch: bool,
    /// Header changes, in order.
    pub mutations: Vec<HeaderMutation>,
    /// The body, if it is no longer the original one.
    pub body: Option<Bytes>,
}

/// What has come back about the request so far.
#[derive(Debug)]
pub(super) struct RequestHalf {
    head_answered: bool,
    in_metadata: Option<String>,
    in_header: Option<String>,
    mutations: Vec<HeaderMutation>,
    body: Returned,
}

impl RequestHalf {
    pub(super) fn new(body: Option<Bytes>, limit: usize) -> Self {
        Self {
            head_answered: false,
            in_metadata: None,
            in_header: None,
            mutations: Vec::new(),
            body: Returned::new(body, limit),
        }
    }

    pub(super) fn metadata(&mut self, metadata: &Struct) {
        if let Some(pick) = destination::from_metadata(metadata) {
            self.in_metadata = Some(pick);
        }
    }

    pub(super) fn head(&mut self, reply: Option<CommonResponse>) -> Result<(), Failure> {
        self.head_answered = true;
        let Some(reply) = reply else { return Ok(()) };
        self.mutate(reply.header_mutation);
        if reply.status == ResponseStatus::ContinueAndReplace as i32 {
            let body = match reply.body_mutation.and_then(|it| it.mutation) {
                Some(Mutation::Body(body)) => body,
                Some(Mutation::StreamedResponse(reply)) => reply.body,
                Some(Mutation::ClearBody(_)) | None => Bytes::new(),
            };
            self.body.replace(body)?;
        }
        Ok(())
    }

    pub(super) fn body(&mut self, reply: Option<CommonResponse>) -> Result<(), Failure> {
        let reply = reply.unwrap_or_default();
        self.mutate(reply.header_mutation);
        self.body.reply(reply.body_mutation)
    }

    fn mutate(&mut self, mutation: Option<HeaderMutation>) {
        let Some(mutation) = mutation else { return };
        if let Some(pick) = mutation.set_headers.iter().rev().find_map(pick_in) {
            self.in_header = Some(pick);
        }
        self.mutations.push(mutation);
    }

    /// The picker has said all that it has to say.
    pub(super) fn is_complete(&self) -> bool {
        let picked = self.in_metadata.is_some() || self.in_header.is_some();
        self.body.done && (self.head_answered || picked)
    }

    /// The stream ended in good order. What has not come back is as it was, unless the picker was changing it.
    pub(super) fn ended(&mut self) -> Result<(), Failure> {
        let picked = self.in_metadata.is_some() || self.in_header.is_some();
        if !picked || self.body.changed.is_some() {
            return Err(Failure::Ended);
        }
        self.head_answered = true;
        self.body.untouched();
        Ok(())
    }

    /// The decision; asked once.
    pub(super) fn take(&mut self) -> Result<Pick, Failure> {
        let mismatch = match (&self.in_metadata, &self.in_header) {
            (Some(metadata), Some(header)) => metadata.trim() != header.trim(),
            _ => false,
        };
        let list = self.in_metadata.take().or(self.in_header.take());
        let destination = Destination::read(&list.unwrap_or_default());
        if destination.endpoints.is_empty() {
            return Err(Failure::BadPick);
        }
        Ok(Pick {
            destination,
            mismatch,
            mutations: std::mem::take(&mut self.mutations),
            body: self.body.take(),
        })
    }
}

/// The pick, if this header is it.
fn pick_in(option: &HeaderValueOption) -> Option<String> {
    let field = option.header.as_ref()?;
    if !field.key.eq_ignore_ascii_case(destination::DESTINATION) {
        return None;
    }
    let raw = if field.raw_value.is_empty() {
        field.value.as_bytes()
    } else {
        &field.raw_value
    };
    Some(String::from_utf8_lossy(raw).into_owned())
}

/// The pieces that a body is sent in.
pub(super) fn pieces(length: usize) -> impl Iterator<Item = Range<usize>> {
    let count = length.div_ceil(PIECE).max(1);
    (0..count).map(move |at| at * PIECE..((at + 1) * PIECE).min(length))
}

/// A body on its way back.
#[derive(Debug)]
struct Returned {
    original: Bytes,
    /// Leading bytes of the original that came back as they were.
    matched: usize,
    /// What came back instead, once something else did.
    changed: Option<BytesMut>,
    /// Pieces that were answered without being streamed.
    answered: usize,
    sent: usize,
    done: bool,
    limit: usize,
}

impl Returned {
    fn new(body: Option<Bytes>, limit: usize) -> Self {
        let sent = body.as_ref().map_or(0, |body| pieces(body.len()).count());
        Self {
            done: body.is_none(),
            original: body.unwrap_or_default(),
            matched: 0,
            changed: None,
            answered: 0,
            sent,
            limit,
        }
    }

    fn reply(&mut self, mutation: Option<BodyMutation>) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        let mutation = mutation.and_then(|it| it.mutation);
        if let Some(Mutation::StreamedResponse(reply)) = &mutation {
            self.append(&reply.body)?;
            self.done = reply.end_of_stream;
            return Ok(());
        }
        let piece = pieces(self.original.len()).nth(self.answered);
        match mutation {
            Some(Mutation::Body(body)) => self.append(&body)?,
            Some(_) => self.append(&[])?,
            None => self.keep(piece)?,
        }
        self.answered += 1;
        self.done = self.answered >= self.sent;
        Ok(())
    }

    fn keep(&mut self, piece: Option<Range<usize>>) -> Result<(), Failure> {
        let piece = piece.map_or_else(Bytes::new, |range| self.original.slice(range));
        self.append(&piece)
    }

    fn append(&mut self, data: &[u8]) -> Result<(), Failure> {
        if self.changed.is_none() {
            if self.original[self.matched..].starts_with(data) {
                self.matched += data.len();
                return Ok(());
            }
            self.changed = Some(BytesMut::from(&self.original[..self.matched]));
        }
        if let Some(changed) = &mut self.changed {
            if changed.len() + data.len() > self.limit {
                return Err(Failure::Malformed("the body grew over the limit"));
            }
            changed.extend_from_slice(data);
        }
        Ok(())
    }

    fn replace(&mut self, body: Bytes) -> Result<(), Failure> {
        self.matched = 0;
        self.changed = None;
        self.append(&body)?;
        self.done = true;
        Ok(())
    }

    fn untouched(&mut self) {
        self.matched = self.original.len();
        self.done = true;
    }

    /// The body that the server gets, if it is not the original.
    fn take(&mut self) -> Option<Bytes> {
        match self.changed.take() {
            Some(changed) => Some(changed.freeze()),
            None if self.matched == self.original.len() => None,
            None => Some(self.original.slice(..self.matched)),
        }
    }
}

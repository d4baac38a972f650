//! What is sent to a server: nothing, a few pieces of memory, or the client's body as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::copy;
use super::replay::{Fault, Replay};

/// The body of one attempt.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// No body.
    Empty,
    /// A body in up to three pieces: before the model's name, the name, after it.
    Pieces {
        /// The pieces; sent ones are empty.
        pieces: [Bytes; 3],
    },
    /// The client's body, streamed.
    Stream(Replay),
    /// A copy of the client's body, streamed.
    Copy(copy::Reader),
}

impl RequestBody {
    /// The whole length, where it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Pieces { pieces } => Some(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Stream(replay) => replay.size_hint().exact(),
            Self::Copy(_) => None,
        }
    }

    /// What the client did wrong with it, as far as it has come.
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self {
            Self::Stream(replay) => replay.fault(),
            _ => None,
        }
    }

    /// The same body for another attempt, if it can still be had.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Pieces { pieces } => Some(Self::Pieces {
                pieces: pieces.clone(),
            }),
            Self::Stream(replay) => replay.again().map(Self::Stream),
            Self::Copy(copy) => copy.again().map(Self::Copy),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Pieces { pieces } => {
                let next = pieces
                    .iter_mut()
                    .find(|piece| !piece.is_empty())
                    .map(std::mem::take);
                Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
            }
            Self::Stream(replay) => Pin::new(replay).poll_frame(cx),
            Self::Copy(copy) => Pin::new(copy).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Pieces { pieces } => pieces.iter().all(Bytes::is_empty),
            Self::Stream(replay) => replay.is_end_stream(),
            Self::Copy(copy) => copy.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Stream(replay) => replay.size_hint(),
            Self::Copy(copy) => copy.size_hint(),
            _ => SizeHint::with_exact(self.length().unwrap_or(0)),
        }
    }
}

//! Where the body of an answer comes from: a server, or a server through an endpoint picker.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::exchange::{Passage, PassageError};

/// A body on its way to the client.
#[derive(Debug)]
pub(crate) enum Source {
    /// As the server sends it.
    Server(Incoming),
    /// As the picker gives it back.
    Passage(Box<Passage>),
}

impl Source {
    /// The next frame.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PassageError>>> {
        match self {
            Self::Server(body) => Pin::new(body).poll_frame(cx).map_err(PassageError::Server),
            Self::Passage(passage) => passage.poll_frame(cx),
        }
    }

    /// Nothing more will come.
    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Server(body) => body.is_end_stream(),
            Self::Passage(_) => false,
        }
    }

    /// The length, where it is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Server(body) => body.size_hint(),
            Self::Passage(_) => SizeHint::default(),
        }
    }

    /// The server has said everything, so that its connection can be used again.
    pub(crate) fn server_is_done(&self) -> bool {
        match self {
            Self::Server(_) => true,
            Self::Passage(passage) => passage.server_is_done(),
        }
    }
}

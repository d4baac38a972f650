//! A stream to a picker: an outbox that the connection empties, and replies as they come.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use tonic::{Status, Streaming};

use super::lines::Connection;
use super::message::body_bytes;
use crate::proto::ext_proc::{ProcessingRequest, ProcessingResponse};
use crate::proto::service::ExternalProcessorClient;

/// Largest message taken. A picker sends back what it got in pieces; one that gathers a whole body may be generous.
const LARGEST: usize = 16 << 20;
/// Bytes that may wait for a picker that does not read.
const ROOM: usize = 256 << 10;
/// How long a picker may take to end a stream when everything has been said.
const FAREWELL: Duration = Duration::from_secs(1);

type Replies = Streaming<ProcessingResponse>;
type Opening = Pin<Box<dyn Future<Output = Result<Replies, Status>> + Send>>;

/// One stream. Dropping it ends it; dropped before [`Wire::finish`] the picker sees a cancelled call.
pub(super) struct Wire {
    outbox: Arc<Mutex<Outbox>>,
    inbound: Inbound,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

enum Inbound {
    /// Pickers may keep even the head of their answer until they have something to say.
    Opening(Opening),
    Open(Box<Replies>),
    Over,
}

/// Messages that the connection has not taken yet.
#[derive(Debug, Default)]
struct Outbox {
    queue: VecDeque<ProcessingRequest>,
    bytes: usize,
    closed: bool,
    /// The connection, which waits for messages.
    taker: Option<Waker>,
    /// The sender, which waits for room.
    giver: Option<Waker>,
}

/// The connection's end of the outbox.
struct Outgoing(Arc<Mutex<Outbox>>);

impl Stream for Outgoing {
    type Item = ProcessingRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ProcessingRequest>> {
        let mut outbox = self.0.lock();
        match outbox.queue.pop_front() {
            Some(message) => {
                outbox.bytes -= body_bytes(&message);
                if outbox.bytes < ROOM
                    && let Some(giver) = outbox.giver.take()
                {
                    giver.wake();
                }
                Poll::Ready(Some(message))
            }
            None if outbox.closed => Poll::Ready(None),
            None => {
                outbox.taker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Wire {
    /// Opens a stream; nothing happens before it is polled.
    pub(super) fn open(connection: &Connection) -> Self {
        let outbox = Arc::new(Mutex::new(Outbox::default()));
        let outgoing = Outgoing(outbox.clone());
        let (service, origin) = (connection.clone(), connection.origin());
        let opening = async move {
            let mut client = ExternalProcessorClient::with_origin(service, origin)
                .max_decoding_message_size(LARGEST);
            Ok(client.process(outgoing).await?.into_inner())
        };
        Self {
            outbox,
            inbound: Inbound::Opening(Box::pin(opening)),
        }
    }

    pub(super) fn send(&self, message: ProcessingRequest) {
        let mut outbox = self.outbox.lock();
        outbox.bytes += body_bytes(&message);
        outbox.queue.push_back(message);
        if let Some(taker) = outbox.taker.take() {
            taker.wake();
        }
    }

    /// Ready when there is room for more; a picker that does not read stops the flow at its source.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut outbox = self.outbox.lock();
        if outbox.bytes < ROOM {
            return Poll::Ready(());
        }
        outbox.giver = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next reply; nothing when the picker has ended the stream.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ProcessingResponse, Status>>> {
        loop {
            let reply = match &mut self.inbound {
                Inbound::Over => return Poll::Ready(None),
                Inbound::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(replies) => {
                        self.inbound = Inbound::Open(Box::new(replies));
                        continue;
                    }
                    Err(status) => Some(Err(status)),
                },
                Inbound::Open(replies) => ready!(Pin::new(&mut **replies).poll_next(cx)),
            };
            if !matches!(reply, Some(Ok(_))) {
                self.inbound = Inbound::Over;
                self.close();
            }
            return Poll::Ready(reply);
        }
    }

    /// Everything has been said: ends our side, and gives the picker a moment to end its own, so that it does not take
    /// a good end for a cancelled call.
    pub(super) fn finish(mut self) {
        self.close();
        if let Inbound::Open(mut replies) = std::mem::replace(&mut self.inbound, Inbound::Over)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                let over = async { while let Ok(Some(_)) = replies.message().await {} };
                let _ = tokio::time::timeout(FAREWELL, over).await;
            });
        }
    }

    fn close(&self) {
        let mut outbox = self.outbox.lock();
        outbox.closed = true;
        if let Some(taker) = outbox.taker.take() {
            taker.wake();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.close();
    }
}

//! One stream of the service: the machine between what comes in and what goes out.
//!
//! The stream of replies is written by hand: polled by the connection for the next reply, it polls the proxy's messages and the
//! decision in turn. There is no task and no channel for a request. When the proxy resets the stream, which is how Envoy
//! ends every one, all of it is dropped, and the drop of the [`Exchange`] is the end of the request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::body_router::BodyRouter;
use super::exchange::Exchange;
use super::machine::{Event, Machine, Seen, Verdict, Violation};
use super::picker::Picker;
use crate::proto::ext_proc::{ProcessingRequest, ProcessingResponse};

/// How long after a head a proxy that did not say how it sends bodies may be silent before it is answered.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What a server of this protocol does with requests.
#[derive(Debug, Clone)]
pub(super) enum Role {
    /// Picks servers.
    Picker(Arc<Picker>),
    /// Tells the model.
    BodyRouter(Arc<BodyRouter>),
}

type Deciding = Pin<Box<dyn Future<Output = (Verdict, Box<Exchange>)> + Send>>;

/// How far the decision is.
enum Stage {
    Waiting,
    Deciding(Deciding),
    Answering(Box<Exchange>),
    /// Nothing is followed: refused, or routed by its body.
    Done,
}

/// One stream.
pub(super) struct Session<S> {
    inbound: S,
    role: Role,
    machine: Machine,
    stage: Stage,
    started: Instant,
    /// The trace that the call belongs to, where the request itself does not say.
    traceparent: Option<String>,
    patience: Option<Pin<Box<Sleep>>>,
    ended: bool,
    open: telemetry::Stream,
}

impl<S> Session<S>
where
    S: Stream<Item = Result<ProcessingRequest, Status>> + Unpin,
{
    pub(super) fn new(
        inbound: S,
        role: Role,
        traceparent: Option<String>,
        open: telemetry::Stream,
    ) -> Self {
        let max_body = match &role {
            Role::Picker(picker) => picker.options.max_body,
            Role::BodyRouter(router) => router.max_body(),
        };
        Self {
            inbound,
            role,
            machine: Machine::new(max_body),
            stage: Stage::Waiting,
            started: Instant::now(),
            traceparent,
            patience: None,
            ended: false,
            open,
        }
    }

    /// Does what an event asks for.
    fn handle(&mut self, event: Event) -> Result<(), Status> {
        match event {
            Event::Nothing => {}
            Event::Decide(seen) => return self.decide(seen),
            Event::AnswerHead(answer) => {
                if let Stage::Answering(exchange) = &mut self.stage {
                    exchange.answer_head(&answer);
                } else {
                    // A decision that nobody waits for any more.
                    self.stage = Stage::Done;
                }
            }
            Event::AnswerPiece(piece) => {
                if let Stage::Answering(exchange) = &mut self.stage {
                    exchange.answer_piece(&piece);
                }
            }
            Event::AnswerTrailers => {
                if let Stage::Answering(exchange) = &mut self.stage {
                    exchange.completed();
                }
            }
        }
        Ok(())
    }

    fn decide(&mut self, seen: Box<Seen>) -> Result<(), Status> {
        self.patience = None;
        match &self.role {
            Role::Picker(picker) => {
                let trace = self.traceparent.take();
                let deciding = picker.clone().decide(seen, self.started, trace);
                self.stage = Stage::Deciding(Box::pin(deciding));
            }
            Role::BodyRouter(router) => {
                let verdict = router.route(&seen)?;
                self.machine.decided(verdict);
                self.stage = Stage::Done;
            }
        }
        Ok(())
    }

    fn poll_decision(&mut self, cx: &mut Context<'_>) -> bool {
        let Stage::Deciding(deciding) = &mut self.stage else {
            return false;
        };
        let Poll::Ready((verdict, mut exchange)) = deciding.as_mut().poll(cx) else {
            return false;
        };
        self.stage = if matches!(verdict, Verdict::Refuse(_)) {
            Stage::Done
        } else {
            if !self.machine.answer_body_comes() {
                exchange.unwatched();
            }
            Stage::Answering(exchange)
        };
        self.machine.decided(verdict);
        true
    }

    /// Whether the proxy has kept silent after its head for as long as we wait.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.machine.may_be_waited_for() {
            self.patience = None;
            return false;
        }
        let timer = self
            .patience
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        timer.as_mut().poll(cx).is_ready()
    }

    /// Takes the next message. `None`: there is none yet.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let event = match Pin::new(&mut self.inbound).poll_next(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(message))) => self.machine.receive(message).map_err(violated)?,
            Poll::Ready(Some(Err(status))) => {
                // The proxy has reset the stream, or sent what cannot be read; the second must be told.
                self.stage = Stage::Done;
                self.ended = true;
                return Poll::Ready(Err(status));
            }
            Poll::Ready(None) => {
                self.ended = true;
                let closed = self.machine.closed();
                self.stage = Stage::Done;
                return Poll::Ready(closed.map_err(violated));
            }
        };
        Poll::Ready(self.handle(event))
    }

    fn poll_reply(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ProcessingResponse, Status>>> {
        loop {
            if let Some(reply) = self.machine.reply() {
                return Poll::Ready(Some(Ok(reply)));
            }
            if self.ended || self.machine.is_over() {
                self.ended = true;
                self.stage = Stage::Done;
                return Poll::Ready(None);
            }
            if self.poll_decision(cx) {
                continue;
            }
            if let Stage::Answering(exchange) = &mut self.stage
                && let Poll::Ready((answer, last_words)) = exchange.poll_evicted(cx)
            {
                self.stage = Stage::Done;
                if !self.machine.interrupt(answer, last_words) {
                    self.ended = true;
                    let status = Status::resource_exhausted("the request was evicted");
                    return Poll::Ready(Some(Err(status)));
                }
                continue;
            }
            match self.poll_message(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(status)) => {
                    self.ended = true;
                    self.stage = Stage::Done;
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Pending if self.poll_patience(cx) => {
                    let event = self.machine.nothing_came();
                    if let Err(status) = self.handle(event) {
                        return Poll::Ready(Some(Err(status)));
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S> Stream for Session<S>
where
    S: Stream<Item = Result<ProcessingRequest, Status>> + Unpin,
{
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<ProcessingResponse, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.poll_reply(cx);
        if let Poll::Ready(Some(Err(status))) = &next {
            self.open.failed(status.code().description());
        }
        next
    }
}

fn violated(violation: Violation) -> Status {
    match violation {
        Violation::Mode(_) => Status::unimplemented(violation.to_string()),
        Violation::EndedEarly => Status::aborted(violation.to_string()),
        _ => Status::invalid_argument(violation.to_string()),
    }
}

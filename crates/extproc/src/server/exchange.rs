//! What is known of one request that a proxy asked about, from its head to the end of its answer.
//!
//! It is dropped exactly once, however the stream ends, and the drop is where the charge on the server goes back and
//! where metrics and the access log are written.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fleet::{Endpoint, EvictionNotice, Lease, Pool, Understood};
use http::StatusCode;
use llm::{Dialect, ResponseScanner, Style};
use telemetry::{Ended, ExchangeRecord, Open, ids};
use tokio::time::Instant;

use super::head::{self, NAMESPACE, RequestHead, SERVED};
use super::machine::{AnswerHead, AnswerPiece};
use super::picker::Picker;
use super::refusal::Refusal;
use crate::metadata::Metadata;
use crate::proto::ext_proc::ImmediateResponse;

/// One request and its answer.
pub(super) struct Exchange {
    picker: Arc<Picker>,
    started: Instant,
    pub(super) head: RequestHead,
    pub(super) request_id: Bytes,
    /// The id is ours: the client gave none that is fit to be used.
    pub(super) fresh_id: bool,
    pub(super) style: Style,
    pub(super) dialect: Option<Dialect>,
    pub(super) request_bytes: u64,
    pub(super) understood: Option<Understood>,
    pub(super) pool: Option<Arc<Pool>>,
    lease: Option<Lease>,
    /// The server whose charge went back.
    served_by: Option<Arc<Endpoint>>,
    /// Tells when the request must end for others.
    notice: Option<EvictionNotice>,
    running: Option<Open>,
    queued: Duration,
    hit_tokens: u32,
    predicted_ttft: Option<f64>,
    answer: Answered,
}

/// How it went.
#[derive(Default)]
struct Answered {
    status: u16,
    code: Option<&'static str>,
    stream: bool,
    bytes: u64,
    first: Option<Duration>,
    scanner: Option<ResponseScanner>,
    usage: Option<llm::Usage>,
    finish: Option<Cow<'static, str>>,
    /// Nothing of the answer will be seen: that the stream ends says nothing.
    unwatched: bool,
    ended: Option<Ended>,
    sound: bool,
    /// The server that gave it has been told.
    served_known: bool,
}

impl Exchange {
    pub(super) fn begin(picker: Arc<Picker>, started: Instant, head: RequestHead) -> Box<Self> {
        let given = head.request_id.clone().filter(|id| ids::acceptable(id));
        let fresh_id = given.is_none();
        let request_id =
            given.unwrap_or_else(|| Bytes::copy_from_slice(&ids::fresh(rand::random())));
        let path = head.path.split('?').next().unwrap_or_default();
        Box::new(Self {
            style: llm::style_of(path),
            picker,
            started,
            request_id,
            fresh_id,
            head,
            dialect: None,
            request_bytes: 0,
            understood: None,
            pool: None,
            lease: None,
            served_by: None,
            notice: None,
            running: None,
            queued: Duration::ZERO,
            hit_tokens: 0,
            predicted_ttft: None,
            answer: Answered::default(),
        })
    }

    /// The id as text; it is visible ASCII.
    pub(super) fn id(&self) -> &str {
        std::str::from_utf8(&self.request_id).unwrap_or_default()
    }

    /// Whether the client is told who has answered.
    pub(super) fn tells_served(&self) -> bool {
        self.picker.options.test_selection
    }

    /// A model is about to be asked.
    pub(super) fn runs(&mut self, understood: Understood) {
        self.running = Some(self.picker.metrics.running(&understood.model));
        self.answer.stream = understood.streams;
        self.understood = Some(understood);
    }

    /// A server was picked.
    pub(super) fn leased(&mut self, mut lease: Lease) -> &Lease {
        self.notice = lease.eviction_notice();
        self.queued = lease.queued();
        self.hit_tokens = lease.hit_tokens();
        self.predicted_ttft = self.understood.as_ref().map(|_| lease.predicted_ttft());
        self.lease.insert(lease)
    }

    /// It is answered by us.
    pub(super) fn refused(&mut self, status: StatusCode, code: &'static str, bytes: usize) {
        self.answer.status = status.as_u16();
        self.answer.code = Some(code);
        self.answer.stream = false;
        self.answer.bytes = bytes as u64;
        self.answer.ended = Some(Ended::Complete);
    }

    /// Whether the request must end although it runs, and the answer to it then: as a whole, and as the end of an event
    /// stream that has begun.
    pub(super) fn poll_evicted(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(ImmediateResponse, Option<Bytes>)> {
        let Some(notice) = &mut self.notice else {
            return Poll::Pending;
        };
        let eviction = ready!(notice.poll_told(cx));
        let refusal = Refusal::Evicted(eviction);
        let answer = refusal.answer(self.style, self.request_id.clone());
        let (status, code) = refusal.code();
        if self.answer.status == 0 {
            self.answer.status = status.as_u16();
        }
        self.answer.code = Some(code);
        self.answer.ended = Some(Ended::Complete);
        let last_words = self.last_words(&refusal);
        self.read_outcome();
        self.release();
        Poll::Ready((answer, last_words))
    }

    /// A refusal as the last event of the stream; `None` if the answer is none, or cannot be read.
    fn last_words(&self, refusal: &Refusal) -> Option<Bytes> {
        let (scanner, dialect) = (self.answer.scanner.as_ref()?, self.dialect?);
        if !self.answer.stream {
            return None;
        }
        let event = refusal.event(self.style, dialect);
        Some([scanner.pending_line_end(), &event].concat().into())
    }

    /// The proxy will not show the answer.
    pub(super) fn unwatched(&mut self) {
        self.answer.unwatched = true;
    }

    /// The head of the answer.
    pub(super) fn answer_head(&mut self, answer: &AnswerHead) {
        self.served(answer.metadata.as_ref());
        let headers = answer.head.headers.as_ref();
        let status = head::find(headers, ":status")
            .and_then(|status| status.parse().ok())
            .unwrap_or_default();
        let content_type = head::find(headers, "content-type");
        let event_stream = content_type.is_some_and(|kind| kind.starts_with("text/event-stream"));
        self.answer.status = status;
        self.answer.sound = status < 500;
        self.answer.stream = event_stream;
        self.answer.unwatched = !answer.body_follows;
        if let (404, Some(_), Some(lease)) = (status, self.dialect, &self.lease) {
            lease.model_unknown();
        }
        // What is compressed passes unread.
        let plain =
            head::find(headers, "content-encoding").is_none_or(|coding| coding == "identity");
        if let (Some(dialect), true, true) = (self.dialect, plain, answer.body_follows) {
            self.answer.scanner = Some(ResponseScanner::new(dialect, content_type, status));
        }
        if answer.head.end_of_stream {
            self.completed();
        }
    }

    /// A piece of the answer's body.
    pub(super) fn answer_piece(&mut self, piece: &AnswerPiece) {
        self.served(piece.metadata.as_ref());
        let answer = &mut self.answer;
        answer.unwatched = false;
        answer.bytes += piece.bytes.len() as u64;
        let first = match &mut answer.scanner {
            Some(scanner) => {
                let signals = scanner.feed(&piece.bytes);
                if signals.tokens > 0
                    && let Some(lease) = &mut self.lease
                {
                    lease.progress(signals.tokens);
                }
                signals.first_token
            }
            None => answer.first.is_none() && !piece.bytes.is_empty(),
        };
        if first && answer.first.is_none() {
            answer.first = Some(self.started.elapsed());
            if let Some(lease) = &mut self.lease {
                lease.first_token();
            }
        }
        if piece.last {
            self.completed();
        }
    }

    /// The answer has come to its end.
    pub(super) fn completed(&mut self) {
        self.read_outcome();
        self.answer.ended.get_or_insert(Ended::Complete);
        self.release();
    }

    /// Moves the charge to the server that has really answered, if the proxy says that it is another one.
    fn served(&mut self, metadata: Option<&Metadata>) {
        if self.answer.served_known {
            return;
        }
        let Some(served) = metadata.and_then(|m| m.text(NAMESPACE, SERVED)) else {
            return;
        };
        self.answer.served_known = true;
        let (Some(lease), Ok(address)) = (&mut self.lease, served.parse()) else {
            return;
        };
        if lease.endpoint().address() == address {
            return;
        }
        match lease.pool().endpoint_at(address) {
            Some(endpoint) => lease.served_by(&endpoint),
            None => {
                tracing::debug!(%served, "the proxy was served from outside the pool");
            }
        }
    }

    /// Takes what the scanner learned: an answer with status 200 may still be a failure.
    fn read_outcome(&mut self) {
        let Some(mut scanner) = self.answer.scanner.take() else {
            return;
        };
        let outcome = scanner.finish();
        self.answer.usage = outcome.usage;
        self.answer.finish = outcome.finish_reason;
        if let (Some(id), Some(lease), Some(Dialect::Responses)) =
            (&outcome.response_id, &self.lease, self.dialect)
        {
            lease.pool().remember(id, lease.endpoint());
        }
        let failed = match (&outcome.in_band_error, outcome.aborted) {
            (Some(_), _) => Some("in_band_error"),
            (None, true) => Some("upstream_aborted"),
            (None, false) => None,
        };
        if let Some(code) = failed {
            self.answer.sound = false;
            self.answer.code.get_or_insert(code);
            if let Some(lease) = &mut self.lease {
                lease.failed(scheduling::FailureKind::InBand);
            }
        }
    }

    /// Gives the charge on the server back.
    fn release(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        let usage = self.answer.usage.map(|usage| scheduling::Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
        });
        self.running = None;
        let unseen = self.answer.unwatched && self.answer.status == 0;
        self.served_by = Some(lease.endpoint().clone());
        lease.finish(usage, self.answer.sound || unseen);
    }

    fn record<'a>(&'a self, pool: &'a str) -> ExchangeRecord<'a> {
        let (answer, understood) = (&self.answer, self.understood.as_ref());
        let server = self
            .lease
            .as_ref()
            .map(Lease::endpoint)
            .or(self.served_by.as_ref());
        ExchangeRecord {
            request_id: self.id(),
            trace_id: self.head.traceparent.as_deref().and_then(|t| t.get(3..35)),
            method: self.head.method.as_str(),
            path: self.head.path.split('?').next().unwrap_or_default(),
            host: &self.head.host,
            pool,
            endpoint: server.map_or("", |endpoint| endpoint.name()),
            dialect: self.dialect.map_or("", Dialect::name),
            model: understood.map_or("", |u| &u.model),
            target_model: understood
                .and_then(|u| u.target.as_deref())
                .unwrap_or_default(),
            objective: understood.and_then(|u| u.objective.as_deref()),
            fairness: self.head.fairness.as_deref().unwrap_or_default(),
            priority: understood.map_or(0, |u| u.priority),
            status: answer.status,
            error_code: answer.code,
            attempts: u32::from(server.is_some()),
            stream: answer.stream,
            request_bytes: self.request_bytes,
            response_bytes: answer.bytes,
            queued: self.queued,
            ttft: answer.first,
            duration: self.started.elapsed(),
            usage: answer.usage.map(|usage| telemetry::Usage {
                prompt: usage.prompt_tokens,
                completion: usage.completion_tokens,
                cached: usage.cached_tokens,
            }),
            hit_tokens_predicted: self.hit_tokens,
            predicted_ttft: self.predicted_ttft,
            finish: answer.finish.as_deref(),
            ended: answer.ended.unwrap_or(Ended::ClientGone),
            ..ExchangeRecord::default()
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.answer.ended.is_none() {
            if self.answer.unwatched {
                self.answer.ended = Some(Ended::Complete);
                self.release();
            } else {
                // What the scanner saw until then is worth recording; the lease, dropped unfinished, tells the core
                // that the request was abandoned.
                self.read_outcome();
            }
        }
        let pool = self.pool.as_ref().map(|pool| pool.spec().key.to_string());
        let record = self.record(pool.as_deref().unwrap_or_default());
        self.picker.metrics.record(&record);
        telemetry::access_log(&record);
    }
}

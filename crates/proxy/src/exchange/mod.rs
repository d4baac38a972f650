//! One exchange: a request, its way to a server, the answer on its way back.
//!
//! [`Exchange`] is what is known of it, in one place, from the first header to the last byte. It travels with the
//! request through the steps of [`serve`] and then inside the body of the answer. It is dropped exactly once, however
//! the exchange ends (answered, refused, broken, abandoned by the client at any await), and the drop is where the lease
//! on the server ends and where metrics and the access log are written.
//!
//! The steps: [`head`] cleans the head, [`route`] finds the rule and the backend, [`inference`], [`opaque`], [`lists`]
//! or [`tunnel`] decide what the pool is asked, [`mirror`] sends copies where the rule wants some, [`forward`] talks to
//! servers, [`answer`] makes the response.

mod answer;
mod attempt;
mod created;
mod explain;
mod forward;
mod head;
mod inference;
mod lists;
mod mirror;
mod opaque;
mod picker;
mod route;
mod serve;
mod tunnel;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fleet::{Endpoint, Eviction, EvictionNotice, Lease, Pool};
use http::header::HeaderValue;
use http::request::Parts;
use http::{Method, Uri};
use llm::{Dialect, ResponseScanner, Style};
use telemetry::{Ended, ExchangeRecord};
use tokio::time::Instant;

pub(crate) use picker::{Passage, PassageError, Planned};
pub(crate) use serve::serve;

use crate::cors::Marks;
use crate::worker::Worker;

/// Where a request came in.
#[derive(Debug)]
pub(crate) struct Client {
    /// The worker that serves the connection.
    pub(crate) worker: Rc<Worker>,
    /// The port as the plan names it.
    pub(crate) port: u16,
    /// Whether the client speaks TLS.
    pub(crate) tls: bool,
    /// The name it asked for in the handshake.
    pub(crate) sni: Option<String>,
    /// Its address.
    pub(crate) address: IpAddr,
}

/// What is known of one exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    worker: Rc<Worker>,
    started: Instant,
    client: IpAddr,
    method: Method,
    uri: Uri,
    http2: bool,
    host: String,
    request_id: HeaderValue,
    trace_id: Option<HeaderValue>,
    style: Style,
    rule: Option<Arc<routing::Rule>>,
    pool: Option<Arc<Pool>>,
    endpoint: Option<Arc<Endpoint>>,
    lease: Option<Lease>,
    /// Where it is told that it must end for others.
    notice: Option<EvictionNotice>,
    facts: Facts,
    /// The call to the endpoint picker outside, until the answer takes it over.
    outside: Option<Box<picker::Outside>>,
    /// What came of asking it, and how long that took.
    asked_outside: Option<(&'static str, Duration)>,
    /// Counts the request as running while it is held.
    running: Option<telemetry::Open>,
    /// What the answer says to scripts of other origins, where the rule has a say in that.
    marks: Option<Marks>,
    explain: bool,
    request: Asked,
    answer: Answered,
}

/// What the request turned out to ask for.
#[derive(Debug, Default)]
struct Asked {
    dialect: Option<Dialect>,
    model: String,
    target: Option<String>,
    objective: Option<String>,
    fairness: Option<HeaderValue>,
    priority: i32,
    bytes: u64,
}

/// What the pick foretold.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    queued: Duration,
    hit_tokens: u32,
    predicted_ttft: Option<f64>,
}

/// How it went.
#[derive(Debug, Default)]
struct Answered {
    status: u16,
    code: Option<&'static str>,
    attempts: u32,
    stream: bool,
    bytes: u64,
    first: Option<Duration>,
    usage: Option<llm::Usage>,
    finish: Option<std::borrow::Cow<'static, str>>,
    scanner: Option<ResponseScanner>,
    created: Option<created::Created>,
    /// How the body ended; none yet: the client has left when this is dropped.
    ended: Option<Ended>,
    /// The server did its part.
    sound: bool,
}

impl Exchange {
    /// Begins an exchange with what its head says.
    fn begin(client: &Client, head: &mut Parts) -> Box<Self> {
        let request_id = client.worker.identify(&mut head.headers);
        Box::new(Self {
            worker: client.worker.clone(),
            started: Instant::now(),
            client: client.address,
            method: head.method.clone(),
            uri: head.uri.clone(),
            http2: head.version == http::Version::HTTP_2,
            host: head::host_of(head::authority(head).unwrap_or_default()).to_owned(),
            request_id,
            trace_id: head.headers.get("traceparent").cloned(),
            style: llm::style_of(head.uri.path()),
            rule: None,
            pool: None,
            endpoint: None,
            lease: None,
            notice: None,
            facts: Facts::default(),
            outside: None,
            asked_outside: None,
            running: None,
            marks: None,
            explain: false,
            request: Asked::default(),
            answer: Answered::default(),
        })
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// The server that answers, unless it has left its pool.
    pub(crate) fn keeps_connections_to(&self) -> Option<u64> {
        let endpoint = self.endpoint.as_ref()?;
        (!endpoint.gone()).then(|| endpoint.uid())
    }

    /// Whether the server has failed several probes in a row.
    pub(crate) fn server_is_silent(&self) -> bool {
        self.endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.is_silent())
    }

    /// A piece of the answer's body passes.
    pub(crate) fn passed(&mut self, data: &[u8]) {
        let answer = &mut self.answer;
        answer.bytes += data.len() as u64;
        if let Some(created) = &mut answer.created {
            created.passed(data);
        }
        let first = match &mut answer.scanner {
            Some(scanner) => {
                let signals = scanner.feed(data);
                if signals.tokens > 0
                    && let Some(lease) = &mut self.lease
                {
                    lease.progress(signals.tokens);
                }
                signals.first_token
            }
            None => answer.first.is_none(),
        };
        if first && answer.first.is_none() {
            answer.first = Some(self.started.elapsed());
            if let Some(lease) = &mut self.lease {
                lease.first_token();
            }
        }
    }

    /// The answer has come to its end.
    pub(crate) fn completed(&mut self) {
        let made = self.answer.created.take().and_then(created::Created::id);
        if let (Some(id), Some(pool), Some(endpoint)) = (made, &self.pool, &self.endpoint) {
            pool.remember(&id, endpoint);
        }
        self.read_outcome();
        self.answer.ended.get_or_insert(Ended::Complete);
        self.release();
    }

    /// The answer broke off. Returns what ends an event stream properly; `None`: there is nothing to say but to break
    /// off too.
    pub(crate) fn broke(
        &mut self,
        ended: Ended,
        code: &'static str,
        sentence: &str,
    ) -> Option<bytes::Bytes> {
        self.answer.sound = false;
        self.answer.code = Some(code);
        self.answer.ended = Some(ended);
        // That the picker broke off, or that others needed its place, says nothing about the server.
        let server_failed = !matches!(ended, Ended::PickerBroken | Ended::Evicted);
        if let Some(lease) = self.lease.as_mut().filter(|_| server_failed) {
            let late = ended == Ended::Deadline;
            use scheduling::FailureKind::{Reset, Timeout};
            lease.failed(if late { Timeout } else { Reset });
        }
        let status = match ended {
            Ended::Evicted => http::StatusCode::TOO_MANY_REQUESTS,
            _ => http::StatusCode::BAD_GATEWAY,
        };
        let goodbye = self.goodbye(status, code, sentence);
        self.read_outcome();
        self.release();
        goodbye
    }

    /// Whether the request must end for others.
    pub(crate) fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<Eviction> {
        match &mut self.notice {
            Some(notice) => notice.poll_told(cx),
            None => Poll::Pending,
        }
    }

    fn goodbye(
        &self,
        status: http::StatusCode,
        code: &'static str,
        sentence: &str,
    ) -> Option<bytes::Bytes> {
        let (scanner, dialect) = (self.answer.scanner.as_ref()?, self.request.dialect?);
        if !self.answer.stream {
            return None;
        }
        let error = llm::ErrorBody::new(status, code, sentence);
        let event = error.stream_error_event(self.style, dialect);
        let line_end = scanner.pending_line_end();
        if line_end.is_empty() {
            Some(event)
        } else {
            Some([line_end, &event].concat().into())
        }
    }

    /// Takes what the scanner learned: an answer with status 200 may still be a failure, as an error inside it or an
    /// abort by a server that shuts down shows.
    fn read_outcome(&mut self) {
        let Some(mut scanner) = self.answer.scanner.take() else {
            return;
        };
        let outcome = scanner.finish();
        self.answer.usage = outcome.usage;
        self.answer.finish = outcome.finish_reason;
        if let (Some(id), Some(pool), Some(endpoint)) =
            (&outcome.response_id, &self.pool, &self.endpoint)
            && self.request.dialect == Some(Dialect::Responses)
        {
            pool.remember(id, endpoint);
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
        lease.finish(usage, self.answer.sound);
    }

    fn record<'a>(&'a self, pool: &'a str) -> ExchangeRecord<'a> {
        let (request, answer, facts) = (&self.request, &self.answer, self.facts);
        ExchangeRecord {
            request_id: text(Some(&self.request_id)),
            trace_id: text(self.trace_id.as_ref()).get(3..35),
            method: self.method.as_str(),
            path: self.uri.path(),
            host: &self.host,
            route: self.rule.as_ref().map_or("", |rule| &rule.route),
            pool,
            endpoint: self
                .endpoint
                .as_ref()
                .map_or("", |endpoint| endpoint.name()),
            dialect: request.dialect.map_or("", Dialect::name),
            model: &request.model,
            target_model: request.target.as_deref().unwrap_or_default(),
            objective: request.objective.as_deref(),
            fairness: text(request.fairness.as_ref()),
            priority: request.priority,
            status: answer.status,
            error_code: answer.code,
            picker: self.asked_outside.map(|(outcome, _)| outcome),
            picker_took: self.asked_outside.map_or(Duration::ZERO, |(_, took)| took),
            attempts: answer.attempts,
            stream: answer.stream,
            request_bytes: request.bytes,
            response_bytes: answer.bytes,
            queued: facts.queued,
            ttft: answer.first,
            duration: self.started.elapsed(),
            usage: answer.usage.map(|usage| telemetry::Usage {
                prompt: usage.prompt_tokens,
                completion: usage.completion_tokens,
                cached: usage.cached_tokens,
            }),
            hit_tokens_predicted: facts.hit_tokens,
            predicted_ttft: facts.predicted_ttft,
            finish: answer.finish.as_deref(),
            client: Some(self.client),
            ended: answer.ended.unwrap_or(Ended::ClientGone),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.answer.ended.is_none() {
            // The client left. What the scanner saw until then is worth recording; the lease, dropped unfinished,
            // tells the core that the request was abandoned.
            self.read_outcome();
        }
        let pool = self.pool.as_ref().map(|pool| pool.spec().key.to_string());
        let record = self.record(pool.as_deref().unwrap_or_default());
        self.worker.metrics.record(&record);
        telemetry::access_log(&record);
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

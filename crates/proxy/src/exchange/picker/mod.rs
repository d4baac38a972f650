//! Asking the endpoint picker of a pool, where the pool names one.
//!
//! The picker is asked once for each request, on a stream of its own that stays for the answer. It sees the request as a
//! server would (after the route's filters), and the client's hints. Its header changes are made, the body that it sends
//! back is the body that goes out, and its answer to the client, if it gives one, is the answer. The servers that it
//! names are asked in its order; they are charged in the pool like all others, so that the picker inside knows the load
//! at any time. Servers that are not of the pool are passed over.
//!
//! A picker that fails is not asked again for this request, with one exception: when the connection broke, another
//! replica gets the call. Then the failure mode decides. With `FailOpen` the picker inside takes over, as if there were
//! no other; nothing of the request is lost, since it is held here until a server has it. With `FailClose` the client
//! gets 503.
//!
//! Lists of models, and searches for something that lives in one server, are not put to a picker: there is nothing to
//! pick. A request that must go to one server is, with that server as its only candidate.

mod passage;
mod silence;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use extproc::client::{
    self, Call, Dialogue, Event, Failure, Immediate, Lines, Pick, RequestHead, Used, Verdict,
};
use fleet::{Endpoint, Pool};
use http::header::{HOST, HeaderMap};
use http::request::Parts;
use http::{Response, Uri};
use hyper::body::Incoming;
use routing::{Picker, PoolSpec};
use tokio::time::Instant;

pub(crate) use passage::{Passage, PassageError};

use super::forward::Wanted;
use super::route::Routed;
use super::{Exchange, head};
use crate::body::Source;
use crate::refusal::Refusal;
use crate::worker::Worker;

/// What came of asking.
pub(crate) enum Asked {
    /// Nobody outside picks for this pool, or it failed and the pool fails open.
    Inside,
    /// It goes to these servers.
    Picked(Picked),
    /// The picker has answered it.
    Answered(Response<Bytes>),
}

/// A pick from outside.
pub(crate) struct Picked {
    /// Servers of the pool, best first.
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    /// The body, if it is no longer the client's.
    pub(crate) body: Option<Bytes>,
}

/// A call that stays open for the answer.
#[derive(Debug)]
pub(crate) struct Outside {
    dialogue: Dialogue,
    used: Used,
    fail_open: bool,
    pool: String,
    /// It failed after its pick.
    failure: Option<Failure>,
}

/// Whether a picker outside is responsible for a pool.
pub(crate) fn is_outside(pool: &Pool) -> bool {
    matches!(pool.spec().picker, Picker::External { .. })
}

/// Asks the picker of the pool about a request, and makes the header changes that it wants.
pub(crate) async fn ask(
    exchange: &mut Exchange,
    routed: &Routed,
    wanted: &Wanted,
    head: &mut Parts,
    body: Option<&Bytes>,
) -> Result<Asked, Refusal> {
    let spec = wanted.pool.spec();
    let Picker::External { fail_open, .. } = spec.picker else {
        return Ok(Asked::Inside);
    };
    exchange.pool = Some(wanted.pool.clone());
    let began = Instant::now();
    let question = Question {
        routed,
        only: wanted.pinned.as_ref(),
        head,
        body,
    };
    let outcome = consult(&exchange.worker, &spec, fail_open, &question).await;
    let decided = outcome.and_then(|(verdict, outside)| {
        let trust = exchange.worker.options.trust_picks;
        let servers = servers(&wanted.pool, &verdict, wanted.pinned.as_ref(), trust)?;
        Ok((verdict, outside, servers))
    });
    let (word, asked) = match decided {
        Ok((Verdict::Immediate(immediate), outside, _)) => {
            outside.dialogue.finish();
            let answer = exchange.answer_of_picker(immediate);
            ("immediate", Ok(Asked::Answered(answer)))
        }
        Ok((Verdict::Pick(pick), outside, (endpoints, first))) => {
            exchange.change(head, &pick, &outside.pool);
            exchange.outside = Some(outside);
            let body = pick.body;
            let word = if first { "picked" } else { "fallback" };
            (word, Ok(Asked::Picked(Picked { endpoints, body })))
        }
        Err(failure) => {
            let pool = spec.key.to_string();
            exchange.worker.metrics.picker_failed(&pool, failure.code());
            tracing::info!(pool, fail_open, %failure, "the endpoint picker failed a request");
            if fail_open {
                ("fail_open", Ok(Asked::Inside))
            } else {
                ("failed", Err(Refusal::Picker(failure)))
            }
        }
    };
    let took = began.elapsed();
    let pool = spec.key.to_string();
    exchange.worker.metrics.picker_asked(&pool, word, took);
    exchange.asked_outside = Some((word, took));
    asked
}

/// What a picker is asked about.
struct Question<'a> {
    routed: &'a Routed,
    only: Option<&'a Arc<Endpoint>>,
    head: &'a Parts,
    body: Option<&'a Bytes>,
}

impl Question<'_> {
    fn call(&self, limit: u64) -> Call {
        let host = self.head.headers.get(HOST);
        let head = RequestHead {
            method: &self.head.method,
            scheme: if self.routed.tls { "https" } else { "http" },
            authority: host.and_then(|host| host.to_str().ok()).unwrap_or_default(),
            path: self
                .head
                .uri
                .path_and_query()
                .map_or("/", |path| path.as_str()),
            headers: &self.head.headers,
            more: &self.routed.hints.told,
        };
        let only = self.only.map(|endpoint| [endpoint.address()]);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Call::new(
            &head,
            self.body.cloned(),
            only.as_ref().map(|only| &only[..]),
            limit,
        )
    }
}

/// Gets a verdict from one of the picker's replicas.
async fn consult(
    worker: &Worker,
    spec: &Arc<PoolSpec>,
    fail_open: bool,
    question: &Question<'_>,
) -> Result<(Verdict, Box<Outside>), Failure> {
    let lines: Rc<Lines> = worker.picker(spec);
    let deadlines = &worker.options.deadlines;
    let policy = &question.routed.rule.policy;
    let limit = policy.max_body.unwrap_or(worker.options.max_body);
    let mut again = true;
    loop {
        let call = || question.call(limit);
        let (mut dialogue, used) = lines
            .begin(call, deadlines.picker_connect, !fail_open)
            .await?;
        match dialogue.verdict(deadlines.pick).await {
            Ok(verdict) => {
                let outside = Outside {
                    dialogue,
                    used,
                    fail_open,
                    pool: spec.key.to_string(),
                    failure: None,
                };
                return Ok((verdict, Box::new(outside)));
            }
            Err(failure) => {
                let broken = failure.is_of_the_connection();
                if broken || matches!(failure, Failure::Timeout(_)) {
                    used.hang_up();
                }
                if !broken || !std::mem::take(&mut again) {
                    return Err(failure);
                }
            }
        }
    }
}

/// The servers that a pick names, of the pool or, if picks are trusted, of anywhere, in order, and whether the first of its list is the first of them.
fn servers(
    pool: &Arc<Pool>,
    verdict: &Verdict,
    only: Option<&Arc<Endpoint>>,
    trust: bool,
) -> Result<(Vec<Arc<Endpoint>>, bool), Failure> {
    let Verdict::Pick(pick) = verdict else {
        return Ok((Vec::new(), true));
    };
    let mut found: Vec<Arc<Endpoint>> = Vec::new();
    for address in &pick.destination.endpoints {
        let named = if trust {
            pool.admit(*address)
        } else {
            pool.endpoint_at(*address)
        };
        let known = named
            .filter(|endpoint| !endpoint.gone())
            .filter(|endpoint| only.is_none_or(|only| only.uid() == endpoint.uid()));
        if let Some(endpoint) = known
            && found.iter().all(|other| other.uid() != endpoint.uid())
        {
            found.push(endpoint);
        }
    }
    let first = found.first().ok_or(Failure::BadPick)?.address();
    let is_first =
        pick.destination.unreadable == 0 && pick.destination.endpoints.first() == Some(&first);
    Ok((found, is_first))
}

impl Exchange {
    /// Makes the changes to a request's head that a pick brings.
    fn change(&self, head: &mut Parts, pick: &Pick, pool: &str) {
        let metrics = &self.worker.metrics;
        if pick.mismatch {
            metrics.picker_mismatched(pool);
        }
        let changes = client::apply_to_request(&pick.mutations, &mut head.headers);
        if let Some(path) = changes.path {
            head.uri = Uri::from(path);
        }
        if changes.ignored > 0 {
            metrics.picker_ignored(pool, changes.ignored);
        }
        // Pickers send all headers back, also those that were for their eyes only. To a trusted sender nothing is refused.
        let _ = head::sanitise(&mut head.headers, true);
    }

    /// The answer that a picker gives in the place of a server.
    pub(super) fn answer_of_picker(&mut self, immediate: Immediate) -> Response<Bytes> {
        let mut answer = Response::new(immediate.body);
        *answer.status_mut() = immediate.status;
        client::apply_to_answer(&immediate.headers, answer.headers_mut());
        head::sanitise_answer(answer.headers_mut());
        if immediate.status.is_client_error() || immediate.status.is_server_error() {
            self.answer.code = Some("picker_refused");
        }
        answer
    }
}

/// Resolves when the picker answers a request in the place of the server that works on it. Never otherwise.
pub(crate) async fn interrupted(outside: &mut Option<Box<Outside>>, worker: &Worker) -> Immediate {
    let Some(outside) = outside else {
        return std::future::pending().await;
    };
    loop {
        let received = std::future::poll_fn(|cx| outside.dialogue.poll_receive(cx)).await;
        if let Err(failure) = received {
            worker.metrics.picker_failed(&outside.pool, failure.code());
            if failure.is_of_the_connection() {
                outside.used.hang_up();
            }
            outside.dialogue.give_up();
            outside.failure = Some(failure);
        }
        if let Some(Event::Immediate(immediate)) = outside.dialogue.next_event() {
            return immediate;
        }
    }
}

/// What becomes of a server's answer.
pub(crate) enum Shown {
    /// It goes on, through the picker or without it.
    Passes(Response<Source>),
    /// The picker answers in its place.
    Instead(Immediate),
}

impl Outside {
    /// Whether the pool can do without it.
    pub(crate) fn fails_open(&self) -> bool {
        self.fail_open
    }

    /// Shows a server's answer to the picker and waits for what it makes of the head.
    pub(crate) async fn show(
        self: Box<Self>,
        exchange: &Exchange,
        response: Response<Incoming>,
    ) -> Result<Shown, Refusal> {
        let Self {
            dialogue,
            fail_open,
            pool,
            failure,
            ..
        } = *self;
        if let Some(failure) = failure.filter(|_| !fail_open) {
            return Err(Refusal::Picker(failure));
        }
        let worker = exchange.worker();
        let served = exchange
            .endpoint
            .as_ref()
            .map(|endpoint| endpoint.address());
        let (mut head, body) = response.into_parts();
        head::sanitise_answer(&mut head.headers);
        let passage = Passage::new(body, dialogue, fail_open, pool, worker);
        passage.head(head, served).await
    }

    /// The answer is none that a picker is shown (a tunnel): ends the call.
    pub(crate) fn finish(self) {
        self.dialogue.finish();
    }
}

/// Lines to the picker of a pool, and the version of the pool that they are for.
pub(crate) struct Planned {
    spec: Arc<PoolSpec>,
    lines: Rc<Lines>,
}

impl Worker {
    /// The lines to the picker of a pool. They follow the plan: what a new version moves is called elsewhere from the
    /// next request on, while calls that run end where they are.
    fn picker(&self, spec: &Arc<PoolSpec>) -> Rc<Lines> {
        let mut pickers = self.pickers.borrow_mut();
        if let Some(planned) = pickers.get(&spec.key)
            && Arc::ptr_eq(&planned.spec, spec)
        {
            return planned.lines.clone();
        }
        let lines = match &spec.picker {
            Picker::External { endpoints, tls, .. } => self.switchboard.lines(endpoints, tls),
            Picker::Inside => self.switchboard.lines(&[], &routing::PickerTls::Plaintext),
        };
        let lines = Rc::new(lines);
        let planned = Planned {
            spec: spec.clone(),
            lines: lines.clone(),
        };
        pickers.insert(spec.key.clone(), planned);
        lines
    }
}

/// What of an answer's headers is no longer true when its body goes through a picker.
fn forget_length(headers: &mut HeaderMap) {
    headers.remove(http::header::CONTENT_LENGTH);
}

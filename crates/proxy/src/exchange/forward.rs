//! Asking the pool for a server, and servers for an answer.

use std::sync::Arc;
use std::time::Duration;

use fleet::{Endpoint, Eviction, EvictionNotice, PickRequest, Pool, flow_key};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Response};
use hyper::body::Incoming;
use routing::PoolKind;
use scheduling::RequestKind;

use super::answer::{Answer, Served};
use super::attempt::{Outgoing, Rules, failed_status, failure};
use super::route::Routed;
use super::{Exchange, Facts, picker, text};
use crate::body::{Fault, RequestBody, Source};
use crate::refusal::Refusal;
use crate::retry::RetryBudget;
use crate::session;
use crate::upstream::{Link, SendError};

/// What the pool is asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) pool: Arc<Pool>,
    pub(crate) kind: RequestKind,
    pub(crate) model: Option<String>,
    pub(crate) prefix: Arc<[u64]>,
    pub(crate) prompt_tokens: u32,
    pub(crate) max_output_tokens: Option<u32>,
    pub(crate) streams: bool,
    pub(crate) priority: i32,
    pub(crate) deadline: Option<Duration>,
    pub(crate) due: Option<Duration>,
    pub(crate) pinned: Option<Arc<Endpoint>>,
    /// Chosen by a picker outside, best first.
    pub(crate) decided: Vec<Arc<Endpoint>>,
}

impl Wanted {
    /// Any server, by load alone.
    pub(crate) fn opaque(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            kind: RequestKind::Opaque,
            model: None,
            prefix: Arc::default(),
            prompt_tokens: 0,
            max_output_tokens: None,
            streams: false,
            priority: 0,
            deadline: None,
            due: None,
            pinned: None,
            decided: Vec::new(),
        }
    }
}

/// The pool that knows `model`; the first one when none does.
pub(crate) fn pool_for_model(routed: &Routed, model: &str) -> Result<Arc<Pool>, Refusal> {
    let known = |pool: &&Arc<Pool>| routed.pools.len() == 1 || pool.knows_model(model);
    let pool = routed.pools.iter().find(known).or(routed.pools.first());
    pool.cloned().ok_or(Refusal::NoPool)
}

/// Takes a server from the pool.
pub(crate) async fn pick(
    exchange: &mut Exchange,
    routed: &Routed,
    wanted: Wanted,
    outgoing: &mut Outgoing,
) -> Result<(), Refusal> {
    exchange.release();
    let pool = wanted.pool;
    exchange.pool = Some(pool.clone());
    exchange.request.fairness.clone_from(&routed.hints.fairness);
    outgoing.own_host = pool.spec().key.kind == PoolKind::Urls;
    exchange.explain = routed.hints.explain && (routed.trusted || exchange.worker.options.explain);
    let preferred = preferred(exchange, routed, &pool, outgoing);
    let asked = tokio::time::Instant::now();
    let picked = pool
        .pick(PickRequest {
            request_id: text(Some(&exchange.request_id)),
            model: wanted.model.as_deref(),
            kind: wanted.kind,
            prefix: wanted.prefix,
            prompt_tokens: wanted.prompt_tokens,
            max_output_tokens: wanted.max_output_tokens,
            streams: wanted.streams,
            bytes: exchange.request.bytes,
            priority: wanted.priority,
            flow: flow_key(
                exchange
                    .request
                    .fairness
                    .as_ref()
                    .map(HeaderValue::as_bytes),
                api_key(&outgoing.headers),
                wanted.model.as_deref().unwrap_or_default(),
            ),
            pinned: wanted.pinned,
            decided: &wanted.decided,
            preferred,
            deadline: wanted.deadline,
            due: wanted.due,
            explain: exchange.explain,
            ..PickRequest::default()
        })
        .await;
    let mut lease = picked.map_err(|rejection| {
        exchange.facts.queued = asked.elapsed();
        Refusal::Rejected(rejection)
    })?;
    exchange.facts = Facts {
        queued: lease.queued(),
        hit_tokens: lease.hit_tokens(),
        predicted_ttft: (wanted.kind == RequestKind::Inference).then(|| lease.predicted_ttft()),
    };
    exchange.notice = lease.eviction_notice();
    exchange.lease = Some(lease);
    Ok(())
}

/// What says who the client is. It only tells clients apart: the value itself goes nowhere.
fn api_key(headers: &HeaderMap) -> Option<&[u8]> {
    let key = headers
        .get(AUTHORIZATION)
        .or_else(|| headers.get("x-api-key"))
        .or_else(|| headers.get("api-key"))?;
    Some(key.as_bytes())
}

/// Resolves when the request must end for others.
async fn evicted(notice: &mut Option<EvictionNotice>) -> Eviction {
    match notice {
        Some(notice) => notice.told().await,
        None => std::future::pending().await,
    }
}

/// The server of the client's session, where the route keeps sessions.
fn preferred(
    exchange: &Exchange,
    routed: &Routed,
    pool: &Pool,
    outgoing: &Outgoing,
) -> Option<Arc<Endpoint>> {
    let policy = routed.rule.policy.session.as_ref()?;
    let worker = &exchange.worker;
    let session = session::read(
        &worker.session,
        policy,
        &outgoing.headers,
        worker.unix_time(),
    )?;
    pool.endpoint_by_token(session.server)
}

/// Picks a server and forwards to it.
pub(crate) async fn forward(
    exchange: &mut Box<Exchange>,
    routed: Routed,
    mut outgoing: Outgoing,
    wanted: Wanted,
    mut rules: Rules,
) -> Result<Answer, Refusal> {
    let anywhere = wanted.pinned.is_none();
    pick(exchange, &routed, wanted, &mut outgoing).await?;
    let mut outside = exchange.outside.take();
    // A list that is used up is a picker that failed.
    rules.beyond_list = anywhere && outside.as_ref().is_some_and(|it| it.fails_open());
    let worker = exchange.worker.clone();
    let mut notice = exchange.notice.take();
    let sent = tokio::select! {
        biased;
        sent = attempts(exchange, &outgoing, &rules) => sent,
        immediate = picker::interrupted(&mut outside, &worker) => {
            return Ok(Answer::Own(exchange.answer_of_picker(immediate)));
        }
        eviction = evicted(&mut notice) => {
            // Nothing of the answer has come: what the server does for it ends with the connection.
            exchange.lease = None;
            return Err(Refusal::Evicted(eviction));
        }
    };
    exchange.notice = notice;
    if let RequestBody::Stream(replay) = outgoing.body() {
        exchange.request.bytes = replay.passed();
    }
    if let (Err(_), Some(fault)) = (&sent, outgoing.body().fault()) {
        let limit = routed
            .rule
            .policy
            .max_body
            .unwrap_or(exchange.worker.options.max_body);
        return Err(match fault {
            Fault::OverLimit => Refusal::TooLarge(limit),
            Fault::Broken => Refusal::BrokenBody,
        });
    }
    let (response, link) = sent.map_err(Refusal::Upstream)?;
    let response = match outside {
        None => response.map(Source::Server),
        Some(outside) => match outside.show(exchange, response).await? {
            picker::Shown::Passes(response) => response,
            picker::Shown::Instead(immediate) => {
                return Ok(Answer::Own(exchange.answer_of_picker(immediate)));
            }
        },
    };
    Ok(Answer::Served(Box::new(Served::new(
        response,
        link,
        routed,
        outgoing.headers,
    ))))
}

/// A server's answer and the connection it comes on.
pub(crate) type Sent = (Response<Incoming>, Link);

/// Asks server after server, as far as the rules go. An answer that a server gave is better than an error of ours: when
/// no later server answers at all, it is what the client gets.
pub(crate) async fn attempts(
    exchange: &mut Exchange,
    outgoing: &Outgoing,
    rules: &Rules,
) -> Result<Sent, SendError> {
    let worker = exchange.worker.clone();
    if let (true, Some(pool)) = (rules.pays(), &exchange.pool) {
        worker.budget(pool, RetryBudget::deposit);
    }
    let mut held: Option<(Sent, Arc<Endpoint>)> = None;
    loop {
        let Some(endpoint) = exchange
            .lease
            .as_ref()
            .map(|lease| lease.endpoint().clone())
        else {
            return Err(crate::upstream::ConnectError::Spent.into());
        };
        exchange.answer.attempts += 1;
        exchange.endpoint = Some(endpoint.clone());
        let request = || outgoing.request(&endpoint);
        let sent = worker
            .upstreams
            .send(&endpoint, rules.patience, request, rules.repeatable());
        let outcome = tokio::select! {
            biased;
            outcome = sent => outcome,
            () = given_up(exchange, &endpoint), if rules.repeatable() => Err(SendError::Silent),
        };
        match outcome {
            Ok((response, link)) => {
                let status = response.status();
                if !rules.worth(status)
                    || !next(
                        exchange,
                        rules,
                        outgoing,
                        Why::Status(failed_status(status)),
                    )
                    .await
                {
                    return Ok((response, link));
                }
                tracing::debug!(
                    endpoint = endpoint.name(),
                    status = status.as_u16(),
                    "asking another server"
                );
                held = Some(((response, link), endpoint));
            }
            // The client broke its own request off; that says nothing about the server.
            Err(error) if outgoing.body().fault().is_some() => return Err(error),
            Err(error) => {
                tracing::info!(endpoint = endpoint.name(), request_id = text(Some(&exchange.request_id)), %error, "a server failed a request");
                let worth = rules.worth_after(&error);
                if !next(
                    exchange,
                    rules,
                    outgoing,
                    Why::Error(failure(&error), worth),
                )
                .await
                {
                    let Some((sent, endpoint)) = held else {
                        return Err(error);
                    };
                    exchange.endpoint = Some(endpoint);
                    return Ok(sent);
                }
            }
        }
    }
}

/// Resolves when the server has fallen silent while another one could take the request. With no other, waiting is
/// better than failing.
async fn given_up(exchange: &Exchange, endpoint: &Endpoint) {
    const LOOK_AGAIN: Duration = Duration::from_millis(500);
    loop {
        endpoint.silent().await;
        if exchange.lease.as_ref().is_some_and(fleet::Lease::has_next) {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What the last server did wrong.
#[derive(Debug, Clone, Copy)]
enum Why {
    Status(scheduling::FailureKind),
    Error(scheduling::FailureKind, bool),
}

/// Moves the lease to the server that is asked next, if there may be and is one.
async fn next(exchange: &mut Exchange, rules: &Rules, outgoing: &Outgoing, why: Why) -> bool {
    let Some(lease) = &mut exchange.lease else {
        return false;
    };
    let (kind, worth) = match why {
        Why::Status(kind) => (kind, true),
        Why::Error(kind, worth) => (kind, worth),
    };
    lease.failed(kind);
    if !worth || !rules.again(exchange.answer.attempts) || outgoing.body().again().is_none() {
        return false;
    }
    let paid = !rules.pays()
        || exchange
            .pool
            .as_ref()
            .is_some_and(|pool| exchange.worker.budget(pool, RetryBudget::withdraw));
    if !paid {
        return false;
    }
    let found =
        lease.next().is_some() || (rules.beyond_list && lease.widen() && lease.next().is_some());
    if !found && !rules.same_server() {
        return false;
    }
    if !rules.backoff.is_zero() {
        tokio::time::sleep(rules.backoff).await;
    }
    true
}

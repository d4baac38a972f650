//! Requests that we know nothing about, and requests about things that live in one server.

use bytes::Bytes;
use fleet::{Owner, Pool};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use llm::StateKind;
use std::sync::Arc;

use super::answer::{Answer, Served};
use super::attempt::{Outgoing, Rules};
use super::forward::{self, Wanted};
use super::picker::{self, Asked};
use super::route::Routed;
use super::{Exchange, inference, mirror};
use crate::body::{Replay, RequestBody, Source};
use crate::refusal::Refusal;

/// Servers asked, at most, for something whose owner we do not know.
const ASKED: usize = 8;

/// Forwards by load alone; the body streams.
pub(crate) async fn forward(
    exchange: &mut Box<Exchange>,
    routed: Routed,
    head: Parts,
    body: Incoming,
) -> Result<Answer, Refusal> {
    let pool = forward::pool_for_model(&routed, "")?;
    let wanted = Wanted::opaque(pool);
    to(exchange, routed, head, body, wanted).await
}

/// Forwards what `wanted` says; the body streams.
pub(crate) async fn to(
    exchange: &mut Box<Exchange>,
    mut routed: Routed,
    head: Parts,
    body: Incoming,
    wanted: Wanted,
) -> Result<Answer, Refusal> {
    if picker::is_outside(&wanted.pool) {
        return outside(exchange, routed, head, body, wanted).await;
    }
    let options = &exchange.worker.options;
    let limit = routed.rule.policy.max_body.unwrap_or(options.max_body);
    if body.size_hint().lower() > limit {
        return Err(Refusal::TooLarge(limit));
    }
    let body = if body.is_end_stream() {
        mirror::whole(exchange, &mut routed, None);
        RequestBody::Empty
    } else {
        let copies = mirror::streamed(exchange, &mut routed);
        let window = exchange.worker.options.replay_window;
        RequestBody::Stream(Replay::new(body, window, limit, copies))
    };
    let rules = Rules::opaque(&routed.rule.policy, exchange.worker(), &head.method);
    forward::forward(exchange, routed, Outgoing::new(head, body), wanted, rules).await
}

/// Forwards to where the picker of the pool says. Pickers decide on whole bodies, so it is read whole before.
async fn outside(
    exchange: &mut Box<Exchange>,
    mut routed: Routed,
    mut head: Parts,
    body: Incoming,
    mut wanted: Wanted,
) -> Result<Answer, Refusal> {
    let whole = if body.is_end_stream() {
        None
    } else {
        Some(inference::read_body(exchange, &routed, body).await?)
    };
    mirror::whole(exchange, &mut routed, whole.as_ref());
    let asked = picker::ask(exchange, &routed, &wanted, &mut head, whole.as_ref()).await?;
    let changed = match asked {
        Asked::Inside => None,
        Asked::Picked(picked) => {
            wanted.decided = picked.endpoints;
            picked.body
        }
        Asked::Answered(answer) => return Ok(Answer::Own(answer)),
    };
    let body = match changed.or(whole) {
        None => RequestBody::Empty,
        Some(whole) => RequestBody::Pieces {
            pieces: [whole, Bytes::new(), Bytes::new()],
        },
    };
    let rules = Rules::opaque(&routed.rule.policy, exchange.worker(), &head.method);
    forward::forward(exchange, routed, Outgoing::new(head, body), wanted, rules).await
}

/// Forwards to the server that holds `id`. When nobody remembers which one that is, a read asks one after the other.
pub(crate) async fn to_owner(
    exchange: &mut Box<Exchange>,
    routed: Routed,
    head: Parts,
    body: Incoming,
    (kind, id): (StateKind, &str),
) -> Result<Answer, Refusal> {
    let owned = routed
        .pools
        .iter()
        .find_map(|pool| Some((pool.clone(), pool.owner_of(kind, id)?)));
    match owned {
        Some((_, Owner::Gone)) => Err(Refusal::StateLost(id.to_owned())),
        Some((pool, Owner::Here(owner))) => {
            let wanted = Wanted {
                pinned: Some(owner),
                ..Wanted::opaque(pool)
            };
            to(exchange, routed, head, body, wanted).await
        }
        None if head.method == Method::GET && body.is_end_stream() => {
            let pools = routed.pools.clone();
            ask_around(exchange, routed, head, &pools).await
        }
        None => forward(exchange, routed, head, body).await,
    }
}

/// Asks one server after the other until one does not say 404; the last 404 is the answer otherwise.
pub(crate) async fn ask_around(
    exchange: &mut Box<Exchange>,
    routed: Routed,
    mut head: Parts,
    pools: &[Arc<Pool>],
) -> Result<Answer, Refusal> {
    head.headers.remove(CONTENT_LENGTH);
    let rules = Rules::opaque(&routed.rule.policy, exchange.worker(), &head.method);
    let mut outgoing = Outgoing::new(head, RequestBody::Empty);
    let mut last = Err(Refusal::NoPool);
    for pool in pools {
        if let Err(refusal) = forward::pick(
            exchange,
            &routed,
            Wanted::opaque(pool.clone()),
            &mut outgoing,
        )
        .await
        {
            last = last.or(Err(refusal));
            continue;
        }
        loop {
            match forward::attempts(exchange, &outgoing, &rules).await {
                Ok(sent) => {
                    let found = sent.0.status() != StatusCode::NOT_FOUND;
                    last = Ok(sent);
                    if found {
                        return last.map(|sent| served(sent, routed, outgoing));
                    }
                }
                Err(error) => last = last.or(Err(Refusal::Upstream(error))),
            }
            let asked = exchange.answer.attempts as usize;
            if asked >= ASKED
                || exchange
                    .lease
                    .as_mut()
                    .and_then(fleet::Lease::next)
                    .is_none()
            {
                break;
            }
        }
    }
    last.map(|sent| served(sent, routed, outgoing))
}

fn served((response, link): forward::Sent, routed: Routed, outgoing: Outgoing) -> Answer {
    Answer::Served(Box::new(Served::new(
        response.map(Source::Server),
        link,
        routed,
        outgoing.headers,
    )))
}

/// An answer of ours in JSON.
pub(crate) fn json(body: Bytes) -> http::Response<Bytes> {
    let mut answer = http::Response::new(body);
    let value = http::HeaderValue::from_static("application/json");
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, value);
    answer
}

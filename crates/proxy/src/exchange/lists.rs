//! `GET /v1/models`: what all servers of a pool have, as one list.

use std::sync::Arc;

use bytes::Bytes;
use fleet::Pool;
use http::request::Parts;
use hyper::body::Incoming;

use super::Exchange;
use super::answer::Answer;
use super::opaque;
use super::route::Routed;
use crate::refusal::Refusal;

/// The union of the servers' own lists, as they were last seen. A pool that has none yet says so with 503.
pub(crate) fn models(
    exchange: &mut Exchange,
    routed: &Routed,
    _head: &Parts,
) -> Result<Answer, Refusal> {
    let pools = running(exchange, routed);
    if pools.is_empty() {
        return Err(Refusal::NoPool);
    }
    let bodies: Vec<Bytes> = pools.iter().flat_map(|pool| pool.models()).collect();
    exchange.pool = pools.into_iter().next();
    if bodies.is_empty() {
        return Err(Refusal::NoModels);
    }
    let bodies: Vec<&[u8]> = bodies.iter().map(AsRef::as_ref).collect();
    Ok(Answer::Own(opaque::json(llm::merge_models(&bodies))))
}

/// `GET /v1/models/{id}`: a server that has the model answers; where none is known to, all are asked in turn.
pub(crate) async fn model(
    exchange: &mut Box<Exchange>,
    routed: Routed,
    head: Parts,
    _body: Incoming,
    id: &str,
) -> Result<Answer, Refusal> {
    let mut pools = running(exchange, &routed);
    pools.sort_by_key(|pool| !pool.knows_model(id));
    opaque::ask_around(exchange, routed, head, &pools).await
}

fn running(exchange: &Exchange, routed: &Routed) -> Vec<Arc<Pool>> {
    routed
        .pools
        .iter()
        .filter_map(|key| exchange.worker.fleet.pool(key))
        .collect()
}

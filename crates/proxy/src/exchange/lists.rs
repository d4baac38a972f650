//! `GET /v1/models`: what all servers of a pool have, as one list.

use bytes::Bytes;
use http::request::Parts;
use hyper::body::Incoming;

use super::Exchange;
use super::answer::Answer;
use super::opaque;
use super::route::Routed;
use crate::refusal::Refusal;

/// The union of the servers' own lists, as they were last seen. Where none has been seen a server is asked.
pub(crate) async fn models(
    exchange: &mut Box<Exchange>,
    routed: Routed,
    head: Parts,
    body: Incoming,
) -> Result<Answer, Refusal> {
    let bodies: Vec<Bytes> = routed.pools.iter().flat_map(|pool| pool.models()).collect();
    if bodies.is_empty() {
        return opaque::forward(exchange, routed, head, body).await;
    }
    exchange.pool = routed.pools.first().cloned();
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
    let mut pools = routed.pools.clone();
    pools.sort_by_key(|pool| !pool.knows_model(id));
    opaque::ask_around(exchange, routed, head, &pools).await
}

//! The way of a request from its head to its answer.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use routing::PoolKind;

use super::answer::Answer;
use super::route::{Place, Routed};
use super::{Client, Exchange, head, inference, lists, opaque, route, tunnel};
use crate::body::ResponseBody;
use crate::refusal::Refusal;

/// Serves one request.
pub(crate) async fn serve(
    client: Rc<Client>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let upgrade = request
        .headers()
        .contains_key(http::header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    let mut exchange = Exchange::begin(&client, &mut head);
    let asked_to_upgrade = upgrade.is_some();
    let answer = match run(&client, &mut exchange, head, body, upgrade).await {
        Ok(answer) => answer,
        Err(refusal) => Answer::Own(exchange.refuse(&refusal)),
    };
    Ok(answer.into_response(exchange, asked_to_upgrade))
}

async fn run(
    client: &Rc<Client>,
    exchange: &mut Box<Exchange>,
    mut head: http::request::Parts,
    body: Incoming,
    upgrade: Option<OnUpgrade>,
) -> Result<Answer, Refusal> {
    head::check(&head)?;
    let routed = match route::find(client, exchange, &mut head)? {
        Place::Answered(answer) => return Ok(Answer::Own(answer.map(|()| Bytes::new()))),
        Place::Backend(routed) => routed,
    };
    let total = routed.rule.policy.request_timeout;
    let step = dispatch(client, exchange, routed, head, body, upgrade);
    let Some(total) = total else {
        return step.await;
    };
    match tokio::time::timeout(total, step).await {
        Ok(answer) => answer.map(|answer| answer.until(tokio::time::Instant::now() + total)),
        Err(_) => Err(Refusal::RequestTimeout),
    }
}

/// Sends the request down the way that its path and its backend ask for.
async fn dispatch(
    client: &Rc<Client>,
    exchange: &mut Box<Exchange>,
    routed: Routed,
    head: http::request::Parts,
    body: Incoming,
    upgrade: Option<OnUpgrade>,
) -> Result<Answer, Refusal> {
    if let (Some(upgrade), Some(_)) = (upgrade, &routed.hints.upgrade) {
        return tunnel::forward(client, exchange, routed, head, upgrade).await;
    }
    // A plain Service may serve anything; only servers of models are known to mean by these paths what we think.
    if routed
        .pools
        .iter()
        .all(|pool| pool.spec().key.kind == PoolKind::Service)
    {
        return opaque::forward(exchange, routed, head, body).await;
    }
    let path = head.uri.clone();
    match llm::route(&head.method, path.path()) {
        llm::Route::Inference(dialect) => {
            inference::forward(exchange, routed, head, body, dialect).await
        }
        llm::Route::Models => lists::models(exchange, routed, head, body).await,
        llm::Route::Model(id) => lists::model(exchange, routed, head, body, id).await,
        llm::Route::Stateful { kind, id } => {
            opaque::to_owner(exchange, routed, head, body, (kind, id)).await
        }
        llm::Route::Admin if !routed.trusted => Err(Refusal::Admin),
        llm::Route::Admin | llm::Route::Other => {
            opaque::forward(exchange, routed, head, body).await
        }
    }
}

//! A request whose body names a model.
//!
//! The body is read into one piece of memory and looked at in place. What goes out are those very bytes; if the model's
//! name changes, three pieces of which the middle one is ours.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet::{Endpoint, Owner, Pool};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use hyper::body::Incoming;
use llm::{ChainSeed, Dialect, RequestView, StateKind};
use scheduling::RequestKind;

use super::answer::Answer;
use super::attempt::{Outgoing, Rules};
use super::forward::{self, Wanted};
use super::route::Routed;
use super::{Exchange, text};
use crate::body::{CollectError, RequestBody, collect};
use crate::refusal::Refusal;

pub(crate) async fn forward(
    exchange: &mut Box<Exchange>,
    routed: Routed,
    head: Parts,
    body: Incoming,
    dialect: Dialect,
) -> Result<Answer, Refusal> {
    exchange.request.dialect = Some(dialect);
    let body = read_body(exchange, &routed, body).await?;
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let view = llm::read(dialect, content_type, &body).map_err(Refusal::Body)?;
    if let (Some(field), false) = (view.reserved_field, routed.trusted) {
        return Err(Refusal::Reserved(field.to_owned()));
    }
    let wanted = want(exchange, &routed, &view)?;
    let pieces = pieces(&body, &view, exchange.request.target.as_deref());
    drop(view);
    drop(body);
    let outgoing = Outgoing::new(head, RequestBody::Pieces { pieces });
    let rules = Rules::inference(&routed.rule.policy, exchange.worker());
    forward::forward(exchange, routed, outgoing, wanted, rules).await
}

async fn read_body(
    exchange: &mut Exchange,
    routed: &Routed,
    body: Incoming,
) -> Result<Bytes, Refusal> {
    let options = &exchange.worker.options;
    let limit = routed.rule.policy.max_body.unwrap_or(options.max_body);
    let bytes = collect(body, limit, options.deadlines.client_header)
        .await
        .map_err(|error| match error {
            CollectError::TooLarge => Refusal::TooLarge(limit),
            CollectError::Slow => Refusal::SlowBody,
            CollectError::Broken => Refusal::BrokenBody,
        })?;
    exchange.request.bytes = bytes.len() as u64;
    Ok(bytes)
}

/// Resolves the model and says what the pool is asked for.
fn want(
    exchange: &mut Exchange,
    routed: &Routed,
    view: &RequestView<'_>,
) -> Result<Wanted, Refusal> {
    let name = view.model.as_ref().map_or("", |model| &model.name);
    let pool = forward::pool_for_model(routed, name)?;
    let spec = pool.spec();
    let objective = text(routed.hints.objective.as_ref());
    let objective = (!objective.is_empty()).then_some(objective);
    let resolution = spec.models.resolve(name, objective, exchange.worker.roll());
    let forced = routed
        .hints
        .model
        .as_ref()
        .filter(|_| routed.trusted)
        .and_then(|value| value.to_str().ok());
    let target = forced
        .or(resolution.target_model)
        .filter(|target| *target != name && view.model.is_some());
    let served = target.unwrap_or(name);
    let chain = view.prompt.chain(&ChainSeed {
        model: served,
        cache_salt: view.cache_salt.as_deref(),
    });
    let kind = if view.dialect.runs_model() {
        RequestKind::Inference
    } else {
        RequestKind::Opaque
    };
    let wanted = Wanted {
        kind,
        model: (!served.is_empty()).then(|| served.to_owned()),
        prefix: Arc::from(chain.hashes),
        prompt_tokens: chain.prompt_tokens,
        max_output_tokens: view.max_tokens,
        streams: view.stream,
        priority: resolution.priority,
        deadline: deadline(routed.hints.ttft_slo.as_ref(), resolution.priority),
        pinned: owner(&pool, view)?,
        pool: pool.clone(),
    };
    exchange.running = Some(exchange.worker.metrics.running(name));
    exchange.request.priority = resolution.priority;
    exchange.request.objective = resolution.objective.map(str::to_owned);
    exchange.request.model = name.to_owned();
    exchange.request.target = target.map(str::to_owned);
    exchange.answer.stream = view.stream;
    Ok(wanted)
}

/// Only work that may be shed is refused for a target that cannot be met; the rest is served late rather than not.
fn deadline(slo: Option<&HeaderValue>, priority: i32) -> Option<Duration> {
    let millis = text(slo)
        .parse()
        .ok()
        .filter(|millis| *millis > 0 && priority < 0)?;
    Some(Duration::from_millis(millis))
}

/// The server that holds what this request continues. It is a hard wish: nobody else has that state.
fn owner(pool: &Arc<Pool>, view: &RequestView<'_>) -> Result<Option<Arc<Endpoint>>, Refusal> {
    let states: [(&Option<Cow<'_, str>>, StateKind); 2] = [
        (&view.previous_response_id, StateKind::Response),
        (&view.conversation, StateKind::Conversation),
    ];
    for (id, kind) in states {
        let Some(id) = id else { continue };
        match pool.owner_of(kind, id) {
            Some(Owner::Gone) => return Err(Refusal::StateLost(id.clone().into_owned())),
            Some(Owner::Here(owner)) => return Ok(Some(owner)),
            None => {}
        }
    }
    Ok(None)
}

/// The body as it is sent.
fn pieces(body: &Bytes, view: &RequestView<'_>, target: Option<&str>) -> [Bytes; 3] {
    match (&view.model, target) {
        (Some(model), Some(target)) => {
            let is_json = !matches!(
                view.dialect,
                Dialect::AudioTranscriptions | Dialect::AudioTranslations
            );
            llm::splice_model(body, model.span.clone(), is_json, target)
        }
        _ => [body.clone(), Bytes::new(), Bytes::new()],
    }
}

//! A request whose body names a model.
//!
//! The body is read into one piece of memory and looked at in place. What goes out are those very bytes; if the model's
//! name changes, three pieces of which the middle one is ours.

use bytes::Bytes;
use fleet::{Hints, StateLost, Understood};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use hyper::body::Incoming;
use llm::{Dialect, RequestView};

use super::answer::Answer;
use super::attempt::{Outgoing, Rules};
use super::forward::{self, Wanted};
use super::picker::{self, Asked};
use super::route::Routed;
use super::{Exchange, mirror, text};
use crate::body::{CollectError, RequestBody, collect};
use crate::refusal::Refusal;

pub(crate) async fn forward(
    exchange: &mut Box<Exchange>,
    mut routed: Routed,
    mut head: Parts,
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
    let mut wanted = want(exchange, &routed, &view)?;
    let pieces = pieces(&body, &view, exchange.request.target.as_deref());
    mirror::understood(exchange, &mut routed, &body, &view);
    drop(view);
    let asked = picker::ask(exchange, &routed, &wanted, &mut head, Some(&body)).await?;
    let pieces = match asked {
        Asked::Inside => pieces,
        Asked::Picked(picked) => {
            // Names and targets are the picker's business, and its body has them.
            exchange.request.target = None;
            wanted.decided = picked.endpoints;
            [picked.body.unwrap_or(body), Bytes::new(), Bytes::new()]
        }
        Asked::Answered(answer) => return Ok(Answer::Own(answer)),
    };
    let outgoing = Outgoing::new(head, RequestBody::Pieces { pieces });
    let rules = Rules::inference(&routed.rule.policy, exchange.worker());
    forward::forward(exchange, routed, outgoing, wanted, rules).await
}

/// Reads the whole body, in bounds.
pub(super) async fn read_body(
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
    let understood = Understood::read(&pool, view, hints(routed), exchange.worker.roll())
        .map_err(|StateLost(id)| Refusal::StateLost(id))?;
    exchange.running = Some(exchange.worker.metrics.running(name));
    let model = understood.served_model().map(str::to_owned);
    exchange.request.priority = understood.priority;
    exchange.request.objective = understood.objective;
    exchange.request.model = understood.model;
    exchange.request.target = understood.target;
    exchange.answer.stream = understood.streams;
    Ok(Wanted {
        kind: understood.kind,
        model,
        prefix: understood.prefix,
        prompt_tokens: understood.prompt_tokens,
        max_output_tokens: understood.max_output_tokens,
        streams: understood.streams,
        priority: understood.priority,
        deadline: understood.deadline,
        due: understood.due,
        pinned: understood.pinned,
        decided: Vec::new(),
        pool,
    })
}

/// What the head says about the pick.
pub(super) fn hints(routed: &Routed) -> Hints<'_> {
    Hints {
        objective: given(routed.hints.objective.as_ref()),
        model: given(routed.hints.model.as_ref()).filter(|_| routed.trusted),
        ttft_slo: given(routed.hints.ttft_slo.as_ref()),
    }
}

/// A hint that says something.
fn given(value: Option<&HeaderValue>) -> Option<&str> {
    Some(text(value)).filter(|text| !text.is_empty())
}

/// The body as it is sent.
pub(super) fn pieces(body: &Bytes, view: &RequestView<'_>, target: Option<&str>) -> [Bytes; 3] {
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

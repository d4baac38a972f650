//! Connections that stop being HTTP (WebSocket): one server for life, and bytes both ways.

use std::rc::Rc;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use telemetry::Ended;

use super::answer::{Answer, Served};
use super::attempt::{Outgoing, Rules};
use super::forward::{self, Wanted};
use super::picker::{self, Asked};
use super::route::Routed;
use super::{Client, Exchange};
use crate::body::{RequestBody, ResponseBody, Source};
use crate::refusal::Refusal;
use crate::upstream::{Link, SendError, Upstreams};

/// A tunnel that is about to open.
pub(crate) struct Tunnel {
    response: Response<Incoming>,
    link: Link,
    client: OnUpgrade,
}

/// Asks a server to change protocols. It gets a connection of its own, and only one server is asked.
pub(crate) async fn forward(
    client: &Rc<Client>,
    exchange: &mut Box<Exchange>,
    routed: Routed,
    mut head: Parts,
    upgrade: OnUpgrade,
) -> Result<Answer, Refusal> {
    let mut wanted = Wanted::opaque(forward::pool_for_model(&routed, "")?);
    match picker::ask(exchange, &routed, &wanted, &mut head, None).await? {
        Asked::Inside => {}
        Asked::Picked(picked) => wanted.decided = picked.endpoints,
        Asked::Answered(answer) => return Ok(Answer::Own(answer)),
    }
    // What a tunnel answers is not shown to a picker.
    if let Some(outside) = exchange.outside.take() {
        outside.finish();
    }
    if let Some(protocol) = routed.hints.upgrade.clone() {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol);
    }
    let rules = Rules::opaque(&routed.rule.policy, exchange.worker(), &head.method);
    let mut outgoing = Outgoing::new(head, RequestBody::Empty);
    forward::pick(exchange, &routed, wanted, &mut outgoing).await?;
    let Some(endpoint) = exchange
        .lease
        .as_ref()
        .map(|lease| lease.endpoint().clone())
    else {
        return Err(Refusal::Tunnel);
    };
    exchange.endpoint = Some(endpoint.clone());
    exchange.answer.attempts = 1;
    let upstreams = &client.worker.upstreams;
    let mut link = upstreams
        .dedicated(&endpoint)
        .await
        .map_err(|error| Refusal::Upstream(error.into()))?;
    let request = outgoing.request(&endpoint).ok_or(Refusal::Tunnel)?;
    let response: Result<_, SendError> =
        Upstreams::attempt(&mut link, request, rules.patience).await;
    let response = response.map_err(Refusal::Upstream)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer::Served(Box::new(Served::new(
            response.map(Source::Server),
            link,
            routed,
            outgoing.headers,
        ))));
    }
    Ok(Answer::Tunnel(Box::new(Tunnel {
        response,
        link,
        client: upgrade,
    })))
}

impl Tunnel {
    /// The answer that opens the tunnel. The exchange lives for as long as it stands.
    pub(crate) fn open(self, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
        let Self {
            mut response,
            link,
            client,
        } = self;
        let server = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        exchange.answer.status = head.status.as_u16();
        exchange.answer.sound = true;
        head.headers
            .insert("x-request-id", exchange.request_id.clone());
        let closing = exchange.worker.tunnels.clone();
        let running = exchange.worker.running.clone();
        tokio::task::spawn_local(running.track_future(async move {
            tokio::select! {
                biased;
                () = closing.cancelled() => {}
                () = pass(client, server, &mut exchange) => {}
            }
            exchange.completed();
            drop(link);
        }));
        Response::from_parts(head, ResponseBody::empty())
    }
}

async fn pass(client: OnUpgrade, server: OnUpgrade, exchange: &mut Exchange) {
    let (Ok(client), Ok(server)) = (client.await, server.await) else {
        exchange.answer.ended = Some(Ended::ClientGone);
        return;
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    match tokio::io::copy_bidirectional(&mut client, &mut server).await {
        Ok((up, down)) => {
            exchange.request.bytes = up;
            exchange.answer.bytes = down;
        }
        Err(error) => tracing::debug!(%error, "a tunnel broke"),
    }
}

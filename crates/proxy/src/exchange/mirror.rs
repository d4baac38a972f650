//! Copies of requests for mirrors (Gateway API, `HTTPRequestMirrorFilter`).
//!
//! A copy is what the server gets, as the filters before it left it. It is sent by a task of its own, once, and its
//! answer is read to the end and thrown away, so that a model server in the shadow does the whole work. Nothing that a
//! mirror does or fails to do is felt by the client: its server is picked apart, in its own pool; bodies are shared and
//! bounded ([`crate::body::copy`]); when there is no room for another copy, none is made.
//!
//! To an InferencePool a request of an inference path goes as it would without a mirror: the pool's own model names,
//! targets and classes hold, and the picker inside places it (an endpoint picker outside is asked about real requests
//! only). To anything else, and for everything else, it goes by load alone. What the gateway answers by itself, searches
//! for something that lives in one server, and upgrades of the connection are not copied.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use fleet::{PickRequest, Pool, Understood};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use llm::RequestView;
use routing::{Filter, PoolKind};
use scheduling::RequestKind;
use tokio::time::timeout;

use super::attempt::{Outgoing, failure};
use super::inference::pieces;
use super::route::Routed;
use super::{Exchange, inference, text};
use crate::body::{RequestBody, copy};
use crate::worker::Worker;

/// A copy that is to be made.
#[derive(Debug)]
pub(crate) struct Shadow {
    pool: Arc<Pool>,
    head: Parts,
}

/// The copies that `filters` ask for, of a request as it stands now. Each mirror is drawn for by itself.
pub(crate) fn drawn(
    worker: &Worker,
    filters: &[Filter],
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
) -> Vec<Shadow> {
    let mirrors = filters.iter().filter_map(|filter| match filter {
        Filter::Mirror(mirror) => Some(mirror),
        _ => None,
    });
    mirrors
        .filter(|mirror| worker.roll() < mirror.share)
        .filter_map(|mirror| {
            let pool = worker.fleet.pool(&mirror.pool)?;
            let (mut head, ()) = Request::new(()).into_parts();
            head.method = method.clone();
            head.uri = uri.clone();
            head.headers = headers.clone();
            Some(Shadow { pool, head })
        })
        .collect()
}

/// Copies a request that has a whole body, or none.
pub(crate) fn whole(exchange: &Exchange, routed: &mut Routed, body: Option<&Bytes>) {
    for shadow in std::mem::take(&mut routed.shadows) {
        let body = body
            .cloned()
            .map_or(RequestBody::Empty, |body| RequestBody::Pieces {
                pieces: [body, Bytes::new(), Bytes::new()],
            });
        start(exchange, shadow, body, None);
    }
}

/// Copies a request that names a model.
pub(crate) fn understood(
    exchange: &Exchange,
    routed: &mut Routed,
    body: &Bytes,
    view: &RequestView<'_>,
) {
    for shadow in std::mem::take(&mut routed.shadows) {
        let speaks_models = matches!(
            shadow.pool.spec().key.kind,
            PoolKind::Inference | PoolKind::InferenceAlpha | PoolKind::Urls
        );
        let work = if speaks_models {
            let hints = inference::hints(routed);
            match Understood::read(&shadow.pool, view, hints, exchange.worker.roll()) {
                Ok(work) => Some(work),
                // What it continues has never been in the shadow, or is lost there.
                Err(_) => continue,
            }
        } else {
            None
        };
        let target = work.as_ref().and_then(|work| work.target.as_deref());
        let pieces = pieces(body, view, target);
        start(exchange, shadow, RequestBody::Pieces { pieces }, work);
    }
}

/// Copies a request whose body streams; what passes must be shown to the writers.
pub(crate) fn streamed(exchange: &Exchange, routed: &mut Routed) -> Vec<copy::Writer> {
    let shadows = std::mem::take(&mut routed.shadows).into_iter();
    let begin = |shadow| {
        let (writer, reader) = copy::channel(&exchange.worker.copies);
        start(exchange, shadow, RequestBody::Copy(reader), None);
        writer
    };
    shadows.map(begin).collect()
}

/// One copy on its way.
struct Copy {
    pool: Arc<Pool>,
    outgoing: Outgoing,
    work: Option<Understood>,
    bytes: u64,
    request_id: HeaderValue,
    /// Its part of the room; the body's part is given back as soon as the body is sent.
    _share: copy::Share,
    body: Option<copy::Reader>,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(reader) = &self.body {
            reader.close();
        }
    }
}

fn start(exchange: &Exchange, shadow: Shadow, body: RequestBody, work: Option<Understood>) {
    let worker = exchange.worker.clone();
    let bytes = match &body {
        RequestBody::Pieces { .. } => body.length().unwrap_or(0),
        _ => 0,
    };
    let reader = match &body {
        RequestBody::Copy(reader) => Some(reader.clone()),
        _ => None,
    };
    let room = usize::try_from(bytes).unwrap_or(usize::MAX);
    let Some(share) = worker.copies.copy(room) else {
        if let Some(reader) = reader {
            reader.close();
        }
        let pool = shadow.pool.spec().key.to_string();
        worker.metrics.mirrored(&pool, "no_room");
        return;
    };
    let mut outgoing = Outgoing::new(shadow.head, body);
    outgoing.own_host = shadow.pool.spec().key.kind == PoolKind::Urls;
    let copy = Copy {
        pool: shadow.pool,
        outgoing,
        work,
        bytes,
        request_id: exchange.request_id.clone(),
        _share: share,
        body: reader,
    };
    // Not among what a drain waits for: nobody needs its answer.
    tokio::task::spawn_local(async move {
        let (id, pool) = (copy.request_id.clone(), copy.pool.clone());
        let outcome = send(&worker, copy).await.err().unwrap_or("answered");
        worker
            .metrics
            .mirrored(&pool.spec().key.to_string(), outcome);
        tracing::debug!(request_id = text(Some(&id)), outcome, "a copy has ended");
    });
}

/// Sends a copy and reads its answer; the error is the word for what went wrong.
async fn send(worker: &Rc<Worker>, copy: Copy) -> Result<(), &'static str> {
    let id = text(Some(&copy.request_id));
    let asked = match &copy.work {
        Some(work) => work.request(id, copy.bytes, 0),
        None => PickRequest {
            request_id: id,
            kind: RequestKind::Opaque,
            bytes: copy.bytes,
            ..PickRequest::default()
        },
    };
    let picked = copy.pool.pick(asked).await;
    let mut lease = picked.map_err(|rejection| rejection.reason.code())?;
    let mut notice = lease.eviction_notice();
    let told = async {
        match &mut notice {
            Some(notice) => {
                notice.told().await;
            }
            None => std::future::pending().await,
        }
    };
    let deadlines = worker.options.deadlines;
    let exchange = async {
        let endpoint = lease.endpoint().clone();
        let request = || copy.outgoing.request(&endpoint);
        let upstreams = &worker.upstreams;
        let sent = upstreams.send(&endpoint, deadlines.first_byte, request, false);
        let (response, link) = match sent.await {
            Ok(answer) => answer,
            Err(error) => {
                lease.failed(failure(&error));
                lease.finish(None, false);
                return Err("no_answer");
            }
        };
        // A whole body is no longer needed here; one that streams may still be on its way.
        let _streams = copy.body.is_some().then_some(copy);
        let sound = !response.status().is_server_error();
        lease.first_token();
        let whole = read(response.into_body(), deadlines.idle).await;
        if whole && !endpoint.gone() {
            upstreams.give_back(endpoint.uid(), link);
        }
        lease.finish(None, sound && whole);
        if whole { Ok(()) } else { Err("broken_off") }
    };
    tokio::select! {
        biased;
        done = exchange => done,
        () = told => Err("evicted"),
    }
}

/// Reads an answer to its end and forgets it. Whether there was an end.
async fn read(mut body: Incoming, idle: std::time::Duration) -> bool {
    loop {
        match timeout(idle, body.frame()).await {
            Ok(None) => return true,
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
}

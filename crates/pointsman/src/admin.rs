//! The admin port: `/metrics`, `/healthz`, `/readyz`, `/decisions` and a status page. Plain HTTP, for operators only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kubernetes::{Access, AccessReview};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::status_page;

/// What the admin port tells.
pub(crate) struct Admin {
    /// Pools, for `/readyz`, `/decisions` and the status page.
    pub(crate) fleet: Arc<fleet::Fleet>,
    /// Metric families.
    pub(crate) metrics: Arc<telemetry::Metrics>,
    /// What `/readyz` answers.
    pub(crate) readiness: Mutex<Readiness>,
}

/// Whether traffic should come here, and what is wrong although it may.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Readiness {
    /// `false` before the first plan is served and while draining.
    pub(crate) ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    /// Broken objects, ports in use, unreadable certificates, references that do not resolve: named, while the rest
    /// serves.
    pub(crate) problems: Vec<String>,
}

/// `/readyz` in full.
#[derive(Serialize)]
struct ReadyAnswer<'a> {
    #[serde(flatten)]
    readiness: &'a Readiness,
    pools: Vec<PoolReadiness>,
}

/// One pool of `/readyz`.
#[derive(Serialize)]
struct PoolReadiness {
    pool: String,
    ready_endpoints: usize,
    endpoints: usize,
}

/// Binds the admin port and serves it until the process ends.
///
/// # Errors
/// When the port cannot be bound.
pub(crate) async fn start(address: SocketAddr, admin: Arc<Admin>) -> anyhow::Result<SocketAddr> {
    start_guarded(address, admin, None).await
}

/// The same, where `guard` says who may see more than whether the process is well.
///
/// # Errors
/// When the port cannot be bound.
pub(crate) async fn start_guarded(
    address: SocketAddr,
    admin: Arc<Admin>,
    guard: Option<Arc<AccessReview>>,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        anyhow::anyhow!(
            "cannot listen on {address} for the admin port: {error}; choose another with --admin"
        )
    })?;
    let bound = listener.local_addr()?;
    tokio::spawn(accept(listener, admin, guard));
    Ok(bound)
}

async fn accept(listener: TcpListener, admin: Arc<Admin>, guard: Option<Arc<AccessReview>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let admin = Arc::clone(&admin);
        let guard = guard.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                let guard = guard.clone();
                async move {
                    if let Some(refused) = refused(guard.as_deref(), &request).await {
                        return Ok(refused);
                    }
                    Ok::<_, Infallible>(answer(&admin, &request))
                }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            let _ = server
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The answer to a caller who may not see the page.
async fn refused(
    guard: Option<&AccessReview>,
    request: &Request<Incoming>,
) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path();
    let guard = guard.filter(|_| !matches!(path, "/healthz" | "/readyz"))?;
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let (status, sentence) = match guard.may_get(authorization, path).await {
        Access::Granted => return None,
        Access::Unknown => (
            StatusCode::UNAUTHORIZED,
            "a token that the cluster knows is needed\n",
        ),
        Access::Denied => (StatusCode::FORBIDDEN, "this user may not read this page\n"),
        Access::Unanswered => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the cluster does not say who may read this page\n",
        ),
    };
    Some(text(status, "text/plain", sentence.into()))
}

fn answer(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "only GET and HEAD\n".into(),
        );
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => metrics(admin, request),
        "/healthz" => text(StatusCode::OK, "text/plain", "ok\n".into()),
        "/readyz" => readyz(admin),
        "/decisions" => decisions(admin),
        "/status" => json(StatusCode::OK, &status_page::status(admin)),
        "/" => text(
            StatusCode::OK,
            "text/html; charset=utf-8",
            status_page::PAGE.into(),
        ),
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain",
            "try /, /metrics, /healthz, /readyz, /decisions or /status\n".into(),
        ),
    }
}

/// OpenMetrics when asked for, else the text format 0.0.4.
fn metrics(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let accepts = |accept: &HeaderValue| {
        accept
            .to_str()
            .is_ok_and(|a| a.contains("application/openmetrics-text"))
    };
    if request.headers().get_all(ACCEPT).iter().any(accepts) {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        return text(StatusCode::OK, kind, admin.metrics.encode_openmetrics());
    }
    text(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        admin.metrics.encode_text(),
    )
}

fn readyz(admin: &Admin) -> Response<Full<Bytes>> {
    let readiness = admin.readiness.lock().clone();
    let pools = admin
        .fleet
        .pools()
        .iter()
        .map(|pool| pool_readiness(pool))
        .collect();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(
        status,
        &ReadyAnswer {
            readiness: &readiness,
            pools,
        },
    )
}

fn pool_readiness(pool: &fleet::Pool) -> PoolReadiness {
    let endpoints = pool.endpoints();
    PoolReadiness {
        pool: pool.spec().key.to_string(),
        ready_endpoints: endpoints.iter().filter(|e| e.ready).count(),
        endpoints: endpoints.len(),
    }
}

/// Recent decisions of all pools, newest first.
fn decisions(admin: &Admin) -> Response<Full<Bytes>> {
    let mut all: Vec<_> = admin
        .fleet
        .pools()
        .iter()
        .flat_map(|pool| pool.recent_decisions())
        .collect();
    all.sort_by_key(|decision| std::cmp::Reverse(decision.at_ms));
    json(StatusCode::OK, &serde_json::json!({ "decisions": all }))
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(mut body) => {
            body.push('\n');
            text(status, "application/json", body)
        }
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain",
            format!("{error}\n"),
        ),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

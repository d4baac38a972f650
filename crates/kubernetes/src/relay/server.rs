//! The controller's side: HTTPS, one path for each Gateway.
//!
//! `GET /v1/gateways/NAMESPACE/NAME` with a token answers a stream of lines that ends only when one side goes, the
//! Gateway is no longer ours, or an hour is over: then the token is looked at again. A data plane that reads slowly
//! gets fewer and larger differences: each line leads from what was sent last to what is now.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{GATEWAY_GROUP, ObjectKey};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, channel};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, AuthorityError, Resolver, Shown, host_of};
use super::caller::{Verdict, judge};
use super::line::{first, line};
use super::{View, World};

type Body = BoxBody<Bytes, Infallible>;

/// How often a stream on which nothing happens says that it is still there.
pub(super) const ALIVE: Duration = Duration::from_secs(10);
/// When a stream ends so that its token is looked at again.
const AT_MOST: Duration = Duration::from_secs(3600);
/// How often the server's certificate is made anew.
const RENEW: Duration = Duration::from_secs(24 * 3600);
/// For a handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once; one that is too much waits.
const CONNECTIONS: usize = 10_000;

/// Settings of a [`Relay`].
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Where data planes connect.
    pub listen: SocketAddr,
    /// `HOST:PORT` by which they do; the host goes into the certificate.
    pub address: String,
    /// Gateways of classes with this `controllerName` are answered for.
    pub controller_name: String,
}

/// Gives data planes what their Gateways need. Dropping it ends all streams; data planes go on with what they have.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    tasks: [AbortHandle; 2],
    connections: watch::Sender<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.connections.send_replace(());
    }
}

struct Shared {
    authority: Arc<Authority>,
    client: Client,
    controller_name: String,
    worlds: watch::Receiver<Option<Arc<World>>>,
}

impl Relay {
    /// Begins to serve what `worlds` holds; before the first one there is no answer.
    ///
    /// # Errors
    /// The address is in use, or no certificate can be made.
    pub async fn start(
        options: RelayOptions,
        authority: Arc<Authority>,
        client: Client,
        worlds: watch::Receiver<Option<Arc<World>>>,
    ) -> Result<Self, RelayError> {
        let hosts = vec![host_of(&options.address).to_owned()];
        let shown = Arc::new(Shown::from_pointee(authority.sign(&hosts)?));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(AuthorityError::from)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(&shown))));
        let listener =
            TcpListener::bind(options.listen)
                .await
                .map_err(|source| RelayError::Listen {
                    address: options.listen,
                    source,
                })?;
        let address = listener.local_addr().unwrap_or(options.listen);
        let shared = Arc::new(Shared {
            authority: Arc::clone(&authority),
            client,
            controller_name: options.controller_name,
            worlds,
        });
        let (connections, over) = watch::channel(());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepting = tokio::spawn(accept(listener, acceptor, shared, over));
        let renewing = tokio::spawn(renew(authority, hosts, shown));
        Ok(Self {
            address,
            tasks: [accepting.abort_handle(), renewing.abort_handle()],
            connections,
        })
    }

    /// The address that is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The address cannot be bound.
    #[error("cannot listen on {address} for data planes: {source}; choose another with --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// No certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

async fn renew(authority: Arc<Authority>, hosts: Vec<String>, shown: Arc<Shown>) {
    loop {
        tokio::time::sleep(RENEW).await;
        match authority.sign(&hosts) {
            Ok(fresh) => shown.store(Arc::new(fresh)),
            Err(error) => tracing::warn!(%error, "the certificate for data planes stays as it is"),
        }
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    over: watch::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (acceptor, shared, mut over) = (acceptor.clone(), Arc::clone(&shared), over.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, acceptor, shared) => {}
                _ = over.changed() => {}
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else {
        return;
    };
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(&request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a data plane's connection ended");
    }
}

impl Shared {
    async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if request.method() != Method::GET {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let Some(gateway) = asked(request.uri().path()) else {
            return refusal(StatusCode::NOT_FOUND, "try /v1/gateways/NAMESPACE/NAME\n");
        };
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        let verdict = match token {
            Some(token) => judge(&self.client, token, &gateway).await,
            None => Verdict::Unknown,
        };
        match verdict {
            Verdict::Granted => {}
            Verdict::Unknown => {
                return refusal(
                    StatusCode::UNAUTHORIZED,
                    "a token for this audience is needed\n",
                );
            }
            Verdict::Denied => {
                return refusal(
                    StatusCode::FORBIDDEN,
                    "this is another Gateway's data plane\n",
                );
            }
            Verdict::Unanswered => {
                return refusal(StatusCode::SERVICE_UNAVAILABLE, "the API server is away\n");
            }
        }
        let Some(world) = self.worlds.borrow().clone() else {
            return refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "the cluster has not been read yet\n",
            );
        };
        let Some(view) = world.view(&gateway, &self.controller_name) else {
            return refusal(StatusCode::NOT_FOUND, "no Gateway of ours\n");
        };
        let streaming = Streaming {
            sharing: self.authority.sharing(&gateway),
            gateway,
            controller_name: self.controller_name.clone(),
            worlds: self.worlds.clone(),
        };
        streaming.start(view)
    }
}

/// The Gateway of a path.
fn asked(path: &str) -> Option<ObjectKey> {
    let mut parts = path.strip_prefix("/v1/gateways/")?.split('/');
    let (namespace, name) = (parts.next()?, parts.next()?);
    let is_whole = parts.next().is_none() && !namespace.is_empty() && !name.is_empty();
    is_whole.then(|| ObjectKey::new(GATEWAY_GROUP, "Gateway", namespace, name))
}

fn refusal(status: StatusCode, sentence: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::from(sentence).boxed());
    *response.status_mut() = status;
    response
}

/// A stream of lines.
struct Streaming {
    gateway: ObjectKey,
    sharing: String,
    controller_name: String,
    worlds: watch::Receiver<Option<Arc<World>>>,
}

impl Streaming {
    fn start(mut self, first: View) -> Response<Body> {
        let (mut sender, body) = channel::Channel::<Bytes, Infallible>::new(1);
        tokio::spawn(async move {
            let sending = self.send(&mut sender, first);
            let _ = tokio::time::timeout(AT_MOST, sending).await;
        });
        let mut response = Response::new(body.boxed());
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn send(&mut self, sender: &mut channel::Sender<Bytes, Infallible>, view: View) {
        let Some(text) = first(&view, &self.sharing) else {
            return;
        };
        tracing::info!(gateway = %self.gateway, objects = view.len(), "a data plane follows");
        let (mut sent, mut number) = (view, 0);
        if sender.send_data(text.into()).await.is_err() {
            return;
        }
        let mut alive = Instant::now() + ALIVE;
        loop {
            // Changes that concern other Gateways are no sign of life for this one.
            let changed = tokio::time::timeout_at(alive, self.worlds.changed()).await;
            let text = match changed {
                Err(_) => Bytes::from_static(b"\n"),
                Ok(Err(_)) => return,
                Ok(Ok(())) => {
                    let world = self.worlds.borrow_and_update().clone();
                    let view =
                        world.and_then(|world| world.view(&self.gateway, &self.controller_name));
                    // A Gateway that is no longer ours: the data plane asks again and is told so.
                    let Some(view) = view else { return };
                    let Some(text) = line(number + 1, &sent, &view) else {
                        continue;
                    };
                    number += 1;
                    sent = view;
                    text.into()
                }
            };
            if sender.send_data(text).await.is_err() {
                return;
            }
            alive = Instant::now() + ALIVE;
        }
    }
}

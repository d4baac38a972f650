//! What is sent, as often as it has to be, and the rules for sending it again.

use std::time::Duration;

use fleet::Endpoint;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, StatusCode, Version};
use routing::{AppProtocol, Retry, RoutePolicy};
use scheduling::FailureKind;

use crate::body::RequestBody;
use crate::upstream::{ConnectError, SendError};
use crate::worker::Worker;

/// A request ready to be sent to any server of a pool.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    uri: Uri,
    pub(crate) headers: HeaderMap,
    body: RequestBody,
    /// The servers have their own names: a list of base URLs, not a pool behind one name.
    pub(crate) own_host: bool,
}

impl Outgoing {
    pub(crate) fn new(head: Parts, body: RequestBody) -> Self {
        let mut headers = head.headers;
        if let RequestBody::Pieces { .. } = &body {
            headers.insert(
                CONTENT_LENGTH,
                HeaderValue::from(body.length().unwrap_or_default()),
            );
        }
        Self {
            method: head.method,
            uri: head.uri,
            headers,
            body,
            own_host: false,
        }
    }

    /// The body, none of it sent.
    pub(crate) fn body(&self) -> &RequestBody {
        &self.body
    }

    /// The request for one attempt at `endpoint`; `None` when its body is spent.
    pub(crate) fn request(&self, endpoint: &Endpoint) -> Option<Request<RequestBody>> {
        let body = self.body.again()?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        if self.own_host {
            let host = HeaderValue::try_from(endpoint.authority()).ok()?;
            request.headers_mut().insert(HOST, host);
        }
        *request.uri_mut() = self.target(endpoint)?;
        if endpoint.protocol() == AppProtocol::H2c {
            absolute(&mut request, endpoint)?;
        }
        Some(request)
    }

    fn target(&self, endpoint: &Endpoint) -> Option<Uri> {
        let path = self.uri.path_and_query();
        let Some(base) = endpoint.base_path() else {
            return Some(
                path.cloned()
                    .map_or_else(|| Uri::from_static("/"), Uri::from),
            );
        };
        let joined = format!("{base}{}", path.map_or("/", PathAndQuery::as_str));
        PathAndQuery::try_from(joined).ok().map(Uri::from)
    }
}

/// HTTP/2 says the host in the target (RFC 9113, section 8.3.1).
fn absolute(request: &mut Request<RequestBody>, endpoint: &Endpoint) -> Option<()> {
    let host = request.headers_mut().remove(HOST);
    let authority = host
        .as_ref()
        .and_then(|host| host.to_str().ok())
        .unwrap_or(endpoint.authority());
    let scheme = if endpoint.tls().is_some() {
        "https"
    } else {
        "http"
    };
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
        .build()
        .ok()?;
    *request.version_mut() = Version::HTTP_2;
    Some(())
}

/// When another attempt is made.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Attempts after the first.
    extra: u32,
    codes: Codes,
    /// Also when a server may have seen the request.
    after_reset: bool,
    /// Also when a server let its time pass.
    after_timeout: bool,
    /// Retries are paid for from the pool's budget.
    budget: bool,
    /// With no other server left, the same one is asked again.
    same_server: bool,
    /// After the last server of a list from outside others of the pool are asked.
    pub(crate) beyond_list: bool,
    /// Least wait between attempts.
    pub(crate) backoff: Duration,
    /// From the request sent to the answer's head.
    pub(crate) patience: Duration,
}

#[derive(Debug, Clone)]
enum Codes {
    /// 502, 503, and 500, by which a server that shuts down refuses new work (vLLM).
    Away,
    None,
    Listed(Vec<StatusCode>),
}

impl Rules {
    /// For inference: generating is safe to repeat, as nothing is kept but what a client can name.
    pub(crate) fn inference(policy: &RoutePolicy, worker: &Worker) -> Self {
        Self::base(policy, worker).replaced(policy.retry.as_ref(), |rules| {
            rules.codes = Codes::Away;
            rules.after_reset = true;
        })
    }

    /// For requests that we know nothing about: only what is safe by RFC 9110, section 9.2.2.
    pub(crate) fn opaque(policy: &RoutePolicy, worker: &Worker, method: &Method) -> Self {
        Self::base(policy, worker).replaced(policy.retry.as_ref(), |rules| {
            rules.after_reset = method.is_idempotent();
        })
    }

    fn base(policy: &RoutePolicy, worker: &Worker) -> Self {
        let first_byte = worker.options.deadlines.first_byte;
        Self {
            extra: worker.options.retry.extra_servers,
            codes: Codes::None,
            after_reset: false,
            after_timeout: false,
            budget: true,
            same_server: false,
            beyond_list: false,
            backoff: Duration::ZERO,
            patience: policy
                .backend_timeout
                .map_or(first_byte, |limit| limit.min(first_byte)),
        }
    }

    /// A route's own `retry` replaces our defaults.
    fn replaced(mut self, retry: Option<&Retry>, default: impl FnOnce(&mut Self)) -> Self {
        match retry {
            None => default(&mut self),
            Some(retry) => {
                self.extra = retry.attempts;
                self.codes = Codes::Listed(retry.codes.clone());
                self.after_reset = true;
                self.after_timeout = true;
                self.budget = false;
                self.same_server = true;
                self.backoff = retry.backoff;
            }
        }
        self
    }

    /// Whether an answer with this status is worth another attempt.
    pub(crate) fn worth(&self, status: StatusCode) -> bool {
        match &self.codes {
            Codes::Away => matches!(status.as_u16(), 500 | 502 | 503),
            Codes::None => false,
            Codes::Listed(codes) => codes.contains(&status),
        }
    }

    /// Whether this failure is worth another attempt.
    pub(crate) fn worth_after(&self, error: &SendError) -> bool {
        match error {
            SendError::Connect(ConnectError::Spent) => false,
            SendError::Connect(_) => true,
            SendError::Reset { unsent, .. } => *unsent || self.after_reset,
            SendError::Silent => true,
            SendError::FirstByte(_) => self.after_timeout,
        }
    }

    /// Whether a request that a server may have seen can be sent once more.
    pub(crate) fn repeatable(&self) -> bool {
        self.after_reset
    }

    /// Whether there may be attempt number `done + 1`.
    pub(crate) fn again(&self, done: u32) -> bool {
        done <= self.extra
    }

    pub(crate) fn pays(&self) -> bool {
        self.budget
    }

    pub(crate) fn same_server(&self) -> bool {
        self.same_server
    }
}

/// What a failure tells the core about the server.
pub(crate) fn failure(error: &SendError) -> FailureKind {
    match error {
        SendError::Connect(_) => FailureKind::Connect,
        SendError::Reset { .. } => FailureKind::Reset,
        SendError::Silent | SendError::FirstByte(_) => FailureKind::Timeout,
    }
}

/// What a status tells the core about the server.
pub(crate) fn failed_status(status: StatusCode) -> FailureKind {
    match status {
        StatusCode::INTERNAL_SERVER_ERROR => FailureKind::Draining500,
        _ => FailureKind::ServerError,
    }
}

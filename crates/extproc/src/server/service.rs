//! The service of one call after the other.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use telemetry::Metrics;

use super::body_router::BodyRouter;
use super::picker::Picker;
use super::session::{Role, Session};
use super::wire::{Messages, Replies};

/// What a message may have besides the largest body: heads, trailers, metadata.
const BESIDES: usize = 1 << 20;

/// `envoy.service.ext_proc.v3.ExternalProcessor`.
#[derive(Debug, Clone)]
pub struct Service {
    role: Role,
    metrics: Arc<Metrics>,
    /// Largest message taken. A body that is somewhat too large must come through to be answered with 413.
    limit: usize,
}

impl Service {
    /// Picks servers.
    #[must_use]
    pub fn picking(picker: Arc<Picker>) -> Self {
        Self {
            limit: limit(picker.options.max_body),
            metrics: picker.metrics.clone(),
            role: Role::Picker(picker),
        }
    }

    /// Tells the model that a body names.
    #[must_use]
    pub fn routing(router: Arc<BodyRouter>, metrics: Arc<Metrics>) -> Self {
        Self {
            limit: limit(router.max_body()),
            metrics,
            role: Role::BodyRouter(router),
        }
    }

    /// Answers a call of `Process`.
    ///
    /// # Errors
    /// None: what is wrong is said in the call's own status.
    pub fn process<B>(&self, request: Request<B>) -> Result<Response<tonic::body::Body>, Infallible>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let traceparent = request
            .headers()
            .get("traceparent")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let messages = Messages::new(request.into_body(), self.limit);
        let open = self.metrics.stream();
        let session = Session::new(messages, self.role.clone(), traceparent, open);
        Ok(Replies::answer(session).map(tonic::body::Body::new))
    }
}

fn limit(max_body: usize) -> usize {
    max_body.saturating_mul(2).saturating_add(BESIDES)
}

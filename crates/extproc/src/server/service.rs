//! The gRPC service.

use std::sync::Arc;

use telemetry::Metrics;
use tonic::{Request, Response, Status, Streaming};

use super::body_router::BodyRouter;
use super::picker::Picker;
use super::session::{Role, Session};
use crate::proto::ext_proc::ProcessingRequest;
use crate::proto::service::{ExternalProcessor, ExternalProcessorServer};

/// What a message may have besides the largest body: heads, trailers, metadata.
const BESIDES: usize = 1 << 20;

/// `envoy.service.ext_proc.v3.ExternalProcessor`.
#[derive(Debug, Clone)]
pub struct Service {
    role: Role,
    metrics: Arc<Metrics>,
}

impl Service {
    /// Picks servers.
    #[must_use]
    pub fn picking(picker: Arc<Picker>) -> Self {
        let metrics = picker.metrics.clone();
        Self {
            role: Role::Picker(picker),
            metrics,
        }
    }

    /// Tells the model that a body names.
    #[must_use]
    pub fn routing(router: Arc<BodyRouter>, metrics: Arc<Metrics>) -> Self {
        Self {
            role: Role::BodyRouter(router),
            metrics,
        }
    }

    /// The service as tonic serves it. A message may be as large as the largest body and a little more: tonic's own
    /// 4 MiB are less than what proxies send.
    #[must_use]
    pub fn server(self) -> ExternalProcessorServer<Self> {
        let max_body = match &self.role {
            Role::Picker(picker) => picker.options.max_body,
            Role::BodyRouter(router) => router.max_body(),
        };
        ExternalProcessorServer::new(self)
            .max_decoding_message_size(max_body.saturating_mul(2).saturating_add(BESIDES))
            .max_encoding_message_size(usize::MAX)
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Service {
    type ProcessStream = Session;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Session>, Status> {
        let traceparent = request
            .metadata()
            .get("traceparent")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let open = self.metrics.stream();
        let session = Session::new(request.into_inner(), self.role.clone(), traceparent, open);
        Ok(Response::new(session))
    }
}

//! `grpc.health.v1.Health`: whether proxies should come here.
//!
//! Deployments ask for different names: the extension's conformance and its charts for `inference-extension`, charts with
//! several replicas for `liveness` and `readiness`, generic checks for nothing, the protocol's text for the service
//! itself. All of them are known. `liveness` is always well; the others follow the readiness of the process.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::proto::SERVICE;
use crate::proto::health::health_check_response::ServingStatus;
use crate::proto::health::health_server::{Health as HealthService, HealthServer};
use crate::proto::health::{HealthCheckRequest, HealthCheckResponse};

const LIVENESS: &str = "liveness";
const READINESS: [&str; 4] = ["", "readiness", "inference-extension", SERVICE];

/// The health of a process.
#[derive(Debug, Clone)]
pub struct Health(watch::Receiver<bool>);

impl Health {
    /// Health that follows `ready`.
    #[must_use]
    pub fn new(ready: watch::Receiver<bool>) -> Self {
        Self(ready)
    }

    /// The service as tonic serves it.
    #[must_use]
    pub fn server(self) -> HealthServer<Self> {
        HealthServer::new(self)
    }

    fn status(&self, name: &str) -> Option<ServingStatus> {
        if name == LIVENESS {
            return Some(ServingStatus::Serving);
        }
        READINESS.contains(&name).then(|| {
            if *self.0.borrow() {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            }
        })
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl HealthService for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        self.status(&name)
            .map(|status| Response::new(answer(status)))
            .ok_or_else(|| Status::not_found("this service is not known"))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// The present status, and each other one. A name that is not known stays unknown.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        let told: Option<ServingStatus> = None;
        let state = (self.clone(), name, told);
        let states = stream::unfold(state, |(mut health, name, told)| async move {
            loop {
                let now = health
                    .status(&name)
                    .unwrap_or(ServingStatus::ServiceUnknown);
                if told != Some(now) {
                    return Some((Ok(answer(now)), (health, name, Some(now))));
                }
                health.0.changed().await.ok()?;
                health.0.mark_unchanged();
            }
        });
        Ok(Response::new(states.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest {
            service: service.to_owned(),
        })
    }

    #[tokio::test]
    async fn all_five_names_are_known_and_follow_readiness_except_liveness() {
        let (ready, receiver) = watch::channel(false);
        let health = Health::new(receiver);
        for (state, status) in [
            (false, ServingStatus::NotServing),
            (true, ServingStatus::Serving),
        ] {
            ready.send_replace(state);
            for name in READINESS {
                let said = health.check(named(name)).await.unwrap().into_inner();
                assert_eq!(said.status, i32::from(status), "{name:?}");
            }
            let said = health.check(named(LIVENESS)).await.unwrap().into_inner();
            assert_eq!(said.status, i32::from(ServingStatus::Serving));
        }
        let error = health.check(named("other")).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::NotFound);
    }

    #[tokio::test]
    async fn a_watch_tells_the_state_now_and_each_change() {
        let (ready, receiver) = watch::channel(true);
        let health = Health::new(receiver);
        let mut states = health.watch(named("readiness")).await.unwrap().into_inner();
        let mut next = async || states.next().await.unwrap().unwrap().status;
        assert_eq!(next().await, i32::from(ServingStatus::Serving));
        ready.send_replace(false);
        assert_eq!(next().await, i32::from(ServingStatus::NotServing));
        ready.send_replace(true);
        assert_eq!(next().await, i32::from(ServingStatus::Serving));
        let mut unknown = health.watch(named("other")).await.unwrap().into_inner();
        let said = unknown.next().await.unwrap().unwrap();
        assert_eq!(said.status, i32::from(ServingStatus::ServiceUnknown));
    }
}

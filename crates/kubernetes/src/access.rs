//! Who may read a page of ours: the cluster is asked, as it is for its own components.
//!
//! A caller shows its token (`Authorization: Bearer ...`). A TokenReview says whose it is, a SubjectAccessReview whether
//! that user may do `verb` on the path, as a ClusterRole with `nonResourceURLs` grants it. Answers count for a minute, so
//! that a scrape every few seconds costs the API server next to nothing; tokens are kept as hashes only.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long an answer counts.
const KEPT: Duration = Duration::from_secs(60);
/// Answers kept at most; more callers than that are asked about each time.
const CALLERS: usize = 1000;

/// What the cluster says about a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may.
    Granted,
    /// It shows no token, or none that the cluster knows.
    Unknown,
    /// It is known, and may not.
    Denied,
    /// The cluster could not be asked, or would not say.
    Unanswered,
}

/// Asks the cluster about callers.
pub struct AccessReview {
    client: Client,
    hasher: RandomState,
    known: Mutex<HashMap<(u64, u64), (Access, Instant)>>,
}

impl std::fmt::Debug for AccessReview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessReview").finish_non_exhaustive()
    }
}

impl AccessReview {
    /// Asks through this client, whose own rights must include creating both kinds of reviews.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            hasher: RandomState::new(),
            known: Mutex::default(),
        }
    }

    /// Whether the caller with this `Authorization` may read `path`.
    pub async fn may_get(&self, authorization: Option<&str>, path: &str) -> Access {
        let token = authorization.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| token.trim())
                .filter(|token| !token.is_empty())
        });
        let Some(token) = token else {
            return Access::Unknown;
        };
        let key = (
            self.hasher.hash_one(token),
            self.hasher.hash_one((path, token)),
        );
        let now = Instant::now();
        if let Some((access, since)) = self.known.lock().get(&key)
            && now - *since < KEPT
        {
            return *access;
        }
        let access = self.ask(token, path).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the cluster does not say who may read {path}");
            Access::Unanswered
        });
        if access != Access::Unanswered {
            let mut known = self.known.lock();
            known.retain(|_, (_, since)| now - *since < KEPT);
            if known.len() < CALLERS {
                known.insert(key, (access, now));
            }
        }
        access
    }

    async fn ask(&self, token: &str, path: &str) -> Result<Access, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                ..TokenReviewSpec::default()
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await?;
        let status = review.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Ok(Access::Unknown);
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews
            .create(&PostParams::default(), &may_get(user, path))
            .await?;
        Ok(match review.status {
            Some(status) if status.allowed => Access::Granted,
            _ => Access::Denied,
        })
    }
}

fn may_get(user: UserInfo, path: &str) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(path.to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use http::{Request, Response, StatusCode};
    use http_body_util::{BodyExt, Full};
    use serde_json::{Value, json};

    use super::*;

    /// Knows the tokens `good` and `poor`, of whom only the first may; breaks at `broken`.
    fn cluster(asked: Arc<AtomicUsize>) -> Client {
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            asked.fetch_add(1, Ordering::Relaxed);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("in memory").to_bytes();
                let body: Value = serde_json::from_slice(&body).expect("JSON");
                let token = body["spec"]["token"].as_str().unwrap_or_default();
                let (status, answer) = if token == "broken" {
                    (StatusCode::INTERNAL_SERVER_ERROR, json!({}))
                } else if head.uri.path().ends_with("/tokenreviews") {
                    let known = matches!(token, "good" | "poor");
                    let status = json!({"authenticated": known, "user": {"username": token}});
                    (StatusCode::CREATED, json!({"spec": {}, "status": status}))
                } else {
                    let asked = &body["spec"]["nonResourceAttributes"];
                    assert_eq!(asked, &json!({"path": "/metrics", "verb": "get"}));
                    let allowed = body["spec"]["user"] == "good";
                    let status = json!({"allowed": allowed});
                    (StatusCode::CREATED, json!({"spec": {}, "status": status}))
                };
                let bytes = Bytes::from(answer.to_string());
                let mut response = Response::new(Full::new(bytes));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn callers_are_asked_about_once_a_minute() {
        let asked = Arc::new(AtomicUsize::new(0));
        let review = AccessReview::new(cluster(asked.clone()));
        for (authorization, access, questions) in [
            (None, Access::Unknown, 0),
            (Some("good"), Access::Unknown, 0),
            (Some("Basic good"), Access::Unknown, 0),
            (Some("Bearer "), Access::Unknown, 0),
            (Some("Bearer good"), Access::Granted, 2),
            (Some("bearer good"), Access::Granted, 0),
            (Some("Bearer poor"), Access::Denied, 2),
            (Some("Bearer poor"), Access::Denied, 0),
            (Some("Bearer other"), Access::Unknown, 1),
            (Some("Bearer broken"), Access::Unanswered, 1),
            (Some("Bearer broken"), Access::Unanswered, 1),
        ] {
            let before = asked.load(Ordering::Relaxed);
            assert_eq!(review.may_get(authorization, "/metrics").await, access);
            let after = asked.load(Ordering::Relaxed);
            assert_eq!(after - before, questions, "{authorization:?}");
        }
        tokio::time::advance(KEPT).await;
        let before = asked.load(Ordering::Relaxed);
        review.may_get(Some("Bearer good"), "/metrics").await;
        assert_eq!(asked.load(Ordering::Relaxed) - before, 2);
    }
}

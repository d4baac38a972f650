//! Who asks: a token is reviewed by the cluster, and says for which Gateway its owner may ask.

use api::{GATEWAY_GROUP, ObjectKey};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};

use super::AUDIENCE;
use crate::provision::resource_name;

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be answered.
    Granted,
    /// The token is nobody's, or made out to somebody else than us.
    Unknown,
    /// Its owner is no data plane of this Gateway.
    Denied,
    /// The cluster does not answer.
    Unanswered,
}

/// Whether the owner of `token` may read what the data planes of `gateway` are given.
pub(super) async fn judge(client: &Client, token: &str, gateway: &ObjectKey) -> Verdict {
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![AUDIENCE.to_owned()]),
        },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let status = match reviews.create(&PostParams::default(), &review).await {
        Ok(review) => review.status.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%gateway, %error, "the cluster does not say who asks");
            return Verdict::Unanswered;
        }
    };
    // An API server that does not know audiences would say nothing of them.
    let for_us = status
        .audiences
        .is_some_and(|all| all.iter().any(|one| one == AUDIENCE));
    let name = status.user.and_then(|user| user.username);
    let Some(name) = name.filter(|_| for_us && status.authenticated == Some(true)) else {
        return Verdict::Unknown;
    };
    if name == account(gateway) {
        Verdict::Granted
    } else {
        tracing::warn!(%gateway, user = name, "somebody asks for a Gateway that is not theirs");
        Verdict::Denied
    }
}

/// The user name of the ServiceAccount of a Gateway's data planes.
pub(super) fn account(gateway: &ObjectKey) -> String {
    debug_assert_eq!(gateway.group, GATEWAY_GROUP);
    format!(
        "system:serviceaccount:{}:{}",
        gateway.namespace,
        resource_name(&gateway.name)
    )
}

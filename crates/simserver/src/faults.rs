//! Failures on demand.
//!
//! Rates are shares of generation requests, 0 to 1, drawn from the server's seed. All of it can be changed while the
//! server runs: `POST /admin/config` takes a JSON object with the fields to change, `GET` shows them all.

use serde::{Deserialize, Serialize};

/// What to do wrong. The default is nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Share of requests that are answered with an error at once.
    pub failure_rate: f64,
    /// Which errors, evenly drawn; empty means all.
    pub failure_types: Vec<FailureKind>,
    /// After so many tokens the engine "dies" for the request: error event, then `[DONE]`.
    pub fail_after_tokens: Option<u32>,
    /// After so many tokens nothing more comes, on an open connection.
    pub stall_after_tokens: Option<u32>,
    /// After so many tokens the connection is reset.
    pub reset_after_tokens: Option<u32>,
    /// Share of requests whose connection is reset instead of an answer.
    pub reset_rate: f64,
    /// What `/metrics` does.
    pub metrics: MetricsMode,
    /// Milliseconds that `/metrics` takes to answer.
    pub metrics_delay_ms: u64,
    /// Whether `/health` answers 503.
    pub unhealthy: bool,
}

/// States of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MetricsMode {
    /// Live values.
    #[default]
    On,
    /// 404.
    Off,
    /// The page as it was when this mode was first asked for.
    Frozen,
}

/// Errors that [`Faults::failure_rate`] draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum FailureKind {
    /// 429.
    RateLimit,
    /// 401.
    InvalidApiKey,
    /// 400.
    ContextLength,
    /// 500.
    ServerError,
    /// 400.
    InvalidRequest,
    /// 404.
    ModelNotFound,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::RateLimit,
        Self::InvalidApiKey,
        Self::ContextLength,
        Self::ServerError,
        Self::InvalidRequest,
        Self::ModelNotFound,
    ];

    /// Status code, error type and message.
    pub(crate) fn answer(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::RateLimit => (429, "RateLimitError", "Rate limit reached (injected)."),
            Self::InvalidApiKey => (
                401,
                "AuthenticationError",
                "Incorrect API key provided (injected).",
            ),
            Self::ContextLength => (
                400,
                "BadRequestError",
                "The maximum context length is exceeded (injected).",
            ),
            Self::ServerError => (
                500,
                "InternalServerError",
                "The server had an error (injected).",
            ),
            Self::InvalidRequest => (400, "BadRequestError", "The request is invalid (injected)."),
            Self::ModelNotFound => (404, "NotFoundError", "The model does not exist (injected)."),
        }
    }
}

impl Faults {
    /// A copy with the fields of a JSON object replaced.
    ///
    /// # Errors
    /// Unknown fields, wrong types, and rates outside 0 to 1; then nothing changes.
    pub fn patched(&self, patch: &serde_json::Value) -> Result<Self, FaultsError> {
        let mut whole = serde_json::to_value(self)?;
        let (Some(fields), Some(changes)) = (whole.as_object_mut(), patch.as_object()) else {
            return Err(FaultsError::NotAnObject);
        };
        fields.extend(
            changes
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        let new: Self = serde_json::from_value(whole)?;
        new.checked()
    }

    /// The faults themselves if their rates are shares.
    ///
    /// # Errors
    /// A rate outside 0 to 1.
    pub fn checked(self) -> Result<Self, FaultsError> {
        let share = 0.0..=1.0;
        if share.contains(&self.failure_rate) && share.contains(&self.reset_rate) {
            Ok(self)
        } else {
            Err(FaultsError::NotAShare)
        }
    }
}

/// Why a change of [`Faults`] was refused.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// A field is unknown or has the wrong type.
    #[error(transparent)]
    Field(#[from] serde_json::Error),
    /// The body is not a JSON object.
    #[error("expected a JSON object")]
    NotAnObject,
    /// A rate is outside its range.
    #[error("failure_rate and reset_rate are shares from 0 to 1")]
    NotAShare,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_only_what_it_names() {
        let old = Faults {
            reset_rate: 0.5,
            ..Faults::default()
        };
        let new = old
            .patched(&serde_json::json!({"failure_rate": 0.25, "metrics": "frozen"}))
            .unwrap();
        assert_eq!(
            (new.reset_rate, new.failure_rate, new.metrics),
            (0.5, 0.25, MetricsMode::Frozen)
        );
        let cleared = Faults {
            fail_after_tokens: Some(3),
            ..old
        };
        let cleared = cleared
            .patched(&serde_json::json!({"fail_after_tokens": null}))
            .unwrap();
        assert_eq!(cleared.fail_after_tokens, None);
    }

    #[test]
    fn bad_patches_are_refused() {
        for bad in [
            serde_json::json!({"failure_rat": 0.1}),
            serde_json::json!({"failure_rate": 1.5}),
            serde_json::json!({"reset_rate": -0.1}),
            serde_json::json!({"metrics": "broken"}),
            serde_json::json!({"failure_types": ["nope"]}),
            serde_json::json!([1]),
        ] {
            assert!(Faults::default().patched(&bad).is_err(), "{bad}");
        }
    }
}

//! Why a request body is refused before any server is bothered.

/// A body that no server should be asked about. Every variant knows the byte where reading stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The body is not one JSON value in UTF-8.
    #[error("the body is not JSON: {what}, at byte {at}")]
    NotJson {
        /// Offset of the first byte that cannot be read.
        at: usize,
        /// What was wrong there.
        what: &'static str,
    },
    /// The body is JSON but nested deeper than any server reads.
    #[error("the body is nested more than {limit} levels deep, at byte {at}")]
    TooDeep {
        /// Offset of the bracket that opens one level too many.
        at: usize,
        /// The deepest nesting that is read.
        limit: usize,
    },
    /// The body is JSON but not an object.
    #[error("the body must be a JSON object, at byte {at}")]
    NotAnObject {
        /// Offset of the value.
        at: usize,
    },
    /// The dialect needs a model and the body names none.
    #[error("the field `model` is missing, at byte {at}")]
    ModelMissing {
        /// Offset of the end of the object.
        at: usize,
    },
    /// The body names the model twice; servers disagree about which one counts.
    #[error("the field `model` appears twice, at byte {at}")]
    ModelTwice {
        /// Offset of the second one.
        at: usize,
    },
    /// The model is a number, a list or the like.
    #[error("the field `model` must be a string, at byte {at}")]
    ModelNotAString {
        /// Offset of the value.
        at: usize,
    },
    /// The body is not the multipart form that the dialect asks for.
    #[error("the body is not a multipart form: {what}, at byte {at}")]
    NotMultipart {
        /// Offset where reading stopped.
        at: usize,
        /// What was wrong there.
        what: &'static str,
    },
}

impl RequestError {
    /// A stable word for metrics, logs and `error.code`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson { .. } => "invalid_json",
            Self::TooDeep { .. } => "json_too_deep",
            Self::NotAnObject { .. } => "body_not_an_object",
            Self::ModelMissing { .. } => "model_missing",
            Self::ModelTwice { .. } => "duplicate_model",
            Self::ModelNotAString { .. } => "model_not_a_string",
            Self::NotMultipart { .. } => "invalid_multipart",
        }
    }

    /// The field at fault, for `error.param`.
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::ModelMissing { .. } | Self::ModelTwice { .. } | Self::ModelNotAString { .. } => {
                Some("model")
            }
            Self::NotJson { .. }
            | Self::TooDeep { .. }
            | Self::NotAnObject { .. }
            | Self::NotMultipart { .. } => None,
        }
    }

    /// The byte offset in the body that the message names.
    #[must_use]
    pub fn at(&self) -> usize {
        match *self {
            Self::NotJson { at, .. }
            | Self::TooDeep { at, .. }
            | Self::NotAnObject { at }
            | Self::ModelMissing { at }
            | Self::ModelTwice { at }
            | Self::ModelNotAString { at }
            | Self::NotMultipart { at, .. } => at,
        }
    }

    /// One sentence that ends in `at byte N` and holds nothing of the body.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }
}

//! Why a document is no object: the error, and serde's words turned into words for people.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::object::group_of;
use crate::yaml::{Marks, Position, field_path};
use crate::{DISCOVERY_GROUP, GATEWAY_GROUP, INFERENCE_GROUP, INFERENCE_X_GROUP, LLM_D_GROUP};

/// Why a document is no object.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The text is not YAML.
    #[error("{position}: not valid YAML: {message}")]
    Syntax {
        /// Where reading stopped.
        position: Position,
        /// What is wrong.
        message: String,
    },
    /// An object of a kind or version that Pointsman does not read. Callers may skip it with a note.
    #[error("{}{}", At(position), unknown_kind(api_version, kind))]
    UnknownKind {
        /// Where the object begins, when it came from text.
        position: Option<Position>,
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
    },
    /// A field is missing or has a value it must not have.
    #[error("{}{}{message}", At(position), PathPrefix(path))]
    Field {
        /// Where the field stands, when it came from text; for a missing field, what is around it.
        position: Option<Position>,
        /// The field; empty for the whole document.
        path: String,
        /// What is wrong, and the way out.
        message: String,
    },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// `line 1, column 2: `, or nothing.
struct At<'a>(&'a Option<Position>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .as_ref()
            .map_or(Ok(()), |position| write!(f, "{position}: "))
    }
}

/// `spec.field: `, or nothing.
struct PathPrefix<'a>(&'a str);

impl fmt::Display for PathPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "{}: ", self.0)
        }
    }
}

impl DecodeError {
    pub(crate) fn field(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field {
            position: None,
            path: path.into(),
            message: message.into(),
        }
    }

    /// Where the error is, when the object came from text.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Syntax { position, .. } => Some(*position),
            Self::UnknownKind { position, .. } | Self::Field { position, .. } => *position,
        }
    }

    /// The line of the error, when the object came from text.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.position().map(|position| position.line)
    }

    /// The field that is wrong, when it is one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Field { path, .. } if !path.is_empty() => Some(path),
            _ => None,
        }
    }

    /// What is wrong, without place and field.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Syntax { message, .. } => format!("not valid YAML: {message}"),
            Self::UnknownKind {
                api_version, kind, ..
            } => unknown_kind(api_version, kind),
            Self::Field { message, .. } => message.clone(),
        }
    }

    /// Whether the object is merely of a kind that Pointsman does not read.
    #[must_use]
    pub fn is_unknown_kind(&self) -> bool {
        matches!(self, Self::UnknownKind { .. })
    }

    /// The same of a value that stands at `path`.
    pub(crate) fn beneath(mut self, around: &str) -> Self {
        if let Self::Field { path, .. } = &mut self {
            let dot = if path.is_empty() || path.starts_with('[') {
                ""
            } else {
                "."
            };
            *path = format!("{around}{dot}{path}");
        }
        self
    }

    pub(crate) fn located(mut self, marks: &Marks) -> Self {
        match &mut self {
            Self::Syntax { .. } => {}
            Self::UnknownKind { position, .. } => *position = marks.find("kind"),
            Self::Field { position, path, .. } => *position = marks.find(path),
        }
        self
    }
}

fn unknown_kind(api_version: &str, kind: &str) -> String {
    let versions = versions_of(kind, group_of(api_version));
    if versions.is_empty() {
        format!("objects of kind {kind} ({api_version}) are not read here")
    } else {
        format!(
            "{kind} is not read in version {api_version}; write {}",
            versions.join(" or ")
        )
    }
}

/// The versions of a kind that are read, those of `group` where it has any.
fn versions_of(kind: &str, group: &str) -> Vec<&'static str> {
    let known: &[&'static str] = match kind {
        "GatewayClass" | "Gateway" | "HTTPRoute" => &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1beta1",
        ],
        "GRPCRoute" | "ListenerSet" => &["gateway.networking.k8s.io/v1"],
        "TLSRoute" => &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1alpha3",
            "gateway.networking.k8s.io/v1alpha2",
        ],
        "ReferenceGrant" => &[
            "gateway.networking.k8s.io/v1beta1",
            "gateway.networking.k8s.io/v1",
        ],
        "BackendTLSPolicy" => &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1alpha3",
        ],
        "Service" | "Secret" | "ConfigMap" | "Namespace" => &["v1"],
        "EndpointSlice" => &["discovery.k8s.io/v1"],
        "InferencePool" => &[
            "inference.networking.k8s.io/v1",
            "inference.networking.x-k8s.io/v1alpha2",
        ],
        "InferenceModel" => &["inference.networking.x-k8s.io/v1alpha2"],
        "InferenceObjective" | "InferenceModelRewrite" => &[
            "inference.networking.x-k8s.io/v1alpha2",
            "llm-d.ai/v1alpha2",
            "llm-d.ai/v1alpha1",
        ],
        "InferencePoolImport" => &["inference.networking.x-k8s.io/v1alpha1"],
        _ => &[],
    };
    let same: Vec<_> = known
        .iter()
        .copied()
        .filter(|version| group_of(version) == group)
        .collect();
    // A foreign group's kind of the same name (a Gateway of a service mesh, say) is simply not ours.
    let foreign = group.contains('.') && !OUR_GROUPS.contains(&group);
    match (same.is_empty(), foreign) {
        (false, _) => same,
        (true, true) => Vec::new(),
        (true, false) => known.to_vec(),
    }
}

const OUR_GROUPS: &[&str] = &[
    GATEWAY_GROUP,
    INFERENCE_GROUP,
    INFERENCE_X_GROUP,
    LLM_D_GROUP,
    DISCOVERY_GROUP,
];

/// Runs serde and makes its error one for people. With `secret`, no value is quoted.
pub(crate) fn deserialize<T: DeserializeOwned>(
    value: &Value,
    secret: bool,
) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut path = error.path().to_string();
        if path == "." {
            path.clear();
        }
        let (missing, message) = explain(&error.inner().to_string(), secret);
        if let Some(missing) = missing {
            path = field_path(&path, &missing);
        }
        DecodeError::Field {
            position: None,
            path,
            message,
        }
    })
}

/// The name of a missing field, if that is the error, and the message with the way out.
fn explain(message: &str, secret: bool) -> (Option<String>, String) {
    if let Some(field) = message.strip_prefix("missing field `") {
        let field = field.trim_end_matches('`').to_owned();
        return (Some(field), "this field is required; add it".to_owned());
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return (None, message.to_owned());
    };
    let expected = match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "i64" | "i32" => "a whole number",
        "a map" => "an object (fields with values)",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "an object (fields with values)",
        other => other,
    };
    let way_out = match () {
        () if found.contains("type: string") && expected.contains("number") => {
            "; write it without quotes"
        }
        () if expected == "a string" && !found.contains("map") && !found.contains("sequence") => {
            "; put it in quotes"
        }
        () => "",
    };
    if secret {
        return (
            None,
            format!("the value has the wrong type: expected {expected}{way_out}"),
        );
    }
    let found = found
        .trim_start_matches("invalid type: ")
        .trim_start_matches("invalid value: ");
    (
        None,
        format!(
            "found {}, expected {expected}{way_out}",
            found.replace('`', "")
        ),
    )
}

//! What compiling found out about each object: the conditions that a controller writes and `check` prints.

use std::fmt;

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        })
    }
}

/// One condition, as `metav1.Condition` without the transition time (the writer keeps that).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `Programmed`, `ResolvedRefs`, ...
    pub type_: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word that the API of the kind defines.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `metadata.generation` of the object this was found out about.
    pub observed_generation: i64,
}

impl Condition {
    /// A condition of an object at `generation`.
    pub fn new(
        type_: &'static str,
        status: impl Into<ConditionStatus>,
        reason: &'static str,
        message: impl Into<String>,
        generation: i64,
    ) -> Self {
        Self {
            type_,
            status: status.into(),
            reason,
            message: message.into(),
            observed_generation: generation,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} {}", self.type_, self.status, self.reason)?;
        if self.message.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.message)
        }
    }
}

/// The parent that a condition of a route or a pool is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParentKey {
    /// API group, normally `gateway.networking.k8s.io`.
    pub group: String,
    /// Kind, normally `Gateway`.
    pub kind: String,
    /// Namespace, resolved (never empty).
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `sectionName` as written.
    pub section: Option<String>,
    /// `port` as written.
    pub port: Option<u16>,
}

/// A group and kind of routes, for `supportedKinds`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteKind {
    /// API group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
}

/// Something worth saying once in the log; not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `Kind namespace/name` that it is about.
    pub object: String,
    /// One sentence.
    pub message: String,
}

impl Condition {
    /// Whether the condition says that something is wrong. `Conflicted`, `PartiallyInvalid` and
    /// `InsecureFrontendValidationMode` are bad when they hold, all others when they do not.
    pub fn is_problem(&self) -> bool {
        let negative = matches!(
            self.type_,
            "Conflicted" | "PartiallyInvalid" | "InsecureFrontendValidationMode"
        );
        self.status
            == if negative {
                ConditionStatus::True
            } else {
                ConditionStatus::False
            }
    }
}

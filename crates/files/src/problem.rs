//! What can be said about files: problems, and documents of foreign kinds.

use std::fmt;
use std::path::PathBuf;

use api::ObjectKey;

/// What sort of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The file or directory cannot be read.
    Unreadable,
    /// The text is not YAML.
    Syntax,
    /// A document is no object that an API server would decode.
    Decode,
    /// The object breaks a rule of its kind.
    Invalid,
    /// Another object with the same key came before.
    Duplicate,
    /// The object has a field that nobody reads; only a warning.
    UnknownField,
}

/// A problem and where it is. Displays as `pool.yaml:12: InferencePool ns/x: spec.field: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was reached.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: Option<usize>,
    /// Field, for instance `spec.targetPorts[0].number`.
    pub field: Option<String>,
    /// The object, where its identity can be read.
    pub object: Option<ObjectKey>,
    /// What is wrong, and the way out.
    pub message: String,
    /// What sort of problem it is.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A document of a kind that is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file, as it was reached.
    pub file: PathBuf,
    /// Line, from 1, at which the document begins.
    pub line: usize,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its `kind`.
    pub kind: String,
    /// Why it is skipped, for instance because only another version is read.
    pub message: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: skipped: {}",
            self.file.display(),
            self.line,
            self.message
        )
    }
}

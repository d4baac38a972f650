//! What can go wrong in the lab before and after a run. Runs themselves do not fail.

use std::path::{Path, PathBuf};

use crate::workload::WorkloadError;

/// Why the lab could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No such policy.
    #[error("there is no policy {name:?}; there are: {known}")]
    Policy {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A setting of the product's pool that does not exist or makes no sense.
    #[error(
        "setting {setting:?}: {reason}; write pointsman@PATH=VALUE, several joined by '+', as in pointsman@prices.mu=0"
    )]
    Setting {
        /// What was asked for.
        setting: String,
        /// Why not.
        reason: String,
    },
    /// No such workload, or one that cannot be made.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A fleet that does not parse.
    #[error(
        "fleet {text:?}: {reason}; write MODEL*COUNT, several joined by '+', with MODEL one of {known}"
    )]
    Fleet {
        /// What was asked for.
        text: String,
        /// Why not.
        reason: String,
        /// The models there are.
        known: String,
    },
    /// An engine setting that does not parse.
    #[error("engine setting {text:?}: write KEY=VALUE with a number from 0, KEY one of {known}")]
    Adjustment {
        /// What was asked for.
        text: String,
        /// The keys there are.
        known: String,
    },
    /// A belief about step times that does not parse.
    #[error(
        "belief {text:?}: write a factor from 0 (1.3), or factors on constants (a=1.3,q=0.7) of c0, w_base, a, q, k_v, s"
    )]
    Belief {
        /// What was asked for.
        text: String,
    },
    /// A weather that does not parse.
    #[error(
        "weather switch {switch:?}: write a preset ({known}), or switches as jitter=0.5, loss=3@200, join=3@300, slow=2x3@100, vanish@100-200"
    )]
    Weather {
        /// What was asked for.
        switch: String,
        /// The presets there are.
        known: String,
    },
    /// A recording that does not read.
    #[error(transparent)]
    Recording(#[from] recording::ReadError),
    /// A plan with nothing to do or values out of range.
    #[error("{0}")]
    Plan(&'static str),
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A results file that does not read.
    #[error("{path}: {source}")]
    Json {
        /// Which.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
}

impl LabError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn json(path: &Path, source: serde_json::Error) -> Self {
        Self::Json {
            path: path.to_owned(),
            source,
        }
    }
}

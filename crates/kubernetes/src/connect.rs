//! The way to the API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A watch on which nothing at all comes is dead after this time: API servers send a bookmark about every minute, and
/// a connection that was cut without a word would otherwise be believed in for good.
const SILENCE: Duration = Duration::from_secs(150);

/// What can go wrong on the way to an API server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kubeconfig file cannot be used.
    #[error("cannot use the kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// There is neither a service account (in a Pod) nor a kubeconfig.
    #[error(
        "no cluster: not in a Pod with a service account, and no usable kubeconfig (KUBECONFIG, ~/.kube/config): {0}"
    )]
    NoCluster(#[source] Box<kube::config::InferConfigError>),
    /// The client cannot be built, for instance because of a broken certificate.
    #[error("cannot build a client for the API server: {0}")]
    Client(#[source] Box<kube::Error>),
}

/// A client for the cluster: of the kubeconfig given, else of the Pod we run in, else of `KUBECONFIG` or
/// `~/.kube/config`. Nothing is asked yet: an API server that is away is no error here.
///
/// # Errors
/// When no cluster is configured, or its configuration cannot be used.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Error> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => match Config::incluster() {
            Ok(config) => config,
            Err(_) => Config::infer()
                .await
                .map_err(|error| Error::NoCluster(Box::new(error)))?,
        },
    };
    config.read_timeout = Some(SILENCE);
    Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))
}

async fn from_file(path: &Path) -> Result<Config, Error> {
    let failed = |source| Error::Kubeconfig {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let file = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(failed)
}

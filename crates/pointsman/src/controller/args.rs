//! Flags of `pointsman controller`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Flags of `controller`.
#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Image of the data planes.
    #[arg(long, value_name = "IMAGE", env = "POINTSMAN_IMAGE")]
    pub(super) image: String,
    /// How data planes reach this controller, such as `pointsman-controller.pointsman-system.svc:8443`.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "POINTSMAN_CONTROLLER_ADDRESS",
        value_parser = host_and_port
    )]
    pub(super) address: String,
    /// Where data planes are told their objects, over HTTPS.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    pub(super) listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:9090",
        env = "POINTSMAN_ADMIN"
    )]
    pub(super) admin: SocketAddr,
    /// Namespace of the controller's own Lease and Secret; without it that of its service account or kubeconfig.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pub(super) system_namespace: Option<String>,
    /// Gateways of classes with this controllerName are served.
    #[arg(long, value_name = "NAME", default_value = routing::CONTROLLER_NAME)]
    pub(super) controller_name: String,
    /// Read objects of this namespace only; may be repeated.
    #[arg(long = "namespace", value_name = "NAME")]
    pub(super) namespaces: Vec<String>,
    /// The cluster's kubeconfig; without it, the Pod's service account, else KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
}

/// `HOST:PORT`, where the host may be an address.
fn host_and_port(text: &str) -> Result<String, NoAddress> {
    let (host, port) = text.rsplit_once(':').ok_or(NoAddress)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(NoAddress);
    }
    Ok(text.to_owned())
}

/// A text that is no address.
#[derive(Debug, thiserror::Error)]
#[error("an address is written HOST:PORT")]
struct NoAddress;

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for good in ["controller.system.svc:8443", "10.0.0.1:1", "[fd00::1]:443"] {
            assert_eq!(host_and_port(good).ok().as_deref(), Some(good));
        }
        for bad in ["", "host", ":1", "host:", "host:x", "host:70000"] {
            assert!(host_and_port(bad).is_err(), "{bad:?}");
        }
    }
}

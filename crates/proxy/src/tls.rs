//! TLS towards clients: certificates of a port's listeners, chosen by SNI.
//!
//! A handshake that names a host gets the certificate of the most specific listener for it. One that names none gets
//! the certificate of the listener without a hostname, and fails where there is no such listener: which of several
//! tenants' certificates to show is not ours to guess. Secrets change while we run; a port's configuration is then
//! replaced as a whole, and connections that stand keep what they have.

use std::sync::Arc;

use routing::{Certificate, Hostname, PortPlan};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsProblem {
    /// The chain or the key is not PEM.
    #[error("certificate {source_name}: {what} is not usable PEM")]
    Pem {
        /// The Secret.
        source_name: String,
        /// Which of the two.
        what: &'static str,
    },
    /// rustls refuses it.
    #[error("certificate {source_name}: {error}")]
    Refused {
        /// The Secret.
        source_name: String,
        /// Why.
        error: rustls::Error,
    },
    /// The provider does not offer a protocol version.
    #[error("TLS: {0}")]
    Config(#[from] rustls::Error),
}

/// The certificates of one port.
#[derive(Debug, Default)]
struct Certificates {
    listeners: Vec<(Option<Hostname>, Vec<Arc<CertifiedKey>>)>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let (_, keys) = self
            .listeners
            .iter()
            .find(|(hostname, _)| match (hostname, name) {
                (None, _) => true,
                (Some(hostname), Some(name)) => hostname.matches(name),
                (Some(_), None) => false,
            })?;
        let fits =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        keys.iter().find(fits).or(keys.first()).cloned()
    }
}

/// The TLS configuration of a port, and what is wrong with the certificates that had to be left out.
///
/// # Errors
/// When TLS itself cannot be set up.
pub(crate) fn server_config(
    port: &PortPlan,
) -> Result<(Arc<ServerConfig>, Vec<TlsProblem>), TlsProblem> {
    let mut problems = Vec::new();
    let mut certificates = Certificates::default();
    for listener in &port.listeners {
        let mut keys = Vec::new();
        for certificate in &listener.certificates {
            match load(certificate) {
                Ok(key) => keys.push(Arc::new(key)),
                Err(problem) => problems.push(problem),
            }
        }
        certificates
            .listeners
            .push((listener.hostname.clone(), keys));
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), problems))
}

fn load(certificate: &Certificate) -> Result<CertifiedKey, TlsProblem> {
    let pem = |what| TlsProblem::Pem {
        source_name: certificate.source.clone(),
        what,
    };
    let chain = CertificateDer::pem_slice_iter(&certificate.chain)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| pem("the chain"))?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.key).map_err(|_| pem("the key"))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
        TlsProblem::Refused {
            source_name: certificate.source.clone(),
            error,
        }
    })
}

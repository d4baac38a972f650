//! TLS towards servers.
//!
//! Certificates are always verified: against the system's roots, or against the roots that a policy names, for the
//! server's name or for names that a policy wants ([`crate::verify`]). The crypto
//! provider is named here and not taken from the process, so that it does not matter who installed which default.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use routing::{AppProtocol, Certificate, UpstreamTls, Verify};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::Error;
use crate::verify::AnyName;

/// What it takes to open a TLS connection to a server.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Roots and protocols.
    #[must_use]
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name to ask for and to verify.
    #[must_use]
    pub fn name(&self) -> &ServerName<'static> {
        &self.name
    }
}

/// Configurations in use: servers of one pool, and pools with equal settings, share one, and with it its sessions.
#[derive(Debug, Default)]
pub(crate) struct TlsConfigs(Mutex<Vec<(UpstreamTls, AppProtocol, Arc<ClientConfig>)>>);

impl TlsConfigs {
    /// The settings for one server. `host` is its name where the settings give none.
    pub(crate) fn client(
        &self,
        tls: &UpstreamTls,
        protocol: AppProtocol,
        host: &str,
    ) -> Result<ClientTls, Error> {
        let name = tls.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Error::ServerName(name.to_owned()))?;
        Ok(ClientTls {
            config: self.config(tls, protocol)?,
            name,
        })
    }

    fn config(&self, tls: &UpstreamTls, protocol: AppProtocol) -> Result<Arc<ClientConfig>, Error> {
        // The name is of the connection, not of the configuration.
        let wanted = UpstreamTls {
            server_name: None,
            ..tls.clone()
        };
        let mut configs = self.0.lock();
        if let Some((_, _, config)) = configs
            .iter()
            .find(|(known, p, _)| *known == wanted && *p == protocol)
        {
            return Ok(config.clone());
        }
        let mut config = client_config(tls)?;
        config.alpn_protocols = vec![match protocol {
            AppProtocol::Http => b"http/1.1".to_vec(),
            AppProtocol::H2c => b"h2".to_vec(),
        }];
        let config = Arc::new(config);
        // Roots are replaced now and then; those of long ago need not be kept.
        if configs.len() >= 64 {
            configs.remove(0);
        }
        configs.push((wanted, protocol, config.clone()));
        Ok(config)
    }
}

/// The configuration for connections under these settings, without protocols. The name is the connection's.
///
/// # Errors
/// Roots or the certificate to be shown cannot be used.
pub fn client_config(tls: &UpstreamTls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let roots = roots(&tls.verify)?;
    let builder = if tls.alt_names.is_empty() {
        builder.with_root_certificates(roots)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName {
                roots,
                names: tls.alt_names.clone(),
                provider,
            }))
    };
    Ok(match &tls.client {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let (chain, key) = identity(certificate)?;
            builder.with_client_auth_cert(chain, key)?
        }
    })
}

/// What is shown to servers that ask who we are.
fn identity(
    certificate: &Certificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let broken = || Error::Identity(certificate.source.clone());
    let chain = CertificateDer::pem_slice_iter(&certificate.chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| broken())?;
    let key = PrivateKeyDer::from_pem_slice(&certificate.key).map_err(|_| broken())?;
    Ok((chain, key))
}

/// Certificates to verify a server against.
pub(crate) fn roots(verify: &Verify) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    match verify {
        Verify::System => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                let why = found
                    .errors
                    .first()
                    .map_or_else(|| "none found".to_owned(), ToString::to_string);
                return Err(Error::Roots(why));
            }
        }
        Verify::Roots(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                store.add(certificate.map_err(|error| Error::Roots(error.to_string()))?)?;
            }
            if store.is_empty() {
                return Err(Error::Roots("no certificate in the PEM".to_owned()));
            }
        }
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(pem: &[u8], name: Option<&str>) -> UpstreamTls {
        UpstreamTls {
            server_name: name.map(str::to_owned),
            verify: Verify::Roots(pem.into()),
            ..UpstreamTls::default()
        }
    }

    #[test]
    fn pem_roots_make_a_configuration_that_is_shared() {
        let key = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let tls = upstream(key.cert.pem().as_bytes(), None);
        let configs = TlsConfigs::default();
        let a = configs.client(&tls, AppProtocol::Http, "a.test").unwrap();
        let b = configs
            .client(&tls, AppProtocol::Http, "127.0.0.1")
            .unwrap();
        let c = configs.client(&tls, AppProtocol::H2c, "a.test").unwrap();
        assert!(Arc::ptr_eq(a.config(), b.config()));
        assert!(!Arc::ptr_eq(a.config(), c.config()));
        assert_eq!(c.config().alpn_protocols, [b"h2".to_vec()]);
        assert_eq!(*a.name(), ServerName::try_from("a.test").unwrap());
    }

    #[test]
    fn bad_roots_and_names_are_errors() {
        let configs = TlsConfigs::default();
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in [b"".as_slice(), b"no pem", broken] {
            assert!(
                configs
                    .client(&upstream(pem, None), AppProtocol::Http, "a")
                    .is_err(),
                "{pem:?}"
            );
        }
        let key = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let tls = upstream(key.cert.pem().as_bytes(), Some("not a name"));
        assert!(matches!(
            configs.client(&tls, AppProtocol::Http, "a"),
            Err(Error::ServerName(_))
        ));
    }
}

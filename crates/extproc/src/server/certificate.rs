//! The certificate that proxies see.
//!
//! Pickers make their own at every start and proxies do not verify it: the connection is encrypted and no more. Where a
//! certificate is given it is read again when its files change, and the connections that come after see the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no PEM of what it should be.
    #[error("{path}: {source}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not go together, or are of a kind that is not known.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// No certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate and its key, and where they came from.
#[derive(Debug)]
pub struct Certificate {
    shown: Arc<Shown>,
    provider: Arc<CryptoProvider>,
    source: Option<Source>,
}

#[derive(Debug)]
struct Source {
    chain: PathBuf,
    key: PathBuf,
    /// The bytes last taken.
    seen: Mutex<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificate {
    /// One of our own making: ECDSA, P-256.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn self_signed() -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let made = rcgen::generate_simple_self_signed(vec!["pointsman".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let key = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider)?;
        Ok(Arc::new(Self {
            shown: Arc::new(Shown(ArcSwap::from_pointee(key))),
            provider,
            source: None,
        }))
    }

    /// `tls.crt` and `tls.key` of a folder.
    ///
    /// # Errors
    /// They cannot be read or used.
    pub fn from_folder(folder: &Path) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let source = Source {
            chain: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            seen: Mutex::default(),
        };
        let (chain, key) = source.read()?;
        let certified = source.certified(&chain, &key, &provider)?;
        *source.seen.lock() = (chain, key);
        Ok(Arc::new(Self {
            shown: Arc::new(Shown(ArcSwap::from_pointee(certified))),
            provider,
            source: Some(source),
        }))
    }

    /// Looks whether the files have changed, and shows what is in them from now on. Says whether they had.
    ///
    /// # Errors
    /// What is in them now cannot be used; what was shown stays.
    pub fn reload(&self) -> Result<bool, CertificateError> {
        let Some(source) = &self.source else {
            return Ok(false);
        };
        let (chain, key) = source.read()?;
        if *source.seen.lock() == (chain.clone(), key.clone()) {
            return Ok(false);
        }
        let certified = source.certified(&chain, &key, &self.provider)?;
        self.shown.0.store(Arc::new(certified));
        *source.seen.lock() = (chain, key);
        Ok(true)
    }

    /// TLS with it, for HTTP/2.
    pub(super) fn config(&self) -> Result<ServerConfig, CertificateError> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl Source {
    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| CertificateError::Read {
                path: path.clone(),
                source,
            })
        };
        Ok((read(&self.chain)?, read(&self.key)?))
    }

    fn certified(
        &self,
        chain: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, CertificateError> {
        let wrong = |path: &PathBuf| {
            let path = path.clone();
            move |source| CertificateError::Pem { path, source }
        };
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(wrong(&self.chain))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(wrong(&self.key))?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    }

    fn shown(certificate: &Certificate) -> Vec<u8> {
        certificate.shown.0.load().cert[0].to_vec()
    }

    #[test]
    fn new_files_are_taken_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Certificate::from_folder(folder.path()),
            Err(CertificateError::Read { .. })
        ));
        write(folder.path(), "a");
        let certificate = Certificate::from_folder(folder.path()).unwrap();
        certificate.config().unwrap();
        let first = shown(&certificate);
        assert!(!certificate.reload().unwrap());
        write(folder.path(), "b");
        assert!(certificate.reload().unwrap());
        let second = shown(&certificate);
        assert_ne!(first, second);
        std::fs::write(folder.path().join("tls.key"), "no key").unwrap();
        assert!(certificate.reload().is_err());
        assert_eq!(shown(&certificate), second);
    }

    #[test]
    fn each_start_has_its_own() {
        let (a, b) = (
            Certificate::self_signed().unwrap(),
            Certificate::self_signed().unwrap(),
        );
        assert_ne!(shown(&a), shown(&b));
        assert!(!a.reload().unwrap());
    }
}

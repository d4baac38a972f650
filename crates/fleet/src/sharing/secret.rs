//! How siblings know each other: by a text that all of them have, by certificates, or not at all.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use parking_lot::Mutex;
use routing::Verify;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;
use crate::tls::roots;

/// The text that siblings must know.
pub(super) struct Token(Option<PathBuf>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").field(&self.0).finish()
    }
}

impl Token {
    /// One in a file, which must hold one now.
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, Error> {
        let token = Self(path);
        token.read()?;
        Ok(token)
    }

    /// What `authorization` must say now; `None` if anybody may talk.
    pub(super) fn read(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.0 else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let text = text.trim();
        let usable = !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if !usable {
            return Err(Error::Token(path.clone()));
        }
        Ok(Some(format!("Bearer {text}")))
    }

    /// Whether what somebody says is right. A file that cannot be read lets nobody in.
    pub(super) fn admits(&self, said: Option<&[u8]>) -> bool {
        match self.read() {
            Ok(None) => true,
            Ok(Some(wanted)) => {
                verify_slices_are_equal(wanted.as_bytes(), said.unwrap_or_default()).is_ok()
            }
            Err(error) => {
                tracing::error!(%error, "siblings cannot be let in");
                false
            }
        }
    }
}

/// TLS with certificates from a folder, read again when they change.
pub(super) struct Certificates {
    folder: PathBuf,
    current: Mutex<(Files, Configs)>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.folder).finish()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Configs {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

/// The bytes of `tls.crt`, `tls.key` and `ca.crt`.
type Files = [Vec<u8>; 3];

impl Certificates {
    pub(super) fn open(folder: PathBuf) -> Result<Self, Error> {
        let files = files(&folder)?;
        let configs = configs(&files)?;
        Ok(Self {
            folder,
            current: Mutex::new((files, configs)),
        })
    }

    /// What is to be used for the next connection. Files that are broken leave it as it was.
    pub(super) fn configs(&self) -> Configs {
        let mut current = self.current.lock();
        match files(&self.folder) {
            Ok(found) if found != current.0 => match configs(&found) {
                Ok(made) => *current = (found, made),
                Err(error) => {
                    tracing::error!(%error, "the old certificate stays for siblings");
                    current.0 = found;
                }
            },
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the old certificate stays for siblings"),
        }
        current.1.clone()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn files(folder: &Path) -> Result<Files, Error> {
    Ok([
        read(&folder.join("tls.crt"))?,
        read(&folder.join("tls.key"))?,
        read(&folder.join("ca.crt"))?,
    ])
}

fn configs([chain, key, ca]: &Files) -> Result<Configs, Error> {
    let broken = |error: rustls_pki_types::pem::Error| Error::Roots(error.to_string());
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(broken)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(broken)?;
    let roots = Arc::new(roots(&Verify::Roots(ca.as_slice().into()))?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| Error::Roots(error.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Configs {
        server: Arc::new(server),
        client: Arc::new(client),
    })
}

//! TLS towards clients: what becomes of a handshake, chosen by the name that it asks for (SNI).
//!
//! A handshake that names a host is for the most specific listener for it: it gets that one's certificate, is asked for
//! the client's own where that one wants it, or goes to a server as it is. One that names none is for the listener
//! without a hostname, and fails where there is no such listener: which of several tenants' certificates to show is not
//! ours to guess. Each listener has a configuration of its own, so that a session begun with one cannot be resumed with
//! another. Secrets change while we run; a port's configurations are then replaced as a whole, and connections that
//! stand keep what they have.

use std::sync::Arc;

use routing::{Certificate, ClientAuth, Hostname, Listener, ListenerMode, PortPlan};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

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
    /// The authorities for clients' certificates cannot be used.
    #[error("listener {listener}: authorities for clients' certificates: {why}")]
    Authorities {
        /// The listener.
        listener: String,
        /// Why.
        why: String,
    },
    /// The provider does not offer a protocol version.
    #[error("TLS: {0}")]
    Config(#[from] rustls::Error),
}

/// What becomes of handshakes on one port.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    /// By listener; `None`: none of its certificates can be used, or its clients cannot be verified.
    listeners: Vec<(Option<Hostname>, Option<Manner>)>,
    /// Sessions are passed on to servers here.
    sessions: bool,
}

/// What becomes of a handshake.
#[derive(Debug)]
pub(crate) enum Manner {
    /// It ends here, and HTTP follows.
    Http(Arc<ServerConfig>),
    /// It ends here, and what follows is for a server.
    Open(Arc<ServerConfig>),
    /// It is for a server.
    Pass,
}

impl Handshakes {
    /// What becomes of a handshake that asks for `name`; `None`: it fails.
    pub(crate) fn of(&self, name: Option<&str>) -> Option<&Manner> {
        let (_, manner) = self
            .listeners
            .iter()
            .find(|(hostname, _)| match (hostname, name) {
                (None, _) => true,
                (Some(hostname), Some(name)) => hostname.matches(name),
                (Some(_), None) => false,
            })?;
        manner.as_ref()
    }

    /// Whether one who asks for a name that nobody here has is told so. Where sessions are passed on it is not for us to
    /// speak: the connection is closed, as it would be by a server that is not there.
    pub(crate) fn answers(&self) -> bool {
        !self.sessions
    }
}

/// The certificates of one listener.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

/// What becomes of handshakes on a port, and what is wrong with what had to be left out.
pub(crate) fn handshakes(port: &PortPlan) -> (Arc<Handshakes>, Vec<TlsProblem>) {
    let mut problems = Vec::new();
    let mut decide = |listener: &Listener| {
        manner(listener, &mut problems).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        })
    };
    let listeners = port
        .listeners
        .iter()
        .map(|listener| (listener.hostname.clone(), decide(listener)))
        .collect();
    let mut modes = port.listeners.iter().map(|listener| listener.mode);
    let sessions = modes.any(|mode| mode != ListenerMode::Http);
    let handshakes = Handshakes {
        listeners,
        sessions,
    };
    (Arc::new(handshakes), problems)
}

fn manner(
    listener: &Listener,
    problems: &mut Vec<TlsProblem>,
) -> Result<Option<Manner>, TlsProblem> {
    if listener.mode == ListenerMode::TlsPassthrough {
        return Ok(Some(Manner::Pass));
    }
    let mut keys = Vec::new();
    for certificate in &listener.certificates {
        match load(certificate) {
            Ok(key) => keys.push(Arc::new(key)),
            Err(problem) => problems.push(problem),
        }
    }
    if keys.is_empty() {
        return Ok(None);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match &listener.clients {
        None => builder.with_no_client_auth(),
        Some(auth) => {
            let verifier = verifier(auth, provider).map_err(|why| TlsProblem::Authorities {
                listener: listener.name.clone(),
                why,
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates(keys)));
    Ok(Some(if listener.mode == ListenerMode::Http {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Manner::Http(Arc::new(config))
    } else {
        Manner::Open(Arc::new(config))
    }))
}

/// Verifies clients as a listener wants it.
fn verifier(
    auth: &ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    if auth.optional {
        return Ok(Arc::new(Anybody(provider)));
    }
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&auth.roots) {
        let root = root.map_err(|error| error.to_string())?;
        roots.add(root).map_err(|error| error.to_string())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = builder.build().map_err(|error| error.to_string())?;
    Ok(verifier)
}

/// Asks clients for a certificate and lets in whoever comes (Gateway API, `AllowInsecureFallback`). That a client has the
/// key to the certificate that it shows is verified all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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

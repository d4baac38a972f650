//! TLS towards pickers.
//!
//! A picker makes its own certificate at every start, so by default any will do: the connection is private, and whom it
//! goes to is the cluster's network's word. A BackendTLSPolicy on the picker's Service makes it a matter of certificates.

use std::sync::Arc;

use routing::{PickerTls, UpstreamTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::Failure;

/// What it takes to open a TLS connection.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl Tls {
    /// The settings for a picker at `host`; `None`: cleartext.
    pub(super) fn new(tls: &PickerTls, host: &str) -> Result<Option<Self>, Failure> {
        let policy = match tls {
            PickerTls::Plaintext => return Ok(None),
            PickerTls::Unverified => None,
            PickerTls::Verified(policy) => Some(policy),
        };
        let name = policy
            .and_then(|policy| policy.server_name.as_deref())
            .unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| Failure::Connect(error.to_string()))?;
        let config = config(policy).map_err(Failure::Connect)?;
        Ok(Some(Self {
            config: Arc::new(config),
            name,
        }))
    }
}

fn config(policy: Option<&UpstreamTls>) -> Result<ClientConfig, String> {
    let mut config = match policy {
        Some(policy) => fleet::client_config(policy).map_err(|error| error.to_string())?,
        None => anybody().map_err(|error| error.to_string())?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The configuration for a picker that nobody vouches for.
fn anybody() -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth())
}

/// Takes every certificate, but only from somebody who has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

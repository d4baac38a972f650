//! Verifying a server's certificate by names of its own (Gateway API, `BackendTLSPolicyValidation.subjectAltNames`).
//!
//! The certificate must come from a trusted authority and have at least one of the names that are wanted. The name in the
//! handshake has no part in it then.

use std::sync::Arc;

use routing::AltName;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Accepts a certificate that has one of these names.
#[derive(Debug)]
pub(crate) struct AnyName {
    pub(crate) roots: RootCertStore,
    pub(crate) names: Vec<AltName>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl AnyName {
    fn has_name(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let known = webpki::EndEntityCert::try_from(certificate).map_err(|error| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        })?;
        let fits = |name: &AltName| match name {
            AltName::Dns(name) => ServerName::try_from(name.as_str())
                .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok()),
            AltName::Uri(uri) => known.valid_uri_names().any(|found| found == uri),
        };
        Ok(self.names.iter().any(fits))
    }
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        if self.has_name(end_entity)? {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier(root: &rcgen::Certificate, names: &[AltName]) -> AnyName {
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        AnyName {
            roots,
            names: names.to_vec(),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        }
    }

    #[test]
    fn one_of_the_names_suffices_and_the_authority_counts() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let uri = rcgen::string::Ia5String::try_from("spiffe://a.test/one").unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        let own = params.self_signed(&key).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let dns = |name: &str| AltName::Dns(name.to_owned());
        let uri = |name: &str| AltName::Uri(name.to_owned());
        let cases = [
            (&own, vec![dns("a.test")], true),
            (&own, vec![dns("b.test")], false),
            (&own, vec![uri("spiffe://a.test/one")], true),
            (&own, vec![uri("spiffe://a.test/two")], false),
            (&own, vec![uri("spiffe://a.test/two"), dns("a.test")], true),
            (&own, vec![uri("a.test"), dns("spiffe://a.test/one")], false),
            (&other.cert, vec![dns("a.test")], false),
        ];
        for (root, names, expected) in cases {
            let name = ServerName::try_from("z.test").unwrap();
            let verified = verifier(root, &names).verify_server_cert(
                own.der(),
                &[],
                &name,
                &[],
                UnixTime::now(),
            );
            assert_eq!(verified.is_ok(), expected, "{names:?}: {verified:?}");
        }
    }
}

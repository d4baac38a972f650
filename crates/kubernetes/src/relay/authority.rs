//! The certificate authority of a controller.
//!
//! Made by whichever copy of the controller comes first and kept in a Secret of its namespace, so that all copies are
//! trusted by the same certificate. Each copy signs a certificate for itself at its start and again every day; its key
//! never leaves the process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::ObjectKey;
use aws_lc_rs::hmac;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

/// Name of the Secret.
const SECRET: &str = "pointsman-controller-ca";
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
/// How long the authority lasts, and a certificate of a copy.
const AUTHORITY_LASTS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const LEAF_LASTS: Duration = Duration::from_secs(90 * 24 * 3600);
/// Clocks differ.
const EARLIER: Duration = Duration::from_secs(3600);

/// What can go wrong with the authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The Secret cannot be read or made.
    #[error("cannot read or make the Secret {namespace}/{SECRET}: {source}")]
    Cluster {
        /// Where.
        namespace: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The Secret is there without what should be in it.
    #[error(
        "the Secret {namespace}/{SECRET} has no readable {CERTIFICATE} and {KEY}; delete it to have it made anew"
    )]
    Incomplete {
        /// Where.
        namespace: String,
    },
    /// A certificate or key cannot be made or read.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A certificate cannot be served.
    #[error("cannot serve a certificate: {0}")]
    Serve(#[from] rustls::Error),
}

/// A certificate authority with its key.
pub struct Authority {
    certificate: String,
    key: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn make() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let certificate = params()?.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// The one in the Secret of this namespace, which is made where it is missing. Of several copies that begin at once
    /// one makes it.
    ///
    /// # Errors
    /// The cluster refuses, or the Secret holds something else.
    pub async fn open(client: &Client, namespace: &str) -> Result<Self, AuthorityError> {
        let failed = |source| AuthorityError::Cluster {
            namespace: namespace.to_owned(),
            source: Box::new(source),
        };
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        loop {
            if let Some(found) = secrets.get_opt(SECRET).await.map_err(failed)? {
                return Self::of(&found).ok_or_else(|| AuthorityError::Incomplete {
                    namespace: namespace.to_owned(),
                });
            }
            let made = Self::make()?;
            match secrets.create(&PostParams::default(), &made.secret()).await {
                Ok(_) => {
                    tracing::info!(
                        namespace,
                        secret = SECRET,
                        "made a certificate authority for data planes"
                    );
                    return Ok(made);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn of(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |name: &str| String::from_utf8(data.get(name)?.0.clone()).ok();
        let found = Self {
            certificate: text(CERTIFICATE)?,
            key: text(KEY)?,
        };
        KeyPair::from_pem(&found.key).ok()?;
        Some(found)
    }

    fn secret(&self) -> Secret {
        let data = [(CERTIFICATE, &self.certificate), (KEY, &self.key)];
        let data =
            data.map(|(name, text)| (name.to_owned(), ByteString(text.clone().into_bytes())));
        Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from(data)),
            ..Secret::default()
        }
    }

    /// The authority's certificate in PEM: what data planes trust.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The token by which the data planes of a Gateway know each other. It follows from the authority's key, so that all
    /// copies of the controller tell the same and nobody has to keep it.
    pub(super) fn sharing(&self, gateway: &ObjectKey) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.as_bytes());
        let of = format!("sharing of {}/{}", gateway.namespace, gateway.name);
        let tag = hmac::sign(&key, of.as_bytes());
        tag.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// A new certificate for a server of these names or addresses.
    pub(super) fn sign(&self, hosts: &[String]) -> Result<CertifiedKey, AuthorityError> {
        let authority = KeyPair::from_pem(&self.key)?;
        let issuer = Issuer::new(params()?, authority);
        let key = KeyPair::generate()?;
        let mut own = CertificateParams::new(hosts.to_vec())?;
        own.distinguished_name = rcgen::DistinguishedName::new();
        own.distinguished_name
            .push(DnType::CommonName, "pointsman controller");
        let now = std::time::SystemTime::now();
        own.not_before = (now - EARLIER).into();
        own.not_after = (now + LEAF_LASTS).into();
        own.use_authority_key_identifier_extension = true;
        let certificate = own.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Ok(CertifiedKey::from_der(
            vec![certificate.der().clone()],
            key,
            &provider,
        )?)
    }
}

/// The authority's own certificate. Its names are the same every time: they are what its signatures refer to.
fn params() -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "pointsman controller authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let now = std::time::SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + AUTHORITY_LASTS).into();
    Ok(params)
}

/// The host of `HOST:PORT`, without the brackets of an IPv6 address.
pub(super) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(bare) if bare.parse::<IpAddr>().is_ok() => bare,
        _ => host,
    }
}

/// A certificate that a running server shows, replaced as it ages.
pub(super) type Shown = arc_swap::ArcSwap<CertifiedKey>;

/// The same for everybody who asks.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Arc<Shown>);

impl rustls::server::ResolvesServerCert for Resolver {
    fn resolve(&self, _client: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

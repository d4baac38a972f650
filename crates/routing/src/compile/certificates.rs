//! Certificates of listeners, and of Gateways towards servers, out of Secrets.
//!
//! A Secret must have `tls.crt` with at least one PEM certificate and `tls.key` with a PEM private key. Whether the two
//! belong together is found out where they are loaded.

use std::sync::Arc;

use api::{Objects, SecretRef};
use base64::Engine as _;

use super::backends::Referrer;
use super::conditions::Problem;
use super::grants::{Grants, ReferenceTo};
use crate::plan::Certificate;

/// The certificate that a Gateway or a ListenerSet refers to.
pub(super) fn resolve(
    objects: &Objects,
    grants: &Grants<'_>,
    from: Referrer<'_>,
    reference: &SecretRef,
) -> Result<Certificate, Problem> {
    let target = reference.namespace.as_deref().unwrap_or(from.namespace);
    let source = format!("{target}/{}", reference.name);
    if !reference.group.is_empty() || reference.kind != "Secret" {
        let message = format!("certificateRefs must name Secrets, not {}", reference.kind);
        return Err(Problem::new("InvalidCertificateRef", message));
    }
    let to = ReferenceTo {
        group: "",
        kind: "Secret",
        namespace: target,
        name: &reference.name,
    };
    if !grants.permit(from.kind, from.namespace, to) {
        return Err(Problem::new(
            "RefNotPermitted",
            format!("no ReferenceGrant allows Secret {source}"),
        ));
    }
    let invalid =
        |what: &str| Problem::new("InvalidCertificateRef", format!("Secret {source} {what}"));
    let secret = objects
        .secret(target, &reference.name)
        .ok_or_else(|| invalid("does not exist, or may not be read"))?;
    let part = |name: &str| secret.data.get(name).map(api::SecretBytes::expose);
    let chain = part("tls.crt").filter(|pem| has_pem(pem, |label| label == "CERTIFICATE"));
    let key = part("tls.key").filter(|pem| has_pem(pem, |label| label.ends_with("PRIVATE KEY")));
    Ok(Certificate {
        chain: Arc::from(chain.ok_or_else(|| invalid("has no readable certificate in tls.crt"))?),
        key: Arc::from(key.ok_or_else(|| invalid("has no readable private key in tls.key"))?),
        source,
    })
}

/// Whether there is a PEM block whose label `wanted` likes, and every such block holds DER.
pub(super) fn has_pem(text: &[u8], wanted: impl Fn(&str) -> bool) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let blocks = text
        .split("-----BEGIN ")
        .skip(1)
        .filter_map(|block| block.split_once("-----"));
    let mut blocks = blocks.filter(|(label, _)| wanted(label)).peekable();
    blocks.peek().is_some() && blocks.all(|(label, rest)| is_der(label, rest))
}

fn is_der(label: &str, rest: &str) -> bool {
    let Some((body, _)) = rest.split_once(&format!("-----END {label}-----")) else {
        return false;
    };
    let compact: String = body.split_ascii_whitespace().collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(compact);
    // Certificates and keys are DER sequences.
    decoded.is_ok_and(|der| der.first() == Some(&0x30))
}

#[cfg(test)]
mod tests {
    use super::has_pem;

    #[test]
    fn only_whole_blocks_of_der_count() {
        let block = |label: &str, body: &str| {
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let good = block("CERTIFICATE", "MAMC\nAQA=");
        let cases = [
            (good.clone(), true),
            (format!("comment\n{good}{good}"), true),
            (block("EC PRIVATE KEY", "MAMCAQA="), false),
            (format!("{}{good}", block("PRIVATE KEY", "!")), true),
            (format!("{good}{}", block("CERTIFICATE", "%%%")), false),
            (block("CERTIFICATE", "aGVsbG8="), false),
            (block("CERTIFICATE", ""), false),
            ("-----BEGIN CERTIFICATE-----\nMAMCAQA=\n".to_owned(), false),
            ("Hello world".to_owned(), false),
            (String::new(), false),
        ];
        for (text, expected) in cases {
            assert_eq!(
                has_pem(text.as_bytes(), |label| label == "CERTIFICATE"),
                expected,
                "{text}"
            );
        }
        assert!(!has_pem(b"\xff", |_| true));
    }
}

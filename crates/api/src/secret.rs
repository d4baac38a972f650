//! Secrets. A secret value never appears in `Debug`, `Display`, an error or a serialized object.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::meta::Meta;

/// The Secret type that holds `tls.crt` and `tls.key`.
pub const TLS_SECRET_TYPE: &str = "kubernetes.io/tls";

/// A Secret. `stringData` is merged into `data`, over it, as an API server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// `group/version` as written.
    pub api_version: String,
    /// Metadata.
    pub meta: Meta,
    /// Type, by default `Opaque`.
    pub secret_type: String,
    /// Values, decoded.
    pub data: BTreeMap<String, SecretBytes>,
}

/// A secret value. `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Wraps bytes that must not be shown.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The value itself; the caller keeps it out of logs.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes redacted>", self.0.len())
    }
}

/// Decodes standard base64, in which line breaks are tolerated. The error does not quote the text.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let compact: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    STANDARD.decode(compact).ok()
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = redacted_text(deserializer)?;
        decode_base64(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(
                "the value is not base64; encode it or put plain text under stringData",
            )
        })
    }
}

/// A text whose decoding error never quotes what was found instead of a text.
fn redacted_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match serde_json::Value::deserialize(deserializer) {
        Ok(serde_json::Value::String(text)) => Ok(text),
        _ => Err(serde::de::Error::custom(
            "the value is not a string; put it in quotes",
        )),
    }
}

/// A plain text of `stringData`.
struct SecretText(String);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        redacted_text(deserializer).map(Self)
    }
}

fn opaque() -> String {
    "Opaque".to_owned()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    api_version: String,
    metadata: Meta,
    #[serde(rename = "type", default = "opaque")]
    secret_type: String,
    #[serde(default)]
    data: BTreeMap<String, SecretBytes>,
    #[serde(default)]
    string_data: BTreeMap<String, SecretText>,
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let mut data = wire.data;
        data.extend(
            wire.string_data
                .into_iter()
                .map(|(key, text)| (key, SecretBytes(text.0.into_bytes()))),
        );
        Ok(Self {
            api_version: wire.api_version,
            meta: wire.metadata,
            secret_type: wire.secret_type,
            data,
        })
    }
}

/// Bytes that are base64 on the wire and no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base64Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode_base64(&text)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("the value is not base64"))
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

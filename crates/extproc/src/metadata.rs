//! Metadata of a proxy's filters, looked at only when somebody asks.
//!
//! Envoy sends its metadata along with *every* message of a stream, each token of an answer included, and almost nobody
//! reads it there. So this type keeps each namespace as the slice of the message it came in and decodes the one that is
//! asked for. On the wire it is `envoy.config.core.v3.Metadata`.

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::Message;
use prost::encoding::{
    DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len, skip_field,
};
use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// The tag of the map from namespace to struct.
const FILTER_METADATA: u32 = 1;

/// Namespaces, encoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// Each an encoded map entry: `key = 1` the namespace, `value = 2` its struct.
    entries: Vec<Bytes>,
}

/// A map entry of [`Metadata`], decoded.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(message, optional, tag = "2")]
    content: Option<Struct>,
}

impl Metadata {
    /// Adds a namespace.
    #[must_use]
    pub fn with(mut self, namespace: &str, content: Struct) -> Self {
        let entry = Entry {
            namespace: namespace.to_owned(),
            content: Some(content),
        };
        self.entries.push(entry.encode_to_vec().into());
        self
    }

    /// Adds a namespace with one text in it.
    #[must_use]
    pub fn with_text(self, namespace: &str, key: &str, text: &str) -> Self {
        self.with(namespace, text_struct(key, text))
    }

    /// What is said under `key` in `namespace`. Of namespaces that come twice, the last one counts.
    #[must_use]
    pub fn get(&self, namespace: &str, key: &str) -> Option<Value> {
        let bytes = self
            .entries
            .iter()
            .rev()
            .find(|entry| mentions(entry, namespace))?;
        let entry = Entry::decode(bytes.clone()).ok()?;
        if entry.namespace != namespace {
            return None;
        }
        entry.content?.fields.remove(key)
    }

    /// The same, where it is a text.
    #[must_use]
    pub fn text(&self, namespace: &str, key: &str) -> Option<String> {
        match self.get(namespace, key)?.kind? {
            Kind::StringValue(text) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A struct with one text in it.
#[must_use]
pub fn text_struct(key: &str, text: &str) -> Struct {
    let value = Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    Struct {
        fields: [(key.to_owned(), value)].into(),
    }
}

/// Whether an entry is of this namespace, seen without decoding it: every encoder writes the key first.
fn mentions(entry: &[u8], namespace: &str) -> bool {
    match entry {
        [0x0a, length, rest @ ..] if *length < 0x80 => {
            rest.get(..usize::from(*length)) == Some(namespace.as_bytes())
        }
        // A namespace of over 127 bytes, or an odd encoder: decode and see.
        _ => Entry::decode(entry).is_ok_and(|entry| entry.namespace == namespace),
    }
}

impl Message for Metadata {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        for entry in &self.entries {
            encode_key(FILTER_METADATA, WireType::LengthDelimited, buffer);
            encode_varint(entry.len() as u64, buffer);
            buffer.put_slice(entry);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != FILTER_METADATA || wire_type != WireType::LengthDelimited {
            return skip_field(wire_type, tag, buffer, context);
        }
        let mut entry = Bytes::new();
        prost::encoding::bytes::merge(wire_type, &mut entry, buffer, context)?;
        self.entries.push(entry);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.entries
            .iter()
            .map(|entry| {
                key_len(FILTER_METADATA) + encoded_len_varint(entry.len() as u64) + entry.len()
            })
            .sum()
    }

    fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use prost_types::ListValue;

    use super::*;
    use crate::proto::ext_proc::ProcessingRequest;

    #[test]
    fn what_is_put_in_comes_out_and_only_there() {
        let metadata = Metadata::default()
            .with_text("envoy.lb", "served", "1.2.3.4:80")
            .with_text("envoy.lb.subset_hint", "subset", "");
        let bytes = metadata.encode_to_vec();
        let read = Metadata::decode(bytes.as_slice()).unwrap();
        assert_eq!(read, metadata);
        assert_eq!(
            read.text("envoy.lb", "served").as_deref(),
            Some("1.2.3.4:80")
        );
        assert_eq!(
            read.text("envoy.lb.subset_hint", "subset").as_deref(),
            Some("")
        );
        for (namespace, key) in [("envoy.lb", "subset"), ("envoy", "served"), ("", "")] {
            assert_eq!(read.get(namespace, key), None, "{namespace} {key}");
        }
    }

    #[test]
    fn a_list_and_odd_encodings_are_read() {
        let list = Value {
            kind: Some(Kind::ListValue(ListValue::default())),
        };
        let long = "n".repeat(300);
        let content = Struct {
            fields: [("k".to_owned(), list.clone())].into(),
        };
        let metadata = Metadata::default().with(&long, content.clone());
        assert_eq!(metadata.get(&long, "k"), Some(list.clone()));
        // Value before key, as a map entry may come.
        let mut entry = vec![0x12];
        let body = content.encode_to_vec();
        entry.push(u8::try_from(body.len()).unwrap());
        entry.extend(body);
        entry.extend([0x0a, 1, b'x']);
        let mut bytes = vec![0x0a, u8::try_from(entry.len()).unwrap()];
        bytes.extend(entry);
        // An unknown field besides.
        bytes.extend([0x12, 2, 1, 1]);
        assert_eq!(
            Metadata::decode(bytes.as_slice()).unwrap().get("x", "k"),
            Some(list)
        );
    }

    #[test]
    fn malformed_metadata_is_an_error_or_unknown_but_never_a_panic() {
        for bytes in [
            &[0x0a][..],
            &[0x0a, 5, 1],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
        ] {
            assert!(Metadata::decode(bytes).is_err(), "{bytes:?}");
        }
        let broken_inside = Metadata::decode(&[0x0a, 3, 0x0a, 9, b'x'][..]).unwrap();
        assert_eq!(broken_inside.get("x", "k"), None);
    }

    #[test]
    fn a_message_carries_it_under_its_number() {
        let request = ProcessingRequest {
            metadata_context: Some(Metadata::default().with_text("n", "k", "v")),
            ..ProcessingRequest::default()
        };
        let bytes = request.encode_to_vec();
        assert_eq!(bytes[0], 0x42, "field 8, length-delimited");
        let read = ProcessingRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(
            read.metadata_context.unwrap().text("n", "k").as_deref(),
            Some("v")
        );
    }
}

//! Text or JSON values to objects.
//!
//! One broken object never takes down its neighbours: each document of a text has a result of its own, and after a
//! syntax error reading goes on at the next `---`. A `List` is opened into its items.

mod error;
mod unknown;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use self::error::deserialize;
use self::unknown::note_unknown_fields;
use crate::convert::from_v1alpha2;
use crate::inference::InferencePoolV1Alpha2;
use crate::object::{Object, ObjectKey, Resource, group_of};
use crate::validate::FieldIssue;
use crate::yaml::{self, Marks};
use crate::{
    BackendTlsPolicy, ConfigMap, DISCOVERY_GROUP, EndpointSlice, GATEWAY_GROUP, Gateway,
    GatewayClass, GrpcRoute, HttpRoute, INFERENCE_GROUP, INFERENCE_X_GROUP, InferenceModel,
    InferenceModelRewrite, InferenceObjective, InferencePool, InferencePoolImport, LLM_D_GROUP,
    ListenerSet, Namespace, Pod, ReferenceGrant, Secret, Service, TlsRoute,
};

pub use self::error::DecodeError;

/// One document of a text, or one item of a `List`.
#[derive(Clone, Debug)]
pub struct Document {
    /// Line at which it begins, from 1.
    pub line: usize,
    /// Identity, where it can be read, also of a document that is otherwise broken.
    pub key: Option<ObjectKey>,
    /// The object, or why there is none.
    pub result: Result<Object, DecodeError>,
    /// Fields that nobody reads: typing errors, most often.
    pub warnings: Vec<FieldIssue>,
    marks: Marks,
}

impl Document {
    /// The line of the field at `path`, or of what is around it.
    #[must_use]
    pub fn line_of(&self, path: &str) -> Option<usize> {
        self.marks.find(path).map(|position| position.line)
    }
}

/// Reads all documents of a YAML or JSON text. Empty documents are left out. Never panics.
#[must_use]
pub fn decode_yaml(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    for parsed in yaml::parse(text) {
        match parsed.result {
            Ok((value, marks)) => push_documents(&mut documents, parsed.line, value, marks),
            Err(error) => documents.push(Document {
                line: parsed.line,
                key: None,
                result: Err(DecodeError::Syntax {
                    position: error.position,
                    message: error.message,
                }),
                warnings: Vec::new(),
                marks: Marks::default(),
            }),
        }
    }
    documents
}

/// Reads a text that is one YAML or JSON document and no object of Kubernetes: a section of a ConfigMap, for instance.
/// What `T` refuses is named with its field and line.
///
/// # Errors
/// Text that is not YAML, more or less than one document, or what `T` refuses.
pub fn read_yaml<T: DeserializeOwned>(text: &str) -> Result<T, DecodeError> {
    let mut documents = yaml::parse(text).into_iter();
    let (Some(first), None) = (documents.next(), documents.next()) else {
        return Err(DecodeError::field("", "one document is expected"));
    };
    let (value, marks) = first.result.map_err(|error| DecodeError::Syntax {
        position: error.position,
        message: error.message,
    })?;
    deserialize(&value, false).map_err(|error| error.located(&marks))
}

/// Adds one document, or for a `List` one per item.
fn push_documents(documents: &mut Vec<Document>, line: usize, mut value: Value, marks: Marks) {
    let list_kind = text_at(&value, "kind")
        .filter(|kind| kind.ends_with("List"))
        .map(str::to_owned);
    let items = list_kind.and_then(|kind| match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Some((kind, items)),
        _ => None,
    });
    let Some((list_kind, items)) = items else {
        documents.push(document(line, value, marks));
        return;
    };
    let api_version = text_at(&value, "apiVersion").unwrap_or_default().to_owned();
    for (index, mut item) in items.into_iter().enumerate() {
        complete_item(&mut item, &list_kind, &api_version);
        let marks = marks.beneath(&format!("items[{index}]"));
        let line = marks.find("").map_or(line, |position| position.line);
        documents.push(document(line, item, marks));
    }
}

/// Items of a typed list (`HTTPRouteList`) may leave out what the list says for all of them.
fn complete_item(item: &mut Value, list_kind: &str, api_version: &str) {
    let kind = list_kind.trim_end_matches("List");
    if let (false, Value::Object(fields)) = (kind.is_empty(), item) {
        fields.entry("kind").or_insert_with(|| kind.into());
        fields
            .entry("apiVersion")
            .or_insert_with(|| api_version.into());
    }
}

fn document(line: usize, value: Value, marks: Marks) -> Document {
    let key = key_of(&value);
    let mut warnings = Vec::new();
    let result = decode_clean(value, Some(&mut warnings)).map_err(|error| error.located(&marks));
    let key = result.as_ref().map(Object::key).ok().or(key);
    Document {
        line,
        key,
        result,
        warnings,
        marks,
    }
}

/// The line, from 1, at which the field at `path` stands in the first document of `text`; for a field that is not
/// there, the line of what is around it.
#[must_use]
pub fn line_of(text_of_document: &str, path: &str) -> Option<usize> {
    let parsed = yaml::parse(text_of_document).into_iter().next()?;
    let (_, marks) = parsed.result.ok()?;
    marks.find(path).map(|position| position.line)
}

/// Reads an object from JSON, as an API server's watch gives it.
///
/// # Errors
/// When the kind is not one that is read, or a field is missing or has a value it must not have.
pub fn decode_value(mut value: Value) -> Result<Object, DecodeError> {
    drop_nulls(&mut value);
    decode_clean(value, None)
}

/// Removes nulls from objects: Kubernetes reads `field: null` as a field left out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn text_at<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field)?.as_str()
}

/// Kinds without a namespace.
fn is_cluster_scoped(kind: &str) -> bool {
    kind == GatewayClass::KIND || kind == Namespace::KIND
}

/// Identity, as far as it can be read from something that may be broken elsewhere.
fn key_of(value: &Value) -> Option<ObjectKey> {
    let kind = text_at(value, "kind")?;
    let group = group_of(text_at(value, "apiVersion")?);
    let metadata = value.get("metadata")?;
    let name = text_at(metadata, "name")?;
    let namespace = if is_cluster_scoped(kind) {
        ""
    } else {
        text_at(metadata, "namespace")
            .filter(|text| !text.is_empty())
            .unwrap_or("default")
    };
    Some(ObjectKey::new(group, kind, namespace, name))
}

/// A decoder of one kind; where a list is given, it notes fields that nobody reads.
type Decoder = fn(Value, Option<&mut Vec<FieldIssue>>) -> Result<Object, DecodeError>;

fn decoder(group: &str, version: &str, kind: &str) -> Option<Decoder> {
    Some(match (group, version, kind) {
        (GATEWAY_GROUP, "v1" | "v1beta1", "GatewayClass") => typed::<GatewayClass>,
        (GATEWAY_GROUP, "v1" | "v1beta1", "Gateway") => typed::<Gateway>,
        (GATEWAY_GROUP, "v1" | "v1beta1", "HTTPRoute") => typed::<HttpRoute>,
        (GATEWAY_GROUP, "v1", "ListenerSet") => typed::<ListenerSet>,
        (GATEWAY_GROUP, "v1", "GRPCRoute") => typed::<GrpcRoute>,
        (GATEWAY_GROUP, "v1" | "v1alpha3" | "v1alpha2", "TLSRoute") => typed::<TlsRoute>,
        (GATEWAY_GROUP, "v1" | "v1beta1", "ReferenceGrant") => typed::<ReferenceGrant>,
        (GATEWAY_GROUP, "v1" | "v1alpha3", "BackendTLSPolicy") => typed::<BackendTlsPolicy>,
        ("", "v1", "Service") => open_typed::<Service>,
        ("", "v1", "Secret") => open_typed::<Secret>,
        ("", "v1", "ConfigMap") => open_typed::<ConfigMap>,
        ("", "v1", "Namespace") => open_typed::<Namespace>,
        ("", "v1", "Pod") => open_typed::<Pod>,
        (DISCOVERY_GROUP, "v1", "EndpointSlice") => open_typed::<EndpointSlice>,
        (INFERENCE_GROUP, "v1", "InferencePool") => typed::<InferencePool>,
        (INFERENCE_X_GROUP, "v1alpha2", "InferencePool") => pool_v1alpha2,
        (INFERENCE_X_GROUP, "v1alpha2", "InferenceModel") => typed::<InferenceModel>,
        (INFERENCE_X_GROUP, "v1alpha2", "InferenceObjective")
        | (LLM_D_GROUP, "v1alpha1" | "v1alpha2", "InferenceObjective") => {
            typed::<InferenceObjective>
        }
        (INFERENCE_X_GROUP, "v1alpha2", "InferenceModelRewrite")
        | (LLM_D_GROUP, "v1alpha1" | "v1alpha2", "InferenceModelRewrite") => {
            typed::<InferenceModelRewrite>
        }
        (INFERENCE_X_GROUP, "v1alpha1", "InferencePoolImport") => typed::<InferencePoolImport>,
        _ => return None,
    })
}

fn decode_clean(
    value: Value,
    warnings: Option<&mut Vec<FieldIssue>>,
) -> Result<Object, DecodeError> {
    if !value.is_object() {
        return Err(DecodeError::field(
            "",
            "this is no Kubernetes object: a mapping with apiVersion, kind and metadata is expected",
        ));
    }
    let required = |field: &str| {
        text_at(&value, field).map(str::to_owned).ok_or_else(|| {
            DecodeError::field(
                field,
                "every object needs this field, and its value is a text",
            )
        })
    };
    let (api_version, kind) = (required("apiVersion")?, required("kind")?);
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let Some(decode) = decoder(group, version, &kind) else {
        return Err(DecodeError::UnknownKind {
            position: None,
            api_version,
            kind,
        });
    };
    decode(value, warnings)
}

/// A kind all of whose fields we know, so that others can be noted.
fn typed<T>(value: Value, warnings: Option<&mut Vec<FieldIssue>>) -> Result<Object, DecodeError>
where
    T: DeserializeOwned + Serialize + Resource + Into<Object>,
{
    let object = read::<T>(&value)?;
    if let Some(warnings) = warnings {
        note_unknown_fields(&value, &object, warnings);
    }
    Ok(object.into())
}

/// A kind of which we read a part only.
fn open_typed<T>(value: Value, _: Option<&mut Vec<FieldIssue>>) -> Result<Object, DecodeError>
where
    T: DeserializeOwned + Resource + Into<Object>,
{
    read::<T>(&value).map(Into::into)
}

fn pool_v1alpha2(
    value: Value,
    warnings: Option<&mut Vec<FieldIssue>>,
) -> Result<Object, DecodeError> {
    let mut pool = deserialize::<InferencePoolV1Alpha2>(&value, false)?;
    if let Some(warnings) = warnings {
        note_unknown_fields(&value, &pool, warnings);
    }
    complete_meta(&mut pool.meta, true)?;
    Ok(from_v1alpha2(&pool).into())
}

fn read<T: DeserializeOwned + Resource>(value: &Value) -> Result<T, DecodeError> {
    let mut object = deserialize::<T>(value, T::KIND == Secret::KIND)?;
    complete_meta(object.meta_mut(), T::NAMESPACED)?;
    Ok(object)
}

/// Namespace by scope, and a name at all.
fn complete_meta(meta: &mut crate::Meta, namespaced: bool) -> Result<(), DecodeError> {
    if meta.name.is_empty() {
        return Err(DecodeError::field(
            "metadata.name",
            "every object needs a name",
        ));
    }
    if !namespaced {
        meta.namespace.clear();
    } else if meta.namespace.is_empty() {
        "default".clone_into(&mut meta.namespace);
    }
    Ok(())
}

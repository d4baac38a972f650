//! Text or JSON values to objects.
//!
//! One broken object never takes down its neighbours: each document of a text has a result of its own, and after a
//! syntax error reading goes on at the next `---`. A `List` is opened into its items.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::convert::from_v1alpha2;
use crate::inference::InferencePoolV1Alpha2;
use crate::object::{Object, ObjectKey, Resource, group_of};
use crate::validate::FieldIssue;
use crate::yaml::{self, Marks, Position, field_path};
use crate::{
    BackendTlsPolicy, ConfigMap, DISCOVERY_GROUP, EndpointSlice, GATEWAY_GROUP, Gateway,
    GatewayClass, GrpcRoute, HttpRoute, INFERENCE_GROUP, INFERENCE_X_GROUP, InferenceModel,
    InferenceModelRewrite, InferenceObjective, InferencePool, InferencePoolImport, LLM_D_GROUP,
    Namespace, ReferenceGrant, Secret, Service,
};

/// Why a document is no object.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The text is not YAML.
    #[error("{position}: not valid YAML: {message}")]
    Syntax {
        /// Where reading stopped.
        position: Position,
        /// What is wrong.
        message: String,
    },
    /// An object of a kind or version that Pointsman does not read. Callers may skip it with a note.
    #[error("{}{}", At(position), unknown_kind(api_version, kind))]
    UnknownKind {
        /// Where the object begins, when it came from text.
        position: Option<Position>,
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
    },
    /// A field is missing or has a value it must not have.
    #[error("{}{}{message}", At(position), PathPrefix(path))]
    Field {
        /// Where the field stands, when it came from text; for a missing field, what is around it.
        position: Option<Position>,
        /// The field; empty for the whole document.
        path: String,
        /// What is wrong, and the way out.
        message: String,
    },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// `line 1, column 2: `, or nothing.
struct At<'a>(&'a Option<Position>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .as_ref()
            .map_or(Ok(()), |position| write!(f, "{position}: "))
    }
}

/// `spec.field: `, or nothing.
struct PathPrefix<'a>(&'a str);

impl fmt::Display for PathPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "{}: ", self.0)
        }
    }
}

impl DecodeError {
    fn field(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Field {
            position: None,
            path: path.into(),
            message: message.into(),
        }
    }

    /// Where the error is, when the object came from text.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Syntax { position, .. } => Some(*position),
            Self::UnknownKind { position, .. } | Self::Field { position, .. } => *position,
        }
    }

    /// The line of the error, when the object came from text.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.position().map(|position| position.line)
    }

    /// The field that is wrong, when it is one.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Field { path, .. } if !path.is_empty() => Some(path),
            _ => None,
        }
    }

    /// What is wrong, without place and field.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Syntax { message, .. } => format!("not valid YAML: {message}"),
            Self::UnknownKind {
                api_version, kind, ..
            } => unknown_kind(api_version, kind),
            Self::Field { message, .. } => message.clone(),
        }
    }

    /// Whether the object is merely of a kind that Pointsman does not read.
    #[must_use]
    pub fn is_unknown_kind(&self) -> bool {
        matches!(self, Self::UnknownKind { .. })
    }

    fn located(mut self, marks: &Marks) -> Self {
        match &mut self {
            Self::Syntax { .. } => {}
            Self::UnknownKind { position, .. } => *position = marks.find("kind"),
            Self::Field { position, path, .. } => *position = marks.find(path),
        }
        self
    }
}

fn unknown_kind(api_version: &str, kind: &str) -> String {
    let versions = versions_of(kind, group_of(api_version));
    if versions.is_empty() {
        format!("objects of kind {kind} ({api_version}) are not read here")
    } else {
        format!(
            "{kind} is not read in version {api_version}; write {}",
            versions.join(" or ")
        )
    }
}

/// The versions of a kind that are read, those of `group` where it has any.
fn versions_of(kind: &str, group: &str) -> Vec<&'static str> {
    let known: &[&'static str] = match kind {
        "GatewayClass" | "Gateway" | "HTTPRoute" => &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1beta1",
        ],
        "GRPCRoute" => &["gateway.networking.k8s.io/v1"],
        "ReferenceGrant" => &[
            "gateway.networking.k8s.io/v1beta1",
            "gateway.networking.k8s.io/v1",
        ],
        "BackendTLSPolicy" => &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1alpha3",
        ],
        "Service" | "Secret" | "ConfigMap" | "Namespace" => &["v1"],
        "EndpointSlice" => &["discovery.k8s.io/v1"],
        "InferencePool" => &[
            "inference.networking.k8s.io/v1",
            "inference.networking.x-k8s.io/v1alpha2",
        ],
        "InferenceModel" => &["inference.networking.x-k8s.io/v1alpha2"],
        "InferenceObjective" | "InferenceModelRewrite" => &[
            "inference.networking.x-k8s.io/v1alpha2",
            "llm-d.ai/v1alpha2",
            "llm-d.ai/v1alpha1",
        ],
        "InferencePoolImport" => &["inference.networking.x-k8s.io/v1alpha1"],
        _ => &[],
    };
    let same: Vec<_> = known
        .iter()
        .copied()
        .filter(|version| group_of(version) == group)
        .collect();
    // A foreign group's kind of the same name (a Gateway of a service mesh, say) is simply not ours.
    let foreign = group.contains('.') && !OUR_GROUPS.contains(&group);
    match (same.is_empty(), foreign) {
        (false, _) => same,
        (true, true) => Vec::new(),
        (true, false) => known.to_vec(),
    }
}

const OUR_GROUPS: &[&str] = &[
    GATEWAY_GROUP,
    INFERENCE_GROUP,
    INFERENCE_X_GROUP,
    LLM_D_GROUP,
    DISCOVERY_GROUP,
];

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
        (GATEWAY_GROUP, "v1", "GRPCRoute") => typed::<GrpcRoute>,
        (GATEWAY_GROUP, "v1" | "v1beta1", "ReferenceGrant") => typed::<ReferenceGrant>,
        (GATEWAY_GROUP, "v1" | "v1alpha3", "BackendTLSPolicy") => typed::<BackendTlsPolicy>,
        ("", "v1", "Service") => open_typed::<Service>,
        ("", "v1", "Secret") => open_typed::<Secret>,
        ("", "v1", "ConfigMap") => open_typed::<ConfigMap>,
        ("", "v1", "Namespace") => open_typed::<Namespace>,
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

/// Runs serde and makes its error one for people. With `secret`, no value is quoted.
fn deserialize<T: DeserializeOwned>(value: &Value, secret: bool) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut path = error.path().to_string();
        if path == "." {
            path.clear();
        }
        let (missing, message) = explain(&error.inner().to_string(), secret);
        if let Some(missing) = missing {
            path = field_path(&path, &missing);
        }
        DecodeError::Field {
            position: None,
            path,
            message,
        }
    })
}

/// The name of a missing field, if that is the error, and the message with the way out.
fn explain(message: &str, secret: bool) -> (Option<String>, String) {
    if let Some(field) = message.strip_prefix("missing field `") {
        let field = field.trim_end_matches('`').to_owned();
        return (Some(field), "this field is required; add it".to_owned());
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return (None, message.to_owned());
    };
    let expected = match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "i64" | "i32" => "a whole number",
        "a map" => "an object (fields with values)",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "an object (fields with values)",
        other => other,
    };
    let way_out = match () {
        () if found.contains("type: string") && expected.contains("number") => {
            "; write it without quotes"
        }
        () if expected == "a string" && !found.contains("map") && !found.contains("sequence") => {
            "; put it in quotes"
        }
        () => "",
    };
    if secret {
        return (
            None,
            format!("the value has the wrong type: expected {expected}{way_out}"),
        );
    }
    let found = found
        .trim_start_matches("invalid type: ")
        .trim_start_matches("invalid value: ");
    (
        None,
        format!(
            "found {}, expected {expected}{way_out}",
            found.replace('`', "")
        ),
    )
}

/// Notes fields of `value` that `object` did not take. `metadata` and `status` belong to the API server.
fn note_unknown_fields(value: &Value, object: &impl Serialize, warnings: &mut Vec<FieldIssue>) {
    let (Ok(Value::Object(known)), Value::Object(fields)) = (serde_json::to_value(object), value)
    else {
        return;
    };
    for (field, value) in fields
        .iter()
        .filter(|(field, _)| *field != "metadata" && *field != "status")
    {
        compare(field, value, known.get(field), warnings);
    }
}

fn compare(path: &str, given: &Value, known: Option<&Value>, warnings: &mut Vec<FieldIssue>) {
    match (given, known) {
        (Value::Object(fields), Some(Value::Object(known))) => {
            compare_fields(path, fields, known, warnings)
        }
        (Value::Array(items), Some(Value::Array(known))) => {
            for (index, item) in items.iter().enumerate() {
                compare(
                    &format!("{path}[{index}]"),
                    item,
                    known.get(index),
                    warnings,
                );
            }
        }
        (value, None) if !is_empty(value) => warnings.push(FieldIssue::new(
            path,
            "no such field; it is ignored (look for a typing error)",
        )),
        _ => {}
    }
}

fn compare_fields(
    path: &str,
    fields: &Map<String, Value>,
    known: &Map<String, Value>,
    warnings: &mut Vec<FieldIssue>,
) {
    for (field, value) in fields {
        compare(&field_path(path, field), value, known.get(field), warnings);
    }
}

/// Whether a value is one that we leave out when writing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null => true,
        _ => false,
    }
}

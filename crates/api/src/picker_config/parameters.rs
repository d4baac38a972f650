//! Parameters of plugins: strictly read, defaults filled in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::nearest;
use crate::decode::{DecodeError, deserialize};
use crate::selector::{LabelSelector, Operator, Requirement};
use crate::yaml::field_path;

/// One parameter of a plugin type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub shape: Shape,
    /// What it is when it is not given; empty: nothing. `required`: it has to be given.
    pub default: &'static str,
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// True or false.
    Bool,
    /// A number within these bounds.
    Number(f64, f64),
    /// A number over zero.
    Positive,
    /// A number over zero and at most 1.
    Share,
    /// A whole number, at least this.
    Whole(u64),
    /// Any text.
    Text,
    /// A list of texts.
    Texts,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Only this: the alternatives are not there.
    Only(&'static str),
    /// A duration as Go writes it.
    Time,
    /// The name of a plugin.
    Reference,
    /// Labels with values.
    Labels,
    /// Requirements on labels.
    Expressions,
    /// Limits on gauges.
    Conditions,
    /// It is not looked at.
    Any,
}

/// A limit of `utilization-filter`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// The gauge.
    pub metric: Metric,
    /// The most it may be.
    pub max_value: f64,
}

/// Gauges that `utilization-filter` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Requests in flight.
    ActiveRequests,
    /// Requests in an engine's batch.
    RunningRequests,
    /// Requests in its queue.
    WaitingQueue,
    /// Share of its KV cache in use.
    KvCacheUtilization,
}

/// The parameters of one plugin, checked, defaults filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(Map<String, Value>);

impl Parameters {
    /// Reads what was given; `path` is where.
    pub(super) fn read(
        known: &[Parameter],
        given: Option<&Value>,
        path: &str,
    ) -> Result<Self, DecodeError> {
        let none = Map::new();
        let given = match given {
            None => &none,
            Some(Value::Object(fields)) => fields,
            Some(_) => {
                return Err(DecodeError::field(
                    path,
                    "an object (parameters with values) is expected",
                ));
            }
        };
        for name in given.keys() {
            if !known.iter().any(|it| it.name == name) {
                let names: Vec<&str> = known.iter().map(|it| it.name).collect();
                let message = format!(
                    "no such parameter{}",
                    nearest::hint(name, names.iter().copied())
                );
                return Err(DecodeError::field(field_path(path, name), message));
            }
        }
        let mut all = Map::new();
        for parameter in known {
            let at = field_path(path, parameter.name);
            let value = match given.get(parameter.name) {
                Some(value) => value.clone(),
                None if parameter.default == "required" => {
                    return Err(DecodeError::field(at, "this parameter is required; add it"));
                }
                None if parameter.default.is_empty() => continue,
                None => parameter.shape.default(parameter.default),
            };
            parameter.shape.check(&value, &at)?;
            all.insert(parameter.name.to_owned(), value);
        }
        Ok(Self(all))
    }

    /// A number, 0 if there is none.
    #[must_use]
    pub fn number(&self, name: &str) -> f64 {
        self.0.get(name).and_then(Value::as_f64).unwrap_or_default()
    }

    /// True or false; false if there is none.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.0
            .get(name)
            .and_then(Value::as_bool)
            .unwrap_or_default()
    }

    /// A text, if there is one.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A list of texts.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<String> {
        let items = self.0.get(name).and_then(Value::as_array);
        let texts = items.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// A duration, zero if there is none.
    #[must_use]
    pub fn time(&self, name: &str) -> Duration {
        self.text(name).and_then(go_duration).unwrap_or_default()
    }

    /// The label selector in `matchLabels` and `matchExpressions`.
    #[must_use]
    pub fn selector(&self) -> LabelSelector {
        let read = |name: &str| self.0.get(name).cloned();
        let labels = read("matchLabels").and_then(|it| serde_json::from_value(it).ok());
        let expressions = read("matchExpressions").and_then(|it| serde_json::from_value(it).ok());
        LabelSelector {
            match_labels: labels.unwrap_or_default(),
            match_expressions: expressions.unwrap_or_default(),
        }
    }

    /// The limits in `conditions`.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let value = self.0.get("conditions").cloned();
        let read = value.and_then(|it| serde_json::from_value(it).ok());
        read.unwrap_or_default()
    }

    /// Whether it was given, or has a default.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl Shape {
    fn default(self, text: &str) -> Value {
        match self {
            Self::Bool | Self::Number(..) | Self::Positive | Self::Share | Self::Whole(_) => {
                serde_json::from_str(text).unwrap_or_default()
            }
            // What is false is only ever a flag.
            Self::Only("false") => Value::Bool(false),
            _ => Value::String(text.to_owned()),
        }
    }

    fn check(self, value: &Value, path: &str) -> Result<(), DecodeError> {
        let wrong = |expected: &str| Err(DecodeError::field(path, expected.to_owned()));
        let number = value.as_f64().filter(|it| it.is_finite());
        match self {
            Self::Bool if !value.is_boolean() => wrong("true or false is expected"),
            Self::Number(least, most) if !number.is_some_and(|it| least <= it && it <= most) => {
                if most == f64::MAX {
                    return wrong("a number from 0 up is expected");
                }
                wrong(&format!("a number from {least} to {most} is expected"))
            }
            Self::Positive if !number.is_some_and(|it| it > 0.0) => {
                wrong("a number over 0 is expected")
            }
            Self::Share if !number.is_some_and(|it| it > 0.0 && it <= 1.0) => {
                wrong("a number over 0 and at most 1 is expected")
            }
            Self::Whole(least) if value.as_u64().is_none_or(|it| it < least) => {
                wrong(&format!("a whole number from {least} up is expected"))
            }
            Self::Text | Self::Reference if !value.is_string() => wrong("a text is expected"),
            Self::Texts if serde_json::from_value::<Vec<String>>(value.clone()).is_err() => {
                wrong("a list of texts is expected")
            }
            Self::Choice(of) if value.as_str().is_none_or(|it| !of.contains(&it)) => {
                wrong(&format!("one of {} is expected", of.join(", ")))
            }
            Self::Only(one) if !says(value, one) => wrong(&format!("only {one} is supported here")),
            Self::Time if value.as_str().and_then(go_duration).is_none() => {
                wrong("a duration such as 200ms, 1.5s or 1m30s is expected")
            }
            Self::Labels => below::<BTreeMap<String, String>>(value, path).map(drop),
            Self::Expressions => expressions(value, path),
            Self::Conditions => below::<Vec<Condition>>(value, path).map(drop),
            _ => Ok(()),
        }
    }
}

fn says(value: &Value, one: &str) -> bool {
    match value {
        Value::Bool(flag) => flag.to_string() == one,
        Value::String(text) => text == one || text.is_empty(),
        _ => false,
    }
}

fn expressions(value: &Value, path: &str) -> Result<(), DecodeError> {
    for (at, requirement) in below::<Vec<Requirement>>(value, path)?.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let empty = requirement.values.is_empty();
        match &requirement.operator {
            Operator::Unknown(_) => {
                return Err(DecodeError::field(
                    format!("{path}.operator"),
                    "one of In, NotIn, Exists, DoesNotExist is expected",
                ));
            }
            Operator::In | Operator::NotIn if empty => {
                return Err(DecodeError::field(
                    format!("{path}.values"),
                    "this operator needs values",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Reads what is beneath `path`.
fn below<T: serde::de::DeserializeOwned>(value: &Value, path: &str) -> Result<T, DecodeError> {
    deserialize(value, false).map_err(|error| error.beneath(path))
}

/// A duration as Go writes it: numbers with units, one after the other, such as `50ms`, `1.5s` or `1m30s`.
#[must_use]
pub fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = Some(text).filter(|text| !text.is_empty())?;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "\u{b5}s" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

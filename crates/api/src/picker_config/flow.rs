//! The section on flow control.

use std::time::Duration;

use serde_json::Value;

use super::parameters::go_duration;
use super::raw::{Raw, RawBand};
use super::{Builder, Plugin, Role};
use crate::decode::DecodeError;

/// Most requests of a band that wait, unless it says otherwise.
const BAND_REQUESTS: u64 = 5000;
/// Most bytes of a band that wait, unless it says otherwise.
const BAND_BYTES: u64 = 1_000_000_000;
/// Longest wait, unless it is said otherwise.
const REQUEST_TTL: Duration = Duration::from_secs(60);

/// Flow control, complete. `None` is without a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSection {
    /// Most requests that wait, in all bands.
    pub max_requests: Option<u64>,
    /// Most bytes that wait, in all bands.
    pub max_bytes: Option<u64>,
    /// Longest wait of a request.
    pub request_ttl: Option<Duration>,
    /// The same while there is no server.
    pub empty_ttl: Option<Duration>,
    /// Whether requests that run may be ended for others.
    pub evicts: bool,
    /// Bands that are not listed.
    pub default_band: BandSection,
    /// The same of negative priority.
    pub negative_band: BandSection,
    /// Bands by priority.
    pub bands: Vec<(i32, BandSection)>,
    /// The usage limit policy.
    pub usage_limit: Plugin,
}

/// One band.
#[derive(Clone, Debug, PartialEq)]
pub struct BandSection {
    /// Most requests that wait.
    pub max_requests: u64,
    /// Most bytes that wait.
    pub max_bytes: u64,
    /// The order within a flow.
    pub ordering: Plugin,
    /// How flows share.
    pub fairness: Plugin,
}

impl Builder {
    /// Reads the section; without its gate it has no effect, and must be right all the same.
    pub(super) fn flow(
        &mut self,
        raw: &Raw,
        gate: bool,
    ) -> Result<Option<FlowSection>, DecodeError> {
        const LIMIT: &str = "static-usage-limit-policy";
        let none = None;
        let section = raw.flow_control.as_ref();
        let bound = |value: Option<&Value>, field: &str| {
            let path = format!("flowControl.{field}");
            quantity(value, &path).map(|it| it.filter(|&it| it > 0))
        };
        let time = |value: Option<&Value>, field: &str, default: Option<Duration>| {
            duration(value, &format!("flowControl.{field}"), default)
        };
        let max_requests = bound(
            section.and_then(|it| it.max_requests.as_ref()),
            "maxRequests",
        )?;
        let max_bytes = bound(section.and_then(|it| it.max_bytes.as_ref()), "maxBytes")?;
        let ttl = section.and_then(|it| it.default_request_ttl.as_ref());
        let request_ttl = time(ttl, "defaultRequestTTL", Some(REQUEST_TTL))?;
        let ttl = section.and_then(|it| it.no_endpoint_request_ttl.as_ref());
        let empty_ttl = time(ttl, "noEndpointRequestTTL", request_ttl)?;
        let default = section.map_or(&none, |it| &it.default_priority_band);
        let default_band = self.band(default.as_ref(), "flowControl.defaultPriorityBand")?;
        let negative = section.and_then(|it| it.default_negative_priority_band.as_ref());
        let negative_band = match negative {
            None => default_band.clone(),
            band => self.band(band, "flowControl.defaultNegativePriorityBand")?,
        };
        let mut bands: Vec<(i32, BandSection)> = Vec::new();
        for (at, raw) in section.iter().flat_map(|it| &it.priority_bands).enumerate() {
            let path = format!("flowControl.priorityBands[{at}]");
            let Some(priority) = raw.priority else {
                let message = "this field is required; add it";
                return Err(DecodeError::field(format!("{path}.priority"), message));
            };
            if bands.iter().any(|(other, _)| *other == priority) {
                let message = format!("there are two bands of priority {priority}; keep one");
                return Err(DecodeError::field(format!("{path}.priority"), message));
            }
            bands.push((priority, self.band(Some(raw), &path)?));
        }
        let limit = section.and_then(|it| it.usage_limit_policy_plugin_ref.as_deref());
        let path = "flowControl.usageLimitPolicyPluginRef";
        let usage_limit = self.find_or_add(limit.unwrap_or(LIMIT), &[Role::UsageLimit], path)?;
        if section.is_some() && !gate {
            let note =
                "flowControl: without flowControl among featureGates the section has no effect";
            self.notes.push(note.to_owned());
        }
        Ok(gate.then_some(FlowSection {
            max_requests,
            max_bytes,
            request_ttl,
            empty_ttl,
            evicts: section.is_some_and(|it| it.enable_eviction),
            default_band,
            negative_band,
            bands,
            usage_limit,
        }))
    }

    fn band(&mut self, raw: Option<&RawBand>, path: &str) -> Result<BandSection, DecodeError> {
        let ordering = raw.and_then(|it| it.ordering_policy_ref.as_deref());
        let fairness = raw.and_then(|it| it.fairness_policy_ref.as_deref());
        let requests = raw.and_then(|it| it.max_requests.as_ref());
        let bytes = raw.and_then(|it| it.max_bytes.as_ref());
        let bound = |value: Option<&Value>, field: &str, default: u64| {
            let given = quantity(value, &format!("{path}.{field}"))?;
            Ok(given.filter(|&it| it > 0).unwrap_or(default))
        };
        Ok(BandSection {
            max_requests: bound(requests, "maxRequests", BAND_REQUESTS)?,
            max_bytes: bound(bytes, "maxBytes", BAND_BYTES)?,
            ordering: self.find_or_add(
                ordering.unwrap_or("fcfs-ordering-policy"),
                &[Role::Ordering],
                &format!("{path}.orderingPolicyRef"),
            )?,
            fairness: self.find_or_add(
                fairness.unwrap_or("global-strict-fairness-policy"),
                &[Role::Fairness],
                &format!("{path}.fairnessPolicyRef"),
            )?,
        })
    }
}

/// A duration; zero is none at all.
fn duration(
    value: Option<&Value>,
    path: &str,
    default: Option<Duration>,
) -> Result<Option<Duration>, DecodeError> {
    let Some(value) = value else {
        return Ok(default);
    };
    let zero = value.as_u64() == Some(0);
    let read = value.as_str().and_then(go_duration);
    let read = read.or_else(|| zero.then_some(Duration::ZERO));
    let read = read.ok_or_else(|| {
        DecodeError::field(path, "a duration such as 30s, 1.5s or 10m is expected")
    })?;
    Ok(Some(read).filter(|it| !it.is_zero()))
}

/// A whole number, also as a Kubernetes quantity such as `8Gi`.
fn quantity(value: Option<&Value>, path: &str) -> Result<Option<u64>, DecodeError> {
    let read = |value: &Value| match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => quantity_of(text),
        _ => None,
    };
    match value {
        None => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| {
            DecodeError::field(path, "a whole number or a quantity such as 8Gi is expected")
        }),
    }
}

fn quantity_of(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor: u64 = match &text[digits..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

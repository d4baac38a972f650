//! Which metrics mean what.
//!
//! The engines that are known are told apart by the names on their pages, so that nothing has to be set for them. For
//! others each logical metric of the inference extension's model server protocol can be named, in the grammar of its
//! flags: `name` or `name{label=value,label2=value2}`. An empty string switches a metric off.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The source of each logical metric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricMapping {
    /// Requests in the engine's own queue.
    pub queued: MetricSource,
    /// Requests in its batch.
    pub running: MetricSource,
    /// Share of its KV cache in use, 0 to 1.
    pub kv_usage: MetricSource,
    /// Adapters in use, in the labels `running_lora_adapters`, `waiting_lora_adapters` and `max_lora`.
    pub lora: MetricSource,
    /// The KV cache's size, in the labels `block_size` and `num_gpu_blocks` (or `page_size` and `num_pages`).
    pub cache_info: MetricSource,
}

/// Where a logical metric comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MetricSource {
    /// From what the engine is known to call it.
    #[default]
    Preset,
    /// It is not read.
    Off,
    /// From this metric.
    Named(Selector),
}

/// A metric, and labels that its series must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Name.
    pub name: String,
    /// Labels with their values.
    pub labels: Vec<(String, String)>,
}

impl FromStr for MetricSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            Ok(Self::Off)
        } else {
            text.parse().map(Self::Named)
        }
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |problem| Error::Mapping {
            text: text.to_owned(),
            problem,
        };
        let (name, labels) = match text.trim().split_once('{') {
            None => (text.trim(), ""),
            Some((name, rest)) => (
                name.trim(),
                rest.strip_suffix('}')
                    .ok_or_else(|| wrong("the closing brace is missing"))?,
            ),
        };
        if !is_name(name) {
            return Err(wrong("this is not the name of a metric"));
        }
        let mut pairs = Vec::new();
        for pair in labels
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let (label, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong("a label has no value"))?;
            if !is_name(label.trim()) {
                return Err(wrong("this is not the name of a label"));
            }
            let value = value.trim();
            let value = value
                .strip_prefix('"')
                .and_then(|v| v.strip_suffix('"'))
                .unwrap_or(value);
            if value.contains(['"', '{', '}']) {
                return Err(wrong("a label's value has quotes or braces in it"));
            }
            pairs.push((label.trim().to_owned(), value.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            labels: pairs,
        })
    }
}

fn is_name(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b':');
    text.bytes().next().is_some_and(letter) && text.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (at, (label, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{label}={value}", if at == 0 { "{" } else { "," })?;
        }
        f.write_str(if self.labels.is_empty() { "" } else { "}" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_the_flags() {
        let table = [
            ("vllm:num_requests_waiting", "vllm:num_requests_waiting"),
            ("a{b=c}", "a{b=c}"),
            (" a { b = c , d=\"e\" } ", "a{b=c,d=e}"),
            ("a{}", "a"),
            ("a{b=}", "a{b=}"),
            ("a{b=c=d}", "a{b=c=d}"),
        ];
        for (text, printed) in table {
            assert_eq!(
                text.parse::<Selector>().unwrap().to_string(),
                printed,
                "{text}"
            );
        }
        for off in ["", "  "] {
            assert_eq!(off.parse::<MetricSource>().unwrap(), MetricSource::Off);
        }
        for bad in [
            "{}", "a b", "a{b=c", "a}", "1a", "a{b}", "a{=c}", "a{b=c}d", "a{1b=c}", "a{b={}",
            "a{b=\"c}",
        ] {
            assert!(bad.parse::<MetricSource>().is_err(), "{bad}");
        }
    }
}

//! Fleets by name: `qwen3-32b-tp2-h100*10`, or `llama-3.1-8b-h100*5+llama-3-8b-a100*5`.

use serde::{Deserialize, Serialize};
use simulator::{EngineConfig, Profile, Semantics, profiles};

use crate::LabError;

/// Most engines of a fleet.
const MOST: usize = 10_000;

/// The engines that `text` names, vLLM's defaults on each model.
///
/// # Errors
/// An unknown model, or a count that is none.
pub fn parse(text: &str) -> Result<Vec<EngineConfig>, LabError> {
    let wrong = |reason: &str| LabError::Fleet {
        text: text.to_owned(),
        reason: reason.to_owned(),
        known: known(),
    };
    let mut engines = Vec::new();
    for part in text.split('+') {
        let (name, count) = part.split_once('*').unwrap_or((part, "1"));
        let model = profiles::by_name(name.trim()).ok_or_else(|| wrong("unknown model"))?;
        let count: usize = count.trim().parse().map_err(|_| wrong("no such count"))?;
        if count == 0 || engines.len() + count > MOST {
            return Err(wrong("from 1 to 10000 engines"));
        }
        let engine = EngineConfig::for_model(model);
        engines.extend(std::iter::repeat_n(engine, count));
    }
    Ok(engines)
}

/// A setting of all engines of a fleet, as `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adjustment {
    /// One of [`Adjustment::KEYS`].
    pub key: String,
    /// Seconds, tokens or a count, as the key wants it.
    pub value: f64,
}

impl Adjustment {
    /// What can be set: the constants of the step time, tokens of the KV cache, tokens and sequences of a step,
    /// seconds to load an adapter, adapter slots, and whether the older vLLM's rules for admission and visibility of
    /// blocks hold (0 or 1).
    pub const KEYS: [&'static str; 12] = [
        "c0",
        "w_base",
        "a",
        "q",
        "k_v",
        "s",
        "kv_tokens",
        "step_tokens",
        "sequences",
        "adapter_load",
        "adapter_slots",
        "older",
    ];

    /// Reads `KEY=VALUE`.
    ///
    /// # Errors
    /// An unknown key, or a value that is negative or no number.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        let wrong = || LabError::Adjustment {
            text: text.to_owned(),
            known: Self::KEYS.join(", "),
        };
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        let value: f64 = value.trim().parse().map_err(|_| wrong())?;
        let key = key.trim().to_owned();
        let known = Self::KEYS.contains(&key.as_str());
        if !(known && value.is_finite() && (0.0..=4e9).contains(&value)) {
            return Err(wrong());
        }
        Ok(Self { key, value })
    }

    /// Sets it. A key that is not known changes nothing.
    pub fn apply(&self, engine: &mut EngineConfig) {
        let value = self.value;
        match self.key.as_str() {
            "c0" => engine.profile.c0 = value,
            "w_base" => engine.profile.w_base = value,
            "a" => engine.profile.a = value,
            "q" => engine.profile.q = value,
            "k_v" => engine.profile.k_v = value,
            "s" => engine.profile.s = value,
            "kv_tokens" => engine.kv_blocks = value as u32 / engine.block_tokens.max(1),
            "step_tokens" => engine.max_batched_tokens = (value as u32).max(1),
            "sequences" => engine.max_seqs = (value as usize).max(1),
            "adapter_load" => engine.lora.load_seconds = value,
            "adapter_slots" => engine.lora.max_loras = value as usize,
            "older" if value > 0.0 => engine.semantics = Semantics::Older,
            _ => {}
        }
    }
}

/// The fleet as somebody believes it to be whose step times are all off by `factor`.
#[must_use]
pub fn believed(engines: &[EngineConfig], factor: f64) -> Vec<EngineConfig> {
    let scaled = |engine: &EngineConfig| {
        let it = engine.profile;
        let mut engine = engine.clone();
        engine.profile = Profile {
            c0: it.c0 * factor,
            w_base: it.w_base * factor,
            a: it.a * factor,
            q: it.q * factor,
            k_v: it.k_v * factor,
            s: it.s * factor,
        };
        engine
    };
    engines.iter().map(scaled).collect()
}

fn known() -> String {
    let names: Vec<_> = profiles::ALL.iter().map(|it| it.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fleets_parse_or_say_why_not() {
        let good = [
            ("qwen3-32b-tp2-h100", 1),
            ("llama-3.1-8b-h100*5 + llama-3-8b-a100*3", 8),
        ];
        for (text, count) in good {
            assert_eq!(parse(text).unwrap().len(), count);
        }
        let bad = [
            "",
            "gpt*3",
            "qwen3-32b-tp2-h100*0",
            "qwen3-32b-tp2-h100*-1",
            "qwen3-32b-tp2-h100*99999999",
            "qwen3-32b-tp2-h100*2+",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn adjustments_change_engines_or_say_why_not() {
        let usual = parse("qwen3-32b-tp2-h100").unwrap().remove(0);
        for key in Adjustment::KEYS {
            let mut engine = usual.clone();
            let adjustment = Adjustment::parse(&format!("{key} = 64")).unwrap();
            adjustment.apply(&mut engine);
            assert_ne!(engine, usual, "{key}");
        }
        for bad in ["", "a", "a=", "a=x", "a=-1", "a=NaN", "b=1", "=1", "a=1e99"] {
            assert!(Adjustment::parse(bad).is_err(), "{bad}");
        }
    }
}

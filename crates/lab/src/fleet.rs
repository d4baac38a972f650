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
    let belief = Belief {
        factor,
        ..Belief::default()
    };
    belief.of(engines)
}

/// By how much somebody is mistaken about the constants of the step time: factors, 1 is right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Belief {
    /// On all of them, besides their own. 0: nothing is known at all.
    pub factor: f64,
    /// On each step's constant.
    pub c0: f64,
    /// On the weights' reading time.
    pub w_base: f64,
    /// On a token's matrix products.
    pub a: f64,
    /// On a pair of tokens in prefill attention.
    pub q: f64,
    /// On a context token of a decode.
    pub k_v: f64,
    /// On a sequence.
    pub s: f64,
}

impl Default for Belief {
    fn default() -> Self {
        Self {
            factor: 1.0,
            c0: 1.0,
            w_base: 1.0,
            a: 1.0,
            q: 1.0,
            k_v: 1.0,
            s: 1.0,
        }
    }
}

impl Belief {
    /// Reads a factor on everything (`1.3`), or factors on some constants (`a=1.3,q=.7`), or both.
    ///
    /// # Errors
    /// An unknown key, or a factor that is negative or no number.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        let mut belief = Self::default();
        for part in text.split(',') {
            belief.part(part).ok_or_else(|| LabError::Belief {
                text: part.trim().to_owned(),
            })?;
        }
        Ok(belief)
    }

    fn part(&mut self, text: &str) -> Option<()> {
        let (key, value) = text.split_once('=').unwrap_or(("", text));
        let place = match key.trim() {
            "" => &mut self.factor,
            "c0" => &mut self.c0,
            "w_base" => &mut self.w_base,
            "a" => &mut self.a,
            "q" => &mut self.q,
            "k_v" => &mut self.k_v,
            "s" => &mut self.s,
            _ => return None,
        };
        let value: f64 = value.trim().parse().ok()?;
        *place = (0.0..=1e3).contains(&value).then_some(value)?;
        Some(())
    }

    /// The fleet as somebody who is mistaken believes it to be.
    #[must_use]
    pub fn of(&self, engines: &[EngineConfig]) -> Vec<EngineConfig> {
        let all = self.factor;
        let mistaken = |engine: &EngineConfig| {
            let it = engine.profile;
            let mut engine = engine.clone();
            engine.profile = Profile {
                c0: it.c0 * all * self.c0,
                w_base: it.w_base * all * self.w_base,
                a: it.a * all * self.a,
                q: it.q * all * self.q,
                k_v: it.k_v * all * self.k_v,
                s: it.s * all * self.s,
            };
            engine
        };
        engines.iter().map(mistaken).collect()
    }
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
    fn beliefs_parse_and_scale() {
        let engines = parse("qwen3-32b-tp2-h100").unwrap();
        let (usual, belief) = (engines[0].profile, Belief::parse("a=1.3, q=.7").unwrap());
        let mistaken = belief.of(&engines).remove(0).profile;
        assert_eq!((mistaken.a, mistaken.q), (usual.a * 1.3, usual.q * 0.7));
        assert_eq!((mistaken.c0, mistaken.k_v), (usual.c0, usual.k_v));
        assert_eq!(Belief::parse("1.0").unwrap(), Belief::default());
        let all = Belief::parse("2,s=3").unwrap().of(&engines).remove(0);
        assert_eq!(all.profile.s, usual.s * 6.0);
        assert_eq!(
            believed(&engines, 2.0)[0].profile.w_base,
            usual.w_base * 2.0
        );
        for bad in ["", "a", "a=", "a=-1", "b=1", "NaN", "1,,2", "a=1e9"] {
            assert!(Belief::parse(bad).is_err(), "{bad}");
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

//! Fleets by name: `qwen3-32b-tp2-h100*10`, or `llama-3.1-8b-h100*5+llama-3-8b-a100*5`.

use simulator::{EngineConfig, Profile, profiles};

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
}

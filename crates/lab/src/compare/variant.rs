//! The product's pool with other settings, for sweeps and ablations: `pointsman@prices.mu=0`, several joined by `+`.
//!
//! A setting is named by its path in [`Config`], as recordings write it. A path that does not exist or a value that
//! makes no sense is an error that names it.

use scheduling::Config;
use serde_json::Value;

use crate::LabError;

/// What stands between a policy's name and its settings.
const MARK: char = '@';

/// The policy's own name, and its settings if there are any.
pub(super) fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once(MARK) {
        Some((name, settings)) => (name, Some(settings)),
        None => (name, None),
    }
}

/// The configuration with these settings.
pub(super) fn apply(config: &Config, settings: &str) -> Result<Config, LabError> {
    let wrong = |setting: &str, reason: String| LabError::Setting {
        setting: setting.to_owned(),
        reason,
    };
    let mut whole =
        serde_json::to_value(config).map_err(|error| wrong(settings, error.to_string()))?;
    for setting in settings.split('+') {
        let (path, value) = setting
            .split_once('=')
            .ok_or_else(|| wrong(setting, "there is no '='".to_owned()))?;
        let place = find(&mut whole, path).map_err(|reason| wrong(setting, reason))?;
        // What is no number, list or object is a word.
        *place = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if let Err(error) = serde_json::from_value::<Config>(whole.clone()) {
            return Err(wrong(setting, error.to_string()));
        }
    }
    let config: Config =
        serde_json::from_value(whole).map_err(|error| wrong(settings, error.to_string()))?;
    config
        .validate()
        .map_err(|error| wrong(settings, error.to_string()))?;
    Ok(config)
}

fn find<'a>(mut place: &'a mut Value, path: &str) -> Result<&'a mut Value, String> {
    for key in path.split('.') {
        let Value::Object(fields) = place else {
            return Err(format!("there is nothing below, so no {key:?}"));
        };
        let known: Vec<&str> = fields.keys().map(String::as_str).collect();
        let known = known.join(", ");
        place = fields
            .get_mut(key)
            .ok_or_else(|| format!("there is no {key:?} among {known}"))?;
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_by_their_path() {
        let usual = Config::default();
        let changed = apply(&usual, "prices.mu=0+prefill_gate_tokens=4096").unwrap();
        let mut wanted = usual.clone();
        wanted.prices.mu = 0.0;
        wanted.prefill_gate_tokens = 4096;
        assert_eq!(changed, wanted);
        let changed = apply(&usual, "flow.fairness=strict").unwrap();
        assert_eq!(changed.flow.fairness, scheduling::Fairness::Strict);
        assert_eq!(split("pointsman@a=1+b=2"), ("pointsman", Some("a=1+b=2")));
        assert_eq!(split("pointsman"), ("pointsman", None));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (settings, words) in [
            ("", "there is no '='"),
            ("prices.mu", "there is no '='"),
            ("prices.nu=1", "no \"nu\" among"),
            ("nu=1", "no \"nu\" among"),
            ("prices.mu.x=1", "nothing below"),
            ("prices.mu=much", "prices.mu=much"),
            ("prices.mu=-1", "from 0 up"),
            ("prices.mu=1+block_tokens=0", "at least 1"),
            ("prefill_gate_tokens=-3", "prefill_gate_tokens=-3"),
        ] {
            let error = apply(&Config::default(), settings).unwrap_err().to_string();
            assert!(error.contains(words), "{settings}: {error}");
        }
    }
}

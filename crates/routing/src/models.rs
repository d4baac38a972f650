//! Model names of a pool: who may ask for what, under which name the servers know it, how much it matters.
//!
//! Filled from InferenceModel (`v1alpha2`), InferenceObjective and InferenceModelRewrite. The rules:
//!
//! - *Name.* A rewrite for exactly this name wins; then a rewrite that matches everything; then the InferenceModel of
//!   this name; else the name stays. Names are resolved once, a target is not looked up again.
//! - *Class.* A known objective named by the request wins with its own number. Else the InferenceModel of the name the
//!   client sent decides: Critical 1, Standard (or unset) 0, Sheddable -1. A name that the pool's InferenceModels do
//!   not know passes as Sheddable, as the endpoint picker of their time did; a pool without InferenceModels knows no
//!   classes, so everything is Standard. An unknown objective changes nothing.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::weighted;

/// Class of a model with criticality `Critical`.
pub const CRITICAL: i32 = 1;
/// Class of a model with criticality `Standard` or none, and of everything nobody has said anything about.
pub const STANDARD: i32 = 0;
/// Class of a model with criticality `Sheddable`, and of a model that the pool's InferenceModels do not know.
pub const SHEDDABLE: i32 = -1;

/// What a pool knows about model names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelTable {
    rewrites: FxHashMap<String, Vec<ModelTarget>>,
    rewrite_all: Option<Vec<ModelTarget>>,
    models: FxHashMap<String, Model>,
    objectives: FxHashMap<String, i32>,
}

/// One of the names that servers know a model by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelTarget {
    /// The name to put in the body.
    pub name: String,
    /// Its share, relative to the sum.
    pub weight: u32,
}

#[derive(Debug, Clone, PartialEq)]
struct Model {
    priority: i32,
    targets: Vec<ModelTarget>,
}

/// What a request's model name and objective resolve to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution<'t> {
    /// The name to put in the body; `None`: leave the body as it is.
    pub target_model: Option<&'t str>,
    /// Class: Critical 1, Standard 0, Sheddable -1, or the objective's own number.
    pub priority: i32,
    /// Name of the objective that gave the priority, for metrics and explanations.
    pub objective: Option<&'t str>,
}

impl ModelTable {
    /// Adds the InferenceModel for a name. Of two for one name the first stays.
    pub fn add_model(&mut self, name: &str, priority: i32, targets: Vec<ModelTarget>) {
        self.models
            .entry(name.to_owned())
            .or_insert(Model { priority, targets });
    }

    /// Adds a rewrite of one name, or of every name. Of two for the same the first stays.
    pub fn add_rewrite(&mut self, name: Option<&str>, targets: Vec<ModelTarget>) {
        match name {
            Some(name) => {
                self.rewrites.entry(name.to_owned()).or_insert(targets);
            }
            None => {
                self.rewrite_all.get_or_insert(targets);
            }
        }
    }

    /// Adds an objective. Of two with one name the first stays.
    pub fn add_objective(&mut self, name: &str, priority: i32) {
        self.objectives.entry(name.to_owned()).or_insert(priority);
    }

    /// Resolves a request. `roll` is uniform in [0, 1) and chooses among weighted targets.
    pub fn resolve(
        &self,
        model: &str,
        objective_header: Option<&str>,
        roll: f64,
    ) -> Resolution<'_> {
        let entry = self.models.get(model);
        let targets = self
            .rewrites
            .get(model)
            .or(self.rewrite_all.as_ref())
            .or(entry.map(|entry| &entry.targets))
            .map_or(&[][..], Vec::as_slice);
        let chosen = weighted::pick(targets.iter().map(|target| u64::from(target.weight)), roll);
        let objective = objective_header.and_then(|name| self.objectives.get_key_value(name));
        let class = match entry {
            Some(entry) => entry.priority,
            None if self.models.is_empty() => STANDARD,
            None => SHEDDABLE,
        };
        Resolution {
            target_model: chosen
                .map(|index| targets[index].name.as_str())
                .filter(|target| *target != model),
            priority: objective.map_or(class, |(_, priority)| *priority),
            objective: objective.map(|(name, _)| name.as_str()),
        }
    }

    /// Whether an InferenceModel or a rewrite is for exactly this name.
    pub fn knows(&self, model: &str) -> bool {
        self.models.contains_key(model) || self.rewrites.contains_key(model)
    }

    /// Whether no object says anything about models of this pool.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
            && self.rewrites.is_empty()
            && self.rewrite_all.is_none()
            && self.objectives.is_empty()
    }

    /// The names that clients may ask for, sorted: what InferenceModels and exact rewrites are for.
    pub fn public_names(&self) -> Vec<&str> {
        let names = self
            .models
            .keys()
            .chain(self.rewrites.keys())
            .map(|name| (name.as_str(), ()));
        names.collect::<BTreeMap<_, _>>().into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(all: &[(&str, u32)]) -> Vec<ModelTarget> {
        all.iter()
            .map(|&(name, weight)| ModelTarget {
                name: name.to_owned(),
                weight,
            })
            .collect()
    }

    fn table() -> ModelTable {
        let mut table = ModelTable::default();
        table.add_model("support", CRITICAL, targets(&[("v1", 80), ("v2", 20)]));
        table.add_model("batch", SHEDDABLE, Vec::new());
        table.add_model("both", STANDARD, targets(&[("from-model", 1)]));
        table.add_model("same", STANDARD, targets(&[("same", 1)]));
        table.add_rewrite(Some("both"), targets(&[("from-rewrite", 1)]));
        table.add_rewrite(Some("both"), targets(&[("too-late", 1)]));
        table.add_objective("gold", 7);
        table.add_objective("gold", 8);
        table
    }

    #[test]
    fn names_and_classes() {
        let table = table();
        let cases = [
            ("support", None, 0.0, Some("v1"), 1, None),
            ("support", None, 0.9, Some("v2"), 1, None),
            ("support", Some("gold"), 0.0, Some("v1"), 7, Some("gold")),
            ("support", Some("nobody"), 0.0, Some("v1"), 1, None),
            ("batch", None, 0.0, None, -1, None),
            ("both", None, 0.0, Some("from-rewrite"), 0, None),
            ("same", None, 0.0, None, 0, None),
            ("unknown", None, 0.0, None, -1, None),
            ("unknown", Some("gold"), 0.0, None, 7, Some("gold")),
        ];
        for (model, header, roll, target_model, priority, objective) in cases {
            let expected = Resolution {
                target_model,
                priority,
                objective,
            };
            assert_eq!(
                table.resolve(model, header, roll),
                expected,
                "{model} {header:?}"
            );
        }
        assert_eq!(table.public_names(), ["batch", "both", "same", "support"]);
        assert!(table.knows("both") && !table.knows("from-rewrite"));
    }

    #[test]
    fn a_pool_without_models_has_no_classes() {
        let mut table = ModelTable::default();
        assert!(table.is_empty());
        assert_eq!(
            table.resolve("any", None, 0.5),
            Resolution {
                target_model: None,
                priority: 0,
                objective: None
            }
        );
        table.add_rewrite(None, targets(&[("one", 1)]));
        table.add_rewrite(Some("exact"), targets(&[("two", 1)]));
        assert_eq!(table.resolve("any", None, 0.5).target_model, Some("one"));
        assert_eq!(table.resolve("exact", None, 0.5).target_model, Some("two"));
        assert_eq!(table.resolve("any", None, 0.5).priority, 0);
    }
}

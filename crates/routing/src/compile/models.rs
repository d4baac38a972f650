//! Model tables of pools, out of InferenceModel, InferenceObjective and InferenceModelRewrite.
//!
//! Of several objects that claim the same thing the oldest wins, then the first by namespace and name. An object whose
//! pool does not exist waits: it gets a condition in files, and none in a cluster, where the pool may be somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::inference::{ModelMatchType, RewriteMatch, RewriteRule};
use api::{
    InferenceModel, InferenceModelRewrite, InferenceObjective, Meta, ObjectKey, Objects, PoolRef,
    Resource,
};

use super::conditions::{Problem, generation, positive};
use super::pools::BuiltPool;
use super::{Mode, ObjectStatus, Outcome};
use crate::models::{ModelTable, ModelTarget};
use crate::plan::PoolKey;
use crate::status::Condition;

/// The tables of all pools.
pub(super) struct Tables {
    by_pool: BTreeMap<ObjectKey, Arc<ModelTable>>,
    /// What to say about each object, and the pool it is about.
    statuses: Vec<(Option<ObjectKey>, ObjectStatus)>,
}

/// Tables while they are filled.
struct Filling<'o> {
    objects: &'o Objects,
    tables: BTreeMap<ObjectKey, ModelTable>,
    statuses: Vec<(Option<ObjectKey>, ObjectStatus)>,
}

impl Tables {
    pub(super) fn new(objects: &Objects) -> Self {
        let mut filling = Filling {
            objects,
            tables: BTreeMap::new(),
            statuses: Vec::new(),
        };
        filling.models();
        filling.objectives();
        filling.rewrites();
        let by_pool = filling
            .tables
            .into_iter()
            .map(|(key, table)| (key, Arc::new(table)))
            .collect();
        Self {
            by_pool,
            statuses: filling.statuses,
        }
    }

    /// The table of a pool.
    pub(super) fn of(&self, pool: &ObjectKey) -> Arc<ModelTable> {
        self.by_pool.get(pool).cloned().unwrap_or_default()
    }

    /// Says what was found out: about everything in files, about objects of the plan's pools in a cluster.
    pub(super) fn report(
        &self,
        mode: Mode,
        built: &BTreeMap<PoolKey, BuiltPool>,
        out: &mut Outcome,
    ) {
        let ours: BTreeSet<_> = built
            .values()
            .filter_map(|pool| pool.object.as_ref())
            .collect();
        for (pool, status) in &self.statuses {
            if mode == Mode::Files || pool.as_ref().is_some_and(|pool| ours.contains(pool)) {
                out.statuses.push(status.clone());
            }
        }
    }
}

/// Objects from the oldest to the youngest.
fn by_age<'o, T: Resource + 'o>(objects: impl Iterator<Item = &'o Arc<T>>) -> Vec<&'o T> {
    let mut all: Vec<&T> = objects.map(Arc::as_ref).collect();
    all.sort_by_key(|object| super::assemble::age(object.meta()));
    all
}

impl Filling<'_> {
    fn pool(&self, meta: &Meta, reference: &PoolRef) -> Result<ObjectKey, Problem> {
        let pool = self.objects.referenced_pool(&meta.namespace, reference);
        pool.map(|pool| pool.key()).ok_or_else(|| {
            let message = format!(
                "{} {}/{} not found",
                reference.kind, meta.namespace, reference.name
            );
            Problem::new("PoolNotFound", message)
        })
    }

    /// Says about an object whether it counts.
    fn say(
        &mut self,
        pool: Option<ObjectKey>,
        object: &impl Resource,
        problem: Option<&Problem>,
        more: Option<Condition>,
    ) {
        let accepted = positive("Accepted", problem, generation(object.meta()));
        let conditions = std::iter::once(accepted).chain(more).collect();
        self.statuses
            .push((pool, ObjectStatus::of(object.key(), conditions)));
    }

    fn models(&mut self) {
        let mut owners: BTreeMap<(ObjectKey, &str), ObjectKey> = BTreeMap::new();
        for model in by_age(self.objects.inference_models()) {
            let pool = match self.pool(&model.meta, &model.spec.pool_ref) {
                Ok(pool) => pool,
                Err(problem) => {
                    self.say(None, model, Some(&problem), None);
                    continue;
                }
            };
            let owner = owners
                .entry((pool.clone(), &model.spec.model_name))
                .or_insert_with(|| model.key())
                .clone();
            if owner == model.key() {
                self.add_model(&pool, model);
                self.say(Some(pool), model, None, None);
            } else {
                let message = format!(
                    "model name {} of this pool belongs to {owner}",
                    model.spec.model_name
                );
                self.say(
                    Some(pool),
                    model,
                    Some(&Problem::new("ModelNameInUse", message)),
                    None,
                );
            }
        }
    }

    fn add_model(&mut self, pool: &ObjectKey, model: &InferenceModel) {
        let targets = targets(
            model
                .spec
                .target_models
                .iter()
                .map(|target| (target.name.as_str(), target.weight)),
        );
        let table = self.tables.entry(pool.clone()).or_default();
        table.add_model(
            &model.spec.model_name,
            clamp(model.spec.priority()),
            targets,
        );
    }

    fn objectives(&mut self) {
        for objective in by_age(self.objects.inference_objectives()) {
            let InferenceObjective { meta, spec, .. } = objective;
            match self.pool(meta, &spec.pool_ref) {
                Ok(pool) => {
                    let table = self.tables.entry(pool.clone()).or_default();
                    table.add_objective(&meta.name, clamp(spec.priority.unwrap_or(0)));
                    self.say(Some(pool), objective, None, None);
                }
                Err(problem) => self.say(None, objective, Some(&problem), None),
            }
        }
    }

    fn rewrites(&mut self) {
        for rewrite in by_age(self.objects.inference_model_rewrites()) {
            match self.pool(&rewrite.meta, &rewrite.spec.pool_ref) {
                Ok(pool) => self.rewrite(pool, rewrite),
                Err(problem) => self.say(None, rewrite, Some(&problem), None),
            }
        }
    }

    fn rewrite(&mut self, pool: ObjectKey, rewrite: &InferenceModelRewrite) {
        let mut ignored = Vec::new();
        for (index, rule) in rewrite.spec.rules.iter().enumerate() {
            match names_of(rule) {
                Ok(names) => {
                    let table = self.tables.entry(pool.clone()).or_default();
                    let targets = targets(
                        rule.targets
                            .iter()
                            .map(|t| (t.model_rewrite.as_str(), t.weight)),
                    );
                    for name in names {
                        table.add_rewrite(name, targets.clone());
                    }
                }
                Err(why) => ignored.push(format!("rules[{index}] is ignored: {why}")),
            }
        }
        let all = ignored.len() == rewrite.spec.rules.len();
        let problem =
            (!ignored.is_empty()).then(|| Problem::new("InvalidRules", ignored.join("; ")));
        let partial = problem.clone().filter(|_| !all).map(|problem| {
            Condition::new(
                "PartiallyInvalid",
                true,
                problem.reason,
                problem.message,
                generation(&rewrite.meta),
            )
        });
        self.say(
            Some(pool),
            rewrite,
            problem.as_ref().filter(|_| all),
            partial,
        );
    }
}

/// The model names a rule is for, `None` for every name; or why the rule cannot be used.
fn names_of(rule: &RewriteRule) -> Result<Vec<Option<&str>>, String> {
    if rule.targets.is_empty() {
        return Err("it has no targets".to_owned());
    }
    if rule.matches.is_empty() {
        return Ok(vec![None]);
    }
    let name = |wanted: &'_ RewriteMatch| -> Result<(), String> {
        match wanted.model.as_ref().map(|model| &model.match_type) {
            Some(ModelMatchType::Unknown(other)) => {
                Err(format!("match type {other} is not supported"))
            }
            _ => Ok(()),
        }
    };
    rule.matches.iter().try_for_each(name)?;
    Ok(rule
        .matches
        .iter()
        .map(|wanted| wanted.model.as_ref().map(|model| model.value.as_str()))
        .collect())
}

/// Targets without any weight share alike; beside weighted ones a missing weight counts 1.
fn targets<'a>(all: impl Iterator<Item = (&'a str, Option<u32>)>) -> Vec<ModelTarget> {
    all.map(|(name, weight)| ModelTarget {
        name: name.to_owned(),
        weight: weight.unwrap_or(1),
    })
    .collect()
}

fn clamp(priority: i64) -> i32 {
    i32::try_from(priority).unwrap_or(if priority < 0 { i32::MIN } else { i32::MAX })
}

//! Policies and workloads by name.

use std::fmt::Write as _;
use std::path::PathBuf;

use scheduling::PolicyKind;
use simulator::EngineConfig;

use super::variant;
use crate::product::{Knowledge, Product, ProductConfig};
use crate::workload::{self, Options};
use crate::{Dispatcher, LabError, Workload, fleet, policies};

/// A workload that ends by itself is cut off after so many seconds.
const LONGEST: f64 = 3600.0;

/// The circumstances for which a workload is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The fleet.
    pub engines: Vec<EngineConfig>,
    /// Loads of interest.
    pub loads: Vec<f64>,
    /// What a load counts.
    pub unit: String,
    /// Seconds of arrivals.
    pub horizon: f64,
    /// Seconds left out at the start.
    pub warmup: f64,
    /// What it is and where its numbers come from.
    pub about: String,
}

/// Where policies and workloads come from.
pub trait Catalog: Sync {
    /// The circumstances of a workload; `fleet` replaces its own engines.
    ///
    /// # Errors
    /// A workload that is not known, or a fleet that does not parse.
    fn setting(&self, workload: &str, fleet: Option<&str>) -> Result<Setting, LabError>;

    /// A workload from its beginning. `span` replaces its seconds of arrivals and of warm-up.
    ///
    /// # Errors
    /// A name that is not known, or a trace that does not read.
    fn workload(
        &self,
        name: &str,
        load: f64,
        seed: u64,
        span: (Option<f64>, Option<f64>),
    ) -> Result<Box<dyn Workload>, LabError>;

    /// A dispatcher for one gateway, which believes the fleet to be `engines`; `None`: it knows nothing of it but the
    /// number.
    ///
    /// # Errors
    /// A name that is not known.
    fn policy(
        &self,
        name: &str,
        engines: &[EngineConfig],
        knowledge: Knowledge,
        seed: u64,
    ) -> Result<Box<dyn Dispatcher>, LabError>;

    /// What a policy is, its constants and their source.
    fn about_policy(&self, _name: &str) -> String {
        String::new()
    }
}

/// Names of the product's own policies, and what they are.
const PRODUCT: [(&str, PolicyKind, &str); 4] = [
    (
        "pointsman",
        PolicyKind::ExpectedCost,
        "the product's pool with its default policy, expected cost",
    ),
    (
        "pool-round-robin",
        PolicyKind::RoundRobin,
        "the product's pool, endpoints in turn",
    ),
    (
        "pool-least-request",
        PolicyKind::LeastRequest,
        "the product's pool, fewest requests in flight",
    ),
    (
        "pool-random",
        PolicyKind::Random,
        "the product's pool, any endpoint",
    ),
];

/// Everything that the lab brings with it.
#[derive(Debug, Clone, Default)]
pub struct Builtin {
    /// The folder that holds trace files.
    pub traces: Option<PathBuf>,
}

impl Builtin {
    /// Names of all policies: the product's, then those of the literature.
    pub fn policies() -> impl Iterator<Item = &'static str> {
        let own = PRODUCT.iter().map(|(name, ..)| *name);
        own.chain(policies::names().iter().copied())
    }
}

impl Catalog for Builtin {
    fn setting(&self, workload: &str, fleet: Option<&str>) -> Result<Setting, LabError> {
        let entry = workload::find(workload);
        let mut engines = match (fleet, entry) {
            (Some(text), _) => fleet::parse(text)?,
            (None, Some(entry)) => {
                let mut parts = vec![format!("{}*{}", entry.profile, entry.engines)];
                let others = entry.others.iter();
                parts.extend(others.map(|(profile, count)| format!("{profile}*{count}")));
                fleet::parse(&parts.join("+"))?
            }
            // A trace file of one's own.
            (None, None) => fleet::parse("qwen3-32b-tp2-h100*10")?,
        };
        for engine in &mut engines {
            engine.max_model_len = match entry {
                Some(entry) => engine.max_model_len.max(entry.longest),
                None => u32::MAX,
            };
            if let Some(slots) = entry.and_then(|it| it.adapter_slots) {
                engine.lora.max_loras = slots as usize;
                engine.lora.max_cpu_loras = engine.lora.max_cpu_loras.max(4 * slots as usize);
            }
        }
        Ok(Setting {
            engines,
            loads: entry.map_or_else(|| vec![1.0], |it| it.loads.to_vec()),
            unit: entry
                .map_or("speed-up of the trace", |it| it.unit)
                .to_owned(),
            horizon: entry
                .map_or(Some(600.0), |it| it.duration)
                .unwrap_or(LONGEST),
            warmup: entry.map_or(120.0, |it| it.warmup),
            about: entry.map_or_else(String::new, |it| {
                format!("{} Source: {}", it.description, it.source)
            }),
        })
    }

    fn workload(
        &self,
        name: &str,
        load: f64,
        seed: u64,
        (duration, warmup): (Option<f64>, Option<f64>),
    ) -> Result<Box<dyn Workload>, LabError> {
        let options = Options {
            traces_dir: self.traces.as_deref(),
            duration,
            warmup,
            ..Options::default()
        };
        Ok(workload::build(name, load, seed, &options)?)
    }

    fn policy(
        &self,
        name: &str,
        engines: &[EngineConfig],
        knowledge: Knowledge,
        seed: u64,
    ) -> Result<Box<dyn Dispatcher>, LabError> {
        product(name, engines, knowledge, seed)?
            .or_else(|| policies::build(name, engines, seed))
            .ok_or_else(|| LabError::Policy {
                name: name.to_owned(),
                known: Self::policies().collect::<Vec<_>>().join(", "),
            })
    }

    fn about_policy(&self, name: &str) -> String {
        let (plain, settings) = variant::split(name);
        if let Some((_, _, about)) = PRODUCT.iter().find(|(known, ..)| *known == plain) {
            let settings = settings.map(|it| format!(", with {it}"));
            return format!("{about}{}", settings.unwrap_or_default());
        }
        let own = policies::manifest().iter();
        let own = own.filter(|it| name.starts_with(it.policy));
        let mut text = String::new();
        for constant in own {
            let (name, value, source) = (constant.name, constant.value, constant.source);
            let _ = write!(text, "{name}: {value} ({source}). ");
        }
        text
    }
}

/// The product's pool with one of its policies, and settings after an `@`; `None` if the name is none of the product's.
pub(crate) fn product(
    name: &str,
    engines: &[EngineConfig],
    knowledge: Knowledge,
    seed: u64,
) -> Result<Option<Box<dyn Dispatcher>>, LabError> {
    let (name, settings) = variant::split(name);
    let Some((_, kind, _)) = PRODUCT.iter().find(|(known, ..)| *known == name) else {
        return Ok(None);
    };
    let mut config = ProductConfig::new(*kind);
    config.knowledge = knowledge;
    if let Some(settings) = settings {
        config.pool = variant::apply(&config.pool, settings)?;
    }
    Ok(Some(Box::new(Product::new(config, engines, seed))))
}

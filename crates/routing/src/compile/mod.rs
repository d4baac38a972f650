//! From objects to a plan and conditions.
//!
//! Compiling is a pure function in stages, each in a file of its own:
//!
//! 1. `claim`: which Gateways are ours;
//! 2. `sets`, `listeners`, `frontend`: which listeners of theirs can serve (protocol, certificates, conflicts, kinds);
//! 3. `models`, `pools`, `backends`, `tls`, `grants`: what references resolve to;
//! 4. `matches`, `filters`, `route`: the rules of each route;
//! 5. `attach`: which route attaches to which listener, for which hostnames;
//! 6. `assemble`: rules in order of precedence, listeners by port;
//! 7. `conditions`: what to say about each object.
//!
//! Nothing here fails as a whole. Whatever is wrong with an object becomes a condition of that object (Gateway API
//! words), and a reference that does not resolve becomes a [`crate::Target::Invalid`], which answers 500 for its share.

mod assemble;
mod attach;
mod backends;
mod certificates;
mod claim;
mod conditions;
mod endpoints;
mod features;
mod filters;
mod frontend;
mod grants;
mod listeners;
mod matches;
mod models;
mod picker;
mod pools;
mod route;
mod sets;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{ObjectKey, Objects};

use crate::plan::{Plan, PoolKey, PoolSpec};
use crate::status::{Condition, Note, ParentKey, RouteKind};

pub use features::SUPPORTED_FEATURES;

/// The controller name that GatewayClasses of this project carry.
pub const CONTROLLER_NAME: &str = "pointsman.dev/gateway-controller";

/// Where objects come from; a few rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Files, which may leave out what a cluster has by itself: a GatewayClass, a Gateway, the Service of a picker.
    /// All Gateways share one address.
    #[default]
    Files,
    /// An API server. What is absent does not exist, and each Gateway has addresses of its own.
    Cluster,
}

/// Settings of [`compile`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileOptions {
    /// GatewayClasses with this `controllerName` are ours.
    pub controller_name: String,
    /// Port of the Gateway that stands in where files describe pools and no Gateway.
    pub default_listen_port: u16,
    /// Where objects come from.
    pub mode: Mode,
    /// What becomes of `parametersRef`.
    pub parameters: ParameterRefs,
}

/// What becomes of `parametersRef` of GatewayClasses and Gateways. What parameters mean is the host's business.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ParameterRefs {
    /// Nobody reads them: an object that has one is not accepted.
    #[default]
    Unsupported,
    /// The host reads them. Objects whose parameters it cannot use are here, each with a sentence why.
    Read(BTreeMap<ObjectKey, String>),
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            controller_name: CONTROLLER_NAME.to_owned(),
            default_listen_port: 8080,
            mode: Mode::Files,
            parameters: ParameterRefs::default(),
        }
    }
}

/// The outcome of [`compile`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compiled {
    /// What to serve, all Gateways together on one address. Where two Gateways of a cluster want the same port and
    /// hostname, the older one has it here; each has its own in `gateways`.
    pub plan: Plan,
    /// What to serve for each Gateway by itself, oldest Gateway first.
    pub gateways: Vec<GatewayPlan>,
    /// What to say about each object. An object without an entry deserves none: a writer then removes what it said
    /// before.
    pub statuses: Vec<ObjectStatus>,
    /// What to say once in the log.
    pub notes: Vec<Note>,
}

/// The plan of one Gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayPlan {
    /// The Gateway.
    pub gateway: ObjectKey,
    /// Its listeners and the pools they reach.
    pub plan: Plan,
}

/// What to say about one object, or about one of its parents or listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStatus {
    /// The object.
    pub object: ObjectKey,
    /// For routes, pools and policies: the parent (or ancestor) that this entry is about.
    pub parent: Option<ParentKey>,
    /// For a Gateway or a ListenerSet: the listener that this entry is about.
    pub listener: Option<String>,
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// For a listener: the kinds of routes it takes.
    pub supported_kinds: Vec<RouteKind>,
    /// For a listener: how many routes are attached.
    pub attached_routes: u32,
    /// For a Gateway: how many ListenerSets are attached.
    pub attached_listener_sets: u32,
}

impl ObjectStatus {
    pub(crate) fn of(object: ObjectKey, conditions: Vec<Condition>) -> Self {
        Self {
            object,
            parent: None,
            listener: None,
            conditions,
            supported_kinds: Vec::new(),
            attached_routes: 0,
            attached_listener_sets: 0,
        }
    }

    pub(crate) fn under(self, parent: ParentKey) -> Self {
        Self {
            parent: Some(parent),
            ..self
        }
    }

    /// The conditions that say something is wrong.
    pub fn problems(&self) -> impl Iterator<Item = &Condition> {
        self.conditions
            .iter()
            .filter(|condition| condition.is_problem())
    }
}

/// Compiles objects. Pure: the same objects and options give the same outcome.
///
/// `Programmed` is said on the strength of the configuration alone; a host that fails to bind an address, or has none,
/// replaces that condition.
pub fn compile(objects: &Objects, options: &CompileOptions) -> Compiled {
    let mut out = Outcome::default();
    let grants = grants::Grants::new(objects);
    let claims = claim::gateways(objects, &grants, options, &mut out);
    let sets = sets::attached(objects, &claims);
    let mut listeners = listeners::open(objects, &grants, (&claims, &sets), options.mode);
    let tables = models::Tables::new(objects);
    let mut resolver = backends::Resolver::new(objects, &grants, &tables, options.mode);

    for view in route::views(objects) {
        let compiled = route::compile(&view, &mut resolver, &mut out);
        let mut stage = attach::Stage {
            objects,
            claims: &claims,
            sets: &sets,
            mode: options.mode,
            listeners: &mut listeners,
            resolver: &mut resolver,
            out: &mut out,
        };
        stage.attach(&view, &compiled);
    }
    if options.mode == Mode::Files && !claims.is_empty() {
        resolver.note_unreached(&mut out);
    } else if options.mode == Mode::Files {
        assemble::stand_in(
            objects,
            options.default_listen_port,
            &mut resolver,
            &mut out,
        );
    }
    conditions::gateways(&claims, &sets, &listeners, &mut out);
    sets::conditions(&sets, &listeners, &mut out);
    let (built, usage) = resolver.finish(&mut out);
    conditions::pools(&built, &usage, &mut out);
    tables.report(options.mode, &built, &mut out);

    let pools: BTreeMap<_, _> = built
        .into_iter()
        .map(|(key, pool)| (key, pool.spec))
        .collect();
    assemble::plans(&claims, listeners, &pools, &mut out);
    let Outcome {
        plan,
        gateways,
        mut statuses,
        notes,
    } = out;
    statuses.sort_by(|a, b| {
        (&a.object, &a.parent, &a.listener).cmp(&(&b.object, &b.parent, &b.listener))
    });
    let mut seen = BTreeSet::new();
    let notes = notes
        .into_iter()
        .filter(|note| seen.insert((note.object.clone(), note.message.clone())))
        .collect();
    Compiled {
        plan,
        gateways,
        statuses,
        notes,
    }
}

/// Every InferencePool that the objects describe, whether or not a route leads there: what an endpoint picker serves.
pub fn compile_pools(objects: &Objects, mode: Mode) -> BTreeMap<PoolKey, Arc<PoolSpec>> {
    let grants = grants::Grants::new(objects);
    let tables = models::Tables::new(objects);
    let mut resolver = backends::Resolver::new(objects, &grants, &tables, mode);
    for pool in objects.inference_pools() {
        resolver.inference_pool(pool);
    }
    let (built, _) = resolver.finish(&mut Outcome::default());
    built
        .into_iter()
        .map(|(key, pool)| (key, pool.spec))
        .collect()
}

/// What the stages add to.
#[derive(Default)]
struct Outcome {
    plan: Plan,
    gateways: Vec<GatewayPlan>,
    statuses: Vec<ObjectStatus>,
    notes: Vec<Note>,
}

impl Outcome {
    fn note(&mut self, object: impl ToString, message: impl Into<String>) {
        self.notes.push(Note {
            object: object.to_string(),
            message: message.into(),
        });
    }
}

#[cfg(test)]
mod tests;

//! Where the pool is read from: files, or a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use api::{InferencePool, Objects};
use kubernetes::{Client, Scope, Watch};
use routing::{Mode, PoolKey, PoolKind, PoolSpec};

use super::args::{EppArgs, GROUP, GROUP_ALPHA};

/// How long a burst of changes to files must have been quiet before it is read.
const SETTLE: Duration = Duration::from_millis(100);
/// How long changes in a cluster are gathered.
const GATHER: Duration = Duration::from_millis(20);

/// Objects as they change.
pub(super) struct Source {
    origin: Origin,
    /// A pool that flags describe.
    described: Option<InferencePool>,
}

enum Origin {
    Files(Box<Files>),
    Cluster(Box<Watch>),
}

/// Files that are watched.
struct Files {
    source: files::Source,
    watch: files::Watch,
    last: Option<Objects>,
}

/// What was read.
pub(super) struct Read {
    pub(super) objects: Arc<Objects>,
    /// Objects that are broken, one line each; they stay at their last good state.
    pub(super) problems: Vec<String>,
    /// Everything there is has been seen.
    pub(super) synced: bool,
    mode: Mode,
}

impl Read {
    /// Every pool among them.
    pub(super) fn pools(&self) -> BTreeMap<PoolKey, Arc<PoolSpec>> {
        routing::compile_pools(&self.objects, self.mode)
    }
}

impl Source {
    /// Watches files.
    pub(super) fn files(args: &EppArgs, described: Option<InferencePool>) -> anyhow::Result<Self> {
        let source = files::Source::new(args.files.clone());
        let watch =
            files::watch(source.clone(), SETTLE).context("cannot watch the files given with -f")?;
        let files = Files {
            source,
            watch,
            last: None,
        };
        Ok(Self {
            origin: Origin::Files(Box::new(files)),
            described,
        })
    }

    /// Watches a part of a cluster.
    pub(super) fn cluster(client: Client, scope: Scope, described: Option<InferencePool>) -> Self {
        Self {
            origin: Origin::Cluster(Box::new(Watch::start(client, scope))),
            described,
        }
    }

    /// Returns when something has changed.
    pub(super) async fn changed(&mut self) {
        match &mut self.origin {
            Origin::Files(files) => files.watch.changed().await,
            Origin::Cluster(watch) => {
                watch.changed().await;
                tokio::time::sleep(GATHER).await;
            }
        }
    }

    /// What there is now.
    pub(super) fn read(&mut self) -> Read {
        let mut read = self.origin.read();
        if let Some(pool) = &self.described {
            Arc::make_mut(&mut read.objects).insert(pool.clone());
        }
        read
    }
}

impl Origin {
    fn read(&mut self) -> Read {
        match self {
            Self::Files(files) => {
                let loaded = match &files.last {
                    None => files.source.load(),
                    Some(previous) => files.source.load_over(previous),
                };
                files.last = Some(loaded.objects.clone());
                Read {
                    objects: Arc::new(loaded.objects),
                    problems: loaded.problems.iter().map(ToString::to_string).collect(),
                    synced: true,
                    mode: Mode::Files,
                }
            }
            Self::Cluster(watch) => Read {
                objects: watch.objects(),
                problems: watch
                    .problems()
                    .into_iter()
                    .map(|problem| format!("{}: {}", problem.object, problem.reason))
                    .collect(),
                synced: watch.synced(),
                mode: Mode::Cluster,
            },
        }
    }
}

/// The pool's kind by its group.
fn kind(group: &str) -> anyhow::Result<PoolKind> {
    match group {
        GROUP => Ok(PoolKind::Inference),
        GROUP_ALPHA => Ok(PoolKind::InferenceAlpha),
        other => bail!("--pool-group {other:?} is neither {GROUP} nor {GROUP_ALPHA}"),
    }
}

/// The part of a cluster that has this pool, where flags do not describe it.
pub(super) fn scope_of(args: &EppArgs, key: &PoolKey) -> Scope {
    Scope::Pool {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        group: args.pool_group.clone(),
    }
}

/// The namespace that flags or the environment name.
pub(super) fn namespace(args: &EppArgs) -> Option<String> {
    let from_environment = || std::env::var("NAMESPACE").ok();
    args.pool_namespace
        .clone()
        .or_else(from_environment)
        .filter(|name| !name.is_empty())
}

/// The pool that the flags name in a cluster.
pub(super) fn pool_in_cluster(args: &EppArgs) -> anyhow::Result<PoolKey> {
    let name = args.pool_name.clone().context(
        "say which pool to pick for with --pool-name NAME, or describe it in files given with -f",
    )?;
    Ok(PoolKey {
        kind: kind(&args.pool_group)?,
        namespace: namespace(args).unwrap_or_else(|| "default".to_owned()),
        name,
    })
}

/// The pool to pick for among those that files describe.
pub(super) fn pool_in_files(
    args: &EppArgs,
    pools: &BTreeMap<PoolKey, Arc<PoolSpec>>,
) -> anyhow::Result<PoolKey> {
    kind(&args.pool_group)?;
    let wanted = |key: &&PoolKey| {
        matches!(key.kind, PoolKind::Inference | PoolKind::InferenceAlpha)
            && args.pool_name.as_ref().is_none_or(|name| *name == key.name)
            && args
                .pool_namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == key.namespace)
    };
    let found: Vec<&PoolKey> = pools.keys().filter(wanted).collect();
    match found.as_slice() {
        [] => bail!("the files describe no InferencePool of that name"),
        [one] => Ok((*one).clone()),
        several => {
            let of_group = kind(&args.pool_group)?;
            let mut exact = several.iter().filter(|key| key.kind == of_group);
            if let (Some(_), Some(one), None) = (&args.pool_name, exact.next(), exact.next()) {
                return Ok((*one).clone());
            }
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            bail!(
                "the files describe several pools ({}): say which one with --pool-name and --pool-namespace",
                names.join(", ")
            )
        }
    }
}

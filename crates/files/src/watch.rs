//! Tells when files have changed.
//!
//! The file system's notifications are only a reason to look; what counts is a fingerprint of the files: names,
//! where links lead, identity, size and times. So it does not matter in which way a file is replaced. Three habits
//! shape what is watched: editors write a new file and rename it over the old one, Kubernetes swaps the `..data` link
//! beside the visible names, and some file systems notify nobody. Therefore the directory around each path is watched,
//! and every few seconds the fingerprint is taken without a reason.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::list::Listing;
use crate::source::Source;

/// How often to look without a notification.
const POLL: Duration = Duration::from_secs(2);
/// How many times a change may be found to go on before it is reported all the same.
const MAX_ROUNDS: usize = 20;

/// A watch over a source. Begin it before the first load, so that no change falls between the two.
#[derive(Debug)]
pub struct Watch {
    source: Source,
    debounce: Duration,
    poll: Duration,
    last: Fingerprint,
    /// A notification came that was not yet looked into; outlives a dropped `changed` future.
    dirty: bool,
    notified: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
}

/// Begins to watch. `debounce` is how long files must have been quiet before a change is reported.
///
/// # Errors
/// When a path of the source is missing; the error names it. Where the system cannot notify, the watch polls.
pub fn watch(source: Source, debounce: Duration) -> io::Result<Watch> {
    for path in source.paths() {
        fs::metadata(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
    }
    let notified = Arc::new(Notify::new());
    let mut watch = Watch {
        last: Fingerprint::take(source.paths()),
        source,
        debounce,
        poll: POLL,
        dirty: false,
        watcher: watcher(Arc::clone(&notified)),
        notified,
    };
    watch.arm();
    // What changed between fingerprint and arming is found on the first look.
    watch.dirty = true;
    Ok(watch)
}

fn watcher(notified: Arc<Notify>) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too; ours must not wake us.
        if !matches!(
            event,
            Ok(notify::Event {
                kind: EventKind::Access(_),
                ..
            })
        ) {
            notified.notify_one();
        }
    };
    notify::recommended_watcher(handler)
        .inspect_err(|error| tracing::warn!(%error, "no notifications of changed files; looking every few seconds"))
        .ok()
}

impl Watch {
    /// Resolves once files have changed and then been quiet. May be dropped and called again without losing a change.
    pub async fn changed(&mut self) {
        loop {
            if !self.dirty {
                tokio::select! {
                    () = self.notified.notified() => {
                        self.dirty = true;
                        // A busy neighbour in the same directory must not keep us looking all the time.
                        tokio::time::sleep(self.debounce).await;
                    }
                    () = tokio::time::sleep(self.poll) => {}
                }
            }
            let now = self.look().await;
            if now == self.last {
                self.dirty = false;
                continue;
            }
            self.dirty = true;
            let settled = self.settle(now).await;
            self.dirty = false;
            if settled != self.last {
                self.last = settled;
                self.arm();
                return;
            }
        }
    }

    /// Waits until two looks, `debounce` apart, see the same.
    async fn settle(&self, mut seen: Fingerprint) -> Fingerprint {
        for _ in 0..MAX_ROUNDS {
            tokio::time::sleep(self.debounce).await;
            let again = self.look().await;
            if again == seen {
                break;
            }
            seen = again;
        }
        seen
    }

    async fn look(&self) -> Fingerprint {
        let paths = self.source.paths().to_vec();
        // A look that fails (only by a panic or at shutdown) sees nothing new.
        tokio::task::spawn_blocking(move || Fingerprint::take(&paths))
            .await
            .unwrap_or_else(|_| self.last.clone())
    }

    /// Asks for notifications about each path and the directory around it, again after every change because a
    /// replaced directory takes its watch along.
    fn arm(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for path in self.source.paths() {
            let around = match path.parent() {
                Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
                Some(parent) => parent,
                None => path,
            };
            let inside = path
                .is_dir()
                .then_some((path.as_path(), RecursiveMode::Recursive));
            for (path, mode) in std::iter::once((around, RecursiveMode::NonRecursive)).chain(inside)
            {
                if let Err(error) = watcher.watch(path, mode) {
                    tracing::debug!(%error, path = %path.display(), "no notifications here; looking every few seconds");
                }
            }
        }
    }
}

/// What the files look like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fingerprint {
    files: Vec<Face>,
    failures: Vec<(PathBuf, io::ErrorKind)>,
}

/// One file from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Face {
    path: PathBuf,
    leads_to: Option<PathBuf>,
    length: u64,
    modified: Option<SystemTime>,
    identity: (u64, i64, i64),
}

impl Fingerprint {
    fn take(paths: &[PathBuf]) -> Self {
        let listing = Listing::of(paths);
        Self {
            files: listing.files.into_iter().map(Face::of).collect(),
            failures: listing
                .failures
                .into_iter()
                .map(|(path, error)| (path, error.kind()))
                .collect(),
        }
    }
}

impl Face {
    fn of(path: PathBuf) -> Self {
        let metadata = fs::metadata(&path).ok();
        Self {
            leads_to: fs::canonicalize(&path).ok(),
            length: metadata.as_ref().map_or(0, fs::Metadata::len),
            modified: metadata
                .as_ref()
                .and_then(|metadata| metadata.modified().ok()),
            identity: metadata.as_ref().map_or((0, 0, 0), identity),
            path,
        }
    }
}

/// Inode and time of the last change of the inode, which tell a replaced file from an untouched one.
#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

#[cfg(test)]
mod tests;

//! Which files a source consists of.
//!
//! A directory is read recursively: `*.yaml`, `*.yml` and `*.json`, in the order of names. Names that begin with a dot
//! are skipped; that leaves out editors' files and the `..data` tree behind a mounted ConfigMap, whose visible names are
//! links into it. A path given by name is read whatever it is called.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Deepest directory that is read.
const MAX_DEPTH: usize = 16;

/// The files of a source, and the paths that could not be read.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) failures: Vec<(PathBuf, io::Error)>,
    seen: HashSet<PathBuf>,
}

impl Listing {
    pub(crate) fn of(paths: &[PathBuf]) -> Self {
        let mut listing = Self::default();
        for path in paths {
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => listing.directory(path, 0),
                Ok(metadata) if metadata.is_file() => listing.file(path.clone()),
                Ok(_) => {
                    let error = io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "it is neither a file nor a directory",
                    );
                    listing.failures.push((path.clone(), error));
                }
                Err(error) => listing.failures.push((path.clone(), error)),
            }
        }
        listing
    }

    /// Takes a path that was not reached before by another way.
    fn is_new(&mut self, path: &Path) -> bool {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.seen.insert(real)
    }

    fn file(&mut self, path: PathBuf) {
        if self.is_new(&path) {
            self.files.push(path);
        }
    }

    fn directory(&mut self, path: &Path, depth: usize) {
        if depth > MAX_DEPTH || !self.is_new(path) {
            return;
        }
        let entries = fs::read_dir(path).and_then(|entries| {
            let paths: io::Result<Vec<_>> = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect();
            paths
        });
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                self.failures.push((path.to_owned(), error));
                return;
            }
        };
        entries.retain(|entry| !is_hidden(entry));
        entries.sort();
        for entry in entries {
            match fs::metadata(&entry) {
                Ok(metadata) if metadata.is_dir() => self.directory(&entry, depth + 1),
                Ok(metadata) if metadata.is_file() && has_known_ending(&entry) => self.file(entry),
                // A link to nothing, or a file that went away meanwhile, is not there.
                _ => {}
            }
        }
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn has_known_ending(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending == "yaml" || ending == "yml" || ending == "json")
}

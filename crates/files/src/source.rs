//! Reading all files of a source into one set of objects.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{DecodeError, Document, Object, ObjectKey, Objects};
use parking_lot::Mutex;

use crate::list::Listing;
use crate::problem::{Problem, ProblemKind, Skipped};

/// Files and directories that together describe the objects. Clones share what was learnt by reading.
#[derive(Clone, Debug, Default)]
pub struct Source {
    paths: Vec<PathBuf>,
    /// From which file each object last came, so that a file that turns to noise keeps its objects.
    origins: Arc<Mutex<BTreeMap<ObjectKey, PathBuf>>>,
}

/// What reading a source gave.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The good objects, and on a reload the last good state of broken ones.
    pub objects: Objects,
    /// What is broken, in the order of files and lines.
    pub problems: Vec<Problem>,
    /// What deserves a look and breaks nothing, such as misspelt fields.
    pub warnings: Vec<Problem>,
    /// Documents of kinds that are not read.
    pub skipped: Vec<Skipped>,
}

impl Source {
    /// A source of files and directories.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            origins: Arc::default(),
        }
    }

    /// The paths, as given.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads everything anew: what is broken is named and left out.
    #[must_use]
    pub fn load(&self) -> Loaded {
        self.load_over(&Objects::new())
    }

    /// Reads everything; what is broken is named and stays as in `previous`. A path given by name that is missing
    /// counts as broken; a file that has gone from a directory is gone with its objects.
    #[must_use]
    pub fn load_over(&self, previous: &Objects) -> Loaded {
        let mut origins = self.origins.lock();
        let mut reading = Reading::default();
        let listing = Listing::of(&self.paths);
        for (path, error) in &listing.failures {
            reading.unreadable(path, error);
        }
        for file in &listing.files {
            reading.file(file);
        }
        reading.keep(previous, &origins);
        *origins = std::mem::take(&mut reading.origins);
        reading.loaded
    }
}

/// One pass over all files.
#[derive(Default)]
struct Reading {
    loaded: Loaded,
    origins: BTreeMap<ObjectKey, PathBuf>,
    /// Where each object of this pass stands.
    places: HashMap<ObjectKey, (PathBuf, usize)>,
    /// Broken objects that can be identified, with their files.
    broken: Vec<(ObjectKey, PathBuf)>,
    /// Files and directories of which a part cannot even be identified.
    lost: Vec<PathBuf>,
}

impl Reading {
    fn unreadable(&mut self, path: &Path, error: &std::io::Error) {
        self.lost.push(path.to_owned());
        self.loaded.problems.push(Problem {
            file: path.to_owned(),
            line: None,
            field: None,
            object: None,
            message: format!("cannot be read: {error}"),
            kind: ProblemKind::Unreadable,
        });
    }

    fn file(&mut self, file: &Path) {
        match fs::read_to_string(file) {
            Ok(text) => {
                for document in api::decode_yaml(&text) {
                    self.document(file, document);
                }
            }
            Err(error) => self.unreadable(file, &error),
        }
    }

    fn document(&mut self, file: &Path, document: Document) {
        let Document {
            line,
            ref key,
            ref result,
            ref warnings,
            ..
        } = document;
        let place = Place {
            file,
            object: key.as_ref(),
        };
        for issue in warnings {
            let line = document.line_of(&issue.path);
            let problem = place.problem(
                ProblemKind::UnknownField,
                line,
                Some(&issue.path),
                &issue.message,
            );
            self.loaded.warnings.push(problem);
        }
        match result {
            Ok(object) => {
                let issues = api::validate(object);
                if issues.is_empty() {
                    self.take(&place, line, object);
                    return;
                }
                self.loaded.problems.extend(issues.iter().map(|issue| {
                    let line = document.line_of(&issue.path);
                    place.problem(
                        ProblemKind::Invalid,
                        line,
                        Some(&issue.path),
                        &issue.message,
                    )
                }));
                self.broken.push((object.key(), file.to_owned()));
            }
            Err(DecodeError::UnknownKind {
                api_version, kind, ..
            }) => self.loaded.skipped.push(Skipped {
                file: file.to_owned(),
                line,
                api_version: api_version.clone(),
                kind: kind.clone(),
                message: result
                    .as_ref()
                    .err()
                    .map(DecodeError::message)
                    .unwrap_or_default(),
            }),
            Err(error) => self.fail(&place, error),
        }
    }

    fn fail(&mut self, place: &Place<'_>, error: &DecodeError) {
        let kind = match error {
            DecodeError::Syntax { .. } => ProblemKind::Syntax,
            _ => ProblemKind::Decode,
        };
        self.loaded.problems.push(place.problem(
            kind,
            error.line(),
            error.path(),
            &error.message(),
        ));
        match place.object {
            Some(key) => self.broken.push((key.clone(), place.file.to_owned())),
            None => self.lost.push(place.file.to_owned()),
        }
    }

    /// Takes a good object, unless its key is taken.
    fn take(&mut self, place: &Place<'_>, line: usize, object: &Object) {
        let key = object.key();
        if let Some((file, first)) = self.places.get(&key) {
            let message = format!(
                "this object is already described at {}:{first}; this one is ignored",
                file.display()
            );
            self.loaded.problems.push(place.problem(
                ProblemKind::Duplicate,
                Some(line),
                None,
                &message,
            ));
            return;
        }
        self.places
            .insert(key.clone(), (place.file.to_owned(), line));
        self.origins.insert(key, place.file.to_owned());
        self.loaded.objects.insert(object.clone());
    }

    /// Puts back the last good state of what is broken now and not described well elsewhere.
    fn keep(&mut self, previous: &Objects, origins: &BTreeMap<ObjectKey, PathBuf>) {
        let mut kept = std::mem::take(&mut self.broken);
        for lost in &self.lost {
            let from = origins.iter().filter(|(_, file)| file.starts_with(lost));
            kept.extend(from.map(|(key, file)| (key.clone(), file.clone())));
        }
        for (key, file) in kept {
            let last = previous
                .get(&key)
                .filter(|_| !self.loaded.objects.contains(&key));
            if let Some(object) = last {
                self.loaded.objects.insert(object.clone());
                self.origins.insert(key, file);
            }
        }
    }
}

/// Where a document stands.
struct Place<'a> {
    file: &'a Path,
    object: Option<&'a ObjectKey>,
}

impl Place<'_> {
    fn problem(
        &self,
        kind: ProblemKind,
        line: Option<usize>,
        field: Option<&str>,
        message: &str,
    ) -> Problem {
        Problem {
            file: self.file.to_owned(),
            line,
            field: field.map(str::to_owned),
            object: self.object.cloned(),
            message: message.to_owned(),
            kind,
        }
    }
}

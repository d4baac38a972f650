//! Objects from files and directories, and a watch that tells when they change.
//!
//! The rule of reading: what is good is served. A broken object is named, with its file, line and field, and
//!
//! - on a cold start ([`Source::load`]) it is left out;
//! - on a reload ([`Source::load_over`]) it stays at its last good state. A file that cannot be understood at all
//!   keeps every object that last came from it.
//!
//! An object that is no longer in any file is gone. Of two objects with the same key the first wins, in the order of the
//! paths as given and of file names within a directory.

mod list;
mod problem;
mod source;
mod watch;

pub use problem::{Problem, ProblemKind, Skipped};
pub use source::{Loaded, Source};
pub use watch::{Watch, watch};

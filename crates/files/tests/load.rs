//! Loading: what is good is served, what is broken is named and keeps its last good state.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

use api::Objects;
use files::{Loaded, ProblemKind, Source};

/// A namespace whose state is `label`: plain words are quoted, anything else goes in as it is.
fn namespace(name: &str, label: &str) -> String {
    let plain = label.chars().all(char::is_alphanumeric);
    let label = if plain {
        format!("'{label}'")
    } else {
        label.to_owned()
    };
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    state: {label}\n"
    )
}

/// `name=label` of each object, in order.
fn state(objects: &Objects) -> Vec<String> {
    objects
        .namespaces()
        .map(|n| format!("{}={}", n.meta.name, n.meta.labels["state"]))
        .collect()
}

fn put(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    file
}

/// The problems with the directory's name taken out.
fn lines(loaded: &Loaded, dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    loaded
        .problems
        .iter()
        .map(|problem| problem.to_string().replace(&prefix, ""))
        .collect()
}

#[test]
fn directories_are_read_in_order_and_hidden_names_are_not() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "b.yaml", &namespace("b", "1"));
    put(dir.path(), "a/deep.yml", &namespace("deep", "1"));
    put(
        dir.path(),
        "c.json",
        "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"c\",\"labels\":{\"state\":\"1\"}}}",
    );
    put(dir.path(), ".hidden.yaml", "[");
    put(dir.path(), "..data/x.yaml", "[");
    put(dir.path(), "notes.txt", "[");
    let loaded = Source::new(vec![dir.path().to_owned(), dir.path().join("b.yaml")]).load();
    assert_eq!(state(&loaded.objects), ["b=1", "c=1", "deep=1"]);
    assert_eq!(
        loaded.problems,
        [],
        "a file that is reached twice is read once"
    );
}

#[test]
fn a_cold_start_names_what_is_broken_and_serves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    put(
        dir.path(),
        "pool.yaml",
        "apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: x, namespace: ns}
spec:
  selector: {matchLabels: {a: b}}
  targetPorts:
  - number: 8000
  - number: 0
  colour: red
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
",
    );
    put(dir.path(), "noise.yaml", "a: [\n");
    put(dir.path(), "good.yaml", &namespace("good", "1"));
    fs::write(dir.path().join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let loaded = Source::new(vec![dir.path().to_owned(), dir.path().join("missing")]).load();
    assert_eq!(state(&loaded.objects), ["good=1"]);
    assert_eq!(loaded.objects.len(), 1);
    let said = lines(&loaded, dir.path());
    assert_eq!(said.len(), 4, "{said:#?}");
    assert!(
        said[0].starts_with("missing: cannot be read: "),
        "{said:#?}"
    );
    assert!(
        said[1].starts_with("binary.yaml: cannot be read: "),
        "{said:#?}"
    );
    assert_eq!(
        said[2],
        "noise.yaml:1: not valid YAML: unclosed bracket '['"
    );
    assert_eq!(
        said[3],
        "pool.yaml:8: InferencePool ns/x: spec.targetPorts[1].number: 0 is no port; use 1 to 65535"
    );
    let kinds: Vec<_> = loaded.problems.iter().map(|p| p.kind).collect();
    assert_eq!(
        kinds,
        [
            ProblemKind::Unreadable,
            ProblemKind::Unreadable,
            ProblemKind::Syntax,
            ProblemKind::Invalid
        ]
    );
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(
        (loaded.warnings[0].line, loaded.warnings[0].field.as_deref()),
        (Some(9), Some("spec.colour"))
    );
    assert_eq!(
        (loaded.skipped[0].line, loaded.skipped[0].kind.as_str()),
        (11, "Deployment")
    );
}

#[test]
fn a_broken_object_keeps_its_last_good_state_until_it_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let text = |first: &str, second: &str| {
        format!(
            "{}---\n{}",
            namespace("one", first),
            namespace("two", second)
        )
    };
    put(dir.path(), "a.yaml", &text("1", "1"));
    let source = Source::new(vec![dir.path().to_owned()]);
    let mut objects = source.load().objects;

    for broken in ["'not a label!'", "[1]"] {
        put(dir.path(), "a.yaml", &text(broken, "2"));
        let loaded = source.load_over(&objects);
        assert_eq!(state(&loaded.objects), ["one=1", "two=2"]);
        let problem = &loaded.problems[0];
        assert_eq!(
            (problem.line, problem.field.as_deref()),
            (Some(6), Some("metadata.labels.state"))
        );
        objects = loaded.objects;
    }
    put(dir.path(), "a.yaml", &text("3", "3"));
    let loaded = source.load_over(&objects);
    assert_eq!(state(&loaded.objects), ["one=3", "two=3"]);
    assert_eq!(loaded.problems, []);
}

#[test]
fn a_file_of_noise_keeps_every_object_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let both = format!("{}---\n{}", namespace("one", "1"), namespace("two", "1"));
    put(dir.path(), "a.yaml", &both);
    put(dir.path(), "b.yaml", &namespace("three", "1"));
    let source = Source::new(vec![dir.path().to_owned()]);
    let mut objects = source.load().objects;

    put(dir.path(), "a.yaml", "}{");
    put(dir.path(), "b.yaml", &namespace("two", "moved"));
    for _ in 0..2 {
        let loaded = source.load_over(&objects);
        assert_eq!(
            state(&loaded.objects),
            ["one=1", "two=moved"],
            "kept, moved and deleted"
        );
        assert_eq!(loaded.problems.len(), 1);
        objects = loaded.objects;
    }
}

#[test]
fn deleted_files_take_their_objects_along_and_missing_paths_do_not() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "tree/a.yaml", &namespace("a", "1"));
    put(dir.path(), "tree/b.yaml", &namespace("b", "1"));
    let named = put(dir.path(), "named.yaml", &namespace("named", "1"));
    let source = Source::new(vec![dir.path().join("tree"), named.clone()]);
    let objects = source.load().objects;
    assert_eq!(objects.len(), 3);

    fs::remove_file(dir.path().join("tree/b.yaml")).unwrap();
    fs::remove_file(&named).unwrap();
    let loaded = source.load_over(&objects);
    assert_eq!(state(&loaded.objects), ["a=1", "named=1"]);
    assert_eq!(loaded.problems.len(), 1);

    fs::remove_dir_all(dir.path().join("tree")).unwrap();
    let loaded = source.load_over(&loaded.objects);
    assert_eq!(
        state(&loaded.objects),
        ["a=1", "named=1"],
        "a lost directory is not an empty one"
    );

    put(dir.path(), "named.yaml", "# nothing here any more\n");
    fs::create_dir(dir.path().join("tree")).unwrap();
    let loaded = source.load_over(&loaded.objects);
    assert_eq!(state(&loaded.objects), Vec::<String>::new());
    assert_eq!(loaded.problems, []);
}

#[test]
fn of_two_objects_with_one_key_the_first_wins() {
    let dir = tempfile::tempdir().unwrap();
    put(
        dir.path(),
        "a.yaml",
        &format!("# a comment\n{}", namespace("x", "first")),
    );
    put(dir.path(), "b.yaml", &namespace("x", "second"));
    let loaded = Source::new(vec![dir.path().to_owned()]).load();
    assert_eq!(state(&loaded.objects), ["x=first"]);
    assert_eq!(
        lines(&loaded, dir.path()),
        [
            "b.yaml:1: Namespace x: this object is already described at a.yaml:2; this one is ignored"
        ]
    );
    assert_eq!(loaded.problems[0].kind, ProblemKind::Duplicate);
}

#[cfg(unix)]
#[test]
fn links_in_a_circle_end() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "a.yaml", &namespace("a", "1"));
    std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
    let loaded = Source::new(vec![dir.path().to_owned()]).load();
    assert_eq!(state(&loaded.objects), ["a=1"]);
    assert_eq!(loaded.problems, []);
}

use std::time::Duration;

use super::*;

const QUICK: Duration = Duration::from_millis(10);
/// Far beyond what a loaded machine needs; only a failing test waits this long.
const LIMIT: Duration = Duration::from_secs(20);

fn watching(path: &Path) -> Watch {
    watch(Source::new(vec![path.to_owned()]), QUICK).unwrap()
}

async fn expect_change(watch: &mut Watch) {
    tokio::time::timeout(LIMIT, watch.changed())
        .await
        .expect("a change should be reported");
}

async fn expect_quiet(watch: &mut Watch) {
    let quiet = tokio::time::timeout(Duration::from_millis(150), watch.changed()).await;
    assert!(quiet.is_err(), "nothing changed, and a change was reported");
}

#[test]
fn a_missing_path_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nothing.yaml");
    let error = watch(Source::new(vec![missing]), QUICK).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("nothing.yaml"), "{error}");
}

#[tokio::test]
async fn each_way_of_changing_a_file_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "one").unwrap();
    let mut watch = watching(&file);
    expect_quiet(&mut watch).await;

    fs::write(&file, "two").unwrap();
    expect_change(&mut watch).await;
    expect_quiet(&mut watch).await;

    let new = dir.path().join(".a.yaml.swp");
    fs::write(&new, "six").unwrap();
    fs::rename(&new, &file).unwrap();
    expect_change(&mut watch).await;

    fs::remove_file(&file).unwrap();
    expect_change(&mut watch).await;
    fs::write(&file, "one").unwrap();
    expect_change(&mut watch).await;

    fs::write(dir.path().join("neighbour.yaml"), "x").unwrap();
    fs::read(&file).unwrap();
    expect_quiet(&mut watch).await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_swap_of_a_mounted_config_map_is_seen() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    for (version, text) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("pool.yaml"), text).unwrap();
    }
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/pool.yaml", dir.path().join("pool.yaml")).unwrap();
    let mut whole = watching(dir.path());
    let mut single = watching(&dir.path().join("pool.yaml"));

    symlink("..2", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    expect_change(&mut whole).await;
    expect_change(&mut single).await;
}

#[tokio::test]
async fn files_in_new_directories_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut watch = watching(dir.path());
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a.json"), "{}").unwrap();
    expect_change(&mut watch).await;
    fs::remove_dir_all(&inner).unwrap();
    expect_change(&mut watch).await;
}

#[tokio::test]
async fn polling_finds_what_nobody_notifies() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "one").unwrap();
    let mut watch = watching(&file);
    watch.watcher = None;
    watch.poll = QUICK;
    expect_quiet(&mut watch).await;
    fs::write(&file, "three").unwrap();
    expect_change(&mut watch).await;
}

#[tokio::test]
async fn a_dropped_wait_loses_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "one").unwrap();
    let mut watch = watching(&file);
    watch.debounce = Duration::from_secs(3600);
    watch.poll = Duration::from_secs(3600);
    fs::write(&file, "three").unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(200), watch.changed()).await;
    assert!(dropped.is_err(), "the change cannot have settled yet");
    watch.debounce = QUICK;
    expect_change(&mut watch).await;
}

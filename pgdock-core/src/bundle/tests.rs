//! A folder to a bundle, to an image, to a store, and back.

use std::path::Path;

use super::diff::{Difference, FileChange};
use super::store::{Put, Store};
use super::*;
use crate::clock::SystemClock;

const TOML: &str =
    "[cluster]\nname = \"main\"\n[nodes.n1]\naddress = \"127.0.0.2\"\n[nodes.n2]\naddress = \"127.0.0.3\"\n";

fn n(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in [("cluster.toml", TOML)].iter().chain(files) {
        put(dir.path(), path, text);
    }
    dir
}

fn put(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn build(dir: &Path, node: &str) -> Result<Bundle> {
    Bundle::build(&Settings::from_path(dir)?, &n(node))
}

#[test]
fn the_same_files_make_the_same_digest_wherever_and_whenever() {
    let files = [("shared/postgres/postgresql.conf", "work_mem = 2MB\n"), ("n1/tests/a.sql", "select 1;\n")];
    let (one, other) = (folder(&files), folder(&files));
    put(other.path(), "secrets/agent.token", "hunter2");
    put(other.path(), "n1/env/main", "POSTGRES_PASSWORD=hunter2\n");
    put(other.path(), "n2/postgres/postgresql.conf", "work_mem = 9MB\n");
    let old = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::open(other.path().join("cluster.toml")).unwrap().set_modified(old).unwrap();
    let (one, other) = (build(one.path(), "n1").unwrap(), build(other.path(), "n1").unwrap());
    assert_eq!(one.digest(), other.digest());
    assert_eq!(one.archive(), other.archive());
    assert_eq!(one.file("shared/postgres/postgresql.conf"), Some(&b"work_mem = 2MB\n"[..]));
    assert!(!one.archive().windows(7).any(|part| part == b"hunter2"));
    let back = Bundle::from_archive(one.archive().clone()).unwrap();
    assert_eq!((back.digest(), back.manifest()), (one.digest(), one.manifest()));
}

#[test]
fn a_secret_in_a_file_refuses_the_build() {
    let dir = folder(&[("n1/failover/move.sh", "#!/bin/sh\nHETZNER_PASS=hunter2\n")]);
    let error = build(dir.path(), "n1").unwrap_err().to_string();
    assert!(error.contains("n1/failover/move.sh:2: expected no secret"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    build(dir.path(), "n2").unwrap();
    assert!(build(dir.path(), "n3").is_err(), "there is no such node");
}

#[test]
fn other_tools_read_the_archive() {
    let dir = folder(&[("shared/a", "text")]);
    let bundle = build(dir.path(), "n1").unwrap();
    let file = dir.path().join("bundle.tar");
    std::fs::write(&file, bundle.archive()).unwrap();
    let Ok(listed) = std::process::Command::new("tar").arg("-tvf").arg(&file).env("TZ", "UTC").output() else {
        eprintln!("not run: there is no tar");
        return;
    };
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success() && listed.stderr.is_empty(), "{listed:?}");
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|line| line.starts_with("-rw-r--r-- 0/0") && line.contains("1970-01-01 00:00")), "{text}");
}

#[test]
fn an_unpacked_bundle_that_was_changed_is_noticed() {
    let dir = folder(&[("shared/a", "text")]);
    let bundle = build(dir.path(), "n1").unwrap();
    let home = tempfile::tempdir().unwrap();
    let bundles = ledger::Bundles::of(home.path());
    std::fs::create_dir(home.path().join("bundles")).unwrap();
    let at = bundles.unpack(&bundle).unwrap();
    assert_eq!(Bundle::from_unpacked(&at).unwrap().archive(), bundle.archive());
    put(&at, "shared/a", "Text");
    assert!(Bundle::from_unpacked(&at).is_err());
    std::fs::remove_file(at.join("shared/a")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at.join("shared/a")).unwrap();
    assert!(Bundle::from_unpacked(&at).is_err());
}

#[tokio::test]
async fn images_are_kept_by_tag_and_checked_when_read() {
    let dir = folder(&[]);
    let store = Store::beside(dir.path());
    assert!(store.tags().unwrap().is_empty());
    let image = |dir: &Path| Image::pack(build(dir, "n1").unwrap(), None).unwrap();
    let first = image(dir.path());
    assert_eq!(store.put(&first, "n1v1", false).unwrap(), Put::New);
    assert_eq!(store.put(&first, "n1v1", false).unwrap(), Put::Same);
    put(dir.path(), "shared/a", "text");
    let second = image(dir.path());
    assert_eq!(store.put(&second, "n1v1", false).unwrap_err().kind(), crate::ErrorKind::Conflict);
    assert_eq!(store.put(&second, "n1v2", false).unwrap(), Put::New);
    assert_eq!(store.tags().unwrap(), ["n1v1", "n1v2"]);
    assert_eq!(store.get("n1v1").await.unwrap().digest(), first.digest());
    assert_eq!(store.get("n1v2").await.unwrap().bundle.archive(), second.bundle.archive());
    let error = store.get("n1v3").await.unwrap_err().to_string();
    assert!(error.contains("known=n1v1,n1v2"), "{error}");
    assert_eq!(store.put(&second, "n1v1", true).unwrap(), Put::Replaced);
    let found = store.find(first.bundle.digest()).await.unwrap();
    assert!(found.is_none(), "nothing names it any more");

    let blob = dir.path().join(".pgdock/images/blobs/sha256").join(second.bundle.digest().hex());
    std::fs::write(blob, "damaged").unwrap();
    assert!(store.get("n1v2").await.is_err());
    store.put(&second, "n1v2", true).unwrap();
    store.get("n1v2").await.unwrap();
    // What was built before never enters a bundle.
    assert_eq!(image(dir.path()).digest(), second.digest());
}

#[test]
fn an_image_says_whose_it_is_and_where_it_came_from() {
    let dir = folder(&[]);
    let bundle = build(dir.path(), "n1").unwrap();
    let source = Source { commit: "0123abcd".to_owned(), changed: true };
    let image = Image::pack(bundle.clone(), Some(&source)).unwrap();
    let label = |name: &str| image.labels().get(name).map(String::as_str);
    assert_eq!(label("pgdock.node"), Some("n1"));
    assert_eq!(label("pgdock.cluster"), Some("main"));
    assert_eq!(label("pgdock.bundle"), Some(bundle.digest().as_str()));
    assert_eq!(label("org.opencontainers.image.revision"), Some("0123abcd"));
    assert_eq!(label("pgdock.source.changed"), Some("true"));
    assert_eq!(Image::pack(bundle.clone(), Some(&source)).unwrap().digest(), image.digest());
    assert_ne!(Image::pack(bundle, None).unwrap().digest(), image.digest(), "the source is told by the image alone");
}

#[test]
fn a_difference_tells_settings_rules_and_files() {
    let dir = folder(&[
        ("shared/postgres/postgresql.conf", "work_mem = 2MB\n"),
        ("shared/postgres/pg_hba.conf", "hostssl all all 10.0.0.0/8 scram-sha-256\n"),
        ("shared/tests/a.sql", "one\ntwo\nthree\n"),
        ("n1/x", "1"),
        ("n2/x", "1"),
    ]);
    let old = build(dir.path(), "n1").unwrap();
    assert!(Difference::between(&old, &build(dir.path(), "n2").unwrap()).unwrap().is_empty(), "two nodes alike");
    put(dir.path(), "n1/postgres/postgresql.conf", "work_mem = 4MB\njit = off\n");
    put(dir.path(), "shared/postgres/pg_hba.conf", "hostssl all all 10.1.0.0/16 scram-sha-256\n");
    put(dir.path(), "shared/tests/a.sql", "one\n2\nthree\nfour\n");
    std::fs::remove_file(dir.path().join("n1/x")).unwrap();
    let found = Difference::between(&old, &build(dir.path(), "n1").unwrap()).unwrap();
    let text = |v: &str| Some(v.to_owned());
    assert_eq!(found.settings["work_mem"], (text("2MB"), text("4MB")));
    assert_eq!(found.settings["jit"], (None, text("off")));
    assert_eq!(found.hba_removed, ["hostssl all all 10.0.0.0/8 scram-sha-256"]);
    assert_eq!(found.hba_added, ["hostssl all all 10.1.0.0/16 scram-sha-256"]);
    assert_eq!(found.files["NODE/x"], FileChange::Removed);
    assert_eq!(found.files["NODE/postgres/postgresql.conf"], FileChange::Added);
    let lines = ["- two", "+ 2", "+ four"].map(str::to_owned).to_vec();
    assert_eq!(found.files["shared/tests/a.sql"], FileChange::Changed { lines });
}

#[tokio::test]
async fn a_node_takes_only_what_is_meant_for_it() {
    let dir = folder(&[]);
    let bundle = build(dir.path(), "n1").unwrap();
    let home = tempfile::tempdir().unwrap();
    let place = |node: &str, cluster: &str| install::Place {
        home: home.path().to_owned(),
        folder: None,
        node: n(node),
        cluster: cluster.to_owned(),
        search_path: None,
    };
    let other = Digest::of(b"another");
    for (expected, place, why) in [
        (Some(&other), place("n1", "main"), "not what was sent"),
        (None, place("n2", "main"), "another node's"),
        (None, place("n1", "shop"), "of another cluster"),
    ] {
        let refused = install::install(bundle.archive().clone(), expected, None, &place, &SystemClock).await;
        let error = refused.unwrap_err();
        assert!(error.to_string().contains(why), "expected {why}, found {error}");
        assert_eq!(error.kind(), crate::ErrorKind::Invalid);
    }
    assert!(!home.path().join("bundles").exists(), "nothing was written");

    // The home has been n2's so far: an address or a root in cluster.toml is wrong.
    let current = home.path().join("bundles/current");
    std::fs::create_dir_all(&current).unwrap();
    std::fs::write(current.join("bundle.json"), build(dir.path(), "n2").unwrap().list()).unwrap();
    let refused = install::install(bundle.archive().clone(), None, None, &place("n1", "main"), &SystemClock).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("that of another node") && error.contains("found=n2 of main"), "{error}");
    let cut = bundle.archive().slice(..bundle.archive().len() / 2);
    assert!(install::install(cut, None, None, &place("n1", "main"), &SystemClock).await.is_err());
}

//! The failover script hangs, fails or lies: that delays no write, is shown, and tried until it is good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use pgdock_core::cluster::ClusterStatus;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, Result};
use pgdock_tests::real::{RealCluster, until};

use crate::common::{SOON, nothing_lost, on, options, problems, taken_over, writer};

const ASTRAY: &str = "the failover IP does not point to this primary yet";

/// A script that behaves as the file `mode` beside it says, and notes each try.
const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname -- "$0")
case "$1" in
current) cat "$here/holder" 2>/dev/null; exit 0 ;;
esac
mode=$(cat "$here/mode")
echo "$mode $PGDOCK_NODE" >>"$here/tries"
case "$mode" in
hang) echo $$ >"$here/pid"; sleep 1000 ;;
fail) echo "the provider says no" >&2; exit 7 ;;
lie) exit 0 ;;
good) echo "$PGDOCK_NODE" >"$here/holder" ;;
esac
"#;

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| Error::internal("cannot write a file for the test").because(e))
}

#[tokio::test]
async fn a_bad_script_delays_no_write() {
    let scripts = tempfile::tempdir().expect("a folder");
    let script = scripts.path().join("move.sh");
    write(&script, SCRIPT).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a script");
    let at = |name: &str| scripts.path().join(name);
    write(&at("mode"), "good").expect("a mode");

    let mut options = options(150, 2, Durability::Sync);
    let section = format!("kind = \"script\"\naddress = \"203.0.113.10\"\nscript = {script:?}\ntimeout = \"3s\"");
    options.extra.insert("failover_ip", section);
    on(options, async |cluster| {
        let holder = || fs::read_to_string(at("holder")).unwrap_or_default().trim().to_owned();
        let first = cluster.settled(SOON).await?;
        until("the address follows the first primary", SOON, async || holder() == first.as_str()).await?;
        let writer = writer(cluster).await?;

        for (mode, event) in [
            ("hang", "took too long and was killed"),
            ("fail", "the provider says no"),
            ("lie", "the address still points at"),
        ] {
            let old = cluster.settled(SOON).await?;
            write(&at("mode"), mode)?;
            cluster.kill_postmaster(&old);
            let new = taken_over(cluster, &old).await?;
            writer.goes_on(SOON).await?;
            // Writes went on though the address had not moved, which is shown.
            assert_eq!(holder(), old.as_str(), "{mode}");
            let astray = |s: &ClusterStatus| problems(s, &new).contains(ASTRAY);
            cluster.wait(&format!("the address is shown to be astray: {mode}"), SOON, astray).await?;
            told(cluster, event).await?;

            write(&at("mode"), "good")?;
            let healed = |s: &ClusterStatus| !problems(s, &new).contains(ASTRAY);
            cluster.wait("it is tried until it is good", SOON, healed).await?;
            assert_eq!(holder(), new.as_str(), "{mode}");
        }
        cluster.settled(SOON).await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
    let tries = fs::read_to_string(at("tries")).expect("it was tried");
    assert!(["hang", "fail", "lie"].iter().all(|mode| tries.contains(mode)), "{tries}");
}

/// A move that is under way when the right to be primary ends is given up with it: it could come after that of the next
/// leader.
#[tokio::test]
async fn a_move_ends_with_the_right() {
    let scripts = tempfile::tempdir().expect("a folder");
    let script = scripts.path().join("move.sh");
    write(&script, SCRIPT).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a script");
    let at = |name: &str| scripts.path().join(name);
    write(&at("mode"), "hang").expect("a mode");

    let mut options = options(153, 2, Durability::Sync);
    let section = format!("kind = \"script\"\naddress = \"203.0.113.10\"\nscript = {script:?}\ntimeout = \"10m\"");
    options.extra.insert("failover_ip", section);
    on(options, async |cluster| {
        let guarded = |s: &ClusterStatus| s.primary().is_some() && !s.sync_set.is_empty();
        let status = cluster.wait("a primary and a standby that guards it", SOON, guarded).await?;
        let first = status.leader.expect("there is a primary");
        let moving = || fs::read_to_string(at("pid")).ok().filter(|pid| pid.ends_with('\n'));
        until("the first primary moves the address", SOON, async || moving().is_some()).await?;
        let pid = moving().expect("it was just seen");
        write(&at("mode"), "good")?;
        cluster.kill_postmaster(&first);
        let new = taken_over(cluster, &first).await?;
        until("the old move is given up", SOON, async || !Path::new("/proc").join(pid.trim()).exists()).await?;
        let holder = || fs::read_to_string(at("holder")).unwrap_or_default().trim().to_owned();
        until("the address follows the new primary", SOON, async || holder() == new.as_str()).await
    })
    .await;
}

/// Waits until an event says this.
async fn told(cluster: &RealCluster, word: &str) -> Result<()> {
    let limit = SOON + Duration::from_secs(10);
    until(&format!("an event says {word:?}"), limit, async || {
        let seen = cluster.cluster.events(None).await;
        seen.is_ok_and(|seen| seen.events.iter().any(|e| e.message.contains(word)))
    })
    .await
}

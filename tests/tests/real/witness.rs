//! The witness is away, or spoilt.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use pgdock_core::event::EventKind;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, Result};
use pgdock_tests::real::{RealCluster, until};
use rustix::fs::{FlockOperation, flock};

use crate::common::{SOON, TTL, nothing_lost, on, options, problems, writer};

fn document(cluster: &RealCluster) -> PathBuf {
    cluster.settings.witness.file().expect("the witness is a file").to_owned()
}

/// Changes the document while no agent can.
fn replace(path: &Path, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<Vec<u8>> {
    let io = |e: std::io::Error| Error::internal("cannot change the document for the test").because(e);
    let lock = File::open(path.with_extension("json.lock")).map_err(io)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| io(e.into()))?;
    let before = fs::read(path).map_err(io)?;
    fs::write(path, change(before.clone())).map_err(io)?;
    Ok(before)
}

#[tokio::test]
async fn its_outage_demotes_nobody_in_sync() {
    on(options(128, 2, Durability::Sync), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let folder = document(cluster).parent().expect("it has a folder").to_owned();
        let away = folder.with_extension("away");
        fs::rename(&folder, &away).expect("the folder can be moved");

        let shown = |s: &pgdock_core::cluster::ClusterStatus| problems(s, &primary).contains("the witness");
        cluster.wait("the problem is shown", SOON, shown).await?;
        // The outage is the fault: longer than any right.
        tokio::time::sleep(TTL * 2).await;
        writer.goes_on(SOON).await?;
        let status = cluster.cluster.status().await?;
        assert_eq!(status.primary().map(|n| &n.name), Some(&primary));
        assert!(!status.is_healthy());
        assert!(!folder.exists(), "nobody made another document");

        fs::rename(&away, &folder).expect("the folder can be moved back");
        cluster.wait("all is well again", SOON, |s| s.is_healthy()).await?;
        assert_eq!(cluster.settled(SOON).await?, primary);
        let fenced = cluster.cluster.events(None).await?.events.iter().any(|e| e.kind == EventKind::Fenced);
        assert!(!fenced, "nobody was fenced");
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn a_spoilt_document_is_named_and_never_overwritten() {
    on(options(134, 2, Durability::Sync), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let path = document(cluster);
        let newer = |whole: Vec<u8>| {
            let text = String::from_utf8(whole).expect("a document is text");
            assert!(text.contains("\"format\": 1"));
            text.replacen("\"format\": 1", "\"format\": 99", 1).into_bytes()
        };
        let half = |whole: Vec<u8>| whole[..whole.len() / 2].to_vec();
        let noise = |_| b"\xff\xfe not a document".to_vec();
        type Spoil<'a> = Box<dyn FnOnce(Vec<u8>) -> Vec<u8> + 'a>;
        let faults: [(Spoil<'_>, &str); 3] =
            [(Box::new(newer), "newer format"), (Box::new(half), "not readable"), (Box::new(noise), "not readable")];
        for (spoil, word) in faults {
            let whole = replace(&path, spoil)?;
            let spoilt = fs::read(&path).expect("it is readable");
            let name = path.display().to_string();
            cluster
                .wait("both nodes name the file and the fault", SOON, |s| {
                    s.nodes.iter().all(|n| {
                        let said = n.problems.join("\n");
                        said.contains(&name) && said.contains(word)
                    })
                })
                .await?;
            tokio::time::sleep(TTL).await;
            writer.goes_on(SOON).await?;
            assert_eq!(fs::read(&path).expect("it is readable"), spoilt, "it was overwritten");
            let shown = cluster.pgdock(&["witness", "show"]).await?;
            assert_eq!(shown.status.code(), Some(4), "{shown:?}");

            replace(&path, |_| whole)?;
            cluster.wait("all is well again", SOON, |s| s.is_healthy()).await?;
            assert_eq!(cluster.settled(SOON).await?, primary);
        }
        let beats = cluster.cluster.document().await?.expect("there is a document").heartbeat;
        until("the leader renews its right again", SOON, async || {
            cluster.cluster.document().await.is_ok_and(|d| d.is_some_and(|d| d.heartbeat > beats))
        })
        .await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

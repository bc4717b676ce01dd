//! Agents take base backups: when somebody asks, and when one is due.

use std::time::Duration;

use pgdock_core::agent::BackupStatus;
use pgdock_core::backup::base::Progress;
use pgdock_core::backup::{Catalog, Label, Repository, verify};
use pgdock_core::event::EventKind;
use pgdock_core::witness::record::Durability;
use pgdock_core::{ErrorKind, NodeName, Result};
use pgdock_tests::real::{Options, RealCluster, until};
use tokio::sync::watch;

use crate::common::{LONG, SOON, nothing_lost, on, options, said, writer};

fn into(folder: &std::path::Path, first: u8, nodes: usize, durability: Durability, more: &str) -> Options {
    let mut options = options(first, nodes, durability);
    options.extra.insert("backup", format!("url = \"file:{}\"\n{more}", folder.display()));
    options
}

/// What a node does about backups.
async fn status(cluster: &RealCluster, node: &NodeName) -> Result<BackupStatus> {
    Ok(cluster.cluster.agent(node)?.status().await?.backup.unwrap_or_default())
}

/// Waits until a backup has ended, and tells how.
async fn ended(cluster: &RealCluster, node: &NodeName, label: &Label) -> Result<Option<String>> {
    let ended = async || status(cluster, node).await.ok()?.ended.filter(|ended| ended.label == *label);
    until("the backup has ended", LONG, async || ended().await.is_some()).await?;
    Ok(ended().await.and_then(|ended| ended.error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_backed_up_under_load_and_two_at_once_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    on(into(folder.path(), 238, 3, Durability::Sync, ""), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let taken = cluster.pgdock(&["backup", "create"]).await?;
        assert!(taken.status.success(), "{}", said(&taken));
        writer.goes_on(SOON).await?;

        let repository = Repository::open(&cluster.settings).await?;
        let catalog = Catalog::load(&*repository.sink, &repository.codec).await?;
        let manifest = &catalog.find(None)?.manifest;
        assert!(manifest.from_standby && manifest.node != primary, "the leader was not spared: {manifest:?}");
        let (sink, progress) = (repository.sink.clone(), watch::Sender::new(Progress::default()));
        let report = verify::read_all(sink, &repository.codec, manifest, 2, &progress).await?;
        assert!(report.problems.is_empty(), "{report:?}");
        let shown =
            async || cluster.pgdock(&["status"]).await.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        let line = format!("Backups:     1, the newest {}", manifest.label);
        until("status tells of it", Duration::from_secs(90), async || shown().await.is_ok_and(|s| s.contains(&line)))
            .await?;

        // Whoever comes second is told so, at once or when the document says whose turn it is.
        let standbys: Vec<_> = cluster.nodes().into_iter().filter(|node| *node != primary).collect();
        let (first, second) = tokio::join!(
            cluster.cluster.begin_backup(Some(&standbys[0])),
            cluster.cluster.begin_backup(Some(&standbys[1]))
        );
        let mut good = 0;
        for begun in [first, second] {
            match begun {
                Ok((node, label)) => match ended(cluster, &node, &label).await? {
                    None => good += 1,
                    Some(why) => assert!(why.contains("another backup has the turn"), "{why}"),
                },
                Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "{}", e.chain()),
            }
        }
        assert_eq!(good, 1);
        until("the turn is over", SOON, async || {
            cluster
                .cluster
                .document()
                .await
                .is_ok_and(|document| document.is_some_and(|record| record.backup.is_none()))
        })
        .await?;
        assert_eq!(Catalog::load(&*repository.sink, &repository.codec).await?.backups.len(), 2);
        nothing_lost(cluster, &writer.stop().await).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_made_without_being_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let schedule = "schedule = \"0 3 * * *\"\njitter = \"0s\"\nkeep = { count = 1 }";
    on(into(folder.path(), 232, 1, Durability::Async, schedule), async |cluster| {
        // The first one is due at once.
        let kept = |s: &pgdock_core::cluster::ClusterStatus| s.backups.clone().filter(|kept| kept.count > 0);
        let status = cluster.wait("a backup is made", Duration::from_secs(180), |s| kept(s).is_some()).await?;
        let kept = kept(&status).expect("it was just seen");
        assert!(kept.count == 1 && kept.next_at.is_some() && kept.verified_at.is_none(), "{kept:?}");
        let events = cluster.cluster.events(None).await?.events;
        let made = events.iter().filter(|e| e.kind == EventKind::BackupMade).count();
        assert_eq!(made, 1, "{events:?}");
        // Of two, one is kept, and nobody has to say so.
        let first = kept.newest.expect("there is one");
        let taken = cluster.pgdock(&["backup", "create"]).await?;
        assert!(taken.status.success(), "{}", said(&taken));
        let repository = Repository::open(&cluster.settings).await?;
        until("the older one is deleted", LONG, async || {
            let catalog = Catalog::load(&*repository.sink, &repository.codec).await;
            catalog.is_ok_and(|catalog| catalog.backups.len() == 1 && catalog.backups[0].manifest.label != first)
        })
        .await?;
        let catalog = Catalog::load(&*repository.sink, &repository.codec).await?;
        let (sink, progress) = (repository.sink.clone(), watch::Sender::new(Progress::default()));
        let report = verify::read_all(sink, &repository.codec, &catalog.backups[0].manifest, 2, &progress).await?;
        assert!(report.problems.is_empty(), "{report:?}");
        Ok(())
    })
    .await;
}

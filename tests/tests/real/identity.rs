//! Callers and agents that are not who they should be.

use std::path::Path;

use pgdock_core::clock::SystemClock;
use pgdock_core::scaffold::Scaffold;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, Result};
use pgdock_tests::real::RealCluster;

use crate::common::{SOON, nothing_lost, on, options, said, writer};

fn io(error: std::io::Error) -> Error {
    Error::internal("cannot prepare a folder for the test").because(error)
}

/// A folder with the same settings, and secrets of its own.
fn stranger(cluster: &RealCluster, dir: &Path) -> Result<()> {
    std::fs::copy(cluster.settings.file(), dir.join("cluster.toml")).map_err(io)?;
    Scaffold::new("test", []).write(dir, &SystemClock).map(drop)
}

#[tokio::test]
async fn strangers_are_turned_away() {
    on(options(137, 2, Durability::Sync), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;

        // Another agent for the same node.
        let second = cluster.pgdock(&["agent", "--node", primary.as_str()]).await?;
        assert_eq!(second.status.code(), Some(1), "{}", said(&second));
        let named = format!("another agent runs for this node. node={primary}");
        assert!(said(&second).contains(&named), "{}", said(&second));
        assert!(said(&second).contains("pgdock down"), "it tells what to do: {}", said(&second));

        // The right authority, and another token.
        let other = tempfile::tempdir().map_err(io)?;
        stranger(cluster, other.path())?;
        let (ours, theirs) = (cluster.settings.secrets(), other.path().join("secrets"));
        let mut token = None;
        for entry in std::fs::read_dir(&ours).map_err(io)?.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().contains("token") {
                token = Some(name);
            } else if entry.path().is_file() {
                std::fs::copy(entry.path(), theirs.join(&name)).map_err(io)?;
            }
        }
        assert!(token.is_some(), "the token has a file of its own");
        let ordered = cluster.pgdock_at(other.path(), &["pause"]).await?;
        assert_eq!(ordered.status.code(), Some(2), "{}", said(&ordered));
        assert!(said(&ordered).contains("the token is not that of this cluster"), "{}", said(&ordered));
        assert!(said(&ordered).contains("status=401") && said(&ordered).contains("hint"), "{}", said(&ordered));
        let document = cluster.cluster.document().await?.expect("the cluster was founded");
        assert!(!document.paused);

        // Another authority.
        let other = tempfile::tempdir().map_err(io)?;
        stranger(cluster, other.path())?;
        let ordered = cluster.pgdock_at(other.path(), &["reload", primary.as_str()]).await?;
        assert_eq!(ordered.status.code(), Some(2), "{}", said(&ordered));
        assert!(said(&ordered).contains("the agent is not trusted"), "{}", said(&ordered));
        assert!(said(&ordered).contains("certificates are those of this cluster"), "{}", said(&ordered));

        writer.goes_on(SOON).await?;
        assert_eq!(cluster.settled(SOON).await?, primary);
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

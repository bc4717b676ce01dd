//! Something else stands where a node's data directory, or its port, should be. It is said, it is not
//! touched, and the others go on.

use std::fs;
use std::path::Path;

use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result};
use pgdock_tests::real::{RealCluster, Writer};

use crate::common::{SOON, complains, nothing_lost, on, options, said, writer};

/// The name, size and content of every file, as far as it matters.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it is readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.display().to_string(), fs::read(&path).expect("it is readable")));
            }
        }
    }
    found.sort();
    found
}

/// The standby of a cluster of two, with its agent stopped.
async fn standby_away(cluster: &mut RealCluster) -> Result<(NodeName, Writer)> {
    let primary = cluster.settled(SOON).await?;
    let standby = cluster.nodes().into_iter().find(|node| *node != primary).expect("there are two nodes");
    let writer = writer(cluster).await?;
    cluster.stop_agent(&standby).await?;
    writer.goes_on(SOON).await?;
    Ok((standby, writer))
}

/// Starts the agent over what lies there, and sees it complain; nothing may change, nor run.
async fn left_alone(cluster: &mut RealCluster, node: &NodeName, words: &[&str]) -> Result<()> {
    let data = cluster.data_dir(node);
    let before = content(&data);
    cluster.start_agent(node);
    complains(cluster, node, words).await?;
    let unclean = cluster.pgdock(&["status"]).await?;
    assert_eq!(unclean.status.code(), Some(3));
    assert!(cluster.postgres_pids(node).is_empty(), "it was started");
    assert!(content(&data) == before, "it was touched");
    cluster.stop_agent(node).await
}

async fn heals(cluster: &mut RealCluster, node: &NodeName, writer: Writer) -> Result<()> {
    writer.goes_on(SOON).await?;
    cluster.start_agent(node);
    cluster.settled(SOON).await?;
    let acks = writer.stop().await;
    nothing_lost(cluster, &acks).await
}

#[tokio::test]
async fn what_is_not_ours_is_not_touched() {
    on(options(140, 2, Durability::Sync), async |cluster| {
        let (standby, writer) = standby_away(cluster).await?;
        let data = cluster.data_dir(&standby);
        let aside = data.with_extension("aside");
        let io = |e: std::io::Error| Error::internal("cannot prepare the fault").because(e);

        // Of another major version.
        let version = fs::read(data.join("PG_VERSION")).map_err(io)?;
        fs::write(data.join("PG_VERSION"), "13\n").map_err(io)?;
        left_alone(cluster, &standby, &["another major version", "found=13"]).await?;
        fs::write(data.join("PG_VERSION"), version).map_err(io)?;

        // A folder with something in it.
        fs::rename(&data, &aside).map_err(io)?;
        fs::create_dir(&data).map_err(io)?;
        fs::write(data.join("thesis.txt"), "the only copy").map_err(io)?;
        left_alone(cluster, &standby, &["not empty, and not a data directory"]).await?;
        fs::remove_dir_all(&data).map_err(io)?;

        // A data directory of another cluster.
        let theirs = foreign(&data).await?;
        let ours = cluster.cluster.document().await?.expect("the cluster was founded").system_identifier;
        assert_ne!(ours, theirs);
        let (ours, theirs) = (format!("expected={ours}"), format!("system_identifier={theirs}"));
        left_alone(cluster, &standby, &["belongs to another cluster", &ours, &theirs]).await?;
        fs::remove_dir_all(&data).map_err(io)?;

        fs::rename(&aside, &data).map_err(io)?;
        heals(cluster, &standby, writer).await
    })
    .await;
}

/// Founds another cluster, and puts its data directory here. Answers with its system identifier.
async fn foreign(data: &Path) -> Result<u64> {
    let other = RealCluster::make(options(143, 1, Durability::Async)).await?;
    let node = other.nodes().remove(0);
    other.start_agent(&node);
    other.found().await?;
    other.wait("it is primary", SOON, |s| s.primary().is_some()).await?;
    other.stop_agent(&node).await?;
    fs::rename(other.data_dir(&node), data)
        .map_err(|e| Error::internal("cannot move the foreign data directory").because(e))?;
    let document = other.cluster.document().await?.expect("it was founded");
    Ok(document.system_identifier)
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    on(options(144, 2, Durability::Sync), async |cluster| {
        let (standby, writer) = standby_away(cluster).await?;
        let of = cluster.settings.nodes[&standby].clone();
        let listen = |port: u16| std::net::TcpListener::bind((of.address.as_str(), port)).expect("the port is free");

        let taken = listen(of.agent_port);
        let refused = cluster.pgdock(&["agent", "--node", standby.as_str()]).await?;
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        let address = format!("the agent cannot listen. address={}:{}", of.address, of.agent_port);
        assert!(said(&refused).contains(&address), "{}", said(&refused));
        assert!(said(&refused).contains("another program listens there"), "{}", said(&refused));
        drop(taken);

        let taken = listen(of.postgres_port);
        cluster.start_agent(&standby);
        let port = of.postgres_port.to_string();
        complains(cluster, &standby, &["in use", &port]).await?;
        writer.goes_on(SOON).await?;
        drop(taken);

        cluster.settled(SOON).await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn without_postgresql_no_agent_begins() {
    on(options(147, 2, Durability::Sync), async |cluster| {
        let (standby, writer) = standby_away(cluster).await?;
        let io = |e: std::io::Error| Error::internal("cannot change the settings").because(e);
        let whole = fs::read_to_string(cluster.settings.file()).map_err(io)?;
        let empty = tempfile::tempdir().map_err(io)?;
        for (line, word) in [
            (format!("bin_dir = {:?}", empty.path()), empty.path().display().to_string()),
            // A version that no machine has beside another, since pgdock does not know it either.
            ("version = 14\nbin_dir = \"/nonexistent\"".to_owned(), "/nonexistent".to_owned()),
        ] {
            let changed = whole.replacen("[postgres]\n", &format!("[postgres]\n{line}\n"), 1);
            fs::write(cluster.settings.file(), changed).map_err(io)?;
            let refused = cluster.pgdock(&["agent", "--node", standby.as_str()]).await?;
            assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
            assert!(said(&refused).contains(&word) && said(&refused).contains("hint"), "{}", said(&refused));
        }
        fs::write(cluster.settings.file(), whole).map_err(io)?;
        heals(cluster, &standby, writer).await
    })
    .await;
}

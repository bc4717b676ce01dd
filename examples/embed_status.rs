//! A service that looks after its database: it asks the cluster how it stands, says so when the primary
//! changes, and ends with an error when nobody can write for too long.
//!
//! `cargo run -p pgdock-examples --example embed_status -- CLUSTER_DIR [LOOKS]`

use std::process::ExitCode;
use std::time::Duration;

use pgdock_core::{Cluster, NodeName, Result, Settings};

/// So many looks in a row without a primary are an outage.
const PATIENCE: u32 = 10;

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(dir) = args.next() else {
        eprintln!("usage: embed_status CLUSTER_DIR [LOOKS]");
        return ExitCode::from(2);
    };
    let looks = args.next().and_then(|n| n.parse().ok());
    match watch(&dir, looks).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            for hint in error.hints() {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Looks twice a second, for ever or so many times. Whether somebody could be written to at the end.
async fn watch(dir: &str, looks: Option<u32>) -> Result<bool> {
    let cluster = Cluster::builder(Settings::from_path(dir)?).build().await?;
    let mut known: Option<NodeName> = None;
    let mut missing = 0;
    for look in 1.. {
        let status = cluster.status().await?;
        let primary = status.primary().map(|node| node.name.clone());
        missing = if primary.is_some() { 0 } else { missing + 1 };
        if missing >= PATIENCE {
            eprintln!("nobody can be written to: {}", status.problems.join("; "));
            return Ok(false);
        }
        if primary.is_some() && primary != known {
            for node in &status.nodes {
                println!("{} is {} ({})", node.name, node.role, node.state);
            }
            known = primary;
        }
        if looks.is_some_and(|looks| look >= looks) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(known.is_some())
}

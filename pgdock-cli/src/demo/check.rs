//! Checks what `pgdock status --output json` prints, as a program that reads it would.

use std::process::Stdio;

use pgdock_core::cluster::ClusterStatus;
use pgdock_core::{Error, Result, Role};
use serde_json::Value;

use super::stage::Stage;

const CLUSTER_KEYS: [&str; 9] =
    ["acks", "cluster", "durability", "leader", "nodes", "problems", "sync_set", "term", "witness"];
/// What is there once somebody knows it.
const CLUSTER_KEYS_LATER: [&str; 2] = ["archive", "backups"];
const WITNESS_KEYS: [&str; 2] = ["kind", "reachable"];
const NODE_KEYS: [&str; 12] = [
    "address",
    "bundle",
    "lsn",
    "name",
    "problems",
    "reachable",
    "replay_lag_bytes",
    "replay_lag_seconds",
    "role",
    "state",
    "timeline",
    "upstream",
];

/// Runs `pgdock status --output json`, and checks shape, exit code, and that what it says fits together.
pub(super) async fn status(stage: &Stage) -> Result<ClusterStatus> {
    let program = std::env::current_exe().map_err(|e| Error::internal("cannot tell which program runs").because(e))?;
    let output = tokio::process::Command::new(program)
        .arg("--config")
        .arg(&stage.settings().dir)
        .args(["status", "--output", "json"])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|e| Error::internal("`pgdock status` cannot be run").because(e))?;
    let value: Value = serde_json::from_slice(&output.stdout).map_err(|e| {
        Error::internal(format!("`pgdock status` printed no JSON: {}", String::from_utf8_lossy(&output.stderr)))
            .because(e)
    })?;
    keys(&value, &CLUSTER_KEYS, &CLUSTER_KEYS_LATER)?;
    keys(&value["witness"], &WITNESS_KEYS, &[])?;
    for node in value["nodes"].as_array().into_iter().flatten() {
        keys(node, &NODE_KEYS, &[])?;
    }
    let status: ClusterStatus =
        serde_json::from_value(value).map_err(|e| Error::internal("the status is not what it should be").because(e))?;
    let expected = if status.is_healthy() { 0 } else { 3 };
    ensure(output.status.code() == Some(expected), || {
        format!("`pgdock status` ended otherwise than it should. {}, expected={expected}", output.status)
    })?;
    sane(stage, &status)?;
    Ok(status)
}

fn keys(value: &Value, expected: &[&str], perhaps: &[&str]) -> Result<()> {
    let all = value.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str));
    let mut found: Vec<_> = all.filter(|key| !perhaps.contains(key)).collect();
    found.sort_unstable();
    ensure(found == expected, || format!("the status has other keys. found={found:?}, expected={expected:?}"))
}

fn sane(stage: &Stage, status: &ClusterStatus) -> Result<()> {
    let names: Vec<_> = status.nodes.iter().map(|node| node.name.clone()).collect();
    ensure(names == stage.nodes(), || format!("the status shows other nodes. found={names:?}"))?;
    let primaries: Vec<_> = status.nodes.iter().filter(|node| node.role == Role::Primary).map(|n| &n.name).collect();
    ensure(primaries.len() <= 1, || format!("more than one node is out of recovery. found={primaries:?}"))?;
    for node in &status.nodes {
        ensure(node.reachable || node.role == Role::Unknown, || {
            format!("{} does not answer, but has a role", node.name)
        })?;
    }
    Ok(())
}

/// A check that names what is wrong.
pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::internal(otherwise())) }
}

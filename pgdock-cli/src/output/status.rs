//! The status as a table, with the problems below.

use std::fmt::Write as _;

use pgdock_core::Role;
use pgdock_core::cluster::{ClusterStatus, NodeView};

use super::table::Table;

/// The status as text.
pub(crate) fn render(status: &ClusterStatus) -> String {
    let mut table = Table::new(["  Role", "Name", "State", "Upstream", "TL", "LSN", "Lag", "Bundle", "Problems"]);
    for node in &status.nodes {
        let mark = if status.leader.as_ref() == Some(&node.name) { "* " } else { "  " };
        table.row([
            format!("{mark}{}", node.role),
            node.name.to_string(),
            node.state.to_string(),
            node.upstream.as_ref().map(ToString::to_string).unwrap_or_default(),
            node.timeline.map(|t| t.to_string()).unwrap_or_default(),
            node.lsn.map(|lsn| lsn.to_string()).unwrap_or_default(),
            lag(node),
            node.bundle.clone().unwrap_or_default(),
            if node.problems.is_empty() { String::new() } else { node.problems.len().to_string() },
        ]);
    }
    let mut text = format!("{}\n{table}\n", head(status));
    let of_nodes = status.nodes.iter().flat_map(|n| n.problems.iter().map(move |p| format!("{}: {p}", n.name)));
    let mut problems = status.problems.iter().cloned().chain(of_nodes).peekable();
    if problems.peek().is_some() {
        text.push_str("\nProblems:\n");
    }
    for problem in problems {
        let _ = writeln!(text, "  {problem}");
    }
    text
}

fn head(status: &ClusterStatus) -> String {
    let mut text = format!("cluster {}", status.cluster);
    if let Some(term) = status.term {
        let _ = write!(text, ", term {term}");
    }
    if let Some(durability) = status.durability {
        let _ = write!(text, ", durability {durability}");
    }
    if !status.sync_set.is_empty() {
        let names: Vec<_> = status.sync_set.iter().map(ToString::to_string).collect();
        // Where all of them hold each commit, their number says nothing new.
        let some = status.acks > 0 && (status.acks as usize) < names.len();
        let of = if some { format!("{} of ", status.acks) } else { String::new() };
        let _ = write!(text, " held by {of}{}", names.join(", "));
    }
    let reachable = if status.witness.reachable { "reachable" } else { "NOT REACHABLE" };
    let _ = write!(text, ", witness {} {reachable}", status.witness.kind);
    text
}

fn lag(node: &NodeView) -> String {
    if node.role == Role::Primary {
        return String::new();
    }
    match (node.replay_lag_bytes, node.replay_lag_seconds) {
        (None, _) => String::new(),
        (Some(0), _) => "0".to_owned(),
        (Some(bytes), None) => size(bytes),
        (Some(bytes), Some(seconds)) => format!("{}, {seconds:.1} s", size(bytes)),
    }
}

/// Bytes in PostgreSQL's units, those of `pg_size_pretty`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 10 * 1024 {
        return format!("{bytes} B");
    }
    let mut rest = bytes / 1024;
    let mut unit = 0;
    while rest >= 10 * 1024 && unit + 1 < UNITS.len() {
        rest /= 1024;
        unit += 1;
    }
    format!("{rest} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use pgdock_core::witness::record::Durability;

    use super::*;

    fn status() -> ClusterStatus {
        let node = |name: &str, role: &str, state: &str, lag: Option<u64>| {
            serde_json::json!({
                "name": name, "role": role, "state": state, "address": format!("{name}:5432"),
                "upstream": (role == "standby").then_some("n1"), "timeline": lag.map(|_| 2).or((role == "primary").then_some(2)),
                "lsn": (role != "unknown").then_some("0/3000148"), "replay_lag_bytes": lag, "replay_lag_seconds": lag.map(|_| 0.25),
                "reachable": role != "unknown", "bundle": null,
                "problems": if role == "unknown" { vec!["no agent listens there"] } else { vec![] },
            })
        };
        serde_json::from_value(serde_json::json!({
            "cluster": "shop", "term": 3, "leader": "n1", "durability": "sync", "sync_set": ["n2"],
            "witness": { "kind": "file", "reachable": true },
            "nodes": [
                node("n1", "primary", "running", None),
                node("n2", "standby", "streaming", Some(40_000)),
                node("n3", "unknown", "unknown", None),
            ],
            "problems": [],
        }))
        .unwrap()
    }

    #[test]
    fn the_leader_is_marked_and_problems_are_below() {
        insta::assert_snapshot!(render(&status()), @r"
        cluster shop, term 3, durability sync held by n2, witness file reachable
           Role    | Name | State     | Upstream | TL | LSN       | Lag          | Bundle | Problems
        -----------+------+-----------+----------+----+-----------+--------------+--------+----------
         * primary | n1   | running   |          | 2  | 0/3000148 |              |        |
           standby | n2   | streaming | n1       | 2  | 0/3000148 | 39 kB, 0.2 s |        |
           unknown | n3   | unknown   |          |    |           |              |        | 1

        Problems:
          n3: no agent listens there
        ");
    }

    #[test]
    fn a_quorum_says_how_many_hold_each_commit() {
        let mut quorum = status();
        quorum.durability = Some(Durability::Quorum);
        quorum.sync_set.push("n3".parse().unwrap());
        quorum.acks = 1;
        assert!(head(&quorum).contains("durability quorum held by 1 of n2, n3,"), "{}", head(&quorum));
        quorum.acks = 2;
        assert!(head(&quorum).contains("durability quorum held by n2, n3,"), "{}", head(&quorum));
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (10_239, "10239 B"), (40_000, "39 kB"), (64 << 20, "64 MB"), (u64::MAX, "16777215 TB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}

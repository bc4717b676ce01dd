//! The status as a table, with the problems below.

use std::fmt::Write as _;

use pgdock_core::Role;
use pgdock_core::agent::BackupsKept;
use pgdock_core::backup::wal::ArchiveStatus;
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
    if let Some(archive) = &status.archive {
        let _ = writeln!(text, "\nWAL archive: {}", archived(archive));
    }
    if let Some(kept) = &status.backups {
        let _ = writeln!(text, "Backups:     {}", backups(kept));
    }
    if let Some((node, running)) = &status.backup {
        let done = running
            .progress
            .map_or_else(|| "it waits for its turn".to_owned(), |p| format!("{} of {}", size(p.done), size(p.total)));
        let _ = writeln!(text, "             {} is being made of {node}: {done}", running.label);
    }
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

/// How the archiving of WAL stands.
fn archived(archive: &ArchiveStatus) -> String {
    let mut text = match (&archive.last, archive.last_at) {
        (Some(last), Some(at)) => format!("last {last} at {at:.0}"),
        _ => "nothing was archived since the agent of the leader started".to_owned(),
    };
    if let Some(bytes) = archive.backlog_bytes {
        let _ = write!(text, ", {} not archived yet", size(bytes));
    }
    if archive.waiting > 0 {
        let _ = write!(text, ", {} files wait", archive.waiting);
    }
    text
}

/// Which backups there are.
fn backups(kept: &BackupsKept) -> String {
    let mut text = match (&kept.newest, kept.newest_at) {
        (Some(newest), Some(at)) => format!("{}, the newest {newest}, made at {at:.0}", kept.count),
        _ => "none yet: `pgdock backup create` takes one".to_owned(),
    };
    match kept.verified_at {
        Some(at) => {
            let _ = write!(text, "; one was seen to restore at {at:.0}");
        }
        None if kept.count > 0 => text.push_str("; none was seen to restore yet"),
        None => {}
    }
    if let Some(next) = kept.next_at {
        let _ = write!(text, "; the next at {next:.0}");
    }
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
pub(crate) fn size(bytes: u64) -> String {
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
    fn the_archive_has_a_line_of_its_own() {
        let mut archiving = status();
        archiving.archive = serde_json::from_value(serde_json::json!({
            "last": "000000010000000000000003", "last_at": "2026-11-30T23:15:00.5Z", "waiting": 2,
            "backlog_bytes": 40_000, "oldest_at": null, "failing": null,
        }))
        .unwrap();
        let expected =
            "WAL archive: last 000000010000000000000003 at 2026-11-30T23:15:00Z, 39 kB not archived yet, 2 files wait";
        assert!(render(&archiving).contains(expected), "{}", render(&archiving));
        assert!(!render(&status()).contains("archive"));
    }

    #[test]
    fn backups_are_told_with_their_age() {
        let mut with = status();
        with.backups = serde_json::from_value(serde_json::json!({
            "count": 0, "newest": null, "newest_at": null, "verified_at": null, "next_at": null,
        }))
        .unwrap();
        assert!(
            render(&with).contains("Backups:     none yet: `pgdock backup create` takes one\n"),
            "{}",
            render(&with)
        );
        with.backups = serde_json::from_value(serde_json::json!({
            "count": 2, "newest": "20261130T231500Z-0000000a", "newest_at": "2026-11-30T23:20:00Z", "verified_at": null,
            "next_at": "2026-12-01T03:00:00Z",
        }))
        .unwrap();
        let line = "2, the newest 20261130T231500Z-0000000a, made at 2026-11-30T23:20:00Z; none was seen to restore yet; \
                    the next at 2026-12-01T03:00:00Z";
        assert!(render(&with).contains(line), "{}", render(&with));
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

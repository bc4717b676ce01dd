//! `/metrics`, in the text format of Prometheus.

use std::fmt::{Display, Write};

use super::state::ApiState;
use crate::Role;
use crate::backup::wal::ArchiveStatus;

pub(super) fn render(state: &ApiState) -> String {
    let said = state.published.borrow();
    let (mut page, report, now) = (Page::default(), &said.report, state.clock.now());
    page.head("pgdock_info", "gauge", "The node, its cluster, and the configuration that runs.");
    let bundle = report.bundle.as_deref().unwrap_or_default();
    let labels = [("cluster", report.cluster.as_str()), ("node", report.node.as_str()), ("bundle", bundle)];
    page.value("pgdock_info", &labels, 1);
    page.head("pgdock_role", "gauge", "1 for the role that the node has.");
    for role in [Role::Primary, Role::Standby, Role::Witness, Role::Unknown] {
        page.value("pgdock_role", &[("role", &role.to_string())], u8::from(report.role == role));
    }
    page.gauge("pgdock_leader", "1 while the node leads and accepts writes.", u8::from(said.leads()));
    page.gauge("pgdock_postgres_answers", "1 while PostgreSQL answers queries.", u8::from(said.answers()));
    page.gauge("pgdock_timeline", "The timeline of the node's WAL.", report.timeline);
    page.gauge("pgdock_wal_flushed_bytes", "Up to where the node's WAL is on disk.", report.flushed.0);
    page.gauge("pgdock_wal_replayed_bytes", "Up to where the node's WAL was replayed.", report.replayed.0);
    page.gauge("pgdock_replay_lag_bytes", "WAL of the leader that the node has not replayed.", said.lag_bytes());
    page.gauge("pgdock_witness_reachable", "1 while the witness answers.", u8::from(report.witness_reachable));
    if let Some(until) = said.right_until {
        let help = "How long the node's right to be primary still lasts.";
        page.gauge("pgdock_right_seconds", help, until.since(now).as_secs_f64());
    }
    if let Some(record) = &said.record {
        page.gauge("pgdock_term", "The number of the present reign.", record.term);
        page.gauge("pgdock_paused", "1 while automatic decisions are stopped.", u8::from(record.paused));
        page.gauge("pgdock_sync_set_members", "Standbys that acknowledged commits count on.", record.sync_set.len());
        page.gauge("pgdock_sync_acks", "How many of them hold each acknowledged commit.", record.acks);
    }
    page.gauge("pgdock_peers_heard", "Other nodes that are heard.", said.peers.len());
    page.gauge("pgdock_problems", "Problems that the node reports.", report.problems.len());
    page.gauge(
        "pgdock_published_age_seconds",
        "How long ago the agent's loop spoke.",
        now.since(said.at).as_secs_f64(),
    );
    page.head("pgdock_events_dropped_total", "counter", "Events that could not be written to disk.");
    page.value("pgdock_events_dropped_total", &[], state.events.dropped());
    if !report.standbys.is_empty() {
        page.head("pgdock_standby_lag_bytes", "gauge", "WAL that a standby of this primary has not replayed.");
        for standby in &report.standbys {
            let labels = [("standby", standby.member.node.as_str())];
            page.value("pgdock_standby_lag_bytes", &labels, report.flushed.ahead_of(standby.replayed));
        }
    }
    if let Some(archiver) = &state.archiver {
        archive(&mut page, &archiver.status());
    }
    page.0
}

fn archive(page: &mut Page, status: &ArchiveStatus) {
    page.gauge("pgdock_archive_waiting_files", "Files of WAL that wait to be in the archive.", status.waiting);
    page.gauge("pgdock_archive_failing", "1 while WAL cannot be archived.", u8::from(status.failing.is_some()));
    if let Some(bytes) = status.backlog_bytes {
        let help = "WAL on the leader's disk that is not in the archive, the present segment included.";
        page.gauge("pgdock_archive_backlog_bytes", help, bytes);
    }
    let times = [
        ("pgdock_archive_last_timestamp_seconds", "When this node last put WAL into the archive.", status.last_at),
        ("pgdock_archive_oldest_timestamp_seconds", "Since when the oldest WAL waits.", status.oldest_at),
    ];
    for (name, help, at) in times {
        if let Some(at) = at {
            page.gauge(name, help, at.as_second());
        }
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.value(name, &[], value);
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

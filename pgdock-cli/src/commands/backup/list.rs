//! `pgdock backup list`

use clap::Args;
use jiff::Timestamp;
use pgdock_core::Result;
use pgdock_core::backup::catalog::{Backup, Catalog};
use pgdock_core::backup::verify::{Level, Report};
use pgdock_core::backup::{Label, Repository};
use serde::Serialize;

use super::span;
use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::output::status::size;
use crate::output::table::Table;

/// List the base backups of the cluster, oldest first
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    output: Output,
}

/// A backup for programs.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    label: &'a Label,
    node: &'a pgdock_core::NodeName,
    from_standby: bool,
    began: Timestamp,
    ended: Timestamp,
    timeline: pgdock_core::TimelineId,
    start: pgdock_core::Lsn,
    stop: pgdock_core::Lsn,
    system_identifier: u64,
    server_version: u32,
    files: u64,
    bytes: u64,
    stored_bytes: u64,
    damaged_pages: u64,
    verified: Option<&'a Report>,
}

#[derive(Debug, Serialize)]
struct All<'a> {
    backups: Vec<Listed<'a>>,
    unfinished: &'a [Label],
    unreadable: Vec<Unreadable<'a>>,
}

#[derive(Debug, Serialize)]
struct Unreadable<'a> {
    label: &'a Label,
    error: String,
}

pub(super) async fn run(context: &Context, args: ListArgs) -> Result<Exit> {
    let repository = Repository::open(&context.settings()?).await?;
    let catalog = Catalog::load(&*repository.sink, &repository.codec).await?;
    match args.output.output {
        Format::Json => output::json(&All {
            backups: catalog.backups.iter().map(listed).collect(),
            unfinished: &catalog.unfinished,
            unreadable: catalog.unreadable.iter().map(|(label, e)| Unreadable { label, error: e.chain() }).collect(),
        })?,
        Format::Table if catalog.backups.is_empty() => output::note("there is no backup yet"),
        Format::Table => output::data(&render(&catalog.backups))?,
    }
    for (label, error) in &catalog.unreadable {
        output::note(&format!("{label} cannot be used: {}", error.chain()));
    }
    if !catalog.unfinished.is_empty() {
        let labels: Vec<&str> = catalog.unfinished.iter().map(Label::as_str).collect();
        output::note(&format!("under way, or failed: {}", labels.join(", ")));
    }
    Ok(if catalog.unreadable.is_empty() { Exit::Done } else { Exit::Failed })
}

fn listed(backup: &Backup) -> Listed<'_> {
    let manifest = &backup.manifest;
    Listed {
        label: &manifest.label,
        node: &manifest.node,
        from_standby: manifest.from_standby,
        began: manifest.began,
        ended: manifest.ended,
        timeline: manifest.timeline,
        start: manifest.start,
        stop: manifest.stop,
        system_identifier: manifest.system_identifier,
        server_version: manifest.server_version,
        files: manifest.files,
        bytes: manifest.plain,
        stored_bytes: manifest.stored,
        damaged_pages: manifest.pages.damaged,
        verified: backup.verified.as_ref(),
    }
}

fn render(backups: &[Backup]) -> String {
    let mut table = Table::new([
        "Label",
        "Node",
        "Ended",
        "Took",
        "Size",
        "Stored",
        "TL",
        "From",
        "To",
        "Damaged pages",
        "Verified",
    ]);
    for Backup { manifest, verified } in backups {
        table.row([
            manifest.label.to_string(),
            manifest.node.to_string(),
            format!("{:.0}", manifest.ended),
            span(manifest.took()),
            size(manifest.plain),
            size(manifest.stored),
            manifest.timeline.to_string(),
            manifest.start.to_string(),
            manifest.stop.to_string(),
            if manifest.pages.checksums { manifest.pages.damaged.to_string() } else { "not checked".to_owned() },
            verified.as_ref().map_or_else(|| "never".to_owned(), verification),
        ]);
    }
    table.to_string()
}

fn verification(report: &Report) -> String {
    let how = match (report.good(), report.level) {
        (true, Level::Digests) => "read",
        (true, Level::Boot) => "restored",
        (false, _) => "BAD",
    };
    format!("{how}, {:.0}", report.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_are_a_table() {
        let manifest = serde_json::json!({
            "format": 1, "label": "20261130T231500Z-9f01c2aa", "cluster": "main", "node": "n2", "from_standby": true,
            "system_identifier": 7_575_757_575_757_575_757u64, "server_version": 150_018,
            "began": "2026-11-30T23:15:00Z", "ended": "2026-11-30T23:16:05Z", "timeline": 3, "start": "0/3000028", "stop": "0/4000148",
            "wal_segment_bytes": 16_777_216, "next_xid": 800, "settings": {}, "tablespaces": [], "backup_label": "",
            "pages": { "checksums": true, "checked": 100, "damaged": 0, "examples": [] },
            "files": 1300, "plain": 1_610_000_000, "stored": 88_000_000, "packs": 11, "index": []
        });
        let report = serde_json::json!({
            "label": "20261130T231500Z-9f01c2aa", "at": "2026-12-01T05:00:09Z", "level": "boot", "objects": 12, "bytes": 88_000_000,
            "seconds": 9, "reached": null, "printed": [], "problems": []
        });
        let backup = Backup {
            manifest: serde_json::from_value(manifest).unwrap(),
            verified: Some(serde_json::from_value(report).unwrap()),
        };
        let text = render(std::slice::from_ref(&backup));
        for part in
            ["20261130T231500Z-9f01c2aa", "n2", "1 min 5 s", "1535 MB", "83 MB", "0/3000028", "restored, 2026-12-01"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let bad = Backup { verified: backup.verified.map(|r| Report { problems: vec!["x".into()], ..r }), ..backup };
        assert!(render(std::slice::from_ref(&bad)).contains("BAD, 2026-12-01"));
        assert!(render(&[Backup { verified: None, ..bad }]).contains("never"));
    }
}

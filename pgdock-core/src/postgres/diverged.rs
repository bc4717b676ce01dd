//! WAL that a rewind took off a node: kept below `diverged/`, a folder for each rewind, with a report of what it held.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::lsn::Lsn;
use super::os_user::OsUser;
use super::session::Session;
use super::timeline::TimelineId;
use super::wal_aside::segments;
use super::wal_changes::{Changes, Rows};
use crate::durable::sync_folder;
use crate::node::Incarnation;
use crate::{Error, NodeName, Result};

/// The report, in the folder of the WAL.
pub(crate) const REPORT: &str = "report.json";
/// Stands in the folder once somebody has looked at it.
const SEEN: &str = "seen";
/// A folder that is being filled.
const UNFINISHED: &str = ".unfinished";
/// How long finding the name of a relation may take.
const NAME_LIMIT: Duration = Duration::from_secs(5);

/// What a rewind took away: written beside the WAL as `report.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diverged {
    /// The node that had it.
    pub node: NodeName,
    /// Its identity at that time.
    pub incarnation: Option<Incarnation>,
    /// The cluster that it is of.
    pub system_identifier: u64,
    /// The timeline that it lies on.
    pub timeline: TimelineId,
    /// Where it begins: up to here the primary has the same.
    pub fork: Lsn,
    /// Up to where it is known to reach.
    pub end: Lsn,
    /// When it was put aside.
    pub found_at: jiff::Timestamp,
    /// The segments, whole: the first one begins before the fork.
    pub files: Vec<String>,
    /// What the transactions did that committed behind the fork; `None` where nobody has looked.
    #[serde(default)]
    pub changes: Option<Changes>,
    /// Why that may not be all.
    #[serde(default)]
    pub incomplete: Option<String>,
}

impl Diverged {
    /// Whether both tell of the same WAL of the same data directory.
    fn is_of_the_same(&self, other: &Self) -> bool {
        let of = |d: &Self| (d.incarnation, d.system_identifier, d.timeline, d.fork, d.end);
        of(self) == of(other)
    }
}

/// WAL that is kept, in a few words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name on the node: that of its folder.
    pub id: String,
    /// The node.
    pub node: NodeName,
    /// When it was put aside, by the node's calendar clock.
    pub found_at: jiff::Timestamp,
    /// The timeline that it lies on.
    pub timeline: TimelineId,
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends.
    pub to: Lsn,
    /// How many bytes of WAL lie between.
    pub bytes: u64,
    /// How many transactions committed there; `None` where nobody has looked.
    pub transactions: Option<u64>,
    /// Why that may not be all.
    pub incomplete: Option<String>,
    /// How much room it takes, in bytes: segments are kept whole.
    pub disk_bytes: u64,
    /// Whether somebody has looked at it.
    pub seen: bool,
    /// Where it lies, on the node. It stays there until somebody drops it.
    pub path: PathBuf,
}

/// WAL that is kept, with what it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptChanges {
    /// In a few words.
    pub kept: Kept,
    /// Which rows were changed, those of applications first.
    pub relations: Vec<RelationChanges>,
    /// The whole report.
    pub report: Diverged,
}

/// What was done to the rows of one relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationChanges {
    /// Its files: `tablespace/database/relfilenode`.
    pub files: String,
    /// Its database, where that is still there.
    pub database: Option<String>,
    /// Its name, where the database still has a relation of these files.
    pub name: Option<String>,
    /// How many rows.
    #[serde(flatten)]
    pub rows: Rows,
}

impl RelationChanges {
    /// PostgreSQL's own: a catalog, or what a table has beside it for long values.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.starts_with("pg_"))
    }
}

/// The WAL that is kept on this node. Its methods block, but for those that are `async`.
#[derive(Clone, Debug)]
pub struct DivergedWal {
    folder: PathBuf,
    socket_dir: PathBuf,
    port: u16,
}

impl DivergedWal {
    /// That below `folder`. Names of relations are asked of the PostgreSQL whose socket lies in `socket_dir`.
    pub(crate) fn new(folder: &Path, socket_dir: &Path, port: u16) -> Self {
        Self { folder: folder.to_owned(), socket_dir: socket_dir.to_owned(), port }
    }

    /// All of it, oldest first. Folders without a report that can be read are not shown.
    ///
    /// # Errors
    /// `Internal` when the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Kept>> {
        let failed =
            |e| Error::internal(format!("cannot list the WAL that is kept. path={}", self.folder.display())).because(e);
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut kept = Vec::new();
        for entry in entries {
            let id = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if is_id(&id)
                && let Ok((one, _)) = self.read(&id)
            {
                kept.push(one);
            }
        }
        kept.sort_by(|a, b| (a.found_at, &a.id).cmp(&(b.found_at, &b.id)));
        Ok(kept)
    }

    fn read(&self, id: &str) -> Result<(Kept, Diverged)> {
        let path = self.find(id)?;
        let text = std::fs::read_to_string(path.join(REPORT))
            .map_err(|e| Error::internal(format!("the report cannot be read. path={}", path.display())).because(e))?;
        let report: Diverged = serde_json::from_str(&text).map_err(|e| {
            Error::internal(format!("the report is not understood. path={}", path.display())).because(e)
        })?;
        let size = |file: &String| path.join(file).metadata().map_or(0, |m| m.len());
        let kept = Kept {
            id: id.to_owned(),
            node: report.node.clone(),
            found_at: report.found_at,
            timeline: report.timeline,
            from: report.fork,
            to: report.end,
            bytes: report.end.ahead_of(report.fork),
            transactions: report.changes.as_ref().map(|c| c.transactions),
            incomplete: report.incomplete.clone(),
            disk_bytes: report.files.iter().map(size).sum(),
            seen: path.join(SEEN).exists(),
            path,
        };
        Ok((kept, report))
    }

    /// The folder of one.
    fn find(&self, id: &str) -> Result<PathBuf> {
        let path = self.folder.join(id);
        // Nothing leads out of the folder, neither by its name nor by a link.
        if is_id(id) && path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            return Ok(path);
        }
        Err(Error::invalid(format!("no such WAL is kept here. id={id}"))
            .hint("`pgdock diverged list` shows what is kept"))
    }

    /// What one held, with the names that relations have by now. From then on it counts as seen.
    ///
    /// # Errors
    /// `Invalid` when there is none of this name, `Internal` when its report cannot be read.
    pub async fn show(&self, id: &str) -> Result<KeptChanges> {
        let (this, wanted) = (self.clone(), id.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let mut found = this.read(&wanted)?;
            // It only keeps a person from being told again.
            found.0.seen |= OpenOptions::new().create(true).append(true).open(found.0.path.join(SEEN)).is_ok();
            Ok::<_, Error>(found)
        });
        let (kept, report) = read.await.map_err(|e| Error::internal("lost the reader of a report").because(e))??;
        let rows = report.changes.iter().flat_map(|c| &c.rows).map(|(files, rows)| RelationChanges {
            files: files.clone(),
            database: None,
            name: None,
            rows: *rows,
        });
        let mut relations: Vec<_> = rows.collect();
        // A name is a comfort: without PostgreSQL there is none.
        if let Err(error) = self.name(&mut relations).await {
            tracing::info!(error = %error.chain(), "the relations of diverged WAL could not be named");
        }
        relations.sort_by_key(|r| (r.is_system(), r.name.is_none(), r.database.clone(), r.name.clone()));
        Ok(KeptChanges { kept, relations, report })
    }

    /// Asks the databases which relations these are.
    async fn name(&self, relations: &mut [RelationChanges]) -> Result<()> {
        let session = Session::new(&self.socket_dir, self.port);
        let rows = session
            .query("SELECT oid::text, datname::text FROM pg_database WHERE datallowconn", &[], NAME_LIMIT)
            .await?;
        let get = |row: &tokio_postgres::Row, at| row.try_get::<_, String>(at).unwrap_or_default();
        let databases: BTreeMap<String, String> = rows.iter().map(|row| (get(row, 0), get(row, 1))).collect();
        let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
        for relation in relations {
            let mut parts = relation.files.split('/').map(str::to_owned);
            let (Some(space), Some(database), Some(node)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            // Those that all databases share are known in each.
            let named = match database.as_str() {
                "0" => "postgres",
                oid => match databases.get(oid) {
                    Some(name) => {
                        relation.database = Some(name.clone());
                        name
                    }
                    None => continue,
                },
            };
            let session = sessions
                .entry(named.to_owned())
                .or_insert_with(|| Session::new(&self.socket_dir, self.port).to_database(named));
            let found = session
                .query(
                    "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                      WHERE c.oid = pg_filenode_relation($1::text::oid, $2::text::oid)",
                    &[(&space, Type::TEXT), (&node, Type::TEXT)],
                    NAME_LIMIT,
                )
                .await?;
            relation.name = found.first().map(|row| get(row, 0));
        }
        Ok(())
    }

    /// Removes one for good.
    ///
    /// # Errors
    /// `Invalid` when there is none of this name, `Internal` when it cannot be removed.
    pub fn drop_one(&self, id: &str) -> Result<()> {
        let path = self.find(id)?;
        std::fs::remove_dir_all(&path)
            .and_then(|()| sync_folder(&self.folder))
            .map_err(|e| Error::internal(format!("cannot remove it. path={}", path.display())).because(e))
    }
}

/// Whether this is a name that [`keep`] gives.
fn is_id(id: &str) -> bool {
    id.starts_with("tl") && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Copies the WAL from the fork on into a folder of its own below `into`, with the report; `None` where there is none.
/// Also where the first file of it begins. What a rewind that was interrupted has kept already is not kept twice.
///
/// # Errors
/// `Internal` when a file cannot be copied.
pub(crate) fn keep(
    data: &Path,
    into: &Path,
    mut report: Diverged,
    segment_bytes: u64,
    owner: &OsUser,
) -> Result<Option<(PathBuf, Diverged, Lsn)>> {
    if report.end <= report.fork {
        return Ok(None);
    }
    let (mut found, size) = segments(data, Some(segment_bytes))?;
    let (first, last) = (report.fork.0 / size, report.end.0 / size);
    // Files behind the end wait to be used again, and hold nothing of this.
    found.retain(|s| s.timeline == report.timeline && (first..=last).contains(&s.number));
    found.sort_by_key(|s| s.number);
    let Some(begin) = found.first().map(|s| Lsn(s.number * size)) else { return Ok(None) };
    let failed = |path: &Path| {
        let message = format!("cannot keep diverged WAL. path={}", path.display());
        move |e| Error::internal(message).because(e)
    };
    let name = format!("tl{}-{}", report.timeline, report.fork.to_string().replace('/', "-"));
    for path in names(into, &name).take_while(|path| path.symlink_metadata().is_ok()) {
        if let Some(known) = read_report(&path).filter(|known| known.is_of_the_same(&report)) {
            return Ok(Some((path, known, begin)));
        }
    }
    // What a crash cut short is still in the data directory as a whole.
    let unfinished = into.join(UNFINISHED);
    if unfinished.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(&unfinished).map_err(failed(&unfinished))?;
    }
    std::fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(failed(&unfinished))?;
    owner.take_path(&unfinished).map_err(failed(&unfinished))?;
    let create = |path: &Path| {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        owner.take(&file)?;
        Ok::<_, std::io::Error>(file)
    };
    for segment in found {
        let name = segment.path.file_name().unwrap_or_default();
        let target = unfinished.join(name);
        // A link would not do: PostgreSQL writes over segments when it uses them again.
        let copy = || {
            let (mut from, mut to) = (File::open(&segment.path)?, create(&target)?);
            std::io::copy(&mut from, &mut to)?;
            to.sync_all()
        };
        copy().map_err(failed(&target))?;
        report.files.push(name.to_string_lossy().into_owned());
    }
    let text = serde_json::to_vec_pretty(&report)
        .map_err(|e| Error::internal("cannot write the report of diverged WAL").because(e))?;
    let target = unfinished.join(REPORT);
    let write = || {
        let mut file = create(&target)?;
        std::io::Write::write_all(&mut file, &text)?;
        file.sync_all()
    };
    write().and_then(|()| sync_folder(&unfinished)).map_err(failed(&target))?;
    let folder = names(into, &name).find(|path| path.symlink_metadata().is_err()).expect("there is no end of names");
    std::fs::rename(&unfinished, &folder).and_then(|()| sync_folder(into)).map_err(failed(&folder))?;
    Ok(Some((folder, report, begin)))
}

/// The name, and what it is called where that is taken.
fn names(into: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let (into, name) = (into.to_owned(), name.to_owned());
    (1u64..).map(move |n| into.join(if n == 1 { name.clone() } else { format!("{name}-{n}") }))
}

fn read_report(folder: &Path) -> Option<Diverged> {
    serde_json::from_slice(&std::fs::read(folder.join(REPORT)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 16 << 20;

    /// A node with two segments of WAL of which the end has diverged, and where that is kept.
    fn kept() -> (tempfile::TempDir, DivergedWal, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (data, into) = (dir.path().join("data"), dir.path().join("diverged"));
        std::fs::create_dir_all(data.join("pg_wal")).unwrap();
        std::fs::create_dir(&into).unwrap();
        for name in ["000000010000000000000003", "000000010000000000000004", "000000010000000000000009"] {
            std::fs::write(data.join("pg_wal").join(name), name).unwrap();
        }
        let report = Diverged {
            node: NodeName::new("n1").unwrap(),
            incarnation: None,
            system_identifier: 1,
            timeline: TimelineId(1),
            fork: Lsn(3 * SEGMENT + 8),
            end: Lsn(4 * SEGMENT + 8),
            found_at: jiff::Timestamp::UNIX_EPOCH,
            files: Vec::new(),
            changes: None,
            incomplete: None,
        };
        // A crash left this.
        std::fs::create_dir(into.join(UNFINISHED)).unwrap();
        let (again, none) = (report.clone(), Diverged { end: report.fork, ..report.clone() });
        let owner = OsUser::current().unwrap();
        assert!(keep(&data, &into, none, SEGMENT, &owner).unwrap().is_none());
        let (folder, _, begin) = keep(&data, &into, report, SEGMENT, &owner).unwrap().unwrap();
        assert_eq!(begin, Lsn(3 * SEGMENT));
        // A rewind that was interrupted begins anew.
        let again = keep(&data, &into, again, SEGMENT, &owner).unwrap().unwrap();
        assert_eq!((&again.0, again.2), (&folder, begin));
        (dir, DivergedWal::new(&into, Path::new("/nowhere"), 1), folder)
    }

    #[tokio::test]
    async fn what_is_kept_is_listed_shown_and_dropped() {
        let (_dir, wal, folder) = kept();
        let [one] = &wal.list().unwrap()[..] else { panic!("{:?}", wal.list()) };
        assert_eq!((one.id.as_str(), one.bytes, one.disk_bytes, one.seen), ("tl1-0-3000008", SEGMENT, 48, false));
        let shown = wal.show(&one.id).await.unwrap();
        assert!(shown.kept.seen && shown.relations.is_empty());
        assert_eq!(shown.report.files, ["000000010000000000000003", "000000010000000000000004"]);
        assert!(wal.list().unwrap()[0].seen);
        wal.drop_one(&one.id).unwrap();
        assert!(wal.list().unwrap().is_empty() && !folder.exists());
    }

    #[tokio::test]
    async fn nothing_else_is_touched() {
        let (dir, wal, folder) = kept();
        std::os::unix::fs::symlink(dir.path().join("data"), dir.path().join("diverged/tl9")).unwrap();
        for id in ["", ".", "..", "../data", "tl1-0-3000008/..", "tl9", "tl7", ".unfinished"] {
            assert_eq!(wal.drop_one(id).unwrap_err().kind(), crate::ErrorKind::Invalid, "{id}");
            assert_eq!(wal.show(id).await.unwrap_err().kind(), crate::ErrorKind::Invalid, "{id}");
        }
        assert!(folder.exists() && dir.path().join("data/pg_wal").exists());
    }

    #[test]
    fn reports_of_earlier_versions_are_read() {
        let (_dir, wal, folder) = kept();
        let old = r#"{"node": "n1", "incarnation": null, "system_identifier": 1, "timeline": 1, "fork": "0/3000008",
            "end": "0/4000008", "found_at": "2026-01-31T12:00:00Z", "files": [], "commits": [], "relations": ["1/2/3"]}"#;
        std::fs::write(folder.join(REPORT), old).unwrap();
        assert_eq!(wal.list().unwrap()[0].transactions, None);
    }
}

//! The act in which a table is dropped, and comes back.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pgdock_core::backup::verify::Scratch;
use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::postgres::os_user::OsUser;
use pgdock_core::postgres::version::Binaries;
use pgdock_core::{Error, NodeName, Result};

use super::acts::title;
use super::check::ensure;
use super::stage::Stage;
use crate::output;
use crate::output::progress::during;
use crate::output::table::Table;
use crate::sql::Route;

/// How long it may take until WAL is archived, and until a server has started.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// What the writer wrote in the acts before.
const COUNT: &str = "SELECT count(*) FROM writes";

/// Takes a backup of a standby, drops a table on the primary, and restores to the moment before, beside the cluster.
pub(super) async fn bring_back(stage: &Stage, primary: &NodeName) -> Result<()> {
    title(
        8,
        "Drop a table, and bring it back",
        "A base backup of a standby; a table is dropped; the moment before that is restored into a folder beside the cluster.",
    )?;
    pgdock(stage, &["backup", "create"]).await?;
    pgdock(stage, &["backup", "list"]).await?;
    let failed = |e| Error::unavailable("a statement failed").because(e);
    let client = Route::to_primary(&stage.cluster)?.connect().await?;
    let before: i64 = client.query_one(COUNT, &[]).await.map_err(failed)?.get(0);
    let superuser = Route::superuser(&stage.cluster, primary)?.connect().await?;
    let place = superuser.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.map_err(failed)?;
    let place: String = place.get(0);
    client.batch_execute("DROP TABLE writes").await.map_err(failed)?;
    let gone = client.query_one(COUNT, &[]).await.is_err();
    ensure(gone, || "the table is there, though it was dropped".to_owned())?;
    during("waiting until the WAL is archived", async |_| archived(stage).await).await?;

    let data = stage.dir().join("restored");
    let to = data.display().to_string();
    pgdock(stage, &["backup", "restore", "--to", &to, "--at", &place, "--recover"]).await?;
    let found = during("looking into what was restored", async |_| rows(stage, &data).await).await?;
    let mut table = Table::new(["Where", "Rows of the table"]);
    table.row(["before it was dropped".into(), before.to_string()]);
    table.row(["in the cluster".into(), "there is no such table".to_owned()]);
    table.row(["in what was restored".into(), found.to_string()]);
    output::data(&table.to_string())?;
    ensure(found == before && before > 0, || format!("other rows came back. found={found}, expected={before}"))
}

/// Runs this program as a person would, and shows what it says.
async fn pgdock(stage: &Stage, args: &[&str]) -> Result<()> {
    let shown = format!("pgdock {}", args.join(" "));
    output::data(&format!("$ {shown}"))?;
    let program = std::env::current_exe().map_err(|e| Error::internal("cannot tell which program runs").because(e))?;
    let output = tokio::process::Command::new(program)
        .arg("--config")
        .arg(stage.dir())
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| Error::internal(format!("`{shown}` cannot be run")).because(e))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.success(), || format!("`{shown}` failed: {said}"))?;
    let text = format!("{}{said}", String::from_utf8_lossy(&output.stdout));
    output::data(&format!("{}\n", text.trim_end()))
}

/// Waits until all WAL that was written is in the archive.
async fn archived(stage: &Stage) -> Result<()> {
    let deadline = SystemClock.now() + PATIENCE;
    loop {
        let status = stage.cluster.status().await?;
        if status.archive.as_ref().is_some_and(|archive| archive.waiting == 0 && archive.backlog_bytes == Some(0)) {
            return Ok(());
        }
        if SystemClock.now() >= deadline {
            return Err(Error::unavailable(format!("the WAL is not archived in time. archive={:?}", status.archive)));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Starts a server on what was restored, that nobody else reaches, and counts.
async fn rows(stage: &Stage, data: &Path) -> Result<i64> {
    let postgres = &stage.settings().postgres;
    let user = OsUser::resolve(&postgres.user)?;
    let binaries = Binaries::find(postgres.bin_dir.as_deref(), None, std::env::var_os("PATH").as_deref())?;
    let folder = tempfile::Builder::new().prefix("pgdock-restored-").tempdir();
    let run = folder.map_err(|e| Error::unavailable("cannot make a folder for a socket").because(e))?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(run.path(), Some(user.uid), Some(user.gid))
            .map_err(|e| Error::unavailable("cannot give a folder to PostgreSQL's user").because(e))?;
    }
    let server = Scratch::start(data, run.path(), &binaries, &user).await?;
    let counted = async {
        server.recovered(PATIENCE, &SystemClock).await?;
        let mut config = tokio_postgres::Config::new();
        config.host_path(run.path()).user("postgres").dbname(&postgres.database);
        let failed = |e| Error::unavailable("what was restored cannot be asked").because(e);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(client.query_one(COUNT, &[]).await.map_err(failed)?.get(0))
    }
    .await;
    server.stop().await;
    counted
}

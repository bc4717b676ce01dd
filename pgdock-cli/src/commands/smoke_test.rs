//! `pgdock smoke-test`

use std::path::Path;
use std::time::Duration;

use clap::Args;
use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::{Cluster, Error, NodeName, Result, Role};
use serde::Serialize;
use tokio_postgres::Client;

use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::table::Table;
use crate::output::{self, progress};
use crate::sql::Route;

/// How long a standby may take to replay what was written.
const REPLAY_BUDGET: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// Write to the primary, and count on each standby
///
/// Runs shared/tests/prepare.sql and insert.sql on the primary, and select.sql on every node.
#[derive(Debug, Args)]
pub(crate) struct SmokeTestArgs {
    /// Insert this many rows rather than what insert.sql says
    #[arg(long)]
    rows: Option<u32>,
    #[command(flatten)]
    output: Output,
}

/// What a node counted.
#[derive(Debug, Serialize)]
pub(crate) struct Counted {
    pub(crate) node: NodeName,
    pub(crate) role: Role,
    pub(crate) rows: i64,
    /// How long it took until the node had replayed what was written, in seconds.
    pub(crate) replayed_after_seconds: f64,
}

pub(crate) async fn run(context: &Context, args: SmokeTestArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let counted =
        progress::during("writing, and waiting for the standbys", async |_| test(&cluster, args.rows).await).await?;
    match args.output.output {
        Format::Json => output::json(&counted)?,
        Format::Table => output::data(&table(&counted).to_string())?,
    }
    let silent: Vec<_> = cluster
        .settings()
        .nodes
        .keys()
        .filter(|node| !counted.iter().any(|counted| counted.node == **node))
        .map(NodeName::as_str)
        .collect();
    if silent.is_empty() {
        return Ok(Exit::Done);
    }
    output::note(&format!("neither primary nor standby at present, and not counted: {}", silent.join(", ")));
    Ok(Exit::Unhealthy)
}

/// Writes, and counts on every node that can be asked; the primary comes first.
pub(crate) async fn test(cluster: &Cluster, rows: Option<u32>) -> Result<Vec<Counted>> {
    let folder = cluster.settings().dir.join("shared").join("tests");
    let (prepare, select) = (read(&folder.join("prepare.sql"))?, read(&folder.join("select.sql"))?);
    let insert = match rows {
        Some(rows) => format!("INSERT INTO testtable (data) SELECT md5(n::text) FROM generate_series(1, {rows}) AS n"),
        None => read(&folder.join("insert.sql"))?,
    };
    let primary = Route::to_primary(cluster)?.connect().await?;
    execute(&primary, "prepare.sql", &prepare).await?;
    execute(&primary, "insert.sql", &insert).await?;
    count_everywhere(cluster, &primary, &select).await
}

/// Counts on every node once it has replayed what the primary holds now.
pub(crate) async fn count_everywhere(cluster: &Cluster, primary: &Client, select: &str) -> Result<Vec<Counted>> {
    let status = cluster.status().await?;
    let leader = status.primary().ok_or_else(|| Error::not_ready("there is no primary").hint("see `pgdock status`"))?;
    let position: String = first(primary, "SELECT pg_current_wal_lsn()::text").await?;
    let rows = count(primary, select).await?;
    let mut counted =
        vec![Counted { node: leader.name.clone(), role: Role::Primary, rows, replayed_after_seconds: 0.0 }];
    let begin = SystemClock.now();
    for node in status.nodes.iter().filter(|node| node.role == Role::Standby) {
        let client = Route::to_node(cluster, &node.name)?.connect().await?;
        replayed(&client, &node.name, &position).await?;
        let replayed_after_seconds = SystemClock.now().since(begin).as_secs_f64();
        let found = count(&client, select).await?;
        if found != rows {
            return Err(Error::internal(format!(
                "a standby counts other rows than the primary. node={}, rows={found}, primary_rows={rows}",
                node.name
            )));
        }
        counted.push(Counted { node: node.name.clone(), role: Role::Standby, rows: found, replayed_after_seconds });
    }
    Ok(counted)
}

pub(crate) fn table(counted: &[Counted]) -> Table {
    let mut table = Table::new(["Node", "Role", "Rows", "Replayed after"]);
    for node in counted {
        let after = match node.role {
            Role::Primary => String::new(),
            _ => format!("{:.3} s", node.replayed_after_seconds),
        };
        table.row([node.node.to_string(), node.role.to_string(), node.rows.to_string(), after]);
    }
    table
}

async fn replayed(client: &Client, node: &NodeName, position: &str) -> Result<()> {
    let ask = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{position}'::pg_lsn, false)");
    let deadline = SystemClock.now() + REPLAY_BUDGET;
    while !first::<bool>(client, &ask).await? {
        if SystemClock.now() >= deadline {
            return Err(Error::unavailable(format!("a standby has not replayed in time. node={node}, lsn={position}"))
                .hint("`pgdock status` shows how far it is"));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| {
        Error::invalid(format!("a test is not readable. file={}", file.display()))
            .because(e)
            .hint("`pgdock init` adds what is missing")
    })
}

async fn execute(client: &Client, name: &str, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.map_err(|e| Error::unavailable(format!("a test failed. test={name}")).because(e))
}

async fn count(client: &Client, select: &str) -> Result<i64> {
    let select = select.trim_end().trim_end_matches(';');
    first(client, select).await
}

async fn first<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &Client, sql: &str) -> Result<T> {
    let failed = |e: tokio_postgres::Error| Error::unavailable("a query failed").because(e);
    client.query_one(sql, &[]).await.map_err(failed)?.try_get(0).map_err(failed)
}

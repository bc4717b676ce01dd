//! [`look`]: reads what there is, from repmgr's tables and from each server.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Row};

use super::source::said;
use super::{Picture, Registered, Rule, Server, Source};
use crate::postgres::conninfo::Conninfo;
use crate::{Error, Result};

const NODES: &str =
    "SELECT node_id, node_name, type, active, priority, conninfo, slot_name FROM repmgr.nodes ORDER BY node_id";

const SERVER: &str = "
SELECT (SELECT system_identifier FROM pg_control_system()),
       current_setting('server_version_num')::int,
       pg_is_in_recovery(),
       coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false),
       current_setting('data_directory'),
       (SELECT setting FROM pg_config WHERE name = 'BINDIR'),
       current_setting('data_checksums') = 'on'";

/// What the files say and is in force. A setting that waits for a restart has its old value, which is not shown here.
const SETTINGS: &str =
    "SELECT lower(name), setting FROM pg_file_settings WHERE applied AND name IS NOT NULL ORDER BY seqno";

const RULES: &str =
    "SELECT line_number, type, database, user_name, address, netmask, auth_method, coalesce(options, '{}')
  FROM pg_hba_file_rules WHERE error IS NULL ORDER BY line_number";

/// Reads what there is. A standby that does not answer is part of the picture.
///
/// # Errors
/// `Unavailable` when the first server does not answer; `Invalid` when repmgr has no tables in that database, or the role may
/// not see what it takes.
pub async fn look(source: &Source) -> Result<Picture> {
    let client = source.connect().await?;
    let user: String = one(&client, "SELECT current_user::text").await?;
    let superuser: bool = one(&client, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user").await?;
    if !superuser {
        return Err(Error::invalid(format!(
            "the role is no superuser, and does not see all that it takes. role={user}"
        ))
        .hint("name one in the connection string: user=postgres"));
    }
    let there: bool = one(&client, "SELECT to_regclass('repmgr.nodes') IS NOT NULL").await?;
    if !there {
        let database: String = one(&client, "SELECT current_database()::text").await?;
        return Err(Error::invalid(format!("repmgr has no tables in this database. database={database}"))
            .hint("name its own in the connection string, as a rule dbname=repmgr"));
    }
    let has_postgres =
        one(&client, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'postgres' AND rolsuper)").await?;
    let databases = rows(
        &client,
        "SELECT datname::text, pg_get_userbyid(datdba)::text FROM pg_database
          WHERE datallowconn AND datname NOT IN ('template0', 'template1', 'postgres', 'repmgr') ORDER BY datname",
    )
    .await?
    .iter()
    .map(|row| Ok((get(row, 0)?, get(row, 1)?)))
    .collect::<Result<_>>()?;
    let mut picture =
        Picture { user, superuser, has_postgres, databases, server: server(&client).await?, nodes: Vec::new() };
    let database: String = one(&client, "SELECT current_database()::text").await?;
    for row in rows(&client, NODES).await? {
        let conninfo: String = get(&row, 5)?;
        let conninfo = Conninfo::parse(&conninfo).unwrap_or_default();
        let host = conninfo.get("host").map(str::to_owned);
        let port = conninfo.get("port").and_then(|port| port.parse().ok()).unwrap_or(5432);
        let kind: String = get(&row, 2)?;
        let found = match &host {
            // It holds none of the cluster's data.
            _ if kind == "witness" => Err("a witness of repmgr".to_owned()),
            None => Err("its conninfo names no host".to_owned()),
            Some(host) => match source.connect_to(host, port, Some(&database)).await {
                Ok(client) => server(&client).await.map_err(|e| e.chain()),
                Err(error) => Err(error.chain()),
            },
        };
        picture.nodes.push(Registered {
            id: get(&row, 0)?,
            name: get(&row, 1)?,
            kind,
            active: get(&row, 3)?,
            priority: get(&row, 4)?,
            host,
            port,
            slot: get(&row, 6)?,
            server: found,
        });
    }
    Ok(picture)
}

async fn server(client: &Client) -> Result<Server> {
    let row = rows(client, SERVER).await?.into_iter().next().ok_or_else(|| Error::internal("no row was answered"))?;
    let version: i32 = get(&row, 1)?;
    let mut settings = BTreeMap::new();
    for row in rows(client, SETTINGS).await? {
        settings.insert(get(&row, 0)?, get::<Option<String>>(&row, 1)?.unwrap_or_default());
    }
    let mut hba = Vec::new();
    for row in rows(client, RULES).await? {
        hba.push(Rule {
            line: get(&row, 0)?,
            kind: get(&row, 1)?,
            databases: get(&row, 2)?,
            users: get(&row, 3)?,
            address: get(&row, 4)?,
            netmask: get(&row, 5)?,
            method: get(&row, 6)?,
            options: get(&row, 7)?,
        });
    }
    // Where its library is not loaded, nobody runs.
    let repmgrd = match client.query_one("SELECT repmgr.get_repmgrd_pid(), repmgr.repmgrd_is_running()", &[]).await {
        Ok(row) if row.try_get::<_, Option<bool>>(1).ok().flatten() == Some(true) => {
            row.try_get::<_, Option<i32>>(0).ok().flatten()
        }
        _ => None,
    };
    Ok(Server {
        system_identifier: get::<i64>(&row, 0)?.cast_unsigned(),
        version: version.cast_unsigned(),
        in_recovery: get(&row, 2)?,
        streams: get(&row, 3)?,
        data_directory: get(&row, 4)?,
        bin_dir: get(&row, 5)?,
        checksums: get(&row, 6)?,
        settings,
        hba,
        repmgrd,
    })
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<Row>> {
    client.query(sql, &[]).await.map_err(|e| Error::unavailable("a question was not answered").because(said(&e)))
}

async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(client: &Client, sql: &str) -> Result<T> {
    let row = rows(client, sql).await?.into_iter().next().ok_or_else(|| Error::internal("no row was answered"))?;
    get(&row, 0)
}

fn get<T: for<'a> tokio_postgres::types::FromSql<'a>>(row: &Row, column: usize) -> Result<T> {
    row.try_get(column)
        .map_err(|e| Error::internal(format!("the server answered something odd. column={column}")).because(e))
}

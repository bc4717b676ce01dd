//! Scripts of a user's own that a new cluster runs once: `initdb/*.sql` and `initdb/*.sh`.
//!
//! What is guaranteed, also where the agent or the machine stops in between:
//!
//! - A `.sql` runs in one transaction, which ends with a mark of its own: it has run exactly once.
//! - A `.sql` that cannot be one transaction (it says `-- pgdock: no transaction` in its first line, ends transactions itself,
//!   or connects elsewhere) and a `.sh` are noted before they begin: they never run twice. One that was interrupted, or failed, is told
//!   to a person, and nothing goes on before he has looked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use postgres_protocol::escape::escape_literal;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::{Instance, durable};
use crate::postgres::conf_file::SUPERUSER;
use crate::postgres::session::Session;
use crate::{Error, Result};

/// How long a script may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// How long a question in between may take.
const QUERY_LIMIT: Duration = Duration::from_secs(10);
/// What a script says that is not to run in a transaction.
const NO_TRANSACTION: &str = "-- pgdock: no transaction";

/// No commit of a script may wait for standbys: there are none before it has ended.
const OPTIONS: &str = "-c synchronous_commit=local";

const MARKS: &str = "CREATE SCHEMA IF NOT EXISTS pgdock_initdb;
  CREATE TABLE IF NOT EXISTS pgdock_initdb.ran (name text PRIMARY KEY);";

/// A script of a user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its path below the folder, such as `shared/initdb/10-roles.sql`.
    pub name: String,
    /// What it holds.
    pub text: String,
}

impl Script {
    fn is_sql(&self) -> bool {
        self.name.ends_with(".sql")
    }

    /// Whether all of it happens or nothing.
    fn is_one_transaction(&self) -> bool {
        let ends = ["commit", "begin", "rollback", "abort", "start transaction", "commit work", "begin work"];
        self.is_sql()
            && !self.text.trim_start().starts_with(NO_TRANSACTION)
            && !self.text.lines().map(str::trim).any(|line| {
                let lower = line.to_ascii_lowercase();
                let statement = lower.trim_end_matches(';').trim_end();
                line.ends_with(';') && ends.contains(&statement) || line.starts_with("\\c")
            })
    }
}

/// How far a script got that may run only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Progress {
    Began,
    Done,
}

impl Instance {
    /// Runs scripts, in this order, each of which has not run yet, in the application's database. Only a primary can.
    ///
    /// # Errors
    /// `Invalid` when a `.sql` fails, which has changed nothing then; `NeedsOperator` when one that cannot be repeated failed or
    /// was interrupted. Those before it stay done.
    pub async fn run_scripts(&self, scripts: &[Script], env: &BTreeMap<String, String>) -> Result<()> {
        if scripts.is_empty() {
            return Ok(());
        }
        let session =
            Session::new(&self.inner.layout.run, self.inner.config.port).to_database(&self.inner.config.database);
        session.batch(MARKS, QUERY_LIMIT).await?;
        for script in scripts {
            if script.is_one_transaction() {
                let mark = "SELECT FROM pgdock_initdb.ran WHERE name = $1";
                if session.query(mark, &[(&script.name, Type::TEXT)], QUERY_LIMIT).await?.is_empty() {
                    self.run_in_transaction(script).await?;
                }
            } else {
                self.run_at_most_once(script, env).await?;
            }
        }
        Ok(())
    }

    /// Removes the marks, once nothing asks for them any more.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL refuses or does not answer.
    pub async fn forget_scripts(&self) -> Result<()> {
        let session =
            Session::new(&self.inner.layout.run, self.inner.config.port).to_database(&self.inner.config.database);
        session.batch("DROP SCHEMA IF EXISTS pgdock_initdb CASCADE", QUERY_LIMIT).await?;
        Ok(())
    }

    async fn run_in_transaction(&self, script: &Script) -> Result<()> {
        tracing::info!(script = script.name, "running");
        let mark = format!("INSERT INTO pgdock_initdb.ran VALUES ({});\n", escape_literal(&script.name));
        // A last statement without its semicolon, or a comment, must not swallow the mark.
        let text = format!("{}\n;\n{mark}", script.text);
        self.psql(script, text, true).await.map_err(|e| {
            Error::invalid(format!("a script of a new cluster failed, and changed nothing. script={}", script.name))
                .because(e)
                .hint("correct it: it is tried again")
                .hint(format!("one that cannot run in a transaction says so in its first line: {NO_TRANSACTION}"))
        })
    }

    async fn run_at_most_once(&self, script: &Script, env: &BTreeMap<String, String>) -> Result<()> {
        let file = self.notes();
        let mut notes = self.read_notes()?;
        match notes.get(&script.name) {
            Some(Progress::Done) => return Ok(()),
            Some(Progress::Began) => {
                return Err(Error::needs_operator(format!(
                    "a script of a new cluster failed or was interrupted, and may not run twice. script={}",
                    script.name
                ))
                .hint("see what it did, and what is in postgresql's and the agent's log")
                .hint(format!(
                    "then write \"done\" for it into {}, or take it out there to have it run again",
                    file.display()
                )));
            }
            None => {}
        }
        tracing::info!(script = script.name, "running");
        notes.insert(script.name.clone(), Progress::Began);
        self.write_notes(&notes).await?;
        let ran = if script.is_sql() {
            self.psql(script, script.text.clone(), false).await
        } else {
            self.shell(script, env).await
        };
        ran.map_err(|e| {
            Error::needs_operator(format!("a script of a new cluster failed. script={}", script.name)).because(e).hint(
                format!(
                    "see what it did; then write \"done\" for it into {}, or take it out there to have it run again",
                    file.display()
                ),
            )
        })?;
        notes.insert(script.name.clone(), Progress::Done);
        self.write_notes(&notes).await
    }

    fn notes(&self) -> PathBuf {
        self.inner.layout.home.join("initdb.json")
    }

    fn read_notes(&self) -> Result<BTreeMap<String, Progress>> {
        let file = self.notes();
        let odd = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::needs_operator(format!("the notes of scripts that ran cannot be read. file={}", file.display()))
                .because(e)
        };
        match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| odd(e.into())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(odd(e.into())),
        }
    }

    async fn write_notes(&self, notes: &BTreeMap<String, Progress>) -> Result<()> {
        let text = serde_json::to_vec_pretty(notes)
            .map_err(|e| Error::internal("the notes of scripts cannot be written").because(e))?;
        self.write(&self.notes(), text).await
    }

    async fn psql(&self, script: &Script, text: String, one_transaction: bool) -> Result<()> {
        let file = self.scratch(script);
        self.write(&file, text).await?;
        let config = &self.inner.config;
        let command = self
            .program("psql", LIMIT)
            .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--username", SUPERUSER])
            .arg("--host")
            .arg(&self.inner.layout.run)
            .args(["--port", &config.port.to_string(), "--dbname", &config.database])
            .env("PGOPTIONS", OPTIONS);
        let command = if one_transaction { command.arg("--single-transaction") } else { command };
        let ran = command.arg("--file").arg(&file).run().await;
        durable::remove(&file).await?;
        ran.map(drop)
    }

    async fn shell(&self, script: &Script, env: &BTreeMap<String, String>) -> Result<()> {
        let file = self.scratch(script);
        self.write(&file, script.text.clone()).await?;
        let config = &self.inner.config;
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", config.binaries.dir().display());
        let mut command = super::Command::new("/bin/sh".into(), &config.os_user, &self.inner.layout.home, LIMIT)
            .arg(&file)
            .env("PATH", path)
            .env("PGHOST", &self.inner.layout.run)
            .env("PGPORT", config.port.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", &config.database)
            .env("PGOPTIONS", OPTIONS);
        for (name, value) in env.iter().filter(|(name, _)| *name != "PGDATA") {
            command = command.env(name, value);
        }
        let ran = command.run().await;
        durable::remove(&file).await?;
        ran.map(drop)
    }

    fn scratch(&self, script: &Script) -> PathBuf {
        let kind = if script.is_sql() { "sql" } else { "sh" };
        self.inner.layout.conf_file(&format!("initdb-script.{kind}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_undone_is_told_from_what_cannot() {
        let script =
            |name: &str, text: &str| Script { name: name.to_owned(), text: text.to_owned() }.is_one_transaction();
        assert!(script("a.sql", "create table t (a int);\n-- commit\nselect 'commit;'"));
        assert!(script("a.sql", "do $$ begin\n  perform 1;\nend $$;"));
        for text in [
            "-- pgdock: no transaction\nvacuum;",
            "BEGIN;\nselect 1;\nCOMMIT ;",
            "\\c other\nselect 1;",
            "start transaction;",
        ] {
            assert!(!script("a.sql", text), "{text}");
        }
        assert!(!script("a.sh", "true"));
    }
}

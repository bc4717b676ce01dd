//! The roles and the database that a cluster needs.

use std::fmt::Write as _;
use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::types::Type;

use super::Instance;
use crate::Result;
use crate::postgres::conf_file::{MONITOR_ROLE, REPLICATION_ROLE, REWIND_ROLE, SUPERUSER};

/// How long one step may take.
const LIMIT: Duration = Duration::from_secs(30);

/// What `pg_rewind` needs, and nothing else (PostgreSQL documentation, `pg_rewind`, notes).
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

impl Instance {
    /// Makes the roles of pgdock's, the application's role and database where they are missing, and sets all passwords
    /// and rights. Idempotent. Only a primary can.
    ///
    /// The server gets to see SCRAM verifiers, never a password, so that none ends up in its log.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL refuses or does not answer: what was done until then stays.
    pub async fn ensure_roles(&self) -> Result<()> {
        let (config, upkeep) = (&self.inner.config, &self.inner.upkeep);
        let secrets = &config.secrets;
        let mut sql = String::new();
        role(&mut sql, SUPERUSER, "SUPERUSER", &secrets.superuser);
        own(&mut sql, &secrets.replication, &secrets.rewind, &secrets.monitor);
        if config.owner != SUPERUSER {
            role(&mut sql, &config.owner, "NOREPLICATION", &secrets.app);
        }
        upkeep.batch(&sql, LIMIT).await?;
        let rows = upkeep
            .query("SELECT FROM pg_database WHERE datname = $1", &[(&config.database, Type::TEXT)], LIMIT)
            .await?;
        if rows.is_empty() {
            let create = format!(
                "CREATE DATABASE {} OWNER {}",
                escape_identifier(&config.database),
                escape_identifier(&config.owner)
            );
            upkeep.batch(&create, LIMIT).await?;
        }
        Ok(())
    }
}

/// Makes pgdock's own roles, with their rights.
pub(crate) fn own(sql: &mut String, replication: &SecretString, rewind: &SecretString, monitor: &SecretString) {
    role(sql, REPLICATION_ROLE, "REPLICATION", replication);
    role(sql, REWIND_ROLE, "NOREPLICATION", rewind);
    role(sql, MONITOR_ROLE, "NOREPLICATION", monitor);
    for function in REWIND_FUNCTIONS {
        let _ = writeln!(sql, "GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {REWIND_ROLE};");
    }
    let _ = writeln!(sql, "GRANT pg_monitor TO {MONITOR_ROLE};");
}

/// Makes a role where it is missing, then sets its password and attributes.
pub(crate) fn role(sql: &mut String, name: &str, attributes: &str, password: &SecretString) {
    let verifier = scram_sha_256(password.expose_secret().as_bytes());
    let (literal, name) = (escape_literal(name), escape_identifier(name));
    let create = escape_literal(&format!("CREATE ROLE {name}"));
    let _ = writeln!(
        sql,
        "DO $pgdock$ BEGIN
           IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) THEN EXECUTE {create}; END IF;
         END $pgdock$;
         ALTER ROLE {name} LOGIN {attributes} PASSWORD '{verifier}';"
    );
}

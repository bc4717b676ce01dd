//! Where commits are acknowledged before a standby holds them, although the cluster waits for standbys.

use std::sync::Arc;
use std::time::Duration;

use super::{Instance, observe};
use crate::Result;

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(5);
/// How long the question may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Settings that apply to sessions of others: this one has its own. `ALTER SYSTEM` counts from the next reload on. Whoever
/// waits for less than a standby's disk is told apart by the words for it (`guc_tables.c`, `synchronous_commit_options`).
const QUERY: &str = "
SELECT place || '=' || word FROM (
    SELECT CASE WHEN setrole = 0 AND setdatabase = 0 THEN 'all roles'
                WHEN setrole = 0 THEN 'database ' || quote_ident(d.datname)
                WHEN setdatabase = 0 THEN 'role ' || quote_ident(r.rolname)
                ELSE 'role ' || quote_ident(r.rolname) || ' in database ' || quote_ident(d.datname) END AS place,
           substr(setting, strpos(setting, '=') + 1) AS word
      FROM pg_db_role_setting
      CROSS JOIN unnest(setconfig) AS setting
      LEFT JOIN pg_database d ON d.oid = setdatabase
      LEFT JOIN pg_roles r ON r.oid = setrole
     WHERE split_part(setting, '=', 1) = 'synchronous_commit'
    UNION ALL
    SELECT 'all roles (ALTER SYSTEM)', setting FROM pg_file_settings
     WHERE name = 'synchronous_commit' AND applied AND sourcefile LIKE '%/postgresql.auto.conf') AS lowered
 WHERE lower(word) NOT IN ('on', 'true', 'yes', '1', 'remote_apply') AND place IS NOT NULL
 ORDER BY 1";

impl Instance {
    /// For which roles and databases `synchronous_commit` is lowered, so that their commits wait for no standby's disk: as
    /// `role app=off`, as of a moment ago. `None` before it was looked for. Never waits.
    #[must_use]
    pub fn early_commits(&self) -> Option<Arc<[String]>> {
        self.lately(|m| &mut m.early_commits, EVERY, |this| async move { this.look_for_early_commits().await.ok() })
    }

    async fn look_for_early_commits(&self) -> Result<Arc<[String]>> {
        let rows = self.inner.upkeep.query(QUERY, &[], LIMIT).await?;
        rows.iter().map(|row| observe::get::<String>(row, 0)).collect()
    }
}

//! Whom the server lets in: everybody who may log in, or pgdock and standbys alone.
//!
//! `pg_hba.conf` decides, and PostgreSQL does not tell which version of it is in force. So a parameter of pgdock's own
//! goes with it, in `clients.conf`: the postmaster reads that file first and `pg_hba.conf` right after it. Whoever finds
//! the one in force that was written last knows that the other is.

use std::time::Duration;

use super::{Instance, observe};
use crate::postgres::conf_file::{self, Clients};
use crate::{Error, Result};

/// How long it may take until every client is gone, or until the configuration is in force.
const LIMIT: Duration = Duration::from_secs(10);
/// How long one question in between may take.
const QUERY_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked.
const POLL: Duration = Duration::from_millis(2);

/// Sessions of others than pgdock and standbys. The superuser's over the socket are an operator's.
const CLIENTS: &str = "FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND usename NOT IN ('pgdock_replication', 'pgdock_rewind', 'pgdock_monitor')
    AND NOT (usename = 'postgres' AND client_addr IS NULL)";

impl Instance {
    /// Lets clients in. Where commits wait for standbys, it is proven first that they do.
    ///
    /// # Errors
    /// `Invalid` when PostgreSQL refuses a line of `pg_hba.conf`; `Unavailable` when it does not answer, or does not take
    /// the configuration over in 10 s.
    pub async fn admit_clients(&self) -> Result<()> {
        if self.names_in_file().is_none_or(|names| names.count > 0) {
            self.prove_waiting().await?;
        }
        self.let_in(Clients::Admitted).await
    }

    /// Lets nobody in any more but pgdock and standbys, and ends the sessions of all others.
    ///
    /// # Errors
    /// As [`admit_clients`](Self::admit_clients), and when a session does not end.
    pub(super) async fn keep_clients_out(&self) -> Result<()> {
        self.let_in(Clients::KeptOut).await?;
        let control = &self.inner.control;
        let work = async {
            loop {
                let ended =
                    control.query(&format!("SELECT pg_terminate_backend(pid) {CLIENTS}"), &[], QUERY_LIMIT).await?;
                if ended.is_empty() {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(LIMIT, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!("a client's session does not end. limit={LIMIT:?}"))),
        }
    }

    /// Changes whom the server lets in, and sees that it is in force.
    async fn let_in(&self, clients: Clients) -> Result<()> {
        let control = &self.inner.control;
        self.write_hba(clients).await?;
        let refused = control
            .query("SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL LIMIT 1", &[], QUERY_LIMIT)
            .await?;
        if let Some(row) = refused.first() {
            // PostgreSQL would keep the one before.
            let (line, why) = (observe::get::<i32>(row, 0)?, observe::get::<String>(row, 1)?);
            let path = self.inner.layout.conf_file("pg_hba.conf");
            return Err(Error::invalid(format!(
                "postgresql refuses a line of pg_hba.conf: {why}. key=postgres.hba, path={}, line={line}",
                path.display()
            ))
            .hint("correct `hba` in [postgres], and restart the agent"));
        }
        self.write_clients(clients).await?;
        self.signal_reload().await?;
        let work = async {
            loop {
                // A new session has what the postmaster has, and is taken only after a reload is through.
                control.close().await;
                let rows = control.query("SELECT current_setting('pgdock.clients', true)", &[], QUERY_LIMIT).await?;
                let shown = rows.first().map(|row| observe::get::<Option<String>>(row, 0)).transpose()?.flatten();
                if shown.as_deref() == conf_file::value_of(&conf_file::clients(clients), "pgdock.clients").as_deref() {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(LIMIT, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!("pg_hba.conf is not taken over. limit={LIMIT:?}"))),
        }
    }

    pub(super) async fn write_hba(&self, clients: Clients) -> Result<()> {
        let text = conf_file::hba(&self.user_configuration().hba, clients);
        self.write(&self.inner.layout.conf_file("pg_hba.conf"), text).await
    }

    pub(super) async fn write_clients(&self, clients: Clients) -> Result<()> {
        self.write(&self.inner.layout.conf_file("clients.conf"), conf_file::clients(clients)).await
    }

    /// Whom the files say that it lets in.
    pub(super) fn clients_in_file(&self) -> Clients {
        let text = std::fs::read_to_string(self.inner.layout.conf_file("clients.conf")).unwrap_or_default();
        conf_file::clients_of(&text)
    }
}

//! The user's part of the configuration: the only one that changes while the agent runs.
//!
//! A running PostgreSQL judges the new files before anything rests on them: `pg_file_settings` and `pg_hba_file_rules`
//! read them anew. Where it refuses a line, the files are as before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Instance, InstanceConfig, observe, slots};
use crate::postgres::{conf_file, reserved};
use crate::{Error, Result};

/// How long it may take until a reload is through.
const LIMIT: Duration = Duration::from_secs(10);
/// How long one question in between may take.
const QUERY_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked.
const POLL: Duration = Duration::from_millis(2);

/// What PostgreSQL would not take over. A setting that needs a restart is no fault, whether it is changed or taken out: its
/// value was judged before, by `postgres -C`.
const REFUSED_SETTINGS: &str = "SELECT f.name, f.error FROM pg_file_settings f LEFT JOIN pg_settings s USING (name)
  WHERE f.error IS NOT NULL AND NOT (s.context IS NOT DISTINCT FROM 'postmaster' AND f.error = 'setting could not be applied')
    AND NOT (f.name IS NULL AND f.error LIKE 'parameter \"%\" cannot be changed without restarting the server')
  ORDER BY f.seqno LIMIT 1";
const REFUSED_RULES: &str = "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL LIMIT 1";
/// Of those that wait for a restart, the ones of which a standby must have no less than its primary: whether each gets less. One
/// that was changed and changed back is said to wait, too.
const LIMITS_THAT_CHANGE: &str = "SELECT s.name, coalesce(f.setting, s.boot_val)::bigint < s.setting::bigint
  FROM pg_settings s LEFT JOIN LATERAL (
    SELECT setting FROM pg_file_settings WHERE lower(name) = lower(s.name) ORDER BY seqno DESC LIMIT 1) f ON true
  WHERE s.pending_restart AND s.name IN ('max_connections', 'max_worker_processes', 'max_wal_senders',
    'max_prepared_transactions', 'max_locks_per_transaction')
    AND coalesce(f.setting, s.boot_val)::bigint <> s.setting::bigint ORDER BY s.name";
const WAITING: &str = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name";

/// The user's part of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserConfiguration {
    /// Settings for `postgresql.conf`.
    pub settings: BTreeMap<String, String>,
    /// Lines for `pg_hba.conf`.
    pub hba: Vec<String>,
}

/// The same, and what followed from it at the last start.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) user: Arc<UserConfiguration>,
    pub(super) keeps_failover_slots: bool,
}

impl InForce {
    pub(super) fn of(config: &InstanceConfig) -> Result<Self> {
        let user = UserConfiguration { settings: config.settings.clone(), hba: config.hba.clone() };
        user.check(config.archive_command.is_some())?;
        let keeps_failover_slots = user.keeps_failover_slots(config.binaries.version());
        Ok(Self { user: Arc::new(user), keeps_failover_slots })
    }
}

impl UserConfiguration {
    fn check(&self, archives: bool) -> Result<()> {
        conf_file::check_settings(&self.settings, archives)?;
        conf_file::check_hba(&self.hba)
    }

    fn keeps_failover_slots(&self, version: u32) -> bool {
        let value =
            |name: &str| self.settings.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim());
        version >= slots::FAILOVER_SLOTS
            && value("wal_level").is_some_and(|v| v.eq_ignore_ascii_case("logical"))
            && !value("hot_standby_feedback").is_some_and(reserved::is_off)
    }
}

impl Instance {
    /// The user's part of the configuration.
    pub(crate) fn user_configuration(&self) -> Arc<UserConfiguration> {
        Arc::clone(&self.in_force().user)
    }

    /// Has the next start, and whatever writes the files before, use another one.
    ///
    /// # Errors
    /// `Invalid` when it is not acceptable.
    pub fn set_user_configuration(&self, user: UserConfiguration) -> Result<()> {
        user.check(self.inner.config.archive_command.is_some())?;
        self.in_force().user = Arc::new(user);
        Ok(())
    }

    /// What depends on it, but cannot change while a server runs, follows it: a server is about to start.
    pub(super) fn take_over_configuration(&self) {
        let mut in_force = self.in_force();
        in_force.keeps_failover_slots = in_force.user.keeps_failover_slots(self.inner.config.binaries.version());
    }

    /// Whether a postmaster runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.inner.family.postmaster().is_some()
    }

    /// Changes the user's part of the configuration of a running server. PostgreSQL judges the files, then `commit` is
    /// called, then they are taken over. Answers with the settings that wait for a restart.
    ///
    /// # Errors
    /// `Invalid` when PostgreSQL refuses a line, `Unavailable` or `NotReady` when it does not answer, and what `commit`
    /// returns: all of these leave the files as they were. `Unavailable` with an unknown outcome when it was told to take
    /// them over, and was not seen to.
    pub async fn reconfigure(
        &self,
        user: UserConfiguration,
        commit: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Vec<String>> {
        let before = self.user_configuration();
        self.set_user_configuration(user)?;
        let staged = async {
            self.write_configuration().await?;
            self.judge_files().await?;
            super::durable::blocking(commit).await
        };
        // Whoever gives this up has the files written anew by the next start or reload.
        if let Err(error) = staged.await {
            self.in_force().user = before;
            self.write_configuration().await?;
            return Err(error);
        }
        self.reload_and_wait().await.map_err(Error::outcome_unknown)?;
        self.waiting_for_restart().await
    }

    /// Asks PostgreSQL what it thinks of the files.
    async fn judge_files(&self) -> Result<()> {
        let control = &self.inner.control;
        if let Some(row) = control.query(REFUSED_SETTINGS, &[], QUERY_LIMIT).await?.first() {
            let (name, why) = (observe::get::<Option<String>>(row, 0)?, observe::get::<String>(row, 1)?);
            let name = name.unwrap_or_default();
            return Err(Error::invalid(format!("postgresql refuses a setting: {why}. key={name}"))
                .hint("correct it in postgresql.conf of the node or of shared/, or in [postgres.settings]"));
        }
        if let Some(row) = control.query(REFUSED_RULES, &[], QUERY_LIMIT).await?.first() {
            let (line, why) = (observe::get::<i32>(row, 0)?, observe::get::<String>(row, 1)?);
            let path = self.inner.layout.conf_file("pg_hba.conf");
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let at = usize::try_from(line).unwrap_or_default().saturating_sub(1);
            // Options of a method may hold a password: as many words as tell the line.
            let words: Vec<_> = text.lines().nth(at).unwrap_or_default().split_whitespace().take(4).collect();
            return Err(Error::invalid(format!(
                "postgresql refuses a line of pg_hba.conf: {why}. line={line}, begins={}",
                words.join(" ")
            ))
            .hint("correct it in pg_hba.conf of the node or of shared/, or in `hba` of [postgres]"));
        }
        Ok(())
    }

    /// Has every process read the configuration, and waits until the postmaster has: a new session shows it.
    async fn reload_and_wait(&self) -> Result<()> {
        let control = &self.inner.control;
        let loaded_at = async || -> Result<String> {
            control.close().await;
            let rows = control.query("SELECT pg_conf_load_time()::text", &[], QUERY_LIMIT).await?;
            rows.first().map_or_else(|| Err(Error::internal("postgresql gave no row")), |row| observe::get(row, 0))
        };
        let before = loaded_at().await?;
        self.signal_reload().await?;
        let work = async {
            while loaded_at().await? == before {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        match tokio::time::timeout(LIMIT, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!("the configuration is not taken over. limit={LIMIT:?}"))),
        }
    }

    /// Of the settings that wait for a restart, those that bear on the order of restarts: each with whether it is lowered.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL does not answer.
    pub(crate) async fn limits_that_change(&self) -> Result<Vec<(String, bool)>> {
        let rows = self.inner.control.query(LIMITS_THAT_CHANGE, &[], QUERY_LIMIT).await?;
        rows.iter().map(|row| Ok((observe::get(row, 0)?, observe::get(row, 1)?))).collect()
    }

    /// The settings that are in the files and not in force before a restart.
    async fn waiting_for_restart(&self) -> Result<Vec<String>> {
        let rows = self.inner.control.query(WAITING, &[], QUERY_LIMIT).await?;
        rows.iter().map(|row| observe::get(row, 0)).collect()
    }
}

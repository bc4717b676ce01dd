//! [`Archiving`]: how an agent brings its node's WAL into the archive: what it tells the archiver of its node, the socket
//! that PostgreSQL asks, and what keeps PostgreSQL asking.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::api::Published;
use crate::backup::Repository;
use crate::backup::wal::archiver::Open;
use crate::backup::wal::{Archiver, Situation, Standing, WalStore, client, socket};
use crate::clock::Clock;
use crate::postgres::instance::{Instance, Layout};
use crate::postgres::session::Session;
use crate::settings::WalMode;
use crate::{Result, Role, Settings};

/// How often it is looked whether PostgreSQL asks, and asks at all.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long one question to PostgreSQL may take.
const QUERY_LIMIT: Duration = Duration::from_secs(2);

/// The archiver of a node, and what it needs of the agent.
#[derive(Debug)]
pub(crate) struct Archiving {
    pub(crate) archiver: Arc<Archiver>,
    instance: Arc<Instance>,
    session: Session,
    /// How often what is flushed is stored, where that is wanted.
    streams: Option<Duration>,
    /// Why PostgreSQL does not ask at all.
    not_in_force: Mutex<Option<String>>,
    /// That the archive contradicts this node was told already.
    told: AtomicBool,
}

/// Where PostgreSQL asks.
pub(crate) fn socket_path(layout: &Layout) -> PathBuf {
    layout.run.join("wal.sock")
}

/// `archive_command` for a node, where its WAL is archived.
pub(crate) fn command(settings: &Settings, layout: &Layout, program: &Path) -> Option<String> {
    settings.backup.as_ref().map(|_| client::archive_command(program, &socket_path(layout)))
}

/// The archive that the settings name.
#[derive(Debug)]
struct Named(Arc<Settings>);

#[async_trait]
impl Open for Named {
    async fn open(&self, system: u64) -> Result<WalStore> {
        let repository = Repository::open(&self.0).await?;
        Ok(WalStore::new(repository.sink, repository.codec, system))
    }
}

impl Archiving {
    /// For a node whose settings name an archive.
    pub(crate) fn new(
        settings: &Arc<Settings>,
        instance: &Arc<Instance>,
        published: watch::Receiver<Published>,
        clock: Arc<dyn Clock>,
    ) -> Option<Arc<Self>> {
        let backup = settings.backup.as_ref()?;
        let streams = (backup.wal == WalMode::Stream).then_some(backup.wal_every);
        let named = Named(Arc::clone(settings));
        let situation = move || situation(&published.borrow());
        let archiver = Archiver::new(&instance.layout().data, named, situation, instance.stopping(), clock);
        Some(Arc::new(Self {
            archiver: Arc::new(archiver),
            instance: Arc::clone(instance),
            session: Session::new(&instance.layout().run, instance.config().port),
            streams,
            not_in_force: Mutex::default(),
            told: AtomicBool::new(false),
        }))
    }

    /// Works beside the agent's loop until that has ended: PostgreSQL is answered while it stops, too.
    pub(crate) fn spawn(self: &Arc<Self>, end: &CancellationToken) -> Result<()> {
        let listener = socket::listen(&socket_path(self.instance.layout()), &self.instance.config().os_user)?;
        let service = socket::Service { archiver: Some(Arc::clone(&self.archiver)), fetcher: None };
        tokio::spawn(socket::serve(listener, service, end.clone()));
        let (archiver, until) = (Arc::clone(&self.archiver), end.clone());
        tokio::spawn(async move { archiver.run(until).await });
        if let Some(every) = self.streams {
            let (archiver, until) = (Arc::clone(&self.archiver), end.clone());
            tokio::spawn(async move { archiver.stream(every, until).await });
        }
        let (this, until) = (Arc::clone(self), end.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = until.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => this.look().await,
                }
            }
        });
        Ok(())
    }

    /// What a person should know.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.archiver.problems();
        problems.extend(self.not_in_force.lock().unwrap_or_else(PoisonError::into_inner).clone());
        problems
    }

    /// Whether the archive was just found to hold other WAL than this node: perhaps another one leads.
    pub(crate) fn was_contradicted(&self) -> bool {
        let now = self.archiver.is_contradicted();
        now && !self.told.swap(now, Ordering::Relaxed) || {
            self.told.store(now, Ordering::Relaxed);
            false
        }
    }

    async fn look(&self) {
        let running = self.session.query("SELECT current_setting('archive_mode')", &[], QUERY_LIMIT).await;
        // What does not run, or does not answer, is told by others.
        let Ok(rows) = running else { return };
        let mode: String = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default();
        let problem = (mode != "always").then(|| {
            format!(
                "PostgreSQL archives no WAL before it is restarted. archive_mode={mode}; `pgdock restart` does that"
            )
        });
        *self.not_in_force.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        if self.archiver.sleeps(LOOK_EVERY)
            && let Err(error) = self.wake_archiver().await
        {
            tracing::debug!(error = %error.chain(), "PostgreSQL's archiver could not be woken");
        }
    }

    /// PostgreSQL's archiver gives up for a minute after three failures. A signal has it look again.
    async fn wake_archiver(&self) -> Result<()> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'";
        let rows = self.session.query(sql, &[], QUERY_LIMIT).await?;
        if let Some(pid) = rows.first().and_then(|row| row.try_get::<_, i32>(0).ok()).and_then(Pid::from_raw) {
            // To it this means: read the configuration again, which it does anyway.
            let _ = kill_process(pid, Signal::HUP);
        }
        Ok(())
    }
}

/// What the archiver is told of its node.
fn situation(said: &Published) -> Situation {
    let report = &said.report;
    let leader = said.record.as_ref().and_then(|record| record.leader.as_ref());
    let leads = report.role == Role::Primary && leader == Some(&report.node);
    // A leader knows of its own promotion before the document tells of it.
    let of_document = said.record.as_ref().map(|record| &record.history).filter(|history| history.timeline.0 > 0);
    let history = if leads { report.history.clone() } else { of_document.cloned() };
    Situation { standing: Standing { leads, history }, system: report.system_identifier, flushed: report.flushed }
}

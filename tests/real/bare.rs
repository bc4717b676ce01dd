//! [`Bare`]: two PostgreSQL without any agent, as the floor that failovers are measured against.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgdock_core::clock::SystemClock;
use pgdock_core::postgres::command::Command;
use pgdock_core::postgres::conninfo::Conninfo;
use pgdock_core::postgres::instance::{Instance, InstanceConfig};
use pgdock_core::postgres::os_user::OsUser;
use pgdock_core::postgres::session::Session;
use pgdock_core::postgres::version::Binaries;
use pgdock_core::scaffold::Scaffold;
use pgdock_core::secrets::Secrets;
use pgdock_core::view::{Names, Postgres};
use pgdock_core::{Error, NodeName, Result, Role, Settings};

use super::writer::{Route, Writer};

/// A primary and a standby, and nobody who watches them.
#[derive(Debug)]
pub struct Bare {
    settings: Settings,
    secrets: Secrets,
    primary: Instance,
    standby: Instance,
    _dir: tempfile::TempDir,
}

impl Bare {
    /// Starts both, on 127.0.0.N and the address after it.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub async fn up(first: u8) -> Result<Self> {
        let dir = folder("pgdock-bare-")?;
        let nodes = ["n1", "n2"].into_iter().zip(first..);
        let nodes = nodes.map(|(n, i)| (NodeName::new(n).expect("a valid name"), format!("127.0.0.{i}")));
        let mut scaffold = Scaffold::new("bare", nodes);
        scaffold.postgres_port = 54320;
        scaffold.write(dir.path(), &SystemClock)?;
        let settings = Settings::from_path(dir.path())?;
        let secrets = Secrets::load(&settings.secrets())?;
        let mut instances = Vec::new();
        for name in settings.nodes.keys() {
            instances.push(instance(&settings, &secrets, name)?);
        }
        let (Some(standby), Some(primary)) = (instances.pop(), instances.pop()) else {
            return Err(Error::internal("there are two nodes"));
        };
        standby.prepare().await?;
        make_primary(&primary).await?;
        let mut this = Self { settings, secrets, primary, standby, _dir: dir };
        this.follow_anew().await?;
        Ok(this)
    }

    /// The PostgreSQL that is primary.
    #[must_use]
    pub fn primary(&self) -> &Instance {
        &self.primary
    }

    /// Its standby.
    #[must_use]
    pub fn standby(&self) -> &Instance {
        &self.standby
    }

    /// How a client reaches the primary.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub fn route(&self) -> Result<Route> {
        Route::to_primary(&self.settings, &self.secrets)
    }

    /// A session of the superuser's on one of the two, over its socket.
    #[must_use]
    pub fn session(instance: &Instance) -> Session {
        Session::new(&instance.layout().run, instance.config().port)
    }

    /// Makes the standby a fresh copy of the primary that streams from it.
    async fn follow_anew(&mut self) -> Result<()> {
        let (primary, standby) = (&self.primary, &self.standby);
        let source = primary.config();
        standby.fence().await?;
        standby.copy_from(&source.address, source.port, None, Duration::from_secs(120), |_| {}).await?;
        primary.sync_slots(&std::iter::once(standby.config().node.slot()).collect()).await?;
        standby.start(Role::Standby, None).await?;
        until(standby, |p| matches!(p, Postgres::Standby(_))).await?;
        standby.attach(&source.node).await?;
        until(standby, |p| p.as_standby().is_some_and(|s| s.receiving)).await?;
        standby.warm_up().await
    }

    /// Kills the primary and promotes the standby at once, while a client writes. Returns the longest pause
    /// between two acknowledgements, and makes the old primary the standby of the new one.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub async fn promote_by_hand(&mut self, first: i64) -> Result<Duration> {
        let writer = Writer::start(Route::to_primary(&self.settings, &self.secrets)?, first).await?;
        writer.goes_on(Duration::from_secs(10)).await?;
        let begin = Instant::now();
        self.primary.fence().await?;
        self.standby.detach().await?;
        self.standby.promote(&Names::none(), None).await?;
        writer.goes_on(Duration::from_secs(10)).await?;
        writer.goes_on(Duration::from_secs(10)).await?;
        let gap = writer.longest_gap(begin);
        writer.stop().await;
        std::mem::swap(&mut self.primary, &mut self.standby);
        self.follow_anew().await?;
        Ok(gap)
    }
}

/// How long a copy may take.
const COPY_LIMIT: Duration = Duration::from_secs(3600);

impl Bare {
    /// Makes about so much data on the primary.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub async fn fill(&self, megabytes: u32) -> Result<()> {
        let client = Route::to_primary(&self.settings, &self.secrets)?.connect().await?;
        // A row a page, and none of it compressed.
        let rows = u64::from(megabytes) * 128;
        let sql = format!(
            "CREATE TABLE filling (data text); ALTER TABLE filling ALTER COLUMN data SET STORAGE PLAIN;
             INSERT INTO filling SELECT repeat(md5(n::text), 240) FROM generate_series(1, {rows}) AS n"
        );
        client.batch_execute(&sql).await.map_err(|e| Error::unavailable("the table cannot be filled").because(e))
    }

    /// Copies the primary as an agent does, and returns how long that took. The standby is stopped for it.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub async fn copy_as_an_agent(&mut self) -> Result<Duration> {
        let (primary, standby) = (self.primary.config(), &self.standby);
        standby.fence().await?;
        let begin = Instant::now();
        standby.copy_from(&primary.address, primary.port, None, COPY_LIMIT, |_| {}).await?;
        let took = begin.elapsed();
        // The one before.
        remove(&standby.layout().home.join("data.old-1"))?;
        Ok(took)
    }

    /// Copies the primary by `pg_basebackup` with the same options, and returns how long that took.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub async fn copy_by_pg_basebackup(&self) -> Result<Duration> {
        let (primary, config, layout) = (self.primary.config(), self.standby.config(), self.standby.layout());
        let source = Conninfo::new()
            .set("host", &primary.address)
            .set("port", primary.port)
            .set("user", "pgdock_replication")
            .set_path("passfile", &layout.passfile())
            .set("sslmode", "verify-ca")
            .set_path("sslrootcert", &layout.ca());
        let to = layout.home.join("data.alone");
        let program = config.binaries.program("pg_basebackup");
        let begin = Instant::now();
        Command::new(program, &config.os_user, &layout.home, COPY_LIMIT)
            .arg("-D")
            .arg(&to)
            .args(["-X", "stream", "--checkpoint=fast", "--progress", "--no-password", "-d"])
            .arg(source.to_string())
            .run()
            .await?;
        let took = begin.elapsed();
        remove(&to)?;
        Ok(took)
    }
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::internal("cannot remove a copy").because(e)),
        _ => Ok(()),
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        for node in self.settings.nodes.values() {
            pgdock_core::agent::deadman::kill_all(&node.home.join("data"));
        }
    }
}

/// A folder that PostgreSQL's user can reach, too.
///
/// # Errors
/// Where it cannot be made.
pub fn folder(prefix: &str) -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let io = |e: std::io::Error| Error::internal("cannot prepare a folder for the test").because(e);
    let dir = tempfile::Builder::new().prefix(prefix).tempdir_in("/tmp").map_err(io)?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).map_err(io)?;
    Ok(dir)
}

/// Makes a data directory and a primary of it, with its roles and the application's database.
pub(crate) async fn make_primary(instance: &Instance) -> Result<()> {
    instance.prepare().await?;
    instance.initdb().await?;
    instance.start(Role::Primary, None).await?;
    until(instance, |p| matches!(p, Postgres::Primary(_))).await?;
    instance.ensure_roles().await?;
    instance.admit_clients().await
}

/// The PostgreSQL of a node.
pub(crate) fn instance(settings: &Settings, secrets: &Secrets, node: &NodeName) -> Result<Instance> {
    let of = settings.node(node)?;
    let certificate = secrets.certificate(node)?;
    let config = InstanceConfig {
        home: of.home.clone(),
        binaries: Binaries::find(None, None, std::env::var_os("PATH").as_deref())?,
        os_user: OsUser::resolve(&settings.postgres.user)?,
        cluster: settings.cluster.name.clone(),
        node: node.clone(),
        address: of.address.clone(),
        port: of.postgres_port,
        settings: settings.postgres.settings.clone(),
        hba: settings.postgres.hba.clone(),
        members: settings.nodes.iter().map(|(n, s)| (n.clone(), (s.address.clone(), s.postgres_port))).collect(),
        secrets: pgdock_core::postgres::instance::Secrets {
            superuser: secrets.superuser.clone(),
            replication: secrets.replication.clone(),
            rewind: secrets.rewind.clone(),
            monitor: secrets.monitor.clone(),
            app: secrets.app.clone(),
            ca_certificate: secrets.ca_pem.clone(),
            certificate: certificate.certificate_pem,
            key: certificate.key_pem,
        },
        database: settings.postgres.database.clone(),
        owner: settings.postgres.owner.clone(),
        archive_command: None,
    };
    Instance::new(config, Arc::new(SystemClock))
}

async fn until(instance: &Instance, condition: impl Fn(&Postgres) -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if instance.observe().await.is_ok_and(|seen| condition(&seen.postgres)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::unavailable("PostgreSQL does not get where it should"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

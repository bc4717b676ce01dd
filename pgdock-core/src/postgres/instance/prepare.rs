//! Everything around the data directory: folders, secrets, configuration.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::{Instance, durable};
use crate::postgres::conf_file::{self, Clients, REPLICATION_ROLE, REWIND_ROLE};
use crate::postgres::os_user::OsUser;
use crate::view::Names;
use crate::{Error, Result};

impl Instance {
    /// Makes the folders and writes secrets and configuration, all owned by PostgreSQL's user. Leaves the
    /// data directory, the upstream and the names as they are. Idempotent; call it before anything else, and again
    /// when the settings have changed.
    ///
    /// # Errors
    /// `Invalid` when PostgreSQL's user cannot reach the home, `Internal` when a file cannot be written.
    pub async fn prepare(&self) -> Result<()> {
        let (config, layout) = (&self.inner.config, &self.inner.layout);
        let home = layout.home.clone();
        let (folders, owner) = (
            [&layout.home, &layout.conf, &layout.secrets, &layout.logs, &layout.diverged].map(Clone::clone),
            config.os_user.clone(),
        );
        let run = layout.run.clone();
        durable::blocking(move || {
            if let Some(parent) = home.parent() {
                // Others must be able to pass through, the user of PostgreSQL among them.
                std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(|e| {
                    Error::internal(format!("cannot make a folder. path={}", parent.display())).because(e)
                })?;
            }
            for folder in &folders {
                durable::folder(folder, &owner)?;
            }
            socket_folder(&run, &home, &owner)
        })
        .await?;
        // Also shows that the user reaches the home.
        self.program("postgres", Duration::from_secs(10)).arg("--version").run().await?;

        let secrets = &config.secrets;
        let passfile =
            conf_file::passfile(&[(REPLICATION_ROLE, &secrets.replication), (REWIND_ROLE, &secrets.rewind)])?;
        self.write(&layout.passfile(), passfile.expose_secret()).await?;
        self.write(&layout.ca(), secrets.ca_certificate.as_str()).await?;
        self.write(&layout.secrets.join("server.crt"), secrets.certificate.as_str()).await?;
        self.write(&layout.secrets.join("server.key"), secrets.key.expose_secret()).await?;
        durable::remove(&layout.secrets.join("superuser.pw")).await?;
        self.write_configuration().await
    }

    /// Writes the files that PostgreSQL reads, and those that it includes where there are none yet.
    pub(super) async fn write_configuration(&self) -> Result<()> {
        let (config, layout) = (&self.inner.config, &self.inner.layout);
        let user = self.user_configuration();
        let main = conf_file::Main {
            user: &user.settings,
            address: &config.address,
            port: config.port,
            socket_dir: &layout.run,
            cluster_name: &self.inner.family.cluster_name,
            cert: &layout.secrets.join("server.crt"),
            key: &layout.secrets.join("server.key"),
            failover_slots: self.keeps_failover_slots(),
            archive_command: config.archive_command.as_deref(),
        }
        .render();
        let me = OsUser::current()?;
        self.write(&layout.conf_file("postgresql.conf"), main).await?;
        self.write_hba(self.clients_in_file()).await?;
        self.write(&layout.conf_file("pg_ident.conf"), conf_file::ident(&[&config.os_user.name, &me.name])).await?;
        if !layout.conf_file("clients.conf").exists() {
            self.write_clients(Clients::Admitted).await?;
        }
        if !layout.conf_file("upstream.conf").exists() {
            self.write_upstream(None).await?;
        }
        if !layout.conf_file("names.conf").exists() {
            self.write_names("", &Names::none()).await?;
        }
        self.strip_auto_conf().await
    }

    /// Takes out of `postgresql.auto.conf`, which PostgreSQL reads last, what only pgdock may set.
    pub(super) async fn strip_auto_conf(&self) -> Result<()> {
        let path = self.inner.layout.data.join("postgresql.auto.conf");
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
        match conf_file::strip_auto_conf(&text, self.inner.config.archive_command.is_some()) {
            None => Ok(()),
            Some(text) => self.write(&path, text).await,
        }
    }
}

/// Makes the folder of the socket. One outside the home lies where anybody can make folders.
fn socket_folder(run: &Path, home: &Path, owner: &OsUser) -> Result<()> {
    if let Ok(found) = run.symlink_metadata()
        && !run.starts_with(home)
        && (!found.is_dir() || found.uid() != owner.uid)
    {
        return Err(Error::needs_operator(format!(
            "the folder for the socket is somebody else's. path={}",
            run.display()
        ))
        .hint("remove it, or choose a shorter path for the node's home"));
    }
    durable::folder(run, owner)
}

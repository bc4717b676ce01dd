//! [`Stage`]: the folder, the ports and the processes of a demo.

use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pgdock_core::clock::{Clock as _, Moment, SystemClock};
use pgdock_core::cluster::plan;
use pgdock_core::postgres::version::Binaries;
use pgdock_core::scaffold::Scaffold;
use pgdock_core::settings::NodeSettings;
use pgdock_core::{Cluster, Error, NodeName, Result, Settings};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::commands::demo::DemoArgs;
use crate::commands::init::local_nodes;
use crate::context::Context;
use crate::output::progress::during;
use crate::{local, output};

/// The address that follows the primary. The example script only notes where it is.
pub(super) const FAILOVER_ADDRESS: &str = "127.0.0.10";

/// How a demo ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All acts succeeded.
    Done,
    /// One failed.
    Failed,
    /// A person has had enough.
    Interrupted,
}

/// Where a demo takes place.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) context: Context,
    pub(super) cluster: Cluster,
    pub(super) begun: Moment,
    dir: PathBuf,
    /// Removed when this is dropped.
    temporary: Option<TempDir>,
}

impl Stage {
    /// Checks that all is there, and makes the folder as `pgdock init` does. Nothing runs yet.
    pub(super) async fn set(context: &Context, args: &DemoArgs) -> Result<Self> {
        Binaries::find(None, None, std::env::var_os("PATH").as_deref())?;
        for (_, address) in local_nodes() {
            free(&address, args.postgres_port, "--postgres-port")?;
            free(&address, args.agent_port, "--agent-port")?;
        }
        let (dir, temporary) = folder(args.dir.as_deref())?;
        let scaffold = Scaffold {
            postgres_port: args.postgres_port,
            agent_port: args.agent_port,
            failover_address: Some(FAILOVER_ADDRESS.to_owned()),
            ..Scaffold::new("demo", local_nodes())
        };
        scaffold.write(&dir, &SystemClock)?;
        add_backup(&dir)?;
        let context = context.at(&dir);
        let cluster = context.cluster().await?;
        Ok(Self { context, cluster, begun: SystemClock.now(), dir, temporary })
    }

    /// Where all of it lies.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn settings(&self) -> &Settings {
        self.cluster.settings()
    }

    pub(super) fn node(&self, name: &NodeName) -> Result<&NodeSettings> {
        self.settings().node(name)
    }

    pub(super) fn nodes(&self) -> Vec<NodeName> {
        self.settings().nodes.keys().cloned().collect()
    }

    /// What the failover script has noted: where the address points, and each of its runs.
    pub(super) fn failover_notes(&self) -> (Option<String>, Vec<String>) {
        let folder = self.dir.join("shared").join("failover");
        let at = std::fs::read_to_string(folder.join("failover.state")).ok().map(|text| text.trim().to_owned());
        let log = std::fs::read_to_string(folder.join("failover.log")).unwrap_or_default();
        (at, log.lines().map(ToOwned::to_owned).collect())
    }

    /// Leaves it all up, and says how to use it.
    pub(super) fn keep(self) -> Result<()> {
        let dir = self.dir.display().to_string();
        let program = std::env::current_exe().map_or("pgdock".to_owned(), |path| path.display().to_string());
        if let Some(temporary) = self.temporary {
            let _ = temporary.keep();
        }
        // The password goes through the environment: everybody may read the arguments of a program.
        output::data(&format!(
            "\nThe cluster is left up. To use it:\n\n\
             \u{20}   export PGDOCK_CONFIG={dir}\n\
             \u{20}   {program} status --watch\n\
             \u{20}   PGPASSWORD=\"$(cat {dir}/secrets/app.password)\" psql \"$({program} dsn)\"\n\n\
             To end it: {program} down && rm -r {dir}"
        ))
    }

    /// Ends all that runs: in order where all went well, at once otherwise. After a failure the folder is
    /// kept, to look into the logs.
    pub(super) async fn clear(self, ending: Ending) -> Result<()> {
        let in_order = if ending == Ending::Done { self.take_down().await } else { Ok(()) };
        let folder = self.dir.display().to_string();
        // Agents first: they would start again what is killed.
        kill(&local::helpers(&folder, "agent"));
        let by_force = local::take_down_by_force(self.settings()).await;
        // There is nothing left that a deadman could kill.
        kill(&local::helpers(&folder, "deadman"));
        if ending == Ending::Failed
            && let Some(temporary) = self.temporary
        {
            output::note(&format!("the folder is kept, with the logs of each node: {}", temporary.keep().display()));
        }
        in_order.and(by_force)
    }

    async fn take_down(&self) -> Result<()> {
        let nodes = self.nodes();
        let plan = plan::down(&self.cluster.status().await?, &nodes, &nodes, false)?;
        during("taking it down", async |progress| local::take_down(&self.cluster, &plan, progress).await).await
    }
}

/// Has backups and WAL kept in a folder beside the nodes. Elsewhere it would be a bucket.
fn add_backup(dir: &Path) -> Result<()> {
    let file = dir.join("cluster.toml");
    let section = "\n[backup]\nurl = \"file:backups\"\nwal = \"stream\"\nwal_every = \"200ms\"\n";
    let added = std::fs::read_to_string(&file).and_then(|text| std::fs::write(&file, text + section));
    added.map_err(|e| Error::unavailable(format!("cannot write the settings. file={}", file.display())).because(e))
}

fn kill(processes: &[Pid]) {
    for pid in processes {
        // One that has just ended is as good as killed.
        let _ = kill_process(*pid, Signal::KILL);
    }
}

/// Sees that nobody listens on a port.
fn free(address: &str, port: u16, option: &str) -> Result<()> {
    let bound = (address, port).to_socket_addrs().and_then(|mut all| match all.next() {
        Some(at) => TcpListener::bind(at),
        None => Err(ErrorKind::AddrNotAvailable.into()),
    });
    match bound {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            Err(Error::unavailable(format!("the port is taken. address={address}, port={port}"))
                .hint(format!("stop the program that listens there, or choose another port: `{option} N`")))
        }
        Err(e) => Err(Error::unavailable(format!("the demo cannot listen. address={address}, port={port}"))
            .because(e)
            .hint(format!("it needs the loopback addresses 127.0.0.11 to 127.0.0.13; `{option} N` changes the port"))),
    }
}

fn folder(named: Option<&Path>) -> Result<(PathBuf, Option<TempDir>)> {
    let failed = |e: std::io::Error| Error::invalid("cannot make a folder for the demo").because(e);
    if let Some(dir) = named {
        std::fs::create_dir_all(dir).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        if std::fs::read_dir(&dir).map_err(failed)?.next().is_some() {
            return Err(Error::invalid(format!("the folder is not empty. dir={}", dir.display()))
                .hint("the demo begins with a new cluster: name another folder, or leave out `--dir`"));
        }
        return Ok((dir, None));
    }
    let temporary = tempfile::Builder::new().prefix("pgdock-demo-").tempdir().map_err(failed)?;
    // PostgreSQL's user must get through to its own folder; what is secret in it has a mode of its own.
    std::fs::set_permissions(temporary.path(), std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    Ok((temporary.path().canonicalize().map_err(failed)?, Some(temporary)))
}

//! [`Place`]: a node's machine while its data directory is handed from one program to the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::executor::{Command, ExecutorExt as _, Exit};
use crate::{Error, Executor, NodeName, Result};

/// How long PostgreSQL may take to shut down in order. It sends its standbys all WAL first.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// Looks, and changes nothing.
const LOOK: &str = include_str!("place/look.sh");
/// Stops PostgreSQL, keeps its own files aside, and moves the data directory.
const TAKE: &str = include_str!("place/take.sh");

/// A node's machine.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node.
    pub node: NodeName,
    /// What runs commands there.
    pub executor: Arc<dyn Executor>,
    /// Where the data directory was.
    pub data_directory: String,
    /// The node's home, which gets it.
    pub home: PathBuf,
}

/// How things stand there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stands {
    /// The data directory is in the home already.
    pub taken: bool,
    /// It is where it was, and PostgreSQL runs in it.
    pub running: bool,
    /// Whose it is, a user of the operating system.
    pub owner: Option<String>,
    /// The processes of repmgrd on the machine.
    pub repmgrd: Vec<i32>,
    /// What keeps it from being moved.
    pub obstacle: Option<String>,
}

impl Place {
    /// How things stand.
    ///
    /// # Errors
    /// `Unavailable` when the machine does not answer.
    pub async fn look(&self) -> Result<Stands> {
        let said = self.executor.run_checked(&self.script(LOOK)).await?.text();
        Ok(self.read(&said))
    }

    /// Stops PostgreSQL in order, if it runs, and moves its data directory into the home. `postgresql.auto.conf` and
    /// the configuration in it are kept in `HOME/before-pgdock`; what `ALTER SYSTEM` had set is in the settings by now.
    /// Called again, it goes on where it was.
    ///
    /// # Errors
    /// `NeedsOperator` when repmgrd runs, or something is in the way; `Unavailable` when PostgreSQL does not stop.
    pub async fn take(&self) -> Result<()> {
        let output = self.executor.output(&self.script(TAKE).timeout(STOP_LIMIT + Duration::from_secs(30))).await?;
        if output.exit.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let error = format!("the data directory was not taken over: {said}. node={}", self.node);
        Err(match output.exit {
            Exit::Code(3) => {
                Error::unavailable(error).hint("end its sessions, then run `pgdock adopt` again: it goes on")
            }
            _ => Error::needs_operator(error).hint("see to it, then run `pgdock adopt` again: it goes on"),
        })
    }

    fn script(&self, text: &str) -> Command {
        Command::shell(text)
            .env("DATA", self.data_directory.as_str())
            .env("HOME_DIR", self.home.display().to_string())
            .env("LIMIT", STOP_LIMIT.as_secs().to_string())
    }

    fn read(&self, said: &str) -> Stands {
        let mut stands = Stands::default();
        for line in said.lines() {
            match line.split_once('=') {
                Some(("stands", "taken")) => stands.taken = true,
                Some(("stands", "running")) => stands.running = true,
                Some(("owner", owner)) => stands.owner = Some(owner.to_owned()),
                Some(("repmgrd", pid)) => stands.repmgrd.extend(pid.parse::<i32>()),
                Some(("obstacle", what)) => {
                    let values =
                        format!("node={}, path={}, home={}", self.node, self.data_directory, self.home.display());
                    stands.obstacle = Some(format!("{what}. {values}"));
                }
                _ => {}
            }
        }
        stands
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use super::*;
    use crate::executor::LocalExecutor;

    fn place(dir: &Path) -> Place {
        Place {
            node: NodeName::new("n1").unwrap(),
            executor: Arc::new(LocalExecutor),
            data_directory: dir.join("main").display().to_string(),
            home: dir.join("home"),
        }
    }

    #[tokio::test]
    async fn a_data_directory_is_moved_once_and_what_was_set_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (main, home) = (dir.path().join("main"), dir.path().join("home"));
        std::fs::create_dir(&main).unwrap();
        let place = place(dir.path());
        let stands = place.look().await.unwrap();
        assert!(stands.obstacle.unwrap().contains("no data directory"));
        assert!(place.take().await.unwrap_err().to_string().contains("no data directory"));

        std::fs::write(main.join("PG_VERSION"), "15\n").unwrap();
        std::fs::write(main.join("postgresql.auto.conf"), "primary_conninfo = 'host=x'\n").unwrap();
        // A number that no process has.
        std::fs::write(main.join("postmaster.pid"), "999999999\n/x\n").unwrap();
        let inode = std::fs::metadata(&main).unwrap().ino();
        let stands = place.look().await.unwrap();
        assert_eq!((stands.taken, stands.running, stands.obstacle), (false, false, None));

        place.take().await.unwrap();
        place.take().await.unwrap();
        assert!(place.look().await.unwrap().taken && !main.exists());
        assert_eq!(std::fs::metadata(home.join("data")).unwrap().ino(), inode);
        let text = |path: &str| std::fs::read_to_string(home.join(path)).unwrap();
        assert!(text("before-pgdock/postgresql.auto.conf").contains("primary_conninfo"));
        assert!(!text("data/postgresql.auto.conf").contains("primary_conninfo"));
    }

    #[tokio::test]
    async fn what_is_in_the_home_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["main", "home/data"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("PG_VERSION"), name).unwrap();
        }
        let place = place(dir.path());
        assert!(place.look().await.unwrap().obstacle.is_some());
        let error = place.take().await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::NeedsOperator, "{error}");
        assert_eq!(std::fs::read_to_string(dir.path().join("home/data/PG_VERSION")).unwrap(), "home/data");
    }
}

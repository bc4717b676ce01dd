//! A primary and a standby of PostgreSQL on two loopback addresses, in a directory that goes away with them.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub(crate) const HOSTS: [&str; 2] = ["127.0.0.31", "127.0.0.32"];

/// Two servers; the second began as the standby of the first.
pub(crate) struct Cluster {
    directory: TempDir,
    bin: PathBuf,
    pub(crate) port: u16,
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Where the programs of PostgreSQL are: `PGDOCK_TEST_BINDIR`, or Debian's place for version 15.
fn programs() -> Option<PathBuf> {
    let bin = std::env::var_os("PGDOCK_TEST_BINDIR").map_or_else(|| "/usr/lib/postgresql/15/bin".into(), PathBuf::from);
    bin.join("pg_ctl").exists().then_some(bin)
}

impl Cluster {
    /// Starts the first alone.
    pub(crate) fn start_one() -> Option<Self> {
        let cluster = Self::found()?;
        cluster.run("initdb", &["-D", &cluster.data(0), "-U", "postgres", "--auth=trust", "--no-sync"]);
        cluster.start_node(0);
        Some(cluster)
    }

    /// Starts both. `None`, with a word about it, where there is no PostgreSQL; with `PGDOCK_REAL=required` that fails.
    pub(crate) fn start() -> Option<Self> {
        let cluster = Self::start_one()?;
        let (from, port) = (HOSTS[0], cluster.port.to_string());
        cluster.run(
            "pg_basebackup",
            &["-h", from, "-p", &port, "-U", "postgres", "-D", &cluster.data(1), "-R", "-c", "fast", "--no-sync"],
        );
        cluster.start_node(1);
        Some(cluster)
    }

    /// A directory, and a free port.
    fn found() -> Option<Self> {
        let Some(bin) = programs() else {
            assert!(std::env::var("PGDOCK_REAL").as_deref() != Ok("required"), "there is no PostgreSQL to test with");
            eprintln!("not run: there is no PostgreSQL to test with");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        if is_root() {
            assert!(Command::new("chown").arg("postgres").arg(directory.path()).status().unwrap().success());
        }
        let port = TcpListener::bind((HOSTS[0], 0)).unwrap().local_addr().unwrap().port();
        Some(Self { directory, bin, port })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data(&self, node: usize) -> String {
        self.path().join(format!("n{}", node + 1)).to_str().unwrap().to_owned()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir("/");
        command
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program, arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    }

    pub(crate) fn start_node(&self, node: usize) {
        let options = format!(
            "-c listen_addresses={} -c port={} -c unix_socket_directories='' -c fsync=off -c hot_standby=on -c max_wal_senders=4",
            HOSTS[node], self.port
        );
        let (data, log) = (self.data(node), format!("{}.log", self.data(node)));
        // Its output must not be a pipe: the server would keep it open.
        let status = self.command("pg_ctl", &["-D", &data, "-l", &log, "-w", "-s", "-o", &options, "start"]).status();
        assert!(status.unwrap().success(), "{}", std::fs::read_to_string(log).unwrap_or_default());
    }

    pub(crate) fn stop(&self, node: usize) {
        self.run("pg_ctl", &["-D", &self.data(node), "-m", "immediate", "-s", "-w", "stop"]);
    }

    pub(crate) fn restart(&self, node: usize) {
        self.stop(node);
        self.start_node(node);
    }

    pub(crate) fn promote(&self, node: usize) {
        self.run("pg_ctl", &["-D", &self.data(node), "-s", "-w", "promote"]);
    }

    /// Sends a signal to a server and all its processes.
    pub(crate) fn signal(&self, node: usize, signal: &str) {
        let file = std::fs::read_to_string(Path::new(&self.data(node)).join("postmaster.pid")).unwrap();
        let postmaster = file.lines().next().unwrap().to_owned();
        let children = Command::new("pgrep").args(["-P", &postmaster]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        for process in std::iter::once(postmaster.as_str()).chain(children.lines()) {
            // A child may have ended meanwhile.
            let _ = Command::new("kill").args([signal, process]).output().unwrap();
        }
    }

    pub(crate) fn address(&self, node: usize) -> tokio_postgres::Config {
        let mut address = tokio_postgres::Config::new();
        address.host(HOSTS[node]).port(self.port).user("postgres").dbname("postgres");
        address
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..2 {
            // One that a test froze, and did not come to thaw, would not stop.
            if Path::new(&self.data(node)).join("postmaster.pid").exists() {
                self.signal(node, "-CONT");
            }
            let _ = self.command("pg_ctl", &["-D", &self.data(node), "-m", "immediate", "-s", "stop"]).output();
        }
    }
}

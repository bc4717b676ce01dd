//! [`Repmgr`]: a cluster that repmgr looks after, as processes of this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pgdock_core::postgres::version::Binaries;
use pgdock_core::{Error, Result};

use super::bare::folder;

/// The version of PostgreSQL that distributions build repmgr for beside their own.
const PASSWORD: &str = "opensesame";

/// A primary, `node1`, and its standbys. Dropped, it leaves nothing running.
#[derive(Debug)]
pub struct Repmgr {
    dir: tempfile::TempDir,
    binaries: Binaries,
    first: u8,
    count: u8,
}

/// Where repmgr is installed for a PostgreSQL that is here. Where it is not, that is said, and with
/// `PGDOCK_REAL=required` it is a failure.
#[must_use]
pub fn repmgr_available() -> Option<Binaries> {
    let path = std::env::var_os("PATH");
    let versions = (14..=18).rev().filter_map(|v| Binaries::find(None, Some(v), path.as_deref()).ok());
    let found = versions.into_iter().find(|binaries| binaries.program("repmgr").is_file());
    if found.is_none() {
        let why = "repmgr is not installed, such as postgresql-15-repmgr";
        assert!(std::env::var("PGDOCK_REAL").as_deref() != Ok("required"), "cannot test the takeover: {why}");
        eprintln!("skipped: {why}");
    }
    found
}

impl Repmgr {
    /// Starts a primary on 127.0.0.`first`, and standbys on the addresses after it, which stream through slots.
    ///
    /// # Errors
    /// What the program says that failed.
    pub fn up(binaries: Binaries, first: u8, count: u8) -> Result<Self> {
        let this = Self { dir: folder("pgdock-repmgr-")?, binaries, first, count };
        std::fs::create_dir(this.dir.path().join("old")).map_err(io)?;
        give(&this.old())?;
        std::fs::write(this.old().join("password"), PASSWORD).map_err(io)?;
        give(&this.old().join("password"))?;
        let password = this.old().join("password").display().to_string();
        let data = this.data(1).display().to_string();
        this.run(&[
            "initdb",
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "--pwfile",
            &password,
            "-E",
            "UTF8",
            "-N",
        ])?;
        let hba = "local all postgres peer\nhost repmgr repmgr 127.0.0.0/8 trust\nhost replication repmgr 127.0.0.0/8 trust\n\
                   host all all 127.0.0.0/8 scram-sha-256\n";
        std::fs::write(this.data(1).join("pg_hba.conf"), hba).map_err(io)?;
        this.configure(
            1,
            "shared_preload_libraries = 'repmgr'\nmax_connections = 150\nwork_mem = '6MB'\nhot_standby = on\n",
        )?;
        this.start(1)?;
        for sql in [
            "CREATE ROLE repmgr SUPERUSER LOGIN",
            "CREATE DATABASE repmgr OWNER repmgr",
            "CREATE ROLE shop_owner LOGIN PASSWORD 'application'",
            "CREATE DATABASE shop OWNER shop_owner",
        ] {
            this.sql(1, "postgres", sql)?;
        }
        this.repmgr(1, &["primary", "register"])?;
        for n in 2..=count {
            let host = this.address(1);
            this.repmgr(n, &["-h", &host, "-p", "54320", "-U", "repmgr", "-d", "repmgr", "standby", "clone", "-c"])?;
            this.configure(n, "")?;
            this.start(n)?;
            this.repmgr(n, &["standby", "register", "--wait-sync=60"])?;
        }
        // As `ALTER SYSTEM` leaves it, and repmgr too.
        this.sql(1, "postgres", "ALTER SYSTEM SET maintenance_work_mem = '77MB'")?;
        this.sql(1, "postgres", "SELECT pg_reload_conf()")?;
        Ok(this)
    }

    /// The folder of the test, which the new cluster gets, too.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The address of a node.
    #[must_use]
    pub fn address(&self, n: u8) -> String {
        format!("127.0.0.{}", self.first + n - 1)
    }

    /// The data directory that a node has at first.
    #[must_use]
    pub fn data(&self, n: u8) -> PathBuf {
        self.old().join(format!("pg{n}"))
    }

    /// A file with the password of `postgres`.
    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.old().join("password")
    }

    /// The password of the application's role.
    #[must_use]
    pub fn app_password(&self) -> &'static str {
        "application"
    }

    /// Starts repmgrd on a node.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn repmgrd(&self, n: u8) -> Result<std::process::Child> {
        let mut command = self.command("repmgrd");
        command.arg("-f").arg(self.conf(n)).args(["--daemonize=false", "--verbose"]);
        let log = std::fs::File::create(self.old().join("repmgrd.log")).map_err(io)?;
        command.stdout(Stdio::null()).stderr(log).spawn().map_err(io)
    }

    /// Runs a statement over a node's socket.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn sql(&self, n: u8, database: &str, sql: &str) -> Result<String> {
        let socket = self.socket(n).display().to_string();
        let output =
            self.run(&["psql", "-XAtq", "-h", &socket, "-p", "54320", "-U", "postgres", "-d", database, "-c", sql])?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn old(&self) -> PathBuf {
        self.dir.path().join("old")
    }

    fn socket(&self, n: u8) -> PathBuf {
        self.old().join(format!("s{n}"))
    }

    fn conf(&self, n: u8) -> PathBuf {
        self.old().join(format!("repmgr{n}.conf"))
    }

    fn configure(&self, n: u8, more: &str) -> Result<()> {
        use std::io::Write as _;
        let socket = self.socket(n);
        std::fs::create_dir(&socket).map_err(io)?;
        give(&socket)?;
        let text = format!(
            "{more}listen_addresses = '{}'\nport = 54320\nunix_socket_directories = '{}'\nwal_log_hints = on\n",
            self.address(n),
            socket.display()
        );
        let mut file =
            std::fs::OpenOptions::new().append(true).open(self.data(n).join("postgresql.conf")).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)
    }

    fn start(&self, n: u8) -> Result<()> {
        let (data, log) =
            (self.data(n).display().to_string(), self.old().join(format!("log{n}")).display().to_string());
        self.run(&["pg_ctl", "-D", &data, "-l", &log, "-w", "start"]).map(drop)
    }

    fn repmgr(&self, n: u8, words: &[&str]) -> Result<()> {
        let bin = self.binaries.dir().display();
        let (old, address, data) = (self.old(), self.address(n), self.data(n));
        let text = format!(
            "node_id={n}\nnode_name='node{n}'\nconninfo='host={address} port=54320 user=repmgr dbname=repmgr connect_timeout=2'\n\
             data_directory='{data}'\npg_bindir='{bin}'\nuse_replication_slots=1\nfailover=automatic\n\
             promote_command='repmgr standby promote -f {conf}'\nfollow_command='repmgr standby follow -f {conf} --upstream-node-id=%n'\n",
            data = data.display(),
            conf = self.conf(n).display(),
        );
        std::fs::write(old.join(format!("repmgr{n}.conf")), text).map_err(io)?;
        let conf = self.conf(n).display().to_string();
        let mut all = vec!["repmgr", "-f", &conf];
        all.extend(words);
        self.run(&all).map(drop)
    }

    /// A program of PostgreSQL's, as PostgreSQL's user.
    fn command(&self, program: &str) -> Command {
        let path = self.binaries.program(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command
            .current_dir("/")
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.binaries.dir().display()));
        command
    }

    fn run(&self, words: &[&str]) -> Result<Output> {
        let [program, args @ ..] = words else { return Err(Error::internal("no program was named")) };
        // What it leaves running must not keep a pipe open.
        let log = self.old().join("said");
        let said = std::fs::File::create(&log).map_err(io)?;
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::null()).stderr(said);
        let output = if *program == "psql" {
            command.output().map_err(io)?
        } else {
            let status = command.stdout(Stdio::null()).status().map_err(io)?;
            Output { status, stdout: Vec::new(), stderr: Vec::new() }
        };
        if output.status.success() {
            return Ok(output);
        }
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Err(Error::internal(format!("{words:?} failed: {}: {said}", output.status)))
    }
}

impl Drop for Repmgr {
    fn drop(&mut self) {
        for n in 1..=self.count {
            pgdock_core::agent::deadman::kill_all(&self.data(n));
        }
    }
}

fn io(error: std::io::Error) -> Error {
    Error::internal("the machine does not do what the test needs").because(error)
}

/// Gives a path to PostgreSQL's user.
fn give(path: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let status = Command::new("chown").arg("postgres:").arg(path).status().map_err(io)?;
    if status.success() { Ok(()) } else { Err(Error::internal("a file cannot be given to the user postgres")) }
}

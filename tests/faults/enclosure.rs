//! The enclosure: network, mounts and processes of the test's own.
//!
//! ```text
//!   the test program ── exec ──▶ unshare ── fork ──▶ the program as pid 1 ── spawn ──▶ the program, inside
//! ```
//!
//! When pid 1 ends, the kernel kills every process inside, and with the last of them the namespaces of
//! networks and all that was mounted are gone. `unshare --kill-child` has pid 1 die with it, so that also a
//! `kill -9` of the test leaves nothing behind.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::process::WaitOptions;

/// Says how far in a process is.
pub(super) const STAGE: &str = "PGDOCK_FAULTS_STAGE";
/// Has a process be the store that the witness is in.
pub(super) const STORE: &str = "store";
/// Names the folder that lives in memory alone.
const FOLDER: &str = "PGDOCK_FAULTS_FOLDER";
/// What the kernel must let us have.
const NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// What makes an ordinary user the master of namespaces of his own, and leaves him who he is: PostgreSQL
/// does not run as root.
const AS_USER: [&str; 3] = ["--user", "--map-current-user", "--keep-caps"];
/// What a lab is made with: see whether it works.
const TRIAL: &str = "set -e
ip link set lo up
ip link add pgdock0 type bridge
mount -t tmpfs tmpfs /mnt
nft add table inet pgdock
nft add chain inet pgdock input '{ type filter hook input priority 0; }'
nft add rule inet pgdock input ip saddr 192.0.2.1 meta l4proto tcp reject with tcp reset
nsenter --version >/dev/null";

/// How far in this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Where it was started.
    Outside,
    /// The first process inside, which looks after the others.
    First,
    /// Inside, with the folder that lives in memory alone.
    Inside(PathBuf),
    /// Inside, on the host of the witness: the store that it is in.
    Store,
}

/// How far in this process is.
#[must_use]
pub fn stage() -> Stage {
    match (std::env::var(STAGE).as_deref(), std::env::var_os(FOLDER)) {
        (Ok("first"), _) => Stage::First,
        (Ok(STORE), _) => Stage::Store,
        (Ok("inside"), Some(folder)) => Stage::Inside(folder.into()),
        _ => Stage::Outside,
    }
}

/// Whether this machine can make an enclosure, and a lab inside.
///
/// # Errors
/// Why not.
pub fn possible() -> Result<(), String> {
    let tried = unshare().args(["sh", "-c", TRIAL]).stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "namespaces of networks cannot be made: {}",
            String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
        )),
        Err(error) => Err(format!("the program unshare cannot be run: {error}")),
    }
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(AS_USER);
    }
    // Where the programs for networks are is not in everybody's path.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    command.args(NAMESPACES).env("PATH", std::env::join_paths(folders).unwrap_or(path.clone()));
    command
}

/// Becomes the enclosure: the same program with the same arguments, inside. Comes back only where that fails.
#[must_use]
pub fn enter() -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("cannot tell where this program lies: {error}");
            return ExitCode::FAILURE;
        }
    };
    let error = unshare().arg(program).args(std::env::args_os().skip(1)).env(STAGE, "first").exec();
    eprintln!("unshare cannot be run: {error}");
    ExitCode::FAILURE
}

/// The first process inside: makes what is private, starts the test, and reaps whoever loses his parent.
#[must_use]
pub fn first() -> ExitCode {
    match look_after() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("the enclosure cannot be made: {error}");
            ExitCode::FAILURE
        }
    }
}

fn look_after() -> std::io::Result<u8> {
    let folder = tempfile::Builder::new().prefix("pgdock-faults-").tempdir_in("/tmp")?;
    mount(folder.path(), "mode=0755")?;
    // Namespaces of networks get their names in a folder below it. What else lies there, nobody here needs.
    mount(Path::new("/run"), "mode=0755")?;
    std::fs::create_dir("/run/netns")?;
    // What deadmen share is in there, too.
    mount(Path::new("/dev/shm"), "mode=1777")?;
    let test = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(STAGE, "inside")
        .env(FOLDER, folder.path())
        .spawn()?;
    let test = rustix::process::Pid::from_child(&test);
    loop {
        match rustix::process::wait(WaitOptions::empty())? {
            Some((pid, status)) if pid == test => {
                // Nobody is left who could write there once this process has ended; the folder outside is empty.
                unmount(folder.path());
                let code = status.exit_status().unwrap_or(1);
                return Ok(u8::try_from(code).unwrap_or(1));
            }
            _ => {}
        }
    }
}

/// Mounts a file system that lives in memory.
pub(super) fn mount(at: &Path, options: &str) -> std::io::Result<()> {
    let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(std::io::Error::other(format!("mount {}: {}", at.display(), String::from_utf8_lossy(&done.stderr).trim())))
}

/// Takes a file system away, also where somebody still uses it.
pub(super) fn unmount(at: &Path) {
    let _ = Command::new("umount").arg("--lazy").arg(at).status();
}

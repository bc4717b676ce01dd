//! The processes of a data directory: found in `/proc`, killed and awaited through pidfds.
//!
//! A postmaster may be the child of this agent or of an earlier one, so nothing here rests on being the parent.
//! Each backend leads a session of its own, so a process group does not reach them; what they share is
//! their program and, as working directory, the data directory.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use super::conf_file;
use crate::{Error, Result};

/// How often an end is asked for where it cannot be waited for.
const POLL: Duration = Duration::from_millis(10);

/// Sends `SIGKILL` to every process of the PostgreSQL whose data directory this is, the postmaster first,
/// so that nobody is left who could start another one. Returns how many were found alive: zero means
/// that none is left. Where `/proc` cannot be read that cannot be known, and it is never zero.
///
/// To be called again until it finds nobody: a process that was forked meanwhile may slip through a walk.
pub fn kill_all(data_dir: &Path) -> usize {
    Family::of(data_dir).strike().unwrap_or(1)
}

/// Whether any process of the PostgreSQL with this data directory is alive. A zombie is not. Where `/proc`
/// cannot be read, one may be.
#[must_use]
pub fn any_alive(data_dir: &Path) -> bool {
    let family = Family::of(data_dir);
    family.postmaster().is_some() || family.members().map_or(true, |members| !members.is_empty())
}

/// Which processes belong to an instance.
#[derive(Clone, Debug)]
pub struct Family {
    /// The data directory.
    pub data: PathBuf,
    /// `cluster_name`, which every process shows in its title.
    pub cluster_name: String,
    /// The user that PostgreSQL runs as.
    pub uid: u32,
}

/// A process, held so that its number cannot come to mean another one.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// `None` where the kernel gives out no pidfd: then the number has to do.
    fd: Option<OwnedFd>,
}

impl Process {
    /// Takes hold of a process; `None` if it is gone.
    pub(crate) fn hold(pid: Pid) -> Option<Self> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Some(Self { pid, fd: Some(fd) }),
            Err(Errno::SRCH) => None,
            Err(_) => Some(Self { pid, fd: None }),
        }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal. One that is gone already is no error.
    ///
    /// # Errors
    /// `Internal` when it is not allowed.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let sent = match &self.fd {
            Some(fd) => pidfd_send_signal(fd, signal),
            None => kill_process(self.pid, signal),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => {
                Err(Error::internal(format!("cannot signal a process of postgresql. pid={}", self.pid()))
                    .because(error))
            }
        }
    }

    /// Waits until it is gone: ended, whether or not its parent has heard of it (pidfd_open(2)).
    pub async fn gone(self) {
        if let Some(fd) = self.fd {
            #[expect(deprecated, reason = "the successor is unsafe for files that are not owned; this one is")]
            let registered = AsyncFd::with_interest(fd, tokio::io::Interest::READABLE);
            if let Ok(fd) = registered
                && fd.readable().await.is_ok()
            {
                return;
            }
        }
        // No room for another event source: ask again and again.
        while Self::hold(self.pid).is_some_and(|p| !p.has_ended()) {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether it has ended. A zombie has, though its number is still taken.
    pub(crate) fn has_ended(&self) -> bool {
        let Some(fd) = &self.fd else {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
            // The name, in parentheses, may hold anything.
            let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
            return matches!(state, None | Some('Z' | 'X'));
        };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        matches!(rustix::event::poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }
}

/// What a process's working directory is compared with.
struct Home {
    /// The path, without links. It still tells who is meant when the directory was removed meanwhile.
    path: PathBuf,
    /// Device and inode: the same directory under another name, as after it was moved aside, still counts.
    identity: Option<(u64, u64)>,
}

impl Home {
    fn of(data: &Path) -> Self {
        let path = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        let identity = identity(&path);
        Self { path, identity }
    }

    fn is(&self, cwd: &Path) -> bool {
        std::fs::read_link(cwd).is_ok_and(|link| without_deleted(link.as_os_str().as_bytes()) == self.path)
            || self.identity.is_some() && identity(cwd) == self.identity
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The kernel marks a program or a directory that was removed meanwhile, as an upgrade does.
fn without_deleted(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.strip_suffix(b" (deleted)").unwrap_or(path)))
}

impl Family {
    /// The processes of a data directory of which nothing else is known: it tells who owns it, and how it
    /// was last started.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            // Without a name no title matches.
            cluster_name: cluster_name(data).unwrap_or_default(),
            uid: std::fs::metadata(data).map_or(u32::MAX, |meta| meta.uid()),
        }
    }

    /// Every living process of the data directory.
    ///
    /// # Errors
    /// `Internal` when `/proc` cannot be read.
    pub fn members(&self) -> Result<Vec<Process>> {
        let home = Home::of(&self.data);
        let entries = std::fs::read_dir("/proc").map_err(|e| Error::internal("cannot list processes").because(e))?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()).and_then(Pid::from_raw) else {
                continue;
            };
            // First held, then looked at: so what was looked at is what is held.
            if self.owns(&entry.path(), &home)
                && let Some(process) = Process::hold(pid)
                && self.owns(&entry.path(), &home)
            {
                found.push(process);
            }
        }
        Ok(found)
    }

    /// The postmaster, if it lives.
    #[must_use]
    pub fn postmaster(&self) -> Option<Process> {
        let pid = PidFile::read(&self.data)?.pid;
        let process = Process::hold(pid)?;
        self.owns(Path::new(&format!("/proc/{}", process.pid())), &Home::of(&self.data)).then_some(process)
    }

    fn owns(&self, proc: &Path, home: &Home) -> bool {
        match std::fs::read_link(proc.join("exe")) {
            Ok(exe) => without_deleted(exe.as_os_str().as_bytes()).ends_with("postgres") && home.is(&proc.join("cwd")),
            // Root in a container often lacks CAP_SYS_PTRACE, and so does not see what others run.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => self.owns_by_title(proc),
            // A zombie, or a thread of the kernel.
            Err(_) => false,
        }
    }

    /// Tells by what anybody may see: the owner, and the title or the arguments.
    fn owns_by_title(&self, proc: &Path) -> bool {
        let owned = std::fs::metadata(proc).is_ok_and(|m| m.uid() == self.uid);
        let Ok(cmdline) = std::fs::read(proc.join("cmdline")) else { return false };
        let title = format!("postgres: {}: ", self.cluster_name);
        let mut args = cmdline.split(|b| *b == 0);
        let is_postgres = args.next().is_some_and(|a| Path::new(std::ffi::OsStr::from_bytes(a)).ends_with("postgres"));
        owned
            && (!self.cluster_name.is_empty() && cmdline.starts_with(title.as_bytes())
                || is_postgres && args.skip_while(|a| *a != b"-D").nth(1) == Some(self.data.as_os_str().as_bytes()))
    }

    /// Kills the postmaster and everybody who is found, without waiting for anything. Returns how many
    /// were found alive.
    ///
    /// # Errors
    /// `Internal` when `/proc` cannot be read, or a signal is not allowed.
    pub fn strike(&self) -> Result<usize> {
        if let Some(postmaster) = self.postmaster() {
            postmaster.signal(Signal::KILL)?;
        }
        let found = self.members()?;
        // Whoever cannot be killed keeps nobody else alive.
        let struck: Vec<_> = found.iter().map(|process| process.signal(Signal::KILL)).collect();
        struck.into_iter().collect::<Result<()>>().map(|()| found.len())
    }

    /// Kills the postmaster, then everybody else, until nobody is left.
    ///
    /// # Errors
    /// `Internal` when somebody is still there after `limit`: a process in an uninterruptible wait, on a
    /// hung disk for example, dies only when that wait ends.
    pub async fn kill(&self, limit: Duration) -> Result<()> {
        let work = async {
            loop {
                // Without a postmaster nobody new is born.
                if let Some(postmaster) = self.postmaster() {
                    postmaster.signal(Signal::KILL)?;
                    postmaster.gone().await;
                }
                let members = self.members()?;
                if members.is_empty() {
                    return Ok(());
                }
                for member in &members {
                    member.signal(Signal::KILL)?;
                }
                for member in members {
                    member.gone().await;
                }
            }
        };
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => {
                let left: Vec<_> = self.members()?.iter().map(|p| p.pid().to_string()).collect();
                Err(Error::internal(format!(
                    "processes of postgresql do not die. limit={limit:?}, pids={}",
                    left.join(",")
                ))
                .hint("look for a hung disk: a process that waits for one cannot be killed"))
            }
        }
    }
}

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidFile {
    /// The postmaster.
    pub pid: Pid,
    /// How far it got: `starting`, `ready`, `standby`, `stopping`; empty at first.
    pub status: String,
}

impl PidFile {
    /// Reads the one of a data directory; `None` where there is none, or none yet.
    #[must_use]
    pub fn read(data: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        // A standalone backend writes its number with a minus.
        let pid = lines.next()?.trim().parse::<i32>().ok()?.checked_abs().and_then(Pid::from_raw)?;
        let status = lines.nth(6).unwrap_or_default().trim().to_owned();
        Some(Self { pid, status })
    }
}

/// `cluster_name` in the configuration that the data directory was last started with.
fn cluster_name(data: &Path) -> Option<String> {
    let command = std::fs::read_to_string(data.join("postmaster.opts")).ok()?;
    let file = command.split('"').find_map(|arg| arg.strip_prefix("config_file="))?;
    conf_file::value_of(&std::fs::read_to_string(file).ok()?, "cluster_name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_has_ended() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (held, by_number) = (Process::hold(pid).unwrap(), Process { pid, fd: None });
        let deadline = std::time::Duration::from_secs(20);
        let mut fds = [PollFd::new(held.fd.as_ref().unwrap(), PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&deadline.try_into().unwrap())).unwrap();
        assert!(held.has_ended() && by_number.has_ended());
        assert!(Path::new(&format!("/proc/{}", held.pid())).exists(), "its number is still taken");
        child.wait().unwrap();
        assert!(Process::hold(pid).is_none());
        let me = Process { pid: rustix::process::getpid(), fd: None };
        assert!(!me.has_ended());
    }

    #[test]
    fn a_data_directory_tells_the_name_that_its_processes_show() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("postgresql.conf");
        let opts = format!(
            "/usr/bin/postgres \"-D\" \"/data\" \"-c\" \"config_file={}\" \"-c\" \"hba_file=x\"\n",
            conf.display()
        );
        std::fs::write(dir.path().join("postmaster.opts"), opts).unwrap();
        let mut text = "# cluster_name = 'no'\nport = '5432'\n".to_owned();
        conf_file::line(&mut text, "cluster_name", r"it's\n1");
        std::fs::write(&conf, text).unwrap();
        assert_eq!(Family::of(dir.path()).cluster_name, r"it's\n1");
        assert_eq!(Family::of(Path::new("/nowhere")).cluster_name, "");
    }

    #[test]
    fn pid_files_are_read() {
        let text = "4711\n/data\n1700000000\n5432\n/run\n127.0.0.1\n  1234 5\nready   \n";
        let file = PidFile::parse(text).unwrap();
        assert_eq!((file.pid.as_raw_nonzero().get(), file.status.as_str()), (4711, "ready"));
        assert_eq!(PidFile::parse("4711\n").unwrap().status, "");
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("-12\n").unwrap().pid.as_raw_nonzero().get(), 12);
    }

    #[tokio::test]
    async fn others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = std::process::Command::new("/bin/sleep").arg("600").current_dir(dir.path()).spawn().unwrap();
        let family = Family { data: dir.path().to_owned(), cluster_name: "c/n1".into(), uid: 0 };
        assert!(family.members().unwrap().is_empty());
        family.kill(Duration::from_secs(5)).await.unwrap();
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

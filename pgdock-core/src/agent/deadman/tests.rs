use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::*;
use crate::clock::SystemClock;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program of the deadman in these tests: this test binary, told to run [`host_deadman`] alone.
fn hosted(dir: &TempDir) -> DeadmanConfig {
    let exe = std::env::current_exe().unwrap();
    let script = format!("PGDOCK_TEST_ARGS=\"$*\" exec {} --ignored --exact {HOST}host_deadman", exe.display());
    DeadmanConfig {
        data_dir: dir.path().join("data"),
        shared: dir.path().join("shared"),
        log: dir.path().join("log"),
        address: None,
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into(), "sh".into()],
    }
}

const HOST: &str = "agent::deadman::tests::";

#[test]
#[ignore = "a process that other tests start"]
fn host_deadman() {
    let Ok(args) = std::env::var("PGDOCK_TEST_ARGS") else { return };
    let args = std::iter::once("test").chain(args.split(' ')).map(OsString::from);
    intercept(args).expect("the arguments ask for a deadman");
}

/// An agent in a process of its own: arms, says so, and does nothing any more.
#[test]
#[ignore = "a process that other tests start"]
fn host_agent() {
    let Ok(path) = std::env::var("PGDOCK_TEST_AGENT") else { return };
    let dir = TempDir::with_prefix_in("unused", &path).unwrap();
    let mut config = hosted(&dir);
    config.data_dir = Path::new(&path).join("data");
    config.shared = Path::new(&path).join("shared");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let deadman = Deadman::open_or_spawn(config, Arc::new(SystemClock)).await.unwrap();
        deadman.arm(SystemClock.now() + Duration::from_millis(700)).unwrap();
        println!("\narmed");
        std::future::pending::<()>().await;
    });
}

struct Fixture {
    dir: TempDir,
    children: Vec<Child>,
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        // Copied by another process: one that is forked meanwhile must not inherit it open for writing.
        let postgres = dir.path().join("postgres");
        assert!(Command::new("cp").arg("/bin/sleep").arg(&postgres).status().unwrap().success());
        Self { dir, children: Vec::new() }
    }

    /// A process that looks like one of PostgreSQL; its place in `children`.
    fn postgres(&mut self, cwd: &str) -> usize {
        let child =
            Command::new(self.dir.path().join("postgres")).arg("1000").current_dir(self.dir.path().join(cwd)).spawn();
        self.children.push(child.unwrap());
        self.children.len() - 1
    }

    fn lives(&mut self, which: usize) -> bool {
        self.children[which].try_wait().unwrap().is_none()
    }

    async fn deadman(&self) -> Deadman {
        Deadman::open_or_spawn(hosted(&self.dir), Arc::new(SystemClock)).await.unwrap()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Ok(shared) = Shared::open(&self.dir.path().join("shared"))
            && let Some(pid) = Pid::from_raw(shared.layout().pid.load(SeqCst).try_into().unwrap())
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(POLL_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

fn soon() -> Moment {
    SystemClock.now() + Duration::from_millis(200)
}

#[tokio::test]
async fn kills_all_of_one_postgresql_and_nobody_else() {
    let mut fixture = Fixture::new();
    std::fs::create_dir(fixture.dir.path().join("other")).unwrap();
    let (postmaster, backend, other) = (fixture.postgres("data"), fixture.postgres("data"), fixture.postgres("other"));
    std::fs::write(fixture.data().join("postmaster.pid"), format!("{}\n/x\n", fixture.children[postmaster].id()))
        .unwrap();
    let deadman = fixture.deadman().await;
    deadman.arm(soon()).unwrap();
    until("both die", || !fixture.lives(postmaster) && !fixture.lives(backend)).await;
    until("it says so", || deadman.fired().is_some()).await;
    assert_eq!(deadman.fired().unwrap().generation, deadman.generation());
    assert_eq!(deadman.armed(), Armed::No);
    assert!(fixture.lives(other), "a PostgreSQL in another directory was killed");
    assert!(deadman.is_alive(), "it goes on after it fired");
}

#[tokio::test]
async fn a_deadline_moved_in_time_does_not_fire() {
    let mut fixture = Fixture::new();
    let postgres = fixture.postgres("data");
    let deadman = fixture.deadman().await;
    deadman.arm(soon()).unwrap();
    let far = SystemClock.now() + Duration::from_secs(3600);
    deadman.arm(far).unwrap();
    assert_eq!(deadman.deadline(), Some(far));
    let passed = soon();
    until("the first deadline passes", || SystemClock.now() > passed + 2 * Duration::from_millis(100)).await;
    assert!(fixture.lives(postgres));

    deadman.arm(soon()).unwrap();
    deadman.disarm().unwrap();
    let passed = soon();
    until("the second deadline passes", || SystemClock.now() > passed + 2 * Duration::from_millis(100)).await;
    assert!(fixture.lives(postgres));
    assert_eq!((deadman.fired(), deadman.generation()), (None, 3));
}

/// Starts an agent in another process and waits until it has armed.
fn remote_agent(fixture: &mut Fixture) -> usize {
    let agent = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", &format!("{HOST}host_agent")])
        .env("PGDOCK_TEST_AGENT", fixture.dir.path())
        .stdout(Stdio::piped())
        .spawn();
    fixture.children.push(agent.unwrap());
    let which = fixture.children.len() - 1;
    let out = fixture.children[which].stdout.take().unwrap();
    assert!(BufReader::new(out).lines().any(|line| line.unwrap() == "armed"), "the agent did not arm");
    which
}

#[tokio::test]
async fn fires_though_the_agent_is_stopped_or_dead() {
    for signal in [Signal::STOP, Signal::KILL] {
        let mut fixture = Fixture::new();
        let postgres = fixture.postgres("data");
        let agent = remote_agent(&mut fixture);
        kill_process(Pid::from_child(&fixture.children[agent]), signal).unwrap();
        until("it dies", || !fixture.lives(postgres)).await;
        assert!(signal == Signal::KILL || fixture.lives(agent));
    }
}

#[tokio::test]
async fn the_next_agent_adopts_it_with_its_deadline() {
    let mut fixture = Fixture::new();
    let postgres = fixture.postgres("data");
    let agent = remote_agent(&mut fixture);
    let deadman = fixture.deadman().await;
    let pid = deadman.pid();
    assert!(deadman.deadline().is_some(), "what the first agent armed stays");
    deadman.arm(SystemClock.now() + Duration::from_secs(3600)).unwrap();
    kill_process(Pid::from_child(&fixture.children[agent]), Signal::KILL).unwrap();
    let passed = SystemClock.now() + Duration::from_secs(1);
    until("the first agent's deadline passes", || SystemClock.now() > passed).await;
    assert!(fixture.lives(postgres));
    assert_eq!(fixture.deadman().await.pid(), pid);
}

#[tokio::test]
async fn a_dead_or_hanging_deadman_is_replaced_and_the_deadline_kept() {
    for signal in [Signal::KILL, Signal::STOP] {
        let mut fixture = Fixture::new();
        let postgres = fixture.postgres("data");
        let mut deadman = fixture.deadman().await;
        let first = deadman.pid().unwrap();
        deadman.arm(SystemClock.now() + Duration::from_secs(2)).unwrap();
        kill_process(Pid::from_raw(first.cast_signed()).unwrap(), signal).unwrap();
        until("it is seen to be gone", || !deadman.is_alive()).await;
        assert!(deadman.ensure().await.unwrap());
        assert_ne!(deadman.pid(), Some(first));
        until("the new one enforces the old deadline", || !fixture.lives(postgres)).await;
    }
}

#[tokio::test]
async fn it_ends_when_told_but_not_while_postgresql_lives() {
    let mut fixture = Fixture::new();
    let postgres = fixture.postgres("data");
    let mut deadman = fixture.deadman().await;
    deadman.release();
    let looked_at = deadman.shared.layout().heartbeat.load(SeqCst);
    until("it looks again, twice", || {
        deadman.shared.layout().heartbeat.load(SeqCst) > looked_at + 2 * nanos(Moment(watch_interval()))
    })
    .await;
    assert_eq!(deadman.armed(), Armed::No);
    fixture.children[postgres].kill().unwrap();
    fixture.children[postgres].wait().unwrap();
    until("it ends", || deadman.armed() == Armed::Ended).await;
    until("its file is gone", || !fixture.dir.path().join("shared").exists()).await;
    assert_eq!(deadman.arm(soon()).unwrap_err().kind(), ErrorKind::NotReady);
    assert!(deadman.ensure().await.unwrap());
    deadman.arm(soon()).unwrap();
}

#[tokio::test]
async fn it_ends_with_its_agent_though_nobody_reaps_it() {
    let mut fixture = Fixture::new();
    let agent = remote_agent(&mut fixture);
    let shared = Shared::open(&fixture.dir.path().join("shared")).unwrap();
    kill_process(Pid::from_child(&fixture.children[agent]), Signal::KILL).unwrap();
    until("it ends", || shared.layout().deadline.load(SeqCst) == ENDED).await;
    assert!(Path::new(&format!("/proc/{}", fixture.children[agent].id())).exists(), "the agent is a zombie");
    until("its file is gone", || !shared.is_linked()).await;
}

fn watch_interval() -> Duration {
    Duration::from_millis(100)
}

#[test]
fn memory_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let path = shared_path(dir.path(), Path::new("/data"), dir.path());
    assert!(path.extension().is_some_and(|e| e == "deadman"), "{path:?}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(Shared::open(&path).unwrap_err().to_string().contains("somebody else"));
    assert_eq!(shared_path(dir.path(), Path::new("/data"), dir.path()), dir.path().join("deadman"));
    assert_eq!(shared_path(Path::new("/nowhere"), Path::new("/data"), dir.path()), dir.path().join("deadman"));
}

#[test]
fn arguments_are_checked() {
    let args = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
    assert!(intercept(args(&["pgdock", "status"])).is_none());
    assert!(intercept(args(&["pgdock"])).is_none());
    assert_eq!(intercept(args(&["pgdock", "deadman", "--shared"])), Some(ExitCode::FAILURE));
    assert_eq!(intercept(args(&["pgdock", "deadman", "--data", "/x"])), Some(ExitCode::FAILURE));
}

/// The programs of an installed PostgreSQL, and the user to run it as.
fn installed() -> Option<(PathBuf, u32)> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let bin = versions.flatten().map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").exists())?;
    let mine = rustix::process::geteuid().as_raw();
    if mine != 0 {
        return Some((bin, mine));
    }
    // PostgreSQL refuses to run as root.
    let id = Command::new("id").args(["-u", "postgres"]).output().ok()?;
    Some((bin, String::from_utf8(id.stdout).ok()?.trim().parse().ok()?))
}

#[tokio::test]
async fn a_stopped_postmaster_and_its_backends_die_too() {
    use std::os::unix::fs::chown;
    use std::os::unix::process::CommandExt;
    let Some((bin, uid)) = installed() else {
        assert_ne!(std::env::var("PGDOCK_REAL").as_deref(), Ok("required"), "there is no PostgreSQL");
        return eprintln!("not run: there is no PostgreSQL on this machine");
    };
    let mut fixture = Fixture::new();
    let (home, data) = (fixture.dir.path().to_owned(), fixture.data());
    chown(&home, Some(uid), None).unwrap();
    chown(&data, Some(uid), None).unwrap();
    let command = |program: &str, args: &[&str]| {
        let mut command = Command::new(bin.join(program));
        command.args(args).current_dir(&home).uid(uid).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let (folder, socket) = (data.to_str().unwrap(), home.to_str().unwrap());
    assert!(command("initdb", &["-D", folder, "-A", "trust", "-U", "postgres", "-N"]).status().unwrap().success());
    let postgres = ["-D", folder, "-k", socket, "-c", "listen_addresses=", "-c", "dynamic_shared_memory_type=mmap"];
    fixture.children.push(command("postgres", &postgres).spawn().unwrap());
    let psql = ["-h", socket, "-U", "postgres", "-c"];
    let answers = || command("psql", &[&psql[..], &["select 1"]].concat()).status().unwrap().success();
    until("PostgreSQL answers", answers).await;
    fixture.children.push(command("psql", &[&psql[..], &["select pg_sleep(1000)"]].concat()).spawn().unwrap());
    let sleeps = "select 1 / count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    until("a session is busy", || command("psql", &[&psql[..], &[sleeps]].concat()).status().unwrap().success()).await;

    let deadman = fixture.deadman().await;
    kill_process(Pid::from_child(&fixture.children[0]), Signal::STOP).unwrap();
    assert!(any_alive(&data));
    deadman.arm(soon()).unwrap();
    until("it says that none is left", || deadman.fired().is_some()).await;
    assert!(!any_alive(&data));
    until("the session is cut off", || !fixture.lives(1)).await;

    // What a killed PostgreSQL leaves to the next one, which will not come. Line 7: the key and the id.
    let left = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let segment = left.lines().nth(6).unwrap().split_whitespace().last().unwrap();
    assert!(Command::new("ipcrm").args(["-m", segment]).status().unwrap().success());
}

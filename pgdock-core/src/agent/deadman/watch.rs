//! The deadman's side: waits for the deadline, kills when it passes; takes the failover IP off this machine then, and as
//! long as nothing is armed, where it is the machine itself that holds it.

use std::cell::Cell;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::ClockId;
use rustix::time::Timespec;

use super::shared::{DISARMED, ENDED, FIRING, Shared, address_key, moment, nanos};
use crate::clock::{Clock, Moment, SystemClock};
use crate::failover_ip::linux::netlink;
use crate::postgres::process::{Process, any_alive, kill_all};

/// How often it looks whether the deadline was moved.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it looks whether it is still needed. A look means a walk through `/proc`.
const NEEDED_EVERY: Duration = Duration::from_secs(1);
/// How long a new deadman waits for the lock: an agent holds it for an instant, to see that it is free.
const LOCK_TRIES: u32 = 20;

/// Runs the deadman with the arguments after `deadman`: `--shared PATH --data DIR [--address IP]`. Returns once it was
/// told to end, or its agent is gone, and no process of that PostgreSQL is left.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match parse(args).and_then(|(shared, ward)| watch(&shared, &ward)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("deadman: {message}");
            ExitCode::FAILURE
        }
    }
}

/// What must not outlive the right to be primary.
struct Ward {
    data_dir: PathBuf,
    address: Option<IpAddr>,
    /// The kernel refused last time; that is said once.
    refused: Cell<bool>,
}

impl Ward {
    /// Takes the address off this machine. Never for long: the kernel answers at once.
    fn take_off(&self) {
        let Some(address) = self.address else { return };
        match netlink::take_off(address) {
            Ok(from) => {
                self.refused.set(false);
                if from > 0 {
                    eprintln!("deadman: took the failover IP off this machine. address={address}");
                }
            }
            Err(error) => {
                if !self.refused.replace(true) {
                    eprintln!("deadman: the failover IP may still be here. address={address}: {error}");
                }
            }
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(PathBuf, Ward), String> {
    let (mut shared, mut data_dir, mut address) = (None, None, None);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let slot = match arg.to_str() {
            Some("--shared") => &mut shared,
            Some("--data") => &mut data_dir,
            Some("--address") => &mut address,
            _ => return Err(format!("unknown argument `{}`", arg.display())),
        };
        *slot = Some(args.next().ok_or_else(|| format!("`{}` needs a value", arg.display()))?);
    }
    let (Some(shared), Some(data_dir)) = (shared, data_dir) else {
        return Err("usage: deadman --shared PATH --data DIR [--address IP]".to_owned());
    };
    let read = |text: OsString| {
        let ip = text.to_str().and_then(|text| text.parse().ok());
        ip.ok_or_else(|| format!("not an IP address: `{}`", text.display()))
    };
    let address = address.map(read).transpose()?;
    Ok((shared.into(), Ward { data_dir: data_dir.into(), address, refused: Cell::new(false) }))
}

fn watch(path: &Path, ward: &Ward) -> Result<(), String> {
    outlive_the_agent();
    let shared = Shared::open(path).map_err(|e| e.chain())?;
    lock(&shared)?;
    shared.initialise();
    let layout = shared.layout();
    layout.end.store(0, SeqCst);
    let _ = layout.deadline.compare_exchange(ENDED, DISARMED, SeqCst, SeqCst);
    layout.pid.store(std::process::id().into(), SeqCst);
    layout.address.store(address_key(ward.address), SeqCst);

    let mut looked_at = SystemClock.now();
    let mut agent = Agent::default();
    loop {
        let now = SystemClock.now();
        layout.heartbeat.store(nanos(now), SeqCst);
        let mut wake = now + LOOK_EVERY;
        match layout.deadline.load(SeqCst) {
            FIRING => fire(&shared, ward),
            ENDED => return Ok(()),
            DISARMED => {
                let told = layout.end.load(SeqCst) != 0;
                let due = told || now.since(looked_at) >= NEEDED_EVERY;
                if due {
                    // No primary, no address: whatever became of the agent that should have taken it off.
                    ward.take_off();
                }
                if due && !needed(&shared, &mut agent, told, &ward.data_dir) {
                    // Against an agent that arms at this very moment: one of the two sees the other.
                    if layout.deadline.compare_exchange(DISARMED, ENDED, SeqCst, SeqCst).is_ok() {
                        shared.remove();
                        return Ok(());
                    }
                }
                if now.since(looked_at) >= NEEDED_EVERY {
                    looked_at = now;
                }
            }
            deadline if nanos(now) >= deadline => {
                // Fails if the agent has moved the deadline since: then there is a new one to look at.
                if layout.deadline.compare_exchange(deadline, FIRING, SeqCst, SeqCst).is_ok() {
                    eprintln!("deadman: the deadline has passed, killing. data={}", ward.data_dir.display());
                    fire(&shared, ward);
                }
                continue;
            }
            deadline => wake = wake.min(moment(deadline)),
        }
        sleep_until(wake);
    }
}

/// Kills until none is left, however long it takes.
fn fire(shared: &Shared, ward: &Ward) {
    let layout = shared.layout();
    let generation = layout.generation.load(SeqCst);
    let mut pause = Duration::from_millis(1);
    // Once more after nobody was found: one that was forked meanwhile may have slipped through a walk.
    let mut walks_in_vain = 0;
    while walks_in_vain < 2 {
        walks_in_vain = if kill_all(&ward.data_dir) > 0 { 0 } else { walks_in_vain + 1 };
        ward.take_off();
        let now = SystemClock.now();
        layout.heartbeat.store(nanos(now), SeqCst);
        sleep_until(now + pause);
        pause = (pause * 2).min(LOOK_EVERY);
    }
    layout.fired_generation.store(generation, SeqCst);
    layout.fired_at.store(nanos(SystemClock.now()), SeqCst);
    let _ = layout.deadline.compare_exchange(FIRING, DISARMED, SeqCst, SeqCst);
    eprintln!("deadman: killed, none is left. data={}", ward.data_dir.display());
}

/// The agent that counts on this deadman, held so that its number cannot come to mean another process.
#[derive(Default)]
struct Agent {
    /// As the shared memory has it; zero before any.
    pid: u64,
    process: Option<Process>,
}

impl Agent {
    /// Whether the agent that the shared memory names lives. One that its parent did not reap does not.
    fn lives(&mut self, shared: &Shared) -> bool {
        let pid = shared.layout().agent.load(SeqCst);
        if pid != self.pid {
            self.pid = pid;
            self.process = i32::try_from(pid).ok().and_then(Pid::from_raw).and_then(Process::hold);
        }
        pid == 0 || self.process.as_ref().is_some_and(|process| !process.has_ended())
    }
}

/// Whether somebody may still count on this deadman.
fn needed(shared: &Shared, agent: &mut Agent, told: bool, data_dir: &Path) -> bool {
    if told {
        return any_alive(data_dir);
    }
    if agent.lives(shared) {
        return true;
    }
    // Its agent is dead. The next one finds this deadman by the file, unless the file was removed.
    shared.is_linked() && any_alive(data_dir)
}

fn lock(shared: &Shared) -> Result<(), String> {
    for _ in 0..LOCK_TRIES {
        if shared.try_lock() {
            return Ok(());
        }
        sleep_until(SystemClock.now() + LOOK_EVERY);
    }
    Err(format!("another deadman watches over this data directory. shared={}", shared.path().display()))
}

fn outlive_the_agent() {
    // Fails only for the leader of a process group, which has already left its parent's.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    // What ends an agent in order must not end its deadman: that happens through the shared memory. Tokio
    // installs a handler for good, which keeps the default action away.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = runtime.enter();
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()] {
            let _ = signal(kind);
        }
    }
    // Both only where the rights suffice: it must get its turn on a machine short of memory or processor.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let _ = rustix::process::setpriority_process(None, -10);
}

fn sleep_until(wake: Moment) {
    let request =
        Timespec { tv_sec: wake.0.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: wake.0.subsec_nanos().into() };
    // Early by a signal is fine: the caller looks at the clock again.
    let _ = rustix::thread::clock_nanosleep_absolute(ClockId::Boottime, &request);
}

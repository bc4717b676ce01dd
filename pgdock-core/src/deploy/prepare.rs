//! What a machine needs before a node can run on it: looked at first, told, and then done.
//!
//! Looking changes nothing, and doing looks again afterwards: run twice, it does nothing the second time.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use jiff::Timestamp;

use super::machine::{Machine, UNIT};
use super::{UID, image};
use crate::clock::Clock;
use crate::executor::{Command, ExecutorExt as _, Stdin};
use crate::{Error, Result};

/// The service of a node, with the usual home in it.
const SERVICE: &str = include_str!("../../files/pgdock-agent.service");
/// That home.
const HOME: &str = "/opt/pgdock";
/// Where the program lies on a node's machine.
const PROGRAM: &str = "/usr/local/bin/pgdock";
/// How far a clock may be off before people are misled by logs, and certificates by their first day.
const CLOCK: Duration = Duration::from_secs(5);
/// With less room a new node does not get far.
const DISK_FREE_MIN: u64 = 2 << 30;
/// How long the program may take to get there.
const UPLOAD: Duration = Duration::from_secs(600);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Check {
    /// What it is.
    pub what: String,
    /// What was found.
    pub found: String,
    /// Whether that will do.
    pub verdict: Verdict,
}

/// Whether what was found will do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It is as it should be.
    Good,
    /// It will be made so, like this.
    Todo(String),
    /// A person has to do something, namely this.
    Bad(String),
}

/// What is done to a machine, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    User,
    Home,
    Program,
    Service,
    Volume,
}

impl Check {
    fn new(what: &str, found: impl Into<String>, verdict: Verdict) -> Self {
        Self { what: what.to_owned(), found: found.into(), verdict }
    }

    fn good_if(good: bool, what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(what, found, if good { Verdict::Good } else { Verdict::Bad(remedy.into()) })
    }
}

/// What a machine says of itself: `NAME=VALUE` lines.
const LOOK: &str = r#"
say() { printf '%s=%s\n' "$1" "$2"; }
say machine "$(uname -m)"
say now "$(date +%s.%N)"
say uid "$(id -u)"
say user "$(id -u "$OS_USER" 2>/dev/null || true)"
say taken "$(getent passwd "$WANTED" | cut -d: -f1)"
if [ -d /run/systemd/system ]; then say systemd yes; fi
place=$HOME_DIR; while [ ! -d "$place" ]; do place=$(dirname "$place"); done
say free "$(df -Pk "$place" | awk 'NR == 2 { print $4 }')"
if [ -d "$HOME_DIR" ]; then say home "$(stat -c '%U %a' "$HOME_DIR")"; fi
for dir in "${BIN_DIR:-/nowhere}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    if [ -x "$dir/postgres" ]; then say postgres "$("$dir/postgres" --version | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p') $dir"; fi
done
for port in $PORTS; do
    hex=$(printf ':%04X' "$port")
    if grep -hqi -e "^ *[0-9]*: [0-9A-F]*$hex [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6 2>/dev/null; then say listening "$port"; fi
done
if [ -e "$PROGRAM" ]; then say program "$(sha256sum "$PROGRAM" | cut -d' ' -f1)"; fi
if [ -e "/etc/systemd/system/$UNIT" ]; then say unit "$(sha256sum "/etc/systemd/system/$UNIT" | cut -d' ' -f1)"; fi
if [ -d /run/systemd/system ]; then say active "$(systemctl is-active "$UNIT" 2>/dev/null || true)"; fi
"#;

/// The values of one name.
struct Said(String);

impl Said {
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .lines()
            .filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
            .filter(|value| !value.is_empty())
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }
}

impl Machine {
    /// Looks at what a node needs: the machine or the engine, clock, disk, ports, users, PostgreSQL, and `program`, the pgdock
    /// that is to run there. Changes nothing.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer.
    pub async fn inspect(&self, program: &[u8], clock: &dyn Clock) -> Result<Vec<Check>> {
        Ok(self.look(program, clock).await?.into_iter().map(|(check, _)| check).collect())
    }

    /// Does what [`inspect`](Self::inspect) found to be done, tells each step, and looks again.
    ///
    /// # Errors
    /// `NeedsOperator` when a person has to do something first: then nothing is changed. Else what a step fails with.
    pub async fn prepare(
        &self,
        program: &[u8],
        clock: &dyn Clock,
        mut telling: impl FnMut(&str) + Send,
    ) -> Result<Vec<Check>> {
        let found = self.look(program, clock).await?;
        let bad: Vec<_> = found
            .iter()
            .filter_map(|(check, _)| match &check.verdict {
                Verdict::Bad(remedy) => Some((format!("{}: {}", check.what, check.found), remedy)),
                _ => None,
            })
            .collect();
        if !bad.is_empty() {
            let text = bad.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join("; ");
            let error =
                Error::needs_operator(format!("the machine of the node is not fit yet. node={}, {text}", self.node()));
            return Err(bad.iter().fold(error, |error, (_, remedy)| error.hint(remedy.as_str())));
        }
        for (check, step) in &found {
            if let (Verdict::Todo(what), Some(step)) = (&check.verdict, step) {
                telling(what);
                self.take(*step, program).await?;
            }
        }
        self.inspect(program, clock).await
    }

    async fn look(&self, program: &[u8], clock: &dyn Clock) -> Result<Vec<(Check, Option<Step>)>> {
        match self.container() {
            None => self.look_at_server(program, clock).await,
            Some(_) => self.look_at_engine(clock).await,
        }
    }

    async fn look_at_engine(&self, clock: &dyn Clock) -> Result<Vec<(Check, Option<Step>)>> {
        let Some((engine, container)) = self.container() else { return Ok(Vec::new()) };
        let about = engine.about().await?;
        let before = clock.wall();
        let theirs = engine.clock().await?;
        let mut checks = vec![
            (
                Check::new(
                    "engine",
                    format!("Docker {}, API {}, {}", about.version, about.api, about.architecture),
                    Verdict::Good,
                ),
                None,
            ),
            (clock_check(theirs, before, clock.wall()), None),
        ];
        let name = &container.image;
        let build = format!("pgdock image build --tag {name} {}", self.node());
        let last = match engine.image(name).await? {
            None => (Check::new("image", format!("{name} is not there"), Verdict::Bad(build)), None),
            Some(image) if image.architecture != about.architecture && !about.architecture.is_empty() => {
                (Check::new("image", format!("{name} is for {}", image.architecture), Verdict::Bad(build)), None)
            }
            Some(_) => {
                let volume = format!("give {} to the user {UID}", container.volume);
                checks.push((Check::new("image", name, Verdict::Good), None));
                // Whose a folder is, only a container can tell; the one that gives it tells, too.
                let todo = if engine.container(&container.name).await?.is_some() {
                    Verdict::Good
                } else {
                    Verdict::Todo(volume)
                };
                (Check::new("volume", &container.volume, todo), Some(Step::Volume))
            }
        };
        checks.push(last);
        let standing = self.standing().await?;
        checks.push((
            Check::new("container", format!("{}, {standing:?}", container.name).to_lowercase(), Verdict::Good),
            None,
        ));
        Ok(checks)
    }

    async fn look_at_server(&self, program: &[u8], clock: &dyn Clock) -> Result<Vec<(Check, Option<Step>)>> {
        let settings = self.settings();
        let (node, postgres) = (settings.node(self.node())?, &settings.postgres);
        let home = self.home().display().to_string();
        let bin_dir = postgres.bin_dir.as_ref().map_or(String::new(), |dir| dir.display().to_string());
        let command = Command::shell(LOOK)
            .env("HOME_DIR", home.as_str())
            .env("OS_USER", postgres.user.as_str())
            .env("WANTED", UID.to_string())
            .env("BIN_DIR", bin_dir)
            .env("PORTS", format!("{} {}", node.postgres_port, node.agent_port))
            .env("PROGRAM", PROGRAM)
            .env("UNIT", UNIT);
        let before = clock.wall();
        let said = Said(super::run(&**self.executor(), "the machine cannot be looked at", &command).await?.text());
        let after = clock.wall();
        let mut checks = Vec::new();
        let mut add = |check: Check, step: Option<Step>| checks.push((check, step));

        let uid = said.one("uid").unwrap_or("unknown");
        add(Check::good_if(uid == "0", "login", format!("uid {uid}"), "log in as root: [ssh] user = \"root\""), None);
        let machine = said.one("machine").unwrap_or("unknown");
        let own = image::machine_of(program);
        let theirs = match machine {
            "x86_64" => Some("amd64"),
            "aarch64" => Some("arm64"),
            _ => None,
        };
        let fits = own.is_none() || own == theirs;
        add(Check::good_if(fits, "machine", machine, "build pgdock for it, and name it: --program FILE"), None);
        let systemd = said.one("systemd").is_some();
        let remedy = "executor = \"ssh\" needs systemd there; or use executor = \"docker\"";
        add(Check::good_if(systemd, "systemd", if systemd { "runs" } else { "does not run" }, remedy), None);
        if let Some(theirs) = said
            .one("now")
            .and_then(|now| now.parse::<f64>().ok())
            .and_then(|now| Timestamp::from_nanosecond((now * 1e9) as i128).ok())
        {
            add(clock_check(theirs, before, after), None);
        }
        let free = said.one("free").and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) << 10;
        let room = format!("{} MiB are free for {home}", free >> 20);
        add(
            Check::good_if(
                free >= DISK_FREE_MIN,
                "disk",
                room,
                format!("make room: {} MiB at least", DISK_FREE_MIN >> 20),
            ),
            None,
        );
        let active = said.one("active") == Some("active");
        for port in said.all("listening").filter(|port| !active && !self.may_be_taken(port)) {
            let remedy = "stop what listens there, or set postgres_port and agent_port of the node";
            add(Check::new("port", format!("{port} is taken"), Verdict::Bad(remedy.to_owned())), None);
        }
        let versions: Vec<&str> = said.all("postgres").collect();
        let wanted = |found: &&str| {
            let major = found.split(' ').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
            postgres.version.map_or((14..=18).contains(&major), |version| version == major)
        };
        let package = postgres.version.map_or("postgresql".to_owned(), |version| format!("postgresql-{version}"));
        let remedy = format!(
            "apt-get install postgresql-common; echo 'create_main_cluster = false' >> /etc/postgresql-common/createcluster.conf; apt-get install {package}"
        );
        let found = if versions.is_empty() { "none".to_owned() } else { versions.join(", ") };
        add(Check::good_if(versions.iter().any(wanted), "PostgreSQL", found, remedy), None);

        match (said.one("user"), said.one("taken")) {
            (Some(uid), _) => add(Check::new("user", format!("{}, uid {uid}", postgres.user), Verdict::Good), None),
            (None, Some(other)) => {
                let remedy = format!("useradd --system --shell /bin/sh {}", postgres.user);
                add(
                    Check::new(
                        "user",
                        format!("there is no {}, and {UID} is {other}", postgres.user),
                        Verdict::Bad(remedy),
                    ),
                    None,
                );
            }
            (None, None) => {
                let todo = Verdict::Todo(format!("make the user {} with the number {UID}", postgres.user));
                add(Check::new("user", format!("there is no {}", postgres.user), todo), Some(Step::User));
            }
        }
        let whose = format!("{} 700", postgres.user);
        let todo = Verdict::Todo(format!("make {home} for {}", postgres.user));
        match said.one("home") {
            Some(found) if found == whose => add(Check::new("home", home, Verdict::Good), Some(Step::Home)),
            found => add(
                Check::new("home", found.map_or("not there".to_owned(), |f| format!("{home} of {f}")), todo),
                Some(Step::Home),
            ),
        }
        let sum = hex(program);
        let verdict = |name: &str, sum: &str, what: String| {
            if said.one(name) == Some(sum) { Verdict::Good } else { Verdict::Todo(what) }
        };
        let bring = verdict("program", &sum, format!("bring {PROGRAM}"));
        add(
            Check::new("program", if said.one("program").is_some() { PROGRAM } else { "not there" }, bring),
            Some(Step::Program),
        );
        let bring = verdict("unit", &hex(self.service().as_bytes()), format!("install {UNIT}"));
        add(
            Check::new("service", if said.one("unit").is_some() { UNIT } else { "not there" }, bring),
            Some(Step::Service),
        );
        Ok(checks)
    }

    /// The text of the node's service.
    fn service(&self) -> String {
        let user = &self.settings().postgres.user;
        let text = SERVICE.replace(&format!("--home {HOME}\n"), &format!("--home {}\n", self.home().display()));
        text.replace("User=postgres\nGroup=postgres\n", &format!("User={user}\nGroup={user}\n"))
    }

    async fn take(&self, step: Step, program: &[u8]) -> Result<()> {
        let user = self.settings().postgres.user.clone();
        let home = self.home().display().to_string();
        match step {
            Step::User => {
                let line = r#"groupadd --gid "$ID" -- "$OS_USER" && useradd --uid "$ID" --gid "$ID" --home-dir "$HOME_DIR" --no-create-home --shell /bin/sh -- "$OS_USER""#;
                let add = Command::shell(line).env("ID", UID.to_string()).env("OS_USER", user).env("HOME_DIR", home);
                super::run(&**self.executor(), "the user cannot be made", &add).await.map(drop)
            }
            Step::Home => {
                let group = r#"install -d -m 0700 -o "$OS_USER" -g "$(id -g "$OS_USER")" -- "$HOME_DIR""#;
                let make = Command::shell(group).env("OS_USER", user).env("HOME_DIR", home);
                super::run(&**self.executor(), "the folder cannot be made", &make).await.map(drop)
            }
            Step::Program => {
                // Beside its place, and then into it: the one that runs stays as it is.
                let line = r#"set -e; cat >"$PROGRAM.new"; chmod 755 "$PROGRAM.new"; "$PROGRAM.new" --version >&2; sync "$PROGRAM.new"; mv -f -T "$PROGRAM.new" "$PROGRAM""#;
                let bring = Command::shell(line).env("PROGRAM", PROGRAM).timeout(UPLOAD);
                let bring = bring.stdin(Stdin::Bytes(Bytes::copy_from_slice(program)));
                super::run(&**self.executor(), "the program cannot be brought", &bring).await.map(drop).map_err(|e| {
                    e.hint("it must run there: a pgdock that is built for x86_64-unknown-linux-musl runs on any Linux: --program FILE")
                })
            }
            Step::Service => {
                let path = format!("/etc/systemd/system/{UNIT}");
                self.executor().put_bytes(self.service().as_bytes(), path.as_ref(), 0o644).await?;
                self.executor().run_checked(&Command::new("systemctl").arg("daemon-reload")).await.map(drop)
            }
            Step::Volume => self.give_volume().await,
        }
    }
}

fn clock_check(theirs: Timestamp, before: Timestamp, after: Timestamp) -> Check {
    // What lies between the question and the answer is nobody's fault.
    let off = if theirs < before { before.duration_since(theirs) } else { theirs.duration_since(after) };
    let off = Duration::try_from(off).unwrap_or_default();
    let found = if off.is_zero() { "right".to_owned() } else { format!("off by {:.1} s", off.as_secs_f64()) };
    Check::good_if(off <= CLOCK, "clock", found, "set it, and keep it so: apt-get install chrony")
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_time_that_the_question_took() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        for (theirs, good) in [(95, true), (94, false), (105, true), (115, true), (116, false)] {
            let check = clock_check(at(theirs), at(100), at(110));
            assert_eq!(check.verdict == Verdict::Good, good, "{theirs}: {check:?}");
        }
        assert_eq!(clock_check(at(105), at(100), at(110)).found, "right");
    }

    #[test]
    fn the_service_has_what_is_replaced_in_it() {
        assert!(SERVICE.contains(&format!("--home {HOME}\n")) && SERVICE.contains("User=postgres\nGroup=postgres\n"));
    }
}

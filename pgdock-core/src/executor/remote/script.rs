//! What the node's shell is told: programs of POSIX sh, and how values travel to them.
//!
//! The command line of a session, or of what an engine starts in a container, is visible to every user of the node, and is read by the login shell of the user,
//! whichever that is. So it is always the same, and only starts `/bin/sh` with an empty environment, which reads
//! one line from its standard input and, if it came whole, evaluates it. That line holds the program, and all values; what follows
//! it on the standard input is the program's own, since `read` takes no byte beyond the end of its line.
//!
//! The shell is the leader of a session: the server of SSH makes each of its processes one, and so does an engine.

use crate::executor::Command;
use crate::executor::command::PATH;
use crate::{Error, Result};

/// How many seconds a command may outlive its timeout where its caller cannot be heard any more.
const DEADLINE_SLACK_S: u64 = 60;

/// What every session runs. No character in it means anything to any login shell.
pub(in crate::executor) fn bootstrap() -> String {
    format!("exec env -i PATH={PATH} LC_ALL=C /bin/sh -c 'IFS= read -r l && eval \"$l\"'")
}

/// Reads `/proc/PID/stat` of `$1`; afterwards `$6` is its state, `$7` its parent, and `${25}` when it started. A
/// number of a process can be another's later, together with the time of its start it cannot.
const STAT: &str =
    r#"{ read -r l <"/proc/$1/stat"; } 2>/dev/null || exit 0; l=${l##*) }; set -- "$1" "$2" "$3" "$4" "$5" $l"#;

/// Kills a group when the connection that it came by is gone, or its time is over, and ends with its leader.
///
/// `watch PID START PARENT SECONDS`: with the server's process for the connection the leader loses its parent.
fn watchdog() -> String {
    format!(
        "i=0; while sleep 1; do {STAT}; [ \"${{25}}\" = \"$2\" ] || exit 0; case $6 in Z|X) exit 0;; esac; i=$((i+1)); \
         if [ \"$7\" != \"$3\" ] || [ \"$i\" -ge \"$4\" ]; then kill -9 -\"$1\"; exit 0; fi; done"
    )
}

/// Kills a group as long as its leader is the one that was meant.
pub(in crate::executor) fn kill(process: &Process) -> Result<Vec<u8>> {
    let script = format!("{STAT}; [ \"${{25}}\" = \"$2\" ] && kill -9 -\"$1\"; exit 0");
    line(&format!("set -- {} {} - - -; {script}", process.pid, process.started))
}

/// A process of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::executor) struct Process {
    /// Its number, which is that of its group.
    pub(in crate::executor) pid: u32,
    /// When it started, in ticks since the node did.
    pub(in crate::executor) started: u64,
}

/// Says who the shell is: the mark, `run PID START`.
fn begin(mark: &str) -> String {
    format!("set -- $$ - - - -; {STAT}; echo \"{mark} run $1 ${{25}}\"; set --")
}

/// Runs a command. First the shell says on both outputs, each on a line of its own, the mark and what became
/// of it: `run PID START`, `no-program`, `no-dir`. Then it becomes the program.
///
/// The program is the leader of a session, as the shell was.
pub(in crate::executor) fn run(command: &Command, mark: &str, stdin: bool) -> Result<Vec<u8>> {
    let (dir, _, timeout) = command.surroundings();
    let dir = dir.map_or_else(|| "/".into(), |dir| dir.to_string_lossy());
    let seconds = timeout.as_secs().saturating_add(DEADLINE_SLACK_S);
    let mut script = format!(
        "_pgdock_m={mark}; _pgdock_say() {{ echo \"$_pgdock_m $*\"; echo \"$_pgdock_m $*\" >&2; }}; \
         cd -- {} 2>/dev/null || {{ _pgdock_say no-dir; exit 126; }}; set -- $$ - - - -; {STAT}; \
         ( setsid /bin/sh -c {} watch \"$1\" \"${{25}}\" \"$7\" {seconds} </dev/null >/dev/null 2>&1 & ); \
         _pgdock_s=\"run $1 ${{25}}\"; set --; unset OLDPWD SHLVL PWD LC_ALL l; ",
        quote(&dir),
        quote(&watchdog()),
    );
    for (name, value) in command.environment() {
        let head = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(head) || !name.chars().all(|c| head(c) || c.is_ascii_digit()) {
            return Err(Error::invalid(format!(
                "a shell cannot set a variable of this name. name={name:?}, command={command}"
            )));
        }
        script += &format!("export {name}={}; ", quote(value));
    }
    let program = quote(command.program());
    if command.program().contains('/') {
        script += &format!(
            "_pgdock_p={program}; [ -f \"$_pgdock_p\" ] && [ -x \"$_pgdock_p\" ] || {{ _pgdock_say no-program; exit 127; }}; "
        );
    } else {
        // `command -v` would also find what only the shell has.
        script += &format!(
            "_pgdock_p=; _pgdock_i=${{IFS-unset}}; IFS=:; set -f; for _pgdock_d in $PATH; do if [ -z \"$_pgdock_p\" ] && [ -f \"${{_pgdock_d:-.}}/\"{program} ] \
             && [ -x \"${{_pgdock_d:-.}}/\"{program} ]; then _pgdock_p=${{_pgdock_d:-.}}/{program}; fi; done; set +f; \
             if [ \"$_pgdock_i\" = unset ]; then unset IFS; else IFS=$_pgdock_i; fi; \
             [ -n \"$_pgdock_p\" ] || {{ _pgdock_say no-program; exit 127; }}; "
        );
    }
    if !stdin {
        script += "exec </dev/null; ";
    }
    script += "_pgdock_say \"$_pgdock_s\"; exec \"$_pgdock_p\"";
    for argument in command.arguments() {
        script.push(' ');
        script += &quote(argument);
    }
    line(&script).map_err(|e| e.at(format_args!("command={command}")))
}

/// Receives a file beside the one it is to replace, which is there once the mark is said, and says how many bytes
/// have come.
pub(in crate::executor) fn receive(path: &str, mark: &str, dir: &str, temporary: &str) -> Result<Vec<u8>> {
    line(&format!(
        "_pgdock_p={}; _pgdock_d={}; _pgdock_t={}; umask 077; set -C; \
         [ -d \"$_pgdock_d\" ] || {{ echo 'No such file or directory' >&2; exit 2; }}; \
         [ ! -d \"$_pgdock_p\" ] || {{ echo 'Is a directory' >&2; exit 2; }}; \
         find \"$_pgdock_d\" -maxdepth 1 -name '{TEMPORARY}*' -mmin +1440 -exec rm -f -- {{}} + 2>/dev/null; \
         exec 4>\"$_pgdock_t\"; {}; cat >&4 || exit 3; wc -c <\"$_pgdock_t\"",
        quote(path),
        quote(dir),
        quote(temporary),
        begin(mark),
    ))
}

/// Puts what was received into its place. Ends with 4 when it is there, and the folder could not be synced.
pub(in crate::executor) fn land(path: &str, mark: &str, dir: &str, temporary: &str, mode: u32) -> Result<Vec<u8>> {
    line(&format!(
        "_pgdock_p={}; _pgdock_d={}; _pgdock_t={}; {}; \
         [ ! -d \"$_pgdock_p\" ] || {{ echo 'Is a directory' >&2; exit 2; }}; \
         chmod {:o} \"$_pgdock_t\" && sync \"$_pgdock_t\" && mv -f -T \"$_pgdock_t\" \"$_pgdock_p\" || exit 3; sync \"$_pgdock_d\" || exit 4",
        quote(path),
        quote(dir),
        quote(temporary),
        begin(mark),
        mode & 0o7777,
    ))
}

/// Removes what was received.
pub(in crate::executor) fn discard(mark: &str, temporary: &str) -> Result<Vec<u8>> {
    line(&format!("_pgdock_t={}; {}; rm -f \"$_pgdock_t\"", quote(temporary), begin(mark)))
}

/// Sends a file.
pub(in crate::executor) fn send(path: &str, mark: &str) -> Result<Vec<u8>> {
    line(&format!("_pgdock_p={}; {}; exec cat <\"$_pgdock_p\"", quote(path), begin(mark)))
}

/// How the names of files begin that are not whole yet.
pub(in crate::executor) const TEMPORARY: &str = ".pgdock-put-";

/// One word of a shell, whatever is in it. Line feeds are in `$_pgdock_n`.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('\n', "'\"$_pgdock_n\"'"))
}

/// A script as the line that the shell reads.
fn line(script: &str) -> Result<Vec<u8>> {
    if script.contains('\0') {
        return Err(Error::invalid("no argument, variable or path can hold the character NUL"));
    }
    Ok(format!("_pgdock_n=$(printf '\\nx'); _pgdock_n=${{_pgdock_n%x}}; {script}\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command as Process, Stdio};

    use super::*;

    /// What a shell of this machine makes of a script, with what it reads after it.
    fn shell(script: &[u8], rest: &[u8]) -> (Vec<u8>, String) {
        let mut child = Process::new("/bin/sh")
            .args(["-c", &bootstrap()])
            .env("LEAKED", "yes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&[script, rest].concat()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[test]
    fn every_text_arrives_unchanged() {
        let odd: String = (1..0x250).filter_map(char::from_u32).chain("🐘 $(id) `id` \\ !! ~ * \n\n".chars()).collect();
        let command = Command::shell(r#"printf '%s|' "$1" "$ODD" "${LEAKED-none}"; cat"#);
        let command = command.arg("sh").arg(&odd).env("ODD", odd.as_str());
        let (stdout, stderr) = shell(&run(&command, "mark", true).unwrap(), b"its\0own\n");
        let text = String::from_utf8(stdout).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        assert!(first.starts_with("mark run ") && stderr.starts_with("mark run "), "{first} {stderr}");
        assert_eq!(rest, format!("{odd}|{odd}|none|its\0own\n"));
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let nul = run(&Command::new("true").arg("a\0b"), "mark", false).unwrap_err();
        assert!(nul.to_string().contains("NUL") && nul.to_string().contains("command="), "{nul}");
        for name in ["", "1A", "A-B", "A;id"] {
            assert!(run(&Command::new("true").env(name, "x"), "mark", false).is_err(), "{name}");
        }
    }

    #[test]
    fn the_command_line_of_a_session_holds_no_value() {
        assert!(!bootstrap().contains("_pgdock_m=") && bootstrap().lines().count() == 1);
        let (stdout, _) = shell(&run(&Command::new("no-such-program-anywhere"), "mark", false).unwrap(), b"");
        assert_eq!(stdout, b"mark no-program\n");
        let (stdout, _) = shell(&run(&Command::new("true").dir("/no/such"), "mark", false).unwrap(), b"");
        assert_eq!(stdout, b"mark no-dir\n");
    }
}

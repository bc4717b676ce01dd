//! [`ScriptFailoverIp`]: a user's program moves the address.
//!
//! ```text
//! script assign      points the address to PGDOCK_NODE; exits with 0 when it does
//! script current     prints the name or an address of whoever holds it, or nothing
//! ```
//! Both get `PGDOCK_ADDRESS` and the variables given here; `assign`, and the `current` that verifies it, also
//! get `PGDOCK_CLUSTER`, `PGDOCK_NODE`, `PGDOCK_NODE_ADDRESS` and `PGDOCK_TERM`. Of the agent's environment
//! they get nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::{FailoverIp, Holder, Target};
use crate::executor::{Command, ExecutorExt, LocalExecutor, Output};
use crate::{Error, ErrorKind, NodeName, Result};

/// How long one run may take, unless told otherwise. Some providers take most of a minute.
const TIMEOUT: Duration = Duration::from_secs(90);
/// How much of what a script says is kept.
const OUTPUT_MAX: usize = 16 << 10;

/// An address that a program of the user's moves.
pub struct ScriptFailoverIp {
    script: PathBuf,
    address: String,
    vars: BTreeMap<String, SecretString>,
    timeout: Duration,
    settle: (u32, Duration),
}

impl ScriptFailoverIp {
    /// The program, and the address that it moves.
    pub fn new(script: impl Into<PathBuf>, address: impl Into<String>) -> Self {
        Self {
            script: script.into(),
            address: address.into(),
            vars: BTreeMap::new(),
            timeout: TIMEOUT,
            settle: (10, Duration::from_millis(500)),
        }
    }

    /// A variable for its environment, as a rule a token. It is never logged.
    #[must_use]
    pub fn var(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// How long one run may take. Then the program and its children are killed. Default 90 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often it is looked whether the address has moved, and the pause between. A provider may need a
    /// moment to show what it has done. Default ten times, half a second apart.
    #[must_use]
    pub fn settle(mut self, looks: u32, pause: Duration) -> Self {
        self.settle = (looks.max(1), pause);
        self
    }

    fn command(&self, verb: &str, target: Option<&Target>) -> Command {
        let mut command =
            Command::new(self.script.display().to_string()).arg(verb).timeout(self.timeout).output_max(OUTPUT_MAX);
        for (name, value) in &self.vars {
            command = command.env(name, value.clone());
        }
        if let Some(target) = target {
            command = command
                .env("PGDOCK_CLUSTER", target.cluster.as_str())
                .env("PGDOCK_NODE", target.node.as_str())
                .env("PGDOCK_NODE_ADDRESS", target.address.as_str())
                .env("PGDOCK_TERM", target.term.to_string());
        }
        command.env("PGDOCK_ADDRESS", self.address.as_str())
    }

    /// Runs it; every way to fail says which script, which verb, and what it said.
    async fn run(&self, verb: &str, target: Option<&Target>) -> Result<Output> {
        let about = format!("address={}, script={}, verb={verb}", self.address, self.script.display());
        let output = LocalExecutor.output(&self.command(verb, target)).await.map_err(|e| match e.kind() {
            ErrorKind::Invalid => Error::invalid(format!("the failover script cannot be started. {about}"))
                .because(e.chain())
                .hint("check that the file is there, is executable, and begins with `#!` and an interpreter"),
            _ => Error::unavailable(format!(
                "the failover script took too long and was killed. {about}, seconds={}",
                self.timeout.as_secs_f64()
            ))
            .outcome_unknown(),
        })?;
        if output.exit.success() {
            return Ok(output);
        }
        let failed = Error::unavailable(format!("the failover script failed. {about}, exit={}", output.exit));
        // A script that failed half way may have moved the address all the same.
        let failed = if verb == "assign" { failed.outcome_unknown() } else { failed };
        // Secrets go before the text is cut, which could leave a part of one.
        let hide = |bytes: Vec<u8>| self.without_secrets(String::from_utf8_lossy(&bytes).into_owned()).into_bytes();
        let said = Output { stdout: hide(output.stdout), stderr: hide(output.stderr), ..output }.tail();
        Err(if said.is_empty() { failed } else { failed.because(said) })
    }

    /// A script may repeat its token in what it says: `set -x` does.
    fn without_secrets(&self, mut text: String) -> String {
        for secret in self.vars.values().map(ExposeSecret::expose_secret).filter(|secret| secret.len() >= 4) {
            text = text.replace(secret, "…");
        }
        text
    }

    async fn holder(&self, target: Option<&Target>) -> Result<Option<Holder>> {
        let printed = self.run("current", target).await?.text();
        match printed.lines().collect::<Vec<_>>()[..] {
            [] => Ok(None),
            [line] => Ok(Some(NodeName::new(line).map_or_else(|_| Holder::Address(line.to_owned()), Holder::Node))),
            _ => Err(Error::invalid(format!(
                "the failover script must print one line, the name or the address of the holder. address={}, script={}, lines={}",
                self.address,
                self.script.display(),
                printed.lines().count()
            ))),
        }
    }
}

/// Without the values of its variables.
impl std::fmt::Debug for ScriptFailoverIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptFailoverIp")
            .field("script", &self.script)
            .field("address", &self.address)
            .field("vars", &self.vars.keys().collect::<Vec<_>>())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for ScriptFailoverIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}", self.address, self.script.display())
    }
}

#[async_trait]
impl FailoverIp for ScriptFailoverIp {
    async fn current(&self) -> Result<Option<Holder>> {
        self.holder(None).await
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        self.run("assign", Some(target)).await?;
        let (looks, pause) = self.settle;
        let mut held = None;
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(pause).await;
            }
            held = self.holder(Some(target)).await.map_err(Error::outcome_unknown)?;
            if held.as_ref().is_some_and(|holder| holder.is(target)) {
                return Ok(());
            }
        }
        let held = held.map_or_else(|| "nobody".to_owned(), |holder| self.without_secrets(holder.to_string()));
        Err(Error::unavailable(format!(
            "the script said it succeeded, but the address still points at {held}. address={}, node={}, script={}",
            self.address,
            target.node,
            self.script.display()
        ))
        .hint(format!("run it by hand: PGDOCK_NODE={} {} assign", target.node, self.script.display()))
        .outcome_unknown())
    }
}

//! `pgdock node shell`

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use clap::Args;
use pgdock_core::settings::{EngineUrl, Reach, SshTarget};
use pgdock_core::{Error, NodeName, Result, Settings};

use crate::context::Context;
use crate::exit::Exit;

/// Open a shell on a node, by this machine's own `ssh` or `docker`
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// The node
    node: NodeName,
}

pub(crate) async fn run(context: &Context, args: ShellArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let shell = "if command -v bash >/dev/null; then exec bash; else exec sh; fi";
    let words = ["/bin/sh", "-c", shell].map(ToOwned::to_owned);
    interactive(&settings, &args.node, &words)
}

/// Becomes a program on a node that a person sits at. What moves a terminal to and fro is `ssh`'s and `docker`'s own.
pub(super) fn interactive(settings: &Settings, node: &NodeName, words: &[String]) -> Result<Exit> {
    let own = settings.node(node)?;
    let mut command = match &own.reach {
        Reach::Ssh(target) => {
            let mut command = ssh(settings, target);
            command.arg(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
            command
        }
        Reach::Docker(container) => {
            let mut command = Command::new("docker");
            match &container.engine {
                EngineUrl::Tcp { .. } => {
                    command.arg("--host").arg(container.engine.to_string()).arg("--tlsverify");
                    for (flag, file) in [("--tlscacert", "ca.pem"), ("--tlscert", "cert.pem"), ("--tlskey", "key.pem")]
                    {
                        if let Some(dir) = &settings.docker.certificates {
                            command.arg(flag).arg(dir.join(file));
                        }
                    }
                }
                engine => {
                    command.arg("--host").arg(engine.to_string());
                }
            }
            command.args(["exec", "--interactive", "--tty", &container.container]).args(words);
            command
        }
        _ => {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).current_dir(&own.home);
            command
        }
    };
    let program = command.get_program().to_string_lossy().into_owned();
    Err(Error::invalid(format!("a terminal needs a program that cannot be started. program={program}"))
        .because(command.exec())
        .hint("`pgdock node exec` runs commands without it"))
}

fn ssh(settings: &Settings, target: &SshTarget) -> Command {
    let mut command = Command::new("ssh");
    command.args(["-t", "-p", &target.port.to_string(), "-l", &target.user]);
    if let Some(identity) = &settings.ssh.identity {
        command.arg("-i").arg(identity);
    }
    if let Some(known) = &settings.ssh.known_hosts {
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
    }
    command.arg("--").arg(&target.host);
    command
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

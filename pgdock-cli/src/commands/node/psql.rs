//! `pgdock node psql`

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use pgdock_core::executor::Command;
use pgdock_core::postgres::instance::Layout;
use pgdock_core::{NodeName, Result, Settings};

use super::{exec, shell};
use crate::context::Context;
use crate::exit::Exit;

/// Run psql on a node as PostgreSQL's superuser, by the socket of its own machine
#[derive(Debug, Args)]
pub(crate) struct PsqlArgs {
    /// The node
    node: NodeName,
    /// The database [default: that of the application]
    #[arg(long, short, value_name = "NAME")]
    database: Option<String>,
    /// How long it may run, in seconds, where no person sits at it
    #[arg(long, default_value_t = 3_600, value_name = "SECONDS")]
    timeout: u64,
    /// Arguments of psql
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Whoever is root becomes PostgreSQL's user, whom the server knows.
const AS_ITS_USER: &str =
    r#"user=$1; shift; if [ "$(id -u)" = 0 ]; then exec runuser -u "$user" -- "$@"; else exec "$@"; fi"#;

pub(crate) async fn run(context: &Context, args: PsqlArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let words = words(&settings, &args)?;
    let asks =
        args.arguments.iter().any(|word| word.starts_with("-c") || word.starts_with("-f") || word.starts_with("-l"));
    if !asks && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return shell::interactive(&settings, &args.node, &words);
    }
    let mut words = words.into_iter();
    let program = words.next().unwrap_or_default();
    let command =
        Command::new(program).args(words).timeout(Duration::from_secs(args.timeout)).env("PGAPPNAME", "pgdock");
    exec::pass_through(context, &args.node, command).await
}

fn words(settings: &Settings, args: &PsqlArgs) -> Result<Vec<String>> {
    let node = settings.node(&args.node)?;
    let postgres = &settings.postgres;
    let program = postgres.bin_dir.as_ref().map_or("psql".to_owned(), |dir| dir.join("psql").display().to_string());
    let socket = Layout::new(&node.home, node.postgres_port)?.run.display().to_string();
    let port = node.postgres_port.to_string();
    let database = args.database.as_deref().unwrap_or(&postgres.database);
    let fixed = ["/bin/sh", "-c", AS_ITS_USER, "sh", &postgres.user, &program];
    let own = ["--no-psqlrc", "-h", &socket, "-p", &port, "-U", "postgres", "-d", database];
    Ok(fixed.iter().chain(&own).map(ToString::to_string).chain(args.arguments.iter().cloned()).collect())
}

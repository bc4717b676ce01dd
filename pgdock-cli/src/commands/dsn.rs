//! `pgdock dsn`

use clap::Args;
use pgdock_core::Result;
use secrecy::ExposeSecret as _;

use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Print the connection URI for applications: every node is named, and clients find the primary
#[derive(Debug, Args)]
pub(crate) struct DsnArgs {
    /// For a standby; the primary where no standby answers
    #[arg(long)]
    standby: bool,
    /// With the password
    #[arg(long)]
    password: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: &Context, args: DsnArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let mut dsn = if args.password { cluster.dsn_with_password() } else { cluster.dsn() };
    if args.standby {
        dsn = dsn.standby();
    }
    let uri = dsn.uri();
    match args.output.output {
        Format::Json => output::json(&serde_json::json!({ "uri": uri.expose_secret() }))?,
        Format::Table => output::data(uri.expose_secret())?,
    }
    if !args.password {
        let file = cluster.secrets().dir.join("app.password");
        output::note(&format!("hint: the password is in {}: PGPASSWORD=\"$(cat {0})\"", file.display()));
    }
    Ok(Exit::Done)
}

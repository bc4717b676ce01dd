//! `pgdock export`

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use pgdock_core::{Export, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Print the cluster's addresses in the words of other programs: Rails, JDBC, PgBouncer, HAProxy …
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// For whom
    format: Format,
    /// Where that program finds the authority's certificate [default: the file in secrets/]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// An [`Export`], as clap lists them.
#[derive(Clone, Copy, Debug)]
struct Format(Export);

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Format; Export::ALL.len()] = {
            let mut all = [Format(Export::ALL[0]); Export::ALL.len()];
            let mut i = 0;
            while i < all.len() {
                all[i] = Format(Export::ALL[i]);
                i += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.as_str()))
    }
}

pub(crate) fn run(context: &Context, args: &ExportArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let ca = args.ca.clone().unwrap_or_else(|| settings.secrets().join("ca.crt"));
    output::data(&args.format.0.render(&settings, &ca)?)?;
    let file = settings.secrets().join("app.password");
    output::note(&format!("hint: the password of {} is in {}", settings.postgres.owner, file.display()));
    Ok(Exit::Done)
}

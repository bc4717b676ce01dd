//! `pgdock adopt`

use std::path::{Path, PathBuf};

use clap::Args;
use pgdock_core::adopt::{self, Around, Findings, Ledger, Source, Wishes};
use pgdock_core::clock::SystemClock;
use pgdock_core::cluster::plan::{Plan, Step};
use pgdock_core::scaffold::{Scaffold, ScaffoldWitness};
use pgdock_core::settings::ExecutorKind;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, ErrorKind, Result, Settings};
use secrecy::SecretString;

use super::init;
use crate::cli::{Change, Format};
use crate::context::{Context, shares_its_witness};
use crate::exit::Exit;
use crate::output::{self, progress, status};
use crate::takeover::{self, Takeover};

/// Take over a running cluster that repmgr looks after
///
/// Looks at what there is, and tells everything that is in the way at once. Then writes cluster.toml and secrets, and takes over
/// one node after the other, the primary first: each PostgreSQL is started once more, the primary on its timeline. repmgrd must not
/// run anywhere. Interrupted, the same command goes on. The password of the role is read from PGPASSWORD, or from a file.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The new folder [default: that of --config, or the current one]
    dir: Option<PathBuf>,
    /// How to reach the primary as a superuser, in repmgr's database: "host=10.0.0.1 dbname=repmgr user=postgres"
    #[arg(long, value_name = "DSN")]
    from: String,
    /// A file with the password of that role, instead of PGPASSWORD
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The authority that signed the servers' certificates: connections are encrypted, and the servers proven
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The new cluster's name
    #[arg(long, default_value = "pgdock")]
    name: String,
    /// The application's database, where there are several
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// The role that the application logs in as [default: the database's owner]
    #[arg(long, value_name = "ROLE")]
    owner: Option<String>,
    /// A file with the password of that role, which stays as it is
    #[arg(long, value_name = "FILE")]
    app_password_file: Option<PathBuf>,
    /// What an acknowledged commit shall mean
    #[arg(long, value_parser = init::durability, default_value = "sync", value_name = "sync|quorum|async")]
    durability: Durability,
    /// Where the witness document shall live [default: a file on this machine]
    #[arg(long, value_name = "URL")]
    witness: Option<String>,
    /// The URL of the bucket's store, where it is not the provider's own
    #[arg(long, value_name = "URL", requires = "witness")]
    witness_endpoint: Option<String>,
    /// The region of the bucket
    #[arg(long, value_name = "REGION", requires = "witness")]
    witness_region: Option<String>,
    /// How commands reach the nodes: as processes of this machine, or over SSH
    #[arg(long, value_parser = init::executor, default_value = "local", value_name = "local|ssh")]
    executor: ExecutorKind,
    /// Where nodes keep their things; on the file system of the data directories, which are moved there
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where agents listen
    #[arg(long, default_value_t = 7432, value_name = "PORT")]
    agent_port: u16,
    /// A setting that is not taken over; may be given several times
    #[arg(long, value_name = "NAME")]
    drop_setting: Vec<String>,
    /// Leave out lines of pg_hba.conf that let anybody in
    #[arg(long)]
    drop_trust: bool,
    /// Only write the folder, to be looked through before the same command goes on
    #[arg(long)]
    prepare: bool,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: AdoptArgs) -> Result<Exit> {
    if args.executor == ExecutorKind::Docker {
        return Err(Error::invalid("a data directory of a machine is not taken over into a container")
            .hint("take it over with --executor ssh; or make a new cluster, and copy the data with pg_dump"));
    }
    let dir = args.dir.clone().or(context.named_dir().map(Path::to_owned)).unwrap_or_else(|| ".".into());
    let source = source(&args)?;
    let format = args.change.output.output;
    // One without settings is of a run that ended while it wrote the folder: it had done nothing yet.
    let ledger = Ledger::read(&dir)?.filter(|_| dir.join("cluster.toml").exists());
    if ledger.as_ref().is_some_and(|ledger| ledger.done) {
        output::done("this cluster is taken over already", format)?;
        return Ok(Exit::Done);
    }
    let ledger = match ledger {
        Some(ledger) => {
            if args.change.dry_run {
                let settings = Settings::from_path(&dir)?;
                let plan = takeover::rest(&settings, &ledger).await?;
                output::plan(&plan, format)?;
                return Ok(Exit::Done);
            }
            ledger
        }
        None => match begin(&args, &source, &dir).await? {
            Some(ledger) => ledger,
            None => return Ok(Exit::Done),
        },
    };
    if args.prepare {
        output::done(
            &format!("{} is written: look through it, then run the same command without --prepare", dir.display()),
            format,
        )?;
        return Ok(Exit::Done);
    }
    let context = context.at(&dir);
    shares_its_witness(&context.settings()?)?;
    let wishes = wishes(&args);
    let now = progress::during("taking over", async |progress| {
        Takeover::open(&context, &dir, source, wishes, ledger).await?.run(progress).await
    })
    .await?;
    match format {
        Format::Json => output::json(&now)?,
        Format::Table => {
            output::data(&status::render(&now))?;
            output::note(
                "next: keep what started PostgreSQL before from doing so at boot, and remove repmgr: docs/adopt.md",
            );
        }
    }
    Ok(Exit::Done)
}

/// Looks, judges, and writes the folder. Nothing is answered where it was only to be told what would be done.
async fn begin(args: &AdoptArgs, source: &Source, dir: &Path) -> Result<Option<Ledger>> {
    let picture = progress::during("looking at the cluster", async |_| adopt::look(source).await).await?;
    let mut found = adopt::judge(&picture, &wishes(args));
    let secret = |file: &Option<PathBuf>| file.as_deref().map(read_secret).transpose();
    let app = secret(&args.app_password_file)?;
    let mut around = Around {
        scaffold: Scaffold {
            durability: args.durability,
            executor: args.executor,
            agent_port: args.agent_port,
            witness: args.witness.clone().map(|url| ScaffoldWitness {
                url,
                endpoint: args.witness_endpoint.clone(),
                region: args.witness_region.clone(),
                account: None,
            }),
            ..Scaffold::new(&args.name, [])
        },
        root: args
            .root
            .as_ref()
            .map(std::path::absolute)
            .transpose()
            .map_err(|e| Error::invalid("--root").because(e))?,
        os_user: None,
        superuser: source.password_of("postgres"),
        app: app.as_ref(),
    };
    if !found.becomes.nodes.is_empty() {
        match adopt::settings(dir, &found.becomes, &around) {
            Ok(settings) => {
                let user = takeover::machines(&settings, &found.becomes.members(), &mut found.faults).await?;
                around.os_user = user;
            }
            Err(error) => found.faults.push((error.to_string(), error.hints().join("; "))),
        }
    }
    if app.is_none() && !found.becomes.owner.is_empty() {
        let owner = &found.becomes.owner;
        found.notes.push(format!(
            "role {owner} keeps its password: put it into secrets/app.password, for `pgdock dsn` and tests"
        ));
    }
    if around.superuser.is_none() {
        found.notes.push("role postgres gets a new password, that of secrets/superuser.password".into());
    }
    for note in &found.notes {
        output::note(&format!("note: {note}"));
    }
    if let Some(error) = in_the_way(&found) {
        return Err(error);
    }
    if args.change.dry_run {
        let Some(first) = found.becomes.nodes.first() else { return Ok(None) };
        let ledger = Ledger {
            system_identifier: found.becomes.system_identifier,
            primary: first.name.clone(),
            members: found.becomes.members(),
            roles: false,
            done: false,
        };
        let mut steps = vec![Step::WriteFolder { dir: dir.display().to_string() }];
        steps.extend(adopt::plan(&ledger, &[], false).steps);
        output::plan(&Plan { steps }, args.change.output.output)?;
        return Ok(None);
    }
    adopt::write(dir, &found.becomes, around, &SystemClock)?;
    Ledger::read(dir)
}

/// All that is in the way, in one error.
pub(crate) fn in_the_way(found: &Findings) -> Option<Error> {
    if found.faults.is_empty() {
        return None;
    }
    let faults: Vec<_> = found.faults.iter().map(|(what, remedy)| format!("\n  {what}\n    {remedy}")).collect();
    let count = faults.len();
    Some(Error::new(
        ErrorKind::NeedsOperator,
        format!("the cluster is not taken over yet, nothing was changed. in_the_way={count}{}", faults.concat()),
    ))
}

fn wishes(args: &AdoptArgs) -> Wishes {
    Wishes {
        database: args.database.clone(),
        owner: args.owner.clone(),
        drop_settings: args.drop_setting.clone(),
        drop_trust: args.drop_trust,
    }
}

fn source(args: &AdoptArgs) -> Result<Source> {
    let password = match &args.password_file {
        Some(file) => Some(read_secret(file)?),
        None => std::env::var("PGPASSWORD").ok().filter(|password| !password.is_empty()).map(SecretString::from),
    };
    let ca = args.ca.as_deref().map(|file| {
        std::fs::read(file)
            .map_err(|e| Error::invalid(format!("this is not readable. file={}", file.display())).because(e))
    });
    Source::new(&args.from, password, ca.transpose()?.as_deref())
}

/// The first line of a file.
fn read_secret(file: &Path) -> Result<SecretString> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::invalid(format!("the password is not readable. file={}", file.display())).because(e))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() || line.contains(char::is_whitespace) {
        return Err(Error::invalid(format!("the password is empty, or has blanks. file={}", file.display())));
    }
    Ok(line.into())
}

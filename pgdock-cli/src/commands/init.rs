//! `pgdock init`

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use pgdock_core::clock::SystemClock;
use pgdock_core::scaffold::{Scaffold, ScaffoldBackup, ScaffoldDocker, ScaffoldWitness};
use pgdock_core::settings::ExecutorKind;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result};

use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::output::table::Table;

/// Make a folder with a commented cluster.toml, secrets and certificates
///
/// Nothing is overwritten: run again, it adds what is missing, such as the certificate of a new node.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder [default: that of --config, or the current one]
    dir: Option<PathBuf>,
    /// The cluster's name
    #[arg(long, default_value = "pgdock")]
    name: String,
    /// A node with its address, once for each [default: n1 to n3 on 127.0.0.11 to 127.0.0.13]
    #[arg(long = "node", value_name = "NAME=ADDRESS")]
    nodes: Vec<NodeAt>,
    /// Where PostgreSQL listens on each node
    #[arg(long, default_value_t = 5432, value_name = "PORT")]
    postgres_port: u16,
    /// Where the agent listens on each node
    #[arg(long, default_value_t = 7432, value_name = "PORT")]
    agent_port: u16,
    /// What an acknowledged commit means
    #[arg(long, value_parser = durability, default_value = "sync", value_name = "sync|quorum|async")]
    durability: Durability,
    /// With --durability quorum: how many standbys hold each acknowledged commit [default: 1]
    #[arg(long, value_name = "COUNT")]
    acks: Option<u32>,
    /// PostgreSQL's major version [default: the newest one found]
    #[arg(long, value_name = "VERSION")]
    postgres_version: Option<u32>,
    /// The folder of PostgreSQL's programs, where they are not found by themselves
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// An address that follows the primary, moved by shared/failover/failover.sh
    #[arg(long, value_name = "ADDRESS")]
    failover_ip: Option<String>,
    /// Where the witness document lives, such as s3://BUCKET/PREFIX, etcd://HOST:2379 or
    /// postgres://USER@HOST/DATABASE [default: a file on this machine]
    #[arg(long, value_name = "URL")]
    witness: Option<String>,
    /// The URL of the bucket's store, where it is not the provider's own
    #[arg(long, value_name = "URL", requires = "witness")]
    witness_endpoint: Option<String>,
    /// The region of the bucket
    #[arg(long, value_name = "REGION", requires = "witness")]
    witness_region: Option<String>,
    /// The storage account, on Azure
    #[arg(long, value_name = "ACCOUNT", requires = "witness")]
    witness_account: Option<String>,
    /// Take the store of backups, its credentials and the schedule from a file of KEY=VALUE lines that postgres-backup-s3
    /// (S3_BUCKET and so on) or wal-e (WALE_S3_PREFIX and so on) was configured with
    #[arg(long, value_name = "FILE")]
    from_env: Option<PathBuf>,
    /// How commands reach the nodes: as processes of this machine, over SSH, or in containers
    #[arg(long, value_parser = executor, default_value = "local", value_name = "local|ssh|docker")]
    executor: ExecutorKind,
    /// With --executor docker: the one engine that has all containers, such as unix:///var/run/docker.sock [default: one on
    /// each node's machine, over SSH]
    #[arg(long, value_name = "URL")]
    engine: Option<String>,
    /// With --executor docker: what containers are made from [default: pgdock:VERSION]
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// With --executor docker: a network in which nodes get their addresses [default: host]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Print the cluster.toml, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// A node's name and address.
#[derive(Clone, Debug)]
pub(crate) struct NodeAt(pub(crate) NodeName, pub(crate) String);

impl FromStr for NodeAt {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('=').ok_or("expected NAME=ADDRESS, such as n1=10.0.0.1")?;
        Ok(Self(name.parse().map_err(|e| format!("{e}"))?, address.to_owned()))
    }
}

pub(super) fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "sync" => Ok(Durability::Sync),
        "quorum" => Ok(Durability::Quorum),
        "async" => Ok(Durability::Async),
        _ => Err("expected sync, quorum or async".to_owned()),
    }
}

pub(super) fn executor(text: &str) -> Result<ExecutorKind, String> {
    let known = [ExecutorKind::Local, ExecutorKind::Ssh, ExecutorKind::Docker];
    known.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| "expected local, ssh or docker".to_owned())
}

/// The nodes of a cluster that is tried on one machine.
pub(crate) fn local_nodes() -> Vec<(NodeName, String)> {
    let node = |i| (NodeName::new(format!("n{i}")).expect("a valid name"), format!("127.0.0.1{i}"));
    (1..=3).map(node).collect()
}

pub(crate) async fn run(context: &Context, args: InitArgs) -> Result<Exit> {
    let dir = args.dir.as_deref().or(context.named_dir()).unwrap_or(Path::new("."));
    let nodes = if args.nodes.is_empty() {
        local_nodes()
    } else {
        args.nodes.into_iter().map(|NodeAt(name, address)| (name, address)).collect()
    };
    if args.acks.is_some() && args.durability != Durability::Quorum {
        return Err(Error::invalid("--acks goes with --durability quorum"));
    }
    let elsewhere = args.witness.as_ref().is_some_and(|url| !url.starts_with("file:"));
    let scaffold = Scaffold {
        postgres_port: args.postgres_port,
        agent_port: args.agent_port,
        durability: args.durability,
        acks: args.acks.unwrap_or(1),
        version: args.postgres_version,
        bin_dir: args.bin_dir,
        failover_address: args.failover_ip,
        witness: args.witness.map(|url| ScaffoldWitness {
            url,
            endpoint: args.witness_endpoint,
            region: args.witness_region,
            account: args.witness_account,
        }),
        backup: args.from_env.as_deref().map(ScaffoldBackup::from_env).transpose()?,
        executor: args.executor,
        docker: ScaffoldDocker { engine: args.engine, image: args.image, network: args.network },
        ..Scaffold::new(args.name, nodes)
    };
    if args.dry_run {
        output::data(&scaffold.cluster_toml())?;
        return Ok(Exit::Done);
    }
    let written = scaffold.write(dir, &SystemClock)?;
    match args.output.output {
        Format::Json => output::json(&serde_json::json!({ "made": written.made, "kept": written.kept }))?,
        Format::Table => {
            let mut table = Table::new(["", "File"]);
            let made = written.made.iter().map(|path| ("made", path));
            for (what, path) in made.chain(written.kept.iter().map(|path| ("kept", path))) {
                table.row([what.to_owned(), path.display().to_string()]);
            }
            output::data(&table.to_string())?;
            if elsewhere {
                output::note(
                    "next: write the witness's credentials into secrets/witness.env, then `pgdock witness probe`",
                );
            }
            output::note(match args.executor {
                ExecutorKind::Docker => "next: look through cluster.toml, then `pgdock image build`, `pgdock up`",
                _ => "next: look through cluster.toml, then `pgdock up`",
            });
        }
    }
    Ok(Exit::Done)
}

//! `pgdock image`

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use futures_util::future::join_all;
use pgdock_core::deploy::ImageRecipe;
use pgdock_core::executor::docker::{Engine, EngineAddress};
use pgdock_core::settings::Reach;
use pgdock_core::{Error, NodeName, Result};

use crate::context::{Context, chosen};
use crate::exit::Exit;
use crate::output::{self, progress};
use crate::reach;

/// Where the engine of this machine listens.
const SOCKET: &str = "/var/run/docker.sock";
/// What is looked for in the environment for the sake of builds, as Docker's own programs do.
const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// Make the image that containers of nodes are made from
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    Build(BuildArgs),
}

/// Build an image: Debian, PostgreSQL, and this program
///
/// On the engines of the nodes, where a cluster.toml with executor = "docker" is found; else on the engine of this machine.
#[derive(Debug, Args)]
struct BuildArgs {
    /// Only on the engines of these nodes
    nodes: Vec<NodeName>,
    /// PostgreSQL's major version [default: that of cluster.toml, or 17]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(14..=18))]
    postgres: Option<u32>,
    /// The name of the image [default: that of cluster.toml, or pgdock:VERSION]
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// The image that it is built on
    #[arg(long, value_name = "IMAGE", default_value = "debian:trixie-slim")]
    base: String,
    /// The pgdock that goes into it [default: this program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// The network that the build uses, such as host
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// The socket of the engine, instead of those of the nodes
    #[arg(long, value_name = "PATH", conflicts_with = "nodes")]
    socket: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, args: ImageArgs) -> Result<Exit> {
    match args.command {
        ImageCommand::Build(args) => build(context, args).await,
    }
}

async fn build(context: &Context, args: BuildArgs) -> Result<Exit> {
    // Without a cluster there is nothing to be read; one that is wrong is an error all the same.
    let settings = if context.has_settings() { Some(context.settings()?) } else { None };
    let settings = settings.filter(|settings| settings.cluster.executor.as_str() == "docker");
    let postgres = args.postgres.or(settings.as_ref().and_then(|settings| settings.postgres.version)).unwrap_or(17);
    let mut recipe = ImageRecipe::new(postgres);
    recipe.base = args.base;
    recipe.network = args.network;
    recipe.arguments =
        PROXIES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    let named = args.tag.or(settings.as_ref().map(|settings| settings.docker.image.clone()));
    recipe.tag = named.unwrap_or(recipe.tag);
    let mut engines: Vec<Engine> = Vec::new();
    match (&settings, args.socket) {
        (Some(settings), None) => {
            let mut urls = Vec::new();
            for node in chosen(settings, &args.nodes)? {
                if let Reach::Docker(container) = &settings.node(&node)?.reach
                    && !urls.contains(&container.engine)
                {
                    urls.push(container.engine.clone());
                }
            }
            for url in urls {
                engines.push(reach::opener().engine(settings, &url)?);
            }
        }
        (_, socket) => engines.push(Engine::new(EngineAddress::Unix(socket.unwrap_or_else(|| SOCKET.into())))),
    }
    let program = args.program.map_or_else(std::env::current_exe, Ok).and_then(std::fs::read);
    let program = program.map_err(|e| Error::invalid("the program for the image cannot be read").because(e))?;
    let terminal = std::io::stderr().is_terminal();
    let built = progress::during("building the image", async |progress| {
        let building = join_all(engines.iter().map(async |engine| {
            let say = |line: &str| {
                // Where lines stay, each step is enough.
                if terminal || line.starts_with("Step ") {
                    progress.say(format!("{engine}: {line}"));
                }
            };
            recipe.build(engine, &program, say).await
        }));
        reach::gather(building.await)
    });
    built.await?;
    for engine in &engines {
        output::note(&format!("built {} with PostgreSQL {postgres} on {engine}", recipe.tag));
    }
    Ok(Exit::Done)
}

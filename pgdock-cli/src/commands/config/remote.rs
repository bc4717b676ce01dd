//! `pgdock config push`, `pgdock config pull`

use clap::Args;
use pgdock_core::bundle::store::Put;
use pgdock_core::bundle::{Registry, RegistryConfig, Store};
use pgdock_core::settings::RegistrySettings;
use pgdock_core::witness::http::Tls;
use pgdock_core::{Error, Result, Settings};

use crate::cli::Output;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, progress};

/// Which registry.
#[derive(Debug, Args)]
struct At {
    /// Host, port and name, as in registry.example.com:5000/team/pgdock [default: that of the settings]
    #[arg(long, value_name = "REPOSITORY")]
    registry: Option<String>,
    /// With --registry: go without TLS
    #[arg(long, requires = "registry")]
    plain: bool,
}

impl At {
    fn open(&self, settings: &Settings) -> Result<Registry> {
        match &self.registry {
            Some(named) => {
                open(&RegistrySettings { tls: !self.plain, ..RegistrySettings::named(named, &settings.secrets) })
            }
            None => open(settings.registry.as_ref().ok_or_else(|| {
                Error::invalid("the settings name no registry")
                    .hint("add [registry] with repository = \"registry.example.com:5000/team/pgdock\", or give --registry")
                    .hint("without one, `pgdock config update` brings bundles to the nodes just as well")
            })?),
        }
    }
}

fn open(settings: &RegistrySettings) -> Result<Registry> {
    let ca = match &settings.ca {
        None => None,
        Some(path) => Some(std::fs::read(path).map_err(|e| {
            Error::invalid(format!("the registry's authority is not readable. file={}", path.display())).because(e)
        })?),
    };
    let tls = Tls { ca, allow_plain: !settings.tls, ..Tls::default() };
    Registry::new(RegistryConfig { repository: settings.repository.clone(), tls, user: settings.user()? })
}

/// Send images to a registry; what is there already is not sent again
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The tags
    #[arg(required = true)]
    tags: Vec<String>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn push(context: &Context, args: PushArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let (registry, store) = (args.at.open(&settings)?, Store::beside(&settings.dir));
    for tag in &args.tags {
        let image = store.get(tag).await?;
        let pushed = progress::during(&format!("pushing {tag}"), async |_| registry.push(&image, tag).await).await?;
        let what =
            if pushed.unchanged { "was there already".to_owned() } else { format!("{} bytes sent", pushed.bytes) };
        output::done(&format!("{tag}: {what}. image={}", image.digest()), args.output.output)?;
    }
    Ok(Exit::Done)
}

/// Fetch images from a registry
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The tags
    #[arg(required = true)]
    tags: Vec<String>,
    /// Have a tag that is here already stand for what the registry has
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn pull(context: &Context, args: PullArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let (registry, store) = (args.at.open(&settings)?, Store::beside(&settings.dir));
    for tag in &args.tags {
        let image = progress::during(&format!("pulling {tag}"), async |_| registry.pull(tag).await).await?;
        let cluster = &image.bundle.manifest().cluster;
        if *cluster != settings.cluster.name {
            return Err(Error::invalid(format!(
                "the image is of another cluster. tag={tag}, found={cluster}, expected={}",
                settings.cluster.name
            )));
        }
        let what = match store.put(&image, tag, args.replace)? {
            Put::New => "fetched",
            Put::Same => "was here already",
            Put::Replaced => "fetched, in place of another",
        };
        output::done(&format!("{tag}: {what}. image={}", image.digest()), args.output.output)?;
    }
    Ok(Exit::Done)
}

/// The image of a tag: from here, or else from the registry of the settings, which is then kept here.
pub(super) async fn find(settings: &Settings, store: &Store, tag: &str) -> Result<pgdock_core::bundle::Image> {
    match &settings.registry {
        Some(registry) if !store.tags()?.iter().any(|known| known == tag) => {
            let image = open(registry)?.pull(tag).await?;
            store.put(&image, tag, false)?;
            Ok(image)
        }
        _ => store.get(tag).await,
    }
}

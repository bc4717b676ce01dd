//! [`install`]: puts a bundle on this node, and has it count.
//!
//! ```text
//! check (format, node, cluster, digest, room) ─▶ unpack beside ─▶ read its settings ─▶ postgres -C ─▶ in its place
//!   ─▶ an agent runs: it has PostgreSQL judge the files, switches, reloads        (`agent::configuration`)
//!   ─▶ none does: switch; the next start uses it
//! ```
//!
//! Until the switch nothing that counts has changed; whatever fails before leaves the node as it was.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::ledger::{Bundles, Entry, How};
use super::{Bundle, Digest};
use crate::agent::api::OrderRequest;
use crate::agent::client::AgentClient;
use crate::agent::{Applied, host_port, tls};
use crate::clock::Clock;
use crate::decide::Verdict;
use crate::postgres::instance::UserConfiguration;
use crate::postgres::os_user::OsUser;
use crate::postgres::trial;
use crate::postgres::version::Binaries;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::{Error, NodeName, Result};

/// How long the agent may take.
const ORDER_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to find out whether an agent listens.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// How much room is left on the disk beside the bundle, in bytes.
const ROOM_LEFT: u64 = 16 << 20;

/// Where a bundle is to go, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node's home.
    pub home: PathBuf,
    /// The operator's folder, where that is on this machine: it then holds secrets and root.
    pub folder: Option<PathBuf>,
    /// The node that the operator means.
    pub node: NodeName,
    /// The cluster that the operator means.
    pub cluster: String,
    /// Where to look for PostgreSQL's programs after the usual folders: the value of `PATH`.
    pub search_path: Option<OsString>,
}

/// What came of it, as it goes back to the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Installed {
    /// The node.
    pub node: NodeName,
    /// The bundle that counts there now.
    pub digest: Digest,
    /// The tag that it came under.
    pub tag: Option<String>,
    /// The one that counted before.
    pub before: Option<Digest>,
    /// What the agent made of it; nothing where none runs, and the next start uses it.
    pub applied: Option<Applied>,
}

/// What a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The one that counts.
    pub current: Option<Digest>,
    /// What counted when, oldest first.
    pub entries: Vec<Entry>,
}

impl Place {
    fn bundles(&self) -> Bundles {
        Bundles::of(&self.home)
    }

    fn settings(&self, dir: &Path) -> Result<Settings> {
        match &self.folder {
            Some(folder) => Settings::from_bundle_beside(dir, folder),
            None => Settings::from_path(dir),
        }
    }

    /// Sees that a bundle is for this node.
    fn fits(&self, bundle: &Bundle) -> Result<()> {
        let manifest = bundle.manifest();
        if manifest.cluster != self.cluster {
            return Err(Error::invalid(format!(
                "the bundle is of another cluster. bundle={}, cluster={}",
                manifest.cluster, self.cluster
            )));
        }
        if manifest.node != self.node {
            return Err(Error::invalid(format!(
                "the bundle is another node's. bundle={}, node={}",
                manifest.node, self.node
            ))
            .hint("build one for this node: `pgdock config build`"));
        }
        Ok(())
    }

    /// Sees that this is the node that is meant: once it has a bundle, it is no other's.
    fn is_meant(&self) -> Result<()> {
        let current = self.bundles().current_dir();
        let Ok(bytes) = std::fs::read(current.join(super::tar::LIST)) else { return Ok(()) };
        let Ok(found) = serde_json::from_slice::<super::Manifest>(&bytes) else { return Ok(()) };
        if found.node == self.node && found.cluster == self.cluster {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "this home is that of another node. home={}, found={} of {}, meant={} of {}",
            self.home.display(),
            found.node,
            found.cluster,
            self.node,
            self.cluster
        ))
        .hint("check `address` and `root` in cluster.toml: two nodes cannot share a home"))
    }
}

/// Installs a bundle, and has it count.
///
/// # Errors
/// `Invalid` when it is not acceptable, with all that is wrong; `Unavailable` for want of room, or when the agent does not
/// answer. Nothing that counts has changed then, unless the outcome is unknown.
pub async fn install(
    archive: impl Into<Bytes>,
    expected: Option<&Digest>,
    tag: Option<String>,
    place: &Place,
    clock: &dyn Clock,
) -> Result<Installed> {
    let bundle = Bundle::from_archive(archive)?;
    if let Some(expected) = expected.filter(|expected| *expected != bundle.digest()) {
        return Err(Error::invalid(format!(
            "what arrived is not what was sent. expected={expected}, found={}",
            bundle.digest()
        ))
        .hint("send it anew"));
    }
    place.fits(&bundle)?;
    place.is_meant()?;
    let bundles = place.bundles();
    {
        let _turn = bundles.lock()?;
        let kept = Bundle::from_unpacked(&bundles.dir_of(bundle.digest()));
        if !kept.is_ok_and(|kept| kept.digest() == bundle.digest()) {
            has_room(&place.home, bundle.archive().len() as u64)?;
            let unpacked = bundles.unpack(&bundle)?;
            let tried = try_out(&unpacked, place).await;
            if let Err(error) = tried {
                let _ = std::fs::remove_dir_all(&unpacked);
                return Err(without_folder(error, &unpacked));
            }
            bundles.settle(&unpacked, bundle.digest())?;
        } else {
            try_out(&bundles.dir_of(bundle.digest()), place).await?;
        }
    }
    use_bundle(bundle.digest(), tag, How::Update, place, clock).await
}

/// Goes back to the bundle before.
///
/// # Errors
/// `NeedsOperator` when there is none; otherwise as [`install`].
pub async fn rollback(place: &Place, clock: &dyn Clock) -> Result<Installed> {
    place.is_meant()?;
    let bundles = place.bundles();
    let history = bundles.history()?;
    let Some(previous) = history.previous() else {
        return Err(Error::needs_operator(format!(
            "there is no bundle to go back to. node={}, known={}",
            place.node,
            history.entries.len()
        ))
        .hint("`pgdock config history` shows them; `pgdock config update --tag T` takes any that is kept"));
    };
    let dir = bundles.dir_of(&previous.digest);
    // Nobody has changed it since.
    Bundle::from_unpacked(&dir)?;
    try_out(&dir, place).await?;
    use_bundle(&previous.digest, previous.tag.clone(), How::Rollback, place, clock).await
}

/// What a node has.
///
/// # Errors
/// `Invalid` when its history cannot be read.
pub fn list(place: &Place) -> Result<Listing> {
    let bundles = place.bundles();
    Ok(Listing { current: bundles.current()?, entries: bundles.history()?.entries })
}

/// The bundle that counts on a node, as it was sent there.
///
/// # Errors
/// `NotReady` when there is none, `Invalid` when somebody has changed it.
pub fn current(place: &Place) -> Result<Bundle> {
    let bundles = place.bundles();
    let Some(digest) = bundles.current()? else {
        return Err(Error::not_ready(format!("no bundle was delivered to this node yet. node={}", place.node))
            .hint("`pgdock config update` delivers one"));
    };
    Bundle::from_unpacked(&bundles.dir_of(&digest))
}

fn has_room(home: &Path, bytes: u64) -> Result<()> {
    let Ok(room) = rustix::fs::statvfs(home) else { return Ok(()) };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let needed = bytes * 2 + ROOM_LEFT;
    if free >= needed {
        return Ok(());
    }
    Err(Error::unavailable(format!(
        "there is not enough room for the bundle. home={}, free={free}, needed={needed}",
        home.display()
    ))
    .hint("make room on that disk; nothing was changed"))
}

/// Reads an unpacked bundle's settings, and has this node's PostgreSQL read what it would be set to.
async fn try_out(dir: &Path, place: &Place) -> Result<()> {
    let settings = place.settings(dir)?;
    let node = settings.node(&place.node)?;
    let user = UserConfiguration { settings: node.settings.clone(), hba: node.hba.clone() };
    let postgres = &settings.postgres;
    let binaries = Binaries::find(postgres.bin_dir.as_deref(), postgres.version, place.search_path.as_deref())?;
    let os_user = OsUser::resolve(&postgres.user)?;
    trial::of_settings(&user, &binaries, &os_user, &place.home.join("bundles")).await
}

/// An error that names files of the bundle by their path in it.
fn without_folder(error: Error, dir: &Path) -> Error {
    let text = error.chain().replace(&format!("{}/", dir.display()), "");
    error.hints().iter().fold(Error::new(error.kind(), text), |error, hint| error.hint(hint.clone()))
}

/// Has a bundle that is in its place count: the agent switches, or, where none runs, we do.
async fn use_bundle(
    digest: &Digest,
    tag: Option<String>,
    how: How,
    place: &Place,
    clock: &dyn Clock,
) -> Result<Installed> {
    let bundles = place.bundles();
    let before = bundles.current()?;
    let applied = match running_agent(&bundles.dir_of(digest), place).await? {
        Some(agent) => {
            let order =
                OrderRequest::UseBundle { digest: digest.clone(), tag: tag.clone(), rollback: how == How::Rollback };
            let answer = match agent.order(&order, ORDER_LIMIT).await? {
                Verdict::Done(answer) => answer,
                Verdict::Refused(why) => {
                    return Err(Error::not_ready(format!("the agent refuses the bundle: {why}. node={}", place.node))
                        .hint("nothing was changed; `pgdock status` shows how the node stands"));
                }
                Verdict::Failed(why) => {
                    return Err(Error::invalid(format!("the bundle is not taken: {why}. node={}", place.node))
                        .hint("`pgdock config history` shows which one counts"));
                }
            };
            Some(
                serde_json::from_str(&answer).map_err(|e| {
                    Error::internal("the agent's answer is not understood").because(e).outcome_unknown()
                })?,
            )
        }
        None => {
            bundles.switch(digest, tag.clone(), how, None, clock.wall())?;
            None
        }
    };
    Ok(Installed { node: place.node.clone(), digest: digest.clone(), tag, before, applied })
}

/// The agent of this node, if one runs. It is the one that was started with the settings before.
async fn running_agent(new: &Path, place: &Place) -> Result<Option<AgentClient>> {
    let current = place.bundles().current_dir();
    // Where the new bundle moves the agent, the one that runs still listens where the old one says.
    let in_force = match (current.join(super::tar::LIST).is_file(), &place.folder) {
        (true, _) => place.settings(&current),
        (false, Some(folder)) => Settings::from_path(folder),
        (false, None) => place.settings(new),
    };
    let settings = match in_force {
        Ok(settings) => settings,
        // What counts at present cannot be read: an agent could not have begun with it.
        Err(_) => return Ok(None),
    };
    let node = settings.node(&place.node)?;
    let address = host_port(&node.address, node.agent_port);
    match tokio::time::timeout(DIAL_LIMIT, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => {}
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(None),
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::AddrNotAvailable => return Ok(None),
        Ok(Err(e)) => {
            return Err(
                Error::unavailable(format!("it cannot be told whether an agent runs. address={address}")).because(e)
            );
        }
        Err(_) => {
            return Err(Error::unavailable(format!("it cannot be told whether an agent runs. address={address}"))
                .hint("check `address` of the node"));
        }
    }
    let secrets = Secrets::load(&settings.secrets())?;
    let tls = tls::client_config(secrets.ca_pem.as_bytes())?;
    let agent = AgentClient::new(&address, tls)?.with_token(secrets.agent_token.clone());
    let status = agent.status().await?;
    if status.report.node != place.node || status.report.cluster != place.cluster {
        return Err(Error::conflict(format!(
            "another node's agent answers at the address. address={address}, found={} of {}",
            status.report.node, status.report.cluster
        )));
    }
    Ok(Some(agent))
}

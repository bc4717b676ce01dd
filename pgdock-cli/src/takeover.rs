//! [`Takeover`]: brings a cluster from repmgr to pgdock, node by node.
//!
//! Each step looks first whether it was done: an interrupted run is begun anew, and goes on where it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use pgdock_core::adopt::{self, Ledger, Members, Place, Source, Stands, Wishes};
use pgdock_core::clock::SystemClock;
use pgdock_core::cluster::ClusterStatus;
use pgdock_core::cluster::plan::Plan;
use pgdock_core::scaffold::Scaffold;
use pgdock_core::{Cluster, Error, NodeName, Result, Settings, witness};

use crate::commands::adopt::in_the_way;
use crate::commands::config;
use crate::context::Context;
use crate::output::progress::Progress;
use crate::sql::Route;
use crate::{local, reach, wait};

/// How long a standby may take until it streams, and the cluster until it is well.
const PATIENCE: Duration = Duration::from_secs(600);

/// A takeover that is under way.
pub(crate) struct Takeover<'a> {
    context: &'a Context,
    dir: PathBuf,
    cluster: Cluster,
    source: Source,
    wishes: Wishes,
    ledger: Ledger,
    places: Vec<Place>,
}

/// The machines of the nodes.
fn places(settings: &Settings, members: &Members) -> Result<Vec<Place>> {
    let opener = reach::opener();
    members
        .iter()
        .map(|(node, was)| {
            Ok(Place {
                node: node.clone(),
                executor: opener.executor(settings, node)?,
                data_directory: was.data_directory.clone(),
                home: settings.node(node)?.home.clone(),
            })
        })
        .collect()
}

async fn stands(places: &[Place]) -> Result<Vec<Stands>> {
    reach::gather(join_all(places.iter().map(Place::look)).await)
}

/// Looks at the machines before anything is written: adds what is in the way, and answers whose the data directories are.
pub(crate) async fn machines(
    settings: &Settings,
    members: &Members,
    faults: &mut Vec<(String, String)>,
) -> Result<Option<String>> {
    let places = places(settings, members)?;
    let stands = stands(&places).await?;
    let mut owner: Option<String> = None;
    for (place, found) in places.iter().zip(&stands) {
        if let Some(what) = &found.obstacle {
            faults.push((what.clone(), "see to it, and try again".to_owned()));
        }
        if !found.repmgrd.is_empty()
            && !faults.iter().any(|(what, _)| what.contains(&format!("pid={}", found.repmgrd[0])))
        {
            faults.push(repmgrd_runs(place, found));
        }
        match (&owner, &found.owner) {
            (Some(one), Some(other)) if one != other => faults.push((
                format!(
                    "the data directories belong to different users. user={one}, node={}, other={other}",
                    place.node
                ),
                "give them to one: chown -R".to_owned(),
            )),
            _ => owner = owner.or_else(|| found.owner.clone()),
        }
    }
    Ok(owner)
}

fn repmgrd_runs(place: &Place, found: &Stands) -> (String, String) {
    let pids: Vec<_> = found.repmgrd.iter().map(ToString::to_string).collect();
    (
        format!(
            "repmgrd runs on the machine of {}: two must not decide about one cluster. pid={}",
            place.node,
            pids.join(",")
        ),
        "on each node: `systemctl disable --now repmgrd`, or `repmgr daemon stop`".to_owned(),
    )
}

/// What is still to be done.
pub(crate) async fn rest(settings: &Settings, ledger: &Ledger) -> Result<Plan> {
    let places = places(settings, &ledger.members)?;
    let stands = stands(&places).await?;
    let taken: Vec<_> =
        places.iter().zip(stands).filter(|(_, found)| found.taken).map(|(place, _)| place.node.clone()).collect();
    let founded = witness::open(&settings.witness, &settings.cluster.name)?.read().await?.is_some();
    Ok(adopt::plan(ledger, &taken, founded))
}

impl<'a> Takeover<'a> {
    pub(crate) async fn open(
        context: &'a Context,
        dir: &Path,
        source: Source,
        wishes: Wishes,
        ledger: Ledger,
    ) -> Result<Self> {
        let settings = context.settings()?;
        Scaffold::add_missing_secrets(&settings, &SystemClock)?;
        let places = places(&settings, &ledger.members)?;
        let cluster = context.cluster().await?;
        Ok(Self { context, dir: dir.to_owned(), cluster, source, wishes, ledger, places })
    }

    /// Does all that is left.
    pub(crate) async fn run(mut self, progress: &Progress) -> Result<ClusterStatus> {
        let document = self.cluster.document().await?;
        if let Some(record) = document.as_ref().filter(|r| r.system_identifier != self.ledger.system_identifier) {
            return Err(Error::conflict(format!(
                "the witness has the document of another cluster. system_identifier={}, expected={}",
                record.system_identifier, self.ledger.system_identifier
            ))
            .hint("name another place in [witness] url"));
        }
        self.nobody_else_decides().await?;
        let first = self.ledger.primary.clone();
        if document.is_none() {
            self.primary(&first, progress).await?;
        }
        let standbys: Vec<_> = self.ledger.members.keys().filter(|node| **node != first).cloned().collect();
        self.ready(&first, progress).await?;
        self.agent(&first, progress).await?;
        for node in standbys {
            self.ready(&node, progress).await?;
            progress.say(format!("taking over {node}"));
            self.place(&node)?.take().await?;
            self.agent(&node, progress).await?;
            wait::until_well(&self.cluster, &[first.clone(), node.clone()], PATIENCE, progress, |_| Ok(())).await?;
        }
        let nodes: Vec<_> = self.ledger.members.keys().cloned().collect();
        let status = wait::until_well(&self.cluster, &nodes, PATIENCE, progress, |_| Ok(())).await?;
        progress.say("dropping repmgr's slots");
        self.drop_slots().await?;
        self.ledger.done = true;
        self.ledger.write(&self.dir)?;
        Ok(status)
    }

    fn place(&self, node: &NodeName) -> Result<&Place> {
        self.places
            .iter()
            .find(|place| place.node == *node)
            .ok_or_else(|| Error::invalid(format!("there is no such node. node={node}")))
    }

    /// repmgrd is looked for on every machine, and everything that is not taken over yet must be movable.
    async fn nobody_else_decides(&self) -> Result<()> {
        let stands = stands(&self.places).await?;
        let mut found = adopt::Findings::default();
        for (place, stands) in self.places.iter().zip(&stands) {
            if !stands.repmgrd.is_empty() {
                found.faults.push(repmgrd_runs(place, stands));
            }
            if let Some(what) = &stands.obstacle {
                found.faults.push((what.clone(), "see to it, and try again".to_owned()));
            }
        }
        in_the_way(&found).map_or(Ok(()), Err)
    }

    /// The primary: looked at once more while it runs, then stopped, moved, and started again as the first of the document.
    async fn primary(&mut self, first: &NodeName, progress: &Progress) -> Result<()> {
        let stands = self.place(first)?.look().await?;
        if stands.running {
            let found = adopt::judge(&adopt::look(&self.source).await?, &self.wishes);
            in_the_way(&found).map_or(Ok(()), Err)?;
            progress.say("making roles");
            adopt::make_roles(&self.source, self.cluster.secrets()).await?;
            self.ledger.roles = true;
            self.ledger.write(&self.dir)?;
        } else if !self.ledger.roles {
            return Err(Error::not_ready(format!("the primary does not run, and lacks pgdock's roles. node={first}"))
                .hint("start it the way it was started before, then run this again"));
        }
        // Its agent waits for the data directory, so that nothing is left to be started while clients wait.
        self.ready(first, progress).await?;
        self.agent(first, progress).await?;
        progress.say(format!("stopping {first}, and starting it again"));
        let place = self.place(first)?;
        place.take().await?;
        self.cluster.adopt(first, self.ledger.system_identifier).await.map_err(|error| {
            let back = format!("{}/data is the data directory: nothing of it is lost", place.home.display());
            error.hint(back).hint("run the same command again; docs/adopt.md tells the way back to repmgr")
        })
    }

    /// Brings a node's machine all that its agent needs, while the PostgreSQL from before may still run there.
    async fn ready(&self, node: &NodeName, progress: &Progress) -> Result<()> {
        let settings = self.cluster.settings();
        if reach::is_local(settings) {
            return Ok(());
        }
        let port = settings.node(node)?.postgres_port;
        for machine in reach::machines(settings, std::slice::from_ref(node))? {
            let machine = machine.beside(port);
            reach::prepare(&machine, progress).await?;
            config::bring(settings, std::slice::from_ref(node)).await?;
            machine.deliver_secrets().await?;
        }
        Ok(())
    }

    /// Starts a node's agent, where none runs.
    async fn agent(&self, node: &NodeName, progress: &Progress) -> Result<()> {
        let settings = self.cluster.settings();
        progress.say(format!("starting the agent of {node}"));
        if reach::is_local(settings) {
            if local::agent_pid(settings.node(node)?).is_none() {
                local::launch(self.context, &self.cluster, node).await?;
            }
            return Ok(());
        }
        let machines = reach::machines(settings, std::slice::from_ref(node))?;
        for machine in &machines {
            machine.start(|line| progress.say(format!("{node}: {line}"))).await?;
        }
        reach::answering(&self.cluster, &machines, std::slice::from_ref(node)).await
    }

    /// The slots that repmgr made hold WAL back for nobody now. On standbys they may be left from when they were primary.
    async fn drop_slots(&self) -> Result<()> {
        let slots: Vec<&str> = self.ledger.members.values().filter_map(|was| was.slot.as_deref()).collect();
        if slots.is_empty() {
            return Ok(());
        }
        for node in self.ledger.members.keys() {
            let client = Route::superuser(&self.cluster, node)?.connect().await?;
            client
                .execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                      WHERE slot_type = 'physical' AND slot_name::text = ANY($1) AND NOT active",
                    &[&slots],
                )
                .await
                .map_err(|e| Error::unavailable(format!("repmgr's slots were not dropped. node={node}")).because(e))?;
        }
        Ok(())
    }
}

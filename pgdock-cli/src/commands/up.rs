//! `pgdock up`

use std::time::Duration;

use clap::Args;
use pgdock_core::clock::SystemClock;
use pgdock_core::cluster::plan::{self, Step};
use pgdock_core::deploy::Standing;
use pgdock_core::scaffold::Scaffold;
use pgdock_core::{NodeName, Result, Settings, witness};

use crate::cli::{Change, Format};
use crate::context::{Context, chosen, shares_its_witness};
use crate::exit::Exit;
use crate::local;
use crate::output::status;
use crate::output::{self, progress};
use crate::reach::{self, Brought};

/// Start the nodes, and found the cluster where it is new
///
/// With the executor local, agents in the background; else containers or services, which get their secrets. What runs already
/// is left alone. Ends once there is a primary and the nodes stream from it; or, where nodes have no configuration yet, once
/// they wait for it.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Only these nodes
    nodes: Vec<NodeName>,
    /// How long to wait until all is well, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: UpArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let nodes = chosen(&settings, &args.nodes)?;
    shares_its_witness(&settings)?;
    let witness = witness::open(&settings.witness, &settings.cluster.name)?;
    let founded = witness.read().await?.is_some();
    if !reach::is_local(&settings) {
        return elsewhere(context, &settings, nodes, founded, args.timeout, args.change).await;
    }
    let running: Vec<_> =
        nodes.iter().filter(|name| local::agent_pid(&settings.nodes[*name]).is_some()).cloned().collect();
    let plan = plan::up(founded, &local::first_node(&settings, &nodes)?, &nodes, &running);
    let format = args.change.output.output;
    if args.change.dry_run {
        output::plan(&plan, format)?;
        return Ok(Exit::Done);
    }
    Scaffold::add_missing_secrets(&settings, &SystemClock)?;
    let cluster = context.cluster().await?;
    let patience = Duration::from_secs(args.timeout);
    progress::during("starting", async |progress| {
        local::bring_up(context, &cluster, &plan, &nodes, patience, progress).await
    })
    .await?;
    let now = cluster.status().await?;
    match format {
        Format::Json => output::json(&now)?,
        Format::Table => output::data(&status::render(&now))?,
    }
    Ok(Exit::Done)
}

/// The same where nodes are containers or machines.
async fn elsewhere(
    context: &Context,
    settings: &Settings,
    nodes: Vec<NodeName>,
    founded: bool,
    timeout: u64,
    change: Change,
) -> Result<Exit> {
    let machines = reach::machines(settings, &nodes)?;
    let standings = reach::standings(&machines).await?;
    let stand = |wanted: &[Standing]| -> Vec<NodeName> {
        let with = nodes.iter().zip(&standings).filter(|(_, standing)| wanted.contains(standing));
        with.map(|(node, _)| node.clone()).collect()
    };
    let running = stand(&[Standing::Running, Standing::Outdated]);
    let mut plan = plan::up(founded, &local::first_node(settings, &nodes)?, &nodes, &running);
    let made = machines.iter().zip(&standings).filter(|(_, standing)| **standing == Standing::Absent);
    let made =
        made.filter_map(|(machine, _)| machine.container().map(|(engine, container)| (machine, engine, container)));
    let mut steps: Vec<Step> = made
        .map(|(machine, engine, container)| Step::MakeContainer {
            node: machine.node().clone(),
            container: container.name.clone(),
            image: container.image.clone(),
            engine: engine.to_string(),
        })
        .collect();
    let starts = plan.steps.iter().filter(|step| matches!(step, Step::StartAgent { .. })).count();
    plan.steps.splice(starts..starts, nodes.iter().map(|node| Step::DeliverSecrets { node: node.clone() }));
    steps.append(&mut plan.steps);
    plan.steps = steps;
    let format = change.output.output;
    if change.dry_run {
        output::plan(&plan, format)?;
        return Ok(Exit::Done);
    }
    for node in stand(&[Standing::Outdated]) {
        output::note(&format!(
            "{node} runs as it was made, and the settings have changed: `pgdock down {node}`, then `up {node}`"
        ));
    }
    Scaffold::add_missing_secrets(settings, &SystemClock)?;
    let cluster = context.cluster().await?;
    let patience = Duration::from_secs(timeout);
    let brought = progress::during("starting", async |progress| {
        reach::bring_up(&cluster, &machines, &plan, &nodes, patience, progress).await
    })
    .await?;
    match (brought, format) {
        (Brought::Waiting(lacking), Format::Json) => {
            output::json(&serde_json::json!({ "outcome": "waiting", "without_configuration": lacking }))?;
        }
        (Brought::Waiting(lacking), Format::Table) => {
            let names: Vec<_> = lacking.iter().map(NodeName::as_str).collect();
            output::note(&format!("started: {}", nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")));
            output::note(&format!("without configuration: {}", names.join(", ")));
            output::note(
                "next: `pgdock config build --tag v1`, `pgdock config update --tag v1`, then `pgdock bootstrap`",
            );
        }
        (Brought::Up, Format::Json) => output::json(&cluster.status().await?)?,
        (Brought::Up, Format::Table) => output::data(&status::render(&cluster.status().await?))?,
    }
    Ok(Exit::Done)
}

//! Inflicts real faults on real clusters, each node in a network of its own, and judges what clients saw.
//!
//! ```text
//! cargo test -p pgdock-tests --test faults                              a short run in each set-up, and --outages
//! cargo test -p pgdock-tests --test faults -- --seed 7 --faults 20      that seed, in each set-up
//!     --setup two-in-sync|three-in-sync|three-in-quorum|three-in-async  in this one only
//!     --seeds 30                                                        so many seeds, from --seed on
//!     --total 300                                                       so many that there are this many faults
//!     --mode single|mixed                                               how faults follow each other
//!     --outages                                                         long outages of a bucket instead: nothing is drawn
//! ```
//!
//! What comes of it is below `target/faults`: the history, a picture, and logs where something is wrong.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use pgdock_core::Error;
use pgdock_tests::faults::campaign::Outcome;
use pgdock_tests::faults::enclosure::{self, Stage};
use pgdock_tests::faults::{Campaign, Lab, Mode, Plan, Setup, store};

/// The seed and the number of faults of a usual run.
const SEED: u64 = 1;
const FAULTS: usize = 4;
/// The number of faults of one run where there are many.
const FAULTS_OF_MANY: usize = 10;

/// Where outages that are not drawn are inflicted: no node is there to spare.
const OUTAGES_IN: Setup = Setup::TwoInSync;

/// What the command line asks for.
struct Args {
    seed: u64,
    seeds: u64,
    faults: usize,
    setups: Vec<Setup>,
    mode: Option<Mode>,
    outages: Outages,
}

/// Whether there are outages that are not drawn, besides faults that are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outages {
    /// Also: nothing in particular is asked for.
    Also,
    /// Nothing else.
    Only,
    /// A seed, a number of faults or a mode is asked for, which outages have none of.
    No,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut args = Self {
            seed: SEED,
            seeds: 1,
            faults: FAULTS,
            setups: Setup::ALL.into(),
            mode: None,
            outages: Outages::Also,
        };
        let mut total = None;
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            if matches!(word.as_str(), "--seed" | "--seeds" | "--faults" | "--total" | "--mode") {
                args.outages = Outages::No;
            }
            let number = |value: String| value.parse::<u64>().map_err(|_| format!("not a number: `{value}`"));
            match word.as_str() {
                "--seed" => args.seed = number(value()?)?,
                "--seeds" => args.seeds = number(value()?)?,
                "--total" => {
                    total = Some(number(value()?)?);
                    args.faults = FAULTS_OF_MANY;
                }
                "--faults" => args.faults = usize::try_from(number(value()?)?).unwrap_or(FAULTS),
                "--outages" => args.outages = Outages::Only,
                "--setup" => args.setups = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--mode" => {
                    args.mode = Some(match value()?.as_str() {
                        "single" => Mode::Single,
                        "mixed" => Mode::Mixed,
                        other => return Err(format!("there is no mode `{other}`; there are single, mixed")),
                    });
                }
                // What test runners pass to every test.
                _ => {}
            }
        }
        if args.outages == Outages::Only && !args.setups.contains(&OUTAGES_IN) {
            return Err(format!("--outages are those of {OUTAGES_IN}, which --setup leaves out"));
        }
        if let Some(total) = total {
            args.seeds = total.div_ceil((args.faults as u64).max(1));
        }
        Ok(args)
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--list") {
        // A runner that wants to know what is here.
        if !std::env::args().any(|word| word == "--ignored") {
            println!("faults: test");
        }
        return ExitCode::SUCCESS;
    }
    let args = match Args::parse() {
        Ok(args) => args,
        Err(fault) => {
            eprintln!("{fault}");
            return ExitCode::FAILURE;
        }
    };
    match enclosure::stage() {
        Stage::Outside => {
            if !pgdock_tests::real::available() {
                return ExitCode::SUCCESS;
            }
            if let Err(why) = enclosure::possible() {
                eprintln!("skipped: {why}");
                let required = std::env::var("PGDOCK_REAL").as_deref() == Ok("required");
                return if required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            }
            enclosure::enter()
        }
        Stage::First => enclosure::first(),
        Stage::Store => store::serve(),
        Stage::Inside(folder) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
            if runtime.block_on(run(&args, folder)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

async fn run(args: &Args, folder: PathBuf) -> bool {
    let nodes = args.setups.iter().map(|setup| setup.nodes()).max().unwrap_or_default();
    let lab = match Lab::make(folder, nodes).await {
        Ok(lab) => Arc::new(lab),
        Err(error) => {
            eprintln!("no lab: {}", error.chain());
            return false;
        }
    };
    let mut passed = true;
    if args.outages != Outages::No && args.setups.contains(&OUTAGES_IN) {
        passed &= outages(&lab, OUTAGES_IN).await;
    }
    if args.outages == Outages::Only {
        return passed;
    }
    for seed in args.seed..args.seed + args.seeds {
        for setup in &args.setups {
            let plan = Plan::of(seed, *setup, args.faults, args.mode);
            passed &= one(&lab, &plan).await;
        }
    }
    passed
}

/// One plan, from beginning to end.
async fn one(lab: &Arc<Lab>, plan: &Plan) -> bool {
    let title = format!("{}, seed {}, {} faults, {:?}", plan.setup, plan.seed, plan.faults.len(), plan.mode);
    eprintln!("{title}");
    let out = out(&format!("{}-{}", plan.setup, plan.seed));
    let outcome = async {
        lab.clear().await?;
        let mut campaign = Campaign::begin(lab, plan.setup, plan.clocks(), &out).await?;
        if let Err(error) = campaign.inflict(plan).await {
            campaign.fail(format!("the test cannot go on: {}", error.chain()));
        }
        campaign.end(&title, &plan.replay()).await
    };
    told(&title, outcome.await, &out, &plan.replay())
}

/// The outages that are not drawn.
async fn outages(lab: &Arc<Lab>, setup: Setup) -> bool {
    let title = format!("{setup}, outages of the bucket");
    eprintln!("{title}");
    let out = out(&format!("{setup}-outages"));
    let replay = format!("cargo test -p pgdock-tests --test faults -- --outages --setup {setup}");
    let outcome = async {
        lab.clear().await?;
        let mut campaign = Campaign::begin(lab, setup, false, &out).await?;
        if let Err(error) = campaign.outages().await {
            campaign.fail(format!("the test cannot go on: {}", error.chain()));
        }
        campaign.end(&title, &replay).await
    };
    told(&title, outcome.await, &out, &replay)
}

/// Prints what came of it; whether it passed.
fn told(title: &str, outcome: Result<Outcome, Error>, out: &Path, replay: &str) -> bool {
    match outcome {
        Ok(outcome) => {
            let verdict = &outcome.verdict;
            println!(
                "{title}: acknowledged={}, unknown={}, lost={}, reigns={}, late={}, slowest_heal_ms={}, longest_gap_ms={}, {}",
                verdict.acknowledged,
                verdict.unknown,
                verdict.lost,
                verdict.reigns,
                verdict.late,
                outcome.slowest.as_millis(),
                outcome.gap.as_millis(),
                if verdict.passed() { "passed" } else { "FAILED" },
            );
            for violation in &verdict.violations {
                println!("  {violation}");
            }
            if !verdict.passed() {
                println!("see {}\nreplay: {replay}", out.display());
            }
            verdict.passed()
        }
        Err(error) => {
            println!("{title}: FAILED: {}\nreplay: {replay}", error.chain());
            false
        }
    }
}

/// Where what comes of a run goes.
fn out(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let target = exe.ancestors().find(|dir| dir.ends_with("target")).map_or_else(std::env::temp_dir, PathBuf::from);
    target.join("faults").join(name)
}

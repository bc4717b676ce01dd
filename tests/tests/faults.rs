//! Inflicts real faults on real clusters, each node in a network of its own, and judges what clients saw.
//!
//! ```text
//! cargo test -p pgdock-tests --test faults                              the quick scenarios, and a short run in each set-up
//! cargo test -p pgdock-tests --test faults -- --list-scenarios          the names of the scenarios, and what they tell
//! cargo test -p pgdock-tests --test faults -- --scenario disk-full      this scenario; several with commas; `quick`; `all`
//!     --long                                                            as far as an operator would go: many minutes
//!     --pause 60 --outage 600 --switchovers 50                          how far, one by one; times in seconds
//!     --times 5                                                         each so many times
//! cargo test -p pgdock-tests --test faults -- --seed 7 --faults 20      drawn faults: that seed, in each set-up
//!     --setup two-in-sync|three-in-sync|three-in-quorum|three-in-async  in this one only
//!     --seeds 30                                                        so many seeds, from --seed on
//!     --total 300                                                       so many that there are this many faults
//!     --mode single|mixed                                               how faults follow each other
//! ```
//!
//! What comes of it is below `target/faults`: the history, a picture, and logs where something is wrong.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgdock_core::Error;
use pgdock_tests::faults::campaign::Outcome;
use pgdock_tests::faults::enclosure::{self, Stage};
use pgdock_tests::faults::scenario::{self, Extent};
use pgdock_tests::faults::{Campaign, Lab, Mode, Plan, Scenario, Setup, Special, store};

/// The seed and the number of faults of a usual run.
const SEED: u64 = 1;
const FAULTS: usize = 4;
/// The number of faults of one run where there are many.
const FAULTS_OF_MANY: usize = 10;

/// What the command line asks for.
struct Args {
    scenarios: Vec<Scenario>,
    extent: Extent,
    times: u64,
    /// How many seeds: none where scenarios alone are asked for.
    seeds: u64,
    seed: u64,
    faults: usize,
    setups: Vec<Setup>,
    mode: Option<Mode>,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut args = Self {
            scenarios: Vec::new(),
            extent: Extent::SHORT,
            times: 1,
            seeds: 1,
            seed: SEED,
            faults: FAULTS,
            setups: Setup::ALL.into(),
            mode: None,
        };
        // Who asks for something gets that alone.
        let (mut total, mut drawn, mut told) = (None, false, false);
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number = |value: String| value.parse::<u64>().map_err(|_| format!("not a number: `{value}`"));
            drawn |= matches!(word.as_str(), "--seed" | "--seeds" | "--faults" | "--total" | "--setup" | "--mode");
            told |= word == "--scenario";
            match word.as_str() {
                "--scenario" => {
                    for name in value()?.split(',') {
                        args.scenarios.extend(scenarios(name)?);
                    }
                }
                "--long" => args.extent = Extent::LONG,
                "--pause" => args.extent.pause = Duration::from_secs(number(value()?)?),
                "--outage" => args.extent.outage = Duration::from_secs(number(value()?)?),
                "--switchovers" => args.extent.switchovers = u32::try_from(number(value()?)?).unwrap_or(u32::MAX),
                "--times" => args.times = number(value()?)?,
                "--seed" => args.seed = number(value()?)?,
                "--seeds" => args.seeds = number(value()?)?,
                "--total" => {
                    total = Some(number(value()?)?);
                    args.faults = FAULTS_OF_MANY;
                }
                "--faults" => args.faults = usize::try_from(number(value()?)?).unwrap_or(FAULTS),
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
        if let Some(total) = total {
            args.seeds = total.div_ceil((args.faults as u64).max(1));
        }
        match (told, drawn) {
            (false, false) => args.scenarios = scenarios("quick")?,
            (true, false) => args.seeds = 0,
            (_, true) => {}
        }
        Ok(args)
    }
}

/// The scenarios that a word of the command line names.
fn scenarios(name: &str) -> Result<Vec<Scenario>, String> {
    let named = |s: &Scenario| match name {
        "all" => true,
        "quick" => s.quick,
        name => s.name == name || s.number.to_string() == name,
    };
    let found: Vec<_> = scenario::ALL.into_iter().filter(named).collect();
    if found.is_empty() {
        let names: Vec<_> = scenario::ALL.iter().map(|s| s.name).collect();
        return Err(format!("there is no scenario `{name}`; there are all, quick, {}", names.join(", ")));
    }
    Ok(found)
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--list") {
        // A runner that wants to know what is here.
        if !std::env::args().any(|word| word == "--ignored") {
            println!("faults: test");
        }
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|word| word == "--list-scenarios") {
        for scenario in scenario::ALL {
            let quick = if scenario.quick { ", quick" } else { "" };
            println!("{:>2} {}{quick}\n   {}", scenario.number, scenario.name, scenario.text);
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
    let drawn = args.setups.iter().filter(|_| args.seeds > 0).copied();
    let setups = args.scenarios.iter().map(|scenario| scenario.setup).chain(drawn);
    let nodes = setups.map(Setup::nodes).max().unwrap_or_default();
    let lab = match Lab::make(folder, nodes).await {
        Ok(lab) => Arc::new(lab),
        Err(error) => {
            eprintln!("no lab: {}", error.chain());
            return false;
        }
    };
    let mut passed = true;
    passed &= play_all(&lab, args).await;
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
        let special = Special { clocks: plan.clocks(), routed: true, ..Special::default() };
        let mut campaign = Campaign::begin(lab, plan.setup, &special, &out).await?;
        if let Err(error) = campaign.inflict(plan).await {
            campaign.fail(format!("the test cannot go on: {}", error.chain()));
        }
        campaign.end(&title, &plan.replay()).await
    };
    told(&title, outcome.await, &out, &plan.replay())
}

/// All scenarios that are asked for, one after the other; whether all passed.
async fn play_all(lab: &Arc<Lab>, args: &Args) -> bool {
    let (begin, mut played, mut failed) = (Instant::now(), 0, Vec::new());
    for scenario in &args.scenarios {
        if let Err(why) = scenario.possible() {
            println!("scenario {}, {}: skipped: {why}", scenario.number, scenario.name);
            if std::env::var("PGDOCK_REAL").as_deref() == Ok("required") {
                failed.push(scenario.name);
            }
            continue;
        }
        for time in 1..=args.times {
            played += 1;
            if !play(lab, scenario, &args.extent, time).await {
                failed.push(scenario.name);
            }
        }
    }
    if !args.scenarios.is_empty() {
        let verdict =
            if failed.is_empty() { "all passed".to_owned() } else { format!("FAILED: {}", failed.join(", ")) };
        println!("scenarios: {played} played in {} s, {verdict}", begin.elapsed().as_secs());
    }
    failed.is_empty()
}

/// One scenario, from beginning to end.
async fn play(lab: &Arc<Lab>, scenario: &Scenario, extent: &Extent, time: u64) -> bool {
    let title = format!("scenario {}, {}", scenario.number, scenario.name);
    let again = if time > 1 { format!("-{time}") } else { String::new() };
    eprintln!("{title}: {}", scenario.text);
    let out = out(&format!("scenario-{}{again}", scenario.name));
    let Extent { pause, outage, switchovers } = extent;
    let replay = format!(
        "cargo test -p pgdock-tests --test faults -- --scenario {} --pause {} --outage {} --switchovers {switchovers}",
        scenario.name,
        pause.as_secs(),
        outage.as_secs()
    );
    let outcome = async {
        lab.clear().await?;
        let mut campaign = Campaign::begin(lab, scenario.setup, &scenario.special, &out).await?;
        if let Err(error) = scenario.play(&mut campaign, extent).await {
            campaign.fail(format!("it cannot go on: {}", error.chain()));
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

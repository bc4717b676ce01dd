//! Runs the simulator over many seeds.
//!
//! ```text
//! cargo test -p pgdock-tests --test simulation                          the usual seeds, and the mutations
//! cargo test -p pgdock-tests --test simulation -- --seeds 10000         that many seeds, from --from or 1
//! cargo test -p pgdock-tests --test simulation -- --seed 3053           one seed, told in full
//! cargo test -p pgdock-tests --test simulation -- --drop Barrier        without a rule; also with --seed
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;

use pgdock_core::decide::rules::{Rule, Rules};
use pgdock_tests::simulation::{Outcome, Scenario, run};

/// How many seeds a usual run tries.
const SEEDS: u64 = 1_500;
/// Within so many seeds a dropped rule must show.
const SEEDS_FOR_MUTATION: u64 = 4_000;
/// How much of the trace a failure prints.
const TAIL: usize = 120;

/// The rules, with the invariants that may break first without them.
const MUTATIONS: [(Rule, &str, &[&str]); 24] = [
    (Rule::Settle, "Settle", &["sync_set", "acknowledged_survives", "one_speaker"]),
    (Rule::StartInRecovery, "StartInRecovery", &["terms", "one_right", "right_ended", "one_speaker", "deposed"]),
    (Rule::KeepOut, "KeepOut", &["seen_survives"]),
    (Rule::Strict, "Strict", &["strict"]),
    (Rule::Expire, "Expire", &["right_ended", "one_right"]),
    (Rule::Patience, "Patience", &["one_right", "one_speaker"]),
    (Rule::Detach, "Detach", &["acknowledged_survives", "sync_set", "one_speaker"]),
    (Rule::Pledges, "Pledges", &["acknowledged_survives", "sync_set", "one_speaker"]),
    (Rule::StayDetached, "StayDetached", &["acknowledged_survives", "sync_set", "one_speaker"]),
    (Rule::Membership, "Membership", &["acknowledged_survives", "one_speaker"]),
    (Rule::KeepNames, "KeepNames", &["seen_survives", "sync_set", "acknowledged_survives", "one_speaker"]),
    (Rule::NamesAfterDocument, "NamesAfterDocument", &["sync_set", "acknowledged_survives", "one_speaker"]),
    (Rule::Barrier, "Barrier", &["sync_set", "acknowledged_survives"]),
    (Rule::HoldShutdown, "HoldShutdown", &["acknowledged_survives"]),
    (Rule::ServeTail, "ServeTail", &["acknowledged_survives"]),
    (Rule::OutliveOutage, "OutliveOutage", &["outage"]),
    (Rule::PromiseOfAll, "PromiseOfAll", &["one_right", "one_speaker", "right_ended"]),
    (Rule::CountFromPlea, "CountFromPlea", &["one_right", "one_speaker", "right_ended"]),
    (Rule::KeepPromise, "KeepPromise", &["one_right", "one_speaker", "right_ended", "outage"]),
    (Rule::RelayExactly, "RelayExactly", &["terms"]),
    (Rule::ReadFirst, "ReadFirst", &["heals", "acknowledged_survives"]),
    (Rule::FenceDeposed, "FenceDeposed", &["deposed", "one_speaker"]),
    (Rule::CompareHistory, "CompareHistory", &["heals", "one_history"]),
    (Rule::OwnTimeline, "OwnTimeline", &["one_history", "heals"]),
];

/// What the command line asks for.
#[derive(Default)]
struct Args {
    seed: Option<u64>,
    seeds: Option<u64>,
    from: Option<u64>,
    drop: Option<(Rule, &'static str)>,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let value = words.next().ok_or(format!("{word} needs a number"))?;
                value.parse().map_err(|_| format!("{word} needs a number, found `{value}`"))
            };
            match word.as_str() {
                "--seed" => args.seed = Some(number()?),
                "--seeds" => args.seeds = Some(number()?),
                "--from" => args.from = Some(number()?),
                "--drop" => {
                    let name = words.next().unwrap_or_default();
                    let found = MUTATIONS.iter().find(|(_, known, _)| *known == name);
                    let (rule, name, _) = found.ok_or(format!("there is no rule `{name}`"))?;
                    args.drop = Some((*rule, name));
                }
                // What test runners pass to every test.
                _ => {}
            }
        }
        Ok(args)
    }

    fn rules(&self) -> Rules {
        self.drop.map_or_else(Rules::default, |(rule, _)| Rules::without(rule))
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--list") {
        // A runner that wants to know what is here.
        if !std::env::args().any(|word| word == "--ignored") {
            println!("simulation: test");
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
    let passed = match args.seed {
        Some(seed) => replay(seed, &args, usize::MAX),
        None if args.seeds.is_some() || args.drop.is_some() => soak(&args),
        None => known_seeds() && same_seed_same_run() && soak(&args) && every_rule_is_missed(),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tells a run, up to so many of its last lines.
fn replay(seed: u64, args: &Args, lines: usize) -> bool {
    let outcome = run(Scenario::of(seed, args.rules()), true);
    for line in &outcome.lines[outcome.lines.len().saturating_sub(lines)..] {
        println!("{line}");
    }
    let Outcome { acked, lost, terms, healed_after, violation, .. } = &outcome;
    println!("{:?}", Scenario::of(seed, args.rules()));
    println!("acknowledged={acked}, lost={lost}, terms={terms}, healed_after_us={healed_after:?}");
    if let Some(violation) = violation {
        println!("violated: {} ({})", violation.invariant, violation.detail.lines().next().unwrap_or_default());
        let drop = args.drop.map(|(_, name)| format!(" --drop {name}")).unwrap_or_default();
        println!("replay: cargo test -p pgdock-tests --test simulation -- --seed {seed}{drop}");
    }
    violation.is_none()
}

/// The seeds that once failed.
fn known_seeds() -> bool {
    try_all(seeds_in_file(), &Args::default())
}

fn seeds_in_file() -> impl Iterator<Item = u64> {
    let seeds = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    seeds.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok())
}

fn soak(args: &Args) -> bool {
    let from = args.from.unwrap_or(1);
    try_all(from..from + args.seeds.unwrap_or(SEEDS), args)
}

/// Runs seeds, tells the first that fails, and counts the others that do.
fn try_all(seeds: impl Iterator<Item = u64>, args: &Args) -> bool {
    let (mut count, mut terms, mut acked, mut lost, mut slowest) = (0, 0, 0, 0, 0);
    let mut failed: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    for seed in seeds {
        let outcome = run(Scenario::of(seed, args.rules()), false);
        count += 1;
        terms += outcome.terms;
        acked += outcome.acked;
        lost += outcome.lost;
        slowest = slowest.max(outcome.healed_after.unwrap_or(0));
        if let Some(violation) = outcome.violation {
            failed.entry(violation.invariant).or_default().push(seed);
        }
    }
    println!(
        "seeds={count}, reigns={terms}, acknowledged={acked}, lost_where_that_is_allowed={lost}, slowest_heal_ms={}",
        slowest / 1_000
    );
    let first = failed.values().flatten().min().copied();
    if let Some(seed) = first {
        replay(seed, args, TAIL);
    }
    for (invariant, seeds) in &failed {
        println!("{invariant} failed {} times, first with {:?}", seeds.len(), &seeds[..seeds.len().min(10)]);
    }
    failed.is_empty()
}

/// The same seed gives the same run, and another one another.
fn same_seed_same_run() -> bool {
    let digests: Vec<_> = (1..=20).map(|seed| run(Scenario::of(seed, Rules::default()), false).digest).collect();
    let again: Vec<_> = (1..=20).map(|seed| run(Scenario::of(seed, Rules::default()), true).digest).collect();
    let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
    let passed = digests == again && distinct.len() == digests.len();
    println!("the same seed gives the same run: {passed}");
    passed
}

/// Whichever rule is dropped, an invariant breaks.
fn every_rule_is_missed() -> bool {
    let mut passed = true;
    for (rule, name, expected) in MUTATIONS {
        let found = seeds_in_file()
            .chain(1..=SEEDS_FOR_MUTATION)
            .find_map(|seed| run(Scenario::of(seed, Rules::without(rule)), false).violation.map(|v| (seed, v)));
        match found {
            Some((seed, violation)) if expected.contains(&violation.invariant) => {
                println!("without {name}: {} breaks with seed {seed}", violation.invariant);
            }
            Some((seed, violation)) => {
                println!("without {name}: {} breaks with seed {seed}, not one of {expected:?}", violation.invariant);
                passed = false;
            }
            None => {
                println!("without {name}: nothing breaks within {SEEDS_FOR_MUTATION} seeds");
                passed = false;
            }
        }
    }
    passed
}

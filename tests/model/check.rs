//! [`checks`]: what is explored, within which bounds.

use pgdock_core::decide::rules::{Rule, Rules};
use pgdock_core::witness::record::Durability;

use crate::cluster::properties::{
    ACKNOWLEDGED, GOES_ON, HEALS, NEVER_ALONE, ONE_HISTORY, ONE_LEADER, ONE_WRITER, TERMS,
};
use crate::cluster::state::{Budget, Members};
use crate::cluster::{Bounds, Cluster};
use crate::explore::{Outcome, explore};
use crate::sets;
use crate::timed::{self, Timed};

/// One exploration.
#[expect(missing_debug_implementations, reason = "it holds the way to run it")]
pub struct Check {
    /// The world.
    pub world: &'static str,
    /// The rule that does not hold in it.
    pub dropped: Option<String>,
    /// The properties that break then.
    pub breaks: &'static [&'static str],
    run: Box<dyn Fn(usize) -> Outcome + Send + Sync>,
}

impl Check {
    /// Explores with so many threads.
    #[must_use]
    pub fn run(&self, threads: usize) -> Outcome {
        (self.run)(threads)
    }
}

/// A world of whole clusters.
struct World {
    name: &'static str,
    bounds: Bounds,
    /// The rules whose loss is found in it.
    mutations: &'static [Rule],
}

/// All of them: each world under all rules, and without each of its rules. `deep`: within wider bounds.
#[must_use]
pub fn checks(deep: bool) -> Vec<Check> {
    let mut all = sets_checks(deep);
    all.extend(timed_checks(deep));
    all.extend(worlds(deep).into_iter().flat_map(cluster_checks));
    all
}

fn sets_checks(deep: bool) -> Vec<Check> {
    let usual = sets::Bounds { standbys: 2, commits: 2, versions: 3 };
    let whole = if deep { sets::Bounds { versions: 4, ..usual } } else { usual };
    let run = |bounds, dropped| -> Box<dyn Fn(usize) -> Outcome + Send + Sync> {
        Box::new(move |threads| explore(sets::Sets::new(bounds, dropped), threads))
    };
    let mut all = vec![Check { world: "sets", dropped: None, breaks: &[], run: run(whole, None) }];
    all.extend(sets::MUTATIONS.map(|rule| Check {
        world: "sets",
        dropped: Some(format!("{rule:?}")),
        breaks: &[sets::ACKNOWLEDGED],
        run: run(usual, Some(rule)),
    }));
    all
}

fn timed_checks(deep: bool) -> Vec<Check> {
    let budget = timed::state::Budget { slips: 1, ..Default::default() };
    let within = |world, bounds, dropped: Option<timed::Dropped>, breaks| Check {
        world,
        dropped: dropped.map(timed::Dropped::name),
        breaks,
        run: Box::new(move |threads| explore(Timed::new(bounds, dropped), threads)),
    };
    let bounds = |budget| timed::Bounds { terms: 2, timelines: 2, talks: false, budget };
    let check = |world, budget, dropped, breaks| within(world, bounds(budget), dropped, breaks);
    // A leader that has renewed its right in vain or not, and then asks the other node to wait.
    let renewals = Some(1 + u8::from(deep));
    let promises = timed::Bounds { talks: true, ..bounds(timed::state::Budget { renewals, ..Default::default() }) };
    let mut all = vec![check("timed", budget, None, &[])];
    if deep {
        all.push(check("timed, crash", timed::state::Budget { crashes: 1, ..budget }, None, &[]));
        all.push(check("timed, unanswered", timed::state::Budget { unanswered: 1, ..budget }, None, &[]));
    }
    all.extend(timed::MUTATIONS.map(|d| check("timed", budget, Some(d), &[timed::properties::ONE_RIGHT])));
    all.push(within("promises", promises, None, &[]));
    all.extend(
        [Rule::PromiseOfAll, Rule::CountFromPlea, Rule::KeepPromise].map(|rule| {
            within("promises", promises, Some(timed::Dropped::Rule(rule)), &[timed::properties::ONE_RIGHT])
        }),
    );
    let outlive = timed::Dropped::Rule(Rule::OutliveOutage);
    all.push(within("promises", promises, Some(outlive), &[timed::properties::OUTLIVES]));
    all
}

/// Who guards commits in the beginning: n2; n2 or n3; nobody.
fn begins(nodes: usize) -> Vec<(Members, u8)> {
    let n2 = Members::one(1, 0);
    if nodes == 2 { vec![(n2, 1)] } else { vec![(n2, 1), (n2.with(2, 0), 1), (Members::default(), 0)] }
}

fn worlds(deep: bool) -> Vec<World> {
    let more = u8::from(deep);
    let world = |name, nodes, terms, heal, budget, mutations| {
        let bounds = Bounds {
            nodes,
            durability: Durability::Sync,
            acks: 1,
            strict: false,
            begins: begins(nodes),
            terms,
            guards_last: nodes == 2 || deep,
            tells: false,
            heal,
            budget,
        };
        World { name, bounds, mutations }
    };
    let quiet = Budget { commits: 1, ..Budget::default() };
    vec![
        world(
            "partition",
            3,
            2,
            true,
            Budget { renewals: more, ..quiet },
            &[
                Rule::Detach,
                Rule::Pledges,
                Rule::StayDetached,
                Rule::Membership,
                Rule::NamesAfterDocument,
                Rule::Barrier,
            ],
        ),
        world(
            "crash",
            2,
            2,
            true,
            Budget { crashes: 1, restarts: 1, renewals: more, ..quiet },
            &[
                Rule::StartInRecovery,
                Rule::KeepOut,
                Rule::KeepNames,
                Rule::FenceDeposed,
                Rule::CompareHistory,
                Rule::OwnTimeline,
            ],
        ),
        world("rejoin", 2, 3, true, Budget { crashes: 1 + more, ..quiet }, &[]),
        telling(world(
            "unanswered",
            2,
            2,
            true,
            Budget { renewals: 1, restarts: 1, unanswered: 1 + more, ..quiet },
            &[Rule::Settle, Rule::RelayExactly, Rule::ReadFirst],
        )),
        world(
            "handover",
            2,
            2,
            true,
            Budget { switchovers: 1, crashes: 1, unanswered: more, ..quiet },
            &[Rule::HoldShutdown],
        ),
        without_guards(world(
            "tail",
            2,
            3,
            false,
            Budget { commits: 2, crashes: 2, restarts: 1, switchovers: 1, unanswered: more, ..Budget::default() },
            &[Rule::ServeTail, Rule::HoldShutdown],
        )),
        strictly(world("strict", 2, 2, false, Budget { crashes: 1, restarts: 1, ..quiet }, &[Rule::Strict])),
        world("late", 2, 2, true, Budget { late_reports: 1, crashes: 1, ..quiet }, &[]),
        quorum("quorum", 1, true, quiet, &[Rule::Pledges, Rule::Detach, Rule::StayDetached, Rule::Barrier]),
        quorum("quorum of two", 2, deep, quiet, &[Rule::Detach]),
    ]
}

/// Agents tell each other what they read.
fn telling(mut world: World) -> World {
    world.bounds.tells = true;
    world
}

/// Commits wait for nobody.
fn without_guards(mut world: World) -> World {
    (world.bounds.durability, world.bounds.acks) = (Durability::Async, 0);
    world.bounds.begins = vec![(Members::default(), 0)];
    world
}

/// Commits rather wait than be held by the primary alone.
fn strictly(mut world: World) -> World {
    world.bounds.strict = true;
    world
}

/// Both standbys guard commits, and so many of them each one.
fn quorum(name: &'static str, acks: u8, heal: bool, budget: Budget, mutations: &'static [Rule]) -> World {
    let both = Members::one(1, 0).with(2, 0);
    let bounds = Bounds {
        nodes: 3,
        durability: Durability::Quorum,
        acks: acks.into(),
        strict: false,
        begins: vec![(both, acks)],
        terms: 2,
        guards_last: false,
        tells: false,
        heal,
        budget,
    };
    World { name, bounds, mutations }
}

fn cluster_checks(world: World) -> Vec<Check> {
    let World { name, bounds, mutations } = world;
    let run = |rules, strict, heal| -> Box<dyn Fn(usize) -> Outcome + Send + Sync> {
        let bounds = Bounds { heal: bounds.heal && heal, ..bounds.clone() };
        Box::new(move |threads| explore(Cluster::new(bounds.clone(), rules, strict), threads))
    };
    let mut all = vec![Check { world: name, dropped: None, breaks: &[], run: run(Rules::default(), true, true) }];
    all.extend(mutations.iter().map(|rule| Check {
        world: name,
        dropped: Some(format!("{rule:?}")),
        breaks: breaks(*rule),
        // Whether it heals is looked at where that is what breaks; elsewhere it could break before a commit is lost.
        run: run(Rules::without(*rule), false, breaks(*rule).iter().any(|b| [HEALS, GOES_ON].contains(b))),
    }));
    all
}

/// What breaks first without a rule, on the shortest way.
fn breaks(rule: Rule) -> &'static [&'static str] {
    match rule {
        Rule::StartInRecovery => &[ONE_LEADER, HEALS],
        Rule::FenceDeposed | Rule::CompareHistory => &[HEALS],
        Rule::OwnTimeline => &[ONE_HISTORY, HEALS],
        Rule::RelayExactly => &[TERMS],
        Rule::Strict => &[NEVER_ALONE],
        Rule::ServeTail => &[ACKNOWLEDGED],
        Rule::ReadFirst => &[HEALS, ACKNOWLEDGED],
        Rule::HoldShutdown => &[ACKNOWLEDGED, GOES_ON],
        _ => &[ONE_WRITER, ACKNOWLEDGED],
    }
}

use std::sync::LazyLock;

use super::*;

const ALL: &str = "abcd";

/// All sets of members.
static SETS: LazyLock<Vec<BTreeSet<Member>>> = LazyLock::new(|| subsets(ALL));

fn set(names: &str) -> BTreeSet<Member> {
    names.chars().map(|c| format!("{c}:00000001").parse().unwrap()).collect()
}

fn subsets(of: &str) -> Vec<BTreeSet<Member>> {
    let all: Vec<char> = of.chars().collect();
    (0..1usize << all.len())
        .map(|bits| {
            set(&all.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0).map(|(_, c)| *c).collect::<String>())
        })
        .collect()
}

/// Every "so many of a set", nobody at all among them.
fn promises() -> impl Iterator<Item = (BTreeSet<Member>, u32)> {
    SETS.iter().flat_map(|set| (u32::from(!set.is_empty())..=count(set)).map(move |n| (set.clone(), n)))
}

fn count(set: &BTreeSet<Member>) -> u32 {
    u32::try_from(set.len()).unwrap()
}

/// Who may hold a commit that was acknowledged once `k` of `set` confirmed it, at the least.
fn holders(set: &BTreeSet<Member>, k: u32) -> impl Iterator<Item = BTreeSet<Member>> + '_ {
    SETS.iter().filter(move |h| count(h) == k && h.is_subset(set)).cloned()
}

/// From every safe state, towards every target, each step keeps the invariant and the walk ends.
#[test]
fn every_walk_is_safe_and_ends() {
    let mut walks = 0;
    for (d, a) in promises() {
        for (members, k) in promises() {
            let names = Names { members, count: k };
            if !guards(&names, &d, a) {
                continue;
            }
            for (target, acks) in promises() {
                for first in [true, false] {
                    walk(names.clone(), d.clone(), a, (&target, acks), first);
                    walks += 1;
                }
            }
        }
    }
    assert!(walks > 10_000, "{walks}");
}

/// One walk. `first` chooses who flushes the barrier: those that sort first, or last, and nobody else.
fn walk(mut names: Names, mut d: BTreeSet<Member>, mut a: u32, to: (&BTreeSet<Member>, u32), first: bool) {
    let start = format!("names {names}, document {a} of {d:?}, target {} of {:?}", to.1, to.0);
    let mut barrier: Option<BTreeSet<Member>> = None;
    // The fewest that may hold a commit, for any that the document or the names let through so far.
    let mut held: BTreeSet<BTreeSet<Member>> = holders(&d, a).collect();
    held.extend(holders(&names.members, names.count));
    for _ in 0..12 {
        let now = SyncState { names: &names, settled: true, sync_set: &d, acks: a, past_barrier: barrier.clone() };
        match next_step(&now, to.0, to.1) {
            SyncStep::Settled => {
                assert_eq!((&d, a), to, "{start}");
                assert_eq!(names, Names { members: d, count: a }, "{start}");
                return;
            }
            // Those that have not flushed the barrier yet do so at last.
            SyncStep::Wait => {
                let past = barrier.replace(set(ALL)).expect("it waits for a barrier");
                assert_ne!(past, set(ALL), "waits with all done: {start}");
                held = BTreeSet::from([set(ALL)]);
            }
            SyncStep::SetNames(next) => {
                assert!(next.count as usize <= next.members.len(), "{start}: {next} cannot be met");
                assert!(guards(&next, &d, a), "{start}: {next} loosens what {a} of {d:?} promises");
                assert_ne!(next, names, "{start}");
                held.extend(holders(&next.members, next.count));
                (names, barrier) = (next, None);
            }
            SyncStep::TakeBarrier => {
                let (next, acks) = next_document(&now, to.0, to.1);
                let of: Vec<Member> = if first { next.into_iter().collect() } else { next.into_iter().rev().collect() };
                let past: BTreeSet<Member> = of.into_iter().take(acks as usize).collect();
                held = held.iter().map(|h| h.union(&past).cloned().collect()).collect();
                barrier = Some(past);
            }
            SyncStep::Record { sync_set, acks } => {
                assert!(guards(&names, &sync_set, acks), "{start}: {names} does not hold {acks} of {sync_set:?}");
                let lacking = held.iter().find(|h| count(&h.intersection(&sync_set).cloned().collect()) < acks);
                assert_eq!(lacking, None, "{start}: held by no more than these, not by {acks} of {sync_set:?}");
                (d, a) = (sync_set, acks);
            }
        }
    }
    panic!("does not end: {start}");
}

/// The steps from where things stand, with every barrier flushed by all.
fn steps(names: (&str, u32), document: (&str, u32), target: (&str, u32)) -> Vec<String> {
    let mut names = Names { members: set(names.0), count: names.1 };
    let (mut d, mut a) = (set(document.0), document.1);
    let mut past_barrier = None;
    let mut steps = Vec::new();
    let short = |set: &BTreeSet<Member>| set.iter().map(|m| m.node.to_string()).collect::<String>();
    loop {
        let now = SyncState { names: &names, settled: true, sync_set: &d, acks: a, past_barrier: past_barrier.clone() };
        match next_step(&now, &set(target.0), target.1) {
            SyncStep::Settled => return steps,
            SyncStep::Wait => panic!("waits: {steps:?}"),
            SyncStep::SetNames(next) => {
                steps.push(format!("names {} of {}", next.count, short(&next.members)));
                (names, past_barrier) = (next, None);
            }
            SyncStep::TakeBarrier => {
                steps.push("barrier".into());
                past_barrier = Some(set(ALL));
            }
            SyncStep::Record { sync_set, acks } => {
                steps.push(format!("document {acks} of {}", short(&sync_set)));
                (d, a) = (sync_set, acks);
            }
        }
    }
}

#[test]
fn members_come_and_go_without_holding_up_commits() {
    // The first ones.
    assert_eq!(steps(("", 0), ("", 0), ("ab", 1)), ["names 1 of ab", "barrier", "document 1 of ab"]);
    // One joins: the document weakens first, and nobody is waited for.
    assert_eq!(steps(("a", 1), ("a", 1), ("ab", 1)), ["document 1 of ab", "names 1 of ab"]);
    // One leaves: the names narrow first.
    assert_eq!(steps(("ab", 1), ("ab", 1), ("a", 1)), ["names 1 of a", "barrier", "document 1 of a"]);
    // One left, and another came meanwhile.
    let both = steps(("ab", 1), ("ab", 1), ("ac", 1));
    assert_eq!(both, ["names 1 of a", "barrier", "document 1 of a", "document 1 of ac", "names 1 of ac"]);
}

#[test]
fn more_acknowledgements_rise_behind_a_barrier_and_fall_by_the_document() {
    assert_eq!(steps(("a", 1), ("a", 1), ("ab", 2)), ["names 2 of ab", "barrier", "document 2 of ab"]);
    assert_eq!(steps(("ab", 1), ("ab", 1), ("ab", 2)), ["names 2 of ab", "barrier", "document 2 of ab"]);
    // A member dies of whom every commit needed the word: one swap, then the names.
    assert_eq!(steps(("ab", 2), ("ab", 2), ("a", 1)), ["document 1 of a", "names 1 of a"]);
    assert_eq!(steps(("ab", 2), ("ab", 2), ("ab", 1)), ["document 1 of ab", "names 1 of ab"]);
    // The last one.
    assert_eq!(steps(("a", 1), ("a", 1), ("", 0)), ["document 0 of ", "names 0 of "]);
    // While another can take its place, no commit is held by fewer.
    let replaced = steps(("ab", 2), ("ab", 2), ("ac", 2));
    assert_eq!(replaced, ["names 3 of abc", "barrier", "document 2 of ac", "names 2 of ac"]);
}

#[test]
fn names_that_are_not_known_to_guard_give_way_to_some_that_do() {
    let d = set("ab");
    for (names, expected) in [
        // In force in part, maybe: the same again.
        (Names { members: set("ab"), count: 2 }, Names { members: set("ab"), count: 2 }),
        // Not set by pgdock.
        (Names::none(), Names { members: set("ab"), count: 1 }),
    ] {
        let now = SyncState { names: &names, settled: false, sync_set: &d, acks: 1, past_barrier: None };
        assert_eq!(next_step(&now, &set("abc"), 1), SyncStep::SetNames(expected));
    }
}

#[test]
fn a_dead_member_is_replaced_without_a_moment_of_single_copies() {
    let names = Names { members: set("a"), count: 1 };
    let (d, b) = (set("a"), set("b"));
    let mut now = SyncState { names: &names, settled: true, sync_set: &d, acks: 1, past_barrier: None };
    let both = Names { members: set("ab"), count: 2 };
    assert_eq!(next_step(&now, &b, 1), SyncStep::SetNames(both.clone()));
    now.names = &both;
    assert_eq!(next_step(&now, &b, 1), SyncStep::TakeBarrier);
    now.past_barrier = Some(BTreeSet::new());
    assert_eq!(next_step(&now, &b, 1), SyncStep::Wait);
    now.past_barrier = Some(set("b"));
    assert_eq!(next_step(&now, &b, 1), SyncStep::Record { sync_set: b.clone(), acks: 1 });
    now.sync_set = &b;
    assert_eq!(next_step(&now, &b, 1), SyncStep::SetNames(Names { members: b.clone(), count: 1 }));
}

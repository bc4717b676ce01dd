use super::*;

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

/// From every safe state, towards every target, each step keeps the invariant and the walk ends.
#[test]
fn every_walk_is_safe_and_ends() {
    let mut walks = 0;
    for d in subsets("abc") {
        for a in u32::from(!d.is_empty())..=u32::try_from(d.len()).unwrap() {
            for g in subsets("abc") {
                for k in 0..=u32::try_from(g.len()).unwrap() {
                    let names = Names { members: if k == 0 { BTreeSet::new() } else { g.clone() }, count: k };
                    if !guards(&names, &d, a) {
                        continue;
                    }
                    for target in subsets("abc") {
                        for acks in u32::from(!target.is_empty())..=u32::try_from(target.len()).unwrap() {
                            walk(names.clone(), d.clone(), a, &target, acks);
                            walks += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(walks > 1000, "{walks}");
}

fn walk(mut names: Names, mut d: BTreeSet<Member>, mut a: u32, target: &BTreeSet<Member>, acks: u32) {
    let mut barrier: Option<BTreeSet<Member>> = None;
    let start = format!("names {names}, document {a} of {d:?}, target {acks} of {target:?}");
    for _ in 0..12 {
        let now = SyncState { names: &names, settled: true, sync_set: &d, acks: a, past_barrier: barrier.clone() };
        match next_step(&now, target, acks) {
            SyncStep::Settled => {
                assert_eq!((&d, a), (target, acks), "{start}");
                assert_eq!(names, Names { members: target.clone(), count: acks }, "{start}");
                return;
            }
            SyncStep::Wait => panic!("waits with all done: {start}"),
            SyncStep::SetNames(next) => {
                assert!(next.count as usize <= next.members.len(), "{start}: {next} cannot be met");
                assert!(guards(&next, &d, a), "{start}: {next} loosens what {a} of {d:?} promises");
                assert_ne!(next, names, "{start}");
                names = next;
                barrier = None;
            }
            SyncStep::TakeBarrier => barrier = Some(set("abc")),
            SyncStep::Record { sync_set, acks } => {
                assert!(guards(&names, &sync_set, acks), "{start}: {names} does not hold {acks} of {sync_set:?}");
                assert!(sync_set.is_empty() || barrier.is_some(), "{start}: no barrier");
                d = sync_set;
                a = acks;
            }
        }
    }
    panic!("does not end: {start}");
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

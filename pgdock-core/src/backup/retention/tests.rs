use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SEGMENT: u64 = 16 << 20;

fn label(at: &str) -> Label {
    Label::new(at.parse().unwrap(), 7)
}

fn backup(at: &str) -> Candidate {
    Candidate {
        label: label(at),
        system: 7,
        timeline: TimelineId(1),
        start: Lsn(0x0300_0028),
        segment_bytes: SEGMENT,
        damaged: false,
    }
}

fn daily(days: std::ops::RangeInclusive<u32>) -> Vec<Candidate> {
    days.map(|day| backup(&format!("2026-11-{day:02}T03:00:00Z"))).collect()
}

fn none() -> Keep {
    Keep { count: None, age: None, daily: None, weekly: None, monthly: None }
}

fn kept_days(backups: Vec<Candidate>, rules: &Keep, now: &str) -> Vec<String> {
    let plan = plan(&Stock { backups, ..Stock::default() }, rules, now.parse().unwrap());
    plan.keep.keys().map(|label| label.as_str()[4..8].to_owned()).collect()
}

const NOW: &str = "2026-11-30T12:00:00Z";

#[test]
fn each_rule_keeps_its_own() {
    let all = || daily(1..=30);
    assert_eq!(kept_days(all(), &none(), NOW), ["1130"], "the newest one always");
    assert_eq!(kept_days(all(), &Keep { count: Some(3), ..none() }, NOW), ["1128", "1129", "1130"]);
    let two_days = Some(Duration::from_secs(2 * 86_400));
    assert_eq!(kept_days(all(), &Keep { age: two_days, ..none() }, NOW), ["1128", "1129", "1130"]);
    // The 30th is a Monday.
    let weekly = Keep { weekly: Some(3), ..none() };
    assert_eq!(kept_days(all(), &weekly, NOW), ["1122", "1129", "1130"]);
    let mut months = all();
    months.insert(0, backup("2026-09-30T03:00:00Z"));
    months.insert(1, backup("2026-10-05T03:00:00Z"));
    months.insert(2, backup("2026-10-31T03:00:00Z"));
    assert_eq!(kept_days(months, &Keep { monthly: Some(2), ..none() }, NOW), ["1031", "1130"]);
    let mut twice = daily(28..=29);
    twice.push(backup("2026-11-29T15:00:00Z"));
    let plan =
        plan(&Stock { backups: twice, ..Stock::default() }, &Keep { daily: Some(5), ..none() }, NOW.parse().unwrap());
    assert_eq!(plan.expire, [label("2026-11-29T03:00:00Z")], "the newest of a day is its own");
    assert_eq!(plan.keep[&label("2026-11-29T15:00:00Z")], [Why::Newest, Why::Daily]);
}

#[test]
fn time_alone_deletes_nothing() {
    let week = Keep { age: Some(Duration::from_secs(7 * 86_400)), ..none() };
    let before = kept_days(daily(20..=30), &week, NOW);
    assert_eq!(before.len(), 8);
    assert_eq!(kept_days(daily(20..=30), &week, "2030-01-01T00:00:00Z"), before, "no backup was made for years");
    // A backup from the future is kept, and says nothing of the others' age.
    let mut odd = daily(20..=30);
    odd.push(backup("2029-01-01T00:00:00Z"));
    let kept = kept_days(odd, &week, NOW);
    assert_eq!((kept.len(), kept.last().map(String::as_str)), (9, Some("0101")));
}

#[test]
fn a_damaged_backup_takes_no_place() {
    let mut backups = daily(26..=30);
    backups[4].damaged = true;
    backups[2].damaged = true;
    backups[0].damaged = true;
    let now = NOW.parse().unwrap();
    let plan = plan(&Stock { backups, ..Stock::default() }, &Keep { count: Some(2), ..none() }, now);
    assert_eq!(plan.keep[&label("2026-11-29T03:00:00Z")], [Why::Newest, Why::Count]);
    assert_eq!(plan.keep[&label("2026-11-27T03:00:00Z")], [Why::Count]);
    assert_eq!(plan.keep[&label("2026-11-30T03:00:00Z")], [Why::Damaged]);
    assert_eq!(plan.expire, [label("2026-11-26T03:00:00Z")]);
}

#[test]
fn leftovers_go_when_they_are_old_and_nobody_is_at_them() {
    let old = label("2026-11-28T03:00:00Z");
    let stock = |claimed: Option<&Label>| Stock {
        backups: daily(30..=30),
        unfinished: vec![old.clone(), label("2026-11-30T01:00:00Z")],
        claimed: claimed.cloned(),
        ..Stock::default()
    };
    let sweep = |stock: &Stock| plan(stock, &Keep::default(), NOW.parse().unwrap()).sweep;
    assert_eq!(sweep(&stock(None)), std::slice::from_ref(&old));
    assert_eq!(sweep(&stock(Some(&old))), []);
    let alone = Stock { unfinished: vec![old], ..Stock::default() };
    assert_eq!(sweep(&alone), [], "a first backup may take long");
}

#[test]
fn wal_before_the_oldest_kept_backup_goes() {
    let mut backups = daily(29..=30);
    backups[0].start = Lsn(5 * SEGMENT + 40);
    backups[1].timeline = TimelineId(3);
    backups[1].start = Lsn(9 * SEGMENT);
    let limit = |count| {
        let keep = Keep { count: Some(count), ..none() };
        plan(&Stock { backups: backups.clone(), ..Stock::default() }, &keep, NOW.parse().unwrap()).wal
    };
    let file = |timeline: u32, number: u64| format!("{timeline:08X}{:08X}{:08X}", number / 256, number % 256);
    let needs = |limit: &WalLimit, t: u32, n: u64| limit.needs(7, TimelineId(t), &file(t, n));
    let both = limit(2);
    assert!(!needs(&both, 1, 4) && needs(&both, 1, 5) && needs(&both, 1, 600) && needs(&both, 2, 5));
    let newest = limit(1);
    assert!(!needs(&newest, 1, 600) && !needs(&newest, 2, 9), "no recovery leads to an older timeline");
    assert!(!needs(&newest, 3, 8) && needs(&newest, 3, 9) && needs(&newest, 4, 9) && !needs(&newest, 4, 8));
    assert!(newest.needs(7, TimelineId(1), "00000001.history"));
    assert!(!newest.needs(7, TimelineId(1), &(file(1, 2) + ".partial")));
    assert!(!newest.needs(7, TimelineId(3), &(file(3, 2) + "+00010000")));
    assert!(newest.needs(7, TimelineId(1), "something else that is longer than a segment"));
    assert!(!newest.needs(6, TimelineId(1), "00000001.history"), "a system that was made before, without a backup");
    assert!(newest.needs(8, TimelineId(1), &file(1, 1)), "a new one, of which there is no backup yet");
    let nothing = plan(&Stock::default(), &Keep::default(), NOW.parse().unwrap()).wal;
    assert!(nothing.is_empty() && nothing.needs(7, TimelineId(1), &file(1, 1)));
    let unreadable = Stock { backups, unreadable: vec![label(NOW)], ..Stock::default() };
    assert!(plan(&unreadable, &none(), NOW.parse().unwrap()).wal.is_empty(), "what it needs is not known");
}

#[test]
fn segments_of_any_size_are_numbered() {
    assert_eq!(segment("000000010000000000000001", 16 << 20), Some(1));
    assert_eq!(segment("00000001000000A9000000FE", 16 << 20), Some(0xA9FE));
    assert_eq!(segment("000000010000000200000003", 1 << 30), Some(11));
    for odd in
        ["00000001.history", "0000000100000000000001FF", "00000001000000000000000x", "000000010000000000000001x", ""]
    {
        assert_eq!(segment(odd, 16 << 20), None, "{odd}");
    }
}

prop_compose! {
    /// A history: backups with growing positions, failovers in between, some damaged.
    fn histories()(steps in prop::collection::vec((1..200_000_u64, 0..3_u32, 0..40_u64, any::<bool>(), 0..8_u8), 0..40)) -> Vec<Candidate> {
        let (mut time, mut timeline, mut start) = (1_760_000_000_i64, 1, 2 * SEGMENT);
        steps.into_iter().map(|(later, failovers, segments, aligned, chance)| {
            time += i64::try_from(later).unwrap();
            timeline += failovers;
            start += segments * SEGMENT + u64::from(!aligned) * 40;
            Candidate {
                label: Label::new(Timestamp::from_second(time).unwrap(), 1),
                system: 7,
                timeline: TimelineId(timeline),
                start: Lsn(start),
                segment_bytes: SEGMENT,
                damaged: chance == 0,
            }
        }).collect()
    }
}

proptest! {
    #[test]
    fn nothing_that_a_kept_backup_needs_is_in_the_plan(
        backups in histories(),
        count in prop::option::of(1..10_u32),
        age in prop::option::of(0..2_000_000_u64),
        daily in prop::option::of(1..10_u32),
        weekly in prop::option::of(1..5_u32),
        monthly in prop::option::of(1..5_u32),
        now in 1_760_000_000..1_770_000_000_i64,
        claimed in any::<bool>(),
    ) {
        let rules = Keep { count, age: age.map(Duration::from_secs), daily, weekly, monthly };
        let unfinished: Vec<Label> =
            backups.iter().step_by(3).map(|b| Label::new(b.label.begins(), 9)).collect();
        let claim = unfinished.first().filter(|_| claimed).cloned();
        let stock = Stock { backups: backups.clone(), unfinished, claimed: claim.clone(), ..Stock::default() };
        let plan = plan(&stock, &rules, Timestamp::from_second(now).unwrap());

        let kept: BTreeSet<_> = plan.keep.keys().collect();
        let gone: BTreeSet<_> = plan.expire.iter().collect();
        prop_assert!(kept.is_disjoint(&gone));
        prop_assert_eq!(kept.len() + gone.len(), backups.len());
        let good: Vec<_> = backups.iter().filter(|b| !b.damaged).collect();
        prop_assert!(backups.is_empty() || !kept.is_empty());
        if let Some(newest) = good.iter().map(|b| &b.label).max() {
            prop_assert!(kept.contains(newest), "the newest good one");
            let least = (count.unwrap_or(1) as usize).min(good.len());
            prop_assert!(good.iter().filter(|b| kept.contains(&b.label)).count() >= least);
        }
        prop_assert!(plan.sweep.iter().all(|label| Some(label) != claim.as_ref() && !kept.contains(label)));
        // Recovery of a kept backup reads from its start on, on its timeline and on every later one.
        for b in backups.iter().filter(|b| kept.contains(&b.label)) {
            let first = b.start.0 / SEGMENT;
            for number in first..first + 3 {
                for later in 0..3 {
                    let t = TimelineId(b.timeline.0 + later);
                    let file = format!("{:08X}{:08X}{:08X}", t.0, number / 256, number % 256);
                    prop_assert!(plan.wal.needs(7, t, &file), "{} of {:?}", file, b);
                    prop_assert!(plan.wal.needs(7, t, &(file.clone() + ".partial")));
                    prop_assert!(plan.wal.needs(7, t, &(file.clone() + "+00000000")));
                }
            }
        }
        // And what is before all of them goes.
        if let Some(oldest) = backups.iter().filter(|b| kept.contains(&b.label)).map(|b| b.start.0 / SEGMENT).min() {
            let number = oldest - 1;
            let file = format!("{:08X}{:08X}{:08X}", 1, number / 256, number % 256);
            prop_assert!(!plan.wal.needs(7, TimelineId(1), &file));
        }
        // A second time there is nothing more to do.
        let left = Stock { backups: backups.iter().filter(|b| kept.contains(&b.label)).cloned().collect(), ..Stock::default() };
        let again = super::plan(&left, &rules, Timestamp::from_second(now).unwrap());
        prop_assert_eq!(again.expire, Vec::<Label>::new());
        prop_assert_eq!(again.wal, plan.wal);
    }
}

//! [`plan`]: which backups are kept, and what may be deleted. Plain data in, plain data out.
//!
//! A backup needs its own objects and all WAL that recovery from it can meet: that of its timeline from its start on,
//! and that of every timeline that came later. Recovery only goes forward: a segment that ends before the start of
//! every kept backup, and one of a timeline older than those of all kept backups, is never read again.
//!
//! The age of a backup is told against the newest good one, not against the present: where no more backups are made,
//! none is deleted either, and a clock that was set forward deletes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::label::Label;
use crate::settings::Keep;
use crate::{Lsn, TimelineId};

/// A backup that never ended is left alone for so long: it may be under way.
pub const UNFINISHED_AGE: Duration = Duration::from_secs(24 * 3_600);
/// How much later than the present a backup may be dated: clocks of machines differ. One dated later still is kept,
/// and no other's age is told by it.
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(1);

/// A backup that ended, as far as retention looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, which tells when it began.
    pub label: Label,
    /// The number that all copies of its cluster share.
    pub system: u64,
    /// The timeline that its own WAL lies on.
    pub timeline: TimelineId,
    /// Where recovery of it begins.
    pub start: Lsn,
    /// The size of a segment of WAL, in bytes.
    pub segment_bytes: u64,
    /// Whether a verification found it damaged.
    pub damaged: bool,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// The backups that ended, oldest first.
    pub backups: Vec<Candidate>,
    /// Those that were begun and have no manifest.
    pub unfinished: Vec<Label>,
    /// Those whose manifest cannot be read: what they need is not known.
    pub unreadable: Vec<Label>,
    /// The backup that is known to be under way.
    pub claimed: Option<Label>,
}

/// Why a backup is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Why {
    /// It is the newest good one.
    Newest,
    /// `count`
    Count,
    /// `age`
    Age,
    /// `daily`
    Daily,
    /// `weekly`
    Weekly,
    /// `monthly`
    Monthly,
    /// It is dated later than the present.
    Future,
    /// It is damaged, and newer than one that is kept: somebody may want to look at it.
    Damaged,
}

impl Why {
    /// In a word, as the settings have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Count => "count",
            Self::Age => "age",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Future => "future",
            Self::Damaged => "damaged",
        }
    }
}

/// What is kept, and what may be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The backups that are kept, with the reasons, oldest first.
    pub keep: BTreeMap<Label, Vec<Why>>,
    /// The backups that are not, oldest first.
    pub expire: Vec<Label>,
    /// What interrupted backups left.
    pub sweep: Vec<Label>,
    /// Which WAL is not needed.
    pub wal: WalLimit,
}

/// Which WAL no kept backup needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalLimit {
    systems: BTreeMap<u64, Floor>,
    /// Systems that were made before this one have no backup any more.
    before: Option<u64>,
}

/// Of one system: where what is needed begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Floor {
    timeline: TimelineId,
    start: Lsn,
    segment_bytes: u64,
}

/// Judges what there is by the rules.
#[must_use]
pub fn plan(stock: &Stock, rules: &Keep, now: Timestamp) -> Plan {
    let mut plan = Plan { keep: kept(&stock.backups, rules, now), ..Plan::default() };
    plan.expire =
        stock.backups.iter().map(|b| &b.label).filter(|label| !plan.keep.contains_key(label)).cloned().collect();
    let newest = stock.backups.iter().map(|b| &b.label).chain(&stock.unfinished).max();
    plan.sweep = stock.unfinished.iter().filter(|label| is_abandoned(label, stock, newest, now)).cloned().collect();
    // What a backup needs that cannot be read is not known.
    if stock.unreadable.is_empty() {
        plan.wal = wal(stock, &plan);
    }
    plan
}

/// No two backups are made at once: one that is followed by another does not go on. The age is for those that do
/// not know of each other.
fn is_abandoned(label: &Label, stock: &Stock, newest: Option<&Label>, now: Timestamp) -> bool {
    let age = now.duration_since(label.begins());
    stock.claimed.as_ref() != Some(label)
        && newest.is_some_and(|newest| newest > label)
        && age > SignedDuration::try_from(UNFINISHED_AGE).unwrap_or(SignedDuration::MAX)
}

fn kept(backups: &[Candidate], rules: &Keep, now: Timestamp) -> BTreeMap<Label, Vec<Why>> {
    let mut keep: BTreeMap<Label, Vec<Why>> = BTreeMap::new();
    let mut note = |label: &Label, why: Why| {
        let reasons = keep.entry(label.clone()).or_default();
        if !reasons.contains(&why) {
            reasons.push(why);
        }
    };
    let is_future = |backup: &Candidate| backup.label.begins().duration_since(now) > AHEAD_MAX;
    for backup in backups.iter().filter(|backup| is_future(backup)) {
        note(&backup.label, Why::Future);
    }
    let mut good: Vec<&Candidate> = backups.iter().filter(|backup| !backup.damaged && !is_future(backup)).collect();
    good.sort_by(|a, b| b.label.cmp(&a.label));
    if let Some(newest) = good.first() {
        note(&newest.label, Why::Newest);
        let oldest_by_age = rules.age.and_then(|age| newest.label.begins().checked_sub(age).ok());
        for backup in &good {
            if oldest_by_age.is_some_and(|oldest| backup.label.begins() >= oldest) {
                note(&backup.label, Why::Age);
            }
        }
    }
    for backup in good.iter().take(rules.count.unwrap_or(0) as usize) {
        note(&backup.label, Why::Count);
    }
    for (most, why, period) in [
        (rules.daily, Why::Daily, day as fn(Date) -> Date),
        (rules.weekly, Why::Weekly, week),
        (rules.monthly, Why::Monthly, month),
    ] {
        let mut seen: Vec<Date> = Vec::new();
        for backup in &good {
            let date = period(backup.label.begins().to_zoned(TimeZone::UTC).date());
            // Newest first: the first one of a period is its newest.
            if seen.last() != Some(&date) {
                if seen.len() == most.unwrap_or(0) as usize {
                    break;
                }
                seen.push(date);
                note(&backup.label, why);
            }
        }
    }
    let oldest_good = good.iter().rev().map(|backup| backup.label.clone()).find(|label| keep.contains_key(label));
    for backup in backups.iter().filter(|backup| backup.damaged) {
        // Without any good one this may be the best there is.
        if oldest_good.as_ref().is_none_or(|oldest| backup.label > *oldest) {
            keep.entry(backup.label.clone()).or_default().push(Why::Damaged);
        }
    }
    keep
}

fn day(date: Date) -> Date {
    date
}

/// The Monday that a week begins with.
fn week(date: Date) -> Date {
    let days = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_sub(jiff::Span::new().days(days)).unwrap_or(date)
}

fn month(date: Date) -> Date {
    date.first_of_month()
}

fn wal(stock: &Stock, plan: &Plan) -> WalLimit {
    let mut limit = WalLimit::default();
    for backup in stock.backups.iter().filter(|backup| plan.keep.contains_key(&backup.label)) {
        let own = Floor { timeline: backup.timeline, start: backup.start, segment_bytes: backup.segment_bytes };
        let floor = limit.systems.entry(backup.system).or_insert(own);
        floor.timeline = floor.timeline.min(own.timeline);
        floor.start = floor.start.min(own.start);
        floor.segment_bytes = floor.segment_bytes.min(own.segment_bytes);
    }
    // The number of a system grows with the time that it was made at. Of a newer one there may be no backup yet.
    limit.before = limit.systems.keys().next().copied();
    limit
}

impl WalLimit {
    /// Whether some kept backup may need a file of WAL. What is not understood is needed.
    #[must_use]
    pub fn needs(&self, system: u64, timeline: TimelineId, file: &str) -> bool {
        let Some(floor) = self.systems.get(&system) else {
            return self.before.is_none_or(|first| system >= first);
        };
        let Some(number) = segment(file, floor.segment_bytes) else { return true };
        let ends = number.saturating_add(1).saturating_mul(floor.segment_bytes);
        timeline >= floor.timeline && ends > floor.start.0
    }

    /// Whether all segments of its timeline that come after this one by name are needed as well.
    #[must_use]
    pub fn is_past(&self, system: u64, timeline: TimelineId, file: &str) -> bool {
        match self.systems.get(&system) {
            Some(floor) => segment(file, floor.segment_bytes).is_some() && self.needs(system, timeline, file),
            None => self.needs(system, timeline, file),
        }
    }

    /// Whether nothing is known, so that everything is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.systems.is_empty()
    }
}

/// The number of a segment, by the name of its file: `00000001000000A9000000FE`, with `.partial` or `+OFFSET` behind
/// it. None for a history, which is always kept: it is small, and tells which timeline came from which.
fn segment(file: &str, segment_bytes: u64) -> Option<u64> {
    let (name, rest) = file.split_at_checked(24)?;
    if !(rest.is_empty() || rest.starts_with('+') || rest == ".partial") {
        return None;
    }
    let hex =
        |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    hex(&name[..8])?;
    let per_log = (1_u64 << 32).checked_div(segment_bytes)?;
    let (log, part) = (hex(&name[8..16])?, hex(&name[16..])?);
    (part < per_log).then_some(log * per_log + part)
}

#[cfg(test)]
mod tests;

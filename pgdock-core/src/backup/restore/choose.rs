//! Which backup leads to a target, and what can be reached at all.

use jiff::Timestamp;

use crate::backup::label::Label;
use crate::backup::manifest::Manifest;
use crate::{Error, History, Lsn, Result};

/// Up to where to recover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// To the end of the archive.
    #[default]
    Latest,
    /// Only until the data is consistent.
    Consistent,
    /// To the last commit before or at this time, by the clock of the node that was primary then.
    Time(Timestamp),
    /// To this position.
    Lsn(Lsn),
    /// To the commit of this transaction; with or without its epoch.
    Xid(u64),
    /// To a restore point of this name (`pg_create_restore_point`).
    Name(String),
}

impl std::str::FromStr for Target {
    type Err = Error;

    /// `latest`, `consistent`, a time with its zone, a position such as `0/3000148`, `xid:1234`, or `name:before-the-change`.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::invalid(format!("not a point to restore to. at={text:?}")).hint(
                "give `latest`, `consistent`, a time such as 2026-11-30T23:15:00Z, a position such as 0/3000148, `xid:1234` or `name:…`",
            )
        };
        if let Some(name) = text.strip_prefix("name:") {
            // PostgreSQL's own bound.
            return if (1..64).contains(&name.len()) { Ok(Self::Name(name.to_owned())) } else { Err(unknown()) };
        }
        if let Some(xid) = text.strip_prefix("xid:") {
            return xid.parse().ok().filter(|xid| *xid >= 3).map(Self::Xid).ok_or_else(unknown);
        }
        match text {
            "latest" => Ok(Self::Latest),
            "consistent" => Ok(Self::Consistent),
            _ => {
                let lsn = text.strip_prefix("lsn:").unwrap_or(text).parse().map(Self::Lsn);
                let time = || text.strip_prefix("time:").unwrap_or(text).parse().map(Self::Time);
                lsn.or_else(|_| time().map_err(|_| unknown()))
            }
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Consistent => f.write_str("consistent"),
            Self::Time(time) => time.fmt(f),
            Self::Lsn(lsn) => lsn.fmt(f),
            Self::Xid(xid) => write!(f, "xid:{xid}"),
            Self::Name(name) => write!(f, "name:{name}"),
        }
    }
}

/// What the archive reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The timeline to recover along, with its past; where it is not known, backups of every timeline count.
    pub history: Option<History>,
    /// The end of the archived WAL on it, as far as it is known.
    pub end: Option<Lsn>,
    /// A time at which that WAL was seen to be written: no later one can be reached.
    pub end_time: Option<Timestamp>,
}

/// The backup to restore for a target: the newest that ended before it, so that the least WAL is replayed.
///
/// # Errors
/// `Invalid` when there is none, or the target lies behind the end of the archive; the message tells what can be reached.
pub fn choose<'a>(
    backups: &'a [Manifest],
    wanted: Option<&Label>,
    target: &Target,
    reach: &Reach,
) -> Result<&'a Manifest> {
    let on_history = |m: &&Manifest| reach.history.as_ref().is_none_or(|history| history.contains(m.timeline, m.stop));
    let mut usable: Vec<&Manifest> = backups.iter().filter(on_history).collect();
    usable.sort_by(|a, b| (a.stop, &a.label).cmp(&(b.stop, &b.label)));
    if usable.is_empty() {
        let all =
            backups.iter().map(|m| format!("{} on timeline {}", m.label, m.timeline)).collect::<Vec<_>>().join(", ");
        return Err(Error::invalid(format!(
            "there is no backup on that timeline's history. backups={}",
            if all.is_empty() { "none" } else { &all }
        )));
    }
    let window = window(&usable, reach);
    let outside = |why: &str| Error::invalid(format!("{why}. target={target}, reachable={window}"));
    let behind = match target {
        Target::Lsn(lsn) => reach.end.is_some_and(|end| *lsn > end),
        Target::Time(time) => reach.end_time.is_some_and(|end| *time > end),
        _ => false,
    };
    if behind {
        return Err(outside("the target lies behind the end of the archive")
            .hint("with `latest` all that is archived is recovered"));
    }
    // PostgreSQL would pass by a target that lies before the backup is consistent, and recover to the end instead.
    let leads_there = |m: &&&Manifest| match target {
        Target::Lsn(lsn) => m.stop <= *lsn,
        Target::Time(time) => m.ended <= *time,
        // Transactions that were under way at the end of the backup may commit later; those that were not given out do.
        Target::Xid(xid) if *xid > u64::from(u32::MAX) => m.next_xid <= *xid,
        // Without its epoch: the nearest one of that number.
        Target::Xid(xid) => {
            let ahead = (*xid as u32).wrapping_sub(m.next_xid as u32);
            ahead < 1 << 31
        }
        Target::Latest | Target::Consistent | Target::Name(_) => true,
    };
    if let Some(wanted) = wanted {
        let found = usable.iter().find(|m| m.label == *wanted);
        let found = found.ok_or_else(|| {
            Error::invalid(format!("there is no such backup on that timeline's history. label={wanted}"))
        })?;
        return if leads_there(&found) {
            Ok(found)
        } else {
            Err(outside("the target lies before the end of that backup"))
        };
    }
    usable
        .iter()
        .rfind(leads_there)
        .copied()
        .ok_or_else(|| outside("the target lies before the end of the oldest backup"))
}

/// What can be reached, for people.
#[must_use]
pub fn window(usable: &[&Manifest], reach: &Reach) -> String {
    let Some(first) = usable.first() else { return "nothing".to_owned() };
    let mut text = format!("from {} ({})", first.ended.strftime("%Y-%m-%dT%H:%M:%SZ"), first.stop);
    match (reach.end_time, reach.end) {
        (None, None) => text.push_str(" to the end of the archive"),
        (time, lsn) => {
            let time = time.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            let lsn = lsn.map(|l| if time.is_some() { format!("({l})") } else { l.to_string() });
            text.push_str(&format!(" to {}", [time, lsn].into_iter().flatten().collect::<Vec<_>>().join(" ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TimelineId;
    use crate::backup::manifest::tests::sample;
    use crate::postgres::timeline::Fork;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Three backups; the last one lies on a timeline that forked off at 550.
    fn backups() -> Vec<Manifest> {
        let mut all = vec![sample(1_000, 1, 100, 200), sample(2_000, 1, 400, 500), sample(3_000, 2, 600, 700)];
        for (manifest, next_xid) in all.iter_mut().zip([1_000, 2_000, 3_000]) {
            manifest.next_xid = next_xid;
        }
        all
    }

    fn on(timeline: u32) -> Reach {
        let forks = vec![Fork { timeline: TimelineId(1), end: Lsn(550) }];
        let forks = if timeline == 1 { vec![] } else { forks };
        Reach { history: Some(History { timeline: TimelineId(timeline), forks }), ..Reach::default() }
    }

    fn chosen(target: Target, reach: &Reach) -> Result<u64> {
        choose(&backups(), None, &target, reach).map(|m| m.stop.0)
    }

    #[test]
    fn the_newest_that_ended_before() {
        let reach = on(2);
        assert_eq!(chosen(Target::Latest, &reach).unwrap(), 700);
        assert_eq!(chosen(Target::Lsn(Lsn(699)), &reach).unwrap(), 500);
        assert_eq!(chosen(Target::Lsn(Lsn(500)), &reach).unwrap(), 500);
        assert_eq!(chosen(Target::Lsn(Lsn(499)), &reach).unwrap(), 200);
        assert_eq!(chosen(Target::Time(time(2_010)), &reach).unwrap(), 500);
        assert_eq!(chosen(Target::Time(time(2_009)), &reach).unwrap(), 200);
        assert_eq!(chosen(Target::Xid(2_500), &reach).unwrap(), 500);
        assert_eq!(chosen(Target::Xid(1 << 32 | 2_500), &reach).unwrap(), 700, "of a later epoch");
    }

    #[test]
    fn a_backup_of_another_past_is_not_taken() {
        assert_eq!(chosen(Target::Latest, &on(1)).unwrap(), 500);
        let mut lost = backups();
        lost[1].stop = Lsn(560);
        let found = choose(&lost[..2], None, &Target::Latest, &on(2)).unwrap();
        assert_eq!(found.stop.0, 200, "the second one ended behind the fork");
        assert!(choose(&lost[..2], None, &Target::Latest, &on(3)).is_ok());
        let error = choose(&lost[2..], None, &Target::Latest, &on(1)).unwrap_err();
        assert!(error.to_string().contains("timeline 2"), "{error}");
    }

    #[test]
    fn outside_of_the_window_is_an_error_that_tells_it() {
        let reach = Reach { end: Some(Lsn(0x900)), end_time: Some(time(9_000)), ..on(2) };
        for target in [Target::Lsn(Lsn(199)), Target::Time(time(1_009)), Target::Xid(999)] {
            let error = chosen(target, &reach).unwrap_err();
            assert!(
                error.to_string().contains("from 1970-01-01T00:16:50Z (0/C8) to 1970-01-01T02:30:00Z (0/900)"),
                "{error}"
            );
        }
        for target in [Target::Lsn(Lsn(0x901)), Target::Time(time(9_001))] {
            assert!(chosen(target, &reach).unwrap_err().to_string().contains("behind the end"));
        }
        let none = choose(&[], None, &Target::Latest, &Reach::default()).unwrap_err();
        assert!(none.to_string().contains("backups=none"), "{none}");
    }

    #[test]
    fn a_named_backup_must_lead_there_too() {
        let all = backups();
        let label = &all[1].label;
        assert_eq!(choose(&all, Some(label), &Target::Latest, &on(2)).unwrap().stop.0, 500);
        let error = choose(&all, Some(label), &Target::Lsn(Lsn(300)), &on(2)).unwrap_err();
        assert!(error.to_string().contains("that backup"), "{error}");
    }

    #[test]
    fn targets_both_ways() {
        for text in ["latest", "consistent", "2026-11-30T23:15:00Z", "0/3000148", "xid:1234", "name:before it"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("2026-11-30T23:15:00+01:00".parse::<Target>().unwrap().to_string(), "2026-11-30T22:15:00Z");
        for bad in ["", "now", "name:", "xid:x", "xid:2", "2026-11-30", "2026-11-30T23:15:00", "lsn:"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}

//! [`Recovery`]: how far PostgreSQL recovers from a restored backup, and what follows.

use std::fmt::Write;

use super::choose::Target;
use crate::backup::manifest::Manifest;
use crate::postgres::conf_file;
use crate::{Error, Result, TimelineId};

/// What PostgreSQL does when it has reached the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It ends recovery, and takes writes, on a timeline of its own.
    #[default]
    Promote,
    /// It stays as it is, for a look by queries; `SELECT pg_wal_replay_resume()` ends recovery.
    Pause,
    /// It shuts down.
    Shutdown,
}

/// How far PostgreSQL recovers.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Up to where.
    pub target: Target,
    /// Along which timeline; the newest that the archive knows of where none is named.
    pub timeline: Option<TimelineId>,
    /// What follows.
    pub action: Action,
    /// How WAL comes back: PostgreSQL's `restore_command`.
    pub restore_command: String,
}

impl Recovery {
    /// The lines that go to the end of `postgresql.auto.conf`, which PostgreSQL reads last.
    ///
    /// # Errors
    /// `Invalid` for values that cannot stand there.
    pub fn settings(&self, manifest: &Manifest) -> Result<String> {
        let mut text = format!("# Written by pgdock: recovery from the backup {}.\n", manifest.label);
        let mut line = |key: &str, value: &str| {
            if value.contains('\0') {
                return Err(Error::invalid(format!("a setting has a character that cannot be written. setting={key}")));
            }
            conf_file::line(&mut text, key, value);
            Ok(())
        };
        for (key, value) in &manifest.settings {
            line(key, value)?;
        }
        // It never archives into the history that it comes from, follows nobody, and waits for nobody.
        for (key, value) in [
            ("archive_mode", "off"),
            ("archive_command", ""),
            ("primary_conninfo", ""),
            ("primary_slot_name", ""),
            ("synchronous_standby_names", ""),
            ("restore_command", &self.restore_command),
        ] {
            line(key, value)?;
        }
        let (steered, value) = match &self.target {
            Target::Latest => ("", String::new()),
            Target::Consistent => ("recovery_target", "immediate".to_owned()),
            Target::Time(time) => (
                "recovery_target_time",
                time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.f+00").to_string(),
            ),
            Target::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
            Target::Xid(xid) => ("recovery_target_xid", (xid & 0xffff_ffff).to_string()),
            Target::Name(name) => ("recovery_target_name", name.clone()),
        };
        // Not even an empty one of the others: PostgreSQL takes that for a second target.
        if !steered.is_empty() {
            line(steered, &value)?;
        }
        line("recovery_target_inclusive", "on")?;
        line("recovery_target_timeline", &self.timeline.map_or_else(|| "latest".to_owned(), |t| t.to_string()))?;
        let action = match self.action {
            Action::Promote => "promote",
            Action::Pause => "pause",
            Action::Shutdown => "shutdown",
        };
        line("recovery_target_action", action)?;
        let _ = writeln!(text, "# End of what pgdock wrote.");
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lsn;
    use crate::backup::manifest::tests::sample;

    fn settings(target: Target) -> String {
        let restore_command = "it's %f %p".to_owned();
        let recovery = Recovery { target, timeline: None, action: Action::Promote, restore_command };
        let mut manifest = sample(1_800_000_000, 1, 1, 2);
        manifest.settings.insert("max_connections".into(), "321".into());
        recovery.settings(&manifest).unwrap()
    }

    #[test]
    fn exactly_one_target_is_set() {
        let time = "2026-11-30T23:15:00.25Z".parse().unwrap();
        for (target, key, value) in [
            (Target::Time(time), "recovery_target_time", "2026-11-30 23:15:00.25+00"),
            (Target::Lsn(Lsn(0x0300_0148)), "recovery_target_lsn", "0/3000148"),
            (Target::Xid(0x1_0000_0010), "recovery_target_xid", "16"),
            (Target::Name("before it".into()), "recovery_target_name", "before it"),
            (Target::Consistent, "recovery_target", "immediate"),
        ] {
            let text = settings(target);
            assert_eq!(conf_file::value_of(&text, key).as_deref(), Some(value), "{text}");
            let targets = text
                .lines()
                .filter(|line| line.starts_with("recovery_target"))
                .filter_map(|line| line.split(' ').next());
            let others = ["recovery_target_inclusive", "recovery_target_timeline", "recovery_target_action"];
            let found: Vec<&str> = targets.filter(|target| !others.contains(target)).collect();
            assert_eq!(found, [key], "{text}");
        }
    }

    #[test]
    fn it_keeps_away_from_where_it_comes_from() {
        let text = settings(Target::Latest);
        for (key, value) in [
            ("archive_mode", "off"),
            ("primary_conninfo", ""),
            ("synchronous_standby_names", ""),
            ("restore_command", "it's %f %p"),
            ("max_connections", "321"),
            ("recovery_target_timeline", "latest"),
        ] {
            assert_eq!(conf_file::value_of(&text, key).as_deref(), Some(value), "{text}");
        }
    }
}

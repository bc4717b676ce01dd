//! PostgreSQL's settings that pgdock manages itself, and values that would break its promises.
//!
//! The one list of them: the settings file is checked against it line by line, and an instance checks
//! again what it is given.

/// Why a line of `[postgres.settings]` is refused: what would be right, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) expected: String,
    pub(crate) remedy: String,
    /// Whether it is the setting that is refused, rather than its value.
    pub(crate) managed: bool,
}

/// Settings that are pgdock's alone, each with the reason.
const MANAGED: &[(&str, &str)] = &[
    ("primary_conninfo", "pgdock sets it when a standby changes its upstream"),
    ("primary_slot_name", "pgdock makes a slot for each member and names it here"),
    ("restore_command", "pgdock sets and clears it: a standby that is promoted must not fetch old WAL"),
    (
        "synchronous_standby_names",
        "pgdock sets it in step with the witness document; set [failover] durability instead",
    ),
    ("sync_replication_slots", "pgdock sets it where wal_level is logical"),
    ("synchronized_standby_slots", "pgdock sets it in step with synchronous_standby_names"),
    ("listen_addresses", "pgdock listens on the node's address; set [nodes.NAME] address or [postgres] listen instead"),
    ("port", "set [postgres] port or [nodes.NAME] postgres_port instead"),
    ("unix_socket_directories", "the socket lies in the node's own folder"),
    ("data_directory", "the data lies in the node's own folder"),
    ("config_file", "pgdock renders postgresql.conf"),
    ("hba_file", "pgdock renders pg_hba.conf; add lines to [postgres] hba instead"),
    ("ident_file", "pgdock keeps it in the data directory"),
    ("external_pid_file", "pgdock finds PostgreSQL by its own process"),
    ("cluster_name", "pgdock sets it to the cluster's and the node's name"),
    ("unix_socket_permissions", "pgdock guards the socket by its folder"),
    ("restart_after_crash", "the agent decides what follows a crash"),
    ("wal_receiver_status_interval", "pgdock tells by it whether a standby lives"),
    ("wal_retrieve_retry_interval", "pgdock keeps it short: a promotion may wait for it"),
    ("include", "a file that is read behind pgdock's back may undo its settings; write the lines here"),
    ("include_dir", "files that are read behind pgdock's back may undo its settings; write the lines here"),
    ("include_if_exists", "a file that is read behind pgdock's back may undo its settings; write the lines here"),
    ("promote_trigger_file", "only pgdock promotes a standby; use `pgdock switchover`"),
    ("trigger_file", "only pgdock promotes a standby; use `pgdock switchover`"),
];

/// Families of settings that are pgdock's alone.
const MANAGED_PREFIXES: &[(&str, &str)] = &[
    ("ssl", "pgdock sets TLS up with the certificates in secrets/"),
    ("pgdock.", "pgdock tells by it whether clients are let in"),
    ("recovery_target", "it would end or steer a standby's recovery; use `pgdock backup restore`"),
];

/// Settings that are pgdock's where it archives WAL.
const ARCHIVING: &[&str] = &["archive_mode", "archive_command", "archive_library", "archive_cleanup_command"];

/// Settings that must not be switched off.
const NEVER_OFF: &[(&str, &str)] = &[
    ("hot_standby", "standbys answer reads and pgdock's own questions"),
    ("fsync", "without it an acknowledged commit may be lost in a crash"),
    ("full_page_writes", "without it a crash can leave torn pages"),
    ("wal_log_hints", "pg_rewind needs it, so an old primary could not rejoin"),
];

/// Counts that must not be too low.
const AT_LEAST: &[(&str, i64, &str)] = &[
    ("max_wal_senders", 10, "standbys, their clones and base backups each take one"),
    ("max_replication_slots", 10, "each member has a slot"),
];

/// Judges one line. The name is in lower case.
pub(crate) fn refusal(name: &str, value: &str) -> Option<Refusal> {
    let refused = |expected: &str, remedy: &str| {
        Some(Refusal { expected: expected.to_owned(), remedy: remedy.to_owned(), managed: false })
    };
    let managed = MANAGED.iter().find(|(known, _)| *known == name);
    if let Some((_, why)) = managed.or_else(|| MANAGED_PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix))) {
        return refused("nothing, since pgdock manages it", &format!("remove it: {why}"))
            .map(|r| Refusal { managed: true, ..r });
    }
    if let Some((_, why)) = NEVER_OFF.iter().find(|(known, _)| *known == name && is_off(value)) {
        return refused("on", &format!("remove it: {why}"));
    }
    if let Some((_, least, why)) = AT_LEAST.iter().find(|(known, ..)| *known == name)
        && value.trim().parse::<i64>().is_ok_and(|n| n < *least)
    {
        return refused(&format!("at least {least}"), &format!("raise or remove it: {why}"));
    }
    let word = value.trim().to_ascii_lowercase();
    match name {
        "synchronous_commit" if !is_on(&word) && word != "remote_apply" => refused(
            "on or remote_apply",
            "remove it: less would acknowledge commits that a failover loses; a transaction may lower it for itself",
        ),
        "wal_level" if word == "minimal" => {
            refused("replica or logical", "remove it: standbys need the WAL of replica")
        }
        "max_slot_wal_keep_size" if word.starts_with('-') => {
            refused("a size", "give a size: without a limit a standby that is away fills the primary's disk")
        }
        "password_encryption" if word != "scram-sha-256" => {
            refused("scram-sha-256", "remove it: pgdock's roles log in with SCRAM alone")
        }
        _ => None,
    }
}

/// Why a line is refused where pgdock archives WAL. The name is in lower case.
pub(crate) fn archiving(name: &str) -> Option<Refusal> {
    ARCHIVING.contains(&name).then(|| Refusal {
        expected: "nothing, since pgdock archives WAL".to_owned(),
        remedy: "remove it: with [backup] pgdock archives WAL itself, on whichever node leads".to_owned(),
        managed: true,
    })
}

/// PostgreSQL takes any unambiguous beginning of a boolean's word.
pub(crate) fn is_off(value: &str) -> bool {
    let word = value.trim().to_ascii_lowercase();
    word == "0"
        || word == "of"
        || (!word.is_empty() && ["off", "false", "no"].iter().any(|w| w.starts_with(&word) && word != "o"))
}

fn is_on(word: &str) -> bool {
    word == "1" || word == "on" || (!word.is_empty() && ["true", "yes"].iter().any(|w| w.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgdock_manages_is_refused_with_the_reason() {
        for (name, value) in [
            ("primary_conninfo", "host=n1"),
            ("ssl_cert_file", "x"),
            ("ssl", "on"),
            ("recovery_target_time", "now"),
            ("fsync", "off"),
            ("fsync", "n"),
            ("hot_standby", "FALSE"),
            ("wal_log_hints", "0"),
            ("synchronous_commit", "local"),
            ("synchronous_commit", "off"),
            ("synchronous_commit", "remote_write"),
            ("wal_level", "Minimal"),
            ("max_wal_senders", "9"),
            ("max_replication_slots", "9"),
            ("restart_after_crash", "on"),
            ("max_slot_wal_keep_size", "-1"),
            ("synchronized_standby_slots", "pgdock_n2"),
            ("password_encryption", "md5"),
        ] {
            let refusal = refusal(name, value).unwrap_or_else(|| panic!("{name} = {value}"));
            assert!(!refusal.remedy.is_empty());
        }
    }

    #[test]
    fn what_users_tune_is_theirs() {
        for (name, value) in [
            ("shared_buffers", "1GB"),
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("synchronous_commit", "remote_apply"),
            ("wal_level", "logical"),
            ("max_wal_senders", "20"),
            ("hot_standby_feedback", "off"),
            ("max_slot_wal_keep_size", "8GB"),
        ] {
            assert_eq!(refusal(name, value), None, "{name} = {value}");
        }
    }
}

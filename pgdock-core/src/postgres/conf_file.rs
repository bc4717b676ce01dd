//! The text of PostgreSQL's configuration files: rendered here, written by the instance.
//!
//! Nothing here touches a file. Every value is quoted for the file that it goes into.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::reserved;
use crate::{Error, Result};

/// The role that standbys stream as.
pub const REPLICATION_ROLE: &str = "pgdock_replication";
/// The role that `pg_rewind` reads a primary as.
pub const REWIND_ROLE: &str = "pgdock_rewind";
/// The role that monitoring logs in as.
pub const MONITOR_ROLE: &str = "pgdock_monitor";
/// The superuser.
pub const SUPERUSER: &str = "postgres";

/// Settings with a default of pgdock's own, which a user may change within bounds.
const DEFAULTS: &[(&str, &str)] = &[
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("max_replication_slots", "10"),
    ("max_slot_wal_keep_size", "4GB"),
    ("max_wal_senders", "10"),
    // The agent must get in when applications have taken all the rest.
    ("superuser_reserved_connections", "6"),
    ("synchronous_commit", "on"),
    ("wal_keep_size", "128MB"),
    ("wal_level", "replica"),
    ("wal_receiver_timeout", "3s"),
    ("wal_sender_timeout", "5s"),
];

/// What goes into a node's `postgresql.conf`.
#[derive(Debug)]
pub struct Main<'a> {
    /// The user's settings.
    pub user: &'a BTreeMap<String, String>,
    /// `listen_addresses`
    pub address: &'a str,
    /// `port`
    pub port: u16,
    /// `unix_socket_directories`
    pub socket_dir: &'a Path,
    /// `cluster_name`
    pub cluster_name: &'a str,
    /// `ssl_cert_file`
    pub cert: &'a Path,
    /// `ssl_key_file`
    pub key: &'a Path,
    /// Logical slots are kept on standbys.
    pub failover_slots: bool,
    /// `archive_command`, where WAL is archived.
    pub archive_command: Option<&'a str>,
}

impl Main<'_> {
    /// The text of `postgresql.conf`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from("# Written by pgdock at every start: changes here are lost.\n\n");
        for (key, value) in DEFAULTS {
            line(&mut text, key, value);
        }
        if self.failover_slots {
            line(&mut text, "hot_standby_feedback", "on");
        }
        if self.archive_command.is_some() {
            // What is written now and then reaches the archive, too.
            line(&mut text, "archive_timeout", "60s");
        }
        text.push_str("\n# From the cluster's settings.\n");
        for (key, value) in self.user {
            line(&mut text, key, value);
        }
        text.push_str("\n# Promises rest on these.\n");
        let port = self.port.to_string();
        let socket_dir = list_item(&self.socket_dir.display().to_string());
        let cert = self.cert.display().to_string();
        let key = self.key.display().to_string();
        for (key, value) in [
            ("listen_addresses", self.address),
            ("port", &port),
            ("unix_socket_directories", &socket_dir),
            ("cluster_name", self.cluster_name),
            ("ssl", "on"),
            ("ssl_cert_file", &cert),
            ("ssl_key_file", &key),
            ("password_encryption", "scram-sha-256"),
            ("hot_standby", "on"),
            ("wal_log_hints", "on"),
            ("fsync", "on"),
            ("full_page_writes", "on"),
            // The agent decides what follows a crash.
            ("restart_after_crash", "off"),
            // With the default of 5 s a promotion right after the upstream's death can stall for as long.
            ("wal_retrieve_retry_interval", "100ms"),
            ("wal_receiver_status_interval", "1s"),
        ] {
            line(&mut text, key, value);
        }
        if let Some(command) = self.archive_command {
            // Standbys ask as well, and so keep what is not archived when they take over.
            line(&mut text, "archive_mode", "always");
            line(&mut text, "archive_command", command);
        }
        text.push_str("\ninclude 'upstream.conf'\ninclude 'names.conf'\ninclude 'clients.conf'\n");
        text
    }
}

/// Checks the settings that a user asks for; `archives` where pgdock archives WAL itself.
///
/// # Errors
/// `Invalid`, naming the first key that is no setting's name, is pgdock's own, or is out of bounds.
pub fn check_settings(user: &BTreeMap<String, String>, archives: bool) -> Result<()> {
    for (key, value) in user {
        let refuse = |why: &str| Error::invalid(format!("postgres.settings: {why}. key={key}, value={value}"));
        if !is_setting_name(key) {
            return Err(refuse("this is not the name of a setting"));
        }
        if value.contains('\0') {
            return Err(refuse("a value cannot hold a zero byte"));
        }
        let name = key.to_ascii_lowercase();
        let own = || reserved::archiving(&name).filter(|_| archives);
        if let Some(refusal) = reserved::refusal(&name, value).or_else(own) {
            return Err(if refusal.managed {
                // It may hold a password, as a connection string does.
                Error::invalid(format!("postgres.settings: pgdock sets this itself. key={key}"))
            } else {
                refuse(&format!("expected {}", refusal.expected))
            }
            .hint(refusal.remedy));
        }
    }
    Ok(())
}

/// Checks the lines that a user adds to `pg_hba.conf`.
///
/// # Errors
/// `Invalid` for a line that lets anybody in without proof, or that is more than one line.
pub fn check_hba(lines: &[String]) -> Result<()> {
    for text in lines {
        if text.contains(['\n', '\r', '\0']) {
            return Err(Error::invalid(format!("postgres.hba: one line each. line={}", text.escape_debug())));
        }
        let refuse = |why: &str| Err(Error::invalid(format!("postgres.hba: {why}. line={text}")));
        let mut words = text.split_whitespace().take_while(|w| !w.starts_with('#')).map(|w| w.trim_matches('"'));
        if text.trim_start().to_ascii_lowercase().starts_with("include") {
            return refuse("what a file brings in is not checked").map_err(|e| e.hint("write its lines here"));
        }
        if text.ends_with('\\') {
            return refuse("a line cannot go on in the next one");
        }
        if words.any(|w| w.eq_ignore_ascii_case("trust")) {
            return refuse("`trust` lets anybody in").map_err(|e| e.hint("use scram-sha-256, cert or peer"));
        }
    }
    Ok(())
}

/// Whom a server lets in, besides pgdock and standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Whoever may log in.
    Admitted,
    /// Nobody.
    KeptOut,
}

/// A parameter of pgdock's own, which PostgreSQL takes over together with `pg_hba.conf`: it shows which one is in force.
const CLIENTS: &str = "pgdock.clients";
/// Its value while nobody else is let in.
pub(crate) const KEPT_OUT: &str = "kept out";

/// The text of `clients.conf`.
#[must_use]
pub fn clients(clients: Clients) -> String {
    let mut text = String::from("# Written by pgdock: whom pg_hba.conf lets in.\n");
    line(&mut text, CLIENTS, if clients == Clients::KeptOut { KEPT_OUT } else { "admitted" });
    text
}

/// Reads a `clients.conf`.
#[must_use]
pub fn clients_of(text: &str) -> Clients {
    if value_of(text, CLIENTS).as_deref() == Some(KEPT_OUT) { Clients::KeptOut } else { Clients::Admitted }
}

/// The text of `pg_hba.conf`.
#[must_use]
pub fn hba(user: &[String], clients: Clients) -> String {
    let mut text = String::from("# Written by pgdock at every start: changes here are lost.\n");
    let _ = writeln!(text, "local all {SUPERUSER} peer map=pgdock");
    let _ = writeln!(text, "hostssl replication {REPLICATION_ROLE} all scram-sha-256");
    // What copies logical slots to a standby (PostgreSQL 17).
    let _ = writeln!(text, "hostssl postgres {REPLICATION_ROLE} all scram-sha-256");
    let _ = writeln!(text, "hostssl postgres {REWIND_ROLE} all scram-sha-256");
    let _ = writeln!(text, "hostssl all {MONITOR_ROLE} all scram-sha-256");
    // These have no business anywhere else.
    let _ = writeln!(text, "host all {REPLICATION_ROLE},{REWIND_ROLE} all reject");
    if clients == Clients::KeptOut {
        text.push_str("# What this primary recovered is not held by enough standbys yet.\n");
        // Replication is none of the databases that `all` means.
        text.push_str("local all,replication all reject\nhost all,replication all all reject\n");
        return text;
    }
    for line in user {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("hostssl all all all scram-sha-256\n");
    text
}

/// The text of `pg_ident.conf`: who may be the superuser over the socket.
#[must_use]
pub fn ident(os_users: &[&str]) -> String {
    let mut text = String::from("# Written by pgdock at every start: changes here are lost.\n");
    let mut seen = std::collections::BTreeSet::new();
    for user in os_users.iter().filter(|u| seen.insert(**u)) {
        let _ = writeln!(text, "pgdock \"{user}\" {SUPERUSER}");
    }
    text
}

/// The text of a libpq password file (PostgreSQL documentation, section 34.16).
///
/// # Errors
/// `Invalid` when a password has a line break, which the format cannot hold.
pub fn passfile(entries: &[(&str, &SecretString)]) -> Result<SecretString> {
    let mut text = String::new();
    for (role, password) in entries {
        let password = password.expose_secret();
        if password.contains(['\n', '\r', '\0']) {
            return Err(Error::invalid(format!("a password cannot hold a line break. role={role}")));
        }
        let _ = writeln!(text, "*:*:*:{role}:{}", password.replace('\\', "\\\\").replace(':', "\\:"));
    }
    Ok(text.into())
}

/// One line of a configuration file.
pub fn line(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {}", quote(value));
}

/// The value that a file written with [`line()`] gives to a setting: the last one counts.
#[must_use]
pub fn value_of(text: &str, key: &str) -> Option<String> {
    unquote(text.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?)
}

/// What [`quote`] was given; `None` for a text that is not quoted.
fn unquote(literal: &str) -> Option<String> {
    let mut value = String::with_capacity(literal.len());
    let mut chars = literal.strip_prefix('\'')?.strip_suffix('\'')?.chars();
    while let Some(c) = chars.next() {
        value.push(match c {
            '\'' => chars.next()?,
            '\\' => match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                other => other,
            },
            c => c,
        });
    }
    Some(value)
}

/// A value as a literal for `postgresql.conf`.
#[must_use]
pub fn quote(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

/// An item of a setting that is a list of names, such as `unix_socket_directories`.
fn list_item(item: &str) -> String {
    format!("\"{}\"", item.replace('"', "\"\""))
}

fn is_setting_name(key: &str) -> bool {
    let part = |p: &str| {
        p.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && p.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
    };
    // `include` and its siblings would read as directives.
    key.split('.').count() <= 2 && key.split('.').all(part) && !key.to_ascii_lowercase().starts_with("include")
}

/// `postgresql.auto.conf` without what `ALTER SYSTEM` must not change; `None` where there is nothing to strip.
///
/// PostgreSQL reads that file last, so that it would win over pgdock's own settings.
#[must_use]
pub fn strip_auto_conf(text: &str, archives: bool) -> Option<String> {
    let keeps = |line: &&str| {
        let key: String = line.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let value = line.trim_start()[key.len()..].trim_start_matches([' ', '\t', '=']).trim_end();
        let value = unquote(value).unwrap_or_else(|| value.to_owned());
        let name = key.to_ascii_lowercase();
        reserved::refusal(&name, &value).is_none() && !(archives && reserved::archiving(&name).is_some())
    };
    if text.lines().all(|l| keeps(&l)) {
        return None;
    }
    Some(text.lines().filter(keeps).flat_map(|l| [l, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(key: &str, value: &str) -> BTreeMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn values_are_quoted() {
        assert_eq!(quote("it's"), "'it''s'");
        assert_eq!(quote(r"a\b"), r"'a\\b'");
        assert_eq!(quote("a\nport = 1"), "'a\\nport = 1'");
        for value in ["", "it's", r"a\b", "a\nport = 1\r"] {
            let mut text = String::from("port = '1'\n");
            line(&mut text, "port", value);
            assert_eq!(value_of(&text, "port").as_deref(), Some(value));
        }
        assert_eq!(value_of("ports = '1'", "port"), None);
    }

    #[test]
    fn what_promises_rest_on_cannot_be_set() {
        for (key, value) in [
            ("fsync", "off"),
            ("restart_after_crash", "on"),
            ("Synchronous_Standby_Names", "*"),
            ("synchronous_commit", "remote_write"),
            ("max_slot_wal_keep_size", "-1"),
            ("max_wal_senders", "2"),
            ("wal_level", "minimal"),
            ("include", "x"),
            ("a b", "x"),
        ] {
            let error = check_settings(&settings(key, value), false).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        for (key, value) in [("work_mem", "8MB"), ("wal_level", "logical"), ("pg_stat_statements.max", "100")] {
            check_settings(&settings(key, value), true).unwrap();
        }
        // Only where pgdock archives WAL itself.
        check_settings(&settings("archive_command", "cp %p /x"), false).unwrap();
        let error = check_settings(&settings("Archive_Command", "cp %p /x"), true).unwrap_err();
        assert!(error.to_string().contains("Archive_Command"), "{error}");
    }

    #[test]
    fn own_settings_come_after_the_users() {
        let user = settings("wal_keep_size", "1GB");
        let text = Main {
            user: &user,
            address: "127.0.0.1",
            port: 5432,
            socket_dir: Path::new("/opt/a, b"),
            cluster_name: "main/n1",
            cert: Path::new("/c"),
            key: Path::new("/k"),
            failover_slots: true,
            archive_command: Some("pgdock wal push %f"),
        }
        .render();
        let at = |needle: &str| text.rfind(needle).unwrap_or_else(|| panic!("{needle}"));
        assert!(at("wal_keep_size = '128MB'") < at("wal_keep_size = '1GB'"));
        assert!(at("wal_keep_size = '1GB'") < at("fsync = 'on'"));
        assert!(at("hot_standby_feedback = 'on'") < at("wal_keep_size = '1GB'"));
        assert!(at("fsync") < at("upstream.conf") && at("upstream.conf") < at("names.conf"));
        assert!(at("archive_timeout") < at("wal_keep_size = '1GB'") && at("archive_mode = 'always'") > at("fsync"));
        assert!(text.contains("unix_socket_directories = '\"/opt/a, b\"'"));
    }

    #[test]
    fn nobody_is_trusted() {
        for clients in [Clients::Admitted, Clients::KeptOut] {
            assert!(!hba(&[], clients).contains("trust"));
        }
        assert!(check_hba(&["host all all 0.0.0.0/0 TRUST".into()]).is_err());
        for bad in ["host all all all \"trust\"", "include_if_exists x", "host all all all \\", "a\nb"] {
            assert!(check_hba(&[bad.into()]).is_err(), "{bad}");
        }
        check_hba(&["hostssl app app 10.0.0.0/8 scram-sha-256 # no trust".into()]).unwrap();
    }

    #[test]
    fn while_clients_are_kept_out_only_pgdocks_roles_log_in() {
        let line = "hostssl app app 10.0.0.0/8 scram-sha-256".to_owned();
        let (open, closed) = (hba(std::slice::from_ref(&line), Clients::Admitted), hba(&[line], Clients::KeptOut));
        assert!(open.contains("hostssl app app") && open.ends_with("hostssl all all all scram-sha-256\n"));
        let admits: Vec<_> = closed.lines().filter(|l| !l.starts_with('#') && !l.ends_with("reject")).collect();
        assert_eq!(admits.len(), 5, "{closed}");
        assert!(admits.iter().all(|l| l.contains("pgdock_") || l.starts_with("local all postgres peer")), "{closed}");
        assert!(closed.ends_with("host all,replication all all reject\n"));
        for of in [Clients::Admitted, Clients::KeptOut] {
            assert_eq!(clients_of(&clients(of)), of);
        }
        assert_eq!(clients_of(""), Clients::Admitted);
    }

    #[test]
    fn passwords_are_escaped() {
        let text = passfile(&[("r", &"a:b\\c".to_owned().into())]).unwrap();
        assert_eq!(text.expose_secret(), "*:*:*:r:a\\:b\\\\c\n");
        assert!(passfile(&[("r", &"a\nb".to_owned().into())]).is_err());
    }

    #[test]
    fn alter_system_cannot_win() {
        let text = "# Do not edit\nwork_mem = '8MB'\nSYNCHRONOUS_STANDBY_NAMES = '*'\nprimary_conninfo = 'x'\n";
        assert_eq!(strip_auto_conf(text, false).unwrap(), "# Do not edit\nwork_mem = '8MB'\n");
        assert_eq!(strip_auto_conf("work_mem = '8MB'\narchive_mode = 'off'\n", false), None);
        assert_eq!(
            strip_auto_conf("fsync = 'off'\nmax_wal_senders = '2'\nfsync off\narchive_mode = 'off'\n", true).unwrap(),
            ""
        );
        assert_eq!(strip_auto_conf("fsync = 'on'\nsynchronous_commit = 'remote_apply'\n", true), None);
    }
}

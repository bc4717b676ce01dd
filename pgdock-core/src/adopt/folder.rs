//! The folder that the new cluster begins with, and [`Ledger`]: how far the way to it was gone.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Item, Table, value};

use super::Members;
use super::judge::Becomes;
use crate::clock::Clock;
use crate::durable::Staged;
use crate::postgres::conf_file;
use crate::scaffold::{Scaffold, Written};
use crate::settings::{Faults, Files, Settings, parse};
use crate::{Error, NodeName, Result};

/// The file of the ledger.
const LEDGER: &str = "adopt.json";

/// What is being taken over, in `adopt.json` beside `cluster.toml`. An interrupted run goes on by it, also when the old primary
/// does not run any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// The node that was primary.
    pub primary: NodeName,
    /// The nodes, with what they were.
    pub members: Members,
    /// pgdock's roles are made.
    #[serde(default)]
    pub roles: bool,
    /// All is done.
    #[serde(default)]
    pub done: bool,
}

impl Ledger {
    /// Reads that of a folder; nothing where there is none.
    ///
    /// # Errors
    /// `Invalid` when it is not readable.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let file = dir.join(LEDGER);
        match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Error::invalid(format!("the ledger of the takeover is not readable. file={}", file.display()))
                    .because(e)
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::invalid(format!("this is not readable. file={}", file.display())).because(e)),
        }
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// `Internal` when it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let file = dir.join(LEDGER);
        let text =
            serde_json::to_string_pretty(self).map_err(|e| Error::internal("cannot encode the ledger").because(e))?;
        replace(&file, &text, 0o644)
    }
}

/// What the picture does not tell.
#[derive(Debug)]
pub struct Around<'a> {
    /// The new cluster's name, witness, executor and so on; nodes, ports and version are those of the picture.
    pub scaffold: Scaffold,
    /// `[cluster] root`.
    pub root: Option<PathBuf>,
    /// The user that PostgreSQL runs as.
    pub os_user: Option<String>,
    /// The password that `postgres` has, where it is known.
    pub superuser: Option<&'a SecretString>,
    /// The password that the application's role has, where it is known.
    pub app: Option<&'a SecretString>,
}

/// Makes the folder: `cluster.toml`, secrets, and last the ledger. What is there is kept: a folder without a ledger is
/// another cluster's, and refused.
///
/// # Errors
/// `Conflict` when the folder is another cluster's; `Invalid` when the settings would have faults, with nothing written.
pub fn write(dir: &Path, becomes: &Becomes, around: Around<'_>, clock: &dyn Clock) -> Result<Written> {
    let dir = std::path::absolute(dir)
        .map_err(|e| Error::invalid(format!("the path is not usable. path={}", dir.display())).because(e))?;
    let Some(primary) = becomes.nodes.first() else { return Err(Error::invalid("there is no node to take over")) };
    if dir.join("cluster.toml").exists() {
        return Err(Error::conflict(format!("there is another cluster's cluster.toml already. dir={}", dir.display()))
            .hint("name a new folder: `pgdock adopt DIR …`"));
    }
    let text = cluster_toml(becomes, &around)?;
    parse(&text, &dir, Files::Ignored).map_err(Faults::into_error)?;
    // Before anything below it: PostgreSQL's user must get through.
    folder_of(&dir, 0o755)?;
    for (name, password) in [("superuser.password", around.superuser), ("app.password", around.app)] {
        if let Some(password) = password {
            secret(&dir.join("secrets"), name, password)?;
        }
    }
    for node in becomes.nodes.iter().filter(|node| !node.settings.is_empty()) {
        let folder = dir.join(node.name.as_str()).join("postgres");
        folder_of(&folder, 0o755)?;
        let mut text = format!("# What {} was set to otherwise than the others.\n", node.taken.was);
        for (key, value) in &node.settings {
            conf_file::line(&mut text, key, value);
        }
        replace(&folder.join("postgresql.conf"), &text, 0o644)?;
    }
    let members = becomes.members();
    let ledger = Ledger {
        system_identifier: becomes.system_identifier,
        primary: primary.name.clone(),
        members,
        roles: false,
        done: false,
    };
    ledger.write(&dir)?;
    replace(&dir.join("cluster.toml"), &text, 0o644)?;
    around.scaffold.write(&dir, clock)
}

/// The settings that [`write()`] would write, to reach the machines by.
///
/// # Errors
/// `Invalid` when they would have faults.
pub fn settings(dir: &Path, becomes: &Becomes, around: &Around<'_>) -> Result<Settings> {
    Settings::from_toml(&cluster_toml(becomes, around)?, dir)
}

/// The text of `cluster.toml`.
///
/// # Errors
/// `Internal` when the scaffold's text is not what is expected.
pub fn cluster_toml(becomes: &Becomes, around: &Around<'_>) -> Result<String> {
    let port = becomes.nodes.first().map_or(5432, |node| node.port);
    let scaffold = Scaffold {
        nodes: becomes.nodes.iter().map(|node| (node.name.clone(), node.address.clone())).collect(),
        version: Some(becomes.version),
        postgres_port: port,
        // Where packages put it, it is found.
        bin_dir: becomes
            .bin_dir
            .as_ref()
            .filter(|dir| !dir.starts_with("/usr/lib/postgresql/") && !dir.starts_with("/usr/pgsql-"))
            .map(PathBuf::from),
        ..around.scaffold.clone()
    };
    let odd = |e: toml_edit::TomlError| Error::internal("the new cluster.toml is not TOML").because(e);
    let mut document: DocumentMut = scaffold.cluster_toml().parse().map_err(odd)?;
    if let Some(root) = &around.root {
        table(&mut document, &["cluster"])?["root"] = value(root.display().to_string());
    }
    let postgres = table(&mut document, &["postgres"])?;
    postgres["database"] = value(&becomes.database);
    postgres["owner"] = value(&becomes.owner);
    if let Some(user) = around.os_user.as_ref().filter(|user| *user != "postgres") {
        postgres["user"] = value(user);
    }
    if !becomes.hba.is_empty() {
        let mut lines = toml_edit::Array::from_iter(&becomes.hba);
        lines.iter_mut().for_each(|line| line.decor_mut().set_prefix("\n    "));
        lines.set_trailing("\n");
        lines.set_trailing_comma(true);
        postgres["hba"] = value(lines);
    }
    let settings = table(&mut document, &["postgres", "settings"])?;
    for (name, set) in &becomes.settings {
        settings[name.as_str()] = value(set);
    }
    for node in &becomes.nodes {
        let section = table(&mut document, &["nodes", node.name.as_str()])?;
        if node.port != port {
            section["postgres_port"] = value(i64::from(node.port));
        }
        if node.priority != 100 {
            section["priority"] = value(i64::from(node.priority));
        }
        if !node.failover {
            section["failover"] = value(false);
        }
    }
    Ok(document.to_string())
}

fn table<'a>(document: &'a mut DocumentMut, path: &[&str]) -> Result<&'a mut Table> {
    let mut at = document.as_table_mut();
    for name in path {
        at = at.get_mut(name).and_then(Item::as_table_mut).ok_or_else(|| {
            Error::internal(format!("the new cluster.toml lacks a section. section={}", path.join(".")))
        })?;
    }
    Ok(at)
}

fn secret(folder: &Path, name: &str, password: &SecretString) -> Result<()> {
    folder_of(folder, 0o700)?;
    replace(&folder.join(name), &format!("{}\n", password.expose_secret()), 0o600)
}

fn folder_of(path: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|e| Error::internal(format!("cannot make a folder. path={}", path.display())).because(e))
}

fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let write = || {
        let staged = Staged::create(path, mode)?;
        staged.file().write_all(text.as_bytes())?;
        staged.replace().map_err(|e| e.source)
    };
    write().map_err(|e| Error::internal(format!("cannot write a file. path={}", path.display())).because(e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::adopt::Taken;
    use crate::adopt::judge::Member;
    use crate::clock::SystemClock;

    fn becomes() -> Becomes {
        let node = |name: &str, port, priority| Member {
            name: NodeName::new(name).unwrap(),
            address: format!("10.0.0.{port}"),
            port,
            priority,
            failover: priority > 0,
            taken: Taken {
                was: name.to_uppercase(),
                data_directory: "/d".into(),
                slot: Some(format!("repmgr_slot_{port}")),
            },
            settings: [("work_mem".to_owned(), format!("{port}MB"))].into(),
        };
        Becomes {
            system_identifier: u64::MAX,
            version: 15,
            bin_dir: Some("/usr/lib/postgresql/15/bin".into()),
            nodes: vec![node("a", 11, 100), node("b", 12, 0)],
            database: "shop".into(),
            owner: "shop_owner".into(),
            settings: [
                ("pg_stat_statements.max".to_owned(), "5000".to_owned()),
                ("work_mem".to_owned(), "1MB".to_owned()),
            ]
            .into(),
            hba: vec!["host shop shop_owner 10.0.0.0 255.0.0.0 md5".into(), "local all \"a b\" peer".into()],
        }
    }

    fn around<'a>(password: Option<&'a SecretString>) -> Around<'a> {
        Around {
            scaffold: Scaffold::new("shop", []),
            root: Some("/srv/pgdock".into()),
            os_user: Some("pg".into()),
            superuser: password,
            app: None,
        }
    }

    #[test]
    fn the_folder_says_what_was_found() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("new");
        let password = SecretString::from("known");
        write(&dir, &becomes(), around(Some(&password)), &SystemClock).unwrap();
        let settings = Settings::from_path(&dir).unwrap();
        let (a, b) = (NodeName::new("a").unwrap(), NodeName::new("b").unwrap());
        let (first, second) = (settings.node(&a).unwrap(), settings.node(&b).unwrap());
        assert_eq!((first.postgres_port, second.postgres_port, second.failover), (11, 12, false));
        assert_eq!(first.home, Path::new("/srv/pgdock/a"));
        assert_eq!(second.settings["work_mem"], "12MB");
        assert_eq!(second.settings["pg_stat_statements.max"], "5000");
        assert_eq!(first.hba, becomes().hba);
        assert_eq!((settings.postgres.user.as_str(), settings.postgres.owner.as_str()), ("pg", "shop_owner"));
        let secret = dir.join("secrets/superuser.password");
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "known\n");
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o755, 0o755, "others must get through");
        let ledger = Ledger::read(&dir).unwrap().unwrap();
        assert_eq!((ledger.system_identifier, &ledger.primary, ledger.done), (u64::MAX, &a, false));
    }

    #[test]
    fn another_clusters_folder_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cluster.toml"), "x").unwrap();
        assert_eq!(
            write(dir.path(), &becomes(), around(None), &SystemClock).unwrap_err().kind(),
            crate::ErrorKind::Conflict
        );
        assert_eq!(Ledger::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn settings_with_faults_are_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut bad = becomes();
        bad.nodes[0].address = "10.0.0.256".into();
        let error = write(dir.path(), &bad, around(None), &SystemClock).unwrap_err();
        assert!(error.to_string().contains("10.0.0.256"), "{error}");
        assert!(!dir.path().join("adopt.json").exists());
    }
}

//! The files beside `cluster.toml` that count for a node: `NODE/postgres/…` over `shared/postgres/…` over
//! `[postgres]`, and what `env/main` says of the first database.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::env_file;
use super::fault::{Fault, Faults};
use super::parse::Files;
use super::place::Place;
use super::postgres::judge_rule;
use super::section::Reader;
use super::{NodeSettings, PostgresSettings};
use crate::NodeName;
use crate::postgres::{conf_grammar, reserved};

/// Fills in what each node's PostgreSQL is to be set to.
pub(super) fn fill(
    nodes: &mut BTreeMap<NodeName, NodeSettings>,
    postgres: &PostgresSettings,
    place: &Place,
    reader: &Reader,
    files: Files<'_>,
) {
    let read = |folder: &str| Folder::read(folder, place, reader, files);
    let shared = read("shared");
    for (name, node) in nodes {
        let own = read(name.as_str());
        node.settings.clone_from(&postgres.settings);
        node.settings.extend(shared.settings.clone());
        node.settings.extend(own.settings);
        // The first line that fits decides: what is said of one node comes before what is said of all.
        node.hba = [&own.hba, &shared.hba, &postgres.hba].into_iter().flatten().cloned().collect();
    }
}

/// What the folder of a node, or that of all, says of PostgreSQL.
#[derive(Default)]
struct Folder {
    settings: BTreeMap<String, String>,
    hba: Vec<String>,
}

impl Folder {
    fn read(folder: &str, place: &Place, reader: &Reader, files: Files<'_>) -> Self {
        let mut this = Self::default();
        let mut faults = Vec::new();
        let path = format!("{folder}/postgres/postgresql.conf");
        if let Some(text) = text(&path, place, files, &mut faults) {
            this.settings = settings(&text, &place.dir.join(&path), &mut faults);
        }
        let path = format!("{folder}/postgres/pg_hba.conf");
        if let Some(text) = text(&path, place, files, &mut faults) {
            this.hba = rules(&text, &place.dir.join(&path), &mut faults);
        }
        reader.faults_of(&Faults::new(faults));
        this
    }
}

/// The text of a file, if there is one.
fn text(path: &str, place: &Place, files: Files<'_>, faults: &mut Vec<Fault>) -> Option<String> {
    let at = place.dir.join(path);
    let found = match files {
        Files::Ignored => return None,
        Files::Checked => std::fs::read_to_string(&at),
        Files::Given(files) => match files.get(path) {
            None => return None,
            Some(bytes) => {
                String::from_utf8(bytes.clone()).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no UTF-8"))
            }
        },
    };
    match found {
        Ok(text) => Some(text),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(e) => {
            faults.push(fault(
                &at,
                None,
                "",
                "a readable text file",
                &e.to_string(),
                "correct its owner and mode, or write it in UTF-8",
            ));
            None
        }
    }
}

fn fault(file: &Path, line: Option<usize>, key: &str, expected: &str, found: &str, remedy: &str) -> Fault {
    Fault {
        file: file.to_owned(),
        line,
        key: key.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn settings(text: &str, file: &Path, faults: &mut Vec<Fault>) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for found in conf_grammar::settings(text) {
        match found {
            Err(e) => faults.push(fault(file, Some(e.line), "", e.expected, e.found, e.remedy)),
            Ok(setting) => match reserved::refusal(&setting.name, &setting.value) {
                Some(refusal) => {
                    // What pgdock manages may hold a password, as a connection string does.
                    let found = if refusal.managed {
                        format!("a line for {}", setting.name)
                    } else {
                        format!("{:?}", setting.value)
                    };
                    let line = Some(setting.line);
                    faults.push(fault(file, line, &setting.name, &refusal.expected, &found, &refusal.remedy));
                }
                // As in PostgreSQL, the last one counts.
                None => drop(settings.insert(setting.name, setting.value)),
            },
        }
    }
    settings
}

fn rules(text: &str, file: &Path, faults: &mut Vec<Fault>) -> Vec<String> {
    let mut lines = Vec::new();
    for rule in conf_grammar::rules(text) {
        match judge_rule(&rule.text) {
            Ok(()) => lines.push(rule.text),
            Err((expected, found, remedy)) => faults.push(fault(file, Some(rule.line), "", &expected, &found, &remedy)),
        }
    }
    lines
}

/// The file of variables of a node that counts: its own before that of all. On a node it lies with the secrets.
pub(super) fn env_path(place_base: &Path, secrets: &Path, node: &NodeName, name: &str) -> Option<PathBuf> {
    [
        place_base.join(node.as_str()).join("env").join(name),
        secrets.join("env").join(name),
        place_base.join("shared/env").join(name),
    ]
    .into_iter()
    .find(|path| path.is_file())
}

/// Takes database and owner from the nodes' `env/main`, where `cluster.toml` does not name them. The nodes must agree: it
/// is one cluster.
pub(super) fn first_database(
    postgres: &mut PostgresSettings,
    nodes: &BTreeMap<NodeName, NodeSettings>,
    place: &Place,
    reader: &Reader,
    files: Files<'_>,
) {
    if files != Files::Checked {
        return;
    }
    let mut seen: BTreeMap<&str, (String, PathBuf)> = BTreeMap::new();
    for name in nodes.keys() {
        let Some(path) = env_path(&place.base, &place.secrets, name, "main") else { continue };
        let values = match std::fs::read_to_string(&path) {
            Ok(text) => match env_file::parse(&text, &path) {
                Ok(values) => values,
                Err(faults) => {
                    reader.faults_of(&faults);
                    continue;
                }
            },
            Err(e) => {
                let unreadable =
                    fault(&path, None, "", "a readable text file", &e.to_string(), "correct its owner and mode");
                reader.faults_of(&Faults::new(vec![unreadable]));
                continue;
            }
        };
        for key in ["POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"] {
            let Some(value) = values.get(key).filter(|value| !value.is_empty()) else { continue };
            let (first, of) = seen.entry(key).or_insert_with(|| (value.clone(), path.clone()));
            let settled = match key {
                "POSTGRES_DB" => reader.has("postgres.database"),
                "POSTGRES_USER" => reader.has("postgres.owner"),
                _ => false,
            };
            if first != value && !settled {
                let expected = format!("the same as in {}", of.display());
                let remedy = "write the same into both: they are one cluster, and its first database is made once";
                reader.faults_of(&Faults::new(vec![fault(&path, None, key, &expected, "another value", remedy)]));
            }
        }
    }
    let name =
        |key: &str| seen.get(key).map(|(value, _)| value.clone()).filter(|name| !super::postgres::is_taken(name));
    if !reader.has("postgres.database")
        && let Some(database) = name("POSTGRES_DB")
    {
        postgres.database = database;
    }
    // The superuser is there anyway, and owns nothing of an application's.
    if !reader.has("postgres.owner")
        && let Some(owner) = name("POSTGRES_USER")
    {
        postgres.owner = owner;
    }
}

//! `[postgres]` and `[postgres.settings]`.

use std::collections::BTreeMap;

use toml_edit::{Item, Value};

use super::section::{Section, describe, describe_value, join};
use super::{Listen, Place, PostgresSettings};
use crate::postgres::reserved;

pub(super) fn read(section: Section<'_>, place: &Place) -> PostgresSettings {
    let settings = PostgresSettings {
        version: section.integer("version", 14..=18),
        bin_dir: section.text("bin_dir").map(|path| place.resolve(path)),
        user: section.text("user").unwrap_or("postgres").to_owned(),
        port: section.port("port").unwrap_or(5432),
        listen: section.choice("listen", &[("node", Some(Listen::Node)), ("all", Some(Listen::All))], None),
        database: identifier(&section, "database", &["postgres", "template0", "template1"]),
        owner: identifier(&section, "owner", &["postgres", "public", "none"]),
        settings: lines(&section, section.section("settings")),
        hba: hba(&section),
    };
    section.end();
    settings
}

/// A name in PostgreSQL that pgdock makes at bootstrap; default `app`.
fn identifier(section: &Section<'_>, key: &'static str, taken: &[&str]) -> String {
    let name = section.text(key).unwrap_or("app");
    if name.len() > 63 {
        section.fault(key, "at most 63 bytes", format!("{} bytes", name.len()), "choose a shorter name");
    } else if taken.contains(&name) || is_reserved(name) {
        section.fault(
            key,
            "a name of the application's own",
            format!("{name:?}"),
            "choose another: this one belongs to PostgreSQL or to pgdock",
        );
    }
    name.to_owned()
}

fn is_reserved(name: &str) -> bool {
    name.starts_with("pg_") || name.starts_with("pgdock_")
}

/// Whether a name from `env/main` is there already, or belongs to PostgreSQL or pgdock.
pub(super) fn is_taken(name: &str) -> bool {
    ["postgres", "template0", "template1", "public", "none"].contains(&name) || is_reserved(name) || name.len() > 63
}

fn lines(postgres: &Section<'_>, section: Section<'_>) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for (name, item) in section.entries() {
        add(postgres, name, item, &mut lines);
    }
    lines
}

fn add(postgres: &Section<'_>, name: &str, item: &Item, lines: &mut BTreeMap<String, String>) {
    // `pg_stat_statements.max = 5000` without quotes is a table to TOML, one setting to PostgreSQL.
    if let Some(table) = item.as_table_like() {
        for (below, item) in table.iter() {
            add(postgres, &join(name, below), item, lines);
        }
        return;
    }
    let key = join("settings", name);
    let fault = |expected: &str, found: String, remedy: &str| postgres.fault(&key, expected, found, remedy);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$'));
    if !is_name {
        return fault("the name of a PostgreSQL setting", format!("{name:?}"), "correct the name");
    }
    let value = match item.as_value() {
        Some(Value::String(text)) => text.value().clone(),
        Some(Value::Integer(number)) => number.value().to_string(),
        Some(Value::Float(number)) => number.value().to_string(),
        Some(Value::Boolean(on)) => if *on.value() { "on" } else { "off" }.to_owned(),
        _ => return fault("a text, a number, true or false", describe(item), "write the value in double quotes"),
    };
    if value.contains(['\n', '\r', '\0']) {
        return fault("a value on one line", "several lines".to_owned(), "write it on one line");
    }
    // PostgreSQL ignores the case of names.
    let name = name.to_ascii_lowercase();
    if let Some(refusal) = reserved::refusal(&name, &value) {
        // What pgdock manages may hold a password, as a connection string does.
        let found = if refusal.managed { format!("a line for {name}") } else { format!("{value:?}") };
        return fault(&refusal.expected, found, &refusal.remedy);
    }
    if lines.insert(name, value).is_some() {
        fault("each setting once", "a second one, in other case".to_owned(), "remove one of them");
    }
}

fn hba(section: &Section<'_>) -> Vec<String> {
    let Some(item) = section.item("hba") else { return Vec::new() };
    let Some(list) = item.as_array() else {
        section.fault(
            "hba",
            "a list of lines",
            describe(item),
            "write hba = [\"hostssl app app 10.0.0.0/8 scram-sha-256\"]",
        );
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (i, value) in list.iter().enumerate() {
        let key = format!("hba[{i}]");
        let Some(line) = value.as_str().map(str::trim).filter(|l| is_one_line(l)) else {
            section.fault(&key, "one line in quotes", describe_value(value), "write each line by itself");
            continue;
        };
        match judge_rule(line) {
            Err((expected, found, remedy)) => section.fault(&key, expected, found, remedy),
            Ok(()) => lines.push(line.to_owned()),
        }
    }
    lines
}

/// Judges a rule of `pg_hba.conf`: what would be right, what was found, and what to do.
pub(super) fn judge_rule(line: &str) -> Result<(), (String, String, String)> {
    const TYPES: [&str; 6] = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
    let words: Vec<&str> = line.split_whitespace().collect();
    let first = *words.first().unwrap_or(&"");
    if first.to_ascii_lowercase().starts_with("include") {
        let remedy = "write the lines here: what another file brings in is not checked";
        return Err(("no directive".into(), first.to_owned(), remedy.into()));
    }
    if !is_one_line(line) {
        let remedy = "write it on one line, without a backslash at its end";
        return Err(("a line that ends where it ends".into(), "one that goes on in the next".into(), remedy.into()));
    }
    let least = if first == "local" { 4 } else { 5 };
    if !TYPES.contains(&first) || words.len() < least {
        return Err((
            "a line of pg_hba.conf: TYPE DATABASE USER [ADDRESS] METHOD".into(),
            // Not the rest: options of a method may hold a password.
            format!("one of {} words that begins with {first:?}", words.len()),
            format!("complete it; known types: {}", TYPES.join(", ")),
        ));
    }
    if words.iter().skip(least - 1).any(|word| word.trim_matches('"') == "trust") {
        return Err(("a method that proves who logs in".into(), "trust".into(), "write scram-sha-256, or cert".into()));
    }
    if words.iter().skip(1).take(2).any(|word| word.starts_with('@')) {
        let remedy = "write the names here: what another file brings in is not checked";
        return Err(("names".into(), "the name of a file".into(), remedy.into()));
    }
    Ok(())
}

/// A backslash at its end would draw in the next line.
fn is_one_line(line: &str) -> bool {
    !line.contains(['\n', '\r', '\0']) && !line.ends_with('\\')
}

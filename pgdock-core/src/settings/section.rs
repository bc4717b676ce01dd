//! A walk over a TOML document that goes on after a fault, so that all are reported at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::{Document, Item, TableLike, Value};

use super::fault::{Fault, Faults};
use super::{bytes, duration, nearest};

/// What is known of the file while it is read: where each key stands, and what was wrong so far.
#[derive(Debug)]
pub(super) struct Reader {
    file: PathBuf,
    lines: BTreeMap<String, usize>,
    faults: RefCell<Vec<Fault>>,
}

impl Reader {
    /// Notes the line of every key.
    pub(super) fn new(file: &Path, document: &Document<&str>) -> Self {
        let mut lines = BTreeMap::new();
        note_lines(document.as_table(), "", document.raw(), &mut lines);
        Self { file: file.to_owned(), lines, faults: RefCell::default() }
    }

    /// Notes a fault at a key. A key that is not there stands where its section does.
    pub(super) fn fault(
        &self,
        key: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let line = std::iter::successors(Some(key), |k| k.rsplit_once('.').map(|(parent, _)| parent))
            .find_map(|k| self.lines.get(k).copied());
        self.faults.borrow_mut().push(Fault {
            file: self.file.clone(),
            line,
            key: key.to_owned(),
            expected: expected.into(),
            found: found.into(),
            remedy: remedy.into(),
        });
    }

    /// Takes over faults of another file.
    pub(super) fn faults_of(&self, others: &Faults) {
        self.faults.borrow_mut().extend(others.iter().cloned());
    }

    /// Whether any of these keys, or a key below, is wrong already: what follows from its value means nothing.
    pub(super) fn is_faulty(&self, keys: &[&str]) -> bool {
        let faults = self.faults.borrow();
        faults
            .iter()
            .any(|f| keys.iter().any(|k| f.key == *k || f.key.strip_prefix(k).is_some_and(|s| s.starts_with('.'))))
    }

    /// Whether the file says something of this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.contains_key(key)
    }

    /// What was wrong.
    pub(super) fn into_faults(self) -> Faults {
        Faults::new(self.faults.into_inner())
    }
}

fn note_lines(table: &dyn TableLike, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (name, item) in table.iter() {
        let path = join(path, name);
        if let Some(span) = table.key(name).and_then(toml_edit::Key::span) {
            lines.insert(path.clone(), line_of(text, span.start));
        }
        for (i, value) in item.as_array().into_iter().flatten().enumerate() {
            if let Some(span) = value.span() {
                lines.insert(format!("{path}[{i}]"), line_of(text, span.start));
            }
        }
        if let Some(below) = item.as_table_like() {
            note_lines(below, &path, text, lines);
        }
    }
}

/// The line of an offset, counted from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|b| **b == b'\n').count() + 1
}

/// A dotted path.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// One table of the document. It remembers which keys were asked for: the others are unknown.
pub(super) struct Section<'a> {
    reader: &'a Reader,
    path: String,
    table: Option<&'a dyn TableLike>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(reader: &'a Reader, table: &'a dyn TableLike) -> Self {
        Self { reader, path: String::new(), table: Some(table), known: RefCell::default() }
    }

    /// A section that need not be there.
    pub(super) fn section(&self, name: &'static str) -> Self {
        let item = self.item(name);
        Self::of(self.reader, join(&self.path, name), item)
    }

    /// A section by a name that the user chose.
    pub(super) fn of(reader: &'a Reader, path: String, item: Option<&'a Item>) -> Self {
        let table = item.and_then(Item::as_table_like);
        if let Some(item) = item.filter(|_| table.is_none()) {
            reader.fault(
                &path,
                format!("a section [{path}]"),
                describe(item),
                format!("write its keys below [{path}]"),
            );
        }
        Self { reader, path, table, known: RefCell::default() }
    }

    /// Whether it is there.
    pub(super) fn exists(&self) -> bool {
        self.table.is_some()
    }

    /// What stands in it, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(&'a str, &'a Item)> {
        self.table.map(|t| t.iter().collect()).unwrap_or_default()
    }

    /// Its own dotted path.
    pub(super) fn name(&self) -> &str {
        &self.path
    }

    /// The dotted path of a key.
    pub(super) fn key(&self, name: &str) -> String {
        join(&self.path, name)
    }

    pub(super) fn item(&self, name: &'static str) -> Option<&'a Item> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&name) {
            known.push(name);
        }
        self.table.and_then(|t| t.get(name))
    }

    /// Notes a fault of one of its keys.
    pub(super) fn fault(
        &self,
        name: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.reader.fault(&self.key(name), expected, found, remedy);
    }

    pub(super) fn read<T>(
        &self,
        name: &'static str,
        expected: &str,
        remedy: &str,
        take: impl FnOnce(&'a Item) -> Option<T>,
    ) -> Option<T> {
        let item = self.item(name)?;
        let value = take(item);
        if value.is_none() {
            self.fault(name, expected, describe(item), remedy);
        }
        value
    }

    /// A text, not empty.
    pub(super) fn text(&self, name: &'static str) -> Option<&'a str> {
        self.read(name, "a text in quotes, not empty", "write it in double quotes", |item| {
            item.as_str().filter(|s| !s.trim().is_empty() && !s.contains('\0'))
        })
    }

    /// A text that must be there. Empty where it is not, with a fault noted.
    pub(super) fn required(&self, name: &'static str, example: &str) -> &'a str {
        if self.table.is_none_or(|t| t.get(name).is_none()) {
            self.fault(name, "a text in quotes", "nothing", format!("add {name} = {example:?} to [{}]", self.path));
        }
        self.text(name).unwrap_or_default()
    }

    pub(super) fn boolean(&self, name: &'static str, default: bool) -> bool {
        self.read(name, "true or false", "write it without quotes", Item::as_bool).unwrap_or(default)
    }

    pub(super) fn integer(&self, name: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let is_number = self.table.and_then(|t| t.get(name)).is_some_and(Item::is_integer);
        let remedy = if is_number { "choose one of these" } else { "write it as a number, without quotes" };
        self.read(name, &expected, remedy, |item| {
            item.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n))
        })
    }

    pub(super) fn port(&self, name: &'static str) -> Option<u16> {
        self.integer(name, 1..=u32::from(u16::MAX)).and_then(|n| u16::try_from(n).ok())
    }

    pub(super) fn duration(&self, name: &'static str, default: Duration) -> Duration {
        let remedy = format!("write it with its unit, as in {name} = \"{}\"", duration::display(default));
        self.read(name, duration::EXPECTED, &remedy, |item| item.as_str().and_then(duration::parse)).unwrap_or(default)
    }

    pub(super) fn bytes(&self, name: &'static str, default: u64) -> u64 {
        let remedy = format!("write it with its unit, as in {name} = \"{}\"", bytes::display(default));
        self.read(name, bytes::EXPECTED, &remedy, |item| item.as_str().and_then(bytes::parse)).unwrap_or(default)
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, name: &'static str, choices: &[(&str, T)], default: T) -> T {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let item = self.item(name);
        let chosen = item.map(|item| choices.iter().find(|(word, _)| item.as_str() == Some(*word)));
        match (item, chosen) {
            (Some(item), Some(None)) => {
                let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
                let remedy = nearest::suggestion(item.as_str().unwrap_or_default(), &words);
                self.fault(name, quoted.join(" or "), describe(item), remedy);
                default
            }
            (_, Some(Some((_, value)))) => *value,
            _ => default,
        }
    }

    /// Notes a fault for each key that nobody asked for.
    pub(super) fn end(self) {
        let known = self.known.borrow();
        for (name, item) in self.entries() {
            if !known.contains(&name) {
                let what = if item.is_table_like() { "section" } else { "key" };
                self.fault(
                    name,
                    format!("a known {what}"),
                    format!("`{}`", shorten(name)),
                    nearest::suggestion(name, &known),
                );
            }
        }
    }
}

/// An item as a person reads it, cut where it is long.
pub(super) fn describe(item: &Item) -> String {
    match item {
        Item::Value(value) => describe_value(value),
        Item::Table(_) => "a section".to_owned(),
        Item::ArrayOfTables(_) => "a list of sections".to_owned(),
        Item::None => "nothing".to_owned(),
    }
}

/// The same for a value.
pub(super) fn describe_value(value: &Value) -> String {
    match value {
        Value::String(s) => format!("{:?}", shorten(s.value())),
        Value::Integer(n) => n.value().to_string(),
        Value::Float(n) => n.value().to_string(),
        Value::Boolean(b) => b.value().to_string(),
        Value::Datetime(d) => d.value().to_string(),
        Value::Array(_) => "a list".to_owned(),
        Value::InlineTable(_) => "a table".to_owned(),
    }
}

fn shorten(text: &str) -> String {
    const LENGTH_MAX: usize = 60;
    if text.chars().count() <= LENGTH_MAX {
        text.to_owned()
    } else {
        text.chars().take(LENGTH_MAX).chain(['…']).collect()
    }
}

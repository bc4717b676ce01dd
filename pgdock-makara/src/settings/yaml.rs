//! The YAML of `database.yml`, with each plain value kept as it was written: a password `0123` is no number.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::SettingsError;

/// A section, or one connection of the list.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Plain values; `None` for an empty one.
    pub(super) values: BTreeMap<String, Option<String>>,
    /// Values of `connection_error_matchers`.
    pub(super) matchers: Vec<String>,
    /// The section `makara`.
    pub(super) makara: Option<Box<Self>>,
    /// The list `connections`.
    pub(super) connections: Option<Vec<Self>>,
}

/// Reads the whole file: one table for each environment.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Table>, SettingsError> {
    serde_saphyr::from_str(text).map_err(|error| {
        // The error of the library would repeat the lines around, and a password with them.
        let Some(place) = error.location() else {
            return SettingsError::new("(none)", "this is no YAML that can be read");
        };
        let line = usize::try_from(place.line()).ok().and_then(|line| text.lines().nth(line.saturating_sub(1)));
        let key =
            line.and_then(|line| line.split_once(':')).map_or("(none)", |(key, _)| key.trim_start_matches([' ', '-']));
        SettingsError::new(
            key,
            format!("this cannot be read, or has a form that it must not have. line={}", place.line()),
        )
    })
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of keys to values")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Table, M::Error> {
        let mut table = Table::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "makara" => table.makara = Some(map.next_value()?),
                "connections" => table.connections = Some(map.next_value()?),
                "connection_error_matchers" => {
                    table.matchers = map.next_value::<Option<Vec<String>>>()?.unwrap_or_default();
                }
                // Session variables of the Rails adapter, which have a form of their own.
                "variables" => _ = map.next_value::<IgnoredAny>()?,
                _ => {
                    let value = map.next_value()?;
                    table.values.insert(key, value);
                }
            }
        }
        Ok(table)
    }
}

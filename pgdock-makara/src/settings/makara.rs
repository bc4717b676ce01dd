//! From the keys of the file to settings: names old and new, defaults, and what overrides what.

use std::time::Duration;

use secrecy::SecretString;

use super::erb::Template;
use super::yaml::{self, Table};
use super::{ConnectionSettings, MakaraSettings, NodeRole, SettingsError, Strategy};

/// Makara's documentation, and every configuration in the wild, says 5 s for both.
const TTL: Duration = Duration::from_secs(5);
const PORT: u16 = 5432;

/// Keys that hold for the whole group, with their old names.
const GROUP: [&str; 9] = [
    "id",
    "sticky",
    "primary_ttl",
    "master_ttl",
    "primary_strategy",
    "master_strategy",
    "replica_strategy",
    "slave_strategy",
    "rescue_connection_failures",
];

/// Keys of a connection.
const CONNECTION: [&str; 12] = [
    "role",
    "name",
    "weight",
    "url",
    "host",
    "port",
    "database",
    "username",
    "user",
    "password",
    "blacklist_duration",
    "disable_blacklist",
];

/// Keys of Rails and of its adapter, which say nothing to a router.
const RAILS: [&str; 19] = [
    "adapter",
    "encoding",
    "pool",
    "timeout",
    "template",
    "collation",
    "ctype",
    "min_messages",
    "schema_search_path",
    "prepared_statements",
    "advisory_locks",
    "statement_limit",
    "checkout_timeout",
    "reaping_frequency",
    "idle_timeout",
    "connect_timeout",
    "sslmode",
    "application_name",
    "migrations_paths",
];

/// Sharding is another matter, and to drop it silently would send statements to the wrong database.
const SHARDS: [&str; 9] = [
    "shard_id",
    "primary_shard_aware",
    "master_shard_aware",
    "replica_shard_aware",
    "slave_shard_aware",
    "primary_default_shard",
    "master_default_shard",
    "replica_default_shard",
    "slave_default_shard",
];

pub(super) fn read(
    text: &str,
    environment: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<MakaraSettings, SettingsError> {
    let template = &Template::parse(text)?;
    let mut file = yaml::parse(&template.text)?;
    let top = file.remove(environment).ok_or_else(|| {
        let known: Vec<_> = file.keys().map(String::as_str).collect();
        SettingsError::new(environment, "the file has no such environment").hint(format!("it has {}", known.join(", ")))
    })?;
    let section = top
        .makara
        .as_deref()
        .ok_or_else(|| SettingsError::new(format!("{environment}.makara"), "the environment has no such section"))?;
    let path = format!("{environment}.makara");
    let list = section.connections.as_deref().unwrap_or_default();
    if list.is_empty() {
        return Err(SettingsError::new(format!("{path}.connections"), "there are no connections"));
    }
    let source = |table, path: &str| Source { table, path: path.to_owned(), template, variable };
    let (top, group) = (source(&top, environment), source(section, &path));
    group.refuse_unknown(&[&GROUP, &CONNECTION, &RAILS])?;

    let mut connections = Vec::with_capacity(list.len());
    let mut counts = [0_usize; 2];
    for (index, table) in list.iter().enumerate() {
        let own = source(table, &format!("{path}.connections[{index}]"));
        own.refuse_unknown(&[&CONNECTION, &RAILS])?;
        let connection = connection(&own, &group, &top, &mut counts)?;
        if connections.iter().any(|other: &ConnectionSettings| other.name == connection.name) {
            return Err(SettingsError::new(format!("{}.name", own.path), "two connections have the same name"));
        }
        connections.push(connection);
    }
    Ok(MakaraSettings {
        // Both characters separate entries in Makara's cookie.
        id: group.value(&["id"])?.map(|id| id.text.replace(['|', ':'], "")),
        sticky: group.value(&["sticky"])?.map_or(Ok(true), |value| value.boolean())?,
        primary_ttl: group.value(&["primary_ttl", "master_ttl"])?.map_or(Ok(TTL), |value| value.seconds())?,
        primary_strategy: group
            .value(&["primary_strategy", "master_strategy"])?
            .map_or(Ok(Strategy::RoundRobin), |value| value.strategy())?,
        replica_strategy: group
            .value(&["replica_strategy", "slave_strategy"])?
            .map_or(Ok(Strategy::RoundRobin), |value| value.strategy())?,
        connection_error_matchers: section.matchers.clone(),
        connections,
    })
}

fn connection(
    own: &Source<'_>,
    group: &Source<'_>,
    top: &Source<'_>,
    counts: &mut [usize; 2],
) -> Result<ConnectionSettings, SettingsError> {
    let inherited = |names: &[&str]| -> Result<Option<Value>, SettingsError> {
        for source in [own, group, top] {
            if let Some(value) = source.value(names)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    };
    let text =
        |names: &[&str]| -> Result<Option<String>, SettingsError> { Ok(inherited(names)?.map(|value| value.text)) };
    // What Makara itself gives a default never comes from the environment's section.
    let makara = |name: &str| match own.value(&[name])? {
        Some(value) => Ok(Some(value)),
        None => group.value(&[name]),
    };
    let role = makara("role")?.map_or(Ok(NodeRole::Replica), |value| value.role())?;
    let count = &mut counts[usize::from(role == NodeRole::Replica)];
    *count += 1;
    let (url, host) = (text(&["url"])?, text(&["host"])?);
    if url.is_none() && host.is_none() {
        return Err(SettingsError::new(format!("{}.host", own.path), "the connection has neither a host nor a url"));
    }
    Ok(ConnectionSettings {
        name: own.value(&["name"])?.map_or_else(|| format!("{role}/{count}"), |value| value.text),
        role,
        weight: makara("weight")?.map_or(Ok(1), |value| value.number(1, u32::MAX))?,
        url: url.map(SecretString::from),
        host,
        port: inherited(&["port"])?.map_or(Ok(PORT), |value| value.number(1, u16::MAX))?,
        database: text(&["database"])?,
        username: text(&["username", "user"])?,
        password: text(&["password"])?.map(SecretString::from),
        blacklist_duration: makara("blacklist_duration")?.map_or(Ok(TTL), |value| value.seconds())?,
        disable_blacklist: makara("disable_blacklist")?.map_or(Ok(false), |value| value.boolean())?,
    })
}

/// A table of the file, with its place.
struct Source<'a> {
    table: &'a Table,
    path: String,
    template: &'a Template<'a>,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

/// A value with the key that holds it.
struct Value {
    key: String,
    text: String,
}

impl Source<'_> {
    /// The value of the first of these keys that has one.
    fn value(&self, names: &[&str]) -> Result<Option<Value>, SettingsError> {
        for name in names {
            if let Some(Some(raw)) = self.table.values.get(*name) {
                let key = format!("{}.{name}", self.path);
                let text = self.template.fill(&key, raw, self.variable)?;
                return Ok(Some(Value { key, text }));
            }
        }
        Ok(None)
    }

    fn refuse_unknown(&self, known: &[&[&str]]) -> Result<(), SettingsError> {
        for name in self.table.values.keys() {
            let key = format!("{}.{name}", self.path);
            if SHARDS.contains(&name.as_str()) {
                return Err(SettingsError::new(key, "shards are not supported"));
            }
            if !known.iter().any(|names| names.contains(&name.as_str())) {
                let all = known.iter().flat_map(|names| names.iter());
                let near =
                    all.filter(|other| is_near(name, other)).min_by_key(|other| other.len().abs_diff(name.len()));
                let error = SettingsError::new(key, "there is no such key");
                return Err(match near {
                    Some(near) => error.hint(format!("it may be `{near}`")),
                    None => error,
                });
            }
        }
        if self.table.makara.is_some() || (known.len() == 2 && self.table.connections.is_some()) {
            return Err(SettingsError::new(&self.path, "a section stands where it cannot"));
        }
        Ok(())
    }
}

/// Whether two keys differ by one letter more, less, other, or swapped.
fn is_near(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let same_start = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    let (left, right) = (&left[same_start..], &right[same_start..]);
    let same_end = left.iter().rev().zip(right.iter().rev()).take_while(|(a, b)| a == b).count();
    match (&left[..left.len() - same_end], &right[..right.len() - same_end]) {
        ([a, b], [c, d]) => (a, b) == (d, c),
        (left, right) => left.len() <= 1 && right.len() <= 1,
    }
}

impl Value {
    fn refused(self, expected: &str) -> SettingsError {
        SettingsError::new(self.key, format!("the value is not {expected}"))
    }

    fn boolean(self) -> Result<bool, SettingsError> {
        match self.text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err(self.refused("true or false")),
        }
    }

    /// Seconds, whole or not.
    fn seconds(self) -> Result<Duration, SettingsError> {
        let seconds = self.text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.ok_or_else(|| self.refused("a number of seconds"))
    }

    fn number<N: std::str::FromStr + PartialOrd + std::fmt::Display>(self, min: N, max: N) -> Result<N, SettingsError> {
        match self.text.parse::<N>() {
            Ok(number) if number >= min && number <= max => Ok(number),
            _ => Err(self.refused(&format!("a whole number from {min} to {max}"))),
        }
    }

    fn role(self) -> Result<NodeRole, SettingsError> {
        match self.text.as_str() {
            "primary" | "master" => Ok(NodeRole::Primary),
            "replica" | "slave" | "" => Ok(NodeRole::Replica),
            _ => Err(self.refused("`primary` or `replica`")),
        }
    }

    fn strategy(self) -> Result<Strategy, SettingsError> {
        match self.text.as_str() {
            "round_robin" | "roundrobin" | "" => Ok(Strategy::RoundRobin),
            "failover" => Ok(Strategy::Failover),
            "least_in_flight" => Ok(Strategy::LeastInFlight),
            _ => Err(self.refused("`round_robin`, `failover` or `least_in_flight`; a class of Ruby cannot be used")),
        }
    }
}

//! What Makara reads from `database.yml`, as typed settings.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

mod erb;
mod makara;
mod yaml;

/// Connections and how to use them: what stands under `makara:`.
///
/// Defaults are those of Makara's documentation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MakaraSettings {
    /// The name under which stickiness is remembered; `None` where the file gives none.
    pub id: Option<String>,
    /// Whether a context that wrote reads from the primary for [`primary_ttl`](Self::primary_ttl). Default: yes.
    pub sticky: bool,
    /// For how long, counted from the end of the request that wrote. Default: 5 s.
    pub primary_ttl: Duration,
    /// How to choose among primaries. Default: in turn.
    pub primary_strategy: Strategy,
    /// How to choose among replicas. Default: in turn.
    pub replica_strategy: Strategy,
    /// Further texts of errors that mean a lost connection: `/…/` with the flags `i`, `m`, `x`, or the exact text.
    pub connection_error_matchers: Vec<String>,
    /// The connections, in the order of the file.
    pub connections: Vec<ConnectionSettings>,
}

/// One connection of the list. What it does not say itself comes from `makara:`, then from the environment's section.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionSettings {
    /// The name for logs and errors. Default: the role and a number, such as `replica/2`.
    pub name: String,
    /// What the file calls it. Which node is the primary is for the servers to say.
    pub role: NodeRole,
    /// Its share among its like, at least 1. Default: 1.
    pub weight: u32,
    /// The whole address as a URL, which wins over the parts.
    pub url: Option<SecretString>,
    /// Host name, address, or directory of the socket.
    pub host: Option<String>,
    /// Default: 5432.
    pub port: u16,
    /// The database.
    pub database: Option<String>,
    /// The user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<SecretString>,
    /// For how long a node that failed is left alone. Default: 5 s.
    pub blacklist_duration: Duration,
    /// Never to leave it alone. Default: no.
    pub disable_blacklist: bool,
}

/// What a configuration calls a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeRole {
    /// `primary`, or `master` of old.
    Primary,
    /// `replica`, or `slave` of old, or nothing.
    Replica,
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        })
    }
}

/// How to choose among nodes that would all do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// In turn, each as often as its weight says.
    #[default]
    RoundRobin,
    /// The heaviest that works, in the order of the list among equals.
    Failover,
    /// The one with the fewest statements in flight for its weight.
    LeastInFlight,
}

/// Why a configuration cannot be used. It names the key, and never repeats a value that may be secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    message: String,
    key: String,
    hint: Option<String>,
}

impl SettingsError {
    fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The key at fault, from the root of the file: `production.makara.connections[1].weight`. Where the text is no
    /// YAML at all, the key of the line where reading it stopped.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. key={}", self.message, self.key)?;
        match &self.hint {
            Some(hint) => write!(f, ", hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SettingsError {}

impl MakaraSettings {
    /// Reads the section of one environment (such as `production`) of a `database.yml`.
    ///
    /// `<%= ENV['NAME'] %>`, `ENV.fetch('NAME')` and a default behind a comma or `||` are answered by `variable`; pass
    /// `|name| std::env::var(name).ok()` for the variables of the process. No other Ruby is run. Old names of keys
    /// (`master_ttl`, `slave_strategy`, `role: slave`) mean the same as the new ones; where both stand, the new one
    /// counts.
    ///
    /// ```
    /// use pgdock_makara::{MakaraSettings, NodeRole};
    ///
    /// let file = "
    /// production:
    ///   adapter: postgresql_makara
    ///   database: app
    ///   makara:
    ///     master_ttl: 2.5
    ///     connections:
    ///       - { role: master, host: n1, password: <%= ENV['PGPASSWORD'] %> }
    ///       - { role: slave, host: n2, weight: 3 }
    /// ";
    /// let settings = MakaraSettings::from_yaml(file, "production", |_| Some("secret".to_owned()))?;
    /// assert_eq!(settings.primary_ttl.as_millis(), 2500);
    /// assert_eq!(settings.connections[1].role, NodeRole::Replica);
    /// assert_eq!(settings.connections[1].database.as_deref(), Some("app"));
    /// # Ok::<(), pgdock_makara::SettingsError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The text is no YAML, has no such environment, or a key is unknown, or has a value that it cannot have.
    pub fn from_yaml(
        text: &str,
        environment: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        makara::read(text, environment, &variable)
    }
}

//! [`Dsn`]: the connection URI for applications.

use std::fmt::Write as _;

use secrecy::{ExposeSecret, SecretString};

use super::Cluster;
use crate::agent::host_port;
use crate::postgres::conninfo::uri_escaped;
use crate::settings::Settings;

/// A libpq URI that names every node, so that a client finds the right one by itself.
///
/// The connection is encrypted, and the server must show a certificate of the cluster's own authority.
#[derive(Clone, Debug)]
#[must_use]
pub struct Dsn {
    settings: Settings,
    authority: String,
    password: Option<SecretString>,
    standby: bool,
}

impl Cluster {
    /// The connection URI for applications: the primary, as the owner of the application's database.
    pub fn dsn(&self) -> Dsn {
        Dsn {
            settings: self.settings().clone(),
            authority: self.secrets().ca_file.display().to_string(),
            password: None,
            standby: false,
        }
    }

    /// The same with the password in it.
    pub fn dsn_with_password(&self) -> Dsn {
        Dsn { password: Some(self.secrets().app.clone()), ..self.dsn() }
    }
}

impl Dsn {
    /// A standby rather than the primary; the primary where no standby answers.
    pub fn standby(mut self) -> Self {
        self.standby = true;
        self
    }

    /// The URI. It is a secret where it holds the password.
    #[must_use]
    pub fn uri(&self) -> SecretString {
        let postgres = &self.settings.postgres;
        let mut uri = format!("postgresql://{}", uri_escaped(&postgres.owner));
        if let Some(password) = &self.password {
            let _ = write!(uri, ":{}", uri_escaped(password.expose_secret()));
        }
        let mut nodes: Vec<_> = self.settings.nodes.iter().collect();
        // Clients try the hosts in turn: the one that is most often right comes first.
        nodes.sort_by_key(|(name, node)| (std::cmp::Reverse(node.priority), *name));
        let hosts: Vec<_> = nodes.iter().map(|(_, node)| host_port(&node.address, node.postgres_port)).collect();
        let wanted = if self.standby { "prefer-standby" } else { "read-write" };
        // The authority certifies this cluster's nodes alone, so the host's name need not be compared, too;
        // libpq before version 15 cannot compare addresses.
        let _ = write!(
            uri,
            "@{}/{}?target_session_attrs={wanted}&sslmode=verify-ca&sslrootcert={}&connect_timeout=3",
            hosts.join(","),
            uri_escaped(&postgres.database),
            uri_escaped(&self.authority),
        );
        uri.into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn dsn(text: &str) -> Dsn {
        let settings = Settings::from_toml(text, Path::new("/c")).unwrap();
        Dsn { settings, authority: "/c d/ca.crt".to_owned(), password: None, standby: false }
    }

    const TWO: &str = "[cluster]\nname = \"shop\"\n[postgres]\nowner = \"o\"\n[nodes.n1]\naddress = \"127.0.0.1\"\n\
                       [nodes.n2]\naddress = \"::1\"\npriority = 200\n";

    #[test]
    fn every_node_is_named_the_likeliest_first() {
        assert_eq!(
            dsn(TWO).uri().expose_secret(),
            "postgresql://o@[::1]:5432,127.0.0.1:5432/app?target_session_attrs=read-write&sslmode=verify-ca\
             &sslrootcert=%2Fc%20d%2Fca.crt&connect_timeout=3"
        );
        assert!(dsn(TWO).standby().uri().expose_secret().contains("=prefer-standby&"));
    }

    #[test]
    fn passwords_are_escaped_and_not_in_debug_text() {
        let dsn = Dsn { password: Some("p@ss:w/".into()), ..dsn(TWO) };
        assert!(
            dsn.uri().expose_secret().starts_with("postgresql://o:p%40ss%3Aw%2F@"),
            "{}",
            dsn.uri().expose_secret()
        );
        assert!(!format!("{dsn:?}").contains("p@ss"));
    }
}

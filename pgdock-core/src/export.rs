//! [`Export`]: the cluster's addresses in the words of other programs, from `cluster.toml` alone.
//!
//! No password is ever in it: each format has its own way to take one from the environment or a file.

mod drivers;
mod php;
mod proxies;
mod ruby;

use std::fmt::Write as _;
use std::path::Path;

use crate::agent::host_port;
use crate::settings::{NodeSettings, Settings};
use crate::{Error, NodeName, Result};

/// For whom the cluster's addresses are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Export {
    /// `database.yml` of Rails with the gem Makara.
    Makara,
    /// `database.yml` of Rails with a writing and a reading role, without Makara.
    Rails,
    /// `pg_service.conf` of libpq, so of psql, psycopg, and everything built on it.
    Libpq,
    /// URLs of the JDBC driver.
    Jdbc,
    /// Two engines of SQLAlchemy with psycopg 3.
    SqlAlchemy,
    /// `config/database.php` of Laravel.
    Laravel,
    /// `config/db.php` of Yii 2.
    Yii2,
    /// Two pools of the package `postgres` for Node.js.
    Node,
    /// `pgbouncer.ini`.
    PgBouncer,
    /// `haproxy.cfg`, which asks the agents who leads.
    HaProxy,
}

impl Export {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Makara,
        Self::Rails,
        Self::Libpq,
        Self::Jdbc,
        Self::SqlAlchemy,
        Self::Laravel,
        Self::Yii2,
        Self::Node,
        Self::PgBouncer,
        Self::HaProxy,
    ];

    /// Its name, as an operator types it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Makara => "makara",
            Self::Rails => "rails",
            Self::Libpq => "libpq",
            Self::Jdbc => "jdbc",
            Self::SqlAlchemy => "sqlalchemy",
            Self::Laravel => "laravel",
            Self::Yii2 => "yii2",
            Self::Node => "node",
            Self::PgBouncer => "pgbouncer",
            Self::HaProxy => "haproxy",
        }
    }

    /// The text, for a program that finds the authority's certificate at `ca`.
    ///
    /// # Errors
    /// `Invalid` where that program cannot look for the primary by itself, and the cluster has no address that follows it.
    pub fn render(self, settings: &Settings, ca: &Path) -> Result<String> {
        let cluster = Shown::new(settings, ca)?;
        match self {
            Self::Makara => Ok(ruby::makara(&cluster)),
            Self::Rails => Ok(ruby::rails(&cluster)),
            Self::Libpq => Ok(drivers::libpq(&cluster)),
            Self::Jdbc => Ok(drivers::jdbc(&cluster)),
            Self::SqlAlchemy => Ok(drivers::sqlalchemy(&cluster)),
            Self::Node => Ok(drivers::node(&cluster)),
            Self::Laravel => php::laravel(&cluster),
            Self::Yii2 => Ok(php::yii2(&cluster)),
            Self::PgBouncer => proxies::pgbouncer(&cluster),
            Self::HaProxy => Ok(proxies::haproxy(&cluster)),
        }
    }
}

impl std::fmt::Display for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What every format tells, in one order.
struct Shown<'a> {
    settings: &'a Settings,
    /// The likeliest primary first: clients try the hosts in turn.
    nodes: Vec<(&'a NodeName, &'a NodeSettings)>,
    ca: &'a str,
}

impl<'a> Shown<'a> {
    fn new(settings: &'a Settings, ca: &'a Path) -> Result<Self> {
        let ca = ca.to_str().ok_or_else(|| {
            Error::invalid(format!("the path of the certificate must be UTF-8. path={}", ca.display()))
        })?;
        let mut nodes: Vec<_> = settings.nodes.iter().collect();
        nodes.sort_by_key(|(name, node)| (std::cmp::Reverse(node.priority), *name));
        Ok(Self { settings, nodes, ca })
    }

    fn cluster(&self) -> &str {
        &self.settings.cluster.name
    }

    fn database(&self) -> &str {
        &self.settings.postgres.database
    }

    fn owner(&self) -> &str {
        &self.settings.postgres.owner
    }

    /// The hosts, with commas between them.
    fn hosts(&self) -> String {
        list(self.nodes.iter().map(|(_, node)| node.address.clone()))
    }

    /// The ports of these hosts; one where all have the same.
    fn ports(&self) -> String {
        let mut ports: Vec<_> = self.nodes.iter().map(|(_, node)| node.postgres_port.to_string()).collect();
        if ports.iter().all(|port| *port == ports[0]) {
            ports.truncate(1);
        }
        list(ports)
    }

    /// `HOST:PORT`, with commas between them.
    fn endpoints(&self) -> String {
        list(self.nodes.iter().map(|(_, node)| host_port(&node.address, node.postgres_port)))
    }

    /// The address that follows the primary, for a program that cannot look for it.
    fn following(&self, program: &str) -> Result<String> {
        const HAPROXY: &str = "or let it connect to HAProxy: `pgdock export haproxy`";
        let ip = self.settings.failover_ip.as_ref().ok_or_else(|| {
            Error::invalid(format!("{program} cannot find out by itself which node leads. key=failover_ip"))
                .hint("give the cluster an address that follows the primary: [failover_ip] in cluster.toml")
                .hint(HAPROXY)
        })?;
        let ports = self.ports();
        if ports.contains(',') {
            return Err(Error::invalid(format!(
                "nodes listen on different ports, and an address that follows the primary has one. key=postgres_port, found={ports}"
            ))
            .hint(HAPROXY));
        }
        Ok(ip.address())
    }

    /// What stands at the top of each text, behind the format's mark of a comment.
    fn heading(&self, mark: &str, lines: &[&str]) -> String {
        let mut text = format!("{mark} Cluster {}. Made by `pgdock export` from cluster.toml.\n", self.cluster());
        for line in lines {
            let _ = writeln!(text, "{mark} {line}");
        }
        text
    }
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "[cluster]\nname = \"shop\"\n[postgres]\nowner = \"o'hara\"\ndatabase = \"my shop\"\n\
                         [nodes.n1]\naddress = \"10.0.0.1\"\n[nodes.n2]\naddress = \"2001:db8::2\"\npriority = 200\n\
                         [nodes.n3]\naddress = \"db3.example\"\npostgres_port = 6543\nagent_port = 7777\n";

    fn settings(text: &str) -> Settings {
        Settings::from_toml(text, Path::new("/c")).unwrap()
    }

    fn rendered(export: Export) -> String {
        export.render(&settings(THREE), Path::new("/etc/my ca.crt")).unwrap()
    }

    #[test]
    fn no_format_leaves_a_node_out() {
        for export in Export::ALL {
            let Ok(text) = export.render(&settings(THREE), Path::new("/etc/ca.crt")) else {
                assert!(matches!(export, Export::Laravel | Export::PgBouncer), "{export}");
                continue;
            };
            for part in ["10.0.0.1", "2001:db8::2", "db3.example", "6543", "ca.crt"] {
                assert!(text.contains(part), "{export} lacks {part}:\n{text}");
            }
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{export}");
        }
    }

    #[test]
    fn who_cannot_look_for_the_primary_needs_an_address_that_follows_it() {
        for export in [Export::Laravel, Export::PgBouncer] {
            let error = export.render(&settings(THREE), Path::new("/c/ca.crt")).unwrap_err();
            assert!(error.to_string().contains("key=failover_ip"), "{error}");
        }
    }

    #[test]
    fn the_drivers_look_for_the_primary_themselves() {
        insta::assert_snapshot!(rendered(Export::Libpq));
        insta::assert_snapshot!(rendered(Export::Jdbc));
        insta::assert_snapshot!(rendered(Export::SqlAlchemy));
        insta::assert_snapshot!(rendered(Export::Node));
    }

    #[test]
    fn rails_with_and_without_makara() {
        insta::assert_snapshot!(rendered(Export::Makara));
        insta::assert_snapshot!(rendered(Export::Rails));
    }

    #[test]
    fn haproxy_asks_the_agents() {
        insta::assert_snapshot!(rendered(Export::HaProxy));
    }

    /// With an address that follows the primary.
    fn followed(text: &str, export: Export) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("move.sh");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let text = format!("{text}[failover_ip]\nkind = \"script\"\naddress = \"10.0.0.9\"\nscript = \"move.sh\"\n");
        export.render(&Settings::from_toml(&text, folder.path()).unwrap(), Path::new("/etc/my ca.crt"))
    }

    #[test]
    fn one_address_has_one_port() {
        let error = followed(THREE, Export::PgBouncer).unwrap_err();
        assert!(error.to_string().contains("key=postgres_port"), "{error}");
    }

    #[test]
    fn php_and_pgbouncer() {
        let same = THREE.replace("postgres_port = 6543\n", "");
        insta::assert_snapshot!(followed(&same, Export::Laravel).unwrap());
        insta::assert_snapshot!(followed(&same, Export::Yii2).unwrap());
        insta::assert_snapshot!(followed(&same, Export::PgBouncer).unwrap());
    }
}

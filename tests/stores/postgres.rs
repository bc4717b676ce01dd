//! [`TestPostgres`]: a real PostgreSQL of its own, which belongs to no cluster of pgdock.

use std::sync::Arc;

use pgdock_core::agent::tls;
use pgdock_core::clock::SystemClock;
use pgdock_core::scaffold::Scaffold;
use pgdock_core::secrets::Secrets;
use pgdock_core::witness::postgres::PostgresConfig;
use pgdock_core::witness::{PostgresWitness, Witness, fresh_nonce};
use pgdock_core::{NodeName, Settings};

use secrecy::ExposeSecret as _;

use super::skip;
use crate::real::bare;

/// A server that runs.
#[derive(Debug)]
pub struct TestPostgres {
    settings: Settings,
    secrets: Secrets,
    _dir: tempfile::TempDir,
}

impl TestPostgres {
    /// Starts one on 127.0.0.`at`, where PostgreSQL is installed.
    pub async fn start(at: u8) -> Option<Self> {
        let path = std::env::var_os("PATH");
        if let Err(why) = pgdock_core::postgres::version::Binaries::find(None, None, path.as_deref()) {
            return skip(&why.to_string());
        }
        let dir = bare::folder("pgdock-witness-").expect("a folder");
        let node = NodeName::new("n1").expect("a valid name");
        let mut scaffold = Scaffold::new("elsewhere", [(node.clone(), format!("127.0.0.{at}"))]);
        scaffold.postgres_port = 54321;
        scaffold.write(dir.path(), &SystemClock).expect("a folder");
        let settings = Settings::from_path(dir.path()).expect("settings");
        let secrets = Secrets::load(&settings.secrets()).expect("secrets");
        let instance = bare::instance(&settings, &secrets, &node).expect("an instance");
        bare::make_primary(&instance).await.unwrap_or_else(|e| panic!("{}", e.chain()));
        Some(Self { settings, secrets, _dir: dir })
    }

    /// How to reach a row, as the owner of the database.
    #[must_use]
    pub fn config(&self, row: &str) -> PostgresConfig {
        let node = self.settings.nodes.values().next().expect("a node");
        PostgresConfig {
            host: node.address.clone(),
            port: node.postgres_port,
            database: self.settings.postgres.database.clone(),
            user: self.settings.postgres.owner.clone(),
            password: Some(self.secrets.app.clone()),
            tls: Some(tls::client_config(self.secrets.ca_pem.as_bytes()).expect("an authority")),
            row: row.to_owned(),
        }
    }

    /// Handles to a document that does not exist yet, each with a connection of its own.
    #[must_use]
    pub fn fresh(&self, handles: usize) -> Vec<Arc<dyn Witness>> {
        let config = self.config(&fresh_nonce());
        (0..handles).map(|_| Arc::new(PostgresWitness::new(config.clone())) as Arc<dyn Witness>).collect()
    }

    /// What the server takes for its own cluster.
    pub async fn system_identifier(&self) -> u64 {
        let rows = self.rows("SELECT system_identifier FROM pg_control_system()").await;
        rows.first().and_then(|id| id.parse().ok()).expect("a system identifier")
    }

    /// Runs statements as the superuser, in the application's database.
    pub async fn sql(&self, sql: &str) {
        self.rows(sql).await;
    }

    /// The first column of what statements return.
    async fn rows(&self, sql: &str) -> Vec<String> {
        let config = self.config("");
        let mut client = tokio_postgres::Config::new();
        client.host(&config.host).port(config.port).dbname(&config.database).user("postgres");
        client.password(self.secrets.superuser.expose_secret());
        let tls = tokio_postgres_rustls::MakeRustlsConnect::new((**config.tls.as_ref().expect("TLS")).clone());
        let (client, connection) = client.connect(tls).await.expect("a connection");
        let connection = tokio::spawn(connection);
        let answer = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        drop(client);
        let _ = connection.await;
        let rows = answer.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) if !row.is_empty() => row.get(0).map(str::to_owned),
            _ => None,
        });
        rows.collect()
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        for node in self.settings.nodes.values() {
            pgdock_core::agent::deadman::kill_all(&node.home.join("data"));
        }
    }
}

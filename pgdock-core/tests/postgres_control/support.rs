//! A small cluster of real servers.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgdock_core::clock::SystemClock;
use pgdock_core::postgres::os_user::OsUser;
use pgdock_core::postgres::version::Binaries;
use pgdock_core::postgres::{Instance, InstanceConfig, Secrets};
use pgdock_core::view::{Names, Postgres, Primary, Standby};
use pgdock_core::{NodeName, Role};
use secrecy::ExposeSecret as _;

/// No wait in a test is longer.
const LIMIT: Duration = Duration::from_secs(30);

/// The installed PostgreSQL; `None`, with the reason printed, where there is none and that is allowed.
#[expect(clippy::disallowed_methods, reason = "a test is a program of its own, and reads its environment")]
pub(crate) fn postgres() -> Option<(Binaries, OsUser)> {
    let path = std::env::var_os("PATH");
    let found = Binaries::find(None, None, path.as_deref()).and_then(|b| Ok((b, OsUser::resolve("postgres")?)));
    match found {
        Ok(found) => Some(found),
        Err(error) => {
            assert_ne!(std::env::var("PGDOCK_REAL").as_deref(), Ok("required"), "{}", error.chain());
            eprintln!("not run: {}", error.chain());
            None
        }
    }
}

/// Up to three nodes on 127.0.0.21 to 127.0.0.23. Everything that runs is killed when it goes out of scope.
pub(crate) struct Rig {
    pub(crate) nodes: Vec<Instance>,
    configs: Vec<InstanceConfig>,
    runtime: tokio::runtime::Handle,
    _dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) async fn new(count: u8) -> Option<Self> {
        Self::below(count, "").await
    }

    /// A rig whose homes lie in a folder of a given name.
    pub(crate) async fn below(count: u8, folder: &str) -> Option<Self> {
        let (binaries, os_user) = postgres()?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let members: BTreeMap<NodeName, (String, u16)> = (1..=count)
            .map(|n| {
                let address = format!("127.0.0.{}", 20 + n);
                let port = free_port(&address);
                (node(n), (address, port))
            })
            .collect();
        let authority = Authority::new();
        let configs: Vec<_> = members
            .iter()
            .map(|(name, (address, port))| InstanceConfig {
                home: dir.path().join(folder).join(name.as_str()),
                binaries: binaries.clone(),
                os_user: os_user.clone(),
                cluster: "rig".into(),
                node: name.clone(),
                address: address.clone(),
                port: *port,
                settings: [("shared_buffers", "16MB"), ("max_connections", "30"), ("log_statement", "all")]
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .into(),
                // These tests speak no TLS.
                hba: vec!["host all all 127.0.0.0/8 scram-sha-256".into()],
                members: members.clone(),
                secrets: authority.secrets(address),
                database: "app".into(),
                owner: "app \"owner\"".into(),
                archive_command: None,
            })
            .collect();
        let nodes: Vec<_> = configs.iter().map(instance).collect();
        for node in &nodes {
            node.prepare().await.unwrap();
        }
        Some(Self { nodes, configs, runtime: tokio::runtime::Handle::current(), _dir: dir })
    }

    /// A rig of which the first node is a primary with all roles, and the others stream from it.
    pub(crate) async fn running(count: u8) -> Option<Self> {
        let rig = Self::new(count).await?;
        rig.bootstrap().await;
        for n in 1..rig.nodes.len() {
            rig.join(n, 0).await;
        }
        Some(rig)
    }

    /// Makes the first node a primary.
    pub(crate) async fn bootstrap(&self) {
        let node = &self.nodes[0];
        node.initdb().await.unwrap();
        node.start(Role::Primary, None).await.unwrap();
        primary(node, |_| true).await;
        node.ensure_roles().await.unwrap();
        let slots = (1..self.nodes.len()).map(|n| self.configs[n].node.slot()).collect();
        node.sync_slots(&slots).await.unwrap();
    }

    /// Makes a node a copy of another, and has it stream from there.
    pub(crate) async fn join(&self, n: usize, from: usize) {
        let source = &self.configs[from];
        self.nodes[n].copy_from(&source.address, source.port, None, LIMIT, |_| ()).await.unwrap();
        self.nodes[n].start(Role::Standby, None).await.unwrap();
        standby(&self.nodes[n], |_| true).await;
        self.nodes[n].attach(&source.node).await.unwrap();
        standby(&self.nodes[n], |s| s.receiving).await;
    }

    pub(crate) fn config(&self, n: usize) -> &InstanceConfig {
        &self.configs[n]
    }

    /// Control of a node's instance by somebody who knows nothing of it yet, as an agent that was restarted.
    pub(crate) fn adopt(&self, n: usize) -> Instance {
        instance(&self.configs[n])
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let nodes = self.nodes.clone();
        let runtime = self.runtime.clone();
        // Killing waits, and this thread may not.
        let killed = std::thread::spawn(move || {
            runtime.block_on(async {
                for node in nodes {
                    node.fence().await.unwrap();
                    // It may lie elsewhere.
                    let _ = std::fs::remove_dir_all(&node.layout().run);
                }
            });
        });
        let result = killed.join();
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

pub(crate) fn node(n: u8) -> NodeName {
    NodeName::new(format!("n{n}")).unwrap()
}

pub(crate) fn instance(config: &InstanceConfig) -> Instance {
    Instance::new(config.clone(), Arc::new(SystemClock)).unwrap()
}

fn free_port(address: &str) -> u16 {
    std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

/// Asks again and again until the answer is there.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let work = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("it does not come to this: {what}"))
}

/// Waits until a node is a standby of some kind.
pub(crate) async fn standby(node: &Instance, fits: impl Fn(&Standby) -> bool) -> Standby {
    let name = format!("{} as standby", node.config().node);
    until(&name, || async {
        match node.observe().await.ok()?.postgres {
            Postgres::Standby(standby) if fits(&standby) => Some(standby),
            _ => None,
        }
    })
    .await
}

/// Waits until a node is a primary of some kind.
pub(crate) async fn primary(node: &Instance, fits: impl Fn(&Primary) -> bool) -> Primary {
    let name = format!("{} as primary", node.config().node);
    until(&name, || async {
        match node.observe().await.ok()?.postgres {
            Postgres::Primary(primary) if fits(&primary) => Some(primary),
            _ => None,
        }
    })
    .await
}

/// A session of a user's, over the socket.
pub(crate) async fn connect(node: &Instance) -> tokio_postgres::Client {
    let mut config = tokio_postgres::Config::new();
    config.host_path(&node.layout().run).port(node.config().port).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A session of the application's, over the network.
pub(crate) async fn app(node: &Instance) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let of = node.config();
    let mut config = tokio_postgres::Config::new();
    config.host(&of.address).port(of.port).user(&of.owner).password(of.secrets.app.expose_secret()).dbname("postgres");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// k of the present lives of some nodes.
pub(crate) fn names(count: u32, nodes: &[&Instance]) -> Names {
    Names { members: nodes.iter().map(|n| n.member().unwrap()).collect(), count }
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // A name of its own: a certificate that seems to have signed itself is not traced any further.
        params.distinguished_name.push(rcgen::DnType::CommonName, "rig authority");
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    fn secrets(&self, address: &str) -> Secrets {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![address.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let secret = |text: &str| text.to_owned().into();
        Secrets {
            superuser: secret("super: \\secret'1"),
            replication: secret("replication: \\secret'2"),
            rewind: secret("rewind: \\secret'3"),
            monitor: secret("monitor-secret-4"),
            app: secret("app-secret-5"),
            ca_certificate: self.pem.clone(),
            certificate,
            key: key.serialize_pem().into(),
        }
    }
}

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use proptest::prelude::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret as _;

use super::*;
use crate::ErrorKind;
use crate::clock::{ManualClock, SystemClock};
use crate::secrets::{Secrets, TOKENS};
use crate::settings::Reach;

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn two_nodes() -> Scaffold {
    Scaffold::new("main", [(name("n1"), "127.0.0.2".to_owned()), (name("n2"), "127.0.0.3".to_owned())])
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// Every file below a folder with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn the_text_is_what_a_person_would_like_to_find() {
    let text = two_nodes().cluster_toml();
    insta::assert_snapshot!(text, @r#"
    # A highly available PostgreSQL, run by pgdock.
    # Lines that begin with `# key =` show the default, or an example where there is none.
    # Relative paths begin at the folder of this file.

    [cluster]
    name = "main"
    # executor = "local"            # how commands reach the nodes
    # root = "var"                  # each node has a folder below it

    [postgres]
    # version = 16                  # 14 to 18; without it, the newest one found
    # bin_dir = "/usr/lib/postgresql/16/bin" # where it is not found by itself
    port = 5432
    # user = "postgres"             # the system's user that PostgreSQL runs as where the agent is root
    # database = "app"              # made at bootstrap for the application
    # owner = "app"                 # its owner, the role that the application logs in as
    # hba = ["hostssl app app 10.0.0.0/8 scram-sha-256"]

    [postgres.settings]             # lines for postgresql.conf; what pgdock manages itself is refused
    # shared_buffers = "1GB"
    # max_connections = 200

    [failover]
    durability = "sync"             # "sync": one standby has each acknowledged commit; "quorum": any `acks` of all; "async": none need
    # acks = 1                      # in "quorum": how many standbys have each acknowledged commit
    # strict = false                # rather block writes than acknowledge them on the primary alone; not in "async"
    # heartbeat = "1s"              # how often the leader renews its right
    # ttl = "5s"                    # how long a right lasts; at least three heartbeats
    # lag_bytes_max = "16MiB"       # in "async": how much a standby may lack and still take over
    # stop_budget = "10s"           # how long a switchover waits for the old primary to stop
    # rejoin_budget = "10m"         # how long a rewind may take before the leader is copied instead
    # disk_free_min = "128MiB"      # with less room on its disk, the leader hands over to a standby that has more

    [witness]                       # who leads; on more than one machine: a bucket, etcd, or another PostgreSQL
    # url = "file:witness/main.json"

    # [backup]                      # base backups and WAL; credentials are in secrets/backup.env
    # url = "s3://bucket/prefix"    # or gs://…, az://…, file:PATH
    # region = "eu-central-1"       # or endpoint = "https://s3.example.com"
    # schedule = "0 3 * * *"        # as in crontab(5), in UTC; without it, by hand only
    # keep = { count = 7 }          # also age, daily, weekly, monthly; what any of them keeps is kept
    # wal = "archive"               # "stream": the end of the WAL as well, every second
    # encrypt = false               # with secrets/backup.key; keep a copy of it elsewhere

    # [failover_ip]                 # an address that follows the primary
    # kind = "script"
    # address = "203.0.113.10"
    # script = "shared/failover/failover.sh"
    # env_file = "secrets/failover.env" # KEY=VALUE lines for the script
    # timeout = "60s"               # how long one run may take

    [agent]
    port = 7432
    # beat = "200ms"                # how often agents tell each other how they are

    [nodes.n1]
    address = "127.0.0.2"
    # priority = 100                # among equals the highest becomes primary
    # failover = true               # whether it may become primary
    # postgres_port = 5432          # instead of [postgres] port
    # agent_port = 7432             # instead of [agent] port

    [nodes.n2]
    address = "127.0.0.3"
    "#);
}

#[test]
fn a_new_folder_is_complete_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/cluster");
    let mut scaffold = two_nodes();
    scaffold.failover_address = Some("127.0.0.9".to_owned());
    let written = scaffold.write(&root, &SystemClock).unwrap();

    let names: Vec<String> = files(&root).into_keys().map(|path| path.display().to_string()).collect();
    insta::assert_snapshot!(names.join("\n"), @"
    .gitignore
    cluster.toml
    secrets/.gitignore
    secrets/agent.token
    secrets/app.password
    secrets/ca.crt
    secrets/ca.key
    secrets/monitor.password
    secrets/n1.crt
    secrets/n1.key
    secrets/n2.crt
    secrets/n2.key
    secrets/replication.password
    secrets/rewind.password
    secrets/superuser.password
    shared/failover/failover.sh
    shared/tests/insert.sql
    shared/tests/prepare.sql
    shared/tests/select.sql
    ");
    assert_eq!(written.made.len(), names.len());
    assert_eq!(written.kept, Vec::<PathBuf>::new());

    assert_eq!(mode(&root.join("secrets")), 0o700);
    for file in std::fs::read_dir(root.join("secrets")).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    assert_eq!(mode(&root.join("shared/failover/failover.sh")), 0o755);

    let settings = Settings::from_path(&root).unwrap();
    assert!(settings.failover_ip.is_some());
    let secrets = Secrets::load(&settings.secrets()).unwrap();
    let mut tokens: Vec<&str> = [
        &secrets.agent_token,
        &secrets.superuser,
        &secrets.replication,
        &secrets.rewind,
        &secrets.monitor,
        &secrets.app,
    ]
    .map(|token| token.expose_secret())
    .into();
    assert!(tokens.iter().all(|token| token.len() == 64 && token.chars().all(|c| c.is_ascii_hexdigit())));
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), TOKENS.len());
    assert!(!format!("{secrets:?}").contains(tokens[0]));
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("shared/tests")).unwrap();
    std::fs::write(dir.path().join("shared/tests/select.sql"), "SELECT 1;\n").unwrap();
    let first = two_nodes().write(dir.path(), &SystemClock).unwrap();
    assert_eq!(first.kept, [dir.path().join("shared/tests/select.sql")]);

    let before = files(dir.path());
    assert_eq!(before[Path::new("shared/tests/select.sql")], b"SELECT 1;\n");
    let second = two_nodes().write(dir.path(), &SystemClock).unwrap();
    assert_eq!(second.made, Vec::<PathBuf>::new());
    assert_eq!(second.kept.len(), before.len());
    assert_eq!(files(dir.path()), before);
}

#[test]
fn faults_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cluster");
    let mut twice = two_nodes();
    twice.nodes[1].0 = name("n1");
    for scaffold in
        [Scaffold::new("Main", []), twice, Scaffold::new("main", [(name("n1"), "10.0.0.1:5432".to_owned())])]
    {
        assert_eq!(scaffold.write(&root, &SystemClock).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(!root.exists());
    }
}

#[test]
fn a_node_that_comes_later_gets_a_certificate_of_the_same_authority() {
    let dir = tempfile::tempdir().unwrap();
    two_nodes().write(dir.path(), &SystemClock).unwrap();
    let file = dir.path().join("cluster.toml");
    let text = std::fs::read_to_string(&file).unwrap() + "\n[nodes.n3]\naddress = \"n3.example.com\"\n";
    std::fs::write(&file, text).unwrap();
    let settings = Settings::from_path(dir.path()).unwrap();
    let error = Secrets::load(&settings.secrets()).unwrap().certificate(&name("n3")).unwrap_err();
    assert!(error.to_string().contains("n3.crt") && error.to_string().contains("n3.key"), "{error}");
    assert_eq!(error.hints(), ["`pgdock init` adds what is missing"]);

    let written = Scaffold::add_missing_secrets(&settings, &SystemClock).unwrap();
    let secrets = settings.secrets();
    assert_eq!(written.made, [secrets.join("n3.key"), secrets.join("n3.crt")]);
    handshake(&settings, "n1", "n3", "n3.example.com").unwrap();
}

#[test]
fn certificates_work_in_both_directions_and_for_their_names_alone() {
    let dir = tempfile::tempdir().unwrap();
    two_nodes().write(dir.path(), &SystemClock).unwrap();
    let settings = Settings::from_path(dir.path()).unwrap();
    for server_name in ["n2", "127.0.0.3", "localhost", "127.0.0.1"] {
        handshake(&settings, "n1", "n2", server_name).unwrap();
    }
    for server_name in ["n1", "127.0.0.2"] {
        let error = handshake(&settings, "n1", "n2", server_name).unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
}

/// A mutual TLS handshake in memory: `client` calls `server` under a name.
fn handshake(settings: &Settings, client: &str, server: &str, server_name: &str) -> Result<(), rustls::Error> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let secrets = Secrets::load(&settings.secrets()).unwrap();
    let pair = |node: &str| {
        let pair = secrets.certificate(&name(node)).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()];
        (chain, PrivateKeyDer::from_pem_slice(pair.key_pem.expose_secret().as_bytes()).unwrap())
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(secrets.ca_pem.as_bytes()).unwrap()).unwrap();
    let roots = std::sync::Arc::new(roots);
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    let (chain, key) = pair(server);
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    let (chain, key) = pair(client);
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let server_name = ServerName::try_from(server_name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(client.into(), server_name)?;
    let mut server = rustls::ServerConnection::new(server.into())?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

#[test]
fn the_authoritys_key_may_lie_elsewhere_until_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    two_nodes().write(dir.path(), &SystemClock).unwrap();
    let secrets = dir.path().join("secrets");
    let key = std::fs::read(secrets.join("ca.key")).unwrap();
    std::fs::remove_file(secrets.join("ca.key")).unwrap();
    assert_eq!(two_nodes().write(dir.path(), &SystemClock).unwrap().made, Vec::<PathBuf>::new());

    // Needed, and not there.
    std::fs::remove_file(secrets.join("n2.crt")).unwrap();
    let error = two_nodes().write(dir.path(), &SystemClock).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsOperator);
    assert!(error.to_string().ends_with("unsigned=n2"), "{error}");

    // There, and not the right one.
    let other = tempfile::tempdir().unwrap();
    two_nodes().write(other.path(), &SystemClock).unwrap();
    std::fs::copy(other.path().join("secrets/ca.key"), secrets.join("ca.key")).unwrap();
    let error = two_nodes().write(dir.path(), &SystemClock).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsOperator);
    assert!(!secrets.join("n2.crt").exists());

    std::fs::write(secrets.join("ca.key"), key).unwrap();
    assert_eq!(two_nodes().write(dir.path(), &SystemClock).unwrap().made, [secrets.join("n2.crt")]);
}

#[test]
fn pairs_that_were_torn_are_left_to_a_person() {
    let dir = tempfile::tempdir().unwrap();
    two_nodes().write(dir.path(), &SystemClock).unwrap();
    let secrets = dir.path().join("secrets");
    for gone in [&["n1.key"][..], &["ca.crt", "ca.key"]] {
        let saved: Vec<_> = gone.iter().map(|f| (secrets.join(f), std::fs::read(secrets.join(f)).unwrap())).collect();
        saved.iter().for_each(|(path, _)| std::fs::remove_file(path).unwrap());
        let error = two_nodes().write(dir.path(), &SystemClock).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsOperator, "{gone:?}");
        assert!(!error.hints().is_empty());
        saved.iter().for_each(|(path, content)| std::fs::write(path, content).unwrap());
    }
}

#[test]
fn certificates_begin_the_day_before_the_clocks() {
    let dir = tempfile::tempdir().unwrap();
    // By the hand-moved clock they are of 1970, and so have expired today.
    two_nodes().write(dir.path(), &ManualClock::default()).unwrap();
    let settings = Settings::from_path(dir.path()).unwrap();
    let error = handshake(&settings, "n1", "n2", "n2").unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[test]
fn the_example_script_moves_the_address_and_says_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    two_nodes().write(dir.path(), &SystemClock).unwrap();
    let script = dir.path().join("shared/failover/failover.sh");
    let state = dir.path().join("ip.state");
    let run = |args: &[&str], node: Option<&str>| {
        let mut command = Command::new(&script);
        command.args(args).env("PGDOCK_STATE_FILE", &state).env("PGDOCK_TERM", "7");
        if let Some(node) = node {
            command.env("PGDOCK_NODE", node);
        }
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["current"], None), (Some(0), String::new()));
    assert_ne!(run(&["assign"], None).0, Some(0));
    for node in ["n1", "n2", "n2"] {
        assert_eq!(run(&["assign"], Some(node)), (Some(0), String::new()));
        assert_eq!(run(&["current"], None), (Some(0), format!("{node}\n")));
    }
    assert_eq!(run(&[], None).0, Some(2));
    let log = std::fs::read_to_string(dir.path().join("ip.log")).unwrap();
    assert_eq!(log.lines().count(), 3);
    assert!(log.contains("node=n2") && log.contains("term=7"), "{log}");
}

#[test]
fn secrets_must_be_there_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cluster");
    two_nodes().write(&root, &SystemClock).unwrap();
    let secrets = root.join("secrets");
    std::fs::remove_file(secrets.join("agent.token")).unwrap();
    std::fs::remove_file(secrets.join("ca.crt")).unwrap();
    std::fs::set_permissions(secrets.join("app.password"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::write(secrets.join("monitor.password"), "two words\n").unwrap();
    std::fs::write(secrets.join("rewind.password"), "\n").unwrap();
    let error = Secrets::load(&secrets).unwrap_err();
    let text = format!("{error}\n{}", error.hints().join("\n")).replace(&secrets.display().to_string(), "secrets");
    insta::assert_snapshot!(text, @"
    a secret is missing. file=secrets/agent.token; a secret is empty. file=secrets/rewind.password; a secret holds blanks or control characters. file=secrets/monitor.password; a secret is open to others. file=secrets/app.password, mode=0640; a secret is missing. file=secrets/ca.crt
    `pgdock init` adds what is missing
    write it, or remove secrets/rewind.password: `pgdock init` adds what is missing
    write it on one line, without blanks
    chmod 600 secrets/app.password
    ");
}

/// One of each kind.
fn witnesses() -> Vec<Option<ScaffoldWitness>> {
    let some = |url: &str, endpoint: Option<&str>, region: Option<&str>, account: Option<&str>| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (endpoint, region, account) = (owned(endpoint), owned(region), owned(account));
        Some(ScaffoldWitness { url: url.to_owned(), endpoint, region, account })
    };
    vec![
        None,
        some("file:/var/w.json", None, None, None),
        some("s3://bucket/prefix", None, Some("eu-central-1"), None),
        some("s3://bucket/prefix", Some("http://192.0.2.9:9000"), None, None),
        some("gs://bucket/prefix", None, None, None),
        some("az://container/prefix", None, None, Some("account")),
        some("etcd://h1:2379,h2:2379/prefix", None, None, None),
        some("postgres://me@h1:5432/arbiter", None, None, None),
    ]
}

prop_compose! {
    fn scaffolds()(
        cluster in "[a-z][a-z0-9_-]{0,20}",
        nodes in prop::collection::btree_map("[a-z][a-z0-9]{0,8}", (0_u8..=255, 0_u8..=255), 1..5),
        postgres_port in 1_u16..30_000,
        agent_port in 30_000_u16..,
        kind in 0_u32..4,
        version in prop::option::of(14_u32..=18),
        bin_dir in prop::option::of("/[a-zA-Z\"\\\\# é]{1,12}"),
        moves: bool,
        witness in prop::sample::select(witnesses()),
    ) -> Scaffold {
        let standbys = u32::try_from(nodes.len() - 1).unwrap();
        let (durability, acks) = match kind {
            0 => (Durability::Async, 0),
            2.. if standbys > 0 => (Durability::Quorum, 1 + (kind + standbys) % standbys),
            _ => (Durability::Sync, 1),
        };
        let nodes = nodes.into_iter().enumerate().map(|(i, (node, (a, b)))| (name(&node), format!("10.{i}.{a}.{b}")));
        Scaffold {
            postgres_port,
            agent_port,
            durability,
            acks,
            version,
            bin_dir: bin_dir.map(PathBuf::from),
            failover_address: moves.then(|| "192.0.2.1".to_owned()),
            witness,
            ..Scaffold::new(cluster, nodes)
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(scaffold in scaffolds()) {
        let settings = parse(&scaffold.cluster_toml(), Path::new("/srv/pg"), Files::Ignored);
        let settings = settings.map_err(|faults| TestCaseError::fail(faults.to_string()))?;
        let read = Scaffold {
            name: settings.cluster.name.clone(),
            nodes: settings.nodes.iter().map(|(name, node)| (name.clone(), node.address.clone())).collect(),
            postgres_port: settings.postgres.port,
            agent_port: settings.agent.port,
            durability: settings.failover.durability,
            acks: settings.failover.acks,
            version: settings.postgres.version,
            bin_dir: settings.postgres.bin_dir.clone(),
            failover_address: settings.failover_ip.map(|ip| ip.address()),
            witness: scaffold.witness.as_ref().map(|_| ScaffoldWitness {
                url: settings.witness.url.to_string(),
                endpoint: settings.witness.store.endpoint.clone(),
                region: settings.witness.store.region.clone(),
                account: settings.witness.store.account.clone(),
            }),
            backup: None,
            executor: settings.cluster.executor,
            docker: ScaffoldDocker::default(),
        };
        prop_assert_eq!(read, scaffold);
    }

    /// The comments show the defaults: to take their marks away changes nothing.
    #[test]
    fn commented_defaults_are_the_defaults(scaffold in scaffolds()) {
        const EXAMPLES: [&str; 11] = [
            "ca", "version", "bin_dir", "hba", "shared_buffers", "max_connections", "kind", "address", "script", "env_file", "timeout",
        ];
        let text = scaffold.cluster_toml();
        // This section is an example as a whole: without it nothing is backed up.
        let mut example = false;
        let uncommented: String = text
            .lines()
            .filter(|line| {
                example = line.starts_with("# [backup]") || example && !line.is_empty();
                !example
            })
            .map(|line| match line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ").map(|(key, _)| (key, rest))) {
                Some((key, rest)) if !key.contains(' ') && !EXAMPLES.contains(&key) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        prop_assert_ne!(&uncommented, &text);
        let read = |text: &str| parse(text, Path::new("/srv/pg"), Files::Ignored).map_err(|f| TestCaseError::fail(f.to_string()));
        prop_assert_eq!(read(&uncommented)?, read(&text)?);
    }
}

#[test]
fn machines_and_containers_read_back() {
    let witness = Some(ScaffoldWitness { url: "etcd://10.0.0.9:2379".into(), ..ScaffoldWitness::default() });
    let nodes = [(name("n1"), "10.0.0.1".to_owned()), (name("n2"), "10.0.0.2".to_owned())];
    let read = |scaffold: &Scaffold| {
        let text = scaffold.cluster_toml();
        parse(&text, Path::new("/srv/pg"), Files::Ignored).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
    };
    let ssh = Scaffold { witness, executor: ExecutorKind::Ssh, ..Scaffold::new("main", nodes) };
    assert!(matches!(&read(&ssh).nodes[&name("n1")].reach, Reach::Ssh(target) if target.host == "10.0.0.1"));
    let mut docker = Scaffold { executor: ExecutorKind::Docker, version: Some(16), ..ssh.clone() };
    let settings = read(&docker);
    assert_eq!((settings.docker.image.as_str(), settings.docker.network.as_str()), ("pgdock:16", "host"));
    docker.docker = ScaffoldDocker {
        engine: Some("unix:///run/x.sock".into()),
        image: Some("x:1".into()),
        network: Some("inner".into()),
    };
    let settings = read(&docker);
    assert_eq!((settings.docker.image.as_str(), settings.docker.network.as_str()), ("x:1", "inner"));
    let Reach::Docker(own) = &settings.nodes[&name("n2")].reach else { panic!("{settings:?}") };
    assert_eq!((own.engine.to_string().as_str(), own.volume.as_str()), ("unix:///run/x.sock", "main-n2"));
    let dir = tempfile::tempdir().unwrap();
    let mistaken = Scaffold { executor: ExecutorKind::Local, witness: None, ..docker };
    assert!(mistaken.write(dir.path(), &SystemClock).unwrap_err().to_string().contains("containers"));
}

#[test]
fn backups_of_another_tool_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let text = "S3_ENDPOINT=http://127.0.0.1:9\nS3_ACCESS_KEY_ID=a\nS3_SECRET_ACCESS_KEY=hunter2\nS3_BUCKET=b\nSCHEDULE=@daily\n";
    std::fs::write(&file, text).unwrap();
    let backup = Some(ScaffoldBackup::from_env(&file).unwrap());
    let scaffold = Scaffold { backup, ..Scaffold::new("main", [(name("n1"), "127.0.0.2".to_owned())]) };
    let folder = dir.path().join("folder");
    scaffold.write(&folder, &SystemClock).unwrap();
    assert!(!scaffold.cluster_toml().contains("hunter2"));
    let backup = Settings::from_path(&folder).unwrap().backup.unwrap();
    assert_eq!((backup.url.to_string().as_str(), backup.store.tls), ("s3://b/pgdock", false));
    assert_eq!(backup.schedule.as_ref().map(|schedule| schedule.as_str()), Some("@daily"));
    assert_eq!(backup.read_credentials().unwrap().len(), 2);
    let error = scaffold.write(&folder, &SystemClock).unwrap_err();
    assert!(error.to_string().contains("there are settings already"), "{error}");
}

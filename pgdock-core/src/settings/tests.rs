use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

const SMALLEST: &str = "[cluster]\nname = \"main\"\n[nodes.n1]\naddress = \"127.0.0.2\"\n";

fn faults(text: &str) -> String {
    parse(text, Path::new("/srv/pg"), Files::Ignored).unwrap_err().to_string().replace("/srv/pg/", "")
}

/// The smallest settings with more of one's own: faults of the addition.
fn faults_with(more: &str) -> String {
    faults(&format!("{SMALLEST}{more}"))
}

#[test]
fn defaults_are_filled_in() {
    let settings = Settings::from_toml(SMALLEST, Path::new("/srv/pg")).unwrap();
    insta::assert_debug_snapshot!(settings, @r#"
    Settings {
        dir: "/srv/pg",
        secrets: "/srv/pg/secrets",
        base: "/srv/pg",
        bundle: None,
        cluster: ClusterSettings {
            name: "main",
            executor: Local,
            root: "/srv/pg/var",
        },
        postgres: PostgresSettings {
            version: None,
            bin_dir: None,
            user: "postgres",
            port: 5432,
            listen: None,
            database: "app",
            owner: "app",
            settings: {},
            hba: [],
        },
        failover: FailoverSettings {
            durability: Sync,
            acks: 1,
            strict: false,
            heartbeat: 1s,
            ttl: 5s,
            lag_bytes_max: 16777216,
            stop_budget: 10s,
            rejoin_budget: 600s,
            disk_free_min: 134217728,
        },
        witness: WitnessSettings {
            url: File(
                "/srv/pg/witness/main.json",
            ),
            store: StoreSettings {
                endpoint: None,
                region: None,
                account: None,
                tls: true,
                ca: None,
                credentials: File,
                credentials_file: "/srv/pg/secrets/witness.env",
            },
            certificate: None,
            key: None,
            probe_every: 3600s,
        },
        backup: None,
        failover_ip: None,
        registry: None,
        agent: AgentSettings {
            port: 7432,
            beat: 200ms,
        },
        ssh: SshSettings {
            user: "root",
            port: 22,
            identity: None,
            known_hosts: None,
        },
        docker: DockerSettings {
            image: "pgdock:17",
            network: "host",
            certificates: None,
            shm_size: 268435456,
        },
        nodes: {
            n1: NodeSettings {
                address: "127.0.0.2",
                priority: 100,
                failover: true,
                postgres_port: 5432,
                agent_port: 7432,
                failover_ip: NodeFailoverIp {
                    server_ip: None,
                    server_id: None,
                    instance_id: None,
                    network_interface_id: None,
                    interface: None,
                },
                home: "/srv/pg/var/n1",
                reach: Local,
                settings: {},
                hba: [],
            },
        },
    }
    "#);
    assert_eq!(settings.witness.file(), Some(Path::new("/srv/pg/witness/main.json")));
}

#[test]
fn everything_can_be_said() {
    let text = r#"
[cluster]
name = "main"
executor = "local"
root = "./run"
[postgres]
version = 16
bin_dir = "/usr/lib/postgresql/16/bin"
user = "pg"
port = 6000
database = "shop"
owner = "shopkeeper"
hba = ["hostssl shop shopkeeper 10.0.0.0/8 scram-sha-256"]
[postgres.settings]
shared_buffers = "1GB"
random_page_cost = 1.1
Jit = false
max_connections = 300
pg_stat_statements.max = 5000
[failover]
durability = "sync"
strict = true
heartbeat = "500ms"
ttl = "3s"
lag_bytes_max = "1MB"
disk_free_min = "1GB"
stop_budget = "20s"
rejoin_budget = "1h"
[witness]
url = "file:w/doc.json"
[failover_ip]
kind = "script"
address = "203.0.113.10"
script = "move.sh"
timeout = "5s"
[agent]
port = 6001
beat = "100ms"
[nodes.n1]
address = "10.0.0.1"
[nodes.n2]
address = "n2.example.com"
priority = 50
failover = false
postgres_port = 6100
agent_port = 6101
"#;
    let settings = parse(text, Path::new("/srv/pg"), Files::Ignored).unwrap();
    insta::assert_debug_snapshot!(settings, @r#"
    Settings {
        dir: "/srv/pg",
        secrets: "/srv/pg/secrets",
        base: "/srv/pg",
        bundle: None,
        cluster: ClusterSettings {
            name: "main",
            executor: Local,
            root: "/srv/pg/run",
        },
        postgres: PostgresSettings {
            version: Some(
                16,
            ),
            bin_dir: Some(
                "/usr/lib/postgresql/16/bin",
            ),
            user: "pg",
            port: 6000,
            listen: None,
            database: "shop",
            owner: "shopkeeper",
            settings: {
                "jit": "off",
                "max_connections": "300",
                "pg_stat_statements.max": "5000",
                "random_page_cost": "1.1",
                "shared_buffers": "1GB",
            },
            hba: [
                "hostssl shop shopkeeper 10.0.0.0/8 scram-sha-256",
            ],
        },
        failover: FailoverSettings {
            durability: Sync,
            acks: 1,
            strict: true,
            heartbeat: 500ms,
            ttl: 3s,
            lag_bytes_max: 1048576,
            stop_budget: 20s,
            rejoin_budget: 3600s,
            disk_free_min: 1073741824,
        },
        witness: WitnessSettings {
            url: File(
                "/srv/pg/w/doc.json",
            ),
            store: StoreSettings {
                endpoint: None,
                region: None,
                account: None,
                tls: true,
                ca: None,
                credentials: File,
                credentials_file: "/srv/pg/secrets/witness.env",
            },
            certificate: None,
            key: None,
            probe_every: 3600s,
        },
        backup: None,
        failover_ip: Some(
            Script {
                address: "203.0.113.10",
                script: "/srv/pg/move.sh",
                env_file: None,
                timeout: 5s,
            },
        ),
        registry: None,
        agent: AgentSettings {
            port: 6001,
            beat: 100ms,
        },
        ssh: SshSettings {
            user: "root",
            port: 22,
            identity: None,
            known_hosts: None,
        },
        docker: DockerSettings {
            image: "pgdock:16",
            network: "host",
            certificates: None,
            shm_size: 268435456,
        },
        nodes: {
            n1: NodeSettings {
                address: "10.0.0.1",
                priority: 100,
                failover: true,
                postgres_port: 6000,
                agent_port: 6001,
                failover_ip: NodeFailoverIp {
                    server_ip: None,
                    server_id: None,
                    instance_id: None,
                    network_interface_id: None,
                    interface: None,
                },
                home: "/srv/pg/run/n1",
                reach: Local,
                settings: {
                    "jit": "off",
                    "max_connections": "300",
                    "pg_stat_statements.max": "5000",
                    "random_page_cost": "1.1",
                    "shared_buffers": "1GB",
                },
                hba: [
                    "hostssl shop shopkeeper 10.0.0.0/8 scram-sha-256",
                ],
            },
            n2: NodeSettings {
                address: "n2.example.com",
                priority: 50,
                failover: false,
                postgres_port: 6100,
                agent_port: 6101,
                failover_ip: NodeFailoverIp {
                    server_ip: None,
                    server_id: None,
                    instance_id: None,
                    network_interface_id: None,
                    interface: None,
                },
                home: "/srv/pg/run/n2",
                reach: Local,
                settings: {
                    "jit": "off",
                    "max_connections": "300",
                    "pg_stat_statements.max": "5000",
                    "random_page_cost": "1.1",
                    "shared_buffers": "1GB",
                },
                hba: [
                    "hostssl shop shopkeeper 10.0.0.0/8 scram-sha-256",
                ],
            },
        },
    }
    "#);
}

#[test]
fn all_faults_are_listed_at_once() {
    let text = r#"[cluster]
nam = "main"
executor = "shh"
[postgres]
version = 13
port = 70000
hba = ["host all all 0.0.0.0/0 trust", "hots all", 5]
[postgres.settings]
primary_conninfo = "host=x password=hunter2"
fsync = false
Synchronous_Commit = "local"
max_wal_senders = 2
shared_preload_libraries = ["a"]
[failover]
durabilty = "sync"
heartbeat = "2s"
ttl = "5s"
stop_budget = 10
lag_bytes_max = "16mb"
[failovers]
[witness]
url = "s3://bucket/x"
[failover_ip]
kind = "magic"
address = "10.0.0.1:5432"
[nodes.n1]
address = "10.0.0.256"
priorty = 5
[nodes.N2]
address = "10.0.0.2"
"#;
    let found = faults(text);
    assert!(!found.contains("hunter2"));
    insta::assert_snapshot!(found, @r#"
    cluster.toml:1: cluster.name: expected a text in quotes, found nothing; add name = "main" to [cluster]
    cluster.toml:2: cluster.nam: expected a known key, found `nam`; did you mean `name`? known: name, executor, root
    cluster.toml:3: cluster.executor: expected "local" or "ssh" or "docker", found "shh"; known: local, ssh, docker
    cluster.toml:5: postgres.version: expected a whole number from 14 to 18, found 13; choose one of these
    cluster.toml:6: postgres.port: expected a whole number from 1 to 65535, found 70000; choose one of these
    cluster.toml:7: postgres.hba[0]: expected a method that proves who logs in, found trust; write scram-sha-256, or cert
    cluster.toml:7: postgres.hba[1]: expected a line of pg_hba.conf: TYPE DATABASE USER [ADDRESS] METHOD, found one of 2 words that begins with "hots"; complete it; known types: local, host, hostssl, hostnossl, hostgssenc, hostnogssenc
    cluster.toml:7: postgres.hba[2]: expected one line in quotes, found 5; write each line by itself
    cluster.toml:9: postgres.settings.primary_conninfo: expected nothing, since pgdock manages it, found a line for primary_conninfo; remove it: pgdock sets it when a standby changes its upstream
    cluster.toml:10: postgres.settings.fsync: expected on, found "off"; remove it: without it an acknowledged commit may be lost in a crash
    cluster.toml:11: postgres.settings.Synchronous_Commit: expected on or remote_apply, found "local"; remove it: less would acknowledge commits that a failover loses; a transaction may lower it for itself
    cluster.toml:12: postgres.settings.max_wal_senders: expected at least 10, found "2"; raise or remove it: standbys, their clones and base backups each take one
    cluster.toml:13: postgres.settings.shared_preload_libraries: expected a text, a number, true or false, found a list; write the value in double quotes
    cluster.toml:15: failover.durabilty: expected a known key, found `durabilty`; did you mean `durability`? known: durability, acks, strict, heartbeat, ttl, lag_bytes_max, stop_budget, rejoin_budget, disk_free_min
    cluster.toml:17: failover.ttl: expected at least three times failover.heartbeat, 6s, found 5s; raise it, or lower failover.heartbeat
    cluster.toml:18: failover.stop_budget: expected a duration such as "200ms", "5s" or "1m30s" (units: ms, s, m, min, h, d), found 10; write it with its unit, as in stop_budget = "10s"
    cluster.toml:19: failover.lag_bytes_max: expected a size such as "64kB" or "16MiB" (units: B, kB, MB, GB, TB and KiB, MiB, GiB, TiB, all powers of 1024), found "16mb"; write it with its unit, as in lag_bytes_max = "16MiB"
    cluster.toml:20: failovers: expected a known section, found `failovers`; did you mean `failover`? known: cluster, agent, postgres, failover, witness, backup, failover_ip, ssh, docker, registry, nodes
    cluster.toml:21: witness.region: expected the region of the bucket, found nothing; add region = "eu-central-1" to [witness]; or endpoint, where it is not Amazon's
    cluster.toml:24: failover_ip.kind: expected "script" or "hetzner_robot" or "hetzner_cloud" or "aws" or "linux", found "magic"; known: script, hetzner_robot, hetzner_cloud, aws, linux
    cluster.toml:25: failover_ip.address: expected an IP address or a host name, without port, found "10.0.0.1:5432"; write the port as postgres_port or agent_port
    cluster.toml:27: nodes.n1.address: expected an IP address or a host name, without port, found "10.0.0.256"; correct it
    cluster.toml:28: nodes.n1.priorty: expected a known key, found `priorty`; did you mean `priority`? known: address, priority, failover, postgres_port, agent_port, server_ip, server_id, instance_id, network_interface_id, interface, ssh, engine, container, volume
    cluster.toml:29: nodes.N2: expected a node's name: 1 to 32 characters of a-z, 0-9, - and _, the first one a letter, found "N2"; rename the section
    "#);
}

#[test]
fn times_must_fit_each_other() {
    insta::assert_snapshot!(faults_with("[failover]\nheartbeat = \"2s\"\nttl = \"3s\"\n[agent]\nbeat = \"1s\"\n"), @"cluster.toml:7: failover.ttl: expected at least three times failover.heartbeat, 6s, found 3s; raise it, or lower failover.heartbeat");
    insta::assert_snapshot!(faults_with("[failover]\nheartbeat = \"50ms\"\nttl = \"1s\"\n[agent]\nbeat = \"10ms\"\n"), @"
    cluster.toml:6: failover.heartbeat: expected at least 100ms, found 50ms; raise it
    cluster.toml:7: failover.ttl: expected at least 2s, found 1s; raise it
    cluster.toml:9: agent.beat: expected at least 50ms, found 10ms; raise it
    ");
    // The ttl is wrong by itself: what would follow from its default is not reported.
    insta::assert_snapshot!(faults_with("[failover]\nheartbeat = \"4s\"\nttl = \"soon\"\n"), @r#"cluster.toml:7: failover.ttl: expected a duration such as "200ms", "5s" or "1m30s" (units: ms, s, m, min, h, d), found "soon"; write it with its unit, as in ttl = "5s""#);
}

#[test]
fn strict_needs_sync_and_company() {
    insta::assert_snapshot!(faults_with("[failover]\nstrict = true\ndurability = \"async\"\n"), @r#"cluster.toml:6: failover.strict: expected false, as durability is "async", found true; remove it, or set durability = "sync" or "quorum""#);
    insta::assert_snapshot!(faults_with("[failover]\nstrict = true\n"), @"cluster.toml:6: failover.strict: expected at least two nodes, found one, which could never acknowledge a write; add a node, or remove strict");
}

#[test]
fn a_quorum_needs_as_many_standbys_as_it_asks_for() {
    let two = "[nodes.n2]\naddress = \"127.0.0.3\"\n";
    let faulty = |failover: &str, nodes: &str| faults_with(&format!("{nodes}[failover]\n{failover}\n"));
    insta::assert_snapshot!(faulty("acks = 2\ndurability = \"quorum\"", two), @"cluster.toml:8: failover.acks: expected at most 1, the number of standbys that may guard commits, found 2; lower it, or add a node that may become primary");
    insta::assert_snapshot!(faulty("durability = \"quorum\"", ""), @r#"cluster.toml:3: nodes: expected two nodes at least that may become primary, as durability is "quorum", found 1; add a node, or remove failover = false"#);
    insta::assert_snapshot!(faulty("durability = \"quorum\"", &format!("{two}failover = false\n")), @r#"cluster.toml:3: nodes: expected two nodes at least that may become primary, as durability is "quorum", found 1; add a node, or remove failover = false"#);
    insta::assert_snapshot!(faulty("acks = 0\ndurability = \"quorum\"", two), @"cluster.toml:8: failover.acks: expected a whole number from 1 to 64, found 0; choose one of these");
    insta::assert_snapshot!(faulty("acks = 2", two), @r#"cluster.toml:8: failover.acks: expected 1, as durability is "sync": one standby guards commits, found 2; remove it, or set durability = "quorum""#);
    insta::assert_snapshot!(faulty("acks = 1\ndurability = \"async\"", two), @r#"cluster.toml:8: failover.acks: expected nothing, as durability is "async", found 1; remove it, or set durability = "quorum""#);
    let text = format!("{SMALLEST}{two}[nodes.n3]\naddress = \"127.0.0.4\"\n[failover]\n");
    let acks = |more: &str| parse(&format!("{text}{more}"), Path::new("/srv"), Files::Ignored).unwrap().failover.acks;
    assert_eq!(acks("durability = \"quorum\"\nacks = 2"), 2);
    assert_eq!((acks("durability = \"quorum\""), acks(""), acks("durability = \"async\"")), (1, 1, 0));
}

#[test]
fn nodes_are_apart() {
    insta::assert_snapshot!(faults("[cluster]\nname = \"main\"\n"), @"cluster.toml: nodes: expected at least one node, found none; add [nodes.n1] with its address");
    insta::assert_snapshot!(faults_with("[nodes.n-2]\naddress = \"127.0.0.2\"\nagent_port = 5432\n[nodes.n_2]\naddress = \"::ffff:127.0.0.2\"\npostgres_port=5433\n"), @"
    cluster.toml:4: nodes.n1.address: expected an address and port of its own, found 127.0.0.2:5432 for PostgreSQL of n1 and for PostgreSQL of n-2; change the address, or set postgres_port and agent_port in the node's section
    cluster.toml:7: nodes.n-2.agent_port: expected an address and port of its own, found 127.0.0.2:5432 for the agent of n-2 and for PostgreSQL of n-2; change the address, or set postgres_port and agent_port in the node's section
    cluster.toml:8: nodes.n_2: expected names that differ in more than - and _, found `n-2` and `n_2`; rename one of them: both would have the same replication slot
    ");
    insta::assert_snapshot!(faults_with("failover = false\n[failover_ip]\nkind = \"script\"\nscript = \"x\"\naddress = \"127.0.0.2\"\n"), @"
    cluster.toml:3: nodes: expected a node that may become primary, found none; remove failover = false from one of them
    cluster.toml:9: failover_ip.address: expected an address that can move, found the own address of n1; write the address that follows the primary
    ");
}

/// Two machines, reached as `kind` says.
fn machines(kind: &str, more: &str) -> String {
    let witness = "[witness]\nurl = \"etcd://10.0.0.9:2379\"\ntls = false\n";
    let nodes = "[nodes.n2]\naddress = \"10.0.0.2\"\n[nodes.n1]\naddress = \"10.0.0.1\"\n";
    format!("[cluster]\nname = \"main\"\nexecutor = \"{kind}\"\n{witness}{nodes}{more}")
}

#[test]
fn nodes_are_reached_as_the_executor_says() {
    let read = |text: String| parse(&text, Path::new("/srv"), Files::Ignored).unwrap();
    let ssh = read(machines("ssh", "ssh = \"ann@db1\"\n[ssh]\nuser = \"bob\"\nport = 2222\nidentity = \"keys/id\"\n"));
    let reach = |settings: &Settings, i: usize| settings.nodes.values().nth(i).unwrap().reach.clone();
    let target = |user: &str, host: &str| SshTarget { user: user.into(), host: host.into(), port: 2222 };
    assert_eq!(reach(&ssh, 0), Reach::Ssh(target("ann", "db1")));
    assert_eq!(reach(&ssh, 1), Reach::Ssh(target("bob", "10.0.0.2")));
    assert_eq!(ssh.ssh.identity.as_deref(), Some(Path::new("/srv/keys/id")));
    assert!(ssh.nodes.values().all(|node| node.home == Path::new("/opt/pgdock")));

    let docker = read(machines("docker", "ssh = \"ann@db1:23\"\n"));
    let Reach::Docker(container) = reach(&docker, 0) else { panic!("{docker:?}") };
    assert_eq!(container.engine.to_string(), "ssh://ann@db1:23");
    assert_eq!((container.container.as_str(), container.volume.as_str()), ("pgdock-n1", "/opt/pgdock"));

    let local = "volume = \"v1\"\nengine = \"unix:///run/podman.sock\"\n[docker]\nengine = \"tcp://10.0.0.1\"\ncertificates = \"c\"\n";
    let docker = read(machines("docker", local));
    let Reach::Docker(container) = reach(&docker, 0) else { panic!("{docker:?}") };
    assert_eq!((container.engine.to_string().as_str(), container.volume.as_str()), ("unix:///run/podman.sock", "v1"));
    let Reach::Docker(container) = reach(&docker, 1) else { panic!("{docker:?}") };
    assert_eq!(container.engine.to_string(), "tcp://10.0.0.1:2376");
}

#[test]
fn faults_in_how_nodes_are_reached_are_told() {
    insta::assert_snapshot!(faults(&machines("ssh", "ssh = \"10.0.0.2\"\n")), @r#"cluster.toml:7: nodes.n2.ssh: expected a machine of its own, found 10.0.0.2, that of n1; change it: with executor = "ssh" there is one node a machine"#);
    insta::assert_snapshot!(faults(&machines("docker", "[docker]\nengine = \"unix:///var/run/docker.sock\"\n")), @"cluster.toml:7: nodes.n2.volume: expected a volume of its own, found /opt/pgdock, that of n1; set it in the node's section: both are on the same engine");
    insta::assert_snapshot!(faults(&machines("docker", "ssh = \"@x\"\nengine = \"docker.sock\"\ncontainer = \"a b\"\nvolume = \"../x\"\n[ssh]\nuser = \"a@b\"\nport = 0\n[docker]\nengine = \"tcp://10.0.0.1\"\nimage = \"a b\"\nnetwork = \"\"\nshm_size = 5\n")), @r#"
    cluster.toml:11: nodes.n1.ssh: expected [USER@]HOST[:PORT], found "@x"; write it as in ssh = "root@10.0.0.1:22"
    cluster.toml:12: nodes.n1.engine: expected unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST:PORT, found "docker.sock"; write it as in engine = "unix:///var/run/docker.sock"
    cluster.toml:13: nodes.n1.container: expected the name of a container, found "a b"; use a-z, 0-9, `.`, `-` and `_`
    cluster.toml:14: nodes.n1.volume: expected an absolute path on the engine's machine, or the name of a volume, found "../x"; correct it
    cluster.toml:16: ssh.user: expected the name of a user, found "a@b"; write the name alone, without host or port
    cluster.toml:17: ssh.port: expected a whole number from 1 to 65535, found 0; choose one of these
    cluster.toml:19: docker.engine: expected certificates for an engine that is reached by TCP, found none; set [docker] certificates to the folder of ca.pem, cert.pem and key.pem, or use ssh://
    cluster.toml:20: docker.image: expected the name of an image, found "a b"; write it as in image = "pgdock:17"
    cluster.toml:21: docker.network: expected a text in quotes, not empty, found ""; write it in double quotes
    cluster.toml:22: docker.shm_size: expected a size such as "64kB" or "16MiB" (units: B, kB, MB, GB, TB and KiB, MiB, GiB, TiB, all powers of 1024), found 5; write it with its unit, as in shm_size = "256MiB"
    "#);
    let file = machines("docker", "").replace("etcd://10.0.0.9:2379\"\ntls = false", "file:w.json\"");
    insta::assert_snapshot!(faults(&file.replace("name =", "root = \"var\"\nname =")), @r#"cluster.toml:2: cluster.root: expected an absolute path on the nodes' machines, found "var"; write it as in root = "/opt/pgdock""#);
    insta::assert_snapshot!(faults(&file), @"cluster.toml:5: witness.url: expected a store that all nodes reach, found a file, which each node would have for itself; name a bucket, etcd, or a PostgreSQL outside the cluster: docs/witness.md");
}

#[test]
fn hba_lines_cannot_hide_trust() {
    for line in [
        r#""host all all 10.0.0.0 255.0.0.0 trust""#,
        r#"'local all all "trust"'"#,
        r#"'host all all all scram-sha-256 \'"#,
        r#""local all all scram-sha-256\nhost all all all trust""#,
        r#""include /etc/hba all x y""#,
    ] {
        let found = faults_with(&format!("[postgres]\nhba = [\n{line}]\n"));
        assert!(found.starts_with("cluster.toml:7: postgres.hba[0]: "), "{line}: {found}");
    }
}

#[test]
fn the_witness_has_a_known_scheme() {
    let url = |url: &str| faults_with(&format!("[witness]\nurl = \"{url}\"\n"));
    insta::assert_snapshot!(url("postgres://key:hunter2@host/x"), @"cluster.toml:6: witness.url: expected file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, etcd://HOST:PORT,…/PREFIX or postgres://USER@HOST:PORT/DATABASE, found postgres://… with a password in it; write it into secrets/witness.env, and take it off the URL: this file is no place for secrets");
    insta::assert_snapshot!(url("witness.json"), @"cluster.toml:6: witness.url: expected file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, etcd://HOST:PORT,…/PREFIX or postgres://USER@HOST:PORT/DATABASE, found a URL without scheme; begin it with file: where it is a path");
    insta::assert_snapshot!(url("file://host/x"), @"cluster.toml:6: witness.url: expected file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, etcd://HOST:PORT,…/PREFIX or postgres://USER@HOST:PORT/DATABASE, found file: without a path of this machine; write file:PATH; it may be relative");
    let absolute = format!("{SMALLEST}[witness]\nurl = \"file:///w/doc.json\"\n");
    let settings = parse(&absolute, Path::new("/srv/pg"), Files::Ignored).unwrap();
    assert_eq!(settings.witness.file(), Some(Path::new("/w/doc.json")));
}

fn with_witness(lines: &str) -> Result<Settings, Faults> {
    parse(&format!("{SMALLEST}[witness]\n{lines}\n"), Path::new("/srv/pg"), Files::Ignored)
}

#[test]
fn a_bucket_renews_more_slowly() {
    let bucket = with_witness("url = \"s3://b\"\nregion = \"eu-central-1\"").unwrap();
    assert_eq!((bucket.failover.heartbeat, bucket.failover.ttl), (Duration::from_secs(2), Duration::from_secs(10)));
    let etcd = with_witness("url = \"etcd://h\"").unwrap();
    assert_eq!((etcd.failover.heartbeat, etcd.failover.ttl), (Duration::from_secs(1), Duration::from_secs(5)));
}

#[test]
fn the_keys_of_the_witness_belong_to_its_store() {
    let found = |lines: &str| faults_with(&format!("[witness]\n{lines}\n"));
    insta::assert_snapshot!(found("url = \"s3://b\"\ncertificate = \"x\"\nprobe_every = \"1s\""), @r#"
    cluster.toml:5: witness.region: expected the region of the bucket, found nothing; add region = "eu-central-1" to [witness]; or endpoint, where it is not Amazon's
    cluster.toml:5: witness.key: expected it beside certificate, found nothing; add it: one is worth nothing without the other
    cluster.toml:7: witness.certificate: expected nothing: it belongs to a url of etcd, postgres, found it beside a url of bucket; remove it
    cluster.toml:8: witness.probe_every: expected at least 1m, found 1s; raise it
    "#);
    insta::assert_snapshot!(found("url = \"s3://b\"\nendpoint = \"http://me@h\"\naccount = \"x\""), @"
    cluster.toml:7: witness.endpoint: expected a URL without user, found one with a user; write credentials into secrets/witness.env
    cluster.toml:8: witness.account: expected nothing: it belongs to a url of az, found it beside a url of bucket; remove it
    ");
    insta::assert_snapshot!(found("url = \"s3://b\"\nendpoint = \"http://h:9000\""), @"cluster.toml:7: witness.endpoint: expected https://…, as tls = true, found http://…; set tls = false, where nobody else is on the way");
    insta::assert_snapshot!(found("url = \"az://c\""), @r#"cluster.toml:5: witness.account: expected the storage account, found nothing; add account = "…" to [witness]"#);
    insta::assert_snapshot!(found("url = \"etcd://h\"\nregion = \"x\"\ncredentials = \"instance\"\nkey = \"k\""), @r#"
    cluster.toml:5: witness.certificate: expected it beside key, found nothing; add it: one is worth nothing without the other
    cluster.toml:7: witness.region: expected nothing: it belongs to a url of s3, found it beside a url of etcd; remove it
    cluster.toml:8: witness.credentials: expected "file", found "instance", which only buckets know; remove it
    "#);
    insta::assert_snapshot!(found("url = \"postgres://u@127.0.0.2/d\""), @r#"cluster.toml:5: witness.ca: expected the authority that signs the server's certificate, found nothing; add ca = "PATH" to [witness]; or tls = false, where nobody else is on the way"#);
    insta::assert_snapshot!(found("url = \"s3://b\"\nendpoint = \"https://127.0.0.2:9000\""), @"cluster.toml:7: witness.endpoint: expected a store that is on none of the nodes, found the address of n1; use one elsewhere: with its node the cluster would lose its arbiter, too");
    insta::assert_snapshot!(found("tls = false"), @"cluster.toml:6: witness.tls: expected nothing: it belongs to a url of s3, gs, az, etcd, postgres, found it beside a url of file; remove it");
}

#[test]
fn credentials_are_judged_and_never_repeated() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secrets/witness.env");
    std::fs::create_dir(dir.path().join("secrets")).unwrap();
    let checked = |url: &str, text: Option<(&str, u32)>| {
        match text {
            None => drop(std::fs::remove_file(&file)),
            Some((text, mode)) => {
                std::fs::write(&file, text).unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        let toml = format!("{SMALLEST}[witness]\n{url}\n");
        let faults = parse(&toml, dir.path(), Files::Checked).err().map(|f| f.to_string()).unwrap_or_default();
        assert!(!faults.contains("hunter2"), "{faults}");
        faults.replace(&dir.path().display().to_string(), "").replace("/cluster.toml", "cluster.toml")
    };
    let s3 = "url = \"s3://b\"\nregion = \"r\"";
    insta::assert_snapshot!(checked(s3, None), @r#"/secrets/witness.env: expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, found nothing; write them, or set credentials = "instance" where this machine has an identity of its own"#);
    insta::assert_snapshot!(checked(s3, Some(("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_KEY=hunter2\nhunter2\n", 0o644))), @"
    /secrets/witness.env:3: expected KEY=VALUE, found a line without `=`; write KEY=VALUE, or begin a comment with #
    /secrets/witness.env: expected mode 0600, found 0644; chmod 600 /secrets/witness.env
    ");
    insta::assert_snapshot!(checked(s3, Some(("AWS_ACCESS_KEY=a\nAWS_SECRET_ACCESS_KEY=\n", 0o600))), @r#"
    /secrets/witness.env: AWS_ACCESS_KEY: expected a key that bucket knows, found another one; known: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    /secrets/witness.env: expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, found nothing; write them, or set credentials = "instance" where this machine has an identity of its own
    "#);
    let good = "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=hunter2\n";
    assert_eq!(checked(s3, Some((good, 0o600))), "");
    assert_eq!(checked(&format!("{s3}\ncredentials = \"instance\""), None), "");
    assert_eq!(checked("url = \"etcd://h\"", None), "");
    insta::assert_snapshot!(checked("url = \"etcd://h\"\nca = \"ca.crt\"", Some((good, 0o600))), @"
    cluster.toml:7: witness.ca: expected a readable file in PEM format, found /ca.crt (No such file or directory (os error 2)); put it there, or correct the path
    /secrets/witness.env: AWS_ACCESS_KEY_ID: expected a key that etcd knows, found another one; known: ETCD_USER, ETCD_PASSWORD
    /secrets/witness.env: AWS_SECRET_ACCESS_KEY: expected a key that etcd knows, found another one; known: ETCD_USER, ETCD_PASSWORD
    ");
    insta::assert_snapshot!(checked("url = \"gs://b\"", Some(("GOOGLE_SERVICE_ACCOUNT=gcp.json\n", 0o600))), @"/secrets/witness.env: GOOGLE_SERVICE_ACCOUNT: expected a file in secrets/, mode 0600, found No such file or directory (os error 2); put the key of the service account there: /secrets/gcp.json");
    std::fs::write(dir.path().join("secrets/gcp.json"), "{}").unwrap();
    std::fs::set_permissions(dir.path().join("secrets/gcp.json"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(checked("url = \"gs://b\"", Some(("GOOGLE_SERVICE_ACCOUNT=gcp.json\n", 0o600))), "");
}

#[test]
fn shapes_are_checked() {
    insta::assert_snapshot!(faults("cluster = 5\nnodes = []\n[[agent]]\nport = 1\n"), @r#"
    cluster.toml:1: cluster: expected a section [cluster], found 5; write its keys below [cluster]
    cluster.toml:1: cluster.name: expected a text in quotes, found nothing; add name = "main" to [cluster]
    cluster.toml:2: nodes: expected a section [nodes], found a list; write its keys below [nodes]
    cluster.toml:3: agent: expected a section [agent], found a list of sections; write its keys below [agent]
    "#);
    insta::assert_snapshot!(faults_with("[postgres.settings]\nwork_mem = \"1\\nport = 2\"\nWork_Mem2 = 1\nwork_mem2 = 2\n\"a b\" = 1\n"), @r#"
    cluster.toml:6: postgres.settings.work_mem: expected a value on one line, found several lines; write it on one line
    cluster.toml:8: postgres.settings.work_mem2: expected each setting once, found a second one, in other case; remove one of them
    cluster.toml:9: postgres.settings.a b: expected the name of a PostgreSQL setting, found "a b"; correct the name
    "#);
}

#[test]
fn syntax_is_one_fault_with_its_line() {
    insta::assert_snapshot!(faults("[cluster]\nname = \"main\"\nexecutor local\n"), @"cluster.toml:3: expected TOML, found a fault of syntax (key with no value, expected `=`); correct this line; the rest is checked after that");
    insta::assert_snapshot!(faults("[cluster]\nname = \"a\"\nname = \"b\"\n"), @"cluster.toml:3: expected TOML, found a fault of syntax (duplicate key); correct this line; the rest is checked after that");
}

#[test]
fn the_script_must_be_executable_and_its_environment_readable() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "{SMALLEST}[failover_ip]\nkind = \"script\"\naddress = \"127.0.0.9\"\nscript = \"ip.sh\"\nenv_file = \"env/main\"\n"
    );
    let listed = |text: &str| {
        let error = Settings::from_toml(text, dir.path()).unwrap_err();
        error.to_string().replace(&dir.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(listed(&text), @"
    the settings have 2 faults:
    DIR/cluster.toml:8: failover_ip.script: expected a program, found DIR/ip.sh (No such file or directory (os error 2)); make it, or correct the path; `pgdock init` makes an example
    DIR/cluster.toml:9: failover_ip.env_file: expected a readable text file, found DIR/env/main (No such file or directory (os error 2)); make it with KEY=VALUE lines, or correct the path
    ");

    let script = dir.path().join("ip.sh");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::create_dir(dir.path().join("env")).unwrap();
    std::fs::write(dir.path().join("env/main"), "A=1\nB\n").unwrap();
    insta::assert_snapshot!(listed(&text), @"
    the settings have 2 faults:
    DIR/cluster.toml:8: failover_ip.script: expected an executable file, found DIR/ip.sh, which is not; chmod +x DIR/ip.sh
    DIR/env/main:2: expected KEY=VALUE, found a line without `=`; write KEY=VALUE, or begin a comment with #
    ");

    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(dir.path().join("env/main"), "A=1\n").unwrap();
    Settings::from_toml(&text, dir.path()).unwrap();
}

#[test]
fn programs_can_read_the_faults() {
    let error = Settings::from_toml("[cluster]\nname = 5\n", Path::new("/srv/pg")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let faults: &Faults = std::error::Error::source(&error).unwrap().downcast_ref().unwrap();
    assert_eq!(faults.len(), 2);
    let first = faults.iter().next().unwrap();
    assert_eq!((first.key.as_str(), first.line), ("cluster.name", Some(2)));
    assert_eq!(first.file, Path::new("/srv/pg/cluster.toml"));
    assert_eq!(error.chain(), error.to_string(), "the list is not repeated");
}

#[test]
fn a_folder_or_its_file_can_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Settings::from_path(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.hints()[0].contains("pgdock init"));

    std::fs::write(dir.path().join("cluster.toml"), SMALLEST).unwrap();
    let settings = Settings::from_path(dir.path()).unwrap();
    assert_eq!(settings.dir, dir.path());
    assert_eq!(settings, Settings::from_path(dir.path().join("cluster.toml")).unwrap());

    std::fs::write(dir.path().join("other.toml"), SMALLEST).unwrap();
    let error = Settings::from_path(dir.path().join("other.toml")).unwrap_err();
    assert!(error.to_string().contains("a file called cluster.toml"), "{error}");
    let error = Settings::from_path(dir.path().join("nowhere")).unwrap_err();
    assert!(error.to_string().contains("no such folder"), "{error}");
}

/// Pieces of settings, right and wrong, in any order.
fn pieces() -> impl Strategy<Value = String> {
    const TABLES: &str =
        "[cluster] [nodes.n1] [nodes] [[nodes]] [postgres.settings] [failover] [witness] [failover_ip] [agent]";
    const KEYS: &str = "name address ttl heartbeat beat port hba url kind";
    const VALUES: &str =
        r#""5s" "script" "" 5 -1 1.5 true inf 1979-05-27 "999999999999h" "file:" "file://" [ ] { } , ä " ' # . ="#;
    let words: Vec<&str> =
        [TABLES, KEYS, VALUES].into_iter().flat_map(str::split_whitespace).chain(["\n", " = "]).collect();
    prop::collection::vec(prop::sample::select(words), 0..40).prop_map(|v| v.concat())
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in "(?s).{0,200}") {
        let _ = parse(&text, Path::new("/srv/pg"), Files::Ignored);
    }

    #[test]
    fn no_mixture_of_pieces_breaks_the_parser(text in pieces()) {
        if let Err(faults) = parse(&text, Path::new("/srv/pg"), Files::Ignored) {
            let lines = text.split('\n').count();
            for fault in &faults {
                prop_assert!(fault.line.is_none_or(|line| (1..=lines).contains(&line)), "{fault}");
            }
        }
    }
}

/// A folder with these files beside the smallest settings, of two nodes.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let two = format!(
        "{SMALLEST}[nodes.n2]\naddress = \"127.0.0.3\"\n[postgres.settings]\nwork_mem = \"1MB\"\njit = false\n"
    );
    for (path, text) in [("cluster.toml", two.as_str())].iter().chain(files) {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

#[test]
fn a_nodes_files_count_more_than_those_of_all() {
    let dir = folder(&[
        ("shared/postgres/postgresql.conf", "work_mem = 2MB\nmax_connections = 50 # all\nwork_mem = 3MB\n"),
        ("shared/postgres/pg_hba.conf", "# all\nhostssl all all 10.0.0.0/8 scram-sha-256\n"),
        ("n1/postgres/postgresql.conf", "WORK_MEM = '4MB'\n"),
        ("n1/postgres/pg_hba.conf", "hostssl all all 10.1.0.0/16 reject # n1\n"),
    ]);
    let settings = Settings::from_path(dir.path()).unwrap();
    let of = |name: &str| {
        let node = &settings.nodes[&node(name)];
        let lines: Vec<_> = node.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
        (lines.join(" "), node.hba.clone())
    };
    let all = "hostssl all all 10.0.0.0/8 scram-sha-256".to_owned();
    assert_eq!(
        of("n1"),
        (
            "jit=off max_connections=50 work_mem=4MB".to_owned(),
            vec!["hostssl all all 10.1.0.0/16 reject".to_owned(), all.clone()]
        )
    );
    assert_eq!(of("n2"), ("jit=off max_connections=50 work_mem=3MB".to_owned(), vec![all]));
    assert_eq!(settings.postgres.settings.len(), 2, "what cluster.toml says stays as it is");
}

#[test]
fn faults_of_the_files_come_with_file_and_line() {
    let dir = folder(&[
        ("shared/postgres/postgresql.conf", "include 'more.conf'\nfsync = off\nwork_mem 1 2\n"),
        ("n2/postgres/postgresql.conf", "\nprimary_conninfo = 'password=hunter2'\n"),
        (
            "n2/postgres/pg_hba.conf",
            "local all all trust\nhost all\nhost @users all all md5\ninclude x\nhost all all all md5 \\\n",
        ),
    ]);
    let error = Settings::from_path(dir.path()).unwrap_err();
    let text = error.to_string().replace(&format!("{}/", dir.path().display()), "");
    insta::assert_snapshot!(text, @r#"
    the settings have 9 faults:
    n2/postgres/pg_hba.conf:1: expected a method that proves who logs in, found trust; write scram-sha-256, or cert
    n2/postgres/pg_hba.conf:2: expected a line of pg_hba.conf: TYPE DATABASE USER [ADDRESS] METHOD, found one of 2 words that begins with "host"; complete it; known types: local, host, hostssl, hostnossl, hostgssenc, hostnogssenc
    n2/postgres/pg_hba.conf:3: expected names, found the name of a file; write the names here: what another file brings in is not checked
    n2/postgres/pg_hba.conf:4: expected no directive, found include; write the lines here: what another file brings in is not checked
    n2/postgres/pg_hba.conf:5: expected a line that ends where it ends, found one that goes on in the next; write it on one line, without a backslash at its end
    n2/postgres/postgresql.conf:2: primary_conninfo: expected nothing, since pgdock manages it, found a line for primary_conninfo; remove it: pgdock sets it when a standby changes its upstream
    shared/postgres/postgresql.conf:1: include: expected nothing, since pgdock manages it, found a line for include; remove it: a file that is read behind pgdock's back may undo its settings; write the lines here
    shared/postgres/postgresql.conf:2: fsync: expected on, found "off"; remove it: without it an acknowledged commit may be lost in a crash
    shared/postgres/postgresql.conf:3: expected the end of the line after the value, found more; put the whole value in single quotes
    "#);
    assert!(!text.contains("hunter2"));
}

#[test]
fn the_articles_env_names_the_first_database() {
    let env = "POSTGRES_USER=postgres\nPOSTGRES_PASSWORD=hunter2\nPOSTGRES_DB=testdb\nPGDATA=/var/lib/postgresql/data\n\
               HETZNER_USER=robot\nHETZNER_PASS=hunter3\nHETZNER_FAILOVER_IP=1.2.3.4\nHETZNER_ACTIVE_SERVER_IP=5.6.7.8\n";
    let dir = folder(&[("n1/env/main", env), ("shared/env/main", "POSTGRES_DB=testdb\nPOSTGRES_USER=shop\n")]);
    // Both say who owns it, and do not agree.
    let text = Settings::from_path(dir.path()).unwrap_err().to_string();
    assert!(text.contains("POSTGRES_USER: expected the same as in") && text.contains("shared/env/main"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");

    let dir = folder(&[("n1/env/main", env), ("n2/env/main", env)]);
    let settings = Settings::from_path(dir.path()).unwrap();
    assert_eq!((settings.postgres.database.as_str(), settings.postgres.owner.as_str()), ("testdb", "app"));
    assert_eq!(settings.env(&node("n1"), "main").unwrap()["HETZNER_ACTIVE_SERVER_IP"], "5.6.7.8");
    assert!(settings.env(&node("n1"), "backup").unwrap().is_empty());

    let dir = folder(&[("shared/env/main", "POSTGRES_DB=shop\nPOSTGRES_USER=keeper\n")]);
    let settings = Settings::from_path(dir.path()).unwrap();
    assert_eq!((settings.postgres.database.as_str(), settings.postgres.owner.as_str()), ("shop", "keeper"));
}

fn with_failover_ip(lines: &str, node: &str) -> Result<Settings, Faults> {
    parse(&format!("{SMALLEST}{node}\n[failover_ip]\n{lines}\n"), Path::new("/srv/pg"), Files::Ignored)
}

#[test]
fn each_kind_of_failover_ip_has_its_keys() {
    let ip = |lines, node| with_failover_ip(lines, node).unwrap().failover_ip.unwrap();
    let robot = ip("kind = \"hetzner_robot\"\naddress = \"1.2.3.4\"", "server_ip = \"5.6.7.8\"");
    let FailoverIpSettings::HetznerRobot(keeper) = &robot else { panic!("{robot:?}") };
    assert_eq!(keeper.env_file, None);
    assert_eq!((robot.kind(), robot.address().as_str(), robot.held_here()), ("hetzner_robot", "1.2.3.4", None));
    let cloud = ip("kind = \"hetzner_cloud\"\naddress = \"1.2.3.4\"\ntimeout = \"5s\"", "server_id = 7");
    assert!(matches!(cloud, FailoverIpSettings::HetznerCloud(k) if k.timeout == Some(Duration::from_secs(5))));
    let lines = "kind = \"aws\"\naddress = \"1.2.3.4\"\nregion = \"eu-central-1\"\ncredentials = \"instance\"";
    let aws = ip(lines, "network_interface_id = \"eni-1\"");
    assert!(matches!(aws, FailoverIpSettings::Aws { credentials: Credentials::Instance, .. }), "{aws:?}");
    let linux = ip("kind = \"linux\"\naddress = \"fd00::9\"\nprefix = 64", "interface = \"eth0\"");
    assert_eq!(linux.held_here(), Some("fd00::9".parse().unwrap()));
}

#[test]
fn postgresql_listens_where_the_failover_ip_arrives() {
    let listens = |lines: &str| {
        let settings = parse(&format!("{SMALLEST}{lines}\n"), Path::new("/srv/pg"), Files::Ignored).unwrap();
        settings.listen_addresses(settings.nodes.values().next().unwrap())
    };
    assert_eq!(listens(""), "127.0.0.2");
    assert_eq!(listens("[postgres]\nlisten = \"all\""), "*");
    let ip = |kind: &str| format!("[failover_ip]\nkind = \"{kind}\"\naddress = \"1.2.3.4\"\n");
    assert_eq!(listens(&ip("hetzner_robot")), "127.0.0.2,1.2.3.4");
    assert_eq!(listens(&ip("linux")), "*");
    let aws = format!("instance_id = \"i-1\"\n{}region = \"eu-central-1\"", ip("aws"));
    assert_eq!(listens(&aws), "127.0.0.2", "the provider translates the address");
    let crowded = format!("[nodes.n2]\naddress = \"127.0.0.3\"\n{}", ip("linux"));
    insta::assert_snapshot!(faults_with(&crowded), @r#"cluster.toml:8: failover_ip.kind: expected a kind that one machine can do, as nodes have addresses of this one alone, found "linux"; give each node a machine of its own, or use "script""#);
    let deaf = format!("{}[postgres]\nlisten = \"node\"", ip("linux"));
    insta::assert_snapshot!(faults_with(&deaf), @r#"cluster.toml:9: postgres.listen: expected "all", as [failover_ip] kind = "linux", found "node"; remove it: PostgreSQL cannot listen at an address that comes later"#);
}

#[test]
fn faults_of_a_failover_ip_name_the_kind() {
    let faults =
        |lines: &str, node: &str| with_failover_ip(lines, node).unwrap_err().to_string().replace("/srv/pg/", "");
    insta::assert_snapshot!(faults("kind = \"hetzner_cloud\"\naddress = \"db.example.com\"", "instance_id = \"i-1\""), @r#"cluster.toml:8: failover_ip.address: expected an IP address, found "db.example.com"; write the address itself"#);
    insta::assert_snapshot!(faults("kind = \"hetzner_cloud\"\naddress = \"1.2.3.4\"", "instance_id = \"i-1\""), @r#"cluster.toml:5: nodes.n1.instance_id: expected nothing: it belongs to [failover_ip] kind = "aws", found it; remove it, or correct the kind"#);
    insta::assert_snapshot!(faults("kind = \"hetzner_cloud\"\naddress = \"1.2.3.4\"", ""), @"cluster.toml:3: nodes.n1.server_id: expected the number of the server, found nothing; add server_id = 12345678 to [nodes.n1]");
    insta::assert_snapshot!(faults("kind = \"aws\"\naddress = \"1.2.3.4\"\nendpoint = \"http://ec2.example.com\"", "instance_id = \"i-1\"\nnetwork_interface_id = \"eni-1\""), @r#"
    cluster.toml:7: failover_ip.region: expected a text in quotes, found nothing; add region = "eu-central-1" to [failover_ip]
    cluster.toml:10: failover_ip.endpoint: expected https://HOST, or http:// and an address of this machine itself, found another form; correct it, or remove it
    "#);
    insta::assert_snapshot!(faults("kind = \"linux\"\naddress = \"1.2.3.4\"\nprefix = 33\nregion = \"x\"", ""), @r"
    cluster.toml:9: failover_ip.prefix: expected a whole number from 1 to 32, found 33; choose one of these
    cluster.toml:10: failover_ip.region: expected a known key, found `region`; known: kind, address, prefix
    ");
    insta::assert_snapshot!(faults("kind = \"linux\"\naddress = \"127.0.0.2\"", ""), @"cluster.toml:8: failover_ip.address: expected an address that can move, found the own address of n1; write the address that follows the primary");
}

#[test]
fn where_pgdock_archives_wal_nobody_else_does() {
    let with = |sections: &str| {
        let text = format!("[cluster]\nname = \"main\"\n{sections}\n[nodes.n1]\naddress = \"127.0.0.2\"\n");
        Settings::from_toml(&text, Path::new("/srv/pg")).map_err(|e| e.chain())
    };
    let own = "[postgres.settings]\narchive_mode = \"on\"\narchive_command = \"cp %p /x\"\n";
    with(own).unwrap();
    let refused = with(&format!("[backup]\nurl = \"file:/b\"\n{own}")).unwrap_err();
    assert!(refused.contains("postgres.settings.archive_command") && refused.contains("archive_mode"), "{refused}");
    with("[backup]\nurl = \"file:/b\"\n[postgres.settings]\narchive_timeout = \"10s\"\n").unwrap();
}

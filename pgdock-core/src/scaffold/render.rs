//! The text of a new `cluster.toml`.

use std::fmt::Write as _;

use super::Scaffold;
use crate::settings::ExecutorKind;
use crate::witness::record::Durability;

/// Stands before a comment at the end of a line until all are aligned. A TOML string never holds it bare.
const COMMENT: char = '\u{1}';

/// Where comments at the end of a line begin.
const COLUMN: usize = 32;

pub(super) fn cluster_toml(scaffold: &Scaffold) -> String {
    let Scaffold { postgres_port, agent_port, durability, .. } = scaffold;
    let name = quoted(&scaffold.name);
    let witness = witness(scaffold);
    let (heartbeat, ttl) = pace(scaffold);
    let version = optional("version", scaffold.version.map(|version| version.to_string()), "16");
    let bin_dir = scaffold.bin_dir.as_ref().map(|path| quoted(&path.to_string_lossy()));
    let bin_dir = optional("bin_dir", bin_dir, "\"/usr/lib/postgresql/16/bin\"");
    let acks = acks(scaffold);
    let failover_ip = failover_ip(scaffold.failover_address.as_deref());
    let backup = backup(scaffold);
    let (reach, machines) = (reach(scaffold), machines(scaffold));
    let c = COMMENT;
    let mut text = format!(
        r#"# A highly available PostgreSQL, run by pgdock.
# Lines that begin with `# key =` show the default, or an example where there is none.
# Relative paths begin at the folder of this file.

[cluster]
name = {name}
{reach}
[postgres]
{version}{c}14 to 18; without it, the newest one found
{bin_dir}{c}where it is not found by itself
port = {postgres_port}
# user = "postgres"{c}the system's user that PostgreSQL runs as where the agent is root
# database = "app"{c}made at bootstrap for the application
# owner = "app"{c}its owner, the role that the application logs in as
# hba = ["hostssl app app 10.0.0.0/8 scram-sha-256"]

[postgres.settings]{c}lines for postgresql.conf; what pgdock manages itself is refused
# shared_buffers = "1GB"
# max_connections = 200

[failover]
durability = "{durability}"{c}"sync": one standby has each acknowledged commit; "quorum": any `acks` of all; "async": none need
{acks}# strict = false{c}rather block writes than acknowledge them on the primary alone; not in "async"
# heartbeat = "{heartbeat}"{c}how often the leader renews its right
# ttl = "{ttl}"{c}how long a right lasts; at least three heartbeats
# lag_bytes_max = "16MiB"{c}in "async": how much a standby may lack and still take over
# stop_budget = "10s"{c}how long a switchover waits for the old primary to stop
# rejoin_budget = "10m"{c}how long a rewind may take before the leader is copied instead
# disk_free_min = "128MiB"{c}with less room on its disk, the leader hands over to a standby that has more

{witness}
{backup}
{failover_ip}
[agent]
port = {agent_port}
# beat = "200ms"{c}how often agents tell each other how they are
{machines}"#
    );
    for (i, (name, address)) in scaffold.nodes.iter().enumerate() {
        let _ = write!(text, "\n[nodes.{name}]\naddress = {}\n", quoted(address));
        if scaffold.docker.engine.is_some() && scaffold.nodes.len() > 1 {
            let volume = quoted(&format!("{}-{name}", scaffold.name));
            let _ = writeln!(text, "volume = {volume}{c}what it keeps; the engine has those of the others, too");
        }
        if i == 0 {
            let _ = write!(
                text,
                r#"# priority = 100{c}among equals the highest becomes primary
# failover = true{c}whether it may become primary
# postgres_port = {postgres_port}{c}instead of [postgres] port
# agent_port = {agent_port}{c}instead of [agent] port
"#
            );
        }
    }
    align(&text)
}

/// How nodes are reached, in the section of the cluster.
fn reach(scaffold: &Scaffold) -> String {
    let c = COMMENT;
    match scaffold.executor {
        ExecutorKind::Local => format!(
            "# executor = \"local\"{c}how commands reach the nodes\n# root = \"var\"{c}each node has a folder below it\n"
        ),
        kind => format!(
            "executor = \"{}\"{c}how commands reach the nodes\n# root = \"/opt/pgdock\"{c}where each keeps its things\n",
            kind.as_str()
        ),
    }
}

/// The sections of SSH and containers, where nodes are reached like that.
fn machines(scaffold: &Scaffold) -> String {
    let c = COMMENT;
    if scaffold.executor == ExecutorKind::Local {
        return String::new();
    }
    let mut text = String::new();
    if scaffold.docker.engine.is_none() {
        let _ = write!(
            text,
            "\n[ssh]\n# user = \"root\"{c}who logs in on the nodes' machines\n# port = 22\n\
             # identity = \"/home/me/.ssh/id_ed25519\"{c}instead of the keys that ssh would try\n\
             # known_hosts = \"/home/me/.ssh/known_hosts\"{c}which names the machines' own keys\n"
        );
    }
    if scaffold.executor == ExecutorKind::Docker {
        let docker = &scaffold.docker;
        let line =
            |key, value: &Option<String>, example: &str| optional(key, value.as_deref().map(quoted), &quoted(example));
        let image = crate::settings::default_image(scaffold.version);
        let _ = write!(
            text,
            "\n[docker]\n{}{c}where the engine is; without it, on each node's machine, over SSH\n\
             {}{c}`pgdock image build` makes it\n{}{c}or a network of the engine, in which nodes get their addresses\n\
             # shm_size = \"256MiB\"{c}what parallel queries share\n",
            line("engine", &docker.engine, "unix:///var/run/docker.sock"),
            line("image", &docker.image, &image),
            line("network", &docker.network, "host"),
        );
    }
    text
}

/// How many standbys hold each commit, where that can be chosen.
fn acks(scaffold: &Scaffold) -> String {
    let mark = match scaffold.durability {
        Durability::Async => return String::new(),
        Durability::Sync => "# ",
        Durability::Quorum => "",
    };
    let acks = if scaffold.durability == Durability::Quorum { scaffold.acks } else { 1 };
    format!("{mark}acks = {acks}{COMMENT}in \"quorum\": how many standbys have each acknowledged commit\n")
}

/// How fast the leader renews, by the store.
fn pace(scaffold: &Scaffold) -> (&'static str, &'static str) {
    match &scaffold.witness {
        Some(witness) if ["s3:", "gs:", "az:"].iter().any(|scheme| witness.url.starts_with(scheme)) => ("2s", "10s"),
        _ => ("1s", "5s"),
    }
}

fn witness(scaffold: &Scaffold) -> String {
    let c = COMMENT;
    let Some(witness) = &scaffold.witness else {
        let url = quoted(&format!("file:witness/{}.json", scaffold.name));
        return format!(
            "[witness]{c}who leads; on more than one machine: a bucket, etcd, or another PostgreSQL\n# url = {url}\n"
        );
    };
    let mut text =
        format!("[witness]{c}who leads; credentials are in secrets/witness.env\nurl = {}\n", quoted(&witness.url));
    let keys = [("endpoint", &witness.endpoint), ("region", &witness.region), ("account", &witness.account)];
    for (key, value) in keys {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {}", quoted(value));
        }
    }
    if witness.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http:")) {
        let _ = writeln!(text, "tls = false{c}everybody on the way can read and change what is sent");
    }
    if witness.url.starts_with("postgres") {
        let _ = writeln!(text, "ca = \"secrets/witness-ca.crt\"{c}who signs the server's certificate");
    } else if !witness.url.starts_with("file:") {
        let _ = writeln!(text, "# ca = \"secrets/witness-ca.crt\"{c}whom to trust instead of the system's authorities");
    }
    if !witness.url.starts_with("file:") {
        let _ = writeln!(text, "# probe_every = \"1h\"{c}how often agents prove that it still honours its conditions");
    }
    text
}

/// Where backups are kept; else an example: which store it is, nobody can guess.
fn backup(scaffold: &Scaffold) -> String {
    let c = COMMENT;
    let (mark, head) = match &scaffold.backup {
        None => (
            "# ",
            format!(
                "# url = \"s3://bucket/prefix\"{c}or gs://…, az://…, file:PATH\n\
                 # region = \"eu-central-1\"{c}or endpoint = \"https://s3.example.com\"\n"
            ),
        ),
        Some(backup) => {
            let mut text = format!("url = {}\n", quoted(&backup.url));
            for (key, value) in [("endpoint", &backup.endpoint), ("region", &backup.region)] {
                if let Some(value) = value {
                    let _ = writeln!(text, "{key} = {}", quoted(value));
                }
            }
            if backup.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http:")) {
                let _ = writeln!(text, "tls = false{c}everybody on the way can read and change what is sent");
            }
            ("", text)
        }
    };
    let schedule = scaffold.backup.as_ref().and_then(|backup| backup.schedule.as_deref()).map(quoted);
    let schedule = optional("schedule", schedule, "\"0 3 * * *\"");
    format!(
        r#"{mark}[backup]{c}base backups and WAL; credentials are in secrets/backup.env
{head}{schedule}{c}as in crontab(5), in UTC; without it, by hand only
# keep = {{ count = 7 }}{c}also age, daily, weekly, monthly; what any of them keeps is kept
# wal = "archive"{c}"stream": the end of the WAL as well, every second
# encrypt = false{c}with secrets/backup.key; keep a copy of it elsewhere
"#
    )
}

fn failover_ip(address: Option<&str>) -> String {
    let c = COMMENT;
    let mark = if address.is_some() { "" } else { "# " };
    let address = quoted(address.unwrap_or("203.0.113.10"));
    format!(
        r#"{mark}[failover_ip]{c}an address that follows the primary
{mark}kind = "script"
{mark}address = {address}
{mark}script = "shared/failover/failover.sh"
# env_file = "secrets/failover.env"{c}KEY=VALUE lines for the script
# timeout = "60s"{c}how long one run may take
"#
    )
}

/// A line with its value, or the same as a comment with an example.
fn optional(key: &str, value: Option<String>, example: &str) -> String {
    value.map_or_else(|| format!("# {key} = {example}"), |value| format!("{key} = {value}"))
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

fn align(text: &str) -> String {
    let aligned = text.lines().map(|line| match line.split_once(COMMENT) {
        Some((line, comment)) => format!("{:<COLUMN$}# {comment}\n", format!("{line} ")),
        None => format!("{line}\n"),
    });
    aligned.collect()
}

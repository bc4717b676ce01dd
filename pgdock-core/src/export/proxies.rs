//! Programs that stand between applications and the nodes.

use std::fmt::Write as _;

use super::Shown;
use crate::Result;
use crate::agent::host_port;

/// PgBouncer tries a list of hosts in turn, but asks none of them for its role.
pub(super) fn pgbouncer(cluster: &Shown<'_>) -> Result<String> {
    let host = cluster.following("PgBouncer")?;
    let port = cluster.nodes[0].1.postgres_port;
    let value = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut text = cluster.heading(
        ";",
        &[
            "pgbouncer.ini. Writes go to the address that follows the primary; NAME_read to all nodes in turn.",
            "auth_file: one line for each user, \"NAME\" \"SCRAM verifier\".",
        ],
    );
    text.push_str("\n[databases]\n");
    let database = cluster.database();
    // PgBouncer's own name for it: letters, digits and little else, whatever the database is called.
    let name = database.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "_");
    let _ = writeln!(text, "{name} = host={host} port={port} dbname={}", value(database));
    // Hosts in a list are taken in turn, and have one port.
    let _ =
        writeln!(text, "{name}_read = host={} port={} dbname={}", cluster.hosts(), cluster.ports(), value(database));
    let _ = write!(
        text,
        "\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 6432\nauth_type = scram-sha-256\nauth_file = /etc/pgbouncer/userlist.txt\n\
         pool_mode = transaction\nserver_tls_sslmode = verify-ca\nserver_tls_ca_file = {}\nserver_connect_timeout = 3\n\
         ; A connection to a primary that was demoted is not kept.\nserver_lifetime = 60\nserver_login_retry = 1\n",
        cluster.ca
    );
    Ok(text)
}

/// Agents answer `/primary` and `/replica` with 200 or 503 (docs/agent-api.md).
pub(super) fn haproxy(cluster: &Shown<'_>) -> String {
    let mut text = cluster.heading(
        "#",
        &[
            "haproxy.cfg. Port 5000: the primary; 5001: standbys, and the primary where none streams.",
            "Agents are asked who leads, and connections to a node that does not lead any more are closed.",
        ],
    );
    text.push_str("\ndefaults\n    mode tcp\n    timeout connect 3s\n    timeout client 30m\n    timeout server 30m\n    timeout check 2s\n");
    for (name, port, path) in [("primary", 5000, "/primary"), ("standbys", 5001, "/replica")] {
        let _ = write!(
            text,
            "\nlisten {name}\n    bind 127.0.0.1:{port}\n    option httpchk GET {path}\n    http-check expect status 200\n\
             \x20   default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\n"
        );
        if path == "/replica" {
            text.push_str("    balance roundrobin\n");
        }
        for (node, settings) in &cluster.nodes {
            let _ = writeln!(
                text,
                "    server {node} {} check port {} check-ssl verify required ca-file {}",
                host_port(&settings.address, settings.postgres_port),
                settings.agent_port,
                escaped(cluster.ca),
            );
        }
        if path == "/replica" {
            // `backup` servers take over where no other one is up; these are asked whether they lead.
            for (node, settings) in &cluster.nodes {
                let _ = writeln!(
                    text,
                    "    server {node}-primary {} track primary/{node} backup",
                    host_port(&settings.address, settings.postgres_port)
                );
            }
        }
    }
    text
}

/// A word of HAProxy's configuration (its manual, section 2.2).
fn escaped(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        if matches!(c, ' ' | '#' | '\\' | '"' | '\'') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

//! `database.yml`, with Makara and without.

use super::Shown;

const USERNAME: &str = "<%= ENV['DATABASE_USERNAME'] %>";
const PASSWORD: &str = "<%= ENV['DATABASE_PASSWORD'] %>";

/// Makara's roles never change by themselves, but a connection's host may be a list for libpq, which looks again at each
/// connect. So the primary is one connection with every host, and each node is a replica besides.
pub(super) fn makara(cluster: &Shown<'_>) -> String {
    let mut text = cluster.heading(
        "#",
        &[
            "config/database.yml of Rails with the gem makara.",
            "The node that leads takes its share of the reads. DATABASE_USERNAME, DATABASE_PASSWORD: from the environment.",
        ],
    );
    text.push_str("production:\n  adapter: postgresql_makara\n");
    text.push_str(&format!(
        "  database: {}\n  username: {USERNAME}\n  password: {PASSWORD}\n",
        quoted(cluster.database())
    ));
    text.push_str(&format!("  sslmode: verify-ca\n  sslrootcert: {}\n  connect_timeout: 3\n", quoted(cluster.ca)));
    text.push_str("  makara:\n    blacklist_duration: 5\n    primary_ttl: 5\n    sticky: true\n    connections:\n");
    text.push_str(&format!(
        "      - role: primary\n        name: primary\n        host: {}\n        port: {}\n        target_session_attrs: read-write\n",
        quoted(&cluster.hosts()),
        quoted(&cluster.ports()),
    ));
    for (name, node) in &cluster.nodes {
        text.push_str(&format!(
            "      - role: replica\n        name: {name}\n        host: {}\n        port: {}\n",
            quoted(&node.address),
            node.postgres_port,
        ));
    }
    text
}

pub(super) fn rails(cluster: &Shown<'_>) -> String {
    let mut text = cluster.heading(
        "#",
        &[
            "config/database.yml of Rails 6.1 or newer, which hands these to libpq: it looks for the primary itself.",
            "In ApplicationRecord: connects_to database: { writing: :primary, reading: :primary_replica }",
        ],
    );
    text.push_str("production:\n");
    for (name, wanted, more) in [
        ("primary", "read-write", ""),
        ("primary_replica", "prefer-standby", "    replica: true\n    database_tasks: false\n"),
    ] {
        text.push_str(&format!("  {name}:\n    adapter: postgresql\n"));
        for (key, value) in [
            ("host", quoted(&cluster.hosts())),
            ("port", quoted(&cluster.ports())),
            ("database", quoted(cluster.database())),
            ("username", USERNAME.to_owned()),
            ("password", PASSWORD.to_owned()),
            ("target_session_attrs", wanted.to_owned()),
            ("sslmode", "verify-ca".to_owned()),
            ("sslrootcert", quoted(cluster.ca)),
            ("connect_timeout", "3".to_owned()),
        ] {
            text.push_str(&format!("    {key}: {value}\n"));
        }
        text.push_str(more);
    }
    text
}

/// A string of YAML: one of JSON is one (YAML 1.2, section 1.3).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

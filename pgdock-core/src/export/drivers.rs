//! Drivers that take a list of hosts and look for the primary themselves.

use super::Shown;
use crate::postgres::conninfo::uri_escaped;

/// A service file (PostgreSQL documentation, section 34.17). Its lines are `key=value` to their end, without quotes.
pub(super) fn libpq(cluster: &Shown<'_>) -> String {
    let mut text = cluster.heading(
        "#",
        &[
            "~/.pg_service.conf, or the file that PGSERVICEFILE names. Use: psql service=NAME",
            "The password: PGPASSWORD, or ~/.pgpass.",
        ],
    );
    for (name, wanted) in [("", "read-write"), ("-read", "prefer-standby")] {
        text.push_str(&format!(
            "\n[{}{name}]\nhost={}\nport={}\ndbname={}\nuser={}\ntarget_session_attrs={wanted}\nsslmode=verify-ca\n\
             sslrootcert={}\nconnect_timeout=3\n",
            cluster.cluster(),
            cluster.hosts(),
            cluster.ports(),
            cluster.database(),
            cluster.owner(),
            cluster.ca,
        ));
    }
    text
}

/// `targetServerType` and `hostRecheckSeconds` are pgJDBC's own.
pub(super) fn jdbc(cluster: &Shown<'_>) -> String {
    let mut text = cluster.heading(
        "#",
        &[
            "For application.properties. The password: from the environment, as Spring does here.",
            "A role is asked for when a connection is made: let the pool end connections (maxLifetime).",
        ],
    );
    for (name, wanted) in [("write", "primary"), ("read", "preferSecondary&loadBalanceHosts=true")] {
        text.push_str(&format!(
            "\n{name}.datasource.url=jdbc:postgresql://{}/{}?targetServerType={wanted}&hostRecheckSeconds=2\
             &connectTimeout=3&sslmode=verify-ca&sslrootcert={}\n\
             {name}.datasource.username={}\n{name}.datasource.password=${{DATABASE_PASSWORD}}\n",
            cluster.endpoints(),
            uri_escaped(cluster.database()),
            uri_escaped(cluster.ca),
            cluster.owner(),
        ));
    }
    text
}

pub(super) fn sqlalchemy(cluster: &Shown<'_>) -> String {
    let mut text =
        cluster.heading("#", &["SQLAlchemy 2 with psycopg 3, which is libpq: it looks for the primary itself."]);
    text.push_str("import os\n\nfrom sqlalchemy import URL, create_engine\n\n\ndef _engine(wanted):\n");
    text.push_str("    url = URL.create(\n        \"postgresql+psycopg\",\n");
    for (key, value) in [("username", cluster.owner()), ("database", cluster.database())] {
        text.push_str(&format!("        {key}={},\n", quoted(value)));
    }
    text.push_str("        password=os.environ[\"DATABASE_PASSWORD\"],\n        query={\n");
    for (key, value) in [
        ("host", cluster.hosts()),
        ("port", cluster.ports()),
        ("sslmode", "verify-ca".to_owned()),
        ("sslrootcert", cluster.ca.to_owned()),
        ("connect_timeout", "3".to_owned()),
    ] {
        text.push_str(&format!("            {}: {},\n", quoted(key), quoted(&value)));
    }
    text.push_str("            \"target_session_attrs\": wanted,\n        },\n    )\n");
    text.push_str("    # A connection that a failover broke is found out before it is used.\n");
    text.push_str("    return create_engine(url, pool_pre_ping=True, pool_recycle=300)\n\n\n");
    text.push_str("writing = _engine(\"read-write\")\nreading = _engine(\"prefer-standby\")\n");
    text
}

/// The package `postgres`; `pg` takes one host alone.
pub(super) fn node(cluster: &Shown<'_>) -> String {
    let mut text = cluster.heading("//", &["Node.js with the package `postgres`, which looks for the primary itself."]);
    text.push_str("import { readFileSync } from 'node:fs'\nimport postgres from 'postgres'\n\n");
    text.push_str("const pool = (wanted) =>\n  postgres({\n");
    let array = |items: Vec<String>| format!("[{}]", items.join(", "));
    let hosts = cluster.nodes.iter().map(|(_, node)| quoted(&node.address)).collect();
    let ports = cluster.nodes.iter().map(|(_, node)| node.postgres_port.to_string()).collect();
    for (key, value) in [
        ("host", array(hosts)),
        ("port", array(ports)),
        ("database", quoted(cluster.database())),
        ("username", quoted(cluster.owner())),
        ("password", "process.env.DATABASE_PASSWORD".to_owned()),
        // The authority certifies this cluster's nodes alone.
        ("ssl", format!("{{ ca: readFileSync({}), checkServerIdentity: () => undefined }}", quoted(cluster.ca))),
        ("connect_timeout", "3".to_owned()),
        ("target_session_attrs", "wanted".to_owned()),
    ] {
        text.push_str(&format!("    {key}: {value},\n"));
    }
    text.push_str("  })\n\nexport const writing = pool('read-write')\nexport const reading = pool('prefer-standby')\n");
    text
}

/// A string of Python and of JavaScript alike: JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

//! Laravel and Yii, over PDO.

use super::Shown;
use crate::Result;

/// Laravel passes a fixed list of options on to libpq, and `target_session_attrs` is not among them.
pub(super) fn laravel(cluster: &Shown<'_>) -> Result<String> {
    let write = cluster.following("Laravel")?;
    let mut text = String::from("<?php\n\n");
    text.push_str(&cluster.heading(
        "//",
        &[
            "config/database.php of Laravel, under 'connections'.",
            "Writes go to the address that follows the primary; reads to any node.",
        ],
    ));
    text.push_str("\nreturn [\n    'pgsql' => [\n        'driver' => 'pgsql',\n");
    let ports: Vec<_> = cluster.nodes.iter().map(|(_, node)| node.postgres_port).collect();
    // PDO's `host` may be a list, of which libpq tries one after the other.
    for (role, hosts, ports) in
        [("write", write.to_owned(), ports[0].to_string()), ("read", cluster.hosts(), cluster.ports())]
    {
        text.push_str(&format!(
            "        '{role}' => ['host' => [{}], 'port' => {}],\n",
            quoted(&hosts),
            quoted(&ports)
        ));
    }
    text.push_str("        'sticky' => true,\n");
    for (key, value) in [("database", cluster.database()), ("username", cluster.owner())] {
        text.push_str(&format!("        '{key}' => {},\n", quoted(value)));
    }
    text.push_str(
        "        'password' => env('DB_PASSWORD'),\n        'charset' => 'utf8',\n        'sslmode' => 'verify-ca',\n",
    );
    text.push_str(&format!("        'sslrootcert' => {},\n    ],\n];\n", quoted(cluster.ca)));
    Ok(text)
}

pub(super) fn yii2(cluster: &Shown<'_>) -> String {
    let mut text = String::from("<?php\n\n");
    text.push_str(
        &cluster.heading("//", &["config/db.php of Yii 2. Its DSN goes to libpq, which looks for the primary itself."]),
    );
    let dsn = |wanted: &str| {
        // PDO turns `;` into a space, and libpq reads values with blanks in quotes (section 34.1.1.1).
        let value = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        quoted(&format!(
            "pgsql:host={};port={};dbname={};target_session_attrs={wanted};sslmode=verify-ca;sslrootcert={};connect_timeout=3",
            cluster.hosts(),
            cluster.ports(),
            value(cluster.database()),
            value(cluster.ca),
        ))
    };
    let login = format!("'username' => {},\n{{}}'password' => getenv('DB_PASSWORD'),\n", quoted(cluster.owner()));
    let login = |indent: &str| format!("{indent}{}", login.replace("{}", indent));
    text.push_str("\nreturn [\n    'class' => yii\\db\\Connection::class,\n");
    text.push_str(&format!("    'dsn' => {},\n{}    'charset' => 'utf8',\n", dsn("read-write"), login("    ")));
    text.push_str(&format!("    'slaveConfig' => [\n{}        'charset' => 'utf8',\n    ],\n", login("        ")));
    text.push_str(&format!("    'slaves' => [\n        ['dsn' => {}],\n    ],\n];\n", dsn("prefer-standby")));
    text
}

/// A string of PHP in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

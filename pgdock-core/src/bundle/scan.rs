//! What looks like a secret has no place in a bundle: every such line is told, never its value.
//!
//! It looks for keys in PEM, passwords in connection strings and URLs, assignments to names such as `POSTGRES_PASSWORD`,
//! passwords in SQL, and the shapes of AWS's and Hetzner's keys. A value that is taken from a variable or a file is none.

use std::collections::BTreeMap;
use std::path::Path;

use super::tar::File;
use crate::settings::{Fault, Faults};

/// Looks through all files.
///
/// # Errors
/// Every line that looks as if it held a secret.
pub(super) fn check(dir: &Path, files: &BTreeMap<String, File>) -> Result<(), Faults> {
    let mut faults = Vec::new();
    for (path, file) in files {
        let text = String::from_utf8_lossy(&file.bytes);
        for (line, content) in (1..).zip(text.lines()) {
            if let Some((found, remedy)) = judge(content) {
                faults.push(Fault {
                    file: dir.join(path),
                    line: Some(line),
                    key: String::new(),
                    expected: "no secret: bundles are kept, sent and shown".to_owned(),
                    found: found.to_owned(),
                    remedy: remedy.to_owned(),
                });
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Faults::new(faults)) }
}

/// What a line holds that looks like a secret, and what to do.
fn judge(line: &str) -> Option<(&'static str, &'static str)> {
    let lower = line.to_ascii_lowercase();
    if lower.contains("private key-----") || lower.contains("putty-user-key-file") {
        return Some(("a private key", "move it to secrets/, which goes to the nodes by itself"));
    }
    if url_password(line) {
        return Some(("a password within a URL", "take it out; give it in secrets/, or in env/main of the node"));
    }
    if shaped(line) {
        return Some(("what looks like an access key", "move it to secrets/ or to env/ of the node"));
    }
    if lower.contains("scram-sha-256$") || md5_verifier(&lower) {
        return Some((
            "what a password is verified by",
            "take it out: set passwords of roles by hand, or from secrets/",
        ));
    }
    if sql_password(&lower) {
        return Some(("a password in SQL", "take it out: in a script of initdb/, read it from the environment"));
    }
    if assigned(line) {
        return Some(("a value of what is named like a secret", "move it to secrets/, or to env/main of the node"));
    }
    None
}

/// `scheme://user:password@host`
fn url_password(line: &str) -> bool {
    line.match_indices("://").any(|(at, _)| {
        let rest = &line[at + 3..];
        let authority = &rest[..rest.find(|c: char| c.is_whitespace() || "/?#\"'".contains(c)).unwrap_or(rest.len())];
        authority
            .rsplit_once('@')
            .and_then(|(user, _)| user.split_once(':'))
            .is_some_and(|(_, password)| is_value(password))
    })
}

/// Access keys that are told by their shape alone.
fn shaped(line: &str) -> bool {
    line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| {
        let is_id = word.len() == 20
            && (word.starts_with("AKIA") || word.starts_with("ASIA"))
            && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        // Hetzner's tokens; a digest has no capital letters.
        let is_token = word.len() == 64
            && word.bytes().any(|b| b.is_ascii_uppercase())
            && word.bytes().any(|b| b.is_ascii_lowercase())
            && word.bytes().any(|b| b.is_ascii_digit());
        is_id || is_token
    })
}

fn md5_verifier(lower: &str) -> bool {
    lower.match_indices("md5").any(|(at, _)| {
        let hex = lower[at + 3..].bytes().take_while(u8::is_ascii_hexdigit).count();
        hex == 32
    })
}

/// `PASSWORD 'text'`, as `CREATE ROLE` has it.
fn sql_password(lower: &str) -> bool {
    lower.match_indices("password").any(|(at, word)| {
        let rest = &lower[at + word.len()..];
        let blank = rest.trim_start();
        let text = blank.strip_prefix('e').unwrap_or(blank);
        rest.len() > blank.len() && text.strip_prefix('\'').is_some_and(|text| is_value(until(text, '\'')))
    })
}

fn until(text: &str, end: char) -> &str {
    text.split(end).next().unwrap_or_default()
}

/// Words that, as the end of a name, say that its value is a secret.
const NAMES: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pwd",
    "secret",
    "secret_key",
    "access_key",
    "api_key",
    "apikey",
    "private_key",
    "token",
];

/// `NAME = value`, `NAME: value`, where the name says that it is a secret.
fn assigned(line: &str) -> bool {
    line.match_indices(['=', ':']).any(|(at, sign)| {
        let before = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let name = before.rsplit(|c: char| !is_name(c)).next().unwrap_or_default();
        let lower = name.to_ascii_lowercase().replace('-', "_");
        let told = NAMES.iter().any(|word| {
            lower.strip_suffix(word).is_some_and(|rest| {
                // `bypass` is none, `HETZNER_PASS`, `pgpassword` and `sslpassword` are.
                rest.is_empty()
                    || rest.ends_with(['_', '.'])
                    || matches!(*word, "password" | "passwd" | "passphrase" | "apikey")
            })
        });
        let after = line[at + sign.len()..].trim_start();
        // `::` casts, `==` and `=>` compare and map, ` :name` is a variable of psql.
        let is_variable = sign == ":" && line[..at].ends_with([' ', '\t']);
        let is_operator = after.starts_with(['=', ':', '>']) || line[..at].ends_with(['=', ':', '!', '<', '>']);
        let value = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => until(&after[1..], quote),
            _ => after.split(|c: char| c.is_whitespace() || ",;)}&\"'".contains(c)).next().unwrap_or_default(),
        };
        told && !is_variable && !is_operator && is_value(value)
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.".contains(c)
}

/// Whether a text is a value, rather than a place where one is put in: a variable, a file, an example.
fn is_value(text: &str) -> bool {
    let text = text.trim();
    let placed = text.is_empty()
        || text.starts_with(['$', '<', '{', '%', ':', '`', '/', '@', '?'])
        || text.starts_with("secrets/")
        || text.starts_with("./")
        || text.chars().all(|c| c == '*' || c == '.' || c == '…' || c == 'x' || c == 'X');
    let words =
        ["null", "none", "true", "false", "yes", "no", "on", "off", "prompt", "scram-sha-256", "md5", "changeme"];
    !placed && !words.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_found() {
        for line in [
            "-----BEGIN RSA PRIVATE KEY-----",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "primary_conninfo = 'host=n1 user=repmgr password=hunter2'",
            "conninfo='host=n2 password = hunter2'",
            "postgresql://app:hunter2@10.0.0.1/app",
            "url = \"https://me:hunter2@registry.example.com\"",
            "POSTGRES_PASSWORD=hunter2",
            "export HETZNER_PASS='hunter2'",
            "AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aws_access_key_id = AKIAIOSFODNN7EXAMPLE",
            "HCLOUD_TOKEN=abc",
            "curl -H \"Authorization: Bearer aB3dE6gH9jK2mN5pQ8sT1vW4yZ7aB3dE6gH9jK2mN5pQ8sT1vW4yZ7aB3dE6gH9j\"",
            "CREATE ROLE app LOGIN PASSWORD 'hunter2';",
            "alter user app with encrypted password E'hunter2';",
            "ALTER ROLE a PASSWORD 'SCRAM-SHA-256$4096:abc$def:ghi'",
            "\"admin\" \"md5d41d8cd98f00b204e9800998ecf8427e\"",
            "pgpassword=hunter2",
            "{\"api_key\": \"hunter2\"}",
            "ldapbindpasswd=\"hunter2\"",
        ] {
            assert!(judge(line).is_some(), "{line}");
        }
    }

    #[test]
    fn what_only_speaks_of_secrets_is_let_through() {
        for line in [
            "password_encryption = scram-sha-256",
            "hostssl all all 10.0.0.0/8 md5",
            "printf 'user = \"%s:%s\"\\n' \"$HETZNER_USER\" \"$HETZNER_PASS\" |",
            "curl -u \"$HETZNER_USER:$HETZNER_PASS\" https://robot-ws.your-server.de/failover/$IP",
            "password=$POSTGRES_PASSWORD",
            "password = ${PASSWORD:?}",
            "HETZNER_PASS=****",
            "ssl_passphrase_command = '/usr/bin/true'",
            "credentials = \"instance\"",
            "env_file = \"secrets/failover.env\"",
            "select md5(generate_series(1, 1000000)::text);",
            "ALTER ROLE app PASSWORD NULL;",
            "ALTER ROLE app PASSWORD :'password';",
            "# a password goes to secrets/",
            "image: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "postgresql://app@10.0.0.1:5432/app",
            "https://example.com:8443/path@2",
            "if [ \"$token\" == \"$other\" ]",
            "bypass = 1",
            "passfile = '/root/.pgpass'",
        ] {
            assert_eq!(judge(line), None, "{line}");
        }
    }

    #[test]
    fn the_line_is_told_and_not_its_value() {
        let file = File { runs: false, bytes: b"a = 1\nPOSTGRES_PASSWORD=hunter2\n".to_vec() };
        let faults = check(Path::new("/srv/pg"), &[("shared/x.sh".to_owned(), file)].into()).unwrap_err().to_string();
        insta::assert_snapshot!(faults, @"/srv/pg/shared/x.sh:2: expected no secret: bundles are kept, sent and shown, found a value of what is named like a secret; move it to secrets/, or to env/main of the node");
    }

    proptest::proptest! {
        #[test]
        fn no_line_breaks_it(line in "(?s).*") {
            let _ = judge(&line);
        }
    }
}

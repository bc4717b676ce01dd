//! Files of `KEY=VALUE` lines, such as `env/main`.

use std::collections::BTreeMap;
use std::path::Path;

use super::fault::{Fault, Faults};
use crate::{Error, Result};

/// Reads a file of `KEY=VALUE` lines.
///
/// Empty lines and lines that begin with `#` say nothing. A value goes to the end of its line and is taken
/// as it stands: nothing is expanded. One pair of quotes around all of it is taken off, and so is `export `
/// before a key.
///
/// # Errors
/// `Invalid` where the file cannot be read or has faults, with [`Faults`] as its source; values are never
/// repeated in them, since such files hold passwords.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::invalid(format!("the environment file is not readable. file={}", path.display()))
            .because(e)
            .hint("make it, or correct the path in cluster.toml")
    })?;
    parse(&text, path).map_err(Faults::into_error)
}

/// The same for a text; `path` is only named in faults.
///
/// # Errors
/// Every fault, by line.
pub fn parse(text: &str, path: &Path) -> Result<BTreeMap<String, String>, Faults> {
    let mut values = BTreeMap::new();
    let mut faults = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let mut fault = |key: &str, expected: &str, found: &str, remedy: &str| {
            faults.push(Fault {
                file: path.to_owned(),
                line: Some(line),
                key: key.to_owned(),
                expected: expected.to_owned(),
                found: found.to_owned(),
                remedy: remedy.to_owned(),
            });
        };
        let content = content.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let content = content.strip_prefix("export ").map_or(content, str::trim_start);
        let Some((key, value)) = content.split_once('=') else {
            fault("", "KEY=VALUE", "a line without `=`", "write KEY=VALUE, or begin a comment with #");
            continue;
        };
        if !is_key(key) {
            fault("", "a key of letters, digits and _, not beginning with a digit", "another one", "rename the key");
            continue;
        }
        let Some(value) = unquote(value.trim()) else {
            fault(key, "a closing quote at the end of the line", "none", "close the quote, or take it off");
            continue;
        };
        if value.contains('\0') {
            fault(key, "a text without NUL", "one with it", "remove the NUL");
        } else if values.insert(key.to_owned(), value.to_owned()).is_some() {
            fault(key, "each key once", "a second time", "remove one of them");
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(Faults::new(faults)) }
}

fn is_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn unquote(value: &str) -> Option<&str> {
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].strip_suffix(quote),
        _ => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_articles_file_is_read() {
        let text = "# Hetzner\nHETZNER_USER=robot\nHETZNER_PASS='p=a#s s'\n\nexport POSTGRES_DB=\"testdb\"\nEMPTY=\n";
        let values = parse(text, Path::new("env/main")).unwrap();
        assert_eq!(values["HETZNER_USER"], "robot");
        assert_eq!(values["HETZNER_PASS"], "p=a#s s");
        assert_eq!(values["POSTGRES_DB"], "testdb");
        assert_eq!(values["EMPTY"], "");
    }

    #[test]
    fn all_faults_come_at_once_and_without_values() {
        let text = "A=1\nhunter2\n2B=hunter2\nA=hunter2\nC=\"hunter2\n";
        let faults = parse(text, Path::new("env/main")).unwrap_err();
        insta::assert_snapshot!(faults, @"
        env/main:2: expected KEY=VALUE, found a line without `=`; write KEY=VALUE, or begin a comment with #
        env/main:3: expected a key of letters, digits and _, not beginning with a digit, found another one; rename the key
        env/main:4: A: expected each key once, found a second time; remove one of them
        env/main:5: C: expected a closing quote at the end of the line, found none; close the quote, or take it off
        ");
        assert!(!faults.to_string().contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "(?s).*") {
            let _ = parse(&text, Path::new("env/main"));
        }
    }
}

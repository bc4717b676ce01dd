//! [`Rule`]: a line of the old `pg_hba.conf`, and what becomes of it.

/// A line of `pg_hba.conf`, as `pg_hba_file_rules` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its number in the file.
    pub line: i32,
    /// `local`, `host`, `hostssl`, …
    pub kind: String,
    /// The databases.
    pub databases: Vec<String>,
    /// The roles.
    pub users: Vec<String>,
    /// Where they may come from; none for `local`.
    pub address: Option<String>,
    /// The mask, where the address is a number.
    pub netmask: Option<String>,
    /// How they prove who they are.
    pub method: String,
    /// The method's options.
    pub options: Vec<String>,
}

/// Words that mean no database or role of that name.
const KEYWORDS: [&str; 5] = ["all", "sameuser", "samerole", "samegroup", "replication"];

impl Rule {
    /// The line again.
    #[must_use]
    pub fn text(&self) -> String {
        let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",");
        let mut words = vec![self.kind.clone(), list(&self.databases), list(&self.users)];
        words.extend(self.address.clone());
        // The words that stand for addresses have none.
        words.extend(self.netmask.clone());
        words.push(self.method.clone());
        words.extend(self.options.iter().map(|option| quoted(option)));
        words.join(" ")
    }

    /// Whether it is there for standbys and repmgr alone: pgdock has lines of its own for these.
    #[must_use]
    pub fn is_for_repmgr(&self) -> bool {
        let repmgr = |names: &[String]| names.iter().all(|name| name == "repmgr");
        repmgr(&self.users) || repmgr(&self.databases)
    }

    /// Whether it lets anybody in who comes from there.
    #[must_use]
    pub fn trusts(&self) -> bool {
        self.method == "trust"
    }
}

/// A name that is not one word, or would be read as something else, in quotes.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+.=/:".contains(c);
    if KEYWORDS.contains(&name) || !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_again() {
        let rule = Rule {
            line: 7,
            kind: "hostssl".into(),
            databases: vec!["all".into(), "my shop".into()],
            users: vec!["+staff".into()],
            address: Some("10.0.0.0".into()),
            netmask: Some("255.0.0.0".into()),
            method: "scram-sha-256".into(),
            options: Vec::new(),
        };
        assert_eq!(rule.text(), "hostssl all,\"my shop\" +staff 10.0.0.0 255.0.0.0 scram-sha-256");
        assert!(!rule.is_for_repmgr());
        let local = Rule {
            kind: "local".into(),
            users: vec!["repmgr".into()],
            databases: vec!["all".into()],
            ..Rule::default()
        };
        assert!(local.is_for_repmgr());
    }
}

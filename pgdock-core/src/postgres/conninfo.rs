//! [`Conninfo`]: a libpq connection string, quoted.

use std::fmt::Write as _;
use std::path::Path;

/// A libpq connection string of keywords and values (PostgreSQL documentation, section 34.1.1.1).
///
/// It never holds a password: that comes from a `passfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conninfo {
    pairs: Vec<(String, String)>,
}

impl Conninfo {
    /// The empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a keyword.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.pairs.retain(|(k, _)| k != key);
        self.pairs.push((key.to_owned(), value.to_string()));
        self
    }

    /// Sets a keyword to a path. PostgreSQL's own configuration cannot hold other than UTF-8 either.
    #[must_use]
    pub fn set_path(self, key: &str, value: &Path) -> Self {
        self.set(key, value.display())
    }

    /// A keyword's value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Reads a connection string of keywords and values; `None` where it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut pairs = Vec::new();
        let mut chars = text.chars().peekable();
        loop {
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            if chars.peek().is_none() {
                return Some(Self { pairs });
            }
            let mut key = String::new();
            while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
                key.push(c);
            }
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            chars.next_if_eq(&'=').filter(|_| !key.is_empty())?;
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            let quoted = chars.next_if_eq(&'\'').is_some();
            let mut value = String::new();
            loop {
                match chars.next() {
                    Some('\\') => value.push(chars.next()?),
                    Some('\'') if quoted => break,
                    Some(c) if !quoted && c.is_ascii_whitespace() => break,
                    Some(c) => value.push(c),
                    None if quoted => return None,
                    None => break,
                }
            }
            pairs.push((key, value));
        }
    }
}

impl std::fmt::Display for Conninfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (key, value)) in self.pairs.iter().enumerate() {
            if i > 0 {
                f.write_char(' ')?;
            }
            let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/".contains(c));
            if plain {
                write!(f, "{key}={value}")?;
            } else {
                write!(f, "{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))?;
            }
        }
        Ok(())
    }
}

/// A part of a connection URI: percent-encoding (RFC 3986) of all but unreserved characters.
#[must_use]
pub(crate) fn uri_escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives() {
        for value in ["n1", "", "a b", "it's", r"back\slash", r"\'", "käse", "/opt/my 'data'/run", "x=y"] {
            let text = Conninfo::new().set("host", "10.0.0.1").set("passfile", value).to_string();
            let back = Conninfo::parse(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(back.get("passfile"), Some(value), "{text}");
            assert_eq!(back.get("host"), Some("10.0.0.1"));
        }
    }

    #[test]
    fn spaces_around_the_sign_are_allowed_and_torn_quotes_are_not() {
        assert_eq!(Conninfo::parse(" host = n1  port=1").unwrap().get("host"), Some("n1"));
        for bad in ["host", "host='n1", "=n1", r"host=n1\"] {
            assert_eq!(Conninfo::parse(bad), None, "{bad}");
        }
    }
}

//! [`NodeName`] and [`Incarnation`]: who a node is, and which of its lives.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a node: 1 to 32 characters of `a-z`, `0-9`, `-` and `_`, the first one a letter.
///
/// It becomes part of slot names and of `application_name`, hence the narrow alphabet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

/// Why a text is no [`NodeName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 32 characters of a-z, 0-9, - and _, the first one a letter, found `{0}`")]
pub struct InvalidNodeName(pub String);

impl NodeName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`InvalidNodeName`] when it is empty, too long, or has other characters.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidNodeName> {
        let name = name.as_ref();
        let fits = (1..=32).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
        if fits { Ok(Self(name.into())) } else { Err(InvalidNodeName(name.to_owned())) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of this member's physical replication slot on a primary.
    #[must_use]
    pub fn slot(&self) -> String {
        format!("pgdock_{}", self.0.replace('-', "_"))
    }
}

impl std::fmt::Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl std::fmt::Debug for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidNodeName;
    fn try_from(name: String) -> Result<Self, InvalidNodeName> {
        Self::new(name)
    }
}

impl std::str::FromStr for NodeName {
    type Err = InvalidNodeName;
    fn from_str(name: &str) -> Result<Self, InvalidNodeName> {
        Self::new(name)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// An identity made with each data directory: a node that is rewound or recloned gets a new one.
///
/// The sync set names incarnations, because a member whose WAL was taken away no longer holds what it
/// once acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(pub u32);

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl std::fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl TryFrom<String> for Incarnation {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.len() != 8 {
            return Err(format!("expected 8 hexadecimal digits, found `{text}`"));
        }
        u32::from_str_radix(&text, 16).map(Self).map_err(|_| format!("expected 8 hexadecimal digits, found `{text}`"))
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.to_string()
    }
}

/// One life of one node: what the sync set and `synchronous_standby_names` list.
///
/// Written `n2:3f9a12c4`, also as the `application_name` of the node's WAL receiver.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Member {
    /// The node.
    pub node: NodeName,
    /// Its data directory's identity.
    pub incarnation: Incarnation,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.node, self.incarnation)
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for Member {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let Some((node, incarnation)) = text.split_once(':') else {
            return Err(format!("expected `node:incarnation`, found `{text}`"));
        };
        let node = NodeName::new(node).map_err(|e| e.to_string())?;
        Ok(Self { node, incarnation: incarnation.to_owned().try_into()? })
    }
}

impl std::str::FromStr for Member {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl From<Member> for String {
    fn from(member: Member) -> Self {
        member.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(NodeName::new("n1").is_ok());
        for bad in ["", "1n", "N1", "n 1", "n1.example", &"n".repeat(33)] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn members_survive_text() {
        let member: Member = "n2:3f9a12c4".parse().unwrap();
        assert_eq!(member.to_string(), "n2:3f9a12c4");
        assert!("n2".parse::<Member>().is_err());
        assert!("n2:3f9a12c".parse::<Member>().is_err());
    }

    #[test]
    fn slots_have_postgresql_names() {
        assert_eq!(NodeName::new("fra-1").unwrap().slot(), "pgdock_fra_1");
    }
}

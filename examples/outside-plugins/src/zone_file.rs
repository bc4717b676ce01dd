//! [`ZoneFile`]: the address that follows the primary is a name, in a file of a DNS server's.

use std::path::PathBuf;

use async_trait::async_trait;
use pgdock_core::failover_ip::{FailoverIp, Holder, Target};
use pgdock_core::{Error, Result};

/// A line `NAME TTL IN A ADDRESS` of a zone, in a file of its own that the zone includes. The DNS server reads it again
/// by itself when it changes.
#[derive(Debug)]
pub struct ZoneFile {
    path: PathBuf,
    name: String,
}

impl ZoneFile {
    /// The file, and the name that stands in it.
    pub fn new(path: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self { path: path.into(), name: name.into() }
    }
}

impl std::fmt::Display for ZoneFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.name, self.path.display())
    }
}

#[async_trait]
impl FailoverIp for ZoneFile {
    async fn current(&self) -> Result<Option<Holder>> {
        let text = match tokio::fs::read_to_string(&self.path).await {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::unavailable("the zone cannot be read").because(e)),
        };
        let address = text.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [name, _, "IN", "A" | "AAAA", address] if name == self.name => Some(address.to_owned()),
            _ => None,
        });
        Ok(address.map(Holder::Address))
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        let kind = if target.address.contains(':') { "AAAA" } else { "A" };
        let line = format!("{} 1 IN {kind} {}\n", self.name, target.address);
        // Under another name first: the server must never find half a line.
        let new = self.path.with_extension(format!("new-{}", target.node));
        let written = async {
            tokio::fs::write(&new, line).await?;
            tokio::fs::rename(&new, &self.path).await
        };
        written.await.map_err(|e| Error::unavailable("the zone cannot be written").because(e).outcome_unknown())?;
        // It counts once it was seen.
        match self.current().await.map_err(Error::outcome_unknown)? {
            Some(holder) if holder.is(target) => Ok(()),
            other => Err(Error::unavailable(format!("another one wrote the zone. found={other:?}")).outcome_unknown()),
        }
    }
}

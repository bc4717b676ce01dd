//! What the router knows of its nodes, and how it comes to know it.

use std::sync::Arc;

use tokio::time::timeout;

use super::{Failure, Shared, failure};
use crate::{Error, clock};

/// What a node said last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It did not answer yet, or no longer.
    #[default]
    Unknown,
    /// It takes writes, on this timeline.
    Primary {
        /// The timeline that it writes.
        timeline: u32,
    },
    /// It follows another.
    Standby,
}

/// What is known of every node, in the order of the builder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// What each node said last.
    pub roles: Vec<Role>,
}

impl Topology {
    /// The node that takes writes. Of several that say so, the one on the highest timeline: it was promoted after the
    /// others, which are refused. `None` too when two claim the same timeline, since then nobody can tell.
    #[must_use]
    pub fn primary(&self) -> Option<usize> {
        let timeline = |role: &Role| match role {
            Role::Primary { timeline } => Some(*timeline),
            _ => None,
        };
        let highest = self.roles.iter().filter_map(timeline).max()?;
        let mut claims = (0..self.roles.len()).filter(|node| timeline(&self.roles[*node]) == Some(highest));
        match (claims.next(), claims.next()) {
            (Some(primary), None) => Some(primary),
            _ => None,
        }
    }

    /// Whether a node serves reads as a standby.
    #[must_use]
    pub fn is_standby(&self, node: usize) -> bool {
        self.roles.get(node) == Some(&Role::Standby)
    }
}

/// The name of the WAL file that a primary writes begins with its timeline.
const ROLE: &str = "select case when pg_is_in_recovery() then null \
                    else substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) end";

/// Asks a node for its role, again and again.
pub(super) async fn poll(shared: Arc<Shared>, node: usize) {
    loop {
        let asked = shared.clock.now();
        let role = ask(&shared, node).await;
        let banned_until = shared.bans().ban(node).map(|ban| ban.until);
        let now = shared.clock.now();
        match (&role, banned_until) {
            // An answer to a question that was asked while the ban lasted ends nothing.
            (Ok(_), Some(until)) if until <= asked => {
                shared.bans().worked(node);
                tracing::info!(node = %shared.nodes[node].name, "node works again");
            }
            (Err(error), until) => {
                let mut bans = shared.bans();
                if until.is_some() {
                    bans.begin_probe(node, now);
                } else {
                    tracing::warn!(node = %shared.nodes[node].name, error, "node does not answer");
                }
                bans.failed(node, now, clock::chance(), error.as_str());
            }
            _ => {}
        }
        shared.learn(node, role.unwrap_or_default());
        // Sooner when somebody met an error that a new role would explain.
        let _ = timeout(shared.limits.poll, shared.asked[node].notified()).await;
    }
}

async fn ask(shared: &Shared, node: usize) -> Result<Role, String> {
    let connect = timeout(shared.limits.connect, shared.nodes[node].monitor.get()).await;
    let client = connect.map_err(|_| "no connection in time".to_owned())?.map_err(|error| error.to_string())?;
    match timeout(shared.limits.connect, client.query_one(ROLE, &[])).await {
        Ok(Ok(row)) => match row.try_get::<_, Option<&str>>(0).map_err(|error| error.to_string())? {
            None => Ok(Role::Standby),
            Some(timeline) => {
                let timeline = u32::from_str_radix(timeline, 16).map_err(|error| error.to_string())?;
                Ok(Role::Primary { timeline })
            }
        },
        // Promoted or demoted between two parts of the question: ask again.
        Ok(Err(error)) if failure(&error) == Failure::ReadOnly => Err("role is changing".to_owned()),
        Ok(Err(error)) => Err(Error::Postgres(error).to_string()),
        Err(_) => {
            // What is still on its way would be taken for the answer to the next question.
            drop(deadpool_postgres::Object::take(client));
            Err("no answer in time".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_primaries_the_highest_timeline_counts_and_a_tie_is_nobody() {
        let (old, new) = (Role::Primary { timeline: 1 }, Role::Primary { timeline: 2 });
        for (roles, primary) in [
            (vec![], None),
            (vec![Role::Unknown, Role::Standby], None),
            (vec![Role::Standby, old], Some(1)),
            (vec![old, new, Role::Standby], Some(1)),
            (vec![new, old], Some(0)),
            (vec![new, new, old], None),
        ] {
            assert_eq!(Topology { roles: roles.clone() }.primary(), primary, "{roles:?}");
        }
    }
}

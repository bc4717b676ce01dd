//! What decisions need of the settings.

use std::time::Duration;

use super::host_port;
use crate::Settings;
use crate::decide::rules::Rules;
use crate::view::{MemberPolicy, Policy};

/// How long a leader that lives has to write down that it dropped a silent standby, before the standby suspects it.
/// It does so at once, at most behind one renewal: this is many times two swaps.
const DROPPED_WITHIN: Duration = Duration::from_secs(1);

/// The part of the settings that decisions rest on.
#[must_use]
pub fn policy(settings: &Settings, failover_ip: bool) -> Policy {
    let failover = &settings.failover;
    let silent_after = settings.agent.beat * 5;
    Policy {
        cluster: settings.cluster.name.clone(),
        durability: failover.durability,
        acks: failover.acks,
        strict: failover.strict,
        heartbeat: failover.heartbeat,
        ttl: failover.ttl,
        // A kill takes milliseconds; a busy machine may need longer to get to it.
        margin: (failover.ttl / 20).max(Duration::from_millis(200)),
        silent_after,
        suspect_after: silent_after + failover.heartbeat.min(DROPPED_WITHIN) + settings.agent.beat,
        lag_bytes_max: failover.lag_bytes_max,
        members: settings
            .nodes
            .iter()
            .map(|(name, n)| {
                let address = host_port(&n.address, n.postgres_port);
                (name.clone(), MemberPolicy { priority: n.priority, failover: n.failover, address })
            })
            .collect(),
        rejoin_budget: failover.rejoin_budget,
        disk_free_min: failover.disk_free_min,
        failover_ip,
        archive: settings.backup.is_some(),
        rules: Rules::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_lost_leader_is_suspected_as_soon_on_a_bucket_as_elsewhere() {
        let with = |more: &str| {
            let text = format!("[cluster]\nname = \"main\"\n{more}\n[nodes.n1]\naddress = \"127.0.0.2\"\n");
            policy(&Settings::from_toml(&text, Path::new("/srv/pg")).unwrap(), false)
        };
        let bucket = with("[witness]\nurl = \"s3://b/x\"\nregion = \"eu-central-1\"\ncredentials = \"instance\"");
        let file = with("");
        assert!(bucket.heartbeat > file.heartbeat);
        for policy in [&bucket, &file] {
            assert_eq!(policy.suspect_after, Duration::from_millis(2200), "of 2500 ms in all");
        }
        // One that renews fast notices fast, and a leader that lives still drops a silent standby before.
        let fast = with("[failover]\nheartbeat = \"200ms\"\nttl = \"2s\"");
        assert!(fast.suspect_after < file.suspect_after && fast.suspect_after > fast.silent_after + fast.heartbeat);
    }
}

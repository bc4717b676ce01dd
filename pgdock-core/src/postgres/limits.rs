//! Settings of which a standby must have no less than its primary (PostgreSQL documentation, section 27.4.3): it does not start
//! with less, and pauses replay where the primary gets more.

use std::collections::BTreeMap;

use super::conf_file;

/// Each with the line of `pg_controldata` that tells what the primary has, and PostgreSQL's own default.
pub(crate) const LIMITS: [(&str, &str, i64); 5] = [
    ("max_connections", "max_connections setting", 100),
    ("max_worker_processes", "max_worker_processes setting", 8),
    ("max_wal_senders", "max_wal_senders setting", 10),
    ("max_prepared_transactions", "max_prepared_xacts setting", 0),
    ("max_locks_per_transaction", "max_locks_per_xact setting", 64),
];

/// Those of which a standby would have less than its primary, each with what the primary has. `user` is what it is to be set
/// to, `auto` the text of `postgresql.auto.conf`, which PostgreSQL reads last.
pub(crate) fn too_low(
    primary: &BTreeMap<&'static str, i64>,
    user: &BTreeMap<String, String>,
    auto: &str,
) -> Vec<(&'static str, i64)> {
    let set = |name: &str, default: i64| {
        let own = user.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
        match conf_file::value_of(auto, name).or(own) {
            // What is no number PostgreSQL refuses by itself.
            Some(value) => value.trim().parse().ok(),
            None => Some(default),
        }
    };
    LIMITS
        .iter()
        .filter_map(|(name, _, default)| {
            let has = *primary.get(name)?;
            (set(name, *default)? < has).then_some((*name, has))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_has_no_less_than_its_primary() {
        let primary = [("max_connections", 150), ("max_wal_senders", 10), ("max_worker_processes", 8)].into();
        let user = |text: &str| [("Max_Connections".to_owned(), text.to_owned())].into();
        assert_eq!(too_low(&primary, &user("120"), ""), [("max_connections", 150)]);
        assert_eq!(too_low(&primary, &BTreeMap::new(), ""), [("max_connections", 150)], "the default is less, too");
        assert_eq!(too_low(&primary, &user("150"), ""), []);
        assert_eq!(too_low(&primary, &user("200"), "max_connections = '90'\n"), [("max_connections", 150)]);
        assert_eq!(too_low(&primary, &user("90"), "max_connections = '200'\n"), []);
        assert_eq!(too_low(&BTreeMap::new(), &user("1"), ""), []);
    }
}

//! Makara's configuration, as its users have it today.

use std::time::Duration;

use pgdock_makara::{MakaraSettings, NodeRole, SettingsError, Strategy};
use secrecy::ExposeSecret;

const DATABASE_YML: &str = include_str!("database.yml");

fn read(text: &str) -> Result<MakaraSettings, SettingsError> {
    MakaraSettings::from_yaml(text, "production", |name| match name {
        "DATABASE_USERNAME" => Some("app".to_owned()),
        "DATABASE_PASSWORD" => Some("007: #not a comment".to_owned()),
        _ => None,
    })
}

/// A file with one primary, and this in its section `makara` and in its connection.
fn file(group: &str, connection: &str) -> String {
    format!(
        "production:\n  adapter: postgresql_makara\n  makara:\n    {group}\n    connections:\n      - {{ host: n1, {connection} }}\n"
    )
}

#[test]
fn a_configuration_of_makara_is_read_as_it_stands() {
    let settings = read(DATABASE_YML).unwrap();
    assert!(settings.sticky);
    assert_eq!(settings.primary_ttl, Duration::from_secs(5));
    assert_eq!((settings.primary_strategy, settings.replica_strategy), (Strategy::Failover, Strategy::RoundRobin));
    let [primary, replica] = settings.connections.as_slice() else { panic!("two connections") };
    assert_eq!((primary.role, primary.weight, primary.name.as_str()), (NodeRole::Primary, 3, "primary/1"));
    assert_eq!((replica.role, replica.weight, replica.name.as_str()), (NodeRole::Replica, 7, "replica/1"));
    assert_eq!((primary.host.as_deref(), primary.port), (Some("123.123.123.123"), 6543));
    assert_eq!((replica.host.as_deref(), replica.port), (Some("123.123.123.124"), 6543));
    for connection in &settings.connections {
        assert_eq!(connection.database.as_deref(), Some("mydb"));
        assert_eq!(connection.username.as_deref(), Some("app"));
        assert_eq!(connection.password.as_ref().map(ExposeSecret::expose_secret), Some("007: #not a comment"));
        assert_eq!(connection.blacklist_duration, Duration::from_secs(5));
        assert!(!connection.disable_blacklist);
    }
    assert!(!format!("{settings:?}").contains("007"), "a password is never printed");
}

#[test]
fn new_names_win_over_old_ones_and_a_connection_over_its_group() {
    let text = file(
        "{ primary_ttl: 2.5, master_ttl: 9, slave_strategy: failover, id: 'my|proxy|id:with:reserved', blacklist_duration: 7, connections: [{ host: a, blacklist_duration: 0.5 }, { host: b, name: second, role: primary }] }",
        "",
    );
    let text = text.split("    connections:\n").next().unwrap().replace("makara:\n    {", "makara: {");
    let settings = read(&text).unwrap();
    assert_eq!(settings.primary_ttl, Duration::from_millis(2500));
    assert_eq!(settings.replica_strategy, Strategy::Failover);
    assert_eq!(settings.id.as_deref(), Some("myproxyidwithreserved"));
    assert_eq!(settings.connections[0].blacklist_duration, Duration::from_millis(500));
    assert_eq!(settings.connections[1].blacklist_duration, Duration::from_secs(7));
    assert_eq!(settings.connections[1].name, "second");
}

#[test]
fn values_come_from_the_environment_and_from_merged_sections() {
    let settings = read(
        "default: &default\n  database: shared\n  port: 6543\n  blacklist_duration: 99\n\
         production:\n  <<: *default\n  password: 0123\n  variables: { statement_timeout: 5s }\n  makara:\n    username: all\n    connections:\n\
         \x20     - host: n1\n      - host: n2\n        port: 5433\n        password: 1e5\n",
    )
    .unwrap();
    let [first, second] = settings.connections.as_slice() else { panic!("two connections") };
    assert_eq!((first.database.as_deref(), first.port, first.username.as_deref()), (Some("shared"), 6543, Some("all")));
    assert_eq!(first.password.as_ref().map(ExposeSecret::expose_secret), Some("0123"));
    assert_eq!(second.password.as_ref().map(ExposeSecret::expose_secret), Some("1e5"));
    assert_eq!((second.port, second.name.as_str()), (5433, "replica/2"));
    // Makara's own defaults hide what stands outside its section.
    assert_eq!(first.blacklist_duration, Duration::from_secs(5));
}

#[test]
fn errors_name_the_key() {
    let connection = "production.makara.connections[0]";
    for (group, own, key) in [
        ("sticky: maybe", "", "production.makara.sticky".to_owned()),
        ("master_ttl: -1", "", "production.makara.master_ttl".to_owned()),
        ("primary_ttl: soon", "", "production.makara.primary_ttl".to_owned()),
        ("replica_strategy: My::Strategy", "", "production.makara.replica_strategy".to_owned()),
        ("blacklist_durations: 5", "", "production.makara.blacklist_durations".to_owned()),
        ("slave_shard_aware: true", "", "production.makara.slave_shard_aware".to_owned()),
        ("sticky: true", "weight: 0", format!("{connection}.weight")),
        ("sticky: true", "weight: 1.5", format!("{connection}.weight")),
        ("sticky: true", "port: 65536", format!("{connection}.port")),
        ("sticky: true", "role: masster", format!("{connection}.role")),
        ("sticky: true", "shard_id: a", format!("{connection}.shard_id")),
        ("sticky: true", "password: <%= ENV[\"NONE\"] %>", format!("{connection}.password")),
        ("sticky: true", "disable_blacklist: 2", format!("{connection}.disable_blacklist")),
    ] {
        let error = read(&file(group, own)).unwrap_err();
        assert_eq!(error.key(), key);
        assert!(error.to_string().contains(&key), "{error}");
    }
    let hinted = read(&file("blacklist_durations: 5", "")).unwrap_err();
    assert!(hinted.to_string().ends_with("hint: it may be `blacklist_duration`"), "{hinted}");
}

#[test]
fn a_file_without_what_is_needed_says_what_is_missing() {
    for (text, key) in [
        ("development: {}\n", "production"),
        ("production: { host: a }\n", "production.makara"),
        ("production: { makara: { sticky: true } }\n", "production.makara.connections"),
        ("production: { makara: { connections: [] } }\n", "production.makara.connections"),
        ("production: { makara: { connections: [{ role: master }] } }\n", "production.makara.connections[0].host"),
        (
            "production: { makara: { connections: [{ host: a, name: x }, { host: b, name: x }] } }\n",
            "production.makara.connections[1].name",
        ),
    ] {
        assert_eq!(read(text).unwrap_err().key(), key, "{text}");
    }
}

#[test]
fn an_error_of_the_text_never_repeats_it() {
    for text in [
        "production:\n  password: s3cret\n   makara: x\n",
        "production:\n  makara:\n    connections:\n      - host: [s3cret]\n",
        "production:\n  makara:\n    password: s3cret: s3cret\n",
        "production:\n  makara:\n    id: [s3cret]\n",
    ] {
        let error = read(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
    assert_eq!(read("production:\n  makara:\n    id: [1]\n").unwrap_err().key(), "id");
}

use super::*;
use crate::adopt::Rule;

fn server(in_recovery: bool) -> Server {
    Server {
        system_identifier: 7,
        version: 150_018,
        in_recovery,
        streams: in_recovery,
        data_directory: "/var/lib/postgresql/15/main".into(),
        checksums: true,
        settings: [("work_mem", "8MB"), ("port", "5432"), ("shared_preload_libraries", "repmgr, pg_stat_statements")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ..Server::default()
    }
}

fn node(id: i32, primary: bool) -> Registered {
    Registered {
        id,
        name: format!("node{id}"),
        kind: if primary { "primary" } else { "standby" }.into(),
        active: true,
        priority: 100,
        host: Some(format!("10.0.0.{id}")),
        port: 5432,
        slot: Some(format!("repmgr_slot_{id}")),
        server: Ok(server(!primary)),
    }
}

fn picture() -> Picture {
    Picture {
        user: "postgres".into(),
        superuser: true,
        has_postgres: true,
        databases: vec![("shop".into(), "shop_owner".into())],
        server: server(false),
        nodes: vec![node(2, false), node(1, true)],
    }
}

fn faults(picture: &Picture) -> String {
    let found = judge(picture, &Wishes::default());
    assert!(found.faults.iter().all(|(_, remedy)| !remedy.is_empty()));
    found.faults.into_iter().map(|(what, _)| what + "\n").collect()
}

#[test]
fn a_sound_cluster_becomes_one_of_pgdocks() {
    let found = judge(&picture(), &Wishes::default());
    assert_eq!(found.faults, []);
    let becomes = found.becomes;
    assert_eq!((becomes.database.as_str(), becomes.owner.as_str(), becomes.version), ("shop", "shop_owner", 15));
    let names: Vec<_> = becomes.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["node1", "node2"], "the primary comes first");
    let settings: Vec<_> = becomes.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(settings, ["shared_preload_libraries=pg_stat_statements", "work_mem=8MB"]);
}

#[test]
fn all_that_is_in_the_way_is_told_at_once() {
    let mut sick = picture();
    sick.server.settings.insert("fsync".into(), "off".into());
    sick.server.hba = vec![Rule {
        line: 3,
        kind: "host".into(),
        databases: vec!["all".into()],
        users: vec!["all".into()],
        address: Some("0.0.0.0".into()),
        netmask: Some("0.0.0.0".into()),
        method: "trust".into(),
        options: Vec::new(),
    }];
    sick.databases.push(("other".into(), "x".into()));
    let Ok(standby) = &mut sick.nodes[0].server else { unreachable!() };
    standby.streams = false;
    standby.repmgrd = Some(4711);
    sick.nodes.push(Registered { server: Err("refused".into()), ..node(3, false) });
    let text = faults(&sick);
    for part in
        ["fsync", "line 3", "databases=shop,other", "node2 does not stream", "pid=4711", "node3 does not answer"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let wishes = Wishes {
        database: Some("shop".into()),
        drop_settings: vec!["FSYNC".into()],
        drop_trust: true,
        ..Wishes::default()
    };
    let left = judge(&sick, &wishes).faults;
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn two_primaries_are_none() {
    let mut split = picture();
    split.nodes[0] = node(2, true);
    assert!(faults(&split).contains("more than one primary. nodes=node2,node1"));
    split.nodes.clear();
    assert!(faults(&split).contains("none of the nodes"));
}

#[test]
fn nodes_that_do_not_belong_are_refused() {
    let with = |change: fn(&mut Server)| {
        let mut picture = picture();
        let Ok(standby) = &mut picture.nodes[0].server else { unreachable!() };
        change(standby);
        faults(&picture)
    };
    assert!(with(|s| s.system_identifier = 8).contains("another cluster"));
    assert!(with(|s| s.version = 140_001).contains("another major version"));
    let mut old = picture();
    old.server.version = 130_004;
    assert!(faults(&old).contains("version=13"));
    let mut gone = picture();
    gone.nodes[0].active = false;
    assert!(faults(&gone).contains("not active"));
    let mut owned = picture();
    owned.databases[0].1 = "postgres".into();
    assert!(faults(&owned).contains("owner=postgres"));
}

#[test]
fn what_a_standby_is_set_to_stays_its_own() {
    let mut picture = picture();
    let Ok(standby) = &mut picture.nodes[0].server else { unreachable!() };
    standby.settings.insert("work_mem".into(), "64MB".into());
    let found = judge(&picture, &Wishes::default());
    assert_eq!(found.becomes.nodes[1].settings, [("work_mem".to_owned(), "64MB".to_owned())].into());
    assert!(found.becomes.nodes[0].settings.is_empty());
}

#[test]
fn names_and_priorities_are_kept_as_far_as_they_go() {
    let mut picture = picture();
    picture.nodes[0].name = "PG2.example".into();
    picture.nodes[0].priority = 0;
    let found = judge(&picture, &Wishes::default());
    let second = &found.becomes.nodes[1];
    assert_eq!((second.name.as_str(), second.failover), ("pg2-example", false));
    assert!(found.notes.iter().any(|note| note.contains("PG2.example becomes pg2-example")));
    picture.nodes[0].name = "2nd".into();
    assert!(faults(&picture).contains("node=2nd"));
}

//! Bundles of configuration on running clusters: taken, refused, gone back from.

use pgdock_core::cluster::ClusterStatus;
use pgdock_core::event::EventKind;
use pgdock_core::report::State;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result};
use pgdock_tests::real::{RealCluster, available, healthy};

use crate::common::{SOON, complains, nothing_lost, on, options, problems, said, superuser, writer};

/// Writes a file of the cluster's folder.
fn put(cluster: &RealCluster, path: &str, text: &str) -> Result<()> {
    let path = cluster.dir().join(path);
    let io = |e: std::io::Error| Error::internal("cannot write a file of the test").because(e);
    std::fs::create_dir_all(path.parent().expect("a folder")).map_err(io)?;
    std::fs::write(path, text).map_err(io)
}

/// Runs `pgdock config …`, and sees how it ends. Answers with what it printed, data first.
async fn config(cluster: &RealCluster, line: &str, code: i32) -> Result<String> {
    let words: Vec<_> = std::iter::once("config").chain(line.split_whitespace()).collect();
    let output = cluster.pgdock(&words).await?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
    assert_eq!(output.status.code(), Some(code), "config {line}\n{text}");
    Ok(text)
}

async fn show(cluster: &RealCluster, node: &NodeName, setting: &str) -> Result<String> {
    let client = superuser(cluster, node).await?;
    let row = client.query_one(&format!("SHOW {setting}"), &[]).await;
    row.map(|row| row.get(0)).map_err(|e| Error::unavailable("the setting cannot be shown").because(e))
}

/// Waits until every node runs with the bundle of this version.
async fn all_have(cluster: &RealCluster, version: &str) -> Result<()> {
    let has = |s: &ClusterStatus| s.nodes.iter().all(|n| n.bundle == Some(format!("{}{version}", n.name)));
    cluster.wait(&format!("every node has {version}"), SOON, has).await.map(drop)
}

const CONF: &str = "shared/postgres/postgresql.conf";
const HBA: &str = "shared/postgres/pg_hba.conf";

#[tokio::test]
async fn a_bundle_is_taken_by_those_who_can_and_refused_by_all_others() {
    on(options(233, 2, Durability::Sync), async |cluster| {
        let nodes = cluster.nodes();
        put(cluster, CONF, "work_mem = 5MB\n")?;
        put(cluster, "n2/postgres/postgresql.conf", "work_mem = 6MB\n")?;
        config(cluster, "build --tag v1", 0).await?;
        let text = config(cluster, "update --tag v1", 0).await?;
        assert_eq!(text.matches("reloaded").count(), 2, "{text}");
        all_have(cluster, "v1").await?;
        assert_eq!(show(cluster, &nodes[0], "work_mem").await?, "5MB");
        assert_eq!(show(cluster, &nodes[1], "work_mem").await?, "6MB");

        // PostgreSQL's programs refuse the one, the running server the other. Neither is seen anywhere after.
        for (line, tag, said) in [
            ("work_mem = lots", "n1v2", "invalid value for parameter \"work_mem\""),
            ("no_such_setting = 1", "n1v2b", "unrecognized configuration parameter \"no_such_setting\""),
        ] {
            put(cluster, CONF, &format!("{line}\n"))?;
            config(cluster, &format!("build n1 --tag {tag}"), 0).await?;
            let text = config(cluster, &format!("update n1 --tag {tag}"), 2).await?;
            assert!(text.contains(said) && !text.contains(".trial"), "{text}");
        }
        put(cluster, CONF, "work_mem = 7MB\n")?;
        put(cluster, HBA, "hostssl all all 10.0.0.0/99 scram-sha-256\n")?;
        config(cluster, "build n1 --tag n1v3", 0).await?;
        let text = config(cluster, "update n1 --tag n1v3", 2).await?;
        assert!(text.contains("pg_hba.conf") && text.contains("begins=hostssl all all 10.0.0.0/99"), "{text}");
        let conf = cluster.settings.nodes[&nodes[0]].home.join("conf");
        for file in ["postgresql.conf", "pg_hba.conf"] {
            let written = std::fs::read_to_string(conf.join(file)).unwrap_or_default();
            assert!(!written.contains("7MB") && !written.contains("/99"), "{file}: {written}");
        }
        all_have(cluster, "v1").await?;
        assert_eq!(show(cluster, &nodes[0], "work_mem").await?, "5MB");

        // Another node's bundle, and one that is cut, are refused.
        put(cluster, HBA, "hostssl all all 10.0.0.0/8 scram-sha-256\n")?;
        let text = config(cluster, "update n2 --tag n1v1", 2).await?;
        assert!(text.contains("another node's"), "{text}");

        // What waits for a restart is told, and done in turn.
        put(cluster, CONF, "work_mem = 7MB\nmax_prepared_transactions = 7\n")?;
        config(cluster, "build --tag v4", 0).await?;
        let text = config(cluster, "update --tag v4", 0).await?;
        assert_eq!(text.matches("wait for a restart: max_prepared_transactions").count(), 2, "{text}");
        assert_eq!(show(cluster, &nodes[0], "work_mem").await?, "7MB");
        let before = cluster.settled(SOON).await?;
        let text = config(cluster, "update --tag v4 --rolling", 0).await?;
        assert!(text.contains("no setting waits any more"), "{text}");
        assert_ne!(cluster.settled(SOON).await?, before, "the primary handed over");
        for node in &nodes {
            assert_eq!(show(cluster, node, "max_prepared_transactions").await?, "7");
        }
        all_have(cluster, "v4").await?;

        let text = config(cluster, "diff n1v1 n1", 0).await?;
        for part in ["- work_mem = 5MB", "+ work_mem = 7MB", "+ hostssl all all 10.0.0.0/8 scram-sha-256"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        config(cluster, "rollback n1", 0).await?;
        cluster.wait("n1 is back", SOON, |s| s.nodes[0].bundle.as_deref() == Some("n1v1")).await?;
        assert_eq!(show(cluster, &nodes[0], "work_mem").await?, "5MB");
        let text = config(cluster, "rollback n1", 4).await?;
        assert!(text.contains("no bundle to go back to"), "{text}");

        // An agent that begins anew goes on with the bundle, whatever the folder says by now.
        put(cluster, CONF, "work_mem = 9MB\n")?;
        cluster.stop_agent(&nodes[1]).await?;
        cluster.start_agent(&nodes[1]);
        cluster.wait("n2 streams again", SOON, |s| healthy(s, true)).await?;
        all_labels(cluster, &[("n1", "n1v1"), ("n2", "n2v4")]).await?;
        assert_eq!(show(cluster, &nodes[1], "work_mem").await?, "6MB");
        Ok(())
    })
    .await;
}

async fn all_labels(cluster: &RealCluster, want: &[(&str, &str)]) -> Result<()> {
    let has = |s: &ClusterStatus| {
        want.iter()
            .all(|(node, label)| s.nodes.iter().any(|n| n.name.as_str() == *node && n.bundle.as_deref() == Some(label)))
    };
    cluster.wait(&format!("bundles {want:?}"), SOON, has).await.map(drop)
}

#[tokio::test]
async fn a_bundle_with_which_postgresql_does_not_start_is_gone_back_from_under_load() {
    on(options(236, 2, Durability::Sync), async |cluster| {
        put(cluster, CONF, "work_mem = 5MB\n")?;
        config(cluster, "build --tag v1", 0).await?;
        config(cluster, "update --tag v1", 0).await?;
        all_have(cluster, "v1").await?;
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;

        // Only a start tells that it is not there.
        put(cluster, CONF, "work_mem = 5MB\nshared_preload_libraries = 'no_such_library'\n")?;
        config(cluster, "build --tag v2", 0).await?;
        let text = config(cluster, "update --tag v2", 0).await?;
        assert_eq!(text.matches("wait for a restart: shared_preload_libraries").count(), 2, "{text}");
        // The standby finds out first; nothing else is touched.
        let text = config(cluster, "update --tag v2 --rolling", 4).await?;
        assert!(text.contains("went back to its bundle before"), "{text}");
        writer.goes_on(SOON).await?;
        let standby = cluster.nodes().into_iter().find(|n| *n != primary).expect("there are two nodes");
        let told = |s: &ClusterStatus| {
            problems(s, &standby).contains(&format!("this node went back to {standby}v1"))
                && s.leader.as_ref() == Some(&primary)
                && s.node(&primary).is_some_and(|n| n.bundle == Some(format!("{primary}v2")))
        };
        cluster.wait("the standby tells that it went back, and the primary waits", SOON, told).await?;

        // The primary is restarted on purpose, and finds out for itself.
        cluster.cluster.restart(&primary).await?;
        writer.goes_on(SOON).await?;
        let back = |s: &ClusterStatus| {
            s.nodes.iter().all(|n| n.bundle == Some(format!("{}v1", n.name)))
                && s.nodes.iter().all(|n| matches!(n.state, State::Running | State::Streaming))
        };
        cluster.wait("both run with the bundle before", SOON, back).await?;
        let events = cluster.cluster.events(None).await?;
        let went_back = events
            .events
            .iter()
            .filter(|e| e.kind == EventKind::Configured && e.message.contains("went back to"))
            .count();
        assert_eq!(went_back, 2);
        let text = config(cluster, &format!("history {primary}"), 0).await?;
        assert!(text.contains("went back by itself") && text.contains("no_such_library"), "{text}");

        // A good one ends the complaint.
        put(cluster, CONF, "work_mem = 6MB\n")?;
        config(cluster, "build --tag v3", 0).await?;
        config(cluster, "update --tag v3", 0).await?;
        cluster.wait("no problem is left", SOON, |s| s.is_healthy() && healthy(s, true)).await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn scripts_of_a_new_cluster_run_once_and_an_interrupted_one_waits_for_a_person() {
    if !available() {
        return;
    }
    let story = async {
        let cluster = RealCluster::make(options(241, 2, Durability::Sync)).await?;
        let nodes = cluster.nodes();
        put(
            &cluster,
            "shared/initdb/10-table.sql",
            "CREATE TABLE ran (what text);\nINSERT INTO ran VALUES ('shared')",
        )?;
        put(
            &cluster,
            "shared/initdb/20-shell.sh",
            "psql -q -c \"INSERT INTO ran VALUES ('shell of $POSTGRES_DB')\"\n",
        )?;
        put(
            &cluster,
            "n1/initdb/05-own.sql",
            "-- pgdock: no transaction\nINSERT INTO ran VALUES ('own'); VACUUM ran;\n",
        )?;
        put(&cluster, "n2/initdb/05-own.sql", "INSERT INTO ran VALUES ('of one who does not found');\n")?;
        put(&cluster, "shared/env/main", "POSTGRES_DB=app\n")?;
        // As if the agent had died while it ran.
        let home = &cluster.settings.nodes[&nodes[0]].home;
        let io = |e: std::io::Error| Error::internal("cannot write a file of the test").because(e);
        std::fs::create_dir_all(home).map_err(io)?;
        std::fs::write(home.join("initdb.json"), r#"{"shared/initdb/20-shell.sh": "began"}"#).map_err(io)?;
        for node in &nodes {
            cluster.start_agent(node);
        }
        // The order to found it waits until all have run.
        let look = async {
            complains(&cluster, &nodes[0], &["may not run twice", "20-shell.sh"]).await?;
            // Looked at: nothing of it had happened.
            std::fs::write(home.join("initdb.json"), "{}").map_err(io)
        };
        let (founded, looked) = tokio::join!(cluster.found(), look);
        founded.and(looked)?;
        cluster.wait("the cluster is complete", SOON, |s| healthy(s, true) && s.is_healthy()).await?;
        cluster.stop_agent(&nodes[0]).await?;
        cluster.start_agent(&nodes[0]);
        cluster.wait("all are back", SOON, |s| healthy(s, true)).await?;

        let client = cluster.route()?.connect().await?;
        let failed = |e| Error::unavailable("the rows cannot be read").because(e);
        let admin = superuser_of(&cluster).await?;
        let rows = admin.query("SELECT what FROM ran", &[]).await.map_err(failed)?;
        let ran: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(ran, ["shared", "shell of app", "own"], "each once, in order");
        let marks =
            client.query("SELECT FROM pg_namespace WHERE nspname = 'pgdock_initdb'", &[]).await.map_err(failed)?;
        assert!(marks.is_empty(), "nothing of pgdock's own is left in the application's database");
        Ok::<_, Error>(())
    };
    if let Err(error) = story.await {
        panic!("{}", error.chain());
    }
}

/// A session of the superuser's in the application's database, at the primary.
async fn superuser_of(cluster: &RealCluster) -> Result<tokio_postgres::Client> {
    let primary = cluster.settled(SOON).await?;
    let of = &cluster.settings.nodes[&primary];
    let mut config = tokio_postgres::Config::new();
    config.host_path(of.home.join("run")).port(of.postgres_port).user("postgres").dbname("app");
    let connected = config.connect(tokio_postgres::NoTls).await;
    let (client, connection) = connected.map_err(|e| Error::unavailable("the superuser cannot log in").because(e))?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test]
async fn what_a_standby_must_have_no_less_of_is_raised_there_first_and_lowered_there_last() {
    on(options(246, 2, Durability::Sync), async |cluster| {
        let nodes = cluster.nodes();
        let writer = writer(cluster).await?;
        let all_show = async |cluster: &RealCluster, value: &str| -> Result<()> {
            for node in &nodes {
                assert_eq!(show(cluster, node, "max_connections").await?, value, "{node}");
            }
            Ok(())
        };
        put(cluster, CONF, "max_connections = 150\n")?;
        config(cluster, "build --tag v1", 0).await?;
        config(cluster, "update --tag v1 --rolling", 0).await?;
        all_show(cluster, "150").await?;
        let leader = cluster.settled(SOON).await?;

        // One wants the primary first, the other the standbys: nothing is begun.
        put(cluster, CONF, "max_connections = 120\nmax_locks_per_transaction = 128\n")?;
        config(cluster, "build --tag v2", 0).await?;
        let text = config(cluster, "update --tag v2 --rolling", 4).await?;
        assert!(text.contains("nothing was restarted") && text.contains("lowered=max_connections"), "{text}");
        all_show(cluster, "150").await?;

        put(cluster, CONF, "max_connections = 120\n")?;
        config(cluster, "build --tag v3", 0).await?;
        config(cluster, "update --tag v3 --rolling", 0).await?;
        all_show(cluster, "120").await?;
        assert_eq!(cluster.settled(SOON).await?, leader, "the primary was restarted in its place");

        // A standby that is restarted too early has what its primary has, and no less.
        put(cluster, CONF, "max_connections = 110\n")?;
        config(cluster, "build --tag v4", 0).await?;
        config(cluster, "update --tag v4", 0).await?;
        let standby = nodes.iter().find(|node| **node != leader).expect("there are two nodes");
        cluster.cluster.restart(standby).await?;
        cluster.wait("the standby streams", SOON, |s| healthy(s, true)).await?;
        all_show(cluster, "120").await?;
        all_have(cluster, "v4").await?;
        writer.goes_on(SOON).await?;
        nothing_lost(cluster, &writer.stop().await).await
    })
    .await;
}

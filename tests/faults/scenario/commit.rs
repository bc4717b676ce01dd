//! Commits that nobody waits for any more.

use std::sync::Arc;

use pgdock_core::{Error, Result};

use super::SOON;
use crate::faults::campaign::Campaign;
use crate::faults::fault::Part;
use crate::real::until;
use crate::signals::stop;

/// The backends that have committed on their own disk, and wait for a standby.
const WAITING: &str = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// **13. A commit is cancelled while it waits for its standby.** PostgreSQL sends no WAL any more, so that commits wait,
/// and then `pg_cancel_backend` ends their waiting. PostgreSQL answers as to a commit that is done, with a warning
/// (01000) beside it. A client that listens has the warning; a router makes an error of it; and the clients of this
/// test, which listen, too, take none of these commits for acknowledged. They are right: the primary dies, the
/// standby takes over, and the rows are gone.
pub(super) async fn cancelled(on: &mut Campaign) -> Result<()> {
    let failed = |e: tokio_postgres::Error| Error::unavailable("a statement failed").because(e);
    let ended = |e: tokio::task::JoinError| Error::internal("a client ended").because(e);
    let old = on.ground.leader().await;
    let route = on.ground.cluster.route_to(&old)?;
    let (watch, (plain, mut notices)) = (route.connect().await?, route.connect_listening().await?);
    let router = on.ground.cluster.router()?;
    let guarded = router.execute("INSERT INTO acknowledged VALUES (-3)", &[]).await;
    on.expect(guarded.is_ok(), format!("the router does not write: {guarded:?}"));

    let span = on.ground.history.hurt(old.as_str(), "commits cancelled, then power lost");
    for sender in on.ground.wal_senders(&old) {
        stop(sender);
    }
    let plain = tokio::spawn(async move { plain.execute("INSERT INTO acknowledged VALUES (-1)", &[]).await });
    let routed = tokio::spawn(async move { router.execute("INSERT INTO acknowledged VALUES (-2)", &[]).await });
    let both = format!("SELECT count(*) {WAITING} AND query ~ 'VALUES \\(-[12]\\)'");
    until("the commits wait", SOON, async || {
        watch.query_one(&both, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 2)
    })
    .await?;
    let cancel = format!("SELECT pg_cancel_backend(pid) {WAITING}");
    watch.execute(&cancel, &[]).await.map_err(failed)?;
    let answer = plain.await.map_err(ended)?;
    let warning = notices.try_recv().ok();
    let warned = warning.as_ref().is_some_and(|w| {
        w.code().code() == "01000" && w.message().contains("canceling wait for synchronous replication")
    });
    // An error would do as well. Silence would not.
    on.expect(
        answer.is_err() || warned,
        format!("a cancelled commit looks as if it were done: {answer:?}, {warning:?}"),
    );
    let answer = routed.await.map_err(ended)?;
    let refused = matches!(&answer, Err(pgdock_makara::Error::NotReplicated { node }) if node == old.as_str());
    on.expect(refused, format!("the router takes a cancelled commit for something else: {answer:?}"));
    let history = Arc::clone(&on.ground.history);
    // The other clients were cancelled in the same moment, if not now.
    until("clients are cancelled, too", SOON, async || {
        watch.execute(&cancel, &[]).await.is_ok() && !history.cancelled().is_empty()
    })
    .await?;

    let cut = on.ground.unplug(&old).await?;
    on.ground.kill(&old, Part::Machine).await;
    on.taken_over(&old).await?;
    on.gets_on("though the standby took over").await;
    on.ground.lab.mend(cut).await?;
    on.ground.revive(&old);
    on.ground.history.healed(span);
    on.well().await?;
    on.follows(&old).await?;
    let client = on.ground.cluster.route()?.connect().await?;
    let there = "SELECT count(*) FROM acknowledged WHERE number = ANY ($1)";
    let cancelled: Vec<i64> = history.cancelled().into_iter().chain([-1, -2]).collect();
    let found: i64 = client.query_one(there, &[&cancelled]).await.map_err(failed)?.get(0);
    let lost = i64::try_from(cancelled.len()).unwrap_or(i64::MAX) > found;
    on.expect(lost, format!("none of {cancelled:?} is lost: the scenario does not bite"));
    let found: i64 = client.query_one(there, &[&vec![-3_i64]]).await.map_err(failed)?.get(0);
    on.expect(found == 1, "lost: -3 was acknowledged by the router");
    Ok(())
}

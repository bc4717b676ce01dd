//! Outages of the witness that are not drawn: what must happen in each of them is known, and looked for.

use std::time::Duration;

use pgdock_core::{Error, NodeName, Result, Term};

use super::Campaign;
use super::client::ROAMING;
use super::fault::{From, Way};
use super::lab::{Block, CLIENTS, How, WITNESS};
use crate::real::until;

/// How many rights an outage outlasts.
const RIGHTS: u32 = 4;
/// How long something may take that should take a moment.
const SOON: Duration = Duration::from_secs(40);
/// So many acknowledgements, and clients get on.
const GETS_ON: usize = 3;

impl Campaign {
    /// The witness is away from the leader alone, from everybody, and from everybody while nodes do not see each
    /// other, each for longer than any right. What must not be is noted.
    ///
    /// # Errors
    /// Where the test itself cannot do what it should.
    pub async fn outages(&mut self) -> Result<()> {
        self.leader_cut_off().await?;
        if self.well().await.is_err() {
            return Ok(());
        }
        self.bucket_away().await?;
        if self.well().await.is_err() {
            return Ok(());
        }
        self.bucket_and_peers_away().await?;
        // What is wrong is noted.
        let _ = self.well().await;
        Ok(())
    }

    /// The leader alone does not reach the bucket: it goes on, and its right is renewed through a peer.
    async fn leader_cut_off(&mut self) -> Result<()> {
        let (leader, term, beat) = self.reign().await?;
        let blocks = self.ground.blocks(&leader, From::Witness, Way::Both, How::Drop);
        let span = self.ground.history.hurt(leader.as_str(), "cut off from witness");
        let cut = self.ground.lab.cut(blocks).await?;
        tokio::time::sleep(self.ground.setup.ttl() * RIGHTS).await;
        self.gets_on("while its leader alone does not reach the bucket").await;
        let (after, after_term, after_beat) = self.reign().await?;
        if (&after, after_term) != (&leader, term) {
            self.fail(format!("cut off from the bucket alone, {leader} lost the lead to {after}"));
        }
        if after_beat <= beat + 1 {
            self.fail(format!("nobody renews what {leader} cannot: heartbeat {beat}, then {after_beat}"));
        }
        self.ground.lab.mend(cut).await?;
        self.ground.history.healed(span);
        Ok(())
    }

    /// Nobody reaches the bucket: as long as nodes see each other, that demotes nobody.
    async fn bucket_away(&mut self) -> Result<()> {
        let (leader, term, _) = self.reign().await?;
        let span = self.ground.history.hurt(WITNESS, "witness vanishes");
        let cut = self.ground.lab.cut(self.away()).await?;
        tokio::time::sleep(self.ground.setup.ttl() * RIGHTS).await;
        self.gets_on("while nobody reaches the bucket").await;
        self.ground.lab.mend(cut).await?;
        self.ground.history.healed(span);
        let (after, after_term, _) = self.reign().await?;
        if (&after, after_term) != (&leader, term) {
            self.fail(format!("while nobody reached the bucket, {leader} lost the lead to {after}"));
        }
        Ok(())
    }

    /// Nobody reaches the bucket, and the leader no other node: it cannot tell that it still leads. Nothing is
    /// acknowledged, so that nothing can be lost.
    async fn bucket_and_peers_away(&mut self) -> Result<()> {
        let (leader, ..) = self.reign().await?;
        let away = self.ground.history.hurt(WITNESS, "witness vanishes");
        let bucket = self.ground.lab.cut(self.away()).await?;
        tokio::time::sleep(self.ground.setup.ttl()).await;
        let apart = self.ground.history.hurt(leader.as_str(), "cut off from the other nodes");
        let peers = self.ground.lab.cut(self.ground.blocks(&leader, From::Peers, Way::Both, How::Drop)).await?;
        let since = self.ground.history.now();
        tokio::time::sleep(self.ground.setup.ttl() * RIGHTS).await;
        let acknowledged = self.ground.history.acknowledged_since(since, 0..ROAMING);
        if acknowledged > 0 {
            self.fail(format!("{acknowledged} writes were acknowledged by one node that saw neither bucket nor peer"));
        }
        self.ground.lab.mend(bucket).await?;
        self.ground.history.healed(away);
        self.gets_on("once the bucket is back, with nodes that do not see each other").await;
        self.ground.lab.mend(peers).await?;
        self.ground.history.healed(apart);
        Ok(())
    }

    /// Nothing gets from anybody to the witness, or back.
    fn away(&self) -> Vec<Block> {
        let nodes = self.ground.cluster.nodes();
        let hosts = nodes.iter().map(NodeName::as_str).chain([CLIENTS]);
        hosts.flat_map(|host| Block::both_ways(WITNESS, host, How::Drop)).collect()
    }

    /// Who leads, by the document, in which term, and how often that was renewed.
    async fn reign(&self) -> Result<(NodeName, Term, u64)> {
        let document = self.ground.cluster.cluster.document().await?;
        let found = document.and_then(|d| Some((d.leader?, d.term, d.heartbeat)));
        found.ok_or_else(|| Error::internal("the document names no leader"))
    }

    /// Clients must be acknowledged something from now on; where they are not, that is noted.
    async fn gets_on(&mut self, when: &str) {
        let history = &self.ground.history;
        let since = history.now();
        let waited = until("clients get on", SOON, async || history.acknowledged_since(since, 0..ROAMING) >= GETS_ON);
        if waited.await.is_err() {
            self.fail(format!("clients do not get on {when}"));
        }
    }
}

//! What happens to the cluster from outside: faults, operators, clients.

use std::time::Duration;

use pgdock_core::view::Order;

use super::invariants;
use super::postgres::Run;
use super::scenario::{MS, SECOND};
use super::world::{Event, World};

/// A fault that ends.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A host is without power.
    Host(usize),
    /// An agent is dead.
    Agent(usize, u64),
    /// Directions between nodes are cut: from, to, for agents, for PostgreSQL.
    Cut(Vec<(usize, usize, bool, bool)>),
    /// A node does not reach the witness.
    WitnessCut(usize),
    /// The witness answers nobody.
    WitnessOut,
    /// The witness is slow.
    WitnessSlow,
    /// The network is slow.
    NetworkSlow,
    /// Nothing more than the end of a pause.
    Pause(usize),
}

impl World {
    /// Something happens.
    pub(super) fn strike(&mut self) {
        if self.healing {
            return;
        }
        if let Some(plot) = self.scenario.plot {
            let next = self.plot(plot);
            self.after(next, Event::Strike);
            return;
        }
        let every = self.scenario.fault_every;
        let next = self.between(every / 5, every * 2);
        self.after(next, Event::Strike);
        if self.scenario.outages_only {
            self.witness_outage();
            return;
        }
        if self.scenario.crashes_only {
            self.crash();
            return;
        }
        if self.scenario.reckless && self.chance(0.15) {
            self.reckless_failover();
            return;
        }
        let operator = self.scenario.operator;
        if self.chance(operator) {
            self.operate();
            return;
        }
        let count = self.nodes.len() as u64;
        // The leader is the more interesting victim.
        let leader = self.witness.record.leader.clone().map(|l| self.index(&l));
        let node = match leader {
            Some(leader) if self.chance(0.5) => leader,
            _ => self.between(0, count) as usize,
        };
        match self.between(0, 15) {
            0 | 1 => self.kill_postgres(node, true),
            2 | 3 if self.nodes[node].agent.is_some() => {
                self.kill_agent(node);
                let back = self.between(20 * MS, 4 * SECOND);
                let life = self.nodes[node].life;
                self.after(back, Event::Mend(Fault::Agent(node, life)));
            }
            4 if self.nodes[node].agent.is_some() => {
                self.kill_agent(node);
                self.kill_postgres(node, true);
                let back = self.between(100 * MS, 6 * SECOND);
                let life = self.nodes[node].life;
                self.after(back, Event::Mend(Fault::Agent(node, life)));
            }
            5 => {
                let pause = self.between(100 * MS, 9 * SECOND);
                self.note("pause", node, || format!("the agent for {} ms", pause / MS));
                self.nodes[node].agent_paused_until = self.now + pause;
            }
            6 => {
                let pause = self.between(100 * MS, 9 * SECOND);
                self.note("pause", node, || format!("the host for {} ms", pause / MS));
                self.nodes[node].paused_until = self.now + pause;
                self.after(pause, Event::Mend(Fault::Pause(node)));
            }
            7 if self.nodes[node].host_up => {
                self.note("host", node, || "loses power".into());
                self.nodes[node].host_up = false;
                self.kill_postgres(node, false);
                self.kill_agent(node);
                self.nodes[node].deadman = None;
                let back = self.between(500 * MS, 12 * SECOND);
                self.after(back, Event::Mend(Fault::Host(node)));
            }
            8..=10 => self.partition(node),
            11 => {
                self.note("witness", node, || "is cut off".into());
                self.network.set_witness(node, false);
                let back = self.between(500 * MS, 9 * SECOND);
                self.after(back, Event::Mend(Fault::WitnessCut(node)));
            }
            12 => self.witness_outage(),
            13 => {
                self.witness.slow = true;
                let back = self.between(SECOND, 5 * SECOND);
                self.after(back, Event::Mend(Fault::WitnessSlow));
            }
            _ => {
                self.network.slow = true;
                let back = self.between(SECOND, 4 * SECOND);
                self.after(back, Event::Mend(Fault::NetworkSlow));
            }
        }
    }

    fn witness_outage(&mut self) {
        self.note("witness", 0, || "answers nobody".into());
        self.witness.out = true;
        let back = self.between(500 * MS, 9 * SECOND);
        self.after(back, Event::Mend(Fault::WitnessOut));
    }

    /// The primary's PostgreSQL crashes, if nothing else is wrong.
    fn crash(&mut self) {
        let primaries: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].pg.primary().is_some()).collect();
        let [primary] = primaries[..] else { return };
        let streams = |node: usize| {
            let stream = self.nodes[node].pg.standby().and_then(|s| s.receiver).map(|i| &self.streams[i]);
            stream.is_some_and(|s| s.primary == primary && s.sends && s.streaming)
        };
        if (0..self.nodes.len()).all(|node| node == primary || streams(node)) {
            self.kill_postgres(primary, true);
        }
    }

    /// A connection of the first node is cut or mended; now and then the one to the witness.
    pub(super) fn flap(&mut self) {
        if self.healing || self.now > 12 * SECOND {
            return;
        }
        let other = 1 + self.between(0, self.nodes.len() as u64 - 1) as usize;
        let open = self.chance(0.4);
        self.note("flap", other, || (if open { "reached again" } else { "cut off from n1" }).into());
        self.network.set(0, other, open, true, true);
        self.network.set(other, 0, open, true, true);
        if self.network.witness(0) {
            self.network.set_witness(0, false);
            let back = self.between(3 * SECOND, 10 * SECOND);
            self.after(back, Event::Mend(Fault::WitnessCut(0)));
            // One of the others is cut off as well: it hears the first node, and cannot help it.
            let deaf = 1 + self.between(0, self.nodes.len() as u64 - 1) as usize;
            self.network.set_witness(deaf, false);
            self.after(back, Event::Mend(Fault::WitnessCut(deaf)));
            self.witness.slow = self.chance(0.7);
        }
        let next = self.between(100 * MS, 2 * SECOND);
        self.after(next, Event::Flap);
    }

    /// The leader is cut off from all, and an operator has another node take over, whatever is lost.
    fn reckless_failover(&mut self) {
        let Some(leader) = self.witness.record.leader.clone().map(|l| self.index(&l)) else { return };
        let heir = (leader + 1) % self.nodes.len();
        let away = self.between(7 * SECOND, 12 * SECOND);
        let mut cuts = Vec::new();
        for other in (0..self.nodes.len()).filter(|n| *n != leader) {
            cuts.extend([(leader, other, true, true), (other, leader, true, true)]);
            self.network.set(leader, other, false, true, true);
            self.network.set(other, leader, false, true, true);
        }
        self.network.set_witness(leader, false);
        self.after(away, Event::Mend(Fault::Cut(cuts)));
        self.after(away, Event::Mend(Fault::WitnessCut(leader)));
        let deadline = self.nodes[heir].moment(self.now) + Duration::from_secs(20);
        if self.give_order(heir, Order::Failover { allow_data_loss: true, deadline }) {
            self.ledger.reckless = true;
        }
    }

    fn partition(&mut self, node: usize) {
        let one_way = self.chance(0.3);
        let (agents, postgres) = match self.between(0, 4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let alone = self.chance(0.6);
        let mut cuts = Vec::new();
        for other in 0..self.nodes.len() {
            if other != node && (alone || self.chance(0.5)) {
                cuts.push((node, other, agents, postgres));
                if !one_way {
                    cuts.push((other, node, agents, postgres));
                }
            }
        }
        self.note("partition", node, || format!("{cuts:?}"));
        for (from, to, agents, postgres) in &cuts {
            self.network.set(*from, *to, false, *agents, *postgres);
        }
        if self.chance(0.25) {
            self.network.set_witness(node, false);
            let back = self.between(500 * MS, 9 * SECOND);
            self.after(back, Event::Mend(Fault::WitnessCut(node)));
        }
        let back = self.between(300 * MS, 9 * SECOND);
        self.after(back, Event::Mend(Fault::Cut(cuts)));
    }

    /// A fault ends.
    pub(super) fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Host(node) if !self.nodes[node].host_up => {
                self.note("host", node, || "has power again".into());
                self.nodes[node].host_up = true;
                self.start_agent(node);
            }
            Fault::Agent(node, life) if self.nodes[node].life == life && self.nodes[node].host_up => {
                self.start_agent(node);
            }
            Fault::Cut(cuts) => {
                self.note("partition", 0, || format!("ends {cuts:?}"));
                for (from, to, agents, postgres) in cuts {
                    self.network.set(from, to, true, agents, postgres);
                }
            }
            Fault::WitnessCut(node) => self.network.set_witness(node, true),
            Fault::WitnessOut => self.witness.out = false,
            Fault::WitnessSlow => self.witness.slow = false,
            Fault::NetworkSlow => self.network.slow = false,
            // The deadman is the first to notice that time has passed: it sleeps on the clock itself.
            Fault::Pause(node) if self.nodes[node].paused_until <= self.now => self.deadman_now(node),
            _ => {}
        }
    }

    fn deadman_now(&mut self, node: usize) {
        let n = &self.nodes[node];
        if n.deadman.is_some_and(|d| n.clock(self.now) >= d) {
            self.deadman(node);
        }
    }

    /// All faults stop.
    pub(super) fn stop_faults(&mut self) {
        self.healing = true;
        self.healing_since = self.now;
        self.note("heal", 0, || "all faults stop".into());
        self.network.heal();
        self.witness.out = false;
        self.witness.slow = false;
        for node in 0..self.nodes.len() {
            let n = &mut self.nodes[node];
            n.paused_until = n.paused_until.min(self.now);
            n.agent_paused_until = 0;
            self.deadman_now(node);
            self.after(0, Event::Deadman { node });
            if !self.nodes[node].host_up || self.nodes[node].agent.is_none() {
                self.nodes[node].host_up = true;
                self.start_agent(node);
            }
            // A loop that was paused goes on.
            self.kick(node, MS);
        }
        self.after(100 * MS, Event::Look);
    }

    /// An operator gives an order.
    fn operate(&mut self) {
        let count = self.nodes.len() as u64;
        let leader = self.witness.record.leader.clone().map(|l| self.index(&l));
        let node = match leader {
            Some(leader) if self.chance(0.7) => leader,
            _ => self.between(0, count) as usize,
        };
        let other = self.between(0, count) as usize;
        let deadline = self.nodes[node].moment(self.now) + Duration::from_secs(8);
        let order = match self.between(0, 10) {
            0..=4 => {
                let to = self.chance(0.5).then(|| self.nodes[other].name.clone());
                Order::Switchover { to, deadline }
            }
            5 => Order::Restart { stopped: false },
            6 => Order::Pause(true),
            7 => Order::Pause(false),
            8 => Order::Reclone,
            _ => {
                let allow_data_loss = self.scenario.reckless;
                Order::Failover { allow_data_loss, deadline }
            }
        };
        let reckless = matches!(order, Order::Failover { allow_data_loss: true, .. });
        self.ledger.reckless |= reckless;
        self.give_order(node, order);
    }

    /// Clients write to whoever takes writes, be it the right one or not.
    pub(super) fn clients(&mut self) {
        let every = self.scenario.write_every;
        let next = self.between(every / 2, every * 3 / 2);
        self.after(next, Event::Clients);
        for node in 0..self.nodes.len() {
            let n = &self.nodes[node];
            let Some(primary) = n.pg.primary() else { continue };
            if primary.stopping
                || primary.closed
                || primary.waiting.len() > 20
                || n.paused_until > self.now
                || !self.chance(0.7)
            {
                continue;
            }
            let number = self.nodes[node].pg.number;
            let fsync = self.scenario.fsync;
            let delay = self.between(100, fsync);
            self.after(delay, Event::Commit { node, number });
        }
    }

    /// A client's commit is on the primary's disk.
    pub(super) fn commit(&mut self, node: usize, number: u64) {
        let pg = &self.nodes[node].pg;
        if pg.number != number || !matches!(&pg.run, Run::Primary(p) if !p.stopping) {
            return;
        }
        let id = self.fresh();
        let bytes = self.between(100, 8_000);
        let pg = &mut self.nodes[node].pg;
        let (Run::Primary(run), Some(data)) = (&mut pg.run, &mut pg.data) else { return };
        let lsn = data.append(id, bytes);
        let senders = run.senders.clone();
        if run.waits {
            run.waiting.push((id, lsn));
        } else {
            invariants::acknowledge(self, node, id);
        }
        for stream in senders {
            self.pump(stream, false);
        }
    }
}

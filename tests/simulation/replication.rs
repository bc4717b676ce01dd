//! Streams between PostgreSQLs: WAL goes down, replies come up, and commits that wait are let go.
//!
//! A stream is a TCP connection: nothing in it gets lost or overtakes, a partition holds it up until one
//! side loses patience, and each side learns of the other's end only by a message or by silence.

use std::collections::VecDeque;
use std::rc::Rc;

use pgdock_core::node::Member;
use pgdock_core::view::Names;
use pgdock_core::{History, Lsn};

use super::invariants;
use super::postgres::{Rec, Run};
use super::scenario::{MS, Micros, SECOND};
use super::world::{Event, Process, World};

/// `wal_sender_timeout` and `wal_receiver_timeout`.
const SILENCE: Micros = 3 * SECOND;
/// How long TCP waits before it sends again.
const RETRANSMIT: Micros = 60 * MS;
/// How often an idle stream gives a sign of life.
const KEEPALIVE: Micros = 200 * MS;
/// `wal_retrieve_retry_interval`.
pub(super) const RETRY: Micros = 100 * MS;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// The sender's node.
    pub primary: usize,
    primary_number: u64,
    /// The receiver's node.
    pub standby: usize,
    standby_number: u64,
    /// `application_name`.
    pub member: Member,
    /// The WAL sender lives.
    pub sends: bool,
    /// The WAL receiver lives.
    pub receives: bool,
    /// Records sent.
    sent: usize,
    on_the_way: VecDeque<(Rc<[Rec]>, Rc<History>)>,
    received: Vec<Rec>,
    history: Rc<History>,
    flushing: bool,
    /// What the primary knows to be flushed.
    pub flushed: Lsn,
    /// It has caught up once.
    pub streaming: bool,
    /// `synchronous_standby_names` as this WAL sender has it.
    pub names: Names,
    down_at: Micros,
    up_at: Micros,
    heard_by_primary: Micros,
    heard_by_standby: Micros,
}

impl World {
    /// A standby tries to stream from its upstream, as often as it takes.
    pub(super) fn connect(&mut self, node: usize, number: u64) {
        let pg = &self.nodes[node].pg;
        let (Some(standby), Some(data)) = (pg.standby(), &pg.data) else { return };
        if pg.number != number || standby.receiver.is_some() {
            return;
        }
        let Some(upstream) = data.upstream else { return };
        let delay = self.network.delay(&mut self.rng);
        if !self.network.postgres(node, upstream) || !self.network.postgres(upstream, node) {
            self.after(10 * RETRY, Event::Connect { node, number });
            return;
        }
        let source = &self.nodes[upstream];
        let paused = source.paused_until > self.now;
        let (Some(primary), Some(from)) = (source.pg.primary(), &source.pg.data) else {
            self.after(RETRY, Event::Connect { node, number });
            return;
        };
        let to = self.nodes[node].pg.data.as_ref().expect("a standby has data");
        // PostgreSQL's own checks: the position lies on the upstream's history, and not past its end.
        let fits = from.history.contains(to.history.timeline, to.end()) && to.end() <= from.end();
        // Each member has a slot of its own, and a slot serves one stream at a time. Safety rests on that: a
        // standby that were counted twice, by a stream that is half dead and its successor, would stand in
        // for another.
        let taken = primary.senders.iter().any(|s| self.streams[*s].standby == node);
        let slot = from.slots.contains(&self.nodes[node].name.slot());
        if !fits || paused || primary.stopping || taken || !slot {
            self.after(RETRY, Event::Connect { node, number });
            return;
        }
        let stream = self.streams.len();
        let start = to.end();
        let sent = from.wal.partition_point(|r| r.end <= start);
        // What follows must follow what is there: PostgreSQL itself cannot see whether it does.
        let last = sent.checked_sub(1).map(|i| from.wal[i].id);
        let agrees = last == to.wal.last().map(|r| r.id);
        let member = self.nodes[node].pg.member(node).expect("a standby has data");
        let history = Rc::new(from.history.clone());
        let names = primary.names.clone();
        let primary_number = source.pg.number;
        self.note("stream", node, || format!("from n{} at {start}", upstream + 1));
        if !agrees {
            invariants::one_history::diverged(self, node, upstream);
        }
        let now = self.now;
        self.streams.push(Stream {
            primary: upstream,
            primary_number,
            standby: node,
            standby_number: number,
            member,
            sends: true,
            receives: true,
            sent,
            on_the_way: VecDeque::new(),
            received: Vec::new(),
            history,
            flushing: false,
            flushed: start,
            streaming: false,
            names,
            down_at: now + delay,
            up_at: now + delay,
            heard_by_primary: now,
            heard_by_standby: now,
        });
        let local = self.nodes[node].clock(now);
        if let Some(s) = self.nodes[node].pg.standby_mut() {
            s.receiver = Some(stream);
            s.heard_at = Some(local);
            s.end_known = true;
        }
        if let Some(p) = self.nodes[upstream].pg.primary_mut() {
            p.senders.push(stream);
        }
        self.pump(stream, true);
        self.after(KEEPALIVE, Event::Keepalive { stream });
    }

    /// Sends what was not sent yet; `keepalive` also when there is nothing.
    pub(super) fn pump(&mut self, stream: usize, keepalive: bool) {
        let s = &self.streams[stream];
        let pg = &self.nodes[s.primary].pg;
        if !s.sends || pg.number != s.primary_number {
            return;
        }
        let data = pg.data.as_ref().expect("a primary has data");
        let records: Rc<[Rec]> = data.wal[s.sent..].into();
        if records.is_empty() && !keepalive {
            return;
        }
        let history =
            if s.history.timeline == data.history.timeline { s.history.clone() } else { Rc::new(data.history.clone()) };
        let (sent, at) = (data.wal.len(), self.now + self.network.delay(&mut self.rng));
        let s = &mut self.streams[stream];
        s.sent = sent;
        s.down_at = s.down_at.max(at);
        s.on_the_way.push_back((records, history));
        let delay = s.down_at - self.now;
        self.after(delay, Event::Wal { stream });
    }

    /// WAL or a keepalive arrives at a standby.
    pub(super) fn wal_arrives(&mut self, stream: usize) {
        let s = &self.streams[stream];
        let (primary, standby) = (s.primary, s.standby);
        if !s.receives || !self.nodes[standby].host_up {
            return;
        }
        if !self.network.postgres(primary, standby) {
            if self.now - s.heard_by_standby <= 2 * SILENCE {
                self.after(RETRANSMIT, Event::Wal { stream });
            }
            return;
        }
        let local = self.nodes[standby].clock(self.now);
        if let Some(run) = self.nodes[standby].pg.standby_mut() {
            run.heard_at = Some(local);
        }
        let fsync = self.scenario.fsync;
        let delay = self.between(200, fsync);
        let s = &mut self.streams[stream];
        s.heard_by_standby = self.now;
        // Whichever of the messages this event was made for: the first one comes first.
        if let Some((records, history)) = s.on_the_way.pop_front() {
            s.received.extend_from_slice(&records);
            s.history = history;
        }
        if !s.flushing {
            s.flushing = true;
            self.after(delay, Event::Flush { stream });
        }
    }

    /// A standby flushes what it received, and replies.
    pub(super) fn standby_flush(&mut self, stream: usize) {
        let s = &mut self.streams[stream];
        s.flushing = false;
        let (primary, standby) = (s.primary, s.standby);
        if !s.receives || self.nodes[standby].pg.number != s.standby_number {
            return;
        }
        let received = std::mem::take(&mut s.received);
        let history = s.history.clone();
        let data = self.nodes[standby].pg.data.as_mut().expect("a standby has data");
        if let Some(last) = received.last() {
            if last.timeline != data.history.timeline {
                data.history = (*history).clone();
            }
            data.wal.extend(received);
        }
        let flushed = data.end();
        self.reply(stream, primary, standby, flushed);
    }

    fn reply(&mut self, stream: usize, primary: usize, standby: usize, flushed: Lsn) {
        debug_assert_ne!(primary, standby);
        let at = self.now + self.network.delay(&mut self.rng);
        let s = &mut self.streams[stream];
        s.up_at = s.up_at.max(at);
        let delay = s.up_at - self.now;
        self.after(delay, Event::Reply { stream, flushed });
    }

    /// A reply arrives: commits that waited for it are let go by its WAL sender, under the names that the
    /// sender knows.
    pub(super) fn reply_arrives(&mut self, stream: usize, flushed: Lsn) {
        let s = &self.streams[stream];
        let (primary, standby) = (s.primary, s.standby);
        if !s.sends || self.nodes[primary].pg.number != s.primary_number {
            return;
        }
        if !self.network.postgres(standby, primary) {
            if self.now - s.heard_by_primary <= 2 * SILENCE {
                self.after(RETRANSMIT, Event::Reply { stream, flushed });
            }
            return;
        }
        let end = self.nodes[primary].pg.data.as_ref().map_or(Lsn(0), super::postgres::Data::end);
        let s = &mut self.streams[stream];
        s.heard_by_primary = self.now;
        s.flushed = s.flushed.max(flushed);
        s.streaming |= s.flushed >= end;
        self.release(stream);
    }

    fn release(&mut self, stream: usize) {
        let s = &self.streams[stream];
        let (names, primary) = (&s.names, s.primary);
        if names.count == 0 || !names.members.contains(&s.member) || !s.streaming {
            return;
        }
        let Some(run) = self.nodes[primary].pg.primary() else { return };
        let mut flushed: Vec<Lsn> = run
            .senders
            .iter()
            .map(|i| &self.streams[*i])
            .filter(|s| s.streaming && names.members.contains(&s.member))
            .map(|s| s.flushed)
            .collect();
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        let Some(upto) = flushed.get(names.count as usize - 1).copied() else { return };
        self.let_go(primary, upto);
    }

    /// Acknowledges what waits up to a position.
    pub(super) fn let_go(&mut self, node: usize, upto: Lsn) {
        let Some(run) = self.nodes[node].pg.primary_mut() else { return };
        if run.waiting.is_empty() {
            return;
        }
        let (go, stay) = std::mem::take(&mut run.waiting).into_iter().partition(|(_, lsn)| *lsn <= upto);
        run.waiting = stay;
        let go: Vec<(u64, Lsn)> = go;
        for (id, _) in go {
            invariants::acknowledge(self, node, id);
        }
    }

    /// Both ends give signs of life, and lose patience.
    pub(super) fn keepalive(&mut self, stream: usize) {
        let now = self.now;
        let s = &self.streams[stream];
        if !s.sends && !s.receives {
            return;
        }
        let (primary, standby) = (s.primary, s.standby);
        let runs = |node: usize| self.nodes[node].host_up && self.nodes[node].paused_until <= now;
        let (primary_runs, standby_runs) = (runs(primary), runs(standby));
        let (sends, receives) = (s.sends, s.receives);
        let primary_bored = now.saturating_sub(s.heard_by_primary) > SILENCE;
        let standby_bored = now.saturating_sub(s.heard_by_standby) > SILENCE;
        if sends && primary_runs {
            if primary_bored {
                self.close(stream, true);
            } else {
                self.pump(stream, true);
            }
        }
        if receives && standby_runs {
            if standby_bored {
                self.close(stream, false);
            } else {
                let flushed = self.nodes[standby].pg.data.as_ref().map_or(Lsn(0), super::postgres::Data::end);
                self.reply(stream, primary, standby, flushed);
            }
        }
        self.after(KEEPALIVE, Event::Keepalive { stream });
    }

    /// One side closes a stream, and the other is told by TCP.
    pub(super) fn close(&mut self, stream: usize, at_primary: bool) {
        let delay = self.network.delay(&mut self.rng);
        self.close_here(stream, at_primary);
        self.after(delay, Event::Closed { stream, at_primary: !at_primary });
    }

    fn close_here(&mut self, stream: usize, at_primary: bool) {
        let s = &mut self.streams[stream];
        let (primary, standby, number) = (s.primary, s.standby, s.standby_number);
        if at_primary {
            s.sends = false;
            if let Some(p) = self.nodes[primary].pg.primary_mut() {
                p.senders.retain(|i| *i != stream);
            }
        } else if s.receives {
            s.receives = false;
            s.received.clear();
            if self.nodes[standby].pg.number == number
                && let Some(run) = self.nodes[standby].pg.standby_mut()
                && run.receiver == Some(stream)
            {
                run.receiver = None;
                self.after(RETRY, Event::Connect { node: standby, number });
            }
        }
    }

    /// The news of the other side's end arrives, or is lost.
    pub(super) fn closed(&mut self, stream: usize, at_primary: bool) {
        let s = &self.streams[stream];
        let (from, to) = if at_primary { (s.standby, s.primary) } else { (s.primary, s.standby) };
        if self.network.postgres(from, to) && self.nodes[to].host_up {
            self.close_here(stream, at_primary);
        }
    }

    /// Closes all streams of a server that ended. `told`: the kernel lives on and tells the other sides.
    pub(super) fn close_all(&mut self, node: usize, told: bool) {
        for stream in 0..self.streams.len() {
            let s = &mut self.streams[stream];
            let at_primary = s.sends && s.primary == node;
            let at_standby = s.receives && s.standby == node;
            if at_primary {
                s.sends = false;
            }
            if at_standby {
                s.receives = false;
                s.received.clear();
            }
            if told && (at_primary || at_standby) {
                let delay = self.network.delay(&mut self.rng);
                self.after(delay, Event::Closed { stream, at_primary: at_standby });
            }
        }
    }

    /// A process of a primary notices a reload: it reads what the configuration says by now.
    pub(super) fn adopt(&mut self, node: usize, number: u64, process: Process) {
        let pg = &mut self.nodes[node].pg;
        let (Run::Primary(run), Some(data)) = (&mut pg.run, &pg.data) else { return };
        if pg.number != number {
            return;
        }
        match process {
            // It tells all that it has started so far; whoever it starts from now on begins with the new names.
            Process::Postmaster => {
                run.names = data.names.clone();
                let told: Vec<_> = run.senders.iter().map(|s| Process::Sender(*s)).collect();
                for process in told.into_iter().chain([Process::Checkpointer]) {
                    let lag = self.scenario.reload_lag;
                    let delay = self.between(200, lag);
                    self.after(delay, Event::Adopt { node, number, process });
                }
            }
            Process::Checkpointer => {
                run.waits = data.names.count > 0;
                if !run.waits {
                    self.let_go(node, Lsn(u64::MAX));
                }
            }
            Process::Sender(stream) => {
                self.streams[stream].names = data.names.clone();
                self.release(stream);
            }
        }
    }
}

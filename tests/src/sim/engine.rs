//! The engine as an end: a scene, an application that sends and takes, and all that
//! an embedder can do to an engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use l3l4_engine::{
    CloseReason, Config, DropReason, Event, FiveTuple, FlowError, FlowId, FlowOptions, Instant,
    Protocol,
};

use super::datagrams::{self, Datagrams};
use super::end::{CLIENT_PORT, End, Place, SERVER_PORT, Status};
use super::invariants::{Ending, Findings, Ledger, Rule, Tap};
use super::plan::{Faults, Plan};
use crate::dut::Dut;
use crate::scene::Scene;
use crate::trace::Trace;
use crate::wire::{self, Body, SYN};

/// Most bytes the application gives in one call.
const PIECE: usize = 16_384;

/// The engine with its application.
#[derive(Debug)]
pub struct EngineEnd {
    scene: Scene,
    place: Place,
    faults: Faults,
    ledger: Ledger,
    tap: Tap,
    /// After the end of the conversation another flow of its tuple began.
    succeeded: bool,
    datagrams: Datagrams,
    findings: Findings,
    seed: u8,
    /// The TCP flow.
    flow: Option<FlowId>,
    /// The same when it has ended.
    past: Option<FlowId>,
    began: bool,
    talk: Talk,
    /// The last data was given in a batch.
    batches: bool,
    /// The UDP flow, and others that came by.
    others: BTreeMap<FlowId, Protocol>,
    opened_datagrams: Option<FlowId>,
    /// A datagram that the device refused.
    waiting: Option<Vec<u8>>,
    /// Datagrams to echo.
    echoes: Vec<(FlowId, Vec<u8>)>,
    /// How far the engine's clock is off, in nanoseconds.
    skew: i64,
    restarted: bool,
    paused: bool,
    retired: bool,
    outbox: Vec<Vec<u8>>,
    /// Counted by instances that trapped.
    not_taken: u64,
    replies_lost: u64,
    baseline: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Talk {
    established: bool,
    full: bool,
    finished: bool,
}

/// The configuration of an engine: the defaults, with limits that are over before a
/// run is, so that a peer that falls silent is a flow that ends.
#[must_use]
pub fn config(plan: &Plan, seed: u8) -> Config {
    let mut config = Config::new([seed; 32]);
    config.congestion_control = plan.congestion_control;
    config.mtu = plan.mtu;
    config.tcp_receive_buffer = u32::try_from(plan.buffer).expect("a buffer");
    config.tcp_send_buffer = config.tcp_receive_buffer;
    config.user_timeout = plan.give_up;
    config.tcp_idle_timeout = plan.give_up;
    config.fin_wait_timeout = plan.give_up;
    config
}

impl EngineEnd {
    /// An engine that has done nothing.
    #[must_use]
    pub fn new(
        mut dut: Box<dyn Dut>,
        place: Place,
        faults: Faults,
        ledger: Ledger,
        datagrams: Datagrams,
        full_trace: bool,
    ) -> Self {
        if !full_trace {
            dut.host().trace = Trace::digest_only();
        }
        dut.host().device_gulp = faults.gulps.then_some(1);
        dut.host().device_refuses_every_other = faults.refuses_every_other;
        let baseline = dut.counters().memory_bytes;
        Self {
            scene: Scene::new(dut),
            place,
            faults,
            ledger,
            tap: Tap::default(),
            succeeded: false,
            datagrams,
            findings: Findings::default(),
            seed: 1,
            flow: None,
            past: None,
            began: false,
            talk: Talk::default(),
            others: BTreeMap::new(),
            opened_datagrams: None,
            waiting: None,
            echoes: Vec::new(),
            skew: 0,
            restarted: false,
            paused: false,
            retired: false,
            outbox: Vec::new(),
            not_taken: 0,
            batches: false,
            replies_lost: 0,
            baseline,
        }
    }

    /// Sets the clocks of the scene and the observers.
    fn at(&mut self, now: Instant) {
        self.findings.now = now;
        let jumps = self.faults.jumps.iter();
        self.skew = jumps
            .filter(|(at, _)| *at <= now)
            .map(|(_, jump)| jump)
            .sum();
        self.scene.now = Instant(now.0.saturating_add_signed(self.skew));
    }

    /// When the engine's clock says `at`.
    fn world_time(&self, at: Instant) -> Instant {
        Instant(at.0.saturating_sub_signed(self.skew))
    }

    fn suffer(&mut self, now: Instant) {
        let within = |spans: &[std::ops::Range<Instant>]| spans.iter().any(|s| s.contains(&now));
        let shut = within(&self.faults.shut);
        self.scene.host().device_room = shut.then_some(0);
        let paused = within(&self.faults.pauses);
        if paused != self.paused {
            self.paused = paused;
            self.set_appetites();
        }
        if !self.restarted && self.faults.restart.is_some_and(|at| at <= now) {
            self.restarted = true;
            self.restart();
        }
    }

    fn set_appetites(&mut self) {
        let flows: Vec<_> = self.scene.host().living.keys().copied().collect();
        for flow in flows {
            self.set_appetite(flow);
            if !self.paused && self.scene.host().held.contains(&flow) {
                let _ = self.scene.resume(flow);
            }
        }
    }

    fn set_appetite(&mut self, flow: FlowId) {
        match self.paused {
            true => self.scene.host().appetite.insert(flow, 0),
            false => self.scene.host().appetite.remove(&flow),
        };
    }

    /// The guest traps: what its application was told stays, the flows are gone.
    fn restart(&mut self) {
        self.look_at_sent();
        self.count_losses();
        self.seed += 1;
        let lost = self.scene.restart([self.seed; 32]);
        self.take_note();
        // What the engine kept for the device is gone with it.
        let kept = self.datagrams.given - self.datagrams.given_empty;
        let left = self.datagrams.emitted - self.datagrams.emitted_empty;
        self.datagrams.given -= kept.saturating_sub(left);
        self.replies_lost += self.datagrams.given_empty - self.datagrams.emitted_empty;
        for flow in lost {
            self.others.remove(&flow);
            self.echoes.retain(|(of, _)| *of != flow);
            if self.flow == Some(flow) {
                self.flow = None;
                self.tap.forget();
                // A flow that was not established is another one when the peer tries
                // again.
                if self.talk.established || self.place.opens {
                    self.end(Ending::Broken("engine lost".into()));
                }
                self.talk = Talk::default();
            }
            if self.opened_datagrams == Some(flow) {
                self.waiting = None;
                self.datagrams.stop();
            }
        }
    }

    fn count_losses(&mut self) {
        let counters = self.scene.counters();
        self.not_taken += counters.dropped(DropReason::NotTaken);
        self.replies_lost += counters.replies_lost;
    }

    fn begin(&mut self) {
        if self.began || !self.place.opens {
            return;
        }
        self.began = true;
        let tuple = |protocol, server, client| FiveTuple {
            protocol,
            local: self.place.own(server, client),
            peer: self.place.other(server, client),
        };
        let tcp = tuple(Protocol::Tcp, SERVER_PORT, CLIENT_PORT);
        let udp = tuple(Protocol::Udp, datagrams::PORT, datagrams::OPENER_PORT);
        let options = FlowOptions::default();
        self.flow = Some(self.scene.open(&tcp, options).expect("a free tuple"));
        if self.datagrams.next().is_some() {
            let flow = self.scene.open(&udp, options).expect("a free tuple");
            self.others.insert(flow, Protocol::Udp);
            self.opened_datagrams = Some(flow);
        }
        self.set_appetites();
    }

    /// Reacts to what was called back until nothing more happens.
    fn react(&mut self, now: Instant) {
        while self.take_note() | self.give() | self.give_datagrams(now) {}
    }

    /// Whether there was anything to take note of.
    fn take_note(&mut self) -> bool {
        let announced = std::mem::take(&mut self.scene.host().announced);
        let mut received = std::mem::take(&mut self.scene.host().received);
        let events = self.scene.events();
        let any = !(announced.is_empty() && received.is_empty() && events.is_empty());
        for (flow, tuple) in announced {
            self.announce(flow, &tuple);
        }
        for (flow, pieces) in std::mem::take(&mut received) {
            for piece in pieces {
                self.deliver(flow, piece);
            }
        }
        for (flow, event) in events {
            self.note(flow, event);
        }
        any
    }

    fn announce(&mut self, flow: FlowId, tuple: &FiveTuple) {
        self.set_appetite(flow);
        let expected = tuple.protocol == Protocol::Tcp && self.is_own(tuple.local, tuple.peer);
        if expected && self.ledger.ended.is_none() && self.flow.is_none() {
            self.began = true;
            self.flow = Some(flow);
        } else {
            self.others.insert(flow, tuple.protocol);
        }
    }

    fn deliver(&mut self, flow: FlowId, piece: Vec<u8>) {
        if [self.flow, self.past].contains(&Some(flow)) {
            return self.ledger.deliver(&piece, &mut self.findings);
        }
        match self.others.get(&flow) {
            Some(Protocol::Udp) => {
                self.datagrams.deliver(&piece, &mut self.findings);
                if !self.place.opens {
                    self.echoes.push((flow, piece));
                }
            }
            Some(Protocol::Tcp | Protocol::IcmpEcho) | None => {
                self.findings.rule(Rule::I1, false, || {
                    format!("{} bytes of {flow:?}, which nobody opened", piece.len())
                });
            }
        }
    }

    fn note(&mut self, flow: FlowId, event: Event) {
        if let Event::Closed(_) = event {
            self.others.remove(&flow);
            self.echoes.retain(|(of, _)| *of != flow);
        }
        let over = self.past == Some(flow);
        self.findings
            .rule(Rule::I2, !over, || format!("{event:?} after the end"));
        if self.flow != Some(flow) {
            return;
        }
        // What is emitted after the end is no part of the conversation.
        self.look_at_sent();
        match event {
            Event::Closed(_) if !self.talk.established && !self.place.opens => {
                // The peer may try again, which is another flow.
                self.tap.forget();
            }
            Event::Established => self.talk.established = true,
            Event::Writable => self.talk.full = false,
            Event::PeerFinished => self.ledger.finish(&mut self.findings),
            Event::PeerReset => self.ledger.reset(&mut self.findings),
            Event::Closed(CloseReason::Finished) => self.end(Ending::Finished),
            Event::Closed(reason) => self.end(Ending::Broken(format!("{reason:?}"))),
        }
        if let Event::Closed(_) = event {
            self.past = self.flow.take();
        }
    }

    fn end(&mut self, ending: Ending) {
        self.ledger.end(ending, &mut self.findings);
    }

    /// Whether a call about the stream was made.
    fn give(&mut self) -> bool {
        let Some(flow) = self.flow.filter(|_| self.talk.established) else {
            return false;
        };
        if self.talk.full || self.talk.finished {
            return false;
        }
        let rest = &self.ledger.outgoing[self.ledger.given..];
        if rest.is_empty() {
            self.talk.finished = true;
            let result = self.scene.finish(flow);
            assert!(
                matches!(result, Ok(()) | Err(FlowError::Closing)),
                "{result:?}"
            );
            return true;
        }
        let piece = rest[..rest.len().min(PIECE)].to_vec();
        self.batches = self.faults.batches && !self.batches;
        if self.batches {
            self.give_batch(flow, &piece);
            return true;
        }
        match self.scene.tx(flow, &piece) {
            Ok(taken) => {
                self.ledger.given += taken;
                self.talk.full = taken < piece.len();
            }
            Err(FlowError::Closing) => self.talk.finished = true,
            Err(other) => panic!("l4-tx: {other:?}"),
        }
        true
    }

    /// Gives a piece of the stream in two portions, with an echo between them.
    fn give_batch(&mut self, flow: FlowId, piece: &[u8]) {
        let (first, second) = piece.split_at(piece.len() / 3);
        let may_echo = !self.scene.host().packets_kept();
        let echo = may_echo.then(|| self.echoes.pop()).flatten();
        let mut portions = vec![(flow, first)];
        portions.extend(echo.iter().map(|(of, data)| (*of, &data[..])));
        portions.push((flow, second));
        let mut taken = self.scene.tx_batch(&portions);
        let of_second = taken.pop().expect("an answer for each");
        if let Some((_, data)) = echo {
            match taken.pop().expect("an answer for each") {
                Ok(taken) if taken == data.len() => self.datagrams.give(&data),
                Ok(_) | Err(FlowError::UnknownFlow) => {}
                Err(other) => panic!("l4-tx-batch of a datagram: {other:?}"),
            }
        }
        match (taken.pop().expect("an answer for each"), of_second) {
            (Ok(of_first), Ok(of_second)) => {
                self.ledger.given += of_first + of_second;
                self.talk.full = of_first + of_second < piece.len();
            }
            (Err(FlowError::Closing), Err(FlowError::Closing)) => self.talk.finished = true,
            other => panic!("l4-tx-batch: {other:?}"),
        }
    }

    /// Whether a call about datagrams was made.
    fn give_datagrams(&mut self, now: Instant) -> bool {
        if self.scene.host().packets_kept() {
            return false;
        }
        if let Some((flow, data)) = self.echoes.pop() {
            self.give_datagram(flow, data);
            return true;
        }
        let Some(flow) = self.opened_datagrams else {
            return false;
        };
        let waiting = self.waiting.take();
        let Some(data) = waiting.or_else(|| self.datagrams.take_due(now)) else {
            return false;
        };
        self.give_datagram(flow, data);
        true
    }

    fn give_datagram(&mut self, flow: FlowId, data: Vec<u8>) {
        match self.scene.tx(flow, &data) {
            Ok(taken) if taken == data.len() => self.datagrams.give(&data),
            // The device refuses: the sender tries again, the echo does not.
            Ok(_) if self.place.opens => self.waiting = Some(data),
            Ok(_) | Err(FlowError::UnknownFlow) => {}
            Err(other) => panic!("l4-tx of a datagram: {other:?}"),
        }
    }

    /// Ends the flows of datagrams, which have no end of their own.
    fn finish_datagrams(&mut self) {
        let flows: Vec<_> = self.others.iter().map(|(f, p)| (*f, *p)).collect();
        for (flow, protocol) in flows {
            if protocol == Protocol::Udp {
                let _ = self.scene.finish(flow);
            }
        }
    }

    /// Whether these are the ends of the TCP conversation.
    fn is_own(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let own = self.place.own(SERVER_PORT, CLIENT_PORT);
        (own, self.place.other(SERVER_PORT, CLIENT_PORT)) == (local, peer)
    }

    /// Looks at what was emitted, and passes it on.
    fn look_at_sent(&mut self) {
        for packet in std::mem::take(&mut self.scene.host().sent) {
            match wire::read(&packet).map(|seen| seen.body) {
                Ok(Body::Tcp(segment)) => {
                    // What is not of the conversation answers noise; after its end a
                    // late SYN may begin another flow.
                    let own = self.is_own(segment.from, segment.to);
                    self.succeeded |= own && self.ledger.ended.is_some() && segment.has(SYN);
                    if own && !self.succeeded {
                        self.tap.emitted(&segment, &self.ledger, &mut self.findings);
                    }
                }
                Ok(Body::Udp(datagram)) => self.datagrams.emit(&datagram.payload),
                Ok(Body::Icmp(_) | Body::Fragment(_)) => {}
                Err(error) => self.findings.rule(Rule::I5, false, || error),
            }
            self.outbox.push(packet);
        }
    }

    fn check_acked(&mut self) {
        let broken = matches!(self.ledger.ended, Some(Ending::Broken(_)));
        if broken || (self.flow.is_none() && self.ledger.ended.is_none()) {
            return;
        }
        let (scene, flow) = (&mut self.scene, self.flow);
        let queued = || flow.and_then(|flow| scene.receive_queue(flow)).unwrap_or(0);
        self.tap
            .check_acked(&self.ledger, queued, &mut self.findings);
    }
}

impl End for EngineEnd {
    fn receive(&mut self, now: Instant, packets: Vec<Vec<u8>>) {
        if packets.is_empty() {
            return;
        }
        self.at(now);
        self.suffer(now);
        for packet in &packets {
            match wire::read(packet).map(|seen| seen.body) {
                Ok(Body::Tcp(segment)) if self.is_own(segment.to, segment.from) => {
                    self.tap.received(&segment);
                }
                Ok(Body::Udp(_)) => self.datagrams.arrived += 1,
                Ok(Body::Tcp(_) | Body::Icmp(_) | Body::Fragment(_)) | Err(_) => {}
            }
        }
        self.scene.rx_batch(&packets);
        self.look_at_sent();
    }

    fn act(&mut self, now: Instant) {
        self.at(now);
        self.suffer(now);
        let clock = self.scene.now;
        if self
            .scene
            .deadline
            .is_some_and(|deadline| deadline <= clock)
        {
            self.scene.poll();
        }
        self.begin();
        self.react(now);
        // A datagram that was late has opened a flow again.
        if self.retired && !self.others.is_empty() {
            self.finish_datagrams();
            self.react(now);
        }
        self.look_at_sent();
        // A device that refused packets has room again at once.
        while self.scene.host().packets_kept() && self.scene.host().device_room != Some(0) {
            self.scene.poll();
            self.react(now);
            self.look_at_sent();
        }
        self.check_acked();
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outbox)
    }

    fn next(&mut self, now: Instant) -> Option<Instant> {
        let spans = self.faults.pauses.iter().chain(&self.faults.shut);
        let edges = spans.flat_map(|span| [span.start, span.end]);
        let jumps = self.faults.jumps.iter().map(|(at, _)| *at);
        // A datagram that the device refused waits for the device.
        let waits = self.waiting.is_some() || self.scene.host().packets_kept();
        let due = self.datagrams.next().filter(|_| !waits);
        edges
            .chain(jumps)
            .chain(self.faults.restart)
            .filter(|at| *at > now)
            .chain(due)
            .chain(self.scene.deadline.map(|at| self.world_time(at)))
            .min()
    }

    fn status(&self) -> Status {
        match (&self.ledger.ended, self.flow) {
            (Some(_), Some(_)) | (None, Some(_)) => Status::Running,
            (Some(Ending::Finished), None) => Status::Ended { whole: true },
            (Some(Ending::Broken(_)), None) => Status::Ended { whole: false },
            (None, None) => Status::Idle,
        }
    }

    fn delivered(&self) -> usize {
        self.ledger.delivered
    }

    fn retire(&mut self, now: Instant) {
        self.at(now);
        self.datagrams.stop();
        self.retired = true;
        self.finish_datagrams();
        self.take_note();
        self.look_at_sent();
    }

    fn close_the_books(&mut self, now: Instant) {
        self.at(now);
        let left = self.scene.flows();
        self.findings.rule(Rule::I4, left.is_empty(), || {
            format!("flows that did not end: {left:?}")
        });
        self.count_losses();
        let counters = self.scene.counters();
        let most = self.baseline + self.baseline / 100;
        let gone = (counters.flows, counters.half_open, counters.time_wait) == (0, 0, 0);
        let memory = counters.memory_bytes;
        self.findings.rule(Rule::I7, gone && memory <= most, || {
            format!(
                "{memory} bytes with {} flows, {} half-open, {} in TIME-WAIT; {most} at most",
                counters.flows, counters.half_open, counters.time_wait
            )
        });
        self.datagrams
            .close_the_books(self.not_taken, self.replies_lost, &mut self.findings);
    }

    fn findings(&mut self) -> &mut Findings {
        &mut self.findings
    }

    fn digest(&mut self) -> Option<u64> {
        self.scene.host().trace.digest()
    }

    fn trace(&mut self) -> Vec<String> {
        self.scene.host().trace.take_lines()
    }
}

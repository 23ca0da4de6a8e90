//! A device under test, its clock, and the rules that hold in every scenario:
//! - every emitted packet passes the independent reader and the MTU (I5);
//! - every flow ends with exactly one `closed`, and nothing is said of it after;
//! - a deadline that is due is served by one poll, and polls are bounded by work
//!   (I6);
//! - what the device did not take is offered again first.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use l3l4_engine::{
    Checksum, CloseReason, Config, CounterSnapshot, DropReason, Event, FiveTuple, FlowError,
    FlowId, FlowOptions, FlowSnapshot, Instant, OpenError, Packet, Portion, Verdict,
};
use l3l4_host::Batch;

use crate::component::Component;
use crate::craft::{FAMILIES, Family, Peer};
use crate::dut::{Deadline, Dut, Native};
use crate::host::Host;
use crate::trace::Trace;
use crate::wire::{self, Seen};

/// Polls while nothing comes in: some flows' keep-alives of an hour are far fewer.
const MOST_POLLS: u32 = 100_000;

/// A configuration with a fixed seed.
#[must_use]
pub fn config() -> Config {
    Config::new([7; 32])
}

/// Runs a story on the native engine and on the component and asserts that the
/// traces are equal, byte for byte. `L3L4_DUT=native` leaves the component out, for
/// work on the engine.
pub fn on_both(config: Config, story: impl Fn(&mut Scene)) {
    let native = told(Box::new(Native::new(config).expect("in bounds")), &story);
    if native_only() {
        return;
    }
    let component = told(Box::new(Component::new(&config)), &story);
    if let Some(difference) = native.difference(&component) {
        panic!("the traces of native (-) and component (+) differ at {difference}");
    }
}

/// Whether `L3L4_DUT=native` leaves the component out.
#[must_use]
pub fn native_only() -> bool {
    std::env::var_os("L3L4_DUT").is_some_and(|dut| dut == "native")
}

/// [`on_both`] for IPv4 and for IPv6.
pub fn on_both_families(config: Config, story: impl Fn(&mut Scene, Family)) {
    for family in FAMILIES {
        on_both(config, |scene| story(scene, family));
    }
}

/// Runs a story on one device and gives its trace.
pub fn told(dut: Box<dyn Dut>, story: impl Fn(&mut Scene)) -> Trace {
    let mut scene = Scene::new(dut);
    story(&mut scene);
    scene.close_the_books();
    std::mem::take(&mut scene.dut.host().trace)
}

/// One device under test at one instant.
pub struct Scene {
    dut: Box<dyn Dut>,
    /// The clock, which only the story moves.
    pub now: Instant,
    /// What the last call returned.
    pub deadline: Deadline,
    latest: Instant,
    calls: u64,
    idle_polls: u64,
}

impl Scene {
    /// At one second past the origin, so that the clock can go back.
    #[must_use]
    pub fn new(dut: Box<dyn Dut>) -> Self {
        Self {
            dut,
            now: Instant(1_000_000_000),
            deadline: None,
            latest: Instant(0),
            calls: 0,
            idle_polls: 0,
        }
    }

    /// The host's policy and record.
    pub fn host(&mut self) -> &mut Host {
        self.dut.host()
    }

    /// What the host says to new flows from here on.
    pub fn verdict_on_new(&mut self, verdict: Verdict) {
        self.host().policy = Box::new(move |_| verdict);
    }

    // The exports.

    /// One packet arrives.
    pub fn rx(&mut self, packet: impl Into<Vec<u8>>) {
        self.rx_batch(&[packet.into()]);
    }

    /// Packets arrive in one batch, or as many as the host library gives to the
    /// component.
    pub fn rx_batch(&mut self, packets: &[Vec<u8>]) {
        let mut batch = Batch::new();
        for packet in packets {
            batch.push(packet);
        }
        let mut described = packets.iter().map(|packet| described(packet));
        for (bytes, part) in batch.parts() {
            let packets: Vec<_> = described.by_ref().take(part.len()).collect();
            self.rx_part(bytes, &packets);
        }
    }

    fn rx_part(&mut self, bytes: &[u8], packets: &[Packet]) {
        self.begin("l3-rx");
        if !self.host().silent {
            self.host().trace.packets("<", bytes, packets);
        }
        let deadline = self.dut.l3_rx(self.now, bytes, packets);
        self.end(deadline.expect("the lengths match"));
    }

    /// Data to send; how much was taken.
    pub fn tx(&mut self, flow: FlowId, data: &[u8]) -> Result<usize, FlowError> {
        self.begin(format_args!("l4-tx {flow:?} {} bytes", data.len()));
        let newly = self.allow_writable([flow]);
        let sent = self.dut.l4_tx(self.now, flow, data);
        self.sent(flow, data, sent, &newly)
    }

    /// Data to send on many flows in one call; how much was taken of each portion.
    pub fn tx_batch(&mut self, data: &[(FlowId, &[u8])]) -> Vec<Result<usize, FlowError>> {
        let portions: Vec<_> = data
            .iter()
            .map(|(f, data)| portion(*f, data.len()))
            .collect();
        let bytes: Vec<_> = data.iter().flat_map(|(_, data)| *data).copied().collect();
        self.begin(format_args!("l4-tx-batch {portions:?}"));
        let newly = self.allow_writable(data.iter().map(|(flow, _)| *flow));
        let sent = self.dut.l4_tx_batch(self.now, &bytes, &portions);
        let sent = sent.expect("the lengths match");
        assert_eq!(sent.taken.len(), data.len(), "an answer for each portion");
        let mut short = Vec::new();
        for ((flow, data), taken) in data.iter().zip(&sent.taken) {
            let Ok(taken) = *taken else {
                continue;
            };
            assert!(taken <= data.len(), "took more than given");
            assert!(
                taken == 0 || !short.contains(flow),
                "took what is behind a gap"
            );
            if taken < data.len() {
                short.push(*flow);
            }
        }
        self.expect_writable(&newly, &short);
        self.end(sent.deadline);
        self.host().trace.note(format_args!("= {:?}", sent.taken));
        sent.taken
    }

    /// A datagram from another source address.
    pub fn tx_from(
        &mut self,
        flow: FlowId,
        local: SocketAddr,
        data: &[u8],
    ) -> Result<usize, FlowError> {
        self.begin(format_args!(
            "l4-tx-from {flow:?} {local} {} bytes",
            data.len()
        ));
        let newly = self.allow_writable([flow]);
        let sent = self.dut.l4_tx_from(self.now, flow, local, data);
        self.sent(flow, data, sent, &newly)
    }

    /// Housekeeping, now.
    pub fn poll(&mut self) {
        self.begin("l4-poll");
        self.calls -= 1;
        let before = self.host().callbacks;
        let deadline = self.dut.l4_poll(self.now);
        if self.host().callbacks == before {
            self.idle_polls += 1;
        } else {
            self.calls += 1;
        }
        let (idle, calls) = (self.idle_polls, self.calls);
        assert!(
            idle <= 20 + 2 * calls,
            "{idle} polls did nothing, {calls} calls did work\n{}",
            self.host().trace.tail(30)
        );
        self.deadline = None;
        self.end(deadline);
    }

    /// The verdict on a waiting flow.
    pub fn verdict(&mut self, flow: FlowId, verdict: Verdict) -> Result<(), FlowError> {
        self.begin(format_args!("flow-verdict {flow:?} {verdict:?}"));
        let result = self.dut.flow_verdict(self.now, flow, verdict);
        self.end_result(result)
    }

    /// The host can take data again: all of it, unless the story sets an appetite.
    pub fn resume(&mut self, flow: FlowId) -> Result<(), FlowError> {
        self.begin(format_args!("flow-resume {flow:?}"));
        self.host().held.remove(&flow);
        let result = self.dut.flow_resume(self.now, flow);
        self.end_result(result)
    }

    /// The local side has sent all.
    pub fn finish(&mut self, flow: FlowId) -> Result<(), FlowError> {
        self.begin(format_args!("flow-finish {flow:?}"));
        let result = self.dut.flow_finish(self.now, flow);
        self.end_result(result)
    }

    /// Ends the flow.
    pub fn abort(&mut self, flow: FlowId) -> Result<(), FlowError> {
        self.begin(format_args!("flow-abort {flow:?}"));
        let result = self.dut.flow_abort(self.now, flow);
        self.end_result(result)
    }

    /// The host opens a flow.
    pub fn open(&mut self, tuple: &FiveTuple, options: FlowOptions) -> Result<FlowId, OpenError> {
        self.begin(format_args!("flow-open {tuple:?} {options:?}"));
        let result = self.dut.flow_open(self.now, tuple, options);
        let opened = result.map(|(flow, deadline)| {
            self.host().opened(flow, tuple.protocol);
            (flow, deadline)
        });
        let flow = opened.map(|(flow, _)| flow);
        let deadline = opened.map(|(_, deadline)| deadline);
        let _ = self.end_result(deadline);
        flow
    }

    /// A snapshot of a flow, which is part of the trace.
    pub fn info(&mut self, flow: FlowId) -> Result<FlowSnapshot, FlowError> {
        let info = self.dut.flow_info(flow);
        self.host()
            .trace
            .note(format_args!("flow-info {flow:?} {info:?}"));
        info
    }

    /// Bytes received that the host has not taken, while the flow lives; not part
    /// of the trace.
    pub fn receive_queue(&mut self, flow: FlowId) -> Option<u32> {
        self.dut.flow_info(flow).ok().map(|info| info.receive_queue)
    }

    /// The guest traps, and a new instance takes its place. The flows that are
    /// lost.
    pub fn restart(&mut self, seed: [u8; 32]) -> Vec<FlowId> {
        self.begin("restart");
        self.dut.restart(seed);
        // A new instance knows nothing of the time before it.
        self.latest = self.now;
        self.deadline = None;
        let lost = self.host().lost();
        self.host().trace.note(format_args!("lost {lost:?}"));
        self.poll();
        lost
    }

    /// The flows that live.
    pub fn flows(&mut self) -> Vec<FlowId> {
        self.dut.flows()
    }

    /// The totals, which are part of the trace; all but `memory_bytes`, so that one
    /// difference there does not fail every story (it has a test of its own).
    pub fn counters(&mut self) -> CounterSnapshot {
        let counters = self.dut.counters();
        if !self.host().silent {
            let traced = CounterSnapshot {
                memory_bytes: 0,
                ..counters
            };
            for line in format!("{traced:#?}").lines() {
                if !line.ends_with(" 0,") {
                    self.host().trace.note(line);
                }
            }
        }
        counters
    }

    /// Bytes of memory in use; not part of the trace.
    pub fn memory(&mut self) -> u64 {
        self.dut.counters().memory_bytes
    }

    /// Packets dropped for a reason.
    pub fn drops(&mut self, reason: DropReason) -> u64 {
        self.counters().dropped(reason)
    }

    // The clock.

    /// Lets time pass, polling at each deadline on the way.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        let mut polls = 0;
        while let Some(deadline) = self.deadline.filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.poll();
            polls += 1;
            assert!(
                polls < MOST_POLLS,
                "{polls} polls in {time:?} (I6)\n{}",
                self.host().trace.tail(40)
            );
        }
        self.now = end;
    }

    /// Lets time pass as [`wait`](Self::wait) does; every packet emitted on the way,
    /// with the time from here.
    pub fn watch(&mut self, time: Duration) -> Vec<(Duration, Seen)> {
        let (start, end) = (self.now, self.now + time);
        let mut seen = Vec::new();
        while let Some(deadline) = self.deadline.filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.poll();
            let packets = self.sent_packets();
            seen.extend(packets.into_iter().map(|packet| (self.now - start, packet)));
        }
        self.now = end;
        seen
    }

    /// Lets time pass without polling.
    pub fn skip(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    // What happened.

    /// All packets emitted since the last look.
    pub fn sent_packets(&mut self) -> Vec<Seen> {
        let packets = std::mem::take(&mut self.host().sent);
        packets
            .iter()
            .map(|packet| wire::read(packet).expect("checked"))
            .collect()
    }

    /// The one packet emitted since the last look.
    pub fn packet(&mut self) -> Seen {
        let mut packets = self.sent_packets();
        assert_eq!(
            packets.len(),
            1,
            "one packet\n{}",
            self.host().trace.tail(20)
        );
        packets.remove(0)
    }

    /// The one packet emitted since the last look, a TCP segment.
    pub fn tcp(&mut self) -> wire::Tcp {
        self.packet().tcp()
    }

    /// All packets emitted since the last look, TCP segments.
    pub fn segments(&mut self) -> Vec<wire::Tcp> {
        self.sent_packets().into_iter().map(Seen::tcp).collect()
    }

    /// Nothing was emitted since the last look.
    pub fn silence(&mut self) {
        let packets = self.sent_packets();
        assert!(
            packets.is_empty(),
            "silence, not {packets:?}\n{}",
            self.host().trace.tail(20)
        );
    }

    /// The events since the last look.
    pub fn events(&mut self) -> Vec<(FlowId, Event)> {
        std::mem::take(&mut self.host().events).into()
    }

    /// The events since the last look are these, of one flow.
    pub fn expect_events(&mut self, flow: FlowId, events: &[Event]) {
        let expected: Vec<_> = events.iter().map(|event| (flow, *event)).collect();
        let happened = self.events();
        assert_eq!(happened, expected, "\n{}", self.host().trace.tail(20));
    }

    /// The one event since the last look is the end of this flow, for this reason.
    pub fn expect_closed(&mut self, flow: FlowId, reason: CloseReason) {
        self.expect_events(flow, &[Event::Closed(reason)]);
    }

    /// The one flow announced since the last look.
    pub fn announced(&mut self) -> (FlowId, FiveTuple) {
        let announced: Vec<_> = std::mem::take(&mut self.host().announced).into();
        let [flow] = announced[..] else {
            panic!(
                "one flow, not {announced:?}\n{}",
                self.host().trace.tail(20)
            );
        };
        flow
    }

    /// No flow was announced since the last look.
    pub fn nobody_announced(&mut self) {
        let announced = std::mem::take(&mut self.host().announced);
        assert!(announced.is_empty(), "no flow, not {announced:?}");
    }

    /// The data of a flow since the last look.
    pub fn stream(&mut self, flow: FlowId) -> Vec<u8> {
        self.host().stream(flow)
    }

    /// The datagrams of a flow since the last look.
    pub fn datagrams(&mut self, flow: FlowId) -> Vec<Vec<u8>> {
        self.host()
            .received
            .remove(&flow)
            .unwrap_or_default()
            .into()
    }

    /// The handshake of a peer, with the usual options; the flow.
    pub fn connect(&mut self, peer: &mut Peer) -> FlowId {
        let mss = if peer.peer.is_ipv4() { 1460 } else { 1440 };
        self.rx(peer.syn().mss(mss));
        let (flow, _) = self.announced();
        let syn_ack = self.tcp();
        assert!(
            syn_ack.has(wire::SYN | wire::ACK),
            "a SYN-ACK, not {syn_ack}"
        );
        peer.hear(&syn_ack);
        self.rx(peer.ack());
        self.expect_events(flow, &[Event::Established]);
        flow
    }

    // The rules.

    fn begin(&mut self, what: impl std::fmt::Display) {
        let now = self.now;
        self.calls += 1;
        let host = self.host();
        if !host.silent {
            host.trace.call(now, what);
        }
        host.begin_export();
    }

    fn end(&mut self, deadline: Deadline) {
        // A call that is refused does not bring the clock forward: this one was not.
        self.latest = self.latest.max(self.now);
        // What was due before the call may be due after it, unless it was a poll.
        let latest = self.latest;
        let due_before = self.deadline.is_some_and(|deadline| deadline <= latest);
        self.deadline = deadline;
        self.host().end_export();
        if !self.host().silent {
            self.host()
                .trace
                .note(format_args!("= {:?}", deadline.map(|at| at.0)));
        }
        let name = self.dut.name();
        let host = self.dut.host();
        assert!(
            host.violations.is_empty(),
            "{name}: {:?}\n{}",
            host.violations,
            host.trace.tail(40)
        );
        assert!(
            due_before || deadline.is_none_or(|deadline| deadline > latest),
            "{name}: deadline {deadline:?} is not after {latest:?}\n{}",
            host.trace.tail(40)
        );
    }

    fn end_result<E: Copy + Debug>(&mut self, result: Result<Deadline, E>) -> Result<(), E> {
        match result {
            Ok(deadline) => self.end(deadline),
            Err(error) => self.host().trace.note(format_args!("= {error:?}")),
        }
        result.map(|_| ())
    }

    fn sent(
        &mut self,
        flow: FlowId,
        data: &[u8],
        sent: Result<l3l4_engine::Sent, FlowError>,
        newly: &[FlowId],
    ) -> Result<usize, FlowError> {
        let mut short = Vec::new();
        if let Ok(sent) = sent {
            assert!(sent.taken <= data.len(), "took more than given");
            if sent.taken < data.len() {
                short.push(flow);
            }
        }
        self.expect_writable(newly, &short);
        self.end_result(sent.map(|sent| sent.deadline))?;
        self.host().trace.note(format_args!("= {sent:?}"));
        sent.map(|sent| sent.taken)
    }

    /// `writable` may come before the call returns that takes too little. The flows for
    /// which it was not due before.
    fn allow_writable(&mut self, flows: impl IntoIterator<Item = FlowId>) -> Vec<FlowId> {
        let full = &mut self.host().full;
        flows
            .into_iter()
            .filter(|flow| full.insert(*flow))
            .collect()
    }

    /// Of flows that were allowed to, those that took all are not to say `writable`.
    fn expect_writable(&mut self, newly: &[FlowId], short: &[FlowId]) {
        let host = self.host();
        for flow in newly.iter().filter(|flow| !short.contains(flow)) {
            let silent = host.full.remove(flow) || !host.living.contains_key(flow);
            assert!(silent, "{flow:?} is writable, and was");
        }
    }

    /// At the end of a story: the engine and the host agree on who lives, and a
    /// flow that has ended is unknown.
    pub fn close_the_books(&mut self) {
        let mut flows = self.flows();
        flows.sort_unstable();
        let living: Vec<_> = self.host().living.keys().copied().collect();
        assert_eq!(flows, living, "flows and announced minus closed");
        let ended = self.host().ended.keys().next_back().copied();
        if let Some(flow) = ended {
            assert_eq!(self.info(flow), Err(FlowError::UnknownFlow));
        }
        let counters = self.counters();
        assert_eq!(usize::try_from(counters.flows).unwrap(), flows.len());
    }
}

impl Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scene on {} at {:?}", self.dut.name(), self.now)
    }
}

/// So many bytes for a flow.
#[must_use]
pub fn portion(flow: FlowId, length: usize) -> Portion {
    let length = u32::try_from(length).expect("a length");
    Portion { flow, length }
}

/// The record of one packet that stands for itself.
#[must_use]
pub fn described(packet: &[u8]) -> Packet {
    Packet {
        length: u32::try_from(packet.len()).expect("a packet"),
        segment_size: 0,
        checksum: Checksum::Full,
    }
}

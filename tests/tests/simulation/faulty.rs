//! Engines that break one rule each, to see that the harness notices. They are the
//! native engine with a hand in what its host records.

use std::collections::VecDeque;
use std::net::SocketAddr;

use l3l4_engine::{
    BatchError, BatchSent, Config, CounterSnapshot, Event, FiveTuple, FlowError, FlowId,
    FlowOptions, FlowSnapshot, Instant, OpenError, Packet, Portion, Sent, Verdict,
};
use l3l4_tests::craft::seal;
use l3l4_tests::dut::{Deadline, Dut, Native};
use l3l4_tests::host::Host;
use l3l4_tests::wire::{self, ACK, Body, SYN};

/// What an engine does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: the wrapper itself changes no run.
    None,
    /// Delivers all but one byte.
    LosesAByte,
    /// Says that the peer has finished when it is half-way.
    FinishesEarly,
    /// Delivers a byte after the end.
    DeliversAfterTheEnd,
    /// Ends a flow twice.
    EndsTwice,
    /// Acknowledges a byte that has not come.
    AcknowledgesTooMuch,
    /// Emits nothing from some moment on, and says nothing.
    FallsSilent,
    /// Emits a packet with a wrong checksum.
    BreaksAChecksum,
    /// Sends data that the peer's window has no room for.
    OverrunsTheWindow,
    /// Repeats its window scale in data.
    OffersAnOptionLate,
    /// Sends bytes that nobody gave.
    SendsOtherBytes,
    /// Wants to be polled all the time.
    Polls,
    /// Keeps 4 KiB of each flow.
    Leaks,
    /// Loses a datagram and counts nothing.
    LosesADatagram,
    /// Puts two datagrams into one.
    MergesDatagrams,
}

/// A native engine with a fault.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Native,
    fault: Fault,
    done: bool,
    packets: usize,
    bytes: usize,
    ended: Option<FlowId>,
}

impl Faulty {
    /// The engine.
    pub(crate) fn new(config: Config, fault: Fault) -> Self {
        Self {
            inner: Native::new(config).unwrap(),
            fault,
            done: false,
            packets: 0,
            bytes: 0,
            ended: None,
        }
    }

    /// After every call: what the host recorded, changed.
    fn meddle(&mut self) {
        match self.fault {
            Fault::None | Fault::Polls | Fault::Leaks => {}
            Fault::LosesAByte
            | Fault::LosesADatagram
            | Fault::MergesDatagrams
            | Fault::DeliversAfterTheEnd => self.meddle_with_data(),
            Fault::FinishesEarly | Fault::EndsTwice => self.meddle_with_events(),
            Fault::AcknowledgesTooMuch
            | Fault::FallsSilent
            | Fault::BreaksAChecksum
            | Fault::OverrunsTheWindow
            | Fault::OffersAnOptionLate
            | Fault::SendsOtherBytes => self.meddle_with_packets(),
        }
    }

    fn meddle_with_data(&mut self) {
        let fault = self.fault;
        let host = self.inner.host();
        let mut events = host.events.iter();
        let ended = events.find(|(_, event)| *event == Event::PeerFinished);
        let ended = ended.map(|(flow, _)| *flow);
        // The application has looked at the end.
        if let (Fault::DeliversAfterTheEnd, None, Some(flow)) = (fault, ended, self.ended) {
            host.received.entry(flow).or_default().push_back(vec![0]);
            self.ended = None;
        }
        if fault == Fault::DeliversAfterTheEnd && ended.is_some() && !self.done {
            self.ended = ended;
            self.done = true;
        }
        for pieces in host.received.values_mut() {
            if self.done {
                return;
            }
            let big = pieces.front().is_some_and(|piece| piece.len() > 1000);
            let small = pieces.front().is_some_and(|piece| piece.len() < 600);
            match fault {
                Fault::LosesAByte if big && self.bytes > 50_000 => {
                    pieces[0].remove(500);
                    self.done = true;
                }
                Fault::LosesADatagram if small => {
                    pieces.pop_front();
                    self.done = true;
                }
                Fault::MergesDatagrams if small => {
                    let more = pieces[0].clone();
                    pieces[0].extend(more);
                    self.done = pieces[0].len() > 1;
                }
                _ => {}
            }
            self.bytes += pieces.iter().map(Vec::len).sum::<usize>();
        }
    }

    fn meddle_with_events(&mut self) {
        let fault = self.fault;
        let host = self.inner.host();
        let big = host
            .received
            .iter()
            .find(|(_, pieces)| pieces.iter().any(|piece| piece.len() > 1000))
            .map(|(flow, _)| *flow);
        let closed = host.events.iter().copied().find(|(flow, event)| {
            matches!(event, Event::Closed(_)) && host.ended.contains_key(flow)
        });
        match (fault, big, closed) {
            (Fault::FinishesEarly, Some(flow), _) if !self.done => {
                self.done = true;
                host.events.push_back((flow, Event::PeerFinished));
            }
            (Fault::EndsTwice, _, Some((flow, event))) => {
                host.events.push_back((flow, event));
            }
            _ => {}
        }
    }

    fn meddle_with_packets(&mut self) {
        let mut kept = VecDeque::new();
        for packet in std::mem::take(&mut self.inner.host().sent) {
            self.packets += 1;
            kept.extend(self.changed(packet));
        }
        self.inner.host().sent = kept;
    }

    fn changed(&mut self, mut packet: Vec<u8>) -> Option<Vec<u8>> {
        let Ok(Body::Tcp(segment)) = wire::read(&packet).map(|seen| seen.body) else {
            return Some(packet);
        };
        if self.fault == Fault::FallsSilent {
            return (self.packets < 50).then_some(packet);
        }
        let data = segment.payload.len() > 1000;
        if self.done || segment.has(SYN) || !segment.has(ACK) || self.packets < 50 {
            return Some(packet);
        }
        let tcp = packet.len() - segment.payload.len() - 20;
        let add = |packet: &mut Vec<u8>, at: usize, more: u32| {
            let field: [u8; 4] = packet[at..at + 4].try_into().unwrap();
            let value = u32::from_be_bytes(field).wrapping_add(more);
            packet[at..at + 4].copy_from_slice(&value.to_be_bytes());
        };
        match self.fault {
            Fault::AcknowledgesTooMuch => add(&mut packet, tcp + 8, 1),
            Fault::OverrunsTheWindow if data => add(&mut packet, tcp + 4, 70_000),
            Fault::SendsOtherBytes if data => packet[tcp + 20 + 100] ^= 1,
            Fault::OffersAnOptionLate if data => {
                packet[tcp + 12] = 0x60;
                packet[tcp + 20..tcp + 24].copy_from_slice(&[3, 3, 0, 1]);
            }
            Fault::BreaksAChecksum if data => {
                packet[tcp + 16] ^= 1;
                self.done = true;
                return Some(packet);
            }
            _ => return Some(packet),
        }
        self.done = true;
        Some(seal(packet))
    }

    fn after<T>(&mut self, result: T) -> T {
        self.meddle();
        result
    }
}

impl Dut for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn host(&mut self) -> &mut Host {
        self.inner.host()
    }

    fn l3_rx(
        &mut self,
        now: Instant,
        bytes: &[u8],
        packets: &[Packet],
    ) -> Result<Deadline, BatchError> {
        let result = self.inner.l3_rx(now, bytes, packets);
        self.after(result)
    }

    fn l4_tx(&mut self, now: Instant, flow: FlowId, data: &[u8]) -> Result<Sent, FlowError> {
        let result = self.inner.l4_tx(now, flow, data);
        self.after(result)
    }

    fn l4_tx_batch(
        &mut self,
        now: Instant,
        bytes: &[u8],
        portions: &[Portion],
    ) -> Result<BatchSent, BatchError> {
        let result = self.inner.l4_tx_batch(now, bytes, portions);
        self.after(result)
    }

    fn l4_tx_from(
        &mut self,
        now: Instant,
        flow: FlowId,
        local: SocketAddr,
        data: &[u8],
    ) -> Result<Sent, FlowError> {
        let result = self.inner.l4_tx_from(now, flow, local, data);
        self.after(result)
    }

    fn l4_poll(&mut self, now: Instant) -> Deadline {
        let deadline = self.inner.l4_poll(now);
        let deadline = self.after(deadline);
        match self.fault {
            Fault::Polls if deadline.is_some() => Some(Instant(now.0 + 1000)),
            _ => deadline,
        }
    }

    fn flow_verdict(
        &mut self,
        now: Instant,
        flow: FlowId,
        verdict: Verdict,
    ) -> Result<Deadline, FlowError> {
        let result = self.inner.flow_verdict(now, flow, verdict);
        self.after(result)
    }

    fn flow_resume(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError> {
        let result = self.inner.flow_resume(now, flow);
        self.after(result)
    }

    fn flow_finish(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError> {
        let result = self.inner.flow_finish(now, flow);
        self.after(result)
    }

    fn flow_abort(&mut self, now: Instant, flow: FlowId) -> Result<Deadline, FlowError> {
        let result = self.inner.flow_abort(now, flow);
        self.after(result)
    }

    fn flow_open(
        &mut self,
        now: Instant,
        tuple: &FiveTuple,
        options: FlowOptions,
    ) -> Result<(FlowId, Deadline), OpenError> {
        let result = self.inner.flow_open(now, tuple, options);
        self.after(result)
    }

    fn flow_info(&mut self, flow: FlowId) -> Result<FlowSnapshot, FlowError> {
        self.inner.flow_info(flow)
    }

    fn flows(&mut self) -> Vec<FlowId> {
        self.inner.flows()
    }

    fn counters(&mut self) -> CounterSnapshot {
        let mut counters = self.inner.counters();
        if self.fault == Fault::Leaks {
            counters.memory_bytes += 4096 * counters.flows_closed;
        }
        counters
    }

    fn restart(&mut self, seed: [u8; 32]) {
        self.inner.restart(seed);
    }
}

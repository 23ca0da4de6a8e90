//! The yardstick: a TCP engine made of smoltcp's sockets, one in a set of its own
//! a flow, as the foundation had it. Native only, and TCP only.
//!
//! The path of a packet is whole: parse and verify, keyed lookup, smoltcp's socket
//! behind an interface, one settling a touched flow and call, deadlines in a tree,
//! packets out in batches with their checksums filled. What no row of the bench
//! needs is left out: other protocols, FIN and RST, verdicts that wait, refusing
//! devices and applications, eviction, snapshots.
#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths that the parser has proved"
)]

mod checksum;
mod deadlines;
mod egress;
mod flow;
mod ip;
mod port;
mod segment;
mod siphash;
mod socket;
mod table;
mod wire;

use std::mem;
use std::time::Duration;

use l3l4_engine::{Callbacks, Checksum, FlowId, Instant, Packet, Sent, Verdict};

use self::deadlines::{Armed, Deadlines, Due};
use self::egress::Egress;
use self::flow::TcpFlow;
use self::ip::IpPacket;
use self::segment::{Segment, Syn};
use self::siphash::Key;
use self::socket::Sockets;
use self::table::{Flow, FlowTable};

/// What the yardstick can be set to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) seed: [u8; 32],
    pub(crate) mtu: usize,
    /// Bytes of the receive and of the send buffer of each flow.
    pub(crate) receive_buffer: usize,
    pub(crate) send_buffer: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) user_timeout: Duration,
    pub(crate) fin_wait_timeout: Duration,
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Baseline {
    common: Common,
    flows: FlowTable,
    deadlines: Deadlines,
    sockets: Sockets,
    /// Flows to settle before the call ends.
    touched: Vec<u32>,
}

/// What its parts share between calls.
#[derive(Debug)]
struct Common {
    now: Instant,
    config: Config,
    egress: Egress,
    counters: Counters,
}

/// Totals, counted as an engine counts them.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    l3_rx_packets: u64,
    l3_rx_bytes: u64,
    l3_tx_packets: u64,
    l3_tx_bytes: u64,
    l4_rx_bytes: u64,
    l4_tx_bytes: u64,
}

/// The surroundings of one call.
struct Turn<'a> {
    now: Instant,
    config: &'a Config,
    egress: &'a mut Egress,
    counters: &'a mut Counters,
    callbacks: &'a mut dyn Callbacks,
}

impl Common {
    fn turn<'a>(&'a mut self, callbacks: &'a mut dyn Callbacks) -> Turn<'a> {
        Turn {
            now: self.now,
            config: &self.config,
            egress: &mut self.egress,
            counters: &mut self.counters,
            callbacks,
        }
    }
}

impl Baseline {
    pub(crate) fn new(config: Config) -> Self {
        let [table_key, sequence_key] = Key::pair(&config.seed);
        Self {
            flows: FlowTable::new(table_key),
            deadlines: Deadlines::default(),
            sockets: Sockets::new(config.mtu, sequence_key),
            touched: Vec::new(),
            common: Common {
                now: Instant(0),
                config,
                egress: Egress::new(),
                counters: Counters::default(),
            },
        }
    }

    /// Received IP packets, end to end in `bytes`. One that cannot be used is
    /// dropped.
    pub(crate) fn l3_rx(
        &mut self,
        now: Instant,
        bytes: &[u8],
        packets: &[Packet],
        callbacks: &mut dyn Callbacks,
    ) -> Option<Instant> {
        self.begin(now);
        self.common.counters.l3_rx_packets += packets.len() as u64;
        self.common.counters.l3_rx_bytes += bytes.len() as u64;
        let mut rest = bytes;
        for packet in packets {
            let (bytes, after) = rest.split_at(packet.length as usize);
            rest = after;
            self.receive(bytes, packet.checksum == Checksum::Full, callbacks);
        }
        self.end(callbacks)
    }

    /// Data to send on a flow that lives.
    pub(crate) fn l4_tx(
        &mut self,
        now: Instant,
        flow: FlowId,
        data: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Option<Sent> {
        let slot = self.flows.slot_of(flow)?;
        self.begin(now);
        let taken = self.flows.flow_mut(slot)?.tcp.l4_tx(now, data);
        self.common.counters.l4_tx_bytes += taken as u64;
        self.touch(slot);
        let deadline = self.end(callbacks);
        Some(Sent { taken, deadline })
    }

    /// Housekeeping.
    pub(crate) fn l4_poll(
        &mut self,
        now: Instant,
        callbacks: &mut dyn Callbacks,
    ) -> Option<Instant> {
        self.begin(now);
        while let Some((slot, due)) = self.deadlines.take_due(self.common.now) {
            if let Some(flow) = self.flows.flow_mut(slot) {
                flow.armed.take(due);
            }
            self.touch(slot);
        }
        self.end(callbacks)
    }

    fn receive(&mut self, bytes: &[u8], verify: bool, callbacks: &mut dyn Callbacks) -> Option<()> {
        let packet = IpPacket::parse(bytes, verify)?;
        let segment = Segment::parse(&packet, verify)?;
        match self.flows.find(&segment.tuple) {
            Some(slot) => {
                let flow = self.flows.flow_mut(slot)?;
                let mut turn = self.common.turn(callbacks);
                flow.tcp
                    .l3_rx(&mut self.sockets, &mut turn, packet.whole, &segment);
                self.touch(slot);
            }
            None if segment.is_open() => self.accept(&segment, callbacks),
            None => {}
        }
        Some(())
    }

    fn accept(&mut self, segment: &Segment<'_>, callbacks: &mut dyn Callbacks) {
        let mut turn = self.common.turn(callbacks);
        let syn = Syn::of(segment);
        let tcp = TcpFlow::accept(&mut self.sockets, &mut turn, &segment.tuple, &syn);
        let slot = self.flows.insert(Flow {
            tuple: segment.tuple,
            armed: Armed::NONE,
            touched: false,
            tcp: Box::new(tcp),
        });
        let verdict = callbacks.flow_new(self.flows.id_of(slot), &(&segment.tuple).into());
        assert!(matches!(verdict, Verdict::Accept(_)), "{verdict:?}");
        self.touch(slot);
    }

    fn begin(&mut self, now: Instant) {
        self.common.now = self.common.now.max(now);
    }

    fn end(&mut self, callbacks: &mut dyn Callbacks) -> Option<Instant> {
        let mut touched = mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            self.settle(slot, callbacks);
        }
        self.touched = touched;
        let Common {
            egress, counters, ..
        } = &mut self.common;
        egress.flush(callbacks, counters);
        self.deadlines.next()
    }

    fn touch(&mut self, slot: u32) {
        if let Some(flow) = self.flows.flow_mut(slot)
            && !mem::replace(&mut flow.touched, true)
        {
            self.touched.push(slot);
        }
    }

    fn settle(&mut self, slot: u32, callbacks: &mut dyn Callbacks) {
        let id = self.flows.id_of(slot);
        let Some(flow) = self.flows.flow_mut(slot) else {
            return;
        };
        flow.touched = false;
        let mut turn = self.common.turn(callbacks);
        let (transmit, limit) = flow.tcp.settle(id, &mut self.sockets, &mut turn);
        self.deadlines.arm(slot, &mut flow.armed, Due::Limit, limit);
        if let Some(at) = transmit {
            self.deadlines.arm(slot, &mut flow.armed, Due::Transmit, at);
        }
    }
}

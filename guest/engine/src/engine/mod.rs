//! The verbs: every call of an embedder begins and ends here.

mod flows;
mod l3_rx;
mod l4_tx;
mod queue;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::net::SocketAddr;

use self::queue::Queue;
use crate::config::{Config, OutOfBounds};
use crate::counters::CounterSnapshot;
use crate::deadlines::{Deadlines, Due};
use crate::egress::Egress;
use crate::ip::identification::Identifications;
use crate::ip::reassembly::Reassembly;
use crate::limit::RateLimit;
use crate::siphash::Key;
use crate::table::{Flow, FlowTable, Kind};
use crate::tcp::Settled;
use crate::tcp::pool::{Pool, Purpose};
use crate::tcp::secrets::Secrets;
use crate::tcp::time_wait::TimeWaits;
use crate::turn::Common;
use crate::types::{
    BatchError, BatchSent, Callbacks, Checksum, CloseReason, FiveTuple, FlowError, FlowId,
    FlowOptions, FlowSnapshot, FlowState, Instant, OpenError, Packet, Portion, Sent, Timer,
    Verdict, sooner,
};

/// One engine: one device, one thread. The contract of each call stands in
/// `wit/engine.wit`.
///
/// Every call brings the clock forward, takes its input in, *touches* the flows
/// concerned, and at its end *settles* each touched flow once: what came is
/// delivered, what may go is sent, what happened is reported, and the flow's
/// deadline is noted. On return nothing is pending but deadlines.
#[derive(Debug)]
pub struct Engine {
    common: Common,
    flows: FlowTable,
    deadlines: Deadlines,
    time_waits: TimeWaits,
    reassembly: Reassembly,
    stray_replies: RateLimit,
    /// Half-open flows by age; those that are not half-open any more, or gone,
    /// are passed over.
    half_open: VecDeque<FlowId>,
    /// Flows to settle before the call ends.
    touched: Vec<u32>,
    /// Flows to settle when the device takes packets again.
    stalled: Queue,
    /// Flows to settle when there is memory again.
    starved: Queue,
    /// Flows that wait for their first block to send, which may be had when the
    /// starved still have to wait.
    mute: Queue,
    /// Until when a SYN cookie of ours may be answered.
    cookies_until: Instant,
}

impl Engine {
    /// An engine with this configuration.
    ///
    /// # Errors
    ///
    /// Names the first item outside of its bounds.
    pub fn new(config: Config) -> Result<Self, OutOfBounds> {
        config.check()?;
        let [table_key, secret_key] = Key::pair(&config.seed);
        Ok(Self {
            flows: FlowTable::new(table_key),
            deadlines: Deadlines::default(),
            time_waits: TimeWaits::new(table_key, config.time_wait, config.max_flows as usize),
            reassembly: Reassembly::new(table_key, &config),
            stray_replies: RateLimit::new(config.max_stray_replies),
            half_open: VecDeque::new(),
            touched: Vec::new(),
            stalled: Queue::new(|flow| &mut flow.stalled),
            starved: Queue::new(|flow| &mut flow.starved),
            mute: Queue::new(|flow| &mut flow.mute),
            cookies_until: Instant::default(),
            common: Common {
                now: Instant::default(),
                config,
                egress: Egress::new(),
                pool: Pool::new(config.memory_limit),
                secrets: Secrets::new(secret_key),
                identifications: Identifications::new(table_key),
                counters: CounterSnapshot::default(),
            },
        })
    }

    /// Received IP packets, end to end in `bytes`.
    ///
    /// # Errors
    ///
    /// When the packets' lengths do not add up to the length of the bytes; no
    /// packet was looked at.
    pub fn l3_rx(
        &mut self,
        now: Instant,
        bytes: &[u8],
        packets: &[Packet],
        callbacks: &mut dyn Callbacks,
    ) -> Result<Option<Instant>, BatchError> {
        add_up(packets.iter().map(|packet| packet.length), bytes)?;
        self.begin(now, callbacks);
        self.common.counters.l3_rx_packets += packets.len() as u64;
        self.common.counters.l3_rx_bytes += bytes.len() as u64;
        let mut rest = bytes;
        for packet in packets {
            let (bytes, after) = rest.split_at(packet.length as usize);
            rest = after;
            if let Err(reason) = self.receive(bytes, packet.checksum == Checksum::Full, callbacks) {
                self.common.counters.drop_packet(reason);
            }
        }
        Ok(self.end(callbacks))
    }

    /// Data to send on a flow.
    ///
    /// # Errors
    ///
    /// See [`FlowError`]; nothing was taken.
    pub fn l4_tx(
        &mut self,
        now: Instant,
        flow: FlowId,
        data: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<Sent, FlowError> {
        let slot = self.may_take_data(flow, None, data)?;
        self.begin(now, callbacks);
        let at_once = self.may_send_at_once();
        let taken = self.take_data(slot, None, data, at_once, callbacks);
        let deadline = self.end(callbacks);
        Ok(Sent { taken, deadline })
    }

    /// Data to send on many flows, end to end in `bytes`: as `l4_tx` for each portion in
    /// order. After one that was not taken whole, none of the flow's later ones is taken.
    ///
    /// # Errors
    ///
    /// When the portions' lengths do not add up to the length of the bytes; nothing
    /// was taken.
    pub fn l4_tx_batch(
        &mut self,
        now: Instant,
        bytes: &[u8],
        portions: &[Portion],
        callbacks: &mut dyn Callbacks,
    ) -> Result<BatchSent, BatchError> {
        add_up(portions.iter().map(|portion| portion.length), bytes)?;
        self.begin(now, callbacks);
        let taken = self.take_batch(bytes, portions, callbacks);
        let deadline = self.end(callbacks);
        Ok(BatchSent { taken, deadline })
    }

    /// One UDP datagram from another source address than the flow's.
    ///
    /// # Errors
    ///
    /// See [`FlowError`]; nothing was taken.
    pub fn l4_tx_from(
        &mut self,
        now: Instant,
        flow: FlowId,
        local: SocketAddr,
        data: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<Sent, FlowError> {
        let slot = self.may_take_data(flow, Some(local), data)?;
        self.begin(now, callbacks);
        let taken = self.take_data(slot, Some(local), data, true, callbacks);
        let deadline = self.end(callbacks);
        Ok(Sent { taken, deadline })
    }

    /// Housekeeping.
    pub fn l4_poll(&mut self, now: Instant, callbacks: &mut dyn Callbacks) -> Option<Instant> {
        self.common.counters.l4_polls += 1;
        self.begin(now, callbacks);
        while let Some((slot, due)) = self.deadlines.take_due(self.common.now) {
            if let Some(flow) = self.flows.flow_mut(slot) {
                flow.armed.take(due);
            }
            self.touch(slot);
        }
        self.end(callbacks)
    }

    /// The verdict on a flow that waits for it, or another one on a flow of datagrams.
    ///
    /// # Errors
    ///
    /// See [`FlowError`]; nothing changed.
    pub fn flow_verdict(
        &mut self,
        now: Instant,
        flow: FlowId,
        verdict: Verdict,
        callbacks: &mut dyn Callbacks,
    ) -> Result<Option<Instant>, FlowError> {
        let slot = self.may_decide(flow, &verdict)?;
        self.begin(now, callbacks);
        self.decide(slot, verdict, callbacks);
        Ok(self.end(callbacks))
    }

    /// The host takes data of this flow again.
    ///
    /// # Errors
    ///
    /// See [`FlowError`]; nothing changed.
    pub fn flow_resume(
        &mut self,
        now: Instant,
        flow: FlowId,
        callbacks: &mut dyn Callbacks,
    ) -> Result<Option<Instant>, FlowError> {
        let slot = self.decided(flow)?;
        self.begin(now, callbacks);
        if let Some((tcp, _)) = self.flows.tcp_mut(slot) {
            tcp.resume();
            self.touch(slot);
        }
        Ok(self.end(callbacks))
    }

    /// The local side has sent all.
    ///
    /// # Errors
    ///
    /// See [`FlowError`]; nothing changed.
    pub fn flow_finish(
        &mut self,
        now: Instant,
        flow: FlowId,
        callbacks: &mut dyn Callbacks,
    ) -> Result<Option<Instant>, FlowError> {
        let slot = self.decided(flow)?;
        if let Some((tcp, _)) = self.flows.tcp_mut(slot) {
            tcp.may_finish()?;
        }
        self.begin(now, callbacks);
        match self.flows.tcp_mut(slot) {
            Some((tcp, _)) => {
                tcp.finish();
                self.touch(slot);
            }
            None => self.close(slot, CloseReason::Aborted, callbacks),
        }
        Ok(self.end(callbacks))
    }

    /// Ends a flow at once.
    ///
    /// # Errors
    ///
    /// When there is no such flow.
    pub fn flow_abort(
        &mut self,
        now: Instant,
        flow: FlowId,
        callbacks: &mut dyn Callbacks,
    ) -> Result<Option<Instant>, FlowError> {
        let slot = self.flows.slot_of(flow).ok_or(FlowError::UnknownFlow)?;
        self.begin(now, callbacks);
        let mut reason = CloseReason::Aborted;
        if let Some((tcp, tuple)) = self.flows.tcp_mut(slot) {
            tcp.abort(&mut self.common.turn(callbacks), tuple);
            if tcp.is_reset() {
                reason = CloseReason::ResetByPeer;
            }
        }
        self.close(slot, reason, callbacks);
        Ok(self.end(callbacks))
    }

    /// Opens a flow from any local to any peer address.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; nothing changed.
    pub fn flow_open(
        &mut self,
        now: Instant,
        tuple: &FiveTuple,
        options: FlowOptions,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(FlowId, Option<Instant>), OpenError> {
        self.may_open(now, tuple, &options)?;
        self.begin(now, callbacks);
        let flow = self.open(&tuple.into(), &options, callbacks);
        Ok((flow, self.end(callbacks)))
    }

    /// A snapshot of one flow.
    ///
    /// # Errors
    ///
    /// When there is no such flow.
    pub fn flow_info(&self, flow: FlowId) -> Result<FlowSnapshot, FlowError> {
        let slot = self.flows.slot_of(flow).ok_or(FlowError::UnknownFlow)?;
        let flow = self.flows.flow(slot).ok_or(FlowError::UnknownFlow)?;
        Ok(snapshot(flow, &self.common.config))
    }

    /// The ids of all flows, in the order of their slots.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowId> {
        self.flows.ids().collect()
    }

    /// The totals.
    #[must_use]
    pub fn counters(&self) -> CounterSnapshot {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut counters = self.common.counters;
        counters.flows = count(self.flows.len());
        counters.time_wait = count(self.time_waits.len());
        counters.memory_bytes =
            self.common.pool.memory() + self.time_waits.memory() + self.reassembly.memory();
        counters
    }
}

/// The frame of every call. A call that is refused is refused before it begins:
/// what a turn does may bring a deadline, and an error has no place for one.
impl Engine {
    fn begin(&mut self, now: Instant, callbacks: &mut dyn Callbacks) {
        if now < self.common.now {
            self.common.counters.time_went_back += 1;
        }
        self.common.now = self.common.now.max(now);
        self.time_waits.expire(self.common.now);
        if self.common.egress.is_refused() {
            self.flush(callbacks);
        }
        self.touch_stalled();
        self.expire_fragments(callbacks);
    }

    fn end(&mut self, callbacks: &mut dyn Callbacks) -> Option<Instant> {
        // Those that find no memory now either wait for the next call.
        let mut starved = self.starved.len();
        let mut told = 0;
        loop {
            self.settle_touched(callbacks);
            if starved > 0 && self.common.pool.has_block(Purpose::ReceiveMore) {
                starved -= 1;
                if let Some(slot) = self.starved.pop(&mut self.flows) {
                    self.touch(slot);
                    continue;
                }
            }
            // No more hear of room than there are blocks.
            if told < self.common.pool.left()
                && let Some(slot) = self.mute.pop(&mut self.flows)
            {
                told += 1;
                self.touch(slot);
                continue;
            }
            // What was refused in this call is offered again in the next.
            if !self.common.egress.is_refused() {
                self.flush(callbacks);
            }
            if self.common.egress.is_refused() || self.stalled.len() == 0 {
                break;
            }
            self.touch_stalled();
        }
        let of_flows = sooner(self.deadlines.next(), self.time_waits.deadline());
        sooner(of_flows, self.reassembly.deadline())
    }

    fn flush(&mut self, callbacks: &mut dyn Callbacks) {
        self.common
            .egress
            .flush(callbacks, &mut self.common.counters);
    }

    fn touch(&mut self, slot: u32) {
        if let Some(flow) = self.flows.flow_mut(slot)
            && !mem::replace(&mut flow.touched, true)
        {
            self.touched.push(slot);
        }
    }

    fn stall(&mut self, slot: u32) {
        self.stalled.push(&mut self.flows, slot);
    }

    fn touch_stalled(&mut self) {
        if self.common.egress.is_refused() {
            return;
        }
        while let Some(slot) = self.stalled.pop(&mut self.flows) {
            self.touch(slot);
        }
    }

    fn settle_touched(&mut self, callbacks: &mut dyn Callbacks) {
        let mut touched = mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            self.settle(slot, callbacks);
        }
        // Settling touches nothing, so the list is still empty; its memory stays.
        self.touched = touched;
    }

    /// Delivers what came for a flow, sends what may go, reports what happened,
    /// and notes when it next wants attention; or ends it.
    fn settle(&mut self, slot: u32, callbacks: &mut dyn Callbacks) {
        let id = self.flows.id_of(slot);
        let Some(flow) = self.flows.flow_mut(slot) else {
            return;
        };
        flow.touched = false;
        match &mut flow.kind {
            Kind::Waiting(waiting) => {
                let at = waiting.heard + self.common.config.verdict_timeout;
                self.arm_or_close(slot, at, Timer::Verdict, callbacks);
            }
            Kind::Datagram(datagram) => {
                datagram.settle(id, &mut self.common.turn(callbacks));
                let at = datagram.deadline();
                if datagram.is_stalled() {
                    self.stall(slot);
                }
                self.arm_or_close(slot, at, Timer::Idle, callbacks);
            }
            Kind::Tcp(tcp) => {
                let settled = tcp.settle(id, &mut self.common.turn(callbacks), &flow.tuple);
                if !tcp.is_half_open() {
                    self.leave_half_open(slot);
                }
                match settled {
                    Settled::Alive {
                        transmit,
                        limit,
                        starved,
                        mute,
                    } => {
                        if starved {
                            self.starved.push(&mut self.flows, slot);
                        }
                        if mute {
                            self.mute.push(&mut self.flows, slot);
                        }
                        self.arm(slot, Due::Limit, limit);
                        if let Some(at) = transmit {
                            self.arm(slot, Due::Transmit, at);
                        }
                    }
                    Settled::Stalled { limit } => {
                        self.arm(slot, Due::Limit, limit);
                        self.stall(slot);
                    }
                    Settled::Over(reason, record) => {
                        if let (Some(record), Some(flow)) = (record, self.flows.flow(slot)) {
                            self.time_waits.insert(self.common.now, flow.tuple, record);
                        }
                        self.close(slot, reason, callbacks);
                    }
                }
            }
        }
    }

    fn arm(&mut self, slot: u32, due: Due, at: Instant) {
        if let Some(flow) = self.flows.flow_mut(slot) {
            self.deadlines.arm(slot, &mut flow.armed, due, at);
        }
    }

    fn arm_or_close(
        &mut self,
        slot: u32,
        at: Instant,
        timer: Timer,
        callbacks: &mut dyn Callbacks,
    ) {
        if at <= self.common.now {
            self.close(slot, CloseReason::TimedOut(timer), callbacks);
        } else {
            self.arm(slot, Due::Limit, at);
        }
    }
}

/// Whether a batch's items are what its bytes hold.
fn add_up(lengths: impl Iterator<Item = u32>, bytes: &[u8]) -> Result<(), BatchError> {
    match lengths.map(u64::from).sum::<u64>() == bytes.len() as u64 {
        true => Ok(()),
        false => Err(BatchError::LengthMismatch),
    }
}

fn snapshot(flow: &Flow, config: &Config) -> FlowSnapshot {
    let mut snapshot = FlowSnapshot {
        tuple: (&flow.tuple).into(),
        state: FlowState::Waiting,
        opened: flow.opened,
        bytes_received: 0,
        bytes_sent: 0,
        receive_queue: 0,
        send_queue: 0,
        receive_window: 0,
        send_window: 0,
        congestion_window: 0,
        max_segment_size: 0,
        round_trip_time: None,
        retransmission_timeout: None,
        retransmits: 0,
    };
    match &flow.kind {
        Kind::Waiting(_) => {}
        Kind::Datagram(datagram) => {
            snapshot.state = FlowState::Datagram;
            snapshot.bytes_received = datagram.bytes_received;
            snapshot.bytes_sent = datagram.bytes_sent;
        }
        Kind::Tcp(tcp) => {
            let tcp = tcp.snapshot(config.min_rto);
            snapshot.state = tcp.state;
            snapshot.bytes_received = tcp.bytes_received;
            snapshot.bytes_sent = tcp.bytes_sent;
            snapshot.receive_queue = tcp.receive_queue;
            snapshot.send_queue = tcp.send_queue;
            snapshot.receive_window = tcp.receive_window;
            snapshot.send_window = tcp.send_window;
            snapshot.round_trip_time = tcp.round_trip_time;
            snapshot.retransmits = tcp.retransmits;
            snapshot.congestion_window = tcp.congestion_window;
            snapshot.retransmission_timeout = tcp.retransmission_timeout;
            snapshot.max_segment_size = tcp.max_segment_size;
        }
    }
    snapshot
}

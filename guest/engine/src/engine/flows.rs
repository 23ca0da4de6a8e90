//! Flows that begin, are decided, and end, within their bounds.

use core::mem;
use core::net::SocketAddr;

use super::Engine;
use crate::counters::DropReason;
use crate::datagram::DatagramFlow;
use crate::deadlines::Armed;
use crate::icmp;
use crate::ip;
use crate::table::{Flow, FlowTable, Kind, Waiting};
use crate::tcp::{Origin, Seq, Syn, TcpFlow, segment};
use crate::tuple::Tuple;
use crate::types::{
    Callbacks, CloseReason, Event, FiveTuple, FlowError, FlowId, FlowOptions, Instant, OpenError,
    Protocol, Refusal, Verdict,
};

impl Engine {
    /// Announces a new flow and carries out the verdict. Returns its slot when it
    /// lives; otherwise why the packet had no effect.
    pub(super) fn announce(
        &mut self,
        tuple: &Tuple,
        syn: Option<(Syn, Origin)>,
        packet: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<u32, DropReason> {
        if self.flows.len() >= self.common.config.max_flows as usize
            || !self.has_memory(FlowTable::RECORD)
        {
            return Err(DropReason::FlowLimit);
        }
        let slot = self.insert(
            tuple,
            Kind::Waiting(Waiting {
                heard: self.common.now,
                syn,
            }),
        );
        self.common.counters.flows_announced += 1;
        if !matches!(syn, Some((_, Origin::Cookie(_)))) {
            self.enter_half_open(slot, callbacks);
        }
        let verdict = callbacks.flow_new(self.flows.id_of(slot), &tuple.into());
        match verdict {
            Verdict::Accept(options) => {
                self.accept(slot, &options.clamped(), callbacks);
                Ok(slot)
            }
            Verdict::Wait => {
                self.touch(slot);
                Ok(slot)
            }
            Verdict::Refuse(refusal) => {
                self.refuse(tuple, syn.as_ref(), refusal, packet, callbacks);
                self.remove(slot);
                Err(DropReason::Refused)
            }
            Verdict::Drop => {
                self.remove(slot);
                Err(DropReason::Dropped)
            }
        }
    }

    /// The slot of a flow that has its verdict.
    pub(super) fn decided(&self, flow: FlowId) -> Result<u32, FlowError> {
        let slot = self.flows.slot_of(flow).ok_or(FlowError::UnknownFlow)?;
        match self.flows.flow(slot).map(|flow| &flow.kind) {
            Some(Kind::Tcp(_) | Kind::Datagram(_)) => Ok(slot),
            Some(Kind::Waiting(_)) => Err(FlowError::Undecided),
            None => Err(FlowError::UnknownFlow),
        }
    }

    /// The slot of the flow that may be given this verdict: one that waits, or one of
    /// datagrams, on which the host may change its mind.
    pub(super) fn may_decide(&self, flow: FlowId, verdict: &Verdict) -> Result<u32, FlowError> {
        let slot = self.flows.slot_of(flow).ok_or(FlowError::UnknownFlow)?;
        match self.flows.flow(slot).map(|flow| &flow.kind) {
            Some(Kind::Waiting(_) | Kind::Datagram(_)) => {}
            Some(Kind::Tcp(_)) => return Err(FlowError::AlreadyDecided),
            None => return Err(FlowError::UnknownFlow),
        }
        match verdict {
            Verdict::Accept(options) if !options.in_bounds() => Err(FlowError::BadOption),
            Verdict::Accept(_) | Verdict::Refuse(_) | Verdict::Drop | Verdict::Wait => Ok(slot),
        }
    }

    /// A late verdict on a flow that waits for it, or another one on a flow of
    /// datagrams.
    pub(super) fn decide(&mut self, slot: u32, verdict: Verdict, callbacks: &mut dyn Callbacks) {
        let Some(flow) = self.flows.flow(slot) else {
            return;
        };
        let tuple = flow.tuple;
        let syn = match flow.kind {
            Kind::Waiting(Waiting { syn, .. }) => syn,
            Kind::Datagram(_) => None,
            Kind::Tcp(_) => return,
        };
        match verdict {
            Verdict::Accept(options) => self.accept(slot, &options, callbacks),
            Verdict::Wait => {}
            Verdict::Refuse(refusal) => {
                let (packet, length) = icmp::recall(&tuple, syn.as_ref().map(|(syn, _)| syn));
                self.refuse(&tuple, syn.as_ref(), refusal, &packet[..length], callbacks);
                self.close(slot, CloseReason::Aborted, callbacks);
            }
            Verdict::Drop => self.close(slot, CloseReason::Aborted, callbacks),
        }
    }

    /// Makes a waiting flow a real one, if there is memory for it. A flow of
    /// datagrams that is one already has these options from here.
    pub(super) fn accept(
        &mut self,
        slot: u32,
        options: &FlowOptions,
        callbacks: &mut dyn Callbacks,
    ) {
        let config = &self.common.config;
        let Some(flow) = self.flows.flow_mut(slot) else {
            return;
        };
        let tuple = flow.tuple;
        let syn = match &mut flow.kind {
            Kind::Waiting(Waiting { syn, .. }) => *syn,
            Kind::Datagram(datagrams) => {
                datagrams.set_options(config, tuple.protocol, options);
                return self.touch(slot);
            }
            Kind::Tcp(_) => return,
        };
        let kind = match syn {
            Some(_) if !self.has_memory(TcpFlow::RECORD) => {
                self.common.counters.flows_out_of_memory += 1;
                self.refuse(&tuple, syn.as_ref(), Refusal::Reset, &[], callbacks);
                self.close(slot, CloseReason::OutOfMemory, callbacks);
                return;
            }
            Some((syn, origin)) => {
                let mut turn = self.common.turn(callbacks);
                Kind::Tcp(TcpFlow::accept(&mut turn, &tuple, &syn, origin, options))
            }
            None => {
                self.leave_half_open(slot);
                let (now, config) = (self.common.now, &self.common.config);
                Kind::Datagram(DatagramFlow::new(now, config, tuple.protocol, options))
            }
        };
        if let Some(flow) = self.flows.flow_mut(slot) {
            flow.kind = kind;
        }
        self.touch(slot);
    }

    /// Tells the peer that its flow is not wanted. `packet` is its first packet.
    pub(super) fn refuse(
        &mut self,
        tuple: &Tuple,
        syn: Option<&(Syn, Origin)>,
        refusal: Refusal,
        packet: &[u8],
        callbacks: &mut dyn Callbacks,
    ) {
        if let (Some((syn, origin)), Refusal::Reset) = (syn, refusal) {
            let seq = match origin {
                Origin::Cookie(iss) => *iss + 1,
                Origin::Fresh | Origin::Above(_) => Seq(0),
            };
            let mut turn = self.common.turn(callbacks);
            if turn.make_room_for_reply() {
                segment::send_refusal(&mut turn, tuple, syn, seq);
            }
        } else if self.may_reply_to_stranger(callbacks) {
            icmp::send_unreachable(&mut self.common.turn(callbacks), tuple, refusal, packet);
        }
    }

    /// Whether a flow may be opened at `now`.
    pub(super) fn may_open(
        &mut self,
        now: Instant,
        five_tuple: &FiveTuple,
        options: &FlowOptions,
    ) -> Result<(), OpenError> {
        let tuple = Tuple::from(five_tuple);
        if tuple.protocol == Protocol::IcmpEcho
            || (tuple.local, tuple.local_port) == (tuple.peer, tuple.peer_port)
            || tuple.local.is_ipv4() != tuple.peer.is_ipv4()
            || !is_usable(&five_tuple.local)
            || !is_usable(&five_tuple.peer)
        {
            return Err(OpenError::BadAddress);
        }
        if !options.in_bounds() {
            return Err(OpenError::BadOption);
        }
        if self.flows.find(&tuple).is_some() || self.time_waits.holds(now, &tuple) {
            return Err(OpenError::InUse);
        }
        if self.flows.len() >= self.common.config.max_flows as usize {
            return Err(OpenError::FlowLimit);
        }
        let record = match tuple.protocol {
            Protocol::Tcp => FlowTable::RECORD + TcpFlow::RECORD,
            Protocol::Udp | Protocol::IcmpEcho => FlowTable::RECORD,
        };
        if !self.has_memory(record) {
            self.common.counters.flows_out_of_memory += 1;
            return Err(OpenError::OutOfMemory);
        }
        Ok(())
    }

    /// Opens a flow that may be opened.
    pub(super) fn open(
        &mut self,
        tuple: &Tuple,
        options: &FlowOptions,
        callbacks: &mut dyn Callbacks,
    ) -> FlowId {
        let mut turn = self.common.turn(callbacks);
        let kind = match tuple.protocol {
            Protocol::Tcp => Kind::Tcp(TcpFlow::open(&mut turn, tuple, options)),
            Protocol::Udp | Protocol::IcmpEcho => {
                let (now, config) = (turn.now, turn.config);
                Kind::Datagram(DatagramFlow::new(now, config, tuple.protocol, options))
            }
        };
        let slot = self.insert(tuple, kind);
        self.common.counters.flows_opened += 1;
        self.touch(slot);
        self.flows.id_of(slot)
    }

    fn insert(&mut self, tuple: &Tuple, kind: Kind) -> u32 {
        self.common.pool.charge(FlowTable::RECORD);
        self.flows.insert(Flow {
            tuple: *tuple,
            opened: self.common.now,
            armed: Armed::NONE,
            touched: false,
            stalled: false,
            starved: false,
            mute: false,
            half_open: false,
            kind,
        })
    }

    /// Ends a flow and tells the host.
    pub(super) fn close(&mut self, slot: u32, reason: CloseReason, callbacks: &mut dyn Callbacks) {
        let id = self.flows.id_of(slot);
        if self.remove(slot) {
            callbacks.flow_event(id, Event::Closed(reason));
        }
    }

    /// Ends a flow of which the host knows that it has ended. Says whether there
    /// was one.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        self.leave_half_open(slot);
        let Some(mut flow) = self.flows.remove(slot) else {
            return false;
        };
        self.deadlines.disarm(slot, flow.armed);
        if let Kind::Tcp(tcp) = &mut flow.kind {
            tcp.clear(&mut self.common.pool);
        }
        self.common.pool.discharge(FlowTable::RECORD);
        self.common.counters.flows_closed += 1;
        true
    }

    /// Whether a SYN is to be answered without state.
    pub(super) fn answers_with_cookies(&self) -> bool {
        let config = &self.common.config;
        config.syn_cookies && self.common.counters.half_open >= config.max_half_open
    }

    fn has_memory(&self, bytes: u64) -> bool {
        let beside = self.time_waits.memory();
        self.common.pool.has_room_for_record(beside + bytes)
    }

    /// Counts a flow as half-open; the oldest gives way when there are too many.
    fn enter_half_open(&mut self, slot: u32, callbacks: &mut dyn Callbacks) {
        let most = self.common.config.max_half_open;
        while self.common.counters.half_open >= most {
            let Some(oldest) = self.half_open.pop_front() else {
                break;
            };
            if let Some(slot) = self.flows.slot_of(oldest)
                && self.flows.flow(slot).is_some_and(|flow| flow.half_open)
            {
                self.common.counters.flows_evicted += 1;
                self.close(slot, CloseReason::Evicted, callbacks);
            }
        }
        // Most flows do not stay half-open; forget those before the list is
        // twice as long as it can be of use.
        if self.half_open.len() > 2 * most as usize {
            let flows = &self.flows;
            self.half_open.retain(|id| {
                flows
                    .slot_of(*id)
                    .and_then(|slot| flows.flow(slot))
                    .is_some_and(|flow| flow.half_open)
            });
        }
        self.half_open.push_back(self.flows.id_of(slot));
        self.common.counters.half_open += 1;
        if let Some(flow) = self.flows.flow_mut(slot) {
            flow.half_open = true;
        }
    }

    pub(super) fn leave_half_open(&mut self, slot: u32) {
        if let Some(flow) = self.flows.flow_mut(slot)
            && mem::take(&mut flow.half_open)
        {
            self.common.counters.half_open -= 1;
        }
    }
}

/// Whether an address and port can be an end of a flow.
pub(super) fn is_usable(end: &SocketAddr) -> bool {
    end.port() != 0 && !ip::is_martian(end.ip())
}

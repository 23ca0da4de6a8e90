//! Packets in: parse, find the flow, hand over; answer those of no flow.

use smoltcp::wire::IpProtocol;

use super::Engine;
use crate::config::IcmpEchoPolicy;
use crate::counters::DropReason;
use crate::datagram::Udp;
use crate::icmp::{self, Message};
use crate::ip::{self, Fragment, IpPacket, Received, Rejected, Report};
use crate::table::{Kind, Waiting};
use crate::tcp::secrets::COOKIE_LIFETIME;
use crate::tcp::time_wait::Met;
use crate::tcp::{self, Origin, Segment, Syn, segment};
use crate::tuple::Tuple;
use crate::types::{Callbacks, CloseReason, Instant};

/// Data of one segment that is lent to the host straight from the packet. What is
/// less is gathered, and lent once a block: a call costs about 90 ns across the
/// border, as much as it takes to copy that.
const LENT_BYTES: usize = 4096;

impl Engine {
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        verify: bool,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), DropReason> {
        match ip::parse(bytes, verify) {
            Ok(Received::Packet(packet)) => self.receive_packet(&packet, verify, callbacks),
            Ok(Received::Fragment(it)) => self.receive_fragment(&it, verify, callbacks),
            Err(rejected) => Err(self.reject(&rejected, callbacks)),
        }
    }

    fn receive_packet(
        &mut self,
        packet: &IpPacket<'_>,
        verify: bool,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), DropReason> {
        match packet.protocol {
            IpProtocol::Tcp => {
                self.receive_tcp(packet, &Segment::parse(packet, verify)?, callbacks)
            }
            IpProtocol::Udp => {
                let udp = Udp::parse(packet, verify)?;
                self.receive_datagram(packet, &udp.tuple, udp.data, callbacks)
            }
            IpProtocol::Icmp if packet.src.is_ipv4() => {
                self.receive_icmp(packet, verify, callbacks)
            }
            IpProtocol::Icmpv6 if packet.src.is_ipv6() => {
                self.receive_icmp(packet, verify, callbacks)
            }
            _ => Err(self.reject(&packet.unsupported(), callbacks)),
        }
    }

    /// What the last fragment completes goes the way of a packet in one piece.
    fn receive_fragment(
        &mut self,
        fragment: &Fragment<'_>,
        verify: bool,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), DropReason> {
        let now = self.common.now;
        let counters = &mut self.common.counters;
        let Some(datagram) = self.reassembly.add(now, fragment, verify, counters)? else {
            return Ok(());
        };
        counters.datagrams_reassembled += 1;
        // The fragments' headers were proven, and the checksum of this one is ours.
        match ip::parse(&datagram.packet, false) {
            Ok(Received::Packet(packet)) => {
                self.receive_packet(&packet, datagram.verify, callbacks)
            }
            // A fragment of fragments: nobody makes one in good will.
            Ok(Received::Fragment(_)) => Err(DropReason::Fragment),
            Err(rejected) => Err(self.reject(&rejected, callbacks)),
        }
    }

    /// Ends the datagrams whose fragments did not come in time.
    pub(super) fn expire_fragments(&mut self, callbacks: &mut dyn Callbacks) {
        let now = self.common.now;
        while let Some(expired) = self.reassembly.expire(now, &mut self.common.counters) {
            if let Some(report) = expired.report() {
                self.send_report(&report, callbacks);
            }
        }
    }

    fn reject(&mut self, rejected: &Rejected<'_>, callbacks: &mut dyn Callbacks) -> DropReason {
        if let Some(report) = &rejected.report {
            self.send_report(report, callbacks);
        }
        rejected.reason
    }

    fn send_report(&mut self, report: &Report<'_>, callbacks: &mut dyn Callbacks) {
        if report.may_be_sent() && self.may_reply_to_stranger(callbacks) {
            icmp::send_report(&mut self.common.turn(callbacks), report);
        }
    }

    fn receive_tcp(
        &mut self,
        packet: &IpPacket<'_>,
        segment: &Segment<'_>,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), DropReason> {
        let Some(slot) = self.flows.find(&segment.tuple) else {
            return self.receive_first_segment(packet, segment, callbacks);
        };
        let id = self.flows.id_of(slot);
        let Some(flow) = self.flows.flow_mut(slot) else {
            return Err(DropReason::StraySegment);
        };
        match &mut flow.kind {
            Kind::Waiting(waiting) => {
                let now = self.common.now;
                match waiting.segment_arrives(now, segment) {
                    WhileWaiting::Repeated => {
                        self.common.counters.repeated_syns += 1;
                        Err(DropReason::Undecided)
                    }
                    WhileWaiting::Undecided => Err(DropReason::Undecided),
                    WhileWaiting::GivenUp => {
                        self.close(slot, CloseReason::ResetByPeer, callbacks);
                        Ok(())
                    }
                    WhileWaiting::Stray => self.answer_stray(segment, callbacks),
                }
            }
            Kind::Tcp(tcp) if tcp.has_ended() => {
                // It may have ended in this batch: then it goes now, and a SYN is
                // the peer's next connection.
                self.settle(slot, callbacks);
                match self.flows.find(&segment.tuple) {
                    Some(_) => self.answer_stray(segment, callbacks),
                    None => self.receive_first_segment(packet, segment, callbacks),
                }
            }
            Kind::Tcp(tcp) => {
                let mut turn = self.common.turn(callbacks);
                // The first of a call is worth a call of its own, and often the only.
                let lends = !flow.touched || segment.data.len() >= LENT_BYTES;
                let arrived = tcp.l3_rx(&mut turn, segment, lends.then_some(id));
                if !tcp.is_half_open() {
                    self.leave_half_open(slot);
                }
                self.touch(slot);
                arrived
            }
            Kind::Datagram(_) => self.answer_stray(segment, callbacks),
        }
    }

    fn receive_first_segment(
        &mut self,
        packet: &IpPacket<'_>,
        segment: &Segment<'_>,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), DropReason> {
        let mut turn = self.common.turn(callbacks);
        let origin = match self.time_waits.l3_rx(&mut turn, segment) {
            Met::Record => return Ok(()),
            Met::Reopened(old) => Origin::Above(old),
            Met::Nothing => Origin::Fresh,
        };
        let tuple = &segment.tuple;
        if segment.is_open() {
            let syn = Syn::of(segment);
            if self.answers_with_cookies() {
                return self.send_cookie(tuple, &syn, callbacks);
            }
            let syn = Some((syn, origin));
            return self.announce(tuple, syn, packet.whole, callbacks).map(drop);
        }
        match self.recall_cookie(segment) {
            Some(syn) => {
                let slot = self.announce(tuple, Some(syn), packet.whole, callbacks)?;
                match self.flows.tcp_mut(slot) {
                    Some((tcp, _)) => tcp.l3_rx(&mut self.common.turn(callbacks), segment, None),
                    None => Err(DropReason::Undecided),
                }
            }
            None => self.answer_stray(segment, callbacks),
        }
    }

    /// RFC 4987 3.6.
    fn send_cookie(
        &mut self,
        tuple: &Tuple,
        syn: &Syn,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), DropReason> {
        let mut turn = self.common.turn(callbacks);
        if turn.make_room_for_reply() {
            tcp::send_cookie(&mut turn, tuple, syn);
            turn.counters.syn_cookies_sent += 1;
        }
        self.cookies_until = self.common.now + COOKIE_LIFETIME;
        Ok(())
    }

    /// The SYN that a segment of no flow completes, if a cookie was sent for it.
    fn recall_cookie(&mut self, segment: &Segment<'_>) -> Option<(Syn, Origin)> {
        let now = self.common.now;
        if now >= self.cookies_until || segment.syn || segment.rst {
            return None;
        }
        let (syn, iss) = self.common.secrets.recall(now, segment)?;
        self.common.counters.syn_cookies_accepted += 1;
        Some((syn, Origin::Cookie(iss)))
    }

    /// RFC 9293 3.10.7.1: a segment of no connection is answered with RST, and
    /// costs no state.
    fn answer_stray(
        &mut self,
        segment: &Segment<'_>,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), DropReason> {
        if segment.rst {
            return Err(DropReason::StraySegment);
        }
        // A SYN that also finishes opens nothing and belongs to nothing: silence.
        if segment.syn && segment.ack.is_none() && segment.fin {
            return Err(DropReason::Malformed);
        }
        if self.may_reply_to_stranger(callbacks) {
            segment::send_reset(&mut self.common.turn(callbacks), segment);
        }
        Err(DropReason::StraySegment)
    }

    /// Whether a packet of no flow may be answered, and there is room to.
    pub(super) fn may_reply_to_stranger(&mut self, callbacks: &mut dyn Callbacks) -> bool {
        if !self.stray_replies.allow(self.common.now) {
            self.common.counters.replies_limited += 1;
            return false;
        }
        self.common.turn(callbacks).make_room_for_reply()
    }

    fn receive_datagram(
        &mut self,
        packet: &IpPacket<'_>,
        tuple: &Tuple,
        data: &[u8],
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), DropReason> {
        let slot = match self.flows.find(tuple) {
            Some(slot) => slot,
            None => self.announce(tuple, None, packet.whole, callbacks)?,
        };
        let id = self.flows.id_of(slot);
        let Some(flow) = self.flows.flow_mut(slot) else {
            return Err(DropReason::Dropped);
        };
        match &mut flow.kind {
            Kind::Waiting(waiting) => {
                waiting.heard = self.common.now;
                Err(DropReason::Undecided)
            }
            Kind::Datagram(datagram) => datagram.l3_rx(id, &mut self.common.turn(callbacks), data),
            Kind::Tcp(_) => Err(DropReason::UnsupportedProtocol),
        }
    }

    fn receive_icmp(
        &mut self,
        packet: &IpPacket<'_>,
        verify: bool,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), DropReason> {
        match Message::parse(packet, verify)? {
            Message::EchoRequest { tuple, body } => match self.common.config.icmp_echo {
                IcmpEchoPolicy::Answer => {
                    let mut turn = self.common.turn(callbacks);
                    if turn.make_room_for_reply() {
                        icmp::send_echo_reply(&mut turn, &tuple, body);
                    }
                    Ok(())
                }
                IcmpEchoPolicy::Drop => Err(DropReason::EchoPolicy),
                IcmpEchoPolicy::Deliver => self.receive_datagram(packet, &tuple, body, callbacks),
            },
            Message::Unreachable { tuple, seq, reason } => {
                let slot = self.flows.find(&tuple).ok_or(DropReason::IcmpIgnored)?;
                let Some(flow) = self.flows.flow_mut(slot) else {
                    return Err(DropReason::IcmpIgnored);
                };
                match &mut flow.kind {
                    Kind::Datagram(_) => {
                        self.close(slot, CloseReason::Unreachable(reason), callbacks)
                    }
                    Kind::Tcp(tcp) => {
                        if !tcp.unreachable(seq, reason) {
                            return Err(DropReason::IcmpIgnored);
                        }
                        self.touch(slot);
                    }
                    Kind::Waiting(_) => return Err(DropReason::IcmpIgnored),
                }
                Ok(())
            }
            Message::PacketTooBig { tuple, seq, mtu } => {
                let slot = self.flows.find(&tuple).ok_or(DropReason::IcmpIgnored)?;
                let Some(flow) = self.flows.flow_mut(slot) else {
                    return Err(DropReason::IcmpIgnored);
                };
                let turn = self.common.turn(callbacks);
                let is_news = match &mut flow.kind {
                    Kind::Datagram(datagram) => datagram.packet_too_big(&turn, mtu),
                    Kind::Tcp(tcp) => tcp.packet_too_big(&turn, &flow.tuple, seq, mtu),
                    Kind::Waiting(_) => false,
                };
                if !is_news {
                    return Err(DropReason::IcmpIgnored);
                }
                self.touch(slot);
                Ok(())
            }
        }
    }
}

/// What a segment means to a flow that awaits its verdict.
enum WhileWaiting {
    /// The peer still waits.
    Repeated,
    /// The peer sends data, its handshake being complete; it will send it again.
    Undecided,
    /// The peer wants no more.
    GivenUp,
    /// It belongs to no connection.
    Stray,
}

impl Waiting {
    fn segment_arrives(&mut self, now: Instant, segment: &Segment<'_>) -> WhileWaiting {
        let origin = self.syn.map_or(Origin::Fresh, |(_, origin)| origin);
        let is_complete = matches!(origin, Origin::Cookie(_));
        if segment.is_open() && !is_complete {
            self.heard = now;
            // Another sequence number is another try of the peer's.
            self.syn = Some((Syn::of(segment), origin));
            return WhileWaiting::Repeated;
        }
        match self.syn {
            // RFC 9293 3.10.7.4 in SYN-RECEIVED: the RST that is next in line.
            Some((syn, _)) if segment.rst && segment.seq == syn.irs + 1 => WhileWaiting::GivenUp,
            Some(_) if is_complete && !segment.rst => {
                self.heard = now;
                WhileWaiting::Undecided
            }
            _ => WhileWaiting::Stray,
        }
    }
}

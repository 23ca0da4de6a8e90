//! A packet of the capture: whose it is, and what it means for its conversation.

use std::net::{IpAddr, SocketAddr};

use super::conversation::{Conversation, From, MOST_HELD_IN_ALL};
use super::mapper::{self, Offers};
use super::packet::{ACK, Headers, ICMP, ICMPV6, RST, SYN, Segment, TCP, checksum};
use super::speaker::Speaker;
use super::{Checksums, Packet, Replay, ReplayError, Sink};
use crate::types::{Checksum, FiveTuple, FlowOptions, Instant, Protocol, Verdict};

/// Most pairs of addresses, and flows without a start, that are kept apart.
const MOST_KEPT: usize = 65_536;

impl<S: Sink> Replay<S> {
    pub(super) fn feed(&mut self, now: Instant, mut packet: Packet) -> Result<(), ReplayError> {
        let Some(headers) = packet.headers else {
            self.floor().report.not_fed.not_ip += 1;
            return Ok(());
        };
        // What a link added to fill its shortest frame is no part of the packet.
        packet.bytes.truncate(headers.end.max(headers.transport));
        if is_icmp_error(&headers, &packet.bytes) {
            return self.icmp_error(now, packet, &headers);
        }
        match headers.sockets(&packet.bytes) {
            Some((from, to)) if headers.protocol == TCP => {
                self.tcp(now, packet, &headers, from, to)
            }
            Some((from, to)) => self.udp(now, packet, &headers, from, to),
            None => self.loose(now, &packet, &headers),
        }
    }

    fn tcp(
        &mut self,
        now: Instant,
        packet: Packet,
        headers: &Headers,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<(), ReplayError> {
        let known = self.floor().table.find(headers, &packet.bytes);
        let Some(segment) = headers.tcp(&packet.bytes) else {
            // Not to be read: the engine is to find out itself.
            return match known {
                Some((_, From::Peer)) => self.raw(now, &packet, headers),
                Some((_, From::Local)) => self.other_side(),
                None => self.stranger(from, to),
            };
        };
        let is_damaged = self.is_damaged(headers, &packet);
        let found = known.filter(|&(id, side)| {
            side == From::Peer && is_damaged || !self.is_new(id, side, &segment)
        });
        let (id, side) = match found {
            Some(found) => found,
            None => match self.begin(now, &segment, from, to)? {
                Some(begun) => begun,
                None => return Ok(()),
            },
        };
        match side {
            From::Peer => self.peer_segment(now, id, packet, headers, &segment),
            From::Local => self.local_segment(now, id, &packet, &segment),
        }
    }

    /// Whether a SYN begins another connection between the same ends.
    fn is_new(&mut self, id: u64, side: From, segment: &Segment) -> bool {
        if !segment.has(SYN) || segment.has(ACK) {
            return false;
        }
        self.floor().table.of(id).is_none_or(|conversation| {
            let opener = match conversation.opened_here {
                true => From::Local,
                false => From::Peer,
            };
            side == opener && conversation.opener_isn != segment.seq
                || side != opener && conversation.ended.is_some()
        })
    }

    /// The first segment of a connection that is known of.
    fn begin(
        &mut self,
        now: Instant,
        segment: &Segment,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Option<(u64, From)>, ReplayError> {
        if !segment.has(SYN) || segment.has(RST) {
            self.stranger(from, to)?;
            return Ok(None);
        }
        let answers = segment.has(ACK);
        // A capture of several interfaces may have the answer first.
        let late = answers && self.opening_follows(to, from, segment.ack);
        let (opener, other) = if late { (to, from) } else { (from, to) };
        let (one, two) = (Some(opener.port()), Some(other.port()));
        let Some(mut side) = self.side(opener.ip(), one, other.ip(), two) else {
            self.floor().report.not_fed.not_selected += 1;
            return Ok(None);
        };
        if late {
            side = side.opposite();
        }
        if side == From::Local && answers && !late {
            // The engine cannot be told of a SYN that was not captured.
            self.stranger(from, to)?;
            return Ok(None);
        }
        let opened_here = answers == (side == From::Peer);
        let id = self.add(now, Protocol::Tcp, side, from, to);
        if let Some(conversation) = self.floor().table.of(id) {
            conversation.opened_here = opened_here;
            conversation.opener_isn = match answers {
                true => segment.ack.wrapping_sub(1),
                false => segment.seq,
            };
        }
        if opened_here {
            self.open(now, id)?;
        }
        Ok(Some((id, side)))
    }

    /// Whether the SYN that `ack` answers is among the packets that were read ahead.
    fn opening_follows(&self, from: SocketAddr, to: SocketAddr, ack: u32) -> bool {
        self.ahead.iter().any(|packet| {
            ahead(packet, from, to).is_some_and(|segment| {
                segment.flags & (SYN | ACK) == SYN && segment.seq.wrapping_add(1) == ack
            })
        })
    }

    /// A segment of the side that is fed.
    fn peer_segment(
        &mut self,
        now: Instant,
        id: u64,
        packet: Packet,
        headers: &Headers,
        segment: &Segment,
    ) -> Result<(), ReplayError> {
        if packet.cut {
            self.floor().report.not_fed.cut += 1;
            return Ok(());
        }
        if self.is_damaged(headers, &packet) {
            // The engine drops it: nothing that it says was said by the peer.
            return self.give(now, &packet.bytes, false);
        }
        let offloaded = self.offloaded(headers, &packet.bytes);
        let agreed = match headers.sockets(&packet.bytes) {
            Some((from, to)) if segment.flags & (SYN | ACK) == SYN => {
                self.agreed(from, to, segment)
            }
            Some(_) | None => None,
        };
        let floor = self.engine.callbacks_mut();
        let Some(conversation) = floor.table.of(id) else {
            return Ok(());
        };
        conversation.last = now;
        if !conversation.takes() && !segment.has(SYN) {
            floor.report.not_fed.after_end += 1;
            return Ok(());
        }
        if segment.has(SYN) {
            conversation.peer_isn = Some(segment.seq);
        }
        if let Some(offers) = agreed {
            conversation.mapper.captured_agreed(offers);
        }
        // One-sided: the peer acknowledges an answer that is not in the capture.
        if conversation.undecided && segment.has(ACK) && !segment.has(RST) {
            self.verdict(now, id, Verdict::ACCEPT)?;
        }
        let floor = self.engine.callbacks_mut();
        let Some(conversation) = floor.table.of(id) else {
            return Ok(());
        };
        let mut bytes = packet.bytes;
        let mapped = &mut floor.report.mapped;
        (conversation.mapper).rewrite(&mut bytes, segment, offloaded, mapped);
        if let (Some(isn), Some((captured, _))) = (
            conversation.mapper.captured_isn(),
            conversation.speaker.captured(),
        ) && segment.has(ACK)
            && !segment.has(RST)
        {
            captured.acknowledged(now, isn, segment.ack);
        }
        self.give(now, &bytes, offloaded)?;
        self.hold(id, segment, &bytes);
        self.fill_gap(id, Some(now));
        self.floor().dirty.push_back(id);
        Ok(())
    }

    /// Keeps a segment whose data did not come out: the captured server may have
    /// had room for it, so that its peer never sent it again.
    fn hold(&mut self, id: u64, segment: &Segment, bytes: &[u8]) {
        let floor = self.engine.callbacks_mut();
        let Some(conversation) = floor.table.of(id) else {
            return;
        };
        let Some(place @ (_, end)) = conversation.place(segment) else {
            return;
        };
        let over = conversation.flow.is_none() || end <= conversation.taken();
        if over || segment.has(RST) || segment.next() == segment.seq {
            return;
        }
        // A SYN that waits for its answer has delivered nothing, and lacks nothing.
        if segment.has(SYN) && segment.length == 0 {
            return;
        }
        if floor.held + bytes.len() <= MOST_HELD_IN_ALL {
            floor.held = floor.held.saturating_sub(conversation.held.bytes());
            conversation.held.keep(place, bytes);
            floor.held += conversation.held.bytes();
        }
    }

    /// A segment of the side that the engine speaks for.
    fn local_segment(
        &mut self,
        now: Instant,
        id: u64,
        packet: &Packet,
        segment: &Segment,
    ) -> Result<(), ReplayError> {
        self.other_side()?;
        let floor = self.engine.callbacks_mut();
        let Some(conversation) = floor.table.of(id) else {
            return Ok(());
        };
        conversation.last = now;
        let undecided = conversation.undecided;
        if segment.has(SYN) {
            let offers = Offers::of(segment, &packet.bytes);
            conversation.mapper.captured_syn(segment.seq, offers);
        }
        let isn = conversation.mapper.captured_isn();
        let Some((captured, outgoing)) = conversation.speaker.captured() else {
            return Ok(());
        };
        if let Some(isn) = isn
            && !segment.has(RST)
        {
            let data = segment.payload(&packet.bytes);
            captured.segment(isn, segment, data, outgoing, &mut floor.report.gaps);
        }
        conversation.speaker.abort |= segment.has(RST);
        let verdict = match segment.has(RST) {
            true => Speaker::REFUSED,
            false => Verdict::ACCEPT,
        };
        conversation.accepted |= !segment.has(RST);
        floor.dirty.push_back(id);
        match undecided {
            true => self.verdict(now, id, verdict),
            false => Ok(()),
        }
    }

    fn verdict(&mut self, now: Instant, id: u64, verdict: Verdict) -> Result<(), ReplayError> {
        let Some(conversation) = self.floor().table.of(id) else {
            return Ok(());
        };
        conversation.undecided = false;
        let Some(flow) = conversation.flow else {
            return Ok(());
        };
        let what = format!("flow-verdict {flow} {verdict:?}");
        self.call(now, what, |engine| engine.flow_verdict(now, flow, verdict))?;
        Ok(())
    }

    fn udp(
        &mut self,
        now: Instant,
        packet: Packet,
        headers: &Headers,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<(), ReplayError> {
        let found = self.floor().table.find(headers, &packet.bytes);
        let (id, side) = match found {
            Some(found) => found,
            None => {
                let (one, other) = (Some(from.port()), Some(to.port()));
                let Some(side) = self.side(from.ip(), one, to.ip(), other) else {
                    self.floor().report.not_fed.not_selected += 1;
                    return Ok(());
                };
                (self.add(now, Protocol::Udp, side, from, to), side)
            }
        };
        if let Some(conversation) = self.floor().table.of(id) {
            conversation.last = now;
        }
        if side == From::Peer {
            return self.raw(now, &packet, headers);
        }
        self.other_side()?;
        let floor = self.engine.callbacks_mut();
        let Some(conversation) = floor.table.of(id) else {
            return Ok(());
        };
        if conversation.speaker.captured().is_none() {
            return Ok(());
        }
        let start = packet.bytes.len().min(headers.transport + 8);
        let mut data = packet.bytes[start..].to_vec();
        let length = headers.end.saturating_sub(headers.transport + 8);
        floor.report.gaps.zeros += length.saturating_sub(data.len()) as u64;
        data.resize(length, 0);
        conversation.speaker.datagrams.push_back(data);
        let unknown = conversation.flow.is_none();
        floor.dirty.push_back(id);
        if !unknown {
            return Ok(());
        }
        self.open(now, id)?;
        let floor = self.engine.callbacks_mut();
        if let Some(conversation) = floor.table.of(id)
            && conversation.flow.is_none()
        {
            // Refused. They would wait for ever, and there may be any number.
            let datagrams = &mut conversation.speaker.datagrams;
            floor.report.unsent += datagrams.len() as u64;
            datagrams.clear();
        }
        Ok(())
    }

    /// An ICMP error belongs to the flow that it quotes, whoever sent it.
    fn icmp_error(
        &mut self,
        now: Instant,
        mut packet: Packet,
        headers: &Headers,
    ) -> Result<(), ReplayError> {
        let start = headers.transport + 8;
        let quote = packet.bytes.get(start..).unwrap_or_default();
        let quoted = Headers::read(quote);
        let found = quoted.and_then(|quoted| self.floor().table.find(&quoted, quote));
        let (Some(quoted), Some((id, side))) = (quoted, found) else {
            self.floor().report.not_fed.unrelated += 1;
            return Ok(());
        };
        if side == From::Peer {
            return self.other_side();
        }
        let conversation = self.floor().table.of(id);
        let shift = conversation.and_then(|conversation| conversation.mapper.shift());
        if let Some(shift) = shift
            && quoted.protocol == TCP
        {
            let message = &mut packet.bytes[headers.transport..];
            mapper::move_quote(message, 8 + quoted.transport, shift);
        }
        self.raw(now, &packet, headers)
    }

    /// A packet without ports: fragments, echo requests, other protocols. The
    /// first to speak of two addresses is the peer.
    fn loose(
        &mut self,
        now: Instant,
        packet: &Packet,
        headers: &Headers,
    ) -> Result<(), ReplayError> {
        let (from, to) = (headers.from, headers.to);
        let side = match (
            self.pairs.contains(&(from, to)),
            self.pairs.contains(&(to, from)),
        ) {
            (true, _) => Some(From::Peer),
            (false, true) => Some(From::Local),
            (false, false) => {
                let side = self.side(from, None, to, None);
                self.pair(side, from, to);
                side
            }
        };
        match side {
            Some(From::Peer) => self.raw(now, packet, headers),
            Some(From::Local) => self.other_side(),
            None => {
                self.floor().report.not_fed.not_selected += 1;
                Ok(())
            }
        }
    }

    /// Which side sends packets from `from` to `to`: the first one of a flow.
    fn side(
        &self,
        from: IpAddr,
        from_port: Option<u16>,
        to: IpAddr,
        to_port: Option<u16>,
    ) -> Option<From> {
        let peers = &self.options.peers;
        if peers.is_empty() || peers.iter().any(|side| side.has(from, from_port)) {
            return Some(From::Peer);
        }
        let answers = peers.iter().any(|side| side.has(to, to_port));
        answers.then_some(From::Local)
    }

    fn pair(&mut self, side: Option<From>, from: IpAddr, to: IpAddr) {
        let pair = match side {
            Some(From::Peer) => (from, to),
            Some(From::Local) => (to, from),
            None => return,
        };
        if self.pairs.len() < MOST_KEPT {
            self.pairs.insert(pair);
        }
    }

    fn add(
        &mut self,
        now: Instant,
        protocol: Protocol,
        side: From,
        from: SocketAddr,
        to: SocketAddr,
    ) -> u64 {
        if !self.pairs.contains(&(to.ip(), from.ip())) {
            self.pair(Some(side), from.ip(), to.ip());
        }
        let (peer, local) = match side {
            From::Peer => (from, to),
            From::Local => (to, from),
        };
        let tuple = FiveTuple {
            protocol,
            local,
            peer,
        };
        let conversation = Conversation::new(tuple, &self.options.application, now);
        self.floor().table.add(conversation)
    }

    /// The application opens its flow. A refusal is on the record, and the flow's
    /// packets are strays to the engine.
    fn open(&mut self, now: Instant, id: u64) -> Result<(), ReplayError> {
        let Some(conversation) = self.floor().table.of(id) else {
            return Ok(());
        };
        let tuple = conversation.tuple;
        // The SYN is a callback of this call, and speaks of the capture's options.
        let what = format!(
            "flow-open {} {} > {}",
            tuple.protocol, tuple.local, tuple.peer
        );
        let options = FlowOptions::default();
        let opened = self.call(now, what, |engine| engine.flow_open(now, &tuple, options))?;
        if let Some((flow, _)) = opened {
            self.floor().table.join(id, flow);
            if let Some(conversation) = self.floor().table.of(id) {
                conversation.ended = None;
            }
        }
        Ok(())
    }

    /// What the captured server agreed to, seen by reading ahead: its SYN-ACK, or
    /// what the peer does after it where that is not in the capture.
    fn agreed(&self, from: SocketAddr, to: SocketAddr, syn: &Segment) -> Option<Offers> {
        let next = syn.seq.wrapping_add(1);
        let answer = self.ahead.iter().find_map(|packet| {
            let segment = ahead(packet, to, from)?;
            let answers = segment.has(SYN | ACK) && segment.ack == next;
            answers.then(|| Offers::of(&segment, &packet.bytes))
        });
        answer.or_else(|| {
            self.ahead.iter().find_map(|packet| {
                let segment = ahead(packet, from, to)?;
                let goes_on = segment.flags & (SYN | RST | ACK) == ACK && segment.seq == next;
                let timestamps = Offers::of(&segment, &packet.bytes).timestamps;
                goes_on.then_some(Offers {
                    timestamps,
                    ..Offers::ALL
                })
            })
        })
    }

    /// Feeds a packet as it is.
    fn raw(&mut self, now: Instant, packet: &Packet, headers: &Headers) -> Result<(), ReplayError> {
        if packet.cut {
            self.floor().report.not_fed.cut += 1;
            return Ok(());
        }
        let offloaded = self.offloaded(headers, &packet.bytes);
        self.give(now, &packet.bytes, offloaded)
    }

    /// A segment, all of it captured, whose checksum is wrong.
    fn is_damaged(&self, headers: &Headers, packet: &Packet) -> bool {
        let offloaded = self.offloaded(headers, &packet.bytes);
        !packet.cut && !offloaded && !is_intact(headers, &packet.bytes)
    }

    pub(super) fn offloaded(&self, headers: &Headers, packet: &[u8]) -> bool {
        match self.options.checksums {
            Checksums::Detect => headers.is_offloaded(packet),
            Checksums::Verify => false,
            Checksums::Ignore => true,
        }
    }

    /// Feeds a packet of the capture.
    fn give(&mut self, now: Instant, packet: &[u8], offloaded: bool) -> Result<(), ReplayError> {
        let report = &mut self.floor().report;
        report.fed += 1;
        report.fed_bytes += packet.len() as u64;
        report.offloaded += u64::from(offloaded);
        self.l3_rx(now, packet, offloaded)
    }

    /// One packet arrives, of the capture or of the replay's making.
    pub(super) fn l3_rx(
        &mut self,
        now: Instant,
        packet: &[u8],
        offloaded: bool,
    ) -> Result<(), ReplayError> {
        let at = self.since_1970(now);
        let wants_lines = self.floor().sink.wants_lines();
        let written = self.floor().sink.packet(at, false, packet);
        self.floor().check(written);
        let what = match wants_lines {
            true => format!("l3-rx\n    < {}", super::describe(packet)),
            false => String::new(),
        };
        self.batch.clear();
        let state = match offloaded {
            true => Checksum::Offloaded,
            false => Checksum::Full,
        };
        self.batch.push_described(packet, 0, state);
        let batch = std::mem::take(&mut self.batch);
        let result = self.call(now, what, |engine| engine.l3_rx(now, &batch));
        self.batch = batch;
        result.map(|_| ())
    }

    fn other_side(&mut self) -> Result<(), ReplayError> {
        self.floor().report.not_fed.other_side += 1;
        Ok(())
    }

    fn stranger(&mut self, from: SocketAddr, to: SocketAddr) -> Result<(), ReplayError> {
        let full = self.strangers.len() >= MOST_KEPT;
        let key = match self.strangers.contains_key(&(to, from)) {
            true => (to, from),
            false => (from, to),
        };
        let known = self.strangers.contains_key(&key);
        if known || !full {
            *self.strangers.entry(key).or_default() += 1;
        }
        let report = &mut self.engine.callbacks_mut().report;
        report.not_fed.start_missing += 1;
        report.start_missing.flows += u64::from(!known && !full);
        report.start_missing.more |= !known && full;
        Ok(())
    }
}

/// A TCP segment between these ends that was read ahead.
fn ahead(packet: &Packet, from: SocketAddr, to: SocketAddr) -> Option<Segment> {
    let (headers, ends) = (packet.headers?, packet.ends?);
    let wanted = headers.protocol == TCP && ends == (from, to);
    wanted.then(|| headers.tcp(&packet.bytes))?
}

/// Messages that quote a packet (RFC 792, RFC 4443 2.1).
fn is_icmp_error(headers: &Headers, packet: &[u8]) -> bool {
    let kind = packet.get(headers.transport).copied();
    match (headers.protocol, kind) {
        _ if headers.fragment => false,
        (ICMP, Some(3 | 4 | 5 | 11 | 12)) => true,
        (ICMPV6, Some(kind)) => kind < 128,
        _ => false,
    }
}

/// Whether a TCP segment's checksum is right.
fn is_intact(headers: &Headers, packet: &[u8]) -> bool {
    let end = packet.len().min(headers.end);
    let Some(tcp) = packet.get(headers.transport..end) else {
        return false;
    };
    // The sum over all, the checksum included, is 0 inverted (RFC 1071 1).
    checksum(headers, tcp) == 0
}

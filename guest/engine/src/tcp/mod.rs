//! One TCP connection. smoltcp's socket does the work behind this border: the
//! engine above knows none of its types, and only `tcp/socket.rs` and
//! `tcp/port.rs` name its sockets and interface.
//!
//! The owner calls, for each flow, any number of [`TcpFlow::l3_rx`] and then one
//! [`TcpFlow::settle`], which delivers once and sends once.

mod port;
pub(crate) mod segment;
mod socket;
pub(crate) mod time_wait;
mod wire;

use alloc::vec::Vec;
use core::time::Duration;

use smoltcp::wire::{Ipv6Packet, TcpPacket, TcpSeqNumber};

pub(crate) use segment::{Segment, Syn};
pub(crate) use socket::Sockets;

use self::socket::{State, TcpSocket, flow_state};
use self::time_wait::TimeWait;
use self::wire::Wire;
use crate::ip::{self, IpPacket};
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::{
    CloseReason, Event, FlowError, FlowId, FlowOptions, FlowState, Instant, Timer, Unreachable,
};

/// One connection, from our SYN or SYN-ACK until its last byte is delivered.
#[derive(Debug)]
pub(crate) struct TcpFlow {
    socket: TcpSocket,
    wire: Wire,
    idle_timeout: Duration,
    /// When the SYN or SYN-ACK was made.
    began: Instant,
    /// The last segment from the peer, or `began`.
    heard: Instant,
    /// The last of a segment from the peer and data from the host.
    moved: Instant,
    /// Since when data or FIN has been outstanding.
    outstanding: Option<Instant>,
    /// Both ends know each other's sequence numbers.
    established: bool,
    told_established: bool,
    /// The host took less than it was offered, and did not resume.
    held: bool,
    /// An `l4_tx` took less than it was given.
    wants_room: bool,
    finish: Finish,
    peer_finish: PeerFinish,
    /// How the connection ended, before the flow has.
    end: Option<CloseReason>,
    bytes_received: u64,
    bytes_sent: u64,
}

/// How far the local side's end of data got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    No,
    /// Asked for; FIN waits for the connection to be established.
    Asked,
    /// FIN follows the data.
    Begun,
}

/// How far the peer's end of data got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerFinish {
    No,
    /// FIN is received, data before it may be undelivered.
    Received,
    /// The host has been told.
    Told,
}

/// What became of a flow that was settled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Settled {
    /// It lives on. It wants to transmit at one instant, and is to be looked at
    /// for its limits at the other.
    Alive {
        transmit: Option<Instant>,
        limit: Instant,
    },
    /// As `Alive`, but it would transmit if the device took packets.
    Stalled { limit: Instant },
    /// It is over.
    Over(CloseReason, Option<TimeWait>),
}

impl TcpFlow {
    /// Answers a SYN.
    pub(crate) fn accept(
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        syn: &Syn,
        options: &FlowOptions,
    ) -> Self {
        let mut flow = Self::new(turn, options);
        flow.wire.peer_syn(syn);
        flow.socket
            .accept(sockets, turn, &mut flow.wire, tuple, syn);
        flow
    }

    /// Sends a SYN.
    pub(crate) fn open(
        sockets: &mut Sockets,
        turn: &Turn<'_>,
        tuple: &Tuple,
        options: &FlowOptions,
    ) -> Self {
        let mut flow = Self::new(turn, options);
        if !flow.socket.open(sockets, tuple) {
            // The caller has checked all that smoltcp does.
            flow.end = Some(CloseReason::Aborted);
        }
        flow
    }

    fn new(turn: &Turn<'_>, options: &FlowOptions) -> Self {
        Self {
            socket: TcpSocket::new(turn.config, options),
            wire: Wire::default(),
            idle_timeout: options.idle_timeout.unwrap_or(turn.config.tcp_idle_timeout),
            began: turn.now,
            heard: turn.now,
            moved: turn.now,
            outstanding: None,
            established: false,
            told_established: false,
            held: false,
            wants_room: false,
            finish: Finish::No,
            peer_finish: PeerFinish::No,
            end: None,
            bytes_received: 0,
            bytes_sent: 0,
        }
    }

    /// What a flow with these buffers counts against `memory_limit`.
    pub(crate) fn memory(receive_buffer: u32, send_buffer: u32) -> u64 {
        u64::from(receive_buffer) + u64::from(send_buffer) + Self::RECORD
    }

    /// The flow and its socket: a round number above both, the same for every
    /// width of pointer.
    const RECORD: u64 = 1024;

    /// Takes a segment in. Nothing is delivered yet, and of packets only those
    /// are made that answer this segment at once.
    pub(crate) fn l3_rx(
        &mut self,
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
        packet: &IpPacket<'_>,
        segment: &Segment<'_>,
    ) {
        // What comes after the limit comes too late, also when the host has not
        // polled since; settling says so.
        if self.limit(turn).is_some_and(|(at, _)| at <= turn.now) {
            return;
        }
        // Nothing answers a SYN or SYN-ACK that has not gone out.
        if !self.wire.has_sent() {
            return;
        }
        let before = self.socket.state();
        self.heard = turn.now;
        self.moved = turn.now;
        if self.only_repeats_that_fin_is_out(before, segment) {
            return;
        }
        if before == State::SynSent && segment.syn {
            self.wire.peer_syn(&Syn::of(segment));
        }
        self.wire.received(turn.now, segment);
        match self.wire.peer_end() {
            Some(rcv_nxt) if !segment.rst => self.after_peer_fin(sockets, turn, segment, rcv_nxt),
            Some(_) | None => self.feed(sockets, turn, packet, segment),
        }
        self.note_state(before, segment);
    }

    /// A segment before the peer's FIN, or RST.
    fn feed(
        &mut self,
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
        packet: &IpPacket<'_>,
        segment: &Segment<'_>,
    ) {
        let mut copy = Vec::new();
        // smoltcp would take a FIN for the end of as much data as fits into the
        // window.
        let data_end = segment.seq + segment.payload_length;
        let cuts_fin = segment.fin && self.wire.is_beyond_window(data_end);
        let bytes = match cuts_fin || packet.has_extension_headers() {
            true => plain_copy(packet, cuts_fin, &mut copy),
            false => packet.whole,
        };
        self.socket.l3_rx(sockets, turn, &mut self.wire, bytes);
    }

    /// A segment after the peer's FIN: only what it acknowledges is of interest
    /// (RFC 9293 3.10.7.4, CLOSE-WAIT: "Ignore the segment text"), which smoltcp
    /// does not know. What the peer repeats is acknowledged again.
    fn after_peer_fin(
        &mut self,
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
        segment: &Segment<'_>,
        rcv_nxt: TcpSeqNumber,
    ) {
        if let Some(ack) = segment.ack {
            let repr = segment::bare_ack(&segment.tuple, rcv_nxt, ack, segment.window);
            self.socket
                .l3_rx_repr(sockets, turn, &mut self.wire, &segment.tuple, &repr);
        }
        let brings_nothing = segment.seq == rcv_nxt && segment.end() == rcv_nxt;
        if !brings_nothing && turn.make_room_for_reply() {
            segment::send_ack(turn, &segment.tuple, self.wire.record(rcv_nxt));
        }
    }

    /// Notes what a segment did to the state.
    fn note_state(&mut self, before: State, segment: &Segment<'_>) {
        let after = self.socket.state();
        self.established |= is_synchronized(after);
        if self.peer_finish == PeerFinish::No && has_peer_fin(after) {
            self.peer_finish = PeerFinish::Received;
            self.wire.peer_fin(segment);
        }
        // A passive socket that is reset in the handshake goes back to LISTEN.
        if matches!(after, State::Closed | State::Listen) && self.end.is_none() {
            self.end = Some(match before {
                _ if !segment.rst => CloseReason::Finished,
                State::SynSent => CloseReason::Refused,
                _ => CloseReason::ResetByPeer,
            });
        }
    }

    /// Whether a segment says nothing but that our FIN is still unacknowledged.
    /// On the third of them smoltcp would give up sending it again.
    fn only_repeats_that_fin_is_out(&self, state: State, segment: &Segment<'_>) -> bool {
        matches!(state, State::FinWait1 | State::Closing | State::LastAck)
            && self.socket.send_queue() == 0
            && self.wire.only_repeats_ack(segment)
    }

    /// Whether bytes may be given to `l4_tx`.
    pub(crate) fn may_take(&self) -> Result<(), FlowError> {
        if self.end.is_some() {
            return Err(FlowError::Closing);
        }
        if self.finish != Finish::No {
            return Err(FlowError::Finished);
        }
        Ok(())
    }

    /// Takes bytes to send from the front of `data`.
    pub(crate) fn l4_tx(&mut self, now: Instant, data: &[u8]) -> usize {
        let taken = self.socket.l4_tx(data);
        if taken > 0 {
            self.moved = now;
            self.bytes_sent += taken as u64;
        }
        // An earlier promise of room stays.
        self.wants_room |= taken < data.len();
        taken
    }

    /// The host takes data again.
    pub(crate) fn resume(&mut self) {
        self.held = false;
    }

    /// Whether `finish` may be called; again is harmless.
    pub(crate) fn may_finish(&self) -> Result<(), FlowError> {
        match self.end {
            Some(_) => Err(FlowError::Closing),
            None => Ok(()),
        }
    }

    /// FIN follows the data taken so far.
    pub(crate) fn finish(&mut self) {
        if self.finish == Finish::No {
            self.finish = Finish::Asked;
            self.wants_room = false;
        }
    }

    /// Ends the connection at once, with RST to a peer that may still send or wait.
    pub(crate) fn abort(&mut self, sockets: &mut Sockets, turn: &mut Turn<'_>) {
        // RFC 9293 3.10.5: RST in these states only.
        let resets = match self.socket.state() {
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait => true,
            State::Closed
            | State::Listen
            | State::SynSent
            | State::Closing
            | State::LastAck
            | State::TimeWait => false,
        };
        if resets && turn.make_room_for_reply() {
            self.socket.abort(sockets, turn, &mut self.wire);
        }
    }

    /// An ICMP error quoted our segment with this sequence number. Only an
    /// answer to our SYN ends a connection (RFC 5927 4.1, RFC 1122 4.2.3.9: the
    /// others are hints). Says whether it did.
    pub(crate) fn unreachable(&mut self, seq: u32, reason: Unreachable) -> bool {
        let ends = self.socket.state() == State::SynSent && self.wire.is_last_sent(seq);
        if ends {
            self.end = Some(CloseReason::Unreachable(reason));
        }
        ends
    }

    /// Takes note that a link on the way was too narrow for our segment with this
    /// sequence number. Says whether that is believed and news.
    pub(crate) fn packet_too_big(&mut self, _: &mut Turn<'_>, _seq: u32, _mtu: u32) -> bool {
        false
    }

    /// Delivers what came, sends what may go, reports what happened, and tells
    /// how the flow stands. Limits that ran out end it.
    pub(crate) fn settle(
        &mut self,
        id: FlowId,
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
    ) -> Settled {
        if self.established && !self.told_established {
            self.told_established = true;
            turn.callbacks.flow_event(id, Event::Established);
        }
        self.deliver(id, turn);
        if self.finish == Finish::Asked && self.established {
            self.finish = Finish::Begun;
            self.socket.finish();
        }
        self.transmit(sockets, turn);
        self.report(id, turn);
        if let Some(over) = self.over() {
            return over;
        }
        self.note_outstanding(turn.now);
        if let Some((at, timer)) = self.limit(turn)
            && at <= turn.now
        {
            return self.time_out(sockets, turn, timer);
        }
        self.alive(sockets, turn)
    }

    fn deliver(&mut self, id: FlowId, turn: &mut Turn<'_>) {
        while !self.held && self.socket.receive_queue() > 0 {
            let (offered, taken) = self.socket.deliver(|data| turn.callbacks.l4_rx(id, data));
            if offered == 0 {
                break;
            }
            if taken > 0 {
                self.moved = turn.now;
            }
            self.bytes_received += taken as u64;
            turn.counters.l4_rx_bytes += taken as u64;
            self.held = taken < offered;
        }
    }

    fn transmit(&mut self, sockets: &mut Sockets, turn: &mut Turn<'_>) {
        // smoltcp drops received data when its TIME-WAIT ends; a socket that is
        // not asked to transmit stays as it is until the host has all.
        if self.socket.state() == State::TimeWait {
            self.acknowledge_peer_fin(turn);
            return;
        }
        let before = self.wire.retransmits;
        self.socket.transmit(sockets, turn, &mut self.wire);
        if self.established && self.end.is_none() && self.socket.is_stuck(sockets, turn.now) {
            self.socket.remind(sockets, turn, &mut self.wire);
            self.socket.transmit(sockets, turn, &mut self.wire);
        }
        turn.counters.retransmits += self.wire.retransmits - before;
    }

    /// Acknowledges the peer's FIN, and all before it, unless that was done.
    fn acknowledge_peer_fin(&mut self, turn: &mut Turn<'_>) {
        if let (Some(rcv_nxt), Some(tuple)) = (self.wire.peer_end(), self.socket.tuple())
            && !self.wire.peer_fin_acked()
            && turn.make_room()
        {
            segment::send_ack(turn, &tuple, self.wire.record(rcv_nxt));
            self.wire.acked(rcv_nxt);
        }
    }

    fn report(&mut self, id: FlowId, turn: &mut Turn<'_>) {
        if self.peer_finish == PeerFinish::Received && self.is_drained() {
            self.peer_finish = PeerFinish::Told;
            turn.callbacks.flow_event(id, Event::PeerFinished);
        }
        if self.wants_room && self.end.is_none() && self.socket.has_room() {
            self.wants_room = false;
            turn.callbacks.flow_event(id, Event::Writable);
        }
    }

    fn is_drained(&self) -> bool {
        self.socket.receive_queue() == 0
    }

    /// Whether the flow is over, and what remains of it. An end that the peer
    /// brought about waits until the host has all that the peer sent.
    fn over(&self) -> Option<Settled> {
        if let Some(reason) = self.end {
            return match reason {
                CloseReason::Finished | CloseReason::ResetByPeer if !self.is_drained() => None,
                reason => Some(Settled::Over(reason, None)),
            };
        }
        if self.socket.state() != State::TimeWait || self.peer_finish != PeerFinish::Told {
            return None;
        }
        let record = self.wire.time_wait()?;
        Some(Settled::Over(CloseReason::Finished, Some(record)))
    }

    fn note_outstanding(&mut self, now: Instant) {
        self.outstanding = match self.outstanding {
            _ if !self.socket.is_outstanding() => None,
            None => Some(now),
            since => since,
        };
    }

    /// The limit that runs out next.
    fn limit(&self, turn: &Turn<'_>) -> Option<(Instant, Timer)> {
        let config = turn.config;
        let idle = (self.moved + self.idle_timeout, Timer::Idle);
        if self.end.is_some() {
            return Some(idle);
        }
        let handshake =
            (!self.established).then(|| (self.began + config.handshake_timeout, Timer::Handshake));
        let user = self
            .outstanding
            .map(|since| (since.max(self.heard) + config.user_timeout, Timer::User));
        let fin_wait = (self.socket.state() == State::FinWait2)
            .then(|| (self.heard + config.fin_wait_timeout, Timer::FinWait));
        let user = user.filter(|_| self.established);
        [Some(idle), handshake, user, fin_wait]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// A peer that may still listen is told with RST; one that has not answered
    /// for so long is left alone.
    fn time_out(&mut self, sockets: &mut Sockets, turn: &mut Turn<'_>, timer: Timer) -> Settled {
        match timer {
            Timer::Idle | Timer::FinWait => self.abort(sockets, turn),
            Timer::Verdict | Timer::Handshake | Timer::User => {}
        }
        Settled::Over(CloseReason::TimedOut(timer), None)
    }

    fn alive(&mut self, sockets: &mut Sockets, turn: &mut Turn<'_>) -> Settled {
        let limit = self.limit(turn).map_or(Instant(u64::MAX), |(at, _)| at);
        let transmit = match self.due(sockets, turn.now) {
            Some(at) if at <= turn.now && turn.egress.is_refused() => {
                return Settled::Stalled { limit };
            }
            // smoltcp has just sent all it would: what it still calls due waits for
            // a segment. A millisecond keeps a mistake from spinning.
            Some(at) if at <= turn.now => Some(turn.now + Duration::from_millis(1)),
            at => at,
        };
        Settled::Alive { transmit, limit }
    }

    /// When the socket next wants to transmit.
    fn due(&self, sockets: &mut Sockets, now: Instant) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        if self.socket.state() == State::TimeWait {
            return (!self.wire.peer_fin_acked()).then_some(now);
        }
        self.socket.deadline(sockets, now)
    }

    /// Where the connection stands.
    pub(crate) fn state(&self) -> FlowState {
        if self.end.is_some() {
            FlowState::Closed
        } else {
            flow_state(self.socket.state())
        }
    }

    /// Whether the connection has ended, and only what the host has not taken
    /// keeps the flow.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the handshake is incomplete.
    pub(crate) fn is_half_open(&self) -> bool {
        !self.established && self.end.is_none()
    }

    /// The fields of a snapshot that only the connection knows.
    pub(crate) fn snapshot(&self) -> TcpSnapshot {
        TcpSnapshot {
            state: self.state(),
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            receive_queue: self.socket.receive_queue(),
            send_queue: self.socket.send_queue(),
            receive_window: self.wire.receive_window(),
            send_window: self.wire.send_window(),
            round_trip_time: self.wire.round_trip_time,
            retransmits: self.wire.retransmits,
        }
    }
}

/// Copies a packet with a TCP segment without the extension headers, of which
/// smoltcp does not know all, and without its FIN if it is cut. Its checksum, which
/// nobody looks at any more, is then wrong.
fn plain_copy<'a>(packet: &IpPacket<'_>, cuts_fin: bool, copy: &'a mut Vec<u8>) -> &'a [u8] {
    let mut header = packet.whole.len() - packet.payload.len();
    if packet.has_extension_headers() {
        header = ip::header_length(packet.src);
    }
    copy.extend_from_slice(&packet.whole[..header]);
    copy.extend_from_slice(packet.payload);
    if packet.has_extension_headers() {
        let length = u16::try_from(packet.payload.len()).unwrap_or(u16::MAX);
        let mut fixed = Ipv6Packet::new_unchecked(&mut copy[..]);
        fixed.set_next_header(packet.protocol);
        fixed.set_payload_len(length);
    }
    if cuts_fin {
        TcpPacket::new_unchecked(&mut copy[header..]).set_fin(false);
    }
    copy
}

/// See `FlowSnapshot`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpSnapshot {
    pub(crate) state: FlowState,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) receive_queue: usize,
    pub(crate) send_queue: usize,
    pub(crate) receive_window: u32,
    pub(crate) send_window: u32,
    pub(crate) round_trip_time: Option<Duration>,
    pub(crate) retransmits: u64,
}

/// RFC 9293 3.3.2: both ends know each other's sequence numbers.
fn is_synchronized(state: State) -> bool {
    match state {
        State::Closed | State::Listen | State::SynSent | State::SynReceived => false,
        State::Established
        | State::FinWait1
        | State::FinWait2
        | State::CloseWait
        | State::Closing
        | State::LastAck
        | State::TimeWait => true,
    }
}

/// Whether the peer's FIN was accepted.
fn has_peer_fin(state: State) -> bool {
    match state {
        State::CloseWait | State::LastAck | State::Closing | State::TimeWait => true,
        State::Closed
        | State::Listen
        | State::SynSent
        | State::SynReceived
        | State::Established
        | State::FinWait1
        | State::FinWait2 => false,
    }
}

const _: () = assert!((size_of::<TcpFlow>() + TcpSocket::SIZE) as u64 <= TcpFlow::RECORD);

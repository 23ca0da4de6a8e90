//! A connection that is not synchronized yet: SYN-SENT and SYN-RECEIVED (RFC 9293
//! 3.5, 3.10.7.3, 3.10.7.4). A small record without buffers, of which the engine
//! keeps a bounded number; what comes of it is a `Connection`.

use core::time::Duration;

use super::connection::{Agreed, first_timestamp};
use super::options::Timestamps;
use super::receiver::{initial_window, shift_for};
use super::segment::{self, Header, Segment, Syn, mss_of, send_bare};
use super::seq::Seq;
use super::terms::Terms;
use super::{Settled, TcpSnapshot};
use crate::counters::DropReason;
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::{CloseReason, FlowState, Instant, Timer, Unreachable};

/// RFC 6298 2.1: the first retransmission after 1 s, each next one after twice as
/// long.
const RTO: Duration = Duration::from_secs(1);
const MOST_DOUBLINGS: u8 = 6;
/// RFC 5961 7: what does not belong to a handshake is answered twice a second at
/// most, so that a half-open connection is no mirror for strangers.
const ANSWER_SPACING: Duration = Duration::from_millis(500);

/// A handshake under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handshake {
    /// The peer's SYN; none in SYN-SENT.
    syn: Option<Syn>,
    iss: Seq,
    terms: Terms,
    /// When it began.
    began: Instant,
    /// When our SYN or SYN-ACK went out last.
    sent: Instant,
    /// When a segment that does not belong here is answered again.
    answers_from: Instant,
    /// How often it went out.
    times: u8,
    /// We sent the first SYN.
    is_ours: bool,
    /// The peer waits for an answer to a SYN that it sent again.
    repeated: bool,
    /// Such an answer went out: which of ours is acknowledged cannot be told.
    ambiguous: bool,
    finish: bool,
    wants_room: bool,
    end: Option<CloseReason>,
}

/// What a segment made of a handshake.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// It goes on.
    Nothing,
    /// It is complete; the segment is to be processed by the connection.
    Complete(Agreed),
}

impl Handshake {
    /// Answers a SYN.
    pub(crate) fn accept(turn: &Turn<'_>, iss: Seq, syn: &Syn, terms: Terms) -> Self {
        Self {
            syn: Some(*syn),
            ..Self::new(turn, iss, terms)
        }
    }

    /// Sends a SYN.
    pub(crate) fn open(turn: &Turn<'_>, iss: Seq, terms: Terms) -> Self {
        Self {
            is_ours: true,
            ..Self::new(turn, iss, terms)
        }
    }

    fn new(turn: &Turn<'_>, iss: Seq, terms: Terms) -> Self {
        Self {
            syn: None,
            iss,
            terms,
            began: turn.now,
            sent: turn.now,
            answers_from: turn.now,
            times: 0,
            is_ours: false,
            repeated: false,
            ambiguous: false,
            finish: false,
            wants_room: false,
            end: None,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finish
    }

    /// FIN follows when the connection is established (RFC 9293 3.10.4).
    pub(crate) fn finish(&mut self) {
        self.finish = true;
        self.wants_room = false;
    }

    /// Data has to wait for the connection; the host hears of it.
    pub(crate) fn want_room(&mut self) {
        self.wants_room = true;
    }

    /// Takes a segment in.
    pub(crate) fn l3_rx(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        segment: &Segment<'_>,
    ) -> Result<Arrived, DropReason> {
        if self.began + turn.config.handshake_timeout <= turn.now {
            return Err(DropReason::StraySegment);
        }
        // Nothing answers what has not gone out.
        if self.times == 0 {
            return Err(DropReason::Unacceptable);
        }
        match self.syn {
            None => self.in_syn_sent(turn, segment),
            Some(syn) => self.in_syn_received(turn, tuple, segment, &syn),
        }
    }

    /// RFC 9293 3.10.7.3.
    fn in_syn_sent(
        &mut self,
        turn: &mut Turn<'_>,
        segment: &Segment<'_>,
    ) -> Result<Arrived, DropReason> {
        let acks_it = segment.ack == Some(self.iss + 1);
        if segment.ack.is_some() && !acks_it {
            if !segment.rst && self.may_answer(turn) {
                segment::send_reset(turn, segment);
            }
            return Err(DropReason::Unacceptable);
        }
        if segment.rst {
            // RFC 5961 3.2: only one that acknowledges our SYN.
            if !acks_it {
                return Err(DropReason::Unacceptable);
            }
            self.end = Some(CloseReason::Refused);
            return Ok(Arrived::Nothing);
        }
        if !segment.syn || segment.fin {
            return Err(DropReason::Unacceptable);
        }
        let syn = Syn::of(segment);
        if acks_it {
            return Ok(Arrived::Complete(self.agreed(turn.now, syn)));
        }
        // Simultaneous open (RFC 9293 3.5, figure 8).
        self.syn = Some(syn);
        self.repeated = true;
        Ok(Arrived::Nothing)
    }

    /// RFC 9293 3.10.7.4 in SYN-RECEIVED.
    fn in_syn_received(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        segment: &Segment<'_>,
        syn: &Syn,
    ) -> Result<Arrived, DropReason> {
        if segment.syn && segment.seq == syn.irs && !segment.rst {
            // Our SYN-ACK was lost, or the peer's ACK of it; a simultaneous open
            // acknowledges our SYN with its own.
            if self.is_ours && segment.ack == Some(self.iss + 1) {
                return Ok(Arrived::Complete(self.agreed(turn.now, *syn)));
            }
            self.repeated = true;
            return Ok(Arrived::Nothing);
        }
        let (next, window) = (syn.irs + 1, initial_window(turn.config.tcp_receive_buffer));
        let is_acceptable = segment.seq <= next + window && segment.end() >= next;
        if segment.rst {
            if segment.seq != next {
                return Err(DropReason::Unacceptable);
            }
            self.end = Some(match self.is_ours {
                true => CloseReason::Refused,
                false => CloseReason::ResetByPeer,
            });
            return Ok(Arrived::Nothing);
        }
        if segment.syn || !is_acceptable {
            // RFC 5961 4.2: a peer that began anew resets by the challenge.
            if self.may_answer(turn) {
                turn.counters.challenge_acks += u64::from(segment.syn);
                let mut header = Header::new(self.iss + 1, Some(next));
                header.window = u16::try_from(window).unwrap_or(u16::MAX);
                self.stamp(turn, tuple, syn, &mut header);
                send_bare(turn, tuple, &header);
            }
            return Err(DropReason::Unacceptable);
        }
        match segment.ack {
            Some(ack) if ack == self.iss + 1 => Ok(Arrived::Complete(self.agreed(turn.now, *syn))),
            Some(_) => {
                if self.may_answer(turn) {
                    segment::send_reset(turn, segment);
                }
                Err(DropReason::Unacceptable)
            }
            None => Err(DropReason::Unacceptable),
        }
    }

    fn may_answer(&mut self, turn: &mut Turn<'_>) -> bool {
        if turn.now < self.answers_from {
            return false;
        }
        self.answers_from = turn.now + ANSWER_SPACING;
        turn.make_room_for_reply()
    }

    fn agreed(&self, now: Instant, syn: Syn) -> Agreed {
        Agreed {
            syn,
            iss: self.iss,
            terms: self.terms,
            // Karn's algorithm (RFC 6298 3).
            rtt: (self.times == 1 && !self.ambiguous).then(|| now - self.sent),
            syn_lost: self.times > 1,
            finish: self.finish,
            wants_room: self.wants_room,
        }
    }

    /// Ends the handshake at once, with RST to a peer that waits.
    pub(crate) fn abort(&self, turn: &mut Turn<'_>, tuple: &Tuple) {
        if let Some(syn) = self.syn
            && self.times > 0
            && self.end.is_none()
            && turn.make_room_for_reply()
        {
            let mut header = Header::new(self.iss + 1, Some(syn.irs + 1));
            header.flags.rst = true;
            send_bare(turn, tuple, &header);
        }
    }

    /// An ICMP error quoted a segment with this sequence number. Only an answer to
    /// our SYN ends a connection (RFC 5927 4.1, RFC 1122 4.2.3.9: the others are
    /// hints). Says whether it did.
    pub(crate) fn unreachable(&mut self, seq: u32, reason: Unreachable) -> bool {
        let ends = self.syn.is_none() && self.times > 0 && self.iss == Seq(seq);
        if ends && self.end.is_none() {
            self.end = Some(CloseReason::Unreachable(reason));
        }
        ends
    }

    /// Sends what is due, and tells how the handshake stands.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>, tuple: &Tuple) -> Settled {
        if let Some(reason) = self.end {
            return Settled::Over(reason, None);
        }
        let limit = self.began + turn.config.handshake_timeout;
        if limit <= turn.now {
            return Settled::Over(CloseReason::TimedOut(Timer::Handshake), None);
        }
        if self.next() <= turn.now {
            if !turn.make_room() {
                return Settled::Stalled { limit };
            }
            self.send_syn(turn, tuple);
        }
        Settled::Alive {
            transmit: Some(self.next()),
            limit,
            starved: false,
            mute: false,
        }
    }

    /// When our SYN or SYN-ACK goes out next.
    fn next(&self) -> Instant {
        match self.times {
            0 => self.sent,
            _ if self.repeated => self.sent,
            times => self.sent + RTO * (1 << (times - 1).min(MOST_DOUBLINGS)),
        }
    }

    fn send_syn(&mut self, turn: &mut Turn<'_>, tuple: &Tuple) {
        let most = turn.config.tcp_receive_buffer;
        let mut header = Header::new(self.iss, self.syn.map(|syn| syn.irs + 1));
        header.flags.syn = true;
        header.window = u16::try_from(initial_window(most)).unwrap_or(u16::MAX);
        // RFC 7323 2.2, 3.2 and RFC 2018 2: what a SYN offers, a SYN-ACK takes up.
        let offers = |taken_up: fn(&Syn) -> bool| self.syn.as_ref().is_none_or(taken_up);
        let mss = mss_of(turn.config.mtu, tuple.peer);
        header.options.mss(u16::try_from(mss).unwrap_or(u16::MAX));
        if offers(|syn| syn.window_scale.is_some()) {
            header.options.window_scale(shift_for(most));
        }
        if offers(|syn| syn.sack_permitted) {
            header.options.sack_permitted();
        }
        if offers(|syn| syn.timestamp.is_some()) {
            header.options.timestamps(Timestamps {
                value: first_timestamp(turn, tuple),
                echo: self.syn.and_then(|syn| syn.timestamp).unwrap_or(0),
            });
        }
        send_bare(turn, tuple, &header);
        // An answer to a SYN that the peer repeated is no new try of ours.
        self.ambiguous |= self.repeated && self.times > 0;
        self.repeated = false;
        if self.next() <= turn.now {
            self.times = self.times.saturating_add(1);
            self.sent = turn.now;
        }
    }

    fn stamp(&self, turn: &Turn<'_>, tuple: &Tuple, syn: &Syn, header: &mut Header) {
        if let Some(echo) = syn.timestamp {
            header.options.timestamps(Timestamps {
                value: first_timestamp(turn, tuple),
                echo,
            });
        }
    }

    /// Where it stands.
    pub(crate) fn flow_state(&self) -> FlowState {
        match (self.end, self.syn) {
            (Some(_), _) => FlowState::Closed,
            (None, None) => FlowState::SynSent,
            (None, Some(_)) => FlowState::SynReceived,
        }
    }

    pub(crate) fn snapshot(&self) -> TcpSnapshot {
        TcpSnapshot {
            state: self.flow_state(),
            bytes_received: 0,
            bytes_sent: 0,
            receive_queue: 0,
            send_queue: 0,
            receive_window: 0,
            send_window: self.syn.map_or(0, |syn| syn.window.into()),
            round_trip_time: None,
            retransmits: 0,
            congestion_window: 0,
            retransmission_timeout: None,
            max_segment_size: 0,
        }
    }
}

/// Answers a SYN for which there is no room with a cookie (RFC 4987 3.6): the flow
/// is announced when the handshake is complete. Scale and SACK are taken up only
/// where a timestamp can carry them.
pub(crate) fn send_cookie(turn: &mut Turn<'_>, tuple: &Tuple, syn: &Syn) {
    let most = turn.config.tcp_receive_buffer;
    let (iss, value) = turn.secrets.cookie(turn.now, tuple, syn);
    let mut header = Header::new(iss, Some(syn.irs + 1));
    header.flags.syn = true;
    header.window = u16::try_from(initial_window(most)).unwrap_or(u16::MAX);
    let mss = mss_of(turn.config.mtu, tuple.peer);
    header.options.mss(u16::try_from(mss).unwrap_or(u16::MAX));
    if let Some(echo) = syn.timestamp {
        if syn.window_scale.is_some() {
            header.options.window_scale(shift_for(most));
        }
        if syn.sack_permitted {
            header.options.sack_permitted();
        }
        header.options.timestamps(Timestamps { value, echo });
    }
    send_bare(turn, tuple, &header);
}

/// A connection whose handshake was completed with a cookie.
pub(crate) fn completed(iss: Seq, syn: &Syn, terms: Terms) -> Agreed {
    Agreed {
        syn: *syn,
        iss,
        terms,
        rtt: None,
        syn_lost: false,
        finish: false,
        wants_room: false,
    }
}

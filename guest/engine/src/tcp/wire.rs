//! What one connection showed on the wire: the figures of a snapshot, and what
//! TIME-WAIT needs. smoltcp keeps these to itself.

use core::time::Duration;

use smoltcp::wire::{TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::segment::{self, Segment, Syn};
use super::time_wait::TimeWait;
use crate::tuple::Tuple;
use crate::types::Instant;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wire {
    /// The oldest sequence number that the peer has not acknowledged.
    snd_una: TcpSeqNumber,
    /// The sequence number after all that was sent.
    snd_nxt: TcpSeqNumber,
    /// The first sequence number of the last segment sent.
    last_sent: TcpSeqNumber,
    sent_any: bool,
    /// The acknowledgement and window field last sent.
    acked: TcpSeqNumber,
    window_sent: u16,
    /// The window field last received, and its scale (RFC 7323 2.2).
    window_received: u16,
    scale: u8,
    /// The sequence number after the peer's FIN.
    peer_end: Option<TcpSeqNumber>,
    /// A segment that is being timed: the acknowledgement that it waits for, and
    /// when it was sent.
    timed: Option<(TcpSeqNumber, Instant)>,
    pub(crate) round_trip_time: Option<Duration>,
    pub(crate) retransmits: u64,
}

impl Wire {
    /// The peer's SYN.
    pub(crate) fn peer_syn(&mut self, syn: &Syn) {
        self.window_received = syn.window;
        self.scale = syn.window_scale.unwrap_or(0);
    }

    pub(crate) fn received(&mut self, now: Instant, segment: &Segment<'_>) {
        if segment.rst {
            return;
        }
        self.window_received = segment.window;
        let Some(ack) = segment.ack else { return };
        if ack > self.snd_una && ack <= self.snd_nxt {
            self.snd_una = ack;
        }
        if let Some((end, at)) = self.timed
            && ack >= end
        {
            self.round_trip_time = Some(now - at);
            self.timed = None;
        }
    }

    /// Whether data up to `end` goes beyond the window last offered. (Receive
    /// buffers of at most 65,535 bytes need no scale.)
    pub(crate) fn is_beyond_window(&self, end: TcpSeqNumber) -> bool {
        end > self.acked + usize::from(self.window_sent)
    }

    /// Whether a segment is next in line, and says nothing but what is known to be
    /// acknowledged.
    pub(crate) fn only_repeats_ack(&self, segment: &Segment<'_>) -> bool {
        let is_bare = segment.payload_length == 0 && !segment.syn && !segment.fin && !segment.rst;
        is_bare && segment.ack == Some(self.snd_una) && segment.seq == self.acked
    }

    /// A segment with the peer's FIN was accepted.
    pub(crate) fn peer_fin(&mut self, segment: &Segment<'_>) {
        self.peer_end = Some(segment.end());
    }

    /// `packet` is a TCP segment that was just made.
    pub(crate) fn sent(&mut self, now: Instant, packet: &TcpPacket<&[u8]>) {
        let control = match (packet.syn(), packet.fin()) {
            (true, _) => TcpControl::Syn,
            (_, true) => TcpControl::Fin,
            (false, false) => TcpControl::None,
        };
        let seq = packet.seq_number();
        let data = packet.payload().len();
        let end = seq + data + control.len();
        if !self.sent_any {
            (self.snd_una, self.snd_nxt, self.sent_any) = (seq, seq, true);
        }
        self.last_sent = seq;
        if packet.ack() {
            self.acked = packet.ack_number();
        }
        self.window_sent = packet.window_len();
        let sends_again = seq < self.snd_nxt && end > self.snd_una;
        if sends_again && end != seq {
            // RFC 6298 3 (Karn): what was sent twice is not timed.
            self.timed = None;
            self.retransmits += u64::from(data > 0);
        } else if end > self.snd_nxt && self.timed.is_none() {
            self.timed = Some((end, now));
        }
        self.snd_nxt = self.snd_nxt.max(end);
    }

    /// The peer's last acknowledgement, as it would repeat it.
    pub(crate) fn last_ack(&self, tuple: &Tuple) -> TcpRepr<'static> {
        segment::bare_ack(tuple, self.acked, self.snd_una, self.window_received)
    }

    /// Whether the last segment sent began there.
    pub(crate) fn is_last_sent(&self, seq: u32) -> bool {
        self.sent_any && self.last_sent.0.cast_unsigned() == seq
    }

    /// A segment that smoltcp did not make acknowledged all before `rcv_nxt`.
    pub(crate) fn acked(&mut self, rcv_nxt: TcpSeqNumber) {
        self.acked = rcv_nxt;
    }

    /// Whether the peer's FIN was acknowledged.
    pub(crate) fn peer_fin_acked(&self) -> bool {
        self.peer_end == Some(self.acked)
    }

    /// What TIME-WAIT needs, when the peer's FIN was acknowledged.
    pub(crate) fn time_wait(&self) -> Option<TimeWait> {
        self.peer_end
            .filter(|end| *end == self.acked)
            .map(|end| self.record(end))
    }

    /// What it takes to acknowledge all up to `rcv_nxt`.
    pub(crate) fn record(&self, rcv_nxt: TcpSeqNumber) -> TimeWait {
        TimeWait {
            snd_nxt: self.snd_nxt,
            rcv_nxt,
            window: self.window_sent,
        }
    }

    /// Whether anything was sent.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent_any
    }

    /// The sequence number after the peer's FIN, once that was accepted.
    pub(crate) fn peer_end(&self) -> Option<TcpSeqNumber> {
        self.peer_end
    }

    /// The window last offered to the peer. Receive buffers of at most 65,535
    /// bytes need no scale.
    pub(crate) fn receive_window(&self) -> u32 {
        self.window_sent.into()
    }

    /// The window last offered by the peer.
    pub(crate) fn send_window(&self) -> u32 {
        u32::from(self.window_received) << self.scale
    }
}

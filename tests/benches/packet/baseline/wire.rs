//! What one connection showed on the wire. smoltcp keeps these to itself.

use std::time::Duration;

use l3l4_engine::Instant;
use smoltcp::wire::{TcpControl, TcpPacket, TcpSeqNumber};

use super::segment::Segment;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wire {
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
    /// The window field last received.
    window_received: u16,
    /// A segment that is being timed: the acknowledgement that it waits for, and
    /// when it was sent.
    timed: Option<(TcpSeqNumber, Instant)>,
    round_trip_time: Option<Duration>,
    retransmits: u64,
}

impl Wire {
    pub(super) fn received(&mut self, now: Instant, segment: &Segment<'_>) {
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

    /// `packet` is a TCP segment that was just made.
    pub(super) fn sent(&mut self, now: Instant, packet: &TcpPacket<&[u8]>) {
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

    /// Whether anything was sent.
    pub(super) fn has_sent(&self) -> bool {
        self.sent_any
    }
}

//! What a synchronized connection sends.

use core::mem;

use super::connection::{AckDue, Connection};
use super::options::{MOST_BLOCKS, Writer};
use super::segment::{self, HEADER, Header};
use super::sender::{Fresh, Piece};
use super::seq::Seq;
use crate::ip;
use crate::tuple::Tuple;
use crate::turn::Turn;

/// A header without options cannot be longer than that.
const MOST_OPTIONS: usize = 40;

impl Connection {
    /// Sends all that may go. Says whether the device took less.
    pub(super) fn transmit(&mut self, turn: &mut Turn<'_>, tuple: &Tuple) -> bool {
        let (now, min_rto) = (turn.now, turn.config.min_rto);
        let all_went = mem::take(&mut self.all_went);
        let mut refused = !(all_went || self.send_data(turn, tuple, &mut Fresh::default()));
        if !refused {
            self.send.arm(now, min_rto);
        }
        let due = match self.acks.due {
            AckDue::No => false,
            AckDue::Delayed(at) => at <= now,
            AckDue::Now => true,
        };
        if due {
            refused |= !turn.make_room();
            if !refused {
                self.send_ack(turn, tuple, self.send.ack_seq());
            }
        }
        if self.keep_alive_at().is_some_and(|at| at <= now) {
            refused |= !turn.make_room();
            if !refused {
                // RFC 9293 3.8.4: a number that the peer has, so that it answers.
                self.kept_alive = Some(now);
                self.send_ack(turn, tuple, self.send.snd_una - 1);
            }
        }
        refused
    }

    /// Sends the segments that may go, whose data may be `fresh`. Says whether the
    /// device took them.
    pub(super) fn send_data(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        fresh: &mut Fresh<'_>,
    ) -> bool {
        let (now, min_rto) = (turn.now, turn.config.min_rto);
        let before = self.send.retransmits;
        let waits = self.send.is_outstanding();
        if waits {
            self.send.poll(now, min_rto, self.sack);
            self.send.wake(now, min_rto);
        }
        if self.receive.has_news(turn.pool) {
            self.acks.due = AckDue::Now;
        }
        let mut taken = self.send_repeats(turn, tuple);
        while waits
            && taken
            && let Some(piece) = self.send.next(self.terms.nagle)
        {
            taken = self.send_piece(turn, tuple, &piece, fresh);
        }
        turn.counters.retransmits += self.send.retransmits - before;
        taken
    }

    /// RFC 5681 4.2: an ACK for each segment out of order. Says whether the device
    /// took them.
    fn send_repeats(&mut self, turn: &mut Turn<'_>, tuple: &Tuple) -> bool {
        if self.acks.repeats > 0 && !turn.make_room() {
            return false;
        }
        if self.acks.repeats > 0 && self.acks.last != self.receive.rcv_nxt {
            // The first acknowledges what came in order, and is no repetition.
            self.acks.repeats = self.acks.repeats.saturating_add(1);
        }
        while self.acks.repeats > 0 {
            if !turn.make_room() {
                return false;
            }
            self.acks.repeats -= 1;
            self.send_ack(turn, tuple, self.send.ack_seq());
        }
        true
    }

    /// As it says, if the device takes packets; otherwise later.
    pub(super) fn send_ack_at_once(&mut self, turn: &mut Turn<'_>, tuple: &Tuple) {
        match turn.make_room() {
            true => self.send_ack(turn, tuple, self.send.ack_seq()),
            false => self.acks.due = AckDue::Now,
        }
    }

    fn send_ack(&mut self, turn: &mut Turn<'_>, tuple: &Tuple, seq: Seq) {
        let header = self.header(turn, seq, MOST_OPTIONS);
        segment::send_bare(turn, tuple, &header);
    }

    /// Makes a packet of a piece: from where its data lies, or with a copy of it. Says
    /// whether the device took those before.
    fn send_piece(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        piece: &Piece,
        fresh: &mut Fresh<'_>,
    ) -> bool {
        let laid = self.send.laid(turn.pool, piece, fresh);
        let may = match laid {
            Some(_) => turn.make_way(),
            None => turn.make_room(),
        };
        if !may {
            return false;
        }
        let length = piece.length as usize;
        let ip_header = ip::header_length(tuple.peer);
        let room = (self.path_mtu as usize).saturating_sub(ip_header + HEADER + length);
        let mut header = self.header(turn, piece.seq, room);
        header.flags.fin = piece.fin;
        header.flags.psh = piece.push && length > 0;
        let headers = ip_header + header.length();
        let (pool, send) = (&mut *turn.pool, &mut self.send);
        let packet = laid.and_then(|(block, sum)| Some((pool.packet_mut(block, headers)?, sum)));
        match packet {
            Some((packet, sum)) => {
                segment::write_headers(tuple, &header, packet, sum);
                turn.egress.lend(packet, turn.callbacks, turn.counters);
            }
            None => segment::send(turn.egress, tuple, &header, length, |space| {
                send.fill(pool, piece, fresh, space)
            }),
        }
        self.send.sent(piece, turn.now);
        true
    }

    /// The header of a segment that acknowledges all that was received, with
    /// options of at most `room` bytes. What was due is said with it.
    fn header(&mut self, turn: &Turn<'_>, seq: Seq, room: usize) -> Header {
        let mut header = Header::new(seq, Some(self.receive.rcv_nxt));
        header.window = self.receive.offer(turn.pool);
        header.options = self.options(turn, room);
        self.acks.due = AckDue::No;
        self.acks.unacked = 0;
        self.acks.last = self.receive.rcv_nxt;
        self.acks.window = header.window;
        header
    }

    fn options(&mut self, turn: &Turn<'_>, room: usize) -> Writer {
        let mut options = Writer::new();
        if let Some(clock) = &self.clock {
            options.timestamps(clock.stamp(turn.now));
        }
        if self.sack && (self.receive.has_gap() || self.receive.has_repeated()) {
            let mut blocks = [(Seq(0), Seq(0)); MOST_BLOCKS];
            let filled = self.receive.blocks(&mut blocks);
            let room = room.saturating_sub(options.bytes().len());
            options.sack(&blocks[..filled], room);
        }
        options
    }
}

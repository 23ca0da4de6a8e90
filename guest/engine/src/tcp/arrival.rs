//! What a segment does to a synchronized connection, in the order of RFC 9293
//! 3.10.7.4, with RFC 5961 against blind attacks and RFC 7323 5.3 (PAWS).

use core::time::Duration;

use super::connection::{AckDue, Connection, State};
use super::flight::Echo;
use super::segment::Segment;
use super::sender::Ack;
use super::seq::Seq;
use crate::counters::DropReason;
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::{CloseReason, FlowId, Instant, nanoseconds};

/// RFC 9293 3.8.6.3 allows 500 ms; 40 ms as Linux.
const DELAYED_ACK: Duration = Duration::from_millis(40);
/// Acknowledgements that are not delayed at the beginning and after a gap or a
/// repetition: as many as Linux' `TCP_MAX_QUICKACKS`.
pub(super) const QUICK_ACKS: u8 = 16;
/// RFC 5961 7: at most two challenges a second and connection.
const CHALLENGE_SPACING: Duration = Duration::from_millis(500);
/// Answers to repetitions and to what is out of the window: at most eight a second.
const DUPLICATE_SPACING: Duration = Duration::from_millis(125);

impl Connection {
    /// Takes a segment in; see `TcpFlow::l3_rx`.
    pub(crate) fn l3_rx(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        segment: &Segment<'_>,
        lend: Option<FlowId>,
    ) -> Result<(), DropReason> {
        // What comes after the limit comes too late, also when the host has not
        // polled since; settling says so.
        if self.is_timed_out(turn) {
            return Err(DropReason::StraySegment);
        }
        self.check_timestamp(turn, tuple, segment)?;
        // First, the sequence number.
        if !self.receive.accepts(segment.seq, segment.end()) {
            if segment.syn {
                self.challenge(turn, tuple);
            } else if !segment.rst {
                self.take_repeated(turn, segment);
                self.answer_duplicate(turn, tuple, segment);
            }
            return Err(DropReason::Unacceptable);
        }
        // Second, RST (RFC 5961 3.2). Third, security: RFC 9293 A.1 lets it be.
        if segment.rst {
            return self.reset(turn, tuple, segment);
        }
        // Fourth, SYN (RFC 5961 4.2).
        if segment.syn {
            self.challenge(turn, tuple);
            return Err(DropReason::Unacceptable);
        }
        // Fifth, ACK (RFC 5961 5.2).
        let Some(ack) = segment.ack else {
            return Err(DropReason::Unacceptable);
        };
        if !self.may_be_acked(ack) {
            self.challenge(turn, tuple);
            return Err(DropReason::Unacceptable);
        }
        self.note_heard(turn.now);
        if let (Some(clock), Some(times)) = (&mut self.clock, segment.options.timestamps) {
            clock.note(turn.now, times.value, segment.seq, self.acks.last);
        }
        // An older one may stand on data that came out of order.
        if ack >= self.send.snd_una {
            self.take_ack(turn, segment, ack);
        }
        // Sixth, URG: the data is delivered in line. Seventh and eighth.
        self.take_text(turn, tuple, segment, lend)
    }

    /// Takes in the segment that completed the handshake, whose acknowledgement
    /// has been checked.
    pub(crate) fn complete(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        segment: &Segment<'_>,
    ) -> Result<(), DropReason> {
        if segment.syn {
            // A SYN-ACK, whose data the peer sends again: it is acknowledged.
            self.acks.due = AckDue::Now;
            return Ok(());
        }
        let shift = self.send.window.shift;
        let ack = self.send.snd_una;
        self.send
            .window
            .set(segment.window, shift, segment.seq, ack);
        if let (Some(clock), Some(times)) = (&mut self.clock, segment.options.timestamps) {
            clock.note(turn.now, times.value, segment.seq, self.acks.last);
        }
        self.take_text(turn, tuple, segment, None)
    }

    /// A peer that repeats what it has said, if only to ask whether we live (RFC 9293
    /// 3.8.4), lives. Its acknowledgement shows that it knows the connection, and
    /// counts: two ends that have each lost an ACK and drop what the other repeats
    /// would otherwise go on for ever.
    fn take_repeated(&mut self, turn: &mut Turn<'_>, segment: &Segment<'_>) {
        let Some(ack) = segment.ack.filter(|ack| self.may_be_acked(*ack)) else {
            return;
        };
        if !self.receive.has_had(segment.seq, segment.end()) {
            return;
        }
        self.note_heard(turn.now);
        if ack > self.send.snd_una {
            self.take_ack(turn, segment, ack);
        }
    }

    /// RFC 5961 5.2: what was sent, and no older than a window.
    fn may_be_acked(&self, ack: Seq) -> bool {
        ack <= self.send.snd_nxt && ack >= self.send.snd_una - self.send.window.most
    }

    /// RFC 7323 5.3 R1, and 3.2 for a segment without the timestamps agreed on.
    fn check_timestamp(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        segment: &Segment<'_>,
    ) -> Result<(), DropReason> {
        let Some(clock) = self.clock.filter(|_| !segment.rst) else {
            return Ok(());
        };
        match segment.options.timestamps {
            Some(times) if !clock.is_old(turn.now, times.value) => Ok(()),
            Some(_) => {
                self.answer_duplicate(turn, tuple, segment);
                Err(DropReason::Unacceptable)
            }
            None if segment.syn => Ok(()),
            None => Err(DropReason::Unacceptable),
        }
    }

    /// RFC 5961 3.2: only the next number resets, another one in the window is
    /// challenged. RFC 1337: nothing resets in TIME-WAIT.
    fn reset(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        segment: &Segment<'_>,
    ) -> Result<(), DropReason> {
        if segment.seq != self.receive.rcv_nxt {
            self.challenge(turn, tuple);
            return Err(DropReason::Unacceptable);
        }
        if self.state == State::TimeWait {
            return Err(DropReason::Unacceptable);
        }
        // RFC 9293 3.10.7.4: in CLOSING and LAST-ACK the user is not told of a reset,
        // for both have said all; here, if the peer has all, too.
        let is_said = matches!(self.state, State::Closing | State::LastAck);
        let reason = match is_said && self.send.queued() == 0 {
            true => CloseReason::Finished,
            false => CloseReason::ResetByPeer,
        };
        self.end(reason, turn);
        Ok(())
    }

    /// The connection is over; what was received is still to be delivered.
    fn end(&mut self, reason: CloseReason, turn: &mut Turn<'_>) {
        self.state = State::Closed;
        self.end = Some(reason);
        self.acks.due = AckDue::No;
        self.send.clear(turn.pool);
    }

    fn take_ack(&mut self, turn: &mut Turn<'_>, segment: &Segment<'_>, ack: Seq) {
        let window = &mut self.send.window;
        let (field, shift, before) = (segment.window, window.shift, window.snd_wnd);
        // RFC 9293 3.10.7.4; and what acknowledges more was sent later, also when a
        // retransmission brings it (Linux' `tcp_may_update_window`): the window it
        // tells counts from there, the old one does not.
        let is_news = self.send.snd_una < ack
            || window.snd_wl1 < segment.seq
            || window.snd_wl1 == segment.seq && window.snd_wl2 <= ack;
        let is_bare = segment.data.is_empty()
            && !segment.fin
            && ack == self.send.snd_una
            && u32::from(field) << shift == before;
        let clock = self.clock;
        let echo = segment.options.timestamps.map(|times| times.echo);
        let echo = |sent: Instant| match (clock, echo) {
            (Some(clock), Some(echo)) if clock.is_before(echo, sent) => Echo::Older,
            (Some(_), Some(_)) => Echo::NotOlder,
            _ => Echo::Unknown,
        };
        let sack = self.sack;
        self.send.acked(
            turn.pool,
            turn.now,
            Ack {
                ack,
                is_bare,
                blocks: segment.options.sack().filter(|_| sack),
                sack,
                echo,
            },
        );
        if is_news {
            self.send.window.set(field, shift, segment.seq, ack);
            self.send.window_was(before, turn.now);
        }
        if self.send.is_fin_acked() {
            match self.state {
                State::FinWait1 => self.state = State::FinWait2,
                State::Closing => self.state = State::TimeWait,
                State::LastAck => self.end(CloseReason::Finished, turn),
                _ => {}
            }
        }
    }

    fn take_text(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        segment: &Segment<'_>,
        lend: Option<FlowId>,
    ) -> Result<(), DropReason> {
        if segment.data.is_empty() && !segment.fin || self.end.is_some() {
            return Ok(());
        }
        if self.receive.is_finished() {
            // CLOSE-WAIT and later: "Ignore the segment text."
            self.answer_duplicate(turn, tuple, segment);
            return Err(DropReason::Unacceptable);
        }
        let length = u32::try_from(segment.data.len()).unwrap_or(u32::MAX);
        self.acks.segment = self.acks.segment.max(length);
        let lent = lend.map_or(0, |id| self.lend(id, turn, segment));
        let (seq, rest) = (segment.seq + lent, &segment.data[lent as usize..]);
        let mut taken = self.receive.receive(turn.pool, seq, rest, segment.fin);
        taken.in_order |= lent > 0;
        if self.receive.is_finished() {
            self.state = match self.state {
                State::Established => State::CloseWait,
                State::FinWait1 => State::Closing,
                State::FinWait2 => State::TimeWait,
                state => state,
            };
            self.acks.due = AckDue::Now;
        }
        self.acknowledge(turn, length, taken.in_order, taken.at_gap);
        match taken.refused && !taken.in_order {
            true => Err(DropReason::OutOfMemory),
            false => Ok(()),
        }
    }

    /// RFC 5681 4.2: at once at a gap and when it is filled, for every second full
    /// segment, and otherwise within the delay.
    fn acknowledge(&mut self, turn: &Turn<'_>, length: u32, in_order: bool, at_gap: bool) {
        let (acks, mss) = (&mut self.acks, self.receive.mss());
        if !in_order {
            acks.quick = QUICK_ACKS;
            acks.due = AckDue::Now;
            // Each segment out of order is answered on its own: three of them tell
            // the peer of a loss. That is when the call settles and the host has
            // taken what came before: a peer counts what repeats the window, too.
            acks.repeats = acks.repeats.saturating_add(1);
            return;
        }
        acks.unacked = acks.unacked.saturating_add(length);
        // No segment is larger than we asked for; a device may have merged some.
        let is_second = acks.unacked >= acks.segment.min(mss).saturating_mul(2);
        if at_gap {
            acks.quick = QUICK_ACKS;
        }
        if at_gap || is_second || acks.quick > 0 {
            acks.quick = acks.quick.saturating_sub(1);
            acks.due = AckDue::Now;
        } else if acks.due == AckDue::No {
            acks.due = AckDue::Delayed(turn.now + DELAYED_ACK);
        }
    }

    /// RFC 5961: asks a peer that seems to know less or more than it should what
    /// it knows.
    fn challenge(&mut self, turn: &mut Turn<'_>, tuple: &Tuple) {
        if turn.now < self.acks.challenge_from {
            return;
        }
        self.acks.challenge_from = self.later(turn.now, CHALLENGE_SPACING);
        turn.counters.challenge_acks += 1;
        self.send_ack_at_once(turn, tuple);
    }

    /// RFC 9293 3.10.7.4: a segment that is not acceptable is answered with an
    /// ACK; RFC 5961 7 and RFC 6528 let that be limited.
    fn answer_duplicate(&mut self, turn: &mut Turn<'_>, tuple: &Tuple, segment: &Segment<'_>) {
        self.acks.quick = QUICK_ACKS;
        self.receive.note_repeated(segment.seq, segment.data.len());
        if turn.now < self.acks.duplicate_from {
            return;
        }
        self.acks.duplicate_from = self.later(turn.now, DUPLICATE_SPACING);
        self.send_ack_at_once(turn, tuple);
    }

    /// An instant at least that much later, and up to a quarter more, so that the
    /// answers tell a stranger nothing (CVE-2016-5696).
    fn later(&self, now: Instant, spacing: Duration) -> Instant {
        let mixed = (self.send.snd_una.0 ^ self.receive.rcv_nxt.0).wrapping_mul(0x9e37_79b9);
        let quarter = nanoseconds(spacing) / 4;
        let jitter = (u64::from(mixed ^ mixed >> 15) << 10) % quarter;
        now + spacing + Duration::from_nanos(jitter)
    }
}

//! One synchronized connection (RFC 9293 3.3.2), from the end of its handshake to
//! the last byte: its state, its two sides, and the time limits that may end it.
//!
//! What a segment does stands in `arrival`, what goes out in `transmit`.

use core::hint::black_box;
use core::time::Duration;

use super::congestion::Congestion;
use super::options::TIMESTAMPS_LENGTH;
use super::pool::Pool;
use super::receiver::{Receiver, initial_window, shift_for};
use super::secrets::timestamp;
use super::segment::{Header, Segment, Syn, mss_of, send_bare};
use super::sender::{Sender, Window};
use super::seq::Seq;
use super::terms::Terms;
use super::time_wait::TimeWait;
use super::timestamps::Clock;
use super::{Settled, TcpSnapshot, arrival::QUICK_ACKS};
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::{CloseReason, Event, FlowId, FlowState, Instant, Timer, nanoseconds, sooner};

/// The synchronized states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    /// Kept only until the host has all; then a record takes over.
    TimeWait,
    /// The connection has ended; its last data is undelivered.
    Closed,
}

#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(super) state: State,
    pub(super) send: Sender,
    pub(super) receive: Receiver,
    /// Selective acknowledgements were agreed on.
    pub(super) sack: bool,
    pub(super) clock: Option<Clock>,
    pub(super) acks: Acks,
    pub(super) terms: Terms,
    pub(super) path_mtu: u32,
    /// The last acceptable segment from the peer.
    pub(super) heard: Instant,
    /// The last of a segment from the peer and data from or to the host.
    pub(super) moved: Instant,
    /// Since when data, FIN or a keep-alive has been unanswered.
    outstanding: Option<Instant>,
    /// The last keep-alive since the peer was heard.
    pub(super) kept_alive: Option<Instant>,
    pub(super) told: Told,
    /// The host took less than it was offered, and did not resume.
    held: bool,
    /// An `l4_tx` took less than it was given.
    wants_room: bool,
    /// What may go went already in this call.
    pub(super) all_went: bool,
    /// Something was not taken in this call, so nothing that follows is, whatever room
    /// the call may find meanwhile: a guard, since no such room is known.
    took_less: bool,
    /// The host has sent all.
    finish: bool,
    /// How the connection ended, before the flow has.
    pub(super) end: Option<CloseReason>,
    bytes_received: u64,
    bytes_sent: u64,
}

/// What the host has been told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) established: bool,
    peer_finished: bool,
    peer_reset: bool,
}

/// The acknowledgement that is due to the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acks {
    pub(super) due: AckDue,
    /// Bytes in order since the last one.
    pub(super) unacked: u32,
    /// The largest segment that the peer sent.
    pub(super) segment: u32,
    /// Segments out of order that are still to be answered one by one.
    pub(super) repeats: u8,
    /// Acknowledgements that are not delayed, at the beginning and after a gap or a
    /// repetition: the peer's window is small then, and each ACK opens it.
    pub(super) quick: u8,
    /// Last.ACK.sent (RFC 7323 4.3), and the window field beside it.
    pub(super) last: Seq,
    pub(super) window: u16,
    /// When a segment that is not acceptable, or suspect, is answered again.
    pub(super) duplicate_from: Instant,
    pub(super) challenge_from: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckDue {
    No,
    /// RFC 9293 3.8.6.3.
    Delayed(Instant),
    Now,
}

/// What the handshake agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreed {
    pub(crate) syn: Syn,
    pub(crate) iss: Seq,
    pub(crate) terms: Terms,
    /// How long our SYN or SYN-ACK took to be acknowledged, if it was sent once.
    pub(crate) rtt: Option<Duration>,
    /// It was sent more often.
    pub(crate) syn_lost: bool,
    pub(crate) finish: bool,
    pub(crate) wants_room: bool,
}

impl Connection {
    pub(crate) fn new(turn: &Turn<'_>, tuple: &Tuple, agreed: &Agreed) -> Self {
        let (config, now, syn) = (turn.config, turn.now, &agreed.syn);
        let offset = turn.secrets.timestamp_offset(tuple);
        let clock = syn.timestamp.map(|value| Clock::new(offset, value, now));
        let own_mss = mss_of(config.mtu, tuple.peer);
        let mss = own_mss.min(syn.mss_or_default(tuple).into()) - options_length(clock);
        let mut window = Window {
            shift: syn.window_scale.unwrap_or(0),
            ..Window::default()
        };
        window.set(syn.window, 0, syn.irs, agreed.iss);
        let mut congestion = Congestion::new(config.congestion_control, mss);
        if agreed.syn_lost {
            // RFC 5681 3.1.
            congestion.set(mss);
        }
        let most = config.tcp_send_buffer;
        let mut send = Sender::new(agreed.iss + 1, window, mss, most, congestion, now);
        match agreed.rtt {
            Some(rtt) => send.rtt.sample(nanoseconds(rtt)),
            None if agreed.syn_lost => send.rtt.syn_was_lost(),
            None => {}
        }
        let most = config.tcp_receive_buffer;
        let shift = syn.window_scale.map_or(0, |_| shift_for(most));
        let rcv_nxt = syn.irs + 1;
        Self {
            state: State::Established,
            send,
            receive: Receiver::new(rcv_nxt, shift, own_mss, most, now),
            sack: syn.sack_permitted,
            clock,
            acks: Acks {
                due: AckDue::No,
                unacked: 0,
                segment: 1,
                repeats: 0,
                quick: QUICK_ACKS,
                last: rcv_nxt,
                window: u16::try_from(initial_window(most)).unwrap_or(u16::MAX),
                duplicate_from: now,
                challenge_from: now,
            },
            terms: agreed.terms,
            path_mtu: config.mtu,
            heard: now,
            moved: now,
            outstanding: None,
            kept_alive: None,
            told: Told::default(),
            held: false,
            wants_room: agreed.wants_room,
            all_went: false,
            took_less: false,
            finish: agreed.finish,
            end: None,
            bytes_received: 0,
            bytes_sent: 0,
        }
    }

    /// Reads a field of each line of the cache that a call reads, before the call does. So
    /// a flow that no cache holds costs about one trip to memory, not one for each of
    /// its ten lines: a twentieth of a packet at 10,000 flows (the packet bench).
    pub(crate) fn fetch(&self) {
        let (send, receive) = (self.send.fetch(), self.receive.queued());
        black_box((send, receive, self.acks.last, self.clock.is_some()));
        black_box((
            self.receive.rcv_nxt,
            self.terms.nagle,
            self.heard,
            self.state,
        ));
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// The host has sent all.
    pub(crate) fn is_finished(&self) -> bool {
        self.finish
    }

    /// Takes bytes to send from the front of `data`. What may go goes `at_once`, straight
    /// from there.
    pub(crate) fn l4_tx(
        &mut self,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        data: &[u8],
        at_once: bool,
    ) -> usize {
        let data = if self.took_less { &[] } else { data };
        let mut fresh = self.send.take(turn.pool, data);
        let taken = fresh.len();
        self.all_went = at_once && self.send_data(turn, tuple, &mut fresh);
        self.send.store(turn.pool, fresh);
        if taken > 0 {
            self.moved = turn.now;
            self.bytes_sent += taken as u64;
        }
        self.took_less |= taken < data.len();
        // An earlier promise of room stays.
        self.wants_room |= self.took_less;
        taken
    }

    /// The host takes data again.
    pub(crate) fn resume(&mut self) {
        self.held = false;
    }

    /// FIN follows the data taken so far.
    pub(crate) fn finish(&mut self) {
        self.finish = true;
        self.wants_room = false;
    }

    /// Ends the connection at once, with RST where the peer may still send or wait
    /// (RFC 9293 3.10.5).
    pub(crate) fn abort(&mut self, turn: &mut Turn<'_>, tuple: &Tuple) {
        let resets = match self.state {
            State::Established | State::FinWait1 | State::FinWait2 | State::CloseWait => true,
            // Entered when the host finishes; the RFC's states begin when all that
            // it gave, and the FIN, are out.
            State::Closing | State::LastAck => !self.send.has_said_all(),
            State::TimeWait | State::Closed => false,
        };
        if resets && turn.make_room_for_reply() {
            let mut header = Header::new(self.send.ack_seq(), Some(self.receive.rcv_nxt));
            header.flags.rst = true;
            send_bare(turn, tuple, &header);
        }
    }

    /// An ICMP error says that a segment of ours was too big for the path (RFC
    /// 1191, RFC 8201). It is believed if it quotes what is in flight (RFC 5927
    /// 7); `icmp` has seen to it that the MTU is one that a link may have. Says
    /// whether it changed anything.
    pub(crate) fn packet_too_big(
        &mut self,
        turn: &Turn<'_>,
        tuple: &Tuple,
        seq: u32,
        mtu: u32,
    ) -> bool {
        let seq = Seq(seq);
        let in_flight = seq >= self.send.snd_una && seq < self.send.snd_nxt;
        if self.end.is_some() || !in_flight || mtu >= self.path_mtu {
            return false;
        }
        self.path_mtu = mtu;
        let mss = mss_of(mtu, tuple.peer) - options_length(self.clock);
        if mss < self.send.mss {
            self.send.resegment(mss, turn.now);
        }
        true
    }

    /// Delivers what came, sends what may go, reports what happened, and tells
    /// how the flow stands. Limits that ran out end it.
    pub(crate) fn settle(&mut self, id: FlowId, turn: &mut Turn<'_>, tuple: &Tuple) -> Settled {
        if !self.told.established {
            self.told.established = true;
            turn.callbacks.flow_event(id, Event::Established);
        }
        self.took_less = false;
        self.deliver(id, turn);
        if self.finish {
            self.begin_finish();
        }
        let refused = self.end.is_none() && self.transmit(turn, tuple);
        self.report(id, turn);
        if let Some(over) = self.over() {
            return over;
        }
        self.note_outstanding(turn.now);
        let (limit, timer) = self.limit(turn);
        if limit <= turn.now {
            if matches!(timer, Timer::Idle | Timer::FinWait) {
                self.abort(turn, tuple);
            }
            return Settled::Over(CloseReason::TimedOut(timer), None);
        }
        if refused {
            return Settled::Stalled { limit };
        }
        Settled::Alive {
            transmit: self.deadline(turn),
            limit,
            starved: self.is_starved(turn),
            mute: self.is_mute(turn),
        }
    }

    fn deliver(&mut self, id: FlowId, turn: &mut Turn<'_>) {
        while !self.held && self.receive.queued() > 0 {
            let data = self.receive.front(turn.pool);
            let offered = data.len();
            let taken = turn.callbacks.l4_rx(id, data).min(offered);
            self.note_delivered(turn, offered, taken);
            if taken > 0 {
                let length = u32::try_from(taken).unwrap_or(u32::MAX);
                let rtt = self.send.rtt.smoothed();
                self.receive.took(turn.pool, length, turn.now, rtt);
            }
        }
    }

    /// Delivers the data of an acceptable segment straight from the packet if it is
    /// what the host gets next. Returns how many bytes the host took.
    pub(super) fn lend(&mut self, id: FlowId, turn: &mut Turn<'_>, segment: &Segment<'_>) -> u32 {
        let data = self.receive.lendable(segment.seq, segment.data);
        if data.is_empty() || self.held || !self.told.established {
            return 0;
        }
        let taken = turn.callbacks.l4_rx(id, data).min(data.len());
        self.note_delivered(turn, data.len(), taken);
        let length = u32::try_from(taken).unwrap_or(u32::MAX);
        let rtt = self.send.rtt.smoothed();
        self.receive.lent(length, turn.now, rtt);
        length
    }

    fn note_delivered(&mut self, turn: &mut Turn<'_>, offered: usize, taken: usize) {
        self.held = taken < offered;
        if taken > 0 {
            self.moved = turn.now;
            self.bytes_received += taken as u64;
            turn.counters.l4_rx_bytes += taken as u64;
        }
    }

    /// Our FIN follows the data.
    fn begin_finish(&mut self) {
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            _ => return,
        };
        self.send.finish();
    }

    fn report(&mut self, id: FlowId, turn: &mut Turn<'_>) {
        if self.receive.is_finished() && self.is_drained() && !self.told.peer_finished {
            self.told.peer_finished = true;
            turn.callbacks.flow_event(id, Event::PeerFinished);
        }
        if self.is_reset() && !self.is_drained() && !self.told.peer_reset {
            self.told.peer_reset = true;
            turn.callbacks.flow_event(id, Event::PeerReset);
        }
        if self.wants_room && self.end.is_none() && self.send.has_room(turn.pool) {
            self.wants_room = false;
            turn.callbacks.flow_event(id, Event::Writable);
        }
    }

    /// The peer has reset it.
    pub(crate) fn is_reset(&self) -> bool {
        self.end == Some(CloseReason::ResetByPeer)
    }

    fn is_drained(&self) -> bool {
        self.receive.queued() == 0
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
        let all_said = self.acks.last == self.receive.rcv_nxt;
        if self.state != State::TimeWait || !self.told.peer_finished || !all_said {
            return None;
        }
        let record = TimeWait {
            snd_nxt: self.send.snd_nxt,
            rcv_nxt: self.receive.rcv_nxt,
            window: self.acks.window,
            clock: self.clock,
        };
        Some(Settled::Over(CloseReason::Finished, Some(record)))
    }

    fn note_outstanding(&mut self, now: Instant) {
        let unanswered = self.send.is_outstanding() || self.kept_alive.is_some();
        self.outstanding = match self.outstanding {
            _ if !unanswered => None,
            None => Some(now),
            since => since,
        };
    }

    /// The peer lives.
    pub(super) fn note_heard(&mut self, now: Instant) {
        self.heard = now;
        self.moved = now;
        self.kept_alive = None;
    }

    /// Whether a limit had run out before this call.
    pub(super) fn is_timed_out(&self, turn: &Turn<'_>) -> bool {
        self.limit(turn).0 <= turn.now
    }

    /// The limit that runs out next.
    fn limit(&self, turn: &Turn<'_>) -> (Instant, Timer) {
        let idle = (self.moved + self.terms.idle_timeout(), Timer::Idle);
        if self.end.is_some() {
            return idle;
        }
        let mut soonest = idle;
        if let Some(since) = self.outstanding {
            let user = since.max(self.heard) + self.terms.user_timeout();
            if user < soonest.0 {
                soonest = (user, Timer::User);
            }
        }
        // What was acknowledged is not given up because the host is slow.
        if self.state == State::FinWait2 && self.is_drained() {
            let fin_wait = self.heard + turn.config.fin_wait_timeout;
            if fin_wait < soonest.0 {
                soonest = (fin_wait, Timer::FinWait);
            }
        }
        soonest
    }

    /// When there is something to send unless a segment comes.
    fn deadline(&self, turn: &Turn<'_>) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let ack = match self.acks.due {
            AckDue::No => None,
            AckDue::Delayed(at) => Some(at),
            AckDue::Now => Some(turn.now),
        };
        let send = self.send.deadline(turn.config.min_rto, self.sack);
        sooner(sooner(ack, send), self.keep_alive_at())
            // All that could go went: a mistake must not spin.
            .map(|at| at.max(turn.now + Duration::from_millis(1)))
    }

    /// When the next keep-alive goes out (RFC 9293 3.8.4): an idle peer is probed,
    /// one that has data of ours to acknowledge is heard of anyway.
    pub(super) fn keep_alive_at(&self) -> Option<Instant> {
        let interval = self.terms.keep_alive()?;
        let idles = matches!(self.state, State::Established | State::CloseWait)
            && !self.send.is_outstanding();
        idles.then(|| self.kept_alive.unwrap_or(self.heard) + interval)
    }

    /// Whether it waits for memory.
    fn is_starved(&self, turn: &Turn<'_>) -> bool {
        let no_block = self.wants_room && !self.send.has_block(turn.pool);
        self.end.is_none() && (no_block || self.receive.is_starved(turn.pool))
    }

    /// Whether it waits for its first block to send. Nothing of its own will free one.
    fn is_mute(&self, turn: &Turn<'_>) -> bool {
        self.end.is_none()
            && self.wants_room
            && self.send.queued() == 0
            && !self.send.has_block(turn.pool)
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.send.clear(pool);
        self.receive.clear(pool);
    }

    /// Where the connection stands.
    pub(crate) fn flow_state(&self) -> FlowState {
        if self.end.is_some() {
            return FlowState::Closed;
        }
        match self.state {
            State::Established => FlowState::Established,
            State::FinWait1 => FlowState::FinWait1,
            State::FinWait2 => FlowState::FinWait2,
            State::CloseWait => FlowState::CloseWait,
            State::Closing => FlowState::Closing,
            State::LastAck => FlowState::LastAck,
            State::TimeWait | State::Closed => FlowState::Closed,
        }
    }

    /// The fields of a snapshot that only the connection knows.
    pub(crate) fn snapshot(&self, min_rto: Duration) -> TcpSnapshot {
        TcpSnapshot {
            state: self.flow_state(),
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            receive_queue: self.receive.queued(),
            send_queue: self.send.queued(),
            receive_window: self.receive.window(),
            send_window: self.send.window.snd_wnd,
            round_trip_time: self.send.rtt.smoothed().map(Duration::from_nanos),
            retransmits: self.send.retransmits,
            congestion_window: self.send.congestion.cwnd,
            retransmission_timeout: Some(Duration::from_nanos(self.send.rtt.timeout(min_rto).0)),
            max_segment_size: self.send.mss,
        }
    }
}

/// What the options take of every segment.
fn options_length(clock: Option<Clock>) -> u32 {
    clock.map_or(0, |_| TIMESTAMPS_LENGTH)
}

/// The value of the timestamp in our SYN or SYN-ACK.
pub(crate) fn first_timestamp(turn: &Turn<'_>, tuple: &Tuple) -> u32 {
    timestamp(turn.now, turn.secrets.timestamp_offset(tuple))
}

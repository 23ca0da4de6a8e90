//! One TCP connection: smoltcp's socket and what the engine keeps beside it.

use std::time::Duration;

use l3l4_engine::{Event, FlowId, Instant, Timer};

use super::Turn;
use super::segment::{Segment, Syn};
use super::socket::{Sockets, State, TcpSocket};
use super::table::Tuple;
use super::wire::Wire;

#[derive(Debug)]
pub(super) struct TcpFlow {
    socket: TcpSocket,
    wire: Wire,
    idle_timeout: Duration,
    began: Instant,
    /// The last segment from the peer, or `began`.
    heard: Instant,
    /// The last of a segment from the peer and data from the host.
    moved: Instant,
    /// Since when data has been outstanding.
    outstanding: Option<Instant>,
    established: bool,
    told_established: bool,
    bytes_received: u64,
    bytes_sent: u64,
}

impl TcpFlow {
    /// Answers a SYN.
    pub(super) fn accept(
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
        tuple: &Tuple,
        syn: &Syn,
    ) -> Self {
        let mut flow = Self {
            socket: TcpSocket::new(turn.config),
            wire: Wire::default(),
            idle_timeout: turn.config.idle_timeout,
            began: turn.now,
            heard: turn.now,
            moved: turn.now,
            outstanding: None,
            established: false,
            told_established: false,
            bytes_received: 0,
            bytes_sent: 0,
        };
        flow.socket
            .accept(sockets, turn, &mut flow.wire, tuple, syn);
        flow
    }

    /// Takes a segment in. Nothing is delivered yet.
    pub(super) fn l3_rx(
        &mut self,
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
        packet: &[u8],
        segment: &Segment<'_>,
    ) {
        assert!(!segment.fin && !segment.rst, "no row ends a connection");
        if self.limit(turn).is_some_and(|(at, _)| at <= turn.now) || !self.wire.has_sent() {
            return;
        }
        self.heard = turn.now;
        self.moved = turn.now;
        self.wire.received(turn.now, segment);
        self.socket.l3_rx(sockets, turn, &mut self.wire, packet);
        self.established |= self.socket.state() == State::Established;
    }

    /// Takes bytes to send from the front of `data`.
    pub(super) fn l4_tx(&mut self, now: Instant, data: &[u8]) -> usize {
        let taken = self.socket.l4_tx(data);
        if taken > 0 {
            self.moved = now;
            self.bytes_sent += taken as u64;
        }
        taken
    }

    /// Delivers what came and sends what may go. Returns when it wants to transmit
    /// next, and when its limits are to be looked at.
    pub(super) fn settle(
        &mut self,
        id: FlowId,
        sockets: &mut Sockets,
        turn: &mut Turn<'_>,
    ) -> (Option<Instant>, Instant) {
        if self.established && !self.told_established {
            self.told_established = true;
            turn.callbacks.flow_event(id, Event::Established);
        }
        self.deliver(id, turn);
        self.socket.transmit(sockets, turn, &mut self.wire);
        assert!(
            !self.established || !self.socket.is_stuck(sockets, turn.now),
            "smoltcp forgot its data, as it does when windows close"
        );
        self.note_outstanding(turn.now);
        if let Some((at, timer)) = self.limit(turn) {
            assert!(turn.now < at, "no row lasts so long: {timer:?}");
        }
        let limit = self.limit(turn).map_or(Instant(u64::MAX), |(at, _)| at);
        let transmit = match self.socket.deadline(sockets, turn.now) {
            // smoltcp has just sent all it would: what it still calls due waits for
            // a segment.
            Some(at) if at <= turn.now => Some(turn.now + Duration::from_millis(1)),
            at => at,
        };
        (transmit, limit)
    }

    fn deliver(&mut self, id: FlowId, turn: &mut Turn<'_>) {
        while self.socket.receive_queue() > 0 {
            let (offered, taken) = self.socket.deliver(|data| turn.callbacks.l4_rx(id, data));
            if offered == 0 {
                break;
            }
            self.moved = turn.now;
            self.bytes_received += taken as u64;
            turn.counters.l4_rx_bytes += taken as u64;
            assert_eq!(offered, taken, "the bench takes all");
        }
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
        let handshake =
            (!self.established).then(|| (self.began + config.handshake_timeout, Timer::Handshake));
        let user = self
            .outstanding
            .map(|since| (since.max(self.heard) + config.user_timeout, Timer::User))
            .filter(|_| self.established);
        let fin_wait = (self.socket.state() == State::FinWait2)
            .then(|| (self.heard + config.fin_wait_timeout, Timer::FinWait));
        [Some(idle), handshake, user, fin_wait]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}

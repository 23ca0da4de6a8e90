//! A smoltcp stack as an end: the peer of our engine, and both ends of the baseline.

use std::ops::Range;

use l3l4_engine::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::datagrams::Correspondent;
use super::end::{CLIENT_PORT, End, Place, SERVER_PORT, Status};
use super::invariants::{Ending, Findings, Ledger, Tap};
use crate::stack::{Settings, Stack};
use crate::wire::{self, Body};

/// A stack with one socket and an application.
#[derive(Debug)]
pub struct SmoltcpEnd {
    stack: Stack,
    socket: SocketHandle,
    pauses: Vec<Range<Instant>>,
    ledger: Ledger,
    tap: Tap,
    correspondent: Correspondent,
    findings: Findings,
    began: bool,
    closed: bool,
    outbox: Vec<Vec<u8>>,
}

impl SmoltcpEnd {
    /// A stack that listens, or connects at once.
    #[must_use]
    pub fn new(
        settings: &Settings,
        place: Place,
        pauses: Vec<Range<Instant>>,
        ledger: Ledger,
        correspondent: Correspondent,
        now: Instant,
    ) -> Self {
        let mut stack = Stack::new(settings, now);
        let socket = match place.opens {
            true => stack.connect_from(CLIENT_PORT, place.other(SERVER_PORT, CLIENT_PORT)),
            false => stack.listen(SERVER_PORT),
        };
        Self {
            stack,
            socket,
            pauses,
            ledger,
            tap: Tap::default(),
            correspondent,
            findings: Findings::default(),
            began: place.opens,
            closed: false,
            outbox: Vec::new(),
        }
    }

    fn take(&mut self, now: Instant) {
        // After 10 s in TIME-WAIT smoltcp drops what the application has not read:
        // that is its fault, and not to be blamed on the end beyond.
        let forgets = self.stack.socket(self.socket).state() == State::TimeWait;
        if !forgets && self.pauses.iter().any(|pause| pause.contains(&now)) {
            return;
        }
        let data = self.stack.receive(self.socket);
        if !data.is_empty() {
            self.ledger.deliver(&data, &mut self.findings);
        }
        if !self.ledger.peer_finished && self.stack.peer_finished(self.socket) {
            self.ledger.finish(&mut self.findings);
        }
    }

    fn give(&mut self) {
        let rest = &self.ledger.outgoing[self.ledger.given..];
        self.ledger.given += self.stack.send(self.socket, rest);
        let all = self.ledger.given == self.ledger.outgoing.len();
        let socket = self.stack.socket(self.socket);
        if all && !self.closed && socket.may_send() {
            self.closed = true;
            socket.close();
        }
    }

    fn note_end(&mut self) {
        let socket = self.stack.socket(self.socket);
        let (state, unsent) = (socket.state(), socket.send_queue());
        self.began |= state != State::Listen;
        let over = matches!(state, State::Closed | State::TimeWait);
        if !over || !self.began || self.ledger.ended.is_some() {
            return;
        }
        let whole = self.ledger.peer_finished && self.closed && unsent == 0;
        // The application may not have looked yet.
        let unread = state == State::TimeWait || socket.recv_queue() > 0;
        if unread && !self.ledger.peer_finished {
            return;
        }
        let ending = match whole {
            true => Ending::Finished,
            false => Ending::Broken(format!("{state}, {unsent} bytes unsent")),
        };
        self.ledger.end(ending, &mut self.findings);
    }

    fn look_at_sent(&mut self) {
        for packet in self.stack.sent() {
            if let Ok(Body::Tcp(segment)) = wire::read(&packet).map(|seen| seen.body) {
                self.tap.emitted(&segment, &self.ledger, &mut self.findings);
            }
            self.outbox.push(packet);
        }
    }
}

impl End for SmoltcpEnd {
    fn receive(&mut self, now: Instant, mut packets: Vec<Vec<u8>>) {
        self.findings.now = now;
        for packet in &packets {
            if let Ok(Body::Tcp(segment)) = wire::read(packet).map(|seen| seen.body) {
                self.tap.received(&segment);
            }
        }
        let answers = self.correspondent.receive(&mut packets, &mut self.findings);
        self.outbox.extend(answers);
        self.stack.arrive(packets);
    }

    fn act(&mut self, now: Instant) {
        self.findings.now = now;
        self.outbox.extend(self.correspondent.act(now));
        self.stack.act(now);
        self.look_at_sent();
        self.take(now);
        self.give();
        // What it may send after that goes at once.
        self.stack.act(now);
        self.look_at_sent();
        self.note_end();
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outbox)
    }

    fn next(&mut self, now: Instant) -> Option<Instant> {
        let edges = self.pauses.iter().flat_map(|span| [span.start, span.end]);
        edges
            .filter(|at| *at > now)
            .chain(self.correspondent.next())
            .chain(self.stack.next(now))
            .min()
    }

    fn status(&self) -> Status {
        match (&self.ledger.ended, self.began) {
            (Some(ending), _) => Status::Ended {
                whole: *ending == Ending::Finished,
            },
            (None, true) => Status::Running,
            (None, false) => Status::Idle,
        }
    }

    fn delivered(&self) -> usize {
        self.ledger.delivered
    }

    fn retire(&mut self, _now: Instant) {
        self.correspondent.stop();
    }

    fn findings(&mut self) -> &mut Findings {
        &mut self.findings
    }
}

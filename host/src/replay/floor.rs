//! What the engine's callbacks do in a replay: write down, and take note for the
//! conversations.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;

use super::conversation::{Conversation, From, Table};
use super::describe::{describe, digest};
use super::packet::{FIN, Headers};
use super::report::Report;
use super::speaker::Application;
use crate::callbacks::{Callbacks, Packets};
use crate::types::{Event, FiveTuple, FlowId, Instant, Protocol, Verdict};

/// What becomes of a replay's output. Every method does nothing unless it is
/// written.
pub trait Sink: 'static {
    /// Whether [`line`](Self::line) is wanted: describing every packet costs.
    fn wants_lines(&self) -> bool {
        false
    }

    /// The next line of the transcript: every call and callback.
    ///
    /// # Errors
    ///
    /// Any error ends the replay.
    fn line(&mut self, _line: &str) -> io::Result<()> {
        Ok(())
    }

    /// A packet that was fed, or (`sent`) that the engine sent, at `at`
    /// nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// Any error ends the replay.
    fn packet(&mut self, _at: u64, _sent: bool, _packet: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Data of a flow that the engine delivered.
    ///
    /// # Errors
    ///
    /// Any error ends the replay.
    fn received(&mut self, _flow: FlowId, _tuple: &FiveTuple, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// A flow has ended.
    ///
    /// # Errors
    ///
    /// Any error ends the replay.
    fn ended(&mut self, _flow: FlowId) -> io::Result<()> {
        Ok(())
    }
}

/// A replay without output.
impl Sink for () {}

pub(super) struct Floor<S> {
    pub(super) sink: S,
    pub(super) table: Table,
    pub(super) report: Report,
    application: Application,
    /// Conversations that may have something to do.
    pub(super) dirty: VecDeque<u64>,
    /// When conversations want to be looked at.
    pub(super) timers: BTreeSet<(Instant, u64)>,
    /// Bytes of all segments that are kept to be fed again.
    pub(super) held: usize,
    /// Bytes of all flows that were made up.
    pub(super) filled: u64,
    /// The instant of the call under way, and what it is since 1970.
    pub(super) now: Instant,
    pub(super) at: u64,
    /// What the sink answered.
    pub(super) failed: Option<io::Error>,
}

impl<S: Sink> Floor<S> {
    pub(super) fn new(sink: S, report: Report, application: Application) -> Self {
        Self {
            sink,
            table: Table::default(),
            report,
            application,
            dirty: VecDeque::new(),
            timers: BTreeSet::new(),
            held: 0,
            filled: 0,
            now: Instant(0),
            at: 0,
            failed: None,
        }
    }

    /// A call, with its instant; further lines are what it was given.
    pub(super) fn call(&mut self, what: impl fmt::Display) {
        if self.sink.wants_lines() {
            for line in format!("{} {what}", self.now).lines() {
                let written = self.sink.line(line);
                self.check(written);
            }
        }
    }

    /// What belongs to the call above.
    pub(super) fn note(&mut self, what: impl fmt::Display) {
        if self.sink.wants_lines() {
            let written = self.sink.line(&format!("    {what}"));
            self.check(written);
        }
    }

    /// The first error is the one that is reported.
    pub(super) fn check(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }

    /// A segment of the engine.
    fn sent(&mut self, packet: &[u8]) {
        let Some(headers) = Headers::read(packet) else {
            return;
        };
        // Seen from the capture, the engine's packets are the local side's.
        let Some((id, From::Local)) = self.table.find(&headers, packet) else {
            return;
        };
        let Some(segment) = headers.tcp(packet) else {
            return;
        };
        if let Some(conversation) = self.table.of(id) {
            conversation.mapper.engine_sent(&segment, packet);
            conversation.finished_first |= segment.has(FIN) && !conversation.peer_finished;
            self.dirty.push_back(id);
        }
    }
}

impl<S: Sink> Floor<S> {
    /// The conversation that a new flow is of. Of datagrams it may begin here: a
    /// first one that came in fragments has no ports to be known by.
    fn conversation_of(&mut self, tuple: &FiveTuple) -> Option<u64> {
        let known = self.table.with_tuple(tuple);
        if known.is_some() || tuple.protocol != Protocol::Udp {
            return known;
        }
        let conversation = Conversation::new(*tuple, &self.application, self.now);
        Some(self.table.add(conversation))
    }
}

impl<S: Sink> Callbacks for Floor<S> {
    fn l3_tx(&mut self, packets: Packets<'_>) -> usize {
        for (_, packet) in packets.iter() {
            if self.sink.wants_lines() {
                self.note(format_args!("l3-tx {}", describe(packet)));
            }
            let written = self.sink.packet(self.at, true, packet);
            self.check(written);
            self.sent(packet);
        }
        packets.len()
    }

    fn l4_rx(&mut self, flow: FlowId, data: &[u8]) -> usize {
        if self.sink.wants_lines() {
            let length = data.len();
            let digest = digest(data);
            self.note(format_args!(
                "l4-rx {flow} took {length} of {length} #{digest:016x}"
            ));
        }
        let Some(id) = self.table.with_flow(flow) else {
            return data.len();
        };
        if let Some(conversation) = self.table.of(id) {
            conversation.received += data.len() as u64;
            self.report.unsent += conversation.speaker.received(data);
            let tuple = conversation.tuple;
            let written = self.sink.received(flow, &tuple, data);
            self.check(written);
            self.dirty.push_back(id);
        }
        data.len()
    }

    fn flow_new(&mut self, flow: FlowId, tuple: &FiveTuple) -> Verdict {
        let mut verdict = Verdict::ACCEPT;
        if let Some(id) = self.conversation_of(tuple) {
            if let Some(conversation) = self.table.of(id) {
                self.held = self.held.saturating_sub(conversation.held.bytes());
                verdict = conversation.announced();
            }
            if matches!(verdict, Verdict::Accept(_) | Verdict::Wait) {
                self.table.join(id, flow);
            }
            self.dirty.push_back(id);
        }
        let (protocol, local, peer) = (tuple.protocol, tuple.local, tuple.peer);
        self.note(format_args!(
            "flow-new {flow} {protocol} {local} < {peer} -> {verdict:?}"
        ));
        verdict
    }

    fn flow_event(&mut self, flow: FlowId, event: Event) {
        self.note(format_args!("flow-event {flow} {event:?}"));
        let id = match event {
            Event::Closed(_) => {
                let written = self.sink.ended(flow);
                self.check(written);
                self.table.part(flow)
            }
            Event::Established | Event::Writable | Event::PeerFinished | Event::PeerReset => {
                self.table.with_flow(flow)
            }
        };
        let Some((id, conversation)) = id.and_then(|id| Some((id, self.table.of(id)?))) else {
            return;
        };
        match event {
            Event::Established => conversation.established = true,
            Event::Writable => conversation.speaker.full = false,
            Event::PeerFinished => {
                conversation.peer_finished = true;
                conversation.speaker.peer_finished();
            }
            // The application takes all: nothing is held back.
            Event::PeerReset => {}
            Event::Closed(reason) => {
                conversation.ended = Some(reason);
                conversation.undecided = false;
                let protocol = conversation.tuple.protocol;
                self.report.ending(protocol, reason);
            }
        }
        self.dirty.push_back(id);
    }
}

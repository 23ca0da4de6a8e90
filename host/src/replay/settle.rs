//! After a call: what the conversations want is done, until they want nothing.

use std::time::Duration;

use super::conversation::Conversation;
use super::floor::Floor;
use super::mapper::Owed;
use super::packet::Headers;
use super::{Replay, ReplayError, Sink};
use crate::types::{FlowId, Instant, Protocol};

/// How long an acknowledgement of the capture is waited for before the replay
/// makes one: less than any retransmission timer (Linux' least is 200 ms).
const PATIENCE: Duration = Duration::from_millis(40);

/// What is given to the engine in one call: less than a send buffer, so that less
/// taken means that there is no room.
const MOST_AT_ONCE: usize = 32 << 10;

/// What a conversation wants.
enum Wish {
    Acknowledge(Vec<u8>),
    Repeat(Vec<u8>),
    Send(FlowId),
    Datagram(FlowId, Vec<u8>),
    Finish(FlowId),
    Abort(FlowId),
    WakeAt(Instant),
}

impl<S: Sink> Replay<S> {
    pub(super) fn settle(&mut self, now: Instant) -> Result<(), ReplayError> {
        while let Some(id) = self.floor().dirty.pop_front() {
            while let Some(wish) = self.wish(id, now) {
                self.fulfil(id, now, wish)?;
            }
        }
        Ok(())
    }

    /// At the end of the capture.
    pub(super) fn fill_gaps(&mut self) -> Result<(), ReplayError> {
        for id in self.floor().table.ids() {
            self.fill_gap(id, None);
            self.floor().dirty.push_back(id);
        }
        self.settle(self.now)
    }

    pub(super) fn fill_gap(&mut self, id: u64, now: Option<Instant>) {
        let floor = self.engine.callbacks_mut();
        let conversation = floor.table.of(id);
        if let Some((captured, outgoing)) = conversation.and_then(|one| one.speaker.captured()) {
            captured.fill(now, outgoing, &mut floor.report.gaps, &mut floor.filled);
        }
    }

    fn wish(&mut self, id: u64, now: Instant) -> Option<Wish> {
        let held = |floor: &mut Floor<S>| floor.table.of(id).map_or(0, |one| one.held.bytes());
        let before = held(self.floor());
        let wish = self.next_wish(id, now);
        let after = held(self.floor());
        let floor = self.floor();
        floor.held = (floor.held + after).saturating_sub(before);
        wish
    }

    fn next_wish(&mut self, id: u64, now: Instant) -> Option<Wish> {
        let floor = self.engine.callbacks_mut();
        let conversation = floor.table.of(id)?;
        if conversation.tuple.protocol == Protocol::Tcp {
            if conversation.ended.is_some() {
                floor.report.incomplete += u64::from(conversation.lacks_data());
                conversation.held.clear();
                let speaker = &mut conversation.speaker;
                floor.report.unsent += speaker.outgoing.len() as u64;
                speaker.outgoing.clear();
                return None;
            }
            if let Some(wish) = connection(conversation, now) {
                return Some(wish);
            }
        }
        application(conversation, now)
    }

    fn fulfil(&mut self, id: u64, now: Instant, wish: Wish) -> Result<(), ReplayError> {
        match wish {
            Wish::Acknowledge(packet) => {
                self.floor().report.mapped.added += 1;
                self.l3_rx(now, &packet, false)
            }
            Wish::Repeat(packet) => self.repeat(id, now, packet),
            Wish::Send(flow) => self.send(id, now, flow),
            Wish::Datagram(flow, data) => self.datagram(now, flow, &data),
            Wish::Finish(flow) => {
                let what = format!("flow-finish {flow}");
                self.call(now, what, |engine| engine.flow_finish(now, flow))?;
                Ok(())
            }
            Wish::Abort(flow) => {
                let what = format!("flow-abort {flow}");
                self.call(now, what, |engine| engine.flow_abort(now, flow))?;
                Ok(())
            }
            Wish::WakeAt(at) => {
                self.floor().timers.insert((at, id));
                Ok(())
            }
        }
    }

    fn repeat(&mut self, id: u64, now: Instant, mut packet: Vec<u8>) -> Result<(), ReplayError> {
        let Some(headers) = Headers::read(&packet) else {
            return Ok(());
        };
        let Some(segment) = headers.tcp(&packet) else {
            return Ok(());
        };
        let offloaded = self.offloaded(&headers, &packet);
        let floor = self.engine.callbacks_mut();
        if let Some(conversation) = floor.table.of(id) {
            conversation
                .mapper
                .refresh(&mut packet, &segment, offloaded);
        }
        floor.report.mapped.repeated += 1;
        self.l3_rx(now, &packet, offloaded)
    }

    fn send(&mut self, id: u64, now: Instant, flow: FlowId) -> Result<(), ReplayError> {
        let Some(conversation) = self.floor().table.of(id) else {
            return Ok(());
        };
        let mut data = std::mem::take(&mut conversation.speaker.outgoing);
        let given = data.make_contiguous();
        let given = &given[..given.len().min(MOST_AT_ONCE)];
        let length = given.len();
        let what = format!("l4-tx {flow} {}", piece(given));
        let sent = self.call(now, what, |engine| engine.l4_tx(now, flow, given))?;
        let taken = match sent {
            Some(sent) => sent.taken,
            // Its `closed` event is still to come: no one waits for this.
            None => length,
        };
        let floor = self.engine.callbacks_mut();
        if sent.is_none() {
            floor.report.unsent += length as u64;
        }
        let Some(conversation) = floor.table.of(id) else {
            return Ok(());
        };
        data.drain(..taken);
        data.append(&mut conversation.speaker.outgoing);
        conversation.speaker.outgoing = data;
        conversation.speaker.full = taken < length;
        Ok(())
    }

    fn datagram(&mut self, now: Instant, flow: FlowId, data: &[u8]) -> Result<(), ReplayError> {
        let what = format!("l4-tx {flow} {}", piece(data));
        let sent = self.call(now, what, |engine| engine.l4_tx(now, flow, data))?;
        if sent.is_none() {
            self.floor().report.unsent += 1;
        }
        Ok(())
    }
}

/// What is fed beside the capture.
fn connection(conversation: &mut Conversation, now: Instant) -> Option<Wish> {
    if !conversation.established {
        return None;
    }
    if let Some(packet) = conversation.held.due(conversation.taken()) {
        return Some(Wish::Repeat(packet));
    }
    let due = match conversation.mapper.owed() {
        Owed::Nothing => {
            conversation.acknowledge_at = None;
            return None;
        }
        Owed::AtOnce => now,
        Owed::Soon => match conversation.acknowledge_at {
            Some(due) => due,
            None => {
                let due = now + PATIENCE;
                conversation.acknowledge_at = Some(due);
                return Some(Wish::WakeAt(due));
            }
        },
    };
    if due > now {
        return None;
    }
    conversation.acknowledge_at = None;
    let seq = conversation.expected()?;
    let (peer, local) = (conversation.tuple.peer, conversation.tuple.local);
    let packet = conversation.mapper.acknowledgement(peer, local, seq)?;
    Some(Wish::Acknowledge(packet))
}

/// What the application does.
fn application(conversation: &mut Conversation, now: Instant) -> Option<Wish> {
    let wake = conversation.speaker.think(now);
    if let Some(at) = wake {
        return Some(Wish::WakeAt(at));
    }
    let flow = conversation.flow.filter(|_| !conversation.undecided)?;
    let speaker = &mut conversation.speaker;
    if let Some(data) = speaker.datagrams.pop_front() {
        return Some(Wish::Datagram(flow, data));
    }
    if !speaker.outgoing.is_empty() {
        return (!speaker.full).then_some(Wish::Send(flow));
    }
    if speaker.abort {
        speaker.abort = false;
        return Some(Wish::Abort(flow));
    }
    if speaker.finish && !speaker.finished {
        speaker.finished = true;
        return Some(Wish::Finish(flow));
    }
    None
}

/// Data in a few words.
fn piece(data: &[u8]) -> String {
    format!("length {} #{:016x}", data.len(), super::digest(data))
}

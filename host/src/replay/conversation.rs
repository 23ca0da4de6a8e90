//! One flow of the capture, and all of them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::mapper::{Mapper, Mapping};
use super::packet::{Headers, SYN, Segment, distance};
use super::speaker::{Application, Speaker};
use crate::types::{CloseReason, FiveTuple, FlowId, Instant, Protocol, Verdict};

/// Most bytes of a flow's segments that are kept to be fed again.
const MOST_HELD: usize = 4 << 20;

/// Most bytes that are kept for all flows.
pub(crate) const MOST_HELD_IN_ALL: usize = 256 << 20;

/// How long a flow that has ended is remembered, for what comes late; how long when
/// there are very many; and too many to remember any, however little time goes by.
const MEMORY: Duration = Duration::from_secs(120);
const SHORT_MEMORY: Duration = Duration::from_secs(1);
const VERY_MANY: usize = 65_536;
const TOO_MANY: usize = 4 * VERY_MANY;

#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) tuple: FiveTuple,
    /// Its flow in the engine, from the announcement to the end.
    pub(crate) flow: Option<FlowId>,
    /// Whether the local side opened it.
    pub(crate) opened_here: bool,
    /// The initial sequence number of the side that opened it, and of the peer.
    pub(crate) opener_isn: u32,
    pub(crate) peer_isn: Option<u32>,
    pub(crate) mapper: Mapper,
    pub(crate) speaker: Speaker,
    pub(crate) held: Held,
    /// Announced, and the verdict is `wait`.
    pub(crate) undecided: bool,
    /// The captured server said yes.
    pub(crate) accepted: bool,
    pub(crate) established: bool,
    /// Our FIN went before the peer's came: the engine keeps TIME-WAIT.
    pub(crate) finished_first: bool,
    pub(crate) peer_finished: bool,
    pub(crate) ended: Option<CloseReason>,
    /// Bytes of the peer's stream that the engine delivered.
    pub(crate) received: u64,
    /// When an acknowledgement is made if none comes.
    pub(crate) acknowledge_at: Option<Instant>,
    /// When its last packet was captured.
    pub(crate) last: Instant,
}

impl Conversation {
    pub(crate) fn new(tuple: FiveTuple, application: &Application, now: Instant) -> Self {
        let mapping = match application {
            Application::Captured => Mapping::Shifted,
            Application::Echo | Application::Discard | Application::Script(_) => {
                Mapping::Everything
            }
        };
        Self {
            tuple,
            flow: None,
            opened_here: false,
            opener_isn: 0,
            peer_isn: None,
            mapper: Mapper::new(mapping),
            speaker: Speaker::new(application, &tuple),
            held: Held::default(),
            undecided: false,
            accepted: false,
            established: false,
            finished_first: false,
            peer_finished: false,
            ended: None,
            received: 0,
            acknowledge_at: None,
            last: now,
        }
    }

    /// The engine announces it, perhaps again.
    pub(crate) fn announced(&mut self) -> Verdict {
        let verdict = match self.accepted {
            true => Verdict::ACCEPT,
            false => self.speaker.verdict(),
        };
        self.undecided = verdict == Verdict::Wait;
        self.ended = match verdict {
            Verdict::Accept(_) | Verdict::Wait => None,
            Verdict::Refuse(_) | Verdict::Drop => Some(CloseReason::Refused),
        };
        self.established = false;
        self.peer_finished = false;
        self.received = 0;
        self.held.clear();
        verdict
    }

    /// The sequence number that the engine expects of the peer.
    pub(crate) fn expected(&self) -> Option<u32> {
        let fin = u32::from(self.peer_finished);
        Some(self.next_byte()?.wrapping_add(fin))
    }

    fn next_byte(&self) -> Option<u32> {
        // The low 32 bits are what a sequence number can tell.
        #[expect(clippy::cast_possible_truncation)]
        let received = self.received as u32;
        Some(self.peer_isn?.wrapping_add(1).wrapping_add(received))
    }

    /// Where a segment of the peer begins and ends in its stream; its FIN counts
    /// as a byte there.
    pub(crate) fn place(&self, segment: &Segment) -> Option<(u64, u64)> {
        let seq = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        let ahead = distance(seq, self.next_byte()?);
        let start = self.received.checked_add_signed(ahead)?;
        let length = segment.next().wrapping_sub(seq);
        Some((start, start + u64::from(length)))
    }

    /// How far the engine has taken the peer's stream, in the same count.
    pub(crate) fn taken(&self) -> u64 {
        self.received + u64::from(self.peer_finished)
    }

    /// Whether segments wait for others that never came.
    pub(crate) fn lacks_data(&self) -> bool {
        let taken = self.taken();
        self.held.segments.values().any(|(end, _)| *end > taken)
    }

    /// Whether a packet of the peer has anyone to go to. One that comes when the
    /// flow is over would be a stray of the replay's making: in the capture the
    /// connection ended later.
    pub(crate) fn takes(&self) -> bool {
        match self.ended {
            None => true,
            Some(CloseReason::Finished) => self.finished_first,
            Some(_) => self.tuple.protocol != Protocol::Tcp,
        }
    }
}

/// Segments of the peer that the engine has not delivered yet. Those for which it
/// had no room are fed again.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// By where they begin, with where they end.
    segments: BTreeMap<u64, (u64, Vec<u8>)>,
    bytes: usize,
}

impl Held {
    /// Keeps a copy. `false`: there is no room for it.
    pub(crate) fn keep(&mut self, (start, end): (u64, u64), packet: &[u8]) -> bool {
        if self
            .segments
            .get(&start)
            .is_some_and(|(old, _)| *old >= end)
        {
            return true;
        }
        if self.bytes + packet.len() > MOST_HELD {
            return false;
        }
        self.bytes += packet.len();
        if let Some((_, old)) = self.segments.insert(start, (end, packet.to_vec())) {
            self.bytes -= old.len();
        }
        true
    }

    /// Takes the next segment that the engine should have delivered, now that it
    /// has `taken` so much of the stream.
    pub(crate) fn due(&mut self, taken: u64) -> Option<Vec<u8>> {
        while let Some(first) = self.segments.first_entry() {
            if *first.key() > taken {
                return None;
            }
            let (end, packet) = first.remove();
            self.bytes -= packet.len();
            if end > taken {
                return Some(packet);
            }
        }
        None
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A packet's side of its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Peer,
    Local,
}

impl From {
    pub(crate) fn opposite(self) -> Self {
        match self {
            Self::Peer => Self::Local,
            Self::Local => Self::Peer,
        }
    }
}

/// All conversations, by a number of their own: a tuple can be used again while
/// the engine still has to do with the old one.
#[derive(Debug, Default)]
pub(crate) struct Table {
    conversations: BTreeMap<u64, Conversation>,
    by_tuple: HashMap<FiveTuple, u64>,
    by_flow: HashMap<FlowId, u64>,
    next: u64,
}

impl Table {
    /// The newest with this tuple.
    pub(crate) fn add(&mut self, conversation: Conversation) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_tuple.insert(conversation.tuple, id);
        self.conversations.insert(id, conversation);
        id
    }

    pub(crate) fn of(&mut self, id: u64) -> Option<&mut Conversation> {
        self.conversations.get_mut(&id)
    }

    pub(crate) fn with_tuple(&self, tuple: &FiveTuple) -> Option<u64> {
        self.by_tuple.get(tuple).copied()
    }

    pub(crate) fn with_flow(&self, flow: FlowId) -> Option<u64> {
        self.by_flow.get(&flow).copied()
    }

    /// The conversation that a packet belongs to, and which side sent it.
    pub(crate) fn find(&self, headers: &Headers, packet: &[u8]) -> Option<(u64, From)> {
        let (from, to) = headers.sockets(packet)?;
        let protocol = match headers.protocol {
            super::packet::TCP => Protocol::Tcp,
            _ => Protocol::Udp,
        };
        let tuple = |local, peer| FiveTuple {
            protocol,
            local,
            peer,
        };
        if let Some(id) = self.with_tuple(&tuple(to, from)) {
            return Some((id, From::Peer));
        }
        Some((self.with_tuple(&tuple(from, to))?, From::Local))
    }

    pub(crate) fn join(&mut self, id: u64, flow: FlowId) {
        self.by_flow.insert(flow, id);
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.flow = Some(flow);
        }
    }

    pub(crate) fn part(&mut self, flow: FlowId) -> Option<u64> {
        let id = self.by_flow.remove(&flow)?;
        let conversation = self.conversations.get_mut(&id)?;
        if conversation.flow == Some(flow) {
            conversation.flow = None;
        }
        Some(id)
    }

    /// Whether any has a flow.
    pub(crate) fn lives(&self) -> bool {
        !self.by_flow.is_empty()
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.conversations.keys().copied().collect()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Conversation> {
        self.conversations.values()
    }

    /// Forgets those without a flow of which nothing came for long. Returns the
    /// ones that lack data.
    pub(crate) fn forget(&mut self, now: Instant) -> u64 {
        let mut incomplete = 0;
        let memory = match self.conversations.len() {
            many if many > TOO_MANY => Duration::ZERO,
            many if many > VERY_MANY => SHORT_MEMORY,
            _ => MEMORY,
        };
        let by_tuple = &mut self.by_tuple;
        self.conversations.retain(|id, conversation| {
            let keep = conversation.flow.is_some() || now - conversation.last < memory;
            if !keep {
                incomplete += u64::from(conversation.lacks_data());
                if by_tuple.get(&conversation.tuple) == Some(id) {
                    by_tuple.remove(&conversation.tuple);
                }
            }
            keep
        });
        incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::{Conversation, TOO_MANY, Table};
    use crate::replay::speaker::Application;
    use crate::types::{FiveTuple, FlowId, Instant, Protocol};

    fn conversation(port: u16) -> Conversation {
        let tuple = FiveTuple {
            protocol: Protocol::Tcp,
            local: ([192, 0, 2, 1], 80).into(),
            peer: ([198, 51, 100, 2], port).into(),
        };
        Conversation::new(tuple, &Application::Discard, Instant(5))
    }

    #[test]
    fn too_many_at_one_instant_are_forgotten_but_for_those_with_a_flow() {
        let mut table = Table::default();
        let first = table.add(conversation(1));
        table.join(first, FlowId(7));
        while table.iter().len() < TOO_MANY {
            table.add(conversation(2));
        }
        table.forget(Instant(5));
        assert_eq!(table.iter().len(), TOO_MANY);
        table.add(conversation(2));
        table.forget(Instant(5));
        assert_eq!(table.ids(), [first]);
        assert!(table.lives());
    }
}

//! The flows: found by id or by five-tuple, neither with a scan.

use alloc::vec::Vec;
use core::hint::black_box;

use hashbrown::HashTable;

use crate::datagram::DatagramFlow;
use crate::deadlines::Armed;
use crate::siphash::Key;
use crate::tcp::{Origin, Syn, TcpFlow};
use crate::tuple::Tuple;
use crate::types::{FlowId, Instant};

/// What the engine keeps of every flow.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) tuple: Tuple,
    pub(crate) opened: Instant,
    /// What it stands for in `Deadlines`.
    pub(crate) armed: Armed,
    /// It is to be settled before the call ends.
    pub(crate) touched: bool,
    /// It is to be settled when the device takes packets again.
    pub(crate) stalled: bool,
    /// It is to be settled when there is memory again.
    pub(crate) starved: bool,
    /// It is to be settled when there is a block for its first data to send.
    pub(crate) mute: bool,
    /// It counts against `max_half_open`.
    pub(crate) half_open: bool,
    pub(crate) kind: Kind,
}

/// What a flow is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Announced, no verdict yet.
    Waiting(Waiting),
    Tcp(TcpFlow),
    Datagram(DatagramFlow),
}

/// A flow that awaits its verdict.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The peer's last SYN or datagram.
    pub(crate) heard: Instant,
    /// Of a TCP flow.
    pub(crate) syn: Option<(Syn, Origin)>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    flow: Option<Flow>,
}

/// All flows.
#[derive(Debug)]
pub(crate) struct FlowTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    /// The slot that was found last.
    last: u32,
    key: Key,
    /// The generation of a slot's first flow: ids of another instance with
    /// another seed are not mistaken for ours.
    first_generation: u32,
}

impl FlowTable {
    /// What a flow counts against `memory_limit` without buffers: its slot, its
    /// places in the index and the list of free slots, and two deadlines. A round
    /// number above all of them, the same for every width of pointer.
    pub(crate) const RECORD: u64 = 256;

    pub(crate) fn new(key: Key) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "32 bits of the hash are wanted"
        )]
        let first_generation = key.hash(b"generation") as u32;
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            last: 0,
            key,
            first_generation,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The ids of all flows, in the order of their slots.
    pub(crate) fn ids(&self) -> impl Iterator<Item = FlowId> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.flow.is_some())
            .map(|(index, slot)| id(index, slot.generation))
    }

    /// The slot of the flow with this tuple. Packets come in trains: the flow of the
    /// one before is found without its hash, whichever flow holds the slot by then.
    pub(crate) fn find(&mut self, tuple: &Tuple) -> Option<u32> {
        let holds = |slot: &u32| self.flow(*slot).is_some_and(|flow| flow.tuple == *tuple);
        if holds(&self.last) {
            return Some(self.last);
        }
        let found = *self.index.find(tuple.hash(&self.key, 0), holds)?;
        self.last = found;
        Some(found)
    }

    /// The slot of the flow with this id.
    pub(crate) fn slot_of(&self, flow: FlowId) -> Option<u32> {
        let [slot, generation] =
            [flow.0 & 0xffff_ffff, flow.0 >> 32].map(|half| u32::try_from(half).ok());
        let (slot, generation) = (slot?, generation?);
        let found = self.slots.get(slot as usize)?;
        (found.generation == generation && found.flow.is_some()).then_some(slot)
    }

    /// The id of the flow in a slot.
    pub(crate) fn id_of(&self, slot: u32) -> FlowId {
        id(
            slot,
            self.slots
                .get(slot as usize)
                .map_or(0, |slot| slot.generation),
        )
    }

    pub(crate) fn flow(&self, slot: u32) -> Option<&Flow> {
        self.slots.get(slot as usize)?.flow.as_ref()
    }

    pub(crate) fn flow_mut(&mut self, slot: u32) -> Option<&mut Flow> {
        self.slots.get_mut(slot as usize)?.flow.as_mut()
    }

    /// The connection in a slot, if that is what the flow is.
    pub(crate) fn tcp_mut(&mut self, slot: u32) -> Option<(&mut TcpFlow, &Tuple)> {
        let flow = self.flow_mut(slot)?;
        match &mut flow.kind {
            Kind::Tcp(tcp) => Some((tcp, &flow.tuple)),
            Kind::Waiting(_) | Kind::Datagram(_) => None,
        }
    }

    /// Reads what calls about these flows read first: of all slots, then of all
    /// connections. So flows that no cache holds are waited for together.
    pub(crate) fn fetch(&self, flows: impl Iterator<Item = FlowId> + Clone) {
        for id in flows.clone() {
            if let Some(slot) = self.slot_of(id)
                && let Some(flow) = self.flow(slot)
            {
                black_box((flow.tuple.peer_port, flow.touched, flow.opened));
            }
        }
        for id in flows {
            if let Some(slot) = self.slot_of(id)
                && let Some(Flow {
                    kind: Kind::Tcp(tcp),
                    ..
                }) = self.flow(slot)
            {
                tcp.fetch();
            }
        }
    }

    /// Adds a flow whose tuple no other has, and returns its slot.
    pub(crate) fn insert(&mut self, flow: Flow) -> u32 {
        let hash = flow.tuple.hash(&self.key, 0);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: self.first_generation,
                flow: None,
            });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(free) = self.slots.get_mut(slot as usize) {
            free.flow = Some(flow);
        }
        let (slots, key) = (&self.slots, &self.key);
        let rehash = |slot: &u32| {
            let flow = slots
                .get(*slot as usize)
                .and_then(|slot| slot.flow.as_ref());
            flow.map_or(0, |flow| flow.tuple.hash(key, 0))
        };
        self.index.insert_unique(hash, slot, rehash);
        slot
    }

    /// Takes a flow out; its id is stale from here.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Flow> {
        let found = self.slots.get_mut(slot as usize)?;
        let flow = found.flow.take()?;
        found.generation = found.generation.wrapping_add(1);
        self.free.push(slot);
        if let Ok(entry) = self
            .index
            .find_entry(flow.tuple.hash(&self.key, 0), |other| *other == slot)
        {
            entry.remove();
        }
        Some(flow)
    }
}

fn id(slot: u32, generation: u32) -> FlowId {
    FlowId(u64::from(generation) << 32 | u64::from(slot))
}

const _: () = assert!(
    size_of::<Slot>() <= 176,
    "a flow that waits or shakes hands costs a small record"
);

//! The flows: found by id or by five-tuple, neither with a scan.

use std::net::{IpAddr, SocketAddr};

use hashbrown::HashTable;
use l3l4_engine::{FiveTuple, FlowId, Protocol};

use super::deadlines::Armed;
use super::flow::TcpFlow;
use super::siphash::Key;

/// The identity of a TCP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) local: IpAddr,
    pub(super) peer: IpAddr,
    pub(super) local_port: u16,
    pub(super) peer_port: u16,
}

impl Tuple {
    /// The keyed hash, with `salt` mixed in.
    pub(super) fn hash(&self, key: &Key, salt: u64) -> u64 {
        let mut message = [0; 48];
        put(&mut message, 0, &salt.to_le_bytes());
        put(&mut message, 8, &self.local_port.to_be_bytes());
        put(&mut message, 10, &self.peer_port.to_be_bytes());
        match (self.local, self.peer) {
            (IpAddr::V4(local), IpAddr::V4(peer)) => {
                put(&mut message, 16, &local.octets());
                put(&mut message, 20, &peer.octets());
                key.hash(&message[..24])
            }
            (local, peer) => {
                put(&mut message, 16, &v6_octets(local));
                put(&mut message, 32, &v6_octets(peer));
                key.hash(&message)
            }
        }
    }
}

fn put(message: &mut [u8; 48], at: usize, bytes: &[u8]) {
    message[at..at + bytes.len()].copy_from_slice(bytes);
}

fn v6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

impl From<&Tuple> for FiveTuple {
    fn from(tuple: &Tuple) -> Self {
        Self {
            protocol: Protocol::Tcp,
            local: SocketAddr::new(tuple.local, tuple.local_port),
            peer: SocketAddr::new(tuple.peer, tuple.peer_port),
        }
    }
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) tuple: Tuple,
    /// What it stands for in `Deadlines`.
    pub(super) armed: Armed,
    /// It is to be settled before the call ends.
    pub(super) touched: bool,
    pub(super) tcp: Box<TcpFlow>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    flow: Option<Flow>,
}

#[derive(Debug)]
pub(super) struct FlowTable {
    slots: Vec<Slot>,
    index: HashTable<u32>,
    key: Key,
    first_generation: u32,
}

impl FlowTable {
    pub(super) fn new(key: Key) -> Self {
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            key,
            first_generation: key.hash(b"generation") as u32,
        }
    }

    pub(super) fn find(&self, tuple: &Tuple) -> Option<u32> {
        let holds = |slot: &u32| self.flow(*slot).is_some_and(|flow| flow.tuple == *tuple);
        self.index.find(tuple.hash(&self.key, 0), holds).copied()
    }

    pub(super) fn slot_of(&self, flow: FlowId) -> Option<u32> {
        let (slot, generation) = (flow.0 as u32, (flow.0 >> 32) as u32);
        let found = self.slots.get(slot as usize)?;
        (found.generation == generation && found.flow.is_some()).then_some(slot)
    }

    pub(super) fn id_of(&self, slot: u32) -> FlowId {
        let found = self.slots.get(slot as usize);
        let generation = found.map_or(0, |slot| slot.generation);
        FlowId(u64::from(generation) << 32 | u64::from(slot))
    }

    fn flow(&self, slot: u32) -> Option<&Flow> {
        self.slots.get(slot as usize)?.flow.as_ref()
    }

    pub(super) fn flow_mut(&mut self, slot: u32) -> Option<&mut Flow> {
        self.slots.get_mut(slot as usize)?.flow.as_mut()
    }

    /// Adds a flow whose tuple no other has, and returns its slot.
    pub(super) fn insert(&mut self, flow: Flow) -> u32 {
        let hash = flow.tuple.hash(&self.key, 0);
        let slot = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: self.first_generation,
            flow: Some(flow),
        });
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
}

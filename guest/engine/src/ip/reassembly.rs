//! Reassembly (RFC 791 3.2, RFC 8200 4.5): datagrams whose fragments are still
//! coming, in one bounded pool.
//!
//! Fragments of one datagram may come in any order, and an exact duplicate is
//! passed over; an overlap ends the datagram (RFC 5722). When the pool is full, the
//! oldest datagram goes: under a flood of fragments a datagram whose own come
//! together still gets through. No fragment costs more than two searches in a tree
//! and one in its datagram, keyed so that no sender can choose what it meets.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use super::extension::FRAGMENT;
use super::fragment::Fragment;
use super::report::{Problem, Report};
use super::{MOST_BYTES, octets};
use crate::config::Config;
use crate::counters::{CounterSnapshot, DropReason};
use crate::siphash::Key;
use crate::types::Instant;

/// Most fragments of a datagram. The largest makes 1,366 of them at the smallest
/// MTU there is (68 bytes, RFC 791 3.2).
const MOST_PIECES: usize = 2048;

/// What a datagram takes beside its bytes and pieces: its places in both trees,
/// whose nodes may be half empty, and what the allocator adds to its three buffers.
const RECORD: usize = 512;
const _: () = assert!(2 * (size_of::<(u64, Datagram)>() + size_of::<(u64, u64)>()) + 48 <= RECORD);

/// The datagrams whose fragments are still coming.
#[derive(Debug)]
pub(crate) struct Reassembly {
    /// By serial number: the oldest comes first.
    datagrams: BTreeMap<u64, Datagram>,
    /// Serial numbers by the keyed hash of the identity, which itself decides.
    serials: BTreeMap<u64, u64>,
    next_serial: u64,
    key: Key,
    timeout: Duration,
    /// Bytes of memory taken, and allowed.
    used: usize,
    most: usize,
}

/// A datagram put together.
#[derive(Debug)]
pub(crate) struct Reassembled {
    /// The packet that it would have been in one piece.
    pub(crate) packet: Vec<u8>,
    /// Whether its checksums count.
    pub(crate) verify: bool,
}

/// A datagram whose time ran out.
#[derive(Debug)]
pub(crate) struct Expired {
    src: IpAddr,
    dst: IpAddr,
    /// The first fragment, if it came.
    first: Option<Vec<u8>>,
}

impl Expired {
    /// RFC 792, RFC 4443 3.3: the sender is told if the first fragment came.
    pub(crate) fn report(&self) -> Option<Report<'_>> {
        Some(Report {
            src: self.src,
            dst: self.dst,
            problem: Problem::ReassemblyTime,
            quote: self.first.as_ref()?,
        })
    }
}

impl Reassembly {
    pub(crate) fn new(key: Key, config: &Config) -> Self {
        Self {
            datagrams: BTreeMap::new(),
            serials: BTreeMap::new(),
            next_serial: 0,
            key,
            timeout: config.reassembly_timeout,
            used: 0,
            most: config.reassembly_memory as usize,
        }
    }

    /// Bytes of memory that the datagrams take.
    pub(crate) fn memory(&self) -> u64 {
        self.used as u64
    }

    /// When the oldest datagram's time is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let (_, oldest) = self.datagrams.first_key_value()?;
        Some(oldest.expiry)
    }

    /// Takes a fragment in, and gives its datagram when it is the last to come.
    /// Fragments that come to nothing are counted, but for this one, for which
    /// there is the error.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        fragment: &Fragment<'_>,
        verify: bool,
        counters: &mut CounterSnapshot,
    ) -> Result<Option<Reassembled>, DropReason> {
        let identity = Identity::of(fragment);
        let hash = identity.hash(&self.key);
        let serial = match self.serials.get(&hash) {
            Some(serial) => *serial,
            None => self.begin(now, hash, identity, counters),
        };
        self.make_room(serial, fragment, counters);
        let Some(datagram) = self.datagrams.get_mut(&serial) else {
            return Err(DropReason::Fragment);
        };
        // 64 bits of two identities agree: the later one goes.
        if datagram.identity != identity {
            return Err(DropReason::Fragment);
        }
        let before = datagram.memory();
        datagram.verify |= verify;
        let added = datagram.add(fragment);
        self.used = self.used - before + datagram.memory();
        match added {
            Added::Kept if datagram.is_complete() => {
                let datagram = self.remove(serial);
                let packet = datagram.and_then(Datagram::into_packet);
                packet.map(Some).ok_or(DropReason::Fragment)
            }
            Added::Kept => Ok(None),
            Added::Duplicate => Err(DropReason::Fragment),
            Added::Contradiction => {
                count_dropped(counters, datagram);
                self.abandon(serial);
                Err(DropReason::Fragment)
            }
        }
    }

    /// Takes out a datagram whose time is over, if there is one.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        counters: &mut CounterSnapshot,
    ) -> Option<Expired> {
        let (serial, oldest) = self.datagrams.first_key_value()?;
        if oldest.expiry > now {
            return None;
        }
        let datagram = self.remove(*serial)?;
        count_dropped(counters, &datagram);
        Some(Expired {
            src: datagram.identity.src,
            dst: datagram.identity.dst,
            first: datagram.into_first_fragment(),
        })
    }

    fn begin(
        &mut self,
        now: Instant,
        hash: u64,
        identity: Identity,
        counters: &mut CounterSnapshot,
    ) -> u64 {
        while self.used + RECORD > self.most && self.evict_oldest(counters) {}
        let serial = self.next_serial;
        self.next_serial += 1;
        let datagram = Datagram {
            identity,
            hash,
            expiry: now + self.timeout,
            verify: false,
            is_abandoned: false,
            header: Vec::new(),
            protocol_at: 0,
            bytes: Vec::new(),
            pieces: Vec::new(),
            length: None,
        };
        self.used += datagram.memory();
        self.datagrams.insert(serial, datagram);
        self.serials.insert(hash, serial);
        serial
    }

    /// Evicts until the datagram can take the fragment, or is itself gone.
    fn make_room(&mut self, serial: u64, fragment: &Fragment<'_>, counters: &mut CounterSnapshot) {
        while let Some(datagram) = self.datagrams.get(&serial)
            && self.used - datagram.memory() + datagram.memory_with(fragment) > self.most
        {
            self.evict_oldest(counters);
        }
    }

    fn evict_oldest(&mut self, counters: &mut CounterSnapshot) -> bool {
        let Some((serial, _)) = self.datagrams.first_key_value() else {
            return false;
        };
        if let Some(datagram) = self.remove(*serial) {
            count_dropped(counters, &datagram);
        }
        true
    }

    fn remove(&mut self, serial: u64) -> Option<Datagram> {
        let datagram = self.datagrams.remove(&serial)?;
        self.serials.remove(&datagram.hash);
        self.used -= datagram.memory();
        Some(datagram)
    }

    /// Ends a datagram whose fragments contradict each other. RFC 5722 4 drops
    /// those too that are still to come. IPv4's identification is too short for
    /// that: the next datagram that bears it may be a good one (RFC 4963).
    fn abandon(&mut self, serial: u64) {
        let Some(datagram) = self.datagrams.get_mut(&serial) else {
            return;
        };
        if datagram.identity.src.is_ipv4() {
            self.remove(serial);
            return;
        }
        self.used -= datagram.memory();
        datagram.is_abandoned = true;
        datagram.header = Vec::new();
        datagram.bytes = Vec::new();
        datagram.pieces = Vec::new();
        self.used += datagram.memory();
    }
}

fn count_dropped(counters: &mut CounterSnapshot, datagram: &Datagram) {
    for _ in &datagram.pieces {
        counters.drop_packet(DropReason::Fragment);
    }
}

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// RFC 791 3.2 has the protocol decide too, RFC 8200 4.5 does not.
    protocol: Option<IpProtocol>,
}

impl Identity {
    fn of(fragment: &Fragment<'_>) -> Self {
        Self {
            src: fragment.src,
            dst: fragment.dst,
            id: fragment.id,
            protocol: fragment.src.is_ipv4().then_some(fragment.protocol),
        }
    }

    fn hash(&self, key: &Key) -> u64 {
        let mut message = [0; 48];
        message[..8].copy_from_slice(b"fragment");
        message[8..12].copy_from_slice(&self.id.to_be_bytes());
        message[12] = self.protocol.map_or(0, u8::from);
        message[16..32].copy_from_slice(&octets(self.src));
        message[32..].copy_from_slice(&octets(self.dst));
        key.hash(&message)
    }
}

/// A datagram some of whose fragments have come.
#[derive(Debug)]
struct Datagram {
    identity: Identity,
    hash: u64,
    expiry: Instant,
    /// A fragment came whose checksums count.
    verify: bool,
    /// No fragment of it is taken any more.
    is_abandoned: bool,
    /// The headers of the first fragment; empty until it comes.
    header: Vec<u8>,
    /// Where in them the protocol is named.
    protocol_at: usize,
    /// The payloads in the order in which they came.
    bytes: Vec<u8>,
    /// Where each belongs, in the order of the datagram; they do not overlap.
    pieces: Vec<Piece>,
    /// Known from the last fragment on.
    length: Option<usize>,
}

/// A run of `bytes`.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where in the datagram it begins.
    start: u16,
    length: u16,
    /// Where in `bytes` it begins.
    at: u32,
}

impl Piece {
    fn start(self) -> usize {
        self.start.into()
    }

    fn end(self) -> usize {
        usize::from(self.start) + usize::from(self.length)
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        let at = self.at as usize;
        &bytes[at..at + usize::from(self.length)]
    }
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    Kept,
    Duplicate,
    /// It overlaps with another, or lies beyond the end; or there are too many.
    Contradiction,
}

impl Datagram {
    fn add(&mut self, fragment: &Fragment<'_>) -> Added {
        if self.is_abandoned || !self.agrees_on_the_end(fragment) {
            return Added::Contradiction;
        }
        let (start, end) = (fragment.offset, fragment.end());
        let place = match self.pieces.binary_search_by_key(&start, |it| it.start()) {
            Ok(found) if self.pieces[found].of(&self.bytes) == fragment.payload => {
                return Added::Duplicate;
            }
            Ok(_) => return Added::Contradiction,
            Err(place) => place,
        };
        let overlaps = self.pieces[..place]
            .last()
            .is_some_and(|it| it.end() > start)
            || self.pieces.get(place).is_some_and(|it| it.start() < end);
        let (Ok(start), Ok(length), Ok(at)) = (
            u16::try_from(start),
            u16::try_from(fragment.payload.len()),
            u32::try_from(self.bytes.len()),
        ) else {
            return Added::Contradiction;
        };
        if overlaps || self.pieces.len() >= MOST_PIECES {
            return Added::Contradiction;
        }
        self.grow(fragment);
        self.pieces.insert(place, Piece { start, length, at });
        self.bytes.extend_from_slice(fragment.payload);
        if start == 0 {
            self.header.extend_from_slice(fragment.header());
            self.protocol_at = fragment.protocol_at;
        }
        if !fragment.more {
            self.length = Some(end);
        }
        Added::Kept
    }

    /// Whether the fragment and what came before it can be of one length.
    fn agrees_on_the_end(&self, fragment: &Fragment<'_>) -> bool {
        let end = fragment.end();
        let received_to = self.pieces.last().map_or(0, |it| it.end());
        match (self.length, fragment.more) {
            (Some(length), true) => end < length,
            (Some(length), false) => end == length,
            (None, true) => true,
            (None, false) => end >= received_to,
        }
    }

    fn is_complete(&self) -> bool {
        self.length == Some(self.bytes.len())
    }

    /// Bytes of memory that it takes.
    fn memory(&self) -> usize {
        memory(
            self.header.capacity(),
            self.bytes.capacity(),
            self.pieces.capacity(),
        )
    }

    /// What it would take with one more fragment.
    fn memory_with(&self, fragment: &Fragment<'_>) -> usize {
        let header = match fragment.offset {
            0 => fragment.header().len(),
            _ => 0,
        };
        let (bytes, pieces) = self.capacities_with(fragment);
        memory(self.header.capacity().max(header), bytes, pieces)
    }

    /// The room for bytes and pieces that one more fragment needs: twice what there
    /// was, so that each is moved a few times at most.
    fn capacities_with(&self, fragment: &Fragment<'_>) -> (usize, usize) {
        let grown = |capacity: usize, needed: usize, most: usize| match needed > capacity {
            true => (2 * capacity).min(most).max(needed),
            false => capacity,
        };
        let bytes = self.bytes.len() + fragment.payload.len();
        let pieces = self.pieces.len() + 1;
        (
            grown(self.bytes.capacity(), bytes, MOST_BYTES),
            grown(self.pieces.capacity(), pieces, MOST_PIECES),
        )
    }

    fn grow(&mut self, fragment: &Fragment<'_>) {
        let (bytes, pieces) = self.capacities_with(fragment);
        self.bytes.reserve_exact(bytes - self.bytes.len());
        self.pieces.reserve_exact(pieces - self.pieces.len());
    }

    /// The packet that it would have been in one piece; none when that would be too
    /// long.
    fn into_packet(self) -> Option<Reassembled> {
        let mut packet = Vec::with_capacity(self.header.len() + self.bytes.len());
        packet.extend_from_slice(&self.header);
        if self.identity.src.is_ipv6() {
            let fragment_at = packet.len().checked_sub(FRAGMENT)?;
            let protocol = *packet.get(fragment_at)?;
            *packet.get_mut(self.protocol_at)? = protocol;
            packet.truncate(fragment_at);
        }
        for piece in &self.pieces {
            packet.extend_from_slice(piece.of(&self.bytes));
        }
        if self.identity.src.is_ipv4() {
            let length = u16::try_from(packet.len()).ok()?;
            let mut header = Ipv4Packet::new_unchecked(&mut packet);
            header.set_total_len(length);
            header.set_more_frags(false);
            header.fill_checksum();
        } else {
            let length = u16::try_from(packet.len() - 40).ok()?;
            Ipv6Packet::new_unchecked(&mut packet).set_payload_len(length);
        }
        Some(Reassembled {
            packet,
            verify: self.verify,
        })
    }

    /// The first fragment, if it came.
    fn into_first_fragment(self) -> Option<Vec<u8>> {
        let first = self.pieces.first().filter(|it| it.start == 0)?;
        let mut fragment = self.header;
        fragment.extend_from_slice(first.of(&self.bytes));
        Some(fragment)
    }
}

fn memory(header: usize, bytes: usize, pieces: usize) -> usize {
    RECORD + header + bytes + pieces * size_of::<Piece>()
}

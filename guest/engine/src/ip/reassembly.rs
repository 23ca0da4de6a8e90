//! Reassembly (RFC 791 3.2, RFC 8200 4.5): datagrams whose fragments are still
//! coming, in one bounded pool.
//!
//! Fragments of one datagram may come in any order, and an exact duplicate is
//! passed over; an overlap ends the datagram (RFC 5722). When the pool is full, the
//! oldest datagram goes: under a flood of fragments a datagram whose own come
//! together still gets through. A fragment costs a search in a keyed table, so that
//! no sender can choose what it meets, one by age, and one in its datagram.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use hashbrown::HashTable;
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

/// What a datagram takes beside its bytes and pieces: its places in the tree and in
/// the table, both of which may be half empty, and what the allocator adds to its
/// three buffers.
const RECORD: usize = 512;
const _: () = assert!(2 * (size_of::<(u64, Datagram)>() + size_of::<(u64, u64)>()) + 48 <= RECORD);

/// The datagrams whose fragments are still coming.
#[derive(Debug)]
pub(crate) struct Reassembly {
    /// By serial number: the oldest comes first.
    datagrams: BTreeMap<u64, Datagram>,
    /// Keyed hashes of identities, each with its datagram's serial number.
    serials: HashTable<(u64, u64)>,
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
            serials: HashTable::new(),
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
        let serial = match self.serials.find(hash, |(held, _)| *held == hash) {
            Some((_, serial)) => *serial,
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
        self.serials
            .insert_unique(hash, (hash, serial), |(hash, _)| *hash);
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
        let is_it = |(_, held): &(u64, u64)| *held == serial;
        if let Ok(entry) = self.serials.find_entry(datagram.hash, is_it) {
            entry.remove();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::{self, Received};
    use alloc::vec;

    /// A source of numbers (xorshift64).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, most: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 11).unwrap() % most
        }
    }

    struct Pool {
        reassembly: Reassembly,
        counters: CounterSnapshot,
        now: Instant,
    }

    impl Pool {
        fn new() -> Self {
            let config = Config {
                reassembly_memory: 128 << 10,
                ..Config::new([7; 32])
            };
            let [key, _] = Key::pair(&config.seed);
            Self {
                reassembly: Reassembly::new(key, &config),
                counters: CounterSnapshot::default(),
                now: Instant(0),
            }
        }

        fn add(&mut self, packet: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
            let Ok(Received::Fragment(fragment)) = ip::parse(packet, true) else {
                panic!("a fragment");
            };
            let added = self
                .reassembly
                .add(self.now, &fragment, true, &mut self.counters);
            let used = self.reassembly.memory();
            let datagrams = self.reassembly.datagrams.values();
            let counted: usize = datagrams.map(Datagram::memory).sum();
            assert_eq!(used, counted as u64);
            assert!(used <= 128 << 10, "{used}");
            assert_eq!(
                self.reassembly.datagrams.len(),
                self.reassembly.serials.len()
            );
            added.map(|whole| whole.map(|whole| whole.packet))
        }

        fn dropped(&self) -> u64 {
            self.counters.dropped(DropReason::Fragment)
        }
    }

    /// A protocol for experiments (RFC 3692), of which no header is expected.
    const PROTOCOL: u8 = 253;

    fn v4(id: u16, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
        let word = u16::try_from(offset / 8).unwrap() | u16::from(more) << 13;
        let mut packet = vec![0x45, 0];
        packet.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
        packet.extend(id.to_be_bytes());
        packet.extend(word.to_be_bytes());
        packet.extend([64, PROTOCOL, 0, 0, 198, 51, 100, 2, 192, 0, 2, 1]);
        packet.extend(payload);
        Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
        packet
    }

    /// Behind destination options, which stay.
    fn v6(id: u32, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
        let word = u16::try_from(offset).unwrap() | u16::from(more);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(16 + payload.len()).unwrap().to_be_bytes());
        packet.extend([60, 64]);
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb]);
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa]);
        packet.extend([44, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend([PROTOCOL, 0]);
        packet.extend(word.to_be_bytes());
        packet.extend(id.to_be_bytes());
        packet.extend(payload);
        packet
    }

    type Cut = fn(u16, usize, bool, &[u8]) -> Vec<u8>;
    const CUTS: [Cut; 2] = [v4, |id, offset, more, payload| {
        v6(id.into(), offset, more, payload)
    }];

    #[test]
    fn any_cuts_in_any_order_give_the_packet() {
        let mut numbers = Numbers(0x1234_5678_9abc_def1);
        let (mut pool, mut completed) = (Pool::new(), 0);
        for round in 0..300u16 {
            let data: Vec<u8> = (0..numbers.below(65_000) + 9)
                .map(|_| numbers.below(256).to_le_bytes()[0])
                .collect();
            let cut = CUTS[usize::from(round) % 2];
            let most = 1 + numbers.below(2000);
            let (mut pieces, mut at) = (Vec::new(), 0);
            while at < data.len() {
                let length = ((1 + numbers.below(most)) * 8).min(data.len() - at);
                let more = at + length < data.len();
                pieces.push(cut(round, at, more, &data[at..at + length]));
                at += length;
            }
            if pieces.len() < 2 || pieces.len() > MOST_PIECES {
                continue;
            }
            for i in (1..pieces.len()).rev() {
                pieces.swap(i, numbers.below(i + 1));
            }
            let last = pieces.pop().unwrap();
            for piece in &pieces {
                assert_eq!(pool.add(piece), Ok(None));
            }
            let twice = pool.add(&pieces[numbers.below(pieces.len())]);
            assert_eq!(twice, Err(DropReason::Fragment), "an exact duplicate");
            let whole = pool.add(&last).unwrap().expect("all pieces");
            let Ok(Received::Packet(packet)) = ip::parse(&whole, true) else {
                panic!("a packet");
            };
            assert_eq!(u8::from(packet.protocol), PROTOCOL);
            assert!(packet.payload == data, "the bytes of round {round}");
            assert_eq!(pool.reassembly.memory(), 0);
            completed += 1;
        }
        assert!(completed > 200, "{completed} rounds were of use");
    }

    /// Fragments of few datagrams that contradict each other in all ways; `add`
    /// checks the books. What completes is made of what was sent.
    #[test]
    fn whatever_comes_the_books_are_right() {
        let mut numbers = Numbers(0x0bad_cafe_0bad_cafe);
        let (mut pool, mut completed) = (Pool::new(), 0);
        for _ in 0..100_000 {
            let cut = CUTS[numbers.below(2)];
            let (id, at) = (
                u16::try_from(numbers.below(50)).unwrap(),
                numbers.below(8) * 8,
            );
            let more = numbers.below(3) > 0;
            let most = match numbers.below(20) {
                0 => 180,
                _ => 3,
            };
            let units = 1 + numbers.below(most);
            let length = units * 8 - if more { 0 } else { numbers.below(8) };
            if at == 0 && !more {
                continue;
            }
            let payload: Vec<u8> = (at..at + length).map(|i| i.to_le_bytes()[0]).collect();
            if let Ok(Some(whole)) = pool.add(&cut(id, at, more, &payload)) {
                completed += 1;
                let Ok(Received::Packet(packet)) = ip::parse(&whole, true) else {
                    panic!("a packet");
                };
                let sent = (0..packet.payload.len()).map(|i| i.to_le_bytes()[0]);
                assert!(packet.payload.iter().copied().eq(sent));
            }
            pool.now = Instant(pool.now.0 + 10_000_000);
            while pool
                .reassembly
                .expire(pool.now, &mut pool.counters)
                .is_some()
            {}
        }
        assert!(completed > 100, "{completed} completed");
    }

    #[test]
    fn an_overlap_ends_the_datagram_and_with_ipv6_what_follows() {
        for (at, length) in [(8, 8), (0, 16), (8, 24), (16, 24), (24, 16)] {
            for (family, cut) in CUTS.into_iter().enumerate() {
                let mut pool = Pool::new();
                pool.add(&cut(9, 0, true, &[1; 8])).unwrap();
                pool.add(&cut(9, 16, true, &[1; 16])).unwrap();
                pool.add(&cut(9, 40, true, &[1; 8])).unwrap();
                let bad = pool.add(&cut(9, at, true, &vec![2; length]));
                // 8 to 16 is a hole; all others overlap.
                if at == 8 && length == 8 {
                    assert_eq!(bad, Ok(None));
                    continue;
                }
                assert_eq!(bad, Err(DropReason::Fragment), "{at} {length}");
                assert_eq!(pool.dropped(), 3, "the three that had come");
                let again = pool.add(&cut(9, 200, true, &[1; 8]));
                match family {
                    0 => assert_eq!(again, Ok(None)),
                    _ => assert_eq!(again, Err(DropReason::Fragment), "RFC 5722 4"),
                }
            }
        }
    }

    #[test]
    fn the_end_is_said_once() {
        for cut in CUTS {
            let ends: [&[(usize, bool, usize)]; 4] = [
                &[(16, false, 4), (24, false, 4)],
                &[(16, false, 4), (24, true, 8)],
                &[(16, true, 8), (8, false, 4)],
                &[(16, false, 8), (8, true, 16)],
            ];
            for pieces in ends {
                let mut pool = Pool::new();
                let [(a, more_a, len_a), (b, more_b, len_b)] = *pieces else {
                    panic!("two");
                };
                pool.add(&cut(9, a, more_a, &vec![1; len_a])).unwrap();
                let second = pool.add(&cut(9, b, more_b, &vec![1; len_b]));
                assert_eq!(second, Err(DropReason::Fragment), "{pieces:?}");
            }
        }
    }

    #[test]
    fn a_full_pool_evicts_the_oldest() {
        for cut in CUTS {
            let mut pool = Pool::new();
            for id in 0..1000 {
                pool.add(&cut(id, 0, true, &[1; 1000])).unwrap();
            }
            let held = pool.reassembly.datagrams.len();
            assert!((60..=90).contains(&held), "{held} of 1,000 B in 128 KiB");
            assert_eq!(pool.dropped(), 1000 - held as u64);
            // The last is held, and completes; the first is not.
            assert!(pool.add(&cut(999, 1000, false, &[2; 5])).unwrap().is_some());
            assert_eq!(pool.add(&cut(0, 1000, false, &[2; 5])), Ok(None));
        }
    }

    #[test]
    fn one_datagram_of_tiny_fragments_stays_within_its_bound() {
        for cut in CUTS {
            let mut pool = Pool::new();
            let most = u16::try_from(MOST_PIECES).unwrap();
            for i in 0..most {
                assert_eq!(
                    pool.add(&cut(9, usize::from(i) * 16, true, &[1; 8])),
                    Ok(None)
                );
            }
            let more = pool.add(&cut(9, 65_000, true, &[1; 8]));
            assert_eq!(more, Err(DropReason::Fragment));
            assert_eq!(pool.dropped(), most.into());
            assert!(pool.reassembly.memory() <= RECORD as u64);
        }
    }

    #[test]
    fn what_is_late_expires_oldest_first_and_names_the_first_fragment() {
        for cut in CUTS {
            let mut pool = Pool::new();
            let first = cut(1, 0, true, &[1; 64]);
            pool.add(&cut(1, 64, true, &[1; 64])).unwrap();
            pool.add(&first).unwrap();
            pool.now = Instant(1_000_000_000);
            pool.add(&cut(2, 64, true, &[1; 64])).unwrap();
            let sixty = Instant(60_000_000_000);
            assert_eq!(pool.reassembly.deadline(), Some(sixty));
            let early = Instant(sixty.0 - 1);
            assert!(pool.reassembly.expire(early, &mut pool.counters).is_none());
            let expired = pool.reassembly.expire(sixty, &mut pool.counters).unwrap();
            assert_eq!(expired.report().expect("it came").quote, first);
            assert!(pool.reassembly.expire(sixty, &mut pool.counters).is_none());
            let later = Instant(61_000_000_000);
            let expired = pool.reassembly.expire(later, &mut pool.counters).unwrap();
            assert!(expired.report().is_none());
            assert_eq!((pool.reassembly.memory(), pool.dropped()), (0, 3));
            assert_eq!(pool.reassembly.deadline(), None);
        }
    }

    #[test]
    fn the_protocol_tells_ipv4_datagrams_apart() {
        let mut pool = Pool::new();
        pool.add(&v4(1, 0, true, &[1; 8])).unwrap();
        let mut other = v4(1, 8, false, &[1; 8]);
        other[9] = 254;
        Ipv4Packet::new_unchecked(&mut other).fill_checksum();
        assert_eq!(pool.add(&other), Ok(None));
        assert!(pool.add(&v4(1, 8, false, &[1; 8])).unwrap().is_some());
        // With IPv6 what the first fragment says counts (RFC 8200 4.5).
        let mut other = v6(1, 8, false, &[1; 8]);
        other[48] = 254;
        assert_eq!(pool.add(&other), Ok(None));
        let whole = pool.add(&v6(1, 0, true, &[1; 8])).unwrap().unwrap();
        assert_eq!(whole[40], PROTOCOL);
    }
}

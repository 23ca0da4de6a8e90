//! A stretch of a byte stream in blocks of the pool: written anywhere ahead, taken
//! from the front. An empty one holds no block.
//!
//! What is to become one large packet is laid as one piece into a wide block, with
//! room for the headers before it: the packet is then lent to the host from where it
//! lies, the first time and every other.

use super::pool::{Index, NONE, Pool, Purpose, narrow};
use crate::checksum::Sum;

/// Bytes copied at once. Longer copies are left to `rep movsb` by glibc, also for the
/// component, which is slow where source and destination lie badly to each other (the
/// packet bench's row `tcp 65535 out 1` takes a third longer with 8 KiB at once).
const COPIED: usize = 2048;

/// Positions count bytes from the front of the stretch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    head: Index,
    tail: Index,
    /// Where the front lies in what the first block holds.
    start: u32,
    /// Bytes that the blocks hold, from the first of the first block on.
    held: u32,
    /// A block that was used lately, and how many bytes the blocks before it hold.
    near: Index,
    near_at: u32,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
        start: 0,
        held: 0,
        near: NONE,
        near_at: 0,
    };

    /// How far the blocks reach from the front.
    pub(crate) fn reach(&self) -> usize {
        (self.held - self.start) as usize
    }

    /// Whether it holds no block.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// Makes the blocks reach `length` bytes from the front, or as far as the pool
    /// has blocks for. Returns how far that is.
    pub(crate) fn extend(
        &mut self,
        pool: &mut Pool,
        length: usize,
        first: Purpose,
        more: Purpose,
    ) -> usize {
        while self.reach() < length {
            let purpose = if self.is_empty() { first } else { more };
            let Some(block) = pool.take(purpose) else {
                break;
            };
            self.append(pool, block);
        }
        self.reach().min(length)
    }

    fn append(&mut self, pool: &mut Pool, block: Index) {
        if self.is_empty() {
            self.head = block;
            (self.near, self.near_at) = (block, 0);
        } else {
            pool.link(self.tail, block);
        }
        self.tail = block;
        self.held += narrow(pool.length(block));
    }

    /// Lays the bytes from `at` to `end`, which are stored, and then `data` as one piece
    /// into a wide block; nothing else is stored from `at` on. Says whether there is
    /// such a block. None is taken where another one would have to be cut: a peer that
    /// takes a byte at a time could make many of them that hold a byte each.
    pub(crate) fn lay(
        &mut self,
        pool: &mut Pool,
        at: usize,
        end: usize,
        data: &[u8],
        purpose: Purpose,
    ) -> bool {
        let (begun, offset) = self.seek(pool, at);
        if offset > 0 && pool.is_wide(begun) {
            return false;
        }
        let stored = end - at;
        let Some(block) = pool.take_wide(purpose, stored + data.len()) else {
            return false;
        };
        pool.lay(block, |pool, space| {
            let (front, rest) = space.split_at_mut(stored);
            let sum = self.read(pool, at, front);
            sum.then(Sum::default().copy(rest, data))
        });
        self.cut(pool, at);
        self.append(pool, block);
        true
    }

    /// The block that holds just the `length` bytes from a position on as one piece,
    /// and their sum.
    pub(crate) fn laid(&mut self, pool: &Pool, at: usize, length: usize) -> Option<(Index, Sum)> {
        let (block, offset) = self.seek(pool, at);
        let sum = pool.sum(block)?;
        (offset == 0 && pool.length(block) == length).then_some((block, sum))
    }

    /// Lets the blocks reach to a position and no further.
    fn cut(&mut self, pool: &mut Pool, at: usize) {
        let Some(last) = at.checked_sub(1) else {
            self.clear(pool);
            return;
        };
        let (block, offset) = self.seek(pool, last);
        pool.shorten(block, offset + 1);
        let mut beyond = pool.link(block, NONE);
        while beyond != NONE {
            beyond = pool.give(beyond);
        }
        self.tail = block;
        self.held = self.start + narrow(at);
    }

    /// Writes bytes at a position; the blocks reach beyond them.
    pub(crate) fn write(&mut self, pool: &mut Pool, at: usize, mut data: &[u8]) {
        let (mut block, mut offset) = self.seek(pool, at);
        while !data.is_empty() && block != NONE {
            let space = &mut pool.bytes_mut(block)[offset..];
            let (now, later) = data.split_at(data.len().min(space.len()));
            for (to, from) in space.chunks_mut(COPIED).zip(now.chunks(COPIED)) {
                to[..from.len()].copy_from_slice(from);
            }
            data = later;
            if !data.is_empty() {
                (block, offset) = (pool.next(block), 0);
            }
        }
        debug_assert!(data.is_empty(), "the chain was extended before");
    }

    /// Reads bytes from a position, and sums them up on the way; the blocks reach
    /// beyond them.
    pub(crate) fn read(&mut self, pool: &Pool, at: usize, mut out: &mut [u8]) -> Sum {
        let mut sum = Sum::default();
        let (mut block, mut offset) = self.seek(pool, at);
        while !out.is_empty() && block != NONE {
            let bytes = &pool.bytes(block)[offset..];
            let (now, later) = out.split_at_mut(out.len().min(bytes.len()));
            sum = sum.copy(now, &bytes[..now.len()]);
            out = later;
            if !out.is_empty() {
                (block, offset) = (pool.next(block), 0);
            }
        }
        debug_assert!(out.is_empty(), "only what was written is read");
        sum
    }

    /// Writes bytes at a position, and to `out`, which is as long; sums them up on the
    /// way. The blocks reach beyond them.
    pub(crate) fn write_and_read(
        &mut self,
        pool: &mut Pool,
        at: usize,
        mut data: &[u8],
        mut out: &mut [u8],
    ) -> Sum {
        let mut sum = Sum::default();
        let (mut block, mut offset) = self.seek(pool, at);
        while !data.is_empty() && block != NONE {
            let space = &mut pool.bytes_mut(block)[offset..];
            let (now, later) = data.split_at(data.len().min(space.len()));
            let (out_now, out_later) = out.split_at_mut(now.len());
            sum = sum.copy_twice(&mut space[..now.len()], out_now, now);
            (data, out) = (later, out_later);
            if !data.is_empty() {
                (block, offset) = (pool.next(block), 0);
            }
        }
        debug_assert!(data.is_empty(), "the chain was extended before");
        sum
    }

    /// The first bytes, as many of `length` as lie in one block.
    pub(crate) fn front<'a>(&self, pool: &'a Pool, length: usize) -> &'a [u8] {
        let bytes = pool.bytes(self.head);
        let start = (self.start as usize).min(bytes.len());
        let end = (start + length).min(bytes.len());
        &bytes[start..end]
    }

    /// Takes bytes off the front.
    pub(crate) fn consume(&mut self, pool: &mut Pool, length: usize) {
        let mut start = self.start + narrow(length);
        while self.head != NONE {
            let held = narrow(pool.length(self.head));
            if start < held {
                break;
            }
            let next = pool.give(self.head);
            match self.near == self.head {
                true => (self.near, self.near_at) = (next, 0),
                false => self.near_at -= held,
            }
            self.head = next;
            self.held -= held;
            start -= held;
        }
        if self.is_empty() {
            *self = Self::EMPTY;
        } else {
            self.start = start;
        }
    }

    /// Gives all blocks back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        let mut block = self.head;
        while block != NONE {
            block = pool.give(block);
        }
        *self = Self::EMPTY;
    }

    /// The block that a position lies in, and where.
    fn seek(&mut self, pool: &Pool, at: usize) -> (Index, usize) {
        let at = self.start as usize + at;
        let (mut block, mut before) = match self.near_at as usize <= at {
            true => (self.near, self.near_at as usize),
            false => (self.head, 0),
        };
        while block != NONE {
            let length = pool.length(block);
            if at - before < length {
                break;
            }
            before += length;
            block = pool.next(block);
        }
        if block != NONE {
            self.near = block;
            self.near_at = narrow(before);
        }
        (block, at - before)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::tcp::pool::{BLOCK, WIDE};

    fn data(length: u32) -> Vec<u8> {
        (0..length).map(|i| (i % 251).to_le_bytes()[0]).collect()
    }

    fn contents(chain: &mut Chain, pool: &Pool, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        let sum = chain.read(pool, 0, &mut out);
        assert_eq!(sum.finish(), Sum::default().add(&out).finish());
        out
    }

    /// Laid in turn with what is written, taken off in steps that fall anywhere.
    #[test]
    fn what_is_laid_is_one_piece_and_keeps_its_place() {
        let more = Purpose::SendMore;
        for step in [1, 1000, BLOCK, 50_000, 60_000] {
            let mut pool = Pool::new(4 << 20);
            let mut chain = Chain::EMPTY;
            let data = data(400_000);
            // 999 bytes are written, and then belong to what is laid, an odd number.
            assert_eq!(chain.extend(&mut pool, 20_999, more, more), 20_999);
            chain.write(&mut pool, 0, &data[..20_999]);
            assert!(chain.lay(&mut pool, 20_000, 20_999, &data[20_999..80_000], more));
            assert_eq!(chain.reach(), 80_000);
            // The first block and two that hold what is left of the second and third.
            assert_eq!(pool.memory(), 3 * BLOCK as u64 + WIDE as u64);
            assert!(chain.lay(&mut pool, 80_000, 80_000, &data[80_000..140_000], more));
            assert_eq!(chain.extend(&mut pool, 141_000, more, more), 141_000);
            chain.write(&mut pool, 140_000, &data[140_000..141_000]);
            assert_eq!(contents(&mut chain, &pool, 141_000), data[..141_000]);

            let (block, sum) = chain.laid(&pool, 20_000, 60_000).unwrap();
            assert_eq!(pool.bytes(block), &data[20_000..80_000]);
            assert_eq!(sum.finish(), Sum::default().add(pool.bytes(block)).finish());
            let packet = pool.packet_mut(block, 100).unwrap();
            assert_eq!(packet.len(), 60_100);
            packet[..100].fill(0xff);
            assert!(pool.packet_mut(block, 1000).is_none());
            assert_eq!(contents(&mut chain, &pool, 141_000), data[..141_000]);
            for (at, length) in [
                (20_000, 59_999),
                (20_001, 59_999),
                (0, 20_000),
                (140_000, 1),
            ] {
                let laid = chain.laid(&pool, at, length);
                assert!(laid.is_none(), "{at} {length}");
            }

            let mut taken = 0;
            while taken + step < 141_000 {
                chain.consume(&mut pool, step);
                taken += step;
                let rest = contents(&mut chain, &pool, 141_000 - taken);
                assert_eq!(rest, data[taken..141_000]);
                if step == 1 && taken == 70 {
                    break;
                }
            }
            chain.clear(&mut pool);
            assert_eq!(pool.memory(), 0);
        }
    }

    #[test]
    fn what_was_laid_is_not_cut() {
        let more = Purpose::SendMore;
        let mut pool = Pool::new(4 << 20);
        let mut chain = Chain::EMPTY;
        let data = data(130_000);
        assert!(chain.lay(&mut pool, 0, 0, &data[..60_000], more));
        assert!(chain.laid(&pool, 0, 60_000).is_some());
        assert!(!chain.lay(&mut pool, 59_000, 60_000, &data[60_000..119_000], more));
        assert!(chain.laid(&pool, 0, 60_000).is_some());
        assert!(chain.lay(&mut pool, 60_000, 60_000, &data[60_000..120_000], more));
        chain.consume(&mut pool, 59_000);
        assert!(!chain.lay(&mut pool, 0, 61_000, &[], more));
        assert_eq!(contents(&mut chain, &pool, 61_000), data[59_000..120_000]);
        // All of it is laid anew.
        chain.consume(&mut pool, 1000);
        assert!(chain.lay(&mut pool, 0, 60_000, &data[120_000..121_000], more));
        assert_eq!(contents(&mut chain, &pool, 61_000), data[60_000..121_000]);
        assert_eq!(pool.memory(), WIDE as u64);
    }

    #[test]
    fn nothing_is_laid_without_memory_and_nothing_lost() {
        let (first, more) = (Purpose::SendFirst, Purpose::SendMore);
        let mut pool = Pool::new(16 * BLOCK as u64);
        let mut chain = Chain::EMPTY;
        let data = data(70_000);
        assert_eq!(chain.extend(&mut pool, 7 * BLOCK, first, more), 7 * BLOCK);
        chain.write(&mut pool, 0, &data[..7 * BLOCK]);
        assert!(!chain.lay(&mut pool, 0, 7 * BLOCK, &data[7 * BLOCK..60_000], more));
        assert_eq!(contents(&mut chain, &pool, 7 * BLOCK), data[..7 * BLOCK]);
        assert!(!chain.lay(&mut pool, 0, 7 * BLOCK, &[0; WIDE], first));
    }

    #[test]
    fn a_stream_goes_through_in_odd_pieces() {
        let mut pool = Pool::new(1 << 20);
        let mut chain = Chain::EMPTY;
        let data = data(40_000);
        let (mut written, mut taken, mut at) = (0, 0, 0usize);
        let mut out = Vec::new();
        while out.len() < data.len() {
            at = (at * 31 + 977) % 5000;
            let length = at.min(data.len() - written);
            let reach = chain.extend(
                &mut pool,
                written - taken + length,
                Purpose::SendFirst,
                Purpose::SendMore,
            );
            assert_eq!(reach, written - taken + length);
            let (now, at_front) = (&data[written..written + length], written - taken);
            if length % 2 == 0 {
                chain.write(&mut pool, at_front, now);
            } else {
                let mut copy = vec![0; length];
                let sum = chain.write_and_read(&mut pool, at_front, now, &mut copy);
                assert_eq!(copy, now);
                assert_eq!(sum.finish(), Sum::default().add(now).finish());
            }
            written += length;
            let mut copy = vec![0; written - taken];
            let sum = chain.read(&pool, 0, &mut copy);
            assert_eq!(copy, data[taken..written]);
            assert_eq!(sum.finish(), Sum::default().add(&copy).finish());
            let front = chain.front(&pool, (written - taken).min(3000)).to_vec();
            chain.consume(&mut pool, front.len());
            taken += front.len();
            out.extend(front);
            if taken == written {
                chain.clear(&mut pool);
                assert_eq!(pool.memory(), 0);
            }
        }
        assert_eq!(out, data);
    }

    #[test]
    fn what_comes_ahead_stays_where_it_belongs() {
        let mut pool = Pool::new(1 << 20);
        let mut chain = Chain::EMPTY;
        chain.extend(
            &mut pool,
            30_000,
            Purpose::ReceiveFirst,
            Purpose::ReceiveMore,
        );
        chain.write(&mut pool, 20_000, &[2; 10_000]);
        chain.write(&mut pool, 0, &[1; 20_000]);
        chain.consume(&mut pool, 19_999);
        let mut out = [0; 3];
        chain.read(&pool, 0, &mut out);
        assert_eq!(out, [1, 2, 2]);
        chain.consume(&mut pool, 10_001);
        assert_eq!(chain.reach(), 4 * BLOCK - 30_000);
        chain.clear(&mut pool);
        assert_eq!(pool.memory(), 0);
    }
}

//! The Internet checksum (RFC 1071), fast enough inside wasm.

use core::net::IpAddr;

/// A partial one's complement sum, in little-endian byte order: the sum does not
/// care about the order (RFC 1071 2(B)) as long as all parts agree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    sum: u64,
    /// The bytes so far are odd in number.
    odd: bool,
}

impl Sum {
    /// The sum over the pseudo-header of IPv4 (RFC 9293 3.1) or IPv6 (RFC 8200
    /// 8.1); both come to the same form.
    pub(crate) fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Self {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let length = u64::from(u32::from_le_bytes(length.to_be_bytes()));
        let protocol = u64::from(u16::from_le_bytes([0, protocol]));
        Self {
            sum: address(src) + address(dst) + length + protocol,
            odd: false,
        }
    }

    /// Adds the bytes that follow.
    #[inline]
    pub(crate) fn add(self, data: &[u8]) -> Self {
        let (blocks, rest) = data.as_chunks();
        let blocks = if blocks.is_empty() {
            0
        } else {
            sum_of_blocks(blocks)
        };
        self.join(blocks + sum_of_rest(rest), data.len())
    }

    /// Adds the bytes that follow and copies them, of the same length, in one pass:
    /// they come into the cache, and through it, once.
    pub(crate) fn copy(self, to: &mut [u8], from: &[u8]) -> Self {
        debug_assert_eq!(to.len(), from.len(), "the copy is whole");
        let (blocks, rest) = from.as_chunks();
        let (to_blocks, to_rest) = to.as_chunks_mut();
        let blocks = copy_blocks(to_blocks, blocks);
        to_rest.copy_from_slice(rest);
        self.join(blocks + sum_of_rest(rest), from.len())
    }

    /// As `copy`, to two places.
    pub(crate) fn copy_twice(self, to: &mut [u8], also: &mut [u8], from: &[u8]) -> Self {
        debug_assert_eq!(to.len(), from.len(), "the copy is whole");
        debug_assert_eq!(also.len(), from.len(), "the copy is whole");
        let (blocks, rest) = from.as_chunks();
        let (to_blocks, to_rest) = to.as_chunks_mut();
        let (also_blocks, also_rest) = also.as_chunks_mut();
        let blocks = copy_blocks_twice(to_blocks, also_blocks, blocks);
        to_rest.copy_from_slice(rest);
        also_rest.copy_from_slice(rest);
        self.join(blocks + sum_of_rest(rest), from.len())
    }

    /// Adds what another sum began with the bytes that follow.
    pub(crate) fn then(self, other: Self) -> Self {
        self.join(other.sum, usize::from(other.odd))
    }

    /// Adds the sum of the `length` bytes that follow. After an odd number of bytes
    /// its halves change places (RFC 1071 2(B)).
    #[inline]
    fn join(self, sum: u64, length: usize) -> Self {
        let sum = match self.odd {
            true => fold(sum).rotate_left(8).into(),
            // At most 2^30 for each byte: 8 GiB do not overflow.
            false => sum,
        };
        Self {
            sum: self.sum + sum,
            odd: self.odd != (length % 2 == 1),
        }
    }

    /// The value for the checksum field, in network order. Over data that holds
    /// a correct checksum it is `[0, 0]`.
    pub(crate) fn finish(self) -> [u8; 2] {
        let sum = fold(self.sum);
        // As in `fold`: the sum of the two halves is the upper half of this.
        let [.., low, high] = sum.wrapping_add(sum.rotate_left(16)).to_le_bytes();
        [!low, !high]
    }

    /// Whether the data summed up holds a correct checksum.
    pub(crate) fn is_correct(self) -> bool {
        self.finish() == [0, 0]
    }
}

/// Bytes that are summed up in a turn of a loop: as many as there are registers for the
/// sums, so that the loop's own instructions count little and enough stores are under
/// way.
const BLOCK: usize = 64;
const WORDS: usize = BLOCK / 4;

/// The sums of a block's words of 32 bits, and of their upper halves: what the
/// compiler makes of it are vector instructions (SSE2, simd128 in the component),
/// four for 16 bytes.
struct Lanes {
    /// Modulo 2^32.
    all: [u32; WORDS],
    upper: [u32; WORDS],
}

impl Lanes {
    const ZERO: Self = Self {
        all: [0; WORDS],
        upper: [0; WORDS],
    };

    /// 2^16 blocks, 4 MiB, do not overflow the upper halves' sums.
    fn add(&mut self, words: [u32; WORDS]) {
        for ((all, upper), word) in self.all.iter_mut().zip(&mut self.upper).zip(words) {
            *all = all.wrapping_add(word);
            *upper = upper.wrapping_add(word >> 16);
        }
    }

    fn sum(&self) -> u64 {
        let lanes = self.all.iter().zip(&self.upper);
        lanes
            .map(|(all, upper)| {
                // The sum of the lower halves is less than 2^32, too.
                let lower = all.wrapping_sub(upper << 16);
                u64::from(lower) + u64::from(*upper)
            })
            .sum()
    }
}

/// A function of its own: the sums of headers around it are a few instructions.
#[inline(never)]
fn sum_of_blocks(blocks: &[[u8; BLOCK]]) -> u64 {
    let mut lanes = Lanes::ZERO;
    for block in blocks {
        lanes.add(words(block));
    }
    lanes.sum()
}

/// A function of its own: of arguments the compiler knows that they do not overlap.
/// Inlined it takes twice as many instructions.
#[inline(never)]
fn copy_blocks(to: &mut [[u8; BLOCK]], from: &[[u8; BLOCK]]) -> u64 {
    let mut lanes = Lanes::ZERO;
    for (to, from) in to.iter_mut().zip(from) {
        let words = words(from);
        put(to, words);
        lanes.add(words);
    }
    lanes.sum()
}

#[inline(never)]
fn copy_blocks_twice(
    to: &mut [[u8; BLOCK]],
    also: &mut [[u8; BLOCK]],
    from: &[[u8; BLOCK]],
) -> u64 {
    let mut lanes = Lanes::ZERO;
    for ((to, also), from) in to.iter_mut().zip(also).zip(from) {
        let words = words(from);
        put(to, words);
        put(also, words);
        lanes.add(words);
    }
    lanes.sum()
}

fn put(block: &mut [u8; BLOCK], words: [u32; WORDS]) {
    let (block_words, _) = block.as_chunks_mut();
    for (to, word) in block_words.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
}

fn words(block: &[u8; BLOCK]) -> [u32; WORDS] {
    let (words, _) = block.as_chunks();
    core::array::from_fn(|i| u32::from_le_bytes(words[i]))
}

/// The sum of less than a block: 8 bytes at once, a carry coming back in as RFC 1071
/// 2(C) says, and the rest.
#[inline]
fn sum_of_rest(bytes: &[u8]) -> u64 {
    let (words, mut rest) = bytes.as_chunks();
    let mut all = 0u64;
    for word in words {
        let (sum, carry) = all.overflowing_add(u64::from_le_bytes(*word));
        all = sum + u64::from(carry);
    }
    let mut sum = u64::from(fold(all));
    if let Some((word, more)) = rest.split_first_chunk() {
        sum += u64::from(u32::from_le_bytes(*word));
        rest = more;
    }
    if let Some((half, more)) = rest.split_first_chunk() {
        sum += u64::from(u16::from_le_bytes(*half));
        rest = more;
    }
    sum + rest.first().map_or(0, |last| u64::from(*last))
}

fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u32::from_le_bytes(address.octets()).into(),
        IpAddr::V6(address) => sum_of_rest(&address.octets()),
    }
}

/// The one's complement sum of the two halves. What is carried out of the lower of
/// them is just what is missing in the upper.
fn fold(sum: u64) -> u32 {
    (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// RFC 1071 as written: 16 bits at a time.
    fn by_the_book(data: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        (!u16::try_from(sum).unwrap()).to_be_bytes()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), (!0xddf2u16).to_be_bytes());
    }

    #[test]
    fn every_length_agrees_with_the_book() {
        let data: Vec<u8> = (0..600u32)
            .map(|i| (i * 167 + 255).to_le_bytes()[0])
            .collect();
        for length in 0..data.len() {
            assert_eq!(
                Sum::default().add(&data[..length]).finish(),
                by_the_book(&data[..length])
            );
        }
        let ones = [0xff; 65_535];
        assert_eq!(Sum::default().add(&ones).finish(), by_the_book(&ones));
    }

    #[test]
    fn pieces_make_the_sum_of_the_whole() {
        let data: Vec<u8> = (0..300u32)
            .map(|i| (i * 167 + 255).to_le_bytes()[0])
            .collect();
        let whole = by_the_book(&data);
        for first in 0..data.len() {
            for second in [0, 1, 31, 32, 33, 64].map(|more| data.len().min(first + more)) {
                let pieces = [&data[..first], &data[first..second], &data[second..]];
                let mut to = [0; 300];
                let (to_first, to_rest) = to.split_at_mut(first);
                let (to_second, to_third) = to_rest.split_at_mut(second - first);
                let added = Sum::default().add(pieces[0]);
                assert_eq!(added.add(pieces[1]).add(pieces[2]).finish(), whole);
                let tail = Sum::default().copy(to_second, pieces[1]).add(pieces[2]);
                assert_eq!(added.then(tail).finish(), whole);
                to_first.copy_from_slice(pieces[0]);
                to_third.copy_from_slice(pieces[2]);
                assert_eq!(to[..], data[..]);
                let (mut one, mut other) = ([0; 300], [0; 300]);
                let (one, other) = (&mut one[first..], &mut other[first..]);
                let rest = Sum::default().copy_twice(one, other, &data[first..]);
                assert_eq!(added.then(rest).finish(), whole);
                assert_eq!((&*one, &*other), (&data[first..], &data[first..]));
            }
        }
    }
}
